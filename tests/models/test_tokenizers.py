"""The tokenizer loses nothing, keeps no name of one person, and is the same every time."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from kvlp.errors import CheckpointError, ConfigError
from kvlp.knowledge.graph import KnowledgeGraph
from kvlp.tokenizers import SPECIAL, TextTokenizer, build_tokenizer, load_tokenizer

REPORTS = [
    ("p1", "Small left pleural effusion. Discussed with Dr Zbigniew."),
    ("p2", "No pleural effusion. Seen by Zbigniew."),
    ("p2", "Zbigniew Zbigniew Zbigniew: no effusion."),
    ("p3", "Large effusion on the left. Mrs Krankenschwester."),
    ("p4", "The heart is enlarged, effusion on the right, left lung clear."),
]


@pytest.fixture(scope="module")
def graph() -> KnowledgeGraph:
    return KnowledgeGraph.load("chest")


@pytest.fixture(scope="module")
def tokenizer(graph: KnowledgeGraph) -> Any:
    return build_tokenizer(REPORTS, graph, context_length=32)


def test_no_word_of_few_patients_gets_in(graph: KnowledgeGraph) -> None:
    words = {piece.removeprefix("##") for piece in build_tokenizer(REPORTS, vocab_size=900).get_vocab()}
    assert "effusion" in words
    assert "left" in words
    for name in ("zbigniew", "krankenschwester", "mrs"):
        assert name not in words
        longest = max((piece for piece in words if piece in name), key=len)
        assert len(longest) <= 4, f"a large piece of {name} got in: {longest}"
    loose = build_tokenizer(REPORTS, vocab_size=900, min_patients=2).get_vocab()
    assert "zbigniew" in loose, "the limit is what keeps it out"


def test_texts_without_a_patient_count_once() -> None:
    words = build_tokenizer([("", f"Zbigniew {i}") for i in range(20)], vocab_size=900).get_vocab()
    assert "zbigniew" not in words


def test_the_graphs_words_are_whole(tokenizer: Any) -> None:
    assert tokenizer.tokenize("Hydropneumothorax") == ["hydropneumothorax"]


@pytest.mark.parametrize("text", ["Zbigniew 1987", "qxz-47/b, (é) 5.3 cm?", "ßtraße x²"])
def test_nothing_is_lost(tokenizer: Any, text: str) -> None:
    from tokenizers.normalizers import BertNormalizer

    pieces = tokenizer.tokenize(text)
    plain = "".join(BertNormalizer(lowercase=True).normalize_str(text).split())
    joined = "".join(piece.removeprefix("##") for piece in pieces if piece != "[UNK]")
    if "ß" not in text:
        assert "[UNK]" not in pieces
        assert joined == plain


BUILD = """
import hashlib, json, sys
from kvlp.tokenizers import build_tokenizer
pairs = json.loads(sys.argv[1])
vocabulary = build_tokenizer(pairs, vocab_size=400, min_patients=1).get_vocab()
print(hashlib.sha256(json.dumps(vocabulary, sort_keys=True).encode()).hexdigest())
"""


@pytest.mark.slow
def test_the_same_texts_give_the_same_vocabulary_in_any_order_and_process() -> None:
    def digest(pairs: Any) -> str:
        vocabulary = build_tokenizer(pairs, vocab_size=400, min_patients=1).get_vocab()
        return hashlib.sha256(json.dumps(vocabulary, sort_keys=True).encode()).hexdigest()

    here = digest(REPORTS)
    assert digest(REPORTS[::-1]) == here
    assert digest(REPORTS + REPORTS[:2]) == here
    assert digest(REPORTS[:3]) != here
    there = subprocess.run(
        [sys.executable, "-c", BUILD, json.dumps(REPORTS)], check=True, capture_output=True, text=True
    )
    assert there.stdout.strip() == here


def test_the_size_is_kept_and_special_tokens_come_first(tokenizer: Any) -> None:
    small = build_tokenizer(REPORTS, vocab_size=300, min_patients=1)
    assert len(small) <= 300
    assert small.convert_tokens_to_ids(list(SPECIAL)) == [0, 1, 2, 3, 4]
    assert sorted(small.get_vocab().values()) == list(range(len(small)))
    with pytest.raises(ConfigError, match="vocab_size >= "):
        build_tokenizer(REPORTS, vocab_size=50)


def test_merges_by_hand() -> None:
    from kvlp.tokenizers import _ALPHABET, _PUNCTUATION, _pair_merges

    base = 2 * len(_ALPHABET) + len(_PUNCTUATION)
    # "aab" five times, "ab" four: a+##b is the pair of "ab" (4), a+##a and ##a+##b are of "aab" (5, tie by spelling)
    pieces = _pair_merges({"aab": 5, "ab": 4}, base + 3)[base:]
    assert pieces == ["##ab", "aab", "ab"]


def slow_merges(words: dict[str, int], count: int) -> list[str]:
    """The same in the plainest way: count all pairs anew for every merge."""
    rows = {word: [word[0], *(f"##{c}" for c in word[1:])] for word in words}
    known, made = {s for row in rows.values() for s in row}, []
    while len(made) < count:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, row in rows.items():
            for pair in pairwise(row):
                pairs[pair] += words[word]
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merged = best[0] + best[1].removeprefix("##")
        if merged not in known:
            known.add(merged)
            made.append(merged)
        for word, row in rows.items():
            new: list[str] = []
            for symbol in row:
                if new and (new[-1], symbol) == best:
                    new[-1] = merged
                else:
                    new.append(symbol)
            rows[word] = new
    return made


def test_merges_equal_the_slow_ones() -> None:
    from kvlp.tokenizers import _ALPHABET, _PUNCTUATION, _pair_merges

    rng = random.Random(0)
    words = {"".join(rng.choices("abcd", k=rng.randint(1, 9))): rng.randint(1, 9) for _ in range(150)}
    base = 2 * len(_ALPHABET) + len(_PUNCTUATION)
    assert _pair_merges(words, base + 120)[base:] == slow_merges(words, 120)


def test_long_texts_keep_their_end(tokenizer: Any) -> None:
    words = TextTokenizer.wrap(tokenizer)
    ids = words(["effusion " * 100, "no effusion", ""])
    assert ids.shape == (3, 32)
    end = tokenizer.sep_token_id
    assert ids[0, -1] == end
    assert [int((row == end).sum()) for row in ids] == [1, 1, 1]
    assert ids[2].tolist()[:3] == [tokenizer.cls_token_id, end, 0]


def test_padding(tokenizer: Any) -> None:
    words = TextTokenizer.wrap(tokenizer)
    assert words(["no effusion", "effusion"]).shape == (2, 4)
    assert words(["no effusion"], pad="max").shape == (1, 32)
    assert words("effusion").shape == (1, 3)
    assert words([]).shape == (0, 32)
    assert TextTokenizer.wrap(tokenizer, trim=False)(["effusion"]).shape == (1, 32)
    with pytest.raises(ConfigError, match="got int at position 1"):
        words(["a", 1])  # type: ignore[list-item]


def test_padding_that_also_ends_the_text_keeps_one() -> None:
    import torch

    rows = torch.tensor([[5, 6, 9, 9, 9, 9], [5, 9, 9, 9, 9, 9]])
    words = TextTokenizer(lambda _: rows, context_length=6, pad_id=9, pad_ends_text=True)
    assert words(["a b", "a"]).tolist() == [[5, 6, 9], [5, 9, 9]]


def test_a_vocabulary_file_and_a_folder(tokenizer: Any, tmp_path: Path) -> None:
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)), encoding="utf-8")
    TextTokenizer.wrap(tokenizer).save(tmp_path / "folder")
    for source in (path, tmp_path / "folder"):
        again = load_tokenizer(source, context_length=32)
        assert again.get_vocab() == tokenizer.get_vocab()
        assert again("No pleural Effusion.").input_ids == tokenizer("No pleural Effusion.").input_ids


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[PAD]\n[UNK]\n[CLS]\nlung\n", r"lacks \[SEP\]"),
        (b"[PAD]\n[UNK]\n[CLS]\n[SEP]\nlung\nlung\n", "twice"),
        (b"\xff\xfe\x00", "UTF-8"),
        (b"", r"lacks \[PAD\]"),
    ],
)
def test_wrong_vocabulary_files(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "vocab.txt").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        load_tokenizer(tmp_path / "vocab.txt")


def test_missing_vocabulary(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none\.txt"):
        load_tokenizer(tmp_path / "none.txt")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_tokenizer(tmp_path)


def test_padding_stands_where_the_tokenizer_puts_it():
    tokenizer = build_tokenizer([], KnowledgeGraph.load("chest"), vocab_size=300, context_length=12)
    texts = ["no effusion", "mass", "a nodule in the left lung, and so on, and so on, and so on"]
    for side in ("right", "left"):
        tokenizer.padding_side = side
        theirs = tokenizer(texts, padding="max_length", truncation=True, max_length=12).input_ids
        assert TextTokenizer.wrap(tokenizer)(texts, pad="max").tolist() == theirs
