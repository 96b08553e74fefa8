"""The benchmark `figures`, small."""

import pytest

from kvlp.errors import ConfigError
from kvlp.eval.bench import BenchOptions, run_bench


@pytest.mark.slow
def test_figures_gives_f1_of_pairs_beside_the_whole_figure():
    said = []
    measures = run_bench("figures", BenchOptions(seed=4, settings={"count": "3", "ocr": "none"}, say=said.append))
    found = {(m.name, m.subject): m for m in measures}
    ours = found["F1 of pairs", "kvlp"]
    assert 0 <= ours.low <= ours.value <= ours.high <= 1
    assert found["F1 of pairs", "whole figure, whole caption"].value <= ours.value
    assert said[0].startswith("kvlp: F1 ")
    assert sum(m.n for m in measures if m.name == "F1 by layout") <= 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"counts": "2"}, "has no setting 'counts'; it has count, ocr"), ({"count": "x"}, "expected a count such as 400")],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ConfigError, match=message):
        run_bench("figures", BenchOptions(settings=settings))
