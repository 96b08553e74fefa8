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
    "brier": "kvlp.eval.calibration",
    "brier_parts": "kvlp.eval.calibration",
    "calibration_line": "kvlp.eval.calibration",
    "choose_threshold": "kvlp.eval.operating",
    "choose_thresholds": "kvlp.eval.operating",
    "confusion": "kvlp.eval.operating",
    "cross_modal": "kvlp.eval.retrieval_tables",
    "concept_labels": "kvlp.eval.relevance",
    "delong_test": "kvlp.eval.intervals",
    "delong_unpaired_test": "kvlp.eval.delong",
    "distinct_reports": "kvlp.eval.retrieval",
    "compare_systems": "kvlp.eval.reports.evaluator",
    "ece": "kvlp.eval.calibration",
    "evaluate": "kvlp.eval.evaluate",
    "Evaluator": "kvlp.eval.reports.evaluator",
    "f1": "kvlp.eval.operating",
    "holm": "kvlp.eval.multiplicity",
    "label_overlap": "kvlp.eval.relevance",
    "label_rankings": "kvlp.eval.retrieval_tables",
    "macro": "kvlp.eval.metrics",
    "mcc": "kvlp.eval.operating",
    "mean_interval": "kvlp.eval.intervals",
    "negation_probe": "kvlp.eval.negation",
    "npv": "kvlp.eval.operating",
    "paired_bootstrap": "kvlp.eval.intervals",
    "paired_table": "kvlp.eval.intervals",
    "permutation_test": "kvlp.eval.permutation",
    "point_intervals": "kvlp.eval.intervals",
    "ppv": "kvlp.eval.operating",
    "precision_at_k": "kvlp.eval.retrieval",
    "precision_recall_curve": "kvlp.eval.metrics",
    "ranking_table": "kvlp.eval.retrieval_tables",
    "read_results": "kvlp.eval.results",
    "recall_at_k": "kvlp.eval.retrieval",
    "reliability": "kvlp.eval.calibration",
    "Result": "kvlp.eval.results",
    "roc_curve": "kvlp.eval.metrics",
    "sensitivity": "kvlp.eval.operating",
    "specificity": "kvlp.eval.operating",
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
