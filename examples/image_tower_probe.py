"""What an image tower has learned without labels: linear probes on it, on a random tower and on a supervised one.

    kvlp data import cxr-real cxr-real --out real
    kvlp pretrain lvm-med-phantom --data real/manifest.csv --out runs/lvm
    python examples/image_tower_probe.py --model runs/lvm/checkpoint --data real/manifest.csv --source \
        kermany-paediatric --classes "Pneumonia vs No Finding,Bacterial Pneumonia vs Viral Pneumonia"

All three towers are of one architecture. The random one has its first weights; the supervised one is trained on the
same training images by the labels of the classes asked for (cross-entropy where a label is known). Of each the pooled
features before the projection are taken, and a logistic regression a class is fitted on the split "train" and scored on
--split. Intervals: 95 %, over patients, differences on the same resamples.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegressionCV
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.nn import functional as F

import kvlp
from kvlp.eval.intervals import auc_table
from kvlp.eval.tasks import label_matrix, parse_tasks
from kvlp.knowledge.names import Names
from kvlp.models.dual_encoder import build_dual_encoder
from kvlp.training.pixels import cached_pixels
from kvlp.workflows.compare import Comparison

BATCH = 64


def main() -> None:
    """Probe the three towers, print the table, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--classes", required=True, help='separated by commas, also "A vs B"')
    parser.add_argument("--source", default="", help="only images of this source")
    parser.add_argument("--split", default="dev")
    parser.add_argument("--epochs", type=int, default=8, help="of the supervised tower")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()

    model = kvlp.load(options.model)
    manifest = kvlp.Manifest.load(options.data)
    manifest = manifest.subset(source=options.source) if options.source else manifest
    splits = {"train": manifest.subset(split="train"), "scored": manifest.subset(split=options.split)}
    tasks, _ = parse_tasks(options.classes.split(","))
    names = Names(kvlp.KnowledgeGraph.load("chest"))
    labels = {split: label_matrix(list(rows), tasks, names) for split, rows in splits.items()}
    patients = {split: np.array([r.patient_id for r in rows]) for split, rows in splits.items()}
    with tempfile.TemporaryDirectory() as cache:
        pixels = {s: np.array(cached_pixels(rows, model.preprocess, Path(cache))[0]) for s, rows in splits.items()}

    def features(tower: Any) -> dict[str, np.ndarray]:
        return {split: pooled(tower, model.preprocess, values) for split, values in pixels.items()}

    torch.manual_seed(options.seed)
    towers = {"pretrained": features(model.module.visual)}
    towers["random"] = features(build_dual_encoder(model.model_cfg).visual)
    tower = build_dual_encoder(model.model_cfg).visual
    supervise(tower, model.preprocess, pixels["train"], labels["train"], options.epochs, options.seed)
    towers["supervised"] = features(tower)

    each = [task.name for task in tasks]
    comparison = Comparison({name: [name] for name in each})
    for name, found in towers.items():
        columns = [probe(found["train"], labels["train"][:, c], patients["train"]) for c in range(len(each))]
        scores = np.stack([fitted.decision_function(found["scored"]) for fitted in columns], axis=1)
        comparison.add(name, {"probe": auc_table(labels["scored"], scores, patients["scored"], names=each)})
    rows = []
    for name in each:
        for tower_name in towers:
            area = comparison.tables[tower_name]["probe"][0].per_class[name]
            row = {"class": name, "tower": tower_name, "auc": str(area)}
            if tower_name != "pretrained":
                row["pretrained minus it"] = str(comparison.difference("pretrained", tower_name, name, "probe"))
            rows.append(row)
            print("  ".join(f"{key}: {value}" for key, value in row.items()), flush=True)
    if options.out:
        kept = {key: str(value) for key, value in vars(options).items() if key not in ("out", "data", "model")}
        counts = {split: len(rows_) for split, rows_ in splits.items()}
        options.out.write_text(json.dumps({"settings": kept, "images": counts, "rows": rows}, indent=1) + "\n")


def pooled(tower: Any, preprocess: Any, pixels: np.ndarray) -> np.ndarray:
    """The trunk's pooled features of unit norm: (N, D) float64."""
    tower.eval()
    with torch.inference_mode():
        parts = [
            F.normalize(tower.trunk(preprocess.normalise(torch.from_numpy(pixels[start : start + BATCH]))), dim=-1)
            for start in range(0, len(pixels), BATCH)
        ]
    return torch.cat(parts).double().numpy()


def probe(features: np.ndarray, column: np.ndarray, patients: np.ndarray) -> Any:
    """A logistic regression on the rows whose label is known; its penalty chosen on patients left out."""
    known = np.isin(column, (0, 1))
    parts = list(GroupKFold(5).split(features[known], column[known], patients[known]))
    model = LogisticRegressionCV(
        Cs=list(np.logspace(-2, 3, 6)), cv=parts, scoring="neg_log_loss", l1_ratios=(0,), use_legacy_attributes=False,
        solver="newton-cholesky",
    )  # fmt: skip
    return make_pipeline(StandardScaler(), model).fit(features[known], column[known])


def supervise(tower: Any, preprocess: Any, pixels: np.ndarray, labels: np.ndarray, epochs: int, seed: int) -> None:
    """Train a tower and a linear layer on the labels that are known."""
    rng, width = np.random.default_rng(seed), pooled(tower, preprocess, pixels[:2]).shape[1]
    head = torch.nn.Linear(width, labels.shape[1])
    known = np.flatnonzero(np.isin(labels, (0, 1)).any(axis=1))
    steps = epochs * max(1, len(known) // BATCH)
    optimizer = torch.optim.AdamW([*tower.trunk.parameters(), *head.parameters()], lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=steps)
    tower.train()
    for _ in range(steps):
        rows = rng.choice(known, BATCH, replace=False)
        target = torch.from_numpy(labels[rows]).float()
        logits = head(tower.trunk(preprocess.normalise(torch.from_numpy(pixels[rows]))))
        mask = (target == 0) | (target == 1)
        loss = F.binary_cross_entropy_with_logits(logits[mask], target[mask])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


if __name__ == "__main__":
    main()
