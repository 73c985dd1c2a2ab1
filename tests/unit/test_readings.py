"""Readings: yes and no, languages and moments, and what is left to a person."""

import contextlib
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.tables.readings import UnclearError, gone, language, moment, yes


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        *[(word, True) for word in ("yes", "Y", " TRUE ", "1", "x", "ja", "oui", "Sí", "да", "✓", "１")],  # noqa: RUF001 - a fullwidth 1 is typed in Asia
        *[(word, False) for word in ("no", "N", "false", "0", "-", "nein", "non", "нет", "none")],
        *[(word, None) for word in ("", "maybe", "2", "yes and no", "\x00", "perhaps")],
    ],
)
def test_yes(text: str, answer: bool | None) -> None:  # noqa: FBT001 - a parametrised expectation
    """Only a plain yes or no in a language we know is one."""
    assert yes(text) is answer


@pytest.mark.parametrize(
    ("status", "expected"),
    [("Unsubscribed", True), ("opted-out", True), ("Bounced", True), ("subscribed", False), ("", False)],
)
def test_gone(status: str, expected: bool) -> None:  # noqa: FBT001 - a parametrised expectation
    """A status that means "do not write" is known however it is spelled."""
    assert gone(status) is expected


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("en", "en"),
        ("RU", "ru"),
        ("en_GB", "en-gb"),
        ("en-GB", "en-gb"),
        ("de_AT.UTF-8", "de-at"),
        ("zh-Hant-TW", "zh-hant-tw"),
        ("English", "en"),
        ("русский", "ru"),
        (" Deutsch ", "de"),
    ],
)
def test_language(text: str, code: str) -> None:
    """A language is a code or a name, in any case."""
    assert language(text) == code


@pytest.mark.parametrize(
    "text", ["", "e", "a kind of English", "en/ru", "en,ru", "12", "<script>", "Klingonish"]
)
def test_no_language(text: str) -> None:
    """What names no one language is unclear."""
    with pytest.raises(UnclearError):
        language(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-03-01", datetime(2026, 3, 1, tzinfo=UTC)),
        ("2026-3-1", datetime(2026, 3, 1, tzinfo=UTC)),
        ("2026/03/01", datetime(2026, 3, 1, tzinfo=UTC)),
        ("2026.03.01", datetime(2026, 3, 1, tzinfo=UTC)),
        ("2026-03-01T10:30", datetime(2026, 3, 1, 10, 30, tzinfo=UTC)),
        ("2026-03-01 10:30:05", datetime(2026, 3, 1, 10, 30, 5, tzinfo=UTC)),
        ("2026-03-01T10:30:00Z", datetime(2026, 3, 1, 10, 30, tzinfo=UTC)),
        ("2026-03-01T10:30:00+02:00", datetime(2026, 3, 1, 8, 30, tzinfo=UTC)),
        ("2026-03-01 10:30:00.123456", datetime(2026, 3, 1, 10, 30, 0, 123456, tzinfo=UTC)),
        ("2026-03-01 10:30:00 UTC", datetime(2026, 3, 1, 10, 30, tzinfo=UTC)),
        ("31.12.2025", datetime(2025, 12, 31, tzinfo=UTC)),
        ("31/12/2025 18:05", datetime(2025, 12, 31, 18, 5, tzinfo=UTC)),
        ("12/31/2025", datetime(2025, 12, 31, tzinfo=UTC)),
        ("12/31/2025 6:05 PM", datetime(2025, 12, 31, 18, 5, tzinfo=UTC)),
        ("12/31/2025 12:05 a.m.", datetime(2025, 12, 31, 0, 5, tzinfo=UTC)),
        ("05/05/2026", datetime(2026, 5, 5, tzinfo=UTC)),
        ("1 March 2026", datetime(2026, 3, 1, tzinfo=UTC)),
        ("1st Mar 2026", datetime(2026, 3, 1, tzinfo=UTC)),
        ("01-Mar-2026", datetime(2026, 3, 1, tzinfo=UTC)),
        ("March 1, 2026", datetime(2026, 3, 1, tzinfo=UTC)),
        ("Sept 1 2026 09:00", datetime(2026, 9, 1, 9, tzinfo=UTC)),
    ],
)
def test_moment(text: str, expected: datetime) -> None:
    """ISO dates and the usual written forms are read, in UTC where no zone is named."""
    assert moment(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("03/04/2026", "change places"),
        ("3.4.2026", "change places"),
        ("03-04-2026 10:00", "change places"),
        ("30/02/2026", "does not exist"),
        ("2026-02-30", "does not exist"),
        ("2026-13-01", "does not exist"),
        ("13/13/2026", "does not exist"),
        ("32 March 2026", "does not exist"),
        ("2026/03/01 25:00", "does not exist"),
        ("1 Marble 2026", "does not exist"),
        ("0001-01-01T00:00+23:00", "does not exist"),
        ("0026-03-01", "cannot be read"),
        ("01/02/26", "cannot be read"),
        ("45000", "cannot be read"),
        ("1767225600", "cannot be read"),
        ("20260301", "cannot be read"),
        ("yesterday", "cannot be read"),
        ("2026-03", "cannot be read"),
        ("\u0662\u0660\u0662\u0666-\u0660\u0663-\u0660\u0661", "cannot be read"),
        ("", "cannot be read"),
    ],
)
def test_unclear_moment(text: str, message: str) -> None:
    """A date that could be two dates, or none, is never guessed."""
    with pytest.raises(UnclearError, match=message):
        moment(text)


@pytest.mark.parametrize(
    ("text", "day_first", "expected"),
    [
        ("03/04/2026", True, (4, 3)),
        ("03/04/2026", False, (3, 4)),
        ("31/12/2026", False, (12, 31)),
        ("12/31/2026", True, (12, 31)),
    ],
)
def test_told_the_order(text: str, day_first: bool, expected: tuple[int, int]) -> None:  # noqa: FBT001 - a parametrised input
    """Told the order, an ambiguous date is read so; one that can be only one date stays that date."""
    found = moment(text, day_first=day_first)
    assert (found.month, found.day) == expected


OFFSETS = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@given(st.datetimes(min_value=datetime(1980, 1, 2), timezones=OFFSETS))  # noqa: DTZ001 - bounds are naive
def test_iso_moments_survive(when: datetime) -> None:
    """Any ISO moment comes back as the same moment, in UTC."""
    found = moment(when.isoformat())
    assert found == when
    assert found.tzinfo is UTC


@given(st.one_of(st.text(), st.from_regex(r"[0-9 ./:TZ+-]{1,24}")))
def test_only_unclear(text: str) -> None:
    """Whatever the text, there is a reading or an UnclearError."""
    for read in (moment, language):
        with contextlib.suppress(UnclearError):
            read(text)
    yes(text)
    gone(text)
