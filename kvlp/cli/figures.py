"""`kvlp figures`: image-text pairs from the figures of open-access articles."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import typer

from kvlp.cli.text import emit

if TYPE_CHECKING:
    from kvlp.datasets.figures.importing import FigureReport
    from kvlp.training.run import Progress

app = typer.Typer(no_args_is_help=True, help="Image-text pairs from the figures of open-access articles.")

_JSON = typer.Option(False, "--json", help="Print one JSON document.")
_OCR = typer.Option("auto", "--ocr", help="Second reader of panel letters: auto, tesseract or none.")
_SHOWN = 20


@app.command("import")
def import_(
    sources: list[Path] = typer.Argument(
        ..., help="Packages (.tar.gz or folders with a .nxml file), or folders of them."
    ),
    out: Path = typer.Option(..., "--out", help="The folder of the manifest; a run that was cut off there goes on."),
    licence: str = typer.Option("", help="Keep figures whose licence matches one of these, such as 'CC BY*,CC0*'."),
    keep: str = typer.Option(
        "", help="Kinds of picture to keep, with commas; 'all' for every one. Default: radiological."
    ),
    min_confidence: float = typer.Option(0.0, min=0, max=1, help="Leave out pairs that are less certain."),
    min_side: int = typer.Option(64, min=1, help="Leave out panels with a shorter side in pixels."),
    third_party: bool = typer.Option(False, "--third-party", help="Also keep figures that belong to someone else."),
    ocr: str = _OCR,
    jobs: int = typer.Option(1, min=1, max=256, help="Processes."),
    sample: int = typer.Option(40, min=0, help="Figures on the audit page; 0 writes none."),
    seed: int = typer.Option(0, help="Seed of the audit page's sample."),
    overwrite: bool = typer.Option(False, "--overwrite", help="Begin anew where OUT was made with other options."),
    as_json: bool = _JSON,
) -> None:
    """Take figures and captions apart and write OUT/manifest.csv, report.json and audit.html."""
    from kvlp.datasets.figures.audit import write_audit
    from kvlp.datasets.figures.importing import import_figures
    from kvlp.datasets.figures.modality import KEPT, KINDS
    from kvlp.datasets.figures.options import FigureOptions

    named = tuple(kind.strip() for kind in keep.split(",") if kind.strip())
    options = FigureOptions(
        licence=licence,
        keep=KINDS if named == ("all",) else named or KEPT,
        min_confidence=min_confidence,
        min_side=min_side,
        third_party=third_party,
        ocr=ocr,
    )
    with _progress() as show:
        report = import_figures(sources, out, options, jobs=jobs, overwrite=overwrite, progress=show)
    if sample:
        write_audit(out, count=sample, seed=seed)
    summary = {"manifest": str(out / "manifest.csv"), **report.to_dict()}
    emit(summary, _lines(summary, report), as_json=as_json)


@app.command()
def audit(
    out: Path = typer.Argument(..., help="The folder of an import."),
    count: int = typer.Option(40, "--count", min=1, help="Figures to show."),
    seed: int = typer.Option(0, help="Another seed, other figures."),
    as_json: bool = _JSON,
) -> None:
    """Write OUT/audit.html again: sampled figures with their panels and what each was matched with."""
    from kvlp.datasets.figures.audit import write_audit

    path = write_audit(out, count=count, seed=seed)
    emit({"page": str(path)}, [f"page: {path}"], as_json=as_json)


@app.command()
def show(
    image: Path = typer.Argument(..., help="One figure, PNG or JPEG."),
    caption: str = typer.Option("", "--caption", help="Its caption; without one the panels alone are shown."),
    ocr: str = _OCR,
    as_json: bool = _JSON,
) -> None:
    """Take one figure apart and print its panels, and with a caption what each is matched with."""
    from kvlp.datasets.figures.articles import as_rgb
    from kvlp.datasets.figures.captions import split_caption
    from kvlp.datasets.figures.layout import find_layout
    from kvlp.datasets.figures.matching import match_panels
    from kvlp.datasets.figures.ocr import find_engine
    from kvlp.datasets.images import decode

    pixels = as_rgb(decode(image))
    if not caption.strip():
        boxes: list[dict[str, Any]] = [box._asdict() for box in find_layout(pixels).strong_leaves()]
        emit(boxes, [_placed(box) for box in boxes], as_json=as_json)
        return
    found = match_panels(pixels, split_caption(caption), find_engine(ocr))
    rows = [
        {
            **m.box._asdict(),
            "label": m.part.label,
            "text": m.part.whole,
            "matched_by": m.how,
            "confidence": m.confidence,
        }
        for m in found.matches
    ]
    lines = [
        f"{row['label'] or 'whole'}: {_placed(row)}  {row['matched_by']} {row['confidence']:g}  {row['text']}"
        for row in rows
    ]
    emit(rows, lines + ([found.problem] if found.problem else []), as_json=as_json)


@app.command()
def doctor(as_json: bool = _JSON) -> None:
    """Say whether an OCR engine is there. None is needed: letters are also read by comparison with rendered ones."""
    from kvlp.datasets.figures.ocr import find_engine

    engine = find_engine("auto")
    found = {"tesseract": engine.version if engine else None, "needed": False, "install": "apt install tesseract-ocr"}
    line = (
        f"tesseract: {engine.version}" if engine else "tesseract: not installed (optional): apt install tesseract-ocr"
    )
    emit(found, [line], as_json=as_json)


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """A callback that takes packages done and all packages, and shows them as one line on standard error."""
    from kvlp.cli.progress import progress_line

    start, first = time.monotonic(), -1
    with progress_line() as show_line:

        def update(done: int, total: int) -> None:
            nonlocal first
            first = done if first < 0 else first
            rate = max(done - first, 0) / max(time.monotonic() - start, 1e-6)
            left = (total - done) / rate if rate else 0.0
            state = SimpleNamespace(phase="figures", done=done, total=total, rate=rate, left=left, note="")
            show_line(cast("Progress", state))

        yield update


def _lines(summary: dict[str, Any], report: FigureReport) -> list[str]:
    lines = [f"{name}: {summary[name]}" for name in ("manifest", "packages", "failed", "repeated", "figures", "pairs")]
    for name in ("how", "modality", "licence", "dropped"):
        lines.append(
            f"{name}: " + (", ".join(f"{key or 'none'} {count}" for key, count in summary[name].items()) or "-")
        )
    lines += report.problems[:_SHOWN]
    if len(report.problems) > _SHOWN:
        lines.append(f"... and {len(report.problems) - _SHOWN} more problems; report.json names them all")
    return lines


def _placed(box: dict[str, Any]) -> str:
    return f"{box['left']},{box['top']} to {box['right']},{box['bottom']}"
