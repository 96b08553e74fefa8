"""Why an image got its score for a class: what was asked, what the graph knows, and where it was seen."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from kvlp.embedding import Flag, read_images
from kvlp.errors import ConfigError, ShapeError
from kvlp.knowledge.names import Names
from kvlp.zero_shot.ensemble import Ensemble, encodes
from kvlp.zero_shot.heat import HeatMap, Method, attention_map, local_map, occlusion_map
from kvlp.zero_shot.scoring import Floats, ImplausibleImageWarning, as_list, as_model, unit_centre

if TYPE_CHECKING:
    from kvlp.knowledge.graph import KnowledgeGraph
    from kvlp.zero_shot.classifier import ZeroShotClassifier

__all__ = ["Explanation", "PromptScore", "explain"]

Kind = Literal["present", "absent"]
#: what is told of a class: title -> (type of relation, direction)
_RELATIONS: dict[str, tuple[str, Literal["out", "in"]]] = {
    "parents": ("is_a", "out"),
    "rules out": ("rules_out", "out"),
    "ruled out by": ("rules_out", "in"),
    "opposite of": ("opposite_of", "out"),
    "located in": ("located_in", "out"),
    "may resemble": ("may_resemble", "out"),
}


@dataclass(frozen=True, slots=True)
class PromptScore:
    """A sentence, whether it states or denies the class, and the image's score for it (for a dual encoder: cosine)."""

    text: str
    kind: Kind
    score: float


@dataclass(frozen=True)
class Explanation:
    """Why an image got its score for a class.

    Attributes:
        name: the class, as given.
        probability: of the class.
        decision: what the probability was made from.
        threshold: probability from which `predict` says 1.
        confidence: see `ZeroShotClassifier.confidence`.
        labels: the conformal set, of "absent" and "present"; empty if nothing was learned or neither fits.
        calibrated: whether the class was calibrated on validation images.
        naming: "zero-shot", "prompted classification" or "not known".
        prompts: every sentence, highest score first.
        concept: the graph's concept id, or "".
        synonyms: its synonyms.
        related: "parents", "rules out", "ruled out by", ... -> names of concepts, those that there are.
        heat: where in the image.
        flag: what is wrong with the image, or None.
        grey: the image as it was read, uint8 (H, W).
    """

    name: str
    probability: float
    decision: float
    threshold: float
    confidence: float
    labels: tuple[str, ...]
    calibrated: bool
    naming: str
    prompts: tuple[PromptScore, ...]
    concept: str
    synonyms: tuple[str, ...]
    related: dict[str, tuple[str, ...]]
    heat: HeatMap
    flag: Flag | None
    grey: NDArray[np.uint8]

    def best(self, kind: Kind = "present", n: int = 3) -> tuple[PromptScore, ...]:
        """The `n` sentences of a kind with the highest scores."""
        return tuple(p for p in self.prompts if p.kind == kind)[:n]

    def worst(self, kind: Kind = "present", n: int = 3) -> tuple[PromptScore, ...]:
        """The `n` sentences of a kind with the lowest scores, the lowest first."""
        return tuple(p for p in reversed(self.prompts) if p.kind == kind)[:n]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without pixels."""
        kinds: tuple[Kind, ...] = ("present", "absent")
        said = {
            kind: {
                "count": sum(p.kind == kind for p in self.prompts),
                "best": [{"text": p.text, "score": p.score} for p in self.best(kind)],
                "worst": [{"text": p.text, "score": p.score} for p in self.worst(kind)],
            }
            for kind in kinds
        }
        row, column = self.heat.peak
        return {
            "class": self.name, "probability": self.probability, "decision": self.decision,
            "threshold": self.threshold, "confidence": self.confidence, "set": list(self.labels),
            "calibrated": self.calibrated, "naming": self.naming, "prompts": said, "concept": self.concept,
            "synonyms": list(self.synonyms), "related": {key: list(names) for key, names in self.related.items()},
            "heat": {"method": self.heat.method, "low": self.heat.low, "high": self.heat.high,
                     "cells": list(self.heat.cells), "peak": {"row": row, "column": column}},
            "flag": None if self.flag is None else str(self.flag),
        }  # fmt: skip


def explain(classifier: ZeroShotClassifier, image: object, name: str, heat: Method = "occlusion") -> Explanation:
    """See `ZeroShotClassifier.explain`."""
    if heat not in ("occlusion", "features", "attention"):
        raise ConfigError(f"explain: heat is {heat!r}; expected 'occlusion', 'features' or 'attention'")
    names = classifier.classes_.tolist()
    if name not in names:
        raise ConfigError(f"explain: no class {name!r}; the classes are {', '.join(names)}")
    grey, flag = _read(image)
    alone, graph = _of_one_class(classifier, name), classifier.graph
    prompts, concept = alone.prompts(name), _concept(graph, name)
    learned = alone.calibration_.classes.get(name) if hasattr(alone, "calibration_") else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImplausibleImageWarning)  # told by `flag`
        decision = alone.decision_function([grey])
        probability = alone.probability_of(decision)
        held = alone.sets_of(decision)[0, 0] if learned is not None else (False, False)
        return Explanation(
            name=name,
            probability=float(probability[0, 0]),
            decision=float(decision[0, 0]),
            threshold=float(alone.thresholds_[0]),
            confidence=float(alone.confidence_of(probability)[0, 0]),
            labels=tuple(label for label, here in zip(("absent", "present"), held, strict=True) if here),
            calibrated=learned is not None and learned.learned,
            naming=classifier.naming(name),
            prompts=_scored(as_model(classifier.model), grey, prompts),
            concept=concept,
            synonyms=graph[concept].synonyms if graph is not None and concept else (),
            related=_related(graph, concept),
            heat=_heat(alone, grey, prompts, heat),
            flag=flag,
            grey=grey,
        )


def _read(image: object) -> tuple[NDArray[np.uint8], Flag | None]:
    sources = [image] if getattr(image, "ndim", 0) == 2 or hasattr(image, "detach") else as_list(image)
    if isinstance(image, np.ndarray) and image.ndim == 3:
        sources = [image]
    if len(sources) != 1:
        raise ShapeError(f"explain: expected one image, got {len(sources)}")
    greys, flags = read_images(sources)
    return greys[0], flags.get(0)


def _of_one_class(classifier: ZeroShotClassifier, name: str) -> ZeroShotClassifier:
    """A classifier of one class with what was learned of it, which tells nobody of progress."""
    alone = type(classifier)(**{**classifier.get_params(), "classes": [name], "progress": None, "errors": "raise"})
    if hasattr(classifier, "calibration_"):
        learned = classifier.calibration_
        kept = {key: value for key, value in learned.classes.items() if key == name}
        alone.calibration_ = replace(learned, classes=kept)
    return alone


def _scored(model: Any, grey: NDArray[np.uint8], prompts: dict[str, list[str]]) -> tuple[PromptScore, ...]:
    pairs: list[tuple[str, Kind]] = [(text, "present") for text in dict.fromkeys(prompts["present"])]
    pairs += [(text, "absent") for text in dict.fromkeys(prompts.get("absent", ()))]
    texts = [text for text, _ in pairs]
    scores = _scores(model, grey, texts)
    rows = [PromptScore(text, kind, float(s)) for (text, kind), s in zip(pairs, scores, strict=True)]
    return tuple(sorted(rows, key=lambda row: -row.score))


def _scores(model: Any, grey: NDArray[np.uint8], texts: Sequence[str]) -> Floats:
    if encodes(model):
        return np.asarray(model.encode_image([grey]) @ model.encode_text(texts).T, np.float64)[0]
    return np.asarray(model.score([grey], texts), np.float64)[0]


def _heat(alone: ZeroShotClassifier, grey: NDArray[np.uint8], prompts: dict[str, list[str]], kind: str) -> HeatMap:
    """What covering a place up does; or the tower's own map, where it gives one; or where a query network looks."""
    model = as_model(alone.model)
    if kind == "attention":
        looked = attention_map(model, grey, prompts["present"])
        if looked is None:
            raise ConfigError("explain: heat 'attention' is of a query network; score by model.query (--scorer query)")
        return looked
    if kind == "features" and encodes(model) and not isinstance(model, Ensemble):
        kinds = ("present", "absent") if alone.score == "pair" else ("present",)
        centres = [unit_centre(model.encode_text(prompts[kind])) for kind in kinds]
        found = local_map(model, grey, centres[0] - centres[1] if len(centres) == 2 else centres[0])
        if found is not None:
            return found
    return occlusion_map(lambda pictures: alone.decision_function(pictures)[:, 0], grey)


def _concept(graph: KnowledgeGraph | None, name: str) -> str:
    names = Names(graph)
    return names(name) if graph is not None and names.in_graph(name) else ""


def _related(graph: KnowledgeGraph | None, concept: str) -> dict[str, tuple[str, ...]]:
    if graph is None or not concept:
        return {}
    out = {}
    for title, (type_, direction) in _RELATIONS.items():
        found = graph.neighbours(concept, type_, direction)
        ids = dict.fromkeys(r.tail if direction == "out" else r.head for r in found)
        if names := tuple(graph[i].name for i in ids if i in graph):
            out[title] = names
    return out
