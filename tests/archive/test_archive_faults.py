"""Crashes, full disks, damaged files, several processes: what was acknowledged stays, what is damaged is not served."""

from __future__ import annotations

import mmap
import os
import resource
import shutil
import signal
import sqlite3
import time
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from archive_planted import PlantedModel, grey_of, write_images

from kvlp.archive import Archive, cache, files, store
from kvlp.errors import ArchiveError

SHARE = float(os.environ.get("KVLP_SLOW_SHARE", "1"))


def fork(work):
    """Run `work` in a child that leaves without cleaning up; return its pid."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return pid


def status_of(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def ask(archive, model):
    asked = [archive.search(embedding=model.image_vector(grey_of(n)), k=8) for n in range(4)]
    return [[(hit.id, hit.score) for hit in hits] for hits in asked]


def answers(folder, model):
    with Archive.open(folder, model) as archive:
        return ask(archive, model)


# --- killed -----------------------------------------------------------------------------------------------------------


class Child:
    """Adds the images of a folder in a child process that notes on disk what was acknowledged, until it is killed."""

    def __init__(self, root, images):
        self.root, self.images = root, images
        self.inside = mmap.mmap(-1, 2)  # first byte: inside a write; second: the archive is open

    def run(self):
        model, inside = PlantedModel(), self.inside
        acknowledged = os.open(self.root / "ack", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        transaction, atomic = store.Store.transaction, files.write_atomic

        @contextmanager
        def marked_transaction(self):
            inside[0] = 1
            with transaction(self) as connection:
                yield connection
            inside[0] = 0

        def marked_atomic(*args):
            inside[0] = 1
            atomic(*args)
            inside[0] = 0

        store.Store.transaction, cache.write_atomic = marked_transaction, marked_atomic

        def note(progress):
            os.write(acknowledged, "".join(f"{key}\n" for key in progress.committed).encode())
            os.fsync(acknowledged)

        with Archive.open(self.root / "archive", model) as archive:
            inside[1] = 1
            archive.add(self.images, progress=note, batch_size=4)

    def kill_after(self, seconds):
        self.inside[:] = bytes(2)
        pid = fork(self.run)
        while not self.inside[1]:
            time.sleep(0.001)
        time.sleep(seconds)
        inside = self.inside[0]
        os.kill(pid, signal.SIGKILL)
        return status_of(pid), inside


def kill_and_look(tmp_path, kills, images):
    """Kill adds at random moments; after each kill everything acknowledged is there and whole. Returns counts."""
    write_images(tmp_path / "images", range(images))
    rng, inside, cut, rounds = np.random.default_rng(0), 0, 0, 0
    root = tmp_path / "round"
    for _ in range(kills):
        if not root.exists():
            rounds += 1
            root.mkdir()
            Archive.create(root / "archive", PlantedModel()).close()
        status, was_inside = Child(root, tmp_path / "images").kill_after(float(rng.uniform(0.0, 0.15)))
        inside += was_inside
        cut += status == -signal.SIGKILL
        if look_after_kill(root) == images:
            shutil.rmtree(root)
    return {"kills": kills, "killed before the end": cut, "killed inside a write": inside, "archives": rounds}


def look_after_kill(root):
    acknowledged = set((root / "ack").read_text().split()) if (root / "ack").exists() else set()
    with Archive.open(root / "archive", PlantedModel()) as archive:
        stored = {item.id for item in archive._store.items()}
        assert acknowledged <= stored, "an acknowledged item is lost"
        found = archive.search(embedding=np.ones(16), k=10_000)
        assert sorted(h.id for h in found) == sorted(stored), "search does not answer with what is stored"
        assert archive.verify().problems == []
        return len(stored)


def test_kill_9_loses_nothing_acknowledged(tmp_path):
    counts = kill_and_look(tmp_path, kills=4, images=60)
    assert counts["killed before the end"] >= 1


def test_an_interrupted_add_is_finished_by_the_next_one(tmp_path):
    write_images(tmp_path / "images", range(60))
    Archive.create(tmp_path / "archive", PlantedModel()).close()
    Child(tmp_path, tmp_path / "images").kill_after(0.03)
    (tmp_path / "archive" / "index.json.tmp-99999").write_bytes(b"left behind")
    with Archive.open(tmp_path / "archive", PlantedModel()) as archive:
        archive.add(tmp_path / "images")
        assert len(archive) == 60
        assert not any(".tmp-" in path.name for path in (tmp_path / "archive").iterdir())
    Archive.create(tmp_path / "other", PlantedModel()).close()
    with Archive.open(tmp_path / "other", PlantedModel()) as archive:
        archive.add(tmp_path / "images")
    assert answers(tmp_path / "archive", PlantedModel()) == answers(tmp_path / "other", PlantedModel())


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_200_kills(tmp_path, capsys):
    counts = kill_and_look(tmp_path, kills=max(20, int(200 * SHARE)), images=150)
    with capsys.disabled():
        print("\n", counts)
    assert counts["killed inside a write"] >= counts["kills"] // 20


# --- full disk --------------------------------------------------------------------------------------------------------


def limited(folder, images, limit):
    """Add under a limit on file size; exit 3 if it ended with one clear error."""

    def work():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        try:
            with Archive.open(folder, PlantedModel()) as archive:
                archive.add(images, batch_size=8)
        except (ArchiveError, OSError) as error:
            os._exit(3 if isinstance(error, ArchiveError) and "\n" not in str(error) else 4)

    return work


@pytest.mark.slow
def test_a_full_disk_is_one_clear_error_and_the_archive_answers_as_before(tmp_path):
    write_images(tmp_path / "first", range(30))
    write_images(tmp_path / "images", range(90))
    with Archive.create(tmp_path / "archive", PlantedModel()) as archive:
        archive.add(tmp_path / "first")
    before = answers(tmp_path / "archive", PlantedModel())
    outcomes = set()
    for number, limit in enumerate((1, 3_000, 20_000, 45_000, 90_000, 10_000_000)):
        folder = tmp_path / f"copy{number}"
        shutil.copytree(tmp_path / "archive", folder)
        outcome = status_of(fork(limited(folder, tmp_path / "images", limit)))
        outcomes.add(outcome)
        assert outcome in (0, 3)
        with Archive.open(folder, PlantedModel()) as archive:
            assert len(archive) >= 30
            assert archive.verify().problems == [] or outcome == 3
            if len(archive) == 30:
                assert answers(folder, PlantedModel()) == before
            archive.add(tmp_path / "images")
            assert len(archive) == 90
            assert archive.verify().problems == []
    assert outcomes == {0, 3}


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    files.write_atomic(tmp_path / "x", b"old")
    real = os.write
    for fail_at in ("write", "fsync", "replace"):

        def broken(*args, **kwargs):
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, fail_at, broken)
            with pytest.raises(OSError, match="No space"):
                files.write_atomic(tmp_path / "x", b"new")
        assert (tmp_path / "x").read_bytes() == b"old"
        assert [p.name for p in tmp_path.iterdir()] == ["x"]
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:1]))  # short writes are written on
        files.write_atomic(tmp_path / "x", b"newer")
    assert (tmp_path / "x").read_bytes() == b"newer"


def test_an_index_that_cannot_be_written_is_named_and_items_are_safe(tmp_path, create, model, monkeypatch):
    archive = create()

    def full(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(cache, "write_atomic", full)
        with pytest.raises(ArchiveError, match=r"could not be written \(No space left on device\); it needs 320 bytes"):
            archive.add(write_images(tmp_path / "images", range(5)))
        with Archive.open(tmp_path / "archive", model) as again:
            assert len(again.search(embedding=np.ones(16))) == 5
            assert "memory only" in again.notes[0]
    assert len(archive) == 5


class PeakMemory:
    """How far the resident memory rose above where it stood, whatever earlier tests of this process needed."""

    def __enter__(self):
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        self.before = self.status("VmRSS")
        return self

    def __exit__(self, *_):
        self.grown_mb = (self.status("VmHWM") - self.before) / 1024

    @staticmethod
    def status(name):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(name + ":"))


# --- damaged files ----------------------------------------------------------------------------------------------------


def damage_all(folder, model, rounds, rng):
    """Mutate or cut a cache file; the answer must never change and the damage must be seen. Returns counts."""
    expected, whole = answers(folder, model), {p.name: p.read_bytes() for p in folder.iterdir()}
    names = [name for name in whole if name.startswith("index")]
    counts = {"no change": 0, "rebuilt": 0, "passed over": 0}
    for turn in range(rounds):
        name = names[turn % len(names)]
        data = bytearray(whole[name])
        if turn % 5 == 0:
            data = data[: rng.integers(0, len(data))]
        else:
            for _ in range(int(rng.integers(1, 4))):
                data[int(rng.integers(0, len(data)))] = int(rng.integers(0, 256))
        (folder / name).write_bytes(bytes(data))
        with Archive.open(folder, model) as archive:
            assert ask(archive, model) == expected, f"{name}: another answer after damage"
            rebuilt = archive.notes != []
        changed = bytes(data) != whole[name]
        counts["rebuilt" if rebuilt else "passed over" if changed else "no change"] += 1
        if changed and not rebuilt:
            assert name == "index.json"  # the generation or a space in the manifest: nothing that is relied on
        for path in folder.iterdir():
            if path.name.startswith("index"):
                path.unlink()
        for original in names:
            (folder / original).write_bytes(whole[original])
    return counts


def test_damaged_cache_files_are_never_served(tmp_path, filled, model):
    filled.close()
    counts = damage_all(tmp_path / "archive", model, 60, np.random.default_rng(0))
    assert counts["rebuilt"] >= 50


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_2600_damaged_cache_files(tmp_path, filled, model, capsys):
    filled.close()
    with PeakMemory() as memory:
        counts = damage_all(tmp_path / "archive", model, max(200, int(2600 * SHARE)), np.random.default_rng(1))
    with capsys.disabled():
        print("\n", counts, f"{memory.grown_mb:.0f} MB")
    assert memory.grown_mb < 256


@pytest.mark.parametrize("name", ["index.json", "index-*.faiss"])
@pytest.mark.parametrize("how", ["delete", "empty", "cut", "flip", "folder"])
def test_each_cache_file_can_go(tmp_path, filled, model, name, how):
    expected = answers(tmp_path / "archive", model)
    filled.close()
    (path,) = (tmp_path / "archive").glob(name)
    data = path.read_bytes()
    path.unlink()
    if how == "folder":
        path.mkdir()
    elif how != "delete":
        middle = len(data) // 2
        flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        path.write_bytes({"empty": b"", "cut": data[:middle], "flip": flipped}[how])
    with Archive.open(tmp_path / "archive", model) as archive:
        assert [p.kind for p in archive.verify().problems] == ["cache"]
    assert answers(tmp_path / "archive", model) == expected
    with Archive.open(tmp_path / "archive", model) as archive:
        if how != "folder":
            assert archive.verify().problems == []
            assert archive.notes == []


def test_a_manifest_that_leads_elsewhere_is_refused(tmp_path, filled, model):
    import json

    filled.close()
    path = tmp_path / "archive" / "index.json"
    manifest = json.loads(path.read_text())
    manifest["files"]["flat"]["name"] = "index-x/../../images/0001.png"
    path.write_text(json.dumps(manifest))
    with Archive.open(tmp_path / "archive", model) as archive:
        archive.search(embedding=np.ones(16))
        assert "names a file outside the archive" in archive.notes[0]


def test_a_cache_with_matching_hashes_but_other_vectors_is_found_by_verify(tmp_path, filled, model):
    """What an attacker who recomputes every hash can do is change an answer, and verify sees it."""
    import json

    from kvlp.vectors import VectorIndex, sha256_of

    filled.close()
    folder = tmp_path / "archive"
    manifest = json.loads((folder / "index.json").read_text())
    entry = manifest["files"]["flat"]
    data = VectorIndex(np.tile(np.eye(16, dtype=np.float32)[0], (40, 1))).flat_bytes()
    (folder / entry["name"]).write_bytes(data)
    entry |= {"bytes": len(data), "sha256": sha256_of(data)}
    (folder / "index.json").write_text(json.dumps(manifest))
    with Archive.open(folder, model) as archive:
        assert [p.message for p in archive.verify().problems] == ["its vectors are not those of the archive"]
        archive.repair()
        assert archive.verify().ok


def test_a_changed_row_is_found_and_embedded_anew(tmp_path, filled, model):
    expected = answers(tmp_path / "archive", model)
    with filled._store.transaction() as connection:
        connection.execute("UPDATE items SET vector = (SELECT vector FROM items WHERE n = 2) WHERE n = 1")
        connection.execute("UPDATE items SET view = 'PA' WHERE n = 3")
    report = filled.verify()
    assert [p.kind for p in report.problems] == ["item", "item"]
    repaired = filled.repair()
    assert (len(repaired.reembedded), repaired.dropped) == (2, [])
    assert filled.verify().ok
    assert answers(tmp_path / "archive", model) == expected


def test_a_damaged_item_without_its_image_is_given_up_by_name(tmp_path, filled, model):
    (lost,) = filled._store.items("n = 1")
    (tmp_path / "archive" / lost.path).resolve().unlink()
    with filled._store.transaction() as connection:
        connection.execute("UPDATE items SET vector = zeroblob(5) WHERE n = 1")
    (tmp_path / "archive" / "index.json").unlink()
    with (
        pytest.raises(ArchiveError, match=f"item {lost.id} has a damaged vector; run: kvlp archive repair"),
        Archive.open(tmp_path / "archive", model) as again,
    ):
        again.search(embedding=np.ones(16))
    assert filled.repair().dropped == [lost.id]
    assert len(filled.search(embedding=np.ones(16), k=50)) == 39
    assert filled.skipped()[0][0] == lost.path


def test_a_cut_database_is_one_clear_error(tmp_path, filled, model):
    filled.close()
    path = tmp_path / "archive" / "archive.sqlite"
    data = path.read_bytes()
    assert damage_of(tmp_path / "archive", model) == []
    for size in (10, 100, 4096, len(data) // 2):
        path.write_bytes(data[:size])
        assert damage_of(tmp_path / "archive", model)


def damage_of(folder, model):
    """What open or verify says of a database; empty if they take it for sound."""
    try:
        with Archive.open(folder, model) as archive:
            return [problem.message for problem in archive.verify().problems]
    except ArchiveError as error:
        message = str(error)
        return [message] if "\n" not in message and ("damaged" in message or "not finished" in message) else []


# --- several processes ------------------------------------------------------------------------------------------------


def test_a_second_writer_waits_and_then_names_the_first(tmp_path, filled, model):
    with files.writer_lock(tmp_path / "archive", 1.0), Archive.open(tmp_path / "archive", model) as second:
        start = time.monotonic()
        with pytest.raises(ArchiveError, match=rf"is being written by process {os.getpid()}; waited 0.2 s"):
            second.add(tmp_path / "images", timeout=0.2)
        assert 0.2 <= time.monotonic() - start < 5
        with pytest.raises(ArchiveError, match="is being written"):
            second.remove(where="view = ''", timeout=0)
        assert len(second.search(embedding=np.ones(16), k=50)) == 40  # reading goes on
    assert filled.add(tmp_path / "images").unchanged == 40


def test_two_writers_and_a_reader_lose_and_tear_nothing(tmp_path):
    for writer in range(2):
        write_images(tmp_path / f"w{writer}", range(100 * writer, 100 * writer + 40))
    Archive.create(tmp_path / "archive", PlantedModel()).close()

    def write(number):
        with Archive.open(tmp_path / "archive", PlantedModel(), timeout=30) as archive:
            for at in range(0, 40, 10):
                paths = sorted((tmp_path / f"w{number}").iterdir())[at : at + 10]
                archive.add(paths, batch_size=5)

    children = [fork(lambda n=n: write(n)) for n in range(2)]
    seen = []
    with Archive.open(tmp_path / "archive", PlantedModel()) as reader:
        while len(seen) < 2000:
            hits = reader.search(embedding=np.ones(16), k=200)
            assert len({h.id for h in hits}) == len(hits)
            seen.append(len(hits))
            done = [os.waitpid(pid, os.WNOHANG) for pid in children]
            children = [pid for pid, (ended, _) in zip(children, done, strict=True) if not ended]
            assert all(os.waitstatus_to_exitcode(status) == 0 for ended, status in done if ended)
            if not children:
                break
        assert seen == sorted(seen)
        assert all(count % 5 == 0 for count in seen)
        assert len(reader.search(embedding=np.ones(16), k=200)) == 80
        assert reader.verify().ok


def test_sqlite_errors_are_never_passed_on_raw(tmp_path, filled):
    with pytest.raises(ArchiveError, match="no such column"), filled._store.reading() as connection:
        connection.execute("SELECT shoe_size FROM items")
    busy = sqlite3.connect(tmp_path / "archive" / "archive.sqlite", isolation_level=None)
    busy.execute("BEGIN IMMEDIATE")
    waiting = store.Store.open(Path(tmp_path / "archive" / "archive.sqlite"), timeout=0.05)
    with pytest.raises(ArchiveError, match="busy with another process"), waiting.transaction():
        pass
    busy.close()
    waiting.close()
