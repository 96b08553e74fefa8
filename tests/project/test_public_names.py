"""What is public is exactly what `__all__` says."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

import pytest

import kvlp


def public_names(module: ModuleType) -> list[str]:
    """Public functions, classes and lazily loaded names that `dir` shows, sub-modules and typing helpers left out."""
    hidden = {"annotations", "import_module", "TYPE_CHECKING"}
    return [
        name
        for name in dir(module)
        if not name.startswith("_") and name not in hidden and not isinstance(module.__dict__.get(name), ModuleType)
    ]


def test_public_names_are_exactly_all() -> None:
    assert sorted(public_names(kvlp)) == sorted(kvlp.__all__)


def test_all_is_sorted_and_small() -> None:
    assert kvlp.__all__ == sorted(kvlp.__all__, key=str.lower)
    assert len(kvlp.__all__) <= 40


@pytest.mark.parametrize("name", kvlp.__all__)
def test_every_public_name_can_be_reached(name: str) -> None:
    home = kvlp._WHERE[name]
    assert getattr(kvlp, name) is getattr(import_module(home), name)
    assert getattr(kvlp, name).__doc__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        kvlp.nothing  # noqa: B018


def test_a_from_import_of_an_unknown_name_fails() -> None:
    with pytest.raises(ImportError):
        from kvlp import nothing  # noqa: F401
