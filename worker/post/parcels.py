"""One message for one recipient, ready to be carried, and the SMTP words that carry it.

Owns `Parcel`, `Lost`, what a server offers, and the encoding of a transaction: MAIL, RCPT, DATA, the
doubled dots; and `Wire`, text that carries the proof that it may leave. Pure. Refuses to put a bare CR or LF
on the wire, and to let an address speak SMTP.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from io import IncrementalNewlineDecoder
from typing import Self, TypeAlias

from worker.post.replies import Reply, Trouble

_SIZE_DIGITS = 20  # RFC 1870 section 4
_MAX_PATH, _MAX_LOCAL, _MAX_ENVID = 254, 64, 100  # octets: RFC 5321 section 4.5.3.1, RFC 3461 section 4.4


@dataclass(frozen=True, slots=True)
class Parcel:
    """One message on its way to one recipient."""

    #: The caller's number for it; outcomes name it.
    id: int
    #: Return path, without angle brackets.
    sender: str = field(repr=False)
    #: The one recipient, domain as A-labels.
    recipient: str = field(repr=False)
    #: The whole message: CRLF line ends, 7bit unless `smtputf8`.
    data: bytes = field(repr=False)
    #: Envelope id that a bounce report brings back; "" for none.
    envid: str = field(default="", repr=False)
    #: The address or a header needs SMTPUTF8.
    smtputf8: bool = False


#: Why a link ends that we cut ourselves, because a dot must not leave or is not waited for any longer.
STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Lost:
    """A parcel that no reply settled."""

    #: True: its final dot may have left, so nobody knows. False: it was surely not handed over.
    begun: bool
    #: Slug: "closed", "closing", "timeout", "tls", "garbled", "protocol", STOPPED, "malformed".
    reason: str
    #: Set when the fault is ours and would come again.
    trouble: Trouble | None = None


#: A parcel's number and how it ended.
Outcome: TypeAlias = tuple[int, Reply | Lost]


@dataclass(frozen=True, slots=True)
class Offer:
    """What the server's last EHLO offers, as far as we use it."""

    #: Groups of commands may go out without waiting (RFC 2920).
    pipelining: bool = False
    #: Largest message in octets; 0 if it does not say (RFC 1870).
    size: int = 0
    #: Delivery status parameters (RFC 3461).
    dsn: bool = False
    #: Non-ASCII addresses (RFC 6531).
    smtputf8: bool = False
    #: Octets above 127 in a message (RFC 6152).
    eightbit: bool = False
    #: STARTTLS is offered (before TLS).
    starttls: bool = False
    #: AUTH mechanisms.
    auth: tuple[str, ...] = ()
    #: The TLS version in use, "" if the line is plain.
    tls: str = ""

    @classmethod
    def parse(cls, features: Mapping[str, str], tls: str = "") -> Self:
        """Read the lower-case keywords and their arguments; unknown ones are ignored."""
        size = features.get("size", "").strip()
        return cls(
            pipelining="pipelining" in features,
            size=int(size) if size.isascii() and size.isdigit() and len(size) <= _SIZE_DIGITS else 0,
            dsn="dsn" in features,
            smtputf8="smtputf8" in features,
            eightbit="8bitmime" in features,
            starttls="starttls" in features,
            auth=tuple(features.get("auth", "").upper().split()),
            tls=tls,
        )


# With a comma or a semicolon, or a second @, some server might see two people in it, or a route (RFC 5321
# appendix C). Quotes could hold them, but nobody is imported whose address needs any.
_UNSAFE = re.compile(r"[\s<>,;\x00-\x20\x7f-\x9f\ud800-\udfff]").search
_DOT_LINE = re.compile(rb"\n\.").search  # twice as fast as replacing nothing
_NOT_XTEXT = re.compile(r"[^!-*,-<>-~]")
_NEEDS_UTF8 = Reply(550, "5.6.7", "the relay does not offer SMTPUTF8, which this address needs")
_BAD_ADDRESS = Reply(553, "5.1.3", "the address cannot stand in an SMTP command")
_TOO_BIG = Reply(552, "5.3.4", "the message is larger than the relay accepts")
_MALFORMED = Lost(begun=False, reason="malformed", trouble=Trouble.SENDER)


def speakable(address: str) -> bool:
    """Tell whether this may stand between angle brackets: one mailbox, no injection, no overrun."""
    local, _, domain = address.partition("@")
    if not (local and domain) or "@" in domain or _UNSAFE(address):
        return False
    if address.isascii():  # nearly all: their letters are their octets
        return len(address) <= _MAX_PATH and len(local) <= _MAX_LOCAL
    return len(address.encode()) <= _MAX_PATH and len(local.encode()) <= _MAX_LOCAL


def well_formed(data: bytes, *, utf8: bool) -> bool:
    """Tell whether every line end is CRLF, nothing is NUL, and all is ASCII (UTF-8 where allowed).

    A bare LF before a dot is how mail is smuggled (VU#302671). The newline decoder of the standard
    library notes which line ends it saw in one pass; counting them takes four times as long.
    """
    try:
        text = data.decode("utf-8" if utf8 else "ascii")
    except UnicodeDecodeError:
        return False
    ends = IncrementalNewlineDecoder(None, translate=False)
    ends.decode(text, final=True)
    return ends.newlines == "\r\n" and "\0" not in text


class Wire(bytes):
    """Text that may leave as it is: well-formed ASCII, no line of which starts with a dot, nor the first one.

    Such pieces can be joined to another. A mail consists of pieces that all mails of a campaign share and of
    values that were seen before; each is proved once, for to read every mail again, twice, before it left was
    a tenth of all that it costs. Made of bytes only by who has proved them; anything else goes by `proved`.
    """

    __slots__ = ()

    @classmethod
    def proved(cls, data: bytes) -> Self | None:
        """Return what is such text; None for anything else."""
        sound = well_formed(data + b"\r\n", utf8=False)
        return cls(data) if sound and not data.startswith(b".") and not _DOT_LINE(data) else None

    @classmethod
    def joined(cls, pieces: "Iterable[Wire]") -> Self:
        """Join pieces to one."""
        return cls(b"".join(pieces))


def stuff(data: bytes) -> bytes:
    """Double the dot of each line that starts with one, and end the last line (RFC 5321 section 4.5.2)."""
    if not data.endswith(b"\r\n"):
        data += b"\r\n"
    if isinstance(data, Wire):
        return data
    if data.startswith(b"."):
        data = b"." + data
    return data.replace(b"\r\n.", b"\r\n..") if _DOT_LINE(data) else data


def xtext(text: str) -> str:
    """Encode printable ASCII for a DSN parameter (RFC 3461 section 4)."""
    if text.isalnum() and text.isascii():  # as our marks are
        return text
    return _NOT_XTEXT.sub(lambda match: f"+{ord(match[0]):02X}", text)


def verdict(parcel: Parcel, offer: Offer) -> Reply | Lost | None:
    """Say why this parcel cannot go to this server, before a byte of it is sent; None if it can."""
    plain = parcel.recipient.isascii() and parcel.sender.isascii()
    if not speakable(parcel.recipient):
        return _BAD_ADDRESS
    if not (offer.smtputf8 if parcel.smtputf8 else plain):
        return _NEEDS_UTF8
    if 0 < offer.size < len(parcel.data):
        return _TOO_BIG
    sound = (
        speakable(parcel.sender)
        and (isinstance(parcel.data, Wire) or well_formed(parcel.data, utf8=parcel.smtputf8))
        and parcel.envid.isascii()
        and len(xtext(parcel.envid)) <= _MAX_ENVID
    )
    return None if sound else _MALFORMED


def envelope(parcel: Parcel, offer: Offer) -> tuple[bytes, bytes, bytes]:
    """Write MAIL, RCPT and DATA with the parameters that the server offers and the parcel needs."""
    mail = f"MAIL FROM:<{parcel.sender}>"
    rcpt = f"RCPT TO:<{parcel.recipient}>"
    if offer.size:
        mail += f" SIZE={len(parcel.data)}"
    if parcel.smtputf8:
        mail += " BODY=8BITMIME SMTPUTF8" if offer.eightbit else " SMTPUTF8"
    if offer.dsn:
        mail += f" RET=HDRS ENVID={xtext(parcel.envid)}" if parcel.envid else " RET=HDRS"
        rcpt += " NOTIFY=FAILURE,DELAY"
        if not parcel.smtputf8:
            rcpt += f" ORCPT=rfc822;{xtext(parcel.recipient)}"
    return f"{mail}\r\n".encode(), f"{rcpt}\r\n".encode(), b"DATA\r\n"
