"""A local time means one moment, or it is refused."""

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker import calendar
from worker.errors import WrongUse

NOW = dt.datetime(2026, 3, 1, tzinfo=dt.UTC).timestamp()


@pytest.mark.parametrize(
    ("text", "zone", "utc"),
    [
        ("2026-12-01 09:00", "Europe/London", "2026-12-01T09:00:00+00:00"),
        ("2026-07-01 09:00", "Europe/London", "2026-07-01T08:00:00+00:00"),
        ("2026-07-01T09:00:30", "Asia/Kolkata", "2026-07-01T03:30:30+00:00"),
        ("2026-10-25 01:30+01:00", "Europe/London", "2026-10-25T00:30:00+00:00"),
        ("2026-10-25 01:30+00:00", "Europe/London", "2026-10-25T01:30:00+00:00"),
        (" 2026-12-01 09:00 ", "UTC", "2026-12-01T09:00:00+00:00"),
    ],
)
def test_a_local_time_is_stored_in_utc(text: str, zone: str, utc: str) -> None:
    """Summer time, half-hour zones and explicit offsets come out right."""
    assert calendar.moment(text, zone, NOW) == dt.datetime.fromisoformat(utc).timestamp()


@pytest.mark.parametrize(
    ("text", "zone", "why"),
    [
        ("2026-02-01 09:00", "UTC", "past"),
        ("2026-03-29 01:30", "Europe/London", "does not exist"),
        ("2026-10-25 01:30", "Europe/London", "happens twice"),
        ("tomorrow", "UTC", "not a date"),
        ("2026-13-01 09:00", "UTC", "not a date"),
        ("2026-12-01 09:00", "Europe/Atlantis", "no time zone"),
        ("2026-12-01 09:00", "../../etc/passwd", "no time zone"),
        ("", "UTC", "not a date"),
    ],
)
def test_a_time_that_cannot_be_is_refused(text: str, zone: str, why: str) -> None:
    """Past, skipped, doubled and unreadable times each say why, with a remedy."""
    with pytest.raises(WrongUse, match=why) as caught:
        calendar.moment(text, zone, NOW)
    assert caught.value.remedy


_FIRST, _LAST = dt.datetime(2026, 3, 2), dt.datetime(2037, 1, 1)  # noqa: DTZ001 - local on purpose


@given(
    st.datetimes(_FIRST, _LAST),
    st.sampled_from(["Europe/London", "Asia/Kolkata", "America/St_Johns", "Pacific/Chatham"]),
)
def test_what_is_accepted_reads_back_as_it_was_written(local: dt.datetime, zone: str) -> None:
    """An accepted time, shown in its zone, is the time the operator typed."""
    text = local.isoformat(" ", "minutes")
    try:
        found = calendar.moment(text, zone, NOW)
    except WrongUse:
        return
    assert calendar.show(found, zone).startswith(text)
