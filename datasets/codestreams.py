"""What compressed image bytes say of themselves, read before any decoder allocates a pixel."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from isal import isal_zlib  # as zlib, but it inflates half again as fast

from kvlp.errors import ImageError

__all__ = ["JPEG_MAGIC", "PNG_MAGIC", "PngHeader", "inflate_png", "jpeg_size", "png_header", "stream_size"]

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
JPEG_MAGIC = b"\xff\xd8\xff"
_J2K_MAGIC = b"\xff\x4f\xff\x51"
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


@dataclass(frozen=True, slots=True)
class PngHeader:
    """The IHDR chunk. `colour` is the PNG colour type: 0 grey, 2 RGB, 3 palette, 4 grey+alpha, 6 RGBA."""

    width: int
    height: int
    depth: int
    colour: int
    interlaced: bool

    @property
    def raw_bytes(self) -> int:
        """Length of the inflated pixel data: one filter byte a row, and the row's packed samples."""
        bits = self.depth * _CHANNELS[self.colour]
        passes = _ADAM7 if self.interlaced else ((0, 0, 1, 1),)
        total = 0
        for x0, y0, dx, dy in passes:
            columns, rows = -(-(self.width - x0) // dx), -(-(self.height - y0) // dy)
            if columns > 0 and rows > 0:
                total += rows * (1 + (columns * bits + 7) // 8)
        return total


def png_header(data: bytes) -> PngHeader:
    """Read a PNG's header. Raises: ImageError if it is cut off or holds values that PNG forbids."""
    if len(data) < 33 or data[12:16] != b"IHDR" or data[8:12] != b"\0\0\0\x0d":
        raise ImageError("PNG without a header: the file is cut off or damaged")
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", data[16:29])
    if not width or not height or depth not in _DEPTHS.get(colour, ()) or interlaced > 1:
        raise ImageError(f"PNG header: {width}x{height}, {depth} bit, colour type {colour} is not valid")
    return PngHeader(width, height, depth, colour, bool(interlaced))


def inflate_png(data: bytes, header: PngHeader, *, keep: bool = True) -> bytes:
    """Verify chunk lengths and checksums, and that the pixel data inflate to exactly all rows; return these bytes.

    A common decoder shows the missing rows of a short PNG as black without a word. Memory stays bounded; without `keep`
    the rows are only counted, a piece at a time, and nothing is returned.
    Raises: ImageError naming what is cut off or damaged.
    """
    inflater, total, position, rows = isal_zlib.decompressobj(), 0, 8, bytearray()
    kind = b""
    while kind != b"IEND":
        if position + 12 > len(data):
            raise ImageError("PNG is cut off: it ends before its closing chunk")
        (length,) = struct.unpack_from(">I", data, position)
        kind, end = data[position + 4 : position + 8], position + 12 + length
        if end > len(data):
            raise ImageError("PNG is cut off inside a chunk")
        body = memoryview(data)[position + 8 : end - 4]
        if isal_zlib.crc32(body, isal_zlib.crc32(kind)) != struct.unpack_from(">I", data, end - 4)[0]:
            raise ImageError("PNG is damaged: the checksum of a chunk is wrong")
        if kind == b"IDAT":
            total += _inflate(inflater, body, header.raw_bytes - total, rows if keep else None)
        position = end
    if total < header.raw_bytes:
        raise ImageError(f"PNG is cut off: {total} of {header.raw_bytes} bytes of pixel data")
    return bytes(rows)


def _inflate(inflater: isal_zlib.Decompress, body: memoryview, room: int, rows: bytearray | None) -> int:
    """Count the bytes that `body` inflates to, a piece at a time, into `rows`. Raises: ImageError above `room`."""
    count, rest = 0, bytes(body)
    while rest:
        try:
            piece = inflater.decompress(rest, 1 << 20)
        except isal_zlib.error as problem:  # type: ignore[misc]  # its stub tells an instance
            raise ImageError(f"PNG is damaged: {problem}") from problem
        count, rest = count + len(piece), inflater.unconsumed_tail
        if count > room:
            raise ImageError("PNG is damaged: more pixel data than its header allows")
        if rows is not None:
            rows += piece
        if inflater.eof or (not piece and not rest):
            break
    return count


def jpeg_size(data: bytes) -> tuple[int, int, int, int]:
    """Return (height, width, bits, components) from a JPEG or JPEG-LS frame header.

    Raises: ImageError if there is no frame header.
    """
    position = 2
    while position + 4 <= len(data):
        if data[position] != 0xFF:
            break
        marker = data[position + 1]
        if marker == 0xFF or marker == 0x01 or 0xD0 <= marker <= 0xD7:
            position += 1 if marker == 0xFF else 2
            continue
        (length,) = struct.unpack_from(">H", data, position + 2)
        is_frame = (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)) or marker == 0xF7
        if is_frame and position + 10 <= len(data):
            bits, height, width, components = struct.unpack_from(">BHHB", data, position + 4)
            return height, width, bits, components
        if length < 2 or marker in (0xD9, 0xDA):
            break
        position += 2 + length
    raise ImageError("JPEG without a frame header: the file is cut off or damaged")


def stream_size(data: bytes) -> tuple[int, int] | None:
    """Return (height, width) of a JPEG, JPEG-LS or JPEG 2000 stream; None for another kind of data."""
    if data.startswith(b"\xff\xd8"):
        return jpeg_size(data)[:2]
    start = data.find(_J2K_MAGIC, 0, 4096)
    if start < 0 or len(data) < start + 24:
        return None
    x1, y1, x0, y0 = struct.unpack_from(">IIII", data, start + 8)
    return y1 - y0, x1 - x0
