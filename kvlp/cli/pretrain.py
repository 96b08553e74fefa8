"""`kvlp pretrain`: train encoders on a manifest by a recipe, then evaluate them and write the page."""

from __future__ import annotations

import json
from pathlib import Path

import typer


def command(
    recipes: list[str] = typer.Argument(
        help="A recipe's name (`kvlp recipes ls`) or a YAML file; with --compare, further ones to compare it with."
    ),
    data: Path = typer.Option(..., "--data", help="Manifest: CSV, JSONL or Parquet."),
    out: Path = typer.Option(..., "--out", help="Run folder to write."),
    shards: Path | None = typer.Option(None, "--shards", help="Read training images from these shards of --data."),
    resume: bool = typer.Option(False, "--resume", help="Go on with the run in --out."),
    seed: int | None = typer.Option(None, "--seed", help="Seed of order, texts and weights."),
    settings: list[str] = typer.Option(
        [], "--set", help="Override a key: stages.1.epochs=2, or NAME:key=value of one recipe. May be repeated."
    ),
    compare: bool = typer.Option(
        False, "--compare", help="Run all named recipes on the same data, order and seeds; write one table."
    ),
    seeds: str = typer.Option("", "--seeds", help="With --compare: seeds of every recipe, such as 0,1,2."),
    tensorboard: bool = typer.Option(False, "--tensorboard", help="Write curves for TensorBoard to OUT/tensorboard."),
    with_images: bool = typer.Option(False, "--with-images", help="Put pictures of patients into the page."),
    as_json: bool = typer.Option(False, "--json", help="Print the outcome as JSON."),
) -> None:
    """Pretrain by a recipe; writes OUT/checkpoint, OUT/results.jsonl and OUT/report.html.

    Over several processes: torchrun --nproc-per-node N -m kvlp pretrain ...
    """
    from kvlp.cli.progress import progress_line
    from kvlp.training.ranks import is_first_process
    from kvlp.training.run import Interrupted
    from kvlp.workflows.pretrain import pretrain

    if len(recipes) > 1 and not compare:
        raise typer.BadParameter(f"one recipe, got {len(recipes)}; add --compare to compare them")
    overrides = [*settings, *([f"seed={seed}"] if seed is not None else [])]
    overrides += ["tensorboard=true"] if tensorboard else []
    try:
        with progress_line(quiet=as_json or not is_first_process()) as progress:
            outcome = pretrain(
                recipes[0], data=data, out=out, shards=shards, resume=resume, overrides=overrides,
                compare=recipes[1:], seeds=_numbers(seeds), with_images=with_images, progress=progress,
            )  # fmt: skip
    except Interrupted as error:
        if is_first_process():
            typer.echo(str(error), err=True)
        raise typer.Exit(143) from None
    if not is_first_process():
        return
    if as_json:
        typer.echo(json.dumps(outcome.to_dict(), indent=2))
        return
    for line in outcome.lines():
        typer.echo(line)


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise typer.BadParameter(f"expected whole numbers such as 0,1,2, got {text!r}", param_hint="--seeds") from None
