"""Send one batch: lease it, and for each delivery claim, weave, pace, hand to a relay, settle.

Owns the order of these steps and what stops them. Refuses: keeping a transaction open while SMTP is spoken,
beginning anything after a stop, and guessing an outcome: what is not known is `unconfirmed`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from worker import bars
from worker.breakers import DOUBTFUL, Act, Breakers
from worker.deliveries import Reply, RetryPolicy, State, Step, next_step, scrub
from worker.errors import Refused, Unavailable, WrongUse
from worker.hand import Hand
from worker.journal import Journal
from worker.measures import Alarms, Blame, Halt, Measures
from worker.post.parcels import STOPPED, Lost, Parcel
from worker.post.relay import RelayDown
from worker.routes import NO_LINK_SECONDS, Routes, Way
from worker.sealing import Keyring, NewKeyError, Person, SealError
from worker.store.ledger import Claimed, Lease, Ledger, Outcome, Taken
from worker.throttle import Grant, Throttle

log = structlog.get_logger()

#: How often a chunk in hand is held against new opt-outs, pause and cancel (seconds).
RECHECK_SECONDS = 0.25
#: How long what is known may wait for its chunk to end, at a slow pace (seconds): operators look on.
SETTLE_SECONDS = 2.0
#: How long a batch waits when the queue or the store is away (seconds); the tick rings when they are back.
AWAY_SECONDS = 5.0
#: A longer wait for the pace goes back to the ledger (seconds).
LONG_WAIT_SECONDS = 2.0
#: The longest that a batch is put off because every relay rests (seconds).
LONGEST_REST_SECONDS = 60.0
#: Most mails of a provider granted at once, so that a rest never waits long for what was granted.
_PACE_AHEAD = 200


class Printer(Protocol):
    """What makes one campaign's mails."""

    def parcel(self, delivery_id: int, person: Person, now: float) -> Parcel | None:
        """Return the finished mail and its envelope; None when there is no form fit for this person.

        Raises:
            Refused: it cannot be made, by our own fault.
        """


@dataclass(frozen=True, slots=True)
class Pace:
    """How a batch is cut up and how long it may be held."""

    chunk: int = 500  #: deliveries taken and settled in one transaction
    lease_seconds: float = 60.0  #: how long a claim stands without renewal
    slice_seconds: float = 20.0  #: after so long the batch is given back, so that no task is long
    retry: RetryPolicy = field(default_factory=RetryPolicy)


@dataclass(slots=True)
class Summary:
    """What one run over a batch came to."""

    batch_id: int
    sent: int = 0
    other: int = 0
    halt: str = ""  #: why it ended: empty, slice, stopping, the campaign's state, or what went wrong


@dataclass(slots=True)
class Dispatcher:
    """Sends batches for one process."""

    ledger: Ledger
    journal: Journal
    keyring: Keyring
    routes: Routes
    throttle: Throttle
    printers: Callable[[int, str], Printer]  #: by campaign id and digest of its content
    alarms: Alarms
    pace: Pace
    clock: Callable[[], float]  #: UTC seconds
    dice: Callable[[], float]  #: 0 to 1
    stopping: Callable[[], bool]  #: whether this process has been asked to end
    others_wait: Callable[[], bool]  #: whether another batch could go while this one waits

    def send(self, batch_id: int) -> Summary | None:
        """Send what is due in a batch; None when there is nothing to claim. Safe to call twice."""
        self.journal.open()
        now = self.clock()
        lease = self.ledger.lease(batch_id, self.journal.owner, now, now + self.pace.lease_seconds)
        if lease is None:
            return None
        run = _Run(self, lease)
        try:
            run.carry()
            run.finish()
        except BaseException:
            # Whatever this was, treat it as the crash it nearly is: leave the journal to the sweep, which
            # settles our hand exactly by it, and go on under a new one.
            self.routes.close()
            self.journal = self.journal.succeed()
            raise
        return run.summary


class _HeldBackError(Exception):
    """A final dot must not leave; nothing more begins."""


class _Run:
    """One batch in hand, going by one relay."""

    def __init__(self, dispatcher: Dispatcher, lease: Lease) -> None:
        self._all = dispatcher
        self._lease = lease
        self._until = lease.until
        self._way: Way | None = None
        self._hand = Hand()
        self._content = ""  # digest of what they are to get
        self._bars: tuple[bars.Bar, ...] = ()  # never-mail rules in force
        self._more = True  # whether the batch may hold more than we took
        self._flying: dict[int, tuple[Claimed, str]] = {}  # with the address, which a reply may quote
        self._outcomes: list[Outcome] = []
        self._doubted: list[Outcome] = []  # refusals in a row that may yet turn out to be our fault
        self._begun: set[int] = set()  # whose dot the journal knows
        self._lost_once: set[int] = set()
        self._breakers = Breakers()
        self._measures = Measures(dispatcher.throttle, dispatcher.alarms, lease)
        self._rest = 0.0
        self._started = dispatcher.clock()
        self._recheck_at = self._started + RECHECK_SECONDS
        self._settle_at = self._started
        self.summary = Summary(lease.batch_id)

    def carry(self) -> None:
        """Drive a relay until there is no more to do, or a reason to stop."""
        way = self._chosen()
        if way is None:
            return
        self._way = way
        try:
            way.relay.carry(self._next_parcel, self._begin, self._settled)
        except RelayDown as down:
            self._halt(self._measures.relay_down(way, down, worked=self.summary.sent > 0))
        except _HeldBackError as held:
            # The run is stopped, and each answer that was still awaited has been told.
            if self._flying:
                raise Unavailable("some answers could not be noted; their journal tells the sweep") from held

    def finish(self) -> None:
        """Settle the last chunk and give the batch back."""
        if self._flying:
            raise RuntimeError("the relay returned with mails still in flight")
        unsent = len(self._hand)
        outcomes = self._outcomes + self._doubted
        self._all.ledger.give_back(self._lease, outcomes, self._all.clock(), self._rest)
        self._all.journal.clear()
        if self._way is not None and not self._all.others_wait():
            self._all.routes.leave(self._way, self._all.journal.owner)
        log.info(
            "batch_ended",
            batch=self._lease.batch_id,
            campaign=self._lease.campaign_id,
            relay=self._way.name if self._way else "",
            sent=self.summary.sent,
            other=self.summary.other,
            unsent=unsent,
            halt=self.summary.halt,
        )

    def _chosen(self) -> Way | None:
        """Choose the relay that carries this batch; None when none can now."""
        try:
            found = self._all.routes.choose(self._all.journal.owner)
        except Unavailable as error:
            self._away(error)
            return None
        if isinstance(found, Way):
            return found
        self._stop("rest", rest=min(found, LONGEST_REST_SECONDS))
        return None

    # -- what the relay asks -----------------------------------------------------------------------

    def _next_parcel(self) -> Parcel | float | None:
        """Give the relay its next mail; what goes wrong here ends the run, and what flies still lands."""
        try:
            return self._next()
        # A mail that cannot be made (or a whole edition, after an upgrade) is our fault, not the recipient's.
        except (Refused, WrongUse) as error:
            self._stop("cannot be made")
            self._all.alarms.stop(self._lease.campaign_id, f"paused: {error}")
        except Unavailable as error:
            self._away(error)
        return None

    def _next(self) -> Parcel | float | None:
        now = self._all.clock()
        if self._must_stop(now):
            return None
        while True:
            claimed = self._hand.next()
            if claimed is not None:
                if (parcel := self._made(claimed)) is not None:
                    return parcel
                continue
            if not self._hand and not (self._more and self._advance(now)):
                self._stop("empty")
                return None
            grant = self._all.throttle.take(self._going.name, self._hand.wants(_PACE_AHEAD))
            if not grant.counts:
                return self._wait(grant, now)
            self._hand.grant(grant.counts)

    def _begin(self, delivery_ids: Sequence[int]) -> None:
        """Write down that final dots are about to leave; raises when none of them must."""
        try:
            self._renew_late()
            self._all.journal.begin(*delivery_ids)
            self._begun.update(delivery_ids)
        except Unavailable as error:
            self._away(error)
            raise _HeldBackError from error

    def _renew_late(self) -> None:
        now = self._all.clock()
        if now > self._until:
            # Asleep past our lease (a stopped machine, an endless answer): others may have settled what we
            # hold. Only who can still renew may go on.
            self._until = now + self._all.pace.lease_seconds
            if not self._all.ledger.renew(self._lease, self._until):
                self._until = now - 1
                raise Unavailable("the lease has run out, and the batch is in other hands")

    def _made(self, claimed: Claimed) -> Parcel | None:
        """Make one mail; a record that does not open is that person's end in this campaign."""
        reason = "no discreet form"
        try:
            person = Person.from_bytes(self._all.keyring.open(claimed.person_id, claimed.sealed))
            if bar := bars.first(self._bars, person):
                parcel, reason = None, bar.reason
            else:
                printer = self._all.printers(self._lease.campaign_id, self._content)
                parcel = printer.parcel(claimed.id, person, self._all.clock())
        except NewKeyError as error:
            # Nobody's end: it stays queued for a machine that has the key, or for this one when it has.
            self._all.alarms.warn(self._lease.campaign_id, f"{error}; {error.remedy}")
            raise Unavailable(str(error), remedy=error.remedy) from error
        except SealError:
            parcel, reason = None, "unreadable record"
        if parcel is None:
            self._outcomes.append(Outcome(claimed.id, State.SKIPPED, reason, tried=False))
        else:
            self._flying[claimed.id] = claimed, parcel.recipient
        return parcel

    def _settled(self, delivery_id: int, answer: Reply | Lost) -> None:
        """Keep an answer. If that fails, it still flies as far as `finish` knows, and the journal decides."""
        claimed, recipient = self._flying[delivery_id]
        if isinstance(answer, Lost):
            self._lost(claimed, answer)
        else:
            self._answered(claimed, answer, recipient)
        del self._flying[delivery_id]

    def _answered(self, claimed: Claimed, answer: Reply, recipient: str) -> None:
        step = self._step(claimed, answer)
        # Refused for a fault of ours, it waits as long as the fault asks, and no attempt is used up.
        due_at = self._all.clock() + step.wait if step.trouble else step.due_at or 0.0
        outcome = Outcome(
            claimed.id,
            step.state,
            step.reason,
            due_at,
            tried=step.trouble is None,
            code=answer.code,
            status=answer.status,
            text=scrub(answer.text, [recipient]),
        )
        self._note(outcome)
        if step.state is State.BOUNCED:
            self._refused(claimed, outcome)
        else:  # kept before anything else is tried that may fail: what is known must reach the ledger
            self._outcomes.append(outcome)
        self._count(step.state)
        if step.state is State.SENT:
            self._accepted(claimed)
        elif step.trouble is not None:
            act = self._breakers.blamed(step.trouble, claimed.provider)
            self._obey(act, _said(outcome), step.wait, claimed.provider)

    def _step(self, claimed: Claimed, answer: Reply) -> Step:
        return next_step(
            answer,
            attempt=claimed.attempts + 1,
            now=self._all.clock(),
            deadline=self._lease.deadline,
            jitter=self._all.dice(),
            policy=self._all.pace.retry,
        )

    def _note(self, outcome: Outcome) -> None:
        """Write in the journal how a message ended that it knows to have begun."""
        if outcome.id in self._begun:
            self._all.journal.settle(outcome)

    # -- chunks ------------------------------------------------------------------------------------

    def _advance(self, now: float) -> bool:
        """Settle the last chunk and take the next, in one transaction; False when nothing is in hand."""
        self._more = self._settle(now, self._all.pace.chunk).more
        return bool(self._hand)

    def _settle(self, now: float, limit: int) -> Taken:
        """Settle what is known, renew the lease, and take up to `limit` more, in one transaction."""
        until = now + self._all.pace.lease_seconds
        taken = self._all.ledger.advance(self._lease, self._outcomes, limit, now, until)
        self._outcomes = []
        if taken.halt != "lost":
            self._until = until
        self._settle_at = now + min(SETTLE_SECONDS, self._all.pace.lease_seconds / 3)
        self._recheck_at = now + RECHECK_SECONDS
        self._content, self._bars = taken.content, taken.bars
        self._hand.take(taken.claimed)
        if taken.halt and not (taken.halt == "empty" and self._hand):
            self._stop(taken.halt)
        return taken

    def _must_stop(self, now: float) -> bool:
        if self.summary.halt:
            return True
        if self._all.stopping():
            self._stop("stopping")
        elif now - self._started > self._all.pace.slice_seconds:
            self._stop("slice")
        elif now >= self._recheck_at:
            self._recheck(now)
        return bool(self.summary.halt)

    def _recheck(self, now: float) -> None:
        """Hold what is in hand against what was said since it was taken."""
        halt, said_no = self._all.ledger.recheck(self._lease, now)
        if dropped := [one.id for one in self._hand.drop(said_no)]:
            self._outcomes += [Outcome(one, State.SKIPPED, "suppressed", tried=False) for one in dropped]
            log.info("said_no_in_hand", batch=self._lease.batch_id, deliveries=dropped)
        if halt:
            self._stop(halt)
        elif now >= self._settle_at:
            self._settle(now, 0)
        if self._way is not None and not self._all.routes.renew(self._way, self._all.journal.owner):
            self._stop("no connection free", rest=NO_LINK_SECONDS)
        self._recheck_at = now + RECHECK_SECONDS

    # -- the pace ----------------------------------------------------------------------------------

    def _wait(self, grant: Grant, now: float) -> float | None:
        """Return the seconds until it is worth asking again; None when the batch had better be given back."""
        if grant.relay_wait:
            if grant.relay_wait > LONG_WAIT_SECONDS and not self._flying:
                # The ledger waits cheaper than a process.
                self._stop("rest", rest=min(grant.relay_wait, LONGEST_REST_SECONDS))
                return None
            return _nap(grant.relay_wait)
        if self._more and self._advance(now):
            return 0.0  # other providers' mail, perhaps
        for provider, wait in grant.waits.items():
            self._put_off(provider, wait, now)
        return _nap(min(grant.waits.values())) if self._hand else 0.0

    def _put_off(self, provider: str, wait: float, now: float) -> None:
        """Give a provider's mail back to the ledger when it must wait long, or keeps others waiting."""
        count = self._hand.count(provider)
        if wait <= LONG_WAIT_SECONDS and (wait * count <= LONG_WAIT_SECONDS or not self._all.others_wait()):
            return
        due_at = now + max(wait, self._all.throttle.book(provider, count))
        if self._lease.deadline is not None:
            due_at = min(due_at, self._lease.deadline)
        for claimed in self._hand.leave(provider):
            self._outcomes.append(Outcome(claimed.id, State.QUEUED, "pace", due_at, tried=False))

    # -- what goes wrong ---------------------------------------------------------------------------

    def _accepted(self, claimed: Claimed) -> None:
        self._breakers.accepted(claimed.provider)
        if self._doubted:  # the relay works: what it refused was the recipients'
            self._outcomes += self._doubted
            self._doubted = []

    def _refused(self, claimed: Claimed, outcome: Outcome) -> None:
        """Count a refusal; in a long row, those that may be our fault are undone, once each."""
        undone = outcome.reason in DOUBTFUL and claimed.attempts == 0
        (self._doubted if undone else self._outcomes).append(outcome)
        if self._breakers.refused() is Act.PAUSE:
            for one in self._doubted:
                again = one._replace(state=State.QUEUED)
                self._note(again)
                self._outcomes.append(again)
            self._doubted = []
            said = f"one recipient after another is refused: {_said(outcome)}"
            self._obey(Act.PAUSE, said, 0.0, claimed.provider)

    def _lost(self, claimed: Claimed, lost: Lost) -> None:
        if lost.begun:
            outcome = Outcome(
                claimed.id, State.UNCONFIRMED, "link lost after the dot", text=scrub(lost.reason)
            )
            self._note(outcome)
            self._outcomes.append(outcome)
            self._count(State.UNCONFIRMED)
        elif claimed.id in self._lost_once:
            # Twice in one run: it may be this very mail that breaks the link. It waits like a 451.
            step = self._step(claimed, Reply(451, "4.4.2", "link lost"))
            outcome = Outcome(claimed.id, step.state, "link lost", step.due_at or 0.0)
            self._note(outcome)
            self._outcomes.append(outcome)
            self._count(step.state)
        else:
            self._lost_once.add(claimed.id)
            self._note(Outcome(claimed.id, State.QUEUED, "link lost", tried=False))
            self._hand.take([claimed])
        if lost.reason == STOPPED:  # the relay has done nothing, and what stopped us may be Redis
            return
        act = self._breakers.lost()
        if lost.trouble is not None:  # no server said it: we made a mail that cannot be sent
            act = Act.PAUSE
        rest = self._measures.patience(self._going, worked=self.summary.sent > 0)
        self._obey(act, f"link lost: {scrub(lost.reason)}", rest, claimed.provider)

    def _obey(self, act: Act, said: str, rest: float, provider: str) -> None:
        """Do what the breakers say."""
        if act in {Act.REST_PROVIDER, Act.SLOW_PROVIDER}:
            self._hand.stop(provider)
        blame = Blame(said, rest, provider, self._breakers.hurried)
        self._halt(self._measures.take(act, self._going, blame))

    def _away(self, error: Unavailable) -> None:
        self._stop("unavailable", rest=AWAY_SECONDS)
        log.warning("dispatch_unavailable", batch=self._lease.batch_id, why=str(error))

    @property
    def _going(self) -> Way:
        if self._way is None:
            raise RuntimeError("nothing goes before a relay is chosen")
        return self._way

    def _halt(self, halt: Halt | None) -> None:
        if halt is not None:
            self._stop(halt.why, halt.rest)

    def _stop(self, why: str, rest: float = 0.0) -> None:
        self.summary.halt = self.summary.halt or why
        self._rest = max(self._rest, rest)

    def _count(self, state: State) -> None:
        if state is State.SENT:
            if not self.summary.sent and self._lease.noticed:
                self._all.alarms.clear(self._lease.campaign_id)
            self.summary.sent += 1
        else:
            self.summary.other += 1


def _said(outcome: Outcome) -> str:
    return f"{outcome.reason} ({outcome.code} {outcome.status})".replace(" )", ")")


def _nap(wait: float) -> float:
    # Never so long that an opt-out, a pause or a stop goes unseen meanwhile.
    return min(max(wait, 0.001), RECHECK_SECONDS)
