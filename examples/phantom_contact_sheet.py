"""Draw the phantom's contact sheet: each finding and device beside the same patient without it.

    python examples/phantom_contact_sheet.py

--smoke draws four findings into a temporary folder, for tests.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from kvlp.datasets.phantom import DEVICES, FINDINGS, Case, FindingSpec, render

_UPPER = ("lung_nodule", "lung_mass", "lung_cavity", "calcified_granuloma", "consolidation", "lung_abscess")
_LINE = 14


def example(name: str, seed: int) -> Case:
    """One patient with one finding of middle severity, easy to see; sides take turns."""
    side = "left" if seed % 2 else "right"
    if name in ("endotracheal_tube", "nasogastric_tube", "hiatal_hernia", "cardiomegaly", "scoliosis", "dextrocardia"):
        side = "midline"
    zone = "upper" if name in _UPPER else ""
    return Case(seed, seed).adding(FindingSpec(name, side, 2, "easy", zone, seed))


def sheet(names: list[str], size: int, pairs_a_row: int) -> Image.Image:
    """Pairs (with, without) in a grid with the finding's name above each."""
    width, height = 2 * size + 6, size + _LINE
    rows = -(-len(names) // pairs_a_row)
    page = Image.new("L", (pairs_a_row * width, rows * height), 24)
    pen = ImageDraw.Draw(page)
    for index, name in enumerate(names):
        left, top = index % pairs_a_row * width, index // pairs_a_row * height
        case = example(name, 40 + index)
        pen.text((left + 2, top + 1), name.replace("_", " "), fill=235)
        for k, drawn in enumerate((render(case, size), render(case.without(name), size))):
            # Fewer greys keep the file small; the eye does not see it.
            coarse = (np.round(drawn.image / 6) * 6).clip(0, 255).astype(np.uint8)
            page.paste(Image.fromarray(coarse), (left + k * (size + 1), top + _LINE))
    return page


def main() -> None:
    """Read the options and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/phantom_contact_sheet.png"))
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--smoke", action="store_true")
    options = parser.parse_args()
    if options.smoke:
        with tempfile.TemporaryDirectory() as folder:
            sheet([*FINDINGS[:4]], 64, 2).save(Path(folder) / "sheet.png")
        return
    sheet([*FINDINGS, *DEVICES], options.size, 4).save(options.out, optimize=True)
    print(options.out)


if __name__ == "__main__":
    main()
