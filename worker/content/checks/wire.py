"""The wire: size, line lengths and header fields, counted in the bytes that would leave (RFC 5322, RFC 2047).

The composer makes them right; this is the second pair of eyes. Refuses: to read more of a field than its
rules are about.
"""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Final

from worker.content.checks.findings import Finding, Rule, Severity
from worker.content.checks.letters import Letter

__all__ = ["CLIPPED_KB", "NEAR_KB", "RULES", "fields", "lines", "octets", "one_click", "size"]

CLIPPED: Final = Rule(
    "size.clipped",
    Severity.ERROR,
    "HTML over 102 KB: Gmail cuts it, and the opt-out link with it",
    "Shorten the appeal or the look's style sheet.",
)
NEAR: Final = Rule(
    "size.near",
    Severity.WARNING,
    "HTML over 90 KB, close to where Gmail cuts",
    "Shorten the appeal or the look's style sheet.",
)
LINE: Final = Rule(
    "lines.longest",
    Severity.ERROR,
    "a line over 998 octets (RFC 5322 section 2.1.1)",
    "Tell us: a part should have been encoded.",
)
FOLDED: Final = Rule(
    "lines.header",
    Severity.WARNING,
    "a header line over 78 octets (RFC 5322 section 2.1.1)",
    "Shorten what stands in it: a name, an address or web.base_url.",
)
OCTETS: Final = Rule(
    "lines.octets",
    Severity.ERROR,
    "a line end that is not CRLF, a NUL, or octets that are not ASCII",
    "Tell us: a part should have been encoded.",
)
MISSING: Final = Rule(
    "headers.missing", Severity.ERROR, "a header field that a mail must have", "Tell us: it should be there."
)
TWICE: Final = Rule(
    "headers.twice", Severity.ERROR, "a header field that may stand once only", "Tell us: it is there twice."
)
ENCODED: Final = Rule(
    "headers.encoded",
    Severity.ERROR,
    "an encoded word where machines read, which kills one-click opt-out",
    "Use ASCII in domains and addresses of tocsin.toml.",
)
ONE_CLICK: Final = Rule(
    "headers.one-click",
    Severity.ERROR,
    "no one-click opt-out that mailbox providers would honour (RFC 8058)",
    "Set web.base_url to an https address.",
)
NO_REPLY: Final = Rule(
    "headers.no-reply",
    Severity.WARNING,
    "an address that takes no answers",
    "Set mail.reply_to to one that somebody reads.",
)
RULES: Final = (CLIPPED, NEAR, LINE, FOLDED, OCTETS, MISSING, TWICE, ENCODED, ONE_CLICK, NO_REPLY)

_KB: Final = 1024
#: Kilobytes of HTML that Gmail shows, and where it gets close.
CLIPPED_KB, NEAR_KB = 102, 90
_MOST_LINE, _MOST_HEADER_LINE = 998, 78
_NEEDED: Final = (
    "Date",
    "From",
    "To",
    "Subject",
    "Message-ID",
    "MIME-Version",
    "List-Id",
    "List-Unsubscribe",
)
_SINGLE: Final = frozenset(
    [
        "date",
        "from",
        "sender",
        "reply-to",
        "to",
        "cc",
        "bcc",
        "message-id",
        "in-reply-to",
        "references",
        "subject",
        "mime-version",
        "content-type",
        "list-id",
        "list-unsubscribe",
        "list-unsubscribe-post",
        "feedback-id",
        "auto-submitted",
        "precedence",
    ]
)
#: Fields that machines read: an encoded word there is no longer an address or a link.
_MACHINES: Final = re.compile(r"list-.*|message-id|feedback-id|mime-version|content-type|date", re.IGNORECASE)
_NO_REPLY: Final = re.compile(r"\b(?:no|do-?not)[-._]?reply[^@\s]*@", re.IGNORECASE)


def size(letter: Letter) -> Iterator[Finding]:
    """Find an HTML part that Gmail would cut (STANDARDS B4), by its decoded size."""
    kilobytes = len(letter.html.encode()) / _KB
    if kilobytes > CLIPPED_KB:
        yield CLIPPED.found(f"it is {kilobytes:.0f} KB", "HTML")
    elif kilobytes > NEAR_KB:
        yield NEAR.found(f"it is {kilobytes:.0f} KB", "HTML")


def lines(letter: Letter) -> Iterator[Finding]:
    """Find lines that are too long for the wire, or for a header."""
    longest = max(map(len, bytes(letter.parcel.data).split(b"\r\n")))
    if longest > _MOST_LINE:
        yield LINE.found(f"a line has {longest} octets", "source")
    name = ""
    for line in letter.head.split(b"\r\n"):
        name = name if line[:1] in b" \t" else line.partition(b":")[0].decode("ascii", "replace")
        # One word cannot be folded: a line of a long link stands as it is.
        if len(line) > _MOST_HEADER_LINE and b" " in line.partition(b":")[2].strip():
            yield FOLDED.found(f"a line of {name} has {len(line)} octets", "headers")


def octets(letter: Letter) -> Iterator[Finding]:
    """Find octets that a relay may refuse or change."""
    data = bytes(letter.parcel.data)
    if re.search(rb"(?<!\r)\n|\r(?!\n)", data):
        yield OCTETS.found("a line does not end in CRLF", "source")
    if b"\0" in data:
        yield OCTETS.found("there is a NUL", "source")
    if not letter.parcel.smtputf8 and not data.isascii():
        yield OCTETS.found("there are octets that are not ASCII", "source")


def fields(letter: Letter) -> Iterator[Finding]:
    """Find header fields that are missing, doubled, encoded where they must not be, or deaf."""
    counts = Counter(name.lower() for name, _ in letter.headers)
    for name in _NEEDED:
        if name.lower() not in counts:
            yield MISSING.found(f"there is no {name}", "headers")
    for lower, count in counts.items():
        if count > 1 and lower in _SINGLE:
            yield TWICE.found(f"{lower} stands {count} times", "headers")
    for name, value in letter.headers:
        if "=?" in value and _MACHINES.fullmatch(name):
            yield ENCODED.found(f"{name} holds an encoded word", "headers")
    if _NO_REPLY.search(f"{letter.header('From')} {letter.header('Reply-To')}"):
        yield NO_REPLY.found("answers go to an address that takes none", "headers")


def one_click(letter: Letter) -> Iterator[Finding]:
    """Find an opt-out that mailbox providers would not offer as one click (STANDARDS H6, H7)."""
    value = letter.header("List-Unsubscribe")
    if value and len(re.findall(r"<https?:[^<>\s]+>", value)) != 1:
        yield ONE_CLICK.found("List-Unsubscribe does not hold exactly one web link", "headers")
    if value and letter.header("List-Unsubscribe-Post") != "List-Unsubscribe=One-Click":
        yield ONE_CLICK.found("List-Unsubscribe-Post is not as it has to be", "headers")
