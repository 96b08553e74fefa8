"""How an evaluation asks for its classes: by which sentences, and who answers: the encoders or the query network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kvlp.datasets.manifest import Manifest
from kvlp.errors import ConfigError, DataError
from kvlp.eval.images import Embedded
from kvlp.eval.metrics import Floats
from kvlp.eval.results import Provenance
from kvlp.eval.studies import POOLINGS, Studies
from kvlp.eval.tasks import ClassTask
from kvlp.knowledge.prompts import Prompts
from kvlp.typing import Assertion
from kvlp.zero_shot.scoring import Asked, Reading, scorer_of

__all__ = ["MEANINGS", "asked_of", "class_scores", "class_sentences", "meaning"]

#: who scores -> what each score is, in words
MEANINGS: dict[str, dict[str, str]] = {
    "encoders": {
        "POS": "similarity to sentences that state the class",
        "NEG": "minus the similarity to sentences that deny the class",
        "PAIR": "similarity to stating minus similarity to denying sentences",
        "VERSUS": "similarity to sentences of the one class minus those of the other",
    },
    "query": {
        "POS": "the query network's mean log-odds that sentences that state the class are true",
        "NEG": "minus the query network's mean log-odds that sentences that deny the class are true",
        "PAIR": "the query network's mean log-odds of stating minus those of denying sentences",
        "VERSUS": "the query network's mean log-odds of sentences of the one class minus those of the other",
    },
}


def meaning(provenance: Provenance, setting: str) -> str:
    """What a score is, in words: who made it, and how images became studies."""
    pooled = f"; {POOLINGS[provenance.pooling]}" if provenance.pooling else ""
    return MEANINGS[provenance.scorer or "encoders"][setting] + pooled


def class_sentences(
    tasks: Sequence[ClassTask], writer: Prompts, style: str, *, synonyms: bool
) -> dict[str, dict[str, list[str]]]:
    """Class name -> "present" and "absent" sentences, and "versus" for a class against another."""

    def say(name: str, assertion: Assertion) -> list[str]:
        return writer.sentences(name, assertion, synonyms=synonyms, style=style)

    out = {}
    for task in tasks:
        out[task.name] = {
            "present": say(task.positive, Assertion.PRESENT),
            "absent": say(task.positive, Assertion.ABSENT),
            **({"versus": say(task.versus, Assertion.PRESENT)} if task.versus else {}),
        }
    return out


def asked_of(
    model: Any,
    embedded: Embedded,
    scorer: str,
    studies: Studies | None = None,
    *,
    batch_size: int = 64,
    progress: Any = None,
) -> Asked:
    """Images of an evaluation, ready to be asked: their vectors, or for the query network the pictures themselves.

    Args:
        model: of the evaluation.
        embedded: what `embed_manifest` made of the images.
        scorer: "encoders" or "query".
        studies: by "embeddings", each study is asked by one vector.
        batch_size: pictures read and scored at a time.
        progress: called with (step, done, total).

    Raises:
        CheckpointError: the model has no query network.
        ConfigError: the query network, and studies by their embeddings.
        DataError: vectors alone, where pictures are needed.
    """
    who, merged = scorer_of(model, scorer), studies is not None and studies.how == "embeddings"
    if scorer == "encoders":
        vectors = studies.vectors(embedded.vectors) if studies is not None and merged else embedded.vectors
        return Asked(who, vectors.astype(np.float64))
    if merged:
        raise ConfigError(
            "studies='embeddings' is of the encoders: the query network looks at images; take mean or max"
        )
    if embedded.root is None:
        raise DataError("the query network needs the pictures: pass a manifest, or what embed_manifest made of one")
    show = None if progress is None else lambda done, total: progress("query network", done, total)
    return Asked(who, Manifest(embedded.records, embedded.root), Reading("raise", batch_size, show))


def class_scores(
    asked: Asked,
    tasks: Sequence[ClassTask],
    prompts: Mapping[str, Mapping[str, list[str]]],
    studies: Studies | None = None,
) -> dict[str, Floats]:
    """Each score of the classes; higher means present, NaN columns do not apply.

    Args:
        asked: the images; or studies, if those were merged before they were asked.
        tasks: C classes.
        prompts: of `class_sentences`.
        studies: of N images, to pool their scores; each of POS, NEG, PAIR and VERSUS by itself.

    Returns:
        "POS", "NEG", "PAIR" (and "VERSUS") -> (N, C), or (S, C) for S studies.
    """

    def similarity(kind: str) -> Floats:
        return asked.table([prompts[task.name].get(kind, []) for task in tasks])

    asked.ask([line for said in prompts.values() for lines in said.values() for line in lines])
    positive, negative = similarity("present"), similarity("absent")
    scores = {"POS": positive, "NEG": -negative, "PAIR": positive - negative}
    if any(task.versus for task in tasks):
        scores["VERSUS"] = positive - similarity("versus")
    if studies is None or studies.how == "embeddings":
        return scores
    return {setting: studies.scores(table) for setting, table in scores.items()}
