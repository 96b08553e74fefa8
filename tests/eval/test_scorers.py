"""Classes scored by a checkpoint's query network instead of by its encoders: rows, page, command, and what refuses."""

import json
import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from kvlp.cli import main
from kvlp.errors import CheckpointError, ConfigError, DataError
from kvlp.eval.controls import blank_image_results, text_only_results
from kvlp.eval.evaluate import EvalOptions, evaluate
from kvlp.eval.images import embed_manifest
from kvlp.eval.page.report import evaluation_blocks
from kvlp.eval.page.write import write_page
from kvlp.eval.results import read_results
from kvlp.zero_shot import Ensemble
from kvlp.zero_shot.scoring import Asked, scorer_of

FAST = EvalOptions(resamples=20, batch_size=16, split="test", scorer="query")


class Network:
    """Log-odds of 2 where what a sentence says is true of the image's first pixels, else -2; counts what it sees."""

    hash, source = "fake query", ""

    def __init__(self, names):
        self.names, self.seen = names, 0
        self.model = SimpleNamespace(preprocess=SimpleNamespace(resize_mode="squash"))

    def score(self, images, prompts):
        self.seen += len(images)
        return np.array([[self._odds(image, prompt) for prompt in prompts] for image in images], np.float32)

    def _odds(self, image, prompt):
        low = prompt.lower()
        named = [c for c, name in enumerate(self.names) if name in low]
        if not named:
            return 0.0
        true = (image[0, named[0]] > 127) != ("no " in low)
        return 2.0 if true else -2.0

    def score_vectors(self, vectors, prompts):
        return np.tile(np.arange(len(prompts), dtype=np.float32), (len(vectors), 1))

    def attention(self, images, prompts):
        return np.tile(np.array([[0.1, 0.2], [0.3, 0.4]], np.float32), (len(images), len(prompts), 1, 1))


@pytest.fixture
def model(fakes):
    """Encoders that hear no "no" and are noisy, with a network that reads the images without fault."""
    made = fakes.Model(noise=1.0, deaf_to_no=True)
    made.query = Network(fakes.classes)
    return made


def test_the_network_scores_classes_and_the_encoders_retrieve(fakes, model, tmp_path):
    manifest = fakes.write_manifest(tmp_path)
    embedded = embed_manifest(model, manifest)
    ours = evaluate(model, embedded, fakes.classes, options=FAST)
    theirs = evaluate(model, embedded, fakes.classes, options=replace(FAST, scorer="encoders"))
    by = {(r.metric, r.setting): r for r in ours.results if r.target == "macro"}
    for metric in ("auc", "negation_auc"):
        for setting in ("POS", "NEG", "PAIR"):
            assert by[metric, setting].value == 1.0, (metric, setting)
            assert "query network" in by[metric, setting].definition
    assert next(r for r in theirs.results if r.target == "macro" and r.setting == "NEG").value < 0.5
    column = ours.scores["POS"][:, 2]
    lines = ours.prompts["bulla"]["present"]
    odds = [np.mean([2.0 * (2 * r.labels["bulla"] - 1) * ("bulla" in s) for s in lines]) for r in manifest[:3]]
    np.testing.assert_allclose(column[:3], odds)
    kinds = {(r.provenance.scorer, r.provenance.model_hash) for r in ours.results}
    assert kinds == {("query", "fake query"), ("encoders", "fake")}
    for row in ours.results:
        assert (row.provenance.scorer == "encoders") == (row.metric.startswith(("precision", "lift", "recall", "retr",
                                                                               "preval"))), row.metric  # fmt: skip
    retrieved = [[r.to_dict() for r in e.results if r.metric.startswith("precision")] for e in (ours, theirs)]
    for a, b in zip(*retrieved, strict=True):
        assert {k: v for k, v in a.items() if k != "prompt_hash"} == {k: v for k, v in b.items() if k != "prompt_hash"}
    assert model.query.seen == len(manifest), "each picture is looked at once for all sentences"
    assert any("query network" in remark for remark in ours.remarks)


def test_thresholds_are_learned_on_the_networks_scores(fakes, model, tmp_path):
    whole = fakes.write_manifest(tmp_path)
    options = replace(FAST, validation=whole[:40], negation=False, reports=False)
    found = evaluate(model, whole[40:], fakes.classes, options=options)
    at = [r for r in found.results if r.metric in ("sensitivity", "specificity")]
    assert {r.value for r in at} == {1.0}
    assert all(d.scale == 1.0 for d in found.decisions.values())


def test_controls_ask_the_network_too(fakes, model, tmp_path):
    embedded = embed_manifest(model, fakes.write_manifest(tmp_path))
    result = evaluate(model, embedded, fakes.classes, options=replace(FAST, negation=False))
    blank = [r for r in blank_image_results(model, result, embedded) if r.metric == "auc"]
    assert {r.value for r in blank} == {0.5}
    texts = [r for r in text_only_results(model, result) if r.setting == "text only"]
    assert len(texts) == 1
    assert texts[0].provenance.scorer == "query"


def test_the_page_says_who_scored_and_where_it_looks(fakes, model, tmp_path):
    manifest = fakes.write_manifest(tmp_path)
    turned = [replace(r, labels={**r.labels, "cardiomegaly": float(i % 2)}) for i, r in enumerate(manifest)]
    manifest = type(manifest)(turned, manifest.root)
    result = evaluate(model, manifest, fakes.classes, options=replace(FAST, negation=False))
    page = write_page(tmp_path / "p.html", "t", evaluation_blocks(result, manifest=manifest, with_images=True))
    text = page.read_text(encoding="utf-8")
    assert "scored by the checkpoint&#39;s query network" in text or "scored by the checkpoint's query network" in text
    assert "where the query network looks" in text
    assert "what covering a place up takes" not in text


def test_without_a_network_or_without_pictures_is_one_line(fakes, model, tmp_path):
    bare = fakes.Model()
    with pytest.raises(CheckpointError, match=r"OneHotModel has no query network; expected .*query_network \(kad\)"):
        evaluate(bare, fakes.write_manifest(tmp_path), fakes.classes, options=FAST)
    embedded = replace(embed_manifest(model, fakes.write_manifest(tmp_path)), root=None)
    with pytest.raises(DataError, match="needs the pictures"):
        evaluate(model, embedded, fakes.classes, options=FAST)
    with pytest.raises(ConfigError, match="expected 'encoders' or 'query', got 'head'"):
        scorer_of(model, "head")
    assert isinstance(scorer_of(Ensemble([model, model]), "query").members[0], Network)


def test_what_is_asked_in_parts_is_what_is_asked_at_once(fakes, model, tmp_path):
    manifest = fakes.write_manifest(tmp_path, patients=3)
    lines = ["There is bulla.", "There is no cardiomegaly."]
    for who, images in ((model.query, manifest), (model, np.eye(6)[:5])):
        whole = Asked(who, images)
        table = whole.table([lines, [], lines[:1]])
        assert np.isnan(table[:, 1]).all()
        parts = Asked(who, images)
        np.testing.assert_allclose(parts.match(lines), table[:, 0], rtol=0, atol=1e-12)
        np.testing.assert_allclose(parts.match(lines[:1]), table[:, 2], rtol=0, atol=1e-12)
        assert whole.read.all()


def test_the_command(fakes, model, tmp_path, monkeypatch, capsys):
    manifest = fakes.write_manifest(tmp_path / "data")
    manifest.save(tmp_path / "data" / "manifest.csv")
    checkpoints = ModuleType("kvlp.checkpoints")
    checkpoints.load = lambda name, device="cpu": model if name == "kad" else fakes.Model()
    monkeypatch.setitem(sys.modules, "kvlp.checkpoints", checkpoints)

    def run(checkpoint, *more):
        args = ["eval", checkpoint, "--data", tmp_path / "data" / "manifest.csv", "--out", tmp_path / "out"]
        try:
            main([str(a) for a in (*args, "--graph", "none", "--resamples", 5, "--json", *more)])
        except SystemExit as done:
            return done.code or 0
        return 0

    assert run("kad", "--scorer", "query") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["scorer"] == "query"
    rows = read_results(tmp_path / "out" / "results.jsonl")
    assert [r.to_dict() for r in rows] == document["rows"]
    assert {r.provenance.scorer for r in rows} == {"query", "encoders"}
    assert run("plain", "--scorer", "query") == 1
    said = capsys.readouterr().err
    assert len(said.strip().splitlines()) == 1
    assert "has no query network" in said
    assert run("kad", "--scorer", "head") == 2
