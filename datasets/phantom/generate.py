"""A folder of phantom radiographs with reports, manifest and truth."""

import hashlib
import json
import multiprocessing
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from kvlp.datasets.files import atomic_write
from kvlp.datasets.manifest import Manifest, Record
from kvlp.datasets.phantom.cases import Case, FindingSpec, sample_case
from kvlp.datasets.phantom.drawing import Rendering, render
from kvlp.datasets.phantom.fields import stream
from kvlp.datasets.phantom.lists import ALL_UNSEEN, LABELS, PHANTOM_VERSION
from kvlp.datasets.phantom.look_alikes import look_alike_cases, pair_finding
from kvlp.datasets.phantom.reports import write_report
from kvlp.datasets.processes import no_main_module
from kvlp.errors import ConfigError, DataError
from kvlp.knowledge.graph import Concept, KnowledgeGraph
from kvlp.typing import PathLike

__all__ = ["LOOK_ALIKES", "generate_look_alikes", "generate_phantom", "patient_cases", "phantom_hash", "truth"]

_SPLITS: Mapping[str, float] = {"train": 0.7, "dev": 0.1, "test": 0.2}
_SECOND_STUDY = 0.25
#: Images that a patient has on average.
STUDIES_PER_PATIENT = 1 + _SECOND_STUDY
_LICENCE = "CC0-1.0"


@dataclass(frozen=True, slots=True)
class _Job:
    """What a worker needs to know; small enough to be sent with each chunk."""

    out: str
    seed: int
    size: int
    graph: str
    splits: tuple[tuple[str, float], ...]
    source: str = "phantom"


@dataclass(frozen=True, slots=True)
class _Made:
    record: Record
    truth: dict[str, object]


def patient_cases(seed: int, patient: int) -> list[Case]:
    """The one or two studies of one patient: a pure function of (seed, patient)."""
    rng = np.random.default_rng([seed, patient])
    cases = [sample_case(rng)]
    if rng.random() < _SECOND_STUDY:
        cases.append(sample_case(rng, previous=cases[0]))
    return cases


#: source of the pairs of `look_alikes.py`
LOOK_ALIKES = "phantom-look-alikes"
_CASES: Mapping[str, Callable[[int, int], list[Case]]] = {"phantom": patient_cases, LOOK_ALIKES: look_alike_cases}


def generate_phantom(
    out: PathLike,
    *,
    patients: int | None = None,
    images: int | None = None,
    seed: int = 0,
    size: int = 96,
    fractions: Mapping[str, float] = _SPLITS,
    jobs: int = 2,
    graph: PathLike = "chest",
) -> Manifest:
    """Make synthetic frontal chest radiographs with reports: to prove plumbing and to teach, never to claim accuracy.

    Writes images/*.png (8 bit), manifest.csv (one row an image; labels 1/0 as drawn, see Case.labels),
    truth.jsonl (specs and boxes) and phantom.json (version, settings). The result depends on seed and size
    alone, not on jobs.

    Args:
        out: folder, made when it is not there.
        patients: how many patients; each has one or two studies with one image.
        images: instead of patients, about how many images.
        seed: 0 or above.
        size: pixels on a side.
        fractions: split name -> share of the patients; shares add up to 1.
        jobs: worker processes; 1 works in this one.
        graph: "chest", or the folder of a graph whose descriptions the reports use.

    Raises:
        ConfigError: an argument out of range.
    """
    if (patients is None) == (images is None):
        raise ConfigError("generate_phantom: expected exactly one of patients and images")
    count = patients if patients is not None else round((images or 0) / STUDIES_PER_PATIENT)
    if count < 1 or seed < 0 or jobs < 1:
        raise ConfigError(
            f"generate_phantom: expected patients >= 1, seed >= 0, jobs >= 1; got {count}, {seed}, {jobs}"
        )
    if abs(sum(fractions.values()) - 1) > 1e-6 or min(fractions.values()) < 0:
        raise ConfigError(f"fractions: expected shares >= 0 that add up to 1, got {dict(fractions)}")
    return _generate(_Job(str(out), seed, size, str(graph), tuple(fractions.items())), count, jobs)


def generate_look_alikes(out: PathLike, *, pairs: int, seed: int = 0, size: int = 96, jobs: int = 2) -> Manifest:
    """Make pairs of test images: an unseen finding, and the seen ones that look like it (see `look_alikes.py`).

    Writes what `generate_phantom` writes; a pair counts as one patient.

    Raises:
        ConfigError: an argument out of range.
    """
    if pairs < 1 or seed < 0 or jobs < 1:
        raise ConfigError(f"look-alikes: expected pairs >= 1, seed >= 0, jobs >= 1; got {pairs}, {seed}, {jobs}")
    return _generate(_Job(str(out), seed, size, "chest", (("test", 1.0),), LOOK_ALIKES), pairs, jobs)


def _generate(job: _Job, count: int, jobs: int) -> Manifest:
    folder = Path(job.out)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    made = list(_make_all(job, count, jobs))
    manifest = Manifest([m.record for m in made], folder)
    manifest.save(folder / "manifest.csv")
    lines = (json.dumps(m.truth, sort_keys=True) for m in made)
    atomic_write(folder / "truth.jsonl", ("\n".join(lines) + "\n").encode())
    settings = {
        "version": PHANTOM_VERSION, "seed": job.seed, "size": job.size, "patients": count, "fractions": dict(job.splits)
    }  # fmt: skip
    atomic_write(folder / "phantom.json", (json.dumps(settings, indent=2, sort_keys=True) + "\n").encode())
    return manifest


def _make_all(job: _Job, count: int, jobs: int) -> Iterator[_Made]:
    chunks = [range(start, min(start + 25, count)) for start in range(0, count, 25)]
    if jobs == 1 or len(chunks) == 1:
        for chunk in chunks:
            yield from _make(job, chunk)
        return
    # Spawn, not fork: a parent that has loaded torch holds threads that a fork would break.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, len(chunks)), mp_context=context) as pool:
        with no_main_module():
            parts = pool.map(_Maker(job), chunks)  # starts the workers
        try:
            for part in parts:
                yield from part
        except BrokenProcessPool:
            raise DataError(f"{job.out}: a drawing process was ended from outside; draw again, with jobs=1") from None


@dataclass(frozen=True, slots=True)
class _Maker:
    job: _Job

    def __call__(self, chunk: range) -> list[_Made]:
        return _make(self.job, chunk)


_GRAPHS: dict[str, KnowledgeGraph] = {}


def _graph(name: str) -> KnowledgeGraph:
    if name not in _GRAPHS:
        _GRAPHS[name] = KnowledgeGraph.load(name)
    return _GRAPHS[name]


def _make(job: _Job, chunk: range) -> list[_Made]:
    graph = _graph(job.graph)
    return [
        _one(job, graph, patient, number, case)
        for patient in chunk
        for number, case in enumerate(_CASES[job.source](job.seed, patient), 1)
    ]


def _one(job: _Job, graph: KnowledgeGraph, patient: int, number: int, case: Case) -> _Made:
    drawn = render(case, job.size)
    text = write_report(case, graph, stream(case.seed, "report"))
    name = f"p{patient:06d}s{number}"
    path = Path("images") / f"{name}.png"
    Image.fromarray(drawn.image).save(Path(job.out) / path, compress_level=1)
    record = Record(
        id=name,
        image=path.as_posix(),
        text=text,
        patient_id=f"p{patient:06d}",
        study_id=name,
        view=case.view,
        split=_split(job, patient),
        labels=_labels(job, patient, case),
        source=job.source,
        licence=_LICENCE,
        extra={"difficulty": ";".join(f"{s.id}={s.difficulty}" for s in case.findings.values())},
    )
    return _Made(record, {"id": name, **truth(case, drawn)})


def _labels(job: _Job, patient: int, case: Case) -> dict[str, float]:
    """All that is drawn; in a pair only its own finding, which the other pairs say nothing of."""
    if job.source != LOOK_ALIKES:
        return case.labels
    return {pair_finding(patient): case.labels[pair_finding(patient)]}


def truth(case: Case, drawn: Rendering) -> dict[str, object]:
    """What a case holds and where, as plain data: one entry a finding or device."""
    return {
        "view": case.view,
        "findings": [_told(s, drawn) for s in case.findings.values()],
        "devices": [_told(s, drawn) for s in case.devices.values()],
    }


def _told(spec: FindingSpec, drawn: Rendering) -> dict[str, object]:
    return {
        "id": spec.id,
        "side": spec.side,
        "zone": spec.zone,
        "severity": spec.severity,
        "difficulty": spec.difficulty,
        "box": list(drawn.boxes[spec.id]) if spec.id in drawn.boxes else None,
    }


def _split(job: _Job, patient: int) -> str:
    draw = float(stream(job.seed * 1_000_003 + patient, "split").random())
    edge = 0.0
    for name, share in job.splits:
        edge += share
        if draw < edge:
            return name
    return job.splits[-1][0]


def phantom_hash(graph: KnowledgeGraph | None = None) -> str:
    """SHA-256 (hex) over a fixed small set: pictures and labels of 24 patients, every finding alone, and reports.

    Of a picture the means of 8 x 8 blocks count, rounded to two grey levels: enough to notice any change of look,
    and the same on machines whose float rounding differs.

    Args:
        graph: gives the words for unseen findings; None takes placeholders, so that no graph changes the hash.
    """
    if graph is None:
        words = [Concept(i, i, descriptions=("something to see",)) for i in ALL_UNSEEN]
        graph = KnowledgeGraph(words, [], name="placeholders")
    digest = hashlib.sha256(PHANTOM_VERSION.encode())
    cases = [case for patient in range(24) for case in patient_cases(20261121, patient)]
    alone = [Case(7, 7).adding(FindingSpec(name, "right", 2, "medium", "mid", 5)) for name in LABELS]
    for case in cases + alone:
        blocks = render(case, 64).image.reshape(8, 8, 8, 8).mean(axis=(1, 3))
        digest.update(np.round(blocks / 2).astype(np.uint8).tobytes())
        digest.update(json.dumps([case.view, case.labels], sort_keys=True).encode())
        digest.update(write_report(case, graph, stream(case.seed, "report")).encode())
    return digest.hexdigest()
