"""Adding, removing, replacing, moving, reopening, losing the cache, in any order: the archive holds what it should."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from archive_planted import DIM, PlantedModel, grey_of, write_image
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from kvlp.archive import Archive
from kvlp.vectors import sha256_of, unit_rows

SHARE = float(os.environ.get("KVLP_SLOW_SHARE", "1"))
PICTURES = st.integers(0, 7)
NAMES = st.sampled_from([f"{letter}.png" for letter in "abcdef"])


class ArchiveMachine(RuleBasedStateMachine):
    """`files` is the folder, `expected` what the archive must hold: content -> vector, and where it is found."""

    @initialize()
    def start(self):
        self.root = Path(tempfile.mkdtemp())
        (self.root / "images").mkdir()
        self.model = PlantedModel()
        for number in range(0, 8, 2):  # half of the pictures have one and the same embedding
            self.model.plant(grey_of(number), np.eye(DIM)[0])
        self.archive = Archive.create(self.root / "archive", self.model)
        self.files: dict[str, int] = {}
        self.expected: dict[int, str] = {}

    def teardown(self):
        if hasattr(self, "root"):
            self.archive.close()
            shutil.rmtree(self.root)

    @rule(name=NAMES, picture=PICTURES)
    def write(self, name, picture):
        write_image(self.root / "images" / name, picture)
        self.files[name] = picture

    @rule(name=NAMES)
    def delete_file(self, name):
        (self.root / "images" / name).unlink(missing_ok=True)
        self.files.pop(name, None)

    @rule(old=NAMES, new=NAMES)
    def move_file(self, old, new):
        if old in self.files:
            (self.root / "images" / old).rename(self.root / "images" / new)
            self.files[new] = self.files.pop(old)

    @rule(batch=st.integers(1, 5))
    def add_folder(self, batch):
        self.archive.add(self.root / "images", batch_size=batch)
        for picture, name in list(self.expected.items()):  # its file holds another content now
            if name in self.files and self.files[name] != picture and picture not in self.files.values():
                del self.expected[picture]
        for picture in set(self.files.values()):
            self.expected[picture] = min(name for name, held in self.files.items() if held == picture)

    @precondition(lambda self: self.expected)
    @rule(data=st.data())
    def remove(self, data):
        picture = data.draw(st.sampled_from(sorted(self.expected)))
        assert self.archive.remove([self.id_of(picture)]) == 1
        del self.expected[picture]

    @rule()
    def reopen(self):
        self.archive.close()
        self.archive = Archive.open(self.root / "archive", self.model)

    @rule()
    def copy(self):
        self.archive.close()
        shutil.copytree(self.root / "archive", self.root / "copied")
        shutil.rmtree(self.root / "archive")
        (self.root / "copied").rename(self.root / "archive")
        self.archive = Archive.open(self.root / "archive", self.model)

    @rule()
    def lose_the_cache(self):
        for path in (self.root / "archive").glob("index*"):
            path.write_bytes(path.read_bytes()[:-3])
        self.reopen()

    @rule()
    def repair(self):
        self.archive.repair()

    @invariant()
    def search_is_brute_force(self):
        if not hasattr(self, "root"):
            return
        query = np.eye(DIM)[0] + 0.1
        query = unit_rows(query)[0].astype(float)
        query /= np.linalg.norm(query)
        scored = []
        for picture in self.expected:
            vector = unit_rows(self.model.image_vector(grey_of(picture)).astype(np.float32))[0]
            scored.append((-float((vector.astype(float) * query).sum()), self.id_of(picture)))
        hits = self.archive.search(embedding=np.eye(DIM)[0] + 0.1, k=5)
        assert [(-h.score, h.id) for h in hits] == sorted(scored)[:5]
        assert len(self.archive) == len(self.expected)
        for hit in hits:
            (picture,) = (p for p in self.expected if self.id_of(p) == hit.id)
            held = self.files.get(Path(hit.path).name)
            assert hit.stale == ("missing" if held is None else "" if held == picture else "changed")

    @invariant()
    def it_is_sound(self):
        if hasattr(self, "root"):
            assert [p for p in self.archive.verify(images=False).problems if p.kind != "cache"] == []

    def id_of(self, picture):
        path = self.root / "one.png"
        write_image(path, picture)
        return sha256_of(path)[:16]


@pytest.mark.slow
def test_any_order_of_things():
    quick = settings(max_examples=8, stateful_step_count=20, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(ArchiveMachine, settings=quick)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_any_order_of_many_things():
    many = settings(max_examples=max(50, int(1000 * SHARE)), stateful_step_count=50)
    many = settings(many, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(ArchiveMachine, settings=many)
