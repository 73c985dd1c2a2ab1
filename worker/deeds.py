"""Who did what when to what, as a chain in which each entry carries the hash of the one before.

Pure. Owns the canonical text of an entry, its hash, and finding the first one that is not as it was written.
A chain may begin later than at 1 where a later entry says what was cut off before it, by a timer.
Refuses: personal data (callers give counts, names of campaigns and lists, and keyed hashes), and any promise
about the end of a chain: what was cut off there is missed only by who kept a later hash.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TypeAlias

#: What the first entry has for the hash of the one before it.
BEGINNING = "0" * 64
#: Who acts where it is no operator, but the person whom it is about.
PERSON = "(the person)"
#: Who acts where it is the program, by the operator's timers.
TIMER = "(the timer)"

#: A fact beside a deed: a count, a name, or several of them.
Fact: TypeAlias = "str | int | float | list[str] | dict[str, int] | None"


class Action(StrEnum):
    """What an operator does that is written down, called as its command."""

    SEND = "send"
    APPROVE = "approve"
    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"
    RETRY = "retry"
    ACCEPT = "unconfirmed accept"
    RESEND = "unconfirmed resend"
    LISTS_IMPORT = "lists import"
    LISTS_POLICY = "lists policy"
    LISTS_INVITE = "lists invite"
    #: A person's own, by the link in an invitation.
    LISTS_CONFIRM = "lists confirm"
    SUPPRESS_ADD = "suppress add"
    SUPPRESS_IMPORT = "suppress import"
    SUPPRESS_LIFT = "suppress lift"
    SUPPRESS_EXPORT = "suppress export"
    RULES_ADD = "suppress rules add"
    RULES_REMOVE = "suppress rules remove"
    INBOX_READ = "inbox read"
    INBOX_OPT_OUT = "inbox opt-out"
    APPEALS_PREVIEW = "appeals preview"
    PEOPLE_SHOW = "people show"
    PEOPLE_EXPORT = "people export"
    PEOPLE_CORRECT = "people correct"
    PEOPLE_FORGET = "people forget"
    RETENTION = "retention"
    KEYS_NEW = "keys new"
    KEYS_ROTATE = "keys rotate"
    UPGRADE = "db upgrade"


@dataclass(frozen=True, slots=True)
class Deed:
    """Something that an operator does, not yet in the chain."""

    at: float  #: UTC seconds
    operator: str
    action: str
    subject: str = ""  #: a campaign's or list's name, a scope; "" = the whole store
    details: Mapping[str, Fact] = field(default_factory=dict)

    def noting(self, **facts: Fact) -> "Deed":
        """Return the deed with further facts, such as counts known only when it is done."""
        return replace(self, details={**self.details, **facts})


@dataclass(frozen=True, slots=True)
class Entry:
    """A deed in the chain."""

    number: int  #: from 1, without gaps
    at: float
    operator: str
    action: str
    subject: str
    details: str  #: JSON as it was hashed
    previous: str  #: the hash of the entry before
    hash: str

    @property
    def facts(self) -> Mapping[str, object]:
        """Return the details; of an entry that somebody has spoilt, its text."""
        try:
            found = json.loads(self.details)
        except ValueError:
            found = None
        return found if isinstance(found, dict) else {"spoilt": self.details}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What looking through a chain came to."""

    number: int  #: of the last entry that is as it was written; 0 = none
    head: str  #: its hash
    broken: int | None = None  #: the first entry that is not as it was written
    why: str = ""
    first: int = 1  #: the first entry that is there; those before it were cut off by a timer

    @property
    def holds(self) -> bool:
        """Return whether everything is as it was written."""
        return not self.why


def link(deed: Deed, number: int, previous: str) -> Entry:
    """Return a deed as the entry of this number, after the entry with this hash."""
    details = json.dumps(deed.details, sort_keys=True, separators=(",", ":"))
    drawn = Entry(
        number, float(deed.at), deed.operator, str(deed.action), deed.subject, details, previous, ""
    )
    return replace(drawn, hash=_hash(drawn))


def verify(entries: Iterable[Entry], *, counted: int | None = None, kept: str = "") -> Verdict:
    """Look through a chain from its beginning, up to the first entry that is not as it was written.

    Args:
        entries: by number, the first one first.
        counted: how many were ever written, where somebody else has counted them.
        kept: a hash that was the head once; "" = none was kept.
    """
    number, head, met = 0, BEGINNING, kept in {"", BEGINNING}
    cut, why = (0, BEGINNING), ""
    said: set[tuple[object, object]] = {cut}
    for entry in entries:
        if (number, head) == (0, BEGINNING) and entry.number > 1 and not why:
            number, head = cut = entry.number - 1, entry.previous
        if entry.action == Action.RETENTION:
            said.add(_cut(entry))
        if why := why or _fault(entry, number + 1, head):
            continue  # only to see whether what is missing at the beginning was cut off
        number, head = entry.number, entry.hash
        met = met or head == kept
    if cut not in said:
        return Verdict(0, BEGINNING, 1, f"it is missing: entry {cut[0] + 1} stands in its place")
    if not why and counted is not None and counted != number:
        why = f"{counted} were written, and {number} are there"
    if why:
        return Verdict(number, head, number + 1, why)
    if not met:
        older = f", nor is what stood before entry {cut[0] + 1}: its time was over" if cut[0] else ""
        return Verdict(number, head, None, f"the head that you kept is not in it{older}")
    return Verdict(number, head, first=cut[0] + 1)


def _cut(entry: Entry) -> tuple[object, object]:
    """Return the number and the hash of the last entry that this one says was cut off."""
    return entry.facts.get("cut"), entry.facts.get("head")


def _fault(entry: Entry, number: int, previous: str) -> str:
    """Return what is wrong with an entry that should bear this number after this hash, "" for nothing."""
    if entry.number != number:
        return f"it is missing: entry {entry.number} stands in its place"
    if entry.previous != previous:
        return "it does not follow the entry before it"
    if entry.hash != _hash(entry):
        return "it is not as it was written"
    return ""


def _hash(entry: Entry) -> str:
    """Return the SHA-256 of the previous hash and the entry; JSON keeps its parts apart."""
    parts = [entry.number, entry.at, entry.operator, entry.action, entry.subject, entry.details]
    return hashlib.sha256(f"{entry.previous}\n{json.dumps(parts)}".encode()).hexdigest()
