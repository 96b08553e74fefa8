"""The same report in other words: sentences in another order, and one finding by another of its names."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from kvlp.eval.reports.layout import Layout, ended
from kvlp.eval.reports.terms import Term, Terms, with_article

if TYPE_CHECKING:
    from kvlp.knowledge.graph import KnowledgeGraph

__all__ = ["paraphrase"]

_ARTICLE = re.compile(r"\b(an?) \Z", re.IGNORECASE)


def paraphrase(text: str, names: Terms | KnowledgeGraph, rng: np.random.Generator) -> str:
    """Shuffle the sentences of each section, and call one finding by another name of the graph where there is one.

    The indication, the comparison and the technique stay as they are.

    Args:
        text: a report.
        names: the names of a graph's findings, or the graph.
        rng: chooses order and name.
    """
    terms = names if isinstance(names, Terms) else Terms(names)
    layout = _shuffled(Layout.of(text), rng)
    options = [
        (n, term, other)
        for n, sentence in layout.told()
        for term in terms.find(sentence)
        for other in terms.others(term.concept, sentence[term.start : term.end])
    ]
    if not options:
        return layout.text
    n, term, other = options[int(rng.integers(len(options)))]
    return layout.with_sentence(n, _renamed(layout.sentences[n], term, other)).text


def _shuffled(layout: Layout, rng: np.random.Generator) -> Layout:
    """Each section's sentences in another order; one without a full stop gets one, so that none run together."""
    order = np.arange(len(layout.sentences))
    told = {n for n, _ in layout.told()}
    for section in dict.fromkeys(layout.sections):
        places = [n for n in order.tolist() if layout.sections[n] == section and n in told]
        order[places] = rng.permutation(places)
    moved = [ended(layout.sentences[n]) if n in told else layout.sentences[n] for n in order]
    return replace(layout, sentences=tuple(moved))


def _renamed(sentence: str, term: Term, name: str) -> str:
    before, after = sentence[: term.start], sentence[term.end :]
    article = _ARTICLE.search(before)
    if article:
        written = with_article(name)
        before = before[: article.start()] + (written.capitalize() if article[1][0].isupper() else written)
        return before + after
    return before + (name[0].upper() + name[1:] if sentence[term.start].isupper() else name) + after
