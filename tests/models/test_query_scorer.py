"""A query network of a checkpoint as a scorer: in parts, by vectors, in a classifier, and its maps from the command."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import kvlp
from kvlp import checkpoint_query
from kvlp.cli import main
from kvlp.datasets.manifest import Manifest, Record
from kvlp.errors import ConfigError
from kvlp.eval.evaluate import EvalOptions, evaluate
from kvlp.eval.page.pictures import Pictures
from kvlp.models.image_tokens import encode_with_tokens
from kvlp.models.preprocess import Preprocess
from kvlp.models.query_network import QueryNetwork
from kvlp.zero_shot import ZeroShotClassifier
from kvlp.zero_shot.heat import attention_map

pytestmark = pytest.mark.filterwarnings("ignore::kvlp.zero_shot.scoring.ImplausibleImageWarning")
SAID = ["There is a mass.", "No mass.", "The heart is enlarged.", "No effusion.", "There is an effusion."]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: Any, tiny_module: Any, tiny_cfg: Any, tiny_tokenizer: Any) -> Path:
    """A checkpoint with a query network of random weights."""
    from kvlp.checkpoints import save_checkpoint

    torch.manual_seed(1)
    network = QueryNetwork(32, layers=2, heads=4, ffn=32, dropout=0.0)
    extra = {f"query.{name}": tensor for name, tensor in network.state_dict().items()}
    card = {"name": "asks", "query_network": network.settings}
    size = Preprocess(size=64).to_dict()
    out = tmp_path_factory.mktemp("asks") / "model"
    return save_checkpoint(out, tiny_module, tiny_cfg, size, tiny_tokenizer, card, extra=extra)


@pytest.fixture(scope="module")
def model(folder: Path) -> kvlp.Model:
    return kvlp.load(folder)


def test_parts_of_the_queries_give_what_all_give_at_once(model: Any, pictures: Any, monkeypatch: Any):
    whole, maps = model.query.score(pictures, SAID), model.query.attention(pictures, SAID)
    monkeypatch.setattr(checkpoint_query, "_QUERIES", 2)
    np.testing.assert_allclose(model.query.score(pictures, SAID), whole, rtol=0, atol=1e-5)
    np.testing.assert_allclose(model.query.attention(pictures, SAID), maps, rtol=0, atol=1e-6)


@torch.inference_mode()
def test_a_vector_alone_is_seen_as_the_only_place(model: Any, sentences: Any):
    vectors = model.encode_text(sentences)
    found = model.query.score_vectors(vectors, SAID)
    queries = torch.from_numpy(model.encode_text(SAID))
    for row, vector in zip(found, vectors, strict=True):
        logits = model.query.network(queries, torch.from_numpy(vector)[None, None])[0]
        np.testing.assert_allclose(row, (logits[:, 1] - logits[:, 0]).numpy(), rtol=0, atol=1e-5)


@torch.inference_mode()
def test_a_classifier_takes_the_mean_log_odds_of_its_sentences(model: Any, pictures: Any):
    clf = ZeroShotClassifier(model.query, ["mass", "effusion"], style="plain", batch_size=2)
    tokens = encode_with_tokens(model.module.visual, model.pixels(pictures, 0, 3)).tokens
    for column, name in enumerate(clf.classes_):
        decision = 0.0
        for kind, sign in (("present", 1), ("absent", -1)):
            logits = model.query.network(torch.from_numpy(model.encode_text(clf.prompts(name)[kind])), tokens)
            decision = decision + sign * (logits[..., 1] - logits[..., 0]).mean(dim=1).numpy()
        np.testing.assert_allclose(clf.decision_function(pictures)[:, column], decision, rtol=0, atol=1e-5)


def test_the_map_is_the_mean_attention_enlarged(model: Any, pictures: Any):
    heat = attention_map(model.query, pictures[1], SAID[:2])
    assert heat is not None
    looked = model.query.attention(pictures[1:2], SAID[:2])[0].mean(axis=0)
    assert (heat.method, heat.values.shape, heat.cells) == ("attention", pictures[1].shape, looked.shape)
    assert heat.high <= looked.max() + 1e-6
    row, column = np.unravel_index(looked.argmax(), looked.shape)
    height, width = heat.values.shape
    side = max(height, width)  # the square that the model sees is centred on the image
    at = ((heat.peak[0] + (side - height) / 2) / side, (heat.peak[1] + (side - width) / 2) / side)
    assert (int(at[0] * looked.shape[0]), int(at[1] * looked.shape[1])) == (row, column)
    assert attention_map(model, pictures[1], SAID) is None
    with pytest.raises(ConfigError, match=r"heat 'attention' is of a query network"):
        ZeroShotClassifier(model, ["mass"]).explain(pictures[0], "mass", "attention")


def test_an_evaluation_by_the_network_of_a_real_checkpoint(model: Any, tmp_path: Path):
    rng, rows = np.random.default_rng(5), []
    for i in range(6):
        Image.fromarray(rng.integers(0, 256, (64, 64), dtype=np.uint8)).save(tmp_path / f"{i}.png")
        labels = {"mass": float(i % 2), "effusion": float(i // 3)}
        rows.append(Record(id=str(i), image=f"{i}.png", patient_id=f"p{i}", study_id=f"s{i // 2}", labels=labels))
    manifest = Manifest([replace(r, patient_id=f"p{i // 2}") for i, r in enumerate(rows)], tmp_path)
    options = EvalOptions(resamples=3, scorer="query", style="plain", negation=False, controls=True, subgroups=False)
    result = evaluate(model, manifest, ["mass", "effusion"], options=options)
    greys = [np.asarray(Image.open(manifest.path_of(record))) for record in manifest]
    for column, name in enumerate(result.classes):
        states, denies = (model.query.score(greys, result.prompts[name][k]).mean(axis=1) for k in ("present", "absent"))
        np.testing.assert_allclose(result.scores["POS"][:, column], states, rtol=0, atol=1e-5)
        np.testing.assert_allclose(result.scores["PAIR"][:, column], states - denies, rtol=0, atol=1e-5)
    assert result.provenance.model_hash == model.query.hash
    assert result.by_encoders.model_hash == model.hash
    assert any(row.setting == "text only" for row in result.controls)
    assert Pictures(result, manifest).for_class(0, "mass")[1].startswith("data:image/")
    pooled = evaluate(model, manifest, ["mass", "effusion"], options=replace(options, studies="max", controls=False))
    for setting in ("POS", "NEG", "PAIR"):
        np.testing.assert_allclose(
            pooled.scores[setting], result.scores[setting].reshape(3, 2, 2).max(axis=1), atol=1e-5
        )


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as exit_:
        main([str(argument) for argument in arguments])
    return int(exit_.value.code or 0)


def test_the_command_scores_and_explains_by_the_network(folder: Path, tmp_path: Path, model: Any, capsys: Any):
    picture = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(3).integers(0, 256, (70, 80), dtype=np.uint8)).save(picture)
    args = ["zeroshot", folder, picture, "--classes", "mass", "--graph", "none", "--json"]
    maps = ["--explain", tmp_path / "why", "--heat", "attention"]
    assert run(*args, "--scorer", "query", *maps) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["scorer"], document["model_hash"]) == ("query", model.query.hash)
    clf = ZeroShotClassifier(model.query, ["mass"])
    assert document["images"][0]["scores"]["mass"] == pytest.approx(clf.predict_proba([picture])[0, 0], abs=1e-5)
    why = json.loads((tmp_path / "why" / "explanations.json").read_text())
    assert why[0]["heat"]["method"] == "attention"
    assert (tmp_path / "why" / why[0]["picture"]).is_file()
    assert run(*args) == 0
    assert json.loads(capsys.readouterr().out)["scorer"] == "encoders"
    assert run(*args, *maps) == 2
    assert "add --scorer query" in capsys.readouterr().err
    assert run(*args, "--scorer", "head") == 2


def test_a_checkpoint_without_a_network_is_one_line(tiny_folder: Path, tmp_path: Path, capsys: Any):
    bare = tmp_path / "bare"
    shutil.copytree(tiny_folder, bare)
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(tmp_path / "a.png")
    assert run("zeroshot", bare, tmp_path / "a.png", "--classes", "mass", "--scorer", "query") == 1
    said = capsys.readouterr().err.strip()
    assert len(said.splitlines()) == 1
    assert "bare has no query network; train one by a recipe with query_network (kad)" in said
