"""`kvlp eval BENCHMARK`: data cards, a model on a benchmark's folder, published figures beside ours."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from kvlp.cli.eval import Ask
    from kvlp.eval.benchmarks.cards import Card
    from kvlp.eval.benchmarks.expect import Expected
    from kvlp.eval.benchmarks.run import BenchmarkRun, Coverage
    from kvlp.eval.benchmarks.run_vqa import VqaRun
    from kvlp.eval.page.blocks import Block, Cell

__all__ = ["is_benchmark", "run", "show_cards"]


def is_benchmark(name: str) -> bool:
    """Whether a benchmark has this name; a checkpoint of the same name is given as ./NAME."""
    from kvlp.eval.benchmarks.cards import benchmark_names

    return name in benchmark_names()


def show_cards(name: str, *, as_json: bool) -> None:
    """Print one card, or the list of all benchmarks."""
    from kvlp.eval.benchmarks.cards import benchmark_names, load_card

    cards = [load_card(name)] if name else [load_card(each) for each in benchmark_names()]
    if as_json:
        typer.echo(json.dumps([asdict(card) for card in cards], indent=1, default=list))
    elif name:
        typer.echo(cards[0].markdown, nl=False)
    else:
        for card in cards:
            typer.echo(f"{card.name:14}  {card.kind:14}  {card.title}")


def run(name: str, ask: Ask, predictions: Path | None, *, expect: bool) -> None:
    """Run a benchmark; write rows, page, manifest and what was scored; print the figures."""
    from kvlp.eval.benchmarks.cards import load_card

    card = load_card(name)
    if card.kind == "vqa":
        _questions(card, ask, predictions, expect=expect)
    elif predictions is not None:
        raise typer.BadParameter(f"{name} asks no questions; give --model", param_hint="--predictions")
    else:
        _classes(card, ask, expect=expect)


def _classes(card: Card, ask: Ask, *, expect: bool) -> None:
    from kvlp.checkpoints import load
    from kvlp.cli.eval import progress, show, write
    from kvlp.cli.zeroshot import load_graph
    from kvlp.eval.benchmarks.expect import beside
    from kvlp.eval.benchmarks.run import run_benchmark

    done = run_benchmark(
        card,
        ask.data,
        ask.out,
        load(ask.checkpoint, ask.device),
        load_graph(ask.graph),
        seed=ask.seed,
        options=ask.options,
        progress=progress(),
    )
    expected = beside(card, done.rows, done.coverage) if expect else []
    paths = write(
        done.evaluation,
        done.more,
        done.manifest,
        ask.out,
        with_images=ask.with_images,
        title=f"{card.title}: {_shown(ask.checkpoint)}",
        before=_blocks(done, done.coverage, expected),
    )
    facts = _facts(done, expected, ask.out, paths)
    show(done.evaluation, done.more, paths, as_json=ask.as_json, more={"benchmark": facts})
    _tell(expected, as_json=ask.as_json)


def _questions(card: Card, ask: Ask, predictions: Path | None, *, expect: bool) -> None:
    from kvlp.cli.zeroshot import load_graph
    from kvlp.eval.benchmarks.expect import beside
    from kvlp.eval.benchmarks.run_vqa import run_vqa
    from kvlp.eval.page import write_page
    from kvlp.eval.results import write_results

    answerer = predictions if predictions is not None else _loaded(ask)
    done = run_vqa(
        card, ask.data, ask.out, answerer, load_graph(ask.graph), seed=ask.seed, options=ask.options, progress=_images()
    )
    expected = beside(card, done.rows, done.coverage) if expect else []
    title = f"{card.title}: {_shown(str(predictions) if predictions is not None else ask.checkpoint)}"
    blocks = [*_blocks(done, done.coverage, expected), *_tables(done)]
    paths = {
        "results": write_results(ask.out / "results.jsonl", done.rows),
        "page": write_page(ask.out / "report.html", title, blocks, subtitle=f"{len(done.questions):,} questions"),
    }
    facts = _facts(done, expected, ask.out, paths)
    if ask.as_json:
        rows = [row.to_dict() for row in done.rows]
        document = {**{key: str(path) for key, path in paths.items()}, "benchmark": facts, "rows": rows}
        typer.echo(json.dumps(document, indent=2, allow_nan=False))
        return
    for remark in done.remarks:
        typer.echo(f"kvlp: {remark}", err=True)
    for row in done.rows:
        typer.echo(f"{row.metric:24}  {row.target:20}  {row.setting:34}  {row.text}  n {row.n}")
    typer.echo("\n" + "\n".join(str(path) for path in paths.values()))
    _tell(expected, as_json=False)


def _loaded(ask: Ask) -> Any:
    from kvlp.checkpoints import load

    return load(ask.checkpoint, ask.device)


def _images() -> Callable[[int, int], None] | None:
    from kvlp.cli.zeroshot import counter

    return counter("read and encode")


def _facts(
    done: BenchmarkRun | VqaRun, expected: Sequence[Expected], out: Path, paths: dict[str, Path]
) -> dict[str, object]:
    """Write `benchmark.json`; its path goes to `paths`."""
    from kvlp.datasets.files import atomic_write

    facts = {**done.facts, **({"published": [each.to_dict() for each in expected]} if expected else {})}
    paths["benchmark"] = out / "benchmark.json"
    atomic_write(paths["benchmark"], (json.dumps(facts, indent=1, ensure_ascii=False) + "\n").encode())
    return facts


def _tell(expected: Sequence[Expected], *, as_json: bool) -> None:
    if expected and not as_json:
        typer.echo("\npublished, beside ours:")
        for each in expected:
            typer.echo(f"  {each.text}")


def _shown(checkpoint: str) -> str:
    return checkpoint.rstrip("/").rpartition("/")[2]


def _blocks(done: BenchmarkRun | VqaRun, coverage: Coverage, expected: Sequence[Expected]) -> list[Block]:
    """What a reader must know first, the card, and published figures."""
    from kvlp.eval.page.blocks import Notice, Settings, Table

    card = done.card
    bad = [Notice(line, "bad") for line in coverage.remarks]
    values = {
        "data": card.origin,
        "licence": card.licence,
        "split": f"{coverage.split or 'all'}, {coverage}",
        **({"no label means": card.zero} if card.zero else {}),
        **{f"to know {n}": trap for n, trap in enumerate(card.traps, 1)},
    }
    blocks: list[Block] = [*bad, *(Notice(line) for line in done.remarks if line not in coverage.remarks)]
    blocks.append(Settings(values, caption="The benchmark", closed=True))
    if expected:
        rows = [
            [e.model, f"{e.published:g}", e.ours or "none", e.figure, f"{e.comparable}: {e.because}", e.source]
            for e in expected
        ]
        columns = ["Published", "Theirs", "Ours", "Figure", "Comparable", "Source"]
        blocks.append(Table(columns, rows, caption="Published figures beside ours"))
    return blocks


def _tables(done: VqaRun) -> list[Block]:
    """One table for each metric: parts of the questions by systems."""
    from kvlp.eval.page.blocks import Section, Settings, Table

    blocks: list[Block] = []
    for metric in dict.fromkeys(row.metric for row in done.rows if not row.metric.endswith("_difference")):
        held = [row for row in done.rows if row.metric in (metric, f"{metric}_difference")]
        settings = list(dict.fromkeys(row.setting for row in held))
        cells = {(row.target, row.setting): row for row in held}
        rows: list[list[Cell]] = [
            [target, cells[target, settings[0]].n, *((cells[target, s].text) for s in settings)]
            for target in dict.fromkeys(row.target for row in held)
        ]
        blocks.append(Section(metric.replace("_", " ").capitalize(), held[0].definition))
        blocks.append(Table(["questions", "n", *settings], rows, note=held[0].method))
    first = done.rows[0].provenance
    values = {"split hash": first.split_hash, "model hash": first.model_hash, "graph hash": first.graph_hash}
    return [
        *blocks,
        Settings({**values, "seed": first.seed, "versions": first.versions}, caption="Settings", closed=True),
    ]
