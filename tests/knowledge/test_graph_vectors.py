"""Concept vectors: what is kept of them, the cache, words alone, and settings that are refused."""

from __future__ import annotations

import json
import logging
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from kvlp.errors import ConfigError, KnowledgeError, ShapeError
from kvlp.knowledge.embedding import METHODS, ConceptVectors, cache_folder, embed
from kvlp.knowledge.embedding.settings import resolve
from kvlp.knowledge.embedding.text import concept_text
from kvlp.knowledge.graph import Concept, KnowledgeGraph, Relation

NAMES = ["heart", "heart failure", "large heart", "lung", "lung nodule", "lung mass", "rib", "rib fracture"]


def small_graph(definition: str = "") -> KnowledgeGraph:
    concepts = [Concept(id=n.replace(" ", "_"), name=n, definition=definition) for n in NAMES]
    pairs = [("heart_failure", "heart"), ("large_heart", "heart"), ("lung_nodule", "lung"), ("lung_mass", "lung")]
    relations = [Relation(a, "located_in", b) for a, b in [*pairs, ("rib_fracture", "rib")]]
    relations.append(Relation("large_heart", "manifestation_of", "heart_failure"))
    return KnowledgeGraph(concepts, relations, name="small", licence="ours")


@pytest.fixture
def vectors() -> ConceptVectors:
    return embed(small_graph(), "random", cache=False, dim=4, seed=3)


def test_a_row_for_each_concept_by_id_and_in_the_order_asked_for(vectors: ConceptVectors):
    assert vectors.vectors.shape == (8, 4)
    assert vectors.vectors.dtype == np.float32
    assert vectors.ids[1] == "heart_failure"
    np.testing.assert_array_equal(vectors["heart_failure"], vectors.vectors[1])
    np.testing.assert_array_equal(vectors.rows(["rib", "heart"]), vectors.vectors[[6, 0]])
    assert vectors.rows([]).shape == (0, 4)
    with pytest.raises(KnowledgeError, match=r"no vector for the concept 'hart' .* did you mean heart"):
        vectors["hart"]


def test_nearest_by_hand():
    array = np.array([[1, 0], [0, 2], [3, 4], [-1, 0]], dtype=np.float32)
    four = ConceptVectors(("a", "b", "c", "d"), array, "random", {}, {"name": "x"})
    assert four.nearest("a", 3) == [("c", pytest.approx(0.6)), ("b", 0.0), ("d", -1.0)]


def test_wrong_arrays_are_refused():
    about = {"method": "random", "settings": {}, "graph": {"name": "x"}}
    with pytest.raises(ShapeError, match=r"float32 vectors of shape \(2, D\), got float64"):
        ConceptVectors(("a", "b"), np.zeros((2, 3)), **about)
    with pytest.raises(KnowledgeError, match="an id comes twice"):
        ConceptVectors(("a", "a"), np.zeros((2, 3), np.float32), **about)
    with pytest.raises(KnowledgeError, match="NaN or infinity"):
        ConceptVectors(("a", "b"), np.full((2, 3), np.nan, np.float32), **about)


def test_saved_vectors_come_back_with_all_that_is_known_of_them(vectors: ConceptVectors, tmp_path: Path):
    again = ConceptVectors.load(vectors.save(tmp_path / "v"))
    np.testing.assert_array_equal(again.vectors, vectors.vectors)
    assert (again.ids, again.method, again.settings) == (vectors.ids, "random", {"dim": 4, "seed": 3})
    assert again.graph == {"name": "small", "hash": small_graph().content_hash, "licence": "ours"}
    assert sorted(p.name for p in (tmp_path / "v").iterdir()) == ["vectors.json", "vectors.npy"]


def damage(folder: Path, how: str) -> None:
    array, about = folder / "vectors.npy", folder / "vectors.json"
    if how == "cut":
        array.write_bytes(array.read_bytes()[:-3])
    elif how == "altered":
        data = bytearray(array.read_bytes())
        data[-1] ^= 1
        array.write_bytes(data)
    elif how == "array gone":
        array.unlink()
    elif how == "about gone":
        about.unlink()
    elif how == "about cut":
        about.write_bytes(about.read_bytes()[:40])
    elif how == "other format":
        about.write_text(json.dumps({**json.loads(about.read_text()), "format": 99}))
    else:
        about.write_text(json.dumps({**json.loads(about.read_text()), "ids": "heart"}))


DAMAGES = {
    "cut": "not the array that vectors.json tells of",
    "altered": "not the array that vectors.json tells of",
    "array gone": r"vectors\.npy: cannot be read",
    "about gone": r"found no vectors\.json",
    "about cut": "is it cut off",
    "other format": "expected format 1, got 99",
    "ids of another kind": "ids missing or of another kind",
}


@pytest.mark.parametrize("how", DAMAGES)
def test_damaged_files_get_one_line(vectors: ConceptVectors, tmp_path: Path, how: str):
    folder = vectors.save(tmp_path / "v")
    damage(folder, how)
    with pytest.raises(KnowledgeError, match=DAMAGES[how]) as caught:
        ConceptVectors.load(folder)
    assert "\n" not in str(caught.value)


def test_a_file_is_no_folder_to_save_to(vectors: ConceptVectors, tmp_path: Path):
    (tmp_path / "v").write_text("x")
    with pytest.raises(KnowledgeError, match="found a file"):
        vectors.save(tmp_path / "v")


# ---- the cache -------------------------------------------------------------------------------------------------------


def test_the_cache_is_asked_by_content_and_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made = []
    from kvlp.knowledge.embedding import fit as module

    real = module.fit
    monkeypatch.setattr(module, "fit", lambda *a, **k: (made.append(1), real(*a, **k))[1])
    graph = small_graph()
    first = graph.embed("random", cache=tmp_path, dim=4)
    again = graph.renamed("other").embed("random", cache=tmp_path, dim=4)  # a name is no content
    assert len(made) == 1
    np.testing.assert_array_equal(first.vectors, again.vectors)
    graph.embed("random", cache=tmp_path, dim=6)
    graph.embed("random", cache=tmp_path, dim=4, seed=1)
    small_graph("a definition").embed("random", cache=tmp_path, dim=4)
    assert len(made) == 4
    assert len(list(tmp_path.iterdir())) == 4
    graph.embed("random", cache=False, dim=4)
    assert len(made) == 5


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_cache_is_made_anew_and_said(tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture):
    first = small_graph().embed("random", cache=tmp_path, dim=4)
    (place,) = tmp_path.iterdir()
    damage(place, how)
    with caplog.at_level(logging.WARNING):
        again = small_graph().embed("random", cache=tmp_path, dim=4)
    assert "damaged and are made anew" in caplog.text
    np.testing.assert_array_equal(first.vectors, again.vectors)
    np.testing.assert_array_equal(ConceptVectors.load(place).vectors, first.vectors)


def test_a_cache_that_cannot_be_written_is_no_reason_to_fail(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (tmp_path / "file").write_text("x")
    with caplog.at_level(logging.WARNING):
        assert len(small_graph().embed("random", cache=tmp_path / "file", dim=4)) == 8
    assert "are not cached" in caplog.text


def test_the_users_cache_folder_can_be_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("KVLP_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "kvlp" / "vectors"
    monkeypatch.setenv("KVLP_CACHE", str(tmp_path / "mine"))
    small_graph().embed("random", dim=4)
    assert len(list((tmp_path / "mine" / "vectors").iterdir())) == 1


# ---- settings --------------------------------------------------------------------------------------------------------


def test_every_method_has_a_length_and_a_seed():
    assert all({"dim", "seed"} <= set(resolve(method)) for method in METHODS)


@pytest.mark.parametrize(
    ("method", "given", "message"),
    [
        ("trans", {}, "got 'trans'; did you mean 'transe'"),
        ("transe", {"epoch": 3}, "no setting 'epoch'; did you mean 'epochs'"),
        ("text", {"lr": 0.1}, "method 'text' has no setting 'lr'; it has dim, seed"),
        ("transe", {"dim": 0}, "dim: expected a whole number from 1, got 0"),
        ("transe", {"dim": 2.5}, "dim: expected a whole number"),
        ("transe", {"lr": 0}, "lr: expected a number above 0"),
        ("transe", {"seed": -1}, "seed: expected a whole number from 0"),
        ("gat", {"relation_types": 1}, "relation_types: expected true or false"),
        ("gat", {"start": "bert"}, "start: expected one of random, text, transe"),
        ("complex", {"dim": 7}, "expected an even dim, got 7"),
    ],
)
def test_wrong_settings_are_named(method: str, given: dict[str, object], message: str):
    with pytest.raises(ConfigError, match=message):
        resolve(method, given)


# ---- words alone -----------------------------------------------------------------------------------------------------


def test_the_text_of_a_concept_holds_names_and_definition():
    concept = Concept(id="x", name="pneumothorax", synonyms=("ptx",), definition="Air beside the lung.")
    assert concept_text(concept) == "pneumothorax; ptx. Air beside the lung."


def test_letter_vectors_bring_like_names_together():
    made = embed(small_graph(), "text", cache=False, dim=5)
    np.testing.assert_allclose(np.linalg.norm(made.vectors, axis=1), 1, atol=1e-6)
    assert {made.nearest("lung_nodule", 1)[0][0], made.nearest("lung_mass", 1)[0][0]} <= {"lung", "lung_mass"} | {
        "lung_nodule"
    }
    assert made.nearest("rib", 1)[0][0] == "rib_fracture"
    np.testing.assert_array_equal(made.vectors, embed(small_graph(), "text", cache=False, dim=5).vectors)


def test_letter_vectors_need_no_relations_but_enough_concepts():
    bare = KnowledgeGraph(small_graph().concepts, [], name="bare")
    assert embed(bare, "text", cache=False, dim=3).dim == 3
    with pytest.raises(KnowledgeError, match="expected a dim below 8"):
        embed(bare, "text", cache=False, dim=8)
    with pytest.raises(KnowledgeError, match="has no relations to learn vectors from; use method='text'"):
        embed(bare, "gat", cache=False)


def test_an_encoder_of_yours_gives_the_vectors(tmp_path: Path):
    def encoder(texts):
        return np.array([[t.count("e"), t.count("l"), len(t)] for t in texts], dtype=np.float64)

    made = embed(small_graph(), "text", encoder=encoder, cache=tmp_path)
    assert made.dim == 3
    assert made.settings["encoder"] == "a function"
    assert not list(tmp_path.iterdir())  # what a function does cannot be known: nothing is remembered
    assert embed(small_graph(), "text", encoder=encoder, dim=2, cache=False).dim == 2
    with pytest.raises(ShapeError, match=r"expected \(8, D\) vectors"):
        embed(small_graph(), "text", encoder=lambda texts: np.zeros((3, 2)), cache=False)
    with pytest.raises(ConfigError, match="an encoder belongs to method 'text'"):
        embed(small_graph(), "random", encoder=encoder, cache=False)


@pytest.mark.slow
def test_a_folder_of_a_transformers_encoder(tmp_path: Path):
    from transformers import BertConfig, BertModel

    from kvlp.tokenizers import build_tokenizer

    tokenizer = build_tokenizer([], KnowledgeGraph.load("chest"), vocab_size=400)
    tokenizer.save_pretrained(tmp_path / "bert")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=8, num_attention_heads=2, num_hidden_layers=1, intermediate_size=8
    )
    model = BertModel(config, add_pooling_layer=False).eval()
    model.save_pretrained(tmp_path / "bert")
    made = embed(small_graph(), "text", encoder=tmp_path / "bert", cache=tmp_path / "cache")
    inputs = tokenizer([concept_text(small_graph()["rib"])], return_tensors="pt")
    with torch.no_grad():
        mean = model(**inputs).last_hidden_state[0].mean(dim=0).numpy()
    np.testing.assert_allclose(made["rib"], mean / np.linalg.norm(mean), atol=1e-5)
    assert len(list((tmp_path / "cache").iterdir())) == 1
    with pytest.raises(ConfigError, match="expected a folder with a transformers model"):
        embed(small_graph(), "text", encoder=tmp_path / "nothing", cache=False)


# ---- order in randomness ---------------------------------------------------------------------------------------------


def test_the_callers_random_state_is_left_alone():
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = random.random(), np.random.rand(), float(torch.rand(()))
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    threads = torch.get_num_threads()
    embed(small_graph(), "gat", cache=False, dim=8, epochs=2, threads=1)
    assert (random.random(), np.random.rand(), float(torch.rand(()))) == expected
    assert torch.get_num_threads() == threads
