"""What `make check` runs: style, source gates, types and the table of rooms. Every step runs; any failure is exit 1.

python .ci/check.py [--root DIR] [STEP ...]        steps: lint format gates types rooms (default: all)
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

TOOLS = Path(__file__).resolve().parent
sys.path.insert(0, str(TOOLS))

from gates import check_sources  # noqa: E402  the folder of this script comes onto the path above
from link_tree import as_in_checkout, build_link_tree  # noqa: E402

SOURCES = ("kvlp", "knowledge", "datasets", "eval", "tests", "examples", ".ci")


def run(command: list[str], *, cwd: Path, extra_path: Path | None = None) -> bool:
    """Run a tool of this environment, print what it says with paths of the checkout, and tell whether it passed."""
    env = dict(os.environ, PYTHONSAFEPATH="1", NO_COLOR="1", COLUMNS="240")
    if extra_path is not None:
        env["PYTHONPATH"] = str(extra_path)
    tool = Path(sys.executable).parent / command[0]
    done = subprocess.run(
        [str(tool), *command[1:]],
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    said = as_in_checkout(done.stdout + done.stderr).strip()
    if said:
        print(said)
    return done.returncode == 0


def lint(root: Path) -> bool:
    """Ruff's rules."""
    return run(["ruff", "check", "--quiet", *existing(root)], cwd=root)


def layout(root: Path) -> bool:
    """Ruff's formatting."""
    return run(["ruff", "format", "--check", "--quiet", *existing(root)], cwd=root)


def gates(root: Path) -> bool:
    """Unsafe calls, lengths, public names."""
    found = check_sources(root)
    for finding in found:
        print(finding)
    return not found


def types(root: Path) -> bool:
    """Mypy, strict, over all four folders as they are installed."""
    with tempfile.TemporaryDirectory() as scratch:
        tree = build_link_tree(root, Path(scratch))
        cache = root / ".mypy_cache"
        return run(
            ["mypy", "--config-file", str(root / "pyproject.toml"), "--cache-dir", str(cache), "-p", "kvlp"], cwd=tree
        )


def rooms(root: Path) -> bool:
    """Import-linter with the table of rooms."""
    with tempfile.TemporaryDirectory() as scratch:
        tree = build_link_tree(root, Path(scratch))
        config = str(root / ".importlinter")
        return run(["lint-imports", "--config", config, "--no-cache", "--no-logo"], cwd=tree, extra_path=TOOLS)


STEPS: dict[str, Callable[[Path], bool]] = {
    "lint": lint,
    "format": layout,
    "gates": gates,
    "rooms": rooms,
    "types": types,
}


def existing(root: Path) -> list[str]:
    """Source folders that are there."""
    return [name for name in SOURCES if (root / name).is_dir()]


def main() -> int:
    """Run the steps asked for; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=TOOLS.parent)
    parser.add_argument("steps", nargs="*", metavar="STEP", help=f"one of {', '.join(STEPS)}")
    options = parser.parse_args()
    unknown = set(options.steps) - set(STEPS)
    if unknown:
        parser.error(f"unknown step {', '.join(sorted(unknown))}; expected some of {', '.join(STEPS)}")
    failed = []
    for name in options.steps or STEPS:
        started = time.perf_counter()
        passed = STEPS[name](options.root.resolve())
        print(f"check {name}: {'ok' if passed else 'FAILED'} ({time.perf_counter() - started:.1f} s)", flush=True)
        if not passed:
            failed.append(name)
    print(f"check: {'FAILED: ' + ', '.join(failed) if failed else 'all ok'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
