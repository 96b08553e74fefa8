"""Benchmarks of reading: the vocabulary, contestants in processes of their own, scores by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvlp.errors import ConfigError, KvlpError
from kvlp.eval.bench import BenchOptions, run_bench
from kvlp.eval.bench.assertions import read_suite, suite_score
from kvlp.eval.bench.contestants import contestants
from kvlp.eval.bench.vocabulary import Vocabulary, made_up, read_reports, vocabulary_of
from kvlp.knowledge.graph import KnowledgeGraph
from kvlp.knowledge.linking import EntityLinker, Mention
from kvlp.typing import Assertion

SMALL = Vocabulary([("a", "pleural effusion", "finding"), ("a", "effusion", "finding"), ("b", "lung", "anatomy")])


def test_each_surface_stands_once_and_means_one_concept() -> None:
    rows = vocabulary_of(None, 10**6).rows
    assert len({surface.lower() for _, surface, _ in rows}) == len(rows)
    assert vocabulary_of(None, 5).rows == rows[:5]


def test_a_vocabulary_is_a_graph_for_us() -> None:
    linker = EntityLinker(SMALL.graph())
    assert [(m.concept, m.assertion) for m in linker("No effusion in the lung.")] == [("a", "absent"), ("b", "present")]


def test_made_up_surfaces_are_as_many_as_asked_and_the_same_again() -> None:
    one, other = made_up(SMALL, 20, seed=3), made_up(SMALL, 20, seed=3)
    assert one.rows == other.rows
    assert len({surface for _, surface, _ in one.rows}) == 20


def test_a_contestant_answers_and_one_that_is_not_there_is_named(tmp_path: Path) -> None:
    EntityLinker(SMALL.graph()).save(tmp_path / "linker")
    job = {"vocabulary": [], "texts": ["No effusion."], "linkers": {"everything": str(tmp_path / "linker")}}
    lines: list[str] = []
    jobs = {"kvlp": job, "medspacy": {**job, "vocabulary": SMALL.rows}}
    with contestants(jobs, {"medspacy": "/bin/false"}, BenchOptions(say=lines.append)) as running:
        (ours,) = running
        assert ours.ask("answers")["answers"] == [[["a", 3, 11, "absent"]]]
        assert ours.ask("run")["mentions"] == 1
    assert lines[-1] == "left out: medspacy: ended without a word"
    with pytest.raises(KvlpError, match="kvlp: "), contestants({"kvlp": {}}, {}, BenchOptions()):
        pass


def test_unknown_settings_are_refused() -> None:
    for name in ("link", "assertions"):
        with pytest.raises(ConfigError, match=f"benchmark {name} has no setting 'colour'"):
            run_bench(name, BenchOptions(settings={"colour": "red"}))
    with pytest.raises(ConfigError, match="no contestant 'fastest'"):
        run_bench("link", BenchOptions(settings={"only": "kvlp;fastest"}))


def test_reports_need_their_columns(tmp_path: Path) -> None:
    table = tmp_path / "reports.csv"
    with pytest.raises(ConfigError, match="expected the reports as CSV"):
        list(read_reports(table))
    table.write_text("findings,impression\nClear.,Normal.\n")
    assert [row["text"] for row in read_reports(table)] == ["FINDINGS: Clear.\nIMPRESSION: Normal."]
    table.write_text("text\nClear.\n")
    with pytest.raises(ConfigError, match="expected the columns findings and impression"):
        list(read_reports(table))


def test_scores_by_hand(tmp_path: Path) -> None:
    suite = tmp_path / "suite.yaml"
    suite.write_text(
        "one:\n  - ['Effusion.', {pleural_effusion: present}]\n  - ['Maybe a mass.', {lung_mass: uncertain}]\n"
        "two:\n  - ['No ptx.', {pneumothorax: absent, lung_mass: none}]\n"
    )
    claims = read_suite(suite)

    def says(concept: str, assertion: str) -> list[Mention]:
        return [Mention(concept, "x", 0, 1, Assertion(assertion))]

    said = dict(zip(claims, [says("pleural_effusion", "present"), says("lung_mass", "present"), []], strict=True))
    everything, firm = suite_score("someone", "suite", claims, said, KnowledgeGraph.load("chest"))
    assert everything.value == 2 / 4  # the effusion, and the mass of which nothing is said
    assert firm.value == 2 / 3
    assert everything.low <= everything.value <= everything.high
