"""Where in an image a class is seen: the tower's features, where a query network looks, or by covering places up."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kvlp.errors import ShapeError
from kvlp.zero_shot.scoring import Floats

__all__ = ["HeatMap", "attention_map", "local_map", "occlusion_map", "overlay"]

Grey = NDArray[np.uint8]
Method: TypeAlias = Literal["features", "attention", "occlusion"]
#: cells of an occlusion map along the longer side, and the longest side that is scored
_CELLS, _MOST_PIXELS = 12, 384


@dataclass(frozen=True, slots=True)
class HeatMap:
    """Where an image speaks for a class.

    Attributes:
        values: float64 (H, W) of the image, in [0, 1]: 1 where it speaks most for the class; all 0 where no place does.
            The scale is the image's own: an image without the finding can have a 1 somewhere too.
        low: raw value at 0: the least of the map ("features", "attention"), or 0, which covering up does not change
            ("occlusion").
        high: raw value at 1: a difference of cosines ("features"), a share of the attention ("attention"), or what the
            decision loses ("occlusion").
        method: "features", "attention" or "occlusion".
        cells: (h, w) of the map before it was enlarged.
    """

    values: Floats
    low: float
    high: float
    method: Method
    cells: tuple[int, int]

    @property
    def peak(self) -> tuple[int, int]:
        """Row and column of the highest value."""
        row, column = np.unravel_index(int(np.argmax(self.values)), self.values.shape)
        return int(row), int(column)


def local_map(model: Any, grey: Grey, direction: Floats) -> HeatMap | None:
    """Similarity of each place's features to a direction; None if the image tower gives no map.

    Each cell of the tower's last map goes through the tower's own pooling and projection as if it were the whole image;
    its unit vector is then compared with the direction.

    Args:
        model: a kvlp.checkpoints.Model whose tower is timm's or open_clip's vision transformer.
        grey: uint8 (H, W).
        direction: (D,), for example the class's present vector minus its absent vector.
    """
    preprocess = getattr(model, "preprocess", None)
    if preprocess is None or not hasattr(model, "module"):
        return None
    vectors = _local_vectors(model, grey)
    if vectors is None or not np.isfinite(vectors).all():
        return None
    raw = vectors @ direction
    enlarged = _onto_image(raw, grey.shape, preprocess.resize_mode)
    return _heat(enlarged, "features", float(enlarged.min()), raw)


def attention_map(network: Any, grey: Grey, lines: Sequence[str]) -> HeatMap | None:
    """Where a query network looks for some sentences, their mean; None if it is no query network.

    Args:
        network: a kvlp.checkpoint_query.QueryScorer.
        grey: uint8 (H, W).
        lines: those that state the class.
    """
    if not hasattr(network, "attention"):
        return None
    raw = np.asarray(network.attention([grey], list(lines)), np.float64)[0].mean(axis=0)
    enlarged = _onto_image(raw, grey.shape, network.model.preprocess.resize_mode)
    return _heat(enlarged, "attention", float(enlarged.min()), raw)


def _local_vectors(model: Any, grey: Grey) -> Floats | None:
    """Unit vectors (h, w, D) of the last map's cells."""
    import torch

    visual = getattr(model.module, "visual", None)
    if not hasattr(visual, "forward_intermediates") or getattr(visual, "attn_pool", None) is not None:
        return None
    with torch.inference_mode():
        pixels = model.preprocess(grey)[None].to(model.device)
        cells = _timm_cells(visual, pixels) if hasattr(visual, "trunk") else _open_clip_cells(visual, pixels)
        if cells is None:
            return None
        return torch.nn.functional.normalize(cells.double(), dim=-1).cpu().numpy()


def _open_clip_cells(visual: Any, pixels: Any) -> Any:
    found = visual.forward_intermediates(pixels, indices=1, normalize_intermediates=True, intermediates_only=True)
    tokens = found["image_intermediates"][0][0].permute(1, 2, 0)
    return tokens if visual.proj is None else tokens @ visual.proj


def _timm_cells(visual: Any, pixels: Any) -> Any:
    """Each cell alone through timm's pooling; a transformer's is put in the place of every token that it pools."""
    features = visual.trunk.forward_features(pixels)
    if features.ndim == 3:
        prefix = int(getattr(visual.trunk, "num_prefix_tokens", 0))
        places = features[0, prefix:]
        side = math.isqrt(len(places))
        if side * side != len(places):
            return None
        alone, grid = places[:, None].expand(-1, prefix + 1, -1), (side, side)
    elif features.ndim == 4:
        last = features.shape[-1] == visual.trunk.num_features != features.shape[1]
        grid = tuple(features.shape[1:3] if last else features.shape[2:])
        places = features[0].reshape(-1, features.shape[-1]) if last else features[0].flatten(1).T
        alone = places[:, None, None] if last else places[:, :, None, None]
    else:
        return None
    return visual.head(visual.trunk.forward_head(alone)).reshape(*grid, -1)


def _onto_image(cells: Floats, shape: tuple[int, ...], mode: str) -> Floats:
    """Enlarge a map of the model's square to the image it was made from; what the square cut off gets the minimum."""
    height, width = shape
    long, short = max(height, width), min(height, width)
    side = {"longest": (long, long), "shortest": (short, short)}.get(mode, (height, width))
    rows, inside_y = _places(height, side[0], cells.shape[0])
    columns, inside_x = _places(width, side[1], cells.shape[1])
    enlarged = rows @ cells @ columns.T
    return np.where(inside_y[:, None] & inside_x[None], enlarged, cells.min())


def _places(length: int, side: int, cells: int) -> tuple[Floats, NDArray[np.bool_]]:
    """Weights (length, cells) of linear interpolation along one axis, and which pixels lie in the square."""
    middle = np.arange(length) + 0.5 + (side - length) / 2
    at = np.clip(middle / side * cells - 0.5, 0, cells - 1)
    low = np.floor(at).astype(int)
    weights = np.zeros((length, cells))
    weights[np.arange(length), low] = 1 - (at - low)
    weights[np.arange(length), np.minimum(low + 1, cells - 1)] += at - low
    return weights, (middle >= 0) & (middle <= side)


def occlusion_map(decide: Callable[[Sequence[Grey]], Floats], grey: Grey, *, cells: int = _CELLS) -> HeatMap:
    """How much the decision falls when a place is covered by the image's mean grey. Any model that scores can be asked.

    Args:
        decide: images -> decisions (N,).
        grey: uint8 (H, W); a large image is scored in a smaller copy.
        cells: along the longer side; each cover is two cells wide, so `cells` squared images are scored.
    """
    small = _shrunk(grey)
    height, width = small.shape
    size = max(height, width) / cells
    grid = (max(1, round(height / size)), max(1, round(width / size)))
    fill = np.uint8(round(float(small.mean())))
    covered = [small]
    for row, column in np.ndindex(grid):
        y, x = (row + 0.5) * height / grid[0], (column + 0.5) * width / grid[1]
        picture = small.copy()
        picture[max(0, round(y - size)) : round(y + size), max(0, round(x - size)) : round(x + size)] = fill
        covered.append(picture)
    decisions = np.asarray(decide(covered), dtype=np.float64)
    raw = decisions[0] - decisions[1:].reshape(grid)
    return _heat(_onto_image(raw, grey.shape, "squash"), "occlusion", 0.0, raw)


def _shrunk(grey: Grey) -> Grey:
    from PIL import Image

    picture = Image.fromarray(grey)
    picture.thumbnail((_MOST_PIXELS, _MOST_PIXELS), Image.Resampling.BILINEAR)
    return np.array(picture)


def _heat(enlarged: Floats, method: Method, low: float, raw: Floats) -> HeatMap:
    high = max(float(enlarged.max()), low)
    flat = high - low < 1e-12
    values = np.zeros_like(enlarged) if flat else np.clip((enlarged - low) / (high - low), 0.0, 1.0)
    return HeatMap(values, low, high, method, (raw.shape[0], raw.shape[1]))


def overlay(grey: Grey, heat: HeatMap | Floats, *, strength: float = 0.6) -> NDArray[np.uint8]:
    """Lay a heat map over its image: uint8 (H, W, 3), from the grey itself (0) over red to yellow (1).

    Args:
        grey: uint8 (H, W).
        heat: a map, or its values (H, W) in [0, 1].
        strength: opacity at 1.
    """
    values = heat.values if isinstance(heat, HeatMap) else np.asarray(heat, dtype=np.float64)
    if grey.shape != values.shape:
        raise ShapeError(f"overlay: expected a map of the image's shape {grey.shape}, got {values.shape}")
    colour = np.stack([np.full_like(values, 255), 255 * np.clip(2 * values - 1, 0, 1), np.zeros_like(values)], axis=-1)
    alpha = (strength * values**1.5)[..., None]
    return np.rint((1 - alpha) * grey[..., None] + alpha * colour).astype(np.uint8)
