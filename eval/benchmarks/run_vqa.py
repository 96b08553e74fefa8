"""Run a benchmark of questions: answers of a dual encoder or of a file, beside the question-only baseline."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kvlp.datasets.files import read_text
from kvlp.datasets.manifest import Manifest
from kvlp.errors import ConfigError, DataError
from kvlp.eval.benchmarks.cards import Card
from kvlp.eval.benchmarks.run import Coverage, read_benchmark
from kvlp.eval.benchmarks.vqa import (
    Answered,
    Question,
    answer_rows,
    closed_pool,
    encoder_answers,
    majority_answers,
    questions_of,
)
from kvlp.eval.evaluate import EvalOptions
from kvlp.eval.results import Provenance, Result, hash_of, versions
from kvlp.typing import PathLike
from kvlp.zero_shot.scoring import scorer_of

if TYPE_CHECKING:
    from kvlp.eval.evaluate import Encoder
    from kvlp.knowledge.graph import KnowledgeGraph

__all__ = ["VqaRun", "read_predictions", "run_vqa"]

_MAX_BYTES = 1 << 28


@dataclass(frozen=True)
class VqaRun:
    """What a benchmark of questions gave.

    Attributes:
        card: of the benchmark.
        questions: that were scored.
        rows: every figure.
        coverage: how much of the benchmark was there.
        remarks: what a reader of the figures must know, one line each.
    """

    card: Card
    questions: list[Question]
    rows: list[Result]
    coverage: Coverage
    remarks: list[str]

    @property
    def facts(self) -> dict[str, object]:
        """What was scored, for `benchmark.json`."""
        closed = sum(q.closed for q in self.questions)
        return {
            "benchmark": self.card.name,
            "title": self.card.title,
            "split": self.coverage.split,
            "listed": self.coverage.listed,
            "found": self.coverage.found,
            "expected": self.coverage.expected,
            "whole": self.coverage.whole,
            "closed": closed,
            "open": len(self.questions) - closed,
            "groups": len({q.group for q in self.questions}),
            "remarks": self.remarks,
        }


def run_vqa(
    card: Card,
    data: PathLike,
    out: PathLike,
    answerer: Encoder | PathLike,
    graph: KnowledgeGraph | None = None,
    *,
    seed: int = 0,
    options: EvalOptions | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> VqaRun:
    """Score a dual encoder (closed questions) or a file of answers (all of them).

    Args:
        card: from `load_card`.
        data: the folder as it was downloaded.
        out: a folder for the manifest.
        answerer: a model, or a JSON Lines file of {"id": ..., "answer": ...}.
        graph: finds what a yes-no question asks for.
        seed: of the resamples.
        options: resamples of whole images (or patients), and the split if not the benchmark's own ("all" for any).
        progress: called with (images done, all).

    Raises:
        DataError: another layout, or a file of answers that is faulty.
        ConfigError: options that pool images by study.
    """
    options = options or EvalOptions()
    if options.studies:
        raise ConfigError("studies: questions are about single images; leave it out (--studies)")
    whole, found, coverage = read_benchmark(card, data, out, options.split)
    questions = questions_of(found)
    apart = coverage.split not in ("train", "all")
    train = questions_of(whole.subset(where=lambda record: record.split == "train")) if apart else []
    given = _answers(answerer, found, questions, closed_pool(train or questions), graph, options.scorer, progress)
    baseline = majority_answers(questions, train)
    provenance = Provenance(
        split=coverage.split,
        split_hash=found.content_hash,
        model_hash=_hash(answerer, options.scorer) or hash_of(dict(given.answers)),
        graph_hash=graph.content_hash if graph is not None else "",
        seed=seed,
        versions=versions(),
        scorer="" if isinstance(answerer, str | Path) else options.scorer,
    )
    rows = answer_rows(questions, given, baseline, provenance, resamples=options.resamples)
    return VqaRun(card, questions, rows, coverage, [*coverage.remarks, *given.notes, *baseline.notes])


def _hash(answerer: Encoder | PathLike, scorer: str) -> str:
    """Of the model that answers; "" for a file of answers."""
    return "" if isinstance(answerer, str | Path) else str(getattr(scorer_of(answerer, scorer), "hash", ""))


def _answers(
    answerer: Encoder | PathLike,
    manifest: Manifest,
    questions: list[Question],
    pool: list[str],
    graph: KnowledgeGraph | None,
    scorer: str,
    progress: Callable[[int, int], None] | None,
) -> Answered:
    if not isinstance(answerer, str | Path):
        return encoder_answers(answerer, manifest, pool, graph, scorer=scorer, progress=progress)
    return read_predictions(answerer, questions)


def read_predictions(path: PathLike, questions: list[Question]) -> Answered:
    """Read a model's answers: one JSON object a line, {"id": question id, "answer": words}.

    Raises:
        DataError: another form, an id that stands twice, or no answer to any of the questions; the line is named.
    """
    answers: dict[str, str] = {}
    for number, line in enumerate(read_text(path, max_bytes=_MAX_BYTES).splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict) or not {"id", "answer"} <= set(row):
            raise DataError(f'{path}, line {number}: expected {{"id": ..., "answer": ...}}')
        key = str(row["id"])
        if key in answers:
            raise DataError(f"{path}, line {number}: the id {key!r} stands twice")
        answers[key] = str(row["answer"] if row["answer"] is not None else "")
    asked = {q.id for q in questions}
    held = asked & set(answers)
    if not held:
        raise DataError(f"{path}: no id is of the {len(asked):,} questions; ids are such as {min(asked)!r}")
    notes = []
    if len(held) < len(asked):
        notes.append(f"{len(asked) - len(held):,} of {len(asked):,} questions have no answer and count as wrong")
    if len(answers) > len(held):
        notes.append(f"{len(answers) - len(held):,} answers are to other questions and were passed over")
    return Answered("predictions", {key: answers[key] for key in held}, "all", tuple(notes))
