"""Whatever goes wrong is one line with its remedy, never a traceback; the exit code says what kind."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from worker.cli import index

#: Runs a command line; see conftest.
Tocsin = Callable[..., Any]

GOOD = "email,basis,source,when\nanna@example.org,consent,form,2025-01-01\n"


def _no_workspace(here: Path) -> None:
    (here / "tocsin.toml").unlink()
    (here / "var" / "secret.toml").unlink()


def _unreadable(here: Path) -> None:
    (here / "tocsin.toml").write_text("[organisation\n", encoding="utf-8")


def _wrong_value(here: Path) -> None:
    (here / "tocsin.toml").write_text("[sending]\nbatch_size = 0\n", encoding="utf-8")


def _no_valid_row(here: Path) -> None:
    (here / "none.csv").write_text("email\nnobody\nnothing\n", encoding="utf-8")


def _one_bad_row(here: Path) -> None:
    (here / "some.csv").write_text(f"{GOOD}broken,consent,form,2025-01-01\n", encoding="utf-8")


def _no_table(here: Path) -> None:
    (here / "lists" / "book.csv").write_bytes(b"PK\x03\x04\x14\x00\x06\x00" + bytes(600))


def _missing_variable(here: Path) -> None:
    file = here / "templates" / "appeals" / "chechnya-report" / "en.md"
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace('{{ first_name | default("friend") }}', "{{ shoe_size }}"), encoding="utf-8")


def _unknown_key(here: Path) -> None:
    file = here / "templates" / "appeals" / "chechnya-report" / "en.md"
    file.write_text(file.read_text(encoding="utf-8").replace("subject:", "subjekt:", 1), encoding="utf-8")


def _open_secret(here: Path) -> None:
    (here / "var" / "secret.toml").chmod(0o644)


def _no_secret(here: Path) -> None:
    (here / "var" / "secret.toml").unlink()


def _no_store(here: Path) -> None:
    (here / "var" / "tocsin.db").unlink()


def _a_file_in_the_way(here: Path) -> None:
    (here / "thing").write_text("a file", encoding="utf-8")


def _nothing(_here: Path) -> None:
    pass


SEND = ("send", "chechnya-report", "--list", "example")
TABLE: list[tuple[str, Callable[[Path], None], tuple[str, ...], int, str, str]] = [
    ("no workspace", _no_workspace, ("status",), 2, "there is no workspace here", "tocsin init"),
    ("unreadable settings", _unreadable, ("status",), 2, "tocsin.toml", "Mend that line"),
    ("a wrong value", _wrong_value, ("status",), 2, "sending.batch_size", "tocsin doctor"),
    ("a second init", _nothing, ("init", "."), 1, "is there already", "another folder"),
    ("unwritable folder", _a_file_in_the_way, ("init", "thing/office"), 3, "cannot write to", ""),
    (
        "no store",
        _no_store,
        ("lists",),
        2,
        "the database is not at this version's schema",
        "tocsin db upgrade",
    ),
    ("no key", _no_secret, SEND, 2, "cannot read the key ring", "tocsin init"),
    ("a key that others may read", _open_secret, SEND, 2, "others may read the key ring", "chmod 600"),
    ("no such file", _nothing, ("lists", "import", "x.csv", "--list", "a"), 2, "cannot read x.csv", "name"),
    (
        "a folder for a file",
        _nothing,
        ("lists", "import", "lists", "--list", "a"),
        2,
        "cannot read lists",
        "name",
    ),
    (
        "no valid row",
        _no_valid_row,
        ("lists", "import", "none.csv", "--list", "a"),
        1,
        "no usable row",
        "rejects",
    ),
    (
        "a bad row",
        _one_bad_row,
        ("lists", "import", "some.csv", "--list", "a"),
        1,
        "1 of 2 rows",
        "--accept-valid",
    ),
    ("a workbook", _no_table, ("lists", "import", "lists/book.csv", "--list", "a"), 2, "", "CSV"),
    (
        "a list's wrong name",
        _nothing,
        ("lists", "import", "x", "--list", "Ä b"),
        2,
        "a list's name is",
        "--list",
    ),
    (
        "a wrong date",
        _nothing,
        ("lists", "import", "x", "--list", "a", "--when", "soon"),
        2,
        "--when:",
        "2026",
    ),
    ("no such appeal", _nothing, ("appeals", "check", "none"), 1, "no appeal called none", "appeals list"),
    (
        "no such language",
        _nothing,
        ("appeals", "render", "chechnya-report", "--language", "it"),
        1,
        "it",
        "en, ru",
    ),
    (
        "no discreet names",
        _nothing,
        ("appeals", "render", "chechnya-report", "--discreet"),
        1,
        "discreet",
        "toml",
    ),
    ("a missing variable", _missing_variable, (*SEND, "--yes"), 1, "shoe_size (", "default"),
    ("an appeal's wrong key", _unknown_key, (*SEND, "--yes"), 2, "en.md:", "mend"),
    ("nobody to write to", _nothing, ("send", "chechnya-report"), 2, "say whom to write to", "--list"),
    (
        "no such list",
        _nothing,
        ("send", "chechnya-report", "--list", "x"),
        1,
        "no list called x",
        "tocsin lists",
    ),
    ("a past time", _nothing, (*SEND, "--at", "2020-01-01 09:00"), 2, "is past", "time to come"),
    (
        "a time the clocks skip",
        _nothing,
        (*SEND, "--at", "2030-03-31 01:30", "--tz", "Europe/London"),
        2,
        "the clocks skip it",
        "an hour later",
    ),
    (
        "no such zone",
        _nothing,
        (*SEND, "--at", "2030-01-01 09:00", "--tz", "Mars/One"),
        2,
        "Mars/One",
        "IANA",
    ),
    ("no time at all", _nothing, (*SEND, "--at", "tomorrow"), 2, "not a date and time", "Write it as"),
    (
        "a deadline before the start",
        _nothing,
        (*SEND, "--at", "2030-02-01 09:00", "--not-after", "2030-01-01 09:00"),
        2,
        "--not-after",
        "later time",
    ),
    ("nobody to ask", _nothing, SEND, 2, "nobody is there to answer", "--yes"),
    ("no such campaign", _nothing, ("status", "x-1"), 1, "no campaign called x-1", "tocsin status"),
    ("no such campaign", _nothing, ("report", "x-1"), 1, "no campaign called x-1", "tocsin status"),
    ("no such campaign", _nothing, ("verify", "x-1"), 1, "no campaign called x-1", "tocsin status"),
    ("no such campaign", _nothing, ("pause", "x-1"), 1, "no campaign called x-1", "tocsin status"),
    ("nobody to retry", _nothing, ("retry", "x-1"), 2, "say whom to try again", "--bounced"),
    ("no address", _nothing, ("suppress", "add", "nobody"), 2, "address 1: there is no @", "mend"),
    (
        "no reason",
        _nothing,
        ("suppress", "lift", "me@example.org", "--reason", " "),
        2,
        "takes a reason",
        "",
    ),
    ("a test to no address", _nothing, ("send", "chechnya-report", "--test-to", "me"), 2, "--test-to:", ""),
    (
        "a relay that is down",
        _nothing,
        ("send", "chechnya-report", "--test-to", "me@example.org"),
        3,
        "",
        "relay",
    ),
    ("no such queue", _nothing, ("worker", "--queues", "fast"), 2, "no queue called fast", "control"),
    ("a worker without a queue", _nothing, ("worker",), 3, "no queue runs", "tocsin up"),
    ("a command's typing error", _nothing, ("sned",), 2, "Did you mean 'send'", "tocsin --help"),
    ("an unknown option", _nothing, ("status", "--fast"), 2, "--fast", "tocsin status --help"),
    ("a missing argument", _nothing, ("report",), 2, "CAMPAIGN", "tocsin report --help"),
    ("a wrong number", _nothing, (*SEND, "--limit", "0"), 2, "--limit", "tocsin send --help"),
]


@pytest.mark.parametrize(
    ("arrange", "words", "code", "message", "remedy"),
    [row[1:] for row in TABLE],
    ids=[f"{row[0]}: {' '.join(row[2])[:30]}" for row in TABLE],
)
def test_each_wrong_use_is_one_line_with_a_remedy(
    people: Path,
    tocsin: Tocsin,
    arrange: Callable[[Path], None],
    words: tuple[str, ...],
    code: int,
    message: str,
    remedy: str,
) -> None:
    """What went wrong, the remedy beneath it, and an exit code by remedy: 1 no, 2 mend it, 3 later."""
    arrange(people)
    ran = tocsin(*words)
    assert ran.code == code, ran
    lines = [line for line in ran.err.splitlines() if line]
    assert [line for line in lines if line.startswith("error: ")] == [lines[0]], ran.err
    assert message in ran.err
    assert "Traceback" not in ran.err
    assert all(line.startswith(("error: ", "  → ", "       ")) for line in lines), ran.err
    assert remedy in ran.err


def test_a_refused_command_leaves_no_campaign_and_no_member(people: Path, tocsin: Tocsin) -> None:
    """Nothing is half done: after a wrong use there is neither a campaign nor a new list."""
    _one_bad_row(people)
    tocsin("lists", "import", "some.csv", "--list", "other")
    tocsin(*SEND)
    assert tocsin("status", "--json").json == []
    assert [one["list"] for one in tocsin("lists", "--json").json] == ["example"]


def test_a_fault_of_ours_is_one_line_and_a_log(
    people: Path, tocsin: Tocsin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What nobody foresaw shows its type only; its traceback is in the log, without an address."""

    def broken(_name: str) -> None:
        raise RuntimeError("someone@example.org broke it")

    monkeypatch.setattr(index, "load", broken)
    ran = tocsin("status")
    assert ran.code == 70
    assert ran.err.startswith("error: unexpected RuntimeError")
    assert "someone@" not in ran.err + ran.out
    assert "Traceback" not in ran.err
    log = people / "var" / "log" / "cli.log"
    assert str(log) in ran.err
    assert "(address) broke it" in log.read_text(encoding="utf-8")
    assert log.stat().st_mode & 0o777 == 0o600


@pytest.mark.usefixtures("people")
def test_debug_shows_the_traceback(tocsin: Tocsin, monkeypatch: pytest.MonkeyPatch) -> None:
    """TOCSIN_DEBUG=1 is the way to see where a fault of ours came from."""

    def broken(_name: str) -> None:
        raise RuntimeError("here")

    monkeypatch.setattr(index, "load", broken)
    monkeypatch.setenv("TOCSIN_DEBUG", "1")
    assert "RuntimeError: here" in tocsin("status").err


@pytest.mark.usefixtures("people")
def test_a_full_disk_is_told_without_a_traceback(tocsin: Tocsin, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the machine refuses is one line and exit 3: it may work later."""

    def full(_name: str) -> None:
        raise OSError(28, "No space left on device", "var/tocsin.db")

    monkeypatch.setattr(index, "load", full)
    ran = tocsin("status")
    assert ran.code == 3
    assert ran.err.startswith("error: no space left on device: var/tocsin.db")


@pytest.mark.usefixtures("people")
def test_an_interrupted_command_says_so_and_exits_130(
    tocsin: Tocsin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C is one line, and the exit code that shells expect."""

    def interrupted(_name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(index, "load", interrupted)
    ran = tocsin("status")
    assert (ran.code, ran.err.strip()) == (130, "stopped")
