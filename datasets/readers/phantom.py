"""Reader of the phantom: makes (or opens) synthetic chest radiographs with reports."""

from pathlib import Path

from kvlp.datasets.manifest import Manifest
from kvlp.errors import ConfigError
from kvlp.typing import PathLike

__all__ = ["read_phantom"]


def read_phantom(src: PathLike, out: PathLike, *, seed: int = 0, size: int = 96, jobs: int = 2) -> Manifest:
    """Return the manifest of a phantom data set; `out`/manifest.csv is written when it is new.

    Args:
        src: how many images to make ("600"), or a folder that generate_phantom wrote.
        out: folder of the new data set; not used when src is a folder.
        seed, size, jobs: see kvlp.datasets.phantom.generate_phantom.

    Raises:
        ConfigError: src is neither a number above 0 nor a phantom's folder.
    """
    folder = Path(src)
    if folder.is_dir() and (folder / "phantom.json").is_file():
        return Manifest.load(folder / "manifest.csv")
    if not str(src).isdigit() or int(str(src)) < 1:
        raise ConfigError(f"phantom: expected a number of images to make or a phantom's folder, got {str(src)[:80]!r}")
    from kvlp.datasets.phantom.generate import generate_phantom

    return generate_phantom(out, images=int(str(src)), seed=seed, size=size, jobs=jobs)
