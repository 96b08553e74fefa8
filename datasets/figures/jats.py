"""Articles in JATS, the XML of PubMed Central: who, under which licence, and the figures with their captions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from kvlp.datasets.figures.licences import read_licence
from kvlp.datasets.figures.xml import children, find, parse_xml, text_of
from kvlp.errors import DataError

__all__ = ["Article", "Caption", "Figure", "read_article"]

#: parts of a caption that are not its words
_NOT_TEXT = {"graphic", "media", "tex-math", "object-id", "label", "alt-text", "long-desc", "permissions"}
_BLOCKS = {"p", "title", "list-item", "def-item", "disp-quote", "break", "sec"}
_STRONG = {"bold", "b", "strong"}


@dataclass(frozen=True, slots=True)
class Caption:
    """A caption's text with single spaces, and the spans (start, end) that were set in bold."""

    text: str
    strong: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure.

    Attributes:
        id: the XML's id, or "figure-3" by position; unique in its article.
        label: "Figure 3".
        caption: title and paragraphs; a group's caption comes before.
        images: for each picture of the figure the names of its files, the alternatives in order.
        licence: of this figure where it has one of its own, else the article's.
        licence_url: likewise.
        holder: who holds the rights, where the figure says so itself.
    """

    id: str
    label: str
    caption: Caption
    images: tuple[tuple[str, ...], ...]
    licence: str
    licence_url: str
    holder: str = ""


@dataclass(frozen=True, slots=True)
class Article:
    """What a package says of itself. Fields that the XML lacks are empty."""

    pmcid: str
    pmid: str
    doi: str
    title: str
    authors: str
    journal: str
    year: str
    licence: str
    licence_url: str
    figures: tuple[Figure, ...]


def read_article(data: bytes) -> Article:
    """Read one article. Raises: DataError for broken or unsafe XML and for XML that is no article."""
    root = parse_xml(data)
    article = root if root.tag == "article" else root.find(".//article")
    front = find(article, "front")
    meta = find(front, "article-meta")
    if article is None or meta is None:
        raise DataError(f"expected a JATS article with article-meta, got <{root.tag[:40]}>")
    ids = {element.get("pub-id-type", ""): text_of(element) for element in children(meta, "article-id")}
    licence, url = read_licence(find(meta, "permissions"))
    return Article(
        pmcid=_pmcid(ids),
        pmid=ids.get("pmid", ""),
        doi=ids.get("doi", ""),
        title=text_of(find(meta, "title-group", "article-title")),
        authors=_authors(meta),
        journal=text_of(find(front, "journal-meta", "journal-title-group", "journal-title"))
        or text_of(find(front, "journal-meta", "journal-title")),
        year=next((text_of(find(date, "year")) for date in children(meta, "pub-date")), ""),
        licence=licence,
        licence_url=url,
        figures=tuple(_figures(article, licence, url)),
    )


def _pmcid(ids: dict[str, str]) -> str:
    """ "PMC123": older files write the digits alone, newer ones call the kind pmcid."""
    text = ids.get("pmcid") or ids.get("pmc") or ids.get("pmcaid") or ""
    return f"PMC{text}" if text.isdecimal() else text


def _authors(meta: Element) -> str:
    names = [
        " ".join(filter(None, (text_of(find(person, "name", part)) for part in ("surname", "given-names"))))
        for person in meta.iterfind("contrib-group/contrib")
        if person.get("contrib-type", "author") == "author"
    ]
    known = [name for name in names if name]
    return ", ".join(known[:3]) + (" et al." if len(known) > 3 else "")


def _figures(article: Element, licence: str, url: str) -> Iterator[Figure]:
    """Every figure with its own id; a group's caption goes before those of its figures."""
    group_of = {id(fig): group for group in article.iter("fig-group") for fig in group.iter("fig")}
    taken: set[str] = set()
    for number, fig in enumerate(article.iter("fig"), 1):
        name = fig.get("id") or f"figure-{number}"
        name = name if name not in taken else f"{name}-{number}"
        taken.add(name)
        group = group_of.get(id(fig))
        own_licence, own_url, holder = _own_rights(fig)
        yield Figure(
            id=name,
            label=text_of(find(fig, "label")) or text_of(find(group, "label")),
            caption=_caption([find(group, "caption"), find(fig, "caption")]),
            images=tuple(_images(fig)),
            licence=own_licence or licence,
            licence_url=own_url if own_licence else url,
            holder=holder,
        )


def _own_rights(fig: Element) -> tuple[str, str, str]:
    """Licence, its address and the holder that a figure states for itself."""
    permissions = find(fig, "permissions")
    if permissions is None:
        return "", "", ""
    licence, url = read_licence(permissions)
    said = text_of(find(permissions, "copyright-holder")) or text_of(find(permissions, "copyright-statement"))
    return licence, url, said or ("" if licence else text_of(permissions)[:200])


def _images(fig: Element) -> Iterator[tuple[str, ...]]:
    """Names of the pictures; those inside <alternatives> are one picture in several files."""
    within = {id(graphic) for choice in fig.iter("alternatives") for graphic in choice.iter("graphic")}
    for element in fig.iter():
        if element.tag == "alternatives":
            names = tuple(filter(None, (graphic.get("href", "") for graphic in element.iter("graphic"))))
            if names:
                yield names
        elif element.tag == "graphic" and id(element) not in within and element.get("href"):
            yield (element.get("href", ""),)


def _caption(parts: list[Element | None]) -> Caption:
    """Join captions with single spaces, keeping where they are bold."""
    letters: list[tuple[str, bool]] = []
    for part in parts:
        if part is not None:
            letters += _letters(part, strong=False)
            letters.append((" ", False))
    kept: list[tuple[str, bool]] = []
    for letter, strong in letters:
        if not letter.isspace():
            kept.append((letter, strong))
        elif kept and kept[-1][0] != " ":
            kept.append((" ", strong))
    while kept and kept[-1][0] == " ":
        kept.pop()
    return Caption("".join(letter for letter, _ in kept), tuple(_spans([strong for _, strong in kept])))


def _letters(element: Element, *, strong: bool) -> Iterator[tuple[str, bool]]:
    if element.tag not in _NOT_TEXT:
        bold = strong or element.tag in _STRONG
        if element.tag in _BLOCKS:
            yield " ", strong
        for letter in element.text or "":
            yield letter, bold
        for child in element:
            yield from _letters(child, strong=bold)
            for letter in child.tail or "":
                yield letter, bold
        if element.tag in _BLOCKS:
            yield " ", strong


def _spans(flags: list[bool]) -> Iterator[tuple[int, int]]:
    start = 0
    for position in range(1, len(flags) + 1):
        if position == len(flags) or flags[position] != flags[start]:
            if flags[start]:
                yield start, position
            start = position
