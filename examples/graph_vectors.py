"""Judge every way to make concept vectors on the links of a graph, beside controls; keep the figures, show a table.

    python examples/graph_vectors.py --out docs/figures/graph_vectors.json      train and judge (half an hour on a core)
    python examples/graph_vectors.py --only gat --out FILE                      only these rows; others in FILE stay
    python examples/graph_vectors.py docs/figures/graph_vectors.json            print the table of it
    python examples/graph_vectors.py --search --out search.json                 the settings tried, on validation links

--smoke trains for a moment, for tests.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kvlp.knowledge.embedding import evaluate_links
from kvlp.knowledge.graph import KnowledgeGraph

REPEATS = 3
#: what the page shows: a name, the method and the settings that are not its defaults
SHOWN: list[tuple[str, str, dict[str, Any]]] = [
    ("transe", "transe", {}),
    ("rotate", "rotate", {}),
    ("complex", "complex", {}),
    ("gat", "gat", {}),
    ("gat, no relation types", "gat", {"relation_types": False}),
    ("gat from text", "gat", {"start": "text"}),
    ("text", "text", {}),
]
#: what was tried to choose the defaults, each on validation links alone
SEARCH: list[tuple[str, str, dict[str, Any]]] = [
    *(("transe", "transe", {"lr": lr, "epochs": epochs}) for lr in (0.01, 0.03) for epochs in (100, 300)),
    *(("rotate", "rotate", {"lr": lr, "epochs": epochs}) for lr in (0.01, 0.03) for epochs in (300, 600)),
    *(("complex", "complex", {"lr": lr, "epochs": epochs}) for lr in (0.01, 0.03) for epochs in (100, 300)),
    *(("gat", "gat", {"lr": lr, "epochs": epochs}) for lr in (0.005, 0.02) for epochs in (100, 300)),
    *(("gat", "gat", {"dim": dim}) for dim in (32, 128)),
]


def judge(
    graph: str, runs: list[tuple[str, str, dict[str, Any]]], out: Path, *, repeats: int, part: str, keep: bool
) -> dict[str, Any]:
    """Evaluate each run, say on the terminal how it stands, and write the figures so far (`keep`: beside old ones)."""
    opened = KnowledgeGraph.load(graph)
    rows = json.loads(out.read_text(encoding="utf-8"))["rows"] if keep and out.exists() else []
    document: dict[str, Any] = {"graph": graph, "rows": rows}
    for name, method, settings in runs:
        report = evaluate_links(opened, method, repeats=repeats, part=part, **settings)  # type: ignore[arg-type]
        print("\n".join(report.lines()), file=sys.stderr, flush=True)
        row = {"name": name, **report.to_dict()}
        document["rows"] = _joined(document["rows"], row) if keep else [*document["rows"], row]
        out.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return document


def table(document: dict[str, Any]) -> str:
    """A Markdown table: filtered MRR and hits of the vectors, and the MRR's paired difference to each control."""
    lines = [
        "| vectors | MRR | hits@1 | hits@10 | minus untrained | minus shuffled | minus frequency |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in document["rows"]:
        own, less = row["scores"]["vectors"], row["differences"]
        cells = [_cell(own[m]) for m in ("mrr", "hits@1", "hits@10")]
        cells += [_cell(less[c]["mrr"]) if c in less else "-" for c in ("random", "shuffled", "frequency")]
        lines.append(f"| {row['name']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _joined(rows: list[dict[str, Any]], new: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows with the new one instead of an old one of its name, in the order of SHOWN."""
    order = [name for name, _, _ in SHOWN]
    return sorted([*(row for row in rows if row["name"] != new["name"]), new], key=lambda row: order.index(row["name"]))


def _cell(estimate: dict[str, float]) -> str:
    return f"{estimate['value']:.3f} ({estimate['low']:.3f} to {estimate['high']:.3f})"


def main(argv: Sequence[str] | None = None) -> None:
    """See the top of the file."""
    parser = argparse.ArgumentParser(description="Judge concept vectors on the links of a graph, beside controls.")
    parser.add_argument("figures", nargs="?", type=Path, help="figures to show")
    parser.add_argument("--out", type=Path, help="where to write figures")
    parser.add_argument("--graph", default="chest")
    parser.add_argument("--search", action="store_true", help="the settings tried, on validation links")
    parser.add_argument("--only", action="append", help="a row's name; may be repeated")
    parser.add_argument("--smoke", action="store_true")
    options = parser.parse_args(argv)
    if options.figures is not None:
        print(table(json.loads(options.figures.read_text(encoding="utf-8"))))
        return
    part = "validation" if options.search else "test"
    out = options.out or Path(tempfile.mkdtemp()) / "graph_vectors.json"
    if options.smoke:
        runs, repeats = [("gat", "gat", {"epochs": 2, "dim": 8})], 1
    else:
        runs = [run for run in (SEARCH if options.search else SHOWN) if not options.only or run[0] in options.only]
        repeats = REPEATS
    document = judge(options.graph, runs, out, repeats=repeats, part=part, keep=bool(options.only))
    print(table(document))


if __name__ == "__main__":
    main()
