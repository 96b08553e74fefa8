"""Evaluation of a planted model: scores, negation, groups, queries, reports, hashes, bad rows."""

import math
import types
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
        "thresholds",
        "intervals",
        "subgroups",
        "negation",
        "text to image",
        "image to report",
    }


def test_counts_and_single_results_have_rows(fakes, tmp_path):
    manifest = fakes.write_manifest(tmp_path, patients=20)
    (tmp_path / "3-0.png").write_bytes(b"")
    result = evaluate(fakes.Model(noise=1.0), manifest, fakes.classes, options=FAST)
    counts = {r.metric: r.value for r in result.results if r.task == "data"}
    assert counts == {"images": 39, "patients": 20, "images_left_out": 1, "implausible_images": result.implausible}
    first = find(result.results, metric="retrieved", target="There is a bulla.", notes=_notes(result.queries[2], 0))
    assert first.value == result.queries[2].hits[0][1]
    shown = find(result.results, metric="prevalence", target="There is a bulla.")
    assert shown.value == pytest.approx(result.queries[2].prevalence)


def _notes(outcome, rank):
    row, _, relevant = outcome.hits[rank]
    return (f"rank {rank + 1}", f"image {row + 1}", "relevant" if relevant == 1 else "not relevant")


def test_the_worst_errors_lie_furthest_on_the_wrong_side(fakes, tmp_path):
    result = evaluate(fakes.Model(noise=1.5), fakes.write_manifest(tmp_path), fakes.classes, options=FAST)
    for errors in result.errors:
        labels, scores = result.y_true[:, c := result.classes.index(errors.name)], result.scores["PAIR"][:, c]
        flagged = sorted((s for y, s in zip(labels, scores, strict=True) if y == 0 and s >= 0), reverse=True)[:3]
        missed = sorted(s for y, s in zip(labels, scores, strict=True) if y == 1 and s < 0)[:3]
        assert [value for _, value in errors.flagged] == flagged
        assert [value for _, value in errors.missed] == missed
        assert all(scores[row] == value for row, value in errors.flagged + errors.missed)
        row = find(result.results, metric="worst_false_positive", target=errors.name, value=flagged[0])
        assert row.notes == (f"image {errors.flagged[0][0] + 1}", "labelled absent")
    assert len(result.errors) == 3


def test_subgroups_come_from_the_columns_of_the_manifest(fakes, tmp_path):
    records = list(fakes.write_manifest(tmp_path))
    ages = ["17", "034Y", "59", "60", "", "414"]
    records = [
        replace(
            r, extra={"Patient Age": ages[i // 2 % 6], "Patient Gender": "MF"[i // 2 % 2]}, view="AP" if i % 2 else "PA"
        )
        for i, r in enumerate(records)
    ]
    result = evaluate(fakes.Model(noise=1.0), Manifest(records, tmp_path), fakes.classes[:2], options=FAST)
    groups = {r.group for r in result.results if r.metric == "subgroup_auc"}
    assert {"age: 0-19", "age: 20-39", "age: 40-59", "age: 60-79", "sex: female", "sex: male", "view: AP"} <= groups
    assert {"source: a", "sex and view: female, PA"} <= groups
    women = [i for i, r in enumerate(records) if r.extra["Patient Gender"] == "F"]
    for c, name in enumerate(result.classes):
        own = find(result.results, metric="subgroup_auc", target=name, group="sex: female")
        assert own.value == pytest.approx(auc(result.y_true[women, c], result.scores["PAIR"][women, c]))
        assert (own.n, own.n_groups, own.task, own.setting) == (40, 20, "subgroup", "PAIR")
        assert find(result.results, metric="subgroup_sensitivity_against_rest", target=name, group="sex: male")
    gaps = [r.group for r in result.results if r.metric == "subgroup_auc_gap" and r.target == "macro"]
    assert gaps[0].startswith("age: ")
    ill = (result.y_true == 1).any(axis=1)
    free = ~(result.scores["PAIR"] >= 0).any(axis=1)
    whole = find(result.results, metric="underdiagnosis", group="all")
    assert whole.value == pytest.approx(free[ill].mean())
    female = find(result.results, metric="underdiagnosis", group="sex: female")
    assert female.value == pytest.approx(free[women][ill[women]].mean())
    off = evaluate(
        fakes.Model(), Manifest(records, tmp_path), fakes.classes[:2], options=replace(FAST, subgroups=False)
    )
    assert not off.subgroups
    assert not [r for r in off.results if r.metric.startswith("subgroup")]


def test_a_class_of_no_finding_gives_underdiagnosis_itself(fakes, tmp_path):
    records = [
        replace(r, labels={**r.labels, "No Finding": float(not any(r.labels.values()))})
        for r in fakes.write_manifest(tmp_path)
    ]
    manifest = Manifest(records, tmp_path)
    result = evaluate(fakes.Model(noise=0.5), manifest, ["cardiomegaly", "No Finding"], options=FAST)
    row = find(result.results, metric="underdiagnosis", group="all")
    absent = result.y_true[:, 1] == 0
    assert row.target == "No Finding"
    assert row.value == pytest.approx((result.scores["PAIR"][absent, 1] >= 0).mean())
    assert row.n == absent.sum()


def test_thresholds_are_of_validation_rows_and_never_of_the_labels_scored(fakes, tmp_path):
    test = fakes.write_manifest(tmp_path / "test")
    other = [
        replace(r, patient_id=f"v{r.patient_id}", split="dev") for r in fakes.write_manifest(tmp_path / "dev", seed=1)
    ]
    model = fakes.Model(noise=0.8)
    scored, validation = embed_manifest(model, test), embed_manifest(model, Manifest(other, tmp_path / "dev"))
    options = replace(FAST, validation=validation)
    first = evaluate(model, scored, fakes.classes, options=options)
    turned = [replace(r, labels={k: 1 - v for k, v in r.labels.items()}) for r in scored.records]
    second = evaluate(model, replace(scored, records=turned), fakes.classes, options=options)
    assert first.decisions == second.decisions
    decision = first.decisions["cardiomegaly"]
    assert decision.chosen
    assert decision.origin.startswith("youden on dev (80 images, ")
    values = decision.values(first.scores["PAIR"][:, 0])
    row = find(first.results, metric="sensitivity", target="cardiomegaly")
    assert row.value == pytest.approx((values[first.y_true[:, 0] == 1] >= decision.threshold).mean())
    assert find(first.results, metric="threshold", target="cardiomegaly").value == decision.threshold
    slope = find(first.results, metric="calibration_slope", target="cardiomegaly")
    assert 0.2 < slope.value < 5
    assert find(first.results, metric="brier", target="cardiomegaly").low < 0.25
    bins = [r for r in first.results if r.metric == "reliability_bin" and r.target == "cardiomegaly"]
    assert sum(r.n for r in bins) == 80
    with pytest.raises(DataError, match="40 patients stand in both the validation and the scored rows"):
        evaluate(model, scored, fakes.classes, options=replace(FAST, validation=scored))


def test_the_calibration_of_a_checkpoint_is_used_where_it_fits(fakes, tmp_path):
    from kvlp.zero_shot import ZeroShotClassifier

    model = fakes.Model(noise=0.8)
    model.dim, model.logit_scale, model.source = 6, 10.0, str(tmp_path)
    scored = replace(embed_manifest(model, fakes.write_manifest(tmp_path / "data")), hashes=())  # no exposure check
    before = evaluate(model, scored, fakes.classes[:2], options=FAST)
    assert [d.threshold for d in before.decisions.values()] == [0.0, 0.0]
    clf = ZeroShotClassifier(model, fakes.classes[:1]).fit(scored.vectors, before.y_true[:, :1])
    clf.save_calibration(tmp_path)
    after = evaluate(model, scored, fakes.classes[:2], options=FAST)
    assert after.decisions["cardiomegaly"].threshold == clf.thresholds_[0]
    expected = clf.predict_proba(scored.vectors)[:, 0]
    assert np.allclose(after.decisions["cardiomegaly"].values(after.scores["PAIR"][:, 0]), expected)
    assert after.decisions["cardiomegaly"].origin == "youden, from calibration.json of the checkpoint"
    assert after.decisions["pleural effusion"].threshold == 0.0
    remark = "calibration.json of the checkpoint does not fit these weights and prompts, so it is not used for: "
    assert after.remarks == [remark + "pleural effusion"]


def test_a_query_network_decides_by_its_own_calibration(fakes, tmp_path):
    """Two files in one checkpoint folder: that of the encoders does not reach what only scores."""
    from kvlp.eval.decisions import stored_decisions
    from kvlp.zero_shot import ZeroShotClassifier

    model = fakes.Model(noise=0.8)
    model.dim, model.logit_scale = 6, 10.0
    scored = replace(embed_manifest(model, fakes.write_manifest(tmp_path / "data")), hashes=())
    name = fakes.classes[0]
    labels = evaluate(model, scored, [name], options=FAST).y_true
    encoders = ZeroShotClassifier(model, [name]).fit(scored.vectors, labels)
    encoders.save_calibration(tmp_path)
    scorer = types.SimpleNamespace(score=None, hash="query", source=str(tmp_path))
    network = ZeroShotClassifier(scorer, [name])
    prompts = {name: network.prompts(name)}
    assert stored_decisions(scorer, [name], prompts)[0][name].threshold == 0.0
    network.calibration_ = encoders.calibration_
    network.save_calibration(tmp_path)
    found, remark = stored_decisions(scorer, [name], prompts)
    assert found[name].threshold == encoders.thresholds_[0]
    assert found[name].origin == "youden, from calibration.query.json of the checkpoint"
    assert remark == ""
