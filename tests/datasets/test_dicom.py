"""Greys of DICOM files against arrays worked out by hand, every sample file at hand, and refusals by name."""

from __future__ import annotations

import csv
import io
import tracemalloc
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom", reason="pydicom comes with the extra dicom")
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset  # noqa: E402
from pydicom.uid import (  # noqa: E402
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from kvlp.datasets.dicom import looks_like_dicom, read_dicom, read_facts  # noqa: E402
from kvlp.datasets.dicom_greys import apply_window  # noqa: E402
from kvlp.datasets.images import load_grey, load_grey_uint8  # noqa: E402
from kvlp.errors import DicomError, ImageError  # noqa: E402

RAMP12 = np.arange(0, 4096, dtype=np.uint16).reshape(64, 64)
STEP = 3  # every third row and column of the sample files is compared, for time
TINY = np.array([[0, 10, 20], [30, 40, 50]], dtype=np.uint16)


def dicom(pixels: np.ndarray, *, bits: int = 12, syntax: Any = ExplicitVRLittleEndian, **tags: object) -> bytes:
    """Write a DX file with these stored values and header entries."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    big, implicit = syntax == ExplicitVRBigEndian, syntax == ImplicitVRLittleEndian
    dataset = FileDataset("", {}, b"\0" * 128, meta, is_implicit_VR=implicit, is_little_endian=not big)
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, "1.2.3"
    dataset.Modality, dataset.PatientID = "DX", "SECRET-42"
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = pixels.dtype.itemsize * 8, bits, bits - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    raw = pixels.astype(pixels.dtype.newbyteorder(">" if big else "<")).tobytes()
    dataset.PixelData = raw + b"\0" * (len(raw) % 2)
    dataset["PixelData"].VR = "OW" if pixels.dtype.itemsize == 2 else "OB"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some values are wrong on purpose
        for name, value in tags.items():
            setattr(dataset, name, value)
    if syntax == RLELossless:
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.compress(RLELossless, pixels, encoding_plugin="pydicom")
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def lut(first: int, bits: int, entries: list[int], *, vr: str = "US", modality: bool = False) -> list[Dataset]:
    item = Dataset()
    item.add_new(0x00283002, vr, [len(entries) & 0xFFFF, first, bits])
    if modality:
        item.ModalityLUTType = "US"
    item.add_new(0x00283006, "US", entries)
    return [item]


def test_eight_bit_greys_stay_as_they_are() -> None:
    pixels = np.array([[10, 20], [30, 200]], np.uint8)
    assert (load_grey_uint8(dicom(pixels, bits=8)) == pixels).all()
    inverted = dicom(pixels, bits=8, PhotometricInterpretation="MONOCHROME1")
    assert (load_grey_uint8(inverted) == 255 - pixels).all()


def test_deep_images_without_a_window_are_stretched_over_what_occurs() -> None:
    assert np.allclose(read_dicom(dicom(RAMP12)), RAMP12 / 4095, atol=1e-7)
    assert np.allclose(read_dicom(dicom(TINY)), TINY / 50, atol=1e-7)
    assert read_dicom(dicom(np.full((3, 3), 7, np.uint16))).max() == 0


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 15, 16])
def test_every_bit_depth_signed_and_unsigned(bits: int) -> None:
    for signed in (False, True):
        low = -(1 << (bits - 1)) if signed else 0
        values = np.linspace(low, low + (1 << bits) - 1, 64).round().reshape(8, 8)
        pixels = values.astype(np.int16 if signed else np.uint16)
        expected = (values - low) / ((1 << bits) - 1)
        assert np.abs(read_dicom(dicom(pixels, bits=bits)) - expected).max() < 1e-6


def test_monochrome1_and_inverse_mean_one_inversion_together() -> None:
    plain = read_dicom(dicom(TINY))
    for tags in (
        {"PhotometricInterpretation": "MONOCHROME1"},
        {"PresentationLUTShape": "INVERSE"},
        {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"},
    ):
        assert np.allclose(read_dicom(dicom(TINY, **tags)), 1 - plain)
    assert np.allclose(read_dicom(dicom(TINY, PresentationLUTShape="IDENTITY")), plain)


def slow_window(x: float, center: float, width: float, function: str) -> float:
    """The pseudo-code of PS3.3 C.11.2.1.2 and C.11.2.1.3 for the output range 0 to 1."""
    if function == "LINEAR":
        if x <= center - 0.5 - (width - 1) / 2:
            return 0.0
        if x > center - 0.5 + (width - 1) / 2:
            return 1.0
        return (x - (center - 0.5)) / (width - 1) + 0.5
    if function == "LINEAR_EXACT":
        if x <= center - width / 2:
            return 0.0
        if x > center + width / 2:
            return 1.0
        return (x - center) / width + 0.5
    return float(1 / (1 + np.exp(-4 * (x - center) / width)))


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("center", "width"), [(2048, 4096), (25, 20), (24.5, 1), (30, 2), (-5, 7)])
def test_windows_follow_the_standard(function: str, center: float, width: float) -> None:
    data = dicom(TINY, WindowCenter=center, WindowWidth=width, VOILUTFunction=function)
    expected = [[slow_window(float(x), center, width, function) for x in row] for row in TINY]
    assert np.allclose(read_dicom(data), expected, atol=1e-7)


def test_windows_by_hand() -> None:
    # LINEAR 2048/4096 maps 0 to 0 and 4095 to 1 exactly
    assert read_dicom(dicom(RAMP12, WindowCenter=2048, WindowWidth=4096))[[0, -1], [0, -1]].tolist() == [0, 1]
    values = np.array([10.0, 20.0, 30.0])
    assert apply_window(values, 20, 20, "LINEAR_EXACT").tolist() == [0, 0.5, 1]
    assert apply_window(values, 20, 40, "SIGMOID") == pytest.approx([1 / (1 + np.e), 0.5, np.e / (1 + np.e)])
    assert np.isfinite(apply_window(np.array([-1e9, 1e9]), 0, 1e-3, "SIGMOID")).all()


def test_several_windows_take_the_first_unless_told() -> None:
    data = dicom(TINY, WindowCenter=[25, 100], WindowWidth=[20, 50])
    assert np.allclose(read_dicom(data), apply_window(TINY.astype(float), 25, 20, "LINEAR"))
    assert np.allclose(read_dicom(data, window=1), apply_window(TINY.astype(float), 100, 50, "LINEAR"))
    # a window of width 0 is none
    data = dicom(TINY, WindowCenter=[25, 30], WindowWidth=[0, 20])
    assert np.allclose(read_dicom(data), apply_window(TINY.astype(float), 30, 20, "LINEAR"))
    assert np.allclose(read_dicom(dicom(TINY, WindowCenter=25, WindowWidth=0)), TINY / 50)
    assert np.allclose(read_dicom(dicom(TINY, WindowCenter=None, WindowWidth=None)), TINY / 50)


def test_rescale_goes_before_the_window() -> None:
    data = dicom(TINY, RescaleSlope="2", RescaleIntercept="-50", WindowCenter="0.5", WindowWidth="41")
    assert np.allclose(read_dicom(data), np.clip((TINY * 2.0 - 50) / 40 + 0.5, 0, 1))
    # a negative slope without a window turns the greys round
    assert np.allclose(read_dicom(dicom(TINY, RescaleSlope="-1", RescaleIntercept="0")), 1 - TINY / 50)
    for slope in ("0", "nan", "inf"):
        with pytest.raises(DicomError, match="RescaleSlope"):
            read_dicom(dicom(TINY, RescaleSlope=slope, RescaleIntercept="0"))


def test_modality_lut() -> None:
    # values 10, 20, 30 are mapped; those below and above take the ends
    entries = [0] * 21
    entries[0], entries[10], entries[20] = 100, 500, 200
    data = dicom(TINY, ModalityLUTSequence=lut(10, 16, entries, modality=True))
    expected = np.array([[100, 100, 500], [200, 200, 200]])
    assert np.allclose(read_dicom(data), (expected - 100) / 400)


def test_voi_lut_goes_before_a_window() -> None:
    entries = [4095 - 81 * i for i in range(51)]
    data = dicom(TINY, VOILUTSequence=lut(0, 12, entries), WindowCenter=1, WindowWidth=2)
    expected = np.array([[4095 - 81 * int(x) for x in row] for row in TINY]) / 4095
    assert np.allclose(read_dicom(data), expected)


def test_voi_lut_with_a_negative_start() -> None:
    pixels = np.array([[-3, -2, -1], [0, 1, 2]], np.int16)
    entries = [0, 51, 102, 153, 204, 255]
    data = dicom(pixels, VOILUTSequence=lut(-3, 8, entries, vr="SS"))
    assert np.allclose(read_dicom(data), np.array([[0, 51, 102], [153, 204, 255]]) / 255)
    # the start written as an unsigned word
    data = dicom(pixels, VOILUTSequence=lut(65533, 8, entries, vr="US"))
    assert np.allclose(read_dicom(data), np.array([[0, 51, 102], [153, 204, 255]]) / 255)


def test_luts_as_bytes_packed_and_cut_off() -> None:
    pixels = np.arange(4, dtype=np.uint16).reshape(2, 2)
    item = Dataset()
    item.LUTDescriptor = [4, 0, 8]
    item.add_new(0x00283006, "OW", bytes([0, 85, 170, 255]))
    assert np.allclose(read_dicom(dicom(pixels, VOILUTSequence=[item])), pixels / 3)
    item.add_new(0x00283006, "OW", np.array([0, 85, 170, 255], "<u2").tobytes())
    assert np.allclose(read_dicom(dicom(pixels, VOILUTSequence=[item])), pixels / 3)
    item.add_new(0x00283006, "US", [85 << 8, 170 | 255 << 8])
    assert np.allclose(read_dicom(dicom(pixels, VOILUTSequence=[item])), pixels / 3)
    item.add_new(0x00283006, "US", [1])
    with pytest.raises(DicomError, match="LUT is cut off: 1 of 4"):
        read_dicom(dicom(pixels, VOILUTSequence=[item]))


def test_padding_is_black_and_out_of_the_range() -> None:
    pixels = np.array([[63536, 100], [200, 300]], np.uint16).astype(np.int16)  # -2000 pads
    data = dicom(pixels, bits=16, PixelPaddingValue=-2000)
    assert np.allclose(read_dicom(data), [[0, 0], [0.5, 1]])
    data = dicom(pixels, bits=16, PixelPaddingValue=-2000, PhotometricInterpretation="MONOCHROME1")
    assert np.allclose(read_dicom(data), [[0, 1], [0.5, 0]])
    ranged = dicom(TINY, PixelPaddingValue=40, PixelPaddingRangeLimit=50)
    assert np.allclose(read_dicom(ranged), np.array([[0, 10, 20], [30, 0, 0]]) / 30)
    swapped = dicom(TINY, PixelPaddingValue=50, PixelPaddingRangeLimit=40)
    assert (read_dicom(swapped) == read_dicom(ranged)).all()


def test_overlays_are_left_out() -> None:
    # in the four bits above the stored twelve, as old files have them
    assert np.allclose(read_dicom(dicom(RAMP12 | 0x8000, bits=12)), RAMP12 / 4095)
    signed = (RAMP12.astype(np.int32) - 2048).astype(np.int16)
    words = (signed.view(np.uint16) & 0x0FFF | 0x1000).view(np.int16)
    assert np.allclose(read_dicom(dicom(words, bits=12)), RAMP12 / 4095)
    # as a group of its own
    dataset = pydicom.dcmread(io.BytesIO(dicom(TINY)))
    dataset.add_new(0x60000010, "US", 2)
    dataset.add_new(0x60000011, "US", 3)
    dataset.add_new(0x60000040, "CS", "G")
    dataset.add_new(0x60000100, "US", 1)
    dataset.add_new(0x60003000, "OW", b"\xff\xff")
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    assert np.allclose(read_dicom(buffer.getvalue()), TINY / 50)
    # stored bits that do not end at bit 0
    assert np.allclose(read_dicom(dicom(RAMP12 << 4, bits=12, HighBit=15)), RAMP12 / 4095)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless])
def test_transfer_syntaxes_give_the_same_pixels(syntax: Any) -> None:
    assert np.allclose(read_dicom(dicom(RAMP12, syntax=syntax)), RAMP12 / 4095)


def test_deflated_files_are_inflated_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = dicom(RAMP12)
    end = 144 + int.from_bytes(plain[140:144], "little")
    meta = pydicom.dcmread(io.BytesIO(plain)).file_meta
    meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    head = buffer.getvalue()
    head = head[: 144 + int.from_bytes(head[140:144], "little")]

    def deflated(body: bytes) -> bytes:
        packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
        return head + packer.compress(body) + packer.flush()

    good = deflated(plain[end:])
    assert (read_dicom(good) == read_dicom(plain)).all()
    with pytest.raises(DicomError, match="cut off"):
        read_dicom(good[:-20])
    with pytest.raises(DicomError, match="sound file meta header"):
        read_dicom(good.replace(b"UL\x04\x00" + head[140:144], b"UL\x04\x00\x10\x00\x00\x00"))
    monkeypatch.setattr("kvlp.datasets.dicom._MAX_INFLATED", 1 << 20)
    bomb = deflated(plain[end:] + b"\0" * (64 << 20))
    tracemalloc.start()
    with pytest.raises(DicomError, match="more than 1048576 bytes when inflated"):
        read_dicom(bomb)
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


def test_a_file_without_preamble_and_meta_is_read_if_its_length_fits() -> None:
    for syntax in (ImplicitVRLittleEndian, ExplicitVRLittleEndian):
        data = dicom(RAMP12, syntax=syntax)
        headless = data[144 + int.from_bytes(data[140:144], "little") :]
        assert looks_like_dicom(headless)
        assert np.allclose(load_grey(headless), RAMP12 / 4095)
        with pytest.raises(DicomError):
            load_grey(headless[:-100])
    for junk in (b"\x08\0\x05\0" + b"\xff" * 300, b"\x08\0" * 200):
        with pytest.raises(ImageError):
            load_grey(junk)


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "raw detector data": (lambda: dicom(TINY, PresentationIntentType="FOR PROCESSING"), "FOR PROCESSING"),
    "colour": (lambda: dicom(TINY, PhotometricInterpretation="RGB", SamplesPerPixel=3), "is RGB \\(3 samples\\)"),
    "palette": (lambda: dicom(TINY, PhotometricInterpretation="PALETTE COLOR"), "is PALETTE COLOR"),
    "frames": (lambda: dicom(TINY, NumberOfFrames=2), "2 frames"),
    "too large": (lambda: dicom(TINY, Rows=60000, Columns=60000), "60000x60000 pixels, above the limit of 64 million"),
    "no rows": (lambda: dicom(TINY, Rows=0), "3x0 pixels"),
    "short": (lambda: dicom(TINY, Rows=3), "12 bytes; expected 18"),
    "long": (lambda: dicom(TINY, Rows=1), "12 bytes; expected 6"),
    "32 bit": (lambda: dicom(TINY, BitsAllocated=32, BitsStored=32, HighBit=31), "32 bits allocated"),
    "bits": (lambda: dicom(TINY, BitsStored=17), "17 stored"),
    "window": (lambda: dicom(TINY, WindowCenter=1, WindowWidth=2, VOILUTFunction="MAGIC"), "VOILUTFunction is unknown"),
    "empty": (lambda: b"\0" * 128 + b"DICM", "without pixel data"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_are_named(name: str) -> None:
    make, message = REFUSED[name]
    with pytest.raises(DicomError, match=message) as caught:
        read_dicom(make())
    assert "SECRET" not in str(caught.value)


def test_a_stream_larger_than_its_header_is_refused_undecoded(kvlp_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = kvlp_data / "dicom" / "other" / "MR_small_jp2klossless.dcm"
    if not path.exists():
        pytest.skip("no DICOM samples")
    data = bytearray(path.read_bytes())
    at = data.index(b"\xff\x4f\xff\x51") + 8
    data[at : at + 8] = (60000).to_bytes(4, "big") * 2
    monkeypatch.setattr("pydicom.pixels.utils.pixel_array", lambda *_, **__: pytest.fail("decoded"))
    with pytest.raises(DicomError, match="header says 64x64 pixels, its compressed data 60000x60000"):
        read_dicom(bytes(data))


def test_every_cut_and_many_flips_are_answered_in_kind() -> None:
    data = dicom(TINY, WindowCenter=[25, 100], WindowWidth=[20, 50], VOILUTSequence=lut(0, 12, [0, 9, 3]))
    rng = np.random.default_rng(0)
    for cut in range(0, len(data), 7):
        with pytest.raises(ImageError):
            load_grey(data[:cut])
    for _ in range(300):
        flipped = bytearray(data)
        flipped[int(rng.integers(len(data)))] = int(rng.integers(256))
        try:
            grey = load_grey(bytes(flipped))
        except ImageError:
            continue
        assert grey.min() >= 0
        assert grey.max() <= 1


def test_facts_group_without_giving_the_patient_away() -> None:
    data = dicom(TINY, ViewPosition="AP", StudyInstanceUID="1.2.3")
    facts = read_facts(data)
    assert facts.view == "AP"
    assert facts == read_facts(dicom(TINY, ViewPosition="AP", StudyInstanceUID="1.2.3"))
    assert facts.patient_id
    assert "SECRET" not in facts.patient_id
    assert read_facts(dicom(TINY)).study_id == ""


@pytest.mark.parametrize("limit", [1_500_000, pytest.param(64_000_000, marks=pytest.mark.slow)])
def test_every_sample_file(kvlp_data: Path, limit: int) -> None:
    """Greys equal an independent computation from the decoded values; malformed files are refused in one line."""
    folder = kvlp_data / "dicom"
    if not (folder / "manifest.csv").exists():
        pytest.skip("no DICOM samples")
    with (folder / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    read = 0
    for row in rows:
        path = folder / row["file"]
        if int(row["Rows"] or 0) * int(row["Columns"] or 0) > limit:
            continue  # takes seconds: in the slow tier
        grey_single = row["PhotometricInterpretation"].startswith("MONO") and row["shape"].count(",") == 1
        if row["kind"] == "malformed" or not grey_single or "float" in row["file"]:
            with pytest.raises(ImageError) as caught:
                load_grey(path)
            assert "\n" not in str(caught.value)
            continue
        grey = load_grey(path)
        assert grey.shape == (int(row["Rows"]), int(row["Columns"]))
        assert grey.max() > grey.min()
        if row["transfer_syntax"] != "absent":
            assert np.abs(grey[::STEP, ::STEP] - reference(path)).max() < 1e-6, row["file"]
        read += 1
    assert read >= (14 if limit < 64_000_000 else 17)
    pair = [load_grey(folder / "chest" / f) for f in ("rsna_chest_cr_mono2_jpegbaseline.dcm", "chest_cr_mono1_jpegbaseline.dcm")]  # fmt: skip  # noqa: E501
    assert np.allclose(pair[0], 1 - pair[1], atol=1e-6)


def reference(path: Path) -> np.ndarray:
    """pydicom's own modality and VOI functions, scaled to [0, 1] by the range that they map to."""
    from pydicom.pixels import apply_modality_lut, apply_voi_lut, pixel_array

    dataset = pydicom.dcmread(path)
    lossy = "JPEG Baseline" in dataset.file_meta.TransferSyntaxUID.name  # where decoders differ by a grey
    stored = pixel_array(dataset, decoding_plugin="pylibjpeg" if lossy else "")
    low, high = np.asarray(apply_modality_lut(np.array([stored.min(), stored.max()]), dataset), dtype=np.float64)
    values = np.asarray(apply_modality_lut(stored[::STEP, ::STEP], dataset), dtype=np.float64)
    has_window, has_lut = dataset.get("WindowWidth") not in (None, ""), bool(dataset.get("VOILUTSequence"))
    if has_window and not has_lut:
        ends = apply_voi_lut(np.array([-1e7, 1e7]), dataset)
        shown = (apply_voi_lut(values, dataset) - ends[0]) / (ends[1] - ends[0])
    elif has_lut:
        bits = int(dataset.VOILUTSequence[0].LUTDescriptor[2])
        shown = apply_voi_lut(values.astype(np.int64), dataset) / (2**bits - 1)
    elif dataset.BitsStored == 8:
        shown = values / 255
    else:
        shown = (values - low) / (high - low)
    inverse = dataset.PhotometricInterpretation == "MONOCHROME1" or dataset.get("PresentationLUTShape") == "INVERSE"
    return 1 - shown if inverse else shown
