"""Article packages into a manifest of image-text pairs. A run that was killed goes on where it stopped.

OUT/images/      one folder an article: panels as JPEG or PNG
OUT/journal/     one JSON file an article, written when it is done: what came out, what was left out and why
OUT/manifest.csv, articles.csv (who and under which licence), report.json, audit.html
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kvlp.datasets.figures.articles import process_package
from kvlp.datasets.figures.ocr import Engine, find_engine
from kvlp.datasets.figures.options import FigureOptions
from kvlp.datasets.figures.packages import ARCHIVE_ENDINGS, find_packages
from kvlp.datasets.files import atomic_write
from kvlp.datasets.manifest import Manifest, Record
from kvlp.datasets.processes import no_main_module
from kvlp.datasets.tables import write_table
from kvlp.errors import DataError
from kvlp.typing import PathLike

__all__ = ["FigureReport", "import_figures", "read_journal"]

_ARTICLE_COLUMNS = ("pmcid", "pmid", "doi", "title", "authors", "journal", "year", "licence", "licence_url")


@dataclass(frozen=True, slots=True)
class FigureReport:
    """Counts of a run; `report.json` holds the same.

    Attributes:
        packages: article packages found; `failed` could not be read, `repeated` held an article that another one has.
        carried_on: packages that an earlier run had done.
        figures: figures of the articles.
        pairs: image-text pairs in the manifest.
        how: the way that pairs were found -> how many.
        modality: kind of picture -> kept pairs.
        licence: licence -> kept pairs; "" where the article states none.
        dropped: reason -> figures or panels left out.
        problems: one line each: package, figure, what is wrong.
    """

    packages: int
    failed: int
    repeated: int
    carried_on: int
    figures: int
    pairs: int
    how: Mapping[str, int]
    modality: Mapping[str, int]
    licence: Mapping[str, int]
    dropped: Mapping[str, int]
    problems: Sequence[str]
    settings: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def import_figures(
    sources: Iterable[PathLike],
    out: PathLike,
    options: FigureOptions | None = None,
    *,
    jobs: int = 1,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> FigureReport:
    """Read article packages and write OUT/manifest.csv with images, a journal and a report.

    Args:
        sources: .tar.gz packages, unpacked packages, and folders that hold them at any depth.
        out: the folder to write; an earlier run there with the same options is carried on.
        options: what to keep.
        jobs: processes.
        overwrite: begin anew where OUT was made with other options.
        progress: called with packages done and all packages.

    Raises:
        DataError: no package, OUT was made with other options, or no pair is left. A package or picture that cannot
            be read is counted and named in the report; it stops nothing.
        ConfigError: an OCR engine that was asked for is not there.
    """
    options = options or FigureOptions()
    out = Path(out)
    engine = find_engine(options.ocr)
    keys = _keys(find_packages(sources))
    settings = {**asdict(options), "engine": f"tesseract {engine.version}" if engine else "none"}
    settings = {**settings, "fingerprint": options.fingerprint(settings["engine"])}
    _settle(out, settings, overwrite=overwrite)
    todo = [(key, path) for key, path in keys.items() if _entry(out, key, path) is None]
    if progress:
        progress(len(keys) - len(todo), len(keys))
    for done, _ in enumerate(_work(_Job(out, options, engine), todo, jobs), len(keys) - len(todo) + 1):
        if progress:
            progress(done, len(keys))
    return _collect(out, keys, len(keys) - len(todo), settings)


def read_journal(out: PathLike) -> Iterator[dict[str, Any]]:
    """The journal's entries in order of their names; one that is not whole is passed over, for it is made again."""
    for path in sorted((Path(out) / "journal").glob("*.json")):
        entry = _read(path)
        if entry is not None:
            yield entry


def _keys(paths: Sequence[Path]) -> dict[str, Path]:
    """A folder-safe name for each package, each once: its file's, with a hash of its path where two share one."""
    named: dict[str, list[Path]] = {}
    for path in paths:
        ending = next((e for e in ARCHIVE_ENDINGS if path.name.lower().endswith(e) and path.is_file()), "")
        stem = path.resolve().name if path.is_dir() else path.name[: len(path.name) - len(ending)]
        named.setdefault(re.sub(r"[^A-Za-z0-9_-]", "_", stem)[:80] or "article", []).append(path)
    keys: dict[str, Path] = {}
    for stem, same in named.items():
        for path in same:
            digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]
            keys[stem if len(same) == 1 else f"{stem}-{digest}"] = path
    return keys


def _settle(out: Path, settings: Mapping[str, Any], *, overwrite: bool) -> None:
    """Write the settings, or check that OUT was made with the same."""
    path = out / "settings.json"
    before = _read(path)
    if before is not None and before.get("fingerprint") != settings["fingerprint"]:
        if not overwrite:
            differ = [
                n for n in settings if n != "fingerprint" and json.loads(json.dumps(settings[n])) != before.get(n)
            ]
            raise DataError(
                f"{out}: was made with other options ({', '.join(differ) or 'version'}); "
                "give --overwrite to begin anew, or another folder"
            )
        for entry in (out / "journal").glob("*.json"):
            entry.unlink()
    out.mkdir(parents=True, exist_ok=True)
    atomic_write(path, (json.dumps(settings, indent=1) + "\n").encode())


def _read(path: Path) -> dict[str, Any] | None:
    try:
        entry = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return entry if isinstance(entry, dict) else None


def _entry(out: Path, key: str, path: Path) -> dict[str, Any] | None:
    """The journal's entry of a package if it is done and has not changed since."""
    entry = _read(out / "journal" / f"{key}.json")
    return entry if entry is not None and entry.get("stamp") == _stamp(path) else None


def _stamp(path: Path) -> str:
    """Sizes and times of a package's files: enough to see that it was replaced."""
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    told = [(str(p.relative_to(path)), (s := p.stat()).st_size, s.st_mtime_ns) for p in files]
    return hashlib.sha256(repr(told).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class _Job:
    out: Path
    options: FigureOptions
    engine: Engine | None

    def __call__(self, item: tuple[str, Path]) -> None:
        """Do one package and write its journal entry, last of all."""
        key, path = item
        stamp = _stamp(path)
        outcome = process_package(path, key, self.out, self.options, self.engine)
        entry = {"key": key, "source": str(path), "stamp": stamp, **outcome.to_dict()}
        atomic_write(self.out / "journal" / f"{key}.json", (json.dumps(entry, ensure_ascii=False) + "\n").encode())


def _work(job: _Job, todo: Sequence[tuple[str, Path]], jobs: int) -> Iterator[None]:
    if jobs == 1 or len(todo) < 2:
        yield from map(job, todo)
        return
    context = multiprocessing.get_context("spawn")  # not fork: the parent may hold threads
    with ProcessPoolExecutor(min(jobs, len(todo)), mp_context=context) as pool:
        with no_main_module():
            done = pool.map(job, todo)
        try:
            yield from done
        except BrokenProcessPool:
            raise DataError(
                f"{job.out}: a process was ended from outside; give the same command again to go on"
            ) from None


def _collect(out: Path, keys: Mapping[str, Path], carried_on: int, settings: Mapping[str, Any]) -> FigureReport:
    """Journal entries into the manifest, the list of articles and the report."""
    entries = [entry for key in sorted(keys) if (entry := _read(out / "journal" / f"{key}.json")) is not None]
    fresh, repeated = _distinct(entries)
    records = [_record(entry, row) for entry in fresh for row in entry["rows"]]
    failed = [entry for entry in entries if entry["error"]]
    problems = [f"{Path(entry['source']).name}: {entry['error']}" for entry in failed]
    problems += [f"{Path(entry['source']).name}: {line}" for entry in fresh for line in entry["problems"]]
    report = FigureReport(
        packages=len(keys),
        failed=len(failed),
        repeated=repeated,
        carried_on=carried_on,
        figures=sum(entry["figures"] for entry in fresh),
        pairs=len(records),
        how=_sum(entry["kept"] for entry in fresh),
        modality=_sum({row["modality"]: 1} for entry in fresh for row in entry["rows"]),
        licence=_sum({row["licence"]: 1} for entry in fresh for row in entry["rows"]),
        dropped=_sum(entry["dropped"] for entry in fresh),
        problems=problems,
        settings=settings,
    )
    atomic_write(out / "report.json", (json.dumps(report.to_dict(), indent=1, ensure_ascii=False) + "\n").encode())
    if not records:
        reasons = ", ".join(f"{reason} {count}" for reason, count in list(report.dropped.items())[:4])
        raise DataError(
            f"no pair is left of {report.figures} figures in {len(keys)} packages, {report.failed} of them unreadable"
            f"{f' (dropped: {reasons})' if reasons else ''}; see {out / 'report.json'}"
        )
    Manifest(records, out).save(out / "manifest.csv")
    write_table(out / "articles.csv", ("key", *_ARTICLE_COLUMNS), ({"key": e["key"], **e["article"]} for e in fresh))
    return report


def _distinct(entries: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], int]:
    """Entries of articles, each article once, and how many came again."""
    seen: set[str] = set()
    fresh = []
    read = [entry for entry in entries if not entry["error"]]
    for entry in read:
        name = entry["article"]["pmcid"] or entry["article"]["doi"] or entry["key"]
        if name not in seen:
            seen.add(name)
            fresh.append(entry)
    return fresh, len(read) - len(fresh)


def _sum(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return dict(sorted(((n, c) for n, c in total.items() if c), key=lambda item: (-item[1], item[0])))


def _record(entry: Mapping[str, Any], row: Mapping[str, Any]) -> Record:
    """One pair. All pairs of an article share a patient id, so that no split takes an article apart."""
    article = entry["article"]
    name = article["pmcid"] or entry["key"]
    figure = f"{name}/{row['figure']}"
    return Record(
        id=f"{figure}/{row['label']}" if row["label"] else figure,
        image=row["image"],
        text=row["text"],
        patient_id=name,
        source="figures",
        licence=row["licence"],
        extra={
            "doi": article["doi"],
            "figure": figure,
            "panel": row["label"],
            "own_text": row["own_text"],
            "modality": row["modality"],
            "confidence": f"{row['confidence']:g}",
            "matched_by": row["how"],
            "licence_url": row["licence_url"],
        },
    )
