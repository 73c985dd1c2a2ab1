"""What the engine asks of the store while it sends never reads a whole table, however many rows there are."""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from sqlalchemy import event

from worker.deliveries import State
from worker.store.audience import Rule
from worker.store.database import Database
from worker.store.docket import Docket
from worker.store.ledger import Ledger, Outcome
from worker.store.people import People
from worker.store.plans import Campaign, Draft, Plans
from worker.store.staging import Staged
from worker.store.suppressions import EVERYTHING, Suppression, Suppressions

#: Tables with a row for each person or mail.
_LARGE = ("deliveries", "memberships", "people", "suppressions")
_CHANGES_NOTHING = ("SAVEPOINT", "RELEASE", "ROLLBACK", "BEGIN", "COMMIT", "SET ", "SELECT set_config")

Asked = list[tuple[str, Any]]


@pytest.fixture
def plans(database: Database) -> Plans:
    """Plans with batches of ten."""
    return Plans(database, batch_size=10)


@pytest.fixture
def campaign(database: Database, plans: Plans) -> Campaign:
    """A running campaign to fifty people on one list, two of whom have said no."""
    people = People(database)
    consent = people.consent_ids([("consent", "a form", "I agree")])[0]
    opened = people.begin_import()
    keys = [number.to_bytes(16, "big") for number in range(1, 51)]
    opened.add([Staged(key, n, b"sealed", "other", consent, 1.0) for n, key in enumerate(keys, start=1)])
    opened.finish("people", "People", 1.0)
    Suppressions(database).add([Suppression(key, EVERYTHING, "opt-out", "page", 1.0) for key in keys[:2]])
    rule = Rule((people.find_lists(["people"])[0].id,))
    draft = Draft("appeal", "{}", rule, "d" * 64, "running", "op", "op", 0.0, "UTC", None)
    return plans.record(draft, 1.0)


@pytest.fixture
def asked(database: Database) -> Iterator[Asked]:
    """Every statement from here on, with its values."""
    found: Asked = []

    def note(_connection: object, _cursor: object, statement: str, values: Any, *_: object) -> None:
        found.append((statement, values))

    event.listen(database.engine, "before_cursor_execute", note)
    yield found
    event.remove(database.engine, "before_cursor_execute", note)


def launched(plans: Plans, campaign: Campaign) -> Sequence[int]:
    """Write all deliveries; return the batches."""
    made: list[int] = []
    while batches := plans.slice(campaign, 20, 1.0):
        made += batches
    return made


def send(plans: Plans, ledger: Ledger, campaign: Campaign) -> None:
    """Launch, and go through one batch: take, look again, settle (one reply of each sort), give back."""
    batch = launched(plans, campaign)[1]
    lease = ledger.lease(batch, "owner", 10.0, 70.0)
    assert lease is not None
    first = ledger.advance(lease, [], 4, 10.0, 70.0).claimed
    ledger.recheck(lease, 11.0)
    ends = [
        Outcome(first[0].id, State.SENT, code=250, text="Ok"),
        Outcome(first[1].id, State.DEFERRED, "busy", 500.0, code=451),
        Outcome(first[2].id, State.BOUNCED, "gone", code=550),
    ]
    assert ledger.advance(lease, ends, 4, 12.0, 72.0).claimed
    ledger.give_back(lease, [Outcome(first[3].id, State.UNCONFIRMED, "link lost")], 13.0)


def recover(plans: Plans, ledger: Ledger, campaign: Campaign) -> None:
    """Take over the hand of an owner that is gone."""
    lease = ledger.lease(launched(plans, campaign)[1], "owner", 10.0, 70.0)
    assert lease is not None
    hand = ledger.advance(lease, [], 4, 10.0, 70.0).claimed
    assert ledger.release(lease, 100.0)
    assert ledger.in_hand(lease) == {one.id for one in hand}
    known = [Outcome(hand[0].id, State.SENT, code=250)]
    assert ledger.recover(lease, known, [hand[1].id], 100.0) == (1, 1, 2)


def whole_tables(database: Database, asked: Asked) -> list[str]:
    """Return the statements that would read a large table from end to end, each with its plan."""
    found = []
    with database.engine.connect() as connection:
        if not database.is_sqlite:
            # The tables are small here: forbidden what it would choose for them, it shows what it can do.
            connection.exec_driver_sql("SET enable_seqscan = off")
        for statement, values in asked:
            if statement.startswith(_CHANGES_NOTHING) or "counters" in statement:
                continue
            words = "EXPLAIN QUERY PLAN" if database.is_sqlite else "EXPLAIN"
            one = values[0] if isinstance(values, list) else values  # of many rows the first
            rows = connection.exec_driver_sql(f"{words} {statement}", one).all()
            plan = "\n".join(str(row[-1]) for row in rows)
            if any(re.search(rf"(?m)(SCAN|Seq Scan on) {table}\b", plan) for table in _LARGE):
                found.append(f"{statement}\n{plan}")
        connection.rollback()
    return found


@pytest.mark.parametrize("work", [send, recover])
def test_no_statement_of_the_engine_reads_a_whole_table(
    database: Database,
    plans: Plans,
    campaign: Campaign,
    asked: Asked,
    work: Callable[[Plans, Ledger, Campaign], None],
) -> None:
    """Launch, claim, second look, settling, giving back and recovery find their rows by an index."""
    work(plans, Ledger(database), campaign)
    done = list(asked)
    assert sum("UPDATE deliveries" in statement for statement, _ in done) >= 3
    assert whole_tables(database, done) == []


def test_no_statement_of_the_tick_reads_a_whole_table(
    database: Database, plans: Plans, campaign: Campaign, asked: Asked
) -> None:
    """What is asked every few seconds, for ever, goes by the index of open batches and leases."""
    launched(plans, campaign)
    asked.clear()
    Ledger(database).held()
    Docket(database).ring(100.0, limit=5, lost_before=50.0)
    Docket(database).rung(50.0)
    plans.finish_whole(100.0)
    plans.unfinish()
    done = list(asked)
    assert done
    assert whole_tables(database, done) == []
