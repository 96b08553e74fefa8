"""Base to new: adapt on some classes, score on these and on others, and see what the adaptation cost the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from kvlp.adaptation.cache_adapter import CacheAdapter
from kvlp.adaptation.learned_prompts import LearnedPrompts
from kvlp.adaptation.linear_probe import LinearProbe
from kvlp.errors import ConfigError
from kvlp.eval.intervals import Interval, auc_table
from kvlp.zero_shot import ZeroShotClassifier
from kvlp.zero_shot.scoring import Floats

if TYPE_CHECKING:
    from kvlp.checkpoints import Model
    from kvlp.knowledge.graph import KnowledgeGraph

__all__ = ["METHODS", "BaseToNew", "base_to_new"]

METHODS = ("zero-shot", "linear probe", "cache adapter", "learned prompts", "conditional prompts")


@dataclass(frozen=True, slots=True)
class BaseToNew:
    """One line of the table.

    Attributes:
        method: one of METHODS.
        base: macro AUC over the classes that were adapted to, on the test images, with its interval over patients.
        new: that over the classes that were not; NaN for a linear probe, which knows no others.
        harmonic_mean: of the two, as the papers report it.
    """

    method: str
    base: Interval
    new: Interval
    harmonic_mean: float


def base_to_new(  # noqa: PLR0913 - an experiment is its settings
    model: Model,
    train: tuple[Any, ArrayLike],
    test: tuple[Any, ArrayLike, ArrayLike],
    base: Sequence[str],
    new: Sequence[str],
    *,
    graph: KnowledgeGraph | None = None,
    train_groups: ArrayLike | None = None,
    methods: Sequence[str] = METHODS,
    prompt_settings: Mapping[str, Any] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> list[BaseToNew]:
    """Adapt to the base classes and score base and new ones, one line a method.

    Args:
        model: a dual encoder.
        train: images or embeddings, and labels (N, len(base)).
        test: images or embeddings, labels (M, len(base) + len(new)) in that order, and the patients (M,).
        base: classes that the training labels are of.
        new: other classes.
        graph: gives names in plain words.
        train_groups: (N,) patients of the training rows.
        methods: of METHODS.
        prompt_settings: of `LearnedPrompts` (epochs, lr, anchor ...).
        resamples: of patients.
        seed: of draws and resamples.
    """
    unknown = [name for name in methods if name not in METHODS]
    if unknown:
        raise ConfigError(f"no method {unknown[0]!r}; there are {', '.join(METHODS)}")
    images, labels, patients = test
    words = ZeroShotClassifier(model, [*base, *new], graph=graph).decision_function(images)

    def scores(method: str) -> Floats:
        """(M, base + new); NaN where a method has none."""
        if method == "zero-shot":
            return words
        if method in ("linear probe", "cache adapter"):
            kind = LinearProbe if method == "linear probe" else CacheAdapter
            own = kind(model, base, graph=graph, seed=seed).fit(*train, groups=train_groups).decision_function(images)
            # a cache holds nothing of other classes: there the words alone speak; a probe cannot be asked for them
            rest = words[:, len(base) :] if method == "cache adapter" else np.full((len(own), len(new)), np.nan)
            return np.hstack([own, rest])
        settings = {**(prompt_settings or {}), "conditional": method == "conditional prompts"}
        prompts = LearnedPrompts(model, base, graph=graph, seed=seed, **settings).fit(*train, groups=train_groups)
        return np.hstack([prompts.decision_function(images), prompts.with_classes(new).decision_function(images)])

    lines = []
    for method in methods:
        found = scores(method)
        known = np.where(np.isnan(found), np.nan, np.asarray(labels, dtype=np.float64))
        table = auc_table(known, np.nan_to_num(found), patients, names=[*base, *new], n=resamples, seed=seed)
        of_base, of_new = table.mean(list(base)), table.mean(list(new))
        lines.append(BaseToNew(method, of_base, of_new, _harmonic(of_base.value, of_new.value)))
    return lines


def _harmonic(a: float, b: float) -> float:
    return 2 * a * b / (a + b) if a + b > 0 else float("nan")
