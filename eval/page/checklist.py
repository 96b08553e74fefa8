"""Items of TRIPOD+AI and CLAIM 2024: what this page says of each by itself, and what is left for the authors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from kvlp.eval.page.blocks import Block, Cell, Section, Table
from kvlp.eval.page.words import plain

if TYPE_CHECKING:
    from kvlp.eval.evaluate import Evaluation
    from kvlp.eval.results import Result

__all__ = ["FILLERS", "Guideline", "Item", "checklist_blocks", "guidelines"]

Filler: TypeAlias = "Callable[[Evaluation, Sequence[Result]], str]"
_TEXT = (
    "What a reader will look for, in our own words with the guidelines' item numbers. Filled from this evaluation "
    "where it can be; all else is for the authors to write, and stands here as not filled."
)
UNFILLED = "not filled"


@dataclass(frozen=True, slots=True)
class Item:
    """One item of a guideline.

    Attributes:
        item: its published number: "12e".
        asks: what it asks for, in our words.
        fill: name in `FILLERS`, or "" if only the authors can say.
        partly: whether authors must add to what is filled.
    """

    item: str
    asks: str
    fill: str = ""
    partly: bool = False


@dataclass(frozen=True, slots=True)
class Guideline:
    """A reporting guideline: its name, where it was published, and its items."""

    name: str
    source: str
    items: tuple[Item, ...]


@cache
def guidelines() -> tuple[Guideline, ...]:
    """The guidelines of `checklists.yaml`."""
    import yaml

    text = (Path(__file__).parent / "checklists.yaml").read_text(encoding="utf-8")
    return tuple(
        Guideline(one["name"], one["source"], tuple(Item(**item) for item in one["items"]))
        for one in yaml.safe_load(text)
    )


def checklist_blocks(result: Evaluation, controls: Sequence[Result] = ()) -> list[Block]:
    """A closed table for each guideline."""
    said = {name: filler(result, controls) for name, filler in FILLERS.items()}
    return [Section("Reporting checklists", _TEXT), *(_table(guideline, said) for guideline in guidelines())]


def _table(guideline: Guideline, said: Mapping[str, str]) -> Table:
    rows: list[list[Cell]] = []
    for item in guideline.items:
        text = said[item.fill] if item.fill else ""
        state = UNFILLED if not text else "partly; the rest is for the authors" if item.partly else "filled"
        rows.append([item.item, item.asks, (text or UNFILLED, "" if state == UNFILLED else state)])
    note = f"After {guideline.source}. Not the guideline's text: read that before you submit."
    return Table(["item", "asks for", "here"], rows, guideline.name, note=note, closed=True)


def _data(result: Evaluation, _: Sequence[Result]) -> str:
    sources = ", ".join(sorted({record.source for record in result.records} - {""})) or "not named"
    split = result.provenance.split or "not named"
    return f"Sources: {sources}. Split: {split}. The hash under Settings and hashes stands for images and labels."


def _preparation(result: Evaluation, _: Sequence[Result]) -> str:
    return (
        "Every image is read as displayed grey and brought to the model's square by its own settings, alike for all "
        "patients. Files that end early or are too large are refused; what does not look like a frontal chest "
        "radiograph is counted and scored."
    )


def _outcome(result: Evaluation, _: Sequence[Result]) -> str:
    return f"Labels of the manifest: {_listed(result.classes)}. How they were made is for the authors to say."


def _predictors(result: Evaluation, _: Sequence[Result]) -> str:
    return "The pixels of one image, and sentences that state or deny the class (Every prompt). No clinical variable."


def _size(result: Evaluation, _: Sequence[Result]) -> str:
    return "All images of the split that can be read; see Settings and hashes. Intervals say what that size allows."


def _missing(result: Evaluation, _: Sequence[Result]) -> str:
    return (
        "Images that cannot be read are named and left out. Labels that are uncertain or not known are left out class "
        "by class and never counted as absent. Nothing is filled in."
    )


def _partition(result: Evaluation, _: Sequence[Result]) -> str:
    if result.options.validation is not None:
        said = "Thresholds and probabilities were learned on validation images of other patients, which was checked."
    else:
        said = "No part of the scored images chose a threshold, a prompt or a weight here."
    return said + (" Leaks between splits: see Leaks and exposure." if result.options.leaks is not None else "")


def _model(result: Evaluation, _: Sequence[Result]) -> str:
    known = result.provenance.model_hash
    return f"A dual encoder of images and texts; hash of its weights: {known[:16]}." if known else ""


def _subgroups(result: Evaluation, _: Sequence[Result]) -> str:
    names = list(dict.fromkeys(f.attribute for f in result.subgroups if not f.pair))
    return f"Compared by {_listed(names)}, with intervals of the gaps: see Subgroups." if names else ""


def _measures(result: Evaluation, _: Sequence[Result]) -> str:
    return (
        "AUC and average precision by class; sensitivity, specificity, PPV, NPV, F1 and MCC at a threshold; "
        "calibration where there are probabilities; precision and recall of retrieval. Each row of results.jsonl "
        "holds a definition."
    )


def _calibration(result: Evaluation, _: Sequence[Result]) -> str:
    fitted = [name for name in result.classes if result.decisions[name].calibrator is not None]
    if not fitted:
        return ""
    return f"{result.decisions[fitted[0]].calibrator.method.capitalize()} calibration by class: see Calibration."  # type: ignore[union-attr]


def _prediction(result: Evaluation, _: Sequence[Result]) -> str:
    return (
        "Similarity of the image to sentences that state a class, minus its similarity to sentences that deny it; "
        "every sentence stands under How this was made."
    )


def _imbalance(result: Evaluation, _: Sequence[Result]) -> str:
    return "Positive and scored images of each class stand in the table of AUCs; nothing was weighted or resampled."


def _thresholds(result: Evaluation, _: Sequence[Result]) -> str:
    chosen = any(decision.chosen for decision in result.decisions.values())
    where = "chosen on other images" if chosen else "not chosen on any data"
    what = "Probabilities" if any(d.calibrator for d in result.decisions.values()) else "Scores"
    return f"{what} by class, several classes can be present; one threshold a class, {where}: see Thresholds."


def _exposure(result: Evaluation, _: Sequence[Result]) -> str:
    kinds = sorted(set(result.naming.values()) - {"not known"})
    said = f"Classes by whether training texts named them: {_listed(kinds)}." if kinds else ""
    known = result.exposure is not None and result.exposure.known
    return f"{said} The model was {result.exposure}.".strip() if known else said


def _code(result: Evaluation, _: Sequence[Result]) -> str:
    used = ", ".join(f"{name} {version}" for name, version in result.provenance.versions.items())
    return f"Software: {used}." if used else ""


def _flow(result: Evaluation, _: Sequence[Result]) -> str:
    return "Images and patients scored, and images left out, stand under Settings and hashes."


def _performance(result: Evaluation, _: Sequence[Result]) -> str:
    groups = ", and by groups of patients (Subgroups)" if result.subgroups else ""
    return f"By class with intervals over patients{groups}: see Classification and Thresholds."


def _intervals(result: Evaluation, _: Sequence[Result]) -> str:
    return (
        f"95 % intervals from {result.options.resamples} resamples of patients, seed {result.provenance.seed}; "
        "differences on the same resamples."
    )


def _robustness(result: Evaluation, controls: Sequence[Result]) -> str:
    said = ["spread over ways to ask (Negation and wording)"] if result.negation is not None else []
    said += ["controls (Controls and comparisons)"] if controls else []
    return f"{' and '.join(said).capitalize()}." if said else ""


def _explanation(result: Evaluation, _: Sequence[Result]) -> str:
    return "Heat maps beside the worst errors, by covering places up." if result.errors and result.model else ""


def _errors(result: Evaluation, _: Sequence[Result]) -> str:
    return "The images furthest on the wrong side of their threshold: see Worst errors." if result.errors else ""


def _listed(names: Sequence[str], most: int = 12) -> str:
    shown = ", ".join(plain(name) for name in names[:most])
    return shown + (" and others" if len(names) > most else "")


#: what an item can be filled with: name -> function of the evaluation and its controls; "" leaves it unfilled
FILLERS: dict[str, Filler] = {
    "calibration": _calibration,
    "code": _code,
    "data": _data,
    "errors": _errors,
    "explanation": _explanation,
    "exposure": _exposure,
    "flow": _flow,
    "imbalance": _imbalance,
    "intervals": _intervals,
    "measures": _measures,
    "missing": _missing,
    "model": _model,
    "outcome": _outcome,
    "partition": _partition,
    "performance": _performance,
    "predictors": _predictors,
    "prediction": _prediction,
    "preparation": _preparation,
    "robustness": _robustness,
    "size": _size,
    "subgroups": _subgroups,
    "thresholds": _thresholds,
}
