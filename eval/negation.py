"""Does a model read the "no"? AUC by stating sentences, by denying ones, by both, and how much the words matter.

A model that matches "no pneumothorax" to images with a pneumothorax reads the name and not the denial: its AUC by
denying sentences falls below 0.5. Only grammatical templates are asked (the style "wordings" and styles of attributes).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from kvlp.errors import DataError, ShapeError
from kvlp.eval.asking import meaning
from kvlp.eval.intervals import FewPositivesWarning, MetricTable, auc_table
from kvlp.eval.metrics import Floats, auc, macro
from kvlp.eval.results import Provenance, Result, hash_of
from kvlp.eval.studies import Studies
from kvlp.knowledge.prompts import Prompts
from kvlp.typing import Assertion
from kvlp.zero_shot.scoring import Asked, as_model

if TYPE_CHECKING:
    from kvlp.knowledge.graph import KnowledgeGraph
    from kvlp.zero_shot import ZeroShotClassifier

__all__ = ["SETTINGS", "NegationProbe", "Way", "negation_probe", "negation_rows", "probe_lines"]

SETTINGS = ("POS", "NEG", "PAIR")
#: further styles that are grammatical without exception; one that a class has no attribute for is left out
STYLES = ("words", "attributes", "visual", "relations")
Axis: TypeAlias = Literal["wording", "synonym", "style"]
Lines: TypeAlias = Sequence[str]
#: what varies, how it is called, the sentences that state and those that deny
Asking: TypeAlias = tuple[Axis, str, Lines, Lines]

_DEFINITIONS = {
    "negation_auc": "area under the ROC curve by grammatical sentences over names and synonyms",
    "auc_over_prompts": "mean of the AUCs of single wordings, synonyms and styles; low and high are the lowest and "
    "highest of them, no confidence interval",
    "auc_sd_over_prompts": "standard deviation of the AUCs of single wordings, synonyms and styles",
}


@dataclass(frozen=True, slots=True)
class Way:
    """One way to ask for a class, and its AUCs.

    Attributes:
        axis: what it varies: one "wording" alone, one "synonym" alone, or another "style".
        label: the stating and the denying sentence, the synonym, or the style.
        auc: setting -> AUC; NaN where the labels do not define it.
    """

    axis: Axis
    label: str
    auc: Mapping[str, float]


@dataclass(frozen=True)
class NegationProbe:
    """What the probe found.

    Attributes:
        tables: "POS", "NEG", "PAIR" -> AUCs of every class and their mean, with 95 % intervals over patients.
        ways: class name -> every single way to ask for it.
        prompts: class name -> "present" and "absent" sentences of the tables.
    """

    tables: Mapping[str, MetricTable]
    ways: Mapping[str, Sequence[Way]]
    prompts: Mapping[str, Mapping[str, Lines]]

    def spread(self, name: str, setting: str) -> tuple[float, float, float, float]:
        """Mean, lowest, highest and standard deviation of a class's AUCs over the ways to ask.

        For "macro" the mean of each over the classes that the labels define. The deviation of one way is NaN.
        """
        if name == "macro":
            each = [self.spread(c, setting) for c in self.ways if c not in self.tables[setting].undefined]
            means = [macro(column).value for column in zip(*each, strict=True)] or [math.nan] * 4
            return means[0], means[1], means[2], means[3]
        values = np.array([way.auc[setting] for way in self.ways[name]])
        if not values.size or np.isnan(values).any():
            return math.nan, math.nan, math.nan, math.nan
        sd = float(values.std(ddof=1)) if values.size > 1 else math.nan
        return float(values.mean()), float(values.min()), float(values.max()), sd


def negation_probe(  # noqa: PLR0913 - what is asked, of whom, and how sure
    model_or_classifier: Any,
    images: Any,
    labels: ArrayLike,
    graph: KnowledgeGraph | None = None,
    classes: Sequence[str] | Mapping[str, str] | None = None,
    *,
    groups: ArrayLike | None = None,
    studies: Studies | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> NegationProbe:
    """Ask a model for each class by stating and by denying sentences.

    Args:
        model_or_classifier: a model from `kvlp.load`, anything with `score(images, prompts)`, a list of these, or a
            `ZeroShotClassifier`, whose graph and classes are then the defaults.
        images: a list of images, a manifest, embeddings (N, D) of the model, or what was `Asked` of it before.
        labels: (N, C); 1, 0, -1 or NaN.
        graph: gives synonyms and attributes.
        classes: C names; or name -> words to ask for it by.
        groups: (N,) the patient of each image; intervals draw patients.
        studies: pool the images' scores by these S studies; labels and groups are then of studies, and all images can
            be read.
        resamples: of the bootstrap.
        seed: of the resamples.

    Raises:
        DataError: no class.
        ShapeError: labels of another shape.
    """
    classifier: ZeroShotClassifier | None = None
    if hasattr(model_or_classifier, "decision_function"):
        classifier = model_or_classifier
    model = as_model(classifier.model if classifier is not None else model_or_classifier)
    graph = classifier.graph if graph is None and classifier is not None else graph
    words = _words(classes if classes is not None or classifier is None else classifier.classes_.tolist())
    asked, writer = images if isinstance(images, Asked) else Asked(model, images), Prompts(graph)
    truth = np.asarray(labels, dtype=np.float64)
    expected = (asked.count if studies is None else len(studies.records), len(words))
    if truth.shape != expected:
        raise ShapeError(f"negation_probe: expected labels of shape {expected}, got {truth.shape}")
    prompts = _prompts(writer, words)
    each = {name: list(_ways(writer, w)) for name, w in words.items()}
    asked.ask(_lines(prompts, each))
    truth = np.where(asked.read[:, None], truth, np.nan) if studies is None else truth
    scores = [_settings(asked, said["present"], said["absent"], studies) for said in prompts.values()]
    tables = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FewPositivesWarning)  # every interval carries the note
        for setting in SETTINGS:
            table = np.stack([column[setting] for column in scores], axis=1)
            tables[setting] = auc_table(truth, table, groups, names=list(words), n=resamples, seed=seed)
    ways = {name: _aucs(asked, truth[:, c], found, studies) for c, (name, found) in enumerate(each.items())}
    return NegationProbe(tables, ways, prompts)


def probe_lines(graph: KnowledgeGraph | None, words: Mapping[str, str]) -> list[str]:
    """Every sentence that `negation_probe` asks of classes (name -> words), so that they can be asked at once."""
    writer = Prompts(graph)
    return _lines(_prompts(writer, words), {name: list(_ways(writer, w)) for name, w in words.items()})


def _lines(prompts: Mapping[str, Mapping[str, Lines]], ways: Mapping[str, Sequence[Asking]]) -> list[str]:
    lines = [line for said in prompts.values() for kind in said.values() for line in kind]
    lines += [line for each in ways.values() for _, _, present, absent in each for line in (*present, *absent)]
    return list(dict.fromkeys(lines))


def _prompts(writer: Prompts, words: Mapping[str, str]) -> dict[str, dict[str, list[str]]]:
    return {name: dict(zip(("present", "absent"), _both(writer, w, "wordings"))) for name, w in words.items()}


def _words(classes: Sequence[str] | Mapping[str, str] | None) -> dict[str, str]:
    words = dict(classes) if isinstance(classes, Mapping) else {name: name for name in classes or ()}
    if not words:
        raise DataError("negation_probe: no class to ask for; name at least one")
    return words


def _aucs(asked: Asked, labels: Floats, ways: Iterable[Asking], studies: Studies | None) -> list[Way]:
    found = []
    for axis, label, present, absent in ways:
        values = {
            setting: auc(labels, scores) for setting, scores in _settings(asked, present, absent, studies).items()
        }
        found.append(Way(axis, label, values))
    return found


def _both(writer: Prompts, name: str, style: str, *, synonyms: bool = True) -> tuple[list[str], list[str]]:
    """The sentences of a style that state a class, and those that deny it."""
    say = partial(writer.sentences, name, style=style, synonyms=synonyms)
    return say(Assertion.PRESENT), say(Assertion.ABSENT)


def _ways(writer: Prompts, name: str) -> Iterator[Asking]:
    """Each single wording of the name, each synonym in all wordings, each further style of the name."""
    wordings = _both(writer, name, "wordings", synonyms=False)
    for states, denies in zip(*wordings):
        yield "wording", f"{states} / {denies}", [states], [denies]
    if writer.concept(name) is None:
        return
    free = Prompts()
    for surface in writer.sentences(name, Assertion.PRESENT, style="words")[1:]:
        yield "synonym", surface, *_both(free, surface, "wordings")
    plain = set(wordings[0])
    for style in STYLES:
        present, absent = _both(writer, name, style, synonyms=False)
        if not set(present) <= plain:
            yield "style", style, present, absent


def _settings(asked: Asked, present: Lines, absent: Lines, studies: Studies | None) -> dict[str, Floats]:
    """Setting -> scores (N,), higher means present; 0 for images that were not read, whose labels are left out."""
    states, denies = (np.nan_to_num(asked.match(lines)) for lines in (present, absent))
    found = {"POS": states, "NEG": -denies, "PAIR": states - denies}
    return found if studies is None else {setting: studies.scores(scores) for setting, scores in found.items()}


def negation_rows(
    probe: NegationProbe, provenance: Provenance, naming: Mapping[str, str] | None = None
) -> list[Result]:
    """The probe as rows: AUC with its interval, and mean, lowest, highest and deviation over the ways to ask.

    Args:
        probe: of `negation_probe`.
        provenance: of the evaluation; the hash of prompts becomes the probe's.
        naming: class name -> "zero-shot", "prompted classification" or "not known".
    """
    told = naming or {}
    own = replace(provenance, prompt_hash=hash_of({name: dict(said) for name, said in probe.prompts.items()}))
    rows: list[Result] = []
    for setting in SETTINGS:
        table = probe.tables[setting]
        intervals = {**table.per_class, **({"macro": table.macro} if len(table.per_class) > 1 else {})}
        kinds = {told.get(name, "not known") for name in table.per_class}
        for name, interval in intervals.items():
            task = told.get(name, "not known") if name != "macro" else next(iter(kinds)) if len(kinds) == 1 else "mixed"
            common: dict[str, Any] = {
                "target": name, "setting": setting, "provenance": own, "task": task,
                "group": "all" if name == "macro" else "",
            }  # fmt: skip
            rows.append(
                Result.of(interval, metric="negation_auc", definition=_defined("negation_auc", setting, own), **common)
            )
            rows += _spread_rows(probe, name, setting, interval.n, interval.n_positive, common)
    return rows


def _spread_rows(
    probe: NegationProbe, name: str, setting: str, n: int, n_positive: int, common: Mapping[str, Any]
) -> list[Result]:
    mean, low, high, sd = probe.spread(name, setting)
    notes: tuple[str, ...] = ()
    if name != "macro" and probe.ways[name] and not math.isnan(mean):
        ranked = sorted(probe.ways[name], key=lambda way: way.auc[setting])
        notes = tuple(
            f"{kind}: {way.axis} {way.label!r}" for kind, way in (("lowest", ranked[0]), ("highest", ranked[-1]))
        )
    count = f"{len(probe.ways[name])} ways to ask" if name != "macro" else "means over the classes"
    return [
        Result(
            metric=metric, value=value, low=a, high=b, method=f"{count}; no confidence interval", n=n,
            n_positive=n_positive, definition=_defined(metric, setting, common["provenance"]), notes=notes, **common,
        )
        for metric, value, a, b in (
            ("auc_over_prompts", mean, low, high),
            ("auc_sd_over_prompts", sd, math.nan, math.nan),
        )
    ]  # fmt: skip


def _defined(metric: str, setting: str, provenance: Provenance) -> str:
    return f"{_DEFINITIONS[metric]}; score: {meaning(provenance, setting)}"
