"""Pictures of single images with heat maps, for the page. Those of patients only when the user said so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kvlp.errors import DataError
from kvlp.eval.page.blocks import picture_uri
from kvlp.zero_shot.heat import HeatMap, attention_map, local_map, occlusion_map, overlay
from kvlp.zero_shot.scoring import Floats, scorer_of, unit_centre

if TYPE_CHECKING:
    from kvlp.datasets.manifest import Manifest
    from kvlp.eval.evaluate import Evaluation

__all__ = ["Pictures"]

#: cells of an occlusion map along the longer side: 64 covered copies are scored for each picture
_CELLS = 8


class Pictures:
    """The images of an evaluation, by row, as data URIs.

    Args:
        result: of `evaluate`; its model makes the heat maps, where it has one.
        manifest: where the files are.
    """

    def __init__(self, result: Evaluation, manifest: Manifest) -> None:
        self.result, self.manifest = result, manifest

    def grey(self, row: int) -> NDArray[np.uint8] | None:
        """The image of a row, uint8 (H, W); None if it can no longer be read."""
        from kvlp.datasets.images import load_grey_uint8

        try:
            return load_grey_uint8(self.manifest.path_of(self.result.records[row]))
        except (DataError, OSError):
            return None

    def plain(self, row: int) -> str:
        """The picture, or ""."""
        grey = self.grey(row)
        return "" if grey is None else picture_uri(grey)

    def for_class(self, row: int, name: str) -> tuple[str, str]:
        """The picture and its heat map; "" for what there is not.

        The map shows what covering up places takes from the class's score, or where the query network looks.
        """
        grey, model = self.grey(row), self.result.model
        if grey is None or model is None:
            return ("" if grey is None else picture_uri(grey)), ""
        if self.result.options.scorer == "query":
            heat = attention_map(scorer_of(model, "query"), grey, self.result.prompts[name]["present"])
            return picture_uri(grey), "" if heat is None else picture_uri(overlay(grey, heat))
        direction = self._direction(name)
        heat = occlusion_map(lambda images: _scores(model, images, direction), grey, cells=_CELLS)
        return picture_uri(grey), picture_uri(overlay(grey, heat))

    def for_words(self, row: int, vector: Floats | None) -> str:
        """The picture with the places whose own features match the words, where the tower has a map; else alone."""
        grey = self.grey(row)
        if grey is None:
            return ""
        heat: HeatMap | None = None
        if vector is not None and self.result.model is not None:
            heat = local_map(self.result.model, grey, vector)
        return picture_uri(grey if heat is None else overlay(grey, heat, strength=0.35))

    def words(self, texts: Sequence[str]) -> list[Floats | None]:
        """Unit vectors of some sentences, or None without a model."""
        model = self.result.model
        if model is None:
            return [None] * len(texts)
        return list(np.asarray(model.encode_text(list(texts)), dtype=np.float64))

    def _direction(self, name: str) -> Floats:
        """What the class's score is the product with: stating minus denying sentences, or those of the other class."""
        model: Any = self.result.model
        said = self.result.prompts[name]
        against = "versus" if self.result.main_setting == "VERSUS" else "absent"
        return unit_centre(model.encode_text(said["present"])) - unit_centre(model.encode_text(said[against]))


def _scores(model: Any, images: Sequence[NDArray[np.uint8]], direction: Floats) -> Floats:
    return np.asarray(model.encode_image(images), dtype=np.float64) @ direction
