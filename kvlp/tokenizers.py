"""Tokenizers: one class for everyone's, and a WordPiece vocabulary built from several patients' reports and the graph.

No name of one person gets into a vocabulary: a word counts only if it stands in the reports of several patients or in
the graph. Any other word is spelled with letters, so nothing is lost either.
"""

from __future__ import annotations

import heapq
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from kvlp.errors import CheckpointError, ConfigError
from kvlp.typing import Assertion, PathLike

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerFast

    from kvlp.knowledge.graph import KnowledgeGraph

__all__ = ["TextTokenizer", "build_tokenizer", "load_tokenizer", "open_clip_tokenizer"]

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
_PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
#: the settings of open_clip's HFTokenizer that a checkpoint may set; the rest would reach transformers unseen
_SAFE_OPTIONS = ("clean", "strip_sep_token", "language")


#: so many texts keep their tokens in memory
REMEMBERED_TEXTS = 1 << 16


class TextTokenizer:
    """Texts in, token ids out; wraps a transformers tokenizer or one of open_clip's.

    Args:
        encode: turns cleaned or raw texts into int64 ids (N, context_length), padded to the full length.
        context_length: most tokens of a text; longer ones are cut, their end-of-text token stays.
        pad_id: id of the padding.
        trim: whether padding may be cut to the longest text of a batch without changing a feature.
        pad_ends_text: the padding is also the end-of-text token, so that its first one must stay.
        source: the object that saves itself with `save_pretrained`, if there is one.
    """

    def __init__(
        self,
        encode: Callable[[list[str]], torch.Tensor],
        *,
        context_length: int,
        pad_id: int = 0,
        trim: bool = True,
        pad_ends_text: bool = False,
        source: Any = None,
    ) -> None:
        self._encode = encode
        self.context_length = context_length
        self.pad_id = pad_id
        self.trim = trim
        self.pad_ends_text = pad_ends_text
        self.source = source

    def __call__(self, texts: str | Sequence[str], *, pad: Literal["longest", "max"] = "longest") -> torch.Tensor:
        """Return int64 token ids (N, L): L is the context length for "max", at most that for "longest"."""
        import torch

        rows = [texts] if isinstance(texts, str) else list(texts)
        wrong = next((i for i, text in enumerate(rows) if not isinstance(text, str)), None)
        if wrong is not None:
            raise ConfigError(f"tokenizer: expected texts as str, got {type(rows[wrong]).__name__} at position {wrong}")
        if not rows:
            return torch.zeros((0, self.context_length), dtype=torch.long)
        ids = self._encode(rows).long()
        if pad == "longest" and self.trim:
            used = (ids != self.pad_id).any(dim=0).nonzero()
            longest = int(used[-1]) + 1 if len(used) else 0
            ids = ids[:, : max(1, longest + self.pad_ends_text)]
        return ids

    def save(self, folder: Path) -> None:
        """Write the tokenizer's files; open_clip's built-in tokenizer has none."""
        if self.source is not None:
            _save_source(self.source, folder)

    @classmethod
    def wrap(cls, tokenizer: Any, *, context_length: int | None = None, trim: bool = True) -> TextTokenizer:
        """Wrap a transformers tokenizer (or return a TextTokenizer as it is).

        Texts are cleaned as open_clip cleans them, so that both read the same tokens.
        """
        if isinstance(tokenizer, TextTokenizer):
            return tokenizer
        from open_clip.tokenizer import get_clean_fn

        length = context_length or int(tokenizer.model_max_length)
        clean = get_clean_fn("whitespace")

        pad_id = int(tokenizer.pad_token_id)

        @lru_cache(maxsize=REMEMBERED_TEXTS)  # training asks for the same prompts again and again
        def ids_of(text: str) -> tuple[int, ...]:
            return tuple(tokenizer(clean(text), max_length=length, truncation=True).input_ids)

        def encode(texts: list[str]) -> torch.Tensor:
            import torch

            ids = np.full((len(texts), length), pad_id, dtype=np.int64)
            for row, text in enumerate(texts):
                known = ids_of(text)
                first = length - len(known) if tokenizer.padding_side == "left" else 0
                ids[row, first : first + len(known)] = known
            return torch.from_numpy(ids)

        ends = pad_id in (tokenizer.sep_token_id, tokenizer.eos_token_id)
        return cls(encode, context_length=length, pad_id=pad_id, trim=trim, pad_ends_text=ends, source=tokenizer)


def _save_source(source: Any, folder: Path) -> None:
    source.save_pretrained(str(folder))
    settings = folder / "tokenizer_config.json"
    if settings.is_file():
        # transformers 5 writes its new class name, which transformers 4 and older open_clip installations do not know
        values = json.loads(settings.read_text(encoding="utf-8"))
        if values.get("tokenizer_class") == "TokenizersBackend":
            values["tokenizer_class"] = "PreTrainedTokenizerFast"
            settings.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def open_clip_tokenizer(text_cfg: Mapping[str, Any], folder: Path | None, *, trim: bool) -> TextTokenizer:
    """Return the tokenizer that open_clip would use for a model folder.

    Args:
        text_cfg: the `text_cfg` of open_clip's configuration.
        folder: where the tokenizer's files lie; not needed for open_clip's built-in one.
        trim: whether padding may be cut, see TextTokenizer.

    Raises:
        CheckpointError: the configuration names a tokenizer whose files are missing or damaged.
    """
    from open_clip.tokenizer import DEFAULT_CONTEXT_LENGTH, HFTokenizer, SimpleTokenizer

    length = int(text_cfg.get("context_length", DEFAULT_CONTEXT_LENGTH))
    options = {k: v for k, v in (text_cfg.get("tokenizer_kwargs") or {}).items() if k in _SAFE_OPTIONS}
    if not text_cfg.get("hf_tokenizer_name"):
        return TextTokenizer(SimpleTokenizer(context_length=length, **options), context_length=length, trim=trim)
    if folder is None or not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        raise CheckpointError(
            f"{folder}: no tokenizer files; expected one of {', '.join(_TOKENIZER_FILES)}; copy the tokenizer of "
            f"{text_cfg['hf_tokenizer_name']!r} into the folder"
        )
    options.setdefault("clean", "whitespace")
    try:
        tokenizer = HFTokenizer(
            str(folder),
            context_length=length,
            tokenizer_mode=text_cfg.get("tokenizer_mode"),
            local_files_only=True,
            trust_remote_code=False,
            **options,
        )
    except Exception as error:  # transformers raises whatever its parsers raise
        raise CheckpointError(f"{folder}: the tokenizer cannot be read ({_short(error)}); save it again") from error
    inner = tokenizer.tokenizer
    pad_id = int(inner.pad_token_id or 0)
    exact = trim and not options.get("strip_sep_token")
    ends = pad_id in (inner.eos_token_id, inner.sep_token_id)
    return TextTokenizer(tokenizer, context_length=length, pad_id=pad_id, trim=exact, pad_ends_text=ends, source=inner)


_TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
)


def _short(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:160]}"


def build_tokenizer(
    texts_by_patient: Iterable[tuple[str, str]],
    graph: KnowledgeGraph | None = None,
    *,
    vocab_size: int = 2000,
    min_patients: int = 3,
    context_length: int = 48,
) -> PreTrainedTokenizerFast:
    """Build a lower-case WordPiece tokenizer. The same input gives the same vocabulary, in any order of the texts.

    Args:
        texts_by_patient: pairs of patient id and text; texts without a patient ("") count as one patient together.
        graph: the words of its names, synonyms, definitions and descriptions are admitted; those of its names become
            entries of their own, so that a finding is not spelled, up to a third of the vocabulary.
        vocab_size: most entries, special tokens and single characters included.
        min_patients: a report's word counts only if it stands in reports of so many different patients.
        context_length: most tokens of a text.

    Returns:
        A transformers tokenizer: [CLS] text [SEP], padded with [PAD] = 0. Letters and digits are entries of their own.
    """
    floor = len(SPECIAL) + 2 * len(_ALPHABET) + len(_PUNCTUATION)
    if vocab_size < floor or min_patients < 1 or context_length < 3:
        raise ConfigError(
            f"tokenizer: expected vocab_size >= {floor}, min_patients >= 1 and context_length >= 3, got {vocab_size}, "
            f"{min_patients}, {context_length}"
        )
    words = _admitted_words(texts_by_patient, _graph_texts(graph), min_patients)
    whole = _name_words(graph, words, most=vocab_size // 3)
    pieces = _pair_merges(words, vocab_size - len(SPECIAL), whole=whole)
    return _wordpiece([*SPECIAL, *pieces], context_length=context_length)


def _graph_texts(graph: KnowledgeGraph | None) -> list[str]:
    """Every text of the graph, and the frames of the prompts that are said about it."""
    from kvlp.knowledge.prompts import Prompts

    prompts = Prompts()
    texts = [s for said in Assertion for phrase in ("opacity", "No Finding") for s in prompts.sentences(phrase, said)]
    for concept in graph or ():
        texts.extend((*concept.surfaces, concept.definition, *concept.descriptions))
    if graph is not None:
        texts.extend(sorted({relation.type.replace("_", " ") for relation in graph.relations}))
    return texts


def _name_words(graph: KnowledgeGraph | None, words: Mapping[str, int], *, most: int) -> list[str]:
    split = _splitter()
    names = {word for concept in graph or () for word in split(concept.name) if len(word) > 1}
    return sorted(names, key=lambda word: (-words[word], word))[:most]


def _splitter() -> Callable[[str], list[str]]:
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer

    normalise, split = BertNormalizer(lowercase=True), BertPreTokenizer()
    return lambda text: [word for word, _ in split.pre_tokenize_str(normalise.normalize_str(text))]


def _admitted_words(
    texts_by_patient: Iterable[tuple[str, str]], graph_texts: Sequence[str], min_patients: int
) -> Counter[str]:
    split = _splitter()
    patients: defaultdict[str, set[str]] = defaultdict(set)
    seen: set[tuple[str, str]] = set()
    for patient, text in texts_by_patient:
        if (patient, text) not in seen:
            seen.add((patient, text))
            for word in set(split(text)):
                patients[word].add(str(patient))
    words = Counter({word: len(ids) for word, ids in patients.items() if len(ids) >= min_patients})
    for text in graph_texts:
        words.update(split(text))
    return words


def _pair_merges(words: Mapping[str, int], size: int, *, whole: Sequence[str] = ()) -> list[str]:
    """Byte-pair merges: single characters first, then whole words, then the most frequent pairs, ties by spelling.

    Our own, because the Rust trainer's result differs from run to run.
    """
    symbols = {word: [word[0], *(f"##{c}" for c in word[1:])] for word in words if word}
    characters = {*_ALPHABET, *(f"##{c}" for c in _ALPHABET), *_PUNCTUATION}
    pieces = sorted(characters) + sorted({s for row in symbols.values() for s in row} - characters) + list(whole)
    done = set(whole)
    symbols = {word: row for word, row in symbols.items() if word not in done}
    counts: Counter[tuple[str, str]] = Counter()
    holders: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for word, row in symbols.items():
        for pair in pairwise(row):
            counts[pair] += words[word]
            holders[pair].add(word)
    heap = [(-count, pair) for pair, count in counts.items()]
    heapq.heapify(heap)
    known = set(pieces)
    while heap and len(pieces) < size:
        negative, pair = heapq.heappop(heap)
        if -negative != counts[pair] or not counts[pair]:
            continue  # an outdated entry; the current one is on the heap too
        merged = pair[0] + pair[1].removeprefix("##")
        if merged not in known:
            known.add(merged)
            pieces.append(merged)
        for changed in _merge(pair, merged, symbols, words, counts, holders):
            heapq.heappush(heap, (-counts[changed], changed))
    return pieces[:size]


def _merge(
    pair: tuple[str, str],
    merged: str,
    symbols: dict[str, list[str]],
    words: Mapping[str, int],
    counts: Counter[tuple[str, str]],
    holders: Mapping[tuple[str, str], set[str]],
) -> set[tuple[str, str]]:
    """Replace the pair by its merged symbol in every word that holds it; return the pairs whose counts changed."""
    changed: set[tuple[str, str]] = set()
    for word in list(holders[pair]):
        old, new = symbols[word], []
        i = 0
        while i < len(old):
            if i + 1 < len(old) and (old[i], old[i + 1]) == pair:
                new.append(merged)
                i += 2
            else:
                new.append(old[i])
                i += 1
        for gone in pairwise(old):
            counts[gone] -= words[word]
            holders[gone].discard(word)
            changed.add(gone)
        for come in pairwise(new):
            counts[come] += words[word]
            holders[come].add(word)
            changed.add(come)
        symbols[word] = new
    return {p for p in changed if counts[p] > 0}


def _wordpiece(vocabulary: Sequence[str], *, context_length: int, lowercase: bool = True) -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    ids = {piece: i for i, piece in enumerate(vocabulary)}
    core = Tokenizer(models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=1000))
    core.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.decoder = decoders.WordPiece()
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        model_max_length=context_length,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        padding_side="right",
        truncation_side="right",
    )


def load_tokenizer(path: PathLike, *, context_length: int = 48, lowercase: bool = True) -> PreTrainedTokenizerFast:
    """Read a tokenizer: a BERT vocabulary file (one piece a line), or a folder that transformers can read.

    Raises:
        CheckpointError: nothing there, not UTF-8, or a vocabulary without [PAD], [UNK], [CLS] and [SEP].
    """
    source = Path(path)
    if source.is_dir():
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(str(source), local_files_only=True, trust_remote_code=False)
        except Exception as error:
            raise CheckpointError(f"{source}: the tokenizer cannot be read ({_short(error)})") from error
        tokenizer.model_max_length = context_length
        return cast("PreTrainedTokenizerFast", tokenizer)
    try:
        lines = [line for line in source.read_text(encoding="utf-8-sig").splitlines() if line]
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{source}: expected a UTF-8 vocabulary file, got other bytes") from error
    except OSError as error:
        raise CheckpointError(f"{source}: expected a vocabulary file or tokenizer folder ({error.strerror})") from error
    missing = [token for token in SPECIAL[:4] if token not in lines]
    if missing or len(set(lines)) != len(lines):
        what = f"lacks {', '.join(missing)}" if missing else "holds an entry twice"
        raise CheckpointError(f"{source}: the vocabulary {what}; expected one piece a line, as BERT's vocab.txt")
    if "[MASK]" not in lines:
        lines.append("[MASK]")
    return _wordpiece(lines, context_length=context_length, lowercase=lowercase)
