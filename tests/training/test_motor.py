"""MOTOR in a run: what a report states, the store without self-leaks, exact resume, reports that follow the image."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training_small import SENTENCES, SMALL, WEIGHTS

import kvlp
from kvlp.datasets.manifest import Manifest, Record
from kvlp.errors import CheckpointError, ConfigError, DataError
from kvlp.knowledge.graph import Concept, KnowledgeGraph, Relation
from kvlp.training import setup
from kvlp.training.facts import Fact, fact_text, facts_of, knowledge_rows
from kvlp.training.groups import row_groups
from kvlp.training.knowledge_store import KnowledgeStore, write_store
from kvlp.training.loop import train_steps
from kvlp.training.objectives import Losses, MomentumPart
from kvlp.training.recipe import Recipe, load_recipe
from kvlp.training.run import run_recipe
from kvlp.training.setup import Prepared, prepare
from kvlp.training.task import PretrainTask
from kvlp.training.texts import Statement
from kvlp.training.triples import read_triples
from kvlp.typing import Assertion

SETTINGS = [
    *SMALL, "tokenizer.vocab_size=600", "tokenizer.context_length=32", "report_decoder.width=32",
    "report_decoder.heads=2", "report_decoder.layers=1", "stages.0.steps=1", "stages.0.losses.knowledge.pairs=8",
    "stages.1.epochs=0", "stages.1.steps=7", "stages.1.batch_size=8", "stages.1.lr=0.003", "stages.1.text_lr=1",
    "stages.1.losses.knowledge=null", "stages.1.losses.momentum.queue=20", "stages.1.losses.motor.refresh=2",
    "save_every=3",
]  # fmt: skip
ROWS, BATCH = 24, 8
PRESENT, ABSENT = Assertion.PRESENT, Assertion.ABSENT


def recipe(*more: str) -> Recipe:
    return load_recipe("motor-phantom", [*SETTINGS, *more])


@pytest.fixture(scope="module")
def prepared(manifest: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepare(recipe(), manifest, tmp_path_factory.mktemp("prepared"), lambda *_: None)


def batch_of(prepared: Prepared, indices: Sequence[int]) -> dict[str, torch.Tensor]:
    numbers, texts = np.array(indices), prepared.rows.texts
    whole = [texts.sample(i, np.random.default_rng(i), 0) for i in indices]
    return {
        "row": torch.from_numpy(numbers),
        "image": prepared.normalise(torch.from_numpy(np.array(prepared.rows.pixels[numbers]))),
        "text": prepared.tokenize(whole),
        "labels": torch.from_numpy(texts.labels[numbers]),
        "signature": torch.from_numpy(texts.signature[numbers]),
        "motor_report": prepared.tokenize(whole),
        "motor_image_draw": torch.from_numpy(numbers << 18),
        "motor_text_draw": torch.from_numpy(numbers << 19),
    }


def task_of(prepared: Prepared, losses: Losses) -> PretrainTask:
    model, heads = deepcopy(prepared.model), deepcopy(dict(prepared.heads))
    return PretrainTask(model, losses, heads=heads, sources=prepared.sources).train()


def steps_of(task: PretrainTask, batches: list[dict[str, torch.Tensor]], lr: float = 0.0) -> list[Any]:
    optimizer = torch.optim.SGD([p for p in task.parameters() if p.requires_grad], lr=lr)
    return list(train_steps(task, [([b], {}) for b in batches], optimizer, lambda _: lr, autocast=nullcontext))


# ---- the recipe ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["report_decoder=null"], "stage 'align' has the loss motor; say how its decoder is built"),
        (["report_decoder.root=[a]"], "unknown key 'report_decoder.root'; did you mean 'roots'"),
        (["stages.1.losses.momentum.momentum=1"], "momentum: input should be less than 1, got 1"),
    ],
)
def test_wrong_recipes_are_named(settings: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        recipe(*settings)


def test_the_published_settings_by_one_switch() -> None:
    theirs = load_recipe("motor", ["as_published=true"])
    losses = theirs.stages[0].losses
    assert losses.momentum is not None
    assert (losses.momentum.queue, losses.momentum.momentum, losses.momentum.alpha) == (65_536, 0.995, 0.4)
    assert losses.momentum.duplicates == "repel"
    assert theirs.report_decoder is not None
    assert (theirs.report_decoder.retrieve, theirs.report_decoder.mix) == (3, "sum")


def test_the_tree_of_the_recipe_is_read_from_the_graph(prepared: Prepared) -> None:
    """Findings that the four reports name, and what is above them; nothing is written down anywhere else."""
    nodes = prepared.heads["decoder"].settings["nodes"]
    graph = prepared.taught
    named = set(prepared.rows.texts.classes)
    assert set(nodes) == named.union(*(graph.ancestors(c) for c in named))
    assert {"pleural_effusion", "pneumothorax"} <= set(nodes)


# ---- momentum --------------------------------------------------------------------------------------------------------

MOMENTUM = Losses(momentum=MomentumPart(queue=20, momentum=0.9))


def test_queues_fill_from_nothing_and_the_share_rises_over_the_first_epoch(prepared: Prepared) -> None:
    batches = [batch_of(prepared, range(i, i + BATCH)) for i in (0, 8, 16, 0)]
    task = task_of(prepared, MOMENTUM)
    assert [info.parts["momentum.held"] for info in steps_of(task, batches)] == [0, 8, 16, 20]
    memory: Any = task.memories["momentum"]
    assert memory.share == 1.0  # 32 rows pushed of 24
    memory.images.pushed.fill_(6)
    assert memory.share == 6 / ROWS
    newest = memory.texts.rows()
    assert newest.keys[-BATCH:].tolist() == batches[-1]["signature"].tolist()
    said = memory.model(lambda m: m.encode_text(batches[-1]["text"], normalize=True))
    torch.testing.assert_close(newest.emb[-BATCH:], said)


@pytest.mark.slow
def test_a_step_that_is_not_taken_leaves_nothing_behind(prepared: Prepared) -> None:
    good, bad = batch_of(prepared, range(BATCH)), batch_of(prepared, range(8, 16))
    bad["image"] = torch.full_like(bad["image"], math.nan)
    task = task_of(prepared, MOMENTUM)
    assert [info.skipped for info in steps_of(task, [good, bad])] == [False, True]
    memory: Any = task.memories["momentum"]
    assert len(memory.images) == BATCH
    assert memory.images.rows().emb.isfinite().all()


@pytest.mark.slow
def test_rows_that_say_the_same_are_no_negatives_in_batch_and_queue(prepared: Prepared) -> None:
    """Report 0 and its like, four rows on: with them alone the loss has nothing to push against."""
    infos = steps_of(task_of(prepared, MOMENTUM), [batch_of(prepared, [0, 4, 8, 12])] * 2)
    assert [info.parts["momentum.held"] for info in infos] == [0, 4]
    assert [info.loss for info in infos] == [0, 0]


def test_rows_of_one_patient_or_study_are_one_group() -> None:
    def row(name: str, patient: str = "", study: str = "") -> Record:
        return Record(id=name, image=Path("x.png"), patient_id=patient, study_id=study)

    rows = [
        row("a", "p1"), row("b", "p2", "s1"), row("c"), row("d", "", "s1"), row("e", "p1", "s2"), row("f"),
        row("g", "p3", "s2"),
    ]  # fmt: skip
    assert row_groups(rows) == (0, 1, 2, 1, 0, 5, 0)
    late = [row("a", "p1"), row("b", "p2"), row("c", "p1", "s"), row("d", "p2", "s")]
    assert len(set(row_groups(late))) == 1  # one study of two patients: better too wide than too narrow


# ---- what a report states --------------------------------------------------------------------------------------------


def test_facts_of_a_report_by_hand() -> None:
    names = ["heart", "cardiomegaly", "edema", "effusion", "lung"]
    relations = [
        Relation("cardiomegaly", "located_in", "heart"), Relation("edema", "located_in", "lung"),
        Relation("cardiomegaly", "may_cause", "edema"), Relation("cardiomegaly", "may_cause", "effusion"),
        Relation("effusion", "located_in", "lung"),
    ]  # fmt: skip
    graph = KnowledgeGraph([Concept(n, f"the {n}") for n in names], relations, name="small")
    said = [
        Statement("effusion", ABSENT), Statement("cardiomegaly", PRESENT, "", "mild"),
        Statement("edema", PRESENT, "left"),
    ]  # fmt: skip
    facts = facts_of(said, graph)
    assert facts == (
        Fact("cardiomegaly", "is", "present"),
        Fact("cardiomegaly", "severity", "mild"),
        Fact("cardiomegaly", "located_in", "heart"),
        Fact("cardiomegaly", "may_cause", "edema"),  # the effusion is denied: nothing may have caused it
        Fact("edema", "is", "present"),
        Fact("edema", "side", "left"),
        Fact("edema", "located_in", "lung"),
        Fact("effusion", "is", "absent"),
    )
    assert facts_of(said, graph, most=2) == facts[:2]
    assert [fact_text(f, graph) for f in facts[2:4]] == [
        "the cardiomegaly located in the heart", "the cardiomegaly may cause the edema",
    ]  # fmt: skip


# ---- the store -------------------------------------------------------------------------------------------------------


def test_the_store_is_empty_at_first_then_made_by_the_copy_at_fixed_steps(prepared: Prepared) -> None:
    task = task_of(prepared, recipe("stages.1.losses.entity=null").stages[1].losses)
    memory: Any = task.memories["knowledge"]
    built = []
    for rows in (range(8), range(8, 16), range(16, 24)):
        steps_of(task, [batch_of(prepared, rows)], lr=0.05)
        built.append(int(memory.built))
    assert built == [-1, 2, 2]  # refresh is 2
    copy: Any = task.memories["momentum"].model
    ids = memory.reports[:4].long()
    before = memory.emb[:4].clone()
    steps_of(task, [batch_of(prepared, range(8))], lr=0.05)
    assert int(memory.built) == 4
    assert not torch.equal(memory.emb[:4], before)
    torch.testing.assert_close(memory.emb[:4], copy(lambda m: m.encode_text(ids, normalize=True)))


def test_no_row_is_told_by_its_own_patient_however_near(prepared: Prepared) -> None:
    """Rows 0 and 1 are of one patient. Whatever their own entries hold, what they see does not change."""
    task = task_of(prepared, recipe().stages[1].losses)
    memory: Any = task.memories["knowledge"]
    torch.manual_seed(0)
    memory.build(lambda ids: torch.nn.functional.normalize(torch.randn(len(ids), 32), dim=1))
    batch = batch_of(prepared, [0, 1])
    task.eval()
    with torch.no_grad():
        before = task.encode(batch)
        memory.emb[:2] = before["image_emb"]  # as near as can be
        after = task.encode(batch)
        torch.testing.assert_close(after["motor_words"], before["motor_words"])
        memory.emb[4] = before["image_emb"][0]  # another patient's
        other = task.encode(batch)
    assert (other["motor_words"][0] - before["motor_words"][0]).abs().max() > 1e-5


def test_the_store_can_be_looked_at(prepared: Prepared, tmp_path: Path) -> None:
    import faiss

    task = task_of(prepared, recipe().stages[1].losses)
    memory: Any = task.memories["knowledge"]
    write_store(tmp_path / "store", memory, prepared.sources, 16)
    assert not (tmp_path / "store").exists()  # nothing to look at yet
    memory.build(lambda ids: task.model.encode_text(ids, normalize=True))
    write_store(tmp_path / "store", memory, prepared.sources, 16)
    index = faiss.read_index(str(tmp_path / "store" / "reports.faiss"))
    assert (type(index).__name__, index.ntotal, index.d) == ("IndexFlatIP", ROWS, 32)
    store = KnowledgeStore.load(tmp_path / "store")
    found = store.search(0, 3)
    assert [one.row % 4 for one in found] == [0, 0, 0]  # the same report of other patients
    assert not {one.row for one in found} & {0, 1}
    shown = store.show(store.keys[0], 1)
    assert shown.startswith(f"1. row {found[0].row} ({store.keys[found[0].row]}), cosine 1.000")
    assert "   pleural_effusion | side | left" in shown.splitlines()
    assert "   pneumothorax | is | absent" in shown.splitlines()
    assert store.search(memory.emb[0].numpy(), 1)[0].row == 0  # a vector is of no row
    with pytest.raises(DataError, match="expected a key or a number below 24, got 24"):
        store.show(24)
    everything = b"".join(path.read_bytes() for path in (tmp_path / "store").iterdir())
    assert b"There is a left" not in everything
    assert b"p000" not in everything  # no patient's id
    (tmp_path / "store" / "rows.jsonl").write_text("{}\n")
    with pytest.raises(DataError, match="expected a knowledge store as a run writes it"):
        KnowledgeStore.load(tmp_path / "store")


def test_a_model_without_a_decoder_says_so(prepared: Prepared) -> None:
    model = kvlp.load("phantom-tiny")
    with pytest.raises(CheckpointError, match="writes no reports; train one by a recipe with report_decoder"):
        model.decoder.generate([])


# ---- runs ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), ("stages.1.accumulate=2", "stages.1.batch_size=4", "report_decoder.mix=sum")])
def test_a_crashed_run_resumes_to_the_same_bits(more: tuple[str, ...], manifest: Manifest, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def crash(progress: Any) -> None:
        if progress.phase == "train align" and progress.done == 5:
            raise Stop

    whole = run_recipe(recipe(*more), manifest, tmp_path / "whole")
    with pytest.raises(Stop):
        run_recipe(recipe(*more), manifest, tmp_path / "cut", progress=crash)
    cut = run_recipe(recipe(*more), manifest, tmp_path / "cut", resume=True)
    for name in WEIGHTS:
        assert (cut / name).read_bytes() == (whole / name).read_bytes()
    store = tmp_path / "whole" / "knowledge_store"
    assert {path.name for path in store.iterdir()} == {
        "store.json", "rows.jsonl", "facts.jsonl", "reports.faiss", "facts.faiss",
    }  # fmt: skip
    for path in store.iterdir():
        assert path.read_bytes() == (tmp_path / "cut" / "knowledge_store" / path.name).read_bytes()
    extra = kvlp.load(whole).extra
    assert not [name for name in extra if "copy" in name or "queue" in name]  # they are the run's, not the model's


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_reports_follow_the_image(manifest: Manifest, tmp_path: Path) -> None:
    """Four kinds of noise whose mean tells the report; new noise of each kind gets the report of its kind."""
    settings = recipe(
        "stages.1.steps=80", "stages.1.batch_size=24", "stages.1.losses.motor.refresh=20", "data.max_sentences=0"
    )
    folder = run_recipe(settings, manifest, tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()][1:]
    for name in ("motor.lm", "motor.itm"):
        values = [row["parts"][name] for row in rows]
        assert np.mean(values[-10:]) < 0.7 * np.mean(values[:10]), name
    rng = np.random.default_rng(9)
    images = [rng.normal(60 + 40 * kind, 20, (48, 48)).clip(0, 255).astype(np.uint8) for kind in (0, 1, 2, 3)]
    writer = kvlp.load(folder).decoder
    texts = [text.lower() for text in SENTENCES]
    for method in ("greedy", "beam"):
        assert writer.generate(images, method=method) == texts  # type: ignore[arg-type]
    assert writer.generate(images, method="nucleus", seed=3) == writer.generate(images, method="nucleus", seed=3)
    short = writer.generate(images, max_tokens=3)
    assert all(text.startswith(part) and len(part.split()) <= 4 for text, part in zip(texts, short, strict=True))
    odds = np.array([writer.match(images, [SENTENCES[k]] * 4) for k in range(4)])  # report by image
    assert (odds.argmax(axis=0) == np.arange(4)).mean() >= 0.75
    found = writer.retrieved(images)
    assert found.rows.shape == (4, 3)
    np.testing.assert_allclose(found.weights.sum(axis=1), 1, rtol=1e-5)
    with pytest.raises(ConfigError, match="max_tokens: expected 1 to 30"):
        writer.generate(images, max_tokens=31)
    with pytest.raises(ConfigError, match="expected greedy, beam or nucleus, got 'best'"):
        writer.generate(images, method="best")  # type: ignore[arg-type]


# ---- triples that the manifest tells ---------------------------------------------------------------------------------


def told(*cells: str | None) -> list[Record]:
    return [Record(id=str(i), extra={} if c is None else {"kg": c}) for i, c in enumerate(cells)]


def test_triples_of_a_column_are_facts_of_the_graphs_concepts() -> None:
    graph = KnowledgeGraph.load("chest")
    cell = " Pleural Effusion| located in |pleural space ;pleural effusion |side| left; new  thing | is | odd word;"
    found = read_triples(
        told(cell, "", None, "pleural effusion|is|present;pleural effusion | is | present"), "kg", graph
    )
    assert found == (
        (
            Fact("pleural_effusion", "located_in", "pleural_space"),
            Fact("pleural_effusion", "side", "left"),
            Fact("new thing", "is", "odd word"),
        ),
        (), (),
        (Fact("pleural_effusion", "is", "present"),),
    )  # fmt: skip
    assert fact_text(found[0][2], graph) == "new thing is odd word"


@pytest.mark.parametrize(
    ("cells", "column", "message"),
    [
        (("a | b | c",), "triples", r"no row of the manifest has a column 'triples'; name one"),
        (("a | b | c", "a | secret"), "kg", r"row 2, column 'kg': expected 'head \| relation \| tail'.* of 2 parts"),
        (("a | | c",), "kg", r"row 1, column 'kg': .* got a triple of 2 parts"),
        (("a | b | c | d",), "kg", r"of 4 parts"),
    ],
)
def test_a_cell_of_another_form_is_named_without_what_it_says(cells: tuple[str], column: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        read_triples(told(*cells), column, KnowledgeGraph([Concept(id="a", name="a")], [], name="a"))
    assert "secret" not in str(error.value)


def test_rows_have_the_columns_triples_and_these_go_with_shuffled_reports(
    prepared: Prepared, manifest: Manifest
) -> None:
    cells = ["pneumothorax | is | present; chest tube | near | apex", "", "heart | is | enlarged"]
    rows = Manifest([replace(r, extra={"kg": cells[i % 3]}) for i, r in enumerate(manifest)], manifest.root)
    plain, graph = recipe("report_decoder.triples=kg"), prepared.graph
    assert setup._triples(recipe(), rows, graph) is None
    told = setup._triples(plain, rows, graph)
    assert told is not None
    sources = replace(prepared.sources, triples=told)
    read = knowledge_rows(sources, 30)
    assert read.unique[0] == Fact("pneumothorax", "is", "present")
    assert len(read.unique) == 3
    assert [len(facts) for facts in read.facts[:3]] == [2, 0, 1]
    assert [len(facts) for facts in knowledge_rows(sources, 1).facts[:3]] == [1, 0, 1]
    mixed = recipe("report_decoder.triples=kg", "data.shuffle_reports=true")
    order = np.random.default_rng([mixed.seed, 77]).permutation(len(rows))
    assert setup._triples(mixed, rows, graph) == tuple(told[i] for i in order), "as `_texts` shuffles the reports"


@pytest.mark.slow
def test_a_run_retrieves_the_columns_triples(manifest: Manifest, tmp_path: Path) -> None:
    rows = Manifest([replace(r, extra={"kg": "pneumothorax | is | planted"}) for r in manifest], manifest.root)
    run_recipe(recipe("report_decoder.triples=kg", "stages.1.steps=3"), rows, tmp_path / "run")
    store = KnowledgeStore.load(tmp_path / "run" / "knowledge_store")
    assert store.facts == (Fact("pneumothorax", "is", "planted"),)
    assert store.search(0, k=1)[0].facts == store.facts
