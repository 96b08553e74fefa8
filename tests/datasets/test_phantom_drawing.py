"""The phantom's pictures: what is drawn, where, and that nothing else moves."""

from dataclasses import replace

import numpy as np
import pytest

from kvlp.datasets.phantom import (
    DEVICES,
    FINDINGS,
    PHANTOM_VERSION,
    SEEN,
    UNSEEN,
    UNSEEN_FINAL,
    Case,
    FindingSpec,
    phantom_hash,
    render,
    sample_case,
)
from kvlp.datasets.phantom.anatomy import Scene
from kvlp.datasets.phantom.lists import SHAPED
from kvlp.errors import ConfigError

#: Change it together with PHANTOM_VERSION, and never between two models that are compared.
FROZEN = {"1.5": "4498612d88123bfc95a3683abcc99a3b9685154ea5f6eda71acbbbdd64c4c4d4"}

SIDED = ("left", "right")


ZONED = ("lung_nodule", "lung_mass", "lung_cavity", "lung_abscess", "calcified_granuloma", "consolidation")


def spec_of(name: str, *, side: str = "left", severity: int = 2, difficulty: str = "easy") -> FindingSpec:
    return FindingSpec(name, side, severity, difficulty, "mid" if name in ZONED else "", 11)


def patient(seed: int = 3, view: str = "PA") -> Case:
    return Case(seed, seed, view)


@pytest.fixture(scope="module")
def sampled() -> list[Case]:
    rng = np.random.default_rng(1)
    return [sample_case(rng) for _ in range(2500)]


def grey(case: Case, size: int = 96) -> np.ndarray:
    return render(case, size).image.astype(int)


def test_lists_are_disjoint_and_long_enough():
    assert len({*SEEN, *UNSEEN, *UNSEEN_FINAL, *DEVICES}) == len(SEEN) + len(UNSEEN) + len(UNSEEN_FINAL) + len(DEVICES)
    assert len(SEEN) >= 14
    assert len(UNSEEN) >= 5
    assert len(UNSEEN_FINAL) >= 5


@pytest.mark.parametrize("name", FINDINGS)
@pytest.mark.parametrize("difficulty", ["easy", "hard"])
def test_every_finding_is_visible(name, difficulty):
    case = patient()
    drawn = render(case.adding(spec_of(name, difficulty=difficulty)))
    change = np.abs(drawn.image.astype(int) - grey(case))
    # Twelve grey levels on a few pixels: above the grain, so a person sees it.
    assert (change > 12).sum() >= (6 if difficulty == "easy" else 3)
    x0, y0, x1, y1 = drawn.boxes[name]
    assert 0 <= x0 < x1 <= 96
    assert 0 <= y0 < y1 <= 96


@pytest.mark.parametrize("name", [n for n in FINDINGS + DEVICES if n not in SHAPED and n != "atelectasis"])
def test_taking_a_finding_away_changes_nothing_outside_its_mask(name):
    case = sample_case(np.random.default_rng(5), view="AP")
    case = replace(case, findings={k: v for k, v in case.findings.items() if k != name})
    case = case.adding(spec_of(name, difficulty="medium"))
    drawn = render(case)
    change = drawn.image != render(case.without(name)).image
    assert change.any()
    assert not (change & ~drawn.masks[name]).any()


def test_enlarged_heart_changes_only_the_heart():
    case = patient().adding(spec_of("cardiomegaly", severity=3))
    drawn = render(case)
    change = drawn.image != grey(case.without("cardiomegaly"))
    assert (change & drawn.masks["cardiomegaly"]).sum() > 0.9 * change.sum()


def test_adding_one_finding_leaves_the_others_where_they_were():
    base = patient().adding(spec_of("lung_nodule", side="right"))
    more = base.adding(spec_of("pleural_effusion")).adding(FindingSpec("pacemaker", "left", seed=4))
    assert render(base).boxes["lung_nodule"] == render(more).boxes["lung_nodule"]


@pytest.mark.parametrize(
    "name", ["pleural_effusion", "pneumothorax", "consolidation", "lung_mass", "hydropneumothorax"]
)
def test_the_patients_left_is_at_the_pictures_right(name):
    case = patient()
    for side in SIDED:
        change = np.abs(grey(case.adding(spec_of(name, side=side))) - grey(case)).sum(axis=0)
        right_half = change[48:].sum() / change.sum()
        assert right_half > 0.9 if side == "left" else right_half < 0.1


def test_signs_of_density():
    """Fluid and masses whiten, free air and hyperinflation darken."""
    case = patient()
    for name, sign in {
        "pleural_effusion": 1,
        "consolidation": 1,
        "lung_mass": 1,
        "pulmonary_edema": 1,
        "pneumothorax": -1,
        "bulla": -1,
        "pneumoperitoneum": -1,
        "subcutaneous_emphysema": -1,
        "hyperinflation": -1,
    }.items():
        change = grey(case.adding(spec_of(name))) - grey(case)
        assert np.sign(change.sum()) == sign, name


def test_effusion_grows_with_severity():
    case = patient()
    areas = [
        render(case.adding(spec_of("pleural_effusion", severity=s))).masks["pleural_effusion"].sum() for s in (1, 2, 3)
    ]
    assert areas[0] < areas[1] < areas[2]


def test_harder_is_fainter():
    case = patient()
    change = {
        d: np.abs(grey(case.adding(spec_of("lung_mass", difficulty=d))) - grey(case)).max() for d in ("easy", "hard")
    }
    assert change["hard"] < change["easy"]


def test_hydropneumothorax_has_a_straight_level_and_effusion_a_curve():
    def top_of_white(name: str) -> np.ndarray:
        """In each column over the lung, how far up the white that starts at the diaphragm reaches."""
        lung = Scene(patient(), 128).lung > 0.9
        white = grey(patient().adding(spec_of(name, side="right")), 128) - grey(patient(), 128) > 25
        tops = []
        for column in range(22, 48):
            rows = np.flatnonzero(lung[:, column])[::-1]
            dark = np.flatnonzero(~white[rows, column])
            tops.append(rows[dark[0]])
        return np.array(tops)

    assert np.ptp(top_of_white("hydropneumothorax")) <= 2
    assert np.ptp(top_of_white("pleural_effusion")) > 4


def test_effusion_is_a_veil_when_supine():
    upright = grey(patient().adding(spec_of("pleural_effusion"))) - grey(patient())
    supine = patient(view="AP supine")
    veil = grey(supine.adding(spec_of("pleural_effusion"))) - grey(supine)
    upper_left = (slice(25, 45), slice(58, 80))
    assert abs(upright[upper_left].mean()) < 1
    assert veil[upper_left].mean() > 8


def test_heart_and_shift_are_where_they_should_be():
    def heart_middle(case: Case) -> float:
        scene = Scene(case, 96)
        return float((scene.heart * scene.x).sum() / scene.heart.sum())

    base = patient()
    assert heart_middle(base) > 0.52
    assert heart_middle(base.adding(spec_of("dextrocardia"))) < 0.48
    assert heart_middle(base.adding(spec_of("mediastinal_shift", side="right"))) < heart_middle(base) - 0.04
    assert heart_middle(base.adding(spec_of("mediastinal_shift", side="left"))) > heart_middle(base) + 0.04


def test_cardiothoracic_ratio_crosses_one_half():
    def ratio(case: Case) -> float:
        scene = Scene(case, 256)
        columns = np.flatnonzero((scene.heart > 0.5).any(axis=0))
        chest = np.flatnonzero((scene.cage > 0.5).any(axis=0))
        return float((columns[-1] - columns[0]) / (chest[-1] - chest[0]))

    for seed in range(8):
        assert ratio(patient(seed)) < 0.52
        assert ratio(patient(seed).adding(spec_of("cardiomegaly"))) > 0.54


def test_same_geometry_at_other_sizes():
    case = patient().adding(spec_of("lung_mass"))
    small, large = render(case, 96), render(case, 384)
    scaled = large.image.reshape(96, 4, 96, 4).mean(axis=(1, 3))
    inside = (slice(12, 84), slice(12, 84))
    assert np.corrcoef(scaled[inside].ravel(), small.image[inside].ravel())[0, 1] > 0.97
    assert np.abs(np.array(large.boxes["lung_mass"]) / 4 - small.boxes["lung_mass"]).max() <= 2


def test_synthetic_is_burnt_in_the_same_place_with_and_without_disease():
    sick = patient().adding(spec_of("pleural_effusion", severity=3)).adding(spec_of("pneumoperitoneum"))
    for size in (96, 512):
        strip = (slice(-max(5, size // 20), None), slice(int(size * 0.3), int(size * 0.7)))
        a, b = render(patient(), size).image[strip], render(sick, size).image[strip]
        assert ((a == 190) == (b == 190)).all()
        assert (a == 190).sum() > 45


def test_devices_and_views_are_independent_of_disease(sampled):
    cases = sampled
    sick = np.array([bool(c.findings) for c in cases])
    for name in DEVICES:
        has = np.array([name in c.devices for c in cases])
        p = has.mean()
        spread = np.sqrt(p * (1 - p) * (1 / sick.sum() + 1 / (~sick).sum()))
        assert abs(has[sick].mean() - has[~sick].mean()) < 4 * spread, name
    supine = np.array([c.view == "AP supine" for c in cases])
    assert abs(supine[sick].mean() - supine[~sick].mean()) < 0.06


def test_rates_are_as_planned(sampled):
    cases = sampled
    rate = {name: np.mean([name in c.findings for c in cases]) for name in FINDINGS}
    assert all(0.075 <= rate[n] <= 0.145 for n in SEEN), rate
    assert all(0.06 <= rate[n] <= 0.105 for n in UNSEEN + UNSEEN_FINAL), rate
    assert 0.16 <= np.mean([not c.findings for c in cases]) <= 0.25


def test_second_study_keeps_what_is_chronic():
    for i in range(150):
        rng = np.random.default_rng(i)
        first = sample_case(rng)
        second = sample_case(rng, previous=first)
        for name in ("scoliosis", "dextrocardia", "hiatal_hernia"):
            assert first.findings.get(name) == second.findings.get(name)
        assert ("pacemaker" in first.devices) == ("pacemaker" in second.devices)
        assert second.patient_seed == first.patient_seed


def test_labels_say_what_is_drawn_and_stay_silent_on_look_alikes():
    labels = patient().adding(spec_of("hydropneumothorax")).labels
    assert labels["hydropneumothorax"] == 1
    assert "pleural_effusion" not in labels
    assert "pneumothorax" not in labels
    assert labels["lung_nodule"] == 0
    both = patient().adding(spec_of("hydropneumothorax")).adding(spec_of("pleural_effusion", side="right"))
    assert both.labels["pleural_effusion"] == 1
    assert set(patient().labels) == {*FINDINGS, *DEVICES}
    assert not any(patient().labels.values())


def test_bad_specs_are_named():
    with pytest.raises(ConfigError, match="draws no 'pneumonia'"):
        FindingSpec("pneumonia")
    with pytest.raises(ConfigError, match=r"severity 1\.\.3"):
        FindingSpec("bulla", "left", 4)
    with pytest.raises(ConfigError, match="expected side"):
        FindingSpec("bulla", "up")
    with pytest.raises(ConfigError, match="has no 'bulla' to take away"):
        patient().without("bulla")
    with pytest.raises(ConfigError, match="64 to 2048"):
        render(patient(), 32)


def test_frozen():
    """The look, labels and wording of this version: a change needs a new PHANTOM_VERSION and a new hash here."""
    assert phantom_hash() == FROZEN[PHANTOM_VERSION]
