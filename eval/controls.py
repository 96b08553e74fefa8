"""Controls that ship with every evaluation: what a score reaches when the thing it should need is taken away.

A control that comes near the model's figure says that the figure can be had without reading the image. Shuffled labels
and captions must give chance; if they do not, the evaluation itself is wrong.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kvlp.datasets.manifest import Manifest
from kvlp.errors import DataError
from kvlp.eval.asking import class_scores
from kvlp.eval.baselines import CONTROLS as FITTED
from kvlp.eval.baselines import logistic_scores
from kvlp.eval.figures import DEFINITIONS, _report_vectors, control_results
from kvlp.eval.intervals import FewPositivesWarning, bootstrap
from kvlp.eval.metrics import Floats, auc
from kvlp.eval.results import Result
from kvlp.eval.retrieval import distinct_reports, recall_hits
from kvlp.eval.tasks import ClassTask, label_matrix, require_apart
from kvlp.knowledge.names import Names
from kvlp.zero_shot.scoring import Asked, scorer_of

if TYPE_CHECKING:
    from kvlp.datasets.manifest import Record
    from kvlp.eval.evaluate import Encoder, Evaluation
    from kvlp.eval.images import Embedded
    from kvlp.knowledge.graph import KnowledgeGraph

__all__ = [
    "blank_image_results",
    "drain_results",
    "metadata_scores",
    "run_controls",
    "shuffled_caption_results",
    "shuffled_label_results",
    "text_only_results",
]

#: grey of a blank image, of 0 to 255
_GREY = 128
_DRAINS = ("chest_tube", "mediastinal_drain", "chest drain", "drain")
_SHUFFLED = "mean over shuffles, with the range that holds 95 % of them"
_PAIRS = "area under the ROC curve over all pairs of an image and a class at once"


def run_controls(
    model: Encoder,
    result: Evaluation,
    graph: KnowledgeGraph | None = None,
    *,
    images: Embedded | Manifest | None = None,
    train: Manifest | None = None,
    shuffles: int = 100,
) -> list[Result]:
    """Every control that the data allow, as rows with task "control".

    Shuffled labels, shuffled captions, blank images and the texts alone need nothing more. With training rows: source,
    border and thumbnails alone, and age, sex and view alone where the manifest tells them. Where drains are labelled:
    pneumothorax by the drain alone.

    Args:
        model: the model that was evaluated.
        result: its evaluation.
        graph: brings names to one form.
        images: what was evaluated: it tells the pictures' sizes and folder.
        train: rows of other patients, to fit the last kind on.
        shuffles: how often labels and captions are shuffled.

    Raises:
        DataError: a patient of the training rows is among those scored, or the pictures cannot be found for a control.
    """
    names = Names(graph)
    rows = shuffled_label_results(result, shuffles)
    rows += shuffled_caption_results(model, result, shuffles) if result.options.reports else []
    rows += blank_image_results(model, result, images)
    rows += text_only_results(model, result)
    rows += drain_results(result, names)
    if train is not None:
        require_apart(train, result.records)
        scored = Manifest(getattr(images, "records", result.records), _root(images))
        labels = label_matrix(list(train), result.tasks, names)
        for name, score in {**FITTED, "metadata only (age, sex, view)": metadata_scores}.items():
            found = score(train, scored, labels)
            if not np.isnan(found).all():
                rows += control_results(result, name, found if result.studies is None else result.studies.scores(found))
    return rows


def _root(images: Embedded | Manifest | None) -> Any:
    root = getattr(images, "root", None)
    if root is None:
        raise DataError("controls on training rows need the scored images' folder: pass the manifest as `images`")
    return root


def shuffled_label_results(result: Evaluation, shuffles: int = 100) -> list[Result]:
    """AUC of our main score against labels dealt to other patients: by chance alone, so about 0.5.

    Whole patients exchange labels, so that images of a patient stay alike. The interval is the range of the shuffles.
    """
    scores = result.scores[result.main_setting]
    rng = np.random.default_rng([result.provenance.seed, 31])
    drawn = np.full((shuffles, len(result.tasks)), math.nan)
    for number in range(shuffles):
        labels = result.y_true[_dealt(result.patients, rng)]
        for column in np.flatnonzero(~np.isnan(scores).any(axis=0)):
            drawn[number, column] = auc(labels[:, column], scores[:, column])
    targets = {task.name: drawn[:, c] for c, task in enumerate(result.tasks)}
    counts = {task.name: _counted(result.y_true[:, c]) for c, task in enumerate(result.tasks)}
    if len(targets) > 1:
        defined = drawn[:, ~np.isnan(drawn).any(axis=0)]
        targets["macro"] = defined.mean(axis=1) if defined.size else drawn[:, 0]
        counts["macro"] = len(result.records), 0
    return [_shuffle_row(result, ("auc", name), d, counts[name], "labels", "0.5") for name, d in targets.items()]


def _counted(labels: Floats) -> tuple[int, int]:
    """Images whose label is known, and positive ones among them."""
    return int(np.isin(labels, (0.0, 1.0)).sum()), int((labels == 1).sum())


def shuffled_caption_results(model: Encoder, result: Evaluation, shuffles: int = 100) -> list[Result]:
    """Recall of reports by image, each image given another patient's report; nothing where there are no reports."""
    reports, target = distinct_reports([record.report for record in result.records])
    rows = np.flatnonzero(target >= 0)
    if len(reports) < 2:
        return []
    similarity = result.image_emb[rows].astype(np.float64) @ _report_vectors(model, reports).T
    rng = np.random.default_rng([result.provenance.seed, 32])
    orders = [_dealt(result.patients[rows], rng) for _ in range(shuffles)]
    out = []
    for k in (1, 5, 10):
        drawn = np.array([recall_hits(similarity, target[rows][order], k).mean() for order in orders])
        chance = f"{k / len(reports):.4f} (pool of {len(reports)} distinct reports)"
        name = (f"recall_at_{k}", "image to report")
        out.append(_shuffle_row(result, name, drawn, (rows.size, 0), "captions", chance))
    return out


def blank_image_results(model: Encoder, result: Evaluation, images: Embedded | Manifest | None = None) -> list[Result]:
    """AUC with every image replaced by plain grey of its size: what size and shape tell.

    Args:
        model: the model that was evaluated.
        result: its evaluation.
        images: tells the sizes; without it all are taken as square, and every class has 0.5.
    """
    sizes = list(getattr(images, "shapes", ())) or [(224, 224)] * result.n_images
    distinct = {size: row for row, size in enumerate(dict.fromkeys(sizes))}
    blank = [np.full(size, _GREY, dtype=np.uint8) for size in distinct]
    asked, rows = Asked(scorer_of(model, result.options.scorer), blank), [distinct[size] for size in sizes]
    return _substituted(result, "blank image", asked, rows, "every image replaced by plain grey of its size")


def text_only_results(model: Encoder, result: Evaluation) -> list[Result]:
    """AUC with the image's vector replaced by the mean of the prompts' vectors: what the words alone prefer.

    A query network sees that vector instead of the places of the image.

    One number a class, so that no class can be told from its absence; over all pairs of image and class it says how far
    frequent findings are told from rare ones by their names.
    """
    texts = list(dict.fromkeys(s for said in result.prompts.values() for sentences in said.values() for s in sentences))
    middle = np.asarray(model.encode_text(texts), dtype=np.float64).mean(axis=0)
    middle = (middle[None] / max(float(np.linalg.norm(middle)), 1e-12)).astype(np.float32)
    who, scorer = scorer_of(model, result.options.scorer), result.options.scorer
    asked = Asked(who, middle) if scorer == "encoders" else Asked(_Blind(who, middle), [np.zeros((8, 8), np.uint8)])
    rows = [0] * result.n_images
    return _substituted(result, "text only", asked, rows, "the image's vector replaced by the mean of all prompts")


@dataclass(frozen=True)
class _Blind:
    """A query network that sees a vector (1, D) instead of whatever image it is shown."""

    network: Any
    vector: Floats

    def score(self, images: Sequence[object], prompts: Sequence[str]) -> Floats:
        return np.repeat(self.network.score_vectors(self.vector, prompts), len(images), axis=0)


def drain_results(result: Evaluation, names: Names) -> list[Result]:
    """Pneumothorax told by the drain alone, and by us where there is no drain; nothing where drains are not labelled.

    Most labelled pneumothoraces were treated already: a model that finds drains looks as if it found pneumothorax.
    """
    column = next((c for c, task in enumerate(result.tasks) if _is_pneumothorax(task, names)), None)
    drains = {names(drain) for drain in _DRAINS}
    drain = np.array([_any_present(record, drains, names) for record in result.records])
    if column is None or len(set(drain[np.isfinite(drain)])) < 2:
        return []
    ours, main = result.scores[result.main_setting][:, column], result.main_setting
    known, without = np.isfinite(drain), drain == 0
    meaning = "area under the ROC curve, ties one half; score: "
    return [
        _auc_row(result, column, drain, known, "drain only", f"{meaning}1 where a drain is labelled"),
        _auc_row(result, column, ours, known, f"{main}, drains labelled", f"{meaning}ours, where drains are labelled"),
        _auc_row(result, column, ours, without, f"{main}, no drain", f"{meaning}ours, images without a drain alone"),
    ]


def metadata_scores(train: Manifest, test: Manifest, labels: Floats) -> Floats:
    """Logistic regression on age band, sex and view where the rows tell them; NaN (N, C) where they tell none."""
    from kvlp.eval.attributes import record_attributes

    found = record_attributes([*train, *test])
    told = [np.array(found[name]) for name in ("age", "sex", "view") if name in found]
    if not told:
        return np.full((len(test), labels.shape[1]), np.nan)
    table = np.column_stack([values == value for values in told for value in np.unique(values)]).astype(np.float64)
    patients = [record.patient_id or f"row {row}" for row, record in enumerate(train)]
    return logistic_scores(table[: len(train)], labels, table[len(train) :], patients)


def _is_pneumothorax(task: ClassTask, names: Names) -> bool:
    return not task.versus and names(task.positive) == names("pneumothorax")


def _any_present(record: Record, wanted: set[str], names: Names) -> float:
    """1 if a label among `wanted` is present, 0 if all that are given are absent, NaN if none is known."""
    values = [value for label, value in record.labels.items() if names(label) in wanted and value in (0.0, 1.0)]
    return max(values, default=math.nan)


def _substituted(result: Evaluation, name: str, asked: Asked, rows: Sequence[int], meaning: str) -> list[Result]:
    """Rows of our main score on what stands for the images (`rows` of `asked`): by class, and over all pairs."""
    main, studies = result.main_setting, result.studies
    if studies is not None and studies.how == "embeddings":
        vectors = studies.vectors(asked.vectors[list(rows)].astype(np.float32))
        scores = class_scores(Asked(asked.model, vectors), result.tasks, result.prompts)[main]
    else:
        scores = class_scores(asked, result.tasks, result.prompts)[main][list(rows)]
        scores = scores if studies is None else studies.scores(scores)
    found = control_results(result, name, scores) if name != "text only" else []
    found.append(_pairs_row(result, name, scores, f"{_PAIRS}; score: {main} with {meaning}"))
    if name == "text only":
        found.append(_pairs_row(result, main, result.scores[main], f"{_PAIRS}; score: {main}"))
    return found


def _pairs_row(result: Evaluation, setting: str, scores: Floats, definition: str) -> Result:
    columns = np.flatnonzero(~np.isnan(scores).any(axis=0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FewPositivesWarning)  # the row carries the note
        interval = bootstrap(
            "auc", result.y_true[:, columns].ravel(), scores[:, columns].ravel(),
            np.repeat(result.patients, len(columns)), n=result.options.resamples, seed=result.provenance.seed,
        )  # fmt: skip
    return Result.of(interval, metric="auc_over_pairs", target="all images and classes", definition=definition,
                     setting=setting, task="control", provenance=result.provenance)  # fmt: skip


def _auc_row(
    result: Evaluation, column: int, scores: Floats, rows: NDArray[np.bool_], setting: str, definition: str
) -> Result:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FewPositivesWarning)  # the row carries the note
        interval = bootstrap(
            "auc", result.y_true[rows, column], scores[rows], result.patients[rows],
            n=result.options.resamples, seed=result.provenance.seed,
        )  # fmt: skip
    return Result.of(interval, metric="auc", target=result.tasks[column].name, definition=definition,
                     setting=setting, task="control", provenance=result.provenance)  # fmt: skip


def _dealt(patients: NDArray[np.str_], rng: np.random.Generator) -> NDArray[np.intp]:
    """For each row a row of the patient whose place its patient takes; whole patients change places."""
    _, owner, count = np.unique(patients, return_inverse=True, return_counts=True)
    rows = np.argsort(owner, kind="stable")
    start = np.cumsum(count) - count
    place = np.empty(len(rows), dtype=np.intp)
    place[rows] = np.arange(len(rows)) - start[owner[rows]]  # the how manieth of its patient
    other = rng.permutation(len(count))[owner]
    return rows[start[other] + place % count[other]]


def _shuffle_row(
    result: Evaluation, target: tuple[str, str], drawn: Floats, counted: tuple[int, int], what: str, chance: str
) -> Result:
    values = drawn[np.isfinite(drawn)]
    low, high = np.quantile(values, (0.025, 0.975)) if values.size else (math.nan, math.nan)
    return Result(
        metric=target[0], target=target[1], value=float(values.mean()) if values.size else math.nan,
        low=float(low), high=float(high), method=f"{_SHUFFLED}; {len(drawn)} shuffles of {what} among patients",
        definition=f"{DEFINITIONS[target[0].split('_at_')[0]]}; {what} dealt to other patients; chance {chance}",
        n=counted[0], n_positive=counted[1], n_groups=len(set(result.patients)), setting=f"shuffled {what}",
        task="control", provenance=result.provenance if what == "labels" else result.by_encoders,
    )  # fmt: skip
