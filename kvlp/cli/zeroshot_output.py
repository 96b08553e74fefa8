"""What `kvlp zeroshot` prints and writes: a table, CSV, JSON, and a folder of explanations."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from kvlp.zero_shot import Explanation, ZeroShotClassifier

__all__ = ["printable", "show_csv", "show_json", "show_table", "write_explanations"]

Rows = Sequence[Sequence[float]]


def printable(text: str) -> str:
    """Text without what would steer a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)


def show_json(classifier: ZeroShotClassifier, files: Sequence[Path], probabilities: Rows) -> None:
    """One document; `said` beside the scores where something was learned."""
    from kvlp.zero_shot.ensemble import encodes
    from kvlp.zero_shot.scoring import as_model

    model, names, at = as_model(classifier.model), classifier.classes_.tolist(), classifier.thresholds_.tolist()
    learned = _learned(classifier)
    rows: list[dict[str, Any]] = []
    for position, (path, row) in enumerate(zip(files, probabilities)):
        read = row[0] == row[0]  # NaN is unlike itself
        scores = {name: round(p, 6) for name, p in zip(names, row)} if read else None
        said = {name: int(p >= t) for name, p, t in zip(names, row, at)} if read and any(learned) else None
        rows.append({"path": str(path), "scores": scores, "said": said, "flag": _flag(classifier, position) or None})
    told = [
        {"name": name, "naming": classifier.naming(name), "calibrated": done, "threshold": t}
        for name, done, t in zip(names, learned, at)
    ]
    document = {
        "model": model.source,
        "model_hash": model.hash,
        "score": classifier.score,
        "scorer": "encoders" if encodes(model) else "query",
        "calibrated": all(learned),
        "classes": told,
        "images": rows,
    }
    typer.echo(json.dumps(document, indent=2))


def show_csv(classifier: ZeroShotClassifier, files: Sequence[Path], probabilities: Rows) -> None:
    """A row an image."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["path", *classifier.classes_.tolist(), "flag"])
    for position, (path, row) in enumerate(zip(files, probabilities)):
        cells = [f"{p:.6f}" if p == p else "" for p in row]
        writer.writerow([str(path), *cells, _flag(classifier, position)])


def show_table(classifier: ZeroShotClassifier, files: Sequence[Path], probabilities: Rows) -> None:
    """A table for people; "*" marks what reaches its class's threshold, where something was learned."""
    names, at, learned = classifier.classes_.tolist(), classifier.thresholds_.tolist(), _learned(classifier)
    widths = [max(len(name), 6) for name in names]
    first = max([len("image"), *(len(printable(str(path))) for path in files)])
    typer.echo("  ".join(["image".ljust(first), *(name.rjust(width) for name, width in zip(names, widths))]))
    for position, (path, row) in enumerate(zip(files, probabilities)):
        marks = ["*" if done and p >= t else "" for p, t, done in zip(row, at, learned)]
        cells = [(f"{m}{p:.3f}" if p == p else "-").rjust(width) for m, p, width in zip(marks, row, widths)]
        flag = classifier.flags_.get(position)
        note = f"  ! {flag.reason}" if flag and flag.kind == "implausible" else ""
        typer.echo("  ".join([printable(str(path)).ljust(first), *cells]) + note)
    kinds = {name: classifier.naming(name) for name in names}
    known = "; ".join(f"{name}: {kind}" for name, kind in kinds.items() if kind != "not known")
    plain = [name for name, done in zip(names, learned) if not done]
    if not plain:
        told = "Probabilities as calibrated on validation images; * reaches the threshold learned there."
    elif len(plain) < len(names):
        told = f"* reaches the threshold learned; not calibrated, scores only rank: {', '.join(plain)}."
    else:
        told = "Scores rank images; they are no calibrated probabilities."
    typer.echo(f"\n{told}{' ' + known + '.' if known else ''}")


def write_explanations(classifier: ZeroShotClassifier, files: Sequence[Path], out: Path, heat: str) -> None:
    """Write one picture for each image and class, and `explanations.json` with all reasons."""
    from kvlp.datasets.files import atomic_write

    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, path in enumerate(files, start=1):
        for name in classifier.classes_.tolist():
            why = classifier.explain(path, name, heat)  # type: ignore[arg-type]
            picture = f"{number:04d}-{_slug(path.stem)}-{_slug(name)}.png"
            atomic_write(out / picture, _picture(why))
            rows.append({"path": str(path), "picture": picture, **why.to_dict()})
    atomic_write(out / "explanations.json", (json.dumps(rows, indent=1, allow_nan=False) + "\n").encode())
    typer.echo(f"kvlp: {len(rows)} explanations written to {printable(str(out))}", err=True)


def _picture(why: Explanation) -> bytes:
    """The image, beside it the image under its heat map, beneath both what is shown."""
    import io

    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    from kvlp.zero_shot import overlay

    pair = Image.fromarray(np.concatenate([np.repeat(why.grey[..., None], 3, axis=2), overlay(why.grey, why.heat)], 1))
    width = 720
    pair = pair.resize((width, max(1, round(pair.height * width / pair.width))), Image.Resampling.BICUBIC)
    lines = [
        f"{why.name}: {'probability' if why.calibrated else 'uncalibrated score'} {why.probability:.3f}, "
        f"threshold {why.threshold:.3f}",
        f"heat by {why.heat.method}, {why.heat.low:+.3f} (grey) to {why.heat.high:+.3f} (yellow)",
        "shows what the score rests on, not where the finding is",
    ]
    font, step = ImageFont.load_default(size=15), 21
    sheet = Image.new("RGB", (width, pair.height + step * len(lines) + 10), "black")
    sheet.paste(pair, (0, 0))
    for number, line in enumerate(lines):
        ImageDraw.Draw(sheet).text((8, pair.height + 4 + step * number), printable(line), fill="white", font=font)
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG")
    return buffer.getvalue()


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-").lower()[:40] or "x"


def _learned(classifier: ZeroShotClassifier) -> list[bool]:
    """Which classes were calibrated on images of both kinds."""
    if not hasattr(classifier, "calibration_"):
        return [False] * len(classifier.classes_)
    rows = [classifier.calibration_.classes.get(name) for name in classifier.classes_.tolist()]
    return [row is not None and row.learned for row in rows]


def _flag(classifier: ZeroShotClassifier, position: int) -> str:
    flag = classifier.flags_.get(position)
    return str(flag) if flag else ""
