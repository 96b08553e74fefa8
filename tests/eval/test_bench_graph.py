"""The benchmark `graph` on a release of a few hundred concepts."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("pyarrow", exc_type=ImportError)

from kvlp.errors import ConfigError
from kvlp.eval.bench import BenchOptions, run_bench


@pytest.mark.slow
def test_two_sizes_and_the_growth_between_them(tmp_path: Path) -> None:
    said: list[str] = []
    settings = {"from": "0.0001", "scratch": str(tmp_path)}
    measures = run_bench("graph", BenchOptions(size=0.0002, repeats=1, settings=settings, say=said.append))
    found = {(m.name, m.subject): m for m in measures}
    assert found["building", "size 0.0002"].value > 0
    assert found["building, peak memory", "size 0.0001"].unit == "MB"
    assert "in the graph 800 concepts" in found["building", "size 0.0002"].notes
    assert found["graph on disk, growth", "size 0.0002 / size 0.0001"].value == pytest.approx(
        found["graph on disk", "size 0.0002"].value / found["graph on disk", "size 0.0001"].value
    )
    assert {m.name for m in measures} >= {"opening", "concept by CUI", "find by name", "ancestors"}
    assert said[0].startswith("size 0.0001: ")
    assert list(tmp_path.iterdir()) == []


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match="has no setting 'form'; it has from, scratch"):
        run_bench("graph", BenchOptions(settings={"form": "0.1"}))
    with pytest.raises(ConfigError, match=r"from=little: expected a size such as 0\.1"):
        run_bench("graph", BenchOptions(settings={"from": "little"}))
