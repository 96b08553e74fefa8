"""`kvlp quickstart`: the whole way once, on synthetic radiographs: data, graph, training, control, archive, page.

It shows that the parts fit together and what the figures look like. Its figures say nothing about real radiographs.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from kvlp.archive import Archive
from kvlp.checkpoints import Model, load
from kvlp.datasets.check import check_manifest
from kvlp.datasets.files import atomic_write
from kvlp.datasets.images import load_grey_uint8
from kvlp.datasets.manifest import Manifest
from kvlp.datasets.phantom import DEVICES, PHANTOM_VERSION, SEEN, UNSEEN, generate_phantom
from kvlp.datasets.processes import no_main_module
from kvlp.datasets.shards import write_shards
from kvlp.errors import ConfigError, DataError, KvlpError
from kvlp.eval.evaluate import EvalOptions, Evaluation, difference_results, evaluate
from kvlp.eval.page.blocks import Block, Cell, GridRow, ImageGrid, Section, Table, Text, Tile, png_uri
from kvlp.eval.page.report import evaluation_blocks, loss_charts, timing_bars
from kvlp.eval.page.write import write_page
from kvlp.eval.results import Result, write_results
from kvlp.eval.tasks import Query
from kvlp.knowledge.graph import KnowledgeGraph
from kvlp.knowledge.linking import EntityLinker
from kvlp.knowledge.prompts import Prompts
from kvlp.training.recipe import load_recipe
from kvlp.training.run import Progress, run_recipe
from kvlp.typing import Assertion, PathLike
from kvlp.workflows.pretrain import loss_rows

__all__ = ["QuickstartOutcome", "quickstart"]

RECIPE, CONTROL = "phantom-cpu", "phantom-cpu-shuffled"
CONTROL_NAME = "shuffled graph"
FRACTIONS = {"train": 0.72, "dev": 0.03, "test": 0.25}


@dataclass
class QuickstartOutcome:
    """What the quickstart made, and where.

    Attributes:
        folder: everything lies in it; report.html is the page.
        results: every figure.
        timings: step -> seconds.
    """

    folder: Path
    results: list[Result] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)

    @property
    def page(self) -> Path:
        """The page to open."""
        return self.folder / "report.html"

    def figure(self, setting: str, group: str) -> Result | None:
        """The macro AUC (or difference) of a score and group of classes."""
        rows = [r for r in self.results if r.target == "macro" and (r.setting, r.group) == (setting, group)]
        return next((r for r in rows if r.metric in ("auc", "auc_difference")), None)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able summary."""
        rows = [r.to_dict() for r in self.results if r.target in ("macro", "all queries")]
        return {"folder": str(self.folder), "page": str(self.page), "seconds": self.timings, "results": rows}


class _Quickstart:
    def __init__(self, folder: Path, seed: int, report: Callable[[Progress], None]) -> None:
        self.outcome = QuickstartOutcome(folder)
        self.folder, self.seed, self.report = folder, seed, report
        self.graph = KnowledgeGraph.load("chest")

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        self.report(Progress(name, 0, 1, 0.0, 0.0))
        yield
        self.outcome.timings[name] = time.perf_counter() - began

    def make_data(self, images: int) -> Manifest:
        with self.step("draw synthetic radiographs"):
            manifest = generate_phantom(self.folder / "phantom", images=images, seed=self.seed, fractions=FRACTIONS)
        with self.step("check the data"):
            errors = [p for p in check_manifest(manifest).problems if p.severity == "error"]
            if errors:
                raise DataError(f"the synthetic data has {len(errors)} errors; first: {errors[0].message}")
        return manifest

    def read_reports(self, manifest: Manifest) -> dict[str, float]:
        """Counts of what the linker found in all reports."""
        with self.step("read the reports"):
            linked = EntityLinker(self.graph).link_many([record.report for record in manifest])
        said = [mention.assertion for mentions in linked for mention in mentions]
        return {
            "reports": len(linked),
            "reports with a concept": sum(bool(mentions) for mentions in linked),
            "mentions": len(said),
            **{f"mentions {a.value}": sum(s is a for s in said) for a in Assertion},
        }

    def shard(self, manifest: Manifest) -> Path:
        shards = self.folder / "shards"
        with self.step("write shards"):
            write_shards(manifest.subset(split="train"), shards)
        return shards

    def train(self, manifest: Manifest, shards: Path, overrides: tuple[str, ...], *, control: bool) -> list[Model]:
        """Our model, and the control, trained beside it in its own process: on two cores the faster way."""
        settings = [f"seed={self.seed}", *([f"threads={max(1, (os.cpu_count() or 2) // 2)}"] if control else [])]
        settings += overrides
        recipe = load_recipe(RECIPE, settings)
        with ExitStack() as stack:
            if control:
                job = (CONTROL, settings, manifest.root / "manifest.csv", self.folder / "control", shards)
                beside = stack.enter_context(_Beside(_train_control, *job))
            with self.step(f"pretrain {RECIPE}"):
                folders = [run_recipe(recipe, manifest, self.folder / "run", shards=shards, progress=self.report)]
            if control:
                with self.step(f"pretrain {CONTROL}: the rest"):
                    folders.append(Path(beside.result()))
        return [load(folder) for folder in folders]

    def evaluate(self, model: Model, rows: Manifest, name: str) -> Evaluation:
        writer = Prompts(self.graph)
        groups = {"seen": SEEN, "unseen": UNSEEN, "devices": DEVICES}
        queries = [Query(writer.sentence(c, Assertion.PRESENT), (c,)) for members in groups.values() for c in members]
        with self.step(name):
            return evaluate(
                model, rows, groups, self.graph, seed=self.seed, queries=queries, options=EvalOptions(split="test")
            )

    def archive(self, model: Model, rows: Manifest) -> list[Block]:
        with self.step("fill the archive"):
            archive = Archive.create(self.folder / "archive", model, graph=self.graph)
            archive.add(rows)
        with self.step("search the archive"):
            return [
                Section("The archive", "Searches by words and by image, as `kvlp archive search` does them."),
                _searches(archive, rows),
            ]


def _train_control(name: str, settings: list[str], manifest: Path, out: Path, shards: Path) -> str:
    return str(run_recipe(load_recipe(name, settings), Manifest.load(manifest), out, shards=shards))


class _Beside:
    """A call in a process of its own, which ends with the `with` block, done or not."""

    def __init__(self, call: Callable[..., str], *args: object) -> None:
        context = multiprocessing.get_context("spawn")
        self.answer, there = context.Pipe(duplex=False)
        self.process = context.Process(target=_answer, args=(there, call, args), daemon=True)
        with no_main_module():
            self.process.start()
        there.close()

    def __enter__(self) -> _Beside:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.join()

    def result(self) -> str:
        """What the call returned.

        Raises:
            KvlpError: what it raised, or that its process was ended from outside.
        """
        try:
            value, error = self.answer.recv()
        except EOFError:
            raise DataError("the control's process was ended from outside; is there memory for two runs?") from None
        if error:
            raise KvlpError(error)
        return str(value)


def _answer(there: Connection, call: Callable[..., str], args: tuple[object, ...]) -> None:
    try:
        there.send((call(*args), ""))
    except KvlpError as error:
        there.send(("", str(error)))


def quickstart(
    out: PathLike,
    *,
    images: int = 4200,
    seed: int = 0,
    control: bool = True,
    overrides: tuple[str, ...] = (),
    progress: Callable[[Progress], None] | None = None,
) -> QuickstartOutcome:
    """Run every part once on synthetic radiographs and write a page.

    Args:
        out: a folder that does not exist yet, or an earlier quickstart's, which is made anew.
        images: how many radiographs to draw; about a quarter is for testing.
        seed: of data, training and resamples.
        control: also train with the shuffled graph and compare.
        overrides: `key=value` settings of the recipe ("stages.1.epochs=1").
        progress: called with a Progress now and then.

    Raises:
        ConfigError: `out` holds something else.
    """
    folder = _fresh(Path(out))
    q = _Quickstart(folder, seed, progress or (lambda _: None))
    manifest = q.make_data(images)
    counts = q.read_reports(manifest)
    shards = q.shard(manifest)
    rows = manifest.subset(split="test")
    model, *others = q.train(manifest, shards, overrides, control=control)
    ours = q.evaluate(model, rows, "evaluate")
    results, extra = list(ours.results), []
    for other in others:
        theirs = q.evaluate(other, rows, "evaluate the control")
        for setting in ("POS", "NEG", "PAIR"):
            extra += difference_results(ours, theirs, CONTROL_NAME, setting=setting)
    found = q.archive(model, rows)
    q.outcome.results = [*results, *extra]
    curves = loss_charts(loss_rows(folder / "run" / "metrics.jsonl", every=2))
    end: list[Block] = [Section("Training"), curves, timing_bars(q.outcome.timings)]
    blocks = evaluation_blocks(
        ours,
        manifest=rows,
        with_images=True,
        synthetic=True,
        controls=extra,
        before_settings=[*found, *_data_blocks(counts), *end],
    )
    title = "kvlp quickstart: synthetic chest radiographs"
    write_results(folder / "results.jsonl", q.outcome.results)
    write_page(q.outcome.page, title, blocks, subtitle=f"phantom {PHANTOM_VERSION}, seed {seed}")
    atomic_write(folder / "quickstart.json", json.dumps(q.outcome.to_dict(), indent=2, default=str).encode())
    return q.outcome


def _fresh(folder: Path) -> Path:
    """Make the folder; an earlier quickstart's is emptied, anything else is left alone."""
    if folder.exists():
        if not folder.is_dir() or (any(folder.iterdir()) and not (folder / ".kvlp-quickstart").is_file()):
            raise ConfigError(f"{folder} holds something that is no quickstart; choose another --out")
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / ".kvlp-quickstart").touch()
    return folder


def _data_blocks(counts: dict[str, float]) -> list[Block]:
    rows: list[list[Cell]] = [[name, int(value)] for name, value in counts.items()]
    text = "Reports were read with the bundled graph; unseen findings are described in them but never named."
    return [Section("Reports"), Text([text]), Table(["what", "count"], rows, "What the linker found")]


def _searches(archive: Archive, rows: Manifest) -> ImageGrid:
    record_of = {os.path.realpath(rows.path_of(record)): record for record in rows}
    query_image = next(record for record in rows if record.labels.get("cardiomegaly") == 1)
    searches: list[tuple[str, dict[str, Any], tuple[str, ...], tuple[str, ...]]] = [
        ("pleural effusion, without pneumothorax",
         {"text": "pleural effusion", "without": ["pneumothorax"]}, ("pleural_effusion",), ("pneumothorax",)),
        ("pacemaker, view PA", {"text": "pacemaker", "where": "view = 'PA'"}, ("pacemaker",), ()),
        ("pneumoperitoneum, a finding never named in training",
         {"text": "pneumoperitoneum"}, ("pneumoperitoneum",), ()),
        ("like this image (an enlarged heart)",
         {"image": rows.path_of(query_image)}, ("cardiomegaly",), ()),
    ]  # fmt: skip
    grid = []
    for title, query, present, absent in searches:
        tiles = []
        for hit in archive.search(**query, k=8):
            record = record_of[os.path.realpath(hit.path)]
            labels = record.labels
            good = all(labels.get(c) == 1 for c in present) and not any(labels.get(c) == 1 for c in absent)
            picture = png_uri(load_grey_uint8(hit.path))
            tiles.append(Tile(picture, f"{hit.score:.2f}", "good" if good else "bad", f"rank {hit.rank}"))
        right = sum(tile.verdict == "good" for tile in tiles)
        grid.append(GridRow(title, f"{right} of {len(tiles)} are what was asked for", tiles))
    return ImageGrid(grid, "Green: the drawing has what was asked for.")
