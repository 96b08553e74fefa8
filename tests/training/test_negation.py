"""Negation: contradictions of what a report says, their losses in a run, and figures on held-out images meanwhile."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kvlp.datasets.manifest import Manifest
from kvlp.errors import DataError
from kvlp.knowledge.graph import Concept, KnowledgeGraph
from kvlp.knowledge.linking import EntityLinker
from kvlp.training.contradictions import KINDS, Contradictions
from kvlp.training.objectives import Losses, PolarityPart
from kvlp.training.objectives.part import Sources
from kvlp.training.recipe import Recipe, load_recipe
from kvlp.training.run import VALIDATION, run_recipe
from kvlp.training.texts import Statement, read_texts
from kvlp.typing import Assertion

PRESENT, ABSENT, UNCERTAIN = Assertion.PRESENT, Assertion.ABSENT, Assertion.UNCERTAIN
REPORTS = [
    "There is a small left pleural effusion. No pneumothorax.",
    "Large right pneumothorax. Heart size is normal.",
    "The heart is enlarged. No pleural effusion or pneumothorax.",
    "No pleural effusion. No pneumothorax. Heart size is normal.",
]


@pytest.fixture(scope="module")
def graph() -> KnowledgeGraph:
    return KnowledgeGraph.load("chest")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Small noise images whose mean tells which of four reports they have; a cavity is labelled, never named."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    lines = ["id,image,text,patient_id,split,labels"]
    for i in range(36):
        pixels = rng.normal(60 + 40 * (i % 4), 20, size=(48, 48)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:03d}.png")
        labels = f"pleural_effusion={int(i % 4 == 0)};lung_cavity={int(i % 4 == 1)}"
        lines.append(f'{i:03d},{i:03d}.png,"{REPORTS[i % 4]}",p{i:03d},{"train" if i < 24 else "dev"},{labels}')
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Manifest.load(folder / "manifest.csv")


def ways(graph: KnowledgeGraph, *said: Statement) -> set[tuple[str, str, str, Assertion]]:
    """Kind, concept, modifier and assertion of everything that contradicts a report."""
    found = Contradictions(graph, [said]).ways(0)
    return {(way.kind, way.false_concept, way.false_modifier, way.false_assertion) for way in found}


# ---- what contradicts what -------------------------------------------------------------------------------------------


def test_a_statement_is_contradicted_by_denial_side_and_severity(graph: KnowledgeGraph):
    assert ways(graph, Statement("pleural_effusion", PRESENT, "left", "small")) == {
        ("assertion", "pleural_effusion", "", ABSENT),
        ("side", "pleural_effusion", "right", PRESENT),
        ("severity", "pleural_effusion", "large", PRESENT),
    }


def test_a_denial_is_contradicted_by_the_statement_alone(graph: KnowledgeGraph):
    assert ways(graph, Statement("pleural_effusion", ABSENT, "left")) == {
        ("assertion", "pleural_effusion", "", PRESENT)
    }


def test_the_opposite_in_the_graph_contradicts(graph: KnowledgeGraph):
    assert ("opposite", "low_lung_volumes", "", PRESENT) in ways(graph, Statement("hyperinflation", PRESENT))


def test_what_another_statement_says_is_no_contradiction(graph: KnowledgeGraph):
    left, right = (Statement("pleural_effusion", PRESENT, side) for side in ("left", "right"))
    assert {kind for kind, *_ in ways(graph, left, right)} == {"assertion"}
    small, large = (Statement("pneumothorax", PRESENT, "", size) for size in ("small", "large"))
    assert {kind for kind, *_ in ways(graph, small, large)} == {"assertion"}
    assert ways(graph, left, Statement("pleural_effusion", ABSENT, "right")) == set()
    both = ways(graph, Statement("hyperinflation", PRESENT), Statement("low_lung_volumes", UNCERTAIN))
    assert {kind for kind, *_ in both} == {"assertion"}


def test_doubt_is_not_contradicted(graph: KnowledgeGraph):
    assert ways(graph, Statement("pneumothorax", UNCERTAIN)) == set()


def test_without_relations_only_the_assertion_turns(graph: KnowledgeGraph):
    bare = KnowledgeGraph([Concept(id=c.id, name=c.name) for c in graph.concepts], [], name="bare")
    said = ways(bare, Statement("pleural_effusion", PRESENT, "left", "small"))
    assert {kind for kind, *_ in said} == {"assertion"}


def test_sentences_differ_in_what_is_false_alone(graph: KnowledgeGraph):
    drawer = Contradictions(graph, [[Statement("pleural_effusion", PRESENT, "left", "small")]], ["side"])
    pairs = {drawer.sentences(drawer.ways(0)[0], np.random.default_rng(seed)) for seed in range(40)}
    assert ("There is a left pleural effusion.", "There is a right pleural effusion.") in pairs
    assert len(pairs) > 2
    assert all(true.replace("left", "right").replace("Left", "Right") == false for true, false in pairs)


def test_a_reader_finds_the_contradiction_in_the_false_sentence(graph: KnowledgeGraph, manifest: Manifest):
    texts = read_texts(manifest, graph, min_patients=2)
    assert Statement("pleural_effusion", PRESENT, "left", "small") in texts.statements[0]
    drawer, linker = Contradictions(graph, texts.statements), EntityLinker(graph)
    numbers = np.arange(4).repeat(12)
    true, false, kinds = drawer.sample(numbers, np.random.default_rng(0))
    assert set(kinds.tolist()) == {KINDS.index(kind) for kind in ("assertion", "opposite", "side", "severity")}
    for row, right, wrong in zip(numbers, true, false, strict=True):
        said = {(s.concept, s.assertion): s for s in texts.statements[row]}
        assert {(m.concept, m.assertion) for m in linker(right)} & set(said)
        for mention in linker(wrong):
            same = said.get((mention.concept, mention.assertion))
            differs = same is None or mention.side not in ("", same.side) or mention.severity not in ("", same.severity)
            assert differs, wrong


def test_a_row_without_statements_has_no_pair(graph: KnowledgeGraph):
    true, false, kinds = Contradictions(graph, [(), ()]).sample(np.array([1, 0]), np.random.default_rng(0))
    assert (true, false, kinds.tolist()) == (["", ""], ["", ""], [-1, -1])


@pytest.mark.slow
def test_polarity_asks_for_findings_that_no_report_names(graph: KnowledgeGraph, manifest: Manifest):
    texts = read_texts(manifest, graph, min_patients=2)
    draw = PolarityPart(findings=5, descriptions=0).samplers(Sources(graph, graph, True, texts, None)).shared
    assert draw is not None
    said = {text for step in range(60) for text in draw(step, np.random.default_rng(step))["poles"]}  # type: ignore[union-attr]
    assert len(draw(0, np.random.default_rng(0))["poles"]) == 10
    found = {m.concept for m in EntityLinker(graph)(" ".join(sorted(said)))}
    assert len(found - texts.named) > 50


# ---- the run ---------------------------------------------------------------------------------------------------------

SETTINGS = [
    "threads=1", "precision=fp32", "save_every=3", "stages.0.steps=9", "stages.0.batch_size=12",
    "stages.0.losses={clip: {}, entity: {}, contradiction: {weight: 1.0}, polarity: {weight: 1.0, findings: 8}}",
]  # fmt: skip


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load_recipe("smoke-cpu", [*SETTINGS, "validation={split: dev, every: 4}"])


@pytest.fixture(scope="module")
def run(manifest: Manifest, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    run_recipe(recipe, manifest, out)
    return out


def held_out(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / VALIDATION).read_text().splitlines()]


def weights(out: Path) -> bytes:
    return (out / "checkpoint" / "open_clip_model.safetensors").read_bytes()


def test_both_losses_are_logged_and_held_out_figures_come_at_their_cadence(run: Path):
    rows = [json.loads(line)["parts"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert {"contradiction", "contradiction.accuracy", "polarity", "polarity.stated"} <= set(rows[0])
    assert [row["step"] for row in held_out(run)] == [4, 8, 9]
    figures = {name for name in held_out(run)[0] if name not in ("stage", "name", "step")}
    assert figures == {f"{group} {setting}" for group in ("seen", "unseen") for setting in ("POS", "NEG", "PAIR")}
    assert all(0 <= row[name] <= 1 for row in held_out(run) for name in figures)


class Stop(Exception):
    """Stands for a crash of the process."""


@pytest.mark.slow
def test_a_crashed_run_resumes_to_the_same_bits_and_figures(run: Path, recipe: Recipe, manifest: Manifest, tmp_path):
    def crash(progress: object) -> None:
        if progress.phase.startswith("train") and progress.done == 5:  # type: ignore[attr-defined]
            raise Stop

    with pytest.raises(Stop):
        run_recipe(recipe, manifest, tmp_path / "run", progress=crash)
    assert [row["step"] for row in held_out(tmp_path / "run")] == [4]
    run_recipe(recipe, manifest, tmp_path / "run", resume=True)
    assert weights(tmp_path / "run") == weights(run)
    assert held_out(tmp_path / "run") == held_out(run)


@pytest.mark.slow
def test_looking_at_held_out_images_changes_no_weight(run: Path, manifest: Manifest, tmp_path: Path):
    run_recipe(load_recipe("smoke-cpu", SETTINGS), manifest, tmp_path / "run")
    assert weights(tmp_path / "run") == weights(run)
    assert not (tmp_path / "run" / VALIDATION).exists()


def test_rows_to_look_at_must_exist(manifest: Manifest, tmp_path: Path):
    wrong = load_recipe("smoke-cpu", [*SETTINGS, "validation={split: test}"])
    with pytest.raises(DataError, match=r"no row has split 'test'; name another, or --set validation=null"):
        run_recipe(wrong, manifest, tmp_path / "run")


@pytest.mark.slow
def test_a_stage_of_texts_without_a_graph_is_left_out(manifest: Manifest, tmp_path: Path, caplog):
    small = ["model.embed_dim=32", "model.image_size=48", "threads=1", "stages.0.steps=2", "stages.1.epochs=0"]
    steps = ["stages.1.steps=1", "stages.1.batch_size=12", "stages.2.steps=1", "stages.2.batch_size=12"]
    run_recipe(load_recipe("no-graph", [*small, *steps]), manifest, tmp_path / "run")
    assert "stage 'knowledge' is left out" in caplog.text
    names = [json.loads(line)["name"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert names == ["align", "lock"]


def test_the_losses_stand_in_the_order_they_are_added_up():
    assert list(Losses.model_fields)[:4] == ["clip", "entity", "knowledge", "concept_align"]
