"""One contestant of the linking benchmarks in a process of its own, so that each has its own memory and interpreter.

Run as a file by whatever interpreter has the contestant: `python link_worker.py CONTESTANT JOB.json`. The job holds
`vocabulary` (rows of concept, surface, type), `texts`, and for kvlp `linkers` (saved ones by name). One JSON line comes
when the contestant is ready, then one for each command read: "run" (read all texts) and "answers" (what was found: rows
of concept, start, end, assertion). Needs nothing of kvlp, except for the contestants that are kvlp.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

__all__ = ["CONTESTANTS", "main"]

#: concept, start, end, assertion
Row: TypeAlias = "tuple[str, int, int, str]"
Reader: TypeAlias = "Callable[[list[str]], Iterator[list[Row]]]"
Job: TypeAlias = "dict[str, Any]"


def _kvlp(job: Job, linker: str = "everything", remember: int = 20_000) -> Reader:
    from kvlp.knowledge.linking import EntityLinker

    read_one = EntityLinker.load(job["linkers"][linker], remember=remember)

    def read(texts: list[str]) -> Iterator[list[Row]]:
        read_one.forget()
        for text in texts:
            yield [(m.concept, m.start, m.end, m.assertion.value) for m in read_one(text)]

    return read


def _kvlp_builds(job: Job) -> Reader:
    """kvlp from the vocabulary itself, not from a saved linker."""
    from kvlp.eval.bench.vocabulary import Vocabulary
    from kvlp.knowledge.linking import EntityLinker

    linker = EntityLinker(Vocabulary([tuple(row) for row in job["vocabulary"]]).graph())
    return lambda texts: ([(m.concept, m.start, m.end, m.assertion.value) for m in linker(t)] for t in texts)


def _spacy(job: Job, add: Callable[[Any, Job], None], said: Callable[[Any], str]) -> Reader:
    import spacy

    nlp = spacy.blank("en")
    nlp.max_length = 10_000_000
    nlp.add_pipe("sentencizer")
    add(nlp, job)

    def read(texts: list[str]) -> Iterator[list[Row]]:
        for doc in nlp.pipe(texts, batch_size=128):
            yield [(e.ent_id_ or e.label_, e.start_char, e.end_char, said(e)) for e in doc.ents]

    return read


def _add_ruler(nlp: Any, job: Job) -> None:
    ruler = nlp.add_pipe("entity_ruler", config={"phrase_matcher_attr": "LOWER"})
    ruler.add_patterns([{"label": "CONCEPT", "pattern": s, "id": c} for c, s, _ in job["vocabulary"]])


def _add_matcher(nlp: Any, job: Job) -> None:
    """The leanest that spaCy offers: its PhraseMatcher, the longest spans kept, no EntityRuler around it."""
    from spacy.language import Language
    from spacy.matcher import PhraseMatcher
    from spacy.tokens import Span
    from spacy.util import filter_spans

    matcher = PhraseMatcher(nlp.vocab, attr="LOWER")
    for concept, surface, _ in job["vocabulary"]:
        matcher.add(concept, [nlp.make_doc(surface)])

    @Language.component("lean_matcher")
    def lean(doc: Any) -> Any:
        doc.ents = filter_spans([Span(doc, s, e, label="CONCEPT", span_id=k) for k, s, e in matcher(doc)])
        return doc

    nlp.add_pipe("lean_matcher")


def _with_negex(add_matcher: Callable[[Any, Job], None]) -> Callable[[Any, Job], None]:
    def add(nlp: Any, job: Job) -> None:
        import negspacy.negation  # noqa: F401

        add_matcher(nlp, job)
        nlp.add_pipe("negex", config={"ent_types": ["CONCEPT"]})

    return add


def _negex_said(entity: Any) -> str:
    return "absent" if entity._.negex else "present"


def _ruler_negspacy(job: Job) -> Reader:
    return _spacy(job, _with_negex(_add_ruler), _negex_said)


def _matcher_negspacy(job: Job) -> Reader:
    return _spacy(job, _with_negex(_add_matcher), _negex_said)


def _medspacy(job: Job) -> Reader:
    from medspacy.target_matcher import TargetRule

    def add(nlp: Any, job: Job) -> None:
        matcher = nlp.add_pipe("medspacy_target_matcher")
        matcher.add([TargetRule(s, c) for c, s, _ in job["vocabulary"]])
        nlp.add_pipe("medspacy_context")

    def said(entity: Any) -> str:
        about = entity._
        if about.is_negated or about.is_family:
            return "absent"
        return "uncertain" if about.is_uncertain or about.is_hypothetical or about.is_historical else "present"

    return _spacy(job, add, said)


def _scispacy(job: Job) -> Reader:
    """The EntityLinker of scispaCy on mentions of spaCy's EntityRuler; it has no assertion."""
    from scispacy.linking import EntityLinker

    def add(nlp: Any, job: Job) -> None:
        _add_ruler(nlp, job)
        generator = _candidate_generator(job)
        linker = EntityLinker(
            nlp, candidate_generator=generator, filter_for_definitions=False, max_entities_per_mention=1
        )
        from spacy.language import Language

        Language.component("vocabulary_linker", func=linker)
        nlp.add_pipe("vocabulary_linker")

    return _spacy(job, add, lambda entity: "present")


def _candidate_generator(job: Job) -> Any:
    """Its approximate index over our vocabulary: the stock builder needs an old SciPy, so it is built here."""
    import nmslib
    from scispacy.candidate_generation import CandidateGenerator
    from scispacy.linking_utils import Entity, KnowledgeBase
    from sklearn.feature_extraction.text import TfidfVectorizer

    knowledge = KnowledgeBase.__new__(KnowledgeBase)
    aliases: dict[str, list[str]] = {}
    for concept, surface, _ in job["vocabulary"]:
        aliases.setdefault(concept, []).append(surface)
    knowledge.cui_to_entity = {c: Entity(c, a[0], a, [], "") for c, a in aliases.items()}
    knowledge.alias_to_cuis = {}
    for concept, names in aliases.items():
        for name in names:
            knowledge.alias_to_cuis.setdefault(name, set()).add(concept)
    surfaces = list(knowledge.alias_to_cuis)
    vectoriser = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 3), min_df=1, dtype="float32")
    vectors = vectoriser.fit_transform(surfaces)
    index = nmslib.init(method="hnsw", space="cosinesimil_sparse", data_type=nmslib.DataType.SPARSE_VECTOR)
    index.addDataPointBatch(vectors)
    index.createIndex({"M": 16, "efConstruction": 200, "indexThreadQty": 1, "post": 0}, print_progress=False)
    index.setQueryTimeParams({"efSearch": 200})
    return CandidateGenerator(
        ann_index=index, tfidf_vectorizer=vectoriser, ann_concept_aliases_list=surfaces, kb=knowledge
    )


CONTESTANTS: dict[str, Callable[[Job], Reader]] = {
    "kvlp": _kvlp,
    "kvlp, nothing remembered": partial(_kvlp, remember=0),
    "kvlp, assertions only": partial(_kvlp, linker="assertions"),
    "kvlp, assertions only, nothing remembered": partial(_kvlp, linker="assertions", remember=0),
    "kvlp, built": _kvlp_builds,
    "spaCy EntityRuler + negspacy": _ruler_negspacy,
    "spaCy PhraseMatcher + negspacy": _matcher_negspacy,
    "medspacy": _medspacy,
    "scispaCy": _scispacy,
}


def main(contestant: str, job_file: str) -> None:
    """Be one contestant until the input ends."""
    job: Job = json.loads(Path(job_file).read_text(encoding="utf-8"))
    start, used = time.perf_counter(), time.process_time()
    read = CONTESTANTS[contestant](job)
    seconds, used = time.perf_counter() - start, time.process_time() - used
    _answer({"ready_s": seconds, "ready_cpu_s": used, "rss_mb": _peak_mb()})
    texts = job["texts"]
    for command in sys.stdin:
        if command.strip() == "answers":
            _answer({"answers": list(read(texts))})
            continue
        gc.collect()
        start, used = time.perf_counter(), time.process_time()
        count = sum(len(rows) for rows in read(texts))
        seconds, used = time.perf_counter() - start, time.process_time() - used
        _answer({"seconds": seconds, "cpu_s": used, "mentions": count, "rss_mb": _peak_mb()})


def _answer(row: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(row) + "\n")
    sys.stdout.flush()


def _peak_mb() -> float:
    """Peak resident memory of this process in MB; NaN where the system does not tell it."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return float("nan")
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), float("nan"))


if __name__ == "__main__":
    main(*sys.argv[1:])
