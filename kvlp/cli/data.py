"""`kvlp data`: import, check, split and shard image-report data, and look for leaks."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import typer

from kvlp.errors import ConfigError

if TYPE_CHECKING:
    from kvlp.checkpoints import Model
    from kvlp.datasets.leak_report import LeakReport
    from kvlp.datasets.manifest import Manifest
    from kvlp.training.run import Progress

app = typer.Typer(no_args_is_help=True, help="Import, check, split and shard image-report data.")

_JSON = typer.Option(False, "--json", help="Print one JSON document.")
_SHOWN = 50


@app.command("import")
def import_(
    reader: str = typer.Argument(..., help="folder, phantom, phantom-look-alikes, cxr-real, iu-xray, a benchmark."),
    src: str = typer.Argument("", help="The source folder or file; for the phantom a number of patients or pairs."),
    out: Path = typer.Option(..., "--out", help="The folder of the new manifest."),
    licence: str = typer.Option("", help="Keep records whose licence matches this pattern, such as 'CC BY*'."),
    copy: bool = typer.Option(False, "--copy", help="Copy the images into OUT instead of pointing to them."),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace a manifest that differs."),
    seed: int = typer.Option(0, help="Seed of the phantom."),
    as_json: bool = _JSON,
) -> None:
    """Read a data set and write OUT/manifest.csv."""
    from kvlp.datasets.readers import get_reader

    read = get_reader(reader)
    options: dict[str, Any] = {"licence": licence or None, "copy": copy, "overwrite": overwrite}
    if reader.startswith("phantom"):
        options["seed"] = seed
    elif not src:
        raise ConfigError(f"reader {reader!r} needs a source: kvlp data import {reader} SRC --out DIR")
    manifest = read(src, out, **options)
    summary = {"manifest": str(out / "manifest.csv")} | _summary(manifest)
    _print(summary, as_json=as_json)


@app.command()
def check(
    manifest: Path = typer.Argument(..., help="A .csv, .jsonl or .parquet manifest."),
    images: bool = typer.Option(True, "--images/--no-images", help="Decode every image, or only look if it is there."),
    allow: list[str] = typer.Option([], help="A kind of error that counts as a warning, such as duplicate_image."),
    jobs: int = typer.Option(2, min=1, max=64, help="Threads that decode images."),
    as_json: bool = _JSON,
) -> None:
    """Name every row that is missing, corrupt, duplicate or leaking. Exit 1 if there are errors."""
    from kvlp.datasets.check import check_manifest
    from kvlp.datasets.manifest import Manifest

    with _progress("check") as show:
        loaded = Manifest.load(manifest, strict=False)
        report = check_manifest(loaded, images=images, jobs=jobs, allow=allow, progress=show)
    if as_json:
        typer.echo(json.dumps({"manifest": str(manifest)} | report.to_dict(), indent=1))
    else:
        for problem in report.problems[:_SHOWN]:
            typer.echo(f"row {problem.row}: {problem.severity}: {problem.kind}: {_printable(problem.message)}")
        if len(report.problems) > _SHOWN:
            typer.echo(f"... and {len(report.problems) - _SHOWN} more; --json names them all")
        warnings = len(report.problems) - len(report.errors)
        typer.echo(f"{report.rows} rows: {len(report.errors)} errors, {warnings} warnings")
    if not report.ok:
        raise typer.Exit(1)


@app.command()
def leaks(
    manifest: Path = typer.Argument(..., help="A manifest; its splits are compared."),
    against: Path | None = typer.Option(None, "--against", help="Another manifest to compare with, whole with whole."),
    model: str = typer.Option("", "--model", metavar="CKPT", help="Its image vectors propose near-duplicates too."),
    images: bool = typer.Option(True, "--images/--no-images", help="Compare pixels, or only ids and reports."),
    skip: list[str] = typer.Option([], help="A kind not to look for, such as report."),
    jobs: int = typer.Option(2, min=1, max=64, help="Threads that decode images."),
    as_json: bool = _JSON,
) -> None:
    """Name what splits share: patients, studies, pixels, near-duplicates, reports. Exit 1 if there is a leak."""
    from kvlp.datasets.leaks import find_leaks
    from kvlp.datasets.manifest import Manifest

    kinds = [*skip, *(() if images else ("pixels", "near_duplicate"))]
    other = None if against is None else Manifest.load(against)
    encoder = None if not model else _load_model(model)
    with _progress("leaks") as show:
        report = find_leaks(Manifest.load(manifest), other, skip=kinds, model=encoder, jobs=jobs, progress=show)
    if as_json:
        named = {"manifest": str(manifest)} | ({} if against is None else {"against": str(against)})
        typer.echo(json.dumps(named | report.to_dict(), indent=1))
    else:
        for line in _leak_lines(report):
            typer.echo(_printable(line))
    if not report.ok:
        raise typer.Exit(1)


def _load_model(name: str) -> Model:
    from kvlp.checkpoints import load

    return load(name)


def _leak_lines(report: LeakReport) -> Iterator[str]:
    """Leaks by row number, then one line a kind."""
    yield from map(str, report.rows[:_SHOWN])
    if len(report.rows) > _SHOWN:
        yield f"... and {len(report.rows) - _SHOWN} more; --json names them all"
    if report.boilerplate:
        yield f"boilerplate: {len(report.boilerplate)} short reports of many patients stand on two sides (no leak)"
    for kind, why in report.unknown.items():
        yield f"{kind}: {why}"
    for side, numbers in report.unreadable.items():
        yield f"{side}: {len(numbers)} images cannot be read; nothing is known of them; kvlp data check names them"
    yield f"{', '.join(f'{side} {rows}' for side, rows in report.sides.items())} rows: " + (
        ", ".join(f"{count} {kind}" for kind, count in report.counts.items()) + " leaks"
    )


@app.command()
def split(
    manifest: Path = typer.Argument(..., help="The manifest to split."),
    out: Path = typer.Option(..., "--out", help="The new manifest file, beside the old one."),
    fractions: str = typer.Option("train=0.8,dev=0.1,test=0.1", help="Shares of the patients."),
    seed: int = typer.Option(0, help="Another seed, another split."),
    as_json: bool = _JSON,
) -> None:
    """Split by patient: no patient on two sides, each label on every side where there are enough patients."""
    from kvlp.datasets.manifest import Manifest
    from kvlp.datasets.splits import split_by_patient

    if out.resolve().parent != manifest.resolve().parent:
        raise ConfigError(f"--out {out}: expected a file in {manifest.parent}, where the image paths start from")
    done = split_by_patient(Manifest.load(manifest), _fractions(fractions), seed)
    done.save(out)
    _print({"manifest": str(out), "seed": seed} | _summary(done), as_json=as_json)


@app.command()
def shards(
    manifest: Path = typer.Argument(..., help="The manifest to write as shards."),
    out: Path = typer.Option(..., "--out", help="A folder without shards in it."),
    max_samples: int = typer.Option(1000, min=1, help="Samples in one shard."),
    size: int = typer.Option(0, min=0, help="Longest side in pixels; 0 keeps the images' size."),
    split: str = typer.Option("", help="Only this split."),
    max_skipped: float = typer.Option(0.01, min=0, max=1, help="Share of rows that may be unreadable."),
    as_json: bool = _JSON,
) -> None:
    """Write webdataset shards with counts and SHA-256 in OUT/shards.json."""
    from kvlp.datasets.manifest import Manifest
    from kvlp.datasets.shards import ShardReader, write_shards

    loaded = Manifest.load(manifest).subset(split=split or None)
    with _progress("shards") as show:
        paths = write_shards(
            loaded, out, max_samples=max_samples, size=size or None, max_skipped=max_skipped, progress=show
        )
    samples = len(ShardReader(out))
    summary = {"out": str(out), "shards": len(paths), "samples": samples, "skipped": len(loaded) - samples}
    _print(summary, as_json=as_json)


@contextmanager
def _progress(phase: str) -> Iterator[Callable[[int, int], None]]:
    """A callback that takes rows done and all rows, and shows them as one line on standard error."""
    from kvlp.cli.progress import progress_line

    start = time.monotonic()
    with progress_line() as show:

        def update(done: int, total: int) -> None:
            rate = done / max(time.monotonic() - start, 1e-6)
            state = SimpleNamespace(phase=phase, done=done, total=total, rate=rate, left=(total - done) / rate, note="")
            show(cast("Progress", state))

        yield update


def _fractions(text: str) -> dict[str, float]:
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    try:
        return {name.strip(): float(share) for name, _, share in pairs}
    except ValueError as problem:
        raise ConfigError(f"--fractions {text!r}: expected NAME=SHARE,..., such as train=0.8,test=0.2") from problem


def _summary(manifest: Manifest) -> dict[str, Any]:
    splits: dict[str, int] = {}
    for record in manifest:
        splits[record.split or "-"] = splits.get(record.split or "-", 0) + 1
    return {
        "records": len(manifest),
        "patients": len({record.patient_id for record in manifest} - {""}),
        "splits": splits,
        "with_text": sum(bool(record.report) for record in manifest),
        "with_labels": sum(bool(record.labels) for record in manifest),
        "content_hash": manifest.content_hash,
    }


def _print(summary: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(summary, indent=1))
        return
    for name, value in summary.items():
        shown = ", ".join(f"{key} {count}" for key, count in value.items()) if isinstance(value, dict) else value
        typer.echo(f"{name}: {_printable(str(shown))}")


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)
