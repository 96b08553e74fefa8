"""Controls see what they are named after and nothing else."""

import math

import numpy as np
import pytest
from PIL import Image

from kvlp.datasets.manifest import Manifest, Record
from kvlp.errors import DataError
from kvlp.eval.baselines import border, control_scores, logistic_scores, source_scores, thumbnails
from kvlp.eval.metrics import auc
from kvlp.eval.tasks import NAMED, NEVER_NAMED, NOT_KNOWN, default_classes, group_by_naming, parse_tasks, require_apart
from kvlp.knowledge.graph import KnowledgeGraph
from kvlp.knowledge.names import Names


def test_source_scores_are_the_share_of_positives_of_the_source():
    labels = np.array([[1.0], [1.0], [0.0], [0.0], [math.nan], [-1.0]])
    scores = source_scores(["a", "a", "a", "b", "b", "b"], labels, ["a", "b", "c"])
    assert scores[:, 0].tolist() == pytest.approx([(2 + 0.5) / 4, 0.5 / 2, 0.5])
    assert np.isnan(source_scores(["a", "a"], np.ones((2, 1)), ["a"])).all()


def test_border_keeps_the_outer_pixels_only():
    thumbs = np.arange(100.0).reshape(1, 100)
    kept = border(thumbs, 0.12)[0]
    assert kept.size == 100 - 64
    assert set(kept) == {v for v in range(100) if v // 10 in (0, 9) or v % 10 in (0, 9)}
    assert border(np.zeros((2, 2500))).shape == (2, 2500 - 38 * 38)


def test_thumbnails_average_and_leave_unreadable_rows_nan(tmp_path):
    pixels = np.zeros((64, 64), np.uint8)
    pixels[:, 32:] = 200
    Image.fromarray(pixels).save(tmp_path / "a.png")
    manifest = Manifest([Record(id="a", image="a.png"), Record(id="b", image="gone.png")], tmp_path)
    thumbs = thumbnails(manifest, 4)
    assert thumbs[0].reshape(4, 4)[0].tolist() == pytest.approx([0, 0, 200 / 255, 200 / 255])
    assert np.isnan(thumbs[1]).all()


def test_logistic_scores_learn_a_line_and_leave_single_classes_out():
    rng = np.random.default_rng(0)
    x, new = rng.normal(size=(200, 6)), rng.normal(size=(100, 6))
    labels = np.stack([x[:, 0] > 0, np.ones(200), np.where(x[:, 1] > 0, 1, -1)], axis=1).astype(float)
    x[5] = math.nan
    scores = logistic_scores(x, labels, new, [str(i // 2) for i in range(200)])
    assert auc(new[:, 0] > 0, scores[:, 0]) > 0.97
    assert np.isnan(scores[:, 1:]).all()


def test_controls_tell_sources_and_borders_from_disease(tmp_path):
    """The label shows in the middle; source "b" has a white edge and more positives."""
    rng = np.random.default_rng(0)
    records = []
    for i in range(160):
        source = "ab"[i % 2]
        positive = rng.random() < (0.2 if source == "a" else 0.8)
        pixels = rng.integers(60, 120, size=(50, 50)).astype(np.uint8)
        if positive:
            pixels[18:32, 18:32] += 60
        if source == "b":
            pixels[:4] = 255
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
        records.append(Record(f"{i}", f"{i}.png", patient_id=f"p{i}", source=source, labels={"x": float(positive)}))
    train, test = Manifest(records[:100], tmp_path), Manifest(records[100:], tmp_path)
    tasks, _ = parse_tasks(["x"])
    scores = control_scores(train, test, tasks, Names(None))
    truth = [r.labels["x"] for r in test]
    found = {name: auc(truth, table[:, 0]) for name, table in scores.items()}
    assert found["logistic regression on 32 x 32 pixels"] > 0.97
    assert 0.6 < found["source only"] < 0.95
    assert found["border only (outer 12 %)"] == pytest.approx(found["source only"], abs=0.15)


def test_patients_on_both_sides_are_refused():
    train = [Record("1", patient_id="a"), Record("2", patient_id="b")]
    require_apart(train, [Record("3", patient_id="c")])
    with pytest.raises(DataError, match="1 patients stand in both"):
        require_apart(train, [Record("3", patient_id="b")])


def test_default_classes_have_both_values():
    rows = [Record("1", labels={"x": 1.0, "y": 1.0, "z": -1.0}), Record("2", labels={"x": 0.0, "y": 1.0, "w": 0.0})]
    rows.append(Record("3", labels={"w": 1.0}))
    assert default_classes(rows) == ["x", "w"]
    with pytest.raises(DataError, match=r"no label is both present and absent \(labels: x, y, z\)"):
        default_classes(rows[:1])


def test_classes_are_grouped_by_what_training_named():
    graph = KnowledgeGraph.load("chest")
    classes = ["pleural_effusion", "lung_cavity", "Pneumothorax vs Pleural Effusion"]
    named = [classes[0], "Pneumothorax vs Pleural Effusion"]
    assert group_by_naming(classes, graph, ["Pleural effusions"]) == {NAMED: named, NEVER_NAMED: ["lung_cavity"]}
    assert group_by_naming(classes, graph, []) == {NEVER_NAMED: classes}
    assert group_by_naming(classes, graph, None) == {NOT_KNOWN: classes}
