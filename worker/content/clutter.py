"""What of a page is no part of its article, and what office programs wrote in their own way.

Owns what a tree looks like before its blocks are read: pictures that nobody sees and rows for sharing are
out, the source of a quotation is in it, and what Word drew as lists and titles are lists and titles.
Refuses: to take out anything long; what is doubtful stays, and an operator reads the draft.
"""

import re
from typing import Any, Final

from lxml import etree

__all__ = ["tidy"]

#: Parts of a page by their role, and by what designers call them.
_ROLES: Final = frozenset({"navigation", "search", "banner", "contentinfo", "dialog", "alertdialog"})
_NAMES: Final = frozenset(
    {"share", "sharing", "social", "byline", "breadcrumb", "breadcrumbs", "cookie", "cookies", "skip"}
)
#: Characters up to which such a part is taken out for its name.
_SHORT: Final = 300
#: Pixels of a side up to which a picture shows nothing: it tells a server who looks.
_UNSEEN: Final = 2
_PIXELS: Final = re.compile(r"\b(?:width|height)\s*:\s*([0-9.]+)px", re.IGNORECASE)
#: Word's list paragraph: its level; and the sign before it, in an element of its own.
_LEVEL: Final = re.compile(r"mso-list:\s*l\d+\s+level(\d)", re.IGNORECASE)
_SIGN: Final = "mso-list:ignore"
_COUNTED: Final = re.compile(r"\s*(?:\d+|[a-z]{1,4})[.)]", re.IGNORECASE)


def tidy(root: Any) -> None:  # noqa: ANN401 - lxml has no types
    """Change a tree in place."""
    for element in list(root.iter(etree.Element)):
        if _is_clutter(element):
            _drop(element)
    for source in list(root.xpath("//blockquote//footer | //blockquote/cite")):
        _sign(source)
    for paragraph in list(root.xpath("//p[contains(@class, 'MsoTitle')]"))[:1]:
        paragraph.tag = "h1"
    for paragraph in list(root.xpath("//p[contains(@style, 'mso-list')]")):
        _list(paragraph)


def _drop(element: Any) -> None:  # noqa: ANN401 - lxml has no types
    if element.getparent() is not None:
        element.drop_tree()


def _is_clutter(element: Any) -> bool:  # noqa: ANN401 - lxml has no types
    if element.tag == "img":
        return _is_unseen(element)
    if element.tag in {"html", "body", "main", "article"}:
        return False
    if element.get("role") in _ROLES:
        return True
    named = re.split(r"[^a-z]+", f"{element.get('class') or ''} {element.get('id') or ''}".lower())
    return not _NAMES.isdisjoint(named) and len("".join(element.itertext())) < _SHORT


def _is_unseen(picture: Any) -> bool:  # noqa: ANN401 - lxml has no types
    sides = [picture.get("width") or "", picture.get("height") or ""]
    sides += _PIXELS.findall(picture.get("style") or "")
    return any(re.fullmatch(r"[0-9.]*\d", side) and float(side) <= _UNSEEN for side in sides)


def _sign(source: Any) -> None:  # noqa: ANN401 - lxml has no types
    """Make the source of a quotation the paragraph, begun by a dash, that an appeal knows it by."""
    source.tag = "p"
    if not "".join(source.itertext()).lstrip().startswith(("-", "\u2013", "\u2014")):
        source.text = f"\u2014 {source.text or ''}"


def _list(paragraph: Any) -> None:  # noqa: ANN401 - lxml has no types
    """Make a list paragraph of Word's an item of the list before it, or of a new one."""
    found = _LEVEL.search(paragraph.get("style"))
    if not found:
        return
    sign = "".join("".join(each.itertext()) for each in _signs(paragraph))
    for each in _signs(paragraph):
        _drop(each)
    tag = "ol" if _COUNTED.match(sign) else "ul"
    previous = paragraph.getprevious()
    among = previous if previous is not None and previous.get("data-level") else None
    if among is None:
        among = etree.Element("div", {"data-level": "0"})
        paragraph.addprevious(among)
    among.append(paragraph)  # takes what stands behind it along
    paragraph.tail, paragraph.tag = None, "li"
    _place(among, paragraph, tag, int(found[1]))


def _place(among: Any, item: Any, tag: str, level: int) -> None:  # noqa: ANN401 - lxml has no types
    """Put an item into the open list of its level: the last list of the last item of the level above."""
    above = among
    for depth in range(1, level + 1):
        lists = [each for each in above if each.get("data-level") == str(depth)]
        last = lists[-1] if lists else None
        if last is None or (depth == level and last.tag != tag):
            last = etree.SubElement(above, tag, {"data-level": str(depth)})
        if depth == level or not len(last):
            last.append(item)
            return
        above = last[-1]


def _signs(paragraph: Any) -> list[Any]:  # noqa: ANN401 - lxml has no types
    """Return the outermost elements that hold the sign of a list paragraph."""
    return [
        each for each in paragraph.iter("span") if _SIGN in (each.get("style") or "").replace(" ", "").lower()
    ]
