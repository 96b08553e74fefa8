"""EntityLinker: which concepts of a graph a report speaks of, where, and whether they are there."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from kvlp.errors import DataError, KnowledgeError
from kvlp.knowledge.linking.abbreviations import abbreviation_edits, finder
from kvlp.knowledge.linking.ambiguity import Sense, resolve
from kvlp.knowledge.linking.collection import nothing_collected
from kvlp.knowledge.linking.fuzzy import Spelling
from kvlp.knowledge.linking.language import check_language, known_language, may_be_foreign
from kvlp.knowledge.linking.lexicon import Lexicon, LinkerOptions, lexicon_of
from kvlp.knowledge.linking.mention import Mention, Row, add_moved
from kvlp.knowledge.linking.pieces import FIRST, cut, sentences_of
from kvlp.knowledge.linking.rewriting import Edit, Rewriting
from kvlp.knowledge.linking.sentence import SentenceReader, in_capitals
from kvlp.typing import PathLike

if TYPE_CHECKING:
    from kvlp.knowledge.graph import KnowledgeGraph
    from kvlp.knowledge.linking.candidates import CandidateLinker

__all__ = ["EntityLinker", "Mention"]

Span: TypeAlias = tuple[int, int]
_LONGEST_REMEMBERED = 300
#: pieces that belong together; where there are more, the rest of a text is read as a whole
_MOST_JOINED = 4
#: so many characters have so many mentions that a search for garbage among them takes longer than reading
_VERY_LONG = 100_000
_UNKNOWN: Any = object()


class _Said(NamedTuple):
    """What a piece of a text says."""

    #: where a sentence starts in it, the section that begins there or None, and its mentions
    parts: tuple[tuple[int, str | None, tuple[Row, ...]], ...]
    #: whether it is English, and all its words are known
    plain: bool
    #: whether some mention may mean several concepts
    ambiguous: bool


class _Read(NamedTuple):
    """What a text says."""

    mentions: list[Mention]
    plain: bool
    ambiguous: bool


class EntityLinker:
    """Finds the concepts of a graph in report text and says whether they are present, absent or uncertain.

    Args:
        graph: whose surfaces are searched.
        types: only concepts of one of these semantic types; None for all.
        spelling: also find what is misspelt, with a score below 1 (see `fuzzy.py`).
        abbreviations: who finds those that a text defines: "own" (see `abbreviations.py`), "scispacy" or "none".
        candidates: also finds what looks like a surface in what nothing else covers, with a score below 0.9.
        attributes: also say side, place, severity, change and status of what is found (see `attributes.py`).
        language: "en" refuses a text that is clearly in another language; None reads every text.
        remember: how many sentences are kept with what was found in them, since reports repeat theirs; 0 for none.

    Attributes:
        graph_hash: content hash of the graph.
        options: how it reads.

    Example:
        >>> EntityLinker(graph)("Small left effusion. No pneumothorax.")
        [Mention(concept='pleural_effusion', ...), Mention(concept='pneumothorax', ...)]
    """

    def __init__(
        self,
        graph: KnowledgeGraph,
        *,
        types: Collection[str] | None = None,
        spelling: bool = True,
        abbreviations: str = "own",
        candidates: CandidateLinker | None = None,
        attributes: bool = True,
        language: str | None = "en",
        remember: int = 20_000,
    ) -> None:
        options = LinkerOptions(
            tuple(types) if types is not None else None, spelling, abbreviations, attributes, language
        )
        self._set_up(graph.content_hash, lexicon_of(graph, types, attributes=attributes), options)
        self._sentence.candidates = candidates
        self._remember = remember

    def _set_up(self, graph_hash: str, lexicon: Lexicon, options: LinkerOptions) -> None:
        self.graph_hash, self._lexicon, self.options = graph_hash, lexicon, options
        self._language = known_language(options.language)
        #: piece -> what it says, None where it goes on in the next one; for other texts, and those all in capitals
        self._memory: tuple[dict[str, _Said | None], dict[str, _Said | None]] = ({}, {})
        self._sentence = SentenceReader(lexicon)
        self._ambiguous = frozenset(lexicon.surfaces[form].concept for form in lexicon.senses)
        self._menders: list[Callable[[str], list[Edit]]] = []
        self._spelling = None
        if options.spelling:
            phrases = [p for group in self._sentence.groups[1:] for p in group]
            self._spelling = Spelling(lexicon.surfaces, phrases, lexicon.words)
            self._menders.append(self._spelling.edits)
        self._abbreviations = options.abbreviations != "none"
        if self._abbreviations:
            self._menders.append(partial(abbreviation_edits, find=finder(options.abbreviations)))

    def save(self, path: PathLike) -> Path:
        """Write the linker to one file, from which it is ready in less than a second; return the file.

        Raises:
            KnowledgeError: it has candidates, which are not saved, or the file cannot be written.
        """
        from kvlp.knowledge.linking.saved import save_linker

        if self._sentence.candidates is not None:
            raise KnowledgeError("a linker with candidates cannot be saved: they have an index of their own")
        return save_linker(Path(path), self.graph_hash, self._lexicon, self.options)

    @classmethod
    def load(cls, path: PathLike, graph: KnowledgeGraph | None = None, *, remember: int = 20_000) -> EntityLinker:
        """Read a linker from its file.

        Args:
            path: a file written by `save`.
            graph: the graph that it must be of; None takes it as it is.
            remember: how many sentences are kept with what was found in them.

        Raises:
            KnowledgeError: no such file, a damaged one, one of another graph, or one that another version made.
        """
        from kvlp.knowledge.linking.saved import load_linker

        linker = cls.__new__(cls)
        with nothing_collected():
            linker._set_up(*load_linker(Path(path), graph))
        linker._remember = remember
        return linker

    def __call__(self, text: str) -> list[Mention]:
        """Link one text; mentions in the order of their start.

        Raises:
            DataError: not a string, or clearly not English (and `language` is not None).
        """
        if not isinstance(text, str):
            raise DataError(f"expected report text as str, got {type(text).__name__}; decode or join it first")
        if len(text) < _VERY_LONG:
            return self._link(text)
        with nothing_collected():
            return self._link(text)

    def _link(self, text: str) -> list[Mention]:
        found = self._read(text) if len(text) < _VERY_LONG else None
        rewritings: list[Rewriting] = []
        if found is None or not found.plain or (self._abbreviations and "(" in text):
            if self._language is not None:
                check_language(text)
            rewritings = self._rewritten(text)
            if rewritings:
                text, found = rewritings[-1].text, None
            found = found or self._read(text)
        mentions = found.mentions
        if found.ambiguous:
            mentions = resolve(text, mentions, self._lexicon.senses, self._ambiguous)
        for rewriting in reversed(rewritings):
            mentions = rewriting.restore(mentions)
        return mentions

    def _rewritten(self, text: str) -> list[Rewriting]:
        """The text with misspelt words put right, and that with abbreviations written out, where there are any."""
        rewritings: list[Rewriting] = []
        for mend in self._menders:
            edits = mend(text)
            if edits:
                rewritings.append(Rewriting(text, edits))
                text = rewritings[-1].text
        return rewritings

    def _read(self, text: str) -> _Read:
        mentions: list[Mention] = []
        plain, ambiguous, section = True, False, "other"
        for start, said in self._pieces(text):
            for by, name, rows in said.parts:
                if name is not None:
                    section = name
                if rows:
                    add_moved(rows, start + by, section, mentions)
            if said.ambiguous:
                ambiguous = True
            if not said.plain:
                plain = False
        return _Read(mentions, plain, ambiguous)

    def _pieces(self, text: str) -> Iterator[tuple[int, _Said]]:
        """What the pieces of a text say, each with the place where it starts."""
        capitals = text.isupper()
        memory = self._memory[capitals]
        start, held, joined = -len(FIRST), "", 0
        for piece in cut(text) if self._remember > 0 else (FIRST + text,):
            if held:
                piece = held + piece
            said = memory.get(piece, _UNKNOWN)
            if said is _UNKNOWN:
                said = self._remembered(piece, capitals=capitals)
            if said is not None:
                yield start, said
                start, held, joined = start + len(piece), "", 0
            elif joined < _MOST_JOINED and len(piece) < _LONGEST_REMEMBERED:
                held, joined = piece, joined + 1
            else:
                break
        if start < len(text):  # the rest as a whole
            rest = text[start:] if start >= 0 else FIRST + text
            said = self._say(rest, capitals=capitals, last=True)
            if said is not None:
                yield start, said

    def _remembered(self, piece: str, *, capitals: bool) -> _Said | None:
        said = self._say(piece, capitals=capitals, last=not piece.endswith("."))
        if len(piece) <= _LONGEST_REMEMBERED and self._remember > 0:
            if sum(map(len, self._memory)) >= self._remember:
                self.forget()
            self._memory[capitals][piece] = said
        return said

    def _say(self, piece: str, *, capitals: bool, last: bool) -> _Said | None:
        """Read a piece; None where it belongs together with the next one."""
        sentences = sentences_of(piece, last=last)
        if sentences is None:
            return None
        parts = []
        for section, start, end in sentences:
            rows = self._sentence(piece[start:end], capitals=capitals)
            if rows or section is not None:
                parts.append((start, section, rows))
        ambiguous = bool(self._ambiguous) and any(row[0] in self._ambiguous for _, _, rows in parts for row in rows)
        return _Said(tuple(parts), self._is_plain(piece), ambiguous)

    def _is_plain(self, piece: str) -> bool:
        """Whether it may be in no other language than English, and has no word that nobody knows."""
        if self._language is not None and may_be_foreign(piece.removeprefix(FIRST)):
            return False
        return self._spelling is None or self._spelling.knows(piece)

    @property
    def senses(self) -> Mapping[str, tuple[Sense, ...]]:
        """Normalised surface -> its meanings, where it has several (see `ambiguity.py`)."""
        return self._lexicon.senses

    def covered(self, text: str) -> list[Span]:
        """Spans of all that surfaces, rules, statements and attributes know in a text, in order; they may overlap."""
        concepts, *others = self._sentence.dictionary.find(text)
        capitals = text.isupper()
        surfaces = [h for h in concepts if not h[2].capitals or in_capitals(text, h, capitals=capitals)]
        return sorted((start, end) for group in (surfaces, *others) for start, end, _ in group)

    def forget(self) -> None:
        """Forget the remembered sentences."""
        for memory in self._memory:
            memory.clear()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_memory": ({}, {})}  # no report text in a pickle

    def link_many(self, texts: Iterable[str]) -> list[list[Mention]]:
        """Link many texts.

        Raises:
            DataError: one that cannot be read; the message counts from 1.
        """
        found = []
        for number, text in enumerate(texts, 1):
            try:
                found.append(self(text))
            except DataError as error:
                raise DataError(f"text {number}: {error}") from None
        return found
