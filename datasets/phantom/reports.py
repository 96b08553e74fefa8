"""Reports as a radiologist might write them: seen findings by name, unseen ones only in the graph's descriptions."""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from kvlp.datasets.phantom.cases import Case, FindingSpec
from kvlp.datasets.phantom.lists import ALL_UNSEEN, DEVICES, LOOKS_LIKE, SEEN
from kvlp.errors import KnowledgeError
from kvlp.knowledge.graph import KnowledgeGraph

__all__ = ["descriptions", "forbidden_surfaces", "names_unseen", "wording", "write_report"]

_TOLD_SEEN, _TOLD_UNSEEN, _TOLD_DEVICE = 0.92, 0.85, 0.9
_DENIED_UNSEEN, _DENIED_DEVICES, _DENIED_DEVICE = 0.05, 0.3, 0.15
_DOUBT = {"easy": 0.02, "medium": 0.08, "hard": 0.35}


@lru_cache(maxsize=1)
def wording() -> dict[str, Any]:
    """The data file of phrases, checked for the findings that reports name."""
    data: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "wording.yaml").read_text(encoding="utf-8"))
    lacking = [name for name in SEEN if name not in data["findings"]]
    if lacking:
        raise KnowledgeError(f"wording.yaml: no phrases for {', '.join(lacking)}; add them under 'findings'")
    return data


def forbidden_surfaces(graph: KnowledgeGraph) -> frozenset[str]:
    """Names and synonyms (lower case, hyphens as blanks) of every unseen finding and its descendants."""
    ids = {d for name in ALL_UNSEEN if name in graph for d in (name, *graph.descendants(name))}
    return frozenset(_plain(surface) for i in ids for surface in graph[i].surfaces)


def _plain(text: str) -> str:
    return re.sub(r"[\s\-]+", " ", text.lower()).strip()


def names_unseen(text: str, graph: KnowledgeGraph) -> list[str]:
    """Forbidden surfaces that occur in a text as whole words."""
    plain = _plain(text)
    return [m.group(0) for m in _forbidden_pattern(graph).finditer(plain)]


@lru_cache(maxsize=4)
def _forbidden_pattern(graph: KnowledgeGraph) -> re.Pattern[str]:
    words = sorted(forbidden_surfaces(graph), key=len, reverse=True)
    return re.compile(r"\b(?:" + "|".join(map(re.escape, words)) + r")\b")


@lru_cache(maxsize=256)
def descriptions(graph: KnowledgeGraph, concept: str) -> tuple[str, ...]:
    """A concept's descriptions that name no unseen finding.

    Raises:
        KnowledgeError: the graph does not know the concept, or describes it in no usable words.
    """
    usable = tuple(d for d in graph[concept].descriptions if not names_unseen(d, graph))
    if not usable:
        raise KnowledgeError(f"graph {graph.name!r}: expected descriptions of {concept} that do not name it, got none")
    return usable


def write_report(case: Case, graph: KnowledgeGraph, rng: np.random.Generator) -> str:
    """A report of a case, with its headers.

    Args:
        case: what is in the picture.
        graph: gives the words for unseen findings.
        rng: chooses among wordings; the same state writes the same report.

    Returns:
        "INDICATION: ... COMPARISON: ... FINDINGS: ... IMPRESSION: ...", the first two only sometimes.
    """
    return _Writer(case, graph, rng).report()


class _Writer:
    def __init__(self, case: Case, graph: KnowledgeGraph, rng: np.random.Generator) -> None:
        self.case, self.graph, self.rng, self.words = case, graph, rng, wording()
        similar = (LOOKS_LIKE.get(i, frozenset()) for i in case.findings)
        self.near = frozenset(case.findings).union(*similar)
        self.told = [
            spec
            for name, spec in case.findings.items()
            if rng.random() < (_TOLD_SEEN if name in SEEN else _TOLD_UNSEEN)
        ]

    def pick(self, options: Iterable[Any]) -> Any:
        options = list(options)
        return options[int(self.rng.integers(len(options)))]

    def report(self) -> str:
        parts = []
        if self.rng.random() < 0.35:
            parts.append("INDICATION: " + self.pick(self.words["indication"]))
        if self.rng.random() < 0.2:
            parts.append("TECHNIQUE: " + self.pick(self.words["technique"][self.case.view]))
        first = self.case.previous is None
        if self.rng.random() < (0.25 if first else 0.85):
            parts.append("COMPARISON: " + self.pick(self.words["comparison_none" if first else "comparison_prior"]))
        parts.append("FINDINGS: " + " ".join(self.findings()))
        if self.rng.random() < 0.85:
            parts.append("IMPRESSION: " + " ".join(self.impression()))
        return "\n".join(parts)

    def findings(self) -> list[str]:
        devices = [self.device(s) for s in self.case.devices.values() if self.rng.random() < _TOLD_DEVICE]
        devices += self.no_devices()
        positive = [self.positive(s) for s in self.told]
        self.rng.shuffle(positive)
        rest = self.negatives() + self.normals() + self.gone()
        self.rng.shuffle(rest)
        body = positive + rest if self.rng.random() < 0.7 else rest + positive
        return devices + body if self.rng.random() < 0.6 else body + devices

    def impression(self) -> list[str]:
        if not self.told:
            lines = self.words["vague_impression" if self.case.findings else "clear_impression"]
            return [self.pick(lines)]
        count = int(self.rng.integers(1, 3))
        order = sorted(self.told, key=lambda s: (-s.severity, s.id))[:count]
        lines = [self.positive(s) for s in order]
        if len(self.told) > count and self.rng.random() < 0.5:
            lines.append(self.pick(self.words["vague_impression"]))
        return [f"{n}. {line}" for n, line in enumerate(lines, 1)] if self.rng.random() < 0.5 else lines

    def positive(self, spec: FindingSpec) -> str:
        if spec.id in ALL_UNSEEN:
            return self.described(spec)
        entry = self.words["findings"][spec.id]
        doubt = self.rng.random() < _DOUBT[spec.difficulty]
        if not doubt and self.rng.random() < 0.3:
            return _fill(self.pick(entry["present"]), self.slots(spec, entry))
        phrase, plural = self.noun_phrase(spec, entry)
        generic = self.words["generic"]
        if doubt:
            template = self.pick(generic["uncertain"])
        elif self.case.previous is not None and self.rng.random() < 0.6:
            template = self.pick(generic["same" if spec.id in self.case.previous else "new"])
        else:
            template = self.pick(generic["present_plural" if plural else "present"])
        return _fill(template, _phrase_slots(phrase, plural=plural))

    def described(self, spec: FindingSpec) -> str:
        """An unseen finding in the graph's words."""
        generic = self.words["generic"]
        doubt = self.rng.random() < _DOUBT[spec.difficulty]
        template = self.pick(generic["described_uncertain" if doubt else "described"])
        slots = _phrase_slots(self.pick(descriptions(self.graph, spec.id)), plural=False)
        place = _place(spec)
        return _fill(template if place else template.replace(", {place}", ""), {**slots, "place": place})

    def slots(self, spec: FindingSpec, entry: Mapping[str, Any]) -> dict[str, str]:
        degree = self.pick([d for d in entry["degree"][spec.severity - 1] if d] or ["visible"])
        side = {"bilateral": "both sides", "midline": ""}.get(spec.side, spec.side)
        return {"degree": degree, "Degree": _capital(degree), "side": side, "place": _place(spec)}

    def noun_phrase(self, spec: FindingSpec, entry: Mapping[str, Any]) -> tuple[str, bool]:
        """(phrase, is it plural), often with degree and place."""
        both = spec.side == "bilateral" and "both" in entry
        many = spec.severity == 3 and "many" in entry
        if both or many:
            noun, plural = self.pick(entry["both" if both else "many"]), True
        else:
            noun, number = self.pick(entry["nouns"].items())
            plural = number == "plural"
        where = entry["where"]
        side = spec.side if spec.side in ("left", "right", "bilateral") else ""
        parts = [side] if where == "side" and side and (self.rng.random() < 0.9) else []
        if not noun.startswith("increased") and self.rng.random() < 0.65:
            degree = self.pick(entry["degree"][spec.severity - 1])
            # "mildly" goes with "enlarged hilum" alone, "mild" with "hilar enlargement" alone.
            fits = degree.endswith("ly") == noun.startswith(("enlarged", "prominent"))
            degree = degree if fits and degree not in noun else ""
            parts.insert(0, degree)
        phrase = " ".join(p for p in (*parts, noun) if p)
        place = _place(spec)
        if where in ("zone", "after") and place and not both and self.rng.random() < 0.92:
            phrase += f" in the {place}" if where == "zone" else f" {place}"
        return phrase, plural

    def negatives(self) -> list[str]:
        """Some findings that are not there, common ones first of all; never one that the picture resembles."""
        entries = self.words["findings"]
        free = [name for name in SEEN if name not in self.near]
        weight = np.array([entries[name]["common"] for name in free], float)
        count = min(int(self.rng.integers(2, 6)), len(free))
        chosen = [free[i] for i in self.rng.choice(len(free), count, replace=False, p=weight / weight.sum())]
        lines, generic = [], self.words["generic"]
        while chosen:
            size = int(self.rng.integers(2, 4)) if self.rng.random() < 0.45 else 1
            group, chosen = chosen[:size], chosen[size:]
            if len(group) == 1 and "absent" in entries[group[0]] and self.rng.random() < 0.55:
                lines.append(self.pick(entries[group[0]]["absent"]))
                continue
            nouns = [self.pick(entries[name]["nouns"]) for name in group]
            if len(nouns) == 1:
                plural = entries[group[0]]["nouns"][nouns[0]] == "plural"
                template = self.pick(generic["absent_plural" if plural else "absent"])
                lines.append(_fill(template, _phrase_slots(nouns[0], plural=plural)))
            else:
                listed = ", ".join(nouns[:-1]) + " or " + nouns[-1]
                lines.append(_fill(self.pick(generic["absent_list"]), {"list": listed}))
        return lines + self.described_absent()

    def described_absent(self) -> list[str]:
        """Rarely, that an unseen finding is not there, in the graph's words."""
        if self.rng.random() >= _DENIED_UNSEEN:
            return []
        similar = {name for name in ALL_UNSEEN if self.near & LOOKS_LIKE.get(name, frozenset())}
        free = [name for name in ALL_UNSEEN if name not in self.near | similar]
        phrase = self.pick(descriptions(self.graph, self.pick(free)))
        return [_fill(self.pick(self.words["generic"]["described_absent"]), {"np": phrase})]

    def normals(self) -> list[str]:
        groups = self.words["groups"]
        fitting = [n["text"] for n in self.words["normal"] if not self.near.intersection(groups[n["unless"]])]
        count = min(int(self.rng.integers(0, 4)), len(fitting))
        return [fitting[i] for i in self.rng.choice(len(fitting), count, replace=False)] if count else []

    def gone(self) -> list[str]:
        """What the study before showed and this one does not."""
        lines = []
        for name in self.case.previous or ():
            if name in SEEN and name not in self.near and self.rng.random() < 0.5:
                noun = self.pick(k for k, v in self.words["findings"][name]["nouns"].items() if v in ("count", "mass"))
                lines.append(_fill(self.pick(self.words["generic"]["gone"]), _phrase_slots(noun, plural=False)))
        return lines

    def no_devices(self) -> list[str]:
        """Sometimes, that there is no device at all, or that one kind is not there."""
        if not self.case.devices:
            return [self.pick(self.words["no_devices"])] if self.rng.random() < _DENIED_DEVICES else []
        absent = [name for name in DEVICES if name not in self.case.devices]
        if not absent or self.rng.random() >= _DENIED_DEVICE:
            return []
        return [self.pick(self.words["no_device"][self.pick(absent)])]

    def device(self, spec: FindingSpec) -> str:
        side = spec.side if spec.side != "midline" else ""
        return _fill(self.pick(self.words["devices"][spec.id]), {"side": side, "Side": _capital(side)})


def _place(spec: FindingSpec) -> str:
    """ "left upper zone", "on the left", "on both sides" or nothing."""
    if spec.side == "midline" or (spec.side == "bilateral" and spec.id in ALL_UNSEEN):
        return ""
    if spec.id == "mediastinal_shift":
        return f"toward the {spec.side}"
    if spec.zone and spec.side != "bilateral":
        # A collapse is spoken of by side: "atelectasis on the left", not by zone.
        return f"on the {spec.side}" if spec.id == "atelectasis" else f"{spec.side} {spec.zone} zone"
    return "on both sides" if spec.side == "bilateral" else f"on the {spec.side}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _article(phrase: str) -> str:
    return "an" if re.match(r"(?i)[aeio]|u(?!ni)|8|11|18", phrase) else "a"


def _phrase_slots(phrase: str, *, plural: bool) -> dict[str, str]:
    mass = plural or _is_mass(phrase)
    a = phrase if mass else f"{_article(phrase)} {phrase}"
    return {"np": phrase, "Np": _capital(phrase), "a np": a, "A np": _capital(a)}


@lru_cache(maxsize=1)
def _mass_nouns() -> re.Pattern[str]:
    nouns = [n for e in wording()["findings"].values() for n, number in e["nouns"].items() if number != "count"]
    return re.compile(r"\b(?:" + "|".join(map(re.escape, nouns)) + r")\b")


def _is_mass(phrase: str) -> bool:
    return bool(_mass_nouns().search(phrase))


def _fill(template: str, slots: Mapping[str, str]) -> str:
    """A template with its {slots}; a sentence always starts with a capital."""
    text = re.sub(r"\{([^}]+)\}", lambda m: slots.get(m.group(1), ""), template)
    text = re.sub(r"\s+", " ", text).replace(" .", ".").replace(" ,", ",").strip()
    return _capital(text)
