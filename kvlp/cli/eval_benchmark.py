"""`kvlp eval BENCHMARK`: data cards, and a model on a benchmark's folder."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from kvlp.cli.eval import Ask
    from kvlp.eval.benchmarks.run import BenchmarkRun
    from kvlp.eval.page.blocks import Block

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


def run(name: str, ask: Ask) -> None:
    """Run a benchmark; write rows, page, manifest and what was scored; print the figures."""
    from kvlp.checkpoints import load
    from kvlp.cli.eval import progress, show, write
    from kvlp.cli.zeroshot import load_graph
    from kvlp.datasets.files import atomic_write
    from kvlp.eval.benchmarks.cards import load_card
    from kvlp.eval.benchmarks.run import run_benchmark

    done = run_benchmark(
        load_card(name),
        ask.data,
        ask.out,
        load(ask.checkpoint, ask.device),
        load_graph(ask.graph),
        seed=ask.seed,
        options=ask.options,
        progress=progress(),
    )
    title = f"{done.card.title}: {_shown(ask.checkpoint)}"
    paths = write(
        done.evaluation,
        done.more,
        done.manifest,
        ask.out,
        with_images=ask.with_images,
        title=title,
        before=_blocks(done),
    )
    facts = ask.out / "benchmark.json"
    atomic_write(facts, (json.dumps(done.facts, indent=1, ensure_ascii=False) + "\n").encode())
    paths["benchmark"] = facts
    show(done.evaluation, done.more, paths, as_json=ask.as_json, more={"benchmark": done.facts})


def _shown(checkpoint: str) -> str:
    return checkpoint.rstrip("/").rpartition("/")[2]


def _blocks(done: BenchmarkRun) -> list[Block]:
    from kvlp.eval.page.blocks import Notice, Settings

    bad = [Notice(done.remarks[0], "bad")] if not done.coverage.whole else []
    rest = done.remarks[len(bad) :]
    card = done.card
    values = {
        "data": card.origin,
        "licence": card.licence,
        "split": f"{card.split or 'all'}, {done.coverage}",
        **({"no label means": card.zero} if card.zero else {}),
        **{f"to know {n}": trap for n, trap in enumerate(card.traps, 1)},
    }
    return [*bad, *(Notice(line) for line in rest), Settings(values, caption="The benchmark", closed=True)]
