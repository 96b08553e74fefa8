"""`kvlp doctor`: print versions, devices and extras, and what is missing."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from kvlp.doctor import Check, Diagnosis

MARKS = {True: "ok", False: "MISSING", None: ""}


def command(as_json: bool = typer.Option(False, "--json", help="Print one JSON document.")) -> None:
    """Print versions, devices and extras, and what is missing. Exit 1 if a required part is missing."""
    from kvlp.doctor import diagnose

    diagnosis = diagnose()
    typer.echo(json.dumps(diagnosis.to_dict(), indent=1) if as_json else "\n".join(lines_of(diagnosis)))
    if not diagnosis.ok:
        raise typer.Exit(1)


def lines_of(diagnosis: Diagnosis) -> Iterable[str]:
    """Lay a diagnosis out for a person."""
    for title, checks in (
        ("required", diagnosis.required),
        ("safety", diagnosis.safety),
        ("machine", diagnosis.devices),
    ):
        yield title
        yield from (_line(check) for check in checks)
    yield "extras"
    for extra in diagnosis.extras:
        versions = ", ".join(f"{check.name} {_state(check)}" for check in extra.packages)
        yield f"  {extra.name:<20} {'present' if extra.present else 'missing'}: {versions}"
        if not extra.present:
            yield f"  {'':<20} {extra.install}"
    yield "all required parts are here" if diagnosis.ok else "a required part is missing or unsafe (see above)"


def _state(check: Check) -> str:
    return check.found or "missing" if check.ok or not check.found else f"{check.found} (needs {check.needed})"


def _line(check: Check) -> str:
    parts = asdict(check)
    needed = f"({parts['needed']})" if parts["needed"] else ""
    line = f"  {check.name:<20} {check.found or 'not installed'} {needed} {MARKS[check.ok]}".rstrip()
    return f"{line}: {check.remedy}" if check.remedy and check.ok is False else line
