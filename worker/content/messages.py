"""Messages: content and envelope into the bytes of one mail (RFC 5322, RFC 2045), by hand.

Everything that a campaign's mails share is prepared once; a mail is a few lines and one join of bytes. Owns
the header fields, their order, the two parts, and the addresses that come back to us (return path, opt-out).

Refuses: any header that names the software or the person (but for To), line ends in values, anything but
ASCII outside an address that needs SMTPUTF8, and opt-out links other than plain https (http on this machine
only).
"""

import re
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Final

from worker.addresses import Address
from worker.content import headers
from worker.content.enclosures import NOTHING, Enclosures
from worker.post.parcels import Wire

if TYPE_CHECKING:
    from worker.content.rendering import Content

__all__ = ["Composer", "Envelope", "Identity"]

#: "=_" never occurs in quoted-printable text (RFC 2045 6.7), so the boundary is in no part.
_BOUNDARY: Final = "=_part"
#: One URI, ASCII, without what a reader of a list of URIs could stumble over (RFC 2369 2, RFC 8058 3.1).
_OPT_OUT: Final = re.compile(
    r"(?:https://|http://(?:localhost|127\.0\.0\.1|\[::1\])(?=[:/]))[!#-+\--;=?-\[\]_a-z~]{1,900}"
)
_MARK: Final = re.compile("[A-Za-z0-9]{1,60}")
_DATE: Final = re.compile(r"[A-Za-z0-9:, +-]{20,40}")
_REFERENCE: Final = re.compile(r"[A-Za-z0-9._-]{1,40}")
#: How many different subjects and senders are kept ready.
_READY: Final = 64

_TEXT: Final = (
    f"--{_BOUNDARY}\r\n"
    "Content-Type: text/plain; charset=utf-8\r\n"
    "Content-Transfer-Encoding: quoted-printable\r\n"
    "\r\n"
)
_HTML: Final = "Content-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Identity:
    """The names under which mails leave: one for the open form, one for the discreet. All ASCII."""

    #: the visible sender's address
    from_address: str
    #: where answers go
    reply_to: str
    #: right side of Message-ID
    domain: str
    #: where bounces return
    bounce_domain: str
    #: where opt-outs by mail arrive
    opt_out_domain: str
    #: the list, in our namespace, the same for all its mails (RFC 2919): appeals.example.org
    list_id: str
    #: who we are to mailbox providers, 5 to 15 letters that never change (Feedback-ID)
    feedback_id: str
    #: the list's name for people; "" in the discreet form. Left out unless it is short ASCII: List-Id is read
    #: by machines
    list_phrase: str = ""


@dataclass(frozen=True, slots=True)
class Envelope:
    """For whom one mail is, and the marks it carries."""

    #: the one recipient
    recipient: Address
    #: display name; "" for none
    name: str = field(repr=False)
    #: left side of Message-ID: the same again for a retry
    message_mark: str = field(repr=False)
    #: what a bounce brings back
    bounce_mark: str = field(repr=False)
    #: what an opt-out by mail brings
    opt_out_mark: str = field(repr=False)
    #: where one click opts out
    opt_out_url: str = field(repr=False)


class Composer:
    """Makes the mails of one campaign in one form."""

    def __init__(
        self,
        identity: Identity,
        campaign_ref: str,
        enclosures: Enclosures = NOTHING,
        further: str = "",
        *,
        asked_for: bool = False,
    ) -> None:
        """Prepare what all its mails share.

        Args:
            identity: under which names.
            campaign_ref: what tells campaigns apart in Feedback-ID; opaque, letters, digits, `.`, `_`, `-`.
            enclosures: pictures and attachments.
            further: header fields of the appeal's own (headers.own), each with its CRLF.
            asked_for: each is a single mail that its reader has just asked for, and of no list: a program's,
                not bulk, with no opt-out that a mailbox could press for its reader (RFC 3834 5).

        Raises:
            UnfitHeader: a value cannot stand in a header.
        """
        fields = ("from_address", "reply_to", "domain", "bounce_domain", "opt_out_domain", "list_id")
        for name in (*fields, "feedback_id"):
            headers.token(name, getattr(identity, name))
        _matched(_REFERENCE, "Feedback-ID", campaign_ref)
        self._bounces = f"@{identity.bounce_domain}"
        self._from = lru_cache(_READY)(partial(_sender, identity.from_address))
        self._subject = lru_cache(_READY)(partial(headers.text, "Subject"))
        self._reply_to = headers.mailbox("Reply-To", "", identity.reply_to)
        self._asked_for = asked_for
        self._id_end = f"@{identity.domain}>\r\n"
        of_a_list = ["List-Unsubscribe-Post: List-Unsubscribe=One-Click", _list_id(identity)]
        self._mailto_end = f"@{identity.opt_out_domain}>\r\n" + "\r\n".join(of_a_list) + "\r\n"
        self._rest = "\r\n".join(
            [
                f"Feedback-ID: {campaign_ref}:{identity.feedback_id}",
                "Auto-Submitted: auto-generated" if asked_for else "Precedence: bulk",
                "X-Auto-Response-Suppress: OOF, AutoReply",
                f"{further}MIME-Version: 1.0",
                enclosures.opening(_BOUNDARY) + _TEXT,
            ]
        )
        self._between = _wire(f"\r\n--{_BOUNDARY}\r\n{enclosures.before_html}{_HTML}")
        self._end = _wire(f"{enclosures.after_html}\r\n--{_BOUNDARY}--\r\n{enclosures.closing}")

    def compose(self, content: "Content", envelope: Envelope, date: str) -> bytes:
        """Return the whole message: CRLF, 7bit (UTF-8 in To where the address needs SMTPUTF8).

        Args:
            content: what it says.
            envelope: for whom.
            date: RFC 5322 section 3.3, as from email.utils.formatdate.

        Raises:
            UnfitHeader: a value cannot stand in a header.
        """
        _matched(_DATE, "Date", date)
        _matched(_OPT_OUT, "List-Unsubscribe", envelope.opt_out_url)
        _matched(_MARK, "Message-ID", envelope.message_mark)
        _matched(_MARK, "List-Unsubscribe", envelope.opt_out_mark)
        opt_out = (
            ""
            if self._asked_for
            else f"List-Unsubscribe: <{envelope.opt_out_url}>,\r\n"
            f" <mailto:unsub+{envelope.opt_out_mark}{self._mailto_end}"
        )
        head = (
            f"Date: {date}\r\n"
            f"{self._from(content.sender_name)}\r\n"
            f"{headers.mailbox('To', envelope.name, envelope.recipient.spec)}\r\n"
            f"{self._reply_to}\r\n"
            f"{self._subject(content.subject)}\r\n"
            f"Message-ID: <{envelope.message_mark}{self._id_end}{opt_out}{self._rest}"
        )
        octets = head.encode()
        proved = Wire.proved(octets)
        if proved is None:  # UTF-8 for SMTPUTF8: the relay judges the whole
            return b"".join((octets, content.text, self._between, content.html, self._end))
        return Wire.joined((proved, content.text, self._between, content.html, self._end))

    def return_path(self, envelope: Envelope) -> str:
        """Return the envelope sender: an address for this one delivery's bounces (VERP)."""
        _matched(_MARK, "the return path", envelope.bounce_mark)
        return f"b+{envelope.bounce_mark}{self._bounces}"


def _wire(text: str) -> Wire:
    """Prove what all mails share, once."""
    proved = Wire.proved(text.encode("ascii"))
    if proved is None:
        raise headers.UnfitHeader("an enclosure", "is not of the form it has to have")
    return proved


def _sender(address: str, name: str) -> str:
    return headers.mailbox("From", name, address)


def _list_id(identity: Identity) -> str:
    field_text = headers.mailbox("List-Id", identity.list_phrase, identity.list_id)
    if not identity.list_phrase or "=?" in field_text:
        return f"List-Id: <{identity.list_id}>"
    return field_text


def _matched(pattern: re.Pattern[str], field_name: str, value: str) -> None:
    if not pattern.fullmatch(value):
        raise headers.UnfitHeader(field_name, "is not of the form it has to have")
