"""Send one batch: lease it, and for each delivery claim, weave, pace, hand to the relay, settle.

Owns the order of these steps and what stops them. Refuses: keeping a transaction open while SMTP is spoken,
beginning anything after a stop, and guessing an outcome: what is not known is `unconfirmed`.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from worker.deliveries import Reply, RetryPolicy, State, Trouble, next_step, scrub
from worker.errors import Refused, Unavailable, WrongUse
from worker.journal import Journal
from worker.post.parcels import Lost, Parcel
from worker.post.relay import Relay, RelayDown
from worker.sealing import Keyring, Person, SealError
from worker.store.ledger import Claimed, Lease, Ledger, Outcome
from worker.throttle import Throttle

log = structlog.get_logger()

#: How often a chunk in hand is held against new opt-outs, pause and cancel (seconds).
RECHECK_SECONDS = 0.25
#: Links lost one after another, with nothing accepted between, before the relay is left alone for a while.
LOST_IN_A_ROW = 5
#: Refusals for our own fault, one after another, before the whole campaign or relay stops for it.
BLAMED_IN_A_ROW = 3
#: How long a relay that cannot be reached is left alone (seconds): at first, for it may only be restarting,
FIRST_REST_SECONDS = 2.0
#: and when that did not help.
REST_SECONDS = 30.0
#: How long a batch waits when the queue or the store is away (seconds); the tick rings when they are back.
AWAY_SECONDS = 5.0
#: A longer wait for the pace goes back to the ledger (seconds).
LONG_WAIT_SECONDS = 2.0
#: Largest share of a second's pace asked for at once, so that a pause never waits long for what was granted.
_PACE_AHEAD = 50


class Printer(Protocol):
    """What makes one campaign's mails."""

    def parcel(self, delivery_id: int, person: Person, now: float) -> Parcel | None:
        """Return the finished mail and its envelope; None when there is no form fit for this person.

        Raises:
            Refused: it cannot be made, by our own fault.
        """


class Alarms(Protocol):
    """Told of what stops a campaign by our own fault, and that it goes again."""

    def stop(self, campaign_id: int, notice: str) -> None:
        """Pause the campaign and say why."""

    def warn(self, campaign_id: int, notice: str) -> None:
        """Say why the campaign stands still though it runs."""

    def clear(self, campaign_id: int) -> None:
        """It goes again."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How a batch is cut up and how long it may be held."""

    chunk: int = 200  #: deliveries taken and settled in one transaction
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
    relay: Relay
    throttle: Throttle
    printers: Callable[[int], Printer]  #: by campaign id
    alarms: Alarms
    pace: Pace
    clock: Callable[[], float]  #: UTC seconds
    dice: Callable[[], float]  #: 0 to 1
    stopping: Callable[[], bool]  #: whether this process has been asked to end

    def send(self, batch_id: int) -> Summary | None:
        """Send what is due in a batch; None when there is nothing to claim. Safe to call twice."""
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
            self.relay.close()
            self.journal = self.journal.succeed()
            raise
        return run.summary


class _Run:
    """One batch in hand."""

    def __init__(self, dispatcher: Dispatcher, lease: Lease) -> None:
        self._all = dispatcher
        self._lease = lease
        self._until = lease.until
        self._hand: deque[Claimed] = deque()
        self._flying: dict[int, tuple[Claimed, str]] = {}  # with the address, which a reply may quote
        self._outcomes: list[Outcome] = []
        self._lost_once: set[int] = set()
        self._lost_in_a_row = 0
        self._blamed_in_a_row = 0
        self._granted = 0
        self._rest = 0.0
        self._started = dispatcher.clock()
        self._recheck_at = self._started + RECHECK_SECONDS
        self.summary = Summary(lease.batch_id)

    def carry(self) -> None:
        """Drive the relay until there is no more to do, or a reason to stop."""
        try:
            self._all.relay.carry(self._next_parcel, self._all.journal.begin, self._settled)
        except RelayDown as down:
            self._relay_down(down)

    def finish(self) -> None:
        """Settle the last chunk and give the batch back."""
        if self._flying:
            raise RuntimeError("the relay returned with mails still in flight")
        self._all.ledger.give_back(self._lease, self._outcomes, self._all.clock(), self._rest)
        self._all.journal.clear()
        log.info(
            "batch_ended",
            batch=self._lease.batch_id,
            campaign=self._lease.campaign_id,
            sent=self.summary.sent,
            other=self.summary.other,
            unsent=len(self._hand),
            halt=self.summary.halt,
        )

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
            self._stop("unavailable", rest=AWAY_SECONDS)
            log.warning("dispatch_unavailable", batch=self._lease.batch_id, why=str(error))
        return None

    def _next(self) -> Parcel | float | None:
        now = self._all.clock()
        if self._must_stop(now) or not (self._hand or self._advance(now)):
            return None
        wait = self._wait_for_pace()
        if wait:
            return None if self.summary.halt else wait
        while self._hand:
            parcel = self._made(self._hand.popleft())
            if parcel is not None:
                self._granted -= 1
                return parcel
        return 0.0

    def _made(self, claimed: Claimed) -> Parcel | None:
        """Make one mail; a record that does not open is that person's end in this campaign."""
        reason = "no discreet form"
        try:
            person = Person.from_bytes(self._all.keyring.open(claimed.person_id, claimed.sealed))
            parcel = self._all.printers(self._lease.campaign_id).parcel(claimed.id, person, self._all.clock())
        except SealError:
            parcel, reason = None, "unreadable record"
        if parcel is None:
            self._outcomes.append(Outcome(claimed.id, State.SKIPPED, reason, tried=False))
        else:
            self._flying[claimed.id] = claimed, parcel.recipient
        return parcel

    def _settled(self, delivery_id: int, answer: Reply | Lost) -> None:
        claimed, recipient = self._flying.pop(delivery_id)
        if isinstance(answer, Lost):
            self._lost(claimed, answer)
            return
        step = next_step(
            answer,
            attempt=claimed.attempts + 1,
            now=self._all.clock(),
            deadline=self._lease.deadline,
            jitter=self._all.dice(),
            policy=self._all.pace.retry,
        )
        # Refused for a fault of ours, it waits as long as the fault asks, and no attempt is used up.
        due_at = self._all.clock() + step.wait if step.trouble else step.due_at or 0.0
        outcome = Outcome(
            delivery_id,
            step.state,
            step.reason,
            due_at,
            tried=step.trouble is None,
            code=answer.code,
            status=answer.status,
            text=scrub(answer.text, [recipient]),
        )
        self._all.journal.settle(outcome)
        self._outcomes.append(outcome)
        self._count(step.state)
        if step.trouble is not None:
            self._blamed(step.trouble, step.reason, answer, step.wait)

    # -- chunks ------------------------------------------------------------------------------------

    def _advance(self, now: float) -> bool:
        """Settle the last chunk and take the next, in one transaction."""
        until = now + self._all.pace.lease_seconds
        taken = self._all.ledger.advance(self._lease, self._outcomes, self._all.pace.chunk, now, until)
        self._outcomes = []
        self._until = until
        self._recheck_at = now + RECHECK_SECONDS
        self._hand.extend(taken.claimed)
        if taken.halt:
            self._stop(taken.halt)
        return bool(self._hand)

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
        for claimed in [one for one in self._hand if one.id in said_no]:
            self._hand.remove(claimed)
            self._outcomes.append(Outcome(claimed.id, State.SKIPPED, "suppressed", tried=False))
        if halt:
            self._stop(halt)
        elif self._until - now < self._all.pace.lease_seconds / 2:
            self._until = now + self._all.pace.lease_seconds
            if not self._all.ledger.renew(self._lease, self._until):
                self._stop("lost")
        self._recheck_at = now + RECHECK_SECONDS

    def _wait_for_pace(self) -> float:
        """Return 0 when one more mail may begin, else the seconds until it is worth asking again."""
        if self._granted > 0:
            return 0.0
        grant = self._all.throttle.take(min(len(self._hand), _PACE_AHEAD))
        self._granted = grant.count
        if grant.count:
            return 0.0
        if grant.wait > LONG_WAIT_SECONDS and not self._flying:  # the ledger waits cheaper than a process
            self._stop("rest", rest=min(grant.wait, 60.0))
        # Never so long that an opt-out, a pause or a stop goes unseen meanwhile.
        return min(max(grant.wait, 0.001), RECHECK_SECONDS)

    # -- what goes wrong ---------------------------------------------------------------------------

    def _lost(self, claimed: Claimed, lost: Lost) -> None:
        self._lost_in_a_row += 1
        if lost.begun:
            outcome = Outcome(
                claimed.id, State.UNCONFIRMED, "link lost after the dot", text=scrub(lost.reason)
            )
            self._all.journal.settle(outcome)
            self._outcomes.append(outcome)
            self._count(State.UNCONFIRMED)
        elif claimed.id in self._lost_once:
            # Twice in one run: it may be this very mail that breaks the link. It waits like a 451.
            step = next_step(
                Reply(451, "4.4.2", "link lost"),
                attempt=claimed.attempts + 1,
                now=self._all.clock(),
                deadline=self._lease.deadline,
                jitter=self._all.dice(),
                policy=self._all.pace.retry,
            )
            self._outcomes.append(Outcome(claimed.id, step.state, "link lost", step.due_at or 0.0))
            self._count(step.state)
        else:
            self._lost_once.add(claimed.id)
            self._hand.append(claimed)
        if lost.trouble is not None:
            self._trouble(lost.trouble, lost.reason, REST_SECONDS)
        elif self._lost_in_a_row >= LOST_IN_A_ROW:
            self._stop("links lost", rest=self._patience)
            self._all.alarms.warn(self._lease.campaign_id, f"the relay's link breaks: {scrub(lost.reason)}")

    def _blamed(self, trouble: Trouble, reason: str, reply: Reply, wait: float) -> None:
        """Count a reply that names our fault; believe it when nobody says otherwise in between.

        Behind a relay that asks the recipient's server, one hostile server could stop a campaign by its
        words alone.
        """
        self._blamed_in_a_row += 1
        said = f"{reason} ({reply.code} {reply.status})".replace(" )", ")")
        if trouble is Trouble.AUTH or self._blamed_in_a_row >= BLAMED_IN_A_ROW:
            self._trouble(trouble, said, wait)
        else:
            self._all.alarms.warn(self._lease.campaign_id, f"some mail waits: {said}")

    def _trouble(self, trouble: Trouble, said: str, wait: float) -> None:
        self._stop(said, rest=wait)
        log.warning("our_fault", campaign=self._lease.campaign_id, trouble=trouble, said=said, wait=wait)
        if trouble in {Trouble.AUTH, Trouble.SENDER}:
            self._all.alarms.stop(self._lease.campaign_id, f"paused: {said}; nobody was lost")
        else:
            self._all.throttle.rest(wait)
            self._all.alarms.warn(self._lease.campaign_id, f"the relay asked for rest: {said}, {wait:.0f} s")

    def _relay_down(self, down: RelayDown) -> None:
        self._stop("relay down", rest=self._patience)
        notice = f"the relay cannot be used: {down}"
        if down.trouble is Trouble.AUTH:
            self._all.alarms.stop(self._lease.campaign_id, f"paused: {notice}")
        else:
            self._all.alarms.warn(self._lease.campaign_id, notice)

    @property
    def _patience(self) -> float:
        """Return how long to leave the relay alone: long when there was trouble already as we began."""
        return REST_SECONDS if self._lease.noticed else FIRST_REST_SECONDS

    def _stop(self, why: str, rest: float = 0.0) -> None:
        self.summary.halt = self.summary.halt or why
        self._rest = max(self._rest, rest)

    def _count(self, state: State) -> None:
        if state is State.SENT:
            self._lost_in_a_row = self._blamed_in_a_row = 0
            if not self.summary.sent and self._lease.noticed:
                self._all.alarms.clear(self._lease.campaign_id)
            self.summary.sent += 1
        else:
            self.summary.other += 1
