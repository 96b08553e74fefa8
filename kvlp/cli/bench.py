"""kvlp bench: measure kvlp beside its peers, as ratios with their spread."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import typer

__all__ = ["command"]


def command(
    name: str = typer.Argument("", metavar="[NAME]", help="Which benchmark; without it, they are listed."),
    out: Path | None = typer.Option(None, "--out", help="JSON file for the figures."),
    size: float = typer.Option(1.0, "--size", min=0.0001, help="Multiple of the usual size."),
    repeats: int = typer.Option(5, "--repeats", min=1, help="Alternating runs of each contestant."),
    seed: int = typer.Option(0, "--seed", help="Seed of whatever is drawn."),
    settings: list[str] = typer.Option([], "--set", metavar="KEY=VALUE", help="A benchmark's own setting."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON document."),
) -> None:
    """Run one benchmark: median and range over alternating runs, and the ratio to each peer."""
    from kvlp.eval.bench import BENCHES, BenchOptions, run_bench, write_measures

    if not name:
        rows = [{"name": n, "about": about} for n, (_, about) in sorted(BENCHES.items())]
        typer.echo(json.dumps(rows, indent=1) if as_json else "\n".join(f"{r['name']:10} {r['about']}" for r in rows))
        return
    own = dict(_pair(text) for text in settings)
    options = BenchOptions(size, repeats, seed, own, lambda line: typer.echo(line, err=True))
    measures = run_bench(name, options)
    if out is not None:
        write_measures(out, name, measures, options)
    if as_json:
        typer.echo(json.dumps([asdict(m) for m in measures], indent=1))
        return
    for m in measures:
        spread = f"  ({m.low:.4g} to {m.high:.4g}, n={m.n})" if m.n > 1 else ""
        typer.echo(f"{m.name:32}  {m.subject:44}  {m.value:.4g} {m.unit}{spread}")


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise typer.BadParameter(f"{text!r}: expected KEY=VALUE", param_hint="--set")
    return key, value
