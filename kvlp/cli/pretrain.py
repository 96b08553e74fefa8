"""`kvlp pretrain`: train encoders on a manifest by a recipe, then evaluate them and write the page."""

from __future__ import annotations

import json
from pathlib import Path

import typer


def command(
    recipe: str = typer.Argument(help="A recipe's name (`kvlp recipes ls`) or a YAML file."),
    data: Path = typer.Option(..., "--data", help="Manifest: CSV, JSONL or Parquet."),
    out: Path = typer.Option(..., "--out", help="Run folder to write."),
    shards: Path | None = typer.Option(None, "--shards", help="Read training images from these shards of --data."),
    resume: bool = typer.Option(False, "--resume", help="Go on with the run in --out."),
    seed: int | None = typer.Option(None, "--seed", help="Seed of order, texts and weights."),
    settings: list[str] = typer.Option([], "--set", help="Override a key: stages.1.epochs=2. May be repeated."),
    compare: list[str] = typer.Option([], "--compare", help="Also run this recipe on the same data, and compare."),
    with_images: bool = typer.Option(False, "--with-images", help="Put pictures of patients into the page."),
    as_json: bool = typer.Option(False, "--json", help="Print the outcome as JSON."),
) -> None:
    """Pretrain by a recipe; writes OUT/checkpoint, OUT/results.jsonl and OUT/report.html."""
    from kvlp.cli.progress import progress_line
    from kvlp.training.run import Interrupted
    from kvlp.workflows.pretrain import pretrain

    overrides = [*settings, *([f"seed={seed}"] if seed is not None else [])]
    try:
        with progress_line(quiet=as_json) as progress:
            outcome = pretrain(
                recipe, data=data, out=out, shards=shards, resume=resume, overrides=overrides, compare=compare,
                with_images=with_images, progress=progress,
            )  # fmt: skip
    except Interrupted as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(143) from None
    if as_json:
        typer.echo(json.dumps(outcome.to_dict(), indent=2))
        return
    for line in outcome.lines():
        typer.echo(line)
