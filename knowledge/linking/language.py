"""Is a text English? A check by script and function words, so that other languages are refused by name, not misread.

A report in telegram style has hardly any function words, and medical Latin ("situs inversus", "pectus excavatum") none
of a living language: what shows no other language is let through. A text is refused only when the function words of
one other language are many and outnumber the English ones clearly, or when most of its letters are no Latin ones.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

from kvlp.errors import ConfigError, DataError

__all__ = ["check_language", "known_language", "language_of"]

#: characters that are looked at; a report tells its language sooner
_LOOKED_AT = 2000
#: fewer words tell nothing
_FEWEST_WORDS = 8
#: a foreign text has at least this many words of its language, this share of all, and this many times the English ones
_FEWEST_FOREIGN, _LEAST_SHARE, _LEAST_RATIO = 3, 0.12, 2.0
#: of a script that is not Latin
_FEWEST_LETTERS = 12

_WORD = re.compile(r"[^\W\d_]+")
_NOT_LATIN = re.compile(r"[^\W\x00-\u02af]")
_ENGLISH = frozenset(
    """the of and is are was were no not with without in on at to for from by there has have been this that which than
    or be as an it its may could seen noted normal clear right left lung lungs heart chest size within limits unchanged
    stable small mild acute evidence effusion pneumothorax pleural disease cardiopulmonary patient view views""".split()
)
#: words that are frequent in reports of one language and no English ones
_FOREIGN = {
    "Spanish": """el la los las del de que con sin en un una se y al por para lo su es son hay ni como sobre ambos derecho
    derecha izquierdo izquierda derrame pulmonar pulmonares tórax torax neumotórax normales signos aumento silueta
    observa observan evidencia sin pequeño esta está estudio""",
    "Portuguese": """o os as do da dos das de que com sem em um uma se e ao por para não nao no na nos nas é são há sinais
    direito direita esquerdo esquerda pulmões pulmonar pulmonares derrame tórax pneumotórax normais aumento área""",
    "French": """le la les des du de et un une est sont avec sans dans sur pas au aux ce cette il à en par pour ni plus
    droit droite gauche épanchement poumon poumons pulmonaire pulmonaires silhouette absence normale cardiaque""",
    "Italian": """il lo la gli le di del della dei delle dello e un una è sono con senza nel nella non al alla da per si ed
    destro destra sinistro sinistra versamento polmonare polmonari pleurico torace ombra cardiaca nei limiti""",
    "German": """der die das den dem des und ist sind mit ohne kein keine keinen im in am ein eine einer nicht nach bei von
    zu zum zur auf auch rechts links beidseits pleuraerguss lunge lungen herz normal unauffällig nachweis sowie
    liegt zeigt wird deutlich dem vergleich kleiner erguss verdacht keine""",
    "Dutch": """de het een van en is zijn met zonder geen in op niet aan te bij voor dat er links rechts beide longen hart
    pleuravocht aanwijzingen normaal niet naar deze wordt""",
    "Polish": """i w z na nie jest są bez do po o oraz się od przy za lub płuc płucach płuca serca prawej lewej prawym lewym
    obu jam zmian sylwetka granicach normie płyn widoczne""",
    "Swedish": """och att det är av på med utan inga ingen inte i som för en ett den till vid hjärta lungor höger vänster
    pleuravätska förstorat normal bilateralt ses""",
    "Danish": """og det er af på med uden ingen ikke i som for en et den til ved hjerte lunger højre venstre pleuravæske
    forstørret normal ses der begge""",
    "Turkish": """ve bir bu da de ile için olarak yok var sağ sol her iki akciğer akciğerde kalp plevral normal izlenmedi
    izlenmektedir saptanmadı görüldü mevcuttur""",
    "Czech": """a v je se na bez jsou z do s po ve nejsou není plíce plic srdce vpravo vlevo normální výpotek oboustranně
    stín zřetelné""",
    "Romanian": """și şi de la cu fără in în nu este sunt din pe o un al ale dreapta stânga pulmonar pulmonare cord
    pleural normal lichid bilateral""",
}
_PROFILES = {name: frozenset(words.split()) - _ENGLISH for name, words in _FOREIGN.items()}
_OF_WORD: dict[str, tuple[str, ...]] = {
    word: tuple(name for name, words in _PROFILES.items() if word in words)
    for word in frozenset().union(*_PROFILES.values())
}
#: first word of a Unicode name -> what the script is called
_SCRIPTS = {
    "CJK": "Chinese", "HIRAGANA": "Japanese", "KATAKANA": "Japanese", "HANGUL": "Korean", "CYRILLIC": "Russian or another language in Cyrillic script",
    "ARABIC": "Arabic or another language in Arabic script", "HEBREW": "Hebrew", "GREEK": "Greek", "THAI": "Thai",
    "DEVANAGARI": "Hindi or another language in Devanagari script", "BENGALI": "Bengali", "TAMIL": "Tamil",
}  # fmt: skip


def language_of(text: str) -> str | None:
    """The language that a text is clearly written in, if that is not English; else None.

    Time does not grow beyond the first 2,000 characters. Short texts, lists of terms, telegram style and Latin terms
    are None.
    """
    head = text[:_LOOKED_AT]
    if not head.isascii() and _NOT_LATIN.search(head):
        script = _script(head)
        if script is not None:
            return script
    if len(_OF_WORD.keys() & head.lower().split()) < _FEWEST_FOREIGN:  # nearly every English text ends here
        return None
    words = _WORD.findall(head.lower())
    if len(words) < _FEWEST_WORDS:
        return None
    foreign = [w for w in words if w in _OF_WORD]
    counts = Counter(name for w in foreign for name in _OF_WORD[w])
    name, n = max(counts.items(), key=lambda row: row[1])
    english = sum(w in _ENGLISH for w in words)
    enough = n >= _FEWEST_FOREIGN and n >= _LEAST_SHARE * len(words) and n >= _LEAST_RATIO * english
    return name if enough and len({w for w in foreign if name in _OF_WORD[w]}) >= _FEWEST_FOREIGN else None


def _script(text: str) -> str | None:
    """The language of a text whose letters are mostly not Latin."""
    letters = [c for c in text if c.isalpha()]
    others = Counter(unicodedata.name(c, "?").split()[0] for c in letters if c > "\u02af")
    scripts = Counter({name: n for name, n in others.items() if name in _SCRIPTS})
    if scripts.total() < _FEWEST_LETTERS or 2 * scripts.total() <= len(letters):
        return None
    kana = scripts["HIRAGANA"] + scripts["KATAKANA"]
    return "Japanese" if kana else _SCRIPTS[scripts.most_common(1)[0][0]]


def check_language(text: str) -> None:
    """Refuse a text that is clearly not English.

    Raises:
        DataError: the text looks like another language, which the message names.
    """
    found = language_of(text)
    if found is not None:
        raise DataError(
            f"expected English report text, this looks like {found}; translate it, or read it anyway"
            " with language=None (--any-language)"
        )


def known_language(language: str | None) -> str | None:
    """The language that texts must have, as an option gives it.

    Raises:
        ConfigError: neither "en" nor None.
    """
    if language not in ("en", None):
        raise ConfigError(f"expected language 'en' or None, got {language!r}; kvlp reads English reports only")
    return language
