"""Who may lift which "no": no import, the person by their own confirmed act, an operator for a reason."""

import pytest

from worker.deeds import PERSON, Action, Deed
from worker.store.audit import Audit
from worker.store.database import Database
from worker.store.people import People
from worker.store.suppressions import EVERYTHING, FEWER, REST, Act, Suppression, Suppressions
from worker.store.wishes import Wishes, begin_rests, wish

KEY, OLDER = b"k" * 16, b"o" * 16
REASONS = ("opt-out", "bounce", "imported", "operator", "complaint", "erasure")
DEED = Deed(9.0, PERSON, Action.SUPPRESS_LIFT, "all")


def no(reason: str, key: bytes = KEY, scope: str = EVERYTHING, at: float = 5.0) -> Suppression:
    """A standing "no"."""
    return Suppression(key, scope, reason, "page", at)


@pytest.mark.parametrize(
    ("act", "although", "lifted"),
    [
        (Act.CONFIRMED, (), {"opt-out", "bounce", "imported", "complaint", "erasure"}),
        (Act.OPERATOR, (), {"opt-out", "bounce", "imported", "operator"}),
        (Act.OPERATOR, ("complaint",), {"opt-out", "bounce", "imported", "operator", "complaint"}),
        (Act.OPERATOR, ("complaint", "erasure"), set(REASONS)),
    ],
)
def test_each_act_lifts_its_reasons_and_leaves_the_others(
    database: Database, act: Act, although: tuple[str, ...], lifted: set[str]
) -> None:
    """What is lifted is in the audit log with its reason, in the same transaction; what is left stands."""
    store, log = Suppressions(database), Audit(database)
    for reason in REASONS:
        scope = f"list:{REASONS.index(reason)}"
        store.add([no(reason, scope=scope)])
        done = store.lift([KEY, OLDER], scope, act, DEED, although=although)
        assert (done.lifted, [one.reason for one in done.left]) == (
            (1, []) if reason in lifted else (0, [reason])
        )
    assert {one.reason for one in store.find(KEY)} == set(REASONS) - lifted
    assert sorted(one.facts["had_said"] for one in log.entries()) == sorted([each] for each in lifted)
    assert {(one.operator, one.action) for one in log.entries()} == {(PERSON, "suppress lift")}


def test_what_was_said_since_may_be_all_that_is_lifted(database: Database) -> None:
    """One of last year stays, and so does one to another list."""
    store = Suppressions(database)
    store.add([no("opt-out", at=5.0), no("opt-out", OLDER, at=8.0), no("opt-out", OLDER, "list:1", 8.0)])
    done = store.lift([KEY, OLDER], EVERYTHING, Act.CONFIRMED, DEED, since=7.0)
    assert (done.lifted, [one.created_at for one in done.left]) == (1, [5.0])
    assert [one.scope for one in store.find(OLDER)] == ["list:1"]


def test_an_operator_ends_a_pause_but_not_the_wish_for_fewer(database: Database) -> None:
    """A pause was "nothing until then"; fewer mails is no "no". A lift for one list leaves both alone."""
    store = Suppressions(database)
    with database.write() as connection:
        wish(connection, KEY, Wishes(paused_until=1e10, fewer=True), 5.0)
        assert not begin_rests(connection, {7: KEY}, 6.0)
    assert store.lift([KEY], "list:1", Act.OPERATOR, DEED) == (0, [])
    for act in Act:
        with database.write() as connection:
            wish(connection, KEY, Wishes(paused_until=1e10 + 1, fewer=True), 7.0)
        done = store.lift([KEY], None, act, DEED)
        assert (done.lifted, [one.scope for one in done.left]) == (1, [FEWER])
    assert {one.scope for one in store.find(KEY)} == {FEWER, REST}


def test_what_changes_an_entry_is_not_called_new(database: Database) -> None:
    """An opt-out that its page could take back becomes the later, firmer one; only others are counted."""
    store = Suppressions(database)
    store.add([no("opt-out", at=5.0)])
    assert store.add([Suppression(KEY, EVERYTHING, "imported", "a.csv", 9.0), no("opt-out", OLDER)]) == 1
    assert [(one.reason, one.source, one.created_at) for one in store.find(KEY)] == [
        ("imported", "a.csv", 9.0)
    ]
    assert store.add([no("opt-out", at=10.0)]) == 0
    assert store.find(KEY)[0].source == "a.csv"


@pytest.mark.parametrize(
    ("said", "then"),
    [
        (["opt-out", "complaint"], "complaint"),
        (["complaint", "opt-out"], "complaint"),
        (["complaint", "erasure", "complaint"], "erasure"),
        (["opt-out", "bounce", "imported"], "opt-out"),
    ],
)
def test_a_stricter_reason_takes_a_milder_ones_place(database: Database, said: list[str], then: str) -> None:
    """Who opted out and then complained is lifted as a complaint is; the "no" stands since its first day."""
    store = Suppressions(database)
    assert [store.add([no(reason, at=float(at))]) for at, reason in enumerate(said)] == [
        1,
        *(0 for _ in said[1:]),
    ]
    assert [(one.reason, one.created_at) for one in store.find(KEY)] == [(then, 0.0)]


def test_no_import_lifts_anything(database: Database) -> None:
    """Neither of people nor of suppressions, whatever it says."""
    store = Suppressions(database)
    store.add([no("opt-out")])
    with People(database).begin_import() as opened:
        opened.finish("one", "One", 1.0)
    store.add([no("imported", at=99.0)])
    assert store.find(KEY) == [no("opt-out")]
