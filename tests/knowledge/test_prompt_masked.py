"""A masked language model as back-end: small models that the tests write, one with weights whose answer is known."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from kvlp.errors import CheckpointError, ConfigError
from kvlp.knowledge.graph import Concept, KnowledgeGraph
from kvlp.knowledge.prompts import AttributePrompts, MaskedBackend

WORDS = [
    *(
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "the",
        "typical",
        "color",
        "shape",
        "texture",
        "location",
        "of",
        "is",
    ),
    *(
        "at",
        "a",
        ".",
        "opacity",
        "edema",
        "effusion",
        "white",
        "black",
        "gray",
        "round",
        "oval",
        "hazy",
        "lung",
        "base",
    ),
    *("ground", "##glass", "glass", "##y", "it", "unknown"),
]
COLOR = "The typical color of {x} is {mask}."
#: what the planted model says at every mask
LOGITS = {
    "white": 3.0,
    "gray": 2.0,
    "black": 1.0,
    "ground": 0.0,
    "##glass": 1.0,
    "the": 9.0,
    "it": 8.0,
    "opacity": 5.0,
}
ID = {word: i for i, word in enumerate(WORDS)}


def write_model(folder: Path, *, seed: int = 0, plant: dict[str, float] | None = None, **config: Any) -> Path:
    """A BertForMaskedLM of two narrow layers; `plant` gives every mask these logits, whatever stands around it."""
    from transformers import BertConfig, BertForMaskedLM, BertTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    BertTokenizer(str(folder / "vocab.txt"), do_lower_case=True).save_pretrained(str(folder))
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    model = BertForMaskedLM(
        BertConfig(vocab_size=len(WORDS), max_position_embeddings=40, **{**sizes, **config})  # type: ignore[arg-type]
    ).eval()
    if plant is not None:
        with torch.no_grad():
            model.cls.predictions.decoder.weight.zero_()
            model.cls.predictions.bias.copy_(torch.tensor([plant.get(word, -20.0) for word in WORDS]))
    model.save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("planted"), plant=LOGITS)


@pytest.fixture(scope="module")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("random"), seed=1, initializer_range=1.0)


def planted_probabilities() -> dict[str, float]:
    total = sum(math.exp(LOGITS.get(word, -20.0)) for word in WORDS)
    return {word: math.exp(LOGITS.get(word, -20.0)) / total for word in WORDS}


def test_the_planted_answer_is_found_with_its_probability(planted: Path) -> None:
    p = planted_probabilities()
    backend = MaskedBackend(planted, top_k=2)
    found = backend.answer(COLOR, "opacity", ["black", "white", "gray"])
    assert [word for word, _ in found] == ["white", "gray"]
    assert [score for _, score in found] == pytest.approx([p["white"], p["gray"]], rel=1e-5)


def test_the_open_vocabulary_is_filtered(planted: Path) -> None:
    """No special token, no piece of a word, no stop word, no short word, not the name itself."""
    found = MaskedBackend(planted, top_k=50).answer(COLOR, "opacity")
    words = [word for word, _ in found]
    assert words[:4] == ["white", "gray", "black", "ground"]
    assert not {"the", "it", "opacity", "##glass", "[MASK]", ".", "unknown"} & set(words)
    ((word, score),) = MaskedBackend(planted, top_k=1).answer(COLOR, "edema")
    assert word == "opacity"
    assert score == pytest.approx(planted_probabilities()["opacity"], rel=1e-5)


def test_several_pieces_score_by_their_geometric_mean(planted: Path) -> None:
    p = planted_probabilities()
    scores = dict(MaskedBackend(planted).answer(COLOR, "opacity", ["groundglass", "black"]))
    assert scores["groundglass"] == pytest.approx(math.sqrt(p["ground"] * p["##glass"]), rel=1e-5)
    assert scores["black"] == pytest.approx(p["black"], rel=1e-5)


def test_scores_equal_a_slow_reference(random_model: Path) -> None:
    """One sentence at a time, each piece with itself and what follows it in the word masked."""
    from transformers import AutoModelForMaskedLM

    model = AutoModelForMaskedLM.from_pretrained(str(random_model), local_files_only=True).eval()
    before, after = ["[CLS]", "the", "typical", "color", "of", "effusion", "is"], [".", "[SEP]"]
    candidates = {
        "white": ["white"],
        "groundglass": ["ground", "##glass"],
        "glassy": ["glass", "##y"],
        "lung base": ["lung", "base"],
    }
    expected = {}
    for word, pieces in candidates.items():
        logs = []
        for n, piece in enumerate(pieces):
            tokens = [*before, *pieces[:n], *["[MASK]"] * (len(pieces) - n), *after]
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([[ID[t] for t in tokens]])).logits[0, len(before) + n]
            logs.append(float(logits.double().log_softmax(-1)[ID[piece]]))
        expected[word] = math.exp(sum(logs) / len(logs))
    for batch_size in (1, 3, 32):
        backend = MaskedBackend(random_model, top_k=4, batch_size=batch_size)
        assert dict(backend.answer(COLOR, "effusion", list(candidates))) == pytest.approx(expected, rel=1e-4)


def test_every_question_is_asked_and_said(planted: Path) -> None:
    prompts = AttributePrompts(None, backend="masked", model=planted)
    found = prompts.attributes("opacity")
    assert {a.kind for a in found} == {"color", "shape", "texture", "location"}
    assert [a.text for a in found if a.kind == "color"] == ["white", "gray", "black"]
    assert next(a for a in found if a.kind == "color").source == COLOR
    assert "at the lung base" in [a.text for a in found if a.kind == "location"]
    assert prompts.sentences("opacity", style="color") == [
        "There is an opacity.",
        "There is an opacity, white in color.",
        "There is an opacity, gray in color.",
        "There is an opacity, black in color.",
    ]
    assert len(prompts.sentences("opacity", style="grounded")) == 4, "the plain one, then one for each of the top three"


def test_candidates_and_questions_of_ones_own(planted: Path, tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text("masked: {texture: {question: 'It is {mask}, the {x}.', candidates: null}}", encoding="utf-8")
    backend = MaskedBackend(planted, rules=rules, candidates={"color": ["black", "white"], "shape": None}, top_k=1)
    found = {a.kind: (a.text, a.source) for a in backend.attributes(Concept("edema", "edema"))}
    assert found["color"][0] == "white"
    assert found["shape"][0] == "opacity"
    assert found["texture"] == ("opacity", "It is {mask}, the {x}.")
    with pytest.raises(ConfigError, match="no question about 'colour'; did you mean 'color'"):
        MaskedBackend(planted, candidates={"colour": ["red"]})
    with pytest.raises(ConfigError, match="at least 1, got 0"):
        MaskedBackend(planted, top_k=0)


def test_words_that_the_vocabulary_lacks_are_left_out_and_told(planted: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert [w for w, _ in MaskedBackend(planted).answer(COLOR, "opacity", ["violet", "white"])] == ["white"]
    assert "its vocabulary cannot write violet; left out" in caplog.text
    assert MaskedBackend(planted).answer(COLOR, "opacity", ["violet"]) == []


def test_answers_are_the_same_each_time_and_kept(random_model: Path, planted: Path, tmp_path: Path) -> None:
    graph = KnowledgeGraph([Concept("effusion", "effusion")], [], name="g")
    first = AttributePrompts(graph, backend="masked", model=random_model, cache=tmp_path).attributes("effusion")
    assert first == AttributePrompts(graph, backend="masked", model=random_model).attributes("effusion")
    (file,) = tmp_path.iterdir()
    kept = json.loads(file.read_text(encoding="utf-8"))
    assert kept["provenance"]["model_hash"] == MaskedBackend(random_model).model_hash
    colors = [row["score"] for row in kept["attributes"] if row["kind"] == "color"]
    assert len(colors) == 3
    assert colors == sorted(colors, reverse=True)
    other = MaskedBackend(planted)
    assert other.provenance() != MaskedBackend(random_model).provenance()
    assert MaskedBackend(planted, top_k=2).provenance() != other.provenance()
    assert MaskedBackend(planted, candidates={"color": None}).provenance() != other.provenance()


def test_a_kept_answer_needs_no_model(random_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = AttributePrompts(None, backend="masked", model=random_model, cache=tmp_path).attributes("effusion")
    monkeypatch.setattr("kvlp.knowledge.prompts.from_masked._load", lambda folder: pytest.fail("the model was loaded"))
    assert AttributePrompts(None, backend="masked", model=random_model, cache=tmp_path).attributes("effusion") == first


def test_names_that_cannot_be_asked_are_refused(planted: Path) -> None:
    with pytest.raises(ConfigError, match="expected one mask in the question, got 2"):
        MaskedBackend(planted).answer(COLOR, "a [MASK]", ["white"])
    with pytest.raises(ConfigError, match=r"a name of 399 letters is too long for this model \(40 tokens\)"):
        MaskedBackend(planted).answer(COLOR, " ".join(["edema opa"] * 40), ["white"])


def test_folders_that_hold_no_masked_model_are_refused(planted: Path, tmp_path: Path) -> None:
    from transformers import AutoModel, AutoModelForMaskedLM

    def refused(folder: Path, message: str) -> None:
        with pytest.raises(CheckpointError, match=message) as told:
            MaskedBackend(folder).answer(COLOR, "opacity", ["white"])
        assert "\n" not in str(told.value)

    refused(tmp_path / "none", "expected the local folder of a masked language model with a config.json")
    refused(Path("bert-base-uncased"), "nothing is downloaded")
    encoder = write_model(tmp_path / "encoder")
    AutoModel.from_pretrained(str(encoder)).save_pretrained(str(encoder))
    refused(encoder, "weights of a masked language model are missing, such as 'cls.predictions")
    pickled = write_model(tmp_path / "pickled")
    torch.save(AutoModelForMaskedLM.from_pretrained(str(pickled)).state_dict(), pickled / "pytorch_model.bin")
    (pickled / "model.safetensors").unlink()
    refused(pickled, r"expected weights as \.safetensors")
    cut = write_model(tmp_path / "cut")
    (cut / "model.safetensors").write_bytes((cut / "model.safetensors").read_bytes()[:500])
    refused(cut, "no masked language model can be loaded")
    config = write_model(tmp_path / "config")
    (config / "config.json").write_text('{"model_type": "nonesuch"}')
    refused(config, "no masked language model can be loaded")


def test_a_model_with_byte_pairs_is_asked_too(tmp_path: Path) -> None:
    """RoBERTa's habit: words begin with a marked blank, the mask takes the blank before it."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, RobertaConfig, RobertaForMaskedLM

    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([" white black gray", " The typical color of edema is white."] * 50, trainer)
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    mask = AddedToken("<mask>", lstrip=True, special=True)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, mask_token=mask, **names)
    wrapped.save_pretrained(str(tmp_path))
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    model = RobertaForMaskedLM(RobertaConfig(vocab_size=len(wrapped), max_position_embeddings=80, **sizes)).eval()
    vocabulary = wrapped.get_vocab()
    with torch.no_grad():
        model.lm_head.decoder.weight.zero_()
        model.lm_head.bias.fill_(-9.0)
        model.lm_head.bias[vocabulary["Ġwhite"]] = 2.0
        model.lm_head.bias[vocabulary["Ġblack"]] = 1.0
        model.lm_head.bias[vocabulary["e"]] = 5.0
    model.save_pretrained(str(tmp_path))
    backend = MaskedBackend(tmp_path, top_k=2)
    assert [word for word, _ in backend.answer(COLOR, "edema")] == ["white", "black"]
    told = backend.answer(COLOR, "edema", ["black", "white"])
    assert told[0][0] == "white"
    assert told[0][1] / told[1][1] == pytest.approx(math.e, rel=1e-4)
