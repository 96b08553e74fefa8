"""The slow tier: kill, fuzz, soak and coverage-simulation tests, a rotating share of them within a budget of minutes.

    python .ci/slow.py [--budget MINUTES] [--share S] [--seed N] [--figures FILE]

The files of slow tests stand in a fixed order; the seed (SLOW_SEED, else the day's number) says where to begin, so that
within a week each file comes first once. No test starts after the budget is used. Tests that can be run smaller take
their size from KVLP_SLOW_SHARE. The figures are written anew after each test: those of a run that was cut off say
"finished": false. Exit 0 if nothing failed, also when there is no slow test.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import sys
import time
from datetime import date
from pathlib import Path

import pytest

ROTATION_DAYS = 7


def rotated(files: list[str], seed: int) -> list[str]:
    """Order `files` by a hash of their names and begin at a place that the seed moves by a seventh a day."""
    fixed = sorted(set(files), key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    if not fixed:
        return []
    start = seed * max(1, -(-len(fixed) // ROTATION_DAYS)) % len(fixed)
    return fixed[start:] + fixed[:start]


class SlowTier:
    """A pytest plugin: keeps the tests marked slow, rotates their files, stops starting tests when time is up.

    The figures go to `path`, if one is given, after each test.
    """

    def __init__(self, seed: int, share: float, budget_s: float, path: Path | None = None) -> None:
        self.seed = seed
        self.share = share
        self.budget_s = budget_s
        self.path = path
        self.finished = False
        self.total = 0
        self.not_started: list[str] = []
        self.outcomes: dict[str, str] = {}
        self.seconds: dict[str, float] = {}
        self.started = time.monotonic()

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Keep only slow tests, file by file in the rotated order."""
        slow = [item for item in items if item.get_closest_marker("slow")]
        files = {name: place for place, name in enumerate(rotated([i.nodeid.split("::")[0] for i in slow], self.seed))}
        self.total = len(slow)
        items[:] = sorted(slow, key=lambda item: files[item.nodeid.split("::")[0]])

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Skip what would start after the budget."""
        if time.monotonic() - self.started > self.budget_s:
            self.not_started.append(item.nodeid)
            pytest.skip("the budget of the slow tier is used")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note each test's outcome (a failure in any phase counts) and its seconds."""
        name = report.nodeid
        self.seconds[name] = self.seconds.get(name, 0.0) + report.duration
        if report.failed or name not in self.outcomes or (report.when == "call" and self.outcomes[name] != "failed"):
            self.outcomes[name] = report.outcome

    def pytest_runtest_logfinish(self) -> None:
        """Write what is known by now."""
        self.write()

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """Write the last figures; a run that was stopped is not finished."""
        self.finished = exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
        self.write()

    def write(self) -> None:
        """Replace the file of figures at once, so that a kill leaves the old or the new one."""
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_name(self.path.name + ".part")
        part.write_text(json.dumps(self.figures(), indent=1) + "\n", encoding="utf-8")
        part.replace(self.path)

    def figures(self) -> dict[str, object]:
        """Counts, and each test's outcome and seconds."""
        ran = {name: outcome for name, outcome in self.outcomes.items() if name not in self.not_started}
        counts = {kind: sum(o == kind for o in ran.values()) for kind in ("passed", "failed", "skipped")}
        tests = {name: {"outcome": ran[name], "seconds": round(self.seconds[name], 2)} for name in sorted(ran)}
        took = round(time.monotonic() - self.started, 1)
        run = {"share": self.share, "finished": self.finished, "total": self.total, "selected": len(ran)}
        return {**run, **counts, "seed": self.seed, "seconds": took, "tests": tests}


def main() -> int:
    """Run the tier, print its counts, write its figures if asked; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=float, default=0.0, help="minutes; 0 for no limit")
    parser.add_argument("--share", type=float, default=0.25, help="size of size-taking tests, 1 for full size")
    parser.add_argument("--seed", type=int, default=int(os.environ.get("SLOW_SEED") or date.today().toordinal()))
    parser.add_argument("--figures", type=Path, help="write counts and outcomes to this JSON file")
    options, rest = parser.parse_known_args()
    os.environ["KVLP_SLOW_SHARE"] = str(options.share)
    budget_s = options.budget * 60 or float("inf")
    one_test = min(budget_s, 7200)
    tier = SlowTier(options.seed, options.share, budget_s, options.figures)
    status = pytest.main(
        ["-m", "slow and not gpu", "-p", "no:randomly", f"--timeout={math.ceil(one_test)}", *rest], [tier]
    )
    figures = tier.figures()
    print(
        f"slow tier: {figures['selected']} of {figures['total']} selected, {figures['passed']} passed, "
        f"{figures['failed']} failed, {figures['skipped']} skipped; seed {options.seed}, share {options.share:g}"
    )
    nothing_there = status == pytest.ExitCode.NO_TESTS_COLLECTED and tier.total == 0
    return 0 if nothing_there else int(status)


if __name__ == "__main__":
    sys.exit(main())
