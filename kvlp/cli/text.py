"""What verbs print: nothing that a name holds reaches a terminal as a control sequence."""

from __future__ import annotations

import json

import typer

__all__ = ["emit", "printable"]


def printable(text: str) -> str:
    """Replace what a terminal might obey (escape sequences, direction marks) by "?"; line breaks stay."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)


def emit(data: object, lines: list[str], *, as_json: bool) -> None:
    """Print one JSON document, or lines."""
    if not as_json:
        typer.echo(printable("\n".join(lines)))
        return
    text = json.dumps(data, indent=1, ensure_ascii=False)
    # JSON leaves some control characters as they are; inside strings, where alone they occur, an escape means the same
    typer.echo("".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text))
