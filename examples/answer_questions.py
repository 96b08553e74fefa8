"""Questions about images, answered by a fused model beside what the question alone tells.

    python examples/answer_questions.py --out DIR --images 2000                 a phantom: pretrain, fine-tune, score
    python examples/answer_questions.py --out DIR --model CHECKPOINT            the same with such a model
    kvlp data import vqa-rad FOLDER --out vqa                                   own questions, in VQA-RAD's layout
    python examples/answer_questions.py --out DIR --model CHECKPOINT --questions vqa/manifest.csv

DIR gets the fine-tuned model, predictions.jsonl and results.jsonl (and the phantom and the run, if they are made).
--blind leaves the images out. --smoke trains for a moment, for tests.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import kvlp
from kvlp.cli.progress import progress_line
from kvlp.datasets.phantom import generate_phantom
from kvlp.datasets.phantom.questions import phantom_questions
from kvlp.errors import ConfigError
from kvlp.training.fine_tune import FineTuneSettings
from kvlp.training.recipe import load_recipe
from kvlp.training.run import Progress, run_recipe
from kvlp.workflows.answers import fine_tune_answers

SMOKE = [
    "stages.0.steps=1", "stages.1.epochs=0", "stages.1.steps=2", "stages.1.batch_size=8", "model.image_size=48",
    "knowledge.min_patients=1", "concept_vectors={method: text, dim: 16}", "tokenizer.vocab_size=700",
]  # fmt: skip


def main(argv: list[str] | None = None) -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", type=Path, help="a checkpoint that was trained with fusion")
    parser.add_argument("--questions", type=Path, help="a manifest of questions; default: planted on a phantom")
    parser.add_argument("--images", type=int, default=2000, help="of the phantom")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--lr", type=float, default=3e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--blind", action="store_true", help="leave the images out")
    parser.add_argument("--smoke", action="store_true")
    given = parser.parse_args(argv)
    if given.questions and not given.model:
        raise ConfigError("--questions: expected a model that was trained with fusion, say which by --model")
    checkpoint = given.model
    if given.questions:
        questions = kvlp.Manifest.load(given.questions)
    else:
        images, size = (24, 64) if given.smoke else (given.images, 96)
        manifest = generate_phantom(given.out / "phantom", images=images, seed=given.seed, size=size)
        questions = phantom_questions(given.out / "phantom", seed=given.seed)
        if checkpoint is None:
            recipe = load_recipe("arl-phantom", [f"seed={given.seed}", *(SMOKE if given.smoke else [])])
            checkpoint = run_recipe(recipe, manifest, given.out / "run", resume=(given.out / "run").exists())
    settings = FineTuneSettings(
        epochs=1 if given.smoke else given.epochs, lr=given.lr, fusion_lr=2.0, head_lr=3.0, seed=given.seed,
        augment=False, blind=given.blind,
    )  # fmt: skip
    name = "answers-blind" if given.blind else "answers"
    began = time.monotonic()
    with progress_line() as show:

        def tell(done: int, total: int, loss: float) -> None:
            rate = done / max(1e-6, time.monotonic() - began)
            show(Progress("fine-tune", done, total, rate, (total - done) / rate, f"loss {loss:.3f}"))

        run = fine_tune_answers(checkpoint, questions, given.out / name, settings=settings, progress=tell)
    sys.stdout.write("\n".join((*run.lines(), *run.notes)) + "\n")


if __name__ == "__main__":
    main()
