"""A trained fusion in use: answers to questions, classes of pairs, and the best of a retrieval put in order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import kvlp
from kvlp.checkpoints import Model, save_checkpoint
from kvlp.datasets.manifest import Manifest
from kvlp.datasets.readers.questions import question_record
from kvlp.errors import CheckpointError, ConfigError, DataError
from kvlp.knowledge.graph import KnowledgeGraph
from kvlp.models.dual_encoder import build_dual_encoder
from kvlp.models.preprocess import Preprocess
from kvlp.models.towers import model_config
from kvlp.tokenizers import TextTokenizer, build_tokenizer
from kvlp.training import pairs as pairs_module
from kvlp.training.fine_tune import FineTuneSettings, PairClassifier, answer_list
from kvlp.training.fusion import FusionPart, build_fusion
from kvlp.training.pairs import PairEncoder, reranked
from kvlp.workflows.answers import fine_tune_answers

SIZE = 24
SIZES = {"width": 32, "heads": 2, "layers": 2, "tap": 1, "entity_width": 16, "entity_heads": 2, "entity_hidden": 16}
QUESTIONS = ("Is the image bright?", "Is the image dark?")
FAST = FineTuneSettings(epochs=1, batch_size=16, lr=1e-3, fusion_lr=1, head_lr=1, augment=False)


@pytest.fixture(scope="module")
def graph() -> KnowledgeGraph:
    return KnowledgeGraph.load("chest")


@pytest.fixture(scope="module")
def checkpoint(graph: KnowledgeGraph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with an untrained fusion."""
    from kvlp.knowledge.embedding import ConceptVectors

    torch.manual_seed(0)
    texts = [(str(i), text) for i in range(3) for text in (*QUESTIONS, "pleural effusion pneumothorax bright dark")]
    tokenizer = build_tokenizer(texts, vocab_size=300, min_patients=1, context_length=16)
    cfg = model_config(
        "tiny-vit", "tiny-bert", vocab_size=len(tokenizer), eos_id=tokenizer.sep_token_id, embed_dim=16,
        image_size=SIZE, context_length=16,
    )  # fmt: skip
    module = build_dual_encoder(cfg)
    concepts = ("pleural_effusion", "pneumothorax")
    vectors = ConceptVectors(concepts, np.eye(2, 4, dtype=np.float32), "random", {}, {"name": "chest"})
    part = FusionPart(**SIZES, decoder_width=16, decoder_layers=1, decoder_heads=2)
    words = TextTokenizer.wrap(tokenizer)
    head = build_fusion(
        part, module, SIZE, concepts, vectors, vocab_size=len(tokenizer), context=16, pad_id=words.pad_id
    )
    folder = tmp_path_factory.mktemp("model") / "checkpoint"
    extra = {f"fusion.{name}": value for name, value in head.state_dict().items()}
    card = {"fusion": head.settings}
    return save_checkpoint(folder, module, cfg, Preprocess(size=SIZE).to_dict(), tokenizer, card, extra=extra)


@pytest.fixture(scope="module")
def images() -> list[Any]:
    """Bright and dark in turn."""
    rng = np.random.default_rng(0)
    return [rng.normal(60 + 130 * (i % 2), 10, (SIZE, SIZE)).clip(0, 255).astype(np.uint8) for i in range(16)]


def planted(images: list[Any]) -> tuple[list[Any], list[str], list[str]]:
    """Both questions about every image: neither the question nor the image alone tells the answer."""
    rows = [(image, i % 2, question) for i, image in enumerate(images) for question in (0, 1)]
    answers = ["Yes" if bright != question else "no" for _, bright, question in rows]
    return [image for image, _, _ in rows], [QUESTIONS[q] for _, _, q in rows], answers


@pytest.fixture(scope="module")
def fitted(checkpoint: Path, images: list[Any], graph: KnowledgeGraph) -> PairClassifier:
    return PairClassifier.fit(kvlp.load(checkpoint), *planted(images), graph, settings=FAST)


@pytest.mark.slow
def test_image_and_question_together_tell_the_answer(checkpoint: Path, images: list[Any]) -> None:
    settings = FAST.model_copy(update={"epochs": 25, "batch_size": 8})
    seen, questions, answers = planted(images)
    trained = PairClassifier.fit(kvlp.load(checkpoint), seen, questions, answers, settings=settings)
    right = [a == b.casefold() for a, b in zip(trained.predict(seen, questions), answers, strict=True)]
    assert np.mean(right) > 0.9


def test_answers_have_probabilities(fitted: PairClassifier, images: list[Any]) -> None:
    seen, questions, _ = planted(images)
    assert fitted.answers == ("no", "yes")
    table = fitted.predict_proba(seen[:3], questions[:3])
    assert table.shape == (3, 2)
    np.testing.assert_allclose(table.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(fitted.predict_proba(seen[:3], questions[:3], batch_size=1), table, atol=1e-5)


@pytest.mark.slow
def test_a_fine_tuned_model_comes_back(
    fitted: PairClassifier, images: list[Any], graph: KnowledgeGraph, tmp_path: Path, checkpoint: Path
) -> None:
    seen, questions, _ = planted(images)
    again = PairClassifier.load(fitted.save(tmp_path / "answers"), graph)
    np.testing.assert_array_equal(again.predict_proba(seen, questions), fitted.predict_proba(seen, questions))
    assert kvlp.load(tmp_path / "answers").encode_image(images[:1]).shape == (1, 16)
    with pytest.raises(CheckpointError, match="has no head of answers"):
        PairClassifier.load(checkpoint)


def test_a_blind_one_sees_no_image(checkpoint: Path, images: list[Any]) -> None:
    settings = FAST.model_copy(update={"blind": True})
    seen, questions, answers = planted(images)
    blind = PairClassifier.fit(kvlp.load(checkpoint), seen, questions, answers, settings=settings)
    table = blind.predict_proba(images[:2], [QUESTIONS[0]] * 2)
    np.testing.assert_allclose(table[0], table[1], atol=1e-6)


def test_answers_are_counted_without_case() -> None:
    assert answer_list(["Yes", "yes ", "no", "left", "left", "Left"]) == ("left", "yes", "no")
    assert answer_list(["a", "b", "b"], min_count=2) == ("b",)


def test_what_cannot_be_fitted_is_named(checkpoint: Path, images: list[Any]) -> None:
    with pytest.raises(DataError, match="at least two kinds of answers, got 1, 1, 1 and 1"):
        PairClassifier.fit(kvlp.load(checkpoint), images[:1], ["a"], ["b"])
    with pytest.raises(CheckpointError, match=r"phantom-tiny has no fusion; train one by a recipe with it \(arl\)"):
        PairEncoder(kvlp.load("phantom-tiny"))
    model = kvlp.load(checkpoint)
    model.card["fusion"] = {**model.card["fusion"], "width": 64}
    with pytest.raises(CheckpointError, match="its fusion does not fit its settings"):
        PairEncoder(model)


@pytest.mark.slow
@pytest.mark.parametrize("by", ["text", "image"])
def test_fusion_orders_the_best_of_the_two_towers(
    by: str, checkpoint: Path, images: list[Any], graph: KnowledgeGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = kvlp.load(checkpoint)
    encoder = PairEncoder(model, graph)
    texts = ["pleural effusion", "bright", "dark pneumothorax", "no pneumothorax"]
    fused = []
    monkeypatch.setattr(pairs_module, "BATCH", 5)
    forward = PairEncoder.forward
    monkeypatch.setattr(PairEncoder, "forward", lambda self, *a: fused.append(len(a[0])) or forward(self, *a))
    found, odds = reranked(model, encoder, images, texts, k=3, by=by)
    queries = len(texts) if by == "text" else len(images)
    assert found.shape == odds.shape == (queries, 3)
    assert sum(fused) == 3 * queries  # not every pair
    similarity = model.encode_text(texts) @ model.encode_image(images).T
    similarity = similarity if by == "text" else similarity.T
    for query in range(queries):
        assert set(found[query]) == set(np.argsort(-similarity[query], kind="stable")[:3])
        assert (np.diff(odds[query]) <= 0).all()
        for candidate, expected in zip(found[query], odds[query], strict=True):
            image, text = (candidate, query) if by == "text" else (query, candidate)
            with torch.no_grad():
                pair = forward(
                    encoder, encoder.places(model.pixels(images, image, image + 1)), encoder.read([texts[text]])
                )
                assert float(encoder.head.matches(pair)) == pytest.approx(expected, abs=1e-4)
    with pytest.raises(ConfigError, match="by 'text' or 'image'"):
        reranked(model, encoder, images, texts, by="words")


def test_entities_reach_the_pair(checkpoint: Path, images: list[Any], graph: KnowledgeGraph) -> None:
    model: Model = kvlp.load(checkpoint)
    with_graph, without = PairEncoder(model, graph), PairEncoder(model)
    read = with_graph.read(["pleural effusion"])
    assert read["entities"].tolist() == [[0]]
    assert without.read(["pleural effusion"])["entities"].tolist() == [[-1]]
    places = with_graph.places(model.pixels(images, 0, 1))
    assert not torch.allclose(with_graph(places, read), without(places, without.read(["pleural effusion"])))


def test_a_folder_of_questions_becomes_figures(checkpoint: Path, images: list[Any], tmp_path: Path) -> None:
    seen, questions, answers = planted(images)
    records = []
    for number, (question, answer) in enumerate(zip(questions, answers, strict=True)):
        Image.fromarray(seen[number]).save(tmp_path / f"{number // 2}.png")
        records.append(
            question_record(
                f"q{number}", f"{number // 2}.png", question, answer, closed=True, kind="PRES",
                patient_id=f"p{number // 2}", split="train",
            )
        )  # fmt: skip
    Manifest(records, tmp_path).save(tmp_path / "manifest.csv")
    run = fine_tune_answers(checkpoint, tmp_path / "manifest.csv", tmp_path / "out", settings=FAST, resamples=50)
    assert "one fifth of the images was held out" in run.notes[0]
    told = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    assert {row["answer"] for row in told} <= {"yes", "no"}
    rows = {(row.target, row.setting): row for row in run.results}
    assert rows["closed", "fused"].n == len(told)
    assert {"fused", "question only", "fused minus question only"} <= {setting for _, setting in rows}
    assert (run.checkpoint / "kvlp.json").is_file()
    with pytest.raises(ConfigError, match="already holds a fine-tuned model"):
        fine_tune_answers(checkpoint, tmp_path / "manifest.csv", tmp_path / "out")
