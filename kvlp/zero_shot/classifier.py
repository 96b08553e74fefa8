"""The classifier: what is asked of each class, what its scores mean, and what was learned on validation images.

A class is scored by what says that it is there against what says that it is not, so that a class scores the same alone
or among others, and several can be present.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kvlp.embedding import Flag
from kvlp.errors import ConfigError, ShapeError
from kvlp.eval.conformal import SetCoverage, set_coverage
from kvlp.eval.fitting import Calibrator
from kvlp.eval.selective import RiskCoverage, risk_coverage
from kvlp.knowledge.names import Names
from kvlp.typing import PathLike
from kvlp.zero_shot.asking import Templates, class_prompts
from kvlp.zero_shot.calibration import (
    Calibration,
    ClassCalibration,
    Rule,
    as_rule,
    calibration_file,
    fit_class,
    prompts_hash,
)
from kvlp.zero_shot.ensemble import Ensemble, logit_bias
from kvlp.zero_shot.scoring import Floats, ImplausibleImageWarning, Reading, as_model, class_logits

if TYPE_CHECKING:
    from kvlp.checkpoints import Model
    from kvlp.knowledge.graph import KnowledgeGraph
    from kvlp.zero_shot.explain import Explanation

__all__ = ["ZeroShotClassifier"]


class ZeroShotClassifier:
    """Scores images against classes named in words, with scikit-learn's habits.

    Args:
        model: from `kvlp.load`; its query network (`model.query`); anything else with `score(images, prompts) -> (N,
            P)`; or a list of these, an ensemble.
        classes: names, synonyms or ids of the graph's concepts, "No Finding", or free text ("left basal opacity").
        graph: gives each class its synonyms.
        score: "pair" takes the similarity to prompts that say "present" minus that to prompts that say "absent" (the
            softmax over the two is the sigmoid of their difference); "positive" takes the first alone.
        combine: for ensembles: "scores" is the mean of the members' logits, which `fit` brings to equal spread class by
            class; "probabilities" the mean of their probabilities.
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
        calibration_: what `fit` learned, class by class; there only after `fit` or `load_calibration`.

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
        combine: Literal["scores", "probabilities"] = "scores",
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
        self.combine = combine
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

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn may expect: several labels an image, and predictions without `fit`."""
        from sklearn.utils import ClassifierTags, Tags, TargetTags

        return Tags(
            estimator_type="classifier",
            target_tags=TargetTags(required=True, multi_output=True),
            classifier_tags=ClassifierTags(multi_class=False, multi_label=True),
            requires_fit=False,
        )

    @property
    def n_features_in_(self) -> int:
        """Length of an embedding, where embeddings are handed in."""
        return int(as_model(self.model).dim)

    @property
    def thresholds_(self) -> Floats:
        """(C,) probability from which `predict` says 1."""
        return np.array([self._learned(name).threshold for name in self._checked_classes()])

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
        weights = np.stack([self._weights(name) for name in self._checked_classes()], axis=1)
        return self._combined(self._logits(X), weights)

    def predict_proba(self, X: Any) -> Floats:
        """Probability of each class: float64 (N, C). The rows do not sum to 1: several findings can be present."""
        return self.probability_of(self.decision_function(X))

    def predict(self, X: Any, abstain: float | Literal["conformal"] | None = None) -> NDArray[np.int8]:
        """Return int8 (N, C): 1 present, 0 not, -1 no answer (an image that was not read, see `flags_`).

        Args:
            X: as in `decision_function`.
            abstain: also give no answer where `confidence` is below this number in [0, 1] (`risk_coverage` helps to
                choose it); or "conformal", where the conformal set is not one label alone.
        """
        decision = self.decision_function(X)
        probability = self.probability_of(decision)
        said = (probability >= self.thresholds_).astype(np.int8)
        unsure = np.isnan(probability)
        if abstain == "conformal":
            unsure |= self.sets_of(decision).sum(axis=-1) != 1
        elif abstain is not None:
            if isinstance(abstain, str) or not 0 <= abstain <= 1:
                raise ConfigError(f"abstain: expected a confidence in [0, 1] or 'conformal', got {abstain!r}")
            unsure |= self.confidence_of(probability) < abstain
        return np.where(unsure, np.int8(-1), said)

    def confidence(self, X: Any) -> Floats:
        """How far each probability is from its threshold: float64 (N, C) in [0, 1], 1 at probability 0 or 1."""
        return self.confidence_of(self.predict_proba(X))

    def predict_set(self, X: Any) -> NDArray[np.bool_]:
        """Conformal sets: bool (N, C, 2), whether "absent" and whether "present" is in; both for an unread image.

        A set holds the truth as often as `fit` was asked (`coverage`), of positives and of negatives alike, if the
        images come from where the validation images came from.
        """
        return self.sets_of(self.decision_function(X))

    def fit(
        self,
        X: Any,
        y: ArrayLike,
        *,
        calibration: str = "platt",
        threshold: Rule = "youden",
        coverage: float = 0.9,
        groups: ArrayLike | None = None,
    ) -> ZeroShotClassifier:
        """Learn from labelled validation images: probabilities, thresholds and conformal limits, class by class.

        Args:
            X: as in `decision_function`; use images that were neither trained on nor will be tested on.
            y: (N, C) labels 1, 0, -1 (uncertain) or NaN; only 1 and 0 count. (N,) where there is one class.
            calibration: "platt", "temperature", "isotonic" or "none", see kvlp.eval.fitting.
            threshold: "youden", "mcc", "f1", ("sensitivity", 0.95), ("specificity", 0.9), or a probability.
            coverage: asked of the conformal sets, in (0, 1).
            groups: (N,) the patient of each image; conformal limits then use one image a patient.

        A class without both labels keeps its scores and threshold, with a warning; so does the slope of one that scores
        no better than chance.
        """
        names, rule = self._checked_classes(), as_rule(threshold)
        members = self._logits(X)
        labels = np.asarray(y, dtype=np.float64)
        labels = labels[:, None] if labels.ndim == 1 else labels
        if labels.shape != members.shape[1:]:
            raise ShapeError(f"fit: expected labels of shape {members.shape[1:]}, got {labels.shape}")
        patients = None if groups is None else np.asarray(groups)
        if patients is not None and patients.shape != labels.shape[:1]:
            raise ShapeError(f"fit: expected groups of shape {labels.shape[:1]}, got {patients.shape}")
        read = np.isfinite(members).all(axis=(0, 2))
        settings = Calibration({}, calibration, rule, coverage)
        fitted: dict[str, ClassCalibration] = {}
        for column, name in enumerate(names):
            prior = ClassCalibration(self._identity(), weights=(1.0,) * len(members), prompts_hash=self._hash(name))
            truth, logits = labels[read, column], members[:, read, column]
            if np.isin([0.0, 1.0], truth).all():
                prior = replace(prior, weights=self._equal_spread(logits))
            decision = self._combined(logits[..., None], np.array(prior.weights)[:, None])[:, 0]
            fitted[name] = fit_class(
                name, truth, decision, settings=settings, prior=prior, bias=self._bias(),
                groups=None if patients is None else patients[read],
            )  # fmt: skip
        self.calibration_ = replace(settings, classes=fitted)
        return self

    def save_calibration(self, path: PathLike) -> Path:
        """Write what `fit` learned as JSON, bound to model, prompts and classes.

        Args:
            path: a .json file, or a checkpoint folder, which gets `calibration.json` (`calibration.query.json` for its
                query network).
        """
        return self._fitted("save_calibration").save(calibration_file(path, as_model(self.model)), self._binding())

    def load_calibration(self, path: PathLike) -> ZeroShotClassifier:
        """Read what another classifier learned for these classes, with the same model, settings and prompts.

        Args:
            path: as in `save_calibration`.

        Raises:
            CheckpointError: the file is damaged, or of another model, other prompts or other classes.
        """
        hashes = {name: self._hash(name) for name in self._checked_classes()}
        self.calibration_ = Calibration.load(calibration_file(path, as_model(self.model)), self._binding(), hashes)
        return self

    def risk_coverage(self, X: Any, y: ArrayLike) -> dict[str, RiskCoverage]:
        """Class name -> share of wrong answers at each share of images answered, the most confident first.

        Args:
            X: as in `decision_function`. To choose `abstain`, use validation images; to report it, test images.
            y: as in `fit`.
        """
        probability = self.predict_proba(X)
        labels = self._labels(y, probability.shape)
        said, sure = probability >= self.thresholds_, self.confidence_of(probability)
        return {
            name: risk_coverage(np.where(np.isnan(sure[:, c]), np.nan, labels[:, c]), said[:, c], sure[:, c])
            for c, name in enumerate(self._checked_classes())
        }

    def set_coverage(self, X: Any, y: ArrayLike, groups: ArrayLike | None = None) -> dict[str, SetCoverage]:
        """Class name -> coverage asked and measured of the conformal sets, on images other than those of `fit`.

        Args:
            X: as in `decision_function`.
            y: as in `fit`.
            groups: (N,) the patient of each image, for the intervals.
        """
        asked = self._fitted("set_coverage").coverage
        decision = self.decision_function(X)
        labels, sets = self._labels(y, decision.shape), self.sets_of(decision)
        labels = np.where(np.isnan(decision), np.nan, labels)
        return {
            name: set_coverage(labels[:, c], sets[:, c], asked, groups)
            for c, name in enumerate(self._checked_classes())
        }

    def explain(
        self, image: object, name: str, heat: Literal["occlusion", "features", "attention"] = "occlusion"
    ) -> Explanation:
        """Why an image got its score for a class: prompts, concepts of the graph, and a heat map.

        Args:
            image: one image, as in `decision_function`, but no embedding.
            name: one of the classes.
            heat: "occlusion" covers places up and sees what the decision loses (some 144 images are scored); "features"
                compares the image tower's last map with the class, at once but coarsely; "occlusion" is taken where
                the tower gives none; "attention" is where a query network (`model.query`) looks for the sentences
                that state the class.
        """
        from kvlp.zero_shot.explain import explain

        return explain(self, image, name, heat)

    def naming(self, name: str) -> str:
        """Whether the model's training texts named a class: the honest name for what its score is.

        Returns:
            "prompted classification" if the class, a synonym or a more specific concept was named; "zero-shot" if none
            was; "not known" if the model's card does not say.
        """
        return Names(self.graph).naming([name], getattr(as_model(self.model), "card", {}).get("named_concepts"))

    def prompts(self, name: str) -> dict[str, list[str]]:
        """The sentences that say of a class "present" and "absent"."""
        return class_prompts(
            name, self.graph, self.templates, synonyms=self.synonyms, style=self.style, kinds=self._kinds()
        )

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

    def _kinds(self) -> tuple[str, ...]:
        return ("present", "absent") if self.score == "pair" else ("present",)

    def _hash(self, name: str) -> str:
        return prompts_hash(self.prompts(name), self._kinds())

    def _binding(self) -> dict[str, str]:
        return {
            "model_hash": str(getattr(as_model(self.model), "hash", "")),
            "score": self.score,
            "combine": self.combine,
        }

    def _logits(self, X: Any) -> Floats:
        """(M, N, C) logits of each member."""
        said = [self.prompts(name) for name in self._checked_classes()]
        reading = Reading(self.errors, self.batch_size, self.progress)
        logits, self.last_flags_ = class_logits(as_model(self.model), X, said, self._kinds(), reading)
        self._warn()
        return logits

    def _combined(self, members: Floats, weights: Floats) -> Floats:
        """(M, N, C) logits -> (N, C) decisions."""
        if len(members) == 1:
            return members[0]
        if self.combine == "scores":
            return (members * weights[:, None]).mean(axis=0)
        biased = members + self._member_biases()[:, None, None]
        return np.logaddexp.reduce(-np.logaddexp(0, -biased)) - np.logaddexp.reduce(-np.logaddexp(0, biased))

    def _equal_spread(self, logits: Floats) -> tuple[float, ...]:
        """Factors that bring members' logits (M, N) to the mean of their spreads."""
        spread = logits.std(axis=1)
        if len(logits) == 1 or self.combine != "scores" or (spread <= 0).any():
            return (1.0,) * len(logits)
        return tuple((spread.mean() / spread).tolist())

    def _member_biases(self) -> Floats:
        model = as_model(self.model)
        members = model.members if isinstance(model, Ensemble) else (model,)
        return np.array([logit_bias(m) if self.score == "positive" else 0.0 for m in members])

    def _bias(self) -> float:
        """A model's own bias (SigLIP's) is of single similarities; it cancels in a pair."""
        biases = self._member_biases()
        return 0.0 if len(biases) > 1 and self.combine == "probabilities" else float(biases.mean())

    def _identity(self) -> Calibrator:
        return Calibrator(offset=self._bias())

    def _learned(self, name: str) -> ClassCalibration:
        found = self.calibration_.classes.get(name) if hasattr(self, "calibration_") else None
        return found if found is not None else ClassCalibration(self._identity())

    def _weights(self, name: str) -> Floats:
        weights, count = self._learned(name).weights, len(self._member_biases())
        return np.array(weights) if len(weights) == count else np.ones(count)

    def _fitted(self, call: str) -> Calibration:
        if not hasattr(self, "calibration_"):
            raise ConfigError(f"{call}: nothing was learned yet; call fit on validation images, or load_calibration")
        return self.calibration_

    def probability_of(self, decision: Floats) -> Floats:
        """Probabilities (N, C) of what `decision_function` gave."""
        columns = [self._learned(name).calibrator(decision[:, c]) for c, name in enumerate(self._checked_classes())]
        return np.stack(columns, axis=1)

    def confidence_of(self, probability: Floats) -> Floats:
        """Confidence (N, C) of what `predict_proba` gave."""
        at = np.clip(self.thresholds_, 1e-12, 1 - 1e-12)
        return np.clip(np.where(probability >= at, (probability - at) / (1 - at), (at - probability) / at), 0, 1)

    def sets_of(self, decision: Floats) -> NDArray[np.bool_]:
        """Conformal sets (N, C, 2) of what `decision_function` gave."""
        self._fitted("predict_set")
        columns = [self._learned(name).limits.sets(decision[:, c]) for c, name in enumerate(self._checked_classes())]
        return np.stack(columns, axis=1)

    def _labels(self, y: ArrayLike, shape: tuple[int, ...]) -> Floats:
        labels = np.asarray(y, dtype=np.float64)
        labels = labels[:, None] if labels.ndim == 1 else labels
        if labels.shape != shape:
            raise ShapeError(f"expected labels of shape {shape}, got {labels.shape}")
        return labels

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
