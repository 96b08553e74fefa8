"""What a source or a merge left out or could not settle: counted by kind, and each thing named."""

from __future__ import annotations

import logging

__all__ = ["KINDS", "SourceReport"]

#: kind -> what a person reads; every kind is something that did not go into the graph as it stood
KINDS = {
    "obsolete": "obsolete terms left out",
    "unnamed": "terms without a name left out",
    "repeated": "terms in several files, taken from the first",
    "dangling": "relations left out whose other end is in no file",
    "self_loop": "relations of a concept to itself left out",
    "odd_cui": "cross references left out that are no UMLS id",
    "unknown_xref": "terms of the table of cross references that are obsolete or in no file",
    "misplaced": "entities left out that do not stand where the file says",
    "dangling_entity": "relations left out to entities that the report does not have",
    "rare": "entities left out because too few reports hold them",
    "conflict": "concepts kept apart because one graph tells them apart",
    "renamed": "ids that two graphs use for different things, renamed",
    "cycle": "is_a relations left out because they close a circle",
}


class SourceReport:
    """Collects what was left out. Hand one to a reader to see it; without one the reader logs the counts.

    Attributes:
        named: kind (a key of `KINDS`) -> the things, in the order in which they were met.
    """

    def __init__(self) -> None:
        self.named: dict[str, list[str]] = {}

    def add(self, kind: str, what: str) -> None:
        """Note one thing."""
        self.named.setdefault(kind, []).append(what)

    def count(self, kind: str) -> int:
        """How many things of a kind were noted."""
        return len(self.named.get(kind, ()))

    def lines(self, limit: int = 3) -> list[str]:
        """One line a kind: how many, what they are, and the first `limit` of them by name."""
        found = []
        for kind, what in self.named.items():
            more = f", and {len(what) - limit} more" if len(what) > limit else ""
            line = f"{len(what)} {KINDS[kind]}: {', '.join(what[:limit])}{more}"
            found.append("".join(c if c.isprintable() else "?" for c in line))  # ids come from files
        return found

    def log(self, logger: logging.Logger) -> None:
        """Write the lines as warnings."""
        for line in self.lines():
            logger.warning("%s", line)

    def counts(self) -> dict[str, int]:
        """How many of each kind."""
        return {kind: len(what) for kind, what in self.named.items()}

    def to_dict(self) -> dict[str, dict[str, int | list[str]]]:
        """All of it, ready for JSON: kind -> count and names."""
        return {kind: {"count": len(what), "named": what} for kind, what in self.named.items()}
