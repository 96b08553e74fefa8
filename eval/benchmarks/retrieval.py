"""Reports and images of a benchmark: retrieval both ways, by the report itself and by its class, and top-1 accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from kvlp.eval.intervals import mean_interval
from kvlp.eval.metrics import Floats
from kvlp.eval.results import Result
from kvlp.eval.retrieval import distinct_reports
from kvlp.eval.retrieval_tables import cross_modal, label_rankings
from kvlp.knowledge.sections import split_sentences

if TYPE_CHECKING:
    from kvlp.eval.evaluate import Encoder, Evaluation

__all__ = ["accuracy_rows", "class_retrieval_rows", "report_vectors", "text_to_image_rows"]

_EACH = "a report is the mean of its sentences' vectors"


def report_vectors(model: Encoder, reports: Sequence[str]) -> Floats:
    """Unit vectors (N, D) of reports: the mean of their sentences' vectors, so that none is cut off."""
    parts = [[text[a:b] for a, b in split_sentences(text)] or [text] for text in reports]
    sentences = list(dict.fromkeys(sentence for each in parts for sentence in each))
    place = {sentence: row for row, sentence in enumerate(sentences)}
    encoded = np.asarray(model.encode_text(sentences), dtype=np.float64)
    means = np.stack([encoded[[place[sentence] for sentence in each]].mean(axis=0) for each in parts])
    return means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)


def text_to_image_rows(model: Encoder, result: Evaluation) -> list[Result]:
    """How often a report finds an image of its own among all images with a report; `evaluate` gives the other way."""
    reports, target = distinct_reports([record.report for record in result.records])
    if len(reports) < 2:
        return []
    similarity = result.image_emb.astype(np.float64) @ report_vectors(model, reports).T
    table = cross_modal(similarity, target, n=result.options.resamples, seed=result.provenance.seed).text_to_image
    meaning = f"share of distinct reports with an image of their own among the k best; {table.pool_text}; {_EACH}"
    return [
        Result.of(
            table.means[f"R@{k}"], metric=f"recall_at_{k}", target="report to image", definition=meaning,
            task="retrieval", provenance=result.by_encoders,
        )
        for k in (1, 5, 10)
    ]  # fmt: skip


def class_retrieval_rows(model: Encoder, result: Evaluation, ks: Sequence[int] = (1, 2, 5, 10)) -> list[Result]:
    """Share of the k most similar reports that have the image's class: each class, and the mean over classes.

    As in GLoRIA and MedCLIP: each image asks among the reports of all images, its own included.
    """
    rows = [i for i, record in enumerate(result.records) if record.report]
    if len(rows) < 2:
        return []
    labels = result.y_true[rows]
    vectors = report_vectors(model, [result.records[i].report for i in rows])
    found = label_rankings(
        labels, labels, result.image_emb[rows].astype(np.float64) @ vectors.T, result.classes, ks=ks,
        groups=result.patients[rows], n=result.options.resamples, seed=result.provenance.seed,
    )  # fmt: skip
    meaning = (
        f"share of the k most similar of {len(rows):,} reports that are of the image's class, its own report included; "
        f"macro: mean over the classes; {_EACH}"
    )
    made = [("macro", f"P@{k}", found.macro[f"P@{k}"]) for k in ks]
    made += [(name, f"P@{ks[-1]}", table.means[f"P@{ks[-1]}"]) for name, table in found.per_label.items()]
    return [
        Result.of(
            interval, metric=f"report_precision_at_{figure[2:]}", target=target, definition=meaning,
            group="all" if target == "macro" else "", task="retrieval", provenance=result.by_encoders,
        )
        for target, figure, interval in made
    ]  # fmt: skip


def accuracy_rows(result: Evaluation) -> list[Result]:
    """Top-1 accuracy where each image has one class: the class of the highest score is the image's."""
    single = np.flatnonzero((result.y_true == 1).sum(axis=1) == 1)
    made = []
    for setting in ("POS", "PAIR"):
        best = result.scores[setting][single].argmax(axis=1)
        right = result.y_true[single, best] == 1
        interval = mean_interval(
            right.astype(np.float64), result.patients[single], n=result.options.resamples, seed=result.provenance.seed
        )
        naming = set(result.naming.values())
        made.append(
            Result.of(
                interval, metric="accuracy", target="macro", setting=setting, group="all",
                definition=f"share of images whose class has the highest of {len(result.classes)} scores, uncalibrated",
                task=naming.pop() if len(naming) == 1 else "mixed", provenance=result.provenance,
            )
        )  # fmt: skip
    return made
