"""`kvlp zeroshot`: score images against classes named in plain words."""

from __future__ import annotations

import csv
import json
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from kvlp.knowledge.graph import KnowledgeGraph
    from kvlp.zero_shot import ZeroShotClassifier

__all__ = ["command", "counter", "load_graph"]


def command(
    checkpoint: str = typer.Argument(..., metavar="CKPT", help="A model folder, or any name that kvlp.load takes."),
    images: list[Path] = typer.Argument(..., metavar="IMAGE...", help="Images (PNG, JPEG, DICOM) or folders of them."),
    classes: list[str] = typer.Option(
        ..., "--classes", metavar='"A,B"', help="Findings in plain words, separated by commas. May be repeated."
    ),
    graph: str = typer.Option("chest", "--graph", help='Gives synonyms: "chest", a graph folder, or "none".'),
    score: str = typer.Option("pair", "--score", help='"pair" (present against absent prompts) or "positive".'),
    synonyms: bool = typer.Option(True, "--synonyms/--no-synonyms", help="Prompts with the graph's synonyms too."),
    batch_size: int = typer.Option(32, "--batch-size", min=1, help="Images read and encoded at once."),
    device: str = typer.Option("cpu", "--device", help="Torch device."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON document."),
    as_csv: bool = typer.Option(False, "--csv", help="Print a table with commas."),
) -> None:
    """Score images against classes named in plain words; exit 1 if any image could not be read."""
    if as_json and as_csv:
        raise typer.BadParameter("give one of --json and --csv")
    if score not in ("pair", "positive"):
        raise typer.BadParameter("expected 'pair' or 'positive'", param_hint="--score")
    names = list(dict.fromkeys(name.strip() for part in classes for name in part.split(",") if name.strip()))
    if not names:
        raise typer.BadParameter("name at least one class", param_hint="--classes")
    from kvlp.checkpoints import load
    from kvlp.zero_shot import ZeroShotClassifier

    files = _files(images)
    options: dict[str, Any] = {"score": score, "synonyms": synonyms, "batch_size": batch_size, "errors": "flag"}
    model = load(checkpoint, device)
    classifier = ZeroShotClassifier(model, names, graph=load_graph(graph), progress=counter("score"), **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # flags are printed image by image
        probabilities = classifier.predict_proba(files).tolist()
    show = _show_json if as_json else _show_csv if as_csv else _show_table
    show(classifier, files, probabilities)
    bad = [position for position, flag in classifier.flags_.items() if flag.kind == "unreadable"]
    for position in bad:
        typer.echo(f"kvlp: {_printable(_reason(files[position], classifier.flags_[position].reason))}", err=True)
    if bad:
        raise typer.Exit(1)


def load_graph(name: str) -> KnowledgeGraph | None:
    """The graph of that name or folder; None for "none"."""
    from kvlp.knowledge.graph import KnowledgeGraph

    return None if name == "none" else KnowledgeGraph.load(name)


def counter(phase: str) -> Callable[[int, int], None] | None:
    """A progress line on a terminal: count, rate and time left. None elsewhere."""
    if not sys.stderr.isatty():
        return None
    import time

    start = time.monotonic()

    def show(done: int, total: int) -> None:
        rate = done / max(time.monotonic() - start, 1e-6)
        left = round((total - done) / rate) if rate else 0
        end = "\n" if done >= total else ""
        sys.stderr.write(f"\r\x1b[K{phase}: {done}/{total}  {rate:.1f}/s, {left // 60}:{left % 60:02d} left{end}")
        sys.stderr.flush()

    return show


def _files(paths: Sequence[Path]) -> list[Path]:
    """Folders become their images; a file that is not there is told with the images that cannot be read."""
    from kvlp.embedding import image_files

    return [file for path in paths for file in (image_files([path]) if path.is_dir() else [path])]


def _reason(path: Path, reason: str) -> str:
    return reason if str(path) in reason else f"{path}: {reason}"


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)


def _flag(classifier: ZeroShotClassifier, position: int) -> str:
    flag = classifier.flags_.get(position)
    return str(flag) if flag else ""


def _show_json(classifier: ZeroShotClassifier, files: list[Path], probabilities: list[list[float]]) -> None:
    model, names = classifier.model, classifier.classes_.tolist()
    rows = []
    for position, (path, row) in enumerate(zip(files, probabilities)):
        read = row[0] == row[0]  # NaN is unlike itself
        scores = {name: round(p, 6) for name, p in zip(names, row)} if read else None
        rows.append({"path": str(path), "scores": scores, "flag": _flag(classifier, position) or None})
    document = {
        "model": model.source,
        "model_hash": model.hash,
        "score": classifier.score,
        "calibrated": False,
        "classes": [{"name": name, "naming": classifier.naming(name)} for name in names],
        "images": rows,
    }
    typer.echo(json.dumps(document, indent=2))


def _show_csv(classifier: ZeroShotClassifier, files: list[Path], probabilities: list[list[float]]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["path", *classifier.classes_.tolist(), "flag"])
    for position, (path, row) in enumerate(zip(files, probabilities)):
        cells = [f"{p:.6f}" if p == p else "" for p in row]
        writer.writerow([str(path), *cells, _flag(classifier, position)])


def _show_table(classifier: ZeroShotClassifier, files: list[Path], probabilities: list[list[float]]) -> None:
    names = classifier.classes_.tolist()
    widths = [max(len(name), 6) for name in names]
    first = max([len("image"), *(len(_printable(str(path))) for path in files)])
    typer.echo("  ".join(["image".ljust(first), *(name.rjust(width) for name, width in zip(names, widths))]))
    for position, (path, row) in enumerate(zip(files, probabilities)):
        cells = [(f"{p:.3f}" if p == p else "-").rjust(width) for p, width in zip(row, widths)]
        flag = classifier.flags_.get(position)
        note = f"  ! {flag.reason}" if flag and flag.kind == "implausible" else ""
        typer.echo("  ".join([_printable(str(path)).ljust(first), *cells]) + note)
    kinds = {name: classifier.naming(name) for name in names}
    known = "; ".join(f"{name}: {kind}" for name, kind in kinds.items() if kind != "not known")
    typer.echo(f"\nScores rank images; they are no calibrated probabilities.{' ' + known + '.' if known else ''}")
