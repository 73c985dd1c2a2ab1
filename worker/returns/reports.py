"""Delivery reports: what became of the one recipient of a mail, and why (RFC 3464, RFC 6533).

Owns the reading of a report's blocks and of what the old programs write in its place (qmail, Exim), and what
a refusal read there means. Refuses: to tell whom a report is about (traces), and to call an address dead that
a server only failed to reach.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from worker.post.replies import GONE, GONE_IF_AGAIN, Reply, scrub, sender_fault, why
from worker.returns.opened import Opened, blocks

#: The parts that hold a report.
TYPES: Final = ("message/delivery-status", "message/global-delivery-status")
#: The parts that hold the returned message or its headers.
RETURNED: Final = (
    *("message/rfc822", "text/rfc822-headers", "message/global", "message/global-headers"),
    "message/rfc822-headers",
)

_STATUS: Final = re.compile(r"(?<![\d.])([245]\.\d{1,3}\.\d{1,3})(?![\d.]*\d)")
_CODE: Final = re.compile(r"(?<![\d.])([45]\d\d)(?=[ -]|$)")
#: "smtp; 550 …": the kind of words that follow (RFC 3464 section 2.3.6).
_TYPED: Final = re.compile(r"[A-Za-z0-9-]{1,40}\s*;\s*")
#: What stands in columns of its own.
_ANSWER: Final = re.compile(r"\A[45]\d\d[ -](?:[45]\.\d{1,3}\.\d{1,3}\s)?")
_ADDRESS: Final = re.compile(r"[^\s<>;,]{1,320}@[^\s<>;,]{1,255}")

#: The reason of a failure that says nothing against the address.
UNDELIVERED: Final = "undelivered"


def spared(reason: str) -> str:
    """Return a reason that calls no address dead."""
    return UNDELIVERED if reason in GONE | GONE_IF_AGAIN else reason


class Action(StrEnum):
    """What a report says was done (RFC 3464 section 2.3.3)."""

    FAILED = "failed"
    DELAYED = "delayed"
    DELIVERED = "delivered"
    RELAYED = "relayed"
    EXPANDED = "expanded"


#: It went on, or arrived.
_PASSED: Final = frozenset({Action.DELIVERED, Action.RELAYED, Action.EXPANDED})


@dataclass(frozen=True, slots=True)
class Fate:
    """What a report says of one recipient."""

    #: Whether this is how it ended.
    action: Action
    #: Why, in a mail server's words.
    reply: Reply
    #: Addresses that the report names, to be blotted from those words.
    named: Sequence[str] = field(default=(), repr=False)
    #: The three digits, where it gave any; `reply` has some in any case.
    code: int | None = None

    @property
    def reason(self) -> str:
        """Return the slug of what stands behind a failure."""
        fault = sender_fault(self.reply)
        found = fault.reason if fault else why(self.reply)
        # "4.1.1, given up after five days" is not a dead address (STANDARDS F4: 1 in 75).
        return spared(found) if self.reply.temporary else found

    @property
    def text(self) -> str:
        """Return the server's words, fit to be stored."""
        return scrub(self.reply.text, self.named)


@dataclass(frozen=True, slots=True)
class Report:
    """A delivery report about one mail of ours."""

    #: What it says of each recipient it names; a forwarder or an alias may have made several of ours.
    fates: Sequence[Fate]
    #: What it says our envelope id was.
    envelope_ids: Sequence[str] = field(default=(), repr=False)

    def judged(self) -> Fate | None:
        """Return what it comes to for the person we wrote to; None when it says nothing.

        Reached anywhere is reached; a try that still goes on is no end; of several failures the one that
        says the least against the address counts.
        """
        for milder in (_PASSED, {Action.DELAYED}):
            if found := next((fate for fate in self.fates if fate.action in milder), None):
                return found
        return min(self.fates, key=lambda fate: fate.reason in GONE | GONE_IF_AGAIN, default=None)


def read(mail: Opened) -> Report | None:
    """Read a mail's delivery report; None when it has none."""
    part = mail.part(*TYPES)
    formal = _formal(part.text) if part else None
    if formal is not None and formal.fates:
        return formal
    return _qmail(mail) or _exim(mail) or _daemon(mail) or formal


def _formal(text: str) -> Report:
    fates: list[Fate] = []
    ids: list[str] = []
    for block in blocks(text):
        ids += block.all("original-envelope-id")
        action = _action(block.get("action"), block.get("status"))
        if action is not None and ("final-recipient" in block or "original-recipient" in block):
            words = _TYPED.sub("", block.get("diagnostic-code"), count=1)
            named = [*_addresses(" ".join(block.all("final-recipient", "original-recipient")))]
            fates.append(_fate(action, block.get("status"), words, named))
    return Report(fates, ids)


def _action(said: str, status: str) -> Action | None:
    """Read an action; a block without one still says by its status that it is for good."""
    word = said.partition("(")[0].strip().lower()
    if word:
        return next((action for action in Action if action == word), None)
    match = _STATUS.search(status)
    return Action.FAILED if match and match[1][0] == "5" else None


def _fate(action: Action, said: str, words: str, named: Sequence[str]) -> Fate:
    """Bring status and diagnostic into the form of a server's answer; the status decides its class."""
    given = _STATUS.search(said)
    told = _STATUS.search(words)
    status = given[1] if given else told[1] if told else ""
    if given and told and status[1:] == ".0.0" and told[1][0] == status[0]:
        status = told[1]  # "5.0.0" says nothing that the words do not say better
    code = _CODE.search(words)
    kind = status[:1] or (code[1][0] if code else "")
    if kind not in {"4", "5"}:
        kind = "5" if action is Action.FAILED else "4"
        status = ""
    told_code = int(code[1]) if code and code[1][0] == kind else None
    reply = Reply(told_code or int(kind) * 100 + 50, status, _ANSWER.sub("", words, count=1))
    return Fate(action, reply, named, told_code)


def _addresses(text: str) -> Iterator[str]:
    yield from (match[0] for match in _ADDRESS.finditer(text))


# -- reports by hand --------------------------------------------------------------------------------

#: qmail-send, and whoever writes like it (QSBMF, D. J. Bernstein): paragraphs, one a recipient.
_QSBMF: Final = re.compile(r"\s{0,20}(?:Hi\. )?This is the [^\n]{1,200}(?:program|system|server) at ")
_RECIPIENT: Final = re.compile(r"<([^\s<>]{1,320}@[^\s<>]{1,255})>:[ \t]*\n")
#: What stands above the copy of the returned message.
_COPY: Final = re.compile(
    r"\n-{2,20}[ -]?(?:Below this line|The header of the original|This is a copy|Original message)",
    re.IGNORECASE,
)
_DAEMON: Final = re.compile(r"mailer-daemon|postmaster|mail delivery (?:sub)?system", re.IGNORECASE)
_FAILURE: Final = re.compile(
    r"undeliver|returned mail|failure notice|delivery (?:status|fail|has failed)|delivery to .{1,80} failed|"
    r"mail delivery failed|could not be delivered|unzustellbar|non remis|no se puede entregar",
    re.IGNORECASE,
)
#: Characters of a notice's own words that are read, and of one refusal in it.
_OWN: Final = 8_000
_WORDS: Final = 1_000


def _own_words(mail: Opened) -> str:
    """Return what a notice says, without the message that it returns."""
    return _COPY.split(mail.text[:_OWN], maxsplit=1)[0]


def _qmail(mail: Opened) -> Report | None:
    if not _QSBMF.match(mail.text):
        return None
    fates = [
        _failed(paragraph.partition(">:")[2], [match[1]])
        for paragraph in _own_words(mail).split("\n\n")
        if (match := _RECIPIENT.match(paragraph.lstrip("\n")))
    ]
    return Report(fates) if fates else None


def _exim(mail: Opened) -> Report | None:
    """Read what Exim writes without a report: it names the recipients that failed in a header of its own."""
    failed = [*_addresses(mail.fields.get("x-failed-recipients"))]
    return Report([_failed(_own_words(mail).rpartition(failed[0])[2], failed)]) if failed else None


def _daemon(mail: Opened) -> Report | None:
    """Read a mail server's notice in no known form, if it names an enhanced status."""
    own = _own_words(mail)
    if not (_DAEMON.search(mail.fields.get("from")) and _FAILURE.search(mail.fields.get("subject"))):
        return None
    status = _STATUS.search(own)
    if status is None or status[1][0] == "2":
        return None
    # Such notices seldom say whether they are the last word; a temporary status is believed not to be.
    fate = _failed(own[max(0, status.start() - 4) :], [*_addresses(own)])
    return Report([fate if status[1][0] == "5" else replace(fate, action=Action.DELAYED)])


def _failed(words: str, named: Sequence[str]) -> Fate:
    words = " ".join(words[:_WORDS].split())
    return _fate(Action.FAILED, "", words, named)
