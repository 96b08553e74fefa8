"""Reports written for held-out images, scored beside what needs no decoder: the commonest report, the nearest one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kvlp.checkpoints import load
from kvlp.datasets.files import atomic_write
from kvlp.datasets.images import load_grey_uint8
from kvlp.datasets.manifest import Manifest
from kvlp.errors import ConfigError, DataError
from kvlp.eval.reports.evaluator import Evaluator
from kvlp.knowledge.graph import KnowledgeGraph
from kvlp.typing import PathLike

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kvlp.eval.reports.evaluator import Comparison

__all__ = ["METRICS", "WrittenReports", "write_reports"]

METRICS = ("concept-graph-f1", "chexpert-f1", "bleu-4", "rouge-l")
_AT_ONCE = 256


@dataclass(frozen=True)
class WrittenReports:
    """Reports and how they compare.

    Attributes:
        ids: of the N images; generated: their reports as written.
        comparisons: baseline -> for each metric both figures, and their paired difference with its interval.
        notes: what to know of them.
    """

    ids: tuple[str, ...]
    generated: tuple[str, ...]
    comparisons: dict[str, list[Comparison]]
    notes: tuple[str, ...]

    def lines(self) -> list[str]:
        """A line for each baseline and metric, for a terminal."""
        found = []
        for name, rows in self.comparisons.items():
            for row in rows:
                gap = row.difference
                found.append(
                    f"{row.metric}: written {row.a:.3f}, {name} {row.b:.3f}, difference {gap.value:+.3f} "
                    f"({gap.low:+.3f} to {gap.high:+.3f})"
                )
        return found


def write_reports(
    checkpoint: PathLike,
    data: PathLike | Manifest,
    out: PathLike,
    *,
    split: str = "test",
    graph: str = "chest",
    resamples: int = 1000,
    seed: int = 0,
    **generation: Any,
) -> WrittenReports:
    """Write a report for each image of a split and score it against the image's own.

    Two baselines are scored on the same images: `commonest`, a training report of the set of findings that most
    training reports name, the same for all; `nearest`, the report of the training image whose embedding is nearest.

    Args:
        checkpoint: a model trained with a decoder of reports (recipe motor).
        data: a manifest with reports in `train` and in `split`.
        out: gets reports.jsonl (id, reference and generated report, for `kvlp reports score --refs reference --hyps
            generated`) and comparison.jsonl.
        split: the images to write for; graph: what the metrics read reports with.
        resamples: of whole patients, for the intervals; seed: of the resamples.
        generation: of `ReportWriter.generate`: method, beams, top_p, max_tokens ...

    Raises:
        DataError: no reports in one of the splits. CheckpointError: a model without a decoder.
        ConfigError: `split` is train.
    """
    if split == "train":
        raise ConfigError("split: expected one that the model was not trained on, got train")
    manifest = data if isinstance(data, Manifest) else Manifest.load(data)
    train, test = (_with_reports(manifest, name) for name in ("train", split))
    model = load(checkpoint)
    writer = model.decoder
    images = [load_grey_uint8(test.path_of(record)) for record in test]
    generated = writer.generate(images, **generation)
    nearest = _nearest(model.encode_image(images), _embedded(model, train))
    reports = [record.report for record in train]
    others = {"commonest": [_commonest(train, graph)] * len(test), "nearest": [reports[i] for i in nearest]}
    refs, patients = [r.report for r in test], np.array([r.patient_id or r.id for r in test])
    evaluator = Evaluator(METRICS, graph=KnowledgeGraph.load(graph), n=resamples, seed=seed)
    compared = {
        name: evaluator.compare_systems(refs, _never_empty(generated), hyps, patients) for name, hyps in others.items()
    }
    empty = sum(not text for text in generated)
    notes = (f"{empty} of {len(generated)} written reports are empty",) if empty else ()
    written = WrittenReports(tuple(r.id for r in test), tuple(generated), compared, notes)
    _save(Path(out), written, refs)
    return written


def _with_reports(manifest: Manifest, split: str) -> Manifest:
    rows = manifest.subset(split=split, where=lambda record: any(c.isalpha() for c in record.report))
    if not len(rows):
        raise DataError(f"expected rows of split '{split}' with reports, got none")
    return rows


def _embedded(model: Any, rows: Manifest) -> NDArray[np.float32]:
    parts = []
    for start in range(0, len(rows), _AT_ONCE):
        parts.append(model.encode_image([load_grey_uint8(rows.path_of(r)) for r in rows[start : start + _AT_ONCE]]))
    return np.concatenate(parts)


def _nearest(queries: NDArray[np.float32], known: NDArray[np.float32]) -> list[int]:
    return [int(i) for i in (queries @ known.T).argmax(axis=1)]


def _commonest(train: Manifest, graph: str) -> str:
    """A report of the set of findings that most reports name as present; the most frequent of them, then the first."""
    from kvlp.training.texts import read_texts

    kinds = read_texts(train, KnowledgeGraph.load(graph), source="report").signature
    most = Counter(kinds.tolist()).most_common(1)[0][0]
    like = [record.report for record, kind in zip(train, kinds, strict=True) if kind == most]
    return Counter(like).most_common(1)[0][0]


def _never_empty(texts: Sequence[str]) -> list[str]:
    """The metrics take no empty text; a full stop says as little."""
    return [text or "." for text in texts]


def _save(folder: Path, written: WrittenReports, refs: Sequence[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rows = zip(written.ids, refs, written.generated, strict=True)
    lines = [json.dumps({"id": key, "reference": ref, "generated": text}) for key, ref, text in rows]
    atomic_write(folder / "reports.jsonl", ("\n".join(lines) + "\n").encode())
    lines = [json.dumps({"against": name, **row.row()}) for name, rows in written.comparisons.items() for row in rows]
    atomic_write(folder / "comparison.jsonl", ("\n".join(lines) + "\n").encode())
