"""Figures on held-out images while a model trains: does "there is X" find X, and does "there is no X" find the rest?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kvlp.datasets.manifest import Manifest
from kvlp.errors import DataError
from kvlp.eval.metrics import auc
from kvlp.knowledge.names import Names
from kvlp.knowledge.prompts import Prompts
from kvlp.training.pixels import cached_pixels
from kvlp.training.recipe import Recipe
from kvlp.training.setup import Prepared
from kvlp.typing import Assertion

if TYPE_CHECKING:
    from kvlp.typing import FloatArray

__all__ = ["Validation"]

_AT_ONCE = 64


@dataclass(frozen=True)
class Validation:
    """Scores a model on held-out rows: macro AUC over the classes that reports name and over those they never do.

    Attributes:
        every: steps from one row of figures to the next.
        prepared: tokenizer and preprocessing.
        pixels: (N, S, S) uint8.
        labels: (N, C); 1, 0, -1 or NaN.
        named: (C,), whether the training reports name the class.
        prompts: sentences of each class in turn: (those that state it, those that deny it).
    """

    every: int
    prepared: Prepared
    pixels: np.ndarray
    labels: FloatArray
    named: Sequence[bool]
    prompts: Sequence[tuple[list[str], list[str]]]

    @classmethod
    def of(cls, recipe: Recipe, manifest: Manifest, prepared: Prepared, cache: Path) -> Validation | None:
        """What the recipe asks for, or None.

        Raises:
            DataError: the split has no rows, or no class with both values; the message says what to set.
        """
        part = recipe.validation
        if part is None:
            return None
        chosen = [record.id for record in manifest if record.split == part.split][: part.rows]
        if not chosen:
            raise DataError(f"validation: no row has split '{part.split}'; name another, or --set validation=null")
        rows = manifest.subset(where=lambda record: record.id in set(chosen))
        names = Names(prepared.graph)
        said = [{names(label): value for label, value in record.labels.items()} for record in rows]
        values = {name: {float(row[name]) for row in said if name in row} for name in {n for row in said for n in row}}
        classes = [names(c) for c in part.classes] or sorted(n for n, found in values.items() if {0.0, 1.0} <= found)
        if not classes:
            raise DataError(
                f"validation: no label is both present and absent in split '{part.split}'; set validation=null"
            )
        writer, trained = Prompts(prepared.graph), prepared.rows.texts.named
        pixels, _ = cached_pixels(rows, prepared.preprocess, cache)
        return cls(
            every=part.every,
            prepared=prepared,
            pixels=pixels,
            labels=np.array([[float(row.get(c, math.nan)) for c in classes] for row in said]),
            named=[bool(names.named(c, trained)) for c in classes],
            prompts=[
                (
                    writer.sentences(c, Assertion.PRESENT, synonyms=False, style="wordings"),
                    writer.sentences(c, Assertion.ABSENT, synonyms=False, style="wordings"),
                )
                for c in classes
            ],
        )

    @torch.no_grad()
    def __call__(self, model: Any) -> dict[str, float]:
        """Macro AUC by stating sentences (POS), denying ones (NEG) and both (PAIR): "seen POS", "unseen NEG", ..."""
        model.eval()
        device = next(model.parameters()).device
        images = torch.cat(
            [
                model.encode_image(
                    self.prepared.normalise(torch.from_numpy(np.array(self.pixels[i : i + _AT_ONCE]))).to(device),
                    normalize=True,
                ).float()
                for i in range(0, len(self.pixels), _AT_ONCE)
            ]
        )
        said = [(images @ self._centre(model, p)).cpu().numpy() for pair in self.prompts for p in pair]
        states, denies = np.stack(said[::2], axis=1), np.stack(said[1::2], axis=1)
        return self.figures({"POS": states, "NEG": -denies, "PAIR": states - denies})

    def figures(self, scores: Mapping[str, FloatArray]) -> dict[str, float]:
        """Macro AUC of each setting's scores (N, C), over seen and over unseen classes, where there are any."""
        result = {}
        for group, wanted in (("seen", True), ("unseen", False)):
            columns = [c for c, named in enumerate(self.named) if named is wanted]
            for setting, table in scores.items():
                values = [auc(self.labels[:, c], table[:, c]) for c in columns]
                defined = [value for value in values if not math.isnan(value)]
                if defined:
                    result[f"{group} {setting}"] = float(np.mean(defined))
        return result

    def _centre(self, model: Any, sentences: Sequence[str]) -> Tensor:
        """The unit vector (D,) between the sentences."""
        tokens = self.prepared.tokenize(sentences).to(next(model.parameters()).device)
        return F.normalize(model.encode_text(tokens, normalize=True).float().mean(dim=0), dim=0)
