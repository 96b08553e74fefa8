"""Metrics against hand-computed values, slow loops over pairs, and scikit-learn."""

import math
import subprocess
import sys

import numpy as np
import pytest

from kvlp.errors import DataError, ShapeError
from kvlp.eval.metrics import auc, average_precision, known_rows, macro, precision_recall_curve, roc_curve

NAN = math.nan
HAND_Y = [1, 1, 1, 1, 0, 0, 0, 0, 0]
HAND_S = [0.9, 0.8, 0.4, 0.35, 0.7, 0.4, 0.3, 0.2, 0.1]


def cases(count: int = 25):
    """Random labels and scores, half of them with many ties."""
    rng = np.random.default_rng(1)
    for i in range(count):
        size = int(rng.integers(5, 200))
        y = np.r_[1.0, 0.0, rng.random(size) < rng.uniform(0.05, 0.9)]
        s = rng.normal(size=size + 2) + y
        yield y, np.round(s) if i % 2 else s


def pairwise_auc(y, s):
    """The definition, pair by pair."""
    wins = [(a > b) + 0.5 * (a == b) for a in s[y == 1] for b in s[y == 0]]
    return sum(wins) / len(wins)


def test_auc_by_hand():
    assert auc(HAND_Y, HAND_S) == pytest.approx(33 / 40, abs=1e-15)
    assert auc([0, 1], [0.1, 0.2]) == 1.0
    assert auc([0, 1], [0.2, 0.1]) == 0.0
    assert auc([0, 1], [0.2, 0.2]) == 0.5


def test_auc_equals_the_definition_and_scikit_learn():
    from sklearn.metrics import roc_auc_score

    for y, s in cases():
        assert auc(y, s) == pytest.approx(pairwise_auc(y, s), abs=1e-12)
        assert auc(y, s) == pytest.approx(roc_auc_score(y, s), abs=1e-12)


def test_auc_turns_round_with_the_sign_and_ignores_monotone_transforms():
    for y, s in cases(8):
        assert auc(y, -s) == pytest.approx(1 - auc(y, s), abs=1e-12)
        assert auc(1 - y, s) == pytest.approx(1 - auc(y, s), abs=1e-12)
        assert auc(y, np.arctan(s) * 3 + 5) == pytest.approx(auc(y, s), abs=1e-12)


def test_average_precision_by_hand_and_against_scikit_learn():
    from sklearn.metrics import average_precision_score

    # ranks: 1 0 1 1 0 -> (1/1 + 2/3 + 3/4) / 3
    assert average_precision([1, 0, 1, 1, 0], [5, 4, 3, 2, 1]) == pytest.approx((1 + 2 / 3 + 3 / 4) / 3, abs=1e-15)
    assert average_precision([1, 0, 0, 0], [7, 7, 7, 7]) == pytest.approx(0.25, abs=1e-15)
    for y, s in cases():
        assert average_precision(y, s) == pytest.approx(average_precision_score(y, s), abs=1e-12)


def test_curves_equal_scikit_learn():
    from sklearn.metrics import precision_recall_curve as sk_pr
    from sklearn.metrics import roc_curve as sk_roc

    for y, s in cases(10):
        for ours, theirs in zip(roc_curve(y, s), sk_roc(y, s, drop_intermediate=False), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-12)
        precision, recall, thresholds = precision_recall_curve(y, s)
        sk_precision, sk_recall, sk_thresholds = sk_pr(y, s)
        np.testing.assert_allclose(precision[::-1], sk_precision[:-1], atol=1e-12)
        np.testing.assert_allclose(recall[::-1], sk_recall[:-1], atol=1e-12)
        np.testing.assert_allclose(thresholds[::-1], sk_thresholds, atol=0)


def test_area_under_the_curve_points_is_the_auc():
    for y, s in cases(8):
        fpr, tpr, _ = roc_curve(y, s)
        assert np.sum(np.diff(fpr) * (tpr[1:] + tpr[:-1]) / 2) == pytest.approx(auc(y, s), abs=1e-12)


def test_uncertain_and_unmentioned_rows_are_left_out_not_absent():
    y = [1, NAN, 0, -1, 1, 0]
    s = [0.9, 0.95, 0.3, 0.99, 0.2, 0.1]
    assert auc(y, s) == auc([1, 0, 1, 0], [0.9, 0.3, 0.2, 0.1]) == 0.75
    assert auc(y, s) != auc([1, 0, 0, 0, 1, 0], s)
    positive, scores, rows = known_rows(y, s)
    assert positive.tolist() == [True, False, True, False]
    assert rows.tolist() == [0, 2, 4, 5]
    assert scores.tolist() == [0.9, 0.3, 0.2, 0.1]


def test_a_missing_class_is_undefined_and_named_never_zero():
    for y in ([1, 1, 1], [0, 0, 0], [NAN, 1, -1], []):
        assert math.isnan(auc(y, np.arange(len(y))))
        assert math.isnan(average_precision(y, np.arange(len(y))))
    mean = macro({"effusion": 0.9, "bulla": NAN, "edema": 0.7})
    assert mean.value == pytest.approx(0.8)
    assert mean.undefined == ("bulla",)
    assert math.isnan(macro([NAN, NAN]).value)
    assert macro([NAN, NAN]).undefined == ("0", "1")


def test_a_score_that_is_nan_is_an_error_where_the_label_is_known():
    assert auc([1, 0, NAN], [0.5, 0.1, NAN]) == 1.0
    with pytest.raises(DataError, match=r"y_score\[1\] is NaN"):
        auc([1, 0, NAN], [0.5, NAN, 0.3])


@pytest.mark.parametrize(
    ("y", "s", "error", "message"),
    [
        ([1, 2], [0, 1], DataError, r"y_true\[1\] is 2"),
        ([1, 0], [0.1], ShapeError, r"\(2,\) and \(1,\)"),
        ([[1, 0]], [[0.1, 0.2]], ShapeError, "auc_table"),
        (["present", "absent"], [0, 1], DataError, "must hold numbers"),
    ],
)
def test_wrong_input_is_named(y, s, error, message):
    with pytest.raises(error, match=message):
        auc(y, s)


def test_the_leaves_load_numpy_only():
    code = (
        "import sys, kvlp.eval, kvlp.eval.metrics, kvlp.eval.intervals, kvlp.eval.retrieval, kvlp.eval.results\n"
        "kvlp.eval.auc, kvlp.eval.bootstrap\n"
        "heavy = {'torch', 'matplotlib', 'scipy', 'sklearn', 'pandas', 'jinja2', 'PIL'} & set(sys.modules)\n"
        "print(sorted(heavy))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_every_lazy_name_exists():
    import kvlp.eval

    assert all(getattr(kvlp.eval, name) is not None for name in kvlp.eval.__all__)
    with pytest.raises(AttributeError, match="nothing_here"):
        _ = kvlp.eval.nothing_here
