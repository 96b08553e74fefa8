"""`import kvlp`, `kvlp --help` and each verb's `--help` load nothing heavy."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kvlp.cli import VERBS

HEAVY = "torch faiss spacy transformers matplotlib open_clip timm sklearn scipy pandas pyarrow webdataset pydicom PIL"

PROBE = """
import contextlib, io, json, sys, time
heavy = sys.argv[1].split()
started = time.perf_counter()
import kvlp
seen = {"import kvlp": {"seconds": time.perf_counter() - started, "loaded": [m for m in heavy if m in sys.modules]}}
from kvlp.cli import main
for verb in sys.argv[2:]:
    started, before, out = time.perf_counter(), set(sys.modules), io.StringIO()
    status = None
    with contextlib.redirect_stdout(out):
        try:
            main([verb, "--help"] if verb != "kvlp" else ["--help"])
        except SystemExit as end:
            status = end.code
    loaded = [m for m in heavy if m in sys.modules and m not in before]
    seen[verb] = {"seconds": time.perf_counter() - started, "loaded": loaded, "status": status, "help": out.getvalue()}
print(json.dumps(seen))
"""


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a fresh interpreter in another folder has loaded after each step."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE, HEAVY, "kvlp", *VERBS],
        cwd=tmp_path_factory.mktemp("elsewhere"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    print({name: round(step["seconds"], 3) for name, step in seen.items()})
    return seen


def test_import_is_light(probe: dict[str, Any]) -> None:
    assert probe["import kvlp"]["loaded"] == []
    assert probe["import kvlp"]["seconds"] < 0.2


def test_help_of_the_program_lists_every_verb(probe: dict[str, Any]) -> None:
    assert probe["kvlp"]["loaded"] == []
    assert probe["kvlp"]["status"] == 0
    assert not [verb for verb in VERBS if verb not in probe["kvlp"]["help"]]


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_is_light(probe: dict[str, Any], verb: str) -> None:
    assert probe[verb]["status"] == 0
    assert probe[verb]["loaded"] == []
    assert "Usage" in probe[verb]["help"]


@pytest.mark.parametrize(
    "module",
    ["kvlp.knowledge.graph", "kvlp.eval.metrics", "kvlp.eval.intervals", "kvlp.datasets.manifest"],
)
def test_leaves_load_no_torch(module: str, tmp_path: Path) -> None:
    code = f"import sys, {module}; print([m for m in ('torch', 'matplotlib', 'transformers') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr
