"""Planted packages and one import of them, made once."""

import numpy as np
import pytest

from kvlp.datasets.figures.importing import import_figures
from kvlp.datasets.figures.modality import KINDS
from kvlp.datasets.figures.options import FigureOptions
from kvlp.datasets.figures.planted.layouts import Look
from kvlp.datasets.figures.planted.packages import article_files, plant_figure, write_package

LOOKS = {
    "F1": Look("2x2", ground="white", letters="inside", width=400),
    "F2": Look("big left", ground="grey", letters="inside boxed", width=400),
}
LICENCES = {
    "PMC1": "https://creativecommons.org/licenses/by/4.0/",
    "PMC2": "https://creativecommons.org/licenses/by-nc-nd/4.0/",
    "PMC3": "https://creativecommons.org/publicdomain/zero/1.0/",
}


@pytest.fixture(scope="session")
def planted(tmp_path_factory):
    """A folder with three packages, one of them unpacked, and article -> figure -> what was planted."""
    folder = tmp_path_factory.mktemp("packages")
    truth = {}
    for number, (name, licence) in enumerate(LICENCES.items()):
        rng = np.random.default_rng([5, number])
        truth[name] = {figure: plant_figure(rng, look=look, style="(A) X. (B) Y.") for figure, look in LOOKS.items()}
        write_package(folder, name, article_files(name, truth[name], licence), packed=name != "PMC2")
    return folder, truth


@pytest.fixture(scope="session")
def imported(planted, tmp_path_factory):
    """The folder of an import of the planted packages, and its report."""
    out = tmp_path_factory.mktemp("out")
    return out, import_figures([planted[0]], out, FigureOptions(ocr="none", keep=KINDS))
