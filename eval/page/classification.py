"""Classification: AUC by class as forest and table, ROC and precision-recall curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kvlp.eval.metrics import precision_recall_curve, roc_curve
from kvlp.eval.page.blocks import Block, Cell, Charts, Section, Table
from kvlp.eval.page.charts import Chart, Forest, Lines, Series, shared_limits
from kvlp.eval.page.words import KINDS, NOTE, interval_of, plain, target_of, titled

if TYPE_CHECKING:
    from kvlp.eval.evaluate import Evaluation

__all__ = ["classification_blocks"]


def classification_blocks(result: Evaluation) -> list[Block]:
    """Forests and a table of the AUCs, and the curves."""
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
    curves: tuple[list[Chart], list[Chart]] = ([], [])
    for group, names in groups.items():
        rows = [(plain(name), [tables[kind].per_class.get(name) for kind in kinds]) for name in names]
        for title, part in titled(f"AUC: {group}" if group else "AUC", rows, 12):
            labels = [KINDS[kind] for kind in kinds]
            forests.append(Forest(title, part, labels, x_label="AUC, 95 % interval", reference=0.5, limits=limits))
        _add_curves(result, group, names, curves)
    note = "By both sentences combined. The curve of precision begins at the highest score; chance is a flat line."
    title = "ROC and precision-recall curves"
    return [*blocks, Charts(forests), _class_table(result, kinds), Section(title, note), *map(Charts, curves)]


def _class_table(result: Evaluation, kinds: Sequence[str]) -> Table:
    rows: list[list[Cell]] = []
    strong = set()
    wanted = [r for r in result.results if r.metric == "auc" and r.setting == "POS"]
    others = {(r.metric, r.setting, r.target, r.group): r for r in result.results}
    for row in wanted:
        key = (row.target, row.group)
        cells = [others.get(("auc", kind, *key)) for kind in kinds] + [
            others.get(("average_precision", result.main_setting, *key))
        ]
        if row.target == "macro":
            strong.add(len(rows))
        counts: Cell = None if row.target == "macro" else (f"{row.n_positive:,}", f"of {row.n:,}")
        rows.append(
            [
                (target_of(row), "" if row.task == "not known" else row.task),
                counts,
                *(interval_of(cell) if cell else None for cell in cells),
            ]
        )
    heads = {"POS": "AUC, “there is X”", "NEG": "AUC, “no X”", "PAIR": "AUC, both", "VERSUS": "AUC, A minus B"}
    columns = [
        "class",
        "positive",
        *(heads[kind] for kind in kinds),
        f"AP, {'A minus B' if result.main_setting == 'VERSUS' else 'both'}",
    ]
    undefined = sorted({plain(name) for table in result.tables.values() for name in table.undefined})
    few = sorted({plain(r.target) for r in wanted if any(note.startswith("only") for note in r.notes)})
    note = NOTE + " AP: average precision; chance gives the share of positives."
    note += (
        f" Undefined for want of positives or negatives, and in no mean: {', '.join(undefined)}." if undefined else ""
    )
    note += f" Fewer than 10 positives or negatives, not to be relied on: {', '.join(few)}." if few else ""
    return Table(columns, rows, caption="AUC and average precision by class", strong=frozenset(strong), note=note)


def _add_curves(result: Evaluation, group: str, names: Sequence[str], curves: tuple[list[Chart], list[Chart]]) -> None:
    """Add ROC curves to the first list and precision-recall curves to the second, six classes to a chart."""
    setting = result.main_setting
    aucs, precisions = (result.tables[metric, setting].per_class for metric in ("auc", "average_precision"))
    for title, part in titled(group, names, 6):
        roc, recall = [], []
        for name in part:
            if math.isnan(aucs[name].value):
                continue
            arrays = result.y_true[:, (c := result.classes.index(name))], result.scores[setting][:, c]
            false, true, _ = roc_curve(*arrays)
            roc.append(Series(plain(name), false, true, f"AUC {aucs[name].value:.3f}"))
            precision, at, _ = precision_recall_curve(*arrays)
            recall.append(Series(plain(name), at, precision, f"AP {precisions[name].value:.3f}"))
        if roc:
            of = f": {title}" if title else ""
            curves[0].append(Lines(f"ROC{of}", roc, "false positive rate", "true positive rate", diagonal=True))
            curves[1].append(Lines(f"Precision and recall{of}", recall, "recall", "precision", unit=True))
