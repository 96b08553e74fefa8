"""The blocks of an evaluation's page: headlines, curves, tables, retrieval with pictures, settings."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np

from kvlp.errors import DataError
from kvlp.eval.intervals import Interval
from kvlp.eval.metrics import roc_curve
from kvlp.eval.page.blocks import (
    Bars,
    Block,
    Cell,
    Charts,
    GridRow,
    Headline,
    Headlines,
    ImageGrid,
    Notice,
    Section,
    Settings,
    Table,
    Tile,
    png_uri,
)
from kvlp.eval.page.charts import Chart, Forest, Lines, Series, shared_limits
from kvlp.eval.page.negation import negation_blocks

if TYPE_CHECKING:
    from kvlp.datasets.manifest import Manifest
    from kvlp.eval.evaluate import Evaluation
    from kvlp.eval.figures import QueryOutcome
    from kvlp.eval.results import Result

__all__ = ["control_blocks", "evaluation_blocks", "loss_charts", "timing_bars"]

_T = TypeVar("_T")
_KINDS = {"POS": "“there is X”", "NEG": "“there is no X”, turned round", "PAIR": "both combined", "VERSUS": "A minus B"}


def evaluation_blocks(
    result: Evaluation,
    *,
    manifest: Manifest | None = None,
    with_images: bool = False,
    synthetic: bool = False,
    controls: Sequence[Result] = (),
    before_settings: Sequence[Block] = (),
) -> list[Block]:
    """The whole page of an evaluation.

    Args:
        result: what `evaluate` returned.
        manifest: where the pictures are; needed with `with_images`.
        with_images: put pictures into the page. Only for synthetic data, or when the user said so: they are patients'.
        synthetic: say on top that nothing here was measured on patients.
        controls: rows of `control_results` and `difference_results`.
        before_settings: further blocks (training curves), put before the settings.
    """
    blocks: list[Block] = [Notice(_SYNTHETIC)] if synthetic else []
    blocks.append(_headlines(result))
    if result.skipped:
        shown = "; ".join(f"row {row}" for row, _ in result.skipped[:8])
        more = f" and {len(result.skipped) - 8} more" if len(result.skipped) > 8 else ""
        blocks.append(
            Notice(f"{len(result.skipped)} images could not be read and are not scored: {shown}{more}.", "bad")
        )
    blocks += _classification(result)
    blocks += negation_blocks(result.negation) if result.negation is not None else []
    if controls:
        blocks += control_blocks(controls)
    blocks += _retrieval(result, manifest, with_images=with_images)
    return [*blocks, *before_settings, *_settings(result)]


def control_blocks(rows: Sequence[Result]) -> list[Block]:
    """Controls and baselines with our difference to each; then other models, a column for each score compared."""
    gaps = {(row.setting, row.target, row.group): row for row in rows if row.metric != "auc"}
    table: list[list[Cell]] = []
    strong: set[int] = set()
    for control in (row for row in rows if row.metric == "auc"):
        own = (control.setting, control.target, control.group)
        key = next((k for k in gaps if (_against(gaps[k]), *k[1:]) == own), None)
        gap = gaps.pop(key) if key else None
        if control.target == "macro":
            strong.add(len(table))
        first: Cell = (_target(control), _compared(gap or control))
        table.append([first, _interval(control), _interval(gap) if gap else None])
    text = "What can be had without this model. Where the interval of a difference holds 0, no difference is shown."
    blocks: list[Block] = [Section("Controls and comparisons", text)]
    if table:
        columns = ["class", "AUC of the control", "ours minus control"]
        blocks.append(Table(columns, table, strong=frozenset(strong), note=_NOTE))
    return blocks + ([_comparisons(gaps)] if gaps else [])


def _comparisons(gaps: Mapping[tuple[str, str, str], Result]) -> Table:
    """A line a class, a column for each score of ours minus the same score of another model."""
    titles = {setting: _compared(row) for (setting, _, _), row in gaps.items()}
    lines = {(target, group): row for (_, target, group), row in gaps.items()}
    rows: list[list[Cell]] = []
    for key, row in lines.items():
        found = [gaps.get((setting, *key)) for setting in titles]
        rows.append([_target(row), *(_interval(gap) if gap else None for gap in found)])
    strong = frozenset(i for i, (target, _) in enumerate(lines) if target == "macro")
    return Table(["AUC of ours minus another's", *titles.values()], rows, strong=strong, note=_NOTE)


def _against(row: Result) -> str:
    """The control's name in a row of a difference ("PAIR minus source only")."""
    return row.setting.split(" minus ", 1)[-1]


def _compared(row: Result) -> str:
    """What a row compares, in words: "both combined, minus source only"."""
    kind, minus, other = row.setting.partition(" minus ")
    return f"{_KINDS.get(kind, kind)}, minus {other}" if minus else row.setting


def loss_charts(rows: Iterable[Mapping[str, object]], *, x: str = "step") -> Charts:
    """Curves of every loss part and of further numbers in the rows of a run's metrics.jsonl.

    Args:
        rows: dicts with `x` and numbers; names that begin with "loss" share the first chart.
        x: key of the horizontal axis.
    """
    table = [row for row in rows if isinstance(row.get(x), int | float)]
    names = dict.fromkeys(k for row in table for k, v in row.items() if isinstance(v, int | float) and k != x)
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault("loss" if name.startswith("loss") else name, []).append(name)
    charts: list[Chart] = []
    for title, members in groups.items():
        series = [Series(name, *_points(table, x, name)) for name in members[:8]]
        shown = series if len(series) > 1 else [Series("", s.x, s.y) for s in series]
        charts.append(Lines(title, shown, x_label=x, y_from_zero=title == "loss"))
    return Charts(charts)


def timing_bars(timings: Mapping[str, float], caption: str = "Where the time went") -> Bars:
    """Seconds of each step as bars."""
    return Bars(timings, "s", caption)


_NOTE = "Small print: 95 % interval. Bold: mean over the classes of a group, each class counting alike."


_SYNTHETIC = (
    "Drawn radiographs, not patients: these figures show that the parts work together. They say nothing about how well "
    "a model reads real radiographs."
)


def _headlines(result: Evaluation) -> Headlines:
    rows = {(r.metric, r.setting, r.target, r.group): r for r in result.results}
    items = []
    for row in result.results:
        if row.metric == "auc" and row.setting == "POS" and _leads(row, result):
            label = (
                f"AUC, {_plain(row.target)}"
                if row.target != "macro"
                else ("Mean AUC" if row.group == "all" else f"Mean AUC: {row.group}")
            )
            others = {kind: rows.get(("auc", kind, row.target, row.group)) for kind in ("NEG", "PAIR", "VERSUS")}
            words = {"NEG": "“there is no X”", "PAIR": "both", "VERSUS": "A minus B"}
            rest = "; ".join(f"{words[kind]} {other.value:.3f}" for kind, other in others.items() if other)
            items.append(Headline(label, _interval(row), f"{_task(row)} by “there is X”. By {rest}."))
        elif row.metric.startswith(("precision_at", "lift_at")) and row.target == "all queries":
            k = row.metric.rsplit("_", 1)[1]
            name = f"Precision at {k}, text to image" if "precision" in row.metric else "Its lift over prevalence"
            items.append(Headline(name, _interval(row), f"{row.n} queries; interval over what they ask for"))
        elif row.metric == "recall_at_10":
            pool = row.definition.split("pool of ")[1].split(",")[0]
            items.append(Headline("Own report among the best 10", _interval(row), f"pool of {pool}"))
    return Headlines(items)


def _task(row: Result) -> str:
    return "Scored" if row.task in ("not known", "mixed") else _upper(row.task)


def _leads(row: Result, result: Evaluation) -> bool:
    """Whether a row is a headline: the mean of each group, of all classes if there is none, or the only class."""
    if len(result.classes) == 1:
        return True
    return row.target == "macro" and (row.group != "all" or not result.groups)


def _classification(result: Evaluation) -> list[Block]:
    tables = {setting: table for (metric, setting), table in result.tables.items() if metric == "auc"}
    groups = result.groups or {"": result.classes}
    text = (
        "Area under the ROC curve of each class, by the sentence that states it, the one that denies it, and both. "
        "A model that reads the name and not the “no” falls below 0.5 on the denying sentence."
    )
    blocks: list[Block] = [Section("Classification", text)]
    kinds = [kind for kind in ("POS", "NEG", "PAIR", "VERSUS") if kind in tables]
    shown = [i for kind in kinds for i in tables[kind].per_class.values()]
    limits = shared_limits(shown, reference=0.5)
    forests: list[Chart] = []
    curves: list[Chart] = []
    for group, names in groups.items():
        rows = [(_plain(name), [tables[kind].per_class.get(name) for kind in kinds]) for name in names]
        for title, part in _titled(f"AUC: {group}" if group else "AUC", rows, 12):
            labels = [_KINDS[kind] for kind in kinds]
            forests.append(Forest(title, part, labels, x_label="AUC, 95 % interval", reference=0.5, limits=limits))
        curves += _roc(result, group, names)
    note = "By both sentences combined."
    return [*blocks, Charts(forests), _class_table(result, kinds), Section("ROC curves", note), Charts(curves)]


def _class_table(result: Evaluation, kinds: Sequence[str]) -> Table:
    rows: list[list[Cell]] = []
    strong = set()
    wanted = [r for r in result.results if r.metric == "auc" and r.setting == "POS"]
    others = {(r.metric, r.setting, r.target, r.group): r for r in result.results}
    for row in wanted:
        key = (row.target, row.group)
        cells = [others.get(("auc", kind, *key)) for kind in kinds] + [others.get(("average_precision", "PAIR", *key))]
        if row.target == "macro":
            strong.add(len(rows))
        counts: Cell = None if row.target == "macro" else (f"{row.n_positive:,}", f"of {row.n:,}")
        rows.append(
            [
                (_target(row), "" if row.task == "not known" else row.task),
                counts,
                *(_interval(cell) if cell else None for cell in cells),
            ]
        )
    heads = {"POS": "AUC, “there is X”", "NEG": "AUC, “no X”", "PAIR": "AUC, both", "VERSUS": "AUC, A minus B"}
    columns = ["class", "positive", *(heads[kind] for kind in kinds), "AP, both"]
    undefined = sorted({_plain(name) for table in result.tables.values() for name in table.undefined})
    few = sorted({_plain(r.target) for r in wanted if any(note.startswith("only") for note in r.notes)})
    note = _NOTE + " AP: average precision; chance gives the share of positives."
    note += (
        f" Undefined for want of positives or negatives, and in no mean: {', '.join(undefined)}." if undefined else ""
    )
    note += f" Fewer than 10 positives or negatives, not to be relied on: {', '.join(few)}." if few else ""
    return Table(columns, rows, caption="AUC and average precision by class", strong=frozenset(strong), note=note)


def _roc(result: Evaluation, group: str, names: Sequence[str]) -> list[Chart]:
    charts: list[Chart] = []
    for title, part in _titled(f"ROC: {group}" if group else "ROC", names, 6):
        series = []
        for name in part:
            column = result.classes.index(name)
            rates = roc_curve(result.y_true[:, column], result.scores["PAIR"][:, column])
            value = result.tables["auc", "PAIR"].per_class[name].value
            if not math.isnan(value):
                series.append(Series(_plain(name), rates[0], rates[1], f"AUC {value:.3f}"))
        if series:
            charts.append(Lines(title, series, "false positive rate", "true positive rate", diagonal=True))
    return charts


def _retrieval(result: Evaluation, manifest: Manifest | None, *, with_images: bool) -> list[Block]:
    blocks: list[Block] = []
    recall = [row for row in result.results if row.metric.startswith("recall_at")]
    if not result.queries and not recall:
        return blocks
    blocks.append(Section("Retrieval", "Images found by a sentence, and reports found by an image."))
    if result.queries:
        blocks.append(_query_table(result))
    if recall:
        blocks.append(_report_table(recall))
    if not result.queries:
        return blocks
    shown = with_images and manifest is not None
    caption = "" if shown else "Pictures are left out: they are of patients. --with-images puts them in."
    grid = [_grid_row(query, result, manifest if shown else None) for query in result.queries]
    return [*blocks, Section("Search results"), ImageGrid(grid, caption)]


def _query_table(result: Evaluation) -> Table:
    k = result.options.k
    rows: list[list[Cell]] = [
        [(q.query.text, f"relevant: {_plain(q.query.target)}"), q.precision, q.prevalence, _lift(q), q.pool]
        for q in result.queries
    ]
    total = {row.metric: row for row in result.results if row.target == "all queries"}
    mean, lift = total[f"precision_at_{k}"], total[f"lift_at_{k}"]
    rows.append(["all queries", _interval(mean), None, _interval(lift), None])
    columns = ["query", f"precision at {k}", "prevalence", "lift", "pool"]
    note = f"Interval of the mean: {mean.method}. Lift: precision over the prevalence that chance would give."
    return Table(columns, rows, "Text to image", frozenset({len(rows) - 1}), note)


def _report_table(recall: Sequence[Result]) -> Table:
    rows: list[list[Cell]] = [
        [f"among the best {row.metric.rsplit('_', 1)[1]}", _interval(row), row.n] for row in recall
    ]
    note = "; ".join(part for part in recall[0].definition.split("; ") if not part.startswith("chance"))
    chances = ", ".join(row.definition.rsplit("chance ", 1)[1] for row in recall)
    columns = ["own report", "share of images", "images"]
    return Table(columns, rows, "Image to report", note=f"{_upper(note)}. By chance: {chances}.")


def _lift(query: QueryOutcome) -> float | None:
    return query.precision / query.prevalence if query.prevalence > 0 else None


def _grid_row(outcome: QueryOutcome, result: Evaluation, manifest: Manifest | None) -> GridRow:
    tiles = []
    for row, score, relevant in outcome.hits:
        verdict: Literal["good", "bad"] = "good" if relevant == 1 else "bad"
        image = _picture(manifest, result, row) if manifest is not None else ""
        tiles.append(Tile(image, f"{score:.2f}", verdict, f"image {row + 1}"))
    if math.isnan(outcome.precision):
        return GridRow(outcome.query.text, f"No image is labelled {_plain(outcome.query.target)}.", tiles)
    lift = _lift(outcome)
    found = f"precision {outcome.precision:.2f}, prevalence {outcome.prevalence:.3f}, lift {lift:.1f}" if lift else ""
    return GridRow(outcome.query.text, f"Relevant: {_plain(outcome.query.target)}. {found}", tiles)


def _picture(manifest: Manifest, result: Evaluation, row: int) -> str:
    from kvlp.datasets.images import load_grey_uint8

    try:
        return png_uri(load_grey_uint8(manifest.path_of(result.records[row])))
    except (DataError, OSError):
        return ""


def _settings(result: Evaluation) -> list[Block]:
    values = {
        "images": len(result.records),
        "patients": len(np.unique(result.patients)),
        "not readable, left out": len(result.skipped),
        "not like a frontal chest radiograph, scored": result.implausible,
        **{name.replace("_", " "): value for name, value in result.settings.items() if name != "reports"},
    }
    return [
        Section("How this was made"),
        timing_bars(result.timings),
        Settings(values, "Settings and hashes"),
        Settings(
            {f"{name}, {kind}": said for name, kinds in result.prompts.items() for kind, said in kinds.items()},
            "Every prompt",
            closed=True,
        ),
    ]


def _interval(row: Result) -> Interval:
    return Interval(row.value, row.low, row.high, 0, row.method, p=row.p)


def _target(row: Result) -> str:
    if row.target != "macro":
        return _plain(row.target)
    return "mean of all classes" if row.group == "all" else f"mean: {row.group}"


def _points(table: Sequence[Mapping[str, object]], x: str, name: str) -> tuple[list[float], list[float]]:
    pairs = [(float(str(row[x])), float(str(row[name]))) for row in table if isinstance(row.get(name), int | float)]
    return [a for a, _ in pairs], [b for _, b in pairs]


def _titled(title: str, items: Sequence[_T], most: int) -> list[tuple[str, Sequence[_T]]]:
    """Split into parts of nearly equal size, none longer than `most`, each under a numbered title."""
    count = math.ceil(len(items) / most)
    edges = [round(i * len(items) / max(count, 1)) for i in range(count + 1)]
    parts = [items[a:b] for a, b in pairwise(edges)]
    return [(f"{title} ({i} of {count})" if count > 1 else title, part) for i, part in enumerate(parts, start=1)]


def _plain(name: str) -> str:
    """A class name to read: concept ids without underscores."""
    return name.replace("_", " ")


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]
