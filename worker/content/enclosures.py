"""What a mail carries beside its text: pictures within it, and attachments.

Owns the MIME parts around text and HTML (RFC 2046, RFC 2387, RFC 2392), written once for all mails of a
campaign, and what may be attached. Refuses: names that a system could run or hide, and to tell by a part's
name or id what is in it.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

from worker.content import pictures
from worker.content.additions import ATTACHMENTS, PICTURES, TYPES, attachment_faults
from worker.content.pictures import Picture
from worker.errors import WrongUse

#: Octets of one attachment; with base64 and the rest, most relays take 10 MB.
MOST_BYTES: Final = 5_000_000
_LINE: Final = 76
#: Octets of a name in one line of its header: a long one in another script would pass the 998 of RFC 5322.
_PIECE: Final = 60
_RELATED, _MIXED = "=_inside", "=_with"


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file that goes along, the same for everybody."""

    name: str
    kind: str  #: its MIME type, parameters included
    encoded: str  #: its bytes in base64


def attachment(path: str, data: bytes) -> Attachment:
    """Make a file ready, whose path has no faults (additions); WrongUse if it is empty or too large."""
    name = path.removeprefix(ATTACHMENTS)
    if not data or len(data) > MOST_BYTES:
        raise WrongUse(
            f"{name} is {'empty' if not data else f'over {MOST_BYTES // 1_000_000} MB'}",
            remedy="Link to it instead.",
        )
    return Attachment(name, TYPES[name.lower().rpartition(".")[2]], base64.b64encode(data).decode())


@dataclass(frozen=True, slots=True)
class Enclosed:
    """The files that an appeal's texts name, made ready, by their path in its folder."""

    pictures: Mapping[str, Picture] = field(default_factory=dict)
    attachments: Mapping[str, Attachment] = field(default_factory=dict)

    @classmethod
    def read(cls, files: Mapping[str, bytes]) -> "Enclosed":
        """Make files ready; WrongUse names the first that cannot go.

        An attachment whose name has faults is left to the appeal that names it, which tells them.
        """
        return cls(
            {path: pictures.read(path, data) for path, data in files.items() if path.startswith(PICTURES)},
            {
                path: attachment(path, data)
                for path, data in files.items()
                if path.startswith(ATTACHMENTS) and not any(attachment_faults(path))
            },
        )

    @classmethod
    def from_facts(cls, facts: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> "Enclosed":
        """Read what `asdict` and JSON made of one."""
        return cls(
            {path: Picture(**_sized(one)) for path, one in facts["pictures"].items()},
            {path: Attachment(**one) for path, one in facts["attachments"].items()},
        )


def _sized(facts: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no tuples."""
    return {**facts, "was": tuple(facts["was"]), "has": tuple(facts["has"])}


@dataclass(frozen=True, slots=True)
class Enclosures:
    """The pictures and attachments of one form's mails."""

    #: each with its Content-ID, without angle brackets
    pictures: Sequence[tuple[str, Picture]] = ()
    attachments: Sequence[Attachment] = ()

    def opening(self, alternative: str) -> str:
        """Return the message's own Content-Type and the way down to the first alternative.

        Args:
            alternative: the boundary between text and HTML; what follows begins with a part of that.
        """
        inner = f'Content-Type: multipart/alternative; boundary="{alternative}"\r\n\r\n'
        if not self.attachments:
            return inner
        return f'Content-Type: multipart/mixed; boundary="{_MIXED}"\r\n\r\n--{_MIXED}\r\n{inner}'

    @property
    def before_html(self) -> str:
        """What stands between the alternative's boundary and the HTML part's header."""
        if not self.pictures:
            return ""
        # RFC 2387 3.1: the type of the root part is said beforehand.
        kind = f'Content-Type: multipart/related; type="text/html"; boundary="{_RELATED}"'
        return f"{kind}\r\n\r\n--{_RELATED}\r\n"

    @property
    def after_html(self) -> str:
        """The pictures, from the end of the HTML part."""
        if not self.pictures:
            return ""
        parts = [self._picture(number, *one) for number, one in enumerate(self.pictures, 1)]
        return "".join(parts) + f"\r\n--{_RELATED}--\r\n"

    @property
    def closing(self) -> str:
        """The attachments, from the end of the alternatives."""
        if not self.attachments:
            return ""
        return "".join(map(self._attached, self.attachments)) + f"\r\n--{_MIXED}--\r\n"

    @staticmethod
    def _picture(number: int, content_id: str, picture: Picture) -> str:
        name = f"image{number}.{picture.kind.partition('/')[2]}"  # its own would tell
        return (
            f"\r\n--{_RELATED}\r\nContent-Type: {picture.kind}\r\nContent-Transfer-Encoding: base64\r\n"
            f'Content-ID: <{content_id}>\r\nContent-Disposition: inline; filename="{name}"\r\n\r\n'
            f"{_folded(picture.encoded)}"
        )

    @staticmethod
    def _attached(one: Attachment) -> str:
        return (
            f"\r\n--{_MIXED}\r\nContent-Type: {one.kind}\r\nContent-Transfer-Encoding: base64\r\n"
            f"Content-Disposition: attachment;\r\n {_filename(one.name)}\r\n\r\n{_folded(one.encoded)}"
        )


#: Of a mail that is text and HTML alone.
NOTHING: Final = Enclosures()


def _filename(name: str) -> str:
    """Return the parameter (RFC 2183 2.3); another script goes by RFC 2231, in pieces that lines can hold."""
    if name.isascii():
        return f'filename="{name}"'
    pieces = ["utf-8''"]
    for sign in name:
        written = quote(sign, safe="")
        if len(pieces[-1]) + len(written) > _PIECE:
            pieces.append("")
        pieces[-1] += written
    if len(pieces) == 1:
        return f"filename*={pieces[0]}"
    return ";\r\n ".join(f"filename*{number}*={piece}" for number, piece in enumerate(pieces))


def _folded(encoded: str) -> str:
    return "\r\n".join(encoded[start : start + _LINE] for start in range(0, len(encoded), _LINE))
