"""The negation panel: does the model read the "no", and how much do the words matter?"""

from __future__ import annotations

import math
from collections.abc import Sequence

from kvlp.eval.negation import SETTINGS, NegationProbe
from kvlp.eval.page.blocks import Block, Cell, Charts, Section, Table
from kvlp.eval.page.charts import Chart, Forest, shared_limits

__all__ = ["negation_blocks"]

_KINDS = {"POS": "“there is X”", "NEG": "“there is no X”, turned round", "PAIR": "both combined"}
_TEXT = (
    "Every class asked for in grammatical sentences alone: those that state it, those that deny it (an image without "
    "the finding should match “no X”), and the difference of the two. Small dots: each wording, synonym and style by "
    "itself. A model that reads the name and not the “no” lies left of 0.5 on the denying sentences."
)
_MOST = 12


def negation_blocks(probe: NegationProbe) -> list[Block]:
    """A forest of the AUCs with the single ways to ask as dots, and a table of their spread."""
    names = [name for name in probe.ways if any(name not in probe.tables[s].undefined for s in SETTINGS)]
    if not names:
        return []
    count = math.ceil(len(names) / _MOST)
    size = math.ceil(len(names) / count)
    charts = [_forest(probe, names, names[i : i + size], i // size + 1, count) for i in range(0, len(names), size)]
    return [Section("Negation and wording", _TEXT), Charts(charts), _table(probe, names)]


def _forest(probe: NegationProbe, names: Sequence[str], part: Sequence[str], number: int, count: int) -> Chart:
    marks = [i for s in SETTINGS for i in probe.tables[s].per_class.values()]
    values = [way.auc[s] for name in names for way in probe.ways[name] for s in SETTINGS]
    low, high = shared_limits(marks, reference=0.5)
    ends = [v for v in values if not math.isnan(v)]
    return Forest(
        f"AUC by grammatical sentences ({number} of {count})" if count > 1 else "AUC by grammatical sentences",
        [(name.replace("_", " "), [probe.tables[s].per_class[name] for s in SETTINGS]) for name in part],
        list(_KINDS.values()),
        x_label="AUC, 95 % interval; dots: single ways to ask",
        reference=0.5,
        limits=(min([low, *ends]), max([high, *ends])),
        dots=[[_aucs(probe, name, s) for s in SETTINGS] for name in part],
    )


def _aucs(probe: NegationProbe, name: str, setting: str) -> list[float]:
    return [way.auc[setting] for way in probe.ways[name] if not math.isnan(way.auc[setting])]


def _table(probe: NegationProbe, names: Sequence[str]) -> Table:
    rows: list[list[Cell]] = [_row(probe, name) for name in names]
    if len(names) > 1:
        rows.append(_row(probe, "macro"))
    columns = ["class", *(f"{kind}: {what}" for kind in ("X", "no X", "both") for what in ("AUC", "over ways to ask"))]
    note = (
        "AUC with its 95 % interval over patients. Over ways to ask: lowest to highest AUC of the single wordings, "
        "synonyms and styles, and their standard deviation; no confidence interval. Bold: mean over the classes."
    )
    strong = frozenset({len(names)}) if len(names) > 1 else frozenset()
    return Table(columns, rows, caption="Stating and denying sentences", strong=strong, note=note)


def _row(probe: NegationProbe, name: str) -> list[Cell]:
    title: Cell = "mean of all classes" if name == "macro" else (name.replace("_", " "), _ways(len(probe.ways[name])))
    row: list[Cell] = [title]
    for setting in SETTINGS:
        table = probe.tables[setting]
        _, low, high, sd = probe.spread(name, setting)
        row.append(table.macro if name == "macro" else table.per_class[name])
        row.append((f"{low:.3f} to {high:.3f}", "" if math.isnan(sd) else f"sd {sd:.3f}") if low == low else None)
    return row


def _ways(count: int) -> str:
    return "1 way to ask" if count == 1 else f"{count} ways to ask"
