"""Question answering: fine-tune a fused model on training questions, score it beside what the question alone tells."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from kvlp.checkpoints import load
from kvlp.datasets.files import atomic_write
from kvlp.datasets.images import load_grey_uint8
from kvlp.datasets.manifest import Manifest
from kvlp.datasets.splits import split_by_patient
from kvlp.errors import ConfigError, DataError
from kvlp.eval.benchmarks.vqa import Answered, answer_rows, majority_answers, questions_of
from kvlp.eval.results import Provenance, Result, versions, write_results
from kvlp.knowledge.graph import KnowledgeGraph
from kvlp.training.fine_tune import FineTuneSettings, PairClassifier
from kvlp.typing import PathLike

if TYPE_CHECKING:
    from kvlp.eval.benchmarks.vqa import Question

__all__ = ["AnswerRun", "fine_tune_answers"]

_HELD_OUT = {"train": 0.8, "test": 0.2}


@dataclass(frozen=True)
class AnswerRun:
    """What fine-tuning on questions left behind.

    Attributes:
        checkpoint: the folder of the fine-tuned model; `PairClassifier.load` opens it.
        results: figures of the model, of the question alone, and of the paired difference.
        notes: what to know of them.
    """

    checkpoint: Path
    results: list[Result]
    notes: tuple[str, ...]

    def lines(self) -> list[str]:
        """The figures over all, closed and open questions, for a terminal."""
        shown = [row for row in self.results if row.target in ("all", "closed", "open")]
        return [f"{row.target} {row.metric} {row.setting}: {row.text}" for row in shown]


def fine_tune_answers(
    checkpoint: PathLike,
    data: PathLike | Manifest,
    out: PathLike,
    *,
    graph: str = "chest",
    settings: FineTuneSettings | None = None,
    resamples: int = 1000,
    progress: Callable[[int, int, float], None] | None = None,
) -> AnswerRun:
    """Train a head of answers on the questions of the training split and score it on those of the test split.

    The answers are those of the training questions; a test question with another answer counts as wrong. Where the data
    have no test split (or one whose images are in training too), one fifth of the images is held out by patient.

    Args:
        checkpoint: a model trained with fusion (recipe arl).
        data: a manifest of a question reader (`kvlp data import vqa-rad` and its like), or one that is loaded.
        out: gets checkpoint/, predictions.jsonl (as `kvlp eval` reads them) and results.jsonl.
        graph: finds what a question names.
        settings: see FineTuneSettings.
        resamples: of whole patients, for the intervals.
        progress: called with (steps done, all, loss).

    Raises:
        DataError: no questions, or unreadable images. CheckpointError: a model without fusion.
        ConfigError: `out` holds a fine-tuned model already.
    """
    folder = Path(out)
    if (folder / "checkpoint").exists():
        raise ConfigError(f"{folder} already holds a fine-tuned model; choose another folder")
    settings = settings or FineTuneSettings()
    manifest, notes = _with_test(data if isinstance(data, Manifest) else Manifest.load(data), settings.seed)
    parts = {split: manifest.subset(split=split) for split in ("train", "test")}
    questions = {split: questions_of(rows) for split, rows in parts.items()}
    known = KnowledgeGraph.load(graph)
    images = {split: _images(rows) for split, rows in parts.items()}
    train = questions["train"]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = PairClassifier.fit(
        load(checkpoint, device), images["train"], [q.question for q in train], [q.answer for q in train], known,
        settings=settings, progress=progress,
    )  # fmt: skip
    answers = model.predict(images["test"], [q.question for q in questions["test"]])
    name = "blind" if settings.blind else "fused"
    given = Answered(name, {q.id: a for q, a in zip(questions["test"], answers, strict=True)})
    folder.mkdir(parents=True, exist_ok=True)
    saved = model.save(folder / "checkpoint")
    lines = (json.dumps({"id": key, "answer": value}) for key, value in given.answers.items())
    atomic_write(folder / "predictions.jsonl", ("\n".join(lines) + "\n").encode())
    rows = _scored(questions, given, parts["test"], model, known, seed=settings.seed, resamples=resamples)
    write_results(folder / "results.jsonl", rows)
    return AnswerRun(saved, rows, (*notes, *_unknown(questions["test"], model.answers)))


def _with_test(manifest: Manifest, seed: int) -> tuple[Manifest, tuple[str, ...]]:
    """The manifest with a test split none of whose images is trained on."""
    owners = {s: {r.patient_id or r.image for r in manifest if r.split == s} for s in ("train", "test")}
    if owners["train"] and owners["test"] and not owners["train"] & owners["test"]:
        return manifest, ()
    why = "shares images with training" if owners["test"] else "is not there"
    kept = Manifest([r for r in manifest if r.split != "dev"], manifest.root)
    return split_by_patient(kept, _HELD_OUT, seed), (
        f"the data's own test split {why}: one fifth of the images was held out, seed {seed}",
    )


def _images(manifest: Manifest) -> list[Any]:
    """The image of each question; one object for all questions about it."""
    read: dict[Path, Any] = {}
    found = []
    for record in manifest:
        path = manifest.path_of(record)
        if path not in read:
            read[path] = load_grey_uint8(path)
        found.append(read[path])
    if not found:
        raise DataError("expected questions in both splits, got none in one of them")
    return found


def _scored(
    questions: dict[str, list[Question]],
    given: Answered,
    test: Manifest,
    model: PairClassifier,
    graph: KnowledgeGraph,
    *,
    seed: int,
    resamples: int,
) -> list[Result]:
    baseline = majority_answers(questions["test"], questions["train"])
    provenance = Provenance(
        split="test",
        split_hash=test.content_hash,
        model_hash=model.model.hash,
        graph_hash=graph.content_hash,
        seed=seed,
        versions=versions(),
    )
    return answer_rows(questions["test"], given, baseline, provenance, resamples=resamples)


def _unknown(questions: Sequence[Question], answers: Sequence[str]) -> tuple[str, ...]:
    known = set(answers)
    lost = sum(q.answer.strip().casefold() not in known for q in questions)
    return (f"{lost} of {len(questions)} test questions have an answer that no training question has",) if lost else ()
