"""Tesseract as an optional second reader of panel letters: found on the PATH, run on pixels, never on a file name."""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kvlp.datasets.figures.glyphs import Glyph
from kvlp.datasets.figures.panels import Box
from kvlp.errors import ConfigError

__all__ = ["ENGINES", "Engine", "find_engine", "read_with"]

ENGINES = ("auto", "tesseract", "none")
_INSTALL = "install it (Debian: apt install tesseract-ocr), or use --ocr none"
_SECONDS = 60
_TARGET = 1400
_LETTER = re.compile(r"[(\[]?([A-Za-z])[)\].:,]?\Z")


@dataclass(frozen=True, slots=True)
class Engine:
    """An OCR program: its path and version."""

    path: str
    version: str


def find_engine(name: str = "auto") -> Engine | None:
    """Return the engine; None for "none", and for "auto" where tesseract is not installed.

    Raises: ConfigError for another name, and for "tesseract" where it is not installed or does not run.
    """
    if name not in ENGINES:
        raise ConfigError(f"--ocr: expected one of {', '.join(ENGINES)}, got {name!r}")
    path = shutil.which("tesseract") if name != "none" else None
    if path is None:
        if name == "tesseract":
            raise ConfigError(f"tesseract is not on the PATH; {_INSTALL}")
        return None
    try:
        said = subprocess.run([path, "--version"], capture_output=True, text=True, check=True, timeout=_SECONDS).stdout
    except (OSError, subprocess.SubprocessError) as problem:
        if name == "auto":
            return None
        raise ConfigError(f"tesseract does not run: {type(problem).__name__}; {_INSTALL}") from problem
    return Engine(path, (said.split() or ["", "?"])[1])


def read_with(engine: Engine, grey: NDArray[np.uint8]) -> list[Glyph]:
    """Return the single letters that the engine sees in a grey picture; none where it fails: it is a second reader."""
    from PIL import Image

    scale = max(1, round(_TARGET / max(grey.shape)))
    image = Image.fromarray(grey)
    buffer = io.BytesIO()
    image.resize((image.width * scale, image.height * scale), Image.Resampling.BICUBIC).save(buffer, "PNG")
    command = [engine.path, "stdin", "stdout", "--psm", "11", "-l", "eng", "tsv"]
    try:
        done = subprocess.run(
            command, input=buffer.getvalue(), capture_output=True, check=True, timeout=_SECONDS, env=_environment()
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return _letters(done.stdout.decode("utf-8", "replace"), scale)


def _environment() -> dict[str, str]:
    import os

    return {
        **os.environ,
        "OMP_THREAD_LIMIT": "1",
    }  # figures are read side by side; the engine's own threads only disturb


def _letters(table: str, scale: int) -> list[Glyph]:
    """Words of one letter in the engine's table, in pixels of the picture that was handed in."""
    found = []
    for row in csv.DictReader(io.StringIO(table), delimiter="\t", quoting=csv.QUOTE_NONE):
        match = _LETTER.match((row.get("text") or "").strip())
        if not match:
            continue
        left, top, width, height = (int(row[name]) // scale for name in ("left", "top", "width", "height"))
        confidence = float(row.get("conf") or 0) / 100
        if confidence > 0.3:
            found.append(Glyph(Box(top, left, top + height, left + width), {match[1].lower(): confidence}))
    return found
