"""The benchmark `matching`, small."""

from __future__ import annotations

import pytest

from kvlp.errors import ConfigError
from kvlp.eval.bench import BenchOptions, matching, run_bench


def test_matching_is_compared_with_every_matching_and_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "_SMALL", 5)
    said: list[str] = []
    measures = run_bench("matching", BenchOptions(size=0.1, repeats=1, say=said.append))
    found = {(m.name, m.subject, m.notes.split("spread ")[1][:3]): m.value for m in measures}
    for spread in ("0.5", "1.5"):
        ours, alone = (found["solved to the best", who, spread] for who in ("kvlp", "vertices alone (SciPy)"))
        assert ours >= max(alone, 0.8)
    assert sum(m.name.startswith("a step at batch") for m in measures) == 6
    assert len(said) == 8


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match="matching has no settings, got 'rows'"):
        run_bench("matching", BenchOptions(settings={"rows": "3"}))
