"""`make check` sees all four folders: a type error and a forbidden import planted in each one are found."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mypy", reason="mypy comes with the extra dev")
pytest.importorskip("importlinter", reason="import-linter comes with the extra dev")

TYPE_ERROR = 'planted: int = "not a number"\n'
#: file -> an import that its room may not make
FORBIDDEN = {
    "kvlp/models/planted.py": "import kvlp.cli",
    "kvlp/losses/planted.py": "def f() -> None:\n    import kvlp.models",
    "kvlp/training/planted.py": "import kvlp.workflows",
    "kvlp/archive/planted.py": "import kvlp.training",
    "kvlp/stray.py": "",
    "knowledge/planted.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import kvlp.datasets",
    "datasets/planted.py": "import kvlp.models",
    "eval/planted.py": "import kvlp.workflows",
}
FOLDERS = ("kvlp", "knowledge", "datasets", "eval")


def plant(root: Path) -> None:
    for name, forbidden in FORBIDDEN.items():
        (root / name).write_text(f"{forbidden}\n{TYPE_ERROR}")


def check(repository: Path, root: Path, *steps: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(repository / ".ci" / "check.py"), "--root", str(root), *steps]
    env = dict(os.environ, PYTHONSAFEPATH="1")
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def missing_from(said: str) -> list[str]:
    """Planted files that the types or the rooms step did not name."""
    unseen = [name for name in FORBIDDEN if f"{name}:" not in said or "assignment" not in said]
    for name in FORBIDDEN:
        module = name.removesuffix(".py").replace("/", ".")
        module = module if module.startswith("kvlp.") else f"kvlp.{module}"
        judged = f"{module} is in no room" if name == "kvlp/stray.py" else f"{module}:"
        if judged not in said:
            unseen.append(judged)
    return unseen


@pytest.fixture
def skeleton(repository: Path, tmp_path: Path) -> Path:
    """A tree of the same folders with empty packages: quick to check, since nothing imports torch."""
    for folder in FOLDERS:
        for init in (repository / folder).rglob("__init__.py"):
            target = tmp_path / init.relative_to(repository)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text("")
    for name in ("pyproject.toml", ".importlinter"):
        shutil.copy(repository / name, tmp_path / name)
    for module in ("errors", "typing"):
        (tmp_path / "kvlp" / f"{module}.py").write_text("")
    return tmp_path


@pytest.mark.slow
def test_a_clean_skeleton_passes(repository: Path, skeleton: Path) -> None:
    done = check(repository, skeleton, "types", "rooms")
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_planted_errors_are_found_in_every_folder(repository: Path, skeleton: Path) -> None:
    plant(skeleton)
    done = check(repository, skeleton, "types", "rooms")
    assert done.returncode == 1
    assert not missing_from(done.stdout), done.stdout


def test_an_unknown_step_is_a_usage_error(repository: Path, skeleton: Path) -> None:
    done = check(repository, skeleton, "spelling")
    assert done.returncode == 2
    assert "unknown step spelling" in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_planted_errors_are_found_in_the_real_tree(repository: Path, tmp_path: Path) -> None:
    for folder in FOLDERS:
        shutil.copytree(repository / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", ".importlinter"):
        shutil.copy(repository / name, tmp_path / name)
    plant(tmp_path)
    done = check(repository, tmp_path, "types", "rooms")
    assert done.returncode == 1
    assert not missing_from(done.stdout), done.stdout
