"""Who is counted by a plan is who is written by the launch, each once, whatever lists they are on."""

import random
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa

from worker.deeds import PERSON, Action, Deed
from worker.store.audience import Rule, kinds
from worker.store.database import Database
from worker.store.docket import Docket
from worker.store.plans import Campaign, Draft, Plans
from worker.store.schema import consents, deliveries, lists, memberships, people
from worker.store.suppressions import EVERYTHING, Act, Suppression, Suppressions
from worker.store.tallies import Tallies

LISTS = (1, 2, 3)
#: What an untidy world holds: opt-outs from everything, from lists here, from a list that is not asked,
#: and from topics.
SCOPES = (EVERYTHING, "list:1", "list:2", "list:9", "topic:war", "topic:law", "topic:art")
#: What campaigns are about.
TOPICS = ((), ("war",), ("law", "war"))


def key(number: int) -> bytes:
    """The address key of person `number`."""
    return number.to_bytes(16, "big")


def fill(database: Database, rows: Sequence[dict[str, Any]]) -> None:
    """Write memberships, and the people and lists they speak of."""
    ids = sorted({row["person_id"] for row in rows})
    same = {"sealed": b"", "provider": "other", "created_at": 0.0, "updated_at": 0.0}
    with database.write() as connection:
        connection.execute(
            sa.insert(lists),
            [{"id": one, "slug": f"l{one}", "title": "", "created_at": 0.0} for one in LISTS],
        )
        connection.execute(
            sa.insert(consents).values(id=1, digest=b"1", basis="consent", source="form", wording="")
        )
        if rows:
            connection.execute(sa.insert(people), [{"id": n, "address_key": key(n), **same} for n in ids])
            connection.execute(sa.insert(memberships), list(rows))


def member(number: int, on: int = 1, *, consented: bool = True, shape: int = 0) -> dict[str, Any]:
    """One membership."""
    kind = {"consented": int(consented), "shape": shape}
    return {"list_id": on, "person_id": number, "consent_id": 1, "joined_at": 0.0, **kind}


def world(seed: int) -> tuple[list[dict[str, Any]], list[Suppression], list[tuple[bytes, str | None]]]:
    """Invent memberships, suppressions and what is lifted of them."""
    dice = random.Random(seed)  # noqa: S311 - chance, not secrecy
    rows, suppressions, lifted = [], [], []
    for number in range(1, dice.choice([1, 2, 6, 40])):
        shape = dice.randrange(-2, 2)
        joined = [one for one in LISTS if dice.random() < 0.6]
        rows += [member(number, one, consented=dice.random() < 0.7, shape=shape) for one in joined]
        said = [scope for scope in SCOPES if dice.random() < 0.15]
        suppressions += [Suppression(key(number), scope, "opt-out", "page", 1.0) for scope in said]
        lifted += [(key(number), dice.choice([None, *SCOPES])) for _ in range(dice.random() < 0.2)]
    return rows, suppressions, lifted


def launched(database: Database, rule: Rule, slice_size: int = 7) -> Campaign:
    """Launch to the whole audience."""
    plans = Plans(database, batch_size=3)
    draft = Draft("a", "{}", rule, "d" * 64, "running", "op", "op", 0.0, "UTC", None)
    campaign = plans.record(draft, 0.0)
    while plans.slice(campaign, slice_size, 1.0):
        pass
    return plans.get(campaign.id)


def written(database: Database, campaign: Campaign) -> dict[int, str]:
    """Why each person is left out of a campaign, "" for those who are not, by person."""
    query = sa.select(deliveries.c.person_id, deliveries.c.reason)
    with database.read() as connection:
        rows = connection.execute(query.where(deliveries.c.campaign_id == campaign.id))
        return {row.person_id: row.reason for row in rows}


@pytest.mark.parametrize("seed", range(12))
def test_a_plan_counts_exactly_whom_the_launch_writes(database: Database, seed: int) -> None:
    """By shape and reason, on one list and several, with a limit and without, opt-outs come and gone."""
    rows, suppressions, lifted = world(seed)
    fill(database, rows)
    store = Suppressions(database)
    store.add(suppressions)
    for one, scope in lifted:
        store.lift([one], scope, Act.CONFIRMED, Deed(1.0, PERSON, Action.SUPPRESS_LIFT))
    shapes = {row["person_id"]: row["shape"] for row in rows}
    dice = random.Random(seed)  # noqa: S311 - chance, not secrecy
    for on in ((1,), (1, 2), (3, 1, 2)):
        for limit in (None, 1, 9, 100):
            for strict in (True, False):
                rule = Rule(on, limit, strict, dice.choice(TOPICS))
                with database.read() as connection:
                    planned = kinds(connection, rule)
                found = written(database, launched(database, rule))
                assert {(one.shape, one.reason): one.count for one in planned} == Counter(
                    (shapes[number], reason) for number, reason in found.items()
                )
                assert all(shapes[one.example] == one.shape for one in planned)


def test_a_plan_reads_the_index_of_kinds_and_nothing_else(database: Database) -> None:
    """So that a list of a million is counted in a moment; records and addresses are not looked at."""
    fill(database, [member(number) for number in range(1, 50)])
    seen: list[tuple[str, Any]] = []
    with database.read() as connection:
        sa.event.listen(connection, "before_cursor_execute", lambda *call: seen.append(call[2:4]))
        kinds(connection, Rule((1,)))
    asked = [(statement, values) for statement, values in seen if statement != "BEGIN"]
    assert len(asked) == 6  # three of them read the few rules and sets of topics
    assert not [statement for statement, _ in asked if "people" in statement or "suppressions" in statement]
    if database.is_sqlite:
        with database.read() as connection:
            for statement, values in asked[3:]:
                plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values).all()
                assert "USING COVERING INDEX ix_memberships_kinds" in str(plan)


def test_a_limit_counts_those_who_may_be_written_to_over_all_slices(database: Database) -> None:
    """The first five, though whole slices before and between them are left out; nobody else is in it."""
    fill(database, [member(number, consented=number % 4 == 0) for number in range(1, 60)])
    campaign = launched(database, Rule((1,), limit=5), slice_size=3)
    assert written(database, campaign) == dict.fromkeys([4, 8, 12, 16, 20], "")
    assert campaign.audience == 5
    assert campaign.launched_at is not None


def test_campaigns_launched_side_by_side_are_counted_apart(database: Database) -> None:
    """Their deliveries stand among each other's, and neither counts, cancels or opens one of the other."""
    fill(database, [member(number) for number in range(1, 11)])
    plans, docket, tallies = Plans(database, batch_size=3), Docket(database), Tallies(database)
    draft = Draft("a", "{}", Rule((1,)), "d" * 64, "running", "op", "op", 0.0, "UTC", None)
    one, other = plans.record(draft, 0.0), plans.record(draft, 0.0)
    while plans.slice(one, 2, 1.0) or plans.slice(other, 3, 1.0):
        pass
    assert docket.cancel(one.id, 2.0) == 10
    assert tallies.tally(one.id) == {("skipped", "cancelled"): 10}
    assert tallies.tally(other.id) == {("queued", ""): 10}


def test_campaigns_launched_at_the_same_moment_are_each_counted_whole(database: Database) -> None:
    """Also where the rows of one are not yet seen by the other while both are being written."""
    fill(database, [member(number) for number in range(1, 201)])
    plans, tallies = Plans(database, batch_size=3), Tallies(database)
    draft = Draft("a", "{}", Rule((1,)), "d" * 64, "running", "op", "op", 0.0, "UTC", None)
    both = [plans.record(draft, 0.0) for _ in range(2)]

    def launch(campaign: Campaign) -> None:
        while plans.slice(campaign, 9, 1.0):
            pass

    with ThreadPoolExecutor() as pool:
        list(pool.map(launch, [*both, *both]))  # two launchers for each
    assert [tallies.tally(campaign.id) for campaign in both] == [{("queued", ""): 200}] * 2
    assert [plans.get(campaign.id).audience for campaign in both] == [200, 200]


def test_a_campaign_not_yet_launched_counts_nobody(database: Database) -> None:
    """Before its first delivery there is nothing, and nothing goes wrong."""
    fill(database, [])
    draft = Draft("a", "{}", Rule((1,)), "d" * 64, "scheduled", "op", "op", 0.0, "UTC", None)
    campaign = Plans(database, batch_size=3).record(draft, 0.0)
    assert Tallies(database).tally(campaign.id) == {}
    assert Docket(database).cancel(campaign.id, 1.0) == 0


def test_any_number_of_people_may_say_no_at_once(database: Database) -> None:
    """A list of them is taken whole, however long; whoever is on a list is counted so."""
    fill(database, [member(number) for number in range(1, 4)])
    entries = [Suppression(key(number), EVERYTHING, "imported", "file", 1.0) for number in range(2, 70_000)]
    assert Suppressions(database).add(entries) == len(entries)
    with database.read() as connection:
        assert {(one.reason, one.count) for one in kinds(connection, Rule((1,)))} == {
            ("", 1),
            ("suppressed", 2),
        }
