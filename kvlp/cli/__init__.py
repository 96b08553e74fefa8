"""The command line: one module a verb, imported only when the verb is called, so that `kvlp --help` loads no torch.

A verb's module holds either `app` (a typer application with sub-commands) or `command` (one function).
Exit status: 0 done, 1 an error of ours in one line on standard error, 2 wrong usage.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module

import typer

from kvlp.errors import KvlpError

__all__ = ["VERBS", "main"]

#: verb -> one line of help, in the order in which a user meets them
VERBS: dict[str, str] = {
    "quickstart": "Run the whole way once on synthetic radiographs and write a page with figures.",
    "data": "Import, check, split and shard image-report data.",
    "figures": "Make image-text pairs from the figures of open-access articles.",
    "kg": "Build, look at and validate knowledge graphs.",
    "link": "Find concepts in report text: present, absent or uncertain.",
    "prompts": "Write the sentences that ask for a concept: present, absent or uncertain.",
    "recipes": "List, show and copy pretraining recipes.",
    "pretrain": "Pretrain encoders on a manifest by a recipe.",
    "eval": "Evaluate a checkpoint with intervals and write a page.",
    "reports": "Score generated reports; see whether a metric notices one planted error.",
    "zeroshot": "Score images against classes named in plain words.",
    "embed": "Write image or text embeddings to a folder.",
    "archive": "Create, fill, search, verify and repair an image archive.",
    "bench": "Measure kvlp beside its peers, as ratios with their spread.",
    "doctor": "Print versions, devices and extras, and what is missing.",
}


def _listing_app() -> typer.Typer:
    """An application that only lists the verbs: enough for --help, and for a wrong verb's usage error."""
    app = _root()
    for verb, line in VERBS.items():
        app.command(verb, help=line)(_placeholder)
    return app


def _placeholder() -> None:
    """Stands for a verb in the listing; main() never lets it run."""


def _root() -> typer.Typer:
    app = typer.Typer(
        name="kvlp",
        help="Knowledge-enhanced vision-language pretraining on medical images. For research; not a medical device.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback()(_version_option)
    return app


def _version_option(
    version: bool = typer.Option(False, "--version", help="Print the version and exit.", is_eager=True),
) -> None:
    if version:
        from kvlp import __version__

        typer.echo(f"kvlp {__version__}")
        raise typer.Exit


def _app_for(verb: str) -> typer.Typer:
    module = import_module(f"kvlp.cli.{verb}")
    app = _root()
    if hasattr(module, "app"):
        app.add_typer(module.app, name=verb, help=VERBS[verb])
    else:
        app.command(verb, help=VERBS[verb])(module.command)
    return app


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line on `argv` (default: the process's) and exit with its status."""
    args = list(sys.argv[1:] if argv is None else argv)
    verb = next((a for a in args if not a.startswith("-")), None)
    app = _app_for(verb) if verb in VERBS else _listing_app()
    try:
        app(args=args, prog_name="kvlp")
    except KvlpError as error:
        _fail(str(error))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        _fail(f"{error.strerror or type(error).__name__}{where}")
    except KeyboardInterrupt:
        sys.exit(130)


def _fail(message: str) -> None:
    line = " ".join(message.split())
    printable = "".join(c if c.isprintable() else "?" for c in line)
    sys.stderr.write(f"kvlp: error: {printable}\n")
    sys.exit(1)
