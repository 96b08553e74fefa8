"""Subgroups: values by hand, paired resamples against a loop, hiding, gaps found and not invented."""

import math

import numpy as np
import pytest

from kvlp.errors import ConfigError, ShapeError
from kvlp.eval.gaps import gap
from kvlp.eval.grouping import countable, parse_attributes
from kvlp.eval.metrics import auc
from kvlp.eval.resampling import Clusters
from kvlp.eval.subgroups import SubgroupPlan, subgroup_figures, subgroup_rate

SMALL = SubgroupPlan(k=1, n=60)


def pick(figures, **wanted):
    rows = [f for f in figures if all(getattr(f, key) == value for key, value in wanted.items())]
    assert len(rows) == 1, f"{len(rows)} for {wanted}"
    return rows[0]


def data(seed=0, patients=60, images=2, classes=2):
    """Labels, scores, flags, attributes and patients; images of a patient share labels, sex and age, not view."""
    rng = np.random.default_rng(seed)
    who = np.repeat(np.arange(patients), images)
    y = np.repeat((rng.random((patients, classes)) < 0.4).astype(float), images, axis=0)
    y[::11, 0] = np.nan
    s = y + rng.normal(size=y.shape)
    s[np.isnan(s)] = 0.3
    sex = np.repeat(rng.choice(["female", "male"], patients), images)
    age = np.repeat(rng.choice(["0-39", "40-69", "70 and over"], patients), images)
    view = rng.choice(["AP", "PA", ""], len(who))
    return y, s, s > 0.5, {"sex": sex, "age": age, "view": view}, np.array([f"p{w}" for w in who])


def test_values_by_hand():
    y = np.array([[1, 1, 0, 0, 1, 1, 0, 0, -1]], float).T
    s = np.array([[4, 3, 2, 1, 1, 3, 2, 4, 9]], float).T
    sex = ["f"] * 4 + ["m"] * 5
    figures = subgroup_figures(y, s, s >= 3, {"sex": sex}, names=["x"], plan=SMALL)

    def value(group, metric, kind="group"):
        return pick(figures, group=group, metric=metric, kind=kind).interval.value

    assert (value("f", "auc"), value("m", "auc")) == (1.0, 0.25)
    assert (value("f", "sensitivity"), value("m", "sensitivity")) == (1.0, 0.5)
    assert (value("f", "false_positive_rate"), value("m", "false_positive_rate")) == (0.0, 0.5)
    assert value("f minus m", "auc", "gap") == 0.75
    assert value("m", "auc", "rest") == -0.75
    assert value("m minus f", "false_positive_rate", "gap") == 0.5
    assert pick(figures, group="m", metric="auc", kind="group").interval.n == 4
    assert pick(figures, group="f", metric="sensitivity", kind="group").interval.n == 2


def test_intervals_equal_a_loop_over_drawn_patients():
    y, s, flags, attributes, who = data()
    plan = SubgroupPlan(k=1, n=40, seed=3)
    figures = subgroup_figures(y, s, flags, attributes, who, names=["a", "b"], plan=plan)
    _, number = np.unique(who, return_inverse=True)
    drawn = [np.repeat(np.arange(len(who)), w[number]) for w in
             np.concatenate(list(Clusters.of(who, len(who)).counts(40, 3)), axis=1).T]  # fmt: skip
    age = np.asarray(attributes["age"])

    def measure(metric, rows, c):
        label, score, flag = y[rows, c], s[rows, c], flags[rows, c]
        if metric == "auc":
            return auc(label, score)
        about = label == (1.0 if metric == "sensitivity" else 0.0)
        return flag[about].mean() if about.any() else math.nan

    for metric in ("auc", "sensitivity", "false_positive_rate"):
        for c, name in enumerate("ab"):
            own = [measure(metric, rows[age[rows] == "40-69"], c) for rows in drawn]
            rest = [measure(metric, rows[age[rows] != "40-69"], c) for rows in drawn]
            found = pick(figures, target=name, attribute="age", group="40-69", metric=metric, kind="group").interval
            assert np.allclose((found.low, found.high), np.nanquantile(own, [0.025, 0.975]))
            against = pick(figures, target=name, attribute="age", group="40-69", metric=metric, kind="rest").interval
            assert np.allclose((against.low, against.high), np.nanquantile(np.subtract(own, rest), [0.025, 0.975]))
        mean = pick(figures, target="macro", attribute="age", group="40-69", metric=metric, kind="group").interval
        both = np.mean([[measure(metric, rows[age[rows] == "40-69"], c) for rows in drawn] for c in (0, 1)], axis=0)
        assert np.allclose((mean.low, mean.high), np.quantile(both, [0.025, 0.975]))


def test_pairs_of_attributes_have_groups_and_gaps_but_no_rest():
    y, s, flags, attributes, who = data(patients=120)
    figures = subgroup_figures(y, s, flags, attributes, who, plan=SubgroupPlan(n=30))
    assert {f.attribute for f in figures} == {
        "sex", "age", "view", "sex and age", "sex and view", "age and view"
    }  # fmt: skip
    rows = (attributes["sex"] == "male") & (attributes["view"] == "AP")
    own = pick(figures, target="1", attribute="sex and view", group="male, AP", metric="auc", kind="group").interval
    assert own.value == pytest.approx(auc(y[rows, 1], s[rows, 1]))
    assert not [f for f in figures if "and" in f.attribute and f.kind == "rest"]
    assert [f for f in figures if f.attribute == "sex and age" and f.kind == "gap"]
    alone = subgroup_figures(y, s, flags, attributes, who, plan=SubgroupPlan(n=30, pairs=False))
    assert alone == [f for f in figures if " and " not in f.attribute]


def test_a_group_without_both_labels_is_undefined_and_in_no_mean():
    y, s, flags, attributes, who = data(patients=120)
    y[attributes["sex"] == "male", 1] = 0
    figures = subgroup_figures(y, s, flags, attributes, who, names=["a", "b"], plan=SubgroupPlan(n=30))
    male = pick(figures, target="b", attribute="sex", group="male", metric="auc", kind="group").interval
    assert math.isnan(male.value)
    assert male.notes == ("undefined: one of the two labels is missing",)
    assert math.isnan(pick(figures, target="b", attribute="sex", metric="auc", kind="gap").interval.value)
    mean = pick(figures, target="macro", attribute="sex", group="male", metric="auc", kind="group").interval
    assert (
        mean.value
        == pick(figures, target="a", attribute="sex", group="male", metric="auc", kind="group").interval.value
    )
    assert mean.notes == ("classes that some group does not define, left out: b",)


def test_a_group_that_defines_few_classes_has_no_mean_and_leaves_the_others_theirs():
    y, s, flags, attributes, who = data(patients=120, classes=4)
    y[np.isnan(y)] = 0
    y[attributes["age"] == "0-39", 1:] = 0
    figures = subgroup_figures(y, s, flags, attributes, who, names=list("abcd"), plan=SubgroupPlan(n=30))
    means = {f.group: f.interval for f in figures if f.target == "macro" and f.attribute == "age" and f.metric == "auc"
             and f.kind == "group"}  # fmt: skip
    assert math.isnan(means["0-39"].value)
    assert means["0-39"].notes == ("undefined: defines too few of the classes",)
    assert means["0-39"].n_groups > 0
    old = attributes["age"] == "40-69"
    assert means["40-69"].value == pytest.approx(np.mean([auc(y[old, c], s[old, c]) for c in range(4)]))
    gap_row = pick(figures, target="macro", attribute="age", metric="auc", kind="gap")
    assert "0-39" not in gap_row.group


def test_a_figure_that_no_resample_moves_has_no_interval():
    y = np.array([[1, 0] * 8], float).T
    figures = subgroup_figures(y, y, y > 0, {"sex": ["f"] * 8 + ["m"] * 8}, plan=SMALL)
    perfect = pick(figures, group="f", metric="auc", kind="group").interval
    assert (perfect.value, math.isnan(perfect.low)) == (1.0, True)
    exact = pick(figures, group="f", metric="sensitivity", kind="group").interval
    assert (exact.low, exact.high) == (pytest.approx(0.025 ** (1 / 4)), 1.0)


def test_small_groups_are_hidden_and_cannot_be_worked_out():
    """Four patients of age 90: no figure of theirs, and no sum of told counts gives them away."""
    y, s, flags, attributes, who = data(patients=80, classes=1)
    y[np.isnan(y)] = 0
    age = np.where(np.arange(len(who)) < 8, "90 and over", attributes["age"])
    figures = subgroup_figures(y, s, flags, {"age": age, "sex": attributes["sex"]}, who, plan=SubgroupPlan(n=40))
    old = [f for f in figures if f.attribute == "age" and f.group == "90 and over"]
    assert len(old) == 3
    assert all(f.hidden and math.isnan(f.interval.value) and f.interval.n == f.interval.n_groups == 0 for f in old)
    assert old[0].interval.notes == ("hidden: fewer than 5 patients",)
    shown = [f for f in figures if f.attribute == "age" and f.metric == "auc" and f.kind == "group" and not f.hidden]
    assert sorted(f.counted for f in shown) == [False, True, True]  # the smallest keeps its count back too
    assert all(f.interval.n == 0 and f.interval.n_degenerate == 0 for f in shown if not f.counted)
    assert not any(math.isnan(f.interval.value) for f in shown)
    both = [f for f in figures if f.attribute == "age and sex"]
    assert not any(f.counted and f.interval.n for f in both)
    said = " ".join(f.interval.method + " ".join(f.interval.notes) for f in figures if not f.counted)
    assert "positives and" not in said
    assert "over " not in said.replace("over all pairs", "")


def test_exactly_k_patients_are_shown():
    age = ["old"] * 5 + ["young"] * 9
    y = np.array([[1, 0, 1, 0, 0] + [1, 0, 1] * 3], float).T
    figures = subgroup_figures(y, y, y > 0, {"age": age}, plan=SubgroupPlan(n=200))
    old = pick(figures, group="old", metric="auc", kind="group")
    assert not old.hidden
    assert (old.interval.value, old.interval.n, old.interval.n_degenerate > 0) == (1.0, 5, True)
    fewer = subgroup_figures(y[1:], y[1:], y[1:] > 0, {"age": age[1:]}, plan=SubgroupPlan(n=200))
    young = pick(fewer, group="young", metric="auc", kind="group")
    assert pick(fewer, group="old", metric="auc", kind="group").hidden
    assert (young.counted, young.interval.n, young.interval.n_degenerate) == (False, 0, 0)


def test_the_rule_of_hidden_counts():
    def told(patients, k=5, pair=False):
        sizes = np.array(patients)
        return countable(sizes, sizes < k, k, pair=pair).tolist()

    assert told([9, 7, 5]) == [True, True, True]
    assert told([50, 3, 20]) == [True, False, False]
    assert told([50, 3, 6, 20]) == [True, False, False, False]  # 6 alone could be told from 3
    assert told([50, 3, 20], pair=True) == [False, False, False]
    assert told([50, 0, 20]) == [True, False, True]  # nothing to give away


def test_a_gap_is_simultaneous_over_the_groups():
    rng = np.random.default_rng(0)
    samples = 0.8 + 0.02 * rng.normal(size=(6, 4000))
    two = gap([0.8, 0.83], samples[:2] + [[0], [0.03]])
    many = gap([0.8, 0.83, 0.81, 0.82, 0.815, 0.825], samples + np.array([[0, 0.03, 0.01, 0.02, 0.015, 0.025]]).T)
    assert (two.largest, two.smallest) == (many.largest, many.smallest) == (1, 0)
    assert two.interval.value == many.interval.value == pytest.approx(0.03)
    assert two.interval.high - 0.03 == pytest.approx(1.96 * 0.02 * math.sqrt(2), rel=0.05)
    assert many.interval.high - 0.03 == pytest.approx(2.85 * 0.02 * math.sqrt(2), rel=0.05)  # Tukey's 4.03 / sqrt(2)
    assert two.interval.p == pytest.approx(0.289, abs=0.03)
    assert many.interval.p > 0.8
    assert math.isnan(gap([0.8, math.nan], samples[:2]).interval.value)
    flat = gap([1.0, 1.0], np.ones((2, 9))).interval
    assert (flat.value, flat.notes) == (0.0, ("no interval: no resample moves it",))


def test_underdiagnosis_is_a_rate_of_the_ill():
    healthy = np.array([1, 1, 0, 0, 1, 0, 0, 0], bool)
    ill = np.array([1, 1, 1, 1, 1, 1, 1, 0], bool)
    sex = ["f"] * 4 + ["m"] * 4
    figures = subgroup_rate(healthy, ill, {"sex": sex}, target="No Finding", metric="underdiagnosis", plan=SMALL)
    values = {(f.group, f.kind): f.interval.value for f in figures}
    assert values["f", "group"] == 0.5
    assert values["m", "group"] == pytest.approx(1 / 3)
    assert values["f minus m", "gap"] == pytest.approx(1 / 6)
    assert pick(figures, group="m", kind="group").interval.n == 3


def test_wrong_arrays_are_refused():
    y, s, flags, attributes, who = data()
    with pytest.raises(ShapeError, match=r"must all have shape \(N, C\)"):
        subgroup_figures(y, s[:, :1], flags, attributes, who)
    with pytest.raises(ShapeError, match="attribute 'sex' must have shape"):
        subgroup_figures(y, s, flags, {"sex": ["f"]}, who)
    with pytest.raises(ShapeError, match="event and about"):
        subgroup_rate([True], [True, False], attributes, target="t", metric="m")
    with pytest.raises(ConfigError, match="k is 0"):
        subgroup_figures(y, s, flags, attributes, who, plan=SubgroupPlan(k=0))
    assert list(parse_attributes({"sex": ["f"] * 3, "age": ["", "", "9"]}, 3)) == []  # one group is no attribute


def planted(seed, strong, weak, patients=500):
    """Two sexes of the same prevalence, one image a patient, with normal scores of these two true AUCs."""
    from statistics import NormalDist

    rng = np.random.default_rng(seed)
    sex = np.repeat(["female", "male"], patients)
    y = (rng.random(2 * patients) < 0.4).astype(float)
    lift = [math.sqrt(2) * NormalDist().inv_cdf(a) for a in (strong, weak)]
    s = y * np.repeat(lift, patients) + rng.normal(size=2 * patients)
    return y[:, None], s[:, None], (s > 0.6)[:, None], {"sex": sex}


@pytest.mark.slow
def test_a_planted_gap_of_ten_points_is_found_and_none_is_invented():
    """AUC 0.85 and 0.75, 500 patients each: in at least 80 % of 200 data sets the interval of the gap is above 0."""

    def found(seed, strong, weak):
        figures = subgroup_figures(*planted(seed, strong, weak), plan=SubgroupPlan(n=400))
        interval = pick(figures, metric="auc", kind="gap").interval
        return interval.low > 0 and interval.p < 0.05

    power = np.mean([found(seed, 0.85, 0.75) for seed in range(200)])
    false_alarms = np.mean([found(1000 + seed, 0.8, 0.8) for seed in range(400)])
    print(f"power {power:.3f}, false alarms {false_alarms:.3f}")
    assert power >= 0.8
    assert false_alarms <= 0.08  # 5 % and two and a half errors of 400 data sets
