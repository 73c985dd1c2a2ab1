"""Skeletons: a text with places for values, its fixed parts encoded once.

Owns what a value looks like in each kind of place: running text, an attribute, a URL in an attribute, as
libxml2 serialises them, and plain text. Refuses: finding the places (`inlining` does), and anything but text.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeAlias

from worker.content import quoted
from worker.post.parcels import Wire

__all__ = ["Attribute", "Segment", "Skeleton", "Text"]

#: libxml2 percent-encodes these.
_URL_ATTRIBUTES: Final = frozenset({"action", "href", "src"})


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

    def escape(self, value: str) -> str:
        """Escape a value as libxml2 does here, but for the quotes."""
        return _in_url(value) if self.name in _URL_ATTRIBUTES else _in_text(value)

    def serialise(self, values: Sequence[str]) -> str:
        """Return the quoted attribute: libxml2 takes single quotes when only double ones are inside."""
        content = "".join(p if isinstance(p, str) else self.escape(values[p]) for p in self.pieces)
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


def _in_url(value: str) -> str:
    if value.isascii() and value.isprintable() and " " not in value:
        return _in_text(value)
    return _in_text("".join(map(_URL_OCTETS.__getitem__, value.encode())))


_as_raw: Final[_Convert] = lru_cache(_KEPT)(quoted.encode)


@lru_cache(_KEPT)
def _as_text(value: str) -> Wire:
    return quoted.encode(_in_text(value))


@lru_cache(_KEPT)
def _as_attribute(value: str) -> Wire | None:
    return None if '"' in value else quoted.encode(_in_text(value))


@lru_cache(_KEPT)
def _as_url(value: str) -> Wire | None:
    return None if '"' in value else quoted.encode(_in_url(value))


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
    words hold a double quote (any value may then change how the attribute is quoted).
    """
    quotes = any(
        isinstance(piece, str) and '"' in piece
        for segment in segments
        if isinstance(segment, Attribute)
        for piece in segment.pieces
    )
    return quotes or any(not isinstance(segment, str) for segment in [s for s in segments if s][-1:])


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
