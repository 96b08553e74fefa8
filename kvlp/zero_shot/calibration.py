"""What a classifier learned on validation images, class by class, and its file `calibration.json`."""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kvlp.datasets.files import atomic_write, read_text
from kvlp.errors import CheckpointError, ConfigError, DataError
from kvlp.eval.conformal import ConformalLimits, conformal_limits
from kvlp.eval.fitting import Calibrator, fit_calibrator
from kvlp.eval.operating import choose_threshold
from kvlp.typing import PathLike
from kvlp.zero_shot.ensemble import encodes

__all__ = [
    "FILE",
    "SCORER_FILE",
    "Calibration",
    "ClassCalibration",
    "Rule",
    "as_rule",
    "calibration_file",
    "fit_class",
    "prompts_hash",
]

#: name in a checkpoint folder
FILE = "calibration.json"
#: the same of a query network, which scores beside the encoders of its checkpoint
SCORER_FILE = "calibration.query.json"
FORMAT = 1
_MAX_BYTES = 50_000_000
#: how a threshold is chosen: "youden", "mcc", "f1", ("sensitivity", 0.95), ("specificity", 0.9), or a probability
Rule: TypeAlias = str | tuple[str, float] | float


@dataclass(frozen=True, slots=True)
class ClassCalibration:
    """What was learned of one class.

    Attributes:
        calibrator: from the class's decision to its probability.
        threshold: probability from which `predict` says 1.
        limits: of the conformal sets, on decisions.
        weights: (M,) factor of each member's logit before the mean; 1 unless an ensemble was brought to equal spread.
        n_positive: validation images labelled present.
        n_negative: those labelled absent.
        n_patients: patients among them; 0 if no groups were given.
        prompts_hash: of the sentences that it was learned with.
    """

    calibrator: Calibrator = field(default_factory=Calibrator)
    threshold: float = 0.5
    limits: ConformalLimits = field(default_factory=ConformalLimits)
    weights: tuple[float, ...] = (1.0,)
    n_positive: int = 0
    n_negative: int = 0
    n_patients: int = 0
    prompts_hash: str = ""

    @property
    def learned(self) -> bool:
        """Whether there were labels of both kinds to learn from."""
        return self.n_positive > 0 and self.n_negative > 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; infinite limits become None."""
        return {
            "prompts_hash": self.prompts_hash,
            "calibrator": self.calibrator.to_dict(),
            "threshold": self.threshold,
            "present_from": _finite(self.limits.present_from),
            "absent_to": _finite(self.limits.absent_to),
            "n_present": self.limits.n_present,
            "n_absent": self.limits.n_absent,
            "weights": list(self.weights),
            "n_positive": self.n_positive,
            "n_negative": self.n_negative,
            "n_patients": self.n_patients,
        }

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> ClassCalibration:
        """The inverse of `to_dict`; raises KeyError, TypeError, ValueError or DataError for anything else."""
        limits = ConformalLimits(
            -math.inf if row["present_from"] is None else float(row["present_from"]),
            math.inf if row["absent_to"] is None else float(row["absent_to"]),
            int(row["n_present"]),
            int(row["n_absent"]),
        )
        counts = {key: int(row[key]) for key in ("n_positive", "n_negative", "n_patients")}
        weights = tuple(float(w) for w in row["weights"])
        found = cls(
            Calibrator.from_dict(row["calibrator"]), float(row["threshold"]), limits, weights, **counts,
            prompts_hash=str(row["prompts_hash"]),
        )  # fmt: skip
        if not weights or not all(math.isfinite(w) and w > 0 for w in weights) or not -1e-9 <= found.threshold <= 1.001:
            raise ValueError("weights or threshold out of range")
        return found


@dataclass(frozen=True, slots=True)
class Calibration:
    """What `fit` learned: one entry a class, and how.

    Attributes:
        classes: class name -> what was learned of it.
        method: how probabilities were learned, see kvlp.eval.fitting.
        threshold: rule of the thresholds.
        coverage: asked of the conformal sets.
    """

    classes: Mapping[str, ClassCalibration]
    method: str
    threshold: str | float
    coverage: float

    def save(self, path: PathLike, binding: Mapping[str, str]) -> Path:
        """Write the file, whole or not at all.

        Args:
            path: the file.
            binding: what it belongs to: "model_hash", "score", "combine".

        Raises:
            CheckpointError: the model has no hash, so that the file could not be bound to it.
        """
        if not binding["model_hash"]:
            raise CheckpointError("save_calibration: this model has no hash, so its calibration cannot be bound to it")
        document = {
            "format": FORMAT,
            **binding,
            "method": self.method,
            "threshold": self.threshold,
            "coverage": self.coverage,
            "classes": {name: row.to_dict() for name, row in self.classes.items()},
        }
        target = Path(path)
        atomic_write(target, (json.dumps(document, indent=1, allow_nan=False) + "\n").encode())
        return target

    @classmethod
    def load(cls, path: PathLike, binding: Mapping[str, str], hashes: Mapping[str, str]) -> Calibration:
        """Read a file of `save` for the classes of `hashes`; others in the file are left out.

        Args:
            path: the file.
            binding: of the classifier that will use it.
            hashes: class name -> hash of the classifier's sentences.

        Raises:
            CheckpointError: no such file, damaged, of another model or other settings, a class that it does not hold,
                or one that was asked with other sentences.
        """
        target = Path(path)
        document = _read(target)
        for key, own in binding.items():
            if document.get(key) != own:
                shown = f"{str(document.get(key))[:12]!r}, this classifier has {own[:12]!r}"
                raise CheckpointError(f"{target}: made for another {key.replace('_', ' ')} ({shown}); fit again")
        try:
            rows = {name: ClassCalibration.from_dict(row) for name, row in document["classes"].items()}
            rule = document["threshold"]
            threshold = rule if isinstance(rule, str) else float(rule)
            whole = cls(rows, str(document["method"]), threshold, float(document["coverage"]))
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, DataError) as error:
            raise CheckpointError(f"{target}: not a whole calibration ({_line(error)}); fit again") from None
        whole._require(hashes, target)
        return cls({name: rows[name] for name in hashes}, whole.method, whole.threshold, whole.coverage)

    def _require(self, hashes: Mapping[str, str], target: Path) -> None:
        missing = [name for name in hashes if name not in self.classes]
        if missing:
            known = ", ".join(self.classes)
            raise CheckpointError(f"{target}: holds no class {missing[0]!r} (it holds {known[:200]}); fit again")
        other = [name for name, own in hashes.items() if self.classes[name].prompts_hash != own]
        if other:
            raise CheckpointError(
                f"{target}: class {other[0]!r} was calibrated with other prompts; use the same graph, style, synonyms "
                "and templates, or fit again"
            )


def calibration_file(path: PathLike, model: object) -> Path:
    """A .json file itself; in a checkpoint folder the file of what scores: its encoders or its query network."""
    if Path(path).suffix == ".json":
        return Path(path)
    return Path(path) / (FILE if encodes(model) else SCORER_FILE)


def as_rule(rule: Rule) -> str | float:
    """A rule in the words of `kvlp.eval.operating.choose_threshold`: ("sensitivity", 0.95) is "sensitivity 0.95".

    Raises:
        ConfigError: a pair of something else, or a probability outside [0, 1].
    """
    if isinstance(rule, tuple | list):
        if len(rule) != 2:
            raise ConfigError(f"threshold: expected ('sensitivity', 0.95) or ('specificity', 0.9), got {rule!r}")
        return f"{rule[0]} {rule[1]}"
    if isinstance(rule, int | float) and not 0 <= rule <= 1:
        raise ConfigError(f"threshold: expected a probability in [0, 1], got {rule!r}")
    return rule


def fit_class(
    name: str,
    labels: NDArray[np.float64],
    decision: NDArray[np.float64],
    *,
    settings: Calibration,
    prior: ClassCalibration,
    bias: float = 0.0,
    groups: NDArray[Any] | None = None,
) -> ClassCalibration:
    """Learn one class from the validation images that were read.

    Args:
        name: of the class, for warnings.
        labels: (N,); 1, 0, -1 or NaN; only 1 and 0 count.
        decision: (N,), finite.
        settings: method, threshold and coverage.
        prior: what is known before; kept where the labels are not of both kinds.
        bias: of the decision, see `fit_calibrator`.
        groups: (N,), the patient of each image.
    """
    known = np.isin(labels, (0.0, 1.0))
    positives, negatives = int((labels == 1).sum()), int((labels == 0).sum())
    if not positives or not negatives:
        kind = "present" if negatives else "absent" if positives else "present or absent"
        warnings.warn(
            f"fit: class {name!r} has no validation image labelled {kind}; its prior scores and threshold "
            f"{prior.threshold:g} are kept",
            stacklevel=3,
        )
        return replace(prior, n_positive=positives, n_negative=negatives)
    calibrator = fit_calibrator(labels, decision, settings.method, bias=bias)
    if calibrator.note:
        warnings.warn(f"fit: class {name!r} has {calibrator.note}; its slope is left as it is", stacklevel=3)
    return replace(
        prior,
        calibrator=calibrator,
        threshold=_threshold(labels[known], calibrator(decision[known]), settings.threshold),
        limits=conformal_limits(labels, decision, settings.coverage, groups),
        n_patients=0 if groups is None else len(np.unique(groups[known].astype(str))),
        n_positive=positives,
        n_negative=negatives,
    )


def _threshold(labels: NDArray[np.float64], probability: NDArray[np.float64], rule: str | float) -> float:
    """The rule's threshold, halfway down to the next probability, so that rounding flips no image."""
    chosen = choose_threshold(labels, probability, rule).threshold
    lower = probability[probability < chosen]
    if not isinstance(rule, str) or not lower.size or chosen > probability.max():
        return chosen
    return float((chosen + lower.max()) / 2)


def prompts_hash(prompts: Mapping[str, Sequence[str]], kinds: Sequence[str]) -> str:
    """sha256 of the sentences of a class, by kind and in order."""
    text = json.dumps({kind: list(prompts[kind]) for kind in kinds}, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _read(target: Path) -> dict[str, Any]:
    try:
        document = json.loads(read_text(target, max_bytes=_MAX_BYTES))
    except (DataError, json.JSONDecodeError, RecursionError) as error:
        raise CheckpointError(f"{target}: not readable as a calibration ({_line(error)}); fit again") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise CheckpointError(f"{target}: expected a calibration of format {FORMAT}; fit again with this version")
    return document


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__} {error}".split())[:120]
