"""A saved linker reads as the one it was saved from; stale and damaged files are refused with one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kvlp.cli import main
from kvlp.errors import KnowledgeError
from kvlp.knowledge.graph import Concept, KnowledgeGraph
from kvlp.knowledge.linking import EntityLinker, saved
from kvlp.knowledge.linking.kept import kept_linker
from kvlp.knowledge.linking.lexicon import LinkerOptions

TEXT = (
    "FINDINGS: Small left effusion, no ptx. The heart is mildly enlarged. Edema may be present.\nIMPRESSION: Effusion."
)


@pytest.fixture(scope="module")
def chest() -> KnowledgeGraph:
    return KnowledgeGraph.load("chest")


@pytest.fixture(scope="module")
def file(chest: KnowledgeGraph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("linker") / "deep" / "chest.linker"
    assert EntityLinker(chest).save(path) == path
    return path


@pytest.mark.parametrize(
    "options", [{}, {"types": ["finding"]}, {"attributes": False}, {"spelling": False, "abbreviations": "none"}]
)
def test_loaded_linker_reads_as_the_saved_one(chest: KnowledgeGraph, tmp_path: Path, options: dict) -> None:
    linker = EntityLinker(chest, **options)
    loaded = EntityLinker.load(linker.save(tmp_path / "linker"), chest)
    assert linker(TEXT)
    assert loaded(TEXT) == linker(TEXT)
    assert loaded._lexicon == linker._lexicon
    assert loaded.options == linker.options


def test_language_is_saved(chest: KnowledgeGraph, tmp_path: Path) -> None:
    foreign = "Se observa derrame pleural izquierdo, no hay neumotórax. El corazón es de tamaño normal."
    loaded = EntityLinker.load(EntityLinker(chest, language=None).save(tmp_path / "linker"))
    assert isinstance(loaded(foreign), list)


def test_the_file_is_text_and_nothing_else_is_left(file: Path) -> None:
    header, columns, *phrases = file.read_text().split("\n")
    assert json.loads(header)["kind"] == "kvlp linker"
    surfaces, beginnings, words = (line.split("|") for line in phrases)
    assert len(json.loads(columns)["meanings"]) == len(surfaces)
    assert {"pleural effusion", "pleural"} <= {*surfaces, *beginnings}
    assert {"pleural", "effusion"} <= set(words)
    assert not set(surfaces) & set(beginnings)
    assert [p.name for p in file.parent.iterdir()] == [file.name]


def test_another_graph_is_refused(file: Path) -> None:
    other = KnowledgeGraph([Concept("mass", "mass", semantic_types=("finding",))], [], name="small")
    with pytest.raises(KnowledgeError, match=r"made from another graph than 'small'.*save it again"):
        EntityLinker.load(file, other)


def test_other_rules_are_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saved, "made_by", lambda: "0" * 64)
    with pytest.raises(KnowledgeError, match="another version of kvlp or of its rules; save it again"):
        EntityLinker.load(file)


def test_an_older_format_is_refused_with_what_to_do(file: Path, tmp_path: Path) -> None:
    first, _, body = file.read_text().partition("\n")
    (tmp_path / "old").write_text(json.dumps({**json.loads(first), "format": 2}) + "\n" + body)
    with pytest.raises(
        KnowledgeError, match="another version of kvlp or of its rules; save it again with EntityLinker"
    ):
        EntityLinker.load(tmp_path / "old")


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "header", "list", "binary"])
def test_damaged_files_get_one_line(file: Path, tmp_path: Path, damage: str) -> None:
    data = file.read_bytes()
    middle = len(data) // 2
    damaged = {
        "cut": data[:middle],
        "flipped": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
        "empty": b"",
        "header": data[5:],
        "list": b"[1]\n{}",
        "binary": b"\xff\xfe\x00" * 40,
    }[damage]
    path = tmp_path / "bad"
    path.write_bytes(damaged)
    with pytest.raises(KnowledgeError, match=r"bad: .*save it again") as caught:
        EntityLinker.load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("broken", [{}, {"concepts": ["a"]}, {"concepts": 3}])
def test_a_whole_file_with_other_content_is_refused(file: Path, tmp_path: Path, broken: dict) -> None:
    first, columns, *phrases = file.read_text().split("\n")
    header = json.loads(first)
    body = json.dumps({**json.loads(columns), "meanings": [10**9], **broken} if broken else {})
    text = "\n".join([body, *phrases])
    header["sha256"] = saved.hashlib.sha256(text.encode()).hexdigest()
    path = tmp_path / "other"
    path.write_text(json.dumps(header) + "\n" + text)
    with pytest.raises(KnowledgeError, match="not the content of a saved linker"):
        EntityLinker.load(path)


def test_missing_file_and_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(KnowledgeError, match=r"none\.linker: expected a saved linker"):
        EntityLinker.load(tmp_path / "none.linker")
    with pytest.raises(KnowledgeError, match="expected a saved linker"):
        EntityLinker.load(tmp_path)


def test_where_nothing_can_be_written_is_named(chest: KnowledgeGraph, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(KnowledgeError, match="cannot be written"):
        EntityLinker(chest).save(tmp_path / "file" / "linker")


def test_candidates_are_not_saved(chest: KnowledgeGraph, tmp_path: Path) -> None:
    linker = EntityLinker(chest)
    linker._sentence.candidates = object()  # type: ignore[assignment]
    with pytest.raises(KnowledgeError, match="candidates cannot be saved"):
        linker.save(tmp_path / "linker")


@pytest.mark.slow
def test_a_kept_linker_is_made_once_and_again_where_it_does_not_fit(chest: KnowledgeGraph, tmp_path: Path) -> None:
    path, lines = tmp_path / "kept", []
    kept_linker(path, chest, LinkerOptions(), lines.append)
    first = path.stat().st_mtime_ns
    assert kept_linker(path, chest, LinkerOptions(), lines.append)(TEXT) == EntityLinker(chest)(TEXT)
    assert (path.stat().st_mtime_ns, lines) == (first, [])
    assert kept_linker(path, chest, LinkerOptions(attributes=False), lines.append).options.attributes is False
    path.write_bytes(path.read_bytes()[:-9])
    assert kept_linker(path, chest, LinkerOptions(), lines.append)(TEXT) == EntityLinker(chest)(TEXT)
    assert [line.partition(": ")[2] for line in lines] == [
        "saved with other options; made anew",
        "damaged, the content does not fit its hash; made anew",
    ]


def test_the_command_keeps_its_linker(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, said = tmp_path / "kept", []
    for _ in range(2):
        with pytest.raises(SystemExit) as stop:
            main(["link", "No ptx.", "--linker", str(path), "--json"])
        assert not stop.value.code
        said.append(capsys.readouterr().out)
    assert json.loads(said[0])[0]["concept"] == "pneumothorax"
    assert said[0] == said[1]
    assert path.is_file()
