"""A pause, fewer mails and an opt-out taken back hold at the plan, at the launch and at the claim."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa

from worker.deliveries import State
from worker.store.audience import Rule
from worker.store.database import Database
from worker.store.dossiers import Dossiers
from worker.store.ledger import Lease, Ledger, Outcome
from worker.store.people import People
from worker.store.plans import Campaign, Draft, Plans
from worker.store.schema import batches, deliveries, suppressions
from worker.store.staging import Staged
from worker.store.suppressions import BY_PAGE, EVERYTHING, FEWER, UNDO_SECONDS, Suppression, Suppressions
from worker.store.wishes import REST_SECONDS, Wishes, end_due, standing, take_back, wish

ANNA, BEN = b"a" * 16, b"b" * 16


class Bench:
    """Two people on one list, and campaigns to them."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self.database, self.clock = database, clock
        self.plans, self.ledger = Plans(database, batch_size=10), Ledger(database)
        people = People(database)
        consent = people.consent_ids([("consent", "a form", "I agree")])[0]
        opened = people.begin_import()
        opened.add([Staged(key, n, b"sealed", "other", consent, 1.0) for n, key in ((1, ANNA), (2, BEN))])
        opened.finish("people", "People", 1.0)
        self.rule = Rule((people.find_lists(["people"])[0].id,))

    def wish(self, key: bytes, **wishes: object) -> None:
        """Let somebody wish."""
        with self.database.write() as connection:
            wish(connection, key, Wishes(**wishes), self.clock())

    def planned(self) -> dict[str, int]:
        """Count what a plan says."""
        found: Counter[str] = Counter()
        for kind in self.plans.kinds(self.rule):
            found[kind.reason] += kind.count
        return dict(found)

    def launched(self) -> Campaign:
        """Launch a campaign to all of them."""
        draft = Draft("appeal", "{}", self.rule, "d" * 64, "running", "op", "op", 0.0, "UTC", None)
        campaign = self.plans.record(draft, 1.0)
        while self.plans.slice(campaign, 10, self.clock()):
            pass
        return campaign

    def leased(self, campaign: Campaign) -> Lease:
        """Take its one batch in hand."""
        with self.database.read() as connection:
            query = sa.select(batches.c.id).where(batches.c.campaign_id == campaign.id)
            number = connection.execute(query).scalar_one()
        lease = self.ledger.lease(number, "me", self.clock(), self.clock() + 60)
        assert lease is not None
        return lease

    def claimed(self, lease: Lease, outcomes: Sequence[Outcome] = ()) -> dict[bytes, int]:
        """Claim all of it; return whose mail is in hand now."""
        now = self.clock()
        taken = self.ledger.advance(lease, outcomes, 10, now, now + 60)
        with self.database.read() as connection:
            query = sa.select(deliveries.c.address_key, deliveries.c.id)
            query = query.where(deliveries.c.id.in_([one.id for one in taken.claimed]))
            return {row.address_key: row.id for row in connection.execute(query)}

    def states(self, key: bytes) -> list[tuple[str, str]]:
        """Return how somebody's deliveries stand, the oldest first."""
        query = sa.select(deliveries.c.state, deliveries.c.reason).where(deliveries.c.address_key == key)
        with self.database.read() as connection:
            return [tuple(row) for row in connection.execute(query.order_by(deliveries.c.id))]

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """Give a transaction."""
        with self.database.write() as connection:
            yield connection


@pytest.fixture
def bench(database: Database, clock: Callable[[], float]) -> Bench:
    """The bench, on each kind of database."""
    return Bench(database, clock)


def test_a_pause_holds_everywhere_until_its_day_and_no_longer(bench: Bench, clock: Any) -> None:
    """Plan, launch and claim leave out who pauses; the tick ends it, and only what has a date."""
    under_way = bench.leased(bench.launched())
    bench.wish(ANNA, paused_until=clock() + 90)
    Suppressions(bench.database).add([Suppression(BEN, EVERYTHING, "complaint", "x", clock())])
    assert bench.claimed(under_way) == {}
    assert bench.planned() == {"suppressed": 2}
    bench.launched()
    assert bench.states(ANNA) == [("skipped", "suppressed")] * 2
    clock.forward(89)
    assert end_due(bench.database, clock()) == 0
    clock.forward(1)
    assert end_due(bench.database, clock()) == 1
    assert bench.planned() == {"": 1, "suppressed": 1}
    assert set(bench.claimed(bench.leased(bench.launched()))) == {ANNA}


def test_a_pause_neither_shortens_nor_lifts_a_no(bench: Bench, clock: Any) -> None:
    """Who has said no and then asks for a pause is left alone for good."""
    Suppressions(bench.database).add([Suppression(ANNA, EVERYTHING, "opt-out", "one-click", clock())])
    bench.wish(ANNA, paused_until=clock() + 90)
    bench.wish(ANNA, paused_until=None)
    bench.wish(ANNA, paused_until=clock() + 30)
    clock.forward(31)
    end_due(bench.database, clock())
    assert bench.planned() == {"": 1, "suppressed": 1}


def test_fewer_means_one_mail_in_thirty_days(bench: Bench, clock: Any) -> None:
    """The claim of one begins the rest: no other is claimed in it, and tries of the first go on."""
    bench.wish(ANNA, fewer=True)
    first, second = bench.leased(bench.launched()), bench.leased(bench.launched())
    number = bench.claimed(first)[ANNA]
    assert bench.ledger.recheck(first, clock()) == ("", set())
    assert set(bench.claimed(second)) == {BEN}
    assert bench.planned() == {"": 1, "suppressed": 1}
    # Deferred, it is tried again: its own rest is not in its way.
    clock.forward(10)
    again = bench.claimed(first, [Outcome(number, State.DEFERRED, due_at=clock())])
    assert again == {ANNA: number}
    bench.claimed(first, [Outcome(number, State.SENT)])
    clock.forward(REST_SECONDS - 11)
    end_due(bench.database, clock())
    assert set(bench.claimed(bench.leased(bench.launched()))) == {BEN}
    clock.forward(1)
    end_due(bench.database, clock())
    assert set(bench.claimed(bench.leased(bench.launched()))) == {ANNA, BEN}
    assert [state for state, _ in bench.states(ANNA)] == ["sent", "skipped", "skipped", "sending"]


def test_fewer_counts_from_the_last_mail(bench: Bench, clock: Any) -> None:
    """Who asks for fewer mails the day after one gets none for the rest of the thirty days."""
    lease = bench.leased(bench.launched())
    number = bench.claimed(lease)[ANNA]
    bench.claimed(lease, [Outcome(number, State.SENT)])
    clock.forward(86_400)
    bench.wish(ANNA, fewer=True)
    assert bench.planned() == {"": 1, "suppressed": 1}
    with bench.database.read() as connection:
        assert standing(connection, ANNA) == Wishes(None, fewer=True)
        ends = connection.execute(sa.select(suppressions.c.ends_at).where(suppressions.c.scope == "rest"))
        assert ends.scalar_one() == clock() - 86_400 + REST_SECONDS
    bench.wish(ANNA, fewer=False)
    assert bench.planned() == {"": 2}


def test_two_campaigns_at_the_same_moment(bench: Bench) -> None:
    """Eight senders claim the same person at once: one has them."""
    bench.wish(ANNA, fewer=True)
    leases = [bench.leased(bench.launched()) for _ in range(8)]
    with ThreadPoolExecutor(8) as senders:
        claims = list(senders.map(bench.claimed, leases))
    assert sum(ANNA in claim for claim in claims) == 1
    assert sum(BEN in claim for claim in claims) == 8


def said(bench: Bench, source: str, reason: str = "opt-out", key: bytes = ANNA) -> None:
    """Let somebody say no."""
    Suppressions(bench.database).add([Suppression(key, EVERYTHING, reason, source, bench.clock())])


def test_an_opt_out_is_taken_back_whole_and_once(bench: Bench, clock: Any) -> None:
    """What the page wrote goes; what it did not write, or not at that moment, stays."""
    number = bench.claimed(bench.leased(bench.launched()))[ANNA]
    bench.wish(ANNA, fewer=True)
    said(bench, BY_PAGE)
    said(bench, BY_PAGE, key=BEN)
    with bench.writing() as connection:
        assert not take_back(connection, number, EVERYTHING, clock() + 1)
        assert not take_back(connection, number + 99, EVERYTHING, clock())
        assert not take_back(connection, number, "list:1", clock())
        assert take_back(connection, number, EVERYTHING, clock())
        assert not take_back(connection, number, EVERYTHING, clock())
    found = Suppressions(bench.database)
    assert {one.scope for one in found.find(ANNA)} == {FEWER, "rest"}
    assert [one.scope for one in found.find(BEN)] == [EVERYTHING]


@pytest.mark.parametrize(
    "repeated", [("one-click", "opt-out"), ("feedback report", "complaint"), ("cli", "operator")]
)
def test_a_no_that_was_repeated_cannot_be_taken_back(
    bench: Bench, clock: Any, repeated: tuple[str, str]
) -> None:
    """A complaint after the press of the button stands, whatever the button's page offers."""
    number = bench.claimed(bench.leased(bench.launched()))[ANNA]
    pressed = clock()
    said(bench, BY_PAGE)
    clock.forward(60)
    said(bench, *repeated)
    with bench.writing() as connection:
        assert not take_back(connection, number, EVERYTHING, pressed)
    (found,) = Suppressions(bench.database).find(ANNA)
    assert (found.source, found.reason, found.created_at) == (*repeated, clock())
    # Later than it could be taken back, it stays what it was.
    said(bench, BY_PAGE, key=BEN)
    clock.forward(UNDO_SECONDS)
    said(bench, *repeated, key=BEN)
    assert Suppressions(bench.database).find(BEN)[0].source == BY_PAGE


def test_who_is_forgotten_keeps_the_no_and_no_wish(bench: Bench, clock: Any) -> None:
    """An erasure leaves nothing of a pause behind, nor can an earlier opt-out be taken back after it."""
    number = bench.claimed(bench.leased(bench.launched()))[ANNA]
    bench.wish(ANNA, paused_until=clock() + 90, fewer=True)
    said(bench, BY_PAGE)
    Dossiers(bench.database).erase([ANNA], "page", clock())
    with bench.writing() as connection:
        assert not take_back(connection, number, EVERYTHING, clock())
    assert [one.scope for one in Suppressions(bench.database).find(ANNA)] == [EVERYTHING]
    assert [one.address_key for one in Suppressions(bench.database).all()] == [ANNA]
