"""Colours: whether every word can be read, on a light screen and on a dark one (WCAG 2.2, 1.4.3).

Reads inlined styles, and for dark mode the rules that mail programs apply over them. Refuses: to guess at a
colour that it cannot read, such as one in a variable.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from cssselect import SelectorError
from cssselect import parse as parse_selector
from lxml.cssselect import CSSSelector

from worker.content.checks import css
from worker.content.checks.findings import Finding, Rule, Severity
from worker.content.checks.letters import Element, Letter, plain

__all__ = ["RULES", "contrast", "contrast_of", "read"]

LIGHT: Final = Rule(
    "contrast.light",
    Severity.ERROR,
    "words too faint on their ground in the light scheme",
    "Change [light] in look.toml: 4.5:1 for text, 3:1 for large text.",
)
DARK: Final = Rule(
    "contrast.dark",
    Severity.ERROR,
    "words too faint on their ground in the dark scheme",
    "Change [dark] in look.toml or its rule in screen.css: 4.5:1, or 3:1 for large text.",
)
RULES: Final = (LIGHT, DARK)

_Colour = tuple[int, int, int]

#: WCAG 2.2, 1.4.3: least contrast of text, and of large text.
_LEAST, _LEAST_LARGE = 4.5, 3.0
#: CSS pixels from which text is large: 18 pt, or 14 pt in bold.
_LARGE, _LARGE_BOLD = 24.0, 18.66
_BOLD: Final = 600
_WHITE: Final[_Colour] = (255, 255, 255)
_BLACK: Final[_Colour] = (0, 0, 0)
_NAMED: Final[Mapping[str, str]] = {
    "black": "000000",
    "silver": "c0c0c0",
    "gray": "808080",
    "grey": "808080",
    "white": "ffffff",
    "maroon": "800000",
    "red": "ff0000",
    "purple": "800080",
    "fuchsia": "ff00ff",
    "green": "008000",
    "lime": "00ff00",
    "olive": "808000",
    "yellow": "ffff00",
    "navy": "000080",
    "blue": "0000ff",
    "teal": "008080",
    "aqua": "00ffff",
    "orange": "ffa500",
    "pink": "ffc0cb",
    "lightgray": "d3d3d3",
}
_HEX: Final = re.compile(r"#([0-9a-f]{3,4}|[0-9a-f]{6}|[0-9a-f]{8})\b", re.IGNORECASE)
_RGB: Final = re.compile(
    r"rgba?\(\s*(\d+)[\s,]+(\d+)[\s,]+(\d+)\s*(?:[,/]\s*([\d.]+%?)\s*)?\)", re.IGNORECASE
)
_PIXELS: Final = re.compile(r"([\d.]+)(px|pt|em|rem|%)", re.IGNORECASE)
_HEADINGS: Final = {"h1": 2.0, "h2": 1.5, "h3": 1.17, "h4": 1.0, "h5": 0.83, "h6": 0.67}


def read(value: str) -> _Colour | None:
    """Read a colour out of a value; None where there is none, or it is not opaque."""
    value = value.strip().lower()
    for word in re.findall(r"(?<![-#(])\b[a-z]+\b", value):
        value = f"#{_NAMED[word]}" if word in _NAMED else value
    if found := _HEX.search(value):
        digits = found[1] if len(found[1]) > 4 else "".join(each * 2 for each in found[1])  # noqa: PLR2004 - #rgb and #rgba
        if len(digits) == 8 and digits[6:] != "ff":  # noqa: PLR2004 - with an alpha channel
            return None
        return int(digits[:2], 16), int(digits[2:4], 16), int(digits[4:6], 16)
    if found := _RGB.search(value):
        if found[4] and float(found[4].rstrip("%")) < (100 if "%" in found[4] else 1):
            return None
        return int(found[1]), int(found[2]), int(found[3])
    return None


def contrast_of(one: _Colour, other: _Colour) -> float:
    """Return the contrast ratio of two colours, 1 to 21 (WCAG 2.2)."""
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: _Colour) -> float:
    red, green, blue = (_linear(each / 255) for each in colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _linear(share: float) -> float:
    return share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4  # noqa: PLR2004 - sRGB


@dataclass(frozen=True, slots=True)
class _Ink:
    """How text is drawn at one element; None: in a colour that cannot be read here."""

    ink: _Colour | None
    ground: _Colour | None
    #: CSS pixels
    size: float
    bold: bool


#: What a browser draws with when nothing is set. Links are blue, and #8ab4f8 or so in the dark.
_PAPER: Final = _Ink(_BLACK, _WHITE, 16.0, bold=False)
_NIGHT: Final = _Ink(_WHITE, (18, 18, 18), 16.0, bold=False)


def contrast(letter: Letter) -> Iterator[Finding]:
    """Find words that are too faint, in the light scheme and, where the mail has one, in the dark."""
    yield from _faint(letter, LIGHT, _PAPER, {})
    dark = [rule for rule in letter.sheet if "prefers-color-scheme: dark" in rule.media.replace(":d", ": d")]
    if dark:
        yield from _faint(letter, DARK, _NIGHT, _applied(letter.page, dark))


def _applied(page: Element, sheet: list[css.Rule]) -> Mapping[Element, Mapping[str, css.Declaration]]:
    """Return what these rules set on each element: the more specific wins, then the later."""
    found: dict[Element, dict[str, css.Declaration]] = {}
    ranked = []
    for position, rule in enumerate(sheet):
        try:
            ranked.append((parse_selector(rule.selector)[0].specificity(), position, rule))
        except SelectorError:
            continue  # a selector of one mail program's own, which no other one applies
    for _, _, rule in sorted(ranked, key=lambda each: each[:2]):
        for element in CSSSelector(rule.selector)(page):
            own = found.setdefault(element, {})
            for one in rule.declarations:
                if one.important or not (one.name in own and own[one.name].important):
                    own[one.name] = one
    return found


def _faint(
    letter: Letter,
    rule: Rule,
    start: _Ink,
    applied: Mapping[Element, Mapping[str, css.Declaration]],
) -> Iterator[Finding]:
    inks: dict[Element, _Ink] = {}
    told = set()
    for element in letter.seen:
        ink = inks[element] = _drawn(element, inks.get(element.getparent(), start), applied.get(element, {}))
        words = plain(f"{element.text or ''} {' '.join(child.tail or '' for child in element)}")
        if not words.strip("\xa0· ") or ink.ink is None or ink.ground is None:
            continue
        is_large = ink.size >= (_LARGE_BOLD if ink.bold else _LARGE)
        ratio, least = contrast_of(ink.ink, ink.ground), _LEAST_LARGE if is_large else _LEAST
        if ratio < least and (ink.ink, ink.ground, least) not in told:
            told.add((ink.ink, ink.ground, least))
            pair = f"{_hex(ink.ink)} on {_hex(ink.ground)}"
            yield rule.found(
                f"“{words[:30]}” is {pair}, {int(ratio * 10) / 10}:1 and not {least:g}:1", "HTML"
            )


def _hex(colour: _Colour) -> str:
    return "#" + "".join(f"{each:02x}" for each in colour)


def _drawn(element: Element, around: _Ink, applied: Mapping[str, css.Declaration]) -> _Ink:
    """Return how an element's own text is drawn, from its parent's and what is set on it."""
    own = {one.name: one for one in css.declarations(element.get("style") or "")}
    # An inlined style beats a sheet's rule, unless only the rule is important.
    own |= {name: one for name, one in applied.items() if name not in own or one.important}
    ink, ground = around.ink, around.ground
    if element.get("bgcolor"):
        ground = read(str(element.get("bgcolor")))
    for one in own.values():
        if one.name in {"background-color", "background"} and one.value.lower() not in {
            "transparent",
            "none",
        }:
            ground = read(one.value) or (ground if one.name == "background" else None)
        elif one.name == "color" and one.value.lower() != "inherit":
            ink = read(one.value)
    size, weight = own.get("font-size"), own.get("font-weight")
    return _Ink(
        ink,
        ground,
        _pixels(size.value if size else "", around.size, _HEADINGS.get(element.tag, 1.0)),
        _is_bold(weight.value if weight else "", element.tag, around=around.bold),
    )


def _pixels(value: str, around: float, usual: float) -> float:
    found = _PIXELS.fullmatch(value.strip())
    if not found:
        return around * usual
    number, unit = float(found[1]), found[2].lower()
    return number * {"px": 1.0, "pt": 4 / 3, "em": around, "rem": 16.0, "%": around / 100}[unit]


def _is_bold(value: str, tag: str, *, around: bool) -> bool:
    if value.isdigit():
        return int(value) >= _BOLD
    if value in {"bold", "bolder", "normal"}:
        return value != "normal"
    return around or tag in {"b", "strong", "th", *_HEADINGS}
