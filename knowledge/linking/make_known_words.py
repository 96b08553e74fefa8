"""Makes known_words.txt, the words that are never taken for a misspelling of something else.

python knowledge/linking/make_known_words.py SOURCE ...

A source is a list of words with their frequencies (SymSpell's frequency_dictionary_en_82_765.txt), a word-piece
vocabulary (one piece a line; whole words of six letters or more are taken), an ontology (.obo: names and synonyms) or a
table (.csv: all words). The words of the chest graph and of ambiguous.yaml and the list below are always taken.
known_words.md tells what was used.
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
_HERE = Path(__file__).parent
_OWN = (_HERE.parent / "chest" / "concepts.csv", _HERE.parent / "chest" / "descriptions.csv", _HERE / "ambiguous.yaml")
#: of reports, and in none of the sources
_OF_REPORTS = """
acromioclavicular addended anterolisthesis apices bariatric bodyaches bradycardic cachectic calcaneal cholelithiasis
collimation coracoclavicular coracoid corticated costochondral costodiaphragmatic costovertebral decubitus enchondroma
endplate endplates enthesopathy enthesophyte enthesophytes epigastrium exsmoker flulike glenohumeral hemiabdomen
histoplasmoma histoplasmomas hyperdense hyperdensity hyperlipidemia hypodense hypodensity immunosuppressed
indistinctness infracarinal infraclavicular juxtahilar lentiform lordotic lucencies lucency malalignment nondependent
organomegaly osteochondroma osteochondromas overpenetrated pannus paramediastinal phlebolith phleboliths piriform
polyarticular posttraumatic postop preop presyncope radiodensity redemonstrated redemonstration residua retrocrural
retrohilar retrolisthesis rhonchi sternoclavicular streakiness subcarinal subcentimeter subphrenic suprahilar sulcal
supraclavicular syndesmophyte syndesmophytes tachycardic tachypneic thoracentesis uncalcified underinflated
underpenetrated unwitnessed vertebroplasty xiphoid
"""
_WORD = re.compile(r"[a-z]{3,24}")
_PIECE = re.compile(r"[a-z]{6,24}")
_NAMES = re.compile(r'^(?:name: (.*)|synonym: "(.*?)")', re.MULTILINE)


def main(arguments: Sequence[str]) -> None:
    """Read the sources, write the file beside this one."""
    words = {word for source in (*_OWN, *map(Path, arguments)) for word in _words_of(source)}
    words.update(_OF_REPORTS.split())
    whole = sorted(w for w in words if _WORD.fullmatch(w))
    body = textwrap.fill(" ".join(whole), width=118, break_long_words=False, break_on_hyphens=False)
    (_HERE / "known_words.txt").write_text(f"{_HEADER}{body}\n", encoding="utf-8")


def _words_of(source: Path) -> Iterator[str]:
    text = source.read_text(encoding="utf-8-sig")
    if source.suffix == ".obo":
        for match in _NAMES.finditer(text):
            yield from _words(match[1] or match[2] or "")
    elif source.suffix in (".csv", ".yaml"):
        yield from _words(text)
    else:
        for line in filter(None, map(str.split, text.splitlines())):
            if len(line) > 1 or _PIECE.fullmatch(line[0]):
                yield line[0]


def _words(text: str) -> list[str]:
    return re.findall(r"(?<![\w'])[a-z]+(?![\w'])", text.lower())


if __name__ == "__main__":
    main(sys.argv[1:])
