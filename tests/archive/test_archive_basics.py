"""Create, add, add again, reopen, remove; what is stored and who may read it."""

from __future__ import annotations

import os
import stat
from dataclasses import replace

import numpy as np
import pytest
from archive_planted import PlantedModel, grey_of, write_image, write_images

from kvlp.archive import Archive
from kvlp.datasets.manifest import Manifest, Record
from kvlp.errors import ArchiveError, ManifestError, ShapeError

REPORT = "FINDINGS: Small left pleural effusion. No pneumothorax.\nIMPRESSION: Possible pneumonia."


def manifest_of(root, numbers, **fields):
    write_images(root, numbers)
    return Manifest([Record(id=f"r{n}", image=f"{n:04d}.png", **fields) for n in numbers], root)


def answers(archive, model, numbers=range(5), k=12):
    return [[(h.id, h.score) for h in archive.search(embedding=model.image_vector(grey_of(n)), k=k)] for n in numbers]


def test_an_image_finds_itself(tmp_path, filled):
    hits = filled.search(image=tmp_path / "images" / "0007.png", k=3)
    assert hits[0].path == str(tmp_path / "images" / "0007.png")
    assert hits[0].score == pytest.approx(1, abs=1e-6)
    assert [h.rank for h in hits] == [1, 2, 3]
    assert hits[0].score > hits[1].score > hits[2].score
    assert hits[0].why["cosine"] == hits[0].score


def test_adding_again_changes_nothing_and_encodes_nothing(tmp_path, filled, model):
    before, seen = filled.info(), model.seen
    report = filled.add(tmp_path / "images")
    assert (report.added, report.unchanged, report.total) == (0, 40, 40)
    assert model.seen == seen
    assert filled.info() == before


def test_order_and_size_of_batches_do_not_matter(tmp_path, create, model):
    paths = write_images(tmp_path / "images", range(14))
    archives = [create(f"a{i}") for i in range(3)]
    archives[0].add(tmp_path / "images")
    for path in np.random.default_rng(0).permutation(paths):
        archives[1].add(path)
    archives[2].add(paths[::-1], batch_size=3)
    assert answers(archives[0], model) == answers(archives[1], model) == answers(archives[2], model)


def test_equal_scores_come_by_id(tmp_path, create):
    model = PlantedModel()
    for n in range(12):
        model.plant(grey_of(n), np.eye(16)[0])
    write_images(tmp_path / "images", range(12))
    archive = create(model=model)
    archive.add(tmp_path / "images")
    ids = [h.id for h in archive.search(embedding=np.eye(16)[0], k=12)]
    assert ids == sorted(ids)
    assert [h.id for h in archive.search(embedding=np.eye(16)[0], k=5)] == ids[:5]


def test_reopened_it_answers_the_same(tmp_path, filled, model):
    before = answers(filled, model)
    filled.close()
    with Archive.open(tmp_path / "archive", model) as archive:
        assert answers(archive, model) == before
        assert archive.notes == []
        assert len(archive) == 40


def test_bad_files_are_named_and_their_neighbours_added(tmp_path, create):
    write_images(tmp_path / "images", range(5))
    good = (tmp_path / "images" / "0000.png").read_bytes()
    (tmp_path / "images" / "0001b.png").write_bytes(good[:60])
    (tmp_path / "images" / "empty.png").write_bytes(b"")
    (tmp_path / "images" / "photo.jpg").write_bytes(b"not an image")
    (tmp_path / "images" / "notes.txt").write_text("no image by its name")
    archive = create()
    report = archive.add(tmp_path / "images")
    assert report.added == 5
    assert sorted(os.path.basename(s.path) for s in report.skipped) == ["0001b.png", "empty.png", "photo.jpg"]
    assert all(s.reason and "\n" not in s.reason and str(tmp_path) not in s.reason for s in report.skipped)
    assert [path for path, _ in archive.skipped()] == [
        f"../images/{n}" for n in ("0001b.png", "empty.png", "photo.jpg")
    ]
    (tmp_path / "images" / "empty.png").unlink()
    write_image(tmp_path / "images" / "empty.png", 77)
    assert archive.add(tmp_path / "images").added == 1
    assert len(archive.skipped()) == 2


def test_a_link_out_of_the_folder_is_not_followed(tmp_path, create):
    write_images(tmp_path / "outside", [1])
    write_images(tmp_path / "images", [0])
    (tmp_path / "images" / "link.png").symlink_to(tmp_path / "outside" / "0001.png")
    (tmp_path / "images" / "folder").symlink_to(tmp_path / "outside")
    report = create().add(tmp_path / "images")
    assert report.added == 1
    assert [s.reason for s in report.skipped] == ["a link that leads out of the folder"]


def test_the_archive_does_not_add_itself(tmp_path, create):
    write_images(tmp_path, [0, 1])
    archive = create()
    write_images(tmp_path / "archive" / "inside", [2])
    assert archive.add(tmp_path).added == 2


def test_nothing_there_is_an_error(tmp_path, create):
    with pytest.raises(ArchiveError, match=r"nowhere does not exist"):
        create().add(tmp_path / "nowhere")
    (tmp_path / "m.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ManifestError):
        create("b").add(tmp_path / "m.csv")


def test_one_content_under_two_names_is_one_item(tmp_path, create):
    write_image(tmp_path / "images" / "b.png", 1)
    archive = create()
    archive.add(tmp_path / "images")
    (hit,) = archive.search(embedding=np.ones(16))
    write_image(tmp_path / "images" / "a.png", 1)
    report = archive.add(tmp_path / "images")
    assert (report.added, len(archive)) == (0, 1)
    (again,) = archive.search(embedding=np.ones(16))
    assert (again.id, os.path.basename(again.path)) == (hit.id, "a.png")


def test_a_moved_image_is_found_where_it_is_now(tmp_path, filled, model):
    (tmp_path / "images" / "0003.png").rename(tmp_path / "images" / "moved.png")
    query = model.image_vector(grey_of(3))
    assert filled.search(embedding=query, k=1)[0].stale == "missing"
    report = filled.add(tmp_path / "images")
    assert (report.added, report.updated, len(filled)) == (0, 1, 40)
    hit = filled.search(embedding=query, k=1)[0]
    assert (os.path.basename(hit.path), hit.stale) == ("moved.png", "")


def test_a_changed_image_is_flagged_and_then_replaced(tmp_path, filled, model):
    old = model.image_vector(grey_of(3))
    write_image(tmp_path / "images" / "0003.png", 333)
    assert filled.search(embedding=old, k=1)[0].stale == "changed"
    report = filled.add(tmp_path / "images")
    assert (report.added, report.replaced, len(filled)) == (1, 1, 40)
    assert filled.search(embedding=old, k=1)[0].score < 0.99
    assert filled.search(embedding=model.image_vector(grey_of(333)), k=1)[0].stale == ""


def test_a_touched_image_is_not_stale(tmp_path, filled, model):
    os.utime(tmp_path / "images" / "0003.png", (1, 1))
    assert filled.search(embedding=model.image_vector(grey_of(3)), k=1)[0].stale == ""


def test_two_images_that_change_names_both_stay(tmp_path, filled):
    a, b, c = (tmp_path / "images" / f"000{n}.png" for n in (1, 2, 9))
    a.rename(tmp_path / "t.png")
    b.rename(a)
    (tmp_path / "t.png").rename(b)
    write_image(c, 1)  # 0009 becomes the content of old 0001
    filled.add(tmp_path / "images")
    assert len(filled) == 39
    assert filled.verify().stale == []


def test_progress_counts_what_is_committed(tmp_path, create):
    write_images(tmp_path / "images", range(10))
    archive, seen = create(), []
    archive.add(tmp_path / "images", batch_size=4, progress=lambda p: seen.append((p, len(archive))))
    assert [(p.done, p.total, p.added, n) for p, n in seen] == [(4, 10, 4, 4), (8, 10, 8, 8), (10, 10, 10, 10)]
    assert [len(p.committed) for p, _ in seen] == [4, 4, 2]
    assert all(p.rate > 0 and p.seconds_left >= 0 for p, _ in seen)


def test_a_manifest_brings_fields_and_hashed_ids(tmp_path, create):
    archive = create()
    archive.add(manifest_of(tmp_path / "m", [1, 2], patient_id="JOHN-0017", study_id="st-1", view="PA", source="x"))
    hits = archive.search(where="patient = 'JOHN-0017' and study = 'st-1' and view = 'PA'")
    assert sorted(h.why["record"] for h in hits) == ["r1", "r2"]
    assert archive.search(where="patient = 'JOHN-0018'") == []
    archive.close()
    for path in (tmp_path / "archive").iterdir():
        assert b"JOHN" not in path.read_bytes()


def test_a_manifest_file_adds_like_the_manifest(tmp_path, create):
    manifest_of(tmp_path / "m", [1, 2], view="AP").save(tmp_path / "m" / "manifest.csv")
    archive = create()
    assert archive.add(tmp_path / "m" / "manifest.csv").added == 2
    assert len(archive.search(where="view = 'AP'")) == 2


def test_a_later_manifest_changes_fields_without_embedding_again(tmp_path, create, model):
    archive = create()
    manifest = manifest_of(tmp_path / "m", [1, 2], view="PA", text="Clear lungs.")
    archive.add(manifest)
    seen = model.seen
    changed = Manifest([replace(r, view="LATERAL", text="Large mass.") for r in manifest], tmp_path / "m")
    assert archive.add(changed).updated == 2
    assert model.seen == seen
    assert len(archive.search(where="view = 'LATERAL' and report ~ 'large mass'")) == 2
    assert archive.search(where="report ~ 'clear'") == []
    archive.add(tmp_path / "m")  # the bare folder takes nothing away
    assert len(archive.search(where="view = 'LATERAL' and report ~ 'large mass'")) == 2
    assert archive.verify().ok


def test_a_file_that_moved_keeps_what_its_manifest_said(tmp_path, create):
    archive = create()
    archive.add(manifest_of(tmp_path / "m", [1], view="PA", text="Large mass."))
    (tmp_path / "m" / "0001.png").rename(tmp_path / "m" / "z.png")
    assert archive.add(tmp_path / "m").updated == 1
    (hit,) = archive.search(where="view = 'PA' and record = 'r1' and report ~ 'large mass'")
    assert (os.path.basename(hit.path), hit.stale) == ("z.png", "")


def test_report_text_can_stay_out(tmp_path, create):
    archive = create(keep_text=False)
    archive.add(manifest_of(tmp_path / "m", [1], text="Xanthochromia of the zygoma."))
    archive.close()
    for path in (tmp_path / "archive").iterdir():
        assert b"anthochromia" not in path.read_bytes()


def test_removed_means_gone_from_every_byte(tmp_path, create):
    archive = create()
    archive.add(manifest_of(tmp_path / "m", range(8), text="Ordinary words stay.", patient_id="p1"))
    gone = Manifest([Record("r99", "0099.png", text="Xanthochromia zygomatica.", patient_id="p2")], tmp_path / "m")
    write_image(tmp_path / "m" / "0099.png", 99)
    archive.add(gone)
    vector = archive.search(where="record = 'r99'")
    blob = archive._store.items("record = ?", ("r99",))[0].vector
    assert archive.remove(patient="p2") == 1
    assert archive.search(where="record = 'r99'") == []
    assert len(vector) == 1
    for path in (tmp_path / "archive").iterdir():
        data = path.read_bytes().lower()
        assert b"xanthochromia" not in data
        assert b"zygomatica" not in data
        assert blob not in path.read_bytes()
    assert (tmp_path / "m" / "0099.png").exists()
    assert archive.verify().ok


def test_remove_by_id_record_path_and_where(tmp_path, create):
    archive = create()
    archive.add(manifest_of(tmp_path / "m", range(6), view="PA"))
    first = archive.search(where="record = 'r0'")[0].id
    assert archive.remove([first, "r1", str(tmp_path / "m" / "0002.png")]) == 3
    assert archive.remove(where="record = 'r3'") == 1
    with pytest.raises(ArchiveError, match="no item 'r77'"):
        archive.remove(["r4", "r77"])
    assert len(archive) == 2
    assert archive.add(tmp_path / "m").added == 4


def test_files_are_for_their_owner_only(tmp_path, filled):
    folder = tmp_path / "archive"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_another_model_is_refused_with_both_hashes(tmp_path, filled, model):
    other = PlantedModel("other")
    with pytest.raises(ArchiveError, match=f"{model.hash}, not with {other.hash}"):
        Archive.open(tmp_path / "archive", other)


def test_the_model_is_remembered_and_loaded_only_when_needed(tmp_path, create, model, monkeypatch):
    import kvlp.archive.archive as module

    model.source = "some/checkpoint"
    archive = create()
    archive.add(write_images(tmp_path / "images", range(3)))
    loaded = []
    monkeypatch.setattr(module, "_load_model", lambda name: loaded.append(str(name)) or model)
    with Archive.open(tmp_path / "archive") as again:
        again.search(where="path like '%.png'")
        assert loaded == []
        again.search("effusion")
        assert loaded == ["some/checkpoint"]
    monkeypatch.setattr(module, "_load_model", lambda name: PlantedModel(str(name)))
    with (
        Archive.open(tmp_path / "archive", "elsewhere") as again,
        pytest.raises(ArchiveError, match="was made with model"),
    ):
        again.search("effusion")


def test_a_model_that_misbehaves_adds_nothing(tmp_path, create, model, monkeypatch):
    paths = write_images(tmp_path / "images", range(3))
    archive = create()
    for wrong, error in (
        (np.full((3, 16), np.nan), ArchiveError),
        (np.ones((3, 15)), ShapeError),
        (np.ones((2, 16)), ArchiveError),
    ):
        monkeypatch.setattr(model, "encode_image", lambda images, wrong=wrong: wrong)
        with pytest.raises(error):
            archive.add(paths)
    assert len(archive) == 0


def test_create_refuses_a_folder_in_use_and_finishes_what_was_broken_off(tmp_path, create, model):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(ArchiveError, match=r"not empty \(it holds thesis.txt\)"):
        Archive.create(tmp_path / "full", model)
    create("a")
    with pytest.raises(ArchiveError, match="already holds an archive"):
        Archive.create(tmp_path / "a", model)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ArchiveError, match="is a file"):
        Archive.create(tmp_path / "file", model)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "archive.sqlite").write_bytes(b"")  # killed before the first commit
    (tmp_path / "broken" / "writer.lock").write_bytes(b"1")
    with pytest.raises(ArchiveError, match="not finished"):
        Archive.open(tmp_path / "broken", model)
    create("broken").add(write_images(tmp_path / "images", [1]))


def test_opening_what_is_no_archive(tmp_path, model):
    with pytest.raises(ArchiveError, match="is not an archive"):
        Archive.open(tmp_path / "nothing", model)
    (tmp_path / "x").mkdir()
    for content in (b"text, not a database" * 400, os.urandom(5000)):
        (tmp_path / "x" / "archive.sqlite").write_bytes(content)
        with pytest.raises(ArchiveError, match="damaged"):
            Archive.open(tmp_path / "x", model)


def test_a_newer_format_is_named(tmp_path, filled, model):
    with filled._store.transaction() as connection:
        connection.execute("UPDATE meta SET value = '7' WHERE key = 'format'")
    with pytest.raises(ArchiveError, match="has format '7'; this kvlp reads format 1"):
        Archive.open(tmp_path / "archive", model)


def test_a_lost_or_foreign_key_is_named_only_where_it_matters(tmp_path, filled, model):
    (tmp_path / "archive" / "ids.key").write_bytes(os.urandom(32))
    with Archive.open(tmp_path / "archive", model) as archive:
        assert len(archive.search(where="view = ''", k=50)) == 40
        with pytest.raises(ArchiveError, match="not this archive's key"):
            archive.search(where="patient = '7'")
        (tmp_path / "archive" / "ids.key").unlink()
        with pytest.raises(ArchiveError, match=r"ids.key is missing"):
            archive.search(where="patient = '7'")


def test_read_only_folders_can_be_searched(tmp_path, filled, model, monkeypatch):
    expected = answers(filled, model)
    filled.close()
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK and real(path, mode))
    with Archive.open(tmp_path / "archive", model) as archive:
        assert answers(archive, model) == expected
        with pytest.raises(ArchiveError, match="cannot be opened or written"):
            archive.add(write_image(tmp_path / "n.png", 500))


def test_info_tells_what_it_is_of(tmp_path, filled, model):
    info = filled.info()
    assert (info["items"], info["skipped"], info["dim"], info["index"]) == (40, 0, 16, "flat")
    assert (info["model_hash"], info["graph"], info["format"]) == (model.hash, "", 1)
    assert info["bytes"] > 40 * 64


def test_torch_and_faiss_stay_out(tmp_path):
    import subprocess
    import sys

    code = "import sys, kvlp.archive.archive, kvlp.cli.archive; print({'torch', 'faiss'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
