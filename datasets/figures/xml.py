"""XML from strangers: no entity is expanded, nothing outside of the file is read, depth is bounded.

JATS files name a DTD; it is not fetched. What the usual DTDs would have defined (&nbsp;, &alpha;) is known by name.
"""

from __future__ import annotations

from collections.abc import Iterator
from html.entities import html5
from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder  # only its tree: the parser below is our own
from xml.parsers import expat

from kvlp.errors import DataError

__all__ = ["children", "find", "parse_xml", "text_of"]

_MAX_DEPTH = 200


def parse_xml(data: bytes) -> Element:
    """Return the root element; tags and attributes carry their local names ("xlink:href" is "href").

    Raises: DataError in one line for broken XML, declared entities and nesting beyond any article's.
    """
    try:
        return _Reader().read(data)
    except expat.ExpatError as problem:
        where = f"line {problem.lineno}, column {problem.offset + 1}"
        raise DataError(f"broken XML at {where}: {expat.ErrorString(problem.code)}") from problem
    except (ValueError, LookupError) as problem:  # an encoding that Python does not know
        raise DataError(f"broken XML: {problem}") from problem


class _Reader:
    """Expat with its doors closed, feeding a plain tree."""

    def __init__(self) -> None:
        self.tree = TreeBuilder()
        self.depth = 0

    def read(self, data: bytes) -> Element:
        parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)
        parser.StartElementHandler = self.start
        parser.EndElementHandler = self.end
        parser.CharacterDataHandler = self.tree.data
        parser.SkippedEntityHandler = self.skipped
        parser.EntityDeclHandler = self.declared
        parser.ExternalEntityRefHandler = self.outside
        parser.Parse(data, True)
        return self.tree.close()

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise DataError(f"XML is nested deeper than {_MAX_DEPTH} elements; this is no article")
        self.tree.start(_local(tag), {_local(name): value for name, value in attributes.items()})

    def end(self, tag: str) -> None:
        self.depth -= 1
        self.tree.end(_local(tag))

    def skipped(self, name: str, is_parameter: bool) -> None:  # noqa: FBT001  expat's signature
        if not is_parameter:
            self.tree.data(html5.get(f"{name};", ""))

    def declared(self, name: str, *_: Any) -> None:
        raise DataError("XML declares entities of its own; refused, for they can read files and fill the memory")

    def outside(self, *_: Any) -> int:
        raise DataError("XML refers to something outside of the file; refused")


def _local(name: str) -> str:
    return name.rpartition(":")[2]


def find(element: Element | None, *path: str) -> Element | None:
    """The first element down a path of child names; None where one is missing."""
    for name in path:
        if element is None:
            return None
        element = element.find(name)
    return element


def children(element: Element | None, name: str) -> Iterator[Element]:
    """Children of a name; none of a missing element."""
    if element is not None:
        yield from element.findall(name)


def text_of(element: Element | None) -> str:
    """All text below an element with single spaces; empty for a missing element."""
    return " ".join("".join(element.itertext()).split()) if element is not None else ""
