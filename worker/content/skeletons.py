"""Skeletons: a text with places for values, its fixed parts encoded once.

Owns what a value looks like in each kind of place: running text, an attribute, a URL in an attribute, as
libxml2 serialises them, and plain text. Refuses: finding the places (`inlining` does), and anything but text.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeAlias

from worker.content import quoted
from worker.post.parcels import Wire

__all__ = ["Attribute", "Segment", "Skeleton", "Text"]

#: libxml2 percent-encodes these.
_URL_ATTRIBUTES: Final = frozenset({"action", "href", "src"})
#: What libxml2 leaves as it is in an attribute, for servers and scripts of 1998: `<!-- -->` and `&{ }`.
_AS_IT_IS: Final = re.compile(r"<!(?=--).*?-->|&\{[^}]*\}|[&<>]", re.DOTALL)
_ESCAPED: Final = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


@dataclass(frozen=True, slots=True)
class Text:
    """A value in running text."""

    #: which value
    number: int


@dataclass(frozen=True, slots=True)
class Attribute:
    """An attribute with at least one value in it."""

    #: lower case
    name: str
    #: literal pieces as serialised (quotes bare), and numbers of values
    pieces: tuple[str | int, ...]

    @property
    def numbers(self) -> tuple[int, ...]:
        """The values that it holds."""
        return tuple(piece for piece in self.pieces if isinstance(piece, int))

    @property
    def is_whole(self) -> bool:
        """Whether any value may change how other pieces are written: by a quote, or by ending a `<!--`."""
        return any(isinstance(piece, str) and _joins(piece) for piece in self.pieces)

    def serialise(self, values: Sequence[str]) -> str:
        """Return the quoted attribute: libxml2 takes single quotes when only double ones are inside."""
        content = "".join(_bare(p) if isinstance(p, str) else values[p] for p in self.pieces)
        content = _AS_IT_IS.sub(lambda found: _ESCAPED.get(found[0], found[0]), content)
        if self.name in _URL_ATTRIBUTES:
            content = _url(content)
        if '"' not in content:
            return f'"{content}"'
        return f"'{content}'" if "'" not in content else '"' + content.replace('"', "&quot;") + '"'


Segment: TypeAlias = str | Text | Attribute
#: Returns the wire form of a value, or None when the whole attribute has to be written anew.
_Convert: TypeAlias = Callable[[str], Wire | None]
#: Wire forms kept of each kind: a mail shows most values twice, and cities and first names come again. Not
#: more, for a list may hold a long text about each person.
_KEPT: Final = 256


def _in_text(value: str) -> str:
    return value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


_URL_OCTETS: Final = [
    chr(o) if chr(o).isascii() and chr(o).isprintable() and chr(o) != " " else f"%{o:02X}" for o in range(256)
]


def _url(value: str) -> str:
    if value.isascii() and value.isprintable() and " " not in value:
        return value
    return "".join(map(_URL_OCTETS.__getitem__, value.encode()))


def _joins(value: str) -> bool:
    """Tell whether a piece of an attribute can do something to the pieces around it."""
    return '"' in value or "<" in value or "{" in value or "&lt;" in value


def _bare(literal: str) -> str:
    """Take back what was escaped in a serialised piece."""
    return literal.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


_as_raw: Final[_Convert] = lru_cache(_KEPT)(quoted.encode)


@lru_cache(_KEPT)
def _as_text(value: str) -> Wire:
    return quoted.encode(_in_text(value))


@lru_cache(_KEPT)
def _as_attribute(value: str) -> Wire | None:
    return None if _joins(value) else quoted.encode(_in_text(value))


@lru_cache(_KEPT)
def _as_url(value: str) -> Wire | None:
    return None if _joins(value) else quoted.encode(_in_text(_url(value)))


class Skeleton:
    """Text with places for values, its fixed parts already encoded as quoted-printable."""

    __slots__ = ("_openings", "_parts", "_raw", "_segments", "_slow")

    def __init__(self, segments: Sequence[Segment], *, raw: bool = False) -> None:
        """Take what it consists of; `raw` text knows no escaping (it is not HTML)."""
        self._segments = tuple(segments)
        self._raw = raw
        self._slow = _only_whole(self._segments)
        self._parts, self._openings = self._encoded()

    @classmethod
    def of_text(cls, pieces: Sequence[str | int]) -> "Skeleton":
        """Make one of plain text: pieces and numbers of values, which can stand anywhere in it."""
        return cls([Text(p) if isinstance(p, int) else p for p in pieces], raw=True)

    def text(self, values: Sequence[str]) -> str:
        """Return the filled text."""
        return "".join(self._filled(segment, values) for segment in self._segments)

    def encode(self, values: Sequence[str]) -> Wire:
        """Return the filled text as quoted-printable."""
        if self._slow:
            return quoted.encode(self.text(values), last=True)
        parts = self._parts.copy()
        for position, number, convert in self._openings:
            encoded = convert(values[number])
            if encoded is None:
                return quoted.encode(self.text(values), last=True)
            parts[position] = encoded
        return Wire.joined(parts)

    def _filled(self, segment: Segment, values: Sequence[str]) -> str:
        if isinstance(segment, str):
            return segment
        if isinstance(segment, Attribute):
            return segment.serialise(values)
        value = values[segment.number]
        return value if self._raw else _in_text(value)

    def _encoded(self) -> tuple[list[Wire], list[tuple[int, int, _Convert]]]:
        """Encode the fixed parts; note where each value goes and how."""
        pieces: list[str | tuple[int, _Convert]] = []
        for segment in self._segments:
            if isinstance(segment, str):
                pieces.append(segment)
            elif isinstance(segment, Attribute):
                pieces.extend(_attribute_pieces(segment))
            else:
                pieces.append((segment.number, _as_raw if self._raw else _as_text))
        return _laid_out(pieces)


def _only_whole(segments: Sequence[Segment]) -> bool:
    """Tell whether a text can only be encoded as a whole.

    So it is when a value comes last (its white space decides how the text ends), and when an attribute's own
    words are such that any value may change how the attribute is written.
    """
    whole = any(isinstance(segment, Attribute) and segment.is_whole for segment in segments)
    return whole or any(not isinstance(segment, str) for segment in [s for s in segments if s][-1:])


def _attribute_pieces(attribute: Attribute) -> Iterator[str | tuple[int, _Convert]]:
    convert: _Convert = _as_url if attribute.name in _URL_ATTRIBUTES else _as_attribute
    yield '"'
    for piece in attribute.pieces:
        yield piece if isinstance(piece, str) else (piece, convert)
    yield '"'


def _laid_out(
    pieces: Sequence[str | tuple[int, _Convert]],
) -> tuple[list[Wire], list[tuple[int, int, _Convert]]]:
    """Join neighbouring fixed pieces, encode them, and leave a gap in the list for each value."""
    parts: list[Wire] = []
    openings: list[tuple[int, int, _Convert]] = []
    fixed = ""
    for piece in pieces:
        if isinstance(piece, str):
            fixed += piece
            continue
        parts += [quoted.encode(fixed), quoted.encode("")]
        openings.append((len(parts) - 1, *piece))
        fixed = ""
    return [*parts, quoted.encode(fixed, last=True)], openings
