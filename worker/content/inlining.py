"""Inlining: CSS moved into the elements once, and the places where values may be woven into the result.

The HTML comes with stand-ins where the person's values go. Owns the choice of premailer's options, and the
claim that filling a skeleton gives byte for byte what inlining the filled HTML would have given. The claim is
tried on every skeleton before use, with probes: empty, blank and hostile values run through the same parser
and serialiser. Places that fail are reported, not woven.

Refuses: the network (premailer loads nothing), and values in tags, comments, scripts, styles and in
attributes that CSS selects by.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain
from typing import Final, cast

from lxml import etree
from markupsafe import escape
from premailer import Premailer

from worker.content.skeletons import Attribute, Segment, Skeleton, Text
from worker.content.slots import StandIns

__all__ = ["Faults", "examine", "inline", "make", "settle"]

#: premailer, by choice: nothing is fetched (allow_network, base_url); media queries and what else cannot be
#: inlined stay in <style> with their !important, without which inlined styles beat them (strip_important);
#: classes stay for them to match; no <head> is invented (disable_leftover_css); unknown CSS is kept
#: (disable_validation) and nothing is logged (50 is logging.CRITICAL); width and height attributes are the
#: template's own, since "100%" or "auto" on an image breaks Outlook (disable_basic_attributes).
_CHOICES: Final[Mapping[str, object]] = {
    "allow_network": False,
    "base_url": None,
    "strip_important": False,
    "remove_classes": False,
    "keep_style_tags": False,
    "disable_leftover_css": True,
    "disable_validation": True,
    "disable_basic_attributes": ["width", "height"],
    "cssutils_logging_level": 50,
}

_DOCTYPE: Final = re.compile(r"\s*<!doctype html>", re.IGNORECASE)

#: Attributes whose values decide nothing but what they say. All others (class, style, media, width …) may
#: decide how premailer dresses an element.
_PLAIN_ATTRIBUTES: Final = frozenset(
    {"action", "alt", "aria-description", "aria-label", "background", "cite", "datetime", "href", "label"}
    | {"placeholder", "src", "summary", "title", "value"}
)
#: The markup of serialised HTML; what lies between is text. Elements of raw text are taken whole.
_MARKUP: Final = re.compile(
    r"<!--.*?-->|<[!?][^>]*>"
    r"|<(?P<raw>script|style|xmp|iframe|noembed|noframes|noscript|plaintext)\b[^>]*>.*?(?:</(?P=raw)\s*>|\Z)"
    r"""|</?[a-z][^\s>"']*(?:\s+[^\s=>"']+(?:=(?:"[^"]*"|'[^']*'))?)*\s*/?>""",
    re.DOTALL | re.IGNORECASE,
)
_ATTRIBUTE: Final = re.compile(r"""(?<=\s)([^\s=>"']+)=("[^"]*"|'[^']*')""")
_STYLE: Final = re.compile(r"<style\b.*?(?:</style|\Z)", re.DOTALL | re.IGNORECASE)
_SELECTED: Final = re.compile(r"\[\s*([^\s=~|^$*\]]+)")
#: An unfinished character reference: what follows it could finish it.
_REFERENCE: Final = re.compile(r"&[#0-9A-Za-z]+")

#: Values that neither begin nor end with white space: every printable ASCII character, both kinds of quotes
#: and one, line ends, characters of two to four octets; a value of one letter; what HTML 4 left unescaped.
_SOLID: Final = (
    "a" + "".join(map(chr, range(0x20, 0x7F))) + "\t\n\u0085\u00e9\u2028\u263a\ufffe\U0001f600  z",
    'x"y',
    "1",
    "<!-- x -->&{y}",
)
#: Empty, blank, and framed by white space: where parsers drop things.
_AIRY: Final = ("", " \n", "\nx ")


@dataclass(frozen=True, slots=True)
class Faults:
    """The values of a tokenised HTML that may not be woven."""

    #: numbers of those whose place cannot be woven at all
    pinned: frozenset[int] = frozenset()
    #: numbers of those whose place cannot take an airy value (see slots.is_airy)
    fragile: frozenset[int] = frozenset()


@dataclass(slots=True)
class _Reading:
    """What a scan of serialised HTML found."""

    segments: list[Segment] = field(default_factory=list)
    #: numbers of values in places that cannot be woven
    unfit: set[int] = field(default_factory=set)
    #: numbers that share a run of text or an attribute
    groups: list[list[int]] = field(default_factory=list)

    @property
    def places(self) -> list[Segment]:
        """The values' places, without the words around them."""
        return [
            Attribute(segment.name, segment.numbers) if isinstance(segment, Attribute) else segment
            for segment in self.segments
            if not isinstance(segment, str)
        ]


def inline(html: str) -> str:
    """Move the CSS into the elements: premailer, as configured here; "" for what holds nothing to show."""
    if _tree(html) is None:
        return ""
    return cast("str", _Inliner(_doctyped(html), **_CHOICES).transform(pretty_print=False))


class _Inliner(Premailer):  # type: ignore[misc] # premailer publishes no types
    """Premailer, which reads each style sheet once: that is two thirds of its time."""

    def _parse_style_rules(self, css: str | None, number: int) -> tuple[list[object], list[object]]:
        rules, leftover = _style_rules(css, number)
        return list(rules), list(leftover)


@lru_cache(maxsize=32)
def _style_rules(css: str | None, number: int) -> tuple[list[object], list[object]]:
    """Return the rules of a page's so-manieth style sheet, and what premailer leaves there."""
    read = Premailer("", **_CHOICES)._parse_style_rules  # noqa: SLF001 - asked once for each; its own cache holds less
    return cast("tuple[list[object], list[object]]", read(css, number))


def settle(html: str) -> str:
    """Parse and serialise as premailer does, without its work between; "" for what holds nothing to show."""
    tree = _tree(html)
    if tree is None:
        return ""
    kept = _doctyped(html).strip().startswith(tree.docinfo.doctype)
    root = tree if kept else tree.getroot()
    return cast("bytes", etree.tostring(root, method="html", encoding="utf-8")).decode()


def _tree(html: str) -> "etree._ElementTree | None":
    """Parse as premailer does; None where there is no element and no text."""
    try:
        root = etree.fromstring(_doctyped(html).strip(), etree.HTMLParser())
    except etree.LxmlError:
        return None
    return None if root is None else root.getroottree()


def _doctyped(html: str) -> str:
    """Write the doctype as premailer wants it: it drops a lower-case one, and quirks mode follows."""
    return _DOCTYPE.sub("<!DOCTYPE html>", html, count=1) if _DOCTYPE.match(html) else html


def make(source: str, words: StandIns) -> Skeleton | None:
    """Inline a tokenised HTML that `examine` found faultless; None if premailer moved a value."""
    reading, settled = _read(inline(source), words), _read(settle(source), words)
    if reading.unfit or reading.places != settled.places:
        return None
    return Skeleton(reading.segments)


def examine(source: str, words: StandIns) -> Faults:
    """Find the values in a tokenised HTML that cannot be woven, by reading and by probing."""
    numbers = words.numbers(source)
    if not numbers:
        return Faults()
    settled = _read(settle(source), words, _selected_by_css(source))
    pinned = settled.unfit | _at_the_edges(source, words)
    for reference in _REFERENCE.finditer(source):
        pinned.update(words.numbers(reference[0]))
    placed = [number for group in settled.groups for number in group]
    if placed != [number for number in numbers if number not in settled.unfit]:
        pinned.update(_misplaced(numbers, placed) or numbers)
    if pinned:
        return Faults(pinned=frozenset(pinned))
    probe = _Probe(source, words, settled)
    return Faults(frozenset(probe.failing(_SOLID)), frozenset(probe.failing(_AIRY)))


def _misplaced(numbers: Iterable[int], placed: Sequence[int]) -> set[int]:
    """Return the numbers that do not come out as often as they went in."""
    went = list(numbers)
    return {number for number in {*went, *placed} if went.count(number) != placed.count(number)}


def _selected_by_css(source: str) -> frozenset[str]:
    """Return the attributes that the style sheets select by, as in a[title]."""
    styles = _STYLE.findall(source)
    return frozenset(name.lower() for name in chain.from_iterable(map(_SELECTED.findall, styles)))


def _at_the_edges(source: str, words: StandIns) -> set[int]:
    """Return the values outside all tags: premailer strips white space there."""
    before, after = source[: source.find("<") + 1], source[source.rfind(">") + 1 :]
    return {*words.numbers(before or source), *words.numbers(after)}


class _Probe:
    """Tries probes in the places of one tokenised HTML."""

    def __init__(self, source: str, words: StandIns, reading: _Reading) -> None:
        self._pieces = words.split(source)
        self._groups = reading.groups
        self._skeleton = Skeleton(reading.segments)
        self._words = [words.word(number) for number in range(1 + max(chain(*self._groups), default=-1))]

    def failing(self, probes: Iterable[str]) -> set[int]:
        """Return the values that cannot be these; all, if they fail only together."""
        failing: set[int] = set()
        everywhere = {*chain(*self._groups)}
        for probe in probes:
            if not self._holds(everywhere, probe):
                groups = [group for group in self._groups if not self._holds(group, probe)]
                failing.update(chain(*groups) if groups else everywhere)
        return failing

    def _holds(self, numbers: Iterable[int], probe: str) -> bool:
        """Tell whether filling the skeleton is the same as parsing the filled source."""
        values = self._words.copy()
        filled = [str(word) for word in values]
        for number in numbers:
            values[number], filled[number] = probe, str(escape(probe))
        source = "".join(piece if isinstance(piece, str) else filled[piece] for piece in self._pieces)
        return settle(source) == self._skeleton.text(values)


def _read(html: str, words: StandIns, refused: frozenset[str] = frozenset()) -> _Reading:
    """Find the values in serialised HTML, where the markup has one form only."""
    reading = _Reading()
    position = 0
    for markup in _MARKUP.finditer(html):
        _read_text(html[position : markup.start()], words, reading)
        _read_markup(markup, words, reading, refused)
        position = markup.end()
    _read_text(html[position:], words, reading)
    return reading


def _read_text(text: str, words: StandIns, reading: _Reading) -> None:
    numbers = words.numbers(text)
    reading.segments += [Text(p) if isinstance(p, int) else p for p in words.split(text)]
    if numbers:
        reading.groups.append(numbers)


def _read_markup(markup: re.Match[str], words: StandIns, reading: _Reading, refused: frozenset[str]) -> None:
    """Take the attributes that can be woven; all other values in markup are unfit."""
    text, position = markup[0], 0
    numbers = words.numbers(text)
    if numbers and not markup["raw"]:
        for found in _ATTRIBUTE.finditer(text):
            name = found[1].lower()
            inside = words.numbers(found[2])
            if inside and name in _PLAIN_ATTRIBUTES - refused:
                pieces = words.split(found[2][1:-1].replace("&quot;", '"'))
                reading.segments += [text[position : found.start(2)], Attribute(name, tuple(pieces))]
                reading.groups.append(inside)
                position = found.end()
                for number in inside:
                    numbers.remove(number)
    reading.unfit.update(numbers)
    reading.segments.append(text[position:])
