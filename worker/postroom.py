"""The mail that comes back, acted upon: opened, sorted, and passed on to where it has an effect.

Owns what follows from each verdict, and the round through the Maildir. Everything may be told twice: the
second time changes nothing. Refuses: acting on a mail without our mark, and deleting one before its effect is
stored.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import TYPE_CHECKING, Final

import structlog

from worker.breakers import BLAMED_IN_A_ROW, Act
from worker.deliveries import State
from worker.feedback import OptOuts
from worker.inbox import Kept, Maildir
from worker.post.replies import FAULTS, Trouble
from worker.returns.sorting import sort
from worker.returns.verdicts import (
    Bounce,
    Complaint,
    Delivered,
    Foreign,
    OptOut,
    Personal,
    Quiet,
    Verdict,
)
from worker.sealing import Keyring
from worker.store.aftermath import NOT_SPAM, Aftermath, Change
from worker.store.blames import Blames
from worker.store.ledger import Outcome

if TYPE_CHECKING:
    from worker.measures import Alarms
    from worker.tokens import Marks

log = structlog.get_logger()


class Effect(StrEnum):
    """What a returned mail came to, in the words of a report."""

    BOUNCED = "bounced"
    DELIVERED = "delivered"
    OPTED_OUT = "opted out"
    COMPLAINED = "complained"
    NOTHING = "nothing new"
    PERSON = "for a person"
    FOREIGN = "not ours"
    #: Its delivery is in a sender's hands, or there is no room for more: to be read again.
    LATER = "later"


#: Complaints that are a "no" (RFC 5965 section 7.3).
_NO: Final = frozenset({"abuse", "opt-out", "opt-out-list"})
#: Reports that ask for nothing; "auth-failure" is about signatures (RFC 6591).
_HARMLESS: Final = frozenset({"not-spam", "auth-failure"})
#: Reasons of a bounce that name our own set-up, or that we are blocked.
_OURS: Final = frozenset(
    fault.reason for fault in FAULTS if fault.trouble in {Trouble.SENDER, Trouble.BLOCKED}
)

#: Seconds of each tick that are spent on returned mail.
TICK_SECONDS: Final = 1.0
#: Seconds until a mail that must wait is read again.
_LATER_SECONDS: Final = 10.0
#: How often a campaign that runs is searched for addresses that the relay called gone (seconds).
_SEARCH_SECONDS: Final = 600.0
#: How often the campaigns that run are looked through for mail that comes back for a fault of ours (seconds).
_WATCH_SECONDS: Final = 10.0
#: Mail to a provider of which one in so many came back for our fault is no accident of some readers' servers:
#: whoever forwards mail to another mailbox breaks its authentication too.
_ONE_IN: Final = 10
#: Campaigns that ended longer ago are not searched again (seconds).
_SEARCH_BACK_SECONDS: Final = 7 * 86400.0


class PostRoom:
    """The mail that comes back, acted upon."""

    def __init__(
        self,
        aftermath: Aftermath,
        blames: Blames,
        opt_outs: OptOuts,
        keyring: Keyring,
        kept: Kept,
        clock: Callable[[], float],
        alarms: "Alarms",
    ) -> None:
        """Take the store, the way of every opt-out, the keys, a person's folder, and whom to tell."""
        self._aftermath = aftermath
        self._blames = blames
        self._opt_outs = opt_outs
        self._marks: Marks = keyring.marks()
        self.kept = kept
        self._clock = clock
        self._later: dict[str, float] = {}  # when a name in the Maildir is worth reading again
        self._alarms = alarms
        self._watch_at = 0.0
        self._searched: dict[int, tuple[float, float | None]] = {}  # by campaign: when, and its end by then

    def take(self, data: bytes, recipients: Iterable[str] = ()) -> Effect:
        """Act on a mail that nobody else holds; what a person wrote is kept for a person, ours or not."""
        verdict = sort(data, self._marks, recipients)
        effect = self._act(verdict)
        if effect is Effect.PERSON or (isinstance(verdict, Foreign) and verdict.personal):
            return self._keep(data, verdict)
        return effect

    def look(self, data: bytes, recipients: Iterable[str] = ()) -> Effect:
        """Act on a mail that somebody else keeps."""
        return self._act(sort(data, self._marks, recipients))

    def opt_out(self, data: bytes) -> bool:
        """Opt out whoever wrote a mail, on an operator's word; False when nothing in it tells who."""
        match sort(data, self._marks):
            case (Personal() | Quiet() | OptOut() | Complaint()) as found:
                return self._opt_outs.said_no(found.delivery, "cli")
            case _:
                return False

    def read(self, maildir: Maildir, until: float | None = None) -> Counter[Effect]:
        """Act on the new mails of a Maildir: delete what is done, keep what is for a person.

        A crash between acting and deleting does no harm: the mail is read again and changes nothing.

        Args:
            maildir: where they lie.
            until: UTC seconds after which no further mail is begun; None for all.
        """
        now, names = self._clock(), maildir.names()
        self._later = {name: at for name in names if (at := self._later.get(name, now)) > now}
        counts = Counter[Effect]()
        for name in names:
            if until is not None and self._clock() >= until:
                break
            if name not in self._later and (data := maildir.read(name)) is not None:
                counts[self._dispose(maildir, name, data)] += 1
        return counts

    def tick(self, maildir: Maildir | None) -> None:
        """Read what has come back, for a moment, and look through the campaigns for what follows from it."""
        now = self._clock()
        self._search(now)
        self._watch(now)
        if maildir is not None and (counts := self.read(maildir, now + TICK_SECONDS)):
            log.info("mail_returned", **{effect.name.lower(): number for effect, number in counts.items()})

    def _dispose(self, maildir: Maildir, name: str, data: bytes) -> Effect:
        verdict = sort(data, self._marks)
        effect = self._act(verdict)
        if effect is Effect.PERSON:
            effect = self._keep(data, verdict)
        if effect is Effect.LATER:
            self._later[name] = self._clock() + _LATER_SECONDS
        elif effect is Effect.FOREIGN:
            maildir.leave(name)
        else:
            maildir.delete(name)
        return effect

    def _keep(self, data: bytes, verdict: Verdict) -> Effect:
        stop = isinstance(verdict, Personal) and verdict.asks_to_stop
        if self.kept.keep(data, stop=stop):
            return Effect.PERSON
        log.warning("kept_mail_full", folder=str(self.kept.folder))
        return Effect.LATER

    def _act(self, verdict: Verdict) -> Effect:
        """Do what follows from a verdict."""
        match verdict:
            case Foreign():
                return Effect.FOREIGN
            case Personal() | Quiet(new_address=True):
                return Effect.PERSON
            case (
                Quiet()
                | OptOut(delivery=0)
                | Complaint(delivery=0)
                | Delivered(delivery=0)
                | Bounce(delivery=0)
            ):
                return Effect.NOTHING  # about a test mail, or nothing at all
            case OptOut() | Complaint():
                return self._said_no(verdict)
            case Delivered() | Bounce():
                return self._ended(verdict)

    def _said_no(self, verdict: OptOut | Complaint) -> Effect:
        """Let a "no" stand; one about a delivery that is not here is for a person, never called done."""
        if isinstance(verdict, OptOut):
            return Effect.OPTED_OUT if self._opt_outs.said_no(verdict.delivery, "mail") else Effect.PERSON
        if verdict.kind in _NO:
            change = self._aftermath.complained(verdict.delivery, verdict.kind, self._clock())
            return Effect.PERSON if change is Change.UNKNOWN else _effect(change, Effect.COMPLAINED)
        if verdict.kind == "not-spam":
            self._aftermath.noted(verdict.delivery, NOT_SPAM, "feedback report", self._clock())
        return Effect.NOTHING if verdict.kind in _HARMLESS else Effect.PERSON

    def _ended(self, verdict: Delivered | Bounce) -> Effect:
        """Write down how a mail ended."""
        now = self._clock()
        if isinstance(verdict, Delivered):
            return _effect(self._aftermath.delivered(verdict.delivery, now), Effect.DELIVERED)
        end = Outcome(
            verdict.delivery,
            State.BOUNCED,
            verdict.reason,
            code=verdict.code,
            status=verdict.status or None,
            text=verdict.text,
        )
        if verdict.reason not in _OURS:
            return _effect(self._aftermath.bounced(end, now), Effect.BOUNCED)
        change = self._aftermath.blamed(end, now)
        if change is Change.NEW:
            log.warning("our_fault", delivery=verdict.delivery, reason=verdict.reason)
        return _effect(change, Effect.BOUNCED)

    def _watch(self, now: float) -> None:
        """Pause a campaign whose mail comes back for a fault of ours, once for what left until then.

        As many as are believed in a session, where nobody can come between them; and a share, for here nobody
        tells what arrived.
        """
        if now < self._watch_at:
            return
        self._watch_at = now + _WATCH_SECONDS
        for campaign in self._blames.running():
            for blame in self._blames.of(campaign, BLAMED_IN_A_ROW):
                if blame.count * _ONE_IN < blame.sent:
                    continue
                log.warning(
                    "our_fault", campaign=campaign, act=Act.PAUSE, said=blame.reason, count=blame.count
                )
                what = f"{blame.count} mails to {blame.provider} servers came back for it"
                self._alarms.stop(campaign, f"paused: {blame.reason}: {what}; nobody is given up")
                self._blames.told(blame, now)
                break

    def _search(self, now: float) -> None:
        """Suppress whom the relay called gone, in the campaign whose turn it is."""
        for campaign, ended in self._aftermath.open_or_ended_since(now - _SEARCH_BACK_SECONDS).items():
            when, before = self._searched.get(campaign, (0.0, None))
            if when and ended == before and (ended is not None or now - when < _SEARCH_SECONDS):
                continue
            self._searched[campaign] = now, ended
            if found := self._aftermath.suppress_refused(campaign, now):
                log.info("gone_suppressed", campaign=campaign, count=found)
            return


def _effect(change: Change, new: Effect) -> Effect:
    """Return the effect of a change; a delivery that is not here (a restored backup) is no news."""
    if change is Change.NEW:
        return new
    return Effect.LATER if change is Change.IN_HAND else Effect.NOTHING
