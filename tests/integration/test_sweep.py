"""A machine is gone with its journals: what its senders had in hand is settled from another, exactly."""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import redis
import sqlalchemy as sa
import structlog

from worker import broker, journal
from worker.campaigns import Campaigns
from worker.deliveries import State
from worker.errors import Unavailable
from worker.journal import Journal
from worker.replica import Copies, Replica
from worker.store.audience import Rule
from worker.store.database import Database
from worker.store.docket import Docket
from worker.store.ledger import Lease, Ledger, Outcome
from worker.store.people import People
from worker.store.plans import Draft, Plans
from worker.store.schema import deliveries
from worker.store.staging import Staged
from worker.store.tallies import Tallies
from worker.sweep import LOST_OWNER_SECONDS, Sweep

PEOPLE = 12
LEASE_SECONDS = 60.0


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator["redis.Redis"]:
    """A private Redis."""
    with broker.running(tmp_path_factory.mktemp("state")) as private:
        made = redis.Redis(unix_socket_path=str(private.socket))
        yield made
        made.close()


class Bells:
    """A doorbell that nobody hears."""

    def launch(self, campaign_id: int) -> None:
        """Ring nobody."""

    def ring(self, batch_ids: Sequence[int]) -> None:
        """Ring nobody."""

    def waiting(self) -> int:
        """Nobody waits."""
        return 0


class Host:
    """A machine with one sender that has a batch of twelve in hand."""

    def __init__(self, house: "House", name: str, boot: str | None = None) -> None:
        """Start the sender; no copy stands yet."""
        self._house = house
        self.folder = house.folder / name
        owner = f"{boot or journal.boot_id()}.{name}.1.x"
        self.journal = Journal(self.folder, owner, Replica(house.client))
        self.sweep = house.sweep(self.folder)

    def take(self) -> list[int]:
        """Lease the batch and take all of it; return the deliveries."""
        house, now = self._house, self._house.clock()
        self.journal.open()
        self.lease = house.take_lease(self.journal.owner)
        taken = house.ledger.advance(self.lease, [], PEOPLE, now, now + LEASE_SECONDS)
        return [one.id for one in taken.claimed]

    def answer(self, number: int, state: State = State.SENT, code: int = 250) -> None:
        """Write down what the relay said."""
        self.journal.settle(Outcome(number, state, "said so", code=code, text="in the server's words"))

    def die(self) -> None:
        """Lose power: the kernel's locks are gone."""
        os.close(self.journal._file)

    def vanish(self) -> None:
        """Die and never come back."""
        self.die()
        shutil.rmtree(self.folder)


class House:
    """One campaign to twelve people, and the machine where the tick runs."""

    def __init__(
        self, database: Database, client: "redis.Redis", folder: Path, clock: Callable[[], float]
    ) -> None:
        """Launch it."""
        self.database, self.client, self.folder, self.clock = database, client, folder, clock
        self.ledger, self.plans = Ledger(database), Plans(database, batch_size=100)
        self.people = People(database)
        opened = self.people.begin_import()
        consent = self.people.consent_ids([("consent", "form", "")])[0]
        rows = [
            Staged(n.to_bytes(16, "big"), n, b"sealed", "other", consent, 1.0) for n in range(1, PEOPLE + 1)
        ]
        opened.add(rows)
        opened.finish("one", "One", 1.0)
        rule = Rule((self.people.find_lists(["one"])[0].id,))
        campaign = self.plans.record(
            Draft("a", "{}", rule, "d", "running", "op", "op", 0.0, "UTC", None), 1.0
        )
        while made := self.plans.slice(campaign, 100, clock()):
            (self.batch,) = made
        self.tick = self.sweep(folder / "control")

    def sweep(self, journals: Path, client: "redis.Redis | None" = None) -> Sweep:
        """Make the sweep of a machine."""
        campaigns = Campaigns(
            self.plans,
            Docket(self.database),
            Tallies(self.database),
            Bells(),
            clock=self.clock,
            two_people=False,
        )
        copies = Copies(client or self.client)
        return Sweep(self.plans, self.ledger, campaigns, Bells(), journals, self.clock, copies=copies)

    def take_lease(self, owner: str) -> Lease:
        """Lease the batch, which must be free."""
        now = self.clock()
        lease = self.ledger.lease(self.batch, owner, now, now + LEASE_SECONDS)
        assert lease is not None
        return lease

    def wait(self) -> None:
        """Let so much time pass that an owner elsewhere counts as lost."""
        self.clock.forward(LEASE_SECONDS + LOST_OWNER_SECONDS + 1)

    def states(self) -> dict[int, str]:
        """How each delivery stands."""
        with self.database.read() as connection:
            return dict(connection.execute(sa.select(deliveries.c.id, deliveries.c.state)).all())

    def tally(self) -> dict[str, int]:
        """How many are in each state."""
        found = list(self.states().values())
        return {state: found.count(state) for state in set(found)}


@pytest.fixture
def house(
    postgres_url: str, client: "redis.Redis", tmp_path: Path, clock: Callable[[], float]
) -> Iterator[House]:
    """A launched campaign on PostgreSQL: with SQLite no second machine sends."""
    client.flushall()
    database = Database(postgres_url)
    database.upgrade()
    yield House(database, client, tmp_path, clock)
    database.close()


def _nothing(_host: Host, _taken: list[int]) -> None:
    """It dies with everything in hand and nothing begun."""


def _begun(host: Host, taken: list[int]) -> None:
    host.journal.begin(taken[0])


def _answered(host: Host, taken: list[int]) -> None:
    """The outcome waits for the next dot; still one message on one connection."""
    host.journal.begin(taken[0])
    host.answer(taken[0])


def _one_after_the_other(host: Host, taken: list[int]) -> None:
    for number in taken[:5]:
        host.journal.begin(number)
        host.answer(number)
    host.journal.begin(taken[5])


def _four_connections(host: Host, taken: list[int]) -> None:
    for number in taken[:4]:
        host.journal.begin(number)
    for at in range(4):
        host.answer(taken[at])
        host.journal.begin(taken[at + 4])


def _all_kinds(host: Host, taken: list[int]) -> None:
    kinds = (State.SENT, State.DEFERRED, State.BOUNCED, State.EXPIRED, State.QUEUED, State.UNCONFIRMED)
    for number, state in zip(taken, kinds, strict=False):
        host.journal.begin(number)
        host.answer(number, state)
    host.journal.begin(taken[6])


def _begun_again(host: Host, taken: list[int]) -> None:
    host.journal.begin(taken[0])
    host.answer(taken[0], State.QUEUED)
    host.journal.begin(taken[0])


def _all_answered_then_failed(host: Host, taken: list[int]) -> None:
    """An unexpected failure: the process lives, and left this journal for a sweep that cannot see it."""
    for number in taken[:3]:
        host.journal.begin(number)
        host.answer(number)
    host.journal = host.journal.succeed()


def _flushed_then_failed(host: Host, taken: list[int]) -> None:
    """Redis forgets; the process notices, and puts down what it knows before the machine is lost."""
    host.journal.begin(taken[0])
    host._house.client.flushall()
    with pytest.raises(Unavailable):
        host.journal.begin(taken[1])
    host.answer(taken[0])
    host.journal = host.journal.succeed()


def _flushed(host: Host, taken: list[int]) -> None:
    """Redis forgets, and before anybody notices the machine is lost."""
    host.journal.begin(taken[0])
    host._house.client.flushall()


def _strange_list(host: Host, taken: list[int]) -> None:
    host.journal.begin(taken[0])
    key = f"tocsin:journal:{host.journal.owner}"
    host._house.client.lset(key, 0, b"H\tsomebody else\tsome run\n")


def _garbage(host: Host, taken: list[int]) -> None:
    host.journal.begin(taken[0])
    host._house.client.rpush(f"tocsin:journal:{host.journal.owner}", b"\xff\x00\tR\n")


def _huge_numbers(host: Host, taken: list[int]) -> None:
    """Numbers of nobody's delivery are nobody's."""
    host.journal.begin(taken[0])
    lines = (b"D\t%d\n" % 2**70, b"R\t-1\tsent\taccepted\t0.0\t1\t250\t\t\n")
    host._house.client.rpush(f"tocsin:journal:{host.journal.owner}", *lines)


@pytest.mark.parametrize(
    ("act", "expected"),
    [
        (_nothing, {"queued": 12}),
        (_begun, {"unconfirmed": 1, "queued": 11}),
        (_answered, {"unconfirmed": 1, "queued": 11}),
        (_one_after_the_other, {"sent": 5, "unconfirmed": 1, "queued": 6}),
        (_four_connections, {"sent": 4, "unconfirmed": 4, "queued": 4}),
        (_all_kinds, {"sent": 1, "deferred": 1, "bounced": 1, "expired": 1, "unconfirmed": 2, "queued": 6}),
        (_begun_again, {"unconfirmed": 1, "queued": 11}),
        (_all_answered_then_failed, {"sent": 3, "queued": 9}),
        (_flushed_then_failed, {"sent": 1, "queued": 11}),
        (_flushed, {"unconfirmed": 12}),
        (_strange_list, {"unconfirmed": 12}),
        (_garbage, {"unconfirmed": 12}),
        (_huge_numbers, {"unconfirmed": 1, "queued": 11}),
    ],
)
def test_a_lost_machine_leaves_one_doubt_a_connection(
    house: House, act: Callable[[Host, list[int]], None], expected: dict[str, int]
) -> None:
    """Answered is settled, begun is in doubt, the rest goes again; with no copy to trust all is in doubt."""
    host = Host(house, "far")
    act(host, host.take())
    host.vanish()
    house.tick.run()
    assert house.tally() == {"sending": 12}  # its lease stands: it may be there
    house.wait()
    house.tick.run()
    assert house.tally() == expected
    assert house.ledger.held() == []
    assert house.client.keys("*far.1.x:taken") == []
    before = house.states()
    house.tick.run()
    assert house.states() == before


def test_a_living_owner_is_left_alone_on_its_own_machine(house: House) -> None:
    """However long its lease is over, its file is locked: nobody touches what it holds."""
    host = Host(house, "near")
    taken = host.take()
    host.journal.begin(taken[0])
    house.wait()
    for _ in range(2):
        host.sweep.run()
    assert house.tally() == {"sending": 12}
    host.journal.begin(taken[1])  # its copy is still its own
    host.die()
    host.sweep.run()
    assert house.tally() == {"unconfirmed": 2, "queued": 10}
    assert house.client.keys("tocsin:journal:*") == []


def test_who_wakes_after_the_takeover_sends_nothing_twice(house: House) -> None:
    """It begins nothing more, tells what it knows of its own, and touches nobody whom others took over."""
    host = Host(house, "far")
    taken = host.take()
    host.journal.begin(taken[0])
    house.wait()
    house.tick.run()
    assert house.tally() == {"unconfirmed": 1, "queued": 11}
    other = Host(house, "other")
    assert set(other.take()) == set(taken[1:])
    with pytest.raises(Unavailable, match="taken over"):
        host.journal.begin(taken[1])
    known = [Outcome(number, State.SENT, "accepted", code=250) for number in taken[:2]]
    house.ledger.give_back(host.lease, known, house.clock())
    assert house.tally() == {"sent": 1, "sending": 11}
    for number in taken[1:]:
        other.journal.begin(number)


def test_who_wakes_to_find_all_in_doubt_frees_nobody(house: House) -> None:
    """Without a copy nothing of its hand goes again, so what it still sends nobody else sends."""
    host = Host(house, "far")
    taken = host.take()
    house.client.flushall()
    house.wait()
    house.tick.run()
    assert house.tally() == {"unconfirmed": 12}
    house.ledger.give_back(host.lease, [Outcome(taken[0], State.SENT, "accepted")], house.clock())
    assert house.tally() == {"sent": 1, "unconfirmed": 11}
    assert house.ledger.lease(house.batch, "anybody", house.clock(), house.clock() + 60) is None


def test_a_machine_that_comes_back_from_a_power_cut_asks_the_copy(house: House) -> None:
    """Its file may lack its end, and may end in noise; the copy lacks nothing."""
    host = Host(house, "near", boot="0ld800t0")
    taken = host.take()
    for number in taken[:3]:
        host.journal.begin(number)
        host.answer(number)
    host.journal.begin(taken[3])
    host.die()
    file = host.journal._path
    file.write_bytes(file.read_bytes()[:30] + b"\0" * 50 + b"\n")
    host.sweep.recover()  # at once: only the dead of this machine have files here
    assert house.tally() == {"sent": 3, "unconfirmed": 1, "queued": 8}


@pytest.mark.parametrize("state", [State.QUEUED, State.DEFERRED])
def test_who_was_begun_again_before_a_power_cut_is_not_sent_to_twice(house: House, state: State) -> None:
    """The file lost the second beginning and there is no copy: what it says of the first is not believed."""
    host = Host(house, "near", boot="0ld800t0")
    taken = host.take()
    for number in taken[:2]:
        host.journal.begin(number)
    host.answer(taken[0])
    host.answer(taken[1], state)
    kept = host.journal._path.stat().st_size
    host.journal.begin(taken[1])  # and the mail arrives
    host.die()
    os.truncate(host.journal._path, kept)
    house.client.flushall()
    host.sweep.recover()
    assert house.tally() == {"sent": 1, "unconfirmed": 11}


def test_noise_in_a_file_is_not_believed_and_stops_nothing(house: House) -> None:
    """Without a copy, what can be read is known and the rest is in doubt."""
    host = Host(house, "near")
    taken = host.take()
    host.journal.begin(taken[0])
    host.answer(taken[0])
    with host.journal._path.open("ab") as file:
        file.write(b"\0\0\0\n")
    host.die()
    house.client.flushall()
    host.sweep.run()
    assert house.tally() == {"sent": 1, "unconfirmed": 11}


def test_a_sweep_without_redis_decides_nothing(house: House, tmp_path: Path) -> None:
    """The hand waits until the copy can be asked; then it is exact."""
    host = Host(house, "far")
    host.journal.begin(host.take()[0])
    host.vanish()
    house.wait()
    with contextlib.closing(redis.Redis(unix_socket_path=f"{tmp_path}/none", retry=None)) as away:
        with structlog.testing.capture_logs() as events:
            house.sweep(tmp_path / "control", away).run()
        assert [event["event"] for event in events] == ["copy_not_read"]
    assert house.tally() == {"sending": 12}
    house.tick.run()
    assert house.tally() == {"unconfirmed": 1, "queued": 11}


def test_a_sweep_that_died_after_the_takeover_is_repeated(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy that was moved away is found again."""
    host = Host(house, "far")
    host.journal.begin(host.take()[0])
    host.vanish()
    house.wait()

    def away(*_args: object) -> None:
        raise Unavailable("the database does not answer")

    with monkeypatch.context() as patched:
        patched.setattr(house.ledger, "recover", away)
        with pytest.raises(Unavailable):
            house.tick.run()
    house.tick.run()
    assert house.tally() == {"unconfirmed": 1, "queued": 11}


def test_batches_in_a_row_leave_only_the_last_in_doubt(house: House) -> None:
    """One owner, one lease after another: what the last batch left in the copy harms nobody."""
    host = Host(house, "far")
    for _ in range(3):
        taken = host.take()
        host.journal.begin(taken[0])
        host.answer(taken[0], State.QUEUED)
        house.ledger.give_back(host.lease, [Outcome(taken[0], State.QUEUED, tried=False)], house.clock())
        host.journal.clear()
    taken = host.take()
    host.journal.begin(taken[1])
    host.vanish()
    house.wait()
    house.tick.run()
    assert {number for number, state in house.states().items() if state == "unconfirmed"} == {taken[1]}
    assert house.tally() == {"unconfirmed": 1, "queued": 11}


def test_an_empty_lease_does_not_cost_a_living_owner_its_copy(house: House) -> None:
    """A lease whose answer was lost on its way ends by itself, and nobody is taken over for it."""
    host = Host(house, "far")
    host.journal.open()
    lost = house.take_lease(host.journal.owner)
    house.wait()
    house.tick.run()
    assert lost.id not in {lease.id for lease, _ in house.ledger.held()}
    name = host.journal.owner
    taken = host.take()
    host.journal.begin(taken[0])
    assert host.journal.owner == name
