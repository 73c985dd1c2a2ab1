"""Captured mails as one page to look through: a list, and for each mail its HTML, text, headers and source.

Pure: bytes in, page out. Everything in a mail is hostile here: it is shown escaped, its HTML in a frame
without scripts, and the page's own policy lets nothing be fetched from anywhere.
"""

import base64
import email
import email.errors
import email.header
import email.message
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from jinja2 import Environment, StrictUndefined

#: Bytes in a kilobyte, as mail sizes are told.
_KB = 1024
_PICTURES = frozenset({"image/gif", "image/jpeg", "image/png", "image/webp"})


@dataclass(frozen=True, slots=True, repr=False)
class Captured:
    """One mail as the capture server took it."""

    #: The file it is kept in.
    file: str
    #: The envelope's sender, with what stood on the wire.
    sender: str
    #: The envelope's recipients.
    recipients: tuple[str, ...]
    #: The message, byte for byte.
    data: bytes


@dataclass(frozen=True, slots=True, repr=False)
class Card:
    """What a page shows of one mail."""

    #: Its place in the list, from 1.
    number: int
    #: The mail it shows.
    captured: Captured
    #: Decoded header fields in their order, with their names as sent.
    headers: tuple[tuple[str, str], ...]
    #: The HTML part; "" for none.
    html: str
    #: The text part; "" for none.
    text: str
    #: The pictures within, as data URLs by Content-ID.
    embedded: Mapping[str, str]

    def header(self, name: str) -> str:
        """Give a field's first value, or ""."""
        return next((value for known, value in self.headers if known.lower() == name), "")

    @property
    def size(self) -> str:
        """Tell the mail's size as people say it."""
        return told(len(self.captured.data))

    @property
    def source(self) -> str:
        """Give the bytes as text, with whatever is no ASCII shown as its code."""
        return self.captured.data.decode("ascii", "backslashreplace").replace("\r\n", "\n")


def told(octets: int) -> str:
    """Return a size as people say it."""
    return f"{octets / _KB:.1f} KB" if octets >= _KB else f"{octets} bytes"


def page(mails: Iterable[Captured], template: str, *, left_out: int = 0) -> str:
    """Write the page.

    Args:
        mails: in the order to show them.
        template: the page's Jinja source (`templates/capture/index.html`).
        left_out: how many mails are kept beside these and not shown.
    """
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    cards = [card(number, captured) for number, captured in enumerate(mails, 1)]
    return environment.from_string(template).render(cards=cards, left_out=left_out)


def card(number: int, captured: Captured) -> Card:
    """Take a mail apart; whatever is broken in it is shown as far as it can be."""
    message = email.message_from_bytes(captured.data)
    # The raw items: a Message decodes 8-bit ones into objects of its own.
    headers = tuple((name, _decoded(str(value))) for name, value in message.raw_items())
    parts = [part for part in message.walk() if not part.is_multipart()]
    bodies = _part(parts, "text/html"), _part(parts, "text/plain")
    return Card(number, captured, headers, *bodies, dict(_embedded(parts)))


def _embedded(parts: Iterable[email.message.Message]) -> Iterator[tuple[str, str]]:
    for part in parts:
        name, kind = str(part.get("Content-ID", "")).strip(" <>"), part.get_content_type()
        payload = part.get_payload(decode=True)
        # A data URL of another kind than a picture could be a page.
        if name and kind in _PICTURES and isinstance(payload, bytes):
            yield name, f"data:{kind};base64,{base64.b64encode(payload).decode()}"


def _decoded(value: str) -> str:
    """Decode a header's encoded-words; a broken one is shown as it stands."""
    value = value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    try:
        return str(email.header.make_header(email.header.decode_header(" ".join(value.split()))))
    except (LookupError, ValueError, email.errors.MessageError):
        return value


def _part(parts: Sequence[email.message.Message], kind: str) -> str:
    """Give the first part of a kind as text; "" if there is none."""
    for part in parts:
        if part.get_content_type() == kind:
            payload = part.get_payload(decode=True)
            octets = payload if isinstance(payload, bytes) else b""
            try:
                return octets.decode(part.get_content_charset("utf-8"), "replace")
            except LookupError:
                return octets.decode("latin-1")
    return ""
