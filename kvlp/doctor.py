"""Look at this machine and environment: versions, devices, extras, and what is missing.

The requirements are read from kvlp's own package metadata, so that this list cannot drift from pyproject.toml.
"""

from __future__ import annotations

import os
import platform
import sqlite3
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

__all__ = ["FLOORS", "Check", "Diagnosis", "Extra", "diagnose"]

#: Below these versions a package has a known hole through which a file or a checkpoint can run code.
FLOORS: dict[str, str] = {"torch": "2.10", "transformers": "5.3", "pydicom": "3.0.2", "pillow": "12.3"}

CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_tile", "amx_bf16")


@dataclass(frozen=True)
class Check:
    """One thing looked at: `ok` is None where it is only told, not judged."""

    name: str
    found: str | None
    needed: str = ""
    ok: bool | None = None
    remedy: str = ""


@dataclass(frozen=True)
class Extra:
    """An extra of kvlp: the packages it brings, and how to install it where one is missing or too old."""

    name: str
    packages: list[Check]
    present: bool
    install: str


@dataclass(frozen=True)
class Diagnosis:
    """Everything that `diagnose` saw; `ok` is false if a required part is missing or unsafe."""

    required: list[Check]
    safety: list[Check]
    devices: list[Check]
    extras: list[Extra]

    @property
    def ok(self) -> bool:
        """Whether nothing that was judged failed."""
        return all(check.ok is not False for check in (*self.required, *self.safety, *self.devices))

    def to_dict(self) -> dict[str, object]:
        """Return plain data for JSON."""
        return {"ok": self.ok, **asdict(self)}


def diagnose(*, torch: bool = True) -> Diagnosis:
    """Look at the environment.

    Args:
        torch: Import torch to name the CUDA devices and its threads (seconds); without it they are left out.

    Returns:
        The diagnosis; nothing is changed and no network is used.
    """
    core, extras = _requirements()
    required = [_python(), *(_package(r) for r in core), _full_text_search(), _one_faiss()]
    devices = _processor() + (_torch_devices() if torch else [])
    return Diagnosis(required, [_floor(*item) for item in FLOORS.items()], devices, _extras(extras))


def _requirements() -> tuple[list[Requirement], dict[str, list[Requirement]]]:
    """Split kvlp's requirements into those of the core and those of each extra."""
    core: list[Requirement] = []
    extras: dict[str, list[Requirement]] = {}
    for line in metadata.requires("kvlp") or []:
        requirement = Requirement(line)
        if requirement.name == "kvlp":
            continue  # an extra that only names other extras
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            core.append(requirement)
            continue
        for extra in metadata.metadata("kvlp").get_all("Provides-Extra") or []:
            if requirement.marker.evaluate({"extra": extra}):
                extras.setdefault(extra, []).append(requirement)
    return core, extras


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _python() -> Check:
    return Check(
        "python", platform.python_version(), ">=3.11", sys.version_info >= (3, 11), "install Python 3.11 or newer"
    )


def _package(requirement: Requirement) -> Check:
    found = _version(requirement.name)
    ok = found is not None and requirement.specifier.contains(found, prereleases=True)
    remedy = "" if ok else f"pip install '{requirement.name}{requirement.specifier}'"
    return Check(requirement.name, found, str(requirement.specifier), ok, remedy)


def _floor(package: str, floor: str) -> Check:
    found = _version(package)
    if found is None:
        return Check(package, None, f">={floor}", None, "not installed")
    ok = Version(found) >= Version(floor)
    return Check(package, found, f">={floor}", ok, "" if ok else f"pip install --upgrade '{package}>={floor}'")


def _full_text_search() -> Check:
    """Archives search report text through SQLite's FTS5; a Python built without it cannot hold one."""
    connection = sqlite3.connect(":memory:")
    try:
        connection.execute("create virtual table probe using fts5(body)")
        ok = True
    except sqlite3.OperationalError:
        ok = False
    finally:
        connection.close()
    found = f"SQLite {sqlite3.sqlite_version}, FTS5 {'present' if ok else 'missing'}"
    return Check("sqlite3", found, "FTS5", ok, "" if ok else "use a Python whose SQLite has FTS5")


def _one_faiss() -> Check:
    """Both builds ship the module `faiss`; the one installed last overwrites half of the other."""
    builds = {name: _version(name) for name in ("faiss-cpu", "faiss-gpu")}
    found = [f"{name} {version}" for name, version in builds.items() if version]
    if len(found) > 1:
        return Check("faiss", ", ".join(found), "one build", False, "uninstall both, then install one of them")
    return Check("faiss", found[0] if found else None, "one build", True if found else None)


def _processor() -> list[Check]:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    checks = [Check("cores", str(usable))]
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return checks
    flags = next((line.split(":", 1)[1].split() for line in lines if line.startswith("flags")), [])
    return [
        *checks,
        Check("cpu flags", " ".join(f for f in CPU_FLAGS if f in flags) or "none of " + " ".join(CPU_FLAGS)),
    ]


def _torch_devices() -> list[Check]:
    try:
        import torch
    except ImportError as error:
        return [Check("torch", None, "importable", False, str(error))]
    threads = Check("torch threads", str(torch.get_num_threads()))
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return [threads, Check("cuda", ", ".join(names) or "none")]


def _extras(extras: Mapping[str, list[Requirement]]) -> list[Extra]:
    found = []
    for name, requirements in extras.items():
        checks = [_package(requirement) for requirement in requirements]
        present = all(check.ok for check in checks)
        found.append(Extra(name, checks, present, f"pip install 'kvlp[{name}]'"))
    return found
