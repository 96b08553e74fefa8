"""Risk against coverage, worked out by hand and by a slow reference."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kvlp.errors import ShapeError
from kvlp.eval.selective import risk_coverage


def test_by_hand() -> None:
    """Surest first: right, wrong, right, right; uncertain and unmentioned rows are left out."""
    found = risk_coverage([1, 0, 0, 1, -1, np.nan], [1, 1, 0, 1, 1, 0], [0.9, 0.8, 0.4, 0.1, 1.0, 1.0])
    np.testing.assert_allclose(found.coverage, [0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(found.risk, [0, 1 / 2, 1 / 3, 1 / 4])
    np.testing.assert_allclose(found.confidence, [0.9, 0.8, 0.4, 0.1])
    assert found.area == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 4) / 4)
    assert found.area_random == 0.25
    assert found.area_ideal == pytest.approx(1 / 16)
    assert found.n == 4
    assert found.confidence_for(0.3) == 0.1
    assert found.confidence_for(0.2) == 0.9
    assert math.isnan(risk_coverage([1], [0], [1.0]).confidence_for(0.5))


def test_ties_are_taken_in_every_order() -> None:
    rng = np.random.default_rng(0)
    truth, said = rng.integers(0, 2, 7), rng.integers(0, 2, 7)
    sure = np.array([3, 2, 2, 2, 1, 1, 0.0])
    areas = []
    for _ in range(4000):
        order = rng.permutation(7)
        order = order[np.argsort(-sure[order], kind="stable")]
        areas.append(np.mean(np.cumsum(truth[order] != said[order]) / np.arange(1, 8)))
    found = risk_coverage(truth, said, sure)
    assert found.area == pytest.approx(np.mean(areas), abs=0.005)
    order = rng.permutation(7)
    assert risk_coverage(truth[order], said[order], sure[order]).area == pytest.approx(found.area)
    assert found.coverage.tolist() == [1 / 7, 4 / 7, 6 / 7, 1]


def test_a_confidence_that_knows_nothing_has_the_plain_risk_and_a_perfect_one_the_ideal() -> None:
    rng = np.random.default_rng(1)
    truth, said = rng.integers(0, 2, 200), rng.integers(0, 2, 200)
    assert risk_coverage(truth, said, np.zeros(200)).area == pytest.approx((truth != said).mean())
    perfect = risk_coverage(truth, said, (truth == said) + 1e-6 * np.arange(200))
    assert perfect.area == pytest.approx(perfect.area_ideal)


def test_nothing_and_wrong_shapes() -> None:
    nothing = risk_coverage([np.nan, -1], [1, 0], [0.5, 0.5])
    assert math.isnan(nothing.area)
    assert nothing.n == 0
    with pytest.raises(ShapeError, match="y_said"):
        risk_coverage([1, 0], [1], [0.5, 0.5])
