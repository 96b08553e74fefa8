"""What the readers of question-answer benchmarks share: one record a question, its words in the further columns."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from kvlp.datasets.manifest import Record

__all__ = ["question_record"]


def question_record(id: str, image: str, question: str, answer: str, *, closed: bool, kind: str, **more: str) -> Record:
    """A record of one question about an image.

    Args:
        id: of the question.
        image: path of the image.
        question: its words.
        answer: the right answer, as the data set gives it.
        closed: whether the answer is one of a few that the question leaves open (yes or no, left or right).
        kind: of the question, several joined by ";".
        more: further fields of a Record (split, source, licence, patient_id) and further columns.
    """
    own: dict[str, Any] = {
        name: more.pop(name) for name in ("patient_id", "split", "source", "licence") if name in more
    }
    columns = {"question": question, "answer": answer, "answer_type": "closed" if closed else "open", "kind": kind}
    return replace(Record(id=id, image=image, extra={**columns, **more}), **own)
