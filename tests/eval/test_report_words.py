"""Metrics of words, labels and embeddings: by hand and against other implementations; GREEN and RadGraph on stubs."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import f1_score

from kvlp.errors import CheckpointError, ConfigError, DataError, MissingExtraError, ShapeError
from kvlp.eval.reports.embedding import EmbeddingSimilarity
from kvlp.eval.reports.green import Green, GreenAnswer, read_answer
from kvlp.eval.reports.label_f1 import LabelF1
from kvlp.eval.reports.overlap import Bleu, Cider, RougeL, words
from kvlp.eval.reports.radgraph import RadGraphF1
from kvlp.eval.reports.registry import METRICS, get_metric

REFS = [
    "No pleural effusion or pneumothorax.",
    "The heart is mildly enlarged, and the lungs are clear.",
    "Normal chest without any change.",
]
HYPS = [
    "No pneumothorax or pleural effusion.",
    "Heart is enlarged. The lungs are clear.",
    "Normal chest without any change.",
]


def test_words_are_lower_case_without_signs_and_headers() -> None:
    assert words("The T-spine, 5.2 cm, Œdème!") == ["the", "t", "spine", "5", "2", "cm", "œdème"]
    assert words("FINDINGS: No edema.\nIMPRESSION: Normal.") == ["no", "edema", "normal"]


def test_bleu_by_hand() -> None:
    (column,) = Bleu(1)(["a b c d"], ["a b x"])
    assert column.per_report[0] == pytest.approx(2 / 3 * math.exp(1 - 4 / 3))
    (column,) = Bleu(2)(["a b c d"], ["a b c x"])
    assert column.per_report[0] == pytest.approx(math.sqrt(3 / 4 * 2 / 3))


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_the_overall_bleu_is_that_of_the_corpus(order: int) -> None:
    from nltk.translate.bleu_score import corpus_bleu

    (column,) = Bleu(order)(REFS, HYPS)
    theirs = corpus_bleu([[words(r)] for r in REFS], [words(h) for h in HYPS], weights=[1 / order] * order)
    assert column.name == f"bleu-{order}"
    assert column.pool(column.parts.sum(axis=0, keepdims=True))[0] == pytest.approx(theirs, abs=1e-12)
    assert column.pool(column.parts.sum(axis=0, keepdims=True))[0] != pytest.approx(column.per_report.mean(), abs=1e-3)
    assert column.per_report[2] == pytest.approx(1.0)


def test_bleu_has_four_orders() -> None:
    with pytest.raises(ConfigError, match="order of BLEU is 5; expected 1, 2, 3 or 4"):
        Bleu(5)


def lcs(a: list[str], b: list[str]) -> int:
    if not a or not b:
        return 0
    if a[-1] == b[-1]:
        return 1 + lcs(a[:-1], b[:-1])
    return max(lcs(a[:-1], b), lcs(a, b[:-1]))


def test_rouge_l_is_the_longest_common_subsequence() -> None:
    (column,) = RougeL()(REFS, HYPS)
    for r, h, score in zip(REFS, HYPS, column.per_report):
        assert score == pytest.approx(2 * lcs(words(r), words(h)) / (len(words(r)) + len(words(h))))


def test_cider() -> None:
    refs = [*REFS, "Left basal atelectasis and a small nodule."]
    (same,) = Cider()(refs, refs)
    assert same.per_report[[0, 1, 3]] == pytest.approx([10.0, 10.0, 10.0])
    (other,) = Cider()(refs, [refs[1], HYPS[1], "Chest.", refs[3]])
    assert 0 <= other.per_report[0] < other.per_report[1] < other.per_report[3]


@pytest.mark.parametrize(
    "name, package", [("bleu-4", "sacrebleu"), ("rouge-l", "rouge-score"), ("cider", "pycocoevalcap")]
)
def test_a_missing_library_is_named_with_its_extra(monkeypatch: Any, name: str, package: str) -> None:
    for module in ("sacrebleu.metrics", "rouge_score.rouge_scorer", "pycocoevalcap.cider.cider"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf"{package} is not installed; .*'kvlp\[reports\]'"):
        get_metric(name)


def test_names() -> None:
    assert list(METRICS)[-2:] == ["chexpert-f1", "concept-graph-f1"]
    with pytest.raises(ConfigError, match="no report metric 'rouge'; did you mean rouge-l"):
        get_metric("rouge")


class Labels:
    """Says of each text which of three classes it names, in capitals for present."""

    classes = ("a", "b", "c")

    def __call__(self, text: str) -> dict[str, float]:
        return {c: 1.0 if c.upper() in text else 0.0 if c in text else math.nan for c in self.classes}


def test_label_f1_is_that_of_scikit_learn() -> None:
    refs, hyps = ["Ab", "aB", "AB", "x"], ["A", "A", "aB", "b"]
    metric = LabelF1.__new__(LabelF1)
    metric.labeler, metric.name = Labels(), "label-f1"  # type: ignore[assignment]
    metric._uncertain, metric._language = "ones", "en"
    micro, macro = metric(refs, hyps)
    gold = np.array([[1, 0], [0, 1], [1, 1], [0, 0]])
    read = np.array([[1, 0], [1, 0], [0, 1], [0, 0]])
    whole = [c.pool(c.parts.sum(axis=0, keepdims=True))[0] for c in (micro, macro)]
    assert whole[0] == pytest.approx(f1_score(gold, read, average="micro"), abs=1e-12)
    assert whole[1] == pytest.approx(f1_score(gold, read, average="macro"), abs=1e-12)  # c is nowhere: not counted
    assert micro.per_report[:3] == pytest.approx([1.0, 0.0, 2 / 3])
    assert math.isnan(micro.per_report[3])


def test_embedding_is_the_cosine() -> None:
    vectors = {"a": [3.0, 0.0], "b": [0.0, 2.0], "c": [1.0, 1.0]}
    (column,) = EmbeddingSimilarity(lambda texts: [vectors[t] for t in texts], name="mine")(
        ["a", "a", "a"], list("abc")
    )
    assert column.name == "mine"
    assert column.per_report == pytest.approx([1.0, 0.0, math.sqrt(0.5)])


def test_embeddings_of_a_wrong_shape_or_of_length_0_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"expected embeddings of shape \(2, D\), got \(2,\)"):
        EmbeddingSimilarity(lambda texts: np.ones(len(texts)))(["a", "b"], ["a", "b"])
    with pytest.raises(DataError, match="the embedding of text 1 is 0 or not finite"):
        EmbeddingSimilarity(lambda texts: [[1.0], [0.0]])(["a", "b"], ["a", "b"])


ANSWER = """[Explanation]:
The candidate swaps a side.

[Clinically Significant Errors]:
(a) False report of a finding: 1. A nodule.
(c) Misplaced finding: 2. Effusion on the right; tube too high.

[Clinically Insignificant Errors]:
(d) Severity: 3. Mild; small; trace.

[Matched Findings]:
5. Heart size; lungs; bones; aorta; spine
"""


@pytest.mark.parametrize(
    "answer, counted, score",
    [
        (ANSWER, GreenAnswer(5, 3), 5 / 8),
        ("[Clinically Significant Errors]:\nNo errors\n\n[Matched Findings]:\n2. Heart; lungs", GreenAnswer(2, 0), 1.0),
        ("[Clinically Significant Errors]:\n(a) X: 4. w\n[Matched Findings]:\nNone", GreenAnswer(0, 4), 0.0),
        ("[Clinically Significant Errors]:\n(1) X: 1. w\n\n[Matched Findings]: 1. a", GreenAnswer(1, 1), 0.5),
    ],
)
def test_green_counts_its_answer(answer: str, counted: GreenAnswer, score: float) -> None:
    assert read_answer(answer) == counted
    assert counted.score == pytest.approx(score)


def test_green_asks_with_the_prompt_and_leaves_out_what_it_cannot_read() -> None:
    asked: list[str] = []

    def respond(prompt: str) -> str:
        asked.append(prompt)
        return ANSWER if "left" in prompt else "I do not know."

    green, errors = Green(respond, "Compare {reference} with {candidate}.")(["on the left", "{candidate}"], ["b", "c"])
    assert asked == ["Compare on the left with b.", "Compare {candidate} with c."]
    assert green.per_report[0] == pytest.approx(5 / 8)
    assert errors.per_report[0] == 3
    assert math.isnan(green.per_report[1])
    with pytest.raises(DataError, match="GREEN's prompt must have"):
        Green(respond, "Compare {reference}.")


def test_green_needs_its_prompt_and_its_model_in_the_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no prompt\.txt that can be read"):
        get_metric(f"green:{tmp_path}")


@pytest.mark.slow
def test_green_with_a_tiny_model_from_a_folder(tmp_path: Path) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    (tmp_path / "prompt.txt").write_text("Compare {reference} with {candidate}", encoding="utf-8")
    with pytest.raises(CheckpointError, match="no causal language model"):
        get_metric(f"green:{tmp_path}")
    vocabulary = {w: n for n, w in enumerate(["<unk>", "<s>", "</s>", "Compare", "with", "effusion", "no"])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    fast.save_pretrained(tmp_path)
    config = LlamaConfig(
        vocab_size=7, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
        bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    metric = Green.from_folder(tmp_path, max_new_tokens=4)
    green, _ = metric(["effusion"], ["no effusion"])
    assert math.isnan(green.per_report[0])  # random weights answer nothing that can be counted
    assert set(metric._respond("Compare effusion").split()) <= {*vocabulary}


ENTITIES = {
    "effusion left": {
        "1": {"tokens": "Effusion", "label": "OBS-DP", "relations": [["located_at", "2"]]},
        "2": {"tokens": "left", "label": "ANAT-DP", "relations": []},
    },
    "effusion right": {
        "1": {"tokens": "effusion", "label": "OBS-DP", "relations": [["located_at", "2"]]},
        "2": {"tokens": "right", "label": "ANAT-DP", "relations": []},
    },
    "no effusion": {"1": {"tokens": "effusion", "label": "OBS-DA", "relations": []}},
    "bare effusion": {"1": {"tokens": "effusion", "label": "OBS-DP", "relations": []}},
    "": {},
}


def annotate(texts: Any) -> list[dict[str, Any]]:
    return [{"entities": ENTITIES[t]} for t in texts]


@pytest.mark.parametrize(
    "level, other, f1",
    [
        ("simple", "effusion left", 1.0),
        ("simple", "effusion right", 0.5),
        ("partial", "effusion right", 0.5),
        ("complete", "effusion right", 0.0),
        ("simple", "bare effusion", 2 / 3),
        ("partial", "bare effusion", 0.0),
        ("simple", "no effusion", 0.0),
        ("simple", "", 0.0),
    ],
)
def test_radgraph_f1_by_hand(level: str, other: str, f1: float) -> None:
    (column,) = RadGraphF1(annotate, level)(["effusion left", ""], [other, ""])
    assert column.per_report == pytest.approx([f1, 1.0])


def test_radgraph_refuses_what_it_cannot_use() -> None:
    with pytest.raises(ConfigError, match="expected one of simple, partial, complete"):
        RadGraphF1(annotate, "all")
    with pytest.raises(DataError, match="annotated 0 of 1 texts"):
        RadGraphF1(lambda texts: [])(["a"], ["a"])


def radgraph_folder(path: Path, transformer: str) -> Path:
    model = path / "radgraph-xl"
    (model / "vocabulary").mkdir(parents=True)
    (model / "weights.th").write_bytes(b"")
    bert = {"bert": {"model_name": transformer}}
    config = {"dataset_reader": {"token_indexers": bert}, "model": {"embedder": {"token_embedders": bert}}}
    (model / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return path


def test_radgraph_loads_from_a_local_folder_only(tmp_path: Path, monkeypatch: Any) -> None:
    with pytest.raises(CheckpointError, match="expected one of the folders radgraph, radgraph-xl"):
        get_metric(f"radgraph:{tmp_path}")
    with pytest.raises(CheckpointError, match="'some/bert' is no local folder and would be downloaded"):
        get_metric(f"radgraph:{radgraph_folder(tmp_path / 'a', 'some/bert')}")
    folder = radgraph_folder(tmp_path / "b", str(tmp_path))
    monkeypatch.setitem(sys.modules, "radgraph", None)
    with pytest.raises(MissingExtraError, match=r"radgraph is not installed; .*'kvlp\[radgraph\]'"):
        get_metric(f"radgraph:{folder}")


def test_radgraph_is_called_as_its_package_wants(tmp_path: Path, monkeypatch: Any) -> None:
    class Stub:
        def __init__(self, *, model_type: str, model_cache_dir: str) -> None:
            assert (model_type, model_cache_dir) == ("radgraph-xl", str(folder))

        def __call__(self, texts: list[str]) -> dict[str, Any]:
            return {str(n): {"entities": ENTITIES[t]} for n, t in enumerate(texts)}

    folder = radgraph_folder(tmp_path, str(tmp_path))
    monkeypatch.setitem(sys.modules, "radgraph", type(sys)("radgraph"))
    sys.modules["radgraph"].RadGraph = Stub  # type: ignore[attr-defined]
    (column,) = get_metric(f"radgraph:{folder}")(["effusion left"], ["effusion right"])
    assert column.per_report == pytest.approx([0.5])
