"""Which of the scored images a model was trained on: its exposure manifest against an evaluation set."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from kvlp.checkpoint_files import read_exposure
from kvlp.checkpoints import EXPOSURE, shipped
from kvlp.datasets.manifest import Manifest, Record
from kvlp.datasets.pictures import read_pictures
from kvlp.errors import CheckpointError, DataError
from kvlp.eval.images import Embedded
from kvlp.eval.results import Provenance, Result
from kvlp.typing import PathLike

__all__ = ["Exposure", "Sourced", "exposure_check"]


class Sourced(Protocol):
    """A model that knows what it was loaded from; `kvlp.checkpoints.Model` is one."""

    source: str


@dataclass(frozen=True, slots=True)
class Exposure:
    """How many scored images a model was trained on.

    Attributes:
        known: whether the checkpoint says on which images it was trained; if not, the rest says nothing.
        why: why it is not known; "" if it is.
        trained: images that it says it was trained on.
        images: scored images that could be read.
        seen: numbers, from 1, of the rows (of the manifest, or of the vectors) that it was trained on.
        patients: patients of the scored images; a row without one counts as a patient of its own.
        seen_patients: patients of whom it was trained on at least one of the scored images.
        unreadable: scored rows whose image cannot be read.
    """

    known: bool
    why: str = ""
    trained: int = 0
    images: int = 0
    seen: tuple[int, ...] = ()
    patients: int = 0
    seen_patients: int = 0
    unreadable: int = 0

    @property
    def ok(self) -> bool | None:
        """True if none was seen, False if some were, None if that is not known."""
        return not self.seen if self.known else None

    def __str__(self) -> str:
        if not self.known:
            return f"not known whether the model was trained on these images: {self.why}"
        return (
            f"trained on {len(self.seen)} of {self.images} scored images, of {self.seen_patients} of {self.patients} "
            f"patients (its manifest names {self.trained} images)"
        )

    def to_dict(self) -> dict[str, Any]:
        """The check as plain JSON values; counts are null where nothing is known."""
        counted = {
            "trained_images": self.trained,
            "seen_images": len(self.seen),
            "seen_patients": self.seen_patients,
            "seen_rows": list(self.seen),
        }
        return {
            "known": self.known,
            "why": self.why,
            "images": self.images,
            "patients": self.patients,
            "unreadable": self.unreadable,
            **(counted if self.known else dict.fromkeys(counted)),
        }

    def results(self, provenance: Provenance | None = None) -> list[Result]:
        """The share of seen images and patients as rows; undefined where it is not known."""
        return [
            self._row(what, seen, of, provenance or Provenance())
            for what, seen, of in (
                ("images", len(self.seen), self.images),
                ("patients", self.seen_patients, self.patients),
            )
        ]

    def _row(self, what: str, seen: int, of: int, provenance: Provenance) -> Result:
        return Result(
            metric="exposure", target=what, value=seen / of if self.known and of else float("nan"), low=float("nan"),
            high=float("nan"), method="a count: no interval", n=of, n_positive=seen if self.known else 0,
            definition=f"share of the scored {what} whose decoded pixels the model was trained on",
            setting="exposure manifest", task="control", notes=(str(self),), provenance=provenance,
        )  # fmt: skip


def exposure_check(model: Sourced | PathLike, images: Manifest | Embedded, *, jobs: int = 2) -> Exposure:
    """Count the images, and their patients, that a model says it was trained on.

    Images are compared by their decoded pixels (another file format does not hide one; resizing does: `kvlp data leaks`
    finds such copies where the training manifest is at hand). A patient of whom only other images were trained on
    is not found.

    Args:
        model: a loaded model, its folder, or the name of a shipped one.
        images: a manifest, whose images are read; or what `embed_manifest` made of one, whose hashes are used.
        jobs: threads that decode.

    Raises:
        CheckpointError: a folder that does not exist, or a damaged exposure manifest.
        DataError: vectors without hashes.
    """
    records, hashes = _hashes(images, jobs)
    owner = {n: record.patient_id or f"row {n}" for n, (record, digest) in enumerate(zip(records, hashes), 1) if digest}
    found = Exposure(
        known=False, why=f"it has no {EXPOSURE}", images=len(owner), patients=len(set(owner.values())),
        unreadable=len(records) - len(owner),
    )  # fmt: skip
    path = _manifest_of(model)
    if path is None:
        return found
    trained = read_exposure(path)
    seen = tuple(number for number, digest in enumerate(hashes, 1) if digest in trained)
    seen_patients = len({owner[number] for number in seen})
    return replace(found, known=True, why="", trained=len(trained), seen=seen, seen_patients=seen_patients)


def _hashes(images: Manifest | Embedded, jobs: int) -> tuple[list[Record], list[str]]:
    if isinstance(images, Manifest):
        return list(images), read_pictures([images.path_of(r) for r in images], prints=False, jobs=jobs).hashes
    if len(images.hashes) != len(images.records):
        raise DataError("these vectors came without pixel hashes; make them with kvlp.eval.images.embed_manifest")
    return images.records, list(images.hashes)


def _manifest_of(model: Sourced | PathLike) -> Path | None:
    """The exposure manifest of a model's folder, if it has one."""
    if isinstance(model, str | Path):
        from kvlp import checkpoints

        folder = Path(str(model).removeprefix("local-dir:")).expanduser()
        if str(model) in shipped() and not folder.exists():
            folder = Path(checkpoints.__file__).parent / "pretrained" / str(model)
        if not folder.exists() and ":" not in str(model):
            raise CheckpointError(f"{model}: no such model folder; check the path")
    else:
        folder = Path(getattr(model, "source", "") or "no folder")
    path = folder / EXPOSURE
    return path if path.is_file() else None
