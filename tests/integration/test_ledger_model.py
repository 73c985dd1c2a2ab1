"""Ledger, journal and sweep against a model of them, through whatever may happen in whatever order.

Hypothesis plays senders on two machines (claiming, sending, crashing with and without their journal, stopped
past their lease and waking up late), their sweeps, readers who say no, an operator, and the clock. After
every step the store must say what the model says; every move that any statement made is seen by a trigger.
"""

import itertools
import logging
import os
import shutil
import sys
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import redis
import sqlalchemy as sa
import structlog
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from worker import broker, journal
from worker.campaigns import Campaigns
from worker.deliveries import OPEN, Reply, RetryPolicy, State, allowed, next_step
from worker.errors import Refused, Unavailable
from worker.journal import Journal
from worker.replica import Copies, Replica
from worker.store.audience import Rule
from worker.store.database import Database
from worker.store.docket import Docket
from worker.store.ledger import Claimed, Lease, Ledger, Outcome
from worker.store.people import People
from worker.store.plans import Draft, Plans
from worker.store.staging import Staged
from worker.store.suppressions import EVERYTHING, Suppression, Suppressions, list_scope
from worker.store.tallies import Tallies
from worker.sweep import LOST_OWNER_SECONDS, Sweep

PEOPLE = 10
LEASE_SECONDS = 60.0
POLICY = RetryPolicy(first=20.0, factor=2.0, most=60.0, jitter=0.0, attempts=3)
HOSTS = ("here", "there")
LOST_LINK = "a lost link"
#: Its dot was noted but had not left: it goes again at once, by another link.
BROKEN_LINK = "a link that broke before the dot"
#: Taken; refused for good; not now; our own fault; and no answer at all, the dot having left or not.
ANSWERS: tuple[Reply | str, ...] = (
    Reply(250, "2.0.0", "taken"),
    Reply(550, "5.1.1", "unknown"),
    Reply(451, "4.3.0", "later"),
    Reply(421, "4.7.28", "unusual rate"),
    LOST_LINK,
    BROKEN_LINK,
)
#: From which an operator may have deliveries sent again.
ENDED = frozenset({State.BOUNCED, State.EXPIRED, State.UNCONFIRMED})
HEARD = st.sampled_from([True, True, True, True, True, False])
FAILURES = ("dies", "dies", "dies at a dot", "commits unheard", "ends unheard", "machine")
#: A line of a journal: a dot that may leave, or how it ended.
Page: TypeAlias = int | Outcome
Draw: TypeAlias = Callable[[st.SearchStrategy[Any]], Any]
WAITING = frozenset({State.QUEUED, State.DEFERRED})
_TRIGGERS = {
    "sqlite": (
        "CREATE TABLE moves (id INTEGER, came TEXT, went TEXT)",
        """CREATE TRIGGER moved AFTER UPDATE OF state ON deliveries WHEN OLD.state <> NEW.state
        BEGIN INSERT INTO moves VALUES (OLD.id, OLD.state, NEW.state); END""",
    ),
    "postgresql": (
        "CREATE TABLE moves (id bigint, came text, went text)",
        """CREATE FUNCTION note_move() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN INSERT INTO moves VALUES (OLD.id, OLD.state, NEW.state); RETURN NULL; END $$""",
        """CREATE TRIGGER moved AFTER UPDATE OF state ON deliveries FOR EACH ROW
        WHEN (OLD.state <> NEW.state) EXECUTE FUNCTION note_move()""",
    ),
}


# -- the model ---------------------------------------------------------------------------------------


@dataclass
class Duty:
    """One delivery, as it should stand, and what in truth became of its mail."""

    id: int
    person: int
    list_id: int
    batch: int
    state: State = State.QUEUED
    attempts: int = 0
    due: float = 0.0
    fence: int | None = None
    #: Mails of it that the mail server took, or may have taken.
    arrived: int = 0
    #: Mails of it that the mail server said it took.
    accepted: int = 0
    #: How often an operator had it sent again though it may have arrived.
    asked: int = 0


@dataclass
class Owner:
    """A name that a sender takes leases under: what its journal's file holds, and the copy in Redis."""

    name: str
    host: str
    trusted: bool
    alive: bool = True
    removed: bool = False
    pages: list[Page] = field(default_factory=list)
    copy: list[Page] | None = None  #: None: there is none to write to
    later: list[Page] = field(default_factory=list)  #: goes with the next dot
    taken: list[Page] | None = None  #: what a sweep has moved out of its reach

    def take(self) -> list[Page] | None:
        """Move the copy away, once."""
        if self.taken is None:
            self.taken, self.copy = self.copy, None
        return self.taken


def read(pages: Iterable[Page]) -> tuple[set[int], dict[int, Outcome]]:
    """Return what was begun and not answered, and what was answered."""
    begun: set[int] = set()
    known: dict[int, Outcome] = {}
    for page in pages:
        if isinstance(page, int):
            begun.add(page)
            known.pop(page, None)
        else:
            begun.discard(page.id)
            known[page.id] = page
    return begun, known


@dataclass
class Tenure:
    """A lease, as it should stand."""

    id: int
    batch: int
    owner: Owner
    until: float


class Book:
    """What the ledger should say: no statements, no indexes, no flags, only the rules."""

    def __init__(self, duties: Iterable[Duty], *, copies: bool) -> None:
        self.copies = copies
        self.duties = {duty.id: duty for duty in duties}
        self.campaign = "running"
        self.deadline: float | None = None
        self.held: dict[int, Tenure] = {}  #: leases not ended
        self.holder: dict[int, int] = {}  #: the lease in force, by batch
        self.said_no: set[tuple[int, str]] = set()

    def of(self, batch: int, states: Iterable[State]) -> list[Duty]:
        """Return a batch's deliveries in these states."""
        return [duty for duty in self.duties.values() if duty.batch == batch and duty.state in states]

    def of_states(self, states: Iterable[State]) -> list[Duty]:
        """Return everybody's deliveries in these states."""
        return [duty for duty in self.duties.values() if duty.state in states]

    def hand(self, lease: int) -> list[Duty]:
        """Return what is being sent under a lease."""
        return [d for d in self.duties.values() if d.fence == lease and d.state is State.SENDING]

    def refused(self, duty: Duty) -> bool:
        """Whether this person said no, to everything or to the list that reaches them here."""
        return bool({(duty.person, EVERYTHING), (duty.person, list_scope(duty.list_id))} & self.said_no)

    def late(self, now: float) -> bool:
        """Whether the deadline has passed."""
        return self.deadline is not None and now >= self.deadline

    def leased(self, lease: Lease, owner: Owner) -> None:
        """Note a lease that was given; it must have been free, and its campaign running."""
        assert self.campaign == "running"
        assert lease.batch_id not in self.holder
        self.held[lease.id] = Tenure(lease.id, lease.batch_id, owner, lease.until)
        self.holder[lease.batch_id] = lease.id

    def settle(self, lease: Lease, outcomes: Sequence[Outcome]) -> None:
        """Settle what this lease may: its own, while in its hand or in doubt."""
        for one in outcomes:
            duty = self.duties[one.id]
            if duty.fence == lease.id and duty.state in {State.SENDING, State.UNCONFIRMED}:
                duty.state, duty.due = one.state, one.due_at
                duty.attempts += one.tried
        if self.holder.get(lease.batch_id) != lease.id:  # else it is closed when it is given back
            self._close_cancelled(lease.batch_id)

    def take(self, lease: Lease, now: float, until: float) -> tuple[str, list[Duty]]:
        """Return why nothing may be claimed, or what may: who waits, is due and has not said no."""
        if self.holder.get(lease.batch_id) != lease.id:
            return "lost", []
        self.held[lease.id].until = until
        if self.campaign != "running":
            return self.campaign, []
        for duty in self.of(lease.batch_id, WAITING):
            if self.late(now):
                duty.state = State.EXPIRED
        waiting = [duty for duty in self.of(lease.batch_id, WAITING) if not self.refused(duty)]
        due = [duty for duty in waiting if duty.due <= now]
        return "" if due else "empty", due

    def end(self, lease_id: int) -> None:
        """End a lease: whatever is left in its hand waits again."""
        for duty in self.hand(lease_id):
            self._requeue(duty)
        tenure = self.held.pop(lease_id, None)
        if tenure is not None:
            self.free(tenure)
            self._close_cancelled(tenure.batch)

    def free(self, tenure: Tenure) -> None:
        """Let others have the batch."""
        if self.holder.get(tenure.batch) == tenure.id:
            del self.holder[tenure.batch]

    def recover(self, tenure: Tenure, *, here: bool) -> None:
        """Settle a hand by its owner's journal, or its copy; what neither can tell is in doubt."""
        owner, hand = tenure.owner, self.hand(tenure.id)
        begun, known = read(owner.pages if here else ())
        trusted = here and owner.trusted
        if not trusted:  # what it says may have been followed by a line that is lost
            known = {one.id: one for one in known.values() if one.state is State.SENT}
        if hand and not trusted and self.copies and owner.take() is not None:
            begun, known = read(owner.taken or ())
            trusted = True
        for duty in hand:
            if duty.id in known:
                duty.state, duty.due = known[duty.id].state, known[duty.id].due_at
                duty.attempts += known[duty.id].tried
            elif trusted and duty.id not in begun:
                self._requeue(duty)
            else:
                duty.state = State.UNCONFIRMED
        self.end(tenure.id)
        if (hand or trusted) and all(other.owner is not owner for other in self.held.values()):
            owner.copy = owner.taken = None

    def sweep(self, host: str, now: float, *, only_here: bool = False) -> None:
        """Look after every lease as the sweep of that host should."""
        for tenure in list(self.held.values()):
            here = tenure.owner.host == host and not tenure.owner.removed
            if here and not tenure.owner.alive:
                self.recover(tenure, here=True)
            elif only_here or tenure.until >= now:
                continue
            elif not here and now - tenure.until > LOST_OWNER_SECONDS:
                self.recover(tenure, here=False)
            else:
                self.free(tenure)

    def cancel(self) -> None:
        """Skip what waits, for good."""
        self.campaign = "cancelled"
        for duty in self.duties.values():
            self._close_cancelled(duty.batch)

    def reopen(self, state: State) -> tuple[int, int]:
        """Let what ended so wait again, with all its attempts; how many do, and how many said no."""
        ended = self.of_states({state})
        found = [duty for duty in ended if not self.refused(duty)]
        for duty in found:
            duty.state, duty.attempts, duty.due, duty.fence = State.QUEUED, 0, 0.0, None
            duty.asked += state is State.UNCONFIRMED
        return len(found), len(ended) - len(found)

    def _requeue(self, duty: Duty) -> None:
        duty.state, duty.due, duty.fence = State.QUEUED, 0.0, None

    def _close_cancelled(self, batch: int) -> None:
        if self.campaign == "cancelled":
            for duty in self.of(batch, WAITING):
                duty.state = State.SKIPPED


# -- what acts on the real thing -----------------------------------------------------------------------


@dataclass
class Sender:
    """A process that sends, as far as ledger and journal see it."""

    journal: Journal
    owner: Owner
    lease: Lease | None = None
    until: float = 0.0  #: when its lease ends, as far as it knows
    hand: deque[Claimed] = field(default_factory=deque)
    flying: dict[int, Claimed] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)
    stopped: bool = False

    def open(self) -> None:
        """Make sure of the copy, under another name where it is gone."""
        self.journal.open()
        self._rename()
        self.owner.copy = []

    def _rename(self) -> None:
        if self.journal.owner != self.owner.name:
            self.owner.removed, self.owner.alive = True, False
            self.owner = Owner(self.journal.owner, self.owner.host, self.owner.trusted)

    def begin(self, claimed: Claimed, *, copied: bool) -> bool:
        """Write that a dot is about to leave; False where the copy is out of our reach."""
        if copied and self.owner.copy is None:
            with pytest.raises(Unavailable):
                self.journal.begin(claimed.id)
            return False
        self.journal.begin(claimed.id)
        self.hand.remove(claimed)
        self.owner.pages.append(claimed.id)
        if self.owner.copy is not None:
            self.owner.copy += [*self.owner.later, claimed.id]
            self.owner.later.clear()
        return True

    def settle(self, outcome: Outcome) -> None:
        """Write how it ended."""
        self.note(outcome)
        self.outcomes.append(outcome)

    def note(self, outcome: Outcome) -> None:
        """Write it in the journal only."""
        self.journal.settle(outcome)
        self.owner.pages.append(outcome)
        self.owner.later.append(outcome)

    def put_off(self, until: float) -> None:
        """Leave what is in hand for later, for its pace."""
        self.outcomes += [Outcome(one.id, State.QUEUED, "pace", until, tried=False) for one in self.hand]
        self.hand.clear()

    def clear(self) -> None:
        """Forget everything."""
        self.journal.clear()
        self.owner.pages.clear()
        self.owner.later.clear()
        if self.owner.copy is not None:
            self.owner.copy = []
        self._rename()

    def succeed(self, *, copied: bool) -> None:
        """Leave the journal to the sweep, and go on under another."""
        self.owner.alive = False
        if copied:
            self.owner.copy = list(self.owner.pages)
        self.journal = self.journal.succeed()
        self.owner = Owner(self.journal.owner, self.owner.host, self.owner.trusted)

    def forget(self) -> None:
        """Let go of a batch."""
        self.lease, self.stopped = None, False
        self.hand.clear()
        self.flying.clear()
        self.outcomes = []

    def die(self) -> None:
        """Be gone: the kernel drops the lock."""
        self.owner.alive = False
        os.close(self.journal._file)


class Bells:
    """A doorbell that remembers what it rang."""

    def __init__(self) -> None:
        self.rung: deque[int] = deque()

    def launch(self, campaign_id: int) -> None:
        """The launch is whole before the machine starts."""

    def ring(self, batch_ids: Sequence[int]) -> None:
        """Remember batches."""
        self.rung.extend(batch_ids)

    def waiting(self) -> int:
        """Nobody ever hears us."""
        return 0


class Takeover(Copies):
    """The copies, and what happens just after one of them was taken."""

    then: Callable[[str], None] | None = None

    def take(self, owner: str) -> bytes | None:
        """Take it, and let things happen before the ledger hears of it."""
        lines = super().take(owner)
        if self.then is not None:
            self.then(owner)
        return lines


class Machine(RuleBasedStateMachine):
    """Everything that may happen to one campaign, in any order."""

    def __init__(self, database: Database, redis_socket: Path, folder: Path) -> None:
        super().__init__()
        self.database, self.folder = database, folder
        self.client = redis.Redis(unix_socket_path=str(redis_socket))
        self.now = 1_800_000_000.0
        self.ledger, self.docket, self.bells = Ledger(database), Docket(database), Bells()
        self.names = itertools.count(1)
        self.senders: list[Sender] = []

    def _build(self, plans: Plans) -> None:
        """Put together what acts on the store."""
        self.plans, self.takeover = plans, Takeover(self.client)
        self.campaigns = Campaigns(
            self.plans,
            self.docket,
            Tallies(self.database),
            self.bells,
            clock=lambda: self.now,
            two_people=False,
        )
        self.sweeps = {
            host: Sweep(
                self.plans,
                self.ledger,
                self.campaigns,
                self.bells,
                self.folder / host,
                lambda: self.now,
                copies=self.takeover if self.copies else None,
            )
            for host in HOSTS
        }

    @initialize(
        lasts=st.sampled_from([None, None, 150.0]),
        batch=st.sampled_from([1, 2, 4]),
        chunk=st.sampled_from([1, 2, 3]),
        copies=st.booleans(),
    )
    def launch(self, lasts: float | None, batch: int, chunk: int, *, copies: bool) -> None:
        """Write a campaign's deliveries."""
        self.client.flushdb()
        self.chunk, self.copies = chunk, copies
        self._build(Plans(self.database, batch))
        with self.database.write() as connection:
            for table in ("moves", "suppressions", "deliveries", "leases", "batches", "campaigns"):
                connection.exec_driver_sql(f"DELETE FROM {table}")
        lists = tuple(each.id for each in People(self.database).lists())
        deadline = None if lasts is None else self.now + lasts
        draft = Draft("a", "{}", Rule(lists), "d", "running", "op", "op", 0.0, "UTC", deadline)
        campaign = self.plans.record(draft, self.now)
        while self.plans.slice(campaign, 100, self.now):
            pass
        self.name, self.campaign_id, self.lists = campaign.name, campaign.id, lists
        query = "SELECT id, person_id, list_id, batch_id FROM deliveries ORDER BY id"
        duties = [Duty(*row) for row in self._ask(query)]
        self.book = Book(duties, copies=copies)
        self.book.deadline = deadline
        self.batches = sorted({duty.batch for duty in duties})

    def _ask(self, query: str) -> Sequence[Any]:
        with self.database.read() as connection:
            return connection.exec_driver_sql(query).all()

    @rule(data=st.data())
    def step(self, data: st.DataObject) -> None:
        """One of what may happen now, the likelier the more it leads somewhere."""
        paused = self.book.campaign == "paused"
        flying = [sender for sender in self._busy() if sender.flying]
        acts: list[tuple[Callable[[Draw], None], int]] = [
            (self.work, 8 if self._able() else 0),
            (self.answer, 3 if flying else 0),
            (self.lease, 4 if self._free() and self.book.campaign == "running" else 0),
            (self.give_back, 2 if len(flying) < len(self._busy()) else 0),
            (self.recheck, 1 if self._busy() else 0),
            (self.oversleep, 3 if self._able() else 0),
            (self.lose_power, 4 if self._unlucky() else 0),
            (self.fail, 1 if self.senders else 0),
            (self.wait, 3),
            (self.say, 1),
            (self.resume, 4 if paused else 0),
            (self.retry, 1 if self.book.of_states(ENDED) else 0),
        ]
        by_name = {act.__name__: act for act, _ in acts}
        names = [act.__name__ for act, weight in acts for _ in range(weight)]
        by_name[data.draw(st.sampled_from(names))](data.draw)

    # -- senders -----------------------------------------------------------------------------------

    def _busy(self) -> list[Sender]:
        return [sender for sender in self.senders if sender.lease]

    def _free(self) -> list[int]:
        """Return the batches in nobody's hands in which something is due."""
        due = {duty.batch for duty in self.book.of_states(WAITING) if duty.due <= self.now}
        return sorted(due - self.book.holder.keys())

    def _able(self) -> list[Sender]:
        return [sender for sender in self._busy() if not sender.stopped]

    def lease(self, draw: Draw) -> None:
        """A free process (or a new one) takes a batch; or the answer to that is lost on its way to it."""
        host, reboots = draw(st.sampled_from(HOSTS)), draw(st.booleans())
        sender = self._idle(host, reboots=reboots)
        lease = self._lease(sender, draw(st.sampled_from(self._free() * 3 + self.batches)))
        if lease is not None and draw(HEARD):
            sender.lease, sender.until = lease, lease.until

    def _idle(self, host: str, *, reboots: bool = False) -> Sender:
        free = (one for one in self.senders if not one.lease and one.owner.host == host)
        return next(free, None) or self._spawn(host, reboots=reboots)

    def _lease(self, sender: Sender, batch: int) -> Lease | None:
        if self.copies:
            sender.open()
        lease = self.ledger.lease(batch, sender.owner.name, self.now, self.now + LEASE_SECONDS)
        if lease is not None:
            self.book.leased(lease, sender.owner)
        return lease

    def _spawn(self, host: str, *, reboots: bool) -> Sender:
        boot = "before" if reboots else journal.boot_id()
        name = f"{boot}.{host}.{next(self.names)}"
        replica = Replica(self.client) if self.copies else None
        made = Sender(Journal(self.folder / host, name, replica), Owner(name, host, trusted=not reboots))
        self.senders.append(made)
        return made

    def work(self, draw: Draw) -> None:
        """Take a chunk if the hand is empty, and begin some: each is answered now or (None) later."""
        sender = _one(draw, self._able())
        if not sender.hand:
            self._advance(sender, self.chunk, heard=draw(HEARD))
        elif draw(st.sampled_from([False, False, True])):
            self._advance(sender, 0)
        while sender.hand and not sender.stopped:
            answer = draw(st.sampled_from((None, "enough", None, *ANSWERS, None, None)))
            if answer == "enough":
                break
            self._send(sender, answer)

    def _advance(self, sender: Sender, limit: int, *, heard: bool = True) -> None:
        """Settle the last chunk and take the next; or the answer to that is lost on its way."""
        lease = sender.lease
        assert lease is not None
        until = self.now + LEASE_SECONDS
        taken = self.ledger.advance(lease, sender.outcomes, limit, self.now, until)
        self.book.settle(lease, sender.outcomes)
        halt, due = self.book.take(lease, self.now, until)
        claimed = due[: len(taken.claimed)]  # who said no takes a place in the chunk
        assert [one.id for one in taken.claimed] == [duty.id for duty in claimed]
        assert bool(claimed) == bool(due and limit)
        assert len(claimed) <= limit
        assert taken.halt == ("" if halt == "empty" and not limit else halt)
        for duty in claimed:
            duty.state, duty.fence = State.SENDING, lease.id
        self._see_skipped()
        if not heard:
            sender.stopped = True
            return
        sender.outcomes = []
        sender.hand.extend(taken.claimed)
        sender.stopped = bool(taken.halt)
        sender.until = sender.until if taken.halt == "lost" else until

    def _see_skipped(self) -> None:
        """Take over from the store which of those who said no have been skipped so far."""
        for (number,) in self._ask("SELECT id FROM deliveries WHERE reason = 'suppressed'"):
            duty = self.book.duties[number]
            if duty.state in WAITING and self.book.refused(duty):
                duty.state = State.SKIPPED

    def _send(self, sender: Sender, answer: Reply | str | None) -> None:
        """Begin one; past its lease, or with its copy taken away, a sender learns here that it is late."""
        if self._renewed(sender):
            self._begin(sender, answer)
        else:
            sender.stopped = True

    def _begin(self, sender: Sender, answer: Reply | str | None) -> None:
        claimed = sender.hand[0]
        if not sender.begin(claimed, copied=self.copies):
            sender.stopped = True
            return
        duty = self.book.duties[claimed.id]
        duty.arrived += 1
        assert duty.arrived <= 1 + duty.asked, "mailed twice"
        sender.flying[claimed.id] = claimed
        if answer is not None:
            self._answer(sender, claimed.id, answer)

    def _renewed(self, sender: Sender) -> bool:
        """Whether the lease still stands, as far as the sender knows, or could be renewed."""
        assert sender.lease is not None
        if self.now <= sender.until:
            return True
        sender.until = self.now + LEASE_SECONDS
        renewed = self.ledger.renew(sender.lease, sender.until)
        assert renewed == (self.book.holder.get(sender.lease.batch_id) == sender.lease.id)
        if renewed:
            self.book.held[sender.lease.id].until = sender.until
        return renewed

    def answer(self, draw: Draw) -> None:
        """What was in the air is answered, or its link breaks."""
        sender = _one(draw, [one for one in self._busy() if one.flying])
        number = draw(st.sampled_from(list(sender.flying)))
        self._answer(sender, number, draw(st.sampled_from(ANSWERS)))

    def _answer(self, sender: Sender, number: int, answer: Reply | str) -> None:
        claimed, duty = sender.flying.pop(number), self.book.duties[number]
        if answer == BROKEN_LINK:
            duty.arrived -= 1
            sender.note(Outcome(number, State.QUEUED, "link lost", tried=False))
            sender.hand.appendleft(claimed)
            return
        if isinstance(answer, str):
            sender.settle(Outcome(number, State.UNCONFIRMED, "link lost after the dot"))
            return
        duty.accepted += answer.accepted
        duty.arrived -= not answer.accepted
        assert sender.lease is not None
        step = next_step(
            answer,
            attempt=claimed.attempts + 1,
            now=self.now,
            deadline=sender.lease.deadline,
            jitter=0.5,
            policy=POLICY,
        )
        due = self.now + step.wait if step.trouble else step.due_at or 0.0
        sender.settle(Outcome(number, step.state, step.reason, due, tried=not step.trouble, code=answer.code))

    def recheck(self, draw: Draw) -> None:
        """Hold what is in hand against what was said since; perhaps put the rest off, for its pace."""
        sender = _one(draw, self._busy())
        lease = sender.lease
        assert lease is not None
        halt, said_no = self.ledger.recheck(lease, self.now)
        expected = self._halt(lease)
        wanted = {duty.id for duty in self.book.hand(lease.id) if self.book.refused(duty)}
        assert (halt, said_no) == (expected, set() if expected else wanted)
        for claimed in [one for one in sender.hand if one.id in said_no]:
            sender.hand.remove(claimed)
            sender.outcomes.append(Outcome(claimed.id, State.SKIPPED, "suppressed", tried=False))
        sender.stopped |= bool(halt)
        if not halt and draw(st.booleans()):
            sender.until = self.now + LEASE_SECONDS
            assert self.ledger.renew(lease, sender.until)
            self.book.held[lease.id].until = sender.until
        if draw(st.sampled_from([False, False, True])):
            sender.put_off(self.now + 30)

    def _halt(self, lease: Lease) -> str:
        if self.book.holder.get(lease.batch_id) != lease.id:
            return "lost"
        if self.book.campaign != "running":
            return self.book.campaign
        return "expired" if self.book.late(self.now) else ""

    def oversleep(self, draw: Draw) -> None:
        """A sender is stopped until another machine has taken over and sends its batch; then it goes on.

        By chance it is stopped between its look at the lease and its note of a dot, and goes on when its
        copy has just been read: only that it is out of its reach by then can keep that dot from leaving.
        """
        sender = _one(draw, self._able())
        if not sender.hand:
            self._advance(sender, self.chunk)
        if not sender.hand:
            return
        (other,) = set(HOSTS) - {sender.owner.host}
        if draw(st.booleans()) and self._renewed(sender):
            self.now += 130.0
            self._sweep_at_a_dot(other, sender, draw(st.sampled_from((None, *ANSWERS))))
            self._inherit(other, sender)
        else:
            sender.put_off(self.now + 30)
            self.now += 130.0
            self._sweep(other)
            self._inherit(other, sender)
            self._advance(sender, self.chunk)

    def _sweep_at_a_dot(self, host: str, sender: Sender, answer: Reply | str | None) -> None:
        """Sweep, and wake a sender up in the middle of its being taken over, or after."""
        asleep = [sender]

        def wake(owner: str) -> None:
            if owner == sender.owner.name and asleep:
                sender.owner.take()
                self._begin(asleep.pop(), answer)

        self.takeover.then = wake
        self._sweep(host)
        self.takeover.then = None
        if asleep:
            self._begin(sender, answer)

    def _inherit(self, host: str, sleeper: Sender) -> None:
        """Let somebody else take the batch, where it is free, and a chunk of it."""
        assert sleeper.lease is not None
        batch = sleeper.lease.batch_id
        if batch in self._free() and self.book.campaign == "running":
            heir = self._idle(host)
            heir.lease = self._lease(heir, batch)
            assert heir.lease is not None
            heir.until = heir.lease.until
            self._advance(heir, self.chunk)

    def _unlucky(self) -> list[Sender]:
        return [sender for sender in self._able() if not sender.owner.trusted]

    def lose_power(self, draw: Draw) -> None:
        """A process goes with its machine in mid-work, and its journal has lost its end."""
        sender = _one(draw, self._unlucky())
        if not sender.hand:
            self._advance(sender, self.chunk)
        for _ in range(4):
            if sender.hand and not sender.stopped:
                self._send(sender, draw(st.sampled_from((BROKEN_LINK, ANSWERS[2], None))))
        self._crash(sender, at_a_dot=False, kept=draw(st.integers(0, len(sender.owner.pages))))

    def give_back(self, draw: Draw) -> None:
        """Settle the last chunk and give the rest back."""
        sender = _one(draw, [one for one in self._busy() if not one.flying])
        self._give_back(sender, draw(st.sampled_from([0.0, 30.0])))
        sender.clear()
        sender.forget()

    def _give_back(self, sender: Sender, rest: float = 0.0) -> None:
        lease = sender.lease
        assert lease is not None
        self.ledger.give_back(lease, sender.outcomes, self.now, rest)
        self.book.settle(lease, sender.outcomes)
        self.book.end(lease.id)

    def fail(self, draw: Draw) -> None:
        """A process dies, or takes what went wrong for its death; or its machine is gone."""
        sender = _one(draw, self.senders)
        how = draw(st.sampled_from(FAILURES))
        if how == "machine":
            self._lose(sender.owner.host)
        elif how.startswith("dies") or not sender.lease:
            self._crash(sender, at_a_dot=how.endswith("dot"), kept=draw(st.integers(0, 8)))
        else:
            if how == "commits unheard" and not sender.hand and not sender.stopped:
                self._advance(sender, self.chunk)
            elif how == "ends unheard" and not sender.flying:
                self._give_back(sender)
            self._stumble(sender)

    def _stumble(self, sender: Sender) -> None:
        """Leave the journal to the sweep, whatever may have been committed, and go on under another."""
        sender.succeed(copied=self.copies)
        sender.forget()

    def _crash(self, sender: Sender, *, at_a_dot: bool, kept: int) -> None:
        """Die, perhaps between the note of a dot and the dot; a reboot cuts the journal short."""
        if at_a_dot and sender.hand and not sender.stopped:
            sender.begin(sender.hand[0], copied=self.copies)
        sender.die()
        self.senders.remove(sender)
        if not sender.owner.trusted:
            lines = sender.journal._path.read_bytes().splitlines(keepends=True)
            assert len(lines) == len(sender.owner.pages)
            sender.journal._path.write_bytes(b"".join(lines[:kept]))
            del sender.owner.pages[kept:]

    def _lose(self, host: str) -> None:
        """Lose a machine with everything on it."""
        for sender in [one for one in self.senders if one.owner.host == host]:
            sender.die()
            self.senders.remove(sender)
        for tenure in self.book.held.values():
            tenure.owner.removed |= tenure.owner.host == host
        shutil.rmtree(self.folder / host, ignore_errors=True)

    # -- everybody else ----------------------------------------------------------------------------

    def wait(self, draw: Draw) -> None:
        """Time passes, and here and there somebody looks after things."""
        self.now += draw(st.sampled_from([130.0, 25.0, 0.0, 130.0]))
        only_here = draw(st.sampled_from([False, False, False, True]))
        for host in draw(st.sampled_from([HOSTS, (), HOSTS[:1], HOSTS[1:]])):
            self._sweep(host, only_here=only_here)

    def _sweep(self, host: str, *, only_here: bool = False) -> None:
        """Do the tick of one machine, or what a new process there does first."""
        if only_here:
            self.sweeps[host].recover()
        else:
            self.sweeps[host].run()
        self.book.sweep(host, self.now, only_here=only_here)
        ((found,),) = self._ask("SELECT state FROM campaigns")
        if not only_here and found != self.book.campaign:  # it is whole, or was opened again by who came late
            assert {found, self.book.campaign} == {"running", "finished"}
            assert (found == "running") == bool(self.book.of_states(OPEN))
            self.book.campaign = found

    def say(self, draw: Draw) -> None:
        """Somebody says no, to everything or one list; the operator says stop, or never; Redis forgets."""
        what = draw(st.sampled_from(["no", "no", "no", "pause", "flush", "cancel"]))
        if what == "no":
            scope = draw(st.sampled_from([EVERYTHING, *map(list_scope, self.lists)]))
            self._suppress(draw(st.integers(1, PEOPLE)), scope)
        elif what == "flush":
            self.client.flushdb()
            for owner in [tenure.owner for tenure in self.book.held.values()]:
                owner.copy = owner.taken = None
            for sender in self.senders:
                sender.owner.copy = sender.owner.taken = None
        else:
            self._order(what)

    def resume(self, draw: Draw) -> None:
        """The operator says go."""
        del draw
        self._order("resume")

    def _suppress(self, person: int, scope: str) -> None:
        entry = Suppression(_key(person), scope, "opt-out", "one-click", self.now)
        Suppressions(self.database).add([entry])
        self.book.said_no.add((person, scope))

    def _order(self, order: str) -> None:
        came_from = {"pause": {"running", "paused"}, "resume": {"paused"}, "cancel": {"running", "paused"}}
        try:
            getattr(self.campaigns, order)(self.name, "alice")
        except Refused:
            assert self.book.campaign not in came_from[order]
            return
        assert self.book.campaign in came_from[order]
        if order == "cancel":
            self.book.cancel()
        else:
            self.book.campaign = {"pause": "paused", "resume": "running"}[order]

    def retry(self, draw: Draw) -> None:
        """The operator has sent again what ended so, or (None) takes it that what is in doubt arrived."""
        state = draw(st.sampled_from([State.BOUNCED, State.EXPIRED, State.UNCONFIRMED, None]))
        if state is None:
            self._accept()
        elif self.book.campaign == "cancelled":
            with pytest.raises(Refused):
                self.campaigns.retry(self.name, [state], None, "alice")
        else:
            until = draw(st.sampled_from([None, self.now + 200.0]))
            found = self.campaigns.retry(self.name, [state], until, "alice")
            assert (found.opened, found.left_out) == self.book.reopen(state)
            if found.opened:
                self.book.campaign = "running"
                self.book.deadline = until or self.book.deadline

    def _accept(self) -> None:
        found = self.book.of_states({State.UNCONFIRMED})
        assert self.campaigns.accept(self.name, "alice") == len(found)
        for duty in found:
            duty.state = State.SENT
            duty.accepted = max(duty.accepted, 1)  # on the operator's word

    # -- what must hold ----------------------------------------------------------------------------

    @invariant()
    def all_holds(self) -> None:
        """After every step, all of it."""
        self.the_store_says_what_the_model_says()
        self.no_move_is_illegal()
        self.what_arrived_is_believed()

    def the_store_says_what_the_model_says(self) -> None:
        """State, attempts, and whose hand it is in, delivery by delivery."""
        found = {
            number: (state, attempts, lease if state == "sending" else None)
            for number, state, attempts, lease in self._ask(
                "SELECT id, state, attempts, lease_id FROM deliveries"
            )
        }
        assert found == {
            duty.id: (duty.state, duty.attempts, duty.fence if duty.state is State.SENDING else None)
            for duty in self.book.duties.values()
        }
        assert self._ask("SELECT state FROM campaigns") == [(self.book.campaign,)]
        held = self._ask("SELECT id FROM leases WHERE ended_at IS NULL")
        assert {number for (number,) in held} == self.book.held.keys()

    def no_move_is_illegal(self) -> None:
        """Whatever any statement did to any row is a move that a delivery may make."""
        moves = self._ask("SELECT DISTINCT came, went FROM moves")
        assert [(came, went) for came, went in moves if not allowed(State(came), State(went))] == []

    def what_arrived_is_believed(self) -> None:
        """Nobody whose mail was taken is thought to be without it, unless somebody asked for another."""
        for duty in self.book.duties.values():
            if duty.accepted and not duty.asked:
                assert duty.state in {State.SENDING, State.SENT, State.UNCONFIRMED}
            if duty.arrived > duty.asked:  # else it would go twice
                assert duty.state not in WAITING
            if duty.state is State.SENT:
                assert duty.accepted

    def teardown(self) -> None:
        """Whatever happened, it comes to an end by itself, and adds up."""
        try:
            if sys.exc_info()[0] is None:  # else it has failed already, and says so
                self._drain()
        finally:
            for sender in self.senders:
                sender.die()
            self.client.connection_pool.disconnect()
            shutil.rmtree(self.folder, ignore_errors=True)

    def _drain(self) -> None:
        for sender in self._busy():
            for number in list(sender.flying):
                self._answer(sender, number, ANSWERS[0])
            self._give_back(sender)
        for sender in self.senders:
            sender.die()
        self.senders.clear()
        if self.book.campaign == "paused":
            self._order("resume")
        for _ in range(60):
            whole = not self.book.held and not self.book.of_states(OPEN)
            if whole and self.book.campaign in {"finished", "cancelled"}:
                break
            self.now += 20.0
            for host in HOSTS:
                self._sweep(host)
            while self.bells.rung:
                self._serve(self.bells.rung.popleft())
            self.the_store_says_what_the_model_says()
        assert self.book.of_states(OPEN) == []
        assert self.book.held == {}
        self.no_move_is_illegal()
        self.what_arrived_is_believed()
        proof = self.campaigns.verify(self.name)
        assert proof.holds
        assert proof.audience == PEOPLE

    def _serve(self, batch: int) -> None:
        """Do what a worker does when a bell rings, with a mail server that takes everything."""
        sender = self._spawn("here", reboots=False)
        sender.lease = self._lease(sender, batch)
        if sender.lease is not None:
            sender.until = sender.lease.until
            while not sender.stopped:
                self._advance(sender, self.chunk)
                while sender.hand:
                    self._send(sender, ANSWERS[0])
            self._give_back(sender)
        sender.die()
        self.senders.remove(sender)


def _one(draw: Draw, senders: Sequence[Sender]) -> Sender:
    """Choose by number, which is all that the report of a failure need show."""
    return senders[draw(st.integers(0, len(senders) - 1))]


def _key(number: int) -> bytes:
    return number.to_bytes(16, "big")


@pytest.fixture
def watched(database: Database) -> Database:
    """A store with people on two lists, whose every move of a delivery is noted by a trigger."""
    if database.is_sqlite:  # no power is cut here
        sa.event.listen(database.engine, "connect", lambda dbapi, _: dbapi.execute("PRAGMA synchronous=OFF"))
        database.close()
    with database.write() as connection:
        for statement in _TRIGGERS[connection.dialect.name]:
            connection.exec_driver_sql(statement)
    people = People(database)
    for slug, numbers in (("one", range(1, PEOPLE + 1)), ("two", range(3, PEOPLE + 1))):
        opened = people.begin_import()
        consent = people.consent_ids([("consent", "form", "")])[0]
        opened.add([Staged(_key(n), n, b"sealed", "other", consent, 1.0) for n in numbers])
        opened.finish(slug, slug, 1.0)
    return database


def test_whatever_happens_the_ledger_keeps_its_books(watched: Database, tmp_path: Path) -> None:
    """Nobody is mailed twice unasked, no move is illegal, nothing stays open, all is as modelled."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    folders = (tmp_path / str(number) for number in itertools.count())
    with broker.running(tmp_path / "state") as private:
        run_state_machine_as_test(
            lambda: Machine(watched, private.socket, next(folders)),  # type: ignore[arg-type]  # any factory does
            settings=settings(
                max_examples=50 if watched.is_sqlite else 20,
                stateful_step_count=40,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
