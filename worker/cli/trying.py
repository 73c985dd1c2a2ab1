"""`send --test-to`: one real mail through the relay, to the operator, for an invented reader.

Owns the "[test] " that nobody can overlook. Refuses: to record anything, and to write to somebody who said
no.
"""

import re
from dataclasses import replace

from worker import addresses
from worker.addresses import Address, AddressError
from worker.cli import session, terminal
from worker.errors import Refused, Unavailable, WrongUse
from worker.post.parcels import Lost, Parcel
from worker.post.replies import Reply, scrub
from worker.readers import Trial
from worker.store.suppressions import EVERYTHING
from worker.wiring import Wiring

_SUBJECT = re.compile(rb"^Subject: ", re.MULTILINE | re.IGNORECASE)
_MARK = b"[test] "


def send(appeal: str, to: str, *, language: str, discreet: bool) -> int:
    """Send one mail; Refused or Unavailable when the relay did not take it."""
    try:
        _, address = addresses.parse_mailbox(to)
    except AddressError as error:
        raise WrongUse(f"--test-to: {error.message}", remedy="As in: --test-to me@example.org") from error
    with session.opened() as tocsin:
        _mind_suppression(tocsin, address)
        trial = Trial(tocsin.edition(appeal), tocsin.keyring.marks())
        form = trial.form(language, discreet=discreet)
        parcel = trial.parcel(form, to=address)
        _told(
            _carried(tocsin, replace(parcel, data=_SUBJECT.sub(b"\\g<0>" + _MARK, parcel.data, count=1))), to
        )
    terminal.say(f"The relay took one test mail ({form}). Nothing was recorded.")
    return 0


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
