"""Licences as articles state them, under one short name each: "CC BY 4.0", "CC BY-NC-ND 4.0", "CC0 1.0"."""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.etree.ElementTree import Element

from kvlp.datasets.figures.xml import children, find, text_of

__all__ = ["is_third_party", "licence_name", "read_licence"]

_URL = re.compile(
    r"creativecommons\.org/(licenses/(?P<kind>by[a-z-]*)|publicdomain/(?P<public>zero|mark))/(?P<version>\d\.\d)?"
)
_SHORT = re.compile(r"\bCC[ -]?(?P<kind>BY(?:[ -](?:NC|ND|SA))*)(?:[ -]?(?P<version>\d\.\d))?\b", re.IGNORECASE)
_LONG = re.compile(r"creative commons attribution(?P<rest>.{0,60})", re.IGNORECASE)
_ZERO = re.compile(r"\bCC[ -]?0\b|public domain dedication", re.IGNORECASE)
_PARTS = (("NC", r"non[- ]?commercial"), ("SA", r"share[- ]?alike"), ("ND", r"no[- ]?deriv"))
_THIRD_PARTY = re.compile(
    r"\b(?:reproduced|reprinted|republished|adapted|modified|used|taken)\b[^.]{0,80}?\b(?:permission|copyright|©)"
    r"|\b(?:with|by) (?:kind )?permission (?:from|of)\b|©|\bcourtesy of\b",
    re.IGNORECASE,
)


def read_licence(permissions: Element | None) -> tuple[str, str]:
    """Return (short name, address) of the licence in a <permissions>; "" where none is stated.

    A licence that is stated but that no rule knows comes as "other: " and its type, never as an open one.
    """
    stated = list(children(permissions, "license"))
    for licence in stated:
        for url in _addresses(licence):
            name = licence_name(url)
            if name:
                return name, url
    for licence in stated:
        name = licence_name(text_of(licence))
        if name:
            return name, next(_addresses(licence), "")
    if stated:
        return f"other: {stated[0].get('license-type') or 'not named'}"[:60], next(_addresses(stated[0]), "")
    return "", ""


def licence_name(text: str) -> str:
    """The short name of a Creative Commons licence in an address or in words; "" if there is none."""
    if match := _URL.search(text.lower()):
        if match["public"]:
            return f"{'CC0' if match['public'] == 'zero' else 'public domain'} {match['version'] or '1.0'}"
        return f"CC {match['kind'].upper().strip('-')} {match['version'] or ''}".strip()
    if match := _SHORT.search(text):
        return f"CC {match['kind'].upper().replace(' ', '-')} {match['version'] or ''}".strip()
    if match := _LONG.search(text):
        kinds = ["BY", *(short for short, pattern in _PARTS if re.search(pattern, match["rest"], re.IGNORECASE))]
        version = re.search(r"\b\d\.\d\b", match["rest"])
        return f"CC {'-'.join(kinds)} {version[0] if version else ''}".strip()
    return "CC0 1.0" if _ZERO.search(text) else ""


def is_third_party(caption: str) -> bool:
    """Whether a caption says that the picture is someone else's, so that the article's licence does not cover it."""
    return bool(_THIRD_PARTY.search(caption))


def _addresses(licence: Element) -> Iterator[str]:
    for reference in licence.iter("license_ref"):
        yield text_of(reference)
    if licence.get("href"):
        yield licence.get("href", "")
    for link in licence.iter("ext-link"):
        yield link.get("href", "")
    if text_of(find(licence, "license-p")).startswith("http"):
        yield text_of(find(licence, "license-p"))
