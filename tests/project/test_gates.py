"""The source gates find what they refuse, and let the safe form pass."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def gates(ci_script: Callable[[str], ModuleType]) -> ModuleType:
    return ci_script("gates")


UNSAFE = [
    "import pickle",
    "from joblib import load",
    "import numpy as np\nnp.load('x', allow_pickle=True)",
    "torch.load('x')",
    "torch.load('x', weights_only=False)",
    "torch.load('x', weights_only=flag)",
    "yaml.load(text)",
    "yaml.load(text, Loader=yaml.Loader)",
    "yaml.unsafe_load(text)",
    "AutoModel.from_pretrained('x', trust_remote_code=True)",
    "tarfile.open('x').extractall()",
    "subprocess.run('ls', shell=True)",
    "os.system('ls')",
    "eval('1')",
    "exec(text)",
]
SAFE = [
    "import json",
    "np.load('x', allow_pickle=False)",
    "torch.load('x', weights_only=True)",
    "yaml.safe_load(text)",
    "yaml.load(text, Loader=yaml.CSafeLoader)",
    "AutoModel.from_pretrained('x', trust_remote_code=False)",
    "subprocess.run(['ls'])",
    "model.eval()",
    "re.compile('x')",
]


@pytest.mark.parametrize("source", UNSAFE)
def test_unsafe_source_is_found(gates: ModuleType, source: str) -> None:
    assert list(gates.safety_findings("x.py", ast.parse(source)))


@pytest.mark.parametrize("source", SAFE)
def test_safe_source_passes(gates: ModuleType, source: str) -> None:
    assert not list(gates.safety_findings("x.py", ast.parse(source)))


@pytest.mark.parametrize("lines, refused", [(80, False), (81, True)])
def test_function_length(gates: ModuleType, lines: int, refused: bool) -> None:
    source = "def f():\n" + "    x = 1\n" * (lines - 1)
    assert bool(list(gates.length_findings("x.py", source, ast.parse(source)))) is refused


@pytest.mark.parametrize("lines, refused", [(500, False), (501, True)])
def test_file_length(gates: ModuleType, lines: int, refused: bool) -> None:
    source = "x = 1\n" * lines
    assert bool(list(gates.length_findings("x.py", source, ast.parse(source)))) is refused


@pytest.mark.parametrize(
    "source, message",
    [
        ("def f():\n    '''F.'''", "no __all__"),
        ("__all__ = ['f', 'g']\ndef f():\n    '''F.'''", "names g, which is not there"),
        ("__all__ = ['f', 'f']\ndef f():\n    '''F.'''", "twice"),
        ("__all__ = ['f']\ndef f():\n    pass", "without a docstring"),
    ],
)
def test_public_names_are_judged(gates: ModuleType, source: str, message: str) -> None:
    found = list(gates.public_findings("kvlp/x.py", ast.parse(source)))
    assert [message in str(finding) for finding in found] == [True]


@pytest.mark.parametrize(
    "source",
    [
        "def _f():\n    pass",
        "__all__ = ['f', 'X', 'y']\nfrom z import y\nX: int = 1\ndef f():\n    '''F.'''",
        "__all__ = ['later']\ndef __getattr__(name):\n    pass",
        "__all__ = ['f']\nif True:\n    from z import f",
    ],
)
def test_sound_modules_pass(gates: ModuleType, source: str) -> None:
    assert not list(gates.public_findings("kvlp/x.py", ast.parse(source)))


def test_a_package_has_nothing_beside_its_all(gates: ModuleType) -> None:
    tree = ast.parse("__all__ = []\ndef f():\n    '''F.'''")
    assert not list(gates.public_findings("kvlp/x.py", tree))
    found = list(gates.public_findings("kvlp/x/__init__.py", tree))
    assert ["f is public but not in __all__" in str(finding) for finding in found] == [True]


def test_tests_may_plant_what_the_library_may_not(gates: ModuleType, tmp_path: Path) -> None:
    for folder in ("kvlp", "tests"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.py").write_text("import pickle\n")
    assert [finding.path for finding in gates.check_sources(tmp_path)] == ["kvlp/x.py"]


def test_paths_of_the_link_tree_are_told_as_in_the_checkout(ci_script: Callable[[str], ModuleType]) -> None:
    link_tree = ci_script("link_tree")
    said = "kvlp/datasets/images.py:3: error\nkvlp/cli/data.py:1: error"
    assert link_tree.as_in_checkout(said) == "datasets/images.py:3: error\nkvlp/cli/data.py:1: error"
