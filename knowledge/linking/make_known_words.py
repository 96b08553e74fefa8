"""Makes known_words.txt, the words that are never taken for a misspelling of something else.

python knowledge/linking/make_known_words.py FREQUENCIES.txt ONTOLOGY.obo ...

FREQUENCIES.txt is SymSpell's frequency_dictionary_en_82_765.txt (MIT; SCOWL words that are in Google Books Ngrams); the
ontologies give the words of medicine: the Disease Ontology and the Symptom Ontology (CC0), Uberon (CC BY 3.0).
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

__all__ = ["main"]

_HEADER = """\
# Words of English and of medicine in lower case, three letters or more; made by make_known_words.py. Where they come
# from, and the notices that go with them, stands in known_words.md.
"""
_SHORTEST = 3
_WORD = re.compile(rf"[a-z]{{{_SHORTEST},24}}")
_NAMES = re.compile(r'^(?:name: (.*)|synonym: "(.*?)")', re.MULTILINE)


def main(arguments: Sequence[str]) -> None:
    """Read the lists, write the file beside this one."""
    frequencies, *ontologies = (Path(a).read_text(encoding="utf-8-sig") for a in arguments)
    words = {line.split()[0] for line in frequencies.splitlines() if line.strip()}
    for ontology in ontologies:
        words.update(_words_of(ontology))
    whole = sorted(w for w in words if _WORD.fullmatch(w))
    body = textwrap.fill(" ".join(whole), width=118, break_long_words=False, break_on_hyphens=False)
    Path(__file__).with_name("known_words.txt").write_text(f"{_HEADER}{body}\n", encoding="utf-8")


def _words_of(ontology: str) -> Iterator[str]:
    for match in _NAMES.finditer(ontology):
        yield from re.findall(r"(?<![\w'])[a-z]+(?![\w'])", (match[1] or match[2] or "").lower())


if __name__ == "__main__":
    main(sys.argv[1:])
