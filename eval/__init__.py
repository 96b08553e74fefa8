"""Figures one can trust: metrics, intervals, controls, evaluation of a model, and one self-contained page.

Names load on first use: `kvlp.eval.auc` needs only NumPy, the page Jinja2, the evaluation the rooms of the model.
"""

from __future__ import annotations

from importlib import import_module

_WHERE = {
    "auc": "kvlp.eval.metrics",
    "auc_interval": "kvlp.eval.intervals",
    "auc_table": "kvlp.eval.intervals",
    "average_precision": "kvlp.eval.metrics",
    "bootstrap": "kvlp.eval.intervals",
    "delong_test": "kvlp.eval.intervals",
    "evaluate": "kvlp.eval.evaluate",
    "macro": "kvlp.eval.metrics",
    "paired_bootstrap": "kvlp.eval.intervals",
    "precision_at_k": "kvlp.eval.retrieval",
    "precision_recall_curve": "kvlp.eval.metrics",
    "read_results": "kvlp.eval.results",
    "recall_at_k": "kvlp.eval.retrieval",
    "Result": "kvlp.eval.results",
    "roc_curve": "kvlp.eval.metrics",
    "write_results": "kvlp.eval.results",
}

__all__ = sorted(_WHERE)


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module 'kvlp.eval' has no attribute {name!r}")
    value = getattr(import_module(_WHERE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
