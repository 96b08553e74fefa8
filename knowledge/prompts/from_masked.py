"""Attributes that a masked language model tells: it fills "The typical color of X is [MASK]." from a local folder.

References: MIU-VL (arXiv 2209.15517) for asking attributes; Salazar et al. 2020 (arXiv 1910.14659) for scoring words by
masks; Kauf and Ivanova 2023 (arXiv 2305.10588) for masking what follows a piece within its word.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvlp.errors import CheckpointError, ConfigError
from kvlp.knowledge.prompts.attributes import PromptAttribute
from kvlp.knowledge.prompts.checks import hint
from kvlp.knowledge.prompts.grammar import Grammar
from kvlp.knowledge.prompts.rules import AttributeRules
from kvlp.knowledge.prompts.templates import TemplateFile
from kvlp.knowledge.surfaces import fold
from kvlp.typing import PathLike

if TYPE_CHECKING:
    import torch

    from kvlp.knowledge.graph import Concept

__all__ = ["MaskedBackend"]

#: what decides a model's answers; weights that are pickles are never read
_FILES = (
    "*.safetensors",
    "config.json",
    "tokenizer*.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "special_tokens_map.json",
    "added_tokens.json",
)
_SHORTEST = 3
_LOG = logging.getLogger(__name__)


class MaskedBackend:
    """Asks a masked language model of transformers; nothing is downloaded and no code of the folder is run.

    A candidate's score is the probability of its word at the mask; of several pieces, the geometric mean of each
    piece's probability with that piece and those behind it masked. Ties keep the order of the candidates.

    Args:
        model: a local folder with config.json, model.safetensors and the tokenizer's files.
        rules: a YAML file with questions like the bundled `attributes.yaml`.
        top_k: answers to a question.
        candidates: kind -> words to choose from instead of the file's; None for the whole vocabulary.
        batch_size: sentences computed at once.

    Raises:
        ConfigError: `top_k` or `batch_size` is not positive, or an unknown kind.
        CheckpointError: on first use: no such folder, no masked language model, pickled weights only, no mask token.
    """

    name = "masked"

    def __init__(
        self,
        model: PathLike,
        *,
        rules: PathLike | None = None,
        top_k: int = 3,
        candidates: Mapping[str, Sequence[str] | None] | None = None,
        batch_size: int = 32,
    ) -> None:
        if top_k < 1 or batch_size < 1:
            raise ConfigError(f"expected top_k and batch_size of at least 1, got {top_k} and {batch_size}")
        self.folder = Path(model)
        self._rules, self._top_k, self._batch_size = AttributeRules(rules), top_k, batch_size
        self._questions = _questions(self._rules, candidates or {})
        self._told: set[str] = set()

    def provenance(self) -> dict[str, str]:
        """Hashes of the model's files and of the questions; the settings."""
        asked = hashlib.sha256(repr(self._questions).encode()).hexdigest()
        return {"model_hash": self.model_hash, "template_hash": asked, "top_k": str(self._top_k)}

    @cached_property
    def model_hash(self) -> str:
        """SHA-256 over the names and bytes of the folder's model and tokenizer files, in hex."""
        _require_folder(self.folder)
        digest = hashlib.sha256()
        for path in sorted({p for pattern in _FILES for p in self.folder.glob(pattern) if p.is_file()}):
            with path.open("rb") as file:
                digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()

    def attributes(self, concept: Concept) -> list[PromptAttribute]:
        """The best answers to each question, best first."""
        found: list[PromptAttribute] = []
        for kind, question, candidates in self._questions:
            for text, score in self.answer(question, concept.name, candidates):
                said = self._place(text) if kind == "location" else text
                found.append(PromptAttribute(kind, said, score, question))
        return found

    def answer(self, question: str, name: str, candidates: Sequence[str] | None = None) -> list[tuple[str, float]]:
        """The `top_k` answers to one question about one name, with their probabilities.

        Args:
            question: a sentence with {x} and {mask}.
            name: what to ask about.
            candidates: words to choose from; None for every whole word of the vocabulary that is no stop word and does
                not stand in the name.
        """
        if candidates is None:
            scores = self._open(question, name)
        else:
            scores = self._closed(question, name, list(dict.fromkeys(candidates)))
        best = sorted(range(len(scores)), key=lambda i: (-scores[i][1], i))[: self._top_k]
        return [(scores[i][0], float(f"{scores[i][1]:.6g}")) for i in best]

    def _open(self, question: str, name: str) -> list[tuple[str, float]]:
        filler = self._filler
        said = set(fold(name).split())
        (row,) = self._log_probabilities([filler.fill(question, name, [filler.mask])])
        return [(word, math.exp(float(row[i]))) for i, word in self._words if word not in said]

    def _closed(self, question: str, name: str, candidates: Sequence[str]) -> list[tuple[str, float]]:
        """All pieces of all candidates in one go; candidates of one piece share a sentence."""
        filler = self._filler
        pieces_of = {word: ids for word in candidates if (ids := filler.pieces(word))}
        unknown = [word for word in candidates if word not in pieces_of and word not in self._told]
        if unknown:
            self._told.update(unknown)
            _LOG.warning("%s: its vocabulary cannot write %s; left out", self.folder, ", ".join(unknown))
        states = list(dict.fromkeys(state for ids in pieces_of.values() for state in self._states(ids)))
        rows = self._log_probabilities([filler.fill(question, name, state) for state in states])
        row_of = dict(zip(states, rows, strict=True))
        scores = []
        for word, ids in pieces_of.items():
            logs = [float(row_of[state][piece]) for state, piece in zip(self._states(ids), ids, strict=True)]
            scores.append((word, math.exp(sum(logs) / len(logs))))
        return scores

    def _states(self, ids: Sequence[int]) -> list[tuple[int, ...]]:
        """What stands at the mask while each piece is told: the pieces before it, then masks."""
        return [(*ids[:at], *[self._filler.mask] * (len(ids) - at)) for at in range(len(ids))]

    def _log_probabilities(self, sentences: Sequence[list[int]]) -> list[torch.Tensor]:
        """Log probabilities (V,), float32, at the first mask of each sentence."""
        import torch

        filler, rows = self._filler, []
        with torch.inference_mode():
            for begin in range(0, len(sentences), self._batch_size):
                batch = sentences[begin : begin + self._batch_size]
                longest = max(map(len, batch))
                ids = torch.tensor([[*s, *[filler.pad] * (longest - len(s))] for s in batch])
                seen = torch.tensor([[1] * len(s) + [0] * (longest - len(s)) for s in batch])
                logits = filler.model(input_ids=ids, attention_mask=seen).logits.float()
                at = [s.index(filler.mask) for s in batch]
                rows += list(logits[torch.arange(len(batch)), torch.tensor(at)].log_softmax(dim=-1))
        return rows

    def _place(self, word: str) -> str:
        at = self._grammar.head(word) in self._rules.graph["at"]
        return f"{'at' if at else 'in'} the {word}"

    @cached_property
    def _grammar(self) -> Grammar:
        return TemplateFile().grammar

    @cached_property
    def _filler(self) -> _Filler:
        return _load(self.folder)

    @cached_property
    def _words(self) -> list[tuple[int, str]]:
        stop = set(self._rules.masked["stop_words"])
        return [(i, w) for i, w in self._filler.whole_words() if w not in stop]


@dataclass(frozen=True, slots=True)
class _Filler:
    """A model with its tokenizer."""

    model: Any
    tokenizer: Any

    @property
    def mask(self) -> int:
        return int(self.tokenizer.mask_token_id)

    @property
    def pad(self) -> int:
        return int(self.tokenizer.pad_token_id or 0)

    def pieces(self, word: str) -> list[int]:
        """The ids of a word inside a sentence, without special tokens; none if the vocabulary cannot write it."""
        with_blank = self.tokenizer(f"a {word}", add_special_tokens=False)["input_ids"]
        before = self.tokenizer("a", add_special_tokens=False)["input_ids"]
        ids = list(with_blank[len(before) :])
        return [] if self.tokenizer.unk_token_id in ids else ids

    def fill(self, question: str, name: str, ids: Sequence[int]) -> list[int]:
        """The ids of a question, with `ids` in the place of its mask."""
        text = question.format(x=name, mask=self.tokenizer.mask_token)
        found = list(self.tokenizer(text)["input_ids"])
        if found.count(self.mask) != 1:
            raise ConfigError(f"{name!r}: expected one mask in the question, got {found.count(self.mask)}; rename it")
        longest = getattr(self.model.config, "max_position_embeddings", 0) or len(found) + len(ids)
        if len(found) + len(ids) > longest:
            raise ConfigError(
                f"a name of {len(name)} letters is too long for this model ({longest} tokens); shorten it"
            )
        at = found.index(self.mask)
        return [*found[:at], *ids, *found[at + 1 :]]

    def whole_words(self) -> Iterator[tuple[int, str]]:
        """Ids and words of the vocabulary that begin a word and have letters alone."""
        tokens = {i: str(t) for t, i in self.tokenizer.get_vocab().items() if i not in self.tokenizer.all_special_ids}
        marks = tuple(m for m in ("Ġ", "▁") if any(t.startswith(m) for t in tokens.values()))
        for i in sorted(tokens):
            token = tokens[i]
            if marks and not token.startswith(marks):
                continue
            word = token.lstrip("Ġ▁").lower()
            if word.isalpha() and len(word) >= _SHORTEST:
                yield i, word


def _questions(
    rules: AttributeRules, candidates: Mapping[str, Sequence[str] | None]
) -> list[tuple[str, str, tuple[str, ...] | None]]:
    asked = {kind: value for kind, value in rules.masked.items() if kind != "stop_words"}
    for kind in candidates:
        if kind not in asked:
            raise ConfigError(f"candidates: no question about '{kind}'; {hint(kind, asked)}")
    questions = []
    for kind, value in asked.items():
        words = candidates[kind] if kind in candidates else value.get("candidates")
        questions.append((kind, str(value["question"]), None if words is None else tuple(words)))
    return questions


def _require_folder(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise CheckpointError(
            f"{folder}: expected the local folder of a masked language model with a config.json; nothing is downloaded"
        )
    if not list(folder.glob("*.safetensors")):
        raise CheckpointError(f"{folder}: expected weights as .safetensors; save the model again with save_pretrained")


@contextmanager
def _quiet() -> Iterator[None]:
    """No remarks or bars of transformers: what matters is said in our errors."""
    from transformers.utils import logging as remarks

    level, bars = remarks.get_verbosity(), remarks.is_progress_bar_enabled()
    remarks.set_verbosity_error()
    remarks.disable_progress_bar()
    try:
        yield
    finally:
        remarks.set_verbosity(level)
        if bars:
            remarks.enable_progress_bar()


def _load(folder: Path) -> _Filler:
    _require_folder(folder)
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    local = {"local_files_only": True, "trust_remote_code": False}
    try:
        with _quiet():
            tokenizer = AutoTokenizer.from_pretrained(str(folder), **local)
            model, told = AutoModelForMaskedLM.from_pretrained(
                str(folder), use_safetensors=True, output_loading_info=True, **local
            )
    except Exception as error:  # transformers raises what the damage makes it raise
        reason = " ".join(str(error).split())[:160]
        raise CheckpointError(f"{folder}: no masked language model can be loaded ({reason}); save it again") from error
    missing = sorted(told["missing_keys"])
    if missing:
        raise CheckpointError(
            f"{folder}: {len(missing)} weights of a masked language model are missing, such as '{missing[0]}'; "
            "give a model that was trained to fill masks"
        )
    if tokenizer.mask_token_id is None:
        raise CheckpointError(f"{folder}: the tokenizer has no mask token; give a model that was trained to fill masks")
    return _Filler(model.eval(), tokenizer)
