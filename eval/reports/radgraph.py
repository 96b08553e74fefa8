"""RadGraph F1: what RadGraph's model annotates in both reports. The model comes from a local folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any, TypeAlias

from kvlp.errors import CheckpointError, ConfigError, DataError, MissingExtraError
from kvlp.eval.reports.metric import Column, mean_column
from kvlp.typing import PathLike

__all__ = ["LEVELS", "Annotate", "RadGraphF1"]

LEVELS = ("simple", "partial", "complete")
#: N texts -> for each {"entities": {key: {"tokens", "label", "relations": [[type, key], ...]}}}
Annotate: TypeAlias = Callable[[Sequence[str]], Sequence[Mapping[str, Any]]]
_MODELS = ("radgraph", "radgraph-xl", "modern-radgraph-xl")
_FILES = ("config.json", "weights.th", "vocabulary")
#: where config.json names the transformer that must be local, too
_NAMED = (
    ("dataset_reader", "token_indexers", "bert", "model_name"),
    ("model", "embedder", "token_embedders", "bert", "model_name"),
)


class RadGraphF1:
    """F1 of the sets of things annotated in both reports, in [0, 1]; overall the mean.

    "simple" compares (words, label), "partial" also whether an entity has a relation, "complete" each relation with its
    type and the words at its other end. Both sets empty is 1.

    Args:
        annotate: texts -> annotations, such as an installed RadGraph, or a look-up in a file of its output.
        level: one of LEVELS.
    """

    def __init__(self, annotate: Annotate, level: str = "partial") -> None:
        if level not in LEVELS:
            raise ConfigError(f"level of RadGraph F1 is {level!r}; expected one of {', '.join(LEVELS)}")
        self._annotate, self.level = annotate, level

    @classmethod
    def from_folder(cls, folder: PathLike, level: str = "partial") -> RadGraphF1:
        """Load RadGraph's model (extra `radgraph`) from a folder; nothing is downloaded.

        Args:
            folder: with one sub-folder radgraph, radgraph-xl or modern-radgraph-xl, as the package unpacks it.
            level: one of LEVELS.

        Raises:
            CheckpointError: the folder lacks a file, or its config.json names a transformer that is no local folder.
            MissingExtraError: the package is not installed.
        """
        kind = _checked(Path(folder))
        try:
            from radgraph import RadGraph
        except ImportError as error:
            raise MissingExtraError("radgraph", "radgraph") from error
        model = RadGraph(model_type=kind, model_cache_dir=str(folder))

        def annotate(texts: Sequence[str]) -> list[Mapping[str, Any]]:
            found = model(list(texts))
            return [found[str(n)] for n in range(len(texts))]

        return cls(annotate, level)

    def __call__(self, refs: Sequence[str], hyps: Sequence[str]) -> list[Column]:
        """One column, "radgraph-f1"."""
        pairs = zip(self._things(refs), self._things(hyps), strict=True)
        definition = f"F1 of RadGraph's annotations, level {self.level}; mean of reports"
        return [mean_column("radgraph-f1", definition, [_f1(a, b) for a, b in pairs])]

    def _things(self, texts: Sequence[str]) -> list[set[tuple[str, ...]]]:
        found = self._annotate(texts)
        if len(found) != len(texts):
            raise DataError(f"RadGraph annotated {len(found)} of {len(texts)} texts; expected one annotation each")
        return [_things(a, self.level) for a in found]


def _things(annotation: Mapping[str, Any], level: str) -> set[tuple[str, ...]]:
    entities = annotation["entities"]
    things: set[tuple[str, ...]] = set()
    for entity in entities.values():
        bare = (entity["tokens"].lower(), entity["label"])
        relations = entity["relations"]
        if level == "complete" and relations:
            things |= {(*bare, kind, entities[end]["tokens"].lower()) for kind, end in relations}
        else:
            things.add((*bare, "related") if level == "partial" and relations else bare)
    return things


def _f1(ref: set[tuple[str, ...]], hyp: set[tuple[str, ...]]) -> float:
    return 2 * len(ref & hyp) / (len(ref) + len(hyp)) if ref or hyp else 1.0


def _checked(folder: Path) -> str:
    kinds = [kind for kind in _MODELS if (folder / kind).is_dir()]
    if len(kinds) != 1:
        raise CheckpointError(f"{folder}: expected one of the folders {', '.join(_MODELS)} in it, got {len(kinds)}")
    lacking = [name for name in _FILES if not (folder / kinds[0] / name).exists()]
    if lacking:
        raise CheckpointError(
            f"{folder / kinds[0]}: no {lacking[0]}; expected {', '.join(_FILES)}, as RadGraph unpacks"
        )
    config_file = folder / kinds[0] / "config.json"
    try:
        config = json.loads(config_file.read_text(encoding="utf-8"))
        names = [str(reduce(getitem, keys, config)) for keys in _NAMED]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{config_file}: not a configuration of RadGraph's model") from error
    for name in names:
        if not Path(name).is_dir():
            raise CheckpointError(
                f"{config_file}: its transformer {name!r} is no local folder and would be downloaded; "
                "write the path of a local copy into model_name"
            )
    return kinds[0]
