"""What names people beside their records goes when its time is over, and nothing else goes with it."""

import os
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from worker import leavings
from worker.addresses import parse
from worker.deeds import TIMER, Action, Deed
from worker.deliveries import State
from worker.feedback import OptOuts
from worker.retention import Item, Retention
from worker.sealing import Keyring
from worker.sections import Retention as Timers
from worker.store.audience import Rule
from worker.store.audit import Audit
from worker.store.database import Database
from worker.store.ledger import Ledger, Outcome
from worker.store.left import Kind, Left
from worker.store.people import People
from worker.store.plans import Draft, Plans
from worker.store.schema import deliveries
from worker.store.staging import Staged
from worker.store.suppressions import Suppressions
from worker.store.tallies import Tallies
from worker.tokens import Purpose

DAY = 86_400.0


@pytest.fixture
def retention(database: Database, tmp_path: Path, clock: Callable[[], float]) -> Retention:
    """Timers over a state folder of its own, on a machine called "here"."""
    state = tmp_path / "var"
    state.mkdir()
    return Retention(Left(database, "here"), Audit(database), state, Timers(), clock)


def _file(path: Path, clock: Any, text: str = "x") -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    os.utime(path, (clock(), clock()))
    return path


def _shown(items: Sequence[Item]) -> list[tuple[str, str, bool]]:
    return [(one.kind, Path(one.what).name, one.changed) for one in items]


def test_each_file_goes_when_its_own_time_is_over(retention: Retention, tmp_path: Path, clock: Any) -> None:
    """In our folders and at a place of an operator's choice; each kind has its timer, 0 is never."""
    made = {
        "rejects": _file(tmp_path / "var/rejects/a.csv", clock),
        "exports": _file(tmp_path / "elsewhere/b.json", clock),
        "captured": _file(tmp_path / "var/outbox/1.eml", clock),
        "previews": _file(tmp_path / "var/preview/p.html", clock),
    }
    retention.note(Kind.EXPORTS, made["exports"])
    kept = _file(tmp_path / "var/inbox/waits.eml", clock)  # a person has to read it
    assert sorted(_shown(retention.items())) == sorted((k, p.name, False) for k, p in made.items())
    assert not retention.apply()
    clock.forward(8 * DAY)
    due = {one.kind for one in retention.items() if one.due_at is not None and one.due_at <= clock()}
    assert due == {"previews", "captured"}
    assert retention.apply().files == 2
    clock.forward(23 * DAY)
    assert retention.apply().files == 2
    assert not any(path.exists() for path in made.values())
    assert kept.exists()
    assert list(retention.items()) == []


def test_what_has_become_something_else_is_left_alone(
    database: Database, retention: Retention, tmp_path: Path, clock: Any
) -> None:
    """Edited, replaced, a link, another machine's: listed or forgotten, never removed, never followed."""
    precious = _file(tmp_path / "precious.txt", clock, "keep")
    edited = _file(tmp_path / "out/edited.json", clock)
    linked = _file(tmp_path / "out/linked.json", clock)
    far = _file(tmp_path / "out/far.json", clock)
    for path in (edited, linked):
        retention.note(Kind.EXPORTS, path)
    Retention(Left(database, "there"), Audit(database), tmp_path, Timers(), clock).note(Kind.EXPORTS, far)
    edited.write_text("somebody wrote on", encoding="utf-8")
    linked.unlink()
    linked.symlink_to(precious)
    inside = tmp_path / "var" / "rejects"
    inside.mkdir()
    (inside / "link.csv").symlink_to(precious)
    (tmp_path / "var" / "outbox").symlink_to(tmp_path / "out")
    clock.forward(400 * DAY)
    assert _shown(retention.items()) == [("exports", "edited.json", True)]
    assert not retention.apply()
    assert precious.read_text(encoding="utf-8") == "keep"
    assert all(path.exists() for path in (edited, far, inside / "link.csv"))


def test_a_file_swapped_between_look_and_removal_stays(tmp_path: Path, clock: Any) -> None:
    """Removal asks again, in the folder it holds open."""
    path = _file(tmp_path / "rejects/a.csv", clock)
    (seen,) = leavings.scan(tmp_path)
    path.unlink()
    _file(path, clock, "another")
    assert not leavings.remove(seen)
    assert path.exists()


class _Ended:
    """A campaign to two people: one mail sent, one unconfirmed."""

    def __init__(self, database: Database, clock: Any) -> None:
        self.database, self.keyring = database, Keyring.generate(secrets.token_bytes)
        people, plans, ledger = People(database), Plans(database, batch_size=10), Ledger(database)
        consent = people.consent_ids([("consent", "form", "Yes.")])[0]
        with people.begin_import() as aside:
            for number, name in enumerate(("a", "b"), 1):
                key = self.keyring.address_key(parse(f"{name}@example.org"))
                aside.add([Staged(key, number, b"sealed", "other", consent, 1.0)])
            aside.finish("one", "One", 1.0)
        rule = Rule((people.find_lists(["one"])[0].id,))
        self.campaign = plans.record(Draft("a", "{}", rule, "d", "running", "o", "o", 0.0, "UTC", None), 1.0)
        (batch,) = plans.slice(self.campaign, 10, 1.0)
        plans.slice(self.campaign, 10, 1.0)
        lease = ledger.lease(batch, "me", clock(), clock() + 60)
        assert lease is not None
        first, second = ledger.advance(lease, [], 10, clock(), clock() + 60).claimed
        told = {"code": 250, "status": "2.0.0", "text": "queued as 123"}
        sent = Outcome(first.id, State.SENT, **told)
        doubt = Outcome(second.id, State.UNCONFIRMED, **told)
        ledger.give_back(lease, [sent, doubt], clock())
        self.first = first.id
        assert plans.finish_whole(clock()) == ["a-1"]

    def texts(self) -> list[str | None]:
        with self.database.read() as connection:
            return list(
                connection.execute(sa.select(deliveries.c.reply_text).order_by(deliveries.c.id)).scalars()
            )


def test_relays_words_go_and_proof_and_opt_out_stay(
    database: Database, retention: Retention, clock: Any
) -> None:
    """Of mails that ended for good, when their campaign ended long ago; links in them work as ever."""
    ended = _Ended(database, clock)
    before = Tallies(database).tally(ended.campaign.id)
    assert [(one.kind, one.what, one.count) for one in retention.items()] == [("replies", "a-1", 1)]
    clock.forward(89 * DAY)
    assert not retention.apply()
    clock.forward(2 * DAY)
    assert retention.apply().replies == 1
    assert ended.texts() == [None, "queued as 123"]  # what is in doubt may yet be settled by it
    assert Tallies(database).tally(ended.campaign.id) == before
    assert not retention.apply()
    desk = OptOuts(database, ended.keyring, sender="", discreet_sender="", clock=clock)
    assert desk.opt_out(ended.keyring.marks().mark(Purpose.OPT_OUT, ended.first), "one-click")
    assert Suppressions(database).find(ended.keyring.address_key(parse("a@example.org")))


def test_the_tick_looks_now_and_then(retention: Retention, tmp_path: Path, clock: Any) -> None:
    """Not each time: once an hour."""
    clock.forward(100 * DAY)
    retention.tick()
    path = _file(tmp_path / "var/rejects/a.csv", clock)
    os.utime(path, (1.0, 1.0))
    retention.tick()
    assert path.exists()
    clock.forward(3601)
    retention.tick()
    assert not path.exists()


def test_the_audit_log_goes_only_by_a_timer_of_a_year_or_more(
    database: Database, tmp_path: Path, clock: Any
) -> None:
    """Whole days at a time, written down by the program; without a timer, nothing."""
    log = Audit(database)
    log.note(Deed(clock(), "op", Action.PAUSE, "a-1"))
    never, yearly = (
        Retention(Left(database, "here"), log, tmp_path, timers, clock)
        for timers in (Timers(), Timers(audit=365))
    )
    clock.forward(364 * DAY)
    assert (list(never.items()), [one.kind for one in yearly.items()]) == ([], ["audit"])
    assert not yearly.apply()
    clock.forward(2 * DAY)
    assert not never.apply()
    assert (yearly.apply().entries, yearly.apply().entries) == (1, 0)
    assert [(one.number, one.operator) for one in log.entries()] == [(2, TIMER)]
    for days in (1, 364):
        with pytest.raises(ValueError, match="365 days at least"):
            Timers(audit=days)
