"""`kvlp archive`: create, fill, search, verify and repair an image archive."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from kvlp.archive import AddReport, Archive, Hit, Progress

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)

_SHOWN = 20

Folder = typer.Argument(..., metavar="DIR", help="The archive's folder.")
Json = typer.Option(False, "--json", help="Print one JSON document.")
ModelOption = typer.Option(None, "--model", metavar="CKPT", help="The model, instead of the one remembered.")
Timeout = typer.Option(10.0, "--timeout", min=0.0, help="Seconds to wait for another writer.")


@app.callback()
def quiet() -> None:
    """Create, fill, search, verify and repair an image archive."""
    logging.getLogger("kvlp.archive").addHandler(logging.NullHandler())  # notes are printed once, by _tell


@app.command()
def create(
    folder: Path = Folder,
    model: str = typer.Option(
        ..., "--model", metavar="CKPT", help="A checkpoint folder, or any name that kvlp.load takes."
    ),
    graph: str | None = typer.Option(None, "--graph", help='Reads reports and queries: "chest" or a graph folder.'),
    keep_text: bool = typer.Option(True, "--text/--no-text", help="Keep report text for full-text search."),
    as_json: bool = Json,
) -> None:
    """Make an empty archive."""
    from kvlp.archive import Archive

    with Archive.create(folder, model, graph=graph, keep_text=keep_text) as archive:
        _tell(archive)
        _print(
            archive.info(), as_json, lambda info: f"created {folder}: model {info['model']}, {info['dim']} dimensions"
        )


@app.command()
def add(
    folder: Path = Folder,
    paths: list[Path] = typer.Argument(
        ..., metavar="PATH...", help="Images, folders or manifests (.csv, .jsonl, .parquet)."
    ),
    model: str | None = ModelOption,
    batch_size: int = typer.Option(32, "--batch-size", min=1, help="Images embedded and committed together."),
    timeout: float = Timeout,
    as_json: bool = Json,
) -> None:
    """Add images; what is there already stays, so an interrupted add is finished by running it again."""
    from kvlp.archive import Archive

    with Archive.open(folder, model, timeout=timeout) as archive:
        report = archive.add(paths, progress=_progress_line(), batch_size=batch_size)
        _tell(archive)
    _print({"total": report.total, **asdict(report)}, as_json, lambda _: _added(report))


@app.command()
def search(
    folder: Path = Folder,
    words: str | None = typer.Argument(None, help="What to look for."),
    image: Path | None = typer.Option(None, "--image", help="An image to find the like of."),
    present: list[str] = typer.Option([], "--present", help="A finding that must be there. May be repeated."),
    absent: list[str] = typer.Option([], "--absent", help="A finding that the report must deny. May be repeated."),
    without: list[str] = typer.Option([], "--without", help="A finding that must not be there. May be repeated."),
    where: str | None = typer.Option(None, "--where", metavar="EXPR", help="Such as: view = 'PA' and source != 'x'"),
    k: int = typer.Option(10, "-k", min=1, help="How many."),
    model: str | None = ModelOption,
    as_json: bool = Json,
) -> None:
    """Find images by words, by an image, by findings present and absent."""
    from kvlp.archive import Archive

    with Archive.open(folder, model) as archive:
        hits = archive.search(words, image, present=present, absent=absent, without=without, where=where, k=k)
        _tell(archive)
    _print([hit.to_dict() for hit in hits], as_json, lambda _: "\n".join(map(_line_of, hits)) or "nothing found")


@app.command()
def remove(
    folder: Path = Folder,
    ids: list[str] = typer.Argument(None, metavar="[ID]...", help="Item ids, record ids or paths."),
    where: str | None = typer.Option(None, "--where", metavar="EXPR", help="Remove all items for which this holds."),
    patient: str | None = typer.Option(None, "--patient", help="Remove all items of a patient."),
    timeout: float = Timeout,
    as_json: bool = Json,
) -> None:
    """Remove items from the archive; the images themselves are not touched."""
    from kvlp.archive import Archive
    from kvlp.errors import ArchiveError

    if not ids and where is None and patient is None:
        raise ArchiveError("nothing to remove; give ids, --where or --patient")
    with Archive.open(folder, timeout=timeout) as archive:
        count = archive.remove(ids or (), where=where, patient=patient)
        _tell(archive)
    _print({"removed": count}, as_json, lambda _: f"removed {count}")


@app.command()
def verify(
    folder: Path = Folder,
    images: bool = typer.Option(True, "--images/--no-images", help="Also look whether the images are still the same."),
    as_json: bool = Json,
) -> None:
    """Recompute every hash. Exit 1 if something is damaged."""
    from kvlp.archive import Archive

    with Archive.open(folder) as archive:
        report = archive.verify(images=images)
    lines = [f"{p.kind} {p.where}: {p.message}" for p in (*report.problems, *report.stale)]
    state = "sound" if report.ok else f"{len(report.problems)} problems; run: kvlp archive repair {folder}"
    _print(report.to_dict(), as_json, lambda _: "\n".join([*lines[:_SHOWN], f"{report.items} items, {state}"]))
    if not report.ok:
        raise typer.Exit(1)


@app.command()
def repair(
    folder: Path = Folder, model: str | None = ModelOption, timeout: float = Timeout, as_json: bool = Json
) -> None:
    """Embed damaged items anew, give up those whose image is gone, rebuild the index."""
    from kvlp.archive import Archive

    with Archive.open(folder, model, timeout=timeout) as archive:
        report = archive.repair()
    done = f"{len(report.reembedded)} embedded anew, {len(report.dropped)} given up"
    _print(report.to_dict(), as_json, lambda _: f"index of {report.items} items rebuilt; {done}")


@app.command()
def info(folder: Path = Folder, as_json: bool = Json) -> None:
    """Print what the archive holds and which model and graph it was made with."""
    from kvlp.archive import Archive

    with Archive.open(folder) as archive:
        found = archive.info()
        _tell(archive)
    _print(found, as_json, lambda values: "\n".join(f"{key:<12} {value}" for key, value in values.items()))


def _print(document: Any, as_json: bool, text: Callable[[Any], str]) -> None:
    typer.echo(json.dumps(document, indent=1) if as_json else _printable(text(document)))


def _printable(text: str) -> str:
    """File names may hold escape sequences; a terminal never gets them."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)


def _tell(archive: Archive) -> None:
    for note in archive.notes:
        typer.echo(_printable(f"note: {note}"), err=True)


def _progress_line() -> Callable[[Progress], None]:
    terminal = sys.stderr.isatty()

    def show(at: Progress) -> None:
        left = f"{at.rate:.0f}/s, {at.seconds_left:.0f} s left"
        line = f"{at.done}/{at.total} added {at.added}, skipped {at.skipped}, {left}"
        last = at.done == at.total
        if terminal:
            typer.echo(f"\r\x1b[K{line}", err=True, nl=last)
        elif last:
            typer.echo(line, err=True)

    return show


def _added(report: AddReport) -> str:
    lines = [f"skipped {_one_line(skipped.path)}: {skipped.reason}" for skipped in report.skipped]
    lines += [f"flagged {_one_line(flagged.path)}: {flagged.reason}" for flagged in report.flagged]
    hidden = len(lines) - _SHOWN
    more = [f"... and {hidden} more; all of them with --json"] if hidden > 0 else []
    counts = (
        f"added {report.added}, updated {report.updated}, unchanged {report.unchanged}, skipped {len(report.skipped)}"
    )
    return "\n".join([*lines[:_SHOWN], *more, f"{counts} of {report.total} in {report.seconds:.1f} s"])


def _line_of(hit: Hit) -> str:
    said = [f"{one['asked']} {one['concept']}: {one['found']} ({one['by']})" for one in _judged(hit)]
    marks = [f"{name}: {hit.why[name]}" for name in ("stale", "flag") if name in hit.why]
    return "  ".join([f"{hit.rank:>3}", f"{hit.score:+.4f}", hit.id, _one_line(hit.path), *said, *marks])


def _judged(hit: Hit) -> Sequence[dict[str, str]]:
    return [*hit.why["matched"], *hit.why["missed"]]


def _one_line(path: str) -> str:
    return path.replace("\n", "?")
