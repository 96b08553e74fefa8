"""`kvlp embed`: write image or text embeddings to a folder, in clip-retrieval's layout."""

from __future__ import annotations

import json
from pathlib import Path

import typer

__all__ = ["command"]


def command(
    checkpoint: str = typer.Argument(..., metavar="CKPT", help="A model folder, or any name that kvlp.load takes."),
    images: list[Path] = typer.Option(
        [],
        "--images",
        metavar="PATH",
        help="An image, a folder, or a manifest (.csv, .jsonl, .parquet). May be repeated.",
    ),
    texts: Path | None = typer.Option(None, "--texts", metavar="FILE", help="A UTF-8 file, one text a line."),
    out: Path = typer.Option(..., "--out", metavar="DIR", help="Where to: a new or empty folder."),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace the embeddings that are there."),
    batch_size: int = typer.Option(64, "--batch-size", min=1, help="Images read and encoded at once."),
    device: str = typer.Option("cpu", "--device", help="Torch device."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON document."),
) -> None:
    """Write embeddings: img_emb/img_emb_0.npy or text_emb/text_emb_0.npy, and metadata/metadata_0.parquet."""
    if bool(images) == (texts is not None):
        raise typer.BadParameter("give one of --images and --texts")
    from kvlp.checkpoints import load
    from kvlp.cli.zeroshot import counter
    from kvlp.embedding import embed_image_folder, embed_text_file, require_free

    require_free(out, overwrite=overwrite)
    model = load(checkpoint, device)
    failed: dict[str, str] = {}
    if texts is not None:
        count = embed_text_file(model, texts, out)
    else:
        count, failed = embed_image_folder(model, images, out, batch_size=batch_size, progress=counter("embed"))
    summary = {"out": str(out), "written": count, "dim": model.dim, "model_hash": model.hash, "failed": failed}
    typer.echo(json.dumps(summary, indent=2) if as_json else f"{out}: {count} embeddings of {model.dim} numbers")
    for path, reason in failed.items():
        line = reason if path in reason else f"{path}: {reason}"
        typer.echo(f"kvlp: {''.join(c if c.isprintable() else '?' for c in line)}", err=True)
    if failed:
        raise typer.Exit(1)
