"""Question answering: a dual encoder's choice among candidates or another model's answers, beside what the question
alone gives away. Figures by kind of question, with intervals over images (or patients).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from kvlp.errors import DataError
from kvlp.eval.benchmarks.answers import YES_NO, candidates, exact, normalised, token_f1
from kvlp.eval.benchmarks.statements import Statements
from kvlp.eval.intervals import Interval, mean_interval
from kvlp.eval.metrics import Floats
from kvlp.eval.results import Provenance, Result
from kvlp.zero_shot.scoring import Asked, Reading, scorer_of

if TYPE_CHECKING:
    from kvlp.datasets.manifest import Manifest
    from kvlp.eval.evaluate import Encoder
    from kvlp.knowledge.graph import KnowledgeGraph

__all__ = ["Answered", "Question", "answer_rows", "encoder_answers", "majority_answers", "questions_of"]

#: what is drawn: all questions about an image (or a patient, where the data set names one) together
_UNIT = "images or patients"
_METRICS = {"all": ("exact_match",), "closed": ("accuracy",), "open": ("exact_match", "token_f1")}
_DEFINITIONS = {
    "accuracy": "share of closed questions answered exactly (case, punctuation and articles apart)",
    "exact_match": "share of questions answered exactly (case, punctuation and articles apart)",
    "token_f1": "mean F1 of the words of answer and truth",
}


@dataclass(frozen=True, slots=True)
class Question:
    """One question.

    Attributes:
        id: of the question.
        question: its words.
        answer: the right answer.
        closed: whether it leaves a few answers open.
        kinds: of the question: ("PRES",).
        group: patient or image; questions of one group are resampled together.
    """

    id: str
    question: str
    answer: str
    closed: bool
    kinds: tuple[str, ...]
    group: str


@dataclass(frozen=True)
class Answered:
    """What a model answered.

    Attributes:
        name: of the model.
        answers: question id -> answer; a question without one counts as wrong.
        asked: which questions it was asked: "closed" or "all".
        notes: what to know.
    """

    name: str
    answers: Mapping[str, str]
    asked: str = "all"
    notes: tuple[str, ...] = field(default=())


def questions_of(manifest: Manifest) -> list[Question]:
    """The questions of a manifest that one of the question readers wrote.

    Raises:
        DataError: a row has no question.
    """
    found = []
    for number, record in enumerate(manifest, 1):
        if not record.extra.get("question") or "answer" not in record.extra:
            raise DataError(f"row {number} has no question and answer; expected a manifest of a question reader")
        found.append(
            Question(
                id=record.id,
                question=record.extra["question"],
                answer=record.extra["answer"],
                closed=record.extra.get("answer_type") == "closed",
                kinds=tuple(filter(None, record.extra.get("kind", "").split(";"))),
                group=record.patient_id or record.image,
            )
        )
    return found


def encoder_answers(
    model: Encoder,
    manifest: Manifest,
    pool: Sequence[str],
    graph: KnowledgeGraph | None = None,
    *,
    scorer: str = "encoders",
    progress: Callable[[int, int], None] | None = None,
) -> Answered:
    """A dual encoder answers the closed questions: the candidate whose sentences are nearest to the image.

    Args:
        model: encodes images and texts.
        manifest: questions with images.
        pool: normalised closed answers of the data set; see `candidates`.
        graph: finds what a yes-no question asks for.
        scorer: "encoders", or "query": the candidate that the model's query network thinks likeliest.
        progress: called with (images done, all).

    Raises:
        DataError: no image can be read.
        CheckpointError: the query network is asked for and there is none.
    """
    say = Statements(graph)
    rows = [(q, r) for q, r in zip(questions_of(manifest), manifest, strict=True) if q.closed]
    offered = {q.id: {a: say(q.question, a) for a in candidates(q.question, pool)} for q, _ in rows}
    paths = list(dict.fromkeys(manifest.path_of(record) for _, record in rows))
    asked = Asked(scorer_of(model, scorer), paths, Reading("flag", progress=progress))
    asked.ask([line for said in offered.values() for lines in said.values() for line in lines])
    if not asked.read.any():
        raise DataError(f"none of the {len(paths)} images can be read")
    place = {path: row for row, path in enumerate(paths)}
    answers = {}
    for question, record in rows:
        image = place[manifest.path_of(record)]
        scores = {a: float(asked.match(said)[image]) for a, said in offered[question.id].items()}
        if not any(np.isnan(score) for score in scores.values()):
            answers[question.id] = max(scores, key=scores.__getitem__)
    by_concept = sum(len(next(iter(said.values()))) > 1 for said in offered.values())
    notes = (f"{by_concept} of {len(rows)} closed questions asked by prompts of a concept", "open questions not asked")
    return Answered("dual encoder" if scorer == "encoders" else "query network", answers, "closed", notes)


def majority_answers(questions: Sequence[Question], train: Sequence[Question]) -> Answered:
    """What the words of a question alone give away: the commonest answer to it among training questions.

    Backs off from the same words to the same kind, to all closed or open questions. Without training questions the
    other images' questions take their place, the questions of the same group left out.
    """
    apart = bool(train)
    tables: dict[tuple[object, ...], Counter[str]] = {}
    own: dict[str, dict[tuple[object, ...], Counter[str]]] = {}
    for q in train or questions:
        for key in _keys(q):
            tables.setdefault(key, Counter())[normalised(q.answer)] += 1
            if not apart:
                own.setdefault(q.group, {}).setdefault(key, Counter())[normalised(q.answer)] += 1
    answers = {}
    for q in questions:
        for key in _keys(q):
            counts = tables.get(key, Counter()) - own.get(q.group, {}).get(key, Counter())
            if counts:
                answers[q.id] = max(sorted(counts), key=counts.__getitem__)
                break
    how = f"from {len(train):,} training questions" if apart else "from the questions about other images"
    return Answered("question only", answers, "all", (f"commonest answer to the same words, kind or form, {how}",))


def _keys(q: Question) -> list[tuple[object, ...]]:
    return [(q.closed, "words", normalised(q.question)), (q.closed, "kind", q.kinds), (q.closed,)]


def answer_rows(
    questions: Sequence[Question],
    given: Answered,
    baseline: Answered,
    provenance: Provenance,
    *,
    resamples: int = 1000,
) -> list[Result]:
    """Figures of a model's answers, of the baseline's to the same questions, and of the paired difference.

    Closed questions: accuracy. Open ones: exact match and token F1. All of them: exact match. Each over all and by kind
    (a question of two kinds counts in both).
    """
    asked = [q for q in questions if given.asked == "all" or q.closed]
    rows = []
    for target, part in _parts(asked):
        groups = np.array([q.group for q in part])
        for metric in _METRICS[target.partition(":")[0]]:
            ours, theirs = (_values(metric, part, each.answers) for each in (given, baseline))
            figures = [
                (metric, given.name, ours, given.notes),
                (metric, baseline.name, theirs, baseline.notes),
                (f"{metric}_difference", f"{given.name} minus {baseline.name}", ours - theirs, ()),
            ]
            for name, setting, values, notes in figures:
                interval = mean_interval(values, groups, unit=_UNIT, n=resamples, seed=provenance.seed)
                bounded = interval if name != metric else _bounded(interval)
                rows.append(
                    Result.of(
                        bounded, metric=name, target=target, definition=_DEFINITIONS[metric], setting=setting,
                        task="question answering", notes=(*bounded.notes, *notes), provenance=provenance,
                    )
                )  # fmt: skip
    return rows


def _bounded(interval: Interval) -> Interval:
    """A share of 0 or 1 is so in every resample; its other end is the exact binomial bound over the groups."""
    n = interval.n_groups
    if interval.value not in (0.0, 1.0) or interval.low != interval.high:
        return interval
    far = 0.025 ** (1 / n)
    low, high = (far, 1.0) if interval.value == 1 else (0.0, 1 - far)
    return replace(interval, low=low, high=high, method=f"exact binomial bound over {n} {_UNIT}", n_resamples=0)


def _parts(questions: Sequence[Question]) -> list[tuple[str, list[Question]]]:
    """All, closed, open, and each kind of closed and of open questions; none empty."""
    parts = [("all", list(questions))] if any(not q.closed for q in questions) else []
    for form, closed in (("closed", True), ("open", False)):
        held = [q for q in questions if q.closed is closed]
        parts.append((form, held))
        kinds = sorted({kind for q in held for kind in q.kinds})
        parts += [(f"{form}: {kind}", [q for q in held if kind in q.kinds]) for kind in kinds]
    return [(name, part) for name, part in parts if part]


def _values(metric: str, questions: Sequence[Question], answers: Mapping[str, str]) -> Floats:
    compare = token_f1 if metric == "token_f1" else exact
    return np.array([compare(answers.get(q.id, ""), q.answer) for q in questions], dtype=np.float64)


def closed_pool(questions: Sequence[Question]) -> list[str]:
    """The normalised closed answers that occur, without yes and no, the commonest first."""
    counts = Counter(normalised(q.answer) for q in questions if q.closed)
    return [answer for answer, _ in counts.most_common() if answer and answer not in YES_NO]
