"""Evaluation of a planted model: scores, negation, groups, queries, reports, hashes, bad rows."""

import math
from dataclasses import replace

import numpy as np
import pytest

from kvlp.datasets.manifest import Manifest, Record
from kvlp.errors import DataError
from kvlp.eval.evaluate import EvalOptions, control_results, difference_results, evaluate
from kvlp.eval.images import embed_manifest
from kvlp.eval.metrics import auc
from kvlp.eval.tasks import ClassTask, Query, label_matrix, parse_tasks, query_relevance
from kvlp.knowledge.names import Names

FAST = EvalOptions(resamples=50, batch_size=16, split="test")


def find(results, **wanted):
    rows = [r for r in results if all(getattr(r, key) == value for key, value in wanted.items())]
    assert len(rows) == 1, f"{len(rows)} rows for {wanted}"
    return rows[0]


def test_a_planted_model_is_perfect_and_every_row_says_how(fakes, tmp_path):
    manifest = fakes.write_manifest(tmp_path)
    groups = {"seen": fakes.classes[:2], "unseen": fakes.classes[2:]}
    result = evaluate(fakes.Model(), manifest, groups, seed=4, options=FAST)
    for setting in ("POS", "NEG", "PAIR"):
        for name in fakes.classes:
            assert find(result.results, metric="auc", setting=setting, target=name).value == 1.0
        assert find(result.results, metric="auc", setting=setting, target="macro", group="seen").value == 1.0
    row = find(result.results, metric="auc", setting="POS", target="bulla")
    assert (row.n, row.n_groups) == (72, 36)  # two images of every tenth patient have no label
    assert (row.group, row.task) == ("unseen", "not known"), "no graph says whether a synonym was named"
    assert find(result.results, metric="auc", setting="POS", target="cardiomegaly").task == "prompted classification"
    assert row.provenance.seed == 4
    assert row.provenance.split_hash == manifest.content_hash
    assert row.provenance.model_hash == "fake"
    assert len(row.provenance.prompt_hash) == 64
    assert "patients" in row.method
    assert result.skipped == []


def test_a_model_deaf_to_no_fails_the_negated_prompt_only(fakes, tmp_path):
    manifest = fakes.write_manifest(tmp_path)
    result = evaluate(fakes.Model(deaf_to_no=True), manifest, fakes.classes[:2], options=FAST)
    assert find(result.results, metric="auc", setting="POS", target="macro").value == 1.0
    assert find(result.results, metric="auc", setting="NEG", target="macro").value == 0.0


def test_values_equal_the_metrics_on_the_arrays_given(fakes, tmp_path):
    result = evaluate(fakes.Model(noise=1.0), fakes.write_manifest(tmp_path), fakes.classes, options=FAST)
    for c, name in enumerate(fakes.classes):
        for setting in ("POS", "NEG", "PAIR"):
            value = find(result.results, metric="auc", setting=setting, target=name).value
            assert value == pytest.approx(auc(result.y_true[:, c], result.scores[setting][:, c]))
    assert np.allclose(result.scores["PAIR"], result.scores["POS"] + result.scores["NEG"])
    assert find(result.results, metric="auc", setting="PAIR", target="macro").low < 1


def test_text_queries_and_reports(fakes, tmp_path):
    manifest = fakes.write_manifest(tmp_path)
    queries = [Query("bulla", ("bulla",)), Query("cardiomegaly", ("cardiomegaly",)), Query("mass", ("cardiomegaly",))]
    result = evaluate(fakes.Model(), manifest, fakes.classes, queries=queries, options=FAST)
    hit = find(result.results, metric="precision_at_10", target="cardiomegaly")
    assert hit.value == 1.0
    assert result.queries[1].prevalence == pytest.approx(np.mean(result.y_true[:, 0]))
    assert all(relevant == 1 for _, _, relevant in result.queries[1].hits)
    assert len(result.queries[1].hits) == 10
    mean = find(result.results, metric="precision_at_10", target="all queries")
    assert mean.n == 3
    assert "query targets" in mean.method
    lift = find(result.results, metric="lift_at_10", target="all queries")
    assert lift.value == pytest.approx(mean.value / np.mean([q.prevalence for q in result.queries]))
    recall = find(result.results, metric="recall_at_1", target="image to report")
    reports = {r.report for r in manifest}
    assert f"pool of {len(reports)} distinct reports" in recall.definition
    assert recall.value == 1.0  # each combination of findings has one report
    assert recall.n == len(manifest)


def test_one_class_against_another_leaves_the_rest_out(fakes, tmp_path):
    manifest = fakes.write_manifest(tmp_path)
    task = "cardiomegaly vs pleural effusion"
    result = evaluate(fakes.Model(), manifest, [task], options=FAST)
    labels = result.y_true[:, 0]
    for record, label in zip(result.records, labels, strict=True):
        a, b = record.labels["cardiomegaly"], record.labels["pleural effusion"]
        assert (math.isnan(label) and a == b) or label == float(a > b)
    assert find(result.results, metric="auc", setting="VERSUS", target=task).value == 1.0
    assert find(result.results, metric="auc", setting="VERSUS", target=task).task == "prompted classification"


def test_unreadable_rows_are_named_and_the_others_scored(fakes, tmp_path):
    manifest = fakes.write_manifest(tmp_path)
    (tmp_path / "3-0.png").write_bytes(b"not a picture")
    (tmp_path / "5-1.png").unlink()
    result = evaluate(fakes.Model(), manifest, fakes.classes, options=FAST)
    assert [row for row, _ in result.skipped] == [7, 12]
    assert len(result.records) == len(manifest) - 2
    assert result.image_emb.shape[0] == result.y_true.shape[0] == len(result.records)
    for record in manifest:
        (tmp_path / record.image).write_bytes(b"")
    with pytest.raises(DataError, match="none of the 80 images can be read; row 1"):
        evaluate(fakes.Model(), manifest, fakes.classes, options=FAST)


def test_a_wrong_class_is_told_before_images_are_read(fakes, tmp_path):
    manifest = Manifest([Record(id="1", image="missing.png", labels={"Pleural Effusion": 1.0})], tmp_path)
    with pytest.raises(DataError, match=r"class 'plural effusion'.*Pleural Effusion"):
        evaluate(fakes.Model(), manifest, ["plural effusion"], options=FAST)
    with pytest.raises(DataError, match="no class to evaluate"):
        evaluate(fakes.Model(), manifest, [], options=FAST)
    with pytest.raises(DataError, match="'A vs B'"):
        evaluate(fakes.Model(), manifest, ["a vs b vs c"], options=FAST)


def test_embeddings_are_computed_once_and_can_be_used_again(fakes, tmp_path):
    manifest = fakes.write_manifest(tmp_path)
    model = fakes.Model(noise=0.5)
    embedded = embed_manifest(model, manifest)
    model.encode_image = None
    one = evaluate(model, embedded, fakes.classes, options=FAST)
    two = evaluate(model, embedded, fakes.classes, options=FAST)
    assert [r.to_dict() for r in one.results] == [r.to_dict() for r in two.results]


def test_a_model_that_returns_nan_is_refused(fakes, tmp_path):
    model = fakes.Model()
    model.encode_image = lambda images, batch_size: np.full((len(images), 6), np.nan, dtype=np.float32)
    with pytest.raises(DataError, match="NaN or infinite"):
        evaluate(model, fakes.write_manifest(tmp_path, patients=3), fakes.classes, options=FAST)


def test_controls_and_other_models_are_compared_on_the_same_images(fakes, tmp_path):
    manifest = fakes.write_manifest(tmp_path)
    good = evaluate(fakes.Model(), manifest, fakes.classes[:2], options=FAST)
    bad = evaluate(fakes.Model(noise=3.0), manifest, fakes.classes[:2], options=FAST)
    rows = control_results(good, "noise", bad.scores["POS"])
    own = find(rows, metric="auc", setting="noise", target="macro")
    gap = find(rows, metric="auc_difference", setting="PAIR minus noise", target="macro")
    assert gap.value == pytest.approx(1.0 - own.value)
    assert gap.low > 0
    assert gap.p < 0.1
    versus = [f"{fakes.classes[0]} vs {fakes.classes[1]}"]
    apart = evaluate(fakes.Model(), manifest, versus, options=FAST)
    against = control_results(apart, "noise", np.zeros((len(apart.records), 1)))
    assert find(against, metric="auc_difference", setting="VERSUS minus noise", target=versus[0]).value == 0.5
    paired = difference_results(good, bad, "noisy model", setting="POS")
    assert find(paired, target="macro").value == pytest.approx(gap.value)
    fewer = evaluate(fakes.Model(), manifest[:50], fakes.classes[:2], options=FAST)
    with pytest.raises(DataError, match="same images"):
        difference_results(good, fewer, "fewer")


def test_names_meet_by_words_or_by_concept():
    plain = Names(None)
    assert plain("Pleural_Effusion") == plain("pleural effusion") == "pleural effusion"
    record = Record(id="1", labels={"Pleural Effusion": 1.0, "edema": -1.0, "mass": 0.0})
    tasks, groups = parse_tasks({"a": ["pleural_effusion"], "b": ["Edema", "mass"]})
    assert label_matrix([record], tasks, plain).tolist() == [[1.0, -1.0, 0.0]]
    assert groups == {"a": ["pleural_effusion"], "b": ["Edema", "mass"]}


def test_relevance_of_a_query_with_conditions():
    records = [
        Record(id="1", labels={"x": 1.0, "y": 0.0}),
        Record(id="2", labels={"x": 1.0, "y": 1.0}),
        Record(id="3", labels={"x": 1.0}),
        Record(id="4", labels={"x": 0.0}),
        Record(id="5", labels={"x": 1.0, "y": -1.0}),
    ]
    relevant = query_relevance(records, [Query("x without y", ("x",), ("y",))], Names(None))
    assert np.array_equal(relevant, [[1, 0, math.nan, 0, math.nan]], equal_nan=True)
    assert Query("q", ("x",), ("y",)).target == "x and no y"


def test_a_descendant_or_synonym_in_training_texts_is_no_zero_shot():
    from kvlp.knowledge.graph import Concept, KnowledgeGraph, Relation

    graph = KnowledgeGraph(
        [
            Concept("effusion", "effusion", ("fluid",)),
            Concept("left_effusion", "left effusion"),
            Concept("mass", "mass"),
        ],
        [Relation("left_effusion", "is_a", "effusion")],
        name="t",
    )
    names = Names(graph)
    assert names("Fluid") == "effusion"
    assert names.named("effusion", ["left effusion"]) is True
    assert names.named("effusion", ["fluid"]) is True
    assert names.named("mass", ["left effusion"]) is False
    assert names.named("mass", None) is None


def test_a_versus_task_is_read_in_any_spelling():
    assert ClassTask.parse("A vs. B") == ClassTask.parse(" A versus  B ") == ClassTask("A vs B", "A", "B")


def test_options_reach_the_rows(fakes, tmp_path):
    manifest = fakes.write_manifest(tmp_path, patients=12)
    few = evaluate(fakes.Model(), manifest, fakes.classes, options=replace(FAST, reports=False, k=3))
    assert not [r for r in few.results if r.metric.startswith("recall")]
    assert find(few.results, metric="precision_at_3", target="all queries").provenance.split == "test"
    assert set(few.timings) == {
        "read and encode images",
        "encode prompts",
        "intervals",
        "negation",
        "text to image",
        "image to report",
    }
