"""DICOM radiographs as displayed greys. What cannot be shown as one grey frame is refused by name.

Greys follow PS3.3: stored value, Modality LUT or rescale (C.11.1), VOI LUT or window (C.11.2), presentation (C.11.6).
The bytes are untrusted: sizes are compared before decoding, inflation is bounded, and no message quotes a value that
could be a patient's.
"""

from __future__ import annotations

import hashlib
import io
import re
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kvlp.datasets.codestreams import stream_size
from kvlp.datasets.dicom_greys import grey_table
from kvlp.datasets.files import read_bytes
from kvlp.errors import DicomError, ImageError, MissingExtraError
from kvlp.typing import PathLike

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydicom.dataset import Dataset, FileDataset

__all__ = ["DicomFacts", "looks_like_dicom", "read_dicom", "read_facts"]

MAX_FILE_BYTES = 256 << 20
_MAX_INFLATED = 256 << 20
_DEFLATED = re.compile(rb"\x02\x00\x10\x00.{4}1\.2\.840\.10008\.1\.2\.1\.99", re.DOTALL)
_NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")
_RLE = "1.2.840.10008.1.2.5"
_VR = re.compile(rb"[A-Z]{2}")


@dataclass(frozen=True, slots=True)
class DicomFacts:
    """Header facts for a manifest. The ids are hashes that group the same patient and study, not the originals."""

    patient_id: str
    study_id: str
    view: str


def looks_like_dicom(data: bytes) -> bool:
    """Say whether bytes are DICOM: the mark DICM, or no preamble and a first element of group 0002 or 0008."""
    if data[128:132] == b"DICM":
        return True
    if len(data) < 16 or data[:2] not in (b"\x02\x00", b"\x08\x00"):
        return False
    implicit_length = int.from_bytes(data[4:8], "little")
    return bool(_VR.fullmatch(data[4:6])) or implicit_length < min(len(data), 4096)


def read_dicom(source: PathLike | bytes, *, window: int = 0, max_pixels: float = 64e6) -> NDArray[np.float32]:
    """Return a DICOM radiograph as displayed grey: float32 (H, W) in [0, 1], bone bright, padding black.

    A VOI LUT goes before a window, the first of several unless `window` says another. Without either, 8-bit images keep
    their greys and deeper ones are stretched over the values that occur. Overlays are not drawn.

    Raises:
        DicomError: cut off, damaged, larger than `max_pixels`, colour, several frames, no pixels, FOR PROCESSING, ...
        MissingExtraError: pydicom or a decoder of the extra `dicom` is not installed.
    """
    data = _bytes(source)
    with _quiet():
        dataset = _parse(data)
        _require_showable(dataset, max_pixels)
        return _greys(dataset, window)


def read_facts(source: PathLike | bytes) -> DicomFacts:
    """Return view and hashed patient and study id. Raises: DicomError if the file is not DICOM."""
    data = _bytes(source)
    with _quiet():
        dataset = _parse(data)
        try:
            view = str(dataset.get("ViewPosition") or "").strip()
            return DicomFacts(_hashed(dataset.get("PatientID")), _hashed(dataset.get("StudyInstanceUID")), view)
        except Exception as problem:
            raise DicomError(f"DICOM header cannot be read: {_reason(problem)}") from problem


@contextmanager
def _quiet() -> Iterator[None]:
    """pydicom warns of every oddity in a header, with its value; what matters to us is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _hashed(value: object) -> str:
    text = str(value or "").strip()
    return hashlib.blake2b(text.encode(), digest_size=8, person=b"kvlp-id").hexdigest() if text else ""


def _bytes(source: PathLike | bytes) -> bytes:
    data = source if isinstance(source, bytes) else read_bytes(source, max_bytes=MAX_FILE_BYTES, error=DicomError)
    if len(data) > MAX_FILE_BYTES:
        raise DicomError(f"{len(data)} bytes, above the limit of {MAX_FILE_BYTES}")
    if not looks_like_dicom(data):
        raise DicomError("expected a DICOM file: neither the mark DICM nor a first element of group 0002 or 0008")
    return data


def _parse(data: bytes) -> FileDataset:
    try:
        import pydicom
    except ImportError as problem:
        raise MissingExtraError("pydicom", "dicom") from problem
    data = _inflated(data)
    try:
        dataset = pydicom.dcmread(io.BytesIO(data), force=True)
        dataset.get("Rows")  # parsed on first use
    except Exception as problem:  # RecursionError, struct.error, ... on damaged files
        raise DicomError(f"DICOM is cut off or damaged: {_reason(problem)}") from problem
    return dataset


def _inflated(data: bytes) -> bytes:
    """Undo the deflated transfer syntax within bounds; pydicom would inflate without any (1 MB becomes 2 GB)."""
    found = _DEFLATED.search(data)
    if not found:
        return data
    end = 144 + int.from_bytes(data[140:144], "little")
    if data[128:138] != b"DICM\x02\x00\x00\x00UL" or found.end() > end:
        raise DicomError("deflated DICOM without a sound file meta header is refused")
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        body = inflater.decompress(data[end:], _MAX_INFLATED)
    except zlib.error as problem:
        raise DicomError(f"deflated DICOM is damaged: {problem}") from problem
    if inflater.unconsumed_tail or not inflater.eof:
        reason = f"more than {_MAX_INFLATED} bytes when inflated" if inflater.unconsumed_tail else "is cut off"
        raise DicomError(f"deflated DICOM: {reason}")
    # the same header, saying "explicit little endian", as the body now is
    return data[: found.end() - 3] + b"\0\0\0" + data[found.end() : end] + body


def _require_showable(dataset: FileDataset, max_pixels: float) -> None:
    """Refuse by name, from the header alone, all that is not one grey frame of 8 or 16 allocated bits."""
    try:
        if "FloatPixelData" in dataset or "DoubleFloatPixelData" in dataset:
            raise DicomError("DICOM with floating pixel data (a parametric map) is not a radiograph")
        if "PixelData" not in dataset:
            raise DicomError(f"DICOM without pixel data{_kind(dataset)}")
        if str(dataset.get("PresentationIntentType") or "").strip().upper() == "FOR PROCESSING":
            raise DicomError("DICOM is FOR PROCESSING (raw detector data); use the FOR PRESENTATION image of the study")
        frames = int(dataset.get("NumberOfFrames") or 1)
        if frames != 1 or "SharedFunctionalGroupsSequence" in dataset:
            raise DicomError(f"DICOM with {frames} frames; expected a single-frame radiograph")
        photometric = str(dataset.get("PhotometricInterpretation") or "").strip()
        samples = int(dataset.get("SamplesPerPixel") or 1)
        if photometric not in ("MONOCHROME1", "MONOCHROME2") or samples != 1:
            shown = photometric[:16] or "missing"
            raise DicomError(f"DICOM PhotometricInterpretation is {shown} ({samples} samples); expected MONOCHROME1/2")
        _require_size(dataset, max_pixels)
    except DicomError:
        raise
    except Exception as problem:
        raise DicomError(f"DICOM header is damaged: {_reason(problem)}") from problem


def _require_size(dataset: FileDataset, max_pixels: float) -> None:
    rows, columns = int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0)
    allocated, stored = int(dataset.get("BitsAllocated") or 0), int(dataset.get("BitsStored") or 0)
    high = int(dataset.get("HighBit", stored - 1))
    if rows <= 0 or columns <= 0:
        raise DicomError(f"DICOM of {columns}x{rows} pixels; expected an image")
    if rows * columns > max_pixels:
        raise DicomError(f"{columns}x{rows} pixels, above the limit of {max_pixels / 1e6:g} million")
    if allocated not in (8, 16) or not 1 <= stored <= allocated or not stored - 1 <= high < allocated:
        raise DicomError(f"DICOM of {allocated} bits allocated, {stored} stored, high bit {high}; expected 8 or 16 bit")
    expected, length = rows * columns * allocated // 8, len(dataset.PixelData)
    syntax = _syntax(dataset)
    if syntax in _NATIVE:
        if not expected <= length < max(2 * expected, expected + 2):
            raise DicomError(f"DICOM pixel data are {length} bytes; expected {expected} for {columns}x{rows} pixels")
        return
    _require_stream(dataset, (rows, columns), expected, rle=syntax == _RLE)


def _require_stream(dataset: FileDataset, size: tuple[int, int], expected: int, *, rle: bool) -> None:
    """Compare the compressed stream's own size with the header's: a decoder allocates what the stream says."""
    from pydicom.encaps import get_frame

    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    if rle:
        if len(frame) > 2 * expected + 1024:
            raise DicomError("DICOM RLE data are longer than its header allows")
        return
    try:
        found = stream_size(frame)
    except ImageError as problem:
        raise DicomError(f"DICOM holds a damaged {problem}") from problem
    if found is None:
        raise DicomError("DICOM compressed pixel data are of an unknown kind")
    if found != size:
        (height, width), (rows, columns) = found, size
        raise DicomError(f"DICOM header says {columns}x{rows} pixels, its compressed data {width}x{height}")


def _syntax(dataset: FileDataset) -> str:
    """The transfer syntax. Without one (no file meta) the data count as native; their length is checked like such."""
    import pydicom.uid
    from pydicom.dataset import FileMetaDataset

    syntax = str(dataset.file_meta.get("TransferSyntaxUID") or "") if hasattr(dataset, "file_meta") else ""
    if syntax:
        return syntax
    implicit, little = dataset.original_encoding
    order = pydicom.uid.ExplicitVRLittleEndian if little is not False else pydicom.uid.ExplicitVRBigEndian
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian if implicit else order
    return str(dataset.file_meta.TransferSyntaxUID)


def _stored_values(dataset: FileDataset) -> NDArray[np.int32]:
    """Decode to stored values, int32 (H, W). Bits above the stored ones (old overlays) are dropped."""
    from pydicom.pixels.utils import pixel_array

    syntax = _syntax(dataset)
    plugin = "" if syntax in _NATIVE else "pydicom" if syntax == _RLE else "pylibjpeg"
    if plugin == "pylibjpeg":
        _require_decoders()
    # pydicom's own clearing of unused bits takes the high bit for granted; ours follows the header
    compressed = plugin == "pylibjpeg"
    options: dict[str, Any] = {"decoding_plugin": plugin, "correct_unused_bits": compressed}
    pixels = np.asarray(pixel_array(dataset, index=0, raw=True, **options))
    if pixels.shape != (int(dataset.Rows), int(dataset.Columns)) or pixels.dtype.kind not in "iu":
        raise DicomError(f"DICOM decoded to {pixels.dtype} of shape {pixels.shape}; expected a grey image")
    stored = pixels.astype(np.int32)
    return stored if compressed else stored_bits(stored, dataset)


def _greys(dataset: FileDataset, window: int) -> NDArray[np.float32]:
    try:
        stored = _stored_values(dataset)
        values = np.arange(int(stored.min()), int(stored.max()) + 1)
        occurs = np.bincount((stored.ravel() - values[0]).astype(np.int64), minlength=values.size) > 0
        return grey_table(dataset, values, occurs, window=window)[stored - values[0]]
    except (DicomError, MissingExtraError):
        raise
    except Exception as problem:  # pydicom and the decoders raise whatever they meet
        raise DicomError(f"DICOM pixel data cannot be decoded: {_reason(problem)}") from problem


def stored_bits(values: Any, dataset: Dataset) -> Any:
    """Cut the stored bits out of allocated words and extend their sign."""
    bits = int(dataset.BitsStored)
    shift = int(dataset.get("HighBit", bits - 1)) + 1 - bits
    values = (values >> shift) & ((1 << bits) - 1)
    if int(dataset.get("PixelRepresentation") or 0):
        sign = 1 << (bits - 1)
        values = (values ^ sign) - sign
    return values


def _require_decoders() -> None:
    try:
        import libjpeg  # noqa: F401
        import openjpeg  # noqa: F401
        import pylibjpeg  # noqa: F401
    except ImportError as problem:
        raise MissingExtraError("pylibjpeg (with -libjpeg and -openjpeg)", "dicom") from problem


def _kind(dataset: FileDataset) -> str:
    modality = str(dataset.get("Modality") or "").strip()
    return f" (modality {modality})" if re.fullmatch(r"[A-Z]{2,16}", modality) else ""


def _reason(problem: BaseException) -> str:
    """The kind of error alone: decoders quote values of the file, which may be a patient's."""
    return type(problem).__name__
