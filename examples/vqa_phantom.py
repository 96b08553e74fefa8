"""Questions about synthetic radiographs, answered by a fused model beside what the question alone tells.

    python examples/vqa_phantom.py --out DIR --images 2000          pretrain by arl-phantom, fine-tune, score
    python examples/vqa_phantom.py --out DIR --model CHECKPOINT     from a checkpoint that was trained with fusion

DIR gets the phantom, the run, the fine-tuned model, predictions.jsonl and results.jsonl. --smoke trains for a moment,
for tests.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from kvlp.datasets.phantom import generate_phantom
from kvlp.datasets.phantom.questions import phantom_questions
from kvlp.training.fine_tune import FineTuneSettings
from kvlp.training.recipe import load_recipe
from kvlp.training.run import run_recipe
from kvlp.workflows.answers import fine_tune_answers

SMOKE = [
    "stages.0.steps=1", "stages.1.epochs=0", "stages.1.steps=2", "stages.1.batch_size=8", "model.image_size=48",
    "knowledge.min_patients=1", "concept_vectors={method: text, dim: 16}", "tokenizer.vocab_size=700",
]  # fmt: skip


def main(argv: list[str] | None = None) -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--blind", action="store_true", help="leave the images out")
    parser.add_argument("--smoke", action="store_true")
    given = parser.parse_args(argv)
    images, size, epochs = (24, 64, 1) if given.smoke else (given.images, 96, given.epochs)
    data = given.out / "phantom"
    manifest = generate_phantom(data, images=images, seed=given.seed, size=size)
    questions = phantom_questions(data, seed=given.seed)
    checkpoint = given.model
    if checkpoint is None:
        recipe = load_recipe("arl-phantom", [f"seed={given.seed}", *(SMOKE if given.smoke else [])])
        checkpoint = run_recipe(recipe, manifest, given.out / "run", resume=(given.out / "run").exists())
    settings = FineTuneSettings(
        epochs=epochs, lr=3e-4, fusion_lr=2.0, head_lr=3.0, seed=given.seed, augment=False, blind=given.blind
    )
    name = "answers-blind" if given.blind else "answers"
    run = fine_tune_answers(checkpoint, questions, given.out / name, settings=settings)
    sys.stdout.write("\n".join((*run.lines(), *run.notes)) + "\n")


if __name__ == "__main__":
    main()
