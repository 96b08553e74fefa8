"""Synthetic frontal chest radiographs with reports: to prove the plumbing and to teach, never to claim accuracy."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvlp.datasets.phantom.cases import Case, FindingSpec, sample_case
    from kvlp.datasets.phantom.drawing import Rendering, render
    from kvlp.datasets.phantom.generate import generate_look_alikes, generate_phantom, phantom_hash
    from kvlp.datasets.phantom.lists import DEVICES, FINDINGS, PHANTOM_VERSION, SEEN, UNSEEN, UNSEEN_FINAL
    from kvlp.datasets.phantom.reports import write_report

_HOMES = {
    "Case": "cases",
    "DEVICES": "lists",
    "FINDINGS": "lists",
    "FindingSpec": "cases",
    "PHANTOM_VERSION": "lists",
    "Rendering": "drawing",
    "SEEN": "lists",
    "UNSEEN": "lists",
    "UNSEEN_FINAL": "lists",
    "generate_look_alikes": "generate",
    "generate_phantom": "generate",
    "phantom_hash": "generate",
    "render": "drawing",
    "sample_case": "cases",
    "write_report": "reports",
}

__all__ = [
    "DEVICES",
    "FINDINGS",
    "PHANTOM_VERSION",
    "SEEN",
    "UNSEEN",
    "UNSEEN_FINAL",
    "Case",
    "FindingSpec",
    "Rendering",
    "generate_look_alikes",
    "generate_phantom",
    "phantom_hash",
    "render",
    "sample_case",
    "write_report",
]


def __getattr__(name: str) -> object:
    """Load a name's module on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
