"""`kvlp zeroshot`: score images against classes named in plain words; calibrate, explain."""

from __future__ import annotations

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
    images: list[Path] = typer.Argument(None, metavar="IMAGE...", help="Images (PNG, JPEG, DICOM) or folders of them."),
    classes: list[str] = typer.Option(
        ..., "--classes", metavar='"A,B"', help="Findings in plain words, separated by commas. May be repeated."
    ),
    graph: str = typer.Option("chest", "--graph", help='Gives synonyms: "chest", a graph folder, or "none".'),
    score: str = typer.Option("pair", "--score", help='"pair" (present against absent prompts) or "positive".'),
    scorer: str = typer.Option("encoders", "--scorer", help='"encoders", or "query": the checkpoint\'s query network.'),
    synonyms: bool = typer.Option(True, "--synonyms/--no-synonyms", help="Prompts with the graph's synonyms too."),
    ensemble: list[str] = typer.Option([], "--ensemble", metavar="CKPT", help="Another model to score with. Repeats."),
    calibration: Path = typer.Option(None, "--calibration", help="Use a calibration.json, or a folder that holds one."),
    fit: Path = typer.Option(None, "--fit", metavar="MANIFEST", help="Calibrate on these labelled validation images."),
    split: str = typer.Option("dev", "--fit-split", help='Split of --fit to calibrate on; "all" takes every row.'),
    method: str = typer.Option("platt", "--method", help="platt, temperature, isotonic or none."),
    threshold: str = typer.Option(
        "youden", "--threshold", help='youden, mcc, f1, "sensitivity 0.95", "specificity 0.9", or a probability.'
    ),
    save: Path = typer.Option(None, "--save", help="Write what --fit learned to this file or checkpoint folder."),
    explain: Path = typer.Option(None, "--explain", metavar="DIR", help="Write heat maps and reasons to this folder."),
    heat: str = typer.Option(
        "occlusion", "--heat", help='"occlusion", "features" (fast and coarse), or "attention" (with --scorer query).'
    ),
    batch_size: int = typer.Option(32, "--batch-size", min=1, help="Images read and encoded at once."),
    device: str = typer.Option("cpu", "--device", help="Torch device."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON document."),
    as_csv: bool = typer.Option(False, "--csv", help="Print a table with commas."),
) -> None:
    """Score images against classes named in plain words; exit 1 if any image could not be read."""
    names = list(dict.fromkeys(name.strip() for part in classes for name in part.split(",") if name.strip()))
    given = {"names": names, "score": score, "scorer": scorer, "heat": heat, "images": images, "fit": fit, "save": save}
    _require_sense(given, both=as_json and as_csv, two=fit is not None and calibration is not None)
    from kvlp.checkpoints import load
    from kvlp.cli.zeroshot_output import show_csv, show_json, show_table, write_explanations
    from kvlp.zero_shot import ZeroShotClassifier
    from kvlp.zero_shot.scoring import scorer_of

    files = _files(images or [])
    options: dict[str, Any] = {"score": score, "synonyms": synonyms, "batch_size": batch_size, "errors": "flag"}
    models = [scorer_of(load(name, device), scorer) for name in (checkpoint, *ensemble)]
    classifier = ZeroShotClassifier(models if ensemble else models[0], names, graph=load_graph(graph), **options)
    if calibration is not None:
        classifier.load_calibration(calibration)
    if fit is not None:
        _fit(classifier, fit, split, method, threshold)
        if save is not None:
            typer.echo(f"calibration written to {classifier.save_calibration(save)}", err=True)
    if not files:
        return
    classifier.progress = counter("score")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # flags are printed image by image
        probabilities = classifier.predict_proba(files).tolist()
    (show_json if as_json else show_csv if as_csv else show_table)(classifier, files, probabilities)
    if explain is not None:
        write_explanations(classifier, [f for i, f in enumerate(files) if _was_read(classifier, i)], explain, heat)
    _tell_unread(classifier, files)


def _require_sense(given: dict[str, Any], *, both: bool, two: bool) -> None:
    if both:
        raise typer.BadParameter("give one of --json and --csv")
    if given["score"] not in ("pair", "positive"):
        raise typer.BadParameter("expected 'pair' or 'positive'", param_hint="--score")
    if given["scorer"] not in ("encoders", "query"):
        raise typer.BadParameter("expected 'encoders' or 'query'", param_hint="--scorer")
    if given["heat"] not in ("occlusion", "features", "attention"):
        raise typer.BadParameter("expected 'occlusion', 'features' or 'attention'", param_hint="--heat")
    if given["heat"] == "attention" and given["scorer"] != "query":
        raise typer.BadParameter("'attention' is of the query network; add --scorer query", param_hint="--heat")
    if not given["names"]:
        raise typer.BadParameter("name at least one class", param_hint="--classes")
    if two:
        raise typer.BadParameter("give one of --fit and --calibration")
    if given["save"] is not None and given["fit"] is None:
        raise typer.BadParameter("nothing to save without --fit", param_hint="--save")
    if not given["images"] and given["fit"] is None:
        raise typer.BadParameter("name at least one image or folder", param_hint="IMAGE...")


def _fit(classifier: ZeroShotClassifier, data: Path, split: str, method: str, threshold: str) -> None:
    """Calibrate on a manifest's split, one line for what could not be learned."""
    from kvlp.datasets.manifest import Manifest
    from kvlp.eval.tasks import ClassTask, label_matrix
    from kvlp.knowledge.names import Names

    chosen = Manifest.load(data).subset(split=None if split == "all" else split)
    tasks = [ClassTask(name, name) for name in classifier.classes_.tolist()]
    labels = label_matrix(list(chosen), tasks, Names(classifier.graph))
    patients = [record.patient_id or f"row {row} without a patient" for row, record in enumerate(chosen)]
    classifier.progress = counter("calibrate")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        classifier.fit(chosen, labels, calibration=method, threshold=_rule(threshold), groups=patients)
    for row, flag in classifier.flags_.items():
        if flag.kind == "unreadable":
            typer.echo(f"kvlp: row {row + 1} of the rows to calibrate on left out: {flag.reason}", err=True)
    for line in dict.fromkeys(str(warning.message) for warning in told if warning.category is UserWarning):
        typer.echo(f"kvlp: {line}", err=True)


def _rule(text: str) -> str | float:
    try:
        return float(text)
    except ValueError:
        return text


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


def _was_read(classifier: ZeroShotClassifier, position: int) -> bool:
    flag = classifier.flags_.get(position)
    return flag is None or flag.kind != "unreadable"


def _tell_unread(classifier: ZeroShotClassifier, files: Sequence[Path]) -> None:
    from kvlp.cli.zeroshot_output import printable

    bad = [position for position in range(len(files)) if not _was_read(classifier, position)]
    for position in bad:
        reason = classifier.flags_[position].reason
        told = reason if str(files[position]) in reason else f"{files[position]}: {reason}"
        typer.echo(f"kvlp: {printable(told)}", err=True)
    if bad:
        raise typer.Exit(1)
