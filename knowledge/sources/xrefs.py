"""Cross references: what an ontology's term is called elsewhere.

A table of them has the columns term and source_id ("HP:0002202", "UMLS:C0032227"), or term, resource and resource_id,
as the one of the 2015 Disease Ontology has (doid_code, resource, resource_id).
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from kvlp.errors import KnowledgeError
from kvlp.knowledge.sources.tables import Columns, read_rows

__all__ = ["is_cui", "read_newer_cuis", "read_xrefs", "source_id"]

_CUI = re.compile(r"C\d{7}\Z")
_RELEASE = re.compile(r"_\d{4}_\d\d_\d\d\Z")
#: what ontologies call a vocabulary -> one name for it
_SAME = {
    "UMLS_CUI": "UMLS",
    "MSH": "MESH",
    "SNOMEDCT_US": "SNOMEDCT",
    "SCTID": "SNOMEDCT",
    "NCIT": "NCI",
    "MIM": "OMIM",
}
_ALSO = {"id": "term", "doid_code": "term", "concept": "term", "xref": "source_id", "name": "term_name"}
_COLUMNS = Columns(
    ("term",),
    ("source_id", "resource", "resource_id", "term_name", "ontology", "release"),
    {**_ALSO, "doid_name": "term_name"},
)


def is_cui(text: str) -> bool:
    """Whether a text has the form of a UMLS concept id: C and seven digits."""
    return _CUI.match(text) is not None


def source_id(xref: str) -> str | None:
    """Return a cross reference under one spelling: "UMLS_CUI:C0032227" and "UMLS:C0032227" are the same.

    Returns:
        "VOCABULARY:code"; None if it says UMLS and holds no UMLS id. What has no ":" is handed back as it is.
    """
    prefix, colon, code = xref.partition(":")
    if not colon:
        return xref
    vocabulary = _RELEASE.sub("", prefix.upper())
    vocabulary = _SAME.get(vocabulary, vocabulary)
    if vocabulary == "UMLS" and not is_cui(code):
        return None
    return f"{vocabulary}:{code}"


def read_xrefs(path: Path) -> list[tuple[str, str]]:
    """Read a table of cross references: (term, cross reference) pairs in file order.

    Raises:
        KnowledgeError: not readable, or neither source_id nor resource and resource_id are there.
    """
    pairs = []
    for number, row in read_rows(path, _COLUMNS, "a table of cross references"):
        text = row.get("source_id") or ":".join((row.get("resource", ""), row.get("resource_id", "")))
        if text in (":", "") or text.startswith(":") or text.endswith(":"):
            raise KnowledgeError(f"{path} line {number}: expected a source_id, or a resource and its resource_id")
        pairs.append((row["term"], text))
    return pairs


@cache
def read_newer_cuis() -> dict[tuple[str, str], str]:
    """UMLS ids that later releases of an ontology give its terms, bundled because public older files lack them.

    Returns:
        (term, source id) -> the release that states it. Identifiers only.
    """
    rows = read_rows(Path(__file__).with_name("newer_cuis.csv"), _COLUMNS, "the bundled table of UMLS ids")
    return {(row["term"], row["source_id"]): row["release"] for _, row in rows}
