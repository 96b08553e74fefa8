"""Makes `suite.py` importable as `losses_suite` (tests run in importlib mode)."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

_spec = importlib.util.spec_from_file_location("losses_suite", Path(__file__).with_name("suite.py"))
assert _spec is not None
assert _spec.loader is not None
suite = importlib.util.module_from_spec(_spec)
sys.modules["losses_suite"] = suite
_spec.loader.exec_module(suite)
