"""Figures at a threshold and the choice of one: hand values, loops over thresholds, scikit-learn."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvlp.errors import ConfigError, DataError, ShapeError
from kvlp.eval.operating import (
    POINT_METRICS,
    choose_threshold,
    choose_thresholds,
    confusion,
    f1,
    mcc,
    npv,
    ppv,
    sensitivity,
    specificity,
)

NAN = math.nan
Y = [1, 1, 1, 0, 0, 0, 0, NAN, -1]
S = [0.9, 0.6, 0.2, 0.7, 0.5, 0.3, 0.1, 0.8, 0.8]

labelled = st.lists(st.tuples(st.integers(0, 1), st.integers(-4, 4)), min_size=4, max_size=40).filter(
    lambda rows: {y for y, _ in rows} == {0, 1}
)


def test_by_hand():
    at = confusion(Y, S, 0.5)
    assert (at.tp, at.fp, at.fn, at.tn, at.n) == (2, 2, 1, 2, 7)
    assert at.sensitivity == sensitivity(Y, S, 0.5) == pytest.approx(2 / 3)
    assert at.specificity == specificity(Y, S, 0.5) == pytest.approx(1 / 2)
    assert at.ppv == ppv(Y, S, 0.5) == pytest.approx(2 / 4)
    assert at.npv == npv(Y, S, 0.5) == pytest.approx(2 / 3)
    assert at.f1 == f1(Y, S, 0.5) == pytest.approx(4 / 7)
    assert at.mcc == mcc(Y, S, 0.5) == pytest.approx((2 * 2 - 2 * 1) / math.sqrt(4 * 3 * 4 * 3))
    assert at.youden == pytest.approx(2 / 3 + 1 / 2 - 1)


@given(labelled, st.integers(-5, 5))
def test_scikit_learn_agrees(rows, threshold):
    from sklearn.metrics import confusion_matrix, f1_score, matthews_corrcoef, precision_score, recall_score

    y, s = np.array(rows).T
    flagged = s >= threshold
    at = confusion(y, s, threshold)
    assert [at.tn, at.fp, at.fn, at.tp] == confusion_matrix(y, flagged, labels=[0, 1]).ravel().tolist()
    assert at.f1 == pytest.approx(f1_score(y, flagged), abs=1e-12)
    assert at.mcc == pytest.approx(matthews_corrcoef(y, flagged), abs=1e-12)
    assert at.sensitivity == pytest.approx(recall_score(y, flagged), abs=1e-12)
    assert at.specificity == pytest.approx(recall_score(1 - y, ~flagged), abs=1e-12)
    if flagged.any():
        assert at.ppv == pytest.approx(precision_score(y, flagged), abs=1e-12)
    if not flagged.all():
        assert at.npv == pytest.approx(precision_score(1 - y, ~flagged), abs=1e-12)


def test_what_the_labels_do_not_define_is_nan_and_never_zero():
    none, every = confusion([0, 0], [1, 2], 1.5), confusion([1, 1], [1, 2], 1.5)
    assert all(math.isnan(v) for v in (none.sensitivity, none.f1, none.mcc, none.youden))
    assert none.specificity == 0.5
    assert all(math.isnan(v) for v in (every.specificity, every.mcc, every.youden))
    assert every.f1 == pytest.approx(2 / 3)
    silent = confusion([1, 0], [1, 2], 9)
    assert math.isnan(silent.ppv)
    assert (silent.f1, silent.mcc, silent.npv) == (0.0, 0.0, 0.5)
    assert math.isnan(confusion([1, 0], [1, 2], -9).npv)


def test_counts_may_be_arrays_and_large():
    counts = (np.array([2.0, 0.0]), np.array([2.0, 0.0]), np.array([1.0, 0.0]), np.array([2.0, 5.0]))
    for name, function in POINT_METRICS.items():
        values = function(*counts)
        assert values[0] == getattr(confusion(Y, S, 0.5), name)
        assert math.isnan(values[1]) == (name not in ("specificity", "npv"))
    big = POINT_METRICS["mcc"](4e5, 0.0, 0.0, 6e5)
    assert float(big) == pytest.approx(1.0)


@given(labelled)
def test_a_chosen_threshold_does_as_well_as_any(rows):
    y, s = np.array(rows).T
    for rule in ("youden", "f1", "mcc"):
        point = choose_threshold(y, s, rule)
        values = {t: getattr(confusion(y, s, t), rule) for t in sorted(set(s.tolist()))}
        best = max(values.values())
        assert getattr(point.validation, rule) == pytest.approx(best, abs=1e-12)
        assert point.threshold == max(t for t, v in values.items() if v == best)


@given(labelled, st.sampled_from([0.3, 0.5, 0.75, 0.9, 1.0]))
def test_targets_are_reached_and_no_more_than_needed(rows, target):
    y, s = np.array(rows).T
    thresholds = [*sorted(set(s.tolist())), np.nextafter(s.max(), np.inf)]
    sensitive = choose_threshold(y, s, f"sensitivity {target}")
    assert sensitive.validation.sensitivity >= target
    assert sensitive.threshold == max(t for t in thresholds if confusion(y, s, t).sensitivity >= target)
    specific = choose_threshold(y, s, f"specificity {target}")
    assert specific.validation.specificity >= target
    assert specific.threshold == min(t for t in thresholds if confusion(y, s, t).specificity >= target)


def test_choice_by_hand():
    y, s = [1, 1, 0, 1, 0, 0], [6, 5, 4, 3, 2, 1]
    assert choose_threshold(y, s).threshold == 5  # 2/3 + 1 - 1; at 3: 1 + 2/3 - 1; the higher one counts
    assert choose_threshold(y, s, "f1").threshold == 3  # 6/7 against 4/5
    assert choose_threshold(y, s, "sensitivity 0.95").threshold == 3
    assert choose_threshold(y, s, "specificity 0.6").threshold == 3
    assert choose_threshold(y, s, "specificity 1").threshold == 5
    top = choose_threshold([0, 1], [2, 1], "specificity 0.9")
    assert 2 < top.threshold < 2.001
    assert top.validation.specificity == 1.0
    given_ = choose_threshold(y, s, 4)
    assert (given_.threshold, given_.rule, given_.validation.fp) == (4.0, "given", 1)


def test_several_classes_name_those_without_a_threshold():
    y = np.array([[1, 1, NAN], [0, 1, 1], [1, -1, 0], [0, 1, 1.0]])
    s = np.array([[4, 1, 9], [3, 2, 3], [2, 3, 1], [1, 4, 2.0]])
    table = choose_thresholds(y, s, "f1", names=["a", "b", "c"])
    assert table.undefined == ("b",)
    assert table.points["a"] == choose_threshold(y[:, 0], s[:, 0], "f1")
    assert table.points["c"].threshold == 2
    assert set(choose_thresholds(y, s).points) == {"0", "2"}


@pytest.mark.parametrize(
    "rule", ["youdens", "sensitivity", "sensitivity 95", "sensitivity 0", "f1 0.5", "specificity x"]
)
def test_unknown_rules_are_named(rule):
    with pytest.raises(ConfigError, match=r"expected 'youden', 'f1', 'mcc', 'sensitivity 0\.95'"):
        choose_threshold(Y, S, rule)


def test_wrong_input_is_named():
    with pytest.raises(DataError, match="it has 2 present and 0 absent"):
        choose_threshold([1, 1, NAN], [1, 2, 3], "mcc")
    with pytest.raises(ConfigError, match="threshold is NaN"):
        confusion(Y, S, NAN)
    with pytest.raises(ShapeError, match=r"\(N, C\)"):
        choose_thresholds(Y, S)
    with pytest.raises(ShapeError, match="2 different class names"):
        choose_thresholds(np.ones((3, 2)), np.ones((3, 2)), names=["a", "a"])
