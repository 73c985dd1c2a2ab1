"""A campaign is moved only where that makes sense, and every count of it adds up, also before it began."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

#: Runs a command line; see conftest.
Tocsin = Callable[..., Any]

NAME = "chechnya-report-1"
STATUS_KEYS = {
    *(
        "campaign",
        "appeal",
        "lists",
        "state",
        "notice",
        "created_at",
        "created_by",
        "approved_by",
        "start_at",
    ),
    *(
        "time_zone",
        "not_after",
        "launched_at",
        "finished_at",
        "audience",
        "digest",
        "waived",
        "open",
        "counts",
        "slowed",
    ),
}
STATES = {"queued", "sending", "sent", "deferred", "bounced", "unconfirmed", "skipped", "expired"}


@pytest.fixture
def scheduled(people: Path, tocsin: Tocsin) -> Path:
    """Have a campaign that starts years from now."""
    words = ("--at", "2030-12-01 09:00", "--tz", "Europe/London", "--yes")
    assert tocsin("send", "chechnya-report", "--list", "example", *words).code == 0
    return people


@pytest.mark.usefixtures("scheduled")
def test_status_for_programs_has_stable_keys(tocsin: Tocsin) -> None:
    """An array of all, or one object."""
    (one,) = tocsin("status", "--json").json
    assert set(one) == STATUS_KEYS
    assert set(one["counts"]) == STATES
    assert one["lists"] == ["example"]
    assert one["start_at"] == "2030-12-01T09:00:00+00:00"
    assert tocsin("status", NAME, "--json").json == one


@pytest.mark.usefixtures("scheduled")
def test_status_for_people(tocsin: Tocsin) -> None:
    """Everything an approver needs on one screen of 80 columns."""
    ran = tocsin("status", NAME)
    for text in (NAME, "scheduled", "example", "2030-12-01 09:00 GMT", "alice", "nobody yet"):
        assert text in ran.out
    assert max(map(len, (ran.out + tocsin("status").out).splitlines())) <= 80


@pytest.mark.usefixtures("people")
def test_no_campaign_yet_says_how_to_plan_one(tocsin: Tocsin) -> None:
    """An empty table would be a riddle."""
    assert "tocsin send" in tocsin("status").out


@pytest.mark.usefixtures("scheduled")
def test_pause_and_resume_may_be_repeated_where_that_is_harmless(tocsin: Tocsin) -> None:
    """Paused stays paused; what is not paused cannot be resumed."""
    assert tocsin("resume", NAME).code == 1
    assert tocsin("pause", NAME).code == 0
    ran = tocsin("pause", NAME)
    assert (ran.code, ran.out.strip()) == (0, f"{NAME}: paused (paused by hand)")
    assert "scheduled" in tocsin("resume", NAME).out


@pytest.mark.usefixtures("scheduled")
def test_cancel_asks_and_is_final(tocsin: Tocsin) -> None:
    """Without a terminal it takes --yes; afterwards nothing brings the campaign back."""
    assert tocsin("cancel", NAME).code == 2
    assert tocsin("cancel", NAME, "--yes").code == 0
    for words in (("resume", NAME), ("pause", NAME), ("retry", NAME, "--bounced"), ("cancel", NAME, "--yes")):
        assert tocsin(*words).code == 1, words
    assert tocsin("status", NAME, "--json").json["state"] == "cancelled"


@pytest.mark.usefixtures("scheduled")
def test_verify_holds_only_when_it_is_over(tocsin: Tocsin) -> None:
    """A campaign that has not been launched is not proven; one that was cancelled before is, over nobody."""
    ran = tocsin("verify", NAME, "--json")
    assert ran.code == 1
    assert set(ran.json) == {
        "campaign",
        "holds",
        "audience",
        "open",
        *(STATES - {"queued", "sending", "deferred"}),
    }
    assert ran.json["holds"] is False
    assert "its launch is not whole" in tocsin("verify", NAME).out
    tocsin("cancel", NAME, "--yes")
    ran = tocsin("verify", NAME)
    assert ran.code == 0
    assert "audience 0 = 0 sent + 0 bounced + 0 skipped + 0 expired + 0 unconfirmed" in ran.out


@pytest.mark.usefixtures("scheduled")
def test_a_report_before_the_start_is_empty_and_whole(tocsin: Tocsin) -> None:
    """No division by nobody; the same keys as ever."""
    assert tocsin("report", NAME).code == 0
    ran = tocsin("report", NAME, "--json")
    assert set(ran.json) == {
        *(
            "campaign",
            "appeal",
            "state",
            "audience",
            "open",
            "holds",
            "outcomes",
            "providers",
            "hours",
            "facts",
            "known_since",
            "links",
        )
    }
    assert tocsin("unconfirmed", NAME, "--json").json == []
    assert tocsin("unconfirmed", NAME).out.strip() == f"None in {NAME}."


@pytest.mark.usefixtures("scheduled")
def test_retry_finds_nobody_before_the_start(tocsin: Tocsin) -> None:
    """Nothing is moved for nobody."""
    ran = tocsin("retry", NAME, "--bounced", "--expired")
    assert ran.code == 0
    assert "nothing was changed" in ran.out
    assert tocsin("status", NAME, "--json").json["state"] == "scheduled"


@pytest.mark.usefixtures("scheduled")
def test_a_new_deadline_is_read_in_the_campaigns_own_zone(tocsin: Tocsin) -> None:
    """And checked like every time that is given."""
    assert tocsin("retry", NAME, "--expired", "--not-after", "2020-01-01 09:00").code == 2
    assert "skip" in tocsin("retry", NAME, "--expired", "--not-after", "2030-03-31 01:30").err
