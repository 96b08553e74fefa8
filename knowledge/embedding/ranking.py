"""Where the true end of a statement stands among all concepts: filtered ranks, and what they come to."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from kvlp.errors import KnowledgeError

if TYPE_CHECKING:
    from kvlp.typing import FloatArray, IntArray

__all__ = ["FrequencyScorer", "Scorer", "VectorScorer", "filtered_ranks"]

#: Scores held at once, of all candidates for some queries (float32: 64 MB).
SCORES_AT_ONCE = 16_000_000

Side = Literal["tail", "head"]


class Scorer(Protocol):
    """Anything that can say how well each concept would complete a statement."""

    def scores(self, given: IntArray, relation: IntArray, side: Side) -> FloatArray:
        """Score all E concepts as the missing `side` of B statements: (B, E) float32, higher is better."""
        ...


@dataclass(frozen=True)
class VectorScorer:
    """Scores by vectors: the given end is moved by the relation, then compared with every concept.

    Attributes:
        entities: (E, D) float32.
        relations: (2, R, D) float32: what moves a head towards its tails, and a tail towards its heads.
        move: "add" (TransE), "multiply" (DistMult), or "turn" (RotatE, ComplEx): complex multiplication of rows that
            hold real parts, then imaginary ones.
        compare: "l1" or "l2" (minus the distance) or "dot".
    """

    entities: FloatArray
    relations: FloatArray
    move: Literal["add", "multiply", "turn"]
    compare: Literal["l1", "l2", "dot"]

    def scores(self, given: IntArray, relation: IntArray, side: Side) -> FloatArray:
        """See `Scorer.scores`."""
        import torch

        ends, by = self.entities[given], self.relations[0 if side == "tail" else 1][relation]
        queries = ends + by if self.move == "add" else ends * by if self.move == "multiply" else _turned(ends, by)
        wanted, there = torch.from_numpy(queries), torch.from_numpy(self.entities)
        if self.compare == "dot":
            result: FloatArray = (wanted @ there.T).numpy()
            return result
        # differences, not the matrix product: equal distances must come out equal
        p = 1.0 if self.compare == "l1" else 2.0
        return -torch.cdist(wanted, there, p=p, compute_mode="donot_use_mm_for_euclid_dist").numpy()


class FrequencyScorer:
    """No vectors at all: a concept scores by how often it stands at that end of that relation in training."""

    def __init__(self, train: IntArray, entities: int) -> None:
        self._train, self._entities = train, entities

    def scores(self, given: IntArray, relation: IntArray, side: Side) -> FloatArray:
        """See `Scorer.scores`."""
        result = np.empty((len(relation), self._entities), dtype=np.float32)
        for number in np.unique(relation):
            ends = self._train[self._train[:, 1] == number, 2 if side == "tail" else 0]
            result[relation == number] = np.bincount(ends, minlength=self._entities)
        return result


def filtered_ranks(scorer: Scorer, test: IntArray, known: IntArray, *, entities: int, at_once: int = 0) -> FloatArray:
    """Rank the true tail and the true head of each test statement among all concepts.

    Other concepts that are known to complete the statement do not count (filtered; Bordes et al. 2013). Of concepts
    with the same score as the true one half count as better (realistic rank; Berrendorf et al. 2020): a scorer that
    says the same of all gets the middle, not the top.

    Args:
        scorer: what is judged.
        test: (T, 3) statements.
        known: (N, 3) all true statements, of training and test alike.
        entities: number E of concepts.
        at_once: statements scored at once; 0 chooses so many that their scores take 64 MB.

    Returns:
        (T, 2) float64 ranks from 1 to E: of the tail, of the head.

    Raises:
        KnowledgeError: a score is NaN.
    """
    chunk = at_once or max(1, SCORES_AT_ONCE // max(1, entities))
    ranks = np.empty((len(test), 2))
    for column, side in enumerate(("tail", "head")):
        given, target = (0, 2) if side == "tail" else (2, 0)
        answers = _answers(test, known, given, target)
        for start in range(0, len(test), chunk):
            part = test[start : start + chunk]
            scores = scorer.scores(part[:, given], part[:, 1], side)  # type: ignore[arg-type]
            ranks[start : start + chunk, column] = _ranks(
                scores, part[:, target], [answers[_key(s, given)] for s in part]
            )
    return ranks


def _key(statement: IntArray, given: int) -> tuple[int, int]:
    return int(statement[given]), int(statement[1])


def _answers(test: IntArray, known: IntArray, given: int, target: int) -> dict[tuple[int, int], IntArray]:
    asked = {_key(s, given) for s in test}
    found: dict[tuple[int, int], list[int]] = defaultdict(list)
    for statement in known[np.isin(known[:, given], test[:, given])]:
        if _key(statement, given) in asked:
            found[_key(statement, given)].append(int(statement[target]))
    return {key: np.array(found[key], dtype=np.int64) for key in asked}


def _ranks(scores: FloatArray, target: IntArray, answers: list[IntArray]) -> FloatArray:
    if not np.isfinite(scores).all():
        raise KnowledgeError("link scores: NaN or infinity among them; train with a lower learning rate")
    rows = np.arange(len(scores))
    own = scores[rows, target]
    for row, others in enumerate(answers):
        scores[row, others] = -np.inf
    scores[rows, target] = -np.inf
    better, ties = (scores > own[:, None]).sum(axis=1), (scores == own[:, None]).sum(axis=1)
    ranks: FloatArray = 1.0 + better + ties / 2.0
    return ranks


def _turned(ends: FloatArray, by: FloatArray) -> FloatArray:
    half = ends.shape[1] // 2
    a, b, c, d = ends[:, :half], ends[:, half:], by[:, :half], by[:, half:]
    return np.concatenate([a * c - b * d, a * d + b * c], axis=1)
