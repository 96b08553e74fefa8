"""Adapt a model to few images of some classes and score these and other classes: the base-to-new table.

    python examples/base_to_new.py --model quickstart/run/checkpoint --data quickstart/phantom/manifest.csv \
        --new lung_cavity,pneumoperitoneum --shots 16 --out docs/figures/base_to_new.json

Rows to learn from are drawn from the split "train", those to score are the split "test". Classes of the manifest that
are not --new are the base classes. `--draws` repeats it with other shots; the table shows the mean over draws and the
least and greatest.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

import kvlp
from kvlp.adaptation import base_to_new, draw_shots
from kvlp.adaptation.base_to_new import METHODS
from kvlp.embedding import embed_images
from kvlp.eval.tasks import labels_with_both


def main() -> None:
    """Run the draws, print the table, write the lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--new", required=True, help="labels that are not learned from, separated by commas")
    parser.add_argument("--shots", type=int, default=16)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--anchor", type=float, default=1.0)
    parser.add_argument(
        "--conditional", action="store_true", help="conditional prompts too: every image reads every text"
    )
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()

    model, graph = kvlp.load(options.model), kvlp.KnowledgeGraph.load("chest")
    manifest = kvlp.Manifest.load(options.data)
    train, test = manifest.subset(split="train"), manifest.subset(split="test")
    new = [name for name in options.new.split(",") if name]
    base = [name for name in labels_with_both(list(test)) if name not in new]
    learned_from = labels(train, base)
    patients = np.array([record.patient_id for record in train])
    scored = embed_images(model, [test.path_of(record) for record in test]).vectors
    who = np.array([record.patient_id for record in test])
    lines = []
    for draw in range(options.draws):
        rows = draw_shots(learned_from, options.shots, seed=draw, groups=patients)
        shots = embed_images(model, [train.path_of(train[i]) for i in rows]).vectors
        found = base_to_new(
            model,
            (shots, learned_from[rows]),
            (scored, labels(test, [*base, *new]), who),
            base,
            new,
            graph=graph,
            train_groups=patients[rows],
            methods=METHODS if options.conditional else METHODS[:-1],
            prompt_settings={"epochs": options.epochs, "anchor": options.anchor},
            seed=draw,
        )
        lines += [{"draw": draw, "images": len(rows), **asdict(line)} for line in found]
        for line in found:
            print(
                f"{draw}  {line.method:20} base {line.base}  new {line.new}  mean {line.harmonic_mean:.3f}", flush=True
            )
    if options.out:
        settings = {
            "shots": options.shots,
            "epochs": options.epochs,
            "anchor": options.anchor,
            "base": base,
            "new": new,
        }
        document = {**settings, "model": model.hash, "data": test.content_hash, "lines": lines}
        options.out.write_text(json.dumps(document, indent=1, default=str) + "\n", encoding="utf-8")


def labels(manifest: kvlp.Manifest, names: list[str]) -> np.ndarray:
    """(N, C) labels of the manifest."""
    return np.array([[record.labels.get(name, np.nan) for name in names] for record in manifest], dtype=float)


if __name__ == "__main__":
    main()
