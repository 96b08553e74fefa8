"""Questions about phantom radiographs whose answers are known: is it there, on which side, what is it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kvlp.datasets.files import read_text
from kvlp.datasets.manifest import Manifest
from kvlp.datasets.phantom.lists import DEVICES, SEEN
from kvlp.datasets.readers.questions import question_record
from kvlp.errors import DataError
from kvlp.typing import PathLike

__all__ = ["phantom_questions"]

_MAX_BYTES = 1 << 28
_SIDES = ("left", "right")
_PRESENCE = ("Is there any {name}?", "Does this radiograph show {name}?", "Is {name} present?")
_SIDE = ("Is the {name} left or right?", "On which side is the {name}?")
_FINDING = ("Which finding does this radiograph show?", "What is abnormal here?")
_NAMED = frozenset((*SEEN, *DEVICES))


def phantom_questions(folder: PathLike, *, seed: int = 0) -> Manifest:
    """Ask about every image of a phantom and write `questions.csv` beside its manifest.

    Presence: every finding and device that reports name, asked about as many images with it as without it in each
    split, so that the question alone tells nothing of the answer (yes, no). Side: of each such finding that has one
    (left or right). Finding: which it is, where an image shows exactly one.

    Args:
        folder: where `generate_phantom` wrote.
        seed: what is asked, and in which words.

    Returns:
        One record a question, in the form of the question readers (question, answer, answer_type and kind among its
        further columns); split and patient are those of the image.

    Raises:
        DataError: no phantom there.
    """
    root = Path(folder)
    if not (root / "truth.jsonl").is_file() or not (root / "manifest.csv").is_file():
        raise DataError(f"{root}: expected a phantom (manifest.csv, truth.jsonl); make one: kvlp data import phantom")
    lines = read_text(root / "truth.jsonl", max_bytes=_MAX_BYTES).splitlines()
    truth = {str(row["id"]): row for row in map(json.loads, lines)}
    manifest = Manifest.load(root / "manifest.csv")
    asked = _asked(manifest, np.random.default_rng([seed, 1]))
    questions = [
        question_record(
            id=f"{record.id}-{number}", image=record.image, question=words, answer=answer, closed=kind != "finding",
            kind=kind, patient_id=record.patient_id, split=record.split, source="phantom", licence=record.licence,
        )
        for record in manifest
        for number, (kind, words, answer) in enumerate(
            _about(truth[record.id], asked.get(record.id, {}), np.random.default_rng([seed, 2, _number(record.id)]))
        )
    ]  # fmt: skip
    made = Manifest(questions, root)
    made.save(root / "questions.csv")
    return made


def _number(record_id: str) -> int:
    return int("".join(c for c in record_id if c.isdigit()) or 0)


def _asked(manifest: Manifest, rng: np.random.Generator) -> dict[str, dict[str, str]]:
    """Record id -> finding -> yes or no: for each finding and split as many images without it as there are with it."""
    asked: dict[str, dict[str, str]] = {}
    splits = sorted({record.split for record in manifest})
    for name in sorted(_NAMED):
        for split in splits:
            rows = [r for r in manifest if r.split == split]
            sides = {v: [r for r in rows if r.labels.get(name) == v] for v in (1.0, 0.0)}
            count = min(map(len, sides.values()))
            for value, found in sides.items():
                for i in rng.choice(len(found), size=count, replace=False) if count else ():
                    asked.setdefault(found[int(i)].id, {})[name] = "yes" if value else "no"
    return asked


def _about(
    truth: Mapping[str, Any], asked: Mapping[str, str], rng: np.random.Generator
) -> Iterator[tuple[str, str, str]]:
    """The questions about one image: kind, words, answer."""
    for name, answer in sorted(asked.items()):
        yield "presence", _worded(_PRESENCE, name, rng), answer
    for spec in truth["findings"]:
        if spec["id"] in _NAMED and spec["side"] in _SIDES:
            yield "side", _worded(_SIDE, spec["id"], rng), spec["side"]
    found = [spec["id"] for spec in truth["findings"]]
    if len(found) == 1 and found[0] in _NAMED:
        yield "finding", _worded(_FINDING, "", rng), found[0].replace("_", " ")


def _worded(forms: tuple[str, ...], name: str, rng: np.random.Generator) -> str:
    return forms[int(rng.integers(len(forms)))].format(name=name.replace("_", " "))
