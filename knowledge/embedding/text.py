"""Vectors from words alone: a concept's names and definition, by letter n-grams or by an encoder of yours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kvlp.errors import ConfigError, KnowledgeError, MissingExtraError, ShapeError
from kvlp.knowledge.graph import Concept, KnowledgeGraph
from kvlp.typing import PathLike

if TYPE_CHECKING:
    from kvlp.typing import FloatArray

__all__ = ["Encoder", "concept_text", "encoded", "folder_encoder", "letter_vectors"]

#: texts -> (N, D) vectors
Encoder = Callable[[Sequence[str]], "FloatArray"]


def concept_text(concept: Concept) -> str:
    """The name and the synonyms, then the definition: "pneumothorax; ptx; collapsed lung. Air between ..."."""
    names = "; ".join(concept.surfaces)
    return f"{names}. {concept.definition}" if concept.definition else names


def letter_vectors(graph: KnowledgeGraph, *, dim: int, seed: int) -> FloatArray:
    """Weigh the letter n-grams (3 to 5, within words) of each concept's text by tf-idf and keep `dim` directions.

    Returns:
        (C, dim) float32, rows of length 1, by truncated SVD.

    Raises:
        MissingExtraError: scikit-learn is not installed.
        KnowledgeError: `dim` is above what the graph can fill.
    """
    try:
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import TfidfVectorizer
    except ImportError:
        raise MissingExtraError("scikit-learn", "vectors") from None
    counts = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True, dtype=np.float32)
    table = counts.fit_transform([concept_text(c) for c in graph.concepts])
    if dim >= min(table.shape):
        raise KnowledgeError(
            f"text vectors: expected a dim below {min(table.shape)} for the {len(graph)} concepts of "
            f"'{graph.name}', got {dim}"
        )
    return _unit(TruncatedSVD(dim, random_state=seed).fit_transform(table))


def encoded(graph: KnowledgeGraph, encoder: Encoder, *, dim: int | None) -> FloatArray:
    """Encode each concept's text with `encoder` and, where `dim` is below its width, keep the main directions.

    Returns:
        (C, D) float32, rows of length 1.

    Raises:
        ShapeError: the encoder does not return one vector a text; KnowledgeError: `dim` is above its width.
    """
    vectors = np.asarray(encoder([concept_text(c) for c in graph.concepts]), dtype=np.float32)
    if vectors.ndim != 2 or len(vectors) != len(graph):
        raise ShapeError(f"text encoder: expected ({len(graph)}, D) vectors, got shape {vectors.shape}")
    if dim is None or dim == vectors.shape[1]:
        return _unit(vectors)
    if dim > min(vectors.shape):
        raise KnowledgeError(f"text encoder: expected a dim of at most {min(vectors.shape)}, got {dim}")
    centred = vectors - vectors.mean(axis=0)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    largest = np.abs(directions).argmax(axis=1)  # a direction's sign is arbitrary: make its largest part positive
    directions *= np.sign(directions[np.arange(len(directions)), largest])[:, None]
    return _unit(centred @ directions[:dim].T)


def folder_encoder(folder: PathLike, *, batch_size: int = 64) -> Encoder:
    """Make an encoder of a transformers model and its tokenizer in a local folder: mean of the last states.

    Raises:
        ConfigError: the folder does not hold an encoder and a tokenizer; nothing is downloaded.
    """
    path = Path(folder)
    if not (path / "config.json").is_file():
        raise ConfigError(f"text encoder: expected a folder with a transformers model (config.json), got {path}")
    import torch
    from transformers import AutoModel, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
        model = AutoModel.from_pretrained(path, local_files_only=True).eval()
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        kind = type(error).__name__
        raise ConfigError(f"text encoder: {path} does not load as a transformers encoder ({kind})") from None

    longest = min(256, tokenizer.model_max_length)

    @torch.inference_mode()
    def encode(texts: Sequence[str]) -> FloatArray:
        pieces = []
        for start in range(0, len(texts), batch_size):
            chunk = list(texts[start : start + batch_size])
            inputs = tokenizer(chunk, padding=True, truncation=True, max_length=longest, return_tensors="pt")
            states = model(**inputs).last_hidden_state.float()
            mask = inputs["attention_mask"][..., None].float()
            pieces.append(((states * mask).sum(1) / mask.sum(1)).numpy())
        joined: FloatArray = np.concatenate(pieces)
        return joined

    return encode


def _unit(vectors: FloatArray) -> FloatArray:
    lengths = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    result: FloatArray = (vectors / lengths).astype(np.float32)
    return result
