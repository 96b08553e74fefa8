"""Questions about phantoms: answers are the truth as drawn, and the question alone tells nothing of yes and no."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from kvlp.datasets.manifest import Manifest
from kvlp.datasets.phantom import generate_phantom
from kvlp.datasets.phantom.questions import phantom_questions
from kvlp.errors import DataError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("phantom")
    generate_phantom(out, patients=60, seed=3, size=64, jobs=1)
    return out


def test_answers_are_the_truth(folder: Path) -> None:
    asked = phantom_questions(folder, seed=1)
    assert list(Manifest.load(folder / "questions.csv")) == list(asked)
    truth = {row["id"]: row for row in map(json.loads, (folder / "truth.jsonl").read_text().splitlines())}
    images = {record.id: record for record in Manifest.load(folder / "manifest.csv")}
    kinds = Counter(record.extra["kind"] for record in asked)
    assert min(kinds[kind] for kind in ("presence", "side", "finding")) >= 5
    for record in asked:
        image = images[record.id.rpartition("-")[0]]
        assert (record.image, record.split, record.patient_id) == (image.image, image.split, image.patient_id)
        question, answer = record.extra["question"], record.extra["answer"]
        if record.extra["kind"] == "presence":
            (name,) = [n for n in image.labels if f" {n.replace('_', ' ')}" in question.strip("?")]
            assert image.labels[name] == (answer == "yes")
        elif record.extra["kind"] == "side":
            sides = {s["side"] for s in truth[image.id]["findings"] if s["id"].replace("_", " ") in question}
            assert sides == {answer}
        else:
            assert [s["id"] for s in truth[image.id]["findings"]] == [answer.replace(" ", "_")]


def test_yes_and_no_come_alike_for_every_finding_and_split(folder: Path) -> None:
    counts: dict[tuple[str, str], Counter[str]] = {}
    for record in phantom_questions(folder):
        if record.extra["kind"] == "presence":
            words = record.extra["question"].strip("?").replace(" present", "")
            name = words.removeprefix("Is there any ").removeprefix("Does this radiograph show ").removeprefix("Is ")
            counts.setdefault((record.split, name), Counter())[record.extra["answer"]] += 1
    assert counts
    assert all(c["yes"] == c["no"] for c in counts.values())


def test_the_seed_decides(folder: Path) -> None:
    assert list(phantom_questions(folder, seed=5)) == list(phantom_questions(folder, seed=5))
    assert list(phantom_questions(folder, seed=5)) != list(phantom_questions(folder, seed=6))


def test_another_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected a phantom"):
        phantom_questions(tmp_path)
