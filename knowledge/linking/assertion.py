"""Whether a report says that a finding is there, is not there, or may be there.

The phrases stand in `rules.yaml`, in the manner of ConText: triggers that look forward, backward or around, pseudo
triggers that hide others, and words that end a trigger's reach. Reach goes by clause, not by a window of words: a
sentence is cut at commas, "and" and "or" into parts, and a trigger reaches from part to part as long as the list goes
on. A part with a verb of its own ("..., the heart is enlarged") or with an affirming word ("..., mild edema") ends it.

References: Harkema et al. 2009 (ConText, doi:10.1016/j.jbi.2009.05.002); Peng et al. 2018 (NegBio, arXiv:1712.05898).
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import yaml

try:  # ten times faster, where libyaml is there
    from yaml import CSafeLoader as SafeLoader
except ImportError:
    from yaml import SafeLoader as SafeLoader  # type: ignore[assignment]

from kvlp.errors import KnowledgeError
from kvlp.knowledge.linking.dictionary import expand
from kvlp.knowledge.linking.normalise import spellings
from kvlp.typing import Assertion, PathLike

__all__ = ["DOUBTS", "PRESENT", "Clauses", "Rule", "Ruling", "Rules", "Word", "alternatives", "read_rules"]

Separator: TypeAlias = Literal["", "comma", "and", "or", "end"]
Hit: TypeAlias = "tuple[int, int, Word]"
Span: TypeAlias = tuple[int, int]
#: what a trigger says of an item: absent or uncertain, where the trigger looks, its span, how strong the doubt is
_Said: TypeAlias = tuple[str, str, Span, str]

#: grades of doubt, from what is hardly there to what is nearly certain; where several doubts meet, the first counts
DOUBTS = ("unlikely", "possible", "alternative", "borderline", "probable")

_MARKS = re.compile(r"[,;?()]|\s[-\u2013\u2014]{1,2}\s|(?<=[A-Za-z]{3})/(?=[A-Za-z]{3})")
_MAY_BE_MARK = re.compile(r"[,;?(/ ](?:(?<! )|(?<= )[-\u2013\u2014])")
_PARTS = {"rules", "ends", "separators", "verbs", "existential", "affirming", "sizes", "unasserted_types"}
_LOOKS = ("forward", "backward", "around", "sentence")
_ASKS = frozenset(":-\u2013\u2014")
_MARK_CUTS: dict[str, Separator] = {",": "comma", "(": "comma", ")": "comma", "/": "or"}
_STRENGTH = {"": 0, "comma": 1, "and": 2, "or": 3, "end": 4}
_NO_SUBJECT = re.compile(r"[\s,;()]*(?:(?:this|it|these|they|that|those|now|currently|today)\s+)?", re.IGNORECASE)
_LISTED = re.compile(r"\s*(?:,|,?\s*\b(?:and|or)\b)\s*(?:[a-z-]+\s+){0,2}", re.IGNORECASE)
_WORDS_BETWEEN = re.compile(r"\s*(?:[^\W\d_]+\s+){0,2}")
_ENOUGH = re.compile(r"\s+(?:that (?:is|are|would be)\s+)?(?:large|big|sizable) enough\b", re.IGNORECASE)
_CONTRAST = re.compile(r";|\b(?:but|however|although|though)\b", re.IGNORECASE)
_COMMA = re.compile(r"\s*,\s*(?:[a-z-]+\s+)?", re.IGNORECASE)
_OR = re.compile(r"\s*,?\s+(or)\s+(?:[a-z-]+\s+){0,2}", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of the data file: what its phrases say, and where they look."""

    name: str
    says: str
    looks: str = ""
    through: bool = False
    last: bool = False
    list: bool = False
    doubt: str = ""
    example: str = ""


@dataclass(frozen=True, slots=True)
class Word:
    """What a phrase means for the assertion of the concepts around it; a phrase may have several parts to play."""

    forward: Rule | None = None
    backward: Rule | None = None
    around: Rule | None = None
    sentence: Rule | None = None
    hides: bool = False
    ends: bool = False
    separator: Separator = ""
    verb: bool = False
    exists: bool = False
    affirms: bool = False
    #: whether it may say something of a concept: it looks forward, backward, around or over its clause
    triggers: bool = False


class Ruling(NamedTuple):
    """An assertion, the span of the words that caused it, if any, and the grade of a doubt."""

    assertion: Assertion
    trigger: Span | None = None
    doubt: str = ""


@dataclass(frozen=True, slots=True)
class Rules:
    """The data file, read.

    Attributes:
        rules: in file order.
        words: normalised phrase -> what it means.
        unasserted_types: types of concept of which triggers say nothing (anatomy ...).
        sizes: matches a word of size, whose denial leaves something smaller open.
    """

    rules: tuple[Rule, ...]
    words: dict[str, Word]
    unasserted_types: frozenset[str]
    sizes: re.Pattern[str]


#: what holds where no trigger says otherwise
PRESENT = Ruling(Assertion.PRESENT)


@cache
def read_rules(path: PathLike | None = None) -> Rules:
    """Read the rules (default: the bundled ones).

    Raises:
        KnowledgeError: not UTF-8, no YAML, a missing part, or an unknown value.
    """
    file = Path(path) if path is not None else Path(__file__).with_name("rules.yaml")
    data = read_yaml(file, _PARTS)
    words: dict[str, Word] = {}
    rules = []
    for row in data["rules"]:
        phrases = row.pop("phrases")
        rule = _rule(row, file)
        rules.append(rule)
        part = {"hides": True} if rule.says == "nothing" else {rule.looks: rule, "triggers": True}
        _add(words, phrases, part)
    _add(words, data["ends"], {"ends": True})
    for name, phrases in data["separators"].items():
        _add(words, phrases, {"separator": name})
    _add(words, data["existential"], {"hides": True, "exists": True})
    _add(words, data["verbs"], {"verb": True})
    _add(words, data["affirming"], {"affirms": True})
    sizes = re.compile(rf"\b(?:{'|'.join(map(re.escape, data['sizes']))})\b", re.IGNORECASE)
    return Rules(tuple(rules), words, frozenset(data["unasserted_types"]), sizes)


def read_yaml(file: Path, parts: set[str]) -> dict[str, Any]:
    """Read a YAML file that must hold exactly these parts at its top."""
    try:
        data = yaml.load(file.read_text(encoding="utf-8"), Loader=SafeLoader)
    except UnicodeDecodeError:
        raise KnowledgeError(f"{file}: expected UTF-8 text; save the rules as UTF-8") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise KnowledgeError(f"{file}: no valid YAML{f' at line {mark.line + 1}' if mark else ''}") from None
    if not isinstance(data, dict) or set(data) != parts:
        raise KnowledgeError(f"{file}: expected the parts {', '.join(sorted(parts))} and no others")
    return data


def _rule(row: dict[str, Any], file: Path) -> Rule:
    try:
        rule = Rule(**row)
    except TypeError:
        raise KnowledgeError(f"{file}: rule '{row.get('name', '?')}' has an unknown or missing key") from None
    if rule.says not in ("absent", "uncertain", "nothing"):
        raise KnowledgeError(f"{file}: rule '{rule.name}' says '{rule.says}'; expected absent, uncertain or nothing")
    if rule.says != "nothing" and rule.looks not in _LOOKS:
        raise KnowledgeError(f"{file}: rule '{rule.name}' looks '{rule.looks}'; expected one of {', '.join(_LOOKS)}")
    if (rule.doubt in DOUBTS) != (rule.says == "uncertain"):
        raise KnowledgeError(
            f"{file}: rule '{rule.name}' has the doubt '{rule.doubt}'; rules that say uncertain need one of"
            f" {', '.join(DOUBTS)}, others have none"
        )
    return rule


def _add(words: dict[str, Word], phrases: Sequence[str], part: dict[str, Any]) -> None:
    fresh = Word(**part)
    for phrase in (form for written in expand(phrases) for form in (written, *spellings(written))):
        words[phrase] = replace(words[phrase], **part) if phrase in words else fresh


class _Part:
    """A stretch of a sentence between two separators."""

    __slots__ = ("affirms", "end", "exists", "items", "separator", "start", "verb")

    def __init__(self, start: int, separator: Separator) -> None:
        self.start = start
        self.end = start
        self.separator = separator
        self.verb = False
        self.exists = False
        self.affirms = False
        self.items: list[int] = []


class Clauses:
    """One sentence, cut into parts, with its triggers: tells which items each trigger reaches.

    Args:
        text: the raw text.
        start: where the sentence starts.
        end: where it ends.
        words: what the rules found in it, in order.
        inside: spans within which separators do not count (names of concepts).
        predicates: spans that make a statement of their part, as verbs do.
    """

    def __init__(
        self, text: str, start: int, end: int, words: Sequence[Hit], inside: Sequence[Span], predicates: Sequence[Span]
    ) -> None:
        self.text, self.start, self.end = text, start, end
        self._marks = [m.span() for m in _MARKS.finditer(text, start, end)] if _may_have_marks(text, start, end) else []
        self._asks = [mark for mark in self._marks if text[mark[0]] == "?"]
        cuts = [(s, e, _MARK_CUTS.get(text[s], "end")) for s, e in self._marks if text[s] != "?"]
        self._triggers, affirming, existing = [], [], []
        verbs = [p[0] for p in predicates]
        for hit in words:
            first, last, word = hit
            if word.triggers:
                self._triggers.append(hit)
            if word.verb or (word.backward is not None and word.forward is None):
                verbs.append(first)
            if word.ends or word.separator:
                cuts.append((first, last, "end" if word.ends else word.separator))
            if word.affirms:
                affirming.append(first)
            if word.exists:
                existing.append(first)
        self.parts = self._cut(sorted(cuts), inside)
        self._starts = [p.start for p in self.parts]
        for part in self.parts[1:] if affirming else ():
            lead = len(text[part.start : part.end]) - len(text[part.start : part.end].lstrip())
            part.affirms = part.start + lead in affirming
        for at in verbs:
            self.part_at(at).verb = True
        for at in existing:
            self.part_at(at).exists = True

    def _cut(self, cuts: Sequence[tuple[int, int, Separator]], inside: Sequence[Span]) -> list[_Part]:
        last = _Part(self.start, "")
        parts = [last]
        for start, end, separator in cuts:
            if _overlaps(start, end, inside):
                continue
            if len(parts) == 1 or self.text[last.start : start].strip():
                last.end = start
                last = _Part(end, separator)
                parts.append(last)
            else:
                last.start = end
                if _STRENGTH[separator] > _STRENGTH[last.separator]:
                    last.separator = separator
        last.end = self.end
        return parts

    def part_at(self, position: int) -> _Part:
        """The part in which a position lies."""
        return self.parts[self.index_at(position)]

    def index_at(self, position: int) -> int:
        """The number of the part in which a position lies."""
        return max(bisect_right(self._starts, position) - 1, 0) if len(self._starts) > 1 else 0

    def behind(self, items: Sequence[Span], position: int, *, commas: bool = False) -> list[int]:
        """Items before a position that something there speaks of: its own part's, and those of the list before it.

        Args:
            items: spans, in order.
            position: where the predicate or trigger starts.
            commas: reach over a comma also where no "and" or "or" closes the list.
        """
        number = self.index_at(position)
        reach = self.parts[number].start
        closed = False
        while number > 0 and self.parts[number].separator in ("comma", "and", "or"):
            part, before = self.parts[number], self.parts[number - 1]
            closed = closed or part.separator != "comma"
            if before.verb or before.exists or not (closed or commas):
                break
            reach, number = before.start, number - 1
        return [i for i, (start, end) in enumerate(items) if start >= reach and end <= position]

    def shared_subject(self, subjects: Sequence[Span], position: int) -> list[int]:
        """Subjects of the part before, where a second predicate follows: "the aorta is tortuous but not dilated"."""
        number = self.index_at(position)
        if number == 0 or self.text[self.parts[number].start : position].strip():
            return []
        before = self.parts[number - 1]
        return [i for i, (start, end) in enumerate(subjects) if before.start <= start and end <= before.end]

    def rule(self, items: Sequence[Span]) -> list[Ruling]:
        """Rule on every item.

        Args:
            items: spans of what may be asserted, in order.
        """
        if not self._triggers and not self._asks:
            return alternatives(self.text, items, [PRESENT] * len(items))
        for number, (start, _) in enumerate(items):
            self.part_at(start).items.append(number)
        said: list[list[_Said]] = [[] for _ in items]
        for number, hit in enumerate(self._triggers):
            self._apply(number, hit, items, said)
        self._question_marks(items, said)
        rulings = [self._leave_open(i, _decide(s)) if s else PRESENT for i, s in zip(items, said, strict=True)]
        return alternatives(self.text, items, rulings)

    def _leave_open(self, item: Span, ruling: Ruling) -> Ruling:
        """Denied is only what is large ("no large effusion"): a smaller one may be there."""
        if ruling.assertion is not Assertion.ABSENT or ruling.trigger is None:
            return ruling
        first = self.part_at(item[0]).start
        if ruling.trigger[1] <= item[0]:
            first = max(first, ruling.trigger[1])
        if read_rules().sizes.search(self.text, first, item[0]) or _ENOUGH.match(self.text, item[1], self.end):
            return Ruling(Assertion.UNCERTAIN, ruling.trigger, "unlikely")
        return ruling

    def _apply(self, number: int, hit: Hit, items: Sequence[Span], said: list[list[_Said]]) -> None:
        start, end, word = hit
        span = (start, end)
        ahead = self._ahead(number, items) if (word.forward or word.around) and not self._enclosed(hit) else []
        if word.forward is not None and ahead:
            for item in ahead:
                said[item].append((word.forward.says, "forward", span, word.forward.doubt))
        elif word.backward is not None or (word.forward is not None and self._answers(start)):
            rule = word.backward or word.forward
            assert rule is not None
            if rule.last and not self._closes(end):
                return
            reached = self.behind(items, start, commas=rule.list)
            for item in reached or self._asked(items, start) or self._resumed(items, start):
                said[item].append((rule.says, "backward", span, rule.doubt))
        if word.around is not None:
            before = [i for i, (_, e) in enumerate(items) if e <= start and i < (ahead[0] if ahead else len(items))]
            for item in before[-1:] + ahead:
                said[item].append((word.around.says, "around", span, word.around.doubt))
        if word.sentence is not None:
            for item, (first, last) in enumerate(items):
                if _CONTRAST.search(self.text, min(last, end), max(first, start)) is None:
                    said[item].append((word.sentence.says, "sentence", span, word.sentence.doubt))

    def _ahead(self, number: int, items: Sequence[Span]) -> list[int]:
        """Items that a forward trigger reaches."""
        start, end, word = self._triggers[number]
        stop = self._superseded(number, items)
        at = self.index_at(start)
        reached = [i for i in self.parts[at].items if items[i][0] > start and items[i][1] > end and items[i][0] < stop]
        listing = word.forward is not None and word.forward.list
        doubtful = word.forward is None or (word.forward.says == "uncertain" and not listing)
        closed = False
        for index in range(at + 1, len(self.parts)):
            part = self.parts[index]
            if part.start >= stop or part.separator == "end":
                break
            if part.separator == "or":
                closed = True
            elif part.verb or (not listing and self._list_ends(index, doubtful=doubtful, closed=closed)):
                break
            reached += [i for i in part.items if items[i][0] < stop]
        return reached

    def _list_ends(self, index: int, *, doubtful: bool, closed: bool) -> bool:
        """Whether a part without a verb, behind a comma or "and", no longer belongs to the list before it."""
        part = self.parts[index]
        goes_on = self._or_follows(index)
        if closed or part.affirms:
            return not goes_on
        return doubtful and part.separator == "comma" and not (goes_on or self._and_follows(index))

    def _or_follows(self, index: int) -> bool:
        return self._follows(index, "or")

    def _and_follows(self, index: int) -> bool:
        return self._follows(index, "and")

    def _follows(self, index: int, separator: str) -> bool:
        for part in self.parts[index + 1 :]:
            if part.separator == "end" or part.verb:
                return False
            if part.separator == separator:
                return True
        return False

    def _superseded(self, number: int, items: Sequence[Span]) -> int:
        """Where the next trigger takes over: the first that has an item between this one and itself."""
        end = self._triggers[number][1]
        for start, _, word in self._triggers[number + 1 :]:
            rule = word.forward
            takes_over = rule is not None and not rule.through and (word.backward is None or rule.says == "uncertain")
            if takes_over and any(end <= s < start for s, _ in items):
                return start
        return self.end

    def _answers(self, position: int) -> bool:
        """Whether an answer stands there, behind a colon or dash: "Pneumothorax: no"."""
        return self.text[self.start : position].rstrip()[-1:] in _ASKS

    def _closes(self, position: int) -> bool:
        """Whether nothing but a mark follows in the part that ends there."""
        stop = self.part_at(position - 1).end
        return not any(c.isalnum() for c in self.text[position:stop])

    def _resumed(self, items: Sequence[Span], position: int) -> list[int]:
        """What was last spoken of before a part without a subject: "the effusion, which was small, has resolved"."""
        part = self.part_at(position)
        if part.start == self.start or _NO_SUBJECT.fullmatch(self.text, part.start, position) is None:
            return []
        first = last = sum(end <= part.start for _, end in items) - 1
        while first > 0 and _LISTED.fullmatch(self.text, items[first - 1][1], items[first][0]):
            first -= 1
        return list(range(max(first, 0), last + 1))

    def _enclosed(self, hit: Hit) -> bool:
        """Whether a trigger stands alone in parentheses, where it speaks of what is before them."""
        if not self._marks:
            return False
        before, after = self.text[self.start : hit[0]].rstrip(), self.text[hit[1] : self.end].lstrip()
        return before.endswith("(") and after.startswith(")")

    def _asked(self, items: Sequence[Span], position: int) -> list[int]:
        """The item that an answer answers: the last one before the colon or dash."""
        before = [i for i, (_, end) in enumerate(items) if end <= position]
        return before[-1:] if self._answers(position) else []

    def _question_marks(self, items: Sequence[Span], said: list[list[_Said]]) -> None:
        for start, end in self._asks:
            behind = [i for i, (s, _) in enumerate(items) if s >= end]
            after = [i for i in behind[:1] if _WORDS_BETWEEN.fullmatch(self.text, end, items[i][0])]
            before = [i for i, (_, e) in enumerate(items) if e <= start and not self.text[e:start].strip(" )")]
            for item in after or before:
                said[item].append(("uncertain", "around", (start, end), "possible"))


def alternatives(text: str, items: Sequence[Span], rulings: list[Ruling]) -> list[Ruling]:
    """Findings joined by "or" that nothing denies are alternatives, with those listed before them: all uncertain."""
    for i in range(len(items) - 1):
        if rulings[i].assertion is Assertion.ABSENT or rulings[i + 1].assertion is Assertion.ABSENT:
            continue
        if items[i][1] >= items[i + 1][0]:
            continue
        match = _OR.fullmatch(text, items[i][1], items[i + 1][0])
        if match is None:
            continue
        first = i
        while first > 0 and _COMMA.fullmatch(text, items[first - 1][1], items[first][0]):
            first -= 1
        for k in range(first, i + 2):
            if rulings[k].assertion is Assertion.PRESENT:
                rulings[k] = Ruling(Assertion.UNCERTAIN, match.span(1), "alternative")
    return rulings


def _may_have_marks(text: str, start: int, end: int) -> bool:
    return _MAY_BE_MARK.search(text, start, end) is not None


def _overlaps(start: int, end: int, spans: Sequence[Span]) -> bool:
    return True in [first < end and start < last for first, last in spans]


def _decide(said: list[_Said]) -> Ruling:
    """Weigh what triggers say of one item: a denial outweighs doubt, unless the doubt comes first and covers it."""
    denials = [s for s in said if s[0] == "absent"]
    doubts = [s for s in said if s[0] == "uncertain"]
    if denials:
        denial = denials[-1] if denials[-1][1] == "forward" else denials[0]
        covering = [d for d in doubts if d[1] == "forward" and d[2][0] < denial[2][0] and denial[1] == "forward"]
        if not covering:
            return Ruling(Assertion.ABSENT, denial[2])
        doubts = covering
    if doubts:
        return Ruling(Assertion.UNCERTAIN, doubts[-1][2], min((d[3] for d in doubts), key=DOUBTS.index))
    return PRESENT
