"""Zero-shot classification: name findings in plain words, get a score for each image and finding.

A class is scored by what says that it is there against what says that it is not, so that a class scores the same alone
or among others, and several can be present.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kvlp.embedding import Embedded, Flag, embed_images, read_images
from kvlp.errors import ConfigError, DataError, ShapeError
from kvlp.knowledge.names import Names
from kvlp.typing import Assertion

if TYPE_CHECKING:
    from kvlp.checkpoints import Model
    from kvlp.knowledge.graph import KnowledgeGraph
    from kvlp.knowledge.prompts import AttributePrompts, Prompts

__all__ = ["ImplausibleImageWarning", "ZeroShotClassifier"]

Floats = NDArray[np.float64]
#: a file of templates, templates, or what writes sentences itself
Templates: TypeAlias = "str | Path | Mapping[str, Sequence[str]] | Prompts | AttributePrompts | None"


class ImplausibleImageWarning(UserWarning):
    """An image that was scored is not plausibly a frontal chest radiograph."""


class ZeroShotClassifier:
    """Scores images against classes named in words, with scikit-learn's habits.

    Args:
        model: from `kvlp.load`; or anything with `score(images, prompts) -> (N, P)`.
        classes: names, synonyms or ids of the graph's concepts, "No Finding", or free text ("left basal opacity").
        graph: gives each class its synonyms.
        score: "pair" takes the similarity to prompts that say "present" minus that to prompts that say "absent" (the
            softmax over the two is the sigmoid of their difference); "positive" takes the first alone.
        synonyms: prompts with the graph's synonyms too.
        style: "ensemble" of several wordings, "plain" for one, or another style of `Prompts`, such as "attributes".
        templates: other wordings: a YAML file like the bundled `prompts.yaml`, {"present": ["There is {}."],
            "absent": ["There is no {}."]}, or a writer: `Prompts`, or `AttributePrompts` with a back-end of its own.
        errors: what an image that cannot be read does: "raise", or "flag" for a row of NaN.
        batch_size: images read and encoded at once.
        progress: called with (images done, total) after each batch.

    Attributes:
        classes_: the C class names, as given.
        flags_: position -> Flag for the images of the last call that could not be read or seem to be no frontal chest
            radiograph. A warning says so too.
        thresholds_: (C,) probability from which `predict` says 1; 0.5 unless fitted.

    Without `fit` the scores rank images but are no probabilities.
    """

    _estimator_type = "classifier"

    def __init__(  # noqa: PLR0913 - scikit-learn's habit: every setting is an argument
        self,
        model: Model | Any = None,
        classes: Sequence[str] = (),
        *,
        graph: KnowledgeGraph | None = None,
        score: Literal["pair", "positive"] = "pair",
        synonyms: bool = True,
        style: str = "ensemble",
        templates: Templates = None,
        errors: Literal["raise", "flag"] = "raise",
        batch_size: int = 64,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.model = model
        self.classes = classes
        self.graph = graph
        self.score = score
        self.synonyms = synonyms
        self.style = style
        self.templates = templates
        self.errors = errors
        self.batch_size = batch_size
        self.progress = progress

    def get_params(self, deep: bool = True) -> dict[str, Any]:  # noqa: FBT001 - scikit-learn's signature
        """Return the constructor's arguments."""
        return {name: getattr(self, name) for name in _parameters()}

    def set_params(self, **params: Any) -> ZeroShotClassifier:
        """Change arguments of the constructor; what was fitted before is forgotten."""
        unknown = sorted(set(params) - set(_parameters()))
        if unknown:
            raise ConfigError(
                f"ZeroShotClassifier has no parameter {unknown[0]!r}; expected {', '.join(_parameters())}"
            )
        for name, value in params.items():
            setattr(self, name, value)
        for name in [name for name in vars(self) if name.endswith("_")]:
            delattr(self, name)
        return self

    def __sklearn_clone__(self) -> ZeroShotClassifier:
        """An unfitted classifier that shares the model and graph, which are large and never changed."""
        return type(self)(**self.get_params())

    def __repr__(self) -> str:
        return f"ZeroShotClassifier({self.model!r}, {list(self.classes)!r}, score={self.score!r})"

    @property
    def classes_(self) -> NDArray[np.str_]:
        """Names of the C classes."""
        return np.array(self._checked_classes(), dtype=np.str_)

    @property
    def thresholds_(self) -> Floats:
        """(C,) probability from which `predict` says 1."""
        return getattr(self, "fitted_thresholds_", np.full(len(self._checked_classes()), 0.5))

    @property
    def flags_(self) -> dict[int, Flag]:
        """Position -> what is wrong with an image of the last call."""
        return getattr(self, "last_flags_", {})

    def decision_function(self, X: Any) -> Floats:
        """Score images: float64 (N, C), larger means rather present; NaN rows for images that were not read.

        Args:
            X: a list of paths, PIL images, arrays, tensors or DICOM files; a manifest; or embeddings (N, D) of the
                model.
        """
        return self._gain() * self._similarities(X)

    def predict_proba(self, X: Any) -> Floats:
        """Probability of each class: float64 (N, C). The rows do not sum to 1: several findings can be present."""
        decision = self.decision_function(X)
        slope, offset = getattr(self, "slope_", 1.0), getattr(self, "offset_", self._bias())
        return _sigmoid(slope * decision + offset)

    def predict(self, X: Any) -> NDArray[np.int8]:
        """Return int8 (N, C): 1 present, 0 not, -1 for an image that was not read."""
        probability = self.predict_proba(X)
        said = (probability >= self.thresholds_).astype(np.int8)
        return np.where(np.isnan(probability), np.int8(-1), said)

    def fit(self, X: Any, y: Any) -> ZeroShotClassifier:
        """Calibrate on labelled validation images: a slope, an offset and a threshold for each class.

        Args:
            X: as in `decision_function`; use images that were neither trained on nor will be tested on.
            y: (N, C) labels 1, 0, -1 (uncertain) or NaN; only 1 and 0 count. (N,) where there is one class.

        The slope and offset are Platt's, with his smoothed targets; the threshold maximises sensitivity + specificity.
        A class without both labels keeps its scores, with a warning; so does the slope of one that scores worse than
        chance.
        """
        labels = np.asarray(y, dtype=np.float64)
        labels = labels[:, None] if labels.ndim == 1 else labels
        decision = self.decision_function(X)
        if labels.shape != decision.shape:
            raise ShapeError(f"fit: expected labels of shape {decision.shape}, got {labels.shape}")
        count = decision.shape[1]
        slope, offset, thresholds = np.ones(count), np.full(count, self._bias()), np.full(count, 0.5)
        for column, name in enumerate(self._checked_classes()):
            usable = np.isin(labels[:, column], (0.0, 1.0)) & np.isfinite(decision[:, column])
            scores, truth = decision[usable, column], labels[usable, column]
            if len(np.unique(truth)) < 2:
                warnings.warn(f"fit: class {name!r} has no labels of both kinds and stays uncalibrated", stacklevel=2)
                continue
            slope[column], offset[column] = _platt(scores, truth, name)
            thresholds[column] = _youden(_sigmoid(slope[column] * scores + offset[column]), truth)
        self.slope_, self.offset_, self.fitted_thresholds_ = slope, offset, thresholds
        return self

    def naming(self, name: str) -> str:
        """Whether the model's training texts named a class: the honest name for what its score is.

        Returns:
            "prompted classification" if the class, a synonym or a more specific concept was named; "zero-shot" if none
            was; "not known" if the model's card does not say.
        """
        return Names(self.graph).naming([name], getattr(self.model, "card", {}).get("named_concepts"))

    def prompts(self, name: str) -> dict[str, list[str]]:
        """The sentences that say of a class "present" and "absent"."""
        if isinstance(self.templates, Mapping):
            return self._from_templates(name, self.templates)
        from kvlp.knowledge.prompts import Prompts

        if self.templates is None or isinstance(self.templates, str | Path):
            writer: Prompts | AttributePrompts = Prompts(self.graph, templates=self.templates)
        else:
            writer = self.templates
        say = partial(writer.sentences, name, synonyms=self.synonyms, style=self.style)
        return {"present": say(Assertion.PRESENT), "absent": say(Assertion.ABSENT)}

    def _from_templates(self, name: str, templates: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
        needed = ("present", "absent") if self.score == "pair" else ("present",)
        missing = [key for key in needed if not templates.get(key)]
        if missing or any("{}" not in line for lines in templates.values() for line in lines):
            raise ConfigError(
                f"templates: expected lists of sentences with '{{}}' under {' and '.join(map(repr, needed))}, "
                f"got {sorted(templates)}; score='positive' needs no 'absent'"
            )
        surfaces = [name]
        names = Names(self.graph)
        if self.graph is not None and names.in_graph(name):
            concept = self.graph[names(name)]
            surfaces = list(concept.surfaces) if self.synonyms else [concept.name]
        return {key: [line.format(s) for line in lines for s in surfaces] for key, lines in templates.items()}

    def _checked_classes(self) -> list[str]:
        names = list(self.classes) if not isinstance(self.classes, str) else [self.classes]
        if not names or any(not isinstance(name, str) or not name.strip() for name in names):
            raise ConfigError(f"classes: expected at least one name, none of them empty, got {names!r}")
        doubles = sorted({name for name in names if names.count(name) > 1})
        if doubles:
            raise ConfigError(f"classes: {doubles[0]!r} is named twice; name each class once")
        if self.score not in ("pair", "positive"):
            raise ConfigError(f"score: expected 'pair' or 'positive', got {self.score!r}")
        return names

    def _gain(self) -> float:
        return float(getattr(self.model, "logit_scale", 1.0))

    def _bias(self) -> float:
        """A model's own bias (SigLIP's) is of single similarities; it cancels in a pair."""
        return float(getattr(self.model, "logit_bias", 0.0)) if self.score == "positive" else 0.0

    def _similarities(self, X: Any) -> Floats:
        """(N, C) cosines, or their differences for pairs."""
        said = [self.prompts(name) for name in self._checked_classes()]
        kinds = ("present", "absent") if self.score == "pair" else ("present",)
        sentences = list(dict.fromkeys(s for prompts in said for kind in kinds for s in prompts[kind]))
        if hasattr(self.model, "encode_text"):
            table = self._by_vectors(X, said, sentences, kinds)
        else:
            table = self._by_scores(X, said, sentences, kinds)
        self._warn()
        return table[0] - table[1] if self.score == "pair" else table[0]

    def _by_vectors(self, X: Any, said: list[dict[str, list[str]]], sentences: list[str], kinds: Sequence[str]) -> Any:
        """A class is the unit vector between its sentences' vectors, as open_clip builds one from templates."""
        images = self._vectors(X)
        vectors = dict(zip(sentences, np.asarray(self.model.encode_text(sentences), np.float64), strict=True))

        def centre(lines: Sequence[str]) -> Floats:
            mean = np.mean([vectors[line] for line in lines], axis=0)
            return mean / max(float(np.linalg.norm(mean)), 1e-12)

        return [images @ np.stack([centre(prompts[kind]) for prompts in said], axis=1) for kind in kinds]

    def _by_scores(self, X: Any, said: list[dict[str, list[str]]], sentences: list[str], kinds: Sequence[str]) -> Any:
        """For models that only score: the mean of a class's sentences' scores."""
        sources = _as_list(X)
        greys, self.last_flags_ = read_images(sources, errors=self.errors)
        scores = np.full((len(sources), len(sentences)), np.nan)
        if greys:
            scores[list(greys)] = self.model.score(list(greys.values()), sentences)
        column = {line: i for i, line in enumerate(sentences)}

        def mean(lines: Sequence[str]) -> Floats:
            return scores[:, [column[line] for line in lines]].mean(axis=1)

        return [np.stack([mean(prompts[kind]) for prompts in said], axis=1) for kind in kinds]

    def _vectors(self, X: Any) -> Floats:
        if isinstance(X, np.ndarray) and X.ndim == 2:
            self.last_flags_ = {}
            return _unit_rows(X, self.model.dim)
        embedded: Embedded = embed_images(
            self.model, _as_list(X), batch_size=self.batch_size, errors=self.errors, progress=self.progress
        )
        self.last_flags_ = embedded.flags
        return embedded.vectors.astype(np.float64)

    def _warn(self) -> None:
        odd = [position for position, flag in self.flags_.items() if flag.kind == "implausible"]
        if odd:
            warnings.warn(
                f"{len(odd)} images seem to be no frontal chest radiographs (the first at position {odd[0]}: "
                f"{self.flags_[odd[0]].reason}); their scores mean nothing; see flags_",
                ImplausibleImageWarning,
                stacklevel=4,
            )


def _parameters() -> list[str]:
    return [name for name in inspect.signature(ZeroShotClassifier.__init__).parameters if name != "self"]


def _as_list(X: Any) -> Sequence[object]:
    if hasattr(X, "path_of"):
        return [X.path_of(record) for record in X]
    if isinstance(X, str | Path | bytes) or hasattr(X, "getbands"):
        return [X]
    if not hasattr(X, "__len__") or not hasattr(X, "__getitem__") or isinstance(X, Mapping):
        raise ShapeError(f"expected a list of images, a manifest or embeddings (N, D), got {type(X).__name__}")
    if getattr(X, "ndim", 3) < 3:
        raise ShapeError(f"expected a list of images, got one of shape {tuple(X.shape)}; put it into a list")
    return X


def _unit_rows(X: NDArray[Any], dim: int) -> Floats:
    if X.shape[1] != dim:
        raise ShapeError(f"expected embeddings (N, {dim}) of this model, got {X.shape}; put a single image into a list")
    rows = X.astype(np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    if not np.isfinite(rows).all() or (lengths == 0).any():
        raise DataError("embeddings: expected finite rows that are not all zero; embed the images again")
    return rows / lengths


def _sigmoid(x: Floats) -> Floats:
    return 0.5 * (1.0 + np.tanh(0.5 * x))  # does not overflow


def _platt(scores: Floats, truth: Floats, name: str) -> tuple[float, float]:
    """Slope and offset of a logistic regression on one score, with Platt's smoothed targets.

    Reference: Platt 1999; the targets keep separable classes finite.
    """
    positives, negatives = truth.sum(), (1 - truth).sum()
    target = np.where(truth == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    centre, spread = float(scores.mean()), float(scores.std()) or 1.0
    a, b = _logistic((scores - centre) / spread, target)
    if a > 0:
        return a / spread, b - a * centre / spread
    warnings.warn(f"fit: class {name!r} scores no better than chance; its slope is left as it is", stacklevel=3)
    return 1.0, _offset(scores, float(target.sum()))


def _logistic(z: Floats, target: Floats) -> tuple[float, float]:
    """Newton's method for sigmoid(a z + b), steps limited so that it cannot run away."""
    design, at = np.stack([z, np.ones_like(z)], axis=1), np.zeros(2)
    for _ in range(100):
        p = _sigmoid(design @ at)
        curvature = (design * (p * (1 - p))[:, None]).T @ design + 1e-9 * np.eye(2)
        step = np.linalg.solve(curvature, design.T @ (p - target))
        at = at - step * min(1.0, 2.0 / max(float(np.abs(step).max()), 1e-12))
        if np.abs(step).max() < 1e-9:
            break
    return float(at[0]), float(at[1])


def _offset(scores: Floats, wanted: float) -> float:
    """The offset with which the probabilities sum to `wanted`, by bisection."""
    low, high = -float(scores.max()) - 50.0, -float(scores.min()) + 50.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _sigmoid(scores + middle).sum() < wanted else (low, middle)
    return (low + high) / 2


def _youden(probability: Floats, truth: Floats) -> float:
    """The threshold of greatest sensitivity + specificity: halfway between the two neighbouring scores."""
    order = np.argsort(-probability, kind="stable")
    ranked, hits = probability[order], truth[order]
    gain = np.cumsum(hits) / hits.sum() - np.cumsum(1 - hits) / (1 - hits).sum()
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    best = int(ends[np.argmax(gain[ends])])
    below = ranked[best + 1] if best + 1 < len(ranked) else 0.0
    return float((ranked[best] + below) / 2)
