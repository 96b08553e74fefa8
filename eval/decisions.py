"""How a score becomes an answer, and a probability: one threshold a class, chosen on other data than are scored.

From validation rows, or from what the checkpoint's `calibration.json` holds for the same prompts. Without either the
threshold is 0, the point where the stating and the denying sentences match alike, which no data chose.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kvlp.errors import CheckpointError
from kvlp.eval.fitting import Calibrator, fit_calibrator
from kvlp.eval.metrics import Bools, Floats
from kvlp.eval.operating import choose_threshold
from kvlp.zero_shot.calibration import Calibration, calibration_file, prompts_hash
from kvlp.zero_shot.ensemble import logit_scale

__all__ = ["Decision", "Validation", "flags", "learn_decisions", "stored_decisions"]

_UNCHOSEN = "0, where stating and denying sentences match alike; no data chose it"


@dataclass(frozen=True, slots=True)
class Decision:
    """How a class's score becomes an answer.

    Attributes:
        threshold: flagged is a value at or above it: of the probability if there is a calibrator, else of the score.
        origin: where the threshold is from, in words.
        chosen: whether data chose it; then other data than are scored.
        calibrator: from scale x score to a probability; None if nothing was learned.
        scale: the model's factor from similarities to logits.
    """

    threshold: float = 0.0
    origin: str = _UNCHOSEN
    chosen: bool = False
    calibrator: Calibrator | None = None
    scale: float = 1.0

    def values(self, scores: Floats) -> Floats:
        """What the threshold is about: probabilities, or the scores as they are."""
        return scores if self.calibrator is None else self.calibrator(self.scale * scores)

    def flagged(self, scores: Floats) -> Bools:
        """Whether each score reaches the threshold."""
        return self.values(scores) >= self.threshold


@dataclass(frozen=True, slots=True)
class Validation:
    """Scores of labelled rows that are not scored otherwise.

    Attributes:
        labels: shape (M, C).
        scores: shape (M, C).
        name: of the rows, for the words of a threshold's origin.
    """

    labels: Floats
    scores: Floats
    name: str = "validation"


def flags(decisions: Mapping[str, Decision], scores: Floats) -> NDArray[np.bool_]:
    """Whether each score (N, C) reaches its class's threshold; classes in the order of `decisions`."""
    return np.stack([d.flagged(column) for d, column in zip(decisions.values(), scores.T, strict=True)], axis=1)


def learn_decisions(model: Any, names: Sequence[str], validation: Validation, rule: str) -> dict[str, Decision]:
    """Platt calibration and a threshold for each class; one without both labels keeps the threshold 0."""
    scale, found = logit_scale(model), {}
    for c, name in enumerate(names):
        labels, scores = validation.labels[:, c], validation.scores[:, c]
        if not {0.0, 1.0} <= set(labels.tolist()):
            found[name] = Decision(origin=f"{_UNCHOSEN} ({validation.name} lacks one of the two labels)")
            continue
        calibrator = fit_calibrator(labels, scale * scores)
        point = choose_threshold(labels, calibrator(scale * scores), rule)
        found[name] = Decision(point.threshold, f"{rule} on {validation.name}", True, calibrator, scale)
    return found


def stored_decisions(
    model: Any, names: Sequence[str], prompts: Mapping[str, Mapping[str, list[str]]]
) -> tuple[dict[str, Decision], str]:
    """What the checkpoint's `calibration.json` holds for the scores PAIR of these classes, else the threshold 0.

    Returns:
        Class name -> decision, and a remark ("" if there is nothing to remark).
    """
    file = calibration_file(str(getattr(model, "source", "")).removeprefix("local-dir:"), model)
    plain = {name: Decision() for name in names}
    if not getattr(model, "source", "") or not file.is_file():
        return plain, ""
    found, missed = {}, []
    binding = {"model_hash": str(getattr(model, "hash", "")), "score": "pair", "combine": "scores"}
    for name in names:
        try:
            asked = {name: prompts_hash({k: list(v) for k, v in prompts[name].items()}, ("present", "absent"))}
            stored = Calibration.load(file, binding, asked)
        except CheckpointError:
            missed.append(name)
            continue
        learned = stored.classes[name]
        if learned.learned:
            origin = f"{stored.threshold}, from {file.name} of the checkpoint"
            found[name] = Decision(learned.threshold, origin, True, learned.calibrator, logit_scale(model))
    remark = f"{file.name} of the checkpoint does not fit these weights and prompts, so it is not used for: "
    return {**plain, **found}, remark + ", ".join(missed) if missed else ""
