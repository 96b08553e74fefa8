"""What training texts name is told whole: it decides what may be called zero-shot."""

from __future__ import annotations

from kvlp.datasets.manifest import Manifest, Record
from kvlp.knowledge.graph import KnowledgeGraph
from kvlp.training.texts import read_texts


def test_labels_that_the_graph_does_not_know_are_named_too() -> None:
    labels = {"pneumothorax": 1.0, "Some New Sign": 0.0, "No Finding": 1.0, "edema": -1.0}
    rows = Manifest([Record(id="1", image="1.png", patient_id="p", labels=labels)])
    texts = read_texts(rows, KnowledgeGraph.load("chest"), source="labels", min_patients=1)
    assert texts.named == {"pneumothorax", "Some New Sign", "No Finding"}  # what is uncertain makes no sentence
    assert list(texts.classes) == ["pneumothorax"]
