"""`send --test-to`: one real mail through the relay, to the operator, for an invented reader.

Owns the "[test] " that nobody can overlook. Refuses: an appeal in which `check` finds errors, to record
anything, and to write to somebody who said no.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from worker import addresses, preflight
from worker.addresses import Address, AddressError
from worker.cli import checking, session
from worker.errors import Refused, Unavailable, WrongUse
from worker.post.parcels import Lost, Parcel
from worker.post.replies import Reply, scrub
from worker.readers import Trial
from worker.store.suppressions import EVERYTHING
from worker.wiring import Wiring

_SUBJECT = re.compile(rb"^Subject: ", re.MULTILINE | re.IGNORECASE)
_MARK = b"[test] "


@dataclass(frozen=True, slots=True)
class Manner:
    """What to send, and where."""

    appeal: str
    to: str = field(repr=False)
    language: str
    discreet: bool
    waive: Sequence[str]


def send(manner: Manner) -> Mapping[str, object]:
    """Check the appeal and send one mail; return what was done, for programs.

    Raises:
        Refused: `check` finds an error that is not waived, or the relay refused it.
        Unavailable: the relay did not take it now.
    """
    waivers = preflight.waivers(manner.waive)
    try:
        _, address = addresses.parse_mailbox(manner.to)
    except AddressError as error:
        raise WrongUse(f"--test-to: {error.message}", remedy="As in: --test-to me@example.org") from error
    with session.opened() as tocsin:
        _mind_suppression(tocsin, address)
        trial = Trial(tocsin.edition(manner.appeal), tocsin.keyring.marks())
        form = trial.form(manner.language, discreet=manner.discreet)
        findings = preflight.examine(trial)
        waived = preflight.require(findings, waivers, manner.appeal)
        parcel = trial.parcel(form, to=address)
        marked = replace(parcel, data=_SUBJECT.sub(b"\\g<0>" + _MARK, parcel.data, count=1))
        _told(_carried(tocsin, marked), manner.to)
    return {
        "appeal": manner.appeal,
        "form": str(form),
        "language": form.language,
        "discreet": form.discreet,
        "findings": [checking.fact(one) for one in findings],
        "waived": list(waived),
        "taken": True,
    }


def _mind_suppression(tocsin: Wiring, address: Address) -> None:
    standing = tocsin.suppressions.scopes(tocsin.keyring.address_keys(address))
    if any(scope == EVERYTHING for _, scope in standing):
        raise Refused("that address is suppressed: its owner said no", remedy="Test with another one.")


def _carried(tocsin: Wiring, parcel: Parcel) -> Reply | Lost:
    """Hand one parcel to the relay and return what became of it."""
    waiting, outcomes = [parcel], list[Reply | Lost]()
    relay = tocsin.relay()
    try:
        relay.carry(
            lambda: waiting.pop() if waiting else None,
            lambda _numbers: None,
            lambda _number, outcome: outcomes.append(outcome),
        )
    finally:
        relay.close()
    return outcomes[0]


def _told(outcome: Reply | Lost, to: str) -> None:
    """Raise unless the relay took it."""
    if isinstance(outcome, Lost):
        doubt = "it may have arrived" if outcome.begun else "it was not sent"
        raise Unavailable(
            f"the link to the relay was lost ({outcome.reason}); {doubt}", remedy="Run `tocsin doctor`."
        )
    if outcome.accepted:
        return
    told = " ".join((str(outcome.code), outcome.status, scrub(outcome.text, [to]))).replace("  ", " ")
    if outcome.temporary:
        raise Unavailable(f"the relay did not take it now: {told}", remedy="Try again in a while.")
    raise Refused(
        f"the relay refused it: {told}", remedy="Mend what it names; `tocsin doctor` looks at the rest."
    )
