"""Metrics of words: BLEU by sacrebleu, ROUGE-L by rouge-score, CIDEr-D by pycocoevalcap (extra `reports`).

All three see the same words: lower case, runs of letters and digits; neither punctuation nor the headers of sections.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np

from kvlp.errors import ConfigError, MissingExtraError
from kvlp.eval.reports.metric import Column, Floats, mean_column
from kvlp.knowledge.sections import split_sections

__all__ = ["Bleu", "Cider", "RougeL", "words"]

_WORD = re.compile(r"[^\W_]+")
_ORDERS = (1, 2, 3, 4)


def words(text: str) -> list[str]:
    """The words of a report: lower case, runs of letters and digits, without the headers of its sections."""
    parts = [text[s.start : s.end] for s in split_sections(text)]
    return [word for part in parts for word in _WORD.findall(part.lower())]


class Bleu:
    """BLEU of n-grams up to `order`, in [0, 1].

    Of a report: geometric mean of the clipped precisions with exponential smoothing of zero counts, over the orders
    that the hypothesis is long enough for, times the brevity penalty. Overall: corpus BLEU from the summed counts.

    Args:
        order: 1 to 4.
    """

    def __init__(self, order: int = 4) -> None:
        if order not in _ORDERS:
            raise ConfigError(f"order of BLEU is {order}; expected 1, 2, 3 or 4")
        self.order = order
        self._bleu = _load("sacrebleu", "sacrebleu.metrics").BLEU
        options = {"tokenize": "none", "effective_order": True, "max_ngram_order": order}
        self._sentence = self._bleu(smooth_method="exp", **options)

    def __call__(self, refs: Sequence[str], hyps: Sequence[str]) -> list[Column]:
        """One column, "bleu-4" for order 4."""
        scores = [self._sentence.sentence_score(_spaced(h), [_spaced(r)]) for r, h in zip(refs, hyps, strict=True)]
        parts = np.asarray([[s.sys_len, s.ref_len, *s.counts, *s.totals] for s in scores], dtype=np.float64)
        each = np.asarray([min(s.score / 100, 1.0) for s in scores])
        definition = f"BLEU-{self.order} of lower-case words (sacrebleu); overall the corpus BLEU, no smoothing"
        return [Column(f"bleu-{self.order}", definition, each, parts, self._pool)]

    def _pool(self, sums: Floats) -> Floats:
        return np.asarray([self._corpus(row.round().astype(int).tolist()) for row in sums])

    def _corpus(self, row: list[int]) -> float:
        sys_len, ref_len, *counts = row
        correct, total = counts[: self.order], counts[self.order :]
        score = self._bleu.compute_bleu(
            correct, total, sys_len, ref_len, smooth_method="none", max_ngram_order=self.order
        )
        return min(float(score.score) / 100, 1.0)


class RougeL:
    """F1 of the longest common subsequence of words of the whole report, in [0, 1]; overall the mean."""

    def __init__(self) -> None:
        scorer = _load("rouge-score", "rouge_score.rouge_scorer")
        self._scorer = scorer.RougeScorer(["rougeL"], tokenizer=_Tokenizer())

    def __call__(self, refs: Sequence[str], hyps: Sequence[str]) -> list[Column]:
        """One column, "rouge-l"."""
        each = [self._scorer.score(r, h)["rougeL"].fmeasure for r, h in zip(refs, hyps, strict=True)]
        return [mean_column("rouge-l", "ROUGE-L F1 of lower-case words (rouge-score); mean of reports", each)]


class Cider:
    """CIDEr-D with n-grams of 1 to 4 words and sigma 6, in [0, 10]; overall the mean.

    Rare n-grams count more; how rare they are is taken from the references at hand, so figures of different sets of
    references do not compare, and of a single reference it is 0.
    """

    def __init__(self) -> None:
        self._cider = _load("pycocoevalcap", "pycocoevalcap.cider.cider").Cider

    def __call__(self, refs: Sequence[str], hyps: Sequence[str]) -> list[Column]:
        """One column, "cider"."""
        gold = {n: [_spaced(r)] for n, r in enumerate(refs)}
        _, each = self._cider().compute_score(gold, {n: [_spaced(h)] for n, h in enumerate(hyps)})
        return [mean_column("cider", "CIDEr-D of lower-case words (pycocoevalcap), document frequencies of refs", each)]


class _Tokenizer:
    """The words as rouge-score asks for them."""

    def tokenize(self, text: str) -> list[str]:
        """Split a text."""
        return words(text)


def _spaced(text: str) -> str:
    return " ".join(words(text))


def _load(package: str, module: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingExtraError(package, "reports") from error
