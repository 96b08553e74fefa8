"""The package list equals the tree, and the wheel holds kvlp alone, with every data file."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from kvlp.doctor import FLOORS

FOLDERS = {"kvlp": "kvlp", "knowledge": "kvlp.knowledge", "datasets": "kvlp.datasets", "eval": "kvlp.eval"}
LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.pyc")


@pytest.fixture(scope="module")
def pyproject(repository: Path) -> dict[str, Any]:
    return tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def source(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what a wheel is built from."""
    copy = tmp_path_factory.mktemp("source")
    for folder in FOLDERS:
        shutil.copytree(repository / folder, copy / folder, ignore=LEFT_OUT)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(repository / name, copy / name)
    return copy


@pytest.fixture(scope="module")
def wheel_names(source: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Names in a wheel built without a network."""
    if Version(metadata.version("setuptools")) < Version("77"):
        pytest.skip("building the wheel needs setuptools >= 77 (extra dev)")
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*command, "-w", str(out), str(source)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return zipfile.ZipFile(next(out.glob("kvlp-*.whl"))).namelist()


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
