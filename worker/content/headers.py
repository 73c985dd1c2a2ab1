"""Header fields by hand: text and mailboxes as the lines that go on the wire (RFC 5322, RFC 2047).

The standard library's folding turns long opt-out links into encoded words and loses the quotes of long names;
here nothing that a machine reads is ever encoded or cut. Owns encoded words, quoted strings and folding.

Refuses: line ends and other controls in any value, whoever vouches for it; free text where machines read.
"""

import re
from base64 import b64encode
from collections.abc import Iterator
from typing import Final

from worker.errors import Refused

__all__ = ["UnfitHeader", "checked", "mailbox", "phrase", "text", "token"]

#: RFC 5322 2.1.1: octets in a line, less CRLF, that one should not pass.
_LINE: Final = 78
#: RFC 2047 2: octets in an encoded word, and in a line that holds one.
_WORD, _WORD_LINE = 75, 76
_OPEN_Q, _OPEN_B, _CLOSE = "=?utf-8?q?", "=?utf-8?b?", "?="
_FRAME: Final = len(_OPEN_Q) + len(_CLOSE)
#: Longer names are not quoted but encoded: quoted strings that have to be folded come apart in the wild.
_QUOTED_MOST: Final = 60

_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
#: RFC 5322 atoms with single spaces between; no "=" or "?", which could make up an encoded word.
_ATOMS: Final = re.compile(r"[A-Za-z0-9!#$%&'*+/^_`{|}~-]++(?: [A-Za-z0-9!#$%&'*+/^_`{|}~-]++)*+")
_SPACES: Final = re.compile("  +")
_TOKEN: Final = re.compile(r"[!-;=?-~]+")
#: RFC 2047 5 (3): what may stand for itself in the Q encoding, even in a phrase.
_Q_PLAIN: Final = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!*+-/")
_Q: Final = [chr(o) if o in _Q_PLAIN else "_" if o == ord(" ") else f"={o:02X}" for o in range(256)]


class UnfitHeader(Refused):
    """A value cannot stand in a header. The message names the field and not the value."""

    def __init__(self, field: str, why: str) -> None:
        """Take the field's name and what is wrong with the value."""
        super().__init__(f"the value for {field} {why}", remedy="correct it where it was entered")


def checked(field: str, value: str) -> str:
    """Return a value, runs of spaces made one; UnfitHeader if it holds a line end or another control."""
    if _CONTROL.search(value):
        raise UnfitHeader(field, "holds a control character or a line end")
    value = value.strip(" ")
    return _SPACES.sub(" ", value) if "  " in value else value


def token(field: str, value: str) -> str:
    """Return a value that machines read: printable ASCII, no spaces, no angle brackets; else UnfitHeader."""
    if not _TOKEN.fullmatch(value) or "=?" in value:
        raise UnfitHeader(field, "has to be printable ASCII without spaces or angle brackets")
    return value


def text(field: str, value: str) -> str:
    """Return the whole field of a free text such as the subject, folded, without the last CRLF."""
    value = checked(field, value)
    if value.isascii() and "=?" not in value and all(len(w) < _LINE for w in value.split(" ")):
        return _folded(f"{field}:", value.split(" "))
    return f"{field}: " + _encoded(value, len(field) + 2)


def mailbox(field: str, name: str, spec: str) -> str:
    """Return the whole field of one mailbox, folded, without the last CRLF.

    Args:
        field: the header's name.
        name: the display name; "" for none.
        spec: the address as it goes on the wire.
    """
    name = checked(field, name)
    if not name:
        return _folded(f"{field}:", [spec])
    shown = phrase(name, len(field) + 2)
    line = f"{field}: {shown}"
    last = len(line) - line.rfind("\n") - 1
    room = _WORD_LINE if shown.startswith("=?") else _LINE
    return f"{line} <{spec}>" if last + len(spec) + 3 <= room else f"{line}\r\n <{spec}>"


def phrase(name: str, column: int) -> str:
    """Return a display name as atoms, a quoted string or encoded words, whichever it needs.

    Args:
        name: what `checked` returned, not empty.
        column: where in its line it will start.
    """
    if len(name) <= _QUOTED_MOST and name.isascii() and "=?" not in name:
        if _ATOMS.fullmatch(name):
            return name
        return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return _encoded(name, column)


def _folded(start: str, words: list[str]) -> str:
    """Put words behind a start, breaking the line before the one that would pass the limit."""
    lines = [start]
    for word in words:
        if len(lines[-1]) + 1 + len(word) > _LINE and lines[-1] != start:
            lines.append("")
        lines[-1] += f" {word}"
    return "\r\n".join(lines)


def _encoded(value: str, column: int) -> str:
    """Return encoded words, one a line: Q where most of the text stays readable in it, otherwise B."""
    octets = value.encode()
    opening, content = _OPEN_Q, "".join(map(_Q.__getitem__, octets))
    if len(content) > 2 * len(octets):
        opening, content = _OPEN_B, b64encode(octets).decode("ascii")
    if len(content) <= _room(column):  # as most names do
        return f"{opening}{content}{_CLOSE}"
    return "\r\n ".join(f"{opening}{part}{_CLOSE}" for part in _parts(value, column, opening))


def _parts(value: str, column: int, opening: str) -> Iterator[str]:
    """Cut a text into encoded words' contents; no character is split between two (RFC 2047 5)."""
    room = _room(column)
    held, size = "", 0
    for char in value:
        grown = size + _size(char, opening)
        if held and _length(grown, opening) > room:
            yield _content(held, opening)
            held, grown, room = "", _size(char, opening), _WORD - _FRAME
        held += char
        size = grown
    yield _content(held, opening)


def _room(column: int) -> int:
    """How many octets of content fit into an encoded word that starts at this column."""
    return min(_WORD, _WORD_LINE - column) - _FRAME


def _size(char: str, opening: str) -> int:
    """What a character adds: letters in Q, octets in B."""
    octets = char.encode()
    return len(octets) if opening == _OPEN_B else sum(len(_Q[octet]) for octet in octets)


def _length(size: int, opening: str) -> int:
    return (size + 2) // 3 * 4 if opening == _OPEN_B else size


def _content(held: str, opening: str) -> str:
    octets = held.encode()
    if opening == _OPEN_B:
        return b64encode(octets).decode("ascii")
    return "".join(map(_Q.__getitem__, octets))
