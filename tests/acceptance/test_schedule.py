"""A scheduled campaign starts at its time, once, also with two beats; pause, resume and cancel hold."""

import datetime as dt
from collections import Counter
from typing import TYPE_CHECKING

from worker import processes

if TYPE_CHECKING:
    from tests.acceptance.conftest import Office

APPEAL = "chechnya-report"


def test_a_scheduled_campaign_starts_once_with_two_beats(office: "Office") -> None:
    """Nothing leaves before the time; afterwards everyone has one mail."""
    office.import_people([f"p{number}@example.org,P" for number in range(40)])
    with office.up():
        second = processes.spawn([str(word) for word in office.argv("beat")], env=office.env)
        start = dt.datetime.now(dt.UTC).replace(microsecond=0) + dt.timedelta(seconds=15)
        try:
            at = start.strftime("%Y-%m-%d %H:%M:%S")
            office.run("send", APPEAL, "--list", "people", "--yes", "--at", at, "--tz", "UTC")
            office.until_finished(f"{APPEAL}-1")
        finally:
            processes.end(second, patience=20)
    assert Counter(office.recipients()) == Counter(f"p{number}@example.org" for number in range(40))
    assert min(file.stat().st_mtime for file in office.outbox.glob("*.eml")) >= start.timestamp()
    assert office.verify(f"{APPEAL}-1") == {"sent": 40}


def test_a_campaign_recorded_while_nothing_runs_starts_when_something_does(office: "Office") -> None:
    """The queue is a doorbell: nobody heard it, and nothing is lost."""
    office.import_people(["a@example.org,A", "b@example.org,B"])
    office.run("send", APPEAL, "--list", "people", "--yes")
    with office.up():
        office.until_finished(f"{APPEAL}-1")
    assert sorted(office.recipients()) == ["a@example.org", "b@example.org"]


def test_pause_stops_resume_goes_on_and_cancel_ends(office: "Office") -> None:
    """Nobody gets two mails over a pause; a cancelled campaign adds up with the rest skipped."""
    office.configure(per_second=8)
    office.import_people([f"p{number}@example.org,P" for number in range(120)])
    with office.up():
        office.run("send", APPEAL, "--list", "people", "--yes")
        assert processes.until(lambda: len(office.mails()) > 5, seconds=60)
        office.run("pause", f"{APPEAL}-1")
        assert processes.until(lambda: _in_hand(office) == 0, seconds=10)
        stood = len(office.mails())
        assert stood < 120
        office.run("resume", f"{APPEAL}-1")
        assert processes.until(lambda: len(office.mails()) > stood + 5, seconds=60)
        office.run("cancel", f"{APPEAL}-1", "--yes")
        assert processes.until(lambda: _in_hand(office) == 0, seconds=10)
    got = Counter(office.recipients())
    assert set(got.values()) == {1}
    assert office.verify(f"{APPEAL}-1") == {"sent": len(got), "skipped": 120 - len(got)}


def _in_hand(office: "Office") -> int:
    return office.counts(f"{APPEAL}-1").get("sending", 0)
