"""Data cards of the benchmarks: one YAML file each, read by the evaluation, the command line and the documentation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

from kvlp.errors import ConfigError, DataError

__all__ = ["Card", "Published", "benchmark_names", "load_card"]

_FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Published:
    """A figure that somebody published on a benchmark.

    Attributes:
        model: whose figure: "CARZero".
        value: the figure.
        row: which of our rows stands beside it: metric, target, group and setting.
        source: paper, table, and where it was read.
        comparable: "yes", "partly" or "no".
        because: what differs.
    """

    model: str
    value: float
    row: Mapping[str, str]
    source: str
    comparable: Literal["yes", "partly", "no"]
    because: str = ""


@dataclass(frozen=True, slots=True)
class Card:
    """What a benchmark is.

    Attributes:
        name: "chestxray14".
        title: its name in words.
        kind: "classification", "retrieval" (reports, and classes) or "vqa".
        origin: where users download it.
        licence: of the data.
        paper: who made it.
        layout: what must lie in the folder.
        split: which rows are scored; "" for all of them.
        size: images (or questions) of the whole split; 0 where there is no one list.
        zero: what a label that is not given means in this benchmark.
        missing: "absent": a class that a labelled image does not name counts as absent; "unknown": it is left out.
        single: whether each image has exactly one of the classes.
        classes: label of the data set -> words (a name in the graph) by which it is asked.
        not_asked: label of the data set -> why it is not asked.
        groups: name -> labels whose mean is also given.
        traps: what to know before quoting a figure.
        published: figures of others.
    """

    name: str
    title: str
    kind: Literal["classification", "retrieval", "vqa"]
    origin: str
    licence: str
    paper: str
    layout: str
    traps: tuple[str, ...]
    split: str = ""
    size: int = 0
    zero: str = ""
    missing: Literal["absent", "unknown"] = "unknown"
    single: bool = False
    classes: Mapping[str, str] = field(default_factory=dict)
    not_asked: Mapping[str, str] = field(default_factory=dict)
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    published: tuple[Published, ...] = ()

    @property
    def markdown(self) -> str:
        """The card as a page."""
        whole = f"{self.size:,} {'questions' if self.kind == 'vqa' else 'images'}" if self.size else "no one list"
        lines = [
            f"# {self.title}",
            "",
            f"`kvlp eval {self.name} --data FOLDER --model CKPT --out DIR`",
            "",
            f"- where from: {self.origin}",
            f"- licence: {self.licence}",
            f"- paper: {self.paper}",
            f"- in the folder: {self.layout}",
            f"- scored: {self.split or 'all rows'} ({whole})",
            *([f"- what no label means: {self.zero}"] if self.zero else []),
            "",
            "What to know:",
            "",
            *(f"- {trap}" for trap in self.traps),
        ]
        if self.classes:
            lines += ["", "| class | asked by |", "| --- | --- |"]
            lines += [f"| {label} | {words} |" for label, words in self.classes.items()]
        if self.not_asked:
            lines += ["", "Not asked:", "", *(f"- {label}: {why}" for label, why in self.not_asked.items())]
        for name, members in self.groups.items():
            lines += ["", f"Mean of its own, {name}: {', '.join(members)}."]
        if self.published:
            lines += ["", "| published | figure | value | comparable | source |", "| --- | --- | --- | --- | --- |"]
            lines += [
                f"| {p.model} | {' '.join(p.row.values())} | {p.value:g} | {p.comparable}: {p.because} | {p.source} |"
                for p in self.published
            ]
        return "\n".join(lines) + "\n"


def benchmark_names() -> list[str]:
    """Names of all benchmarks."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


@cache
def load_card(name: str) -> Card:
    """Read a card.

    Raises:
        ConfigError: no benchmark of that name; the nearest is named.
    """
    names = benchmark_names()
    if name not in names:
        near = get_close_matches(name, names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ";"
        raise ConfigError(f"no benchmark is called {name!r}{hint} benchmarks: {', '.join(names)}")
    return _card(name, yaml.safe_load((_FOLDER / f"{name}.yaml").read_text(encoding="utf-8")))


def _card(name: str, data: Any) -> Card:
    """A card from its file. A class is `label: words`; `label:` alone is asked by its own words."""
    unknown = set(data) - {f.name for f in fields(Card)}
    if unknown:
        raise DataError(f"card {name}: unknown key {min(unknown)!r}")
    classes = {
        str(label): str(words or _words(str(label))) for label, words in (data.pop("classes", None) or {}).items()
    }
    groups = {str(group): tuple(members) for group, members in (data.pop("groups", None) or {}).items()}
    stray = next((m for members in groups.values() for m in members if m not in classes), None)
    if stray is not None:
        raise DataError(f"card {name}: {stray!r} is in a group and no class")
    published = tuple(Published(**entry) for entry in data.pop("published", None) or ())
    traps = tuple(data.pop("traps"))
    return Card(name=name, classes=classes, groups=groups, published=published, traps=traps, **data)


def _words(label: str) -> str:
    return " ".join(label.replace("_", " ").split()).lower()
