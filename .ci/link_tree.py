"""A folder in which kvlp looks the way it is installed: knowledge, datasets and eval linked into kvlp/.

mypy and import-linter read files and do not see through setuptools' package-dir mapping: run in the checkout they
would silently check only kvlp/. So they run in this tree.
"""

from __future__ import annotations

from pathlib import Path

MAPPED = ("knowledge", "datasets", "eval")


def build_link_tree(root: Path, scratch: Path) -> Path:
    """Fill `scratch`/kvlp with links to the package folders of the checkout `root`; return `scratch`."""
    package = scratch / "kvlp"
    package.mkdir(parents=True, exist_ok=True)
    sources = [path for path in (root / "kvlp").iterdir() if path.name != "__pycache__"]
    for source in [*sources, *(root / name for name in MAPPED)]:
        (package / source.name).symlink_to(source.resolve())
    return scratch


def as_in_checkout(text: str) -> str:
    """Turn paths of the link tree, as tools print them, back into paths of the checkout."""
    for name in MAPPED:
        text = text.replace(f"kvlp/{name}/", f"{name}/")
    return text
