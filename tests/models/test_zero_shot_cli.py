"""`kvlp zeroshot` and `kvlp embed`: good neighbours are served, bad files get one line each, exit 1."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kvlp.checkpoints import load
from kvlp.cli import main
from kvlp.datasets.phantom import generate_phantom


@pytest.fixture(scope="module")
def pictures_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two radiographs, a photograph, a cut file, and things that are no images."""
    folder = tmp_path_factory.mktemp("pictures")
    manifest = generate_phantom(folder / "phantom", patients=2, seed=0, size=128, jobs=1)
    paths = [manifest.path_of(record) for record in manifest][:2]
    room = folder / "mixed"
    (room / "deeper").mkdir(parents=True)
    (room / "a.png").write_bytes(paths[0].read_bytes())
    (room / "deeper" / "b.png").write_bytes(paths[1].read_bytes())
    (room / "cut.png").write_bytes(paths[0].read_bytes()[:300])
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 90, 3), dtype=np.uint8)).save(room / "photo.png")
    (room / "notes.txt").write_text("no image")
    (room / ".hidden.png").write_bytes(b"")
    return room


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as exit_:
        main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return int(exit_.value.code or 0), captured.out, captured.err


def test_a_folder_with_bad_files(tiny_folder: Path, pictures_folder: Path, capsys: Any) -> None:
    code, out, err = run(
        capsys, "zeroshot", tiny_folder, pictures_folder, "--classes", "pneumothorax, pleural effusion", "--json"
    )
    assert code == 1
    document = json.loads(out)
    names = {Path(row["path"]).name: row for row in document["images"]}
    assert sorted(names) == ["a.png", "b.png", "cut.png", "photo.png"]
    assert names["cut.png"]["scores"] is None
    assert names["photo.png"]["flag"].startswith("implausible: ")
    assert names["a.png"]["flag"] is None
    assert set(names["a.png"]["scores"]) == {"pneumothorax", "pleural effusion"}
    assert [c["naming"] for c in document["classes"]] == ["zero-shot", "prompted classification"]
    assert document["model_hash"] == load(tiny_folder).hash
    assert len(err.splitlines()) == 1
    assert "cut.png" in err


def test_the_cli_and_the_class_agree(tiny_folder: Path, pictures_folder: Path, capsys: Any) -> None:
    from kvlp.knowledge.graph import KnowledgeGraph
    from kvlp.zero_shot import ZeroShotClassifier

    path = pictures_folder / "a.png"
    code, out, err = run(capsys, "zeroshot", tiny_folder, path, "--classes", "pneumothorax", "--csv")
    assert (code, err) == (0, "")
    rows = list(csv.reader(out.splitlines()))
    assert rows[0] == ["path", "pneumothorax", "flag"]
    classifier = ZeroShotClassifier(load(tiny_folder), ["pneumothorax"], graph=KnowledgeGraph.load("chest"))
    assert float(rows[1][1]) == pytest.approx(classifier.predict_proba([path])[0, 0], abs=1e-5)


def test_the_table_for_people(tiny_folder: Path, pictures_folder: Path, capsys: Any) -> None:
    arguments = ["zeroshot", tiny_folder, pictures_folder, "--classes", "No Finding", "--graph", "none"]
    code, out, _ = run(capsys, *arguments)
    assert code == 1
    lines = out.splitlines()
    assert lines[0].split()[0] == "image"
    assert any("photo.png" in line and "!" in line for line in lines)
    assert "no calibrated probabilities" in out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["none.png", "--classes", "mass"], 1, "none.png"),
        (["x.png", "--classes", " , "], 2, "name at least one class"),
        (["x.png", "--classes", "a", "--json", "--csv"], 2, "one of --json and --csv"),
        (["x.png", "--classes", "a", "--score", "both"], 2, "'pair' or 'positive'"),
        (["x.png", "--classes", "a", "--graph", "nowhere"], 1, "nowhere"),
        (["x.png"], 2, "--classes"),
    ],
)
def test_wrong_calls(tiny_folder: Path, capsys: Any, arguments: list[str], code: int, message: str) -> None:
    got, _, err = run(capsys, "zeroshot", tiny_folder, *arguments)
    assert got == code
    assert message in " ".join(err.replace("│", " ").split())
    assert "Traceback" not in err


def test_a_missing_model_is_one_line(capsys: Any, tmp_path: Path) -> None:
    code, out, err = run(capsys, "zeroshot", tmp_path / "no", "x.png", "--classes", "mass")
    assert (code, out) == (1, "")
    assert err.startswith("kvlp: error: no model")
    assert len(err.splitlines()) == 1


def read_table(path: Path) -> dict[str, list[Any]]:
    parquet = pytest.importorskip("pyarrow.parquet", exc_type=ImportError)
    return dict(parquet.read_table(path).to_pydict())


def test_embed_images(tiny_folder: Path, pictures_folder: Path, tmp_path: Path, capsys: Any) -> None:
    pytest.importorskip("pyarrow", exc_type=ImportError)
    code, out, err = run(capsys, "embed", tiny_folder, "--images", pictures_folder, "--out", tmp_path / "e", "--json")
    assert code == 1
    assert list(json.loads(out)["failed"]) == [str(pictures_folder / "cut.png")]
    assert "cut.png" in err
    vectors = np.load(tmp_path / "e" / "img_emb" / "img_emb_0.npy")
    table = read_table(tmp_path / "e" / "metadata" / "metadata_0.parquet")
    assert [Path(p).name for p in table["image_path"]] == ["a.png", "photo.png", "b.png"]
    assert vectors.shape == (3, 32)
    expected = load(tiny_folder).encode_image([Image.open(path) for path in table["image_path"]])
    np.testing.assert_allclose(vectors, expected, atol=1e-4)  # other batch sizes take other kernels


def test_embed_a_manifest_and_texts(tiny_folder: Path, pictures_folder: Path, tmp_path: Path, capsys: Any) -> None:
    pytest.importorskip("pyarrow", exc_type=ImportError)
    manifest = pictures_folder.parent / "phantom" / "manifest.csv"
    assert run(capsys, "embed", tiny_folder, "--images", manifest, "--out", tmp_path / "m")[0] == 0
    table = read_table(tmp_path / "m" / "metadata" / "metadata_0.parquet")
    assert all(table["caption"])
    texts = tmp_path / "texts.txt"
    texts.write_text("no effusion\n\nsmall effusion\n", encoding="utf-8")
    assert run(capsys, "embed", tiny_folder, "--texts", texts, "--out", tmp_path / "t")[0] == 0
    vectors = np.load(tmp_path / "t" / "text_emb" / "text_emb_0.npy")
    expected = load(tiny_folder).encode_text(["no effusion", "small effusion"])
    np.testing.assert_allclose(vectors, expected, atol=1e-6)
    code, _, err = run(capsys, "embed", tiny_folder, "--texts", texts, "--out", tmp_path / "t")
    assert code == 1
    assert "add --overwrite" in err
    assert run(capsys, "embed", tiny_folder, "--texts", texts, "--out", tmp_path / "t", "--overwrite")[0] == 0


def test_wrong_calls_of_embed(tiny_folder: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    (tmp_path / "empty.txt").write_bytes(b"\n")
    for name, message in {"latin.txt": "UTF-8", "empty.txt": "no text", "none.txt": "none.txt"}.items():
        code, _, err = run(capsys, "embed", tiny_folder, "--texts", tmp_path / name, "--out", tmp_path / "o")
        assert code == 1
        assert message in err
        assert len(err.splitlines()) == 1
    code, _, err = run(capsys, "embed", tiny_folder, "--texts", "x", "--out", tmp_path)
    assert code == 1
    assert "holds other files" in err
    assert run(capsys, "embed", tiny_folder, "--out", tmp_path / "o")[0] == 2
