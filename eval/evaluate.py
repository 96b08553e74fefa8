"""Evaluate a dual encoder on a manifest: classification by present, absent and paired prompts, and retrieval both ways.

Each class is scored three ways, because most models that follow "there is X" fail on "there is no X":
POS similarity to the present prompts, NEG to the absent prompts (a good match means absent), PAIR the difference. A
checkpoint's query network may take the place of similarities; retrieval is by the encoders, as archives search.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from kvlp.eval.asking import asked_of, class_scores, class_sentences
from kvlp.eval.decision_rows import decision_rows
from kvlp.eval.decisions import Decision, Validation, learn_decisions, stored_decisions
from kvlp.eval.figures import (
    QueryOutcome,
    classification_rows,
    control_results,
    data_rows,
    difference_results,
    report_recall_rows,
    text_query_rows,
)
from kvlp.eval.images import Embedded, embed_manifest
from kvlp.eval.intervals import MetricTable
from kvlp.eval.leak_rows import leak_rows
from kvlp.eval.metrics import Floats
from kvlp.eval.negation import NegationProbe, negation_probe, negation_rows, probe_lines
from kvlp.eval.picks import Errors, error_rows
from kvlp.eval.results import Provenance, Result, hash_of, versions
from kvlp.eval.studies import POOLINGS, Pooling, Studies, studies_of
from kvlp.eval.subgroup_rows import subgroup_rows
from kvlp.eval.subgroups import SubgroupFigure
from kvlp.eval.tasks import ClassTask, Query, label_matrix, parse_tasks, require_apart
from kvlp.knowledge.names import Names
from kvlp.knowledge.prompts import Prompts
from kvlp.typing import Assertion
from kvlp.zero_shot.scoring import Asked, scorer_of

if TYPE_CHECKING:
    from kvlp.datasets.leak_report import LeakReport
    from kvlp.datasets.manifest import Manifest, Record
    from kvlp.eval.exposure import Exposure
    from kvlp.knowledge.graph import KnowledgeGraph

__all__ = ["Encoder", "EvalOptions", "Evaluation", "control_results", "difference_results", "evaluate"]


_BY_QUERY = "Classes are scored by the checkpoint's query network; retrieval is by its encoders."


class Encoder(Protocol):
    """What evaluation needs of a model: unit vectors of images and of texts. `kvlp.checkpoints.Model` is one."""

    def encode_image(self, images: Sequence[Any], *, batch_size: int = 64) -> NDArray[Any]:
        """Grey arrays -> (N, D), rows of length 1."""
        ...

    def encode_text(self, texts: Sequence[str]) -> NDArray[Any]:
        """Texts -> (N, D), rows of length 1."""
        ...


@dataclass(frozen=True, slots=True)
class EvalOptions:
    """How to evaluate.

    Attributes:
        resamples: bootstrap resamples of patients.
        k: results judged for each text query.
        synonyms: prompts with the graph's synonyms too.
        style: "ensemble" of several wordings, or "plain".
        reports: also retrieve reports by image, if the records have some.
        negation: also ask for each class by grammatical stating and denying sentences, see `negation_probe`.
        split: name of the split, for the rows.
        batch_size: images read and encoded at a time.
        subgroups: also compare groups of patients (age, sex, view, ...), where the manifest tells them.
        hide_below: groups of fewer patients are hidden.
        rule: how thresholds are chosen on validation rows, see `kvlp.eval.choose_threshold`.
        validation: rows of other patients to learn thresholds and probabilities on. Without them what the checkpoint's
            `calibration.json` holds is used, and else the threshold 0, which no data chose.
        controls: also run the controls, see `kvlp.eval.controls.run_controls`.
        controls_train: rows of other patients for the controls that are fitted.
        scorer: what scores the classes: "encoders" by similarity, or the checkpoint's "query" network.
        studies: a row is a study instead of an image: by the "mean" or the "max" of its images' scores, or by the score
            of the mean of their "embeddings".
        leaks: what `kvlp.datasets.leaks.find_leaks` found between the scored rows and others, for rows and page.
    """

    resamples: int = 1000
    k: int = 10
    synonyms: bool = True
    style: Literal["ensemble", "plain"] = "ensemble"
    reports: bool = True
    negation: bool = True
    split: str = ""
    batch_size: int = 64
    subgroups: bool = True
    hide_below: int = 5
    rule: str = "youden"
    validation: Manifest | Embedded | None = None
    controls: bool = False
    controls_train: Manifest | None = None
    scorer: Literal["encoders", "query"] = "encoders"
    studies: Pooling = ""
    leaks: LeakReport | None = None


@dataclass(frozen=True)
class Evaluation:
    """Everything an evaluation found: the rows to write, and the arrays to draw.

    Attributes:
        results: one row a figure.
        tasks: C classes.
        groups: group name -> class names.
        naming: class name -> "zero-shot", "prompted classification", or "not known" (its card does not say).
        records: N records that were scored; with studies, one for each study.
        y_true: shape (N, C); 1, 0, -1 or NaN.
        scores: "POS", "NEG", "PAIR" (and "VERSUS") -> shape (N, C); higher means present; NaN columns do not apply.
        patients: shape (N,), the patient of each row.
        image_emb: shape (N, D).
        prompts: class name -> "present" and "absent" sentences.
        skipped: rows that could not be read: (row number from 1, reason).
        implausible: how many scored images do not look like a frontal chest radiograph.
        provenance: hashes, seed, versions.
        options: how it was done.
        tables: (metric, setting) -> intervals of every class.
        queries: text queries with their results.
        timings: step -> seconds.
        negation: AUC by stating and denying sentences and its spread over ways to ask, if that was asked for.
        decisions: class name -> its threshold, where that is from, and its calibration, if there is one.
        subgroups: figures by groups of patients and the gaps between them.
        errors: the worst errors of the classes with the lowest AUC.
        controls: rows of the controls, which stand in `results` too.
        exposure: which of the scored images the model was trained on; None if their pixel hashes were not kept.
        remarks: what a reader must know beside the figures, one line each.
        model: what was evaluated, for heat maps.
        studies: which images make which study; None where each image is a row.
    """

    results: list[Result]
    tasks: list[ClassTask]
    groups: dict[str, list[str]]
    naming: dict[str, str]
    records: list[Record]
    y_true: Floats
    scores: dict[str, Floats]
    patients: NDArray[np.str_]
    image_emb: NDArray[np.float32]
    prompts: dict[str, dict[str, list[str]]]
    skipped: list[tuple[int, str]]
    implausible: int
    provenance: Provenance
    options: EvalOptions
    tables: dict[tuple[str, str], MetricTable] = field(default_factory=dict)
    queries: list[QueryOutcome] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)
    negation: NegationProbe | None = None
    decisions: dict[str, Decision] = field(default_factory=dict)
    subgroups: list[SubgroupFigure] = field(default_factory=list)
    errors: list[Errors] = field(default_factory=list)
    controls: list[Result] = field(default_factory=list)
    exposure: Exposure | None = None
    remarks: list[str] = field(default_factory=list)
    model: Encoder | None = field(default=None, repr=False, compare=False)
    studies: Studies | None = field(default=None, repr=False, compare=False)

    @property
    def classes(self) -> list[str]:
        """Names of the C classes."""
        return [task.name for task in self.tasks]

    @property
    def main_setting(self) -> str:
        """The score that answers the question: VERSUS where every class is "A vs B", else PAIR."""
        return "VERSUS" if all(task.versus for task in self.tasks) else "PAIR"

    @property
    def n_images(self) -> int:
        """Images that were scored, however many make a row."""
        return len(self.records) if self.studies is None else len(self.studies.owner)

    @property
    def unit(self) -> str:
        """What a row is: "image" or "study"."""
        return "image" if self.studies is None else "study"

    @property
    def by_encoders(self) -> Provenance:
        """The provenance of figures that the encoders' vectors gave, whatever scored the classes: retrieval."""
        own = str(getattr(self.model, "hash", "")) or self.provenance.model_hash
        pooling = "" if self.studies is None else "embeddings"
        return replace(self.provenance, scorer="encoders", model_hash=own, pooling=pooling)

    @property
    def settings(self) -> dict[str, object]:
        """Options and provenance, flat, to print."""
        own = replace(self.options, validation=None, controls_train=None, leaks=None)
        return {**asdict(own), **asdict(self.provenance)}


def evaluate(
    model: Encoder,
    images: Manifest | Embedded,
    classes: Sequence[str] | Mapping[str, Sequence[str]],
    graph: KnowledgeGraph | None = None,
    *,
    seed: int = 0,
    queries: Sequence[Query] | None = None,
    options: EvalOptions | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Evaluation:
    """Score a model on labelled images, with 95 % intervals over patients.

    Args:
        model: encodes images and texts; its `card` says which concepts its training texts named.
        images: a manifest (choose the split before), or what `embed_manifest` made of one.
        classes: class names, or group name -> class names ("seen", "unseen"), for a macro mean of each group.
            "A vs B" tells images of A from images of B.
        graph: gives prompts their synonyms, and names one form.
        seed: of the resamples.
        queries: text queries for retrieval; by default the plain present sentence of each class.
        options: how to evaluate.
        progress: called with (step, done, total).

    Raises:
        DataError: an unknown class, no image that can be read, or a patient of the validation rows among those scored.
        CheckpointError: the query network is asked for and there is none.
    """
    options = options or EvalOptions()
    timings: dict[str, float] = {}
    scorer_of(model, options.scorer)  # told before the long part
    names = Names(graph)
    tasks, groups = parse_tasks(classes)
    with _timed(timings, "read and encode images"):
        embedded = _embedded(model, images, tasks, names, options, progress)
    prompts = class_sentences(tasks, Prompts(graph), options.style, synonyms=options.synonyms)
    studies = studies_of(embedded.records, options.studies) if options.studies else None
    records = embedded.records if studies is None else studies.records
    with _timed(timings, "encode prompts" if options.scorer == "encoders" else "ask the query network"):
        asked_images = asked_of(
            model, embedded, options.scorer, studies, batch_size=options.batch_size, progress=progress
        )
        if options.negation and options.scorer == "query":  # each picture is looked at once for all sentences
            asked_images.ask([*_flat(prompts), *probe_lines(graph, _words(tasks))])
        scores = class_scores(asked_images, tasks, prompts, studies)
    asked = list(queries) if queries is not None else _default_queries(tasks, graph)
    hashed = hash_of({"prompts": prompts, "queries": [query.text for query in asked]})
    trained = getattr(model, "card", {}).get("named_concepts")
    result = Evaluation(
        results=[],
        tasks=tasks,
        groups=groups,
        naming={task.name: names.naming(task.names, trained) for task in tasks},
        records=records,
        y_true=label_matrix(records, tasks, names),
        scores=scores,
        patients=_patients(records),
        image_emb=embedded.vectors if studies is None else studies.vectors(embedded.vectors),
        prompts=prompts,
        skipped=embedded.skipped,
        implausible=embedded.implausible,
        provenance=_provenance(asked_images.model, embedded, options, graph, hashed, seed),
        options=options,
        timings=timings,
        model=model,
        exposure=_exposure(model, embedded),
        remarks=_remarks(options, studies),
        studies=studies,
    )
    with _timed(timings, "thresholds"):
        _decide(model, result, names, progress)
    _add_figures(result)
    if options.negation:
        with _timed(timings, "negation"):
            result = _with_negation(asked_images, result, graph)
    _add_retrieval(model, result, names, asked)
    if options.controls:
        with _timed(timings, "controls"):
            _add_controls(model, result, embedded, graph)
    return result


def _add_figures(result: Evaluation) -> None:
    """Everything that needs no model: counts, leaks, classes, thresholds, errors, subgroups."""
    with _timed(result.timings, "intervals"):
        data_rows(result)
        leak_rows(result)
        classification_rows(result)
        decision_rows(result)
        error_rows(result)
    with _timed(result.timings, "subgroups"):
        subgroup_rows(result)


def _add_retrieval(model: Encoder, result: Evaluation, names: Names, asked: Sequence[Query]) -> None:
    """Images found by text queries, reports found by images."""
    with _timed(result.timings, "text to image"):
        text_query_rows(model, result, names, asked)
    with _timed(result.timings, "image to report"):
        report_recall_rows(model, result)


def _provenance(
    model: Any, embedded: Embedded, options: EvalOptions, graph: KnowledgeGraph | None, prompts: str, seed: int
) -> Provenance:
    return Provenance(
        split=options.split,
        split_hash=embedded.content_hash,
        model_hash=str(getattr(model, "hash", "")),
        graph_hash=graph.content_hash if graph is not None else "",
        prompt_hash=prompts,
        seed=seed,
        versions=versions(),
        scorer=options.scorer,
        pooling=options.studies,
    )


def _remarks(options: EvalOptions, studies: Studies | None) -> list[str]:
    """Who scored, and what a row is, where a reader would not expect it."""
    said = [_BY_QUERY] if options.scorer == "query" else []
    if studies is not None:
        told = f"{len(studies.records)} studies of {len(studies.owner)} images: {POOLINGS[studies.how]}"
        said.append(
            f"A row is a study, {told}; retrieval is by the mean embedding; pictures are a study's first image."
        )
    if studies is not None and studies.differing:
        said.append(f"{studies.differing} studies have images whose labels differ: a study has what one of them has.")
    return said


def _embedded(
    model: Encoder,
    images: Manifest | Embedded,
    tasks: Sequence[ClassTask],
    names: Names,
    options: EvalOptions,
    progress: Callable[[str, int, int], None] | None,
) -> Embedded:
    if options.validation is not None:
        require_apart(_records(options.validation), _records(images), name="validation")
    if isinstance(images, Embedded):
        return images
    label_matrix(list(images), tasks, names)  # a wrong class name is told before the long part
    return embed_manifest(model, images, batch_size=options.batch_size, progress=progress)


def _exposure(model: Encoder, embedded: Embedded) -> Exposure | None:
    """Which images the model was trained on; None for a model of no folder, or vectors without pixel hashes."""
    if not embedded.hashes or not getattr(model, "source", ""):
        return None
    from kvlp.eval.exposure import exposure_check

    return exposure_check(cast("Any", model), embedded)


def _add_controls(model: Encoder, result: Evaluation, embedded: Embedded, graph: KnowledgeGraph | None) -> None:
    from kvlp.eval.controls import run_controls

    train = result.options.controls_train
    result.controls.extend(run_controls(model, result, graph, images=embedded, train=train))
    result.results.extend(result.controls)


def _records(images: Manifest | Embedded) -> Sequence[Record]:
    return images.records if isinstance(images, Embedded) else images


def _decide(model: Encoder, result: Evaluation, names: Names, progress: Callable[[str, int, int], None] | None) -> None:
    """Thresholds and probabilities from the validation rows, else from the checkpoint, else none."""
    given, options = result.options.validation, result.options
    who = scorer_of(model, options.scorer)
    if given is None:
        source = who if result.main_setting == "PAIR" and not options.studies else None  # it was learned on images
        found, remark = stored_decisions(source, result.classes, result.prompts)
        result.remarks.extend([remark] if remark else [])
    else:
        if not isinstance(given, Embedded):
            given = embed_manifest(model, given, batch_size=options.batch_size, progress=progress)
        studies = studies_of(given.records, options.studies) if options.studies else None
        asked = asked_of(model, given, options.scorer, studies, batch_size=options.batch_size, progress=progress)
        scores = class_scores(asked, result.tasks, result.prompts, studies)[result.main_setting]
        records = given.records if studies is None else studies.records
        splits = sorted({record.split for record in given.records} - {""})
        name = f"{', '.join(splits) or 'validation'} ({len(given.records)} images, {given.content_hash[:12]})"
        validation = Validation(label_matrix(records, result.tasks, names), scores, name)
        found = learn_decisions(who, result.classes, validation, options.rule)
    result.decisions.update(found)


def _with_negation(asked: Asked, result: Evaluation, graph: KnowledgeGraph | None) -> Evaluation:
    """The evaluation with the probe and its rows."""
    probe = negation_probe(
        asked.model,
        asked,
        result.y_true,
        graph,
        _words(result.tasks),
        groups=result.patients,
        studies=result.studies if result.options.studies in ("mean", "max") else None,
        resamples=result.options.resamples,
        seed=result.provenance.seed,
    )
    result.results.extend(negation_rows(probe, result.provenance, result.naming))
    return replace(result, negation=probe)


def _words(tasks: Sequence[ClassTask]) -> dict[str, str]:
    """What the negation probe asks for each class by; a class "A vs B" by A."""
    return {task.name: task.positive for task in tasks}


@contextmanager
def _timed(timings: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    timings[name] = time.perf_counter() - start


def _flat(prompts: Mapping[str, Mapping[str, list[str]]]) -> list[str]:
    return [line for said in prompts.values() for lines in said.values() for line in lines]


def _patients(records: Sequence[Record]) -> NDArray[np.str_]:
    """The patient of each row; a row without one is taken as a patient of its own."""
    return np.array([r.patient_id or f"row {i} without a patient" for i, r in enumerate(records)], dtype=np.str_)


def _default_queries(tasks: Sequence[ClassTask], graph: KnowledgeGraph | None) -> list[Query]:
    writer = Prompts(graph)
    wanted = dict.fromkeys(task.positive for task in tasks)
    return [Query(writer.sentence(name, Assertion.PRESENT), (name,)) for name in wanted]
