"""Turn an evaluation's arrays into result rows: classes, groups of classes, retrieval, controls, other models."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kvlp.errors import DataError
from kvlp.eval.asking import meaning
from kvlp.eval.intervals import FewPositivesWarning, MetricTable, auc_table, mean_interval, paired_table
from kvlp.eval.metrics import Floats
from kvlp.eval.picks import hit_rows
from kvlp.eval.results import Result
from kvlp.eval.retrieval import distinct_reports, precision_table, recall_hits
from kvlp.eval.studies import POOLINGS
from kvlp.eval.tasks import Query, query_relevance
from kvlp.knowledge.names import Names
from kvlp.knowledge.sections import split_sentences

if TYPE_CHECKING:
    from kvlp.eval.evaluate import Encoder, Evaluation

__all__ = [
    "DEFINITIONS",
    "QueryOutcome",
    "classification_rows",
    "control_results",
    "data_rows",
    "difference_results",
    "report_recall_rows",
    "text_query_rows",
]

DEFINITIONS: dict[str, str] = {
    "auc": "area under the ROC curve, ties one half; macro: mean over the classes that the labels define",
    "average_precision": "sum of precision times step in recall, ties as one step; macro: mean over defined classes",
    "precision_at_10": "share of relevant images among the best k for a text query, ties averaged; mean over queries",
    "lift": "mean precision at k over the mean prevalence of relevant images",
    "recall": "share of images whose own report is among the k most similar of the distinct reports",
}


@dataclass(frozen=True, slots=True)
class QueryOutcome:
    """One text query: its precision at k and its first results (row, score, relevance 1 or 0)."""

    query: Query
    precision: float
    prevalence: float
    pool: int
    hits: tuple[tuple[int, float, float], ...]


def data_rows(result: Evaluation) -> None:
    """Add how many images and patients were scored, left out, or look like something else."""
    pooled = (
        {"studies": (len(result.records), f"their studies; {POOLINGS[result.studies.how]}")} if result.studies else {}
    )
    counts = {
        "images": (result.n_images, "images that were scored"),
        **pooled,
        "patients": (len(np.unique(result.patients)), "their patients; an image without one counts as one"),
        "images_left_out": (len(result.skipped), "images that could not be read and are not scored"),
        "implausible_images": (result.implausible, "scored images that do not look like a frontal chest radiograph"),
    }
    for metric, (count, said) in counts.items():
        result.results.append(
            Result(
                metric=metric, target="data", value=float(count), low=math.nan, high=math.nan, method="a count",
                definition=said, n=len(result.records), task="data", provenance=result.provenance,
            )
        )  # fmt: skip


def classification_rows(result: Evaluation) -> None:
    """Add AUC (and average precision) of every class and group of classes under every score."""
    for setting, scores in result.scores.items():
        metrics = ["auc"] if setting == "NEG" else ["auc", "average_precision"]
        columns = np.flatnonzero(~np.isnan(scores).any(axis=0))
        for metric in metrics:
            table = _quiet_table(metric, result, scores, columns)
            result.tables[metric, setting] = table
            result.results.extend(_table_rows(result, table, setting, meaning(result.provenance, setting)))


def _quiet_table(metric: str, result: Evaluation, scores: Floats, columns: NDArray[np.intp]) -> MetricTable:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FewPositivesWarning)  # every row carries the note
        return auc_table(
            result.y_true[:, columns],
            scores[:, columns],
            result.patients,
            names=[result.classes[c] for c in columns],
            metric=metric,
            n=result.options.resamples,
            seed=result.provenance.seed,
        )


def _table_rows(
    result: Evaluation, table: MetricTable, setting: str, meaning: str, *, metric: str = "", task: str = ""
) -> list[Result]:
    definition = f"{DEFINITIONS[table.metric]}; score: {meaning}"
    common: dict[str, Any] = {"metric": metric or table.metric, "setting": setting, "provenance": result.provenance}
    of_class = {name: group for group, members in result.groups.items() for name in members}
    rows = [
        Result.of(interval, target=name, definition=definition, group=of_class.get(name, ""),
                  task=task or result.naming[name], **common)
        for name, interval in table.per_class.items()
    ]  # fmt: skip
    groups = {**result.groups, **({"all": list(table.per_class)} if len(result.groups) != 1 else {})}
    for group, members in groups.items():
        held = [name for name in members if name in table.per_class]
        naming = {result.naming[name] for name in held}
        row_task = task or (naming.pop() if len(naming) == 1 else "mixed")
        if len(held) > 1:
            interval = table.mean(held)
            rows.append(
                Result.of(interval, target="macro", definition=definition, group=group, task=row_task, **common)
            )
    return rows


def text_query_rows(model: Encoder, result: Evaluation, names: Names, queries: Sequence[Query]) -> None:
    """Add precision at k of every text query, their mean, and its lift over prevalence."""
    if not queries:
        return
    k, n = result.options.k, result.options.resamples
    relevant = query_relevance(result.records, queries, names)
    scores = np.asarray(model.encode_text([q.text for q in queries]), dtype=np.float64) @ result.image_emb.T
    targets = [query.target for query in queries]
    table = precision_table(relevant, scores, k, targets=targets, n=n, seed=result.provenance.seed)
    for row, query in enumerate(queries):
        known = np.isin(relevant[row], (0.0, 1.0))
        best = [i for i in np.argsort(-scores[row], kind="stable") if known[i]][:k]
        hits = tuple((int(i), float(scores[row, i]), float(relevant[row, i])) for i in best)
        precision, prevalence = float(table.per_query[row]), float(table.prevalence[row])
        outcome = QueryOutcome(query, precision, prevalence, int(table.pool[row]), hits)
        result.queries.append(outcome)
        result.results.extend(_query_rows(result, outcome, int((relevant[row] == 1).sum())))
        hit_rows(result, outcome)
    left_out = tuple(f"no relevant image, left out: {queries[i].text}" for i in table.undefined)
    pool = f"pool of up to {int(table.pool.max())} images"
    for metric, interval, said in (
        (f"precision_at_{k}", table.mean, DEFINITIONS["precision_at_10"]),
        (f"lift_at_{k}", table.lift, DEFINITIONS["lift"]),
    ):
        row_of = Result.of(interval, metric=metric, target="all queries", definition=f"{said}; {pool}",
                           task="retrieval", provenance=result.by_encoders)  # fmt: skip
        result.results.append(_with_notes(row_of, left_out))


def _query_rows(result: Evaluation, outcome: QueryOutcome, relevant: int) -> list[Result]:
    """Precision of one query, what chance gives, and the one over the other."""
    k, prevalence = result.options.k, outcome.prevalence
    lift = outcome.precision / prevalence if prevalence > 0 else math.nan
    common: dict[str, Any] = {
        "target": outcome.query.text, "low": math.nan, "high": math.nan, "method": "one query: no interval",
        "n": outcome.pool, "n_positive": relevant, "task": "retrieval", "provenance": result.by_encoders,
        "notes": (f"relevant: {outcome.query.target}", f"prevalence {prevalence:.4f}"),
    }  # fmt: skip
    return [
        Result(
            metric=f"precision_at_{k}",
            value=outcome.precision,
            definition=DEFINITIONS["precision_at_10"],
            **common,
        ),
        Result(metric="prevalence", value=prevalence, definition="share of the pool that is relevant", **common),
        Result(metric=f"lift_at_{k}", value=lift, definition=DEFINITIONS["lift"], **common),
    ]


def report_recall_rows(model: Encoder, result: Evaluation, ks: Sequence[int] = (1, 5, 10)) -> None:
    """Add how often an image's own report is found among the distinct ones.

    A report's vector is the mean of its sentences' vectors, so that none is cut at the text tower's length.
    """
    if not result.options.reports:
        return
    reports, target = distinct_reports([record.report for record in result.records])
    rows = np.flatnonzero(target >= 0)
    if len(reports) < 2:
        return
    vectors = _report_vectors(model, reports)
    hits: dict[int, list[Floats]] = {k: [] for k in ks}
    for start in range(0, rows.size, 512):
        part = rows[start : start + 512]
        similarity = result.image_emb[part].astype(np.float64) @ vectors.T
        for k in ks:
            hits[k].append(recall_hits(similarity, target[part], k))
    for k in ks:
        found = np.concatenate(hits[k])
        interval = mean_interval(found, result.patients[rows], n=result.options.resamples, seed=result.provenance.seed)
        result.results.append(
            Result.of(
                interval, metric=f"recall_at_{k}", target="image to report", task="retrieval",
                definition=f"{DEFINITIONS['recall']}; pool of {len(reports)} distinct reports, each the mean of its "
                f"sentences; chance {k / len(reports):.4f}",
                provenance=result.by_encoders,
            )
        )  # fmt: skip


def _report_vectors(model: Encoder, reports: Sequence[str]) -> Floats:
    sentences = [[text[a:b] for a, b in split_sentences(text)] or [text] for text in reports]
    flat = list(dict.fromkeys(s for parts in sentences for s in parts))
    index = {s: i for i, s in enumerate(flat)}
    encoded = np.asarray(model.encode_text(flat), dtype=np.float64)
    means = np.stack([encoded[[index[s] for s in parts]].mean(axis=0) for parts in sentences])
    return means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)


def control_results(result: Evaluation, name: str, scores: Floats) -> list[Result]:
    """Rows of a control's or baseline's scores on the same images, and of our main score minus it, paired.

    Args:
        result: the evaluation to compare with.
        name: the control's name: "source only".
        scores: shape (N, C), rows as `result.records`; columns of NaN are left out.
    """
    table = _quiet_table("auc", result, scores, np.flatnonzero(~np.isnan(scores).any(axis=0)))
    rows = _table_rows(result, table, name, name, task="control")
    ours = result.main_setting
    return rows + _difference_rows(result, result.scores[ours], scores, f"{ours} minus {name}")


def difference_results(ours: Evaluation, other: Evaluation, name: str, *, setting: str = "POS") -> list[Result]:
    """Rows of our AUCs minus another model's (named `name`) on the same images and the same resamples.

    Raises:
        DataError: the two did not score the same images and classes in the same order.
    """
    if [r.id for r in ours.records] != [r.id for r in other.records] or ours.classes != other.classes:
        raise DataError("a paired comparison needs the same images and classes in the same order in both evaluations")
    return _difference_rows(ours, ours.scores[setting], other.scores[setting], f"{setting} minus {name}")


def _difference_rows(result: Evaluation, a: Floats, b: Floats, title: str) -> list[Result]:
    columns = np.flatnonzero(~np.isnan(a + b).any(axis=0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FewPositivesWarning)
        table = paired_table(
            "auc",
            result.y_true[:, columns],
            a[:, columns],
            b[:, columns],
            result.patients,
            names=[result.classes[c] for c in columns],
            n=result.options.resamples,
            seed=result.provenance.seed,
        )
    return _table_rows(result, table, title, title, metric="auc_difference", task="control")


def _with_notes(row: Result, notes: tuple[str, ...]) -> Result:
    return replace(row, notes=(*row.notes, *notes))
