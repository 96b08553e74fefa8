"""`kvlp quickstart`: the whole way once on synthetic radiographs."""

from __future__ import annotations

import json
from pathlib import Path

import typer


def command(
    out: Path = typer.Option(Path("quickstart"), "--out", help="Folder to write; an earlier quickstart is replaced."),
    images: int = typer.Option(4200, "--images", min=200, help="How many radiographs to draw."),
    seed: int = typer.Option(0, "--seed", min=0, help="Seed of data, training and resamples."),
    control: bool = typer.Option(True, "--control/--no-control", help="Also train with a shuffled graph, and compare."),
    settings: list[str] = typer.Option([], "--set", help="Override a key of the recipe. May be repeated."),
    as_json: bool = typer.Option(False, "--json", help="Print the outcome as JSON."),
) -> None:
    """Draw data, read reports, pretrain, evaluate, fill an archive, search it, and write OUT/report.html."""
    from kvlp.cli.progress import progress_line
    from kvlp.workflows.quickstart import quickstart

    with progress_line(quiet=as_json) as progress:
        outcome = quickstart(
            out, images=images, seed=seed, control=control, overrides=tuple(settings), progress=progress
        )
    if as_json:
        typer.echo(json.dumps(outcome.to_dict(), indent=2, default=str))
        return
    for row in outcome.results:
        if row.target in ("macro", "all queries") and row.metric != "average_precision" and not row.is_detail:
            name = " ".join(part for part in (row.group, row.metric, row.setting) if part)
            typer.echo(f"{name}: {row.text}")
    typer.echo(f"took {sum(outcome.timings.values()):.0f} s; page: {outcome.page}")
