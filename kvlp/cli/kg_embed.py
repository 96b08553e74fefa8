"""kvlp kg embed: vectors of a graph's concepts, and how well they tell links that they have not seen."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import typer

if TYPE_CHECKING:
    from kvlp.training.run import Progress


def embed(
    out: Path = typer.Option(..., "--out", help="Folder for vectors.npy and vectors.json (and links.json)."),
    graph: str = typer.Option("chest", "--graph", "-g", help="A bundled graph's name, or a folder."),
    method: str = typer.Option("transe", "--method", help="transe, rotate, complex, gat, text or random."),
    dim: int | None = typer.Option(None, "--dim", help="Length of a vector as it comes out."),
    seed: int = typer.Option(0, "--seed", help="Seed of the vectors, and of what --evaluate holds out."),
    epochs: int | None = typer.Option(None, "--epochs", help="Passes over the links."),
    lr: float | None = typer.Option(None, "--lr", help="Learning rate."),
    relation_types: bool | None = typer.Option(
        None, "--relation-types/--no-relation-types", help="Whether links have types, or all are one."
    ),
    start: str | None = typer.Option(None, "--start", help="gat: begin from random, text or transe vectors."),
    encoder: Path | None = typer.Option(None, "--encoder", help="text: a folder of a transformers encoder."),
    threads: int = typer.Option(0, "--threads", min=0, help="CPU threads; 0: torch's own choice."),
    cache: bool = typer.Option(True, "--cache/--no-cache", help="Take and keep vectors in the user's cache."),
    evaluate: bool = typer.Option(False, "--evaluate", help="Also train on most links and rank the others."),
    holdout: float = typer.Option(0.1, "--holdout", help="Share of the links held out by --evaluate."),
    repeats: int = typer.Option(1, "--repeats", min=1, help="Trainings that --evaluate averages over."),
    validation: bool = typer.Option(False, "--validation", help="Judge on a part of the training links (for tuning)."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON document."),
) -> None:
    """Make a vector for each concept of a graph; with --evaluate say how well they tell links, beside controls."""
    from kvlp.cli.progress import progress_line
    from kvlp.knowledge.embedding import embed as make
    from kvlp.knowledge.embedding import evaluate_links
    from kvlp.knowledge.graph import KnowledgeGraph

    opened = KnowledgeGraph.load(graph)
    given = {"dim": dim, "seed": seed, "epochs": epochs, "lr": lr, "relation_types": relation_types, "start": start}
    settings: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    with progress_line(quiet=as_json) as show:
        told = _teller(show)
        vectors = make(
            opened, method, cache=None if cache else False, encoder=encoder, threads=threads,
            progress=lambda done, total, _: told(method, done, total), **settings,
        )  # fmt: skip
        vectors.save(out)
        report = None
        if evaluate:
            report = evaluate_links(
                opened, method, holdout=holdout, repeats=repeats, encoder=encoder,
                part="validation" if validation else "test", progress=told, **settings,
            )  # fmt: skip
            text = json.dumps(report.to_dict(), indent=1, ensure_ascii=False) + "\n"
            (out / "links.json").write_text(text, encoding="utf-8")
    about: dict[str, Any] = {
        "out": str(out), "method": method, "concepts": len(vectors), "dim": vectors.dim,
        "settings": dict(vectors.settings), "graph": dict(vectors.graph),
    }  # fmt: skip
    if as_json:
        typer.echo(json.dumps({**about, "links": report.to_dict() if report else None}, indent=1, ensure_ascii=False))
        return
    lines = [f"{method}: {len(vectors)} concepts x {vectors.dim} -> {out}", *(report.lines() if report else [])]
    typer.echo("\n".join(lines))


def _teller(show: Callable[[Progress], None]) -> Callable[[str, int, int], None]:
    """Show what is being trained with its rate; the clock begins anew with each training."""
    began: dict[str, tuple[int, float]] = {}

    def tell(name: str, done: int, total: int) -> None:
        now = time.monotonic()
        if done <= 1 or name not in began:
            began[name] = (done, now)
        first, since = began[name]
        rate = (done - first) / (now - since) if now > since else 0.0
        left = (total - done) / rate if rate else 0.0
        state = SimpleNamespace(phase=f"train {name}", done=done, total=total, rate=rate, left=left, note="")
        show(cast("Progress", state))

    return tell
