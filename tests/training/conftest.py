"""Small data that the tests of this room share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from training_small import SENTENCES, write_manifest

from kvlp.datasets.manifest import Manifest


@pytest.fixture(scope="session")
def noise_manifest(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Sequence[str]], Manifest]:
    """Write images of 12 patients whose mean tells which of four reports they have."""
    return lambda sentences: write_manifest(tmp_path_factory.mktemp("data"), sentences)


@pytest.fixture(scope="session")
def manifest(noise_manifest: Callable[[Sequence[str]], Manifest]) -> Manifest:
    """24 images of 12 patients with the reports `SENTENCES` in turn; nobody writes into its folder."""
    return noise_manifest(SENTENCES)
