"""Article packages: PMC's .tar.gz files and unpacked folders. Files are read into memory, never unpacked to disk."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from kvlp.datasets.files import read_bytes
from kvlp.errors import DataError
from kvlp.typing import PathLike

__all__ = ["ARCHIVE_ENDINGS", "Package", "find_packages", "open_package"]

ARCHIVE_ENDINGS = (".tar.gz", ".tgz", ".tar")
_XML_ENDINGS = (".nxml", ".xml")
#: pictures that are read; others are named as what they are
_READABLE = (".jpg", ".jpeg", ".png")
_OTHERS = (".tif", ".tiff", ".gif", ".eps", ".pdf", ".bmp", ".webp")
_MAX_XML = 64 << 20
_MAX_IMAGE = 128 << 20
_MAX_KEPT = 1 << 30
_MAX_STREAM = 8 << 30
_MAX_MEMBERS = 20_000
#: bytes of zeros that close a tar
_END = 1024


@dataclass(frozen=True, slots=True)
class Package:
    """One article's files. `files` maps lower-case names without folders to functions that return their bytes."""

    path: Path
    xml: bytes
    files: Mapping[str, Callable[[], bytes]]

    def image(self, names: Iterable[str]) -> tuple[str, bytes]:
        """Return (file name, bytes) of the first of the alternative names that is there as PNG or JPEG.

        A name from XML is looked up among the package's files and never opened as a path.
        Raises: DataError if none is there, or only in a format that is not read.
        """
        wanted = [PurePosixPath(name.replace("\\", "/")).name.lower() for name in names]
        forms = [form for name in wanted for form in _forms(name, _READABLE)]
        found = next((form for form in forms if form in self.files and form.endswith(_READABLE)), None)
        if found:
            return found, self.files[found]()
        other = next((f for name in wanted for f in _forms(name, _OTHERS) if f in self.files), None)
        if other:
            raise DataError(f"picture {_shown(other)}: expected PNG or JPEG, got {other.rpartition('.')[2].upper()}")
        raise DataError(f"picture {_shown(wanted[0]) if wanted else '(no name)'} is not in the package")


def find_packages(sources: Iterable[PathLike]) -> list[Path]:
    """Return the archives and folders with an article below the sources, sorted, each once. Links are not followed.

    Raises: DataError if a source is not there, or none holds a package.
    """
    found: dict[Path, None] = {}
    for source in map(Path, sources):
        if not source.exists():
            raise DataError(f"{source}: expected an article package or a folder of them, got nothing")
        found.update(dict.fromkeys(sorted(_below(source)) if source.is_dir() else [source]))
    if not found:
        raise DataError(f"no package found: expected {', '.join(ARCHIVE_ENDINGS)} or folders with a .nxml file")
    return list(found)


def open_package(path: PathLike) -> Package:
    """Read a package. Raises: DataError, one line, for one that is cut off, unsafe, too large or without an article."""
    path = Path(path)
    if path.is_dir():
        return _from_folder(path)
    if not path.name.lower().endswith(ARCHIVE_ENDINGS):
        raise DataError(f"expected a folder or a file ending in {', '.join(ARCHIVE_ENDINGS)}, got {path.suffix!r}")
    return _from_archive(path)


def _below(root: Path) -> Iterator[Path]:
    for folder, inner, names in os.walk(root):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        here = Path(folder)
        articles = [name for name in names if name.lower().endswith(".nxml")]
        if articles or ((here == root or not inner) and _is_article_folder(names)):
            yield here
            inner.clear()
            continue
        yield from (here / name for name in names if name.lower().endswith(ARCHIVE_ENDINGS) and name[0] != ".")


def _is_article_folder(names: list[str]) -> bool:
    """One .xml file beside pictures: how newer packages look."""
    lower = [name.lower() for name in names]
    return sum(n.endswith(".xml") for n in lower) == 1 and any(n.endswith((*_READABLE, *_OTHERS)) for n in lower)


def _from_folder(folder: Path) -> Package:
    paths: dict[str, Path] = {}
    for base, _, names in os.walk(folder):
        for name in sorted(names):
            path = Path(base) / name
            if not path.is_symlink() and path.is_file():
                paths.setdefault(name.lower(), path)
            if len(paths) > _MAX_MEMBERS:
                raise DataError(f"more than {_MAX_MEMBERS} files; this is no article package")
    article = paths[_the_article(paths)]
    xml = _inside(article, _MAX_XML)
    return Package(folder, xml, {name: _reader(path) for name, path in paths.items()})


def _reader(path: Path) -> Callable[[], bytes]:
    return lambda: _inside(path, _MAX_IMAGE)


def _inside(path: Path, limit: int) -> bytes:
    """A file's bytes; the message names the file without the folders above it."""
    try:
        return read_bytes(path, max_bytes=limit)
    except DataError as problem:
        raise DataError(str(problem).replace(str(path), path.name)) from problem


def _from_archive(path: Path) -> Package:
    kept: dict[str, bytes] = {}
    others: set[str] = set()
    try:
        with path.open("rb") as file, _opened(stream := _Bounded(_unzipped(file))) as tar:
            for count, member in enumerate(tar, 1):
                _check_member(member, count)
                name = PurePosixPath(member.name).name.lower()
                if member.isfile() and name.endswith((*_XML_ENDINGS, *_READABLE)):
                    kept[name] = _member_bytes(tar, member, sum(map(len, kept.values())))
                elif member.isfile():
                    others.add(name)
            stream.check_end()
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as problem:
        raise DataError(
            f"the archive is cut off or damaged: {' '.join(str(problem).split()) or 'it ends early'}"
        ) from problem
    files: dict[str, Callable[[], bytes]] = {name: _holder(data) for name, data in kept.items()}
    return Package(path, kept[_the_article(kept)], files | {name: _holder(b"") for name in others - set(kept)})


def _holder(data: bytes) -> Callable[[], bytes]:
    return lambda: data


def _check_member(member: tarfile.TarInfo, count: int) -> None:
    parts = PurePosixPath(member.name.replace("\\", "/")).parts
    if ".." in parts or member.name.startswith(("/", "\\")):
        raise DataError("a file in the archive has a path that leads out of it; the package is refused")
    if count > _MAX_MEMBERS:
        raise DataError(f"more than {_MAX_MEMBERS} files in the archive; this is no article package")


def _member_bytes(tar: tarfile.TarFile, member: tarfile.TarInfo, kept: int) -> bytes:
    limit = _MAX_XML if member.name.lower().endswith(_XML_ENDINGS) else _MAX_IMAGE
    if member.size > limit or kept + member.size > _MAX_KEPT:
        raise DataError(f"{_shown(PurePosixPath(member.name).name)}: {member.size} bytes, above the limit")
    file = tar.extractfile(member)
    data = file.read() if file else b""
    if len(data) != member.size:
        raise DataError("the archive is cut off or damaged: a file in it ends early")
    return data


def _unzipped(file: io.BufferedReader) -> io.BufferedIOBase:
    return gzip.GzipFile(fileobj=file) if file.peek(2)[:2] == b"\x1f\x8b" else file


def _opened(stream: _Bounded) -> tarfile.TarFile:
    return tarfile.open(fileobj=stream, mode="r|")


class _Bounded(io.RawIOBase):
    """A stream that refuses to grow without end: a small archive may unpack to anything."""

    def __init__(self, inner: io.BufferedIOBase) -> None:
        self.inner, self.left, self.last = inner, _MAX_STREAM, b""

    def read(self, size: int = -1) -> bytes:
        data = self.inner.read(size)
        self.left -= len(data)
        if self.left < 0:
            raise DataError(f"the archive unpacks to more than {_MAX_STREAM >> 30} GiB; refused")
        self.last = (self.last + data)[-_END:]
        return data

    def check_end(self) -> None:
        """Read on to the end, where the checksum stands. Raises: EOFError if the closing blocks are not there."""
        while self.read(1 << 20):
            pass
        if self.last.strip(b"\0") or len(self.last) < _END:
            raise EOFError("it ends before its closing blocks")


def _the_article(names: Iterable[str]) -> str:
    """The one .nxml file, else the one .xml file."""
    known = list(names)
    for ending in _XML_ENDINGS:
        found = sorted(name for name in known if name.endswith(ending))
        if len(found) == 1:
            return found[0]
        if found:
            raise DataError(f"expected one article, got {len(found)} files ending in {ending}")
    raise DataError("expected an article (.nxml), got a package without one")


def _forms(name: str, endings: tuple[str, ...]) -> list[str]:
    return [name, *(f"{name}{ending}" for ending in endings), *(f"{name.rpartition('.')[0]}{e}" for e in endings)]


def _shown(name: str) -> str:
    return repr(name[:60])
