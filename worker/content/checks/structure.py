"""Structure: what a screen reader, a right-to-left reader and a strict mail program need of the page.

Refuses: colours and sizes.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Final

from worker.content.checks.findings import Finding, Rule, Severity
from worker.content.checks.letters import Letter, plain
from worker.content.words import direction

__all__ = ["RULES", "active", "headings", "language", "tables", "title"]

LANGUAGE: Final = Rule(
    "page.language",
    Severity.ERROR,
    "lang is missing or another language's, on html or around the mail",
    'Keep lang="{{ language }}" on html and on the outermost element of layout.html.',
)
DIRECTION: Final = Rule(
    "page.direction",
    Severity.ERROR,
    "dir is missing or wrong, on html or around the mail",
    'Keep dir="{{ dir }}" on html and on the outermost element of layout.html.',
)
TITLE: Final = Rule(
    "page.title",
    Severity.WARNING,
    "the page has no title",
    "Keep <title>{{ subject }}</title> in layout.html.",
)
DOCTYPE: Final = Rule(
    "page.doctype",
    Severity.WARNING,
    "the page has no doctype, so browsers draw it by old rules",
    "Let layout.html begin with <!DOCTYPE html>.",
)
HEADINGS: Final = Rule(
    "page.headings",
    Severity.WARNING,
    "headings out of order, or not exactly one of the first level",
    "One h1, and no level left out below it.",
)
TABLES: Final = Rule(
    "page.tables",
    Severity.WARNING,
    "a layout table that a screen reader will read out as data",
    'Write role="presentation" on it.',
)
ACTIVE: Final = Rule(
    "page.active",
    Severity.ERROR,
    "scripts, forms, frames or handlers, which mail programs remove or fear",
    "Take it out: a mail is text and links.",
)
RULES: Final = (LANGUAGE, DIRECTION, TITLE, DOCTYPE, HEADINGS, TABLES, ACTIVE)

_ACTIVE: Final = frozenset(
    [
        "applet",
        "audio",
        "base",
        "button",
        "embed",
        "form",
        "frame",
        "iframe",
        "input",
        "object",
        "script",
        "select",
        "textarea",
        "video",
    ]
)
_LEVELS: Final = ("h1", "h2", "h3", "h4", "h5", "h6")


def language(letter: Letter) -> Iterator[Finding]:
    """Find a page that does not say its language and direction, where webmail drops html too (B5)."""
    body = letter.page.find("body")
    outermost = next((each for each in (() if body is None else body) if isinstance(each.tag, str)), None)
    wanted = {LANGUAGE: ("lang", letter.language), DIRECTION: ("dir", direction(letter.language))}
    for rule, (attribute, value) in wanted.items():
        for place, element in (("html", letter.page), ("the outermost element", outermost)):
            given = "" if element is None else str(element.get(attribute) or "")
            if given != value:
                said = f'{attribute}="{given}"' if given else f"no {attribute}"
                yield rule.found(f"{place} has {said}, not {value}", "HTML")


def title(letter: Letter) -> Iterator[Finding]:
    """Find a page without a title or a doctype."""
    if not plain(letter.page.findtext(".//title") or ""):
        yield TITLE.found("the page has no title", "HTML")
    if not letter.html.lstrip().lower().startswith("<!doctype html>"):
        yield DOCTYPE.found("the page does not begin with <!DOCTYPE html>", "HTML")


def headings(letter: Letter) -> Iterator[Finding]:
    """Find headings that a screen reader would lose its way by."""
    levels = [_LEVELS.index(each.tag) + 1 for each in letter.seen if each.tag in _LEVELS]
    if levels.count(1) != 1:
        yield HEADINGS.found(f"there are {levels.count(1)} headings of the first level", "HTML")
    if levels and levels[0] != 1:
        yield HEADINGS.found(f"the first heading is of level {levels[0]}", "HTML")
    for above, level in pairwise(levels):
        if level > above + 1:
            yield HEADINGS.found(f"a heading of level {level} follows one of level {above}", "HTML")


def tables(letter: Letter) -> Iterator[Finding]:
    """Find layout tables without their role (B6); tables with headings are data."""
    bare = [
        each
        for each in letter.seen
        if each.tag == "table" and each.get("role") not in {"presentation", "none"} and not _is_data(each)
    ]
    if bare:
        yield TABLES.found(f"{len(bare)} layout table(s) without a role", "HTML")


def _is_data(table: object) -> bool:
    return next(table.iter("th"), None) is not None  # type: ignore[attr-defined]  # lxml publishes no types


def active(letter: Letter) -> Iterator[Finding]:
    """Find what could act or ask for input."""
    for element in letter.page.iter():
        if element.tag in _ACTIVE:
            yield ACTIVE.found(f"there is a <{element.tag}>", "HTML")
        for name in element.keys() if isinstance(element.tag, str) else ():
            if name.lower().startswith("on"):
                yield ACTIVE.found(f"there is an {name.lower()} handler", "HTML")
