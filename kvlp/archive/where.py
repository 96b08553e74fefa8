"""The `where` expression: a small language over an item's fields, turned into SQL with every value bound.

    view = 'PA' and source != 'x'
    view in ('PA', 'AP') or (split = 'test' and not path like '%/old/%')
    patient = '0017' and report ~ 'pleural thickening'

Fields are an allow-list, values only ever travel as parameters, so no expression can reach beyond the question it asks.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass

from kvlp.errors import ArchiveError

__all__ = ["FIELDS", "Condition", "parse_where"]

#: field -> column; values of `patient` and `study` are stored as keyed hashes and compared as such
FIELDS: dict[str, str] = {
    name: f"items.{name}" for name in ("id", "path", "record", "view", "source", "split", "flag", "study", "patient")
}
_HASHED = frozenset({"patient", "study"})
_LONGEST, _DEEPEST = 4_000, 40
_TOKEN = re.compile(
    r"""\s*(?:(?P<string>'(?:[^']|'')*'|"(?:[^"]|"")*")|(?P<symbol><=|>=|!=|<>|==|[=<>~(),])|(?P<word>[A-Za-z_]\w*))""",
    re.ASCII,
)
_COMPARE = {"=": "=", "==": "=", "!=": "IS NOT", "<>": "IS NOT", "<": "<", "<=": "<=", ">": ">", ">=": ">="}


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition over `items` and the values of its question marks."""

    sql: str
    values: tuple[str, ...] = ()


def parse_where(text: str, hashed: Callable[[str], str]) -> Condition:
    """Return the SQL condition of an expression; `hashed` maps a patient or study id to what is stored.

    Raises:
        ArchiveError: the expression is not one, names an unknown field, or is too long or nested too deep.
    """
    if len(text) > _LONGEST:
        raise ArchiveError(f"the where expression has {len(text)} characters; at most {_LONGEST} are read")
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise ArchiveError("the where expression is not valid Unicode text")
    return _Parser(_tokens(text), hashed).whole()


def _tokens(text: str) -> list[tuple[str, str]]:
    tokens, at = [], 0
    text = text.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise ArchiveError(
                f"where: cannot read {text[at : at + 12].strip()!r} at character {at + 1}; quote values: view = 'PA'"
            )
        kind = str(match.lastgroup)
        tokens.append((kind, match.group(kind)))
        at = match.end()
    return tokens


class _Parser:
    """Recursive descent over: or, and, not, parentheses, comparisons."""

    def __init__(self, tokens: list[tuple[str, str]], hashed: Callable[[str], str]) -> None:
        self._tokens = tokens
        self._hashed = hashed
        self._at = 0
        self._depth = 0

    def whole(self) -> Condition:
        condition = self._any()
        if self._at < len(self._tokens):
            raise ArchiveError(f"where: expected 'and' or 'or' before {self._tokens[self._at][1]!r}")
        return condition

    def _any(self) -> Condition:
        return self._chain("or", self._all)

    def _all(self) -> Condition:
        return self._chain("and", self._not)

    def _chain(self, word: str, part: Callable[[], Condition]) -> Condition:
        parts = [part()]
        while self._takes(word):
            parts.append(part())
        if len(parts) == 1:
            return parts[0]
        sql = f" {word.upper()} ".join(one.sql for one in parts)
        return Condition(f"({sql})", tuple(value for one in parts for value in one.values))

    def _not(self) -> Condition:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise ArchiveError(f"where: more than {_DEEPEST} levels of 'not' and parentheses")
        if self._takes("not"):
            inner = self._not()
            condition = Condition(f"NOT coalesce({inner.sql}, 0)", inner.values)
        elif self._takes("("):
            condition = self._any()
            self._expect(")")
        else:
            condition = self._comparison()
        self._depth -= 1
        return condition

    def _comparison(self) -> Condition:
        field = self._field()
        if field == "report":
            self._expect("~")
            phrase = '"' + self._value(field).replace('"', " ") + '"'
            return Condition("items.n IN (SELECT rowid FROM reports WHERE reports MATCH ?)", (phrase,))
        column = FIELDS[field]
        negated = self._takes("not")
        if self._takes("in"):
            return self._membership(column, field, negated=negated)
        if self._takes("like"):
            self._refuse_hashed(field)
            word = "NOT LIKE" if negated else "LIKE"
            return Condition(f"{column} {word} ?", (self._value(field),))
        symbol = self._next("a comparison such as = or in")
        if negated or symbol not in _COMPARE:
            raise ArchiveError(f"where: expected =, !=, <, <=, >, >=, in or like after {field}, got {symbol!r}")
        if symbol.startswith(("<", ">")) and symbol != "<>":
            self._refuse_hashed(field)
        return Condition(f"{column} {_COMPARE[symbol]} ?", (self._value(field),))

    def _membership(self, column: str, field: str, *, negated: bool) -> Condition:
        self._expect("(")
        values = [self._value(field)]
        while self._takes(","):
            values.append(self._value(field))
        self._expect(")")
        marks = ", ".join("?" * len(values))
        return Condition(f"coalesce({column}, '') {'NOT IN' if negated else 'IN'} ({marks})", tuple(values))

    def _field(self) -> str:
        name = self._next("a field").lower()
        known = [*FIELDS, "report"]
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ArchiveError(f"where: no field {name!r}{hint} Fields: {', '.join(known)}")
        return name

    def _value(self, field: str) -> str:
        kind, text = self._peek()
        if kind != "string":
            raise ArchiveError(f"where: expected a quoted value for {field}, got {text or 'the end'!r}")
        self._at += 1
        value = text[1:-1].replace(text[0] * 2, text[0])
        return self._hashed(value) if field in _HASHED else value

    def _refuse_hashed(self, field: str) -> None:
        if field in _HASHED:
            raise ArchiveError(f"where: {field} is stored as a keyed hash; only =, != and in compare it")

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._at] if self._at < len(self._tokens) else ("end", "")

    def _next(self, expected: str) -> str:
        kind, text = self._peek()
        if kind in ("end", "string"):
            raise ArchiveError(f"where: expected {expected}, got {text or 'the end'!r}")
        self._at += 1
        return text

    def _takes(self, text: str) -> bool:
        kind, found = self._peek()
        if kind != "string" and found.lower() == text:
            self._at += 1
            return True
        return False

    def _expect(self, text: str) -> None:
        if not self._takes(text):
            raise ArchiveError(f"where: expected {text!r}, got {self._peek()[1] or 'the end'!r}")
