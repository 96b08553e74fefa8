"""Benchmark `assertions`: who reads presence, absence and doubt right, with the same surfaces of the chest graph.

On our own sentences (tests/knowledge/assertion_suite*.yaml, assertion_heldout.yaml) the score is the share of claims
read right; on the Indiana reports it is micro-F1 of 13 findings against human indexing, with doubt counted as absence
and as presence. Peers supply mentions and assertions; what a mention means for a label (kinds, sections, normal
statements) is the same for all and is ours, which is to their favour.

Settings: `suites=FILE;FILE`, `reports=FILE`, `split=dev`, `peer_python=PYTHON` (with spaCy, negspacy and medspacy).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from kvlp.errors import ConfigError
from kvlp.eval.bench.contestants import contestants
from kvlp.eval.bench.measure import BenchOptions, Measure
from kvlp.eval.bench.vocabulary import data_folder, read_reports, vocabulary_of
from kvlp.eval.label_agreement import agreement, gold_column, present_labels
from kvlp.knowledge.classes import load_classes
from kvlp.knowledge.graph import KnowledgeGraph
from kvlp.knowledge.labels import LabelMap, Uncertain, labels_from_mentions, speaks
from kvlp.knowledge.linking import EntityLinker, Mention
from kvlp.knowledge.sections import split_sections
from kvlp.typing import Assertion

__all__ = ["Claims", "read_suite", "run", "suite_score"]

#: text -> concept -> present, absent, uncertain or none
Claims = dict[str, dict[str, str]]
_SETTINGS = ("suites", "reports", "split", "peer_python")
_PEERS = ("spaCy EntityRuler + negspacy", "medspacy")
_SAID = {1.0: "present", 0.0: "absent", -1.0: "uncertain"}
_DRAWS = 1000
_SUITES = ("assertion_suite*.yaml", "assertion_heldout.yaml")


def run(options: BenchOptions) -> list[Measure]:
    """Score kvlp and the peers that are there, on the suites and on the reports if they are there.

    Raises:
        ConfigError: an unknown setting, or a suite that is not there.
    """
    unknown = set(options.settings) - set(_SETTINGS)
    if unknown:
        raise ConfigError(f"benchmark assertions has no setting '{min(unknown)}'; it has {', '.join(_SETTINGS)}")
    graph = KnowledgeGraph.load("chest")
    suites = {path.stem: read_suite(path) for path in _suite_files(options.settings.get("suites", ""))}
    reports = _reports(options)
    texts = [text for claims in suites.values() for text in claims] + [row["text"] for row in reports]
    measures = []
    for name, answers in _read(graph, texts, options).items():
        said = dict(zip(texts, answers, strict=True))
        for suite, claims in suites.items():
            measures += suite_score(name, suite, claims, said, graph, seed=options.seed)
        if reports:
            measures += _report_score(name, reports, said, graph, options)
    return measures


def _suite_files(setting: str) -> list[Path]:
    found = [f for pattern in _SUITES for f in sorted(Path("tests/knowledge").glob(pattern))]
    files = [Path(f) for f in setting.split(";") if f] or found
    missing = [str(f) for f in files if not f.is_file()]
    if missing or not files:
        raise ConfigError(f"no suite {', '.join(missing)}: run from the checkout, or give --set suites=FILE;FILE")
    return files


def read_suite(path: Path) -> Claims:
    """Read a suite: phenomenon -> rows of text and claims."""
    phenomena: dict[str, list[Any]] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {text: claims for rows in phenomena.values() for text, claims in rows}


def _reports(options: BenchOptions) -> list[dict[str, str]]:
    file = Path(options.settings.get("reports", data_folder() / "reports" / "iu_xray_reports.csv"))
    if "reports" not in options.settings and not file.is_file():
        options.say("no reports: only the suites are scored")
        return []
    return [row for row in read_reports(file) if row.get("split") == options.settings.get("split", "dev")]


def _read(graph: KnowledgeGraph, texts: Sequence[str], options: BenchOptions) -> dict[str, list[list[Mention]]]:
    read = {"kvlp": EntityLinker(graph).link_many(texts)}
    job = {"vocabulary": vocabulary_of(None, 10**9).rows, "texts": list(texts)}
    python = options.settings.get("peer_python")
    interpreters = dict.fromkeys(_PEERS, python) if python else {}
    with contestants(dict.fromkeys(_PEERS, job), interpreters, options) as running:
        for peer in running:
            rows = peer.ask("answers")["answers"]
            read[peer.name] = [_mentions(text, found) for text, found in zip(texts, rows, strict=True)]
    return read


def _mentions(text: str, rows: Sequence[Sequence[Any]]) -> list[Mention]:
    sections = split_sections(text)
    mentions = []
    for concept, start, end, said in rows:
        section = next((s.name for s in sections if s.start <= start < s.end), "other")
        mentions.append(Mention(concept, text[start:end], start, end, Assertion(said), section=section))
    return mentions


def suite_score(
    name: str, suite: str, claims: Claims, said: dict[str, list[Mention]], graph: KnowledgeGraph, *, seed: int = 0
) -> list[Measure]:
    """The share of claims that a contestant reads right: of all, and of those without doubt."""
    wanted = {"all claims": None, "claims of presence or absence": "uncertain"}
    measures = []
    for which, left_out in wanted.items():
        counts = np.array([_right(expected, said[text], graph, left_out) for text, expected in claims.items()])
        value, low, high = _interval(counts, seed)
        notes = f"{int(counts[:, 1].sum())} claims in {len(claims)} sentences; 95 % interval, bootstrap of sentences"
        measures.append(Measure(f"{suite}, {which}", name, value, "share", low, high, _DRAWS, notes))
    return measures


def _right(
    expected: dict[str, str], mentions: Sequence[Mention], graph: KnowledgeGraph, left_out: str | None
) -> tuple[int, int]:
    """Claims of one text: how many are read right, and how many there are."""
    labels = labels_from_mentions(mentions, list(expected), graph)
    named = {m.concept for m in mentions if speaks(m)}
    got = {c: "none" if math.isnan(value) else _SAID[value] for c, value in labels.items()}
    # "none" is about the words, not about what a normal statement implies
    got |= {c: "named" if c in named else "none" for c, value in expected.items() if value == "none"}
    counted = [c for c, value in expected.items() if value != left_out]
    return sum(got[c] == expected[c] for c in counted), len(counted)


def _interval(counts: np.ndarray, seed: int) -> tuple[float, float, float]:
    counts = counts[counts[:, 1] > 0]
    draws = np.random.default_rng(seed).integers(len(counts), size=(_DRAWS, len(counts)))
    right, total = counts[draws].sum(axis=1).T
    low, high = np.quantile(right / total, [0.025, 0.975])
    return float(counts[:, 0].sum() / counts[:, 1].sum()), float(low), float(high)


def _report_score(
    name: str,
    reports: Sequence[dict[str, str]],
    said: dict[str, list[Mention]],
    graph: KnowledgeGraph,
    options: BenchOptions,
) -> list[Measure]:
    classes = {c: concepts for c, concepts in load_classes("nih14").concepts.items() if c != "Hernia"}
    gold = np.stack([gold_column([row[f"gold_{c}"] for row in reports], c) for c in classes], axis=1)
    read = [said[row["text"]] for row in reports]
    mappings: dict[str, Uncertain] = {"doubt is absence": "zeros", "doubt is presence": "ones"}
    if name == "kvlp":
        mappings["doubt by its grade"] = "graded"  # peers know no grades
    measures = []
    for mapping, uncertain in mappings.items():
        yes = present_labels(LabelMap(graph, classes, uncertain=uncertain), read)
        row = next(r for r in agreement(gold, yes, list(classes), n=_DRAWS, seed=options.seed) if r.name == "micro")
        notes = (
            f"{len(reports)} reports of {options.settings.get('split', 'dev')}, {len(classes)} findings; 95 % interval"
        )
        measures.append(Measure(f"reports, micro-F1, {mapping}", name, row.f1, "F1", row.low, row.high, _DRAWS, notes))
    return measures
