"""The whole page of an evaluation: headlines, then panel after panel, then how it was made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from kvlp.eval.page.blocks import Bars, Block, Charts, Headline, Headlines, Notice, Section, Settings
from kvlp.eval.page.charts import Chart, Lines, Series
from kvlp.eval.page.checklist import checklist_blocks
from kvlp.eval.page.classification import classification_blocks
from kvlp.eval.page.controls import control_blocks
from kvlp.eval.page.decisions import decision_blocks
from kvlp.eval.page.errors import error_blocks
from kvlp.eval.page.leaks import leak_blocks
from kvlp.eval.page.negation import negation_blocks
from kvlp.eval.page.pictures import Pictures
from kvlp.eval.page.retrieval import retrieval_blocks
from kvlp.eval.page.subgroups import subgroup_blocks
from kvlp.eval.page.words import interval_of, plain, upper

if TYPE_CHECKING:
    from kvlp.datasets.manifest import Manifest
    from kvlp.eval.evaluate import Evaluation
    from kvlp.eval.results import Result

__all__ = ["control_blocks", "evaluation_blocks", "loss_charts", "timing_bars"]


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
        controls: further rows of `control_results` and `difference_results`; those of the evaluation are shown anyway.
        before_settings: further blocks (training curves), put before the settings.
    """
    pictures = Pictures(result, manifest) if with_images and manifest is not None else None
    blocks: list[Block] = [Notice(_SYNTHETIC)] if synthetic else []
    blocks.append(_headlines(result))
    if result.skipped:
        shown = "; ".join(f"row {row}" for row, _ in result.skipped[:8])
        more = f" and {len(result.skipped) - 8} more" if len(result.skipped) > 8 else ""
        blocks.append(
            Notice(f"{len(result.skipped)} images could not be read and are not scored: {shown}{more}.", "bad")
        )
    blocks += [Notice(remark) for remark in result.remarks]
    blocks += classification_blocks(result) + decision_blocks(result)
    blocks += negation_blocks(result.negation) if result.negation is not None else []
    blocks += subgroup_blocks(result)
    if result.controls or controls:
        blocks += control_blocks([*result.controls, *controls])
    blocks += leak_blocks(result)
    blocks += error_blocks(result, pictures) + retrieval_blocks(result, pictures)
    return [*blocks, *before_settings, *_settings(result), *checklist_blocks(result, [*result.controls, *controls])]


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
                f"AUC, {plain(row.target)}"
                if row.target != "macro"
                else ("Mean AUC" if row.group == "all" else f"Mean AUC: {row.group}")
            )
            others = {kind: rows.get(("auc", kind, row.target, row.group)) for kind in ("NEG", "PAIR", "VERSUS")}
            words = {"NEG": "“there is no X”", "PAIR": "both", "VERSUS": "A minus B"}
            rest = "; ".join(f"{words[kind]} {other.value:.3f}" for kind, other in others.items() if other)
            items.append(Headline(label, interval_of(row), f"{_task(row)} by “there is X”. By {rest}."))
        elif row.metric.startswith(("precision_at", "lift_at")) and row.target == "all queries":
            k = row.metric.rsplit("_", 1)[1]
            name = f"Precision at {k}, text to image" if "precision" in row.metric else "Its lift over prevalence"
            items.append(Headline(name, interval_of(row), f"{row.n} queries; interval over what they ask for"))
        elif row.metric == "recall_at_10":
            pool = row.definition.split("pool of ")[1].split(",")[0]
            items.append(Headline("Own report among the best 10", interval_of(row), f"pool of {pool}"))
    return Headlines(items)


def _task(row: Result) -> str:
    return "Scored" if row.task in ("not known", "mixed") else upper(row.task)


def _leads(row: Result, result: Evaluation) -> bool:
    """Whether a row is a headline: the mean of each group, of all classes if there is none, or the only class."""
    if len(result.classes) == 1:
        return True
    return row.target == "macro" and (row.group != "all" or not result.groups)


_UNSHOWN = ("reports", "validation", "controls_train", "leaks")


def _settings(result: Evaluation) -> list[Block]:
    values = {
        "images": result.n_images,
        **({"studies, each a row": len(result.records)} if result.studies is not None else {}),
        "patients": len(np.unique(result.patients)),
        "not readable, left out": len(result.skipped),
        "not like a frontal chest radiograph, scored": result.implausible,
        **{name.replace("_", " "): value for name, value in result.settings.items() if name not in _UNSHOWN},
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


def _points(table: Sequence[Mapping[str, object]], x: str, name: str) -> tuple[list[float], list[float]]:
    pairs = [(float(str(row[x])), float(str(row[name]))) for row in table if isinstance(row.get(name), int | float)]
    return [a for a, _ in pairs], [b for _, b in pairs]
