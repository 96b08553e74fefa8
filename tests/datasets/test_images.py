"""Greys of PNG, JPEG, arrays and tensors; limits before decoding; data that end early are refused."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from kvlp.datasets.images import decode, inspect_image, load_grey, load_grey_uint8
from kvlp.errors import ImageError

RAMP8 = np.arange(256, dtype=np.uint8).reshape(16, 16)
RAMP16 = (np.arange(48 * 64, dtype=np.uint16) * 21).reshape(48, 64)


def encoded(array: np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, raw: bytes, *, depth: int = 8, colour: int = 0, interlaced: int = 0) -> bytes:
    """A PNG made by hand from filtered rows."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def test_eight_and_sixteen_bit_png_keep_every_grey(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(RAMP8))
    (tmp_path / "b.png").write_bytes(encoded(RAMP16))
    assert (load_grey(tmp_path / "a.png") == RAMP8.astype(np.float32) / np.float32(255)).all()
    assert (load_grey_uint8(tmp_path / "a.png") == RAMP8).all()
    wide = load_grey(str(tmp_path / "b.png"))
    assert wide.dtype == np.float32
    assert (wide == RAMP16.astype(np.float32) / np.float32(65535)).all()
    assert (load_grey_uint8(tmp_path / "b.png") == np.rint(RAMP16 / 257)).all()


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_small_bit_depths_span_black_to_white(depth: int) -> None:
    values = [0, 2**depth - 1]
    packed = (values[0] << (8 - depth)) | (values[1] << (8 - 2 * depth))
    data = png(2, 1, bytes([0, packed]), depth=depth)
    assert load_grey(data).tolist() == [[0.0, 1.0]]


def test_interlaced_png_equals_the_plain_one() -> None:
    # 1x1 has one pass; Pillow reads interlaced files but does not write them, so the size rule is tested by hand
    assert load_grey_uint8(png(1, 1, bytes([0, 77]), interlaced=1)).tolist() == [[77]]
    # 2x2: pass 1 holds (0,0), pass 6 holds (0,1), pass 7 the second row
    raw = bytes([0, 10]) + bytes([0, 20]) + bytes([0, 30, 40])
    assert load_grey_uint8(png(2, 2, raw, interlaced=1)).tolist() == [[10, 20], [30, 40]]


def test_colour_palette_and_transparency_become_grey() -> None:
    rgb = np.zeros((2, 3, 3), np.uint8)
    rgb[0, :, :] = np.diag([255, 255, 255])
    rgb[1] = 100
    expected = [[76, 150, 29], [100, 100, 100]]
    assert load_grey_uint8(encoded(rgb)).tolist() == expected
    palette = io.BytesIO()
    Image.fromarray(rgb).quantize(8).save(palette, "PNG")
    assert load_grey_uint8(palette.getvalue()).tolist() == expected
    rgba = np.dstack([rgb, np.full((2, 3), 255, np.uint8)])
    rgba[1, 1, 3] = 0
    assert load_grey_uint8(encoded(rgba)).tolist() == [[76, 150, 29], [100, 0, 100]]


def test_jpeg_equals_the_decoder_of_pillow_and_follows_exif() -> None:
    smooth = np.add.outer(np.arange(40), np.arange(60)).astype(np.uint8) * 2
    data = encoded(smooth, "JPEG", quality=90)
    with Image.open(io.BytesIO(data)) as image:
        assert (load_grey_uint8(data) == np.asarray(image)).all()
    exif = Image.Exif()
    exif[0x0112] = 6  # turn right by a quarter to view
    turned = encoded(smooth, "JPEG", quality=90, exif=exif)
    assert (load_grey_uint8(turned) == np.rot90(load_grey_uint8(data), -1)).all()
    for orientation in range(2, 9):
        exif[0x0112] = orientation
        turned = encoded(smooth, "JPEG", quality=90, exif=exif)
        with Image.open(io.BytesIO(turned)) as image:
            from PIL import ImageOps

            assert (load_grey_uint8(turned) == np.asarray(ImageOps.exif_transpose(image))).all()


def test_arrays_and_tensors() -> None:
    torch = pytest.importorskip("torch")
    floats = RAMP8.astype(np.float32) / 255
    same = (
        RAMP8, RAMP8[..., None], RAMP8[None], np.dstack([RAMP8] * 3), floats, floats.astype(np.float64),
        torch.from_numpy(floats), torch.from_numpy(RAMP8)[None], Image.fromarray(RAMP8), RAMP8.astype(np.uint16) * 257,
    )  # fmt: skip
    for source in same:
        assert np.abs(load_grey(source) - floats).max() < 1e-7
        assert (load_grey_uint8(source) == RAMP8).all()
    assert load_grey(np.eye(40, dtype=bool)).sum() == 40
    assert load_grey(torch.ones(3, 4, dtype=torch.bfloat16)).tolist() == [[1.0] * 4] * 3
    assert load_grey(Image.fromarray(RAMP16)).max() == np.float32(RAMP16.max()) / np.float32(65535)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (np.full((4, 4), 1.5), "within \\[0, 1\\], got 1.5 to 1.5"),
        (np.full((4, 4), -0.1), "within \\[0, 1\\]"),
        (np.full((4, 4), np.nan), "within \\[0, 1\\]"),
        (np.zeros((4, 4), np.int64), "got int64"),
        (np.zeros((4, 4, 4), np.uint8), "got \\(4, 4, 4\\)"),
        (np.zeros(4, np.uint8), "got \\(4,\\)"),
        (np.zeros((0, 4), np.uint8), "got \\(0, 4\\)"),
        (42, "got int"),
        (None, "got NoneType"),
        (b"GIF89a....", "begins with 47 49 46 38"),
        (b"", "begins with nothing"),
    ],
)
def test_what_is_no_image_is_named(source: object, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        load_grey(source)


def test_every_cut_of_a_png_and_a_jpeg_is_refused() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 50), dtype=np.uint8)
    for data in (encoded(noise), encoded(RAMP16), encoded(noise, "JPEG"), encoded(np.dstack([noise] * 3), "JPEG")):
        assert load_grey(data).size
        for cut in [*range(1, 60), *range(60, len(data), 37), len(data) - 3]:
            with pytest.raises(ImageError):
                load_grey(data[:cut])


def test_a_png_with_too_few_rows_is_refused_where_pillow_shows_black() -> None:
    short = png(50, 500, (b"\0" + b"\x80" * 50) * 10)
    with Image.open(io.BytesIO(short)) as image:
        assert np.asarray(image)[300].max() == 0  # the reason for our own count
    with pytest.raises(ImageError, match="510 of 25500 bytes"):
        load_grey(short)
    with pytest.raises(ImageError, match="more pixel data"):
        load_grey(png(50, 5, (b"\0" + b"\x80" * 50) * 10))


def test_grey_rows_of_every_filter_are_those_that_pillow_opens() -> None:
    rng = np.random.default_rng(0)
    for width, height in ((1, 5), (7, 10), (64, 5)):
        raw = b"".join(bytes([row % 5]) + rng.bytes(width) for row in range(height))
        data = png(width, height, raw)
        with Image.open(io.BytesIO(data)) as image:
            assert np.array_equal(load_grey_uint8(data), np.asarray(image))
    with pytest.raises(ImageError, match="PNG is damaged: cannot decode"):
        load_grey(png(3, 2, b"\0\1\2\3\7\1\2\3"))


def test_a_flipped_byte_in_a_png_is_refused() -> None:
    data = bytearray(encoded(RAMP8))
    data[len(data) // 2] ^= 4
    with pytest.raises(ImageError, match="checksum"):
        load_grey(bytes(data))


def test_sizes_are_refused_from_the_header_before_a_pixel_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("decoded")

    bomb = png(30_000, 30_000, b"")
    jpeg = bytearray(encoded(RAMP8, "JPEG"))
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = struct.pack(">HH", 60_000, 60_000)
    small = encoded(RAMP8)
    monkeypatch.setattr(Image, "open", never)
    monkeypatch.setattr(simplejpeg, "decode_jpeg", never)
    for data in (bomb, bytes(jpeg)):
        with pytest.raises(ImageError, match="above the limit of 64 million"):
            load_grey(data)
    with pytest.raises(ImageError, match="16x16 pixels, above the limit"):
        load_grey(small, max_pixels=255)
    with pytest.raises(ImageError, match="above the limit"):
        load_grey(RAMP16, max_pixels=255)


def test_only_listed_formats_are_opened(tmp_path: Path) -> None:
    for kind in ("GIF", "BMP", "TIFF", "PPM", "WEBP"):
        with pytest.raises(ImageError, match="expected a PNG, JPEG or DICOM"):
            load_grey(encoded(RAMP8, kind))
    cmyk = io.BytesIO()
    Image.new("CMYK", (8, 8)).save(cmyk, "JPEG")
    with pytest.raises(ImageError, match="4 components"):
        load_grey(cmyk.getvalue())


def test_folders_pipes_and_empty_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "f.png").mkdir()
    (tmp_path / "e.png").touch()
    os.mkfifo(tmp_path / "p.png")
    for name, message in (("f", "a folder"), ("e", "is empty"), ("p", "not a regular file"), ("n", "cannot be opened")):
        with pytest.raises(ImageError, match=message):
            load_grey(tmp_path / f"{name}.png")


def test_inspect_gives_grey_and_verdict(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(np.zeros((64, 64), np.uint8)))
    grey, plausible = inspect_image(tmp_path / "a.png")
    assert grey.shape == (64, 64)
    assert plausible.reason == "almost one single grey"
    assert decode(np.dstack([RAMP8] * 3)).shape == (16, 16, 3)


def test_real_radiographs_decode_like_pillow(kvlp_data: Path) -> None:
    paths = sorted((kvlp_data / "cxr-real" / "images").glob("*/*.jpg"))[::400]
    if not paths:
        pytest.skip("no cxr-real images")
    for path in paths:
        with Image.open(path) as image:
            assert np.abs(load_grey_uint8(path).astype(int) - np.asarray(image.convert("L")).astype(int)).max() <= 1
