"""What the phantom can show: the finding lists, their rates, and what may stand beside what.

Seen findings are named in reports. Unseen ones are drawn and described, never named; the final list stays
untouched until final scoring. Devices come and go independently of disease.
"""

from typing import Final

PHANTOM_VERSION: Final = "1.5"

#: Findings that reports name.
SEEN: Final[tuple[str, ...]] = (
    "cardiomegaly",
    "pleural_effusion",
    "pneumothorax",
    "consolidation",
    "atelectasis",
    "pulmonary_edema",
    "lung_nodule",
    "lung_mass",
    "hyperinflation",
    "rib_fracture",
    "hiatal_hernia",
    "interstitial_opacities",
    "pleural_thickening",
    "enlarged_hilum",
    "subcutaneous_emphysema",
)
#: Findings that reports describe in the graph's words and never name.
UNSEEN: Final[tuple[str, ...]] = (
    "hydropneumothorax",
    "lung_cavity",
    "miliary_pattern",
    "mediastinal_shift",
    "pneumoperitoneum",
    "elevated_hemidiaphragm",
)
#: As UNSEEN, kept for final scoring.
UNSEEN_FINAL: Final[tuple[str, ...]] = (
    "bulla",
    "calcified_granuloma",
    "dextrocardia",
    "bilateral_hilar_lymphadenopathy",
    "aortic_enlargement",
    "lung_abscess",
    "scoliosis",
)
#: Devices that reports name.
DEVICES: Final[tuple[str, ...]] = (
    "pacemaker",
    "endotracheal_tube",
    "central_venous_catheter",
    "nasogastric_tube",
)
ALL_UNSEEN: Final = UNSEEN + UNSEEN_FINAL
FINDINGS: Final = SEEN + UNSEEN + UNSEEN_FINAL
#: Label columns of a manifest, in order.
LABELS: Final = FINDINGS + DEVICES

#: Findings that change the patient's shape rather than add a spot.
SHAPED: Final[frozenset[str]] = frozenset(
    {
        "cardiomegaly",
        "hyperinflation",
        "mediastinal_shift",
        "elevated_hemidiaphragm",
        "dextrocardia",
        "aortic_enlargement",
        "scoliosis",
    }
)
#: Findings that a patient keeps from one study to the next.
CHRONIC: Final[frozenset[str]] = frozenset(
    {"hyperinflation", "hiatal_hernia", "dextrocardia", "aortic_enlargement", "scoliosis", "calcified_granuloma"}
)

#: A drawn finding (key) looks partly like these: a picture with the key is scored neither for nor against them
#: (the label is left blank), unless they are drawn too; and its report does not negate them.
LOOKS_LIKE: Final[dict[str, frozenset[str]]] = {
    "hydropneumothorax": frozenset({"pleural_effusion", "pneumothorax"}),
    "lung_cavity": frozenset({"lung_nodule", "lung_mass", "lung_abscess"}),
    "lung_abscess": frozenset({"lung_nodule", "lung_mass", "consolidation", "lung_cavity"}),
    "calcified_granuloma": frozenset({"lung_nodule"}),
    "miliary_pattern": frozenset({"lung_nodule", "interstitial_opacities"}),
    "bilateral_hilar_lymphadenopathy": frozenset({"enlarged_hilum", "lung_mass"}),
    "lung_mass": frozenset({"lung_nodule"}),
}

#: Chance that a study that is not normal gets the finding, before side and room are settled.
RATES: Final[dict[str, float]] = {
    "cardiomegaly": 0.155,
    "pleural_effusion": 0.13,
    "pneumothorax": 0.155,
    "consolidation": 0.14,
    "atelectasis": 0.14,
    "pulmonary_edema": 0.115,
    "lung_nodule": 0.135,
    "lung_mass": 0.125,
    "hyperinflation": 0.145,
    "rib_fracture": 0.12,
    "hiatal_hernia": 0.125,
    "interstitial_opacities": 0.15,
    "pleural_thickening": 0.14,
    "enlarged_hilum": 0.145,
    "subcutaneous_emphysema": 0.11,
    "hydropneumothorax": 0.095,
    "lung_cavity": 0.1,
    "miliary_pattern": 0.097,
    "mediastinal_shift": 0.112,
    "pneumoperitoneum": 0.1,
    "elevated_hemidiaphragm": 0.105,
    "bulla": 0.1,
    "calcified_granuloma": 0.1,
    "dextrocardia": 0.097,
    "bilateral_hilar_lymphadenopathy": 0.1,
    "aortic_enlargement": 0.1,
    "lung_abscess": 0.1,
    "scoliosis": 0.112,
}
#: Share of studies without any finding by design (chance adds a few).
NORMAL_SHARE: Final = 0.19
#: Chance of a device by view (PA, AP, AP supine); it never looks at disease.
DEVICE_RATES: Final[dict[str, tuple[float, float, float]]] = {
    "pacemaker": (0.10, 0.10, 0.10),
    "endotracheal_tube": (0.02, 0.12, 0.28),
    "central_venous_catheter": (0.06, 0.14, 0.22),
    "nasogastric_tube": (0.03, 0.12, 0.26),
}
VIEWS: Final[tuple[str, ...]] = ("PA", "AP", "AP supine")
VIEW_RATES: Final[tuple[float, ...]] = (0.5, 0.3, 0.2)
