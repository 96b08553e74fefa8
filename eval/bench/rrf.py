"""UMLS-like tables of any size, to measure with: the layout of a release, made-up words, nothing of UMLS in them.

What a release is like is kept: sorted by CUI, names repeated across vocabularies and in other spellings, a third of
them in other languages, rows that are suppressed, quotes, texts beyond ASCII, each relation stated in both directions,
is_a from several vocabularies, a few circles, rows about one concept only and CUIs that no name has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from kvlp.typing import IntArray

__all__ = ["FULL", "write_release"]

#: rows of a full release: concepts, names, relation rows
FULL = {"concepts": 4_000_000, "names": 17_000_000, "relations": 50_000_000}
_BLOCK = 40_000
_ENGLISH = ("SNOMEDCT_US", "MSH", "NCI", "MTH", "LNC", "RXNORM", "ICD10CM", "HPO", "MDR", "OMIM")
_LANGUAGES = {"SPA": "SCTSPA", "FRE": "MSHFRE", "GER": "MSHGER", "POR": "MSHPOR", "RUS": "MSHRUS", "JPN": "MSHJPN"}
_FORMS = ("PF", "VO", "VC", "VW", "VCW")
_SYLLABLES = (
    "ba",
    "cor",
    "di",
    "fe",
    "gan",
    "hy",
    "ka",
    "lo",
    "mi",
    "ner",
    "os",
    "pul",
    "ra",
    "sta",
    "thy",
    "um",
    "ven",
)
_LETTERS = {
    "SPA": "áéíóñ",
    "FRE": "éèêçà",
    "GER": "äöüß",
    "POR": "ãõçé",
    "RUS": "абвгдежзиклмн",
    "JPN": "肺炎心臓胸水骨折腫瘤",
}
#: REL, RELA, share; the row in the other direction has the REL and RELA behind the slash
_HIERARCHY = (("CHD", "isa", "PAR", "inverse_isa"), ("CHD", "", "PAR", ""))
_OTHER = (("SIB", "", "SIB", ""), ("RQ", "", "RQ", ""), ("SY", "", "SY", ""), ("RB", "", "RN", ""))
_ROLES = 180


def write_release(
    folder: Path, *, concepts: int, names: int, relations: int, seed: int = 0, say: Callable[[str], None] | None = None
) -> dict[str, int]:
    """Write MRCONSO, MRREL, MRDEF and MRSTY; return how many rows each has, by its name.

    Args:
        folder: is made if it is not there.
        concepts: different CUIs.
        names: about so many rows of MRCONSO.
        relations: about so many rows of MRREL.
        seed: the same seed writes the same bytes.
        say: receives a line now and then.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng, tell = np.random.default_rng(seed), say or (lambda line: None)
    words = _Words(rng, max(2000, min(200_000, concepts // 10)))
    counts = dict.fromkeys(("MRCONSO.RRF", "MRSTY.RRF", "MRDEF.RRF"), 0)
    files = {name: (folder / name).open("wb") for name in counts}
    try:
        for start in range(0, concepts, _BLOCK):
            numbers = np.arange(start, min(start + _BLOCK, concepts))
            rows = {
                "MRCONSO.RRF": _names(rng, numbers, names / concepts, words),
                "MRSTY.RRF": _types(rng, numbers),
                "MRDEF.RRF": _definitions(rng, numbers, words),
            }
            for name, columns in rows.items():
                counts[name] += _write(files[name], columns)
            tell(f"{numbers[-1] + 1:,} of {concepts:,} concepts written")
    finally:
        for file in files.values():
            file.close()
    with (folder / "MRREL.RRF").open("wb") as file:
        counts["MRREL.RRF"] = sum(_write(file, columns) for columns in _relations(rng, concepts, relations, tell))
    return counts


class _Words:
    """Made-up words, common ones first; those of other languages hold letters beyond ASCII."""

    def __init__(self, rng: np.random.Generator, count: int) -> None:
        import pyarrow as pa

        parts = [_SYLLABLES[i] for i in rng.integers(len(_SYLLABLES), size=count * 3)]
        plain = [f"{a}{b}{c}"[: 2 + i % 9] + ("" if i % 97 else "'s") for i, (a, b, c) in enumerate(_threes(parts))]
        plain[5::211] = [f'"{word}"' for word in plain[5::211]]
        self.of = {"ENG": pa.array(plain)}
        for language, letters in _LETTERS.items():
            mixed = [f"{word[:3]}{letters[i % len(letters)]}{word[3:]}" for i, word in enumerate(plain)]
            foreign = ["".join(letters[(i + 3 * k) % len(letters)] for k in range(2 + i % 6)) for i in range(count)]
            self.of[language] = pa.array(foreign if language in ("RUS", "JPN") else mixed)

    def texts(self, rng: np.random.Generator, language: str, lengths: IntArray) -> pa.Array:
        """Texts of so many words each; the square of chance makes some words far commoner than others."""
        import pyarrow as pa
        import pyarrow.compute as pc

        words = self.of[language]
        drawn = (len(words) * rng.random(int(lengths.sum())) ** 2.5).astype(np.int64)
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]).astype(np.int32)
        return pc.binary_join(pa.ListArray.from_arrays(pa.array(offsets), words.take(pa.array(drawn))), " ")


def _threes(parts: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    return zip(parts[::3], parts[1::3], parts[2::3], strict=True)


def _numbered(prefix: str, numbers: IntArray, digits: int) -> pa.Array:
    """Strings such as C0000123."""
    import pyarrow as pa

    width = len(prefix) + digits
    table = np.empty((len(numbers), width), np.uint8)
    table[:, : len(prefix)] = np.frombuffer(prefix.encode(), np.uint8)
    rest = np.asarray(numbers, np.uint32).copy()
    for column in range(width - 1, len(prefix) - 1, -1):
        table[:, column] = rest % 10 + ord("0")
        rest //= np.uint32(10)
    ends = pa.py_buffer(np.arange(0, table.size + 1, width, dtype=np.int32))
    return pa.StringArray.from_buffers(len(numbers), ends, pa.py_buffer(table))


def _cuis(numbers: IntArray) -> pa.Array:
    """Every other CUI: those between belong to nothing."""
    return _numbered("C", 2 * np.asarray(numbers) + 1, 7)


def _one_of(values: Sequence[str], chosen: NDArray[Any]) -> pa.Array:
    import pyarrow as pa

    return pa.array(values).take(pa.array(np.asarray(chosen, np.int64)))


def _write(file: Any, columns: Sequence[Any]) -> int:
    """Write rows whose columns each end with "|"."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from kvlp.knowledge.lookup import text_buffers

    parts = [c if isinstance(c, str) else c.cast(pa.large_string()) for c in columns]
    scalars = [pa.scalar(c, pa.large_string()) if isinstance(c, str) else c for c in parts]
    end, bar = pa.scalar("\n", pa.large_string()), pa.scalar("|", pa.large_string())
    rows = pc.binary_join_element_wise(*scalars, end, bar)
    offsets, data = text_buffers(rows)
    file.write(data[: int(offsets[-1])].data)
    return len(rows)


# ---- names, types, definitions -------------------------------------------------------------------------------------


def _names(rng: np.random.Generator, numbers: IntArray, mean: float, words: _Words) -> list[Any]:
    """Rows of MRCONSO of a block of concepts; the first of each is its preferred English name."""
    import pyarrow as pa
    import pyarrow.compute as pc

    counts = 1 + np.minimum(rng.geometric(1 / mean, len(numbers)) - 1, 400)
    owner = np.repeat(np.arange(len(numbers)), counts)
    first = np.cumsum(counts) - counts
    nth = np.arange(len(owner)) - first[owner]
    languages = ("ENG", *_LANGUAGES)
    language = np.where(
        nth == 0, 0, rng.choice(len(languages), len(owner), p=[0.68, 0.12, 0.05, 0.05, 0.04, 0.03, 0.03])
    )
    source = _one_of(_ENGLISH, rng.choice(len(_ENGLISH), len(owner)))
    foreign = _one_of(("", *_LANGUAGES.values()), language)
    code = _numbered("", rng.integers(100_000_000, size=len(owner)), 8)
    suppress = np.where((nth > 0) & (rng.random(len(owner)) < 0.08), rng.integers(1, 4, len(owner)), 0)
    at = _numbered("A", 9 * numbers[owner] + nth, 8)
    preferred = nth == 0
    return [
        _cuis(numbers[owner]),
        _one_of(languages, language),
        _one_of(("P", "S"), ~preferred & (rng.random(len(owner)) < 0.8)),
        _numbered("L", numbers[owner], 7),
        _one_of(_FORMS, np.where(preferred, 0, rng.integers(len(_FORMS), size=len(owner)))),
        _numbered("S", 9 * numbers[owner] + nth, 8),
        _one_of(("Y", "N"), ~preferred & (rng.random(len(owner)) < 0.5)),
        at,
        "",
        code,
        "",
        pc.if_else(pa.array(language == 0), source, foreign),
        _one_of(("PT", "SY", "AB", "ET"), rng.integers(4, size=len(owner))),
        code,
        _spelt(rng, words, language, owner, nth),
        "0",
        _one_of(("N", "O", "E", "Y"), suppress),
        "",
    ]


def _spelt(rng: np.random.Generator, words: _Words, language: IntArray, owner: IntArray, nth: IntArray) -> pa.Array:
    """Texts; two in ten repeat the concept's first English name, as it is or in another spelling."""
    import pyarrow as pa
    import pyarrow.compute as pc

    lengths = 1 + np.minimum(rng.poisson(3.2, len(owner)), 14)
    places, parts = [], []
    for number, name in enumerate(("ENG", *_LANGUAGES)):
        rows = np.flatnonzero(language == number)
        places.append(rows)
        parts.append(words.texts(rng, name, lengths[rows]))
    texts = pa.concat_arrays(parts).take(pa.array(np.argsort(np.concatenate(places), kind="stable")))
    first = np.flatnonzero(nth == 0)[owner]
    again = (language == 0) & (nth > 0) & (rng.random(len(owner)) < 0.2)
    texts = texts.take(pa.array(np.where(again, first, np.arange(len(owner)))))
    way = rng.integers(3, size=len(owner)) * (nth > 0)
    texts = pc.if_else(pa.array(way == 1), pc.utf8_capitalize(texts), texts)
    hyphened = pc.replace_substring(pc.utf8_upper(texts), " ", "-", max_replacements=1)
    return pc.if_else(pa.array((way == 2) & again), hyphened, texts)


def _types(rng: np.random.Generator, numbers: IntArray) -> list[Any]:
    owner = np.sort(np.concatenate([numbers, rng.choice(numbers, len(numbers) // 5)]))
    drawn = rng.integers(1, 128, len(owner))
    names = [f"Made-up type {i}" for i in range(128)]
    return [_cuis(owner), _numbered("T", drawn, 3), "A1.2", _one_of(names, drawn), _numbered("AT", owner, 8), ""]


def _definitions(rng: np.random.Generator, numbers: IntArray, words: _Words) -> list[Any]:
    owner = np.sort(rng.choice(numbers, max(1, len(numbers) // 12)))
    texts = words.texts(rng, "ENG", rng.integers(12, 50, len(owner)))
    sources = _one_of(_ENGLISH, rng.choice(len(_ENGLISH), len(owner)))
    suppress = _one_of(("N", "O"), rng.random(len(owner)) < 0.03)
    return [_cuis(owner), _numbered("A", owner, 8), _numbered("AT", owner, 8), "", sources, texts, suppress, ""]


# ---- relations -----------------------------------------------------------------------------------------------------


def _relations(rng: np.random.Generator, concepts: int, rows: int, tell: Callable[[str], None]) -> Iterator[list[Any]]:
    """Rows of MRREL sorted by CUI1, each relation in both directions."""
    kinds = [*_HIERARCHY, *_OTHER, *((("RO"), f"role_{i}", "RO", f"inverse_role_{i}") for i in range(_ROLES))]
    keys = _assertions(rng, concepts, rows // 2, len(kinds))
    keys.sort()
    flat = [(k[0], k[1]) for k in kinds] + [(k[2], k[3]) for k in kinds]
    for at in range(0, len(keys), 10 * _BLOCK):
        yield _relation_rows(rng, keys[at : at + 10 * _BLOCK], flat)
        tell(f"{min(at + 10 * _BLOCK, len(keys)):,} of {len(keys):,} relation rows written")


def _assertions(rng: np.random.Generator, concepts: int, count: int, kinds: int) -> NDArray[np.uint64]:
    """Pairs of rows as numbers: CUI1 (24 bits), CUI2 (24 bits), kind (10 bits), vocabulary (6 bits)."""
    kind = rng.choice(kinds, count, p=_shares(kinds))
    child = rng.integers(1, concepts, count)
    hierarchy = kind < len(_HIERARCHY)
    parent = np.where(
        hierarchy, (child * rng.random(count) ** 1.5).astype(np.int64), rng.integers(concepts, size=count)
    )
    parent = np.where((kind == len(_HIERARCHY) + 2), child, parent)  # synonymy stays within a concept
    child = np.where(rng.random(count) < 1e-4, child + concepts, child)  # CUIs without a name
    source = rng.integers(len(_ENGLISH), size=count)
    source = np.where(hierarchy & (kind == 0), 0, source)
    turned = np.flatnonzero(hierarchy & (rng.random(count) < 1e-4))  # also stated the other way round: circles
    child, parent = np.append(child, parent[turned]), np.append(parent, child[turned])
    kind, source = np.append(kind, kind[turned]), np.append(source, source[turned])
    return np.concatenate([_packed(parent, child, kind, source), _packed(child, parent, kind + kinds, source)])


def _shares(kinds: int) -> NDArray[np.float64]:
    shares = np.asarray([0.18, 0.14, 0.14, 0.08, 0.03, 0.05])
    roles = 1.0 / np.arange(1, kinds - len(shares) + 1)
    return np.concatenate([shares, roles / roles.sum() * (1 - shares.sum())])


def _packed(one: IntArray, two: IntArray, kind: IntArray, source: IntArray) -> NDArray[np.uint64]:
    parts = [np.asarray(a, np.uint64) for a in (one, two, kind, source)]
    return np.asarray(
        (parts[0] << np.uint64(40)) | (parts[1] << np.uint64(16)) | (parts[2] << np.uint64(6)) | parts[3], np.uint64
    )


def _relation_rows(rng: np.random.Generator, keys: NDArray[np.uint64], kinds: list[tuple[str, str]]) -> list[Any]:
    one, two = (
        (keys >> np.uint64(40)).astype(np.int64),
        ((keys >> np.uint64(16)) & np.uint64(0xFFFFFF)).astype(np.int64),
    )
    kind = ((keys >> np.uint64(6)) & np.uint64(0x3FF)).astype(np.int64)
    source = _one_of(_ENGLISH, keys & np.uint64(63))
    suppress = _one_of(("N", "O"), rng.random(len(keys)) < 0.03)
    rel, rela = _one_of([k[0] for k in kinds], kind), _one_of([k[1] for k in kinds], kind)
    ends = _cuis(one), _numbered("A", one, 8), _cuis(two), _numbered("A", two, 8)
    number = _numbered("R", rng.integers(100_000_000, size=len(keys)), 8)
    return [
        ends[0],
        ends[1],
        "AUI",
        rel,
        ends[2],
        ends[3],
        "AUI",
        rela,
        number,
        "",
        source,
        source,
        "",
        "",
        suppress,
        "",
    ]
