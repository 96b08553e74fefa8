"""The package list equals the tree, and the wheel holds kvlp alone, with every data file."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from kvlp.doctor import FLOORS

FOLDERS = {"kvlp": "kvlp", "knowledge": "kvlp.knowledge", "datasets": "kvlp.datasets", "eval": "kvlp.eval"}


@pytest.fixture(scope="module")
def pyproject(repository: Path) -> dict[str, Any]:
    return tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def wheel_names(wheel: Path) -> list[str]:
    """Names in the wheel."""
    return zipfile.ZipFile(wheel).namelist()


def installed_path(file: Path, root: Path) -> str:
    """Where a file below the checkout or its copy lies in the wheel."""
    folder, *rest = file.relative_to(root).parts
    return "/".join([*FOLDERS[folder].split("."), *rest])


def test_package_list_equals_the_tree(repository: Path, pyproject: dict[str, Any]) -> None:
    listed = pyproject["tool"]["setuptools"]["packages"]
    there = {
        installed_path(init.parent / "x", repository).removesuffix("/x").replace("/", ".")
        for folder in FOLDERS
        for init in (repository / folder).rglob("__init__.py")
    }
    assert sorted(listed) == sorted(there)


def test_every_folder_with_code_is_a_package(repository: Path) -> None:
    bare = {
        str(file.parent.relative_to(repository))
        for folder in FOLDERS
        for file in (repository / folder).rglob("*.py")
        if not (file.parent / "__init__.py").exists()
    }
    assert not bare


def test_wheel_holds_kvlp_alone(wheel_names: list[str]) -> None:
    tops = {name.split("/")[0] for name in wheel_names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"kvlp"}


def test_wheel_holds_every_file_of_the_packages(wheel_names: list[str], source: Path) -> None:
    files = [
        file
        for folder in FOLDERS
        for file in (source / folder).rglob("*")
        if file.is_file() and not file.name.startswith(".")
    ]
    missing = {installed_path(file, source) for file in files} - set(wheel_names)
    assert not missing, "add their pattern to [tool.setuptools.package-data]"


def test_installed_wheel_is_found_whole_and_hides_no_other_datasets(wheel_folder: Path, tmp_path: Path) -> None:
    code = (
        "import importlib.util as u, kvlp, kvlp.datasets.manifest, kvlp.knowledge.graph, kvlp.eval.metrics\n"
        "print(kvlp.__file__, kvlp.datasets.__file__, kvlp.knowledge.__file__, kvlp.eval.__file__, sep='\\n')\n"
        "spec = u.find_spec('datasets')\n"
        "print(spec and spec.origin)"
    )
    env = dict(os.environ, PYTHONPATH=str(wheel_folder))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    *ours, other = done.stdout.splitlines()
    assert len(ours) == 4, done.stderr
    assert all(Path(line).is_relative_to(wheel_folder / "kvlp") for line in ours)
    assert other == "None" or not Path(other).is_relative_to(wheel_folder)


def test_wheel_carries_the_licence(wheel_names: list[str]) -> None:
    assert any(name.endswith("/LICENSE") for name in wheel_names)


def test_requirements_are_not_below_the_safety_floors(pyproject: dict[str, Any]) -> None:
    project = pyproject["project"]
    lines = project["dependencies"] + [line for extra in project["optional-dependencies"].values() for line in extra]
    requirements = {r.name.lower(): r for r in map(Requirement, lines)}
    for package, floor in FLOORS.items():
        lower = max(Version(s.version) for s in requirements[package].specifier if s.operator == ">=")
        assert lower >= Version(floor), package


def test_version_stands_once(pyproject: dict[str, Any], repository: Path) -> None:
    import kvlp

    version = pyproject["project"]["version"]
    assert kvlp.__version__ == version
    changelog = (repository / "CHANGELOG.md").read_text(encoding="utf-8")
    assert "## [Unreleased]" in changelog or f"## [{version}]" in changelog
