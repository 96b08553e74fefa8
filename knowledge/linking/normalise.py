"""Text in the form in which surfaces are searched, with offsets back into the raw text, and the variants of a surface.

Lower case, accents removed, everything that is neither letter nor digit a blank. Almost always one character becomes
one character, so that offsets are equal; only runs of blanks or hyphens between words, ligatures and invisible
characters shift them, which a short list of shifts records.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import lru_cache

__all__ = ["Normal", "normalise", "spellings", "variants"]

_ODD = "\uffff"
_BETWEEN = r"[\s\-\u2010-\u2015\u2212_]"
# begins with a set of characters and looks back from there: that is searched several times faster
_RUNS = re.compile(rf"{_BETWEEN}(?<=[^\W_].){_BETWEEN}+(?=[^\W_])", re.DOTALL)


class _Table(dict[int, str]):
    """Code point -> one folded character; `_ODD` for those that fold into none or several."""

    def __missing__(self, code: int) -> str:
        folded = _fold_char(chr(code))
        value = folded if len(folded) == 1 else _ODD
        if len(self) < 70_000:
            self[code] = value
        return value


def _fold_char(char: str) -> str:
    if char in "\u00ad\u200b\u200c\u200d\u2060\ufeff" or unicodedata.combining(char):
        return ""
    plain = "".join(c for c in unicodedata.normalize("NFKD", char) if not unicodedata.combining(c)).lower()
    plain = "".join(c for c in plain if c.isalnum())
    return plain or " "


_TABLE = _Table({code: _fold_char(chr(code)) for code in range(128)})
_ASCII = bytes([ord(_TABLE[min(code, 127)]) for code in range(256)])


class Normal:
    """Normalised text and the way back.

    Attributes:
        text: the normalised text.
    """

    __slots__ = ("_at", "_raw", "text")

    def __init__(self, text: str, at: Sequence[int] = (), raw: Sequence[int] = ()) -> None:
        self.text = text
        self._at = at
        self._raw = raw

    @property
    def shifted(self) -> bool:
        """Whether offsets differ from those of the raw text."""
        return bool(self._at)

    def span(self, start: int, end: int) -> tuple[int, int]:
        """The raw span of a non-empty normalised span."""
        if not self._at:
            return start, end
        return self._back(start), self._back(end - 1) + 1

    def _back(self, index: int) -> int:
        row = bisect_right(self._at, index) - 1
        return self._raw[row] + index - self._at[row]


def normalise(raw: str) -> Normal:
    """Normalise a text; linear in its length."""
    if raw.isascii():
        text = raw.encode().translate(_ASCII).decode()
        if "  " not in text or _RUNS.search(raw) is None:
            return Normal(text)
    else:
        text = raw.translate(_TABLE)
        if _ODD not in text and _RUNS.search(raw) is None:
            return Normal(text)
    pieces: list[str] = []
    at, back = [0], [0]
    done = length = 0
    for start, end, put in _edits(raw, text):
        pieces += (text[done:start], put)
        length += start - done
        for k in range(len(put)):
            at.append(length + k)
            back.append(start)
        length += len(put)
        at.append(length)
        back.append(end)
        done = end
    pieces.append(text[done:])
    return Normal("".join(pieces), at, back)


def _edits(raw: str, text: str) -> list[tuple[int, int, str]]:
    """Spans of the raw text that become another number of characters, in order and apart."""
    runs = [(m.start(), m.end(), " ") for m in _RUNS.finditer(raw)]
    odd = [(m.start(), m.end(), _fold_char(raw[m.start()])) for m in re.finditer(_ODD, text)]
    return sorted(runs + odd)


# ---- variants of a surface -------------------------------------------------------------------------------------------

_PREPOSITIONS = frozenset(("of", "in", "at", "with", "within", "without", "from", "to", "on", "for", "due", "by",
                           "near", "over", "under", "between", "around"))  # fmt: skip
_IRREGULAR = {
    "diagnosis": "diagnoses", "metastasis": "metastases", "bulla": "bullae", "hilum": "hila", "apex": "apices",
    "bronchus": "bronchi", "atrium": "atria", "vertebra": "vertebrae", "thorax": "thoraces", "pleura": "pleurae",
    "atelectasis": "atelectases", "stenosis": "stenoses", "prosthesis": "prostheses", "anastomosis": "anastomoses",
    "septum": "septa", "viscus": "viscera", "bronchiectasis": "bronchiectases", "scapula": "scapulae",
}  # fmt: skip
_REGULAR_BACK = {v: k for k, v in _IRREGULAR.items()}
#: words that stay as they are
_INVARIANT = frozenset(("ascites", "rales", "pus", "gas", "ards", "biceps", "series"))
#: a word that begins with one of these may also be written with a blank or hyphen after it
_PREFIXES = (
    "air", "peri", "para", "infra", "supra", "sub", "retro", "intra", "extra", "inter", "hyper", "hypo", "over",
    "under", "hydro", "haemo", "hemo", "pneumo", "cardio", "costo", "broncho", "fibro", "reticulo", "bi", "multi",
    "non", "post", "pre", "micro", "macro", "naso", "oro", "endo", "veno", "hemi", "mid", "tracheo", "pleuro",
)  # fmt: skip
_PREFIXED = re.compile(rf"(?:{'|'.join(_PREFIXES)})(?=\w{{4}})")
_PREFIX_WORDS = frozenset(_PREFIXES)
_SPELLINGS = (
    ("edema", "oedema"), ("esophag", "oesophag"), ("hemorrh", "haemorrh"), ("hemat", "haemat"), ("hemo", "haemo"),
    ("tumor", "tumour"), ("center", "centre"), ("fiber", "fibre"), ("anemi", "anaemi"), ("ischem", "ischaem"),
    ("demineraliz", "demineralis"), ("cephaliz", "cephalis"), ("catheteriz", "catheteris"), ("localiz", "localis"),
    ("favor", "favour"), ("visualiz", "visualis"), ("recogniz", "recognis"), ("organiz", "organis"),
)  # fmt: skip
_SPELT = re.compile("|".join(word for pair in _SPELLINGS for word in pair))


_HYPHENS = re.compile(r"(?<=\w)[-\u2010-\u2015](?=\w)")


def variants(surface: str) -> list[str]:
    """All normalised forms under which a surface is searched, the surface itself first.

    Singular and plural of its head noun, hyphens closed or open, British and American spelling.
    """
    base = " ".join(normalise(surface).text.split())
    if not base:
        return []
    forms = {base: None}
    closed = _HYPHENS.sub("", surface)
    if closed != surface:
        forms.setdefault(" ".join(normalise(closed).text.split()))
    for form in [*forms]:
        forms.update(dict.fromkeys(spellings(form)))
    for form in [*forms]:
        forms.update(dict.fromkeys(_inflected(form)))
    for form in [*forms]:
        forms.update(dict.fromkeys(_opened(form)))
    return list(forms)


def _inflected(form: str) -> Iterator[str]:
    words = form.split()
    head = next((i for i, w in enumerate(words) if i and w in _PREPOSITIONS), len(words)) - 1
    for other in _other_number(words[head]):
        yield " ".join([*words[:head], other, *words[head + 1 :]])


@lru_cache(maxsize=1 << 16)
def _other_number(word: str) -> Sequence[str]:
    if word in _INVARIANT or len(word) < 2 or not word.isalpha():
        return []
    if word in _IRREGULAR:
        return [_IRREGULAR[word]]
    if word in _REGULAR_BACK:
        return [_REGULAR_BACK[word]]
    if word.endswith("ies") and len(word) > 4:
        return [word[:-3] + "y"]
    if word.endswith(("sses", "shes", "ches", "xes", "zes")):
        return [word[:-2]]
    if re.search(r"[^aius]s$|eas$", word) and len(word) > 3:
        return [word[:-1]]
    if word.endswith(("ss", "us", "is")):
        return [word + "es"] if word.endswith("ss") else []
    if re.search(r"[^aeiou]y$", word):
        return [word[:-1] + "ies"]
    if word.endswith(("x", "sh", "ch", "z")):
        return [word + "es"]
    return [] if word.endswith(("s", "ed", "ic", "al", "ar", "ous")) else [word + "s"]


def _opened(form: str) -> Iterator[str]:
    words = form.split(" ")
    for n, word in enumerate(words):
        end = _prefix_end(word)
        if end:
            yield " ".join([*words[:n], word[:end], word[end:], *words[n + 1 :]])
    for n, word in enumerate(words[:-1]):
        if word in _PREFIX_WORDS and len(words[n + 1]) >= 4:
            yield " ".join([*words[:n], word + words[n + 1], *words[n + 2 :]])


@lru_cache(maxsize=1 << 16)
def _prefix_end(word: str) -> int:
    match = _PREFIXED.match(word)
    return match.end() if match else 0


def spellings(form: str) -> list[str]:
    """The other spellings of a normalised form: American and British."""
    if _SPELT.search(form) is None:
        return []
    american = british = form
    for a, b in _SPELLINGS:
        american = american.replace(b, a)
    for a, b in _SPELLINGS:
        british = british.replace(b, a).replace(a, b)
    return sorted({american, british} - {form})
