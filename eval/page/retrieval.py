"""Retrieval: figures of text queries and of reports, and the first results as pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from kvlp.eval.page.blocks import Block, Cell, GridRow, ImageGrid, Section, Table, Tile
from kvlp.eval.page.words import interval_of, plain, upper

if TYPE_CHECKING:
    from kvlp.eval.evaluate import Evaluation
    from kvlp.eval.figures import QueryOutcome
    from kvlp.eval.metrics import Floats
    from kvlp.eval.page.pictures import Pictures
    from kvlp.eval.results import Result

__all__ = ["retrieval_blocks"]


#: text queries whose results are shown as pictures, so that the page stays small
MOST = 20
_LEFT_OUT = "Pictures are left out: they are of patients. --with-images puts them in."
_HEAT = "Red to yellow: places whose own features match the words, where the image tower gives such a map."


def retrieval_blocks(result: Evaluation, pictures: Pictures | None) -> list[Block]:
    """Tables of both ways, then the first results of each text query."""
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
    shown = result.queries[:MOST]
    vectors = pictures.words([query.query.text for query in shown]) if pictures is not None else [None] * len(shown)
    grid = [_grid_row(query, pictures, vector, result.unit) for query, vector in zip(shown, vectors, strict=True)]
    caption = _LEFT_OUT if pictures is None else _HEAT if result.model is not None else ""
    more = "Those of the first queries; all stand in results.jsonl." if len(result.queries) > MOST else ""
    return [*blocks, Section("Search results", more), ImageGrid(grid, caption)]


def _query_table(result: Evaluation) -> Table:
    k = result.options.k
    rows: list[list[Cell]] = [
        [(q.query.text, f"relevant: {plain(q.query.target)}"), q.precision, q.prevalence, _lift(q), q.pool]
        for q in result.queries
    ]
    total = {row.metric: row for row in result.results if row.target == "all queries"}
    mean, lift = total[f"precision_at_{k}"], total[f"lift_at_{k}"]
    rows.append(["all queries", interval_of(mean), None, interval_of(lift), None])
    columns = ["query", f"precision at {k}", "prevalence", "lift", "pool"]
    note = f"Interval of the mean: {mean.method}. Lift: precision over the prevalence that chance would give."
    return Table(columns, rows, "Text to image", frozenset({len(rows) - 1}), note)


def _report_table(recall: Sequence[Result]) -> Table:
    rows: list[list[Cell]] = [
        [f"among the best {row.metric.rsplit('_', 1)[1]}", interval_of(row), row.n] for row in recall
    ]
    note = "; ".join(part for part in recall[0].definition.split("; ") if not part.startswith("chance"))
    chances = ", ".join(row.definition.rsplit("chance ", 1)[1] for row in recall)
    columns = ["own report", "share of images", "images"]
    return Table(columns, rows, "Image to report", note=f"{upper(note)}. By chance: {chances}.")


def _lift(query: QueryOutcome) -> float | None:
    return query.precision / query.prevalence if query.prevalence > 0 else None


def _grid_row(outcome: QueryOutcome, pictures: Pictures | None, vector: Floats | None, unit: str) -> GridRow:
    tiles = []
    for row, score, relevant in outcome.hits:
        verdict: Literal["good", "bad"] = "good" if relevant == 1 else "bad"
        image = pictures.for_words(row, vector) if pictures is not None else ""
        tiles.append(Tile(image, f"{score:.2f}".replace("-", "−"), verdict, f"{unit} {row + 1}"))
    if math.isnan(outcome.precision):
        return GridRow(outcome.query.text, f"No image is labelled {plain(outcome.query.target)}.", tiles)
    lift = _lift(outcome)
    found = f"precision {outcome.precision:.2f}, prevalence {outcome.prevalence:.3f}, lift {lift:.1f}" if lift else ""
    return GridRow(outcome.query.text, f"Relevant: {plain(outcome.query.target)}. {found}", tiles)
