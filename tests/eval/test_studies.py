"""Several images of a study as one row: hand-worked pooling, labels and reports, and a whole evaluation."""

import json
import math
import sys
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest

from kvlp.cli import main
from kvlp.datasets.manifest import Manifest, Record
from kvlp.errors import ConfigError
from kvlp.eval import controls
from kvlp.eval.controls import blank_image_results, run_controls, text_only_results
from kvlp.eval.evaluate import EvalOptions, evaluate
from kvlp.eval.images import embed_manifest
from kvlp.eval.metrics import auc
from kvlp.eval.studies import POOLINGS, studies_of

FAST = EvalOptions(resamples=20, batch_size=16, split="test")


def record(name, patient, study="", **more):
    return Record(id=name, image=f"{name}.png", patient_id=patient, study_id=study, **more)


ROWS = [
    record("a", "p", "s", view="PA", labels={"mass": 0.0, "edema": 0.0}),
    record("b", "q", "s", labels={"mass": 1.0}, text="Mass."),  # another patient's study of the same name
    record("c", "p", "s", view="LL", labels={"mass": 1.0, "edema": -1.0, "cyst": math.nan}, findings="Told here."),
    record("d", "p"),
    record("e", "p"),  # without a study id each image is one
]


def test_scores_of_studies_by_hand():
    scores = np.array([[1.0, -2.0], [0.3, 0.1], [0.5, 4.0], [0.1, 0.7], [-0.7, np.nan]])
    mean = studies_of(ROWS, "mean").scores(scores)
    np.testing.assert_array_equal(mean[0], [0.75, 1.0])
    highest = studies_of(ROWS, "max").scores(scores)
    np.testing.assert_array_equal(highest[0], [1.0, 4.0])
    for pooled in (mean, highest):
        np.testing.assert_array_equal(pooled[1:], scores[[1, 3, 4]])  # to the last bit
    np.testing.assert_array_equal(studies_of(ROWS, "max").scores(scores[:, 0]), highest[:, 0])


def test_vectors_of_studies_have_length_one_and_single_ones_stay():
    vectors = np.array([[1, 0], [0.6, 0.8], [0, 1], [0.8, 0.6], [0, 1]], np.float32)
    found = studies_of(ROWS, "embeddings").vectors(vectors)
    np.testing.assert_allclose(found[0], np.sqrt([0.5, 0.5]), rtol=1e-6)
    np.testing.assert_array_equal(found[1:], vectors[[1, 3, 4]])


def test_a_study_has_the_findings_the_report_and_the_views_of_its_images():
    found = studies_of(ROWS, "mean")
    assert found.owner.tolist() == [0, 1, 0, 2, 3]
    first = found.records[0]
    assert first.labels == {"mass": 1.0, "edema": -1.0}, "present before in doubt before absent; NaN tells nothing"
    assert (first.id, first.view, first.report) == ("a", "LL+PA", "FINDINGS: Told here.")
    assert found.records[1] == ROWS[1]
    assert found.differing == 1
    assert studies_of([ROWS[0], ROWS[0]], "mean").owner.tolist() == [0, 0]
    with pytest.raises(ConfigError, match="studies: expected one of mean, max, embeddings, got 'min'"):
        studies_of(ROWS, "min")


@pytest.fixture
def world(fakes, tmp_path):
    """A noisy model and a manifest with studies of one, two and three images; labels differ in one study."""
    rows = list(fakes.write_manifest(tmp_path / "data", patients=18, images=3))
    kept = [replace(r, study_id=f"s{i // 3}") for i, r in enumerate(rows) if not (i // 3 % 3 == 0 and i % 3)]
    kept[1] = replace(kept[1], labels={**kept[1].labels, "bulla": 1 - kept[1].labels["bulla"]})
    model = fakes.Model(noise=1.5, seed=4)
    manifest = Manifest(kept, tmp_path / "data")
    return model, manifest, embed_manifest(model, manifest)


@pytest.mark.parametrize("how", ["mean", "max", "embeddings"])
def test_an_evaluation_by_studies(fakes, world, how):
    model, manifest, embedded = world
    images = evaluate(model, embedded, fakes.classes, options=replace(FAST, negation=False))
    found = evaluate(model, embedded, fakes.classes, options=replace(FAST, studies=how))
    studies = manifest.studies()
    assert (len(found.records), found.n_images, found.unit) == (len(studies), len(manifest), "study")
    place = {id(record): row for row, record in enumerate(embedded.records)}
    for number, study in enumerate(studies):
        rows = [place[id(record)] for record in study.records]
        for setting, table in found.scores.items():
            own = images.scores[setting][rows]
            if len(rows) == 1:
                np.testing.assert_allclose(table[number], own[0], rtol=0, atol=1e-12)
            elif how != "embeddings":
                pooled = own.mean(axis=0) if how == "mean" else own.max(axis=0)
                np.testing.assert_allclose(table[number], pooled, rtol=0, atol=1e-12)
    for row in (r for r in found.results if r.metric == "auc" and r.setting == "NEG" and r.target in fakes.classes):
        column = fakes.classes.index(row.target)
        assert row.value == pytest.approx(auc(found.y_true[:, column], found.scores["NEG"][:, column]))
        assert row.n_groups == len({r.patient_id for r in found.records if row.target in r.labels})
        assert POOLINGS[how] in row.definition
    assert {r.provenance.pooling for r in found.results} == {how, "embeddings"}
    counts = {r.metric: r.value for r in found.results if r.task == "data"}
    assert (counts["images"], counts["studies"]) == (len(manifest), len(studies))
    negated = next(r for r in found.results if r.metric == "negation_auc" and r.setting == "PAIR")
    assert negated.n <= len(studies)
    assert any("1 studies have images whose labels differ" in remark for remark in found.remarks)


def test_studies_of_one_image_each_change_no_figure(fakes, world):
    model, _, embedded = world
    alone = replace(embedded, records=[replace(r, study_id="") for r in embedded.records])
    plain = evaluate(model, alone, fakes.classes, options=FAST)
    for how in POOLINGS:
        pooled = evaluate(model, alone, fakes.classes, options=replace(FAST, studies=how))
        for setting, table in plain.scores.items():
            np.testing.assert_array_equal(pooled.scores[setting], table)
        values = {(r.metric, r.target, r.setting, r.group): (r.value, r.low, r.high) for r in pooled.results}
        for row in (r for r in plain.results if r.task != "picture"):
            found = values[row.metric, row.target, row.setting, row.group]
            np.testing.assert_array_equal(found, (row.value, row.low, row.high))


def test_thresholds_and_controls_are_of_studies(fakes, world, monkeypatch):
    model, manifest, _ = world
    parts = [[r for r in manifest if (int(r.patient_id[1:]) < 9) is first] for first in (True, False)]
    train, test = (Manifest(part, manifest.root) for part in parts)
    embedded = embed_manifest(model, test)
    for how in POOLINGS:
        options = replace(FAST, studies=how, validation=train, negation=False, reports=False, subgroups=False)
        found = evaluate(model, embedded, fakes.classes, options=options)
        assert all(d.chosen for d in found.decisions.values())
        blank = [r for r in blank_image_results(fakes.Model(), found, embedded) if r.metric == "auc"]
        assert {r.value for r in blank} == {0.5}
        assert blank[0].n_groups == len({r.patient_id for r in found.records})
        assert len(text_only_results(model, found)) == 2
    each = np.arange(len(test), dtype=float)[:, None] * [1, 1, 1]
    monkeypatch.setattr(controls, "FITTED", {"by place": lambda train, test, labels: each})
    rows = run_controls(model, found, images=embedded, train=train, shuffles=2)
    ours = next(r for r in rows if (r.metric, r.setting, r.target) == ("auc", "by place", "cardiomegaly"))
    pooled = [each[found.studies.owner == s, 0].mean() for s in range(len(found.records))]
    assert ours.value == pytest.approx(auc(found.y_true[:, 0], pooled))


def test_the_page_and_the_command(world, tmp_path, monkeypatch, capsys):
    model, manifest, _ = world
    manifest.save(manifest.root / "manifest.csv")
    checkpoints = ModuleType("kvlp.checkpoints")
    checkpoints.load = lambda name, device="cpu": model
    monkeypatch.setitem(sys.modules, "kvlp.checkpoints", checkpoints)
    args = ["eval", "ckpt", "--data", manifest.root / "manifest.csv", "--out", tmp_path / "o", "--graph", "none"]
    args += ["--resamples", 5, "--json"]

    def run(*more):
        try:
            main([str(a) for a in (*args, *more)])
        except SystemExit as done:
            return done.code or 0
        return 0

    assert run("--studies", "max") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["images"] == len(manifest)
    assert document["studies"] == {"how": "max", "count": len(manifest.studies())}
    assert {row["pooling"] for row in document["rows"]} == {"max", "embeddings"}
    text = (tmp_path / "o" / "report.html").read_text(encoding="utf-8")
    assert f"A row is a study, {len(manifest.studies())} studies of {len(manifest)} images" in text
    assert ">study " in text or "study 1" in text or "study 2" in text
    assert run("--studies", "min") == 2
    assert "'mean', 'max' or 'embeddings'" in capsys.readouterr().err
    assert run("--studies", "embeddings", "--scorer", "query") == 2
