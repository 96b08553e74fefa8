"""The negation probe: by hand, on models that hear the "no" and models that do not, in rows and on the page."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest

from kvlp.errors import DataError, ShapeError
from kvlp.eval.evaluate import EvalOptions, evaluate
from kvlp.eval.metrics import auc
from kvlp.eval.negation import SETTINGS, negation_probe, negation_rows
from kvlp.eval.page.negation import negation_blocks
from kvlp.eval.page.report import evaluation_blocks
from kvlp.eval.page.write import write_page
from kvlp.eval.results import Provenance
from kvlp.knowledge.graph import KnowledgeGraph
from kvlp.knowledge.prompts import Prompts
from kvlp.typing import Assertion
from kvlp.zero_shot import ZeroShotClassifier

FAST = EvalOptions(resamples=30, batch_size=16, split="test")


@pytest.fixture(scope="module")
def graph():
    return KnowledgeGraph.load("chest")


@pytest.fixture
def scored(fakes, tmp_path):
    """Manifest, labels and patients of the fake radiographs."""
    manifest = fakes.write_manifest(tmp_path)
    labels = np.array([[r.labels.get(name, math.nan) for name in fakes.classes] for r in manifest])
    return manifest, labels, [r.patient_id for r in manifest]


def probe(model, scored, classes, graph=None, **more):
    manifest, labels, patients = scored
    return negation_probe(model, manifest, labels, graph, classes, groups=patients, resamples=30, **more)


def test_a_model_that_hears_the_no_and_one_that_is_deaf_to_it(fakes, scored):
    hearing = probe(fakes.Model(), scored, fakes.classes)
    deaf = probe(fakes.Model(deaf_to_no=True), scored, fakes.classes)
    for setting in SETTINGS:
        assert hearing.tables[setting].macro.value == 1.0
        assert hearing.spread("macro", setting) == (1.0, 1.0, 1.0, 0.0)
    assert deaf.tables["POS"].macro.value == 1.0
    assert deaf.tables["NEG"].macro.value == 0.0, "an image with the finding matches “no X” best"
    assert deaf.tables["PAIR"].macro.value == 0.5, "what says the same both times cancels"


def test_the_negated_auc_is_that_of_inverted_labels(fakes, scored):
    manifest, labels, _ = scored
    model = fakes.Model(noise=2.0)
    vectors = model.encode_image([np.asarray(image) for image in pictures(manifest)])
    found = probe(model, (vectors, labels, scored[2]), fakes.classes)
    for c, name in enumerate(fakes.classes):
        denies = model.encode_text(Prompts().sentences(name, Assertion.ABSENT, style="wordings")).mean(axis=0)
        states = model.encode_text(Prompts().sentences(name, Assertion.PRESENT, style="wordings")).mean(axis=0)
        unit = [v / np.linalg.norm(v) for v in (states, denies)]
        known = ~np.isnan(labels[:, c])
        value = {s: found.tables[s].per_class[name].value for s in SETTINGS}
        assert value["POS"] == pytest.approx(auc(labels[:, c], vectors @ unit[0]), abs=0.01)
        assert value["NEG"] == pytest.approx(auc(1 - labels[known, c], (vectors @ unit[1])[known]), abs=0.01)
        assert value["PAIR"] == pytest.approx(auc(labels[:, c], vectors @ (unit[0] - unit[1])), abs=0.01)
        assert 0.5 < value["NEG"] < 1
        interval = found.tables["NEG"].per_class[name]
        assert interval.low < interval.value < interval.high
        assert interval.n_groups < interval.n, "patients are drawn, not images"


def pictures(manifest):
    from PIL import Image

    return [Image.open(manifest.path_of(record)) for record in manifest]


def test_ways_to_ask_are_grammatical_and_their_spread_is_theirs(fakes, scored, graph):
    """The fake knows two names of one class, so that other synonyms and the words tell nothing."""
    found = probe(fakes.Model(), scored, fakes.classes, graph)
    ways = found.ways["cardiomegaly"]
    wordings = Prompts(graph).sentences("cardiomegaly", style="wordings", synonyms=False)
    assert [w.label.split(" / ")[0] for w in ways if w.axis == "wording"] == wordings
    synonyms = {w.label: w.auc["POS"] for w in ways if w.axis == "synonym"}
    assert set(synonyms) <= set(graph["cardiomegaly"].synonyms)
    assert len(synonyms) >= 3
    assert synonyms["enlarged heart"] == 1.0
    assert {"words", "attributes"} <= {w.label for w in ways if w.axis == "style"}
    for setting in SETTINGS:
        values = [way.auc[setting] for way in ways]
        mean, low, high, sd = found.spread("cardiomegaly", setting)
        assert (low, high) == (min(values), max(values))
        assert (mean, sd) == pytest.approx((np.mean(values), np.std(values, ddof=1)))
    assert found.spread("cardiomegaly", "POS")[1] == 0.5
    every = {"heart size normal", "no acute cardiopulmonary"}
    assert not every & {w.label for ways in found.ways.values() for w in ways}
    plain = probe(fakes.Model(), scored, fakes.classes)
    assert {w.axis for w in plain.ways["bulla"]} == {"wording"}, "free text has wordings alone"
    said = found.prompts["cardiomegaly"]
    assert said["present"] == Prompts(graph).sentences("cardiomegaly", style="wordings")


def test_every_concept_of_the_graph_is_asked_in_sound_sentences(graph):
    """No way to ask uses the two styles whose sentences are not always right, and none is empty."""
    from kvlp.eval.negation import _ways

    writer, plain = Prompts(graph), set()
    for concept in list(graph)[::12]:
        for _, label, present, absent in _ways(writer, concept.name):
            assert present
            assert absent
            assert label
            plain.update(present + absent)
    assert all(line and "{" not in line and "  " not in line for line in plain)
    assert not [line for line in plain if re.search(r"\b(a|an|no) (a|an|no|the)\b", line)]


def test_models_classifiers_and_unread_images(fakes, scored, graph, tmp_path):
    manifest, labels, patients = scored
    classifier = ZeroShotClassifier(fakes.Model(), fakes.classes, graph=graph)
    by_classifier = negation_probe(classifier, manifest, labels, groups=patients, resamples=5)
    by_model = negation_probe(fakes.Model(), manifest, labels, graph, fakes.classes, groups=patients, resamples=5)
    assert by_classifier.ways == by_model.ways

    class OnlyScores:
        def score(self, images, prompts):
            return fakes.Model().encode_image(images) @ fakes.Model().encode_text(prompts).T

    alone = negation_probe(OnlyScores(), manifest, labels, None, fakes.classes, resamples=5)
    assert alone.tables["NEG"].macro.value == 1.0
    manifest.path_of(manifest[0]).write_bytes(b"no picture")
    for model in (fakes.Model(), OnlyScores()):
        found = negation_probe(model, manifest, labels, None, ["cardiomegaly"][:1] + fakes.classes[1:], resamples=5)
        assert found.tables["POS"].per_class["cardiomegaly"].n == len(manifest) - 1
        assert found.tables["POS"].macro.value == 1.0


def test_a_class_of_one_label_is_undefined_by_name(fakes, scored):
    manifest, labels, patients = scored
    labels = labels.copy()
    labels[:, 2] = np.where(labels[:, 2] == 1, np.nan, 0)
    found = probe(fakes.Model(), (manifest, labels, patients), fakes.classes)
    assert found.tables["POS"].undefined == ("bulla",)
    assert found.tables["POS"].macro.value == 1.0
    assert all(math.isnan(v) for v in found.spread("bulla", "POS"))
    assert found.spread("macro", "POS") == (1.0, 1.0, 1.0, 0.0)


def test_wrong_calls(fakes, scored):
    manifest, labels, _ = scored
    with pytest.raises(DataError, match="no class to ask for"):
        negation_probe(fakes.Model(), manifest, labels)
    with pytest.raises(ShapeError, match=r"labels of shape \(80, 1\), got \(80, 3\)"):
        negation_probe(fakes.Model(), manifest, labels, None, ["bulla"])


def test_rows_and_page_of_an_evaluation(fakes, tmp_path, graph):
    manifest = fakes.write_manifest(tmp_path)
    result = evaluate(fakes.Model(noise=1.0), manifest, fakes.classes, graph, options=FAST)
    assert result.negation is not None
    rows = {(r.metric, r.setting, r.target): r for r in result.results}
    for name in [*fakes.classes, "macro"]:
        for setting in SETTINGS:
            own = rows["negation_auc", setting, name]
            assert own.low <= own.value <= own.high
            assert own.provenance.prompt_hash not in ("", result.provenance.prompt_hash)
            spread = rows["auc_over_prompts", setting, name]
            assert (spread.value, spread.low, spread.high) == result.negation.spread(name, setting)[:3]
            assert "no confidence interval" in spread.method
            assert rows["auc_sd_over_prompts", setting, name].value == result.negation.spread(name, setting)[3]
    assert any(note.startswith("lowest: ") for note in rows["auc_over_prompts", "POS", "bulla"].notes)
    page = write_page(tmp_path / "page.html", "t", evaluation_blocks(result)).read_text()
    start = page.index("Negation and wording")
    panel = page[page.index("Negation and wording", start + 1) if page.count("Negation and wording") > 1 else start :]
    known = {f"{v:.3f}" for r in result.results for v in (r.value, r.low, r.high) if not math.isnan(v)}
    table = panel[panel.index("Stating and denying sentences") : panel.index("</table>", panel.index("Stating and"))]
    shown = set(re.findall(r"\b\d\.\d{3}\b", table))
    assert len(shown) > 10
    assert shown <= known, "every figure of the panel stands in the rows"
    quiet = evaluate(fakes.Model(), manifest, fakes.classes, options=replace(FAST, negation=False))
    assert quiet.negation is None
    assert not [r for r in quiet.results if r.metric == "negation_auc"]


def test_one_against_another_is_asked_for_by_the_first(fakes, tmp_path):
    manifest = fakes.write_manifest(tmp_path)
    task = "cardiomegaly vs pleural effusion"
    result = evaluate(fakes.Model(), manifest, [task], options=FAST)
    assert result.negation is not None
    assert list(result.negation.ways) == [task]
    assert "cardiomegaly" in result.negation.prompts[task]["present"][0]
    assert result.negation.tables["NEG"].macro.value == 1.0
    assert len(negation_blocks(result.negation)) == 3
    names = {row.target for row in negation_rows(result.negation, Provenance())}
    assert names == {task}
