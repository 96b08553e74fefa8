"""The fonts that come with matplotlib and Pillow, for glyphs to compare with; nothing is fetched."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from kvlp.errors import ConfigError

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

__all__ = ["font"]


@cache
def font(name: str, size: int) -> FreeTypeFont:
    """A font of matplotlib's by file name, such as "DejaVuSans.ttf"; "" is the one inside Pillow. Size in pixels.

    Raises: ConfigError if matplotlib lacks the file.
    """
    from PIL import ImageFont

    if not name:
        found = ImageFont.load_default(size)
        if isinstance(found, ImageFont.FreeTypeFont):
            return found
        raise ConfigError("Pillow was built without FreeType, which draws letters; install Pillow's own wheel")
    path = _folder() / name
    if not path.is_file():
        raise ConfigError(f"matplotlib has no font {name!r}; reinstall matplotlib")
    return ImageFont.truetype(path, size)


@cache
def _folder() -> Path:
    spec = find_spec("matplotlib")
    if spec is None or spec.origin is None:
        raise ConfigError("matplotlib, whose fonts are used, is not installed")
    return Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf"
