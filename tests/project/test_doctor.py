"""`kvlp doctor` tells what is here, and exits 1 when a required part is missing."""

from __future__ import annotations

import json
import sqlite3
from importlib import metadata

import pytest

import kvlp.doctor as doctor
from kvlp.cli import main


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch):
    """Pretend that some packages are missing, or of another version."""

    def pretend(**versions: str | None) -> None:
        real = metadata.version

        def version(package: str) -> str:
            key = package.replace("-", "_")
            if key not in versions:
                return real(package)
            if versions[key] is None:
                raise metadata.PackageNotFoundError(package)
            return versions[key]

        monkeypatch.setattr(doctor.metadata, "version", version)

    return pretend


def check(diagnosis: doctor.Diagnosis, name: str) -> doctor.Check:
    return next(c for c in diagnosis.required if c.name == name)


def test_this_environment_is_sound() -> None:
    diagnosis = doctor.diagnose(torch=False)
    assert diagnosis.ok, [c for c in diagnosis.required + diagnosis.safety if c.ok is False]
    assert check(diagnosis, "torch").found == metadata.version("torch")


def test_a_missing_core_package_is_named_with_its_remedy(without) -> None:
    without(networkx=None)
    diagnosis = doctor.diagnose(torch=False)
    assert not diagnosis.ok
    assert check(diagnosis, "networkx").remedy.startswith("pip install 'networkx")


def test_an_old_core_package_is_refused(without) -> None:
    without(pydantic="1.10")
    assert check(doctor.diagnose(torch=False), "pydantic").ok is False


@pytest.mark.parametrize("package", doctor.FLOORS)
def test_each_safety_floor_is_judged(without, package: str) -> None:
    without(**{package: "0.9"})
    diagnosis = doctor.diagnose(torch=False)
    failed = [c for c in diagnosis.safety if c.ok is False]
    assert [c.name for c in failed] == [package]
    assert not diagnosis.ok


def test_a_missing_extra_is_told_but_not_fatal(without) -> None:
    without(scispacy=None)
    diagnosis = doctor.diagnose(torch=False)
    extra = next(e for e in diagnosis.extras if e.name == "knowledge")
    assert diagnosis.ok
    assert not extra.present
    assert extra.install == "pip install 'kvlp[knowledge]'"


def test_two_builds_of_faiss_are_refused(without) -> None:
    without(faiss_cpu="1.15.1", faiss_gpu="1.15.1")
    assert check(doctor.diagnose(torch=False), "faiss").ok is False


def test_a_sqlite_without_full_text_search_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Bare:
        def execute(self, statement: str) -> None:
            raise sqlite3.OperationalError("no such module: fts5")

        def close(self) -> None:
            pass

    monkeypatch.setattr(doctor.sqlite3, "connect", lambda *_: Bare())
    assert check(doctor.diagnose(torch=False), "sqlite3").ok is False


def run(argv: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    real = doctor.diagnose
    monkeypatch.setattr(doctor, "diagnose", lambda: real(torch=False))
    with pytest.raises(SystemExit) as end:
        main(argv)
    return end.value.code or 0


def test_the_command_prints_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--json"], monkeypatch) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is True
    assert {"python", "torch", "sqlite3"} <= {c["name"] for c in told["required"]}


def test_the_command_exits_1_when_something_is_missing(
    without,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    without(jinja2=None)
    assert run(["doctor"], monkeypatch) == 1
    assert "pip install 'jinja2" in capsys.readouterr().out
