"""The exposure manifest of a checkpoint against the images that are scored."""

import json
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from kvlp.datasets.images import load_grey_uint8, pixel_hash
from kvlp.datasets.manifest import Manifest
from kvlp.errors import CheckpointError, DataError
from kvlp.eval.exposure import exposure_check
from kvlp.eval.images import Embedded, embed_manifest


def write_exposure(folder, hashes, column="sha256"):
    folder.mkdir(exist_ok=True)
    table = pa.table({column: pa.array(hashes, pa.string())})
    with pa.OSFile(str(folder / "exposure.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return folder


@pytest.fixture
def data(fakes, tmp_path):
    """Ten patients with two images each, and the pixel hashes."""
    manifest = fakes.write_manifest(tmp_path / "data", patients=10)
    return manifest, [pixel_hash(load_grey_uint8(manifest.path_of(record))) for record in manifest]


def test_seen_images_and_their_patients_are_counted(data, fakes, tmp_path):
    manifest, hashes = data
    folder = write_exposure(tmp_path / "model", [hashes[0], hashes[1], hashes[7], "f" * 64])
    found = exposure_check(folder, manifest)
    assert (found.seen, found.seen_patients) == ((1, 2, 8), 2)
    assert (found.images, found.patients, found.trained, found.ok) == (20, 10, 4, False)
    assert str(found).startswith("trained on 3 of 20 scored images, of 2 of 10 patients")
    share = {row.target: (row.value, row.n) for row in found.results()}
    assert share == {"images": (3 / 20, 20), "patients": (2 / 10, 10)}
    embedded = embed_manifest(fakes.Model(), manifest)
    assert exposure_check(SimpleNamespace(source=str(folder)), embedded) == found, "the same without reading again"


def test_another_file_format_does_not_hide_an_image(data, tmp_path):
    manifest, hashes = data
    path = manifest.path_of(manifest[4])
    with Image.open(path) as picture:
        np.asarray(picture)
        picture.convert("RGB").save(path, format="PNG", compress_level=0)
    assert exposure_check(write_exposure(tmp_path / "model", [hashes[4]]), manifest).seen == (5,)


def test_nothing_seen_is_told_from_nothing_known(data, tmp_path):
    manifest, _ = data
    none = exposure_check(write_exposure(tmp_path / "model", ["a" * 64]), manifest)
    assert (none.ok, none.known, none.to_dict()["seen_images"]) == (True, True, 0)
    (tmp_path / "bare").mkdir()
    for model in (tmp_path / "bare", "phantom-tiny", "open_clip:ViT-B-16/openai", SimpleNamespace(source=""), object()):
        unknown = exposure_check(model, manifest)
        assert (unknown.known, unknown.ok) == (False, None)
        assert str(unknown).startswith("not known whether the model was trained on these images: it has no exposure")
        assert json.loads(json.dumps(unknown.to_dict()))["seen_images"] is None
        assert all(np.isnan(row.value) for row in unknown.results())


def test_unreadable_images_are_counted_and_rows_keep_their_numbers(data, tmp_path):
    manifest, hashes = data
    manifest.path_of(manifest[0]).write_bytes(b"no picture")
    found = exposure_check(write_exposure(tmp_path / "model", [hashes[1], ""]), manifest)
    assert (found.unreadable, found.images, found.seen) == (1, 19, (2,))


def test_bad_input_is_named(data, tmp_path):
    manifest, _ = data
    with pytest.raises(CheckpointError, match="no such model folder"):
        exposure_check(tmp_path / "gone", manifest)
    with pytest.raises(CheckpointError, match="expected an Arrow file with a column sha256"):
        exposure_check(write_exposure(tmp_path / "other", ["a"], column="md5"), manifest)
    (tmp_path / "other" / "exposure.arrow").write_bytes(b"ARROW1 no more")
    with pytest.raises(CheckpointError, match="copy the checkpoint again"):
        exposure_check(tmp_path / "other", Manifest(list(manifest)[:1], manifest.root))
    without = Embedded(list(manifest), np.zeros((20, 2), np.float32), [], 0, "")
    with pytest.raises(DataError, match="came without pixel hashes"):
        exposure_check(tmp_path, without)
