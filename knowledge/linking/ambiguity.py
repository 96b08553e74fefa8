"""What an ambiguous surface means in its text: PE an embolism, an effusion or a funnel chest.

What speaks for a meaning, by weight: cue words in the same sentence; cue words elsewhere, the section where it is at
home, a concept that the graph links to it elsewhere in the text; a semantic type that fits the section. Cues and
sections stand in `ambiguous.yaml`; the rest comes from the graph, so that surfaces which concepts of a large graph
share are told apart without a list. Where nothing decides, a name comes before a synonym, and the score is shared out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, MutableMapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from kvlp.errors import KnowledgeError
from kvlp.knowledge.linking.assertion import read_yaml
from kvlp.knowledge.linking.normalise import normalise
from kvlp.knowledge.sections import SECTION_NAMES
from kvlp.typing import Assertion, PathLike

if TYPE_CHECKING:
    from kvlp.knowledge.graph import Concept, KnowledgeGraph
    from kvlp.knowledge.linking.lexicon import Entry
    from kvlp.knowledge.linking.mention import Mention

__all__ = ["Sense", "add_listed", "graph_senses", "resolve"]

_CUE_NEAR, _CUE_FAR, _SECTION, _NEIGHBOUR, _TYPE = 2.0, 1.0, 1.0, 1.0, 0.5
#: how much more must speak for a meaning than for the next one, to decide for it
_MARGIN = 0.5
_DECIDED = 0.9
_MOST_NEIGHBOURS = 200
#: a cue is near if no such mark and not so many characters lie between
_MARKS, _WINDOW = (".", ";", "\n"), 200

# Types are the graph's: those of the chest graph, and UMLS names and codes.
_KINDS = {
    "finding": ("finding", "disease", "symptom", "device", "Disease or Syndrome", "T047", "Finding", "T033",
                "Sign or Symptom", "T184", "Pathologic Function", "T046", "Neoplastic Process", "T191",
                "Injury or Poisoning", "T037", "Congenital Abnormality", "T019", "Anatomical Abnormality", "T190",
                "Acquired Abnormality", "T020", "Medical Device", "T074", "Mental or Behavioral Dysfunction", "T048"),
    "anatomy": ("anatomy", "Body Part, Organ, or Organ Component", "T023", "Body Location or Region", "T029",
                "Body Space or Junction", "T030", "Tissue", "T024", "Body System", "T022"),
    "procedure": ("procedure", "Diagnostic Procedure", "T060", "Therapeutic or Preventive Procedure", "T061",
                  "Laboratory Procedure", "T059", "Health Care Activity", "T058"),
}  # fmt: skip
_KIND_OF = {name: kind for kind, names in _KINDS.items() for name in names}
#: how well a kind of concept fits a section, 0 to 1
_FITS_TECHNIQUE = {"procedure": 1.0, "anatomy": 0.5}
_FITS_ELSEWHERE = {"finding": 1.0, "anatomy": 0.5}


class Sense(NamedTuple):
    """One meaning of a surface.

    Attributes:
        concept: id in the graph, or "" for something that the graph does not have.
        asserted: whether triggers say something of it (not of anatomy).
        cues: normalised words and phrases that speak for it.
        sections: where it is at home.
        near: ids of concepts that the graph links to it.
        kind: finding, anatomy, procedure or other.
        default: whether it is meant where nothing speaks for any meaning.
    """

    concept: str
    asserted: bool
    cues: tuple[str, ...] = ()
    sections: tuple[str, ...] = ()
    near: tuple[str, ...] = ()
    kind: str = "other"
    default: bool = False


# ---- which surfaces are ambiguous ------------------------------------------------------------------------------------


def graph_senses(
    graph: KnowledgeGraph, shared: Mapping[str, Iterable[str]], asserted: Mapping[str, bool]
) -> dict[str, tuple[Sense, ...]]:
    """The meanings of forms that several concepts of a graph share.

    Args:
        graph: the graph.
        shared: normalised form -> ids of its concepts, the one that is taken without evidence first.
        asserted: concept id -> whether triggers say something of it.
    """
    senses: dict[str, tuple[Sense, ...]] = {}
    known: dict[str, tuple[Concept, tuple[str, ...]]] = {}
    for form, ids in shared.items():
        row: list[Sense] = []
        for concept_id in ids:
            if concept_id not in known:
                known[concept_id] = graph[concept_id], _neighbours(graph, concept_id)
            concept, near = known[concept_id]
            row.append(Sense(concept_id, asserted[concept_id], near=near, kind=_kind(concept), default=not row))
        senses[form] = tuple(row)
    return senses


def _neighbours(graph: KnowledgeGraph, concept_id: str) -> tuple[str, ...]:
    relations = graph.neighbours(concept_id, direction="both")[:_MOST_NEIGHBOURS]
    return tuple(sorted({end for r in relations for end in (r.head, r.tail)} - {concept_id}))


def _kind(concept: Concept) -> str:
    return next((_KIND_OF[t] for t in concept.semantic_types if t in _KIND_OF), "other")


def _form(words: str) -> str:
    return " ".join(normalise(words).text.split())


def add_listed(
    surfaces: MutableMapping[str, Entry],
    senses: MutableMapping[str, tuple[Sense, ...]],
    entry: type[Entry],
    path: PathLike | None = None,
) -> None:
    """Add the surfaces of `ambiguous.yaml` of which the graph has a meaning, with all their meanings.

    Raises:
        KnowledgeError: a file of another form than the bundled one.
    """
    for row in _rows(path):
        form = _form(row["surface"])
        there = surfaces.get(form)
        listed = [_sense(s, surfaces) for s in row["senses"]]
        if there is not None:
            listed = _with_graph_reading(listed, there)
        found = [s for s in listed if s.concept]
        if found:
            senses[form] = tuple(listed)
            first = max(found, key=lambda s: (s.asserted, s.default))
            capitals = there.capitals if there is not None else row["surface"].isupper()
            surfaces[form] = entry(first.concept, 1.0 / len(found), first.asserted, capitals)


def _with_graph_reading(listed: list[Sense], there: Entry) -> list[Sense]:
    """What the graph itself says of a surface is one of its meanings, and the default if the list names none."""
    if all(s.concept != there.concept for s in listed):
        listed = [*listed, Sense(there.concept, there.asserted)]
    if any(s.default for s in listed):
        return listed
    return [s._replace(default=s.concept == there.concept) for s in listed]


def _sense(row: dict[str, Any], surfaces: Mapping[str, Entry]) -> Sense:
    entries = (surfaces.get(_form(name)) for name in row["means"])
    entry = next((e for e in entries if e is not None), None)
    rest: dict[str, Any] = {
        "cues": tuple(_form(c) for c in row.get("cues", ())),
        "sections": tuple(row.get("sections", ())),
        "default": row.get("default", False),
    }
    return Sense(entry.concept if entry else "", entry.asserted if entry else False, **rest)


@cache
def _rows(path: PathLike | None) -> list[dict[str, Any]]:
    file = Path(path) if path is not None else Path(__file__).with_name("ambiguous.yaml")
    rows: list[dict[str, Any]] = read_yaml(file, {"surfaces"})["surfaces"]
    for row in rows:
        if set(row) != {"surface", "senses"}:
            raise KnowledgeError(f"{file}: each row needs exactly the keys surface, senses")
        for sense in row["senses"]:
            where = f"{file}: surface '{row['surface']}'"
            if "means" not in sense or not set(sense) <= {"means", "cues", "sections", "default"}:
                raise KnowledgeError(f"{where}: a sense needs the key means, and may have cues, sections, default")
            if not all(isinstance(word, str) for word in (*sense["means"], *sense.get("cues", ()))):
                raise KnowledgeError(
                    f"{where}: means and cues are words; put quotes around yes, no, on, off and numbers"
                )
            if not set(sense.get("sections", ())) <= set(SECTION_NAMES):
                raise KnowledgeError(f"{where}: unknown section; expected {', '.join(SECTION_NAMES)}")
    return rows


#: a sense, if there is one to take, and whether something decides for it
_Choice: TypeAlias = tuple[Sense | None, bool]


# ---- what is meant ---------------------------------------------------------------------------------------------------


def resolve(
    text: str, mentions: list[Mention], senses: Mapping[str, tuple[Sense, ...]], taken: Collection[str]
) -> list[Mention]:
    """Give ambiguous mentions the meaning that most speaks for; leave out those that mean nothing of the graph.

    Args:
        text: what was read.
        mentions: what was found.
        senses: normalised surface -> its meanings.
        taken: ids of the concepts that ambiguous surfaces are taken for at first; others cost no look.
    """
    if not any(m.concept in taken for m in mentions):
        return mentions
    evidence = _Evidence(text, mentions)
    done: list[Mention] = []
    for mention in mentions:
        row = senses.get(mention.surface.lower()) if mention.concept in taken else None
        if not row:
            done.append(mention)
            continue
        sense, decided = evidence.choose(mention, row)
        if sense is not None and sense.concept:
            score = max(mention.score, _DECIDED) if decided else mention.score
            done.append(_with_sense(mention, sense, score))
    return done


def _with_sense(mention: Mention, sense: Sense, score: float) -> Mention:
    changed = mention._replace(concept=sense.concept, score=score)
    if sense.asserted:
        return changed
    return changed._replace(assertion=Assertion.PRESENT, trigger=None, trigger_start=None, trigger_end=None, doubt="")


class _Evidence:
    """What a text says for the meanings of its mentions."""

    def __init__(self, text: str, mentions: Sequence[Mention]) -> None:
        self._text = text
        self._words = ""
        self._far: dict[str, bool] = {}
        self._mentioned = Counter(m.concept for m in mentions)
        self._chosen: dict[tuple[str, str, str], _Choice] = {}

    def choose(self, mention: Mention, senses: tuple[Sense, ...]) -> _Choice:
        """The sense for which most speaks, and whether that decides; else the default one, or None."""
        around = self._around(mention)
        key = (mention.surface.lower(), mention.section, around)
        if key not in self._chosen:
            sentence = _padded(around)
            weights = [self._weight(mention, s, sentence) for s in senses]
            best = max(range(len(senses)), key=lambda k: weights[k])
            others = [w for k, w in enumerate(weights) if k != best]
            decided = not others or weights[best] - max(others) >= _MARGIN
            default = next((s for s in senses if s.default), None)
            self._chosen[key] = (senses[best] if decided else default, decided)
        return self._chosen[key]

    def _weight(self, mention: Mention, sense: Sense, sentence: str) -> float:
        fits = _FITS_TECHNIQUE if mention.section in ("technique", "comparison") else _FITS_ELSEWHERE
        weight = _TYPE * fits.get(sense.kind, 0.0) + _SECTION * (mention.section in sense.sections)
        weight += _NEIGHBOUR * any(self._mentioned[c] > (c == mention.concept) for c in sense.near)
        weight += _CUE_NEAR * sum(f" {cue} " in sentence for cue in sense.cues)
        return weight + _CUE_FAR * any(self._is_said(cue) for cue in sense.cues)

    def _around(self, mention: Mention) -> str:
        first, last = max(0, mention.start - _WINDOW), mention.end + _WINDOW
        start = max(first, *(self._text.rfind(mark, first, mention.start) + 1 for mark in _MARKS))
        ends = [at for mark in _MARKS if (at := self._text.find(mark, mention.end, last)) >= 0]
        return self._text[start : min(ends, default=last)]

    def _is_said(self, cue: str) -> bool:
        if cue not in self._far:
            self._words = self._words or _padded(self._text)
            self._far[cue] = f" {cue} " in self._words
        return self._far[cue]


def _padded(text: str) -> str:
    return f" {_form(text)} "
