"""The marks by which a plan counts agree with the suppressions, whoever writes what at the same time.

A Hypothesis machine brings people in, lets them say no and takes that back, in transactions that stay open
and in the midst of an import's last step; after each step a plan counts whom a launch would choose.
"""

import contextlib
import itertools
import secrets
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import hypothesis.strategies as st
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from worker import processes
from worker.deeds import PERSON, Action, Deed
from worker.feedback import OptOuts
from worker.sealing import Keyring
from worker.store.aftermath import Aftermath, Change
from worker.store.audience import Rule, chosen
from worker.store.database import Database
from worker.store.ledger import Ledger
from worker.store.people import People
from worker.store.plans import Draft, Plans
from worker.store.schema import consents, deliveries, memberships, metadata, people
from worker.store.staging import Held, Staged, Staging
from worker.store.suppressions import EVERYTHING, Act, Suppression, Suppressions, add_within, list_scope

PEOPLE = range(1, 5)
SLUGS = ("one", "two")
#: Basis and source of a consent, and its date: whole, without a source, without a date, none.
CONSENTS = (("consent", "form", 1.0), ("consent", "", 2.0), ("soft opt-in", "stall", None), ("", "", None))
#: The lists that audiences are made of.
AUDIENCES = (Rule((1,)), Rule((1, 2)), Rule((1, 2), topics=("law", "war")))

LIFTING = Deed(1.0, PERSON, Action.SUPPRESS_LIFT)

someone = st.sampled_from(PEOPLE)
scopes = st.sampled_from((EVERYTHING, list_scope(1), list_scope(2), "topic:war", "topic:art"))
#: What happens in an import's last step: before which of its statements (the ninth writes memberships, the
#: commit follows the tenth), what, and in what scope.
Event = tuple[int, str, str]
events = st.tuples(
    st.sampled_from((0, 5, 9, 10, 10, 11)), st.sampled_from(("say", "say", "say_and_wait", "lift")), scopes
)


def key(number: int) -> bytes:
    """The address key of person `number`."""
    return number.to_bytes(16, "big")


def no(number: int, scope: str = EVERYTHING) -> Suppression:
    """What that person says; long ago, as a restored export has it."""
    return Suppression(key(number), scope, "opt-out", "page", 1.0)


def shape_of(sealed: bytes) -> int:
    """The shape of a record, which here is nothing else."""
    return int.from_bytes(sealed, "big")


def mend(ours: Staged, held: Held) -> Staged:
    """Let ours win where it says something."""
    sealed = held.sealed if ours.sealed is None else ours.sealed
    return ours._replace(person_id=held.id, sealed=ours.sealed, version=held.version, shape=shape_of(sealed))


@dataclass
class Open:
    """A transaction in which somebody says no, not yet ended."""

    person: int
    ending: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)


class Machine(RuleBasedStateMachine):
    """A store, whoever writes to it, and what has to hold meanwhile."""

    def __init__(self, database: Database) -> None:
        """Start with two empty lists."""
        super().__init__()
        self.database = database
        self.store, self.suppressions = People(database), Suppressions(database)
        self.imports: list[Staging] = []
        self.open: list[Open] = []
        self.ids = itertools.count(100)

    @initialize()
    def begin(self) -> None:
        """Empty everything, and make the lists and the consents."""
        with self.database.write() as connection:
            for table in reversed(metadata.sorted_tables):
                if table.name not in {
                    "audit",
                    "counters",
                }:  # nobody may empty the first; the second numbers it
                    connection.execute(sa.delete(table))
        self.texts = self.store.consent_ids([(basis, source, "") for basis, source, _ in CONSENTS])
        for number, slug in enumerate(SLUGS, 1):
            with self.store.begin_import() as opened:
                opened.finish(slug, slug, 1.0)
            with self.database.write() as connection:  # on PostgreSQL the numbers go on from the last time
                connection.exec_driver_sql(f"UPDATE lists SET id = {number} WHERE slug = '{slug}'")

    # -- imports -----------------------------------------------------------------------------------

    @precondition(lambda self: len(self.imports) < 2)
    @rule()
    def begin_import(self) -> None:
        """Open a file."""
        self.imports.append(self.store.begin_import())

    @precondition(lambda self: self.imports)
    @rule(
        which=st.integers(0, 1),
        numbers=st.sets(someone, min_size=1),
        consent=st.sampled_from(range(4)),
        shape=st.integers(0, 2),
    )
    def stage(self, which: int, numbers: set[int], consent: int, shape: int) -> None:
        """Read rows of it; shape 0 adds nothing to who is held."""
        opened = self.imports[which % len(self.imports)]
        keys = [key(number) for number in sorted(numbers)]
        held, earlier = opened.held(keys), opened.find(keys)
        rows = {one: self._row(one, held.get(one), consent, shape) for one in keys}
        opened.replace([row for one, row in rows.items() if one in earlier])
        opened.add([row for one, row in rows.items() if one not in earlier])

    def _row(self, one: bytes, held: Held | None, consent: int, shape: int) -> Staged:
        sealed = bytes([shape]) if shape or held is None else None
        known = sealed if sealed is not None or held is None else held.sealed
        return Staged(
            one,
            held.id if held else next(self.ids),
            sealed,
            "other",
            self.texts[consent],
            CONSENTS[consent][2],
            held.version if held else 0,
            shape_of(known or b""),
        )

    @precondition(lambda self: self.imports)
    @rule(which=st.integers(0, 1), slug=st.sampled_from(SLUGS), number=someone, event=events)
    def finish(self, which: int, slug: str, number: int, event: Event) -> None:
        """Make members of one file's people, and in the midst of it something happens to somebody."""
        self._finish(self.imports.pop(which % len(self.imports)), slug, number, event)

    @rule(
        numbers=st.sets(someone, min_size=1),
        consent=st.sampled_from(range(4)),
        slug=st.sampled_from(SLUGS),
        event=events,
    )
    def bring_in(self, numbers: set[int], consent: int, slug: str, event: Event) -> None:
        """Do all of it at once; the event is one of them."""
        self.imports.insert(0, self.store.begin_import())
        self.stage(0, numbers, consent, 1)
        self._finish(self.imports.pop(0), slug, min(numbers), event)

    def _finish(self, opened: Staging, slug: str, number: int, event: Event) -> None:
        when, what, scope = event
        count = itertools.count()

        def interrupt(connection: sa.Connection, *_: object) -> None:
            if connection is opened._connection and next(count) == when:
                getattr(self, what)(number, scope)

        if self.database.is_sqlite:  # one writer at a time
            opened.finish(slug, slug, 2.0, mend)
            return
        sa.event.listen(self.database.engine, "before_cursor_execute", interrupt)
        try:
            opened.finish(slug, slug, 2.0, mend)
        finally:
            sa.event.remove(self.database.engine, "before_cursor_execute", interrupt)

    # -- saying no, and taking it back -------------------------------------------------------------

    def _is_free(self, number: int) -> bool:
        return all(one.person != number for one in self.open)

    @rule(number=someone, scope=scopes)
    def say(self, number: int, scope: str) -> None:
        """Say no by the command line."""
        if self._is_free(number):
            self.suppressions.add([no(number, scope)])

    @rule(number=someone, scope=scopes)
    def say_and_wait(self, number: int, scope: str) -> None:
        """Say no in a transaction of somebody else's, which stays open (where that is possible)."""
        if not self._is_free(number) or len(self.open) == 2:
            return
        one = Open(number)
        connection = one.ending.enter_context(self.database.write())
        add_within(connection, [no(number, scope)])
        if self.database.is_sqlite:
            one.ending.close()
        else:
            self.open.append(one)

    @precondition(lambda self: self.open)
    @rule(fails=st.booleans())
    def end(self, *, fails: bool) -> None:
        """End the oldest of these, well or not."""
        one = self.open.pop(0)
        error = KeyboardInterrupt() if fails else None
        with contextlib.suppress(KeyboardInterrupt):
            one.ending.__exit__(type(error) if error else None, error, None)

    @rule(number=someone, scope=scopes | st.none())
    def lift(self, number: int, scope: str | None) -> None:
        """Take it back."""
        if self._is_free(number):
            self.suppressions.lift([key(number)], scope, Act.CONFIRMED, LIFTING)

    # -- what has to hold --------------------------------------------------------------------------

    @invariant()
    def a_plan_counts_whom_a_launch_would_choose(self) -> None:
        """By shape and reason, though one asks the marks and the other the suppressions."""
        plans = Plans(self.database, batch_size=3)
        for audience in AUDIENCES:
            planned = {(one.shape, one.reason): one.count for one in plans.kinds(audience)}
            with self.database.read() as connection:
                shapes = dict(connection.execute(sa.select(people.c.id, people.c.sealed)).all())
                rows = connection.execute(chosen(audience, after=0, upto=10**6, barring=False)).all()
            assert planned == Counter((shape_of(shapes[row.person_id]), row.reason) for row in rows)

    def consents_are_marked_as_they_are(self) -> None:
        """Whole with basis, source and date; else not."""
        whole = (consents.c.basis != "") & (consents.c.source != "") & memberships.c.consented_at.is_not(None)
        query = sa.select(sa.case((whole, 1), else_=0), memberships.c.consented)
        with self.database.read() as connection:
            rows = connection.execute(query.join_from(memberships, consents)).all()
        assert all(found == kept for found, kept in rows)

    def teardown(self) -> None:
        """Launch to everybody, let one more say no, and claim: nobody who said no is among them."""
        for opened in self.imports:
            opened.close()
        while self.open:
            self.end(fails=False)
        self.a_plan_counts_whom_a_launch_would_choose()
        self.consents_are_marked_as_they_are()
        plans, ledger = Plans(self.database, batch_size=3), Ledger(self.database)
        draft = Draft("a", "{}", AUDIENCES[-1], "d" * 64, "running", "op", "op", 0.0, "UTC", None)
        campaign = plans.record(draft, 0.0)
        batches = []
        while made := plans.slice(campaign, 3, 1.0):
            batches += made
        self.suppressions.add([no(3)])
        for batch in batches:
            lease = ledger.lease(batch, "owner", 2.0, 100.0)
            claimed = ledger.advance(lease, [], 10, 2.0, 100.0).claimed if lease else []
            assert not self._said_no([one.id for one in claimed])

    def _said_no(self, ids: Sequence[int]) -> list[bytes]:
        """Those of these deliveries whose person will not have them."""
        query = sa.select(deliveries.c.address_key, deliveries.c.list_id).where(deliveries.c.id.in_(ids))
        with self.database.read() as connection:
            rows = connection.execute(query).all()
        return [
            row.address_key
            for row in rows
            if {one.scope for one in self.suppressions.find(row.address_key)}
            & {EVERYTHING, list_scope(row.list_id), "topic:war"}
        ]


def test_a_plan_agrees_with_the_suppressions_whoever_writes_when(database: Database) -> None:
    """Imports open and ending, opt-outs between and in the midst of them, and nobody waits for anybody."""
    if database.is_sqlite:  # no power is cut here
        sa.event.listen(database.engine, "connect", lambda dbapi, _: dbapi.execute("PRAGMA synchronous=OFF"))
        database.close()
    else:  # whoever waited for an import would wait for good: both are this thread
        sa.event.listen(database.engine, "connect", _impatient)
        database.close()
    run_state_machine_as_test(
        lambda: Machine(database),  # type: ignore[arg-type]  # any factory does
        settings=settings(
            max_examples=30 if database.is_sqlite else 12,
            stateful_step_count=15,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )


def _impatient(dbapi: sa.engine.interfaces.DBAPIConnection, _: object) -> None:
    with contextlib.closing(dbapi.cursor()) as cursor:
        cursor.execute("SET lock_timeout = '1s'")
    dbapi.commit()


def test_people_who_say_no_in_any_order_at_once_do_not_lock_each_other_out(database: Database) -> None:
    """Two long files of the same people, one backwards, while both are imported under the same consents."""
    store, suppressions = People(database), Suppressions(database)
    numbers = range(1, 301)

    def bring_in(order: int) -> None:
        for slug in SLUGS[::order]:
            texts = [("consent", f"form {number}", "") for number in numbers][::order]
            ids = store.consent_ids(texts)[::order]
            with store.begin_import() as opened:
                rows = zip(numbers, ids, strict=True)
                opened.add([Staged(key(n), n, b"\1", "other", consent, 1.0) for n, consent in rows])
                opened.finish(slug, slug, 1.0)

    def say(order: int) -> None:
        for scope in (EVERYTHING, list_scope(1)):
            suppressions.add([no(number, scope) for number in numbers][::order])

    with ThreadPoolExecutor(4) as pool:
        for done in [
            *(pool.submit(say, order) for order in (1, -1)),
            pool.submit(bring_in, 1),
            pool.submit(bring_in, -1),
        ]:
            done.result()
    assert [(one.reason, one.count) for one in Plans(database, 3).kinds(Rule((1, 2)))] == [
        ("suppressed", 300)
    ]


def test_a_complaint_and_an_opt_out_about_one_mail_at_once_are_both_taken(database: Database) -> None:
    """Whoever is second waits for the first, and neither waits for what the other waits for."""
    store, plans = People(database), Plans(database, batch_size=3)
    texts = store.consent_ids([("consent", "form", "")])
    with store.begin_import() as opened:
        opened.add([Staged(key(1), 1, b"\1", "other", texts[0], 1.0)])
        opened.finish("one", "One", 1.0)
    campaign = plans.record(
        Draft("a", "{}", Rule((1,)), "d" * 64, "running", "op", "op", 0.0, "UTC", None), 0.0
    )
    assert plans.slice(campaign, 3, 1.0)
    with database.read() as connection:
        delivery = connection.execute(sa.select(deliveries.c.id)).scalar_one()
    keyring = Keyring.generate(secrets.token_bytes)
    opt_outs = OptOuts(database, keyring, sender="", discreet_sender="", clock=lambda: 2.0)
    waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"

    def waiting() -> bool:
        with database.read() as connection:
            return bool(connection.exec_driver_sql(waits).scalar_one())

    def interrupt(_: object, __: object, statement: str, *___: object) -> None:
        if statement.startswith("INSERT INTO suppressions") and not second:
            second.append(pool.submit(opt_outs.said_no, delivery, "page"))
            assert database.is_sqlite or processes.until(waiting, seconds=10)

    second: list[Future[bool]] = []
    with ThreadPoolExecutor() as pool:
        sa.event.listen(database.engine, "before_cursor_execute", interrupt)
        assert Aftermath(database).complained(delivery, "abuse", 2.0) is Change.NEW
        assert second[0].result()


@pytest.fixture(autouse=True)
def _closed(database: Database) -> Iterator[None]:
    """Leave no connection open that would hold up the next test."""
    yield
    database.close()
