"""The bytes of one returned mail, taken apart within bounds that no sender can move.

Owns what is looked at: the first megabyte, so many lines, headers and parts. The standard library splits the
parts; decoding them is done here, because its own decoders raise what they like on broken input.

Refuses: to look into a returned message (its headers are text to us), to believe a charset's name, and to
read on where a mail is larger than any report is.
"""

import binascii
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import Message
from email.policy import Policy, compat32
from functools import partial
from typing import Any, Final

#: Octets of a mail that are read. Reports put the original last, so nothing that counts is beyond it.
MOST_BYTES: Final = 1_000_000
#: Lines, multiparts and parts that are read, headers of each, octets of one header, and of one text.
_LINES, _MULTIPARTS, _PARTS, _HEADERS, _HEADER, _TEXT = 20_000, 5, 40, 300, 4_000, 100_000

#: The first line of a mail in an mbox or from an old delivery program; not a header.
_UNIX_FROM: Final = re.compile(rb"From (\S{0,320})[^\n]{0,200}\n")
_BOUNDARY: Final = re.compile(r';\s{0,9}boundary\s{0,9}=\s{0,9}("[^"]{1,200}"|[^\s;"]{1,200})', re.IGNORECASE)
_CHARSET: Final = re.compile(r';\s{0,9}charset\s{0,9}=\s{0,9}"?([\w-]{1,40})', re.IGNORECASE)
_BLANK_LINE: Final = re.compile(r"\n[ \t]*\n")
_FOLD: Final = re.compile(r"\n[ \t]+")
#: The charsets that are worth knowing in what is read here; Python has some that take minutes (punycode).
_CHARSETS: Final = frozenset({"iso-8859-1", "iso-8859-15", "windows-1251", "windows-1252", "koi8-r"})


class _Splitting(Message):
    """A part that is only split further where that is of use and still allowed."""

    def __init__(self, allowance: list[int], policy: "Policy[Any]" = compat32) -> None:
        super().__init__(policy)
        self._allowance = allowance
        self.raw = ""

    def set_payload(self, payload: Any, charset: Any = None) -> None:  # noqa: ANN401 - as the library has it
        """Keep what a leaf holds: the library's own way to it decodes by whatever charset the mail names."""
        self.raw = payload
        super().set_payload(payload, charset)

    def get_content_maintype(self) -> str:
        """Call a message inside this one text: what it says is read by us, not by the parser."""
        main = super().get_content_maintype()
        return "text" if main == "message" else main

    def get_content_type(self) -> str:
        """Hide from the parser the one type whose body it would read as headers."""
        return super().get_content_type().replace("message/delivery-status", "text/delivery-status")

    def get_boundary(self, failobj: Any = None) -> Any:  # noqa: ANN401 - as the library has it
        """Return what separates the parts; the parser splits nothing without it, which bounds its depth."""
        match = _BOUNDARY.search(_fields(self).get("content-type"))
        if match is None or not self._allowance:
            return failobj
        self._allowance.pop()
        return match[1].strip('"') or failobj


@dataclass(frozen=True, slots=True)
class Fields:
    """A block of header fields, names in lower case."""

    #: Name and unfolded value, in order.
    items: Sequence[tuple[str, str]]

    def all(self, *names: str) -> Iterator[str]:
        """Yield the values of fields, in the order of the names given."""
        for name in names:
            yield from (value for found, value in self.items if found == name)

    def get(self, name: str) -> str:
        """Return a field's first value; "" where there is none."""
        return next(self.all(name), "")

    def count(self, name: str) -> int:
        """Return how often a field stands."""
        return sum(1 for found, _ in self.items if found == name)

    def __contains__(self, name: str) -> bool:
        return self.count(name) > 0


@dataclass(frozen=True, slots=True)
class Part:
    """One leaf of a mail."""

    #: As in "text/plain", lower case.
    type: str
    #: What it says, as text; "\\n" line ends.
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Opened:
    """One returned mail."""

    #: Its own headers.
    fields: Fields = field(repr=False)
    #: Its leaves, in order.
    parts: Sequence[Part] = field(repr=False)
    #: The sender in the line before the headers; None if there is no such line.
    unix_from: str | None = field(default=None, repr=False)

    def part(self, *types: str) -> Part | None:
        """Return the first part of one of these types."""
        return next((part for part in self.parts if part.type in types), None)

    @property
    def text(self) -> str:
        """What it says to a reader: the first plain part, else the first part there is."""
        found = self.part("text/plain") or (self.parts[0] if self.parts else None)
        return found.text if found else ""


def open_mail(data: bytes) -> Opened:
    """Take a mail apart; whatever the bytes are, there is an answer and it takes less than a second."""
    data = data[:MOST_BYTES].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    unix_from = None
    if match := _UNIX_FROM.match(data):
        unix_from, data = match[1].decode("ascii", "replace"), data[match.end() :]
    data = b"\n".join(data.split(b"\n", _LINES)[:_LINES])
    make: Callable[..., Message] = partial(_Splitting, [0] * _MULTIPARTS)
    message = message_from_bytes(data, _class=make)
    return Opened(_fields(message), [*_leaves(message)], unix_from)


def blocks(text: str) -> Iterator[Fields]:
    """Read blocks of fields that blank lines separate, as in a delivery report (RFC 3464 section 2.1)."""
    for block in _BLANK_LINE.split(text.strip("\n"), _PARTS)[:_PARTS]:
        lines = _FOLD.sub(" ", block).split("\n", _HEADERS)[:_HEADERS]
        pairs = [line.partition(":") for line in lines if ":" in line]
        yield Fields([(name.strip().lower(), value.strip()[:_HEADER]) for name, _, value in pairs])


def returned_fields(text: str) -> Fields:
    """Read the headers at the beginning of a returned message."""
    return next(blocks(text), Fields(()))


def _fields(message: Message) -> Fields:
    pairs = [(name.lower(), _unfolded(str(value))) for name, value in [*message.raw_items()][:_HEADERS]]
    return Fields([(name, _utf8(value)) for name, value in pairs])


def _unfolded(value: str) -> str:
    return " ".join(value[:_HEADER].split())


def _utf8(value: str) -> str:
    """Read raw octets, which the parser hides in surrogates, as the UTF-8 they should be (RFC 6532)."""
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _leaves(message: Message) -> Iterator[Part]:
    """Yield the parts that hold something, outermost first; all of them were made within bounds."""
    for part in [*message.walk()][:_PARTS]:
        if isinstance(part, _Splitting) and part.raw:
            fields = _fields(part)
            kind = fields.get("content-type") or "text/plain"
            yield Part(kind.partition(";")[0].strip().lower(), _decoded(part.raw[: 2 * _TEXT], fields, kind))


def _decoded(payload: str, fields: Fields, kind: str) -> str:
    data = payload.encode("utf-8", "surrogateescape")
    encoding = fields.get("content-transfer-encoding").lower()
    if encoding == "quoted-printable":
        data = binascii.a2b_qp(data)
    elif encoding == "base64":
        try:
            data = binascii.a2b_base64(data + b"==")  # it may be cut short
        except binascii.Error:
            return ""
    text = _in_charset(data[:_TEXT], kind)
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")


def _in_charset(data: bytes, kind: str) -> str:
    match = _CHARSET.search(kind)
    named = match[1].lower() if match else ""
    return data.decode(named if named in _CHARSETS else "utf-8", "replace")
