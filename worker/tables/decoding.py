"""Text encodings: which one a file's first bytes are in, and whether a decoded line came out damaged.

Owns: UTF-8 and UTF-16 with and without a mark, Windows-1252 as the fallback, and the signs of text read in
the wrong encoding.

Refuses: files that are not text, and mojibake: a file or a line that does not read as what it was taken for
is refused, because a wrong name in a greeting is worse than a question to the operator.
"""

import codecs
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from worker.errors import WrongUse

_SAVE_AS_UTF8: Final = 'In the spreadsheet program, save it as "CSV UTF-8".'
#: How other kinds of file begin.
_OTHER_KINDS: Final[Mapping[bytes, str]] = MappingProxyType(
    {
        b"PK\x03\x04": "a workbook (.xlsx, .ods) or a zip archive",
        b"PK\x05\x06": "an empty zip archive",
        b"\xd0\xcf\x11\xe0": "an old workbook (.xls)",
        b"\x1f\x8b": "a gzip archive",
        b"%PDF": "a PDF",
        b"{\\rtf": "a word processor's document",
        b"SQLite format 3": "a database",
    }
)
#: Byte order marks; the four-byte ones begin with a two-byte one and so come first.
_MARKS: Final = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_MULTIBYTE = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
_HIGH = re.compile(rb"[\x80-\xff]")
_FALLBACK: Final = "cp1252"
#: What Western text never holds and misread text does: four accented letters in a row (Cyrillic, Greek), or
#: after a small letter one of the signs that stand where Mac Roman and Windows-1250 keep letters.
_MISREAD = re.compile(
    "[\u00c0-\u00ff]{4}|[a-z][\u0160\u0152\u017d\u0178\u02c6\u02dc\u2039\u00b3\u00b1\u00b6\u00bc\u00be\u00b9]"
)
#: What the decoder writes for bytes that are no text, and other programs for text they had lost already.
_LOST: Final = "\ufffd"


@dataclass(frozen=True, slots=True)
class Encoding:
    """How to decode a file, and how to notice that it was the wrong way."""

    #: The codec's name, for errors="replace".
    codec: str
    #: Whether it was only assumed, so that lines are looked at for signs of another encoding.
    assumed: bool = False

    def damaged(self, line: str) -> bool:
        """Whether a decoded line lost a character or reads like text of another encoding."""
        return not line.isascii() and (_LOST in line or (self.assumed and _misread(line)))


def detect(head: bytes, named: str | None) -> Encoding:
    """Decide from the first bytes of a file, or take the encoding that the operator named.

    Raises:
        WrongUse: not text, empty, an unknown name, or an encoding that cannot be told.
    """
    if not head.strip():
        raise WrongUse("the file is empty", remedy="Check that the export worked.")
    for start, kind in _OTHER_KINDS.items():
        if head.startswith(start):
            raise WrongUse(f"the file is {kind}, not CSV text", remedy=_SAVE_AS_UTF8)
    if named:
        return Encoding(_codec(named))
    for mark, codec in _MARKS:
        if head.startswith(mark):
            return Encoding(codec)
    return Encoding(wide) if (wide := _utf16(head)) else _bytewise(head)


def _codec(named: str) -> str:
    try:
        "a".encode(named)
        return codecs.lookup(named).name
    except (LookupError, ValueError) as error:
        raise WrongUse(
            "there is no such text encoding", remedy="Name one such as utf-8, windows-1252 or windows-1251."
        ) from error


def _utf16(head: bytes) -> str | None:
    """Tell unmarked UTF-16 by its zero bytes: an address list is mostly ASCII, whatever the names."""
    pairs = len(head) // 2
    high, low = head[0::2].count(0), head[1::2].count(0)
    if low > pairs / 4 and high < low / 10:
        return "utf-16-le"
    if high > pairs / 4 and low < high / 10:
        return "utf-16-be"
    return None


def _bytewise(head: bytes) -> Encoding:
    """UTF-8 if it is, or nearly is (a damaged byte must not turn every other name into mojibake)."""
    rest, sequences = _MULTIBYTE.subn(b"", head)
    if sequences >= len(_HIGH.findall(rest)):
        return Encoding("utf-8")
    lines = [line for line in head.decode(_FALLBACK, "replace").splitlines() if not line.isascii()]
    if 2 * sum(map(_misread, lines)) >= len(lines):
        raise WrongUse(
            "the file's encoding cannot be told: it is neither UTF-8 nor Windows-1252",
            remedy=f"{_SAVE_AS_UTF8} Or name its encoding.",
        )
    return Encoding(_FALLBACK, assumed=True)


def _misread(line: str) -> bool:
    if _MISREAD.search(line):
        return True
    try:
        return not line.encode(_FALLBACK).decode("utf-8").isascii()
    except UnicodeError:
        return False
