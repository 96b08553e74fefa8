"""Reports written for synthetic radiographs, beside the commonest report and that of the nearest training image.

    python examples/write_reports.py --out DIR --images 2000        pretrain by motor-phantom, write, score
    python examples/write_reports.py --out DIR --model CHECKPOINT   from a checkpoint that was trained with a decoder

DIR gets the phantom, the run, reports.jsonl and comparison.jsonl. --smoke trains for a moment, for tests.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from kvlp.datasets.phantom import generate_phantom
from kvlp.training.recipe import load_recipe
from kvlp.training.run import run_recipe
from kvlp.workflows.report_writing import write_reports

SMOKE = [
    "stages.0.steps=1", "stages.1.epochs=0", "stages.1.steps=2", "stages.1.batch_size=8", "model.image_size=48",
    "knowledge.min_patients=1", "tokenizer.vocab_size=700", "tokenizer.context_length=24",
]  # fmt: skip


def main(argv: list[str] | None = None) -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--method", default="beam", choices=["greedy", "beam", "nucleus"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a key of the recipe")
    parser.add_argument("--smoke", action="store_true")
    given = parser.parse_args(argv)
    images, size = (24, 64) if given.smoke else (given.images, 96)
    manifest = generate_phantom(given.out / "phantom", images=images, seed=given.seed, size=size)
    checkpoint = given.model
    if checkpoint is None:
        settings = [f"seed={given.seed}", *(SMOKE if given.smoke else []), *given.set]
        recipe = load_recipe("motor-phantom", settings)
        checkpoint = run_recipe(recipe, manifest, given.out / "run", resume=(given.out / "run").exists())
    written = write_reports(checkpoint, manifest, given.out, method=given.method)
    sys.stdout.write("\n".join((*written.lines(), *written.notes)) + "\n")


if __name__ == "__main__":
    main()
