"""What is wanted of a UMLS release, what was left out of it and why, and lists without repetitions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from kvlp.errors import KnowledgeError
from kvlp.knowledge.lookup import hash_texts, in_pieces
from kvlp.knowledge.surfaces import near

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from kvlp.typing import IntArray

__all__ = [
    "LICENCE",
    "SUPPRESSED",
    "Report",
    "Selection",
    "among",
    "first_of_each",
    "listed",
    "places",
    "require_known",
]

LICENCE = "UMLS Metathesaurus licence: not to be redistributed"
#: SUPPRESS values of obsolete or suppressible rows
SUPPRESSED = ("O", "E", "Y")
#: reasons that are told in the log, each as a sentence about so many rows
_TOLD = {
    "dangling": "{} rows name a CUI that is not in MRCONSO.RRF",
    "self_loop": "{} relate a concept to itself",
    "circle": "{} is_a relations went in circles",
}
#: examples kept of each reason
_EXAMPLES = 5
_SPREAD = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True)
class Selection:
    """What to keep; None keeps all. See `kvlp.knowledge.sources.umls.read_umls`."""

    languages: tuple[str, ...] | None
    vocabularies: tuple[str, ...] | None
    semantic_types: tuple[str, ...] | None
    relations: tuple[str, ...] | None
    suppressed: bool

    @classmethod
    def of(cls, *filters: Sequence[str] | Collection[str] | None, suppressed: bool) -> Selection:
        """Make a selection of languages, vocabularies, semantic types and relations."""
        names = ("languages", "vocabularies", "semantic_types", "relations")
        for name, chosen in zip(names, filters, strict=True):
            if isinstance(chosen, str) or (chosen is not None and not len(chosen)):
                raise KnowledgeError(f"{name}: expected a list of at least one, or None for all; got {chosen!r}")
        languages, *others = filters
        vocabularies, semantic_types, relations = (None if f is None else tuple(sorted(f)) for f in others)
        return cls(None if languages is None else tuple(languages), vocabularies, semantic_types, relations, suppressed)


@dataclass(slots=True)
class Report:
    """How many rows were read, kept and left out, table by table and by reason."""

    read: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)
    left_out: dict[str, Counter[str]] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def sieve(self, table: str, reasons: Mapping[str, NDArray[np.bool_]]) -> NDArray[np.bool_]:
        """Count a batch of rows of a table; each that is left out counts for the first reason that it does not fit.

        Returns:
            Which rows fit all.
        """
        kept = np.ones(len(next(iter(reasons.values()))), bool)
        self.read[table] += len(kept)
        for reason, fits in reasons.items():
            self.leave_out(table, reason, int(np.count_nonzero(kept & ~fits)))
            kept &= fits
        return kept

    def leave_out(self, table: str, reason: str, count: int) -> None:
        """Count rows of a table that were left out for a reason."""
        if count:
            self.left_out.setdefault(table, Counter())[reason] += count

    def example(self, reason: str, texts: Iterator[str]) -> None:
        """Take examples until there are enough."""
        for text in islice(texts, _EXAMPLES - len(self.examples.get(reason, ()))):
            self.examples.setdefault(reason, []).append(text)

    def warnings(self) -> Iterator[str]:
        """One line for each table in which something was wrong."""
        for table, reasons in self.left_out.items():
            told = [
                f"{text.format(reasons[reason])} (such as {self.examples[reason][0]})"
                for reason, text in _TOLD.items()
                if reasons[reason]
            ]
            if told:
                yield f"{table}: left out: {'; '.join(told)}"

    def as_json(self, selection: Selection) -> dict[str, object]:
        """All of it, and what was wanted."""
        return {
            "selection": asdict(selection),
            "read": dict(self.read),
            "kept": dict(self.kept),
            "left_out": {table: dict(reasons) for table, reasons in self.left_out.items()},
            "examples": dict(self.examples),
        }


def require_known(kind: str, wanted: Collection[str] | None, there: Iterable[str], where: object) -> None:
    """Refuse a filter that names what the release does not have.

    Raises:
        KnowledgeError: names the first such, and what is like it or there.
    """
    known = sorted(set(there))
    for name in wanted or ():
        if name not in known:
            close = near(name, known, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"there are {', '.join(known[:12])}"
            raise KnowledgeError(f"{where}: no {kind} '{name}'; {hint}")


def among(texts: pa.Array, chosen: Collection[str] | None) -> NDArray[np.bool_]:
    """Say of each string whether it was chosen; None chooses all."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if chosen is None:
        return np.ones(len(texts), bool)
    return np.asarray(pc.is_in(texts, value_set=pa.array(list(chosen), texts.type)), bool)


def places(keys: NDArray[np.uint64], known: NDArray[np.uint64]) -> tuple[IntArray, NDArray[np.bool_]]:
    """Return where each key stands in the sorted `known`, and whether it does."""
    if not len(known):
        return np.zeros(len(keys), np.int64), np.zeros(len(keys), bool)
    order = np.argsort(keys, kind="stable")  # a search in order goes through memory in order: many times as fast
    at = np.empty(len(keys), np.int64)
    at[order] = np.searchsorted(known, keys[order])
    at[at == len(known)] = 0
    return at, np.asarray(known[at] == keys)


def first_of_each(order: IntArray, rows: IntArray, texts: pa.Array, form: Callable[[pa.Array], pa.Array]) -> IntArray:
    """Return the places in `order`, in that order, whose text is the first of its row in this form.

    Args:
        order: places of texts.
        rows: to which row each text belongs.
        texts: the texts.
        form: texts are the same if this makes the same of them.
    """
    import pyarrow.compute as pc

    mixed = (_hashes(texts, form) ^ (rows.astype(np.uint64) * _SPREAD))[order]
    sort = np.argsort(mixed, kind="stable")
    fresh = np.ones(len(sort), bool)
    fresh[1:] = mixed[sort[1:]] != mixed[sort[:-1]]
    leader = sort[np.maximum.accumulate(np.where(fresh, np.arange(len(sort)), 0))]
    again, first = sort[~fresh], leader[~fresh]
    same = np.asarray(pc.equal(form(texts.take(order[again])), form(texts.take(order[first]))), bool)
    same &= rows[order[again]] == rows[order[first]]
    kept = np.ones(len(order), bool)
    kept[again[same]] = False
    return order[kept]


def _hashes(texts: pa.Array, form: Callable[[pa.Array], pa.Array]) -> NDArray[np.uint64]:
    parts = in_pieces(lambda piece, _: hash_texts(form(piece)), texts)
    return np.concatenate([np.zeros(0, np.uint64), *parts])


def listed(rows: IntArray, texts: pa.Array, count: int) -> pa.Array:
    """Return the list of texts of each of `count` rows, in the order in which they came."""
    import pyarrow as pa

    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.bincount(rows, minlength=count))])
    if len(rows) and (np.diff(rows) < 0).any():
        texts = texts.take(np.argsort(rows, kind="stable"))
    return pa.LargeListArray.from_arrays(offsets, texts)
