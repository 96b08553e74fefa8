"""Keep a run's figures for the docs, and show them as a Markdown table.

    python examples/docs_figures.py RUN/results.jsonl --out docs/figures/NAME.json
    python examples/docs_figures.py docs/figures/NAME.json

The figures of `kvlp link score --out` are shown too. The first writes every area under the curve, difference and
retrieval figure with its interval, its split and the hashes of data, model, graph and prompts; the second prints a
table of them for a page.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from kvlp.datasets.files import atomic_write
from kvlp.eval.results import read_results

KEPT = ("auc", "auc_difference", "precision_at_10", "lift_at_10")
FIELDS = (
    "split",
    "task",
    "metric",
    "target",
    "group",
    "setting",
    "value",
    "low",
    "high",
    "n",
    "n_positive",
    "n_groups",
)


def kept_rows(path: Path) -> dict[str, Any]:
    """The rows of a results file that docs may quote, and what they rest on (the first row of each split)."""
    rows = [result.to_dict() for result in read_results(path) if result.metric in KEPT]
    hashes = ("split_hash", "model_hash", "graph_hash", "prompt_hash", "seed", "versions")
    rests = {str(row["split"]): {name: row[name] for name in hashes} for row in reversed(rows)}
    return {"rests_on": rests, "rows": [{name: row[name] for name in FIELDS} for row in rows]}


def table(rows: list[dict[str, Any]]) -> str:
    """A Markdown table: split, what, score, value with its interval, images."""
    lines = ["| split | what | score | figure | images |", "| --- | --- | --- | --- | --- |"]
    for row in rows:
        value = "undefined" if row["value"] is None else f"{row['value']:.3f}"
        interval = "" if row["low"] is None else f" ({row['low']:.3f} to {row['high']:.3f})"
        what = row["target"] + (f", {row['group']}" if row["group"] and row["target"] == "macro" else "")
        score = row["setting"] if row["metric"].startswith("auc") else row["metric"].replace("_", " ")
        lines.append(f"| {row['split']} | {what} | {score} | {value}{interval} | {row['n']} |")
    return "\n".join(lines)


def agreement_table(document: dict[str, Any]) -> str:
    """A Markdown table of `kvlp link score`: F1 by class with its interval, a column for each way to count doubt."""
    ways = document["uncertain"]
    lines = [f"| class | positive | {' | '.join(ways)} |", f"| --- | --- |{' --- |' * len(ways)}"]
    for rows in zip(*ways.values(), strict=True):
        positive = f"{rows[0]['n_positive']} classes" if rows[0]["name"] == "macro" else rows[0]["n_positive"]
        lines.append(f"| {rows[0]['name']} | {positive} | {' | '.join(map(_f1, rows))} |")
    return "\n".join(lines)


def _f1(row: dict[str, Any]) -> str:
    return "undefined" if row["f1"] is None else f"{row['f1']:.3f} ({row['low']:.3f} to {row['high']:.3f})"


def main() -> None:
    """Write the figures, or print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figures", type=Path, help="results.jsonl of a run, or a file this script wrote")
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    if arguments.figures.suffix == ".jsonl":
        kept = kept_rows(arguments.figures)
        if arguments.out:
            atomic_write(arguments.out, (json.dumps(kept, indent=1) + "\n").encode())
    else:
        kept = json.loads(arguments.figures.read_text(encoding="utf-8"))
    print(agreement_table(kept) if "uncertain" in kept else table(kept["rows"]))


if __name__ == "__main__":
    main()
