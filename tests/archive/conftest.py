"""Planted archives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import archive_planted as planted
import pytest


@pytest.fixture(autouse=True)
def _unflagged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted pictures are noise of 12 x 12: do not flag them."""
    import kvlp.datasets.images as images
    from kvlp.datasets.plausibility import Plausibility

    monkeypatch.setattr(images, "radiograph_check", lambda pixels: Plausibility(True))


@pytest.fixture
def model() -> Any:
    return planted.PlantedModel()


@pytest.fixture
def create(tmp_path: Path, model: Any) -> Iterator[Callable[..., Any]]:
    """Make archives under tmp_path that are closed at the end."""
    from kvlp.archive import Archive

    made = []

    def make(name: str = "archive", **options: Any) -> Archive:
        archive = Archive.create(tmp_path / name, options.pop("model", model), **options)
        made.append(archive)
        return archive

    yield make
    for archive in made:
        archive.close()


@pytest.fixture
def filled(tmp_path: Path, create: Callable[..., Any]) -> Any:
    """An archive of pictures 0 to 39 under tmp_path/images."""
    planted.write_images(tmp_path / "images", range(40))
    archive = create()
    archive.add(tmp_path / "images")
    return archive
