"""README and docs are short, true and whole: links lead somewhere, verbs are described, the example runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from typer.main import get_command

from kvlp.cli import VERBS, _app_for

LINK = re.compile(r"\]\(([^)#]+)(#[^)]*)?\)")
#: folders of one machine that no file of the project may name
MACHINE_PATHS = re.compile(r"/(?:work|root|tmp/v|home/[a-z]+)/")
EXAMPLE_SECONDS = 100
#: a call of a verb as it stands in a page, to its end: the line's, that of the words in backticks, or a comment's begin
CALL = re.compile(r"\bkvlp ([a-z]+)((?:[^`\n#\\]|\\\n)*)")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")


def pages(repository: Path) -> list[Path]:
    top = [repository / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")]
    return [*top, *sorted((repository / "docs").rglob("*.md"))]


def tracked_files(repository: Path) -> list[Path]:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=repository, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("not a git checkout")
    return [repository / name for name in done.stdout.split("\0") if name and (repository / name).is_file()]


def test_readme_is_short(repository: Path) -> None:
    assert len((repository / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_readme_says_what_it_is_not(repository: Path) -> None:
    text = (repository / "README.md").read_text(encoding="utf-8")
    assert "For research; kvlp is not a medical device and not a de-identifier." in text


def test_links_lead_to_files(repository: Path) -> None:
    dead = [
        f"{page.relative_to(repository)}: {target}"
        for page in pages(repository)
        for target, _ in LINK.findall(page.read_text(encoding="utf-8"))
        if not target.startswith(("http://", "https://")) and not (page.parent / target).exists()
    ]
    assert not dead


def test_every_page_is_in_the_index(repository: Path) -> None:
    index = (repository / "docs" / "index.md").read_text(encoding="utf-8")
    lost = [
        page.name for page in (repository / "docs").glob("*.md") if page.name != "index.md" and page.name not in index
    ]
    assert not lost


def options_of(command: Any) -> set[str]:
    """What a verb and its sub-commands take."""
    own = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    return own.union(*(options_of(below) for below in getattr(command, "commands", {}).values()), {"--help"})


def test_options_that_pages_name_exist(repository: Path) -> None:
    taken = {verb: options_of(get_command(_app_for(verb)).commands[verb]) for verb in VERBS}
    taken["link"].add("--coverage")  # stands for the sub-command of this name
    told = [(page.name, *call) for page in pages(repository) for call in CALL.findall(page.read_text(encoding="utf-8"))]
    sections = (repository / "docs" / "cli.md").read_text(encoding="utf-8").split("\n## kvlp ")[1:]
    told += [("cli.md", *section.split("\n", 1)) for section in sections]
    assert len(told) > 100
    known = [(page, verb, option) for page, verb, rest in told if verb in VERBS for option in OPTION.findall(rest)]
    assert not {(page, verb, option) for page, verb, option in known if option not in taken[verb]}


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_described(repository: Path, verb: str) -> None:
    assert f"\n## kvlp {verb}\n" in (repository / "docs" / "cli.md").read_text(encoding="utf-8")


def test_no_file_names_a_path_of_one_machine(repository: Path) -> None:
    guilty = []
    for file in tracked_files(repository):
        if file == Path(__file__) or file.suffix in {".png", ".safetensors", ".arrow", ".npy", ".jpg", ".gz"}:
            continue
        if MACHINE_PATHS.search(file.read_text(encoding="utf-8", errors="replace")):
            guilty.append(str(file.relative_to(repository)))
    assert not guilty


def test_no_file_is_large(repository: Path) -> None:
    large = {str(f.relative_to(repository)): f.stat().st_size for f in tracked_files(repository)}
    assert not {name: size for name, size in large.items() if size > 3_500_000}


def test_every_requirement_has_its_licence_told(repository: Path) -> None:
    told = (repository / "docs" / "licences.md").read_text(encoding="utf-8").lower()
    requirements = [Requirement(line) for line in metadata.requires("kvlp") or []]
    names = {r.name.lower() for r in requirements if r.marker is None or not r.marker.evaluate({"extra": "dev"})}
    assert not {name for name in names if not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", told)}


def test_licence_is_apache(repository: Path) -> None:
    text = (repository / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text


@pytest.mark.slow
def test_readme_example_runs_as_it_stands(repository: Path, wheel_folder: Path, tmp_path: Path) -> None:
    if not (repository / "kvlp" / "pretrained" / "phantom-tiny").is_dir():
        pytest.skip("phantom-tiny is not there yet")
    blocks = re.findall(r"```python\n(.*?)```", (repository / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len([line for line in blocks[0].splitlines() if line.strip()]) == 10
    (tmp_path / "example.py").write_text(blocks[0], encoding="utf-8")
    env = dict(os.environ, PYTHONPATH=str(wheel_folder), PYTHONSAFEPATH="1", HF_HUB_OFFLINE="1")
    done = subprocess.run(
        [sys.executable, "example.py"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=EXAMPLE_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    assert "pneumothorax" in done.stdout
