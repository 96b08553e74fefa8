"""What is covered and missed, by hand; rare phrases and names are never shown; `kvlp link --coverage`."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from kvlp.cli import main
from kvlp.errors import ConfigError
from kvlp.knowledge.graph import Concept, KnowledgeGraph
from kvlp.knowledge.linking import EntityLinker
from kvlp.knowledge.linking.coverage import Coverage, coverage_of

CONCEPTS = [
    Concept("effusion", "pleural effusion", ("effusion",), semantic_types=("finding",)),
    Concept("embolism", "pulmonary embolism", ("PE",), semantic_types=("disease",)),
    Concept("nodule", "nodule", (), semantic_types=("finding",)),
]


@pytest.fixture(scope="module")
def linker() -> EntityLinker:
    return EntityLinker(KnowledgeGraph(CONCEPTS, [], name="small"))


def shown(coverage: Coverage) -> dict[str, int]:
    return {p.words: p.texts for p in coverage.phrases}


def test_counts_by_hand(linker: EntityLinker) -> None:
    texts = [
        "Small effusion. Glimmering basal streaks.",
        "No nodule.",
        "Something else entirely.",
        "  ",
        "No effusion, no nodule.",
    ]
    found = coverage_of(linker, texts)
    assert (found.texts, found.empty, found.with_concept, found.sentences, found.without_concept) == (4, 1, 3, 5, 2)
    assert found.share == 0.75
    assert found.phrases == ()  # nothing stands in five texts
    assert math.isnan(coverage_of(linker, []).share)


def test_phrases_are_the_longest_ones_that_are_as_frequent(linker: EntityLinker) -> None:
    texts = [f"Effusion with glimmering basal streaks {'now' * (n % 2)}, region {n}." for n in range(6)]
    texts += [f"A glimmering nodule {'really ' * n} today." for n in range(5)]
    assert shown(coverage_of(linker, texts)) == {
        "glimmering": 11,
        "glimmering basal streaks": 6,
        "region": 6,
        "today": 5,
    }


def test_copies_of_a_text_count_once(linker: EntityLinker) -> None:
    assert shown(coverage_of(linker, ["Glimmering streaks."] * 20)) == {}
    assert coverage_of(linker, ["Glimmering streaks."] * 20).texts == 20


def test_names_numbers_and_masks_are_not_shown(linker: EntityLinker) -> None:
    texts = [f"Seen by Doctor Brown on 3may{n} in ward{n} XXXX. {'x ' * n}" for n in range(9)]
    words = " ".join(shown(coverage_of(linker, texts)))
    assert not any(w in words.lower() for w in ("brown", "may", "ward", "xxxx"))


def test_rare_phrases_cannot_be_asked_for(linker: EntityLinker) -> None:
    with pytest.raises(ConfigError, match="least_texts: expected 5 or more"):
        coverage_of(linker, [], least_texts=4)
    with pytest.raises(ConfigError, match="most: expected 0 or more, got -1"):
        coverage_of(linker, [], most=-1)


def test_ambiguous_surfaces_and_what_they_were_taken_for(linker: EntityLinker) -> None:
    texts = ["Rule out PE.", "PE.", "Physical exam: PE normal, on exam.", "Effusion, small right PE, layering."]
    (pe,) = coverage_of(linker, texts).ambiguous
    assert (pe.surface, pe.count, pe.undecided) == ("pe", 4, 1)
    assert pe.chosen == {"embolism": 2, "": 1, "effusion": 1}


def test_rows_that_are_not_read_are_told_without_their_text(linker: EntityLinker) -> None:
    german = "Kein Nachweis eines Pleuraergusses und keine Zeichen einer Pneumonie, das Herz ist nicht vergroessert."
    found = coverage_of(linker, ["No effusion.", german])
    assert (found.texts, [row for row, _ in found.problems]) == (1, [2])
    assert "Pleuraerguss" not in found.problems[0][1]


# ---- command line ----------------------------------------------------------------------------------------------------


def run(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(["link", *args])
    out = capsys.readouterr()
    return int(stop.value.code or 0), out.out, out.err


def test_command_line_on_tables_and_text(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    table = tmp_path / "reports.csv"
    rows = "".join(f'{n},"No effusion, glimmering streaks {"!" * n}","A nodule {n}."\n' for n in range(6))
    table.write_text(f"id,findings,impression\n{rows}", encoding="utf-8")
    status, out, _ = run(capsys, "--coverage", str(table), "--text", "findings,impression", "--json")
    document = json.loads(out)
    assert (status, document["texts"], document["with_concept"], document["share"]) == (0, 6, 6, 1.0)
    assert document["phrases"] == [{"words": "glimmering streaks", "texts": 6}]
    status, out, _ = run(capsys, "coverage", str(table), "--text", "findings")
    assert (status, out.splitlines()[0]) == (0, "6 of 6 texts have a concept; 0 empty, 0 not read")

    lines = tmp_path / "reports.txt"
    lines.write_text("No effusion.\n\nQuite other words.\n", encoding="utf-8")
    status, out, _ = run(capsys, "--coverage", str(lines), "--json")
    assert [json.loads(out)[k] for k in ("texts", "empty", "with_concept")] == [2, 1, 1]


def test_command_line_refuses(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    table = tmp_path / "reports.csv"
    table.write_text("id,findings\n1,No effusion.\n", encoding="utf-8")
    assert run(capsys, "--coverage", str(table))[0] == 2  # no columns
    assert run(capsys, "--coverage", str(table), "--text", "findings", "--least-texts", "4")[0] == 2
    status, _, err = run(capsys, "--coverage", str(table), "--text", "finding")
    assert (status, err.count("\n")) == (1, 1)
    assert "did you mean 'findings'" in err


def test_a_row_that_was_not_read_is_exit_1(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    lines = tmp_path / "reports.txt"
    german = "Kein Nachweis eines Pleuraergusses und keine Zeichen einer Pneumonie, das Herz ist nicht vergroessert."
    lines.write_text(f"No effusion.\n{german}\n", encoding="utf-8")
    status, _, err = run(capsys, "--coverage", str(lines))
    assert status == 1
    assert "row 2:" in err
    assert "Pleuraerguss" not in err
