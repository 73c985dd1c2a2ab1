"""What reaches the terminal: nothing that it would obey, no unwanted colour, lines of 80 columns."""

import os
import pty
import re
import select
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from worker.cli import terminal

#: Runs a command line; see conftest.
Tocsin = Callable[..., Any]

ESCAPES = "\x1b]0;owned\x07\x1b[2J\x1b[31m\x9b31m\u202egnp.exe\x00\x08\r"


def on_a_terminal(words: list[str], variables: Mapping[str, str]) -> str:
    """Run the command on a pseudo-terminal; return all that it wrote there."""
    ours, theirs = pty.openpty()
    running = subprocess.Popen(
        [sys.executable, "-m", "worker.cli", *words],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm-256color", **variables},
    )
    os.close(theirs)
    written = b""
    while select.select([ours], [], [], 60)[0]:
        try:
            written += os.read(ours, 65536)
        except OSError:  # its end is closed
            break
    running.wait(60)
    os.close(ours)
    return written.decode()


@pytest.mark.parametrize(
    "text", [ESCAPES, "[red]x[/red]", "[link=https://example.org]x[/link]", "\ud800", ":bomb:"]
)
def test_hostile_text_is_shown_and_never_obeyed(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Escapes, markup, emoji codes, half characters: none does anything, whatever prints them."""
    terminal.say(text)
    terminal.warn(text)
    terminal.complain(text, text)
    terminal.show(
        terminal.facts([(text, text)]), terminal.table([terminal.Column("x")], [(text,)], total=True)
    )
    terminal.show_json({"x": text})
    told = "".join(capsys.readouterr())
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]", told)
    if text.startswith("["):
        assert text in told


@pytest.mark.usefixtures("people")
def test_a_hostile_title_reaches_no_command_raw(tocsin: Tocsin) -> None:
    """A list's title with escapes is harmless in the table and in JSON."""
    title = "Friends \x1b[2J\u202eof"
    assert tocsin("lists", "import", "lists/example.csv", "--list", "other", "--title", title).code == 0
    for words in (("lists",), ("lists", "--json")):
        told = tocsin(*words).out
        assert "Friends" in told
        assert not set("\x1b\u202e") & set(told)


def test_a_hostile_appeal_is_rendered_to_a_terminal_without_its_escapes(people: Path) -> None:
    """To a pipe the bytes are as they are; to a terminal only what it will not obey."""
    file = people / "templates" / "appeals" / "chechnya-report" / "en.md"
    file.write_text(file.read_text(encoding="utf-8") + "\nred \u202egnp.exe\n", encoding="utf-8")
    shown = on_a_terminal(["appeals", "render", "chechnya-report"], {"NO_COLOR": "1"})
    assert "gnp.exe" in shown
    assert not set("\x1b\u202e") & set(shown)


@pytest.mark.usefixtures("people")
def test_colours_on_a_terminal_only_and_never_under_no_color(tocsin: Tocsin) -> None:
    """A pipe gets plain text; NO_COLOR turns colours off where there would be some."""
    assert "\x1b[" not in tocsin("doctor").out
    assert "\x1b[3" in on_a_terminal(["doctor"], {})
    assert "\x1b[3" not in on_a_terminal(["doctor"], {"NO_COLOR": "1"})


@pytest.mark.usefixtures("people")
def test_a_terminal_without_utf8_gets_no_error() -> None:
    """A character that the terminal lacks is spelled out; the command goes on."""
    ran = subprocess.run(
        [sys.executable, "-m", "worker.cli", "send", "chechnya-report", "--list", "example", "--dry-run"],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert rb"\u041d" in ran.stdout


@pytest.mark.usefixtures("people")
def test_a_reader_that_leaves_early_causes_no_traceback() -> None:
    """`tocsin … | head -1` is no error worth a word."""
    ran = subprocess.run(  # noqa: S602 - the pipe is the point
        f"{sys.executable} -m worker.cli appeals render chechnya-report --part html | head -c 1",
        shell=True,
        capture_output=True,
        check=False,
        text=True,
    )
    assert ran.stderr == ""


@pytest.mark.parametrize(
    "words",
    [
        ("status",),
        ("status", "chechnya-report-1"),
        ("report", "chechnya-report-1"),
        ("lists",),
        ("appeals",),
        ("send", "chechnya-report", "--list", "example", "--dry-run"),
        ("suppress", "check", "a@example.org"),
    ],
    ids=" ".join,
)
@pytest.mark.usefixtures("people")
def test_everything_fits_eighty_columns(tocsin: Tocsin, words: tuple[str, ...]) -> None:
    """The width of the terminal that is everywhere."""
    tocsin("send", "chechnya-report", "--list", "example", "--at", "2030-12-01 09:00", "--yes")
    assert max(map(len, tocsin(*words).out.splitlines())) <= 80


@pytest.mark.usefixtures("people")
def test_errors_are_one_line_for_a_pipe(tocsin: Tocsin) -> None:
    """However long the message: whoever searches a log finds it whole."""
    ran = tocsin("lists", "import", "x" * 200, "--list", "a")
    assert ran.err.splitlines()[0] == f"error: cannot read {'x' * 200}: no such file or directory"
