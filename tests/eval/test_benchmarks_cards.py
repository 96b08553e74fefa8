"""Data cards: whole, true to the graph, and the same in the documentation as on the command line."""

import json
from dataclasses import replace

import pytest

from kvlp.cli import main
from kvlp.datasets.manifest import Manifest, Record
from kvlp.datasets.readers import READERS
from kvlp.errors import ConfigError
from kvlp.eval.benchmarks import benchmark_names, load_card
from kvlp.eval.benchmarks.classes import BenchmarkClasses, relabelled
from kvlp.eval.benchmarks.expect import beside
from kvlp.eval.benchmarks.run import Coverage
from kvlp.eval.results import Result

NAMES = benchmark_names()


def run_cli(*args):
    try:
        main(list(args))
    except SystemExit as done:
        return done.code or 0
    return 0


@pytest.mark.parametrize("name", NAMES)
def test_a_card_is_whole_and_its_page_is_the_documentation(name, repository):
    card = load_card(name)
    assert name in READERS
    assert card.kind in ("classification", "retrieval", "vqa")
    assert len(card.traps) >= 2
    assert card.missing in ("absent", "unknown")
    assert all(p.source and p.comparable in ("yes", "partly", "no") for p in card.published)
    assert all(p.because for p in card.published if p.comparable != "yes")
    page = repository / "docs" / "data_cards" / f"{name}.md"
    assert page.read_text(encoding="utf-8") == card.markdown, f"kvlp eval --card {name} > docs/data_cards/{name}.md"
    assert f"data_cards/{name}.md" in (repository / "docs" / "benchmarks.md").read_text(encoding="utf-8")


#: labels of one concept, which are asked as one class
ONE_CONCEPT = {"openi": [("Emphysema", "Pulmonary Emphysema"), ("Granuloma", "Granulomatous Disease")]}


@pytest.mark.parametrize("name", [n for n in NAMES if n != "padchest"])
def test_every_class_has_a_concept_and_nearly_all_one_of_their_own(name, chest_graph):
    classes = BenchmarkClasses.of(load_card(name), chest_graph)
    assert classes.outside == ()
    assert [labels for labels in classes.words.values() if len(labels) > 1] == ONE_CONCEPT.get(name, [])


def test_padchest_names_the_labels_that_the_graph_does_not_know(chest_graph):
    card = load_card("padchest")
    classes = BenchmarkClasses.of(card, chest_graph)
    assert len(card.classes) + len(card.not_asked) == 193
    assert "nephrostomy tube" in classes.outside
    assert not {"pleural effusion", "heart failure", "No Finding"} & set(classes.outside)
    assert classes.words["pleural effusion"] == ("pleural effusion",)
    assert classes.words["lung mass"] == ("pulmonary mass", "mass")
    assert sorted(label for labels in classes.words.values() for label in labels) == sorted(card.classes)
    groups = classes.groups(card)
    assert set(groups) == {"seen by KAD", "in the graph", "not in the graph"}
    assert groups["not in the graph"] == list(classes.outside)


def test_labels_of_one_concept_are_present_if_one_is_and_unknown_if_all_are(chest_graph):
    card = replace(load_card("openi"), missing="unknown")
    classes = BenchmarkClasses.of(card, chest_graph)
    pairs = [{}, {"Emphysema": 0.0}, {"Emphysema": 0.0, "Pulmonary Emphysema": -1.0}]
    pairs += [{"Emphysema": 1.0, "Pulmonary Emphysema": 0.0}, {"Emphysema": -1.0, "Pulmonary Emphysema": 1.0}]
    records = [Record(id=str(n), image="x", labels={**pair, "Stents": 1.0}) for n, pair in enumerate(pairs)]
    manifest, stray = relabelled(Manifest(records), classes, card)
    assert [dict(r.labels) for r in manifest] == [{}, *({"emphysema": value} for value in (0, -1, 1, 1))]
    assert stray == ["Stents"]
    filled, _ = relabelled(Manifest(records), classes, load_card("openi"))
    assert filled[0].labels == dict.fromkeys(classes.words, 0.0)


def test_without_a_graph_classes_are_asked_by_the_cards_words():
    classes = BenchmarkClasses.of(load_card("chestxray14"), None)
    assert classes.words["pleural effusion"] == ("Effusion",)
    assert classes.outside == ()


def test_list_and_card_on_the_command_line(capsys):
    assert run_cli("eval", "--list") == 0
    listed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in listed] == NAMES
    assert run_cli("eval", "--card", "chexpert") == 0
    assert capsys.readouterr().out == load_card("chexpert").markdown
    assert run_cli("eval", "--list", "--json") == 0
    assert [card["name"] for card in json.loads(capsys.readouterr().out)] == NAMES


def test_an_unknown_name_is_told_with_the_nearest():
    with pytest.raises(ConfigError, match="no benchmark is called 'chestxray'; did you mean 'chestxray14'"):
        load_card("chestxray")


def row(value, setting="POS", **more):
    return Result("auc", "macro", value, value - 0.02, value + 0.02, "m", "d", 9, setting=setting, group="all", **more)


def test_published_figures_stand_beside_ours():
    card = load_card("chestxdet10")
    rows = [row(0.5, "PAIR"), row(0.74)]
    whole = Coverage(542, 542, 542, "test", "test")
    kad = next(e for e in beside(card, rows, whole) if e.model == "KAD")
    assert (kad.published, kad.ours, kad.within, kad.comparable) == (0.735, "0.740 (0.720 to 0.760)", True, "yes")
    assert "Nature Communications 14:4542" in kad.text
    assert next(e for e in beside(card, [], whole) if e.model == "KAD").within is None
    far = next(e for e in beside(card, [row(0.9)], whole) if e.model == "KAD")
    assert far.within is False


def test_over_a_part_nothing_is_comparable():
    card = load_card("chestxdet10")
    for part in (
        Coverage(542, 541, 542, "test", "test"),
        Coverage(5, 5, 542, "test", "test"),
        Coverage(9, 9, 0, "x", "test"),
    ):
        assert {e.comparable for e in beside(card, [row(0.74)], part)} == {"no"}
    assert "541 of 542 listed were there" in beside(card, [], Coverage(542, 541, 542, "test", "test"))[0].because


@pytest.mark.parametrize("name", [n for n in NAMES if load_card(n).published])
def test_a_published_figure_names_rows_that_the_evaluation_writes(name):
    card = load_card(name)
    targets = {"macro", "all", "closed"} | set(card.classes.values())
    for published in card.published:
        assert set(published.row) <= {"metric", "target", "group", "setting"}
        assert published.row["target"] in targets
        assert published.row.get("group", "all") in {"all", *card.groups}
        assert 0 < published.value < 1
