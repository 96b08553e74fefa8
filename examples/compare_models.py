"""Score finished models on the same labelled images and print one table with paired intervals.

    kvlp data import phantom-look-alikes 600 --out look_alikes
    python examples/compare_models.py --data look_alikes/manifest.csv --classes hydropneumothorax,lung_cavity \
        --model kad=runs/kad/checkpoint --model kad=runs/kad/compare/seed-1/kad-phantom/checkpoint \
        --model clip=runs/kad/compare/clip-baseline/checkpoint --out docs/figures/look_alikes.md

Models of one name are its seeds: their areas are averaged. The first name is compared with every other. A query network
is scored as a model of its own. Intervals: 95 %, over patients (here pairs), all models on the same resamples.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import kvlp
from kvlp.errors import ConfigError, DataError
from kvlp.eval.evaluate import EvalOptions, evaluate
from kvlp.eval.tasks import group_by_naming, labels_with_both
from kvlp.workflows.compare import Comparison, encoder_tables, query_tables


def main() -> None:
    """Score the models, print the table, write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", required=True, metavar="NAME=CHECKPOINT")
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--classes", default="", help="separated by commas; default: every label with both values")
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()

    graph, rows = kvlp.KnowledgeGraph.load("chest"), kvlp.Manifest.load(options.data).subset(split=options.split)
    classes = options.classes.split(",") if options.classes else labels_with_both(rows)
    names = [named.partition("=")[0] for named in options.model]
    comparison: Comparison | None = None
    for name, path in zip(names, [named.partition("=")[2] for named in options.model], strict=True):
        if not path:
            raise ConfigError(f"--model: expected NAME=CHECKPOINT, got {name!r}")
        model = kvlp.load(path)
        groups = group_by_naming(classes, graph, model.card.get("named_concepts"))
        how = EvalOptions(split=options.split, resamples=options.resamples, negation=False)
        found = evaluate(model, rows, groups, graph, options=how)
        if comparison is None:
            each = {one: [one] for one in found.classes} if len(found.classes) > 1 else {}
            comparison = Comparison(
                {**each, **found.groups, "all classes": found.classes}, seeds=tuple(range(names.count(name)))
            )
        comparison.add(name, encoder_tables(found))
        if asked := query_tables(model, found, rows, graph):
            comparison.add(f"{name}, query network", asked)
    if comparison is None:
        raise DataError("no model to score")
    table = comparison.markdown([s for s in comparison.tables if s.split(", query")[0] == names[0]])
    print(table)
    if options.out:
        options.out.write_text(table, encoding="utf-8")


if __name__ == "__main__":
    main()
