"""`kvlp archive` as a script meets it: exit status, one line on an error, JSON."""

from __future__ import annotations

import json

import pytest
from archive_planted import PlantedModel, write_image, write_images

from kvlp.cli import main
from kvlp.datasets.manifest import Manifest, Record
from kvlp.knowledge.graph import Concept, KnowledgeGraph
from kvlp.knowledge.sources.csv_folder import write_folder


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a command with a planted model in place of every checkpoint; return (status, stdout, stderr)."""
    import kvlp.archive.archive as module

    monkeypatch.setattr(module, "_load_model", lambda name: PlantedModel(str(name)))

    def call(*argv):
        with pytest.raises(SystemExit) as ended:
            main(["archive", *map(str, argv)])
        out, err = capsys.readouterr()
        return ended.value.code or 0, out, err

    return call


@pytest.fixture
def made(tmp_path, run):
    write_images(tmp_path / "images", range(6))
    (tmp_path / "images" / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\ncut")
    assert run("create", tmp_path / "a", "--model", "ckpt")[0] == 0
    return tmp_path / "a"


@pytest.fixture
def with_graph(tmp_path, run):
    concepts = [Concept(name, name, semantic_types=("finding",)) for name in ("pneumothorax", "effusion")]
    graph = write_folder(KnowledgeGraph(concepts, [], name="two"), tmp_path / "graph")
    assert run("create", tmp_path / "c", "--model", "ckpt", "--graph", graph)[0] == 0
    return tmp_path / "c"


def test_create_add_search_remove_verify_repair_info(tmp_path, run, made):
    status, out, err = run("add", made, tmp_path / "images")
    assert status == 0
    assert "bad.png: PNG" in out
    assert "added 6, updated 0, unchanged 0, skipped 1 of 7" in out
    assert "/s, 0 s left" in err

    status, out, _ = run("search", made, "left effusion", "-k", "3", "--json")
    hits = json.loads(out)
    assert status == 0
    assert [sorted(hit) for hit in hits] == [["id", "path", "rank", "score", "why"]] * 3
    assert [hit["rank"] for hit in hits] == [1, 2, 3]

    status, out, _ = run("search", made, "--image", tmp_path / "images" / "0002.png", "-k", "1")
    assert out.split()[:2] == ["1", "+1.0000"]
    assert out.strip().endswith("0002.png") or "0002.png" in out

    status, out, _ = run("remove", made, hits[0]["id"], "--json")
    assert json.loads(out) == {"removed": 1}
    status, out, _ = run("verify", made, "--json")
    assert (status, json.loads(out)["ok"], json.loads(out)["items"]) == (0, True, 5)
    status, out, _ = run("repair", made)
    assert (status, out.strip()) == (0, "index of 5 items rebuilt; 0 embedded anew, 0 given up")
    status, out, _ = run("info", made, "--json")
    info = json.loads(out)
    assert (info["items"], info["skipped"], info["model"], info["graph"]) == (5, 1, "ckpt", "")


def test_findings_and_conditions(tmp_path, run, with_graph):
    write_images(tmp_path / "m", range(10, 13))
    texts = ("There is a pneumothorax.", "No pneumothorax.", "Small effusion.")
    records = [Record(f"r{n}", f"{n + 10:04d}.png", text=text, view="PA") for n, text in enumerate(texts)]
    Manifest(records, tmp_path / "m").save(tmp_path / "m" / "manifest.csv")
    write_images(tmp_path / "images", range(6))
    assert run("add", with_graph, tmp_path / "m" / "manifest.csv", tmp_path / "images", "--json")[0] == 0

    def found(*argv):
        status, out, _ = run("search", with_graph, "chest radiograph", *argv, "--where", "view = 'PA'", "--json")
        assert status == 0
        return {hit["why"]["record"] for hit in json.loads(out)}

    assert found() == {"r0", "r1", "r2"}
    assert found("--present", "pneumothorax") == {"r0"}
    assert found("--absent", "pneumothorax") == {"r1"}
    assert found("--without", "pneumothorax") == {"r1", "r2"}
    assert found("--without", "pneumothorax", "--present", "effusion") == {"r2"}
    status, _, err = run("search", with_graph, "x", "--without", "pneumothoraks")
    assert (status, err.count("\n")) == (1, 1)
    assert "pneumothorax" in err


@pytest.mark.parametrize(
    "argv, message",
    [
        (("search", "NOWHERE", "x"), "is not an archive"),
        (("search", "A"), "nothing to search for"),
        (("search", "A", "x", "--where", "view = PA"), "expected a quoted value"),
        (("search", "A", "--image", "NOWHERE"), "NOWHERE"),
        (("search", "A", "x", "--model", "other"), "was made with model"),
        (("add", "A", "NOWHERE"), "does not exist"),
        (("remove", "A"), "nothing to remove"),
        (("remove", "A", "r77"), "holds no item"),
        (("create", "A", "--model", "ckpt"), "already holds an archive"),
        (("create", "B", "--model", "ckpt", "--graph", "chestt"), "chest"),
    ],
)
def test_an_error_is_one_line_and_exit_1(tmp_path, run, made, monkeypatch, argv, message):
    monkeypatch.chdir(tmp_path)
    made.rename(tmp_path / "A")
    status, out, err = run(*argv)
    assert (status, out) == (1, "")
    assert err.count("\n") == 1
    assert message in err
    assert not (tmp_path / "B").exists()


def test_wrong_usage_is_exit_2(run, made):
    assert run("search", made, "x", "-k", "0")[0] == 2
    assert run("create", made)[0] == 2


def test_verify_finds_damage_and_exits_1(tmp_path, run, made):
    run("add", made, tmp_path / "images")
    (index,) = made.glob("index-*.faiss")
    index.write_bytes(index.read_bytes()[:-1] + b"x")
    status, out, _ = run("verify", made)
    assert status == 1
    assert "1 problems; run: kvlp archive repair" in out
    status, _, err = run("search", made, "effusion")
    assert status == 0
    assert "note: the index was rebuilt from the archive" in err
    assert run("verify", made)[0] == 0


def test_escape_sequences_in_names_are_not_printed(tmp_path, run, made):
    write_image(tmp_path / "odd" / "a\x1b[31m\nb.png", 50)
    run("add", made, tmp_path / "odd")
    _, out, _ = run("search", made, "x", "-k", "1")
    assert "\x1b" not in out
    assert out.count("\n") == 1
