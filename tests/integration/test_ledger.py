"""The ledger's promises, on real databases: one owner a batch, nobody twice, nobody who said no."""

import json
import threading
from collections.abc import Callable

import pytest
import sqlalchemy as sa

from worker import processes
from worker.campaigns import by_reason
from worker.deliveries import State
from worker.store.audience import Rule
from worker.store.database import Database
from worker.store.docket import Docket, Reopened
from worker.store.ledger import Lease, Ledger, Outcome
from worker.store.people import People
from worker.store.plans import Campaign, Draft, Plans
from worker.store.schema import deliveries
from worker.store.staging import Staged
from worker.store.suppressions import EVERYTHING, Suppression, Suppressions, list_scope
from worker.store.tallies import Tallies

Join = Callable[..., int]


def key(number: int) -> bytes:
    """The address key of person `number`."""
    return number.to_bytes(16, "big")


@pytest.fixture
def join(database: Database, clock: Callable[[], float]) -> Join:
    """Put people (by number) on a list; return the list's id."""

    def put(slug: str, numbers: list[int], *, basis: str = "consent", when: float | None = 1.0) -> int:
        people = People(database)
        opened = people.begin_import()
        consent = people.consent_ids([(basis, "a form", "I agree")])[0]
        rows = [Staged(key(n), n, b"sealed %d" % n, "other", consent, when) for n in numbers]
        opened.add(rows)
        opened.finish(slug, slug.title(), clock())
        return people.find_lists([slug])[0].id

    return put


@pytest.fixture
def plans(database: Database) -> Plans:
    """Plans with batches of ten."""
    return Plans(database, batch_size=10)


@pytest.fixture
def ledger(database: Database) -> Ledger:
    """The ledger under test."""
    return Ledger(database)


def record(plans: Plans, rule: Rule, *, state: str = "running", not_after: float | None = None) -> Campaign:
    """Write a campaign down."""
    draft = Draft("appeal", "{}", rule, "d" * 64, state, "op", "op", 0.0, "UTC", not_after)
    return plans.record(draft, 1.0)


def launch(plans: Plans, rule: Rule, **options: object) -> tuple[Campaign, list[int]]:
    """Record a campaign and write all its deliveries."""
    campaign = record(plans, rule, **options)  # type: ignore[arg-type]  # test options
    made: list[int] = []
    while found := plans.slice(campaign, 25, 1.0):
        made += found
    return plans.get(campaign.id), made


def states(database: Database) -> dict[int, str]:
    """The state of each person's delivery."""
    with database.read() as connection:
        query = sa.select(deliveries.c.person_id, deliveries.c.state)
        return dict(connection.execute(query).all())


def lease(ledger: Ledger, batch: int, now: float = 10.0) -> Lease:
    """Take a batch that must be free."""
    taken = ledger.lease(batch, "owner", now, now + 60)
    assert taken is not None
    return taken


def test_a_launch_writes_one_delivery_a_person_in_batches(
    join: Join, plans: Plans, database: Database
) -> None:
    """Everyone on the lists gets one row, however many lists they are on."""
    one, two = join("one", list(range(1, 41))), join("two", list(range(31, 61)))
    campaign, made = launch(plans, Rule((one, two)))
    assert len(states(database)) == 60
    assert campaign.audience == 60
    assert campaign.launched_at is not None
    assert len(made) == 7  # 25, 25 and 10 people in tens


def test_a_launch_by_two_at_once_writes_nobody_twice(join: Join, plans: Plans, database: Database) -> None:
    """Two launchers share the slices by the cursor; the constraint never has to save us."""
    rule = Rule((join("one", list(range(1, 201))),))
    campaign = record(plans, rule)
    errors: list[BaseException] = []

    def run() -> None:
        try:
            while plans.slice(campaign, 10, 1.0):
                pass
        except BaseException as error:  # noqa: BLE001 - handed to the test
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(states(database)) == 200
    assert plans.get(campaign.id).audience == 200


def test_a_limit_takes_the_first_who_may_be_written_to(join: Join, plans: Plans, database: Database) -> None:
    """`--limit 5` writes five rows, none of them for somebody left out."""
    one = join("one", list(range(1, 21)))
    Suppressions(database).add([Suppression(key(2), EVERYTHING, "opt-out", "cli", 1.0)])
    launch(plans, Rule((one,), limit=5))
    assert states(database) == dict.fromkeys([1, 3, 4, 5, 6], "queued")


def test_the_launch_skips_who_said_no_and_who_never_said_yes(
    join: Join, plans: Plans, database: Database
) -> None:
    """Suppressed and consentless people are counted as skipped, with the reason."""
    one = join("one", [1, 2, 3])
    join("one", [4], basis="")
    join("one", [5], when=None)
    Suppressions(database).add([Suppression(key(1), EVERYTHING, "opt-out", "cli", 1.0)])
    Suppressions(database).add([Suppression(key(2), list_scope(one), "opt-out", "cli", 1.0)])
    rule = Rule((one,))
    assert by_reason(plans.kinds(rule)) == {"": 1, "suppressed": 2, "no consent": 2}
    campaign, _ = launch(plans, rule)
    assert Tallies(database).tally(campaign.id) == {
        ("queued", ""): 1,
        ("skipped", "suppressed"): 2,
        ("skipped", "no consent"): 2,
    }


def test_an_opt_out_from_one_list_leaves_the_way_through_another(
    join: Join, plans: Plans, database: Database
) -> None:
    """Whoever left list one but not list two is reached through list two, and only so."""
    one, two = join("one", [1]), join("two", [1])
    Suppressions(database).add([Suppression(key(1), list_scope(one), "opt-out", "cli", 1.0)])
    campaign, made = launch(plans, Rule((one, two)))
    assert Tallies(database).tally(campaign.id) == {("queued", ""): 1}
    Suppressions(database).add([Suppression(key(1), list_scope(two), "opt-out", "cli", 1.0)])
    ledger = Ledger(database)
    held = lease(ledger, made[0])
    assert ledger.advance(held, [], 10, 10.0, 70.0).halt == "empty"
    assert states(database) == {1: "skipped"}


def test_a_batch_has_one_owner(join: Join, plans: Plans, ledger: Ledger) -> None:
    """A doubled task finds nothing to claim while the lease stands."""
    _, made = launch(plans, Rule((join("one", [1, 2]),)))
    assert ledger.lease(made[0], "first", 10.0, 70.0) is not None
    assert ledger.lease(made[0], "second", 10.0, 70.0) is None


@pytest.mark.parametrize("state", ["paused", "cancelled", "awaiting", "scheduled", "finished"])
def test_only_a_running_campaign_can_be_leased(state: str, join: Join, plans: Plans, ledger: Ledger) -> None:
    """Nothing begins in a campaign that does not run."""
    campaign, made = launch(plans, Rule((join("one", [1]),)))
    plans.move(campaign.id, ["running"], state)
    assert ledger.lease(made[0], "owner", 10.0, 70.0) is None


def test_one_transaction_settles_the_last_chunk_and_takes_the_next(
    join: Join, plans: Plans, ledger: Ledger, database: Database
) -> None:
    """Chunk by chunk to the end, and the batch is done."""
    _, made = launch(plans, Rule((join("one", [1, 2, 3]),)))
    held = lease(ledger, made[0])
    first = ledger.advance(held, [], 2, 10.0, 70.0)
    assert [one.sealed for one in first.claimed] == [b"sealed 1", b"sealed 2"]
    sent = [Outcome(one.id, State.SENT, "accepted", code=250) for one in first.claimed]
    second = ledger.advance(held, sent, 2, 11.0, 71.0)
    assert len(second.claimed) == 1
    last = Outcome(second.claimed[0].id, State.BOUNCED, "no such mailbox", code=550, status="5.1.1")
    assert ledger.advance(held, [last], 2, 12.0, 72.0).halt == "empty"
    ledger.give_back(held, [], 12.0)
    assert states(database) == {1: "sent", 2: "sent", 3: "bounced"}
    assert ledger.held() == []
    assert plans.finish_whole(13.0) == ["appeal-1"]


def test_an_opt_out_between_launch_and_claim_is_honoured(
    join: Join, plans: Plans, ledger: Ledger, database: Database
) -> None:
    """The claim itself asks, not only the launch."""
    _, made = launch(plans, Rule((join("one", [1, 2]),)))
    Suppressions(database).add([Suppression(key(1), EVERYTHING, "opt-out", "one-click", 5.0)])
    held = lease(ledger, made[0])
    assert [one.person_id for one in ledger.advance(held, [], 10, 10.0, 70.0).claimed] == [2]
    assert states(database)[1] == "skipped"


def test_an_opt_out_after_the_claim_is_seen_by_the_recheck(
    join: Join, plans: Plans, ledger: Ledger, database: Database
) -> None:
    """What is in hand is asked about again."""
    _, made = launch(plans, Rule((join("one", [1, 2]),)))
    held = lease(ledger, made[0])
    claimed = ledger.advance(held, [], 10, 10.0, 70.0).claimed
    assert ledger.recheck(held, 11.0) == ("", set())
    Suppressions(database).add([Suppression(key(2), EVERYTHING, "opt-out", "one-click", 5.0)])
    assert ledger.recheck(held, 11.0) == ("", {claimed[1].id})


def test_a_passed_deadline_expires_what_waits(
    join: Join, plans: Plans, ledger: Ledger, database: Database
) -> None:
    """After `--not-after` nothing more is taken, and it says so."""
    _, made = launch(plans, Rule((join("one", [1, 2]),)), not_after=20.0)
    held = lease(ledger, made[0])
    assert ledger.recheck(held, 20.0)[0] == "expired"
    assert ledger.advance(held, [], 10, 20.0, 80.0).halt == "empty"
    assert set(states(database).values()) == {"expired"}


def test_pause_stops_the_claim_and_the_hand(join: Join, plans: Plans, ledger: Ledger) -> None:
    """A paused campaign gives nothing more, and tells who holds some."""
    campaign, made = launch(plans, Rule((join("one", [1, 2]),)))
    held = lease(ledger, made[0])
    plans.move(campaign.id, ["running"], "paused")
    assert ledger.recheck(held, 11.0)[0] == "paused"
    assert ledger.advance(held, [], 10, 10.0, 70.0).halt == "paused"


def test_what_is_given_back_unsent_is_queued_again(
    join: Join, plans: Plans, ledger: Ledger, database: Database
) -> None:
    """A drain loses nothing and uses up no attempt."""
    _, made = launch(plans, Rule((join("one", [1, 2]),)))
    held = lease(ledger, made[0])
    ledger.advance(held, [], 10, 10.0, 70.0)
    ledger.give_back(held, [], 11.0, rest=30.0)
    assert set(states(database).values()) == {"queued"}
    assert ledger.lease(made[0], "next", 12.0, 72.0) is None  # it rests
    again = lease(ledger, made[0], now=41.0)
    assert [one.attempts for one in ledger.advance(again, [], 10, 41.0, 99.0).claimed] == [0, 0]


def test_cancel_skips_what_waits_and_what_comes_back(
    join: Join, plans: Plans, ledger: Ledger, database: Database
) -> None:
    """Nothing of a cancelled campaign stays open, not even what was in hand."""
    campaign, made = launch(plans, Rule((join("one", list(range(1, 16))),)))
    held = lease(ledger, made[0])
    claimed = ledger.advance(held, [], 3, 10.0, 70.0).claimed
    plans.move(campaign.id, ["running"], "cancelled")
    Docket(database).cancel(campaign.id, 11.0)
    sent = Outcome(claimed[0].id, State.SENT, "accepted", code=250)
    ledger.give_back(held, [sent], 12.0)
    assert Tallies(database).tally(campaign.id) == {("sent", "accepted"): 1, ("skipped", "cancelled"): 14}


def test_a_crash_is_settled_by_the_journal(
    join: Join, plans: Plans, ledger: Ledger, database: Database
) -> None:
    """Known outcomes stand, never-begun ones go again, and only what nobody knows is unconfirmed."""
    _, made = launch(plans, Rule((join("one", [1, 2, 3]),)))
    held = lease(ledger, made[0])
    a, b, _ = ledger.advance(held, [], 10, 10.0, 70.0).claimed
    known = [Outcome(a.id, State.SENT, "accepted", code=250)]
    assert ledger.recover(held, known, [b.id], 11.0) == (1, 1, 1)
    assert states(database) == {1: "sent", 2: "queued", 3: "unconfirmed"}
    assert ledger.held() == []


def test_a_late_owner_can_only_settle_what_was_its_own(
    join: Join, plans: Plans, ledger: Ledger, database: Database
) -> None:
    """After a takeover the old fence corrects "unconfirmed", and touches nothing that went on."""
    _, made = launch(plans, Rule((join("one", [1, 2]),)))
    late = lease(ledger, made[0])
    a, b = ledger.advance(late, [], 10, 10.0, 70.0).claimed
    ledger.recover(late, [], [a.id], 11.0)
    new = lease(ledger, made[0], now=12.0)
    ledger.advance(new, [], 10, 12.0, 72.0)
    assert ledger.recheck(late, 12.0)[0] == "lost"
    assert not ledger.renew(late, 99.0)
    wrong = [Outcome(a.id, State.BOUNCED, "x"), Outcome(b.id, State.SENT, "accepted")]
    assert ledger.advance(late, wrong, 10, 13.0, 73.0).halt == "lost"
    ledger.give_back(late, [], 13.0)
    assert states(database) == {1: "sending", 2: "sent"}
    assert [held.id for held, _ in ledger.held()] == [new.id]


@pytest.mark.parametrize("dies", [False, True])
def test_what_a_late_owner_knows_to_be_deferred_goes_again(
    join: Join, plans: Plans, ledger: Ledger, database: Database, *, dies: bool
) -> None:
    """In doubt, batch done, campaign finished: who wakes up late and knows better opens all of it again."""
    campaign, made = launch(plans, Rule((join("one", [1]),)))
    late = lease(ledger, made[0])
    (one,) = ledger.advance(late, [], 10, 10.0, 70.0).claimed
    ledger.recover(late, [], [], 200.0)
    assert plans.finish_whole(200.0) == [campaign.name]
    assert list(plans.unfinish()) == []
    knows = [Outcome(one.id, State.DEFERRED, "refused", due_at=300.0)]
    if dies:  # right after it was told that it is late
        assert ledger.advance(late, knows, 10, 201.0, 261.0).halt == "lost"
    else:
        ledger.give_back(late, knows, 201.0)
    assert list(plans.unfinish()) == [campaign.id]
    assert ledger.lease(made[0], "too soon", 299.0, 350.0) is None
    again = lease(ledger, made[0], now=300.0)
    assert [each.id for each in ledger.advance(again, [], 10, 300.0, 360.0).claimed] == [one.id]
    assert states(database) == {1: "sending"}


def test_an_overdue_owner_keeps_its_hand_and_loses_its_batch(
    join: Join, plans: Plans, ledger: Ledger
) -> None:
    """A paused process may wake up: nobody else takes what it holds, everybody the rest."""
    _, made = launch(plans, Rule((join("one", [1, 2, 3]),)))
    held = lease(ledger, made[0])
    ledger.advance(held, [], 1, 10.0, 70.0)
    assert ledger.release(held, 80.0)
    assert not ledger.release(held, 80.0)
    new = lease(ledger, made[0], now=80.0)
    assert [one.person_id for one in ledger.advance(new, [], 10, 80.0, 140.0).claimed] == [2, 3]
    assert len(ledger.held()) == 2


def test_a_doorbell_is_rung_once_until_it_is_lost(join: Join, plans: Plans, database: Database) -> None:
    """Several sweepers ring once; a lost ring is rung again."""
    _, made = launch(plans, Rule((join("one", list(range(1, 26))),)))
    docket = Docket(database)
    assert docket.ring(10.0, limit=2, lost_before=5.0) == made[:2]
    assert docket.ring(10.0, limit=9, lost_before=5.0) == made[2:]
    assert docket.ring(10.0, limit=9, lost_before=5.0) == []
    assert docket.rung(5.0) == 3
    assert docket.ring(20.0, limit=9, lost_before=15.0) == made


def test_a_retry_reopens_exactly_what_ended_so(
    join: Join, plans: Plans, ledger: Ledger, database: Database
) -> None:
    """`retry --bounced` queues the bounced and nothing else."""
    campaign, made = launch(plans, Rule((join("one", [1, 2]),)))
    held = lease(ledger, made[0])
    a, b = ledger.advance(held, [], 10, 10.0, 70.0).claimed
    ledger.give_back(held, [Outcome(a.id, State.SENT, "accepted"), Outcome(b.id, State.BOUNCED, "x")], 11.0)
    assert Docket(database).reopen(campaign.id, [State.BOUNCED], 12.0) == Reopened(opened=1, left_out=0)
    assert states(database) == {1: "sent", 2: "queued"}
    again = lease(ledger, made[0], now=13.0)
    assert [(one.id, one.attempts) for one in ledger.advance(again, [], 10, 13.0, 73.0).claimed] == [
        (b.id, 0)
    ]


def test_a_retry_leaves_out_who_must_not_be_written_to(
    join: Join, plans: Plans, ledger: Ledger, database: Database
) -> None:
    """Said no to everything or to this list, or gone: they stay as they ended, and their batch stays done."""
    one = join("one", [1, 2, 3])
    campaign, made = launch(plans, Rule((one,)))
    held = lease(ledger, made[0])
    taken = ledger.advance(held, [], 10, 10.0, 70.0).claimed
    ledger.give_back(held, [Outcome(each.id, State.BOUNCED, "no-mailbox") for each in taken], 11.0)
    book, docket = Suppressions(database), Docket(database)
    book.add([Suppression(key(1), EVERYTHING, "bounce", "relay", 12.0)])
    book.add([Suppression(key(2), list_scope(one), "opt-out", "page", 12.0)])
    book.add([Suppression(key(3), list_scope(one + 1), "opt-out", "page", 12.0)])  # another list
    assert docket.reopen(campaign.id, [State.BOUNCED], 13.0) == Reopened(opened=1, left_out=2)
    assert states(database) == {1: "bounced", 2: "bounced", 3: "queued"}
    again = lease(ledger, made[0], now=14.0)
    (third,) = ledger.advance(again, [], 10, 14.0, 74.0).claimed
    ledger.give_back(again, [Outcome(third.id, State.BOUNCED, "no-mailbox")], 15.0)
    book.add([Suppression(key(3), EVERYTHING, "bounce", "relay", 16.0)])
    assert docket.reopen(campaign.id, [State.BOUNCED], 17.0) == Reopened(opened=0, left_out=3)
    assert ledger.lease(made[0], "owner", 18.0, 78.0) is None


def test_an_import_joins_all_or_nobody(join: Join, database: Database) -> None:
    """Until the last transaction nobody is a member; an abandoned import leaves nothing."""
    people = People(database)
    opened = people.begin_import()
    consent = people.consent_ids([("consent", "form", "")])[0]
    opened.add([Staged(key(1), 1, b"s", "other", consent, 1.0)])
    assert people.lists() == []
    opened.close()
    assert join("one", [5]) == people.lists()[0].id
    assert [each.members for each in people.lists()] == [1]


def test_a_rule_survives_its_text_form() -> None:
    """A rule reads back as it was written."""
    rule = Rule((3, 1), limit=7, require_consent=False)
    assert Rule.from_json(rule.to_json()) == rule
    assert json.loads(rule.to_json())["lists"] == [3, 1]


def test_a_second_recovery_leaves_alone_what_has_moved_on(
    join: Join, plans: Plans, ledger: Ledger, database: Database
) -> None:
    """Two sweeps at once: the later one, held up by the first, takes nothing from the next owner's hand."""
    _, made = launch(plans, Rule((join("one", [1, 2, 3, 4]),)))
    dead = lease(ledger, made[0])
    ids = [one.id for one in ledger.advance(dead, [], 10, 10.0, 70.0).claimed]
    late = threading.Thread(target=ledger.recover, args=(dead, [], ids[:2], 20.0))
    mine = sa.update(deliveries).where(deliveries.c.id.in_(ids))
    with database.write() as connection:  # the first sweep and, right after it, the batch's next owner
        connection.execute(mine.values(state=State.QUEUED, lease_id=None))
        connection.execute(mine.values(state=State.SENDING, lease_id=dead.id + 1))
        late.start()
        if not database.is_sqlite:  # where it waits for the whole store, and sees what came of it
            assert processes.until(lambda: _waits(database), seconds=20)
    late.join()
    assert set(states(database).values()) == {"sending"}
    assert ledger.in_hand(Lease(dead.id + 1, made[0], dead.campaign_id, 70.0)) == set(ids)


def _waits(database: Database) -> bool:
    """Whether somebody waits for a row's lock in PostgreSQL."""
    waiting = sa.text(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    with database.read() as connection:
        return bool(connection.execute(waiting).scalar_one())
