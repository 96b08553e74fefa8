"""A model that reads the answer off the image, for evaluation tests: no network, readable scores."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from kvlp.datasets.manifest import Manifest, Record

CLASSES = ["cardiomegaly", "pleural effusion", "bulla"]


class OneHotModel:
    """Image: pixel c of the first row is bright if class c is present. Text: class named, or denied by "no".

    Vectors have one direction for each class present and one for each class absent.
    """

    card = {"named_concepts": ["cardiomegaly", "pleural effusion"]}
    hash = "fake"

    def __init__(self, noise=0.0, seed=0, deaf_to_no=False):
        self.noise, self.rng, self.deaf_to_no = noise, np.random.default_rng(seed), deaf_to_no

    def encode_image(self, images, *, batch_size=64):
        rows = []
        for image in images:
            present = image[0, : len(CLASSES)] > 127
            rows.append(np.r_[present, ~present] + self.noise * self.rng.normal(size=2 * len(CLASSES)))
        return unit(np.array(rows, dtype=np.float32).reshape(len(images), 2 * len(CLASSES)))

    def encode_text(self, texts):
        rows = np.full((len(texts), 2 * len(CLASSES)), 1e-3, dtype=np.float32)
        for i, text in enumerate(texts):
            low = text.lower()
            denied = not self.deaf_to_no and ("no " in low or "normal" in low)
            for c, name in enumerate(CLASSES):
                if name in low or (c == 0 and "enlarged heart" in low):
                    rows[i, c + len(CLASSES) * denied] += 1
        return unit(rows)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def write_manifest(folder, patients=40, images=2, seed=0):
    """PNG files whose first pixels tell their labels; two images a patient; some labels unknown; reports."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    records = []
    for p in range(patients):
        present = rng.random(len(CLASSES)) < [0.5, 0.4, 0.2]
        for i in range(images):
            pixels = rng.integers(30, 90, size=(24, 24), dtype=np.uint8)
            pixels[0, : len(CLASSES)] = np.where(present, 250, 5)
            Image.fromarray(pixels).save(folder / f"{p}-{i}.png")
            labels = {name: float(v) for name, v in zip(CLASSES, present, strict=True)}
            if p % 10 == 9:
                del labels["bulla"]
            said = [f"There is {'' if v else 'no '}{name}." for name, v in zip(CLASSES, present, strict=True)]
            records.append(
                Record(
                    id=f"{p}-{i}", image=f"{p}-{i}.png", patient_id=f"p{p}", labels=labels, text=" ".join(said),
                    split="test", source="a" if present[0] else "b",
                )
            )  # fmt: skip
    return Manifest(records, folder)


@pytest.fixture(scope="session")
def chest_graph():
    """The bundled graph, loaded once."""
    from kvlp.knowledge.graph import KnowledgeGraph

    return KnowledgeGraph.load("chest")


@pytest.fixture(scope="session")
def fakes():
    """The fake model, the manifest writer and the class names."""
    return SimpleNamespace(Model=OneHotModel, write_manifest=write_manifest, classes=CLASSES)
