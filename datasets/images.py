"""Grey images from files, bytes, arrays, PIL images and tensors: displayed grey, bone bright, in [0, 1].

PNG and JPEG by allow-list, DICOM through `kvlp.datasets.dicom`. Sizes are checked from headers, before a pixel is
decoded, and data that end early are refused: the usual decoders paint the missing rows grey without a word.
"""

from __future__ import annotations

import hashlib
import io
import warnings
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kvlp.datasets.codestreams import JPEG_MAGIC, PNG_MAGIC, PngHeader, inflate_png, jpeg_size, png_header
from kvlp.datasets.files import read_bytes
from kvlp.datasets.plausibility import Plausibility, radiograph_check
from kvlp.errors import DataError, ImageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "IMAGE_ENDINGS",
    "MAX_FILE_BYTES",
    "MAX_PIXELS",
    "Plausibility",
    "decode",
    "inspect_image",
    "load_grey",
    "load_grey_uint8",
    "pixel_hash",
    "radiograph_check",
]

MAX_PIXELS = 64_000_000
MAX_FILE_BYTES = 512 << 20
#: endings that a folder is searched for; what a file is, its content decides
IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".dcm", ".dicom")
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def load_grey(source: object, *, max_pixels: float = MAX_PIXELS) -> NDArray[np.float32]:
    """Return an image as displayed grey: float32 (H, W) in [0, 1], 0 black, 1 white, bone bright.

    Args:
        source: path or bytes of a PNG, JPEG or DICOM file; PIL image; array or tensor of shape (H, W), (H, W, 1|3)
            or (1|3, H, W): uint8, uint16, bool, or floating within [0, 1]. 8 and 16 bit are scaled by 255 and 65535.
        max_pixels: larger images are refused from their header alone.

    Raises:
        ImageError: not an image of these kinds, cut off, damaged, too large, or values out of range.
        DicomError: a DICOM file that cannot be shown as a grey radiograph; the reason is named.
    """
    grey = _scaled(to_grey(decode(source, max_pixels=max_pixels)))
    return np.ascontiguousarray(grey, dtype=np.float32)


def load_grey_uint8(source: object, *, max_pixels: float = MAX_PIXELS) -> NDArray[np.uint8]:
    """Return displayed grey as uint8 (H, W), 0 to 255; 8-bit sources pass through without a detour over floats."""
    return _as_uint8(to_grey(decode(source, max_pixels=max_pixels)))


def inspect_image(source: object, *, max_pixels: float = MAX_PIXELS) -> tuple[NDArray[np.uint8], Plausibility]:
    """Return uint8 grey (H, W) and whether it is plausibly a frontal radiograph, its colours included."""
    pixels = decode(source, max_pixels=max_pixels)
    grey = _as_uint8(to_grey(pixels))
    return grey, radiograph_check(grey if pixels.ndim == 2 else pixels)


def decode(source: object, *, max_pixels: float = MAX_PIXELS) -> NDArray[Any]:
    """Return pixels as stored: (H, W) or (H, W, 3); uint8, uint16 or float32 in [0, 1]. DICOM comes as float32."""
    if isinstance(source, str | Path):
        data = read_bytes(source, max_bytes=MAX_FILE_BYTES, error=ImageError)
        try:
            return _decode_bytes(data, max_pixels)
        except DataError as problem:
            raise type(problem)(f"{source}: {problem}") from problem
    if isinstance(source, bytes | bytearray | memoryview):
        return _decode_bytes(bytes(source), max_pixels)
    if hasattr(source, "detach"):  # a tensor, without importing torch for it
        source = source.detach().cpu().float().numpy() if _is_half(source) else source.detach().cpu().numpy()
    if isinstance(source, np.ndarray):
        return _check_array(source, max_pixels)
    if hasattr(source, "getbands"):  # a PIL image, without importing PIL for it
        return _from_pil(source, max_pixels)
    kind = type(source).__name__
    raise ImageError(f"expected a path, bytes, PIL image, array or tensor, got {kind}")


def to_grey(pixels: NDArray[Any]) -> NDArray[Any]:
    """Weigh red, green and blue as ITU-R 601 does; (H, W) passes unchanged."""
    if pixels.ndim == 2:
        return pixels
    if (pixels[..., 0] == pixels[..., 1]).all() and (pixels[..., 0] == pixels[..., 2]).all():
        return np.ascontiguousarray(pixels[..., 0])
    grey = pixels.astype(np.float32) @ _LUMA
    return grey if pixels.dtype.kind == "f" else np.rint(grey).astype(pixels.dtype)


def _scaled(grey: NDArray[Any]) -> NDArray[np.float32]:
    if grey.dtype == np.uint8:
        return grey.astype(np.float32) / np.float32(255)
    if grey.dtype == np.uint16:
        return grey.astype(np.float32) / np.float32(65535)
    return np.clip(grey, 0, 1).astype(np.float32, copy=False)  # weighing colours may pass 1 by an ulp


def _as_uint8(grey: NDArray[Any]) -> NDArray[np.uint8]:
    if grey.dtype == np.uint8:
        return grey
    return np.rint(_scaled(grey) * 255).astype(np.uint8)


def _decode_bytes(data: bytes, max_pixels: float) -> NDArray[Any]:
    if data.startswith(PNG_MAGIC):
        return _decode_png(data, max_pixels)
    if data.startswith(JPEG_MAGIC):
        return _decode_jpeg(data, max_pixels)
    from kvlp.datasets.dicom import looks_like_dicom, read_dicom

    if looks_like_dicom(data):
        return read_dicom(data, max_pixels=max_pixels)
    shown = data[:4].hex(" ") or "nothing"
    raise ImageError(f"expected a PNG, JPEG or DICOM file; this one begins with {shown}")


def _decode_png(data: bytes, max_pixels: float) -> NDArray[Any]:
    from PIL import Image

    header = png_header(data)
    _check_size(header.height, header.width, max_pixels)
    plain = header.depth == 8 and header.colour == 0 and not header.interlaced  # as shards hold them
    rows = inflate_png(data, header, keep=plain)
    if plain:
        return _unfiltered(rows, header)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
                return _from_pil(image, max_pixels)
    except ImageError:
        raise
    except Exception as problem:  # Pillow raises many kinds on damaged data
        raise ImageError(f"PNG is damaged: {problem}") from problem


def _unfiltered(rows: bytes, header: PngHeader) -> NDArray[np.uint8]:
    """Grey bytes of filtered rows, undone by Pillow, to which they go packed without compression: inflated once."""
    from PIL import Image

    try:
        image = Image.frombytes("L", (header.width, header.height), zlib.compress(rows, 0), "zip", "L", 0)
    except ValueError as problem:
        raise ImageError(f"PNG is damaged: {problem}") from problem
    return np.array(image)


def _decode_jpeg(data: bytes, max_pixels: float) -> NDArray[Any]:
    import simplejpeg

    height, width, bits, components = jpeg_size(data)
    _check_size(height, width, max_pixels)
    if bits != 8 or components not in (1, 3):
        raise ImageError(f"JPEG of {bits} bit and {components} components; expected 8 bit, grey or colour")
    try:
        # strict: a stream that ends early raises here, where other readers fill the rest with grey
        pixels = simplejpeg.decode_jpeg(data, "GRAY" if components == 1 else "RGB", strict=True)
    except ValueError as problem:
        raise ImageError(f"JPEG is cut off or damaged: {problem}") from problem
    pixels = pixels[..., 0] if components == 1 else pixels
    return _upright(pixels, data) if b"Exif\0\0" in data[:256] else pixels


def _upright(pixels: NDArray[Any], data: bytes) -> NDArray[Any]:
    """Turn the picture as its EXIF orientation asks; a damaged EXIF block is passed over."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            orientation = Image.open(io.BytesIO(data), formats=("JPEG",)).getexif().get(0x0112, 1)
    except Exception:  # noqa: BLE001  the pixels are whole, only a hint beside them is not
        return pixels
    if orientation in (2, 3):
        pixels = pixels[:, ::-1] if orientation == 2 else pixels[::-1, ::-1]
    elif orientation == 4:
        pixels = pixels[::-1]
    elif orientation in (5, 6, 7, 8):
        turned = pixels.swapaxes(0, 1)
        pixels = {5: turned, 6: turned[:, ::-1], 7: turned[::-1, ::-1], 8: turned[::-1]}[orientation]
    return np.ascontiguousarray(pixels)


def _from_pil(image: Any, max_pixels: float) -> NDArray[Any]:
    """Pixels of a PIL image. Transparent parts become black; 16-bit grey keeps its depth."""
    _check_size(image.height, image.width, max_pixels)
    if image.mode in ("I;16", "I;16L", "I;16B", "I;16N"):
        return np.asarray(image).astype(np.uint16)
    if image.mode in ("I", "F"):
        return _check_wide(np.asarray(image))
    if image.mode in ("1", "L"):
        return np.array(image.convert("L"))
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        from PIL import Image

        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    return np.array(image.convert("RGB"))


def pixel_hash(grey: NDArray[np.uint8]) -> str:
    """SHA-256 of a grey image's shape and pixels: the same picture in another file or format has the same."""
    digest = hashlib.sha256(repr(grey.shape).encode())
    digest.update(np.ascontiguousarray(grey).data)
    return digest.hexdigest()


def _check_wide(pixels: NDArray[Any]) -> NDArray[Any]:
    """32-bit modes of PIL: integers that fit 16 bit, or floats within [0, 1]."""
    if pixels.dtype.kind == "f":
        return _check_array(pixels, MAX_PIXELS)
    if pixels.size and (pixels.min() < 0 or pixels.max() > 65535):
        raise ImageError("32-bit image with values outside 0 to 65535; scale it to 8 or 16 bit first")
    return pixels.astype(np.uint16)


def _check_array(array: NDArray[Any], max_pixels: float) -> NDArray[Any]:
    shape = array.shape
    if array.ndim == 3 and shape[0] in (1, 3) and shape[2] not in (1, 3):
        array = np.moveaxis(array, 0, 2)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)) or not array.size:
        raise ImageError(f"expected an array of shape (H, W), (H, W, 3) or (3, H, W), got {shape}")
    _check_size(array.shape[0], array.shape[1], max_pixels)
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype in (np.uint8, np.uint16):
        return array
    if array.dtype.kind != "f":
        raise ImageError(f"expected uint8, uint16 or floating values within [0, 1], got {array.dtype}")
    low, high = float(array.min()), float(array.max())
    if not (low >= 0 and high <= 1):  # also catches NaN
        raise ImageError(f"expected values within [0, 1], got {low:.3g} to {high:.3g}; scale the image first")
    return array.astype(np.float32)


def _is_half(tensor: Any) -> bool:
    return str(tensor.dtype) in ("torch.bfloat16", "torch.float16")


def _check_size(height: int, width: int, max_pixels: float) -> None:
    if not height or not width:
        raise ImageError(f"expected an image, got {width}x{height} pixels")
    if height * width > max_pixels:
        raise ImageError(f"{width}x{height} pixels, above the limit of {max_pixels / 1e6:g} million")
