"""Public benchmarks as commands: a reader, a data card and an evaluation each. Names load on first use."""

from __future__ import annotations

from importlib import import_module

_WHERE = {
    "BenchmarkRun": "kvlp.eval.benchmarks.run",
    "Card": "kvlp.eval.benchmarks.cards",
    "benchmark_names": "kvlp.eval.benchmarks.cards",
    "load_card": "kvlp.eval.benchmarks.cards",
    "run_benchmark": "kvlp.eval.benchmarks.run",
}

__all__ = sorted(_WHERE)


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module 'kvlp.eval.benchmarks' has no attribute {name!r}")
    value = getattr(import_module(_WHERE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
