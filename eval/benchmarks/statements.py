"""A question and one of its answers as sentences that a dual encoder can compare with an image."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvlp.eval.benchmarks.answers import YES_NO
from kvlp.typing import Assertion

if TYPE_CHECKING:
    from kvlp.knowledge.graph import KnowledgeGraph

__all__ = ["Statements"]

#: what a question can ask the presence of; places, sides and degrees are not of these types
_ASKABLE = frozenset({"finding", "disease", "device"})
#: "Is there no effusion?" asks for the absence; the linker reads reports, in which a question is a doubt
_DENIES = re.compile(r"\b(no|not|without|absent|absence|free of)\b", re.IGNORECASE)
_THERE = re.compile(r"(is|are|was|were) there (no )?(?:any |an? |evidence of |signs? of )*(.+?)\??\Z", re.IGNORECASE)


@dataclass
class Statements:
    """Sentences for (question, answer).

    Yes and no become the present and absent prompts of the concept that the question names; without one, "Is there X?"
    becomes "There is X." and "There is no X."; anything else is the question with the answer behind it.
    """

    graph: KnowledgeGraph | None

    def __post_init__(self) -> None:
        from kvlp.knowledge.linking import EntityLinker
        from kvlp.knowledge.prompts import Prompts

        self._prompts = Prompts(self.graph)
        self._linker = None if self.graph is None else EntityLinker(self.graph)

    def __call__(self, question: str, answer: str) -> list[str]:
        """One sentence or several, whose mean is compared with the image."""
        if answer in YES_NO:
            found = self._concept(question)
            if found is not None:
                concept, denied = found
                said = Assertion.PRESENT if (answer == YES_NO[0]) != denied else Assertion.ABSENT
                return self._prompts.sentences(concept, said, synonyms=True)
            there = _THERE.match(question.strip())
            if there:
                denied = (there[2] is not None) == (answer == YES_NO[0])
                return [f"There {there[1].lower()} {'no ' if denied else ''}{there[3]}."]
        return [f"{question.strip()} {answer}."]

    def _concept(self, question: str) -> tuple[str, bool] | None:
        """The one concept that the question asks for, and whether it asks for its absence; None for none or several."""
        if self._linker is None or self.graph is None:
            return None
        asked = [m for m in self._linker(question) if _ASKABLE & set(self.graph[m.concept].semantic_types)]
        if len({mention.concept for mention in asked}) != 1:
            return None
        return asked[0].concept, _DENIES.search(question) is not None
