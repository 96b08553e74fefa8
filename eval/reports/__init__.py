"""Metrics of generated reports: words, labels, facts, embeddings; whether they see one planted error.

Names load on first use.
"""

from __future__ import annotations

from importlib import import_module

_WHERE = {
    "compare_systems": "evaluator",
    "Comparison": "evaluator",
    "ConceptGraphF1": "concept_graph",
    "EmbeddingSimilarity": "embedding",
    "Evaluator": "evaluator",
    "get_metric": "registry",
    "Green": "green",
    "LabelF1": "label_f1",
    "METRICS": "registry",
    "Planter": "planting",
    "RadGraphF1": "radgraph",
    "ReportMetric": "metric",
    "ReportScores": "evaluator",
}

__all__ = sorted(_WHERE)


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module 'kvlp.eval.reports' has no attribute {name!r}")
    value = getattr(import_module(f"kvlp.eval.reports.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
