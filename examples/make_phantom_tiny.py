"""Make the model that ships as `kvlp.load("phantom-tiny")`: train on the phantom, store the weights as float16.

    python examples/make_phantom_tiny.py --out kvlp/pretrained/phantom-tiny

--run takes the checkpoint of a run that was made before (`kvlp quickstart` leaves one in quickstart/run).
--smoke trains for a few steps into a temporary folder, for tests.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

from kvlp.checkpoints import load, save_checkpoint
from kvlp.datasets.phantom import PHANTOM_VERSION, generate_phantom
from kvlp.training.recipe import load_recipe
from kvlp.training.run import run_recipe

MAX_BYTES = 3 << 20


def train(folder: Path, images: int, overrides: list[str]) -> Path:
    """Draw the phantom, train by the quickstart's recipe, and return the checkpoint."""
    manifest = generate_phantom(folder / "phantom", images=images, fractions={"train": 0.72, "dev": 0.03, "test": 0.25})
    return run_recipe(load_recipe("phantom-cpu", overrides), manifest, folder / "run")


def ship(checkpoint: Path, out: Path) -> Path:
    """Write the checkpoint anew with float16 weights and a card that says what it is not."""
    model = load(checkpoint)
    card: dict[str, Any] = {
        **model.card,
        "name": "phantom-tiny",
        "description": f"Small towers trained on synthetic chest radiographs (phantom {PHANTOM_VERSION}), to try kvlp.",
        "licence": "Apache-2.0",
        "not_for": "Real radiographs: it has seen none. Not a medical device; its figures say nothing of patients.",
    }
    settings = (model.model_cfg, model.preprocess_cfg, model.tokenizer)
    folder = save_checkpoint(out, model.module, *settings, card, half=True)
    size = sum(path.stat().st_size for path in folder.iterdir())
    if size > MAX_BYTES:
        raise SystemExit(f"{folder} has {size} bytes; at most {MAX_BYTES} are to be shipped")
    return folder


def main() -> None:
    """Train, or take a run, and write the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("kvlp/pretrained/phantom-tiny"))
    parser.add_argument("--run", type=Path, default=None)
    parser.add_argument("--smoke", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        few = ["stages.0.steps=2", "stages.1.steps=2", "stages.1.epochs=0", "stages.2.steps=2"]
        overrides = few if arguments.smoke else []
        checkpoint = arguments.run or train(folder, 60 if arguments.smoke else 4200, overrides)
        print(ship(checkpoint, folder / "tiny" if arguments.smoke else arguments.out))


if __name__ == "__main__":
    main()
