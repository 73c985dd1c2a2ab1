"""Quoted-printable text (RFC 2045 section 6.7): every piece encoded on its own, so that pieces can be joined.

Owns the wire form of body text: CRLF where the text has LF, lines of at most 76 octets, nothing above 127,
no line that starts with a dot (a relay that forgets to un-stuff would eat it) or with "From " (an mbox would
split there). Refuses: binary data, and to leave a piece in the middle of a line, which is what makes joining
safe: a piece ends with a hard line end where its text does, otherwise with a soft one.
"""

import re
from typing import Final

from worker.post.parcels import Wire

#: Ends a line on the wire without ending it in the text.
SOFT: Final = b"=\r\n"
#: Octets in a line before its soft break.
WIDTH: Final = 75

_THEMSELVES: Final = {c for c in map(chr, range(128)) if c.isprintable()} - {"="} | {"\t"}
_OCTETS: Final = [chr(o) if chr(o) in _THEMSELVES else f"={o:02X}" for o in range(256)]
_AT_START: Final = {".": "=2E", "F": "=46"}
_AT_END: Final = {" ": "=20", "\t": "=09"}
#: A piece of one short line that needs no encoding: what most values are.
_ITSELF: Final = re.compile(rf"(?!\.|From )[ -<>-~]{{1,{WIDTH}}}").fullmatch
#: How far a cut may lie inside an encoded octet.
_ESCAPE: Final = 3


def encode(text: str, *, last: bool = False) -> Wire:
    """Encode a piece of text; decoding the joined pieces gives the joined texts, with CRLF for each LF.

    Args:
        text: any text without lone surrogates. A CR in it is data, not a line end.
        last: nothing follows, so that no soft break is wanted at the end.
    """
    if not last and _ITSELF(text):
        return Wire(text.encode("ascii") + SOFT)
    *lines, tail = text.split("\n")
    whole = "".join(_line(line, "\r\n") for line in lines)
    if tail:
        whole += _line(tail, "" if last else "=\r\n")
    return Wire(whole.encode("ascii"))


def _line(line: str, end: str) -> str:
    """Encode one line and its end, cut by soft breaks where it is too long."""
    if line.isascii() and line.isprintable():
        encoded = line.replace("=", "=3D")
    else:
        encoded = "".join(map(_OCTETS.__getitem__, line.encode()))
    # White space before a hard end (or none) would be lost on the way; before a soft one it is safe.
    if end != "=\r\n" and encoded and encoded[-1] in _AT_END:
        encoded = encoded[:-1] + _AT_END[encoded[-1]]
    encoded = _started(encoded)
    if len(encoded) <= WIDTH:
        return encoded + end
    cuts = []
    while len(encoded) > WIDTH:
        cut = _cut(encoded)
        cuts.append(encoded[:cut])
        encoded = _started(encoded[cut:])
    return "=\r\n".join([*cuts, encoded]) + end


def _cut(encoded: str) -> int:
    """Where to break a line that is too long: at the width, but never inside an encoded octet."""
    escape = encoded.rfind("=", WIDTH - _ESCAPE + 1, WIDTH)
    return WIDTH if escape < 0 else escape


def _started(line: str) -> str:
    """Encode the first character of a line on the wire if it could be taken for something else."""
    if line.startswith((".", "From ")):
        return _AT_START[line[0]] + line[1:]
    return line
