"""Concept-graph F1: how much of what a reference says a hypothesis says too, fact by fact, with partial credit.

Facts of both reports are matched one to one so that the credit is the most possible. Precision is the credit over the
hypothesis's facts, recall over the reference's, F1 = 2 credit / (facts of both). To claim what the reference denies
costs a fact on both sides, to leave it out only on one: of n facts F1 falls from 1 to 1 - 1/n, against 1 - 1/(2n - 1).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple

from kvlp.eval.reports.credit import Credit
from kvlp.eval.reports.facts import Fact, FactReader
from kvlp.eval.reports.metric import Column, check_english, mean_column
from kvlp.knowledge.linking.language import known_language

if TYPE_CHECKING:
    from kvlp.knowledge.graph import KnowledgeGraph
    from kvlp.knowledge.linking import EntityLinker

__all__ = ["ConceptGraphF1", "Match", "match_facts"]

_FACTS = "facts (concept, certainty, side, severity, place) matched one to one with partial credit along the graph"


class Match(NamedTuple):
    """What two sets of facts share.

    Attributes:
        credit: sum over the matched pairs.
        n_ref: facts of the reference.
        n_hyp: facts of the hypothesis.
    """

    credit: float
    n_ref: int
    n_hyp: int

    @property
    def precision(self) -> float:
        """Credit over the hypothesis's facts; of none, 1 if the reference has none either, else 0."""
        return self.credit / self.n_hyp if self.n_hyp else float(not self.n_ref)

    @property
    def recall(self) -> float:
        """Credit over the reference's facts; of none, 1 if the hypothesis has none either, else 0."""
        return self.credit / self.n_ref if self.n_ref else float(not self.n_hyp)

    @property
    def f1(self) -> float:
        """Twice the credit over the facts of both; 1 if there are none."""
        both = self.n_ref + self.n_hyp
        return 2 * self.credit / both if both else 1.0


class ConceptGraphF1:
    """Precision, recall and F1 of facts for each report; overall, their means.

    Args:
        graph: whose concepts are facts.
        linker: to use instead of a new one; one that refuses other languages refuses such hypotheses, too.
        language: "en" refuses references that are clearly not English; None reads them anyway.
    """

    def __init__(
        self, graph: KnowledgeGraph, linker: EntityLinker | None = None, *, language: str | None = "en"
    ) -> None:
        self.reader = FactReader(graph, linker)
        self._language = known_language(language)
        self.credit = Credit(graph)

    def match(self, ref: str, hyp: str) -> Match:
        """Match the facts of one pair of reports."""
        return match_facts(self.reader(ref), self.reader(hyp), self.credit)

    def __call__(self, refs: Sequence[str], hyps: Sequence[str]) -> list[Column]:
        """Columns concept-graph-precision, -recall and -f1, each in [0, 1]."""
        if self._language is not None:
            check_english(refs)
        found = [self.match(ref, hyp) for ref, hyp in zip(refs, hyps, strict=True)]
        return [
            mean_column("concept-graph-f1", f"F1 of {_FACTS}; mean of reports", [m.f1 for m in found]),
            mean_column("concept-graph-precision", f"precision of {_FACTS}", [m.precision for m in found]),
            mean_column("concept-graph-recall", f"recall of {_FACTS}", [m.recall for m in found]),
        ]


def match_facts(refs: Collection[Fact], hyps: Collection[Fact], credit: Credit) -> Match:
    """Match two sets of facts one to one for the highest sum of credit; equal facts first, which costs nothing."""
    one, other = set(refs), set(hyps)
    same = one & other
    total = len(same) + _best(sorted(one - same, key=repr), sorted(other - same, key=repr), credit)
    return Match(total, len(one), len(other))


def _best(refs: Sequence[Fact], hyps: Sequence[Fact], credit: Credit) -> float:
    weights = {(r, h): w for r, a in enumerate(refs) for h, b in enumerate(hyps) if (w := credit(a, b)) > 0}
    if len(weights) <= 1:
        return sum(weights.values())
    import networkx as nx

    graph = nx.Graph()
    graph.add_weighted_edges_from((("ref", r), ("hyp", h), w) for (r, h), w in weights.items())
    pairs = nx.max_weight_matching(graph)
    return float(sum(graph.edges[pair]["weight"] for pair in pairs))
