"""From a grey image to a model's input, the same in training and in use.

Two steps, so that training can cache the first: `Preprocess.fit` resizes an image to a square of bytes (Pillow alone,
no torch), `Preprocess.normalise` makes the three normalised channels. Together they equal open_clip's inference
transform on the same 8-bit picture, bit for bit in `fit`; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kvlp.errors import ConfigError, ImageError, ShapeError

if TYPE_CHECKING:
    import torch

__all__ = ["OPENAI_MEAN", "OPENAI_STD", "Preprocess", "as_grey_uint8"]

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)
_FILTERS = {"nearest": 0, "bilinear": 2, "bicubic": 3}
_RESIZE_MODES = ("shortest", "longest", "squash")
#: rounding noise of float32 arithmetic that a value may lie outside [0, 1] by
_TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True)
class Preprocess:
    """open_clip's preprocessing settings for grey images, as it writes them in `open_clip_config.json`.

    Attributes:
        size: side of the square input, in pixels.
        mean: mean of each of the three channels, of values in [0, 1].
        std: standard deviation of each channel, likewise.
        interpolation: "bicubic" or "bilinear" (Pillow's, with anti-aliasing).
        resize_mode: "longest" pads to a square, "shortest" cuts one out of the middle, "squash" distorts.
        fill_color: grey value (0 to 255) of the padding.
        mode: always "RGB": the grey image is repeated.
        floor_crop: round the corner of the cut down, as transformers does; open_clip rounds to even.
    """

    size: int = 96
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.25, 0.25, 0.25)
    interpolation: str = "bicubic"
    resize_mode: str = "longest"
    fill_color: int = 0
    mode: str = "RGB"
    floor_crop: bool = False

    def __post_init__(self) -> None:
        if self.size < 1 or len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ConfigError(
                f"preprocessing: expected size >= 1 and three means and positive deviations, got size {self.size}, "
                f"mean {self.mean}, std {self.std}"
            )
        if self.interpolation not in _FILTERS or self.resize_mode not in _RESIZE_MODES or self.mode != "RGB":
            raise ConfigError(
                f"preprocessing: expected interpolation of {sorted(_FILTERS)}, resize_mode of {list(_RESIZE_MODES)} "
                f"and mode 'RGB', got {self.interpolation!r}, {self.resize_mode!r}, {self.mode!r}"
            )

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Preprocess:
        """Read open_clip's `preprocess_cfg`; what is left out takes open_clip's defaults (224 px, OpenAI's values)."""
        known = {field.name for field in fields(cls)}
        values = {key: value for key, value in settings.items() if key in known and value is not None}
        values.setdefault("size", 224)
        values.setdefault("mean", OPENAI_MEAN)
        values.setdefault("std", OPENAI_STD)
        values.setdefault("resize_mode", "shortest")
        if values.get("interpolation") == "random":
            values["interpolation"] = "bicubic"
        try:
            values["size"] = _square(values["size"])
            values["mean"], values["std"] = _triple(values["mean"]), _triple(values["std"])
            values["fill_color"] = int(values.get("fill_color", 0))
            return cls(**values)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"preprocessing: {error}; expected open_clip's preprocess_cfg, got {values}") from error

    def to_dict(self) -> dict[str, Any]:
        """Return open_clip's `preprocess_cfg`."""
        return {key: value for key, value in asdict(self).items() if key != "floor_crop"}

    def fit(self, grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Resize a grey uint8 image (H, W) to uint8 (size, size)."""
        from PIL import Image

        image = Image.fromarray(grey)
        width, height = self._resized(image.width, image.height)
        image = image.resize((width, height), Image.Resampling(_FILTERS[self.interpolation]))
        return _centre(np.asarray(image), self.size, self.fill_color, floor=self.floor_crop)

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        if self.resize_mode == "squash":
            return self.size, self.size
        if self.resize_mode == "shortest":
            short, long = min(width, height), max(width, height)
            longer = int(self.size * long / short)
            return (self.size, longer) if width <= height else (longer, self.size)
        ratio = max(width, height) / self.size
        return max(1, round(width / ratio)), max(1, round(height / ratio))

    def normalise(self, batch: torch.Tensor | NDArray[np.uint8]) -> torch.Tensor:
        """Turn uint8 squares (B, S, S) into the model's input: float32 (B, 3, S, S)."""
        import torch

        squares = torch.as_tensor(batch)
        if squares.ndim != 3 or squares.dtype != torch.uint8:
            raise ShapeError(f"normalise: expected uint8 (B, S, S), got {squares.dtype} {tuple(squares.shape)}")
        mean = torch.tensor(self.mean, device=squares.device).view(1, 3, 1, 1)
        std = torch.tensor(self.std, device=squares.device).view(1, 3, 1, 1)
        return (squares.to(torch.float32).div_(255.0).unsqueeze(1) - mean).div_(std)

    def __call__(self, image: object) -> torch.Tensor:
        """Turn one image, in any form that `as_grey_uint8` takes, into float32 (3, S, S)."""
        return self.normalise(self.fit(as_grey_uint8(image))[None])[0]


def _square(size: int | Sequence[int]) -> int:
    if isinstance(size, Sequence):
        if len(set(size)) != 1:
            raise ValueError(f"only square inputs are supported, got size {list(size)}")
        return int(size[0])
    return int(size)


def _triple(value: float | Sequence[float]) -> tuple[float, ...]:
    return tuple(float(v) for v in value) if isinstance(value, Sequence) else (float(value),) * 3


def _centre(pixels: NDArray[np.uint8], size: int, fill: int, *, floor: bool) -> NDArray[np.uint8]:
    """Cut or pad to (size, size) around the middle, rounding as torchvision does, or down."""
    height, width = pixels.shape
    pad_y, pad_x = max(0, size - height), max(0, size - width)
    if pad_y or pad_x:
        around = ((pad_y // 2, pad_y - pad_y // 2), (pad_x // 2, pad_x - pad_x // 2))
        pixels = np.pad(pixels, around, constant_values=fill)
        height, width = pixels.shape
    halves = ((height - size) / 2, (width - size) / 2)
    top, left = (int(half) if floor else round(half) for half in halves)
    return pixels[top : top + size, left : left + size].copy()  # Pillow's own memory is read-only


def as_grey_uint8(image: object) -> NDArray[np.uint8]:
    """Return a picture as grey bytes (H, W).

    Args:
        image: a NumPy array (H, W), (H, W, 1) or (H, W, 3), or a torch tensor (H, W), (1, H, W) or (3, H, W), of uint8
            or of floats in [0, 1]; or a PIL image. Colours become their luminance.

    Raises:
        ImageError: values outside [0, 1], not finite, or of another dtype.
        ShapeError: another number of dimensions, or no pixels.
    """
    if isinstance(image, np.ndarray):
        return _from_array(image)
    if type(image).__module__.startswith("torch"):
        return _from_tensor(image)
    from PIL import Image

    if isinstance(image, Image.Image):
        return _from_pil(image)
    hint = "; read a file with kvlp.datasets.images.load_grey first" if isinstance(image, str | bytes) else ""
    raise ImageError(f"expected a grey array, tensor or PIL image, got {type(image).__name__}{hint}")


def _from_tensor(tensor: Any) -> NDArray[np.uint8]:
    array = tensor.detach().cpu()
    array = array.float().numpy() if array.is_floating_point() else array.numpy()
    return _from_array(np.moveaxis(array, 0, -1) if array.ndim == 3 else array)


def _from_pil(image: Any) -> NDArray[np.uint8]:
    if image.mode.startswith("I;16"):
        return _from_array(np.asarray(image).astype(np.float32) / 65535.0)
    if image.mode in ("I", "F"):
        raise ImageError(
            f"expected a PIL image of 8 or 16 bits, got mode {image.mode!r} whose white is unknown; "
            "hand in a float array in [0, 1]"
        )
    return np.asarray(image.convert("L"))


def _from_array(array: NDArray[Any]) -> NDArray[np.uint8]:
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[-1] != 3) or array.size == 0:
        raise ShapeError(f"expected a grey image (H, W) or a colour image of 3 channels, got shape {array.shape}")
    if array.dtype != np.uint8:
        array = _bytes_of_unit(array)
    if array.ndim == 3:
        from PIL import Image

        return np.asarray(Image.fromarray(array).convert("L"))
    return np.ascontiguousarray(array)


def _bytes_of_unit(array: NDArray[Any]) -> NDArray[np.uint8]:
    if not np.issubdtype(array.dtype, np.floating):
        raise ImageError(
            f"expected uint8 or floats in [0, 1], got {array.dtype}; divide by the value of white "
            "(65535 for 16-bit pictures), or read the file with kvlp.datasets.images.load_grey"
        )
    low, high = float(array.min()), float(array.max())
    if not (low >= -_TOLERANCE and high <= 1 + _TOLERANCE):  # written so that NaN fails too
        raise ImageError(
            f"expected grey values in [0, 1], got {low:.6g} to {high:.6g}; scale the image, or use encode_pixels for "
            "what model.preprocess returned"
        )
    return (np.clip(array, 0.0, 1.0) * np.float32(255.0) + np.float32(0.5)).astype(np.uint8)
