"""Which painter draws which finding, and what a mask shows."""

from collections.abc import Callable

import numpy as np

from kvlp.datasets.phantom import findings_chest, findings_lung
from kvlp.datasets.phantom.anatomy import Scene
from kvlp.datasets.phantom.cases import FindingSpec
from kvlp.datasets.phantom.fields import Field, step, stream
from kvlp.datasets.phantom.lists import FINDINGS, SHAPED

__all__ = ["paint", "structure"]

Painter = Callable[[Scene, FindingSpec, np.random.Generator], Field]

#: A painter adds its finding to the scene and returns where, as a field that is zero elsewhere.
PAINTERS: dict[str, Painter] = {
    "pleural_effusion": findings_chest.pleural_effusion,
    "pneumothorax": findings_chest.pneumothorax,
    "hydropneumothorax": findings_chest.hydropneumothorax,
    "pleural_thickening": findings_chest.pleural_thickening,
    "pneumoperitoneum": findings_chest.pneumoperitoneum,
    "hiatal_hernia": findings_chest.hiatal_hernia,
    "subcutaneous_emphysema": findings_chest.subcutaneous_emphysema,
    "rib_fracture": findings_chest.rib_fracture,
    "enlarged_hilum": findings_chest.enlarged_hilum,
    "bilateral_hilar_lymphadenopathy": findings_chest.bilateral_hilar_lymphadenopathy,
    "consolidation": findings_lung.consolidation,
    "atelectasis": findings_lung.atelectasis,
    "pulmonary_edema": findings_lung.pulmonary_edema,
    "lung_nodule": findings_lung.lung_nodule,
    "lung_mass": findings_lung.lung_mass,
    "interstitial_opacities": findings_lung.interstitial_opacities,
    "lung_cavity": findings_lung.lung_cavity,
    "lung_abscess": findings_lung.lung_abscess,
    "miliary_pattern": findings_lung.miliary_pattern,
    "bulla": findings_lung.bulla,
    "calcified_granuloma": findings_lung.calcified_granuloma,
}


def paint(scene: Scene, spec: FindingSpec) -> Field:
    """Draw one finding into the scene; findings that change shape are in the anatomy already."""
    if spec.id in SHAPED:
        return np.zeros_like(scene.x)
    return PAINTERS[spec.id](scene, spec, stream(spec.seed, "paint"))


def structure(scene: Scene, name: str, alpha: Field) -> Field:
    """What to show as the finding's place: its own field, or the structure whose shape it changed."""
    if name not in SHAPED:
        return alpha
    spec, y = scene.case.findings[name], scene.y
    match name:
        case "cardiomegaly" | "dextrocardia":
            return scene.heart
        case "hyperinflation":
            return scene.lung
        case "mediastinal_shift":
            return scene.middle
        case "aortic_enlargement":
            return scene.middle * step(0.52 - y, 0.01) * step(y - 0.2, 0.01)
        case "scoliosis":
            return step(0.04 - np.abs(scene.x - scene.spine()), scene.edge)
        case _:
            dome = scene.diaphragm()
            return scene.on(spec.signs[0]) * step(y - dome + 0.012, 0.01) * step(dome + 0.1 - y, 0.01)


missing = [name for name in FINDINGS if name not in SHAPED and name not in PAINTERS]
if missing:
    raise RuntimeError(f"the phantom has no painter for {missing}")
