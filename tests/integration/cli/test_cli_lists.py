"""An import is told in numbers that add up; a refused one leaves nothing but the list of its bad rows."""

import csv
import io
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from worker import processes

#: Runs a command line; see conftest.
Tocsin = Callable[..., Any]

HEADER = "email,name,basis,source,when\n"
ANNA = "anna@example.org,Anna,consent,form,2025-01-01\n"
KEYS = {
    *("list", "rows", "accepted", "new_people", "new_members", "duplicates", "suppressed", "rejected"),
    *("no_to_topics", "barred"),
    *("without_consent", "rejects_file", "imported"),
}


def write(folder: Path, text: str, name: str = "people.csv") -> str:
    """Write a file of people; return its name."""
    (folder / name).write_text(text, encoding="utf-8")
    return name


def test_what_was_read_is_accounted_for(workspace: Path, tocsin: Tocsin) -> None:
    """Rows = accepted + duplicates + suppressed + rejected, and every key is always there."""
    assert tocsin("suppress", "add", "no@example.org").code == 0
    file = write(
        workspace, HEADER + ANNA + ANNA.upper().replace("EMAIL", "") + ANNA.replace("anna", "no") + "x,y,,,\n"
    )
    ran = tocsin("lists", "import", file, "--list", "a", "--accept-valid", "--json")
    assert ran.code == 0, ran.err
    told = ran.json
    assert set(told) == KEYS
    assert told["rows"] == 4
    assert (told["accepted"], told["duplicates"], told["suppressed"]) == (1, 1, 1)
    assert sum(told["rejected"].values()) == 1
    assert told["imported"] is True


def test_a_table_for_people_adds_up_too(workspace: Path, tocsin: Tocsin) -> None:
    """The last line is the sum of those above it."""
    file = write(workspace, HEADER + ANNA + ANNA + "x,y,,,\n" + "a@,y,,,\n")
    ran = tocsin("lists", "import", file, "--list", "a", "--accept-valid")
    rows = [
        line.rsplit(maxsplit=1) for line in ran.out.splitlines()[1:] if line.rsplit(maxsplit=1)[-1].isdigit()
    ]
    counts = {name.strip(): int(number) for name, number in rows}
    read = counts.pop("read")
    assert read == sum(counts.values()) == 4


def test_a_refused_file_is_explained_and_nobody_is_imported(workspace: Path, tocsin: Tocsin) -> None:
    """The reasons are counted, the bad rows listed in a file for us alone, and there is no list."""
    file = write(workspace, HEADER + ANNA + "secret.name.example.org,y,,,\n")
    ran = tocsin("lists", "import", file, "--list", "a")
    assert ran.code == 1
    assert "rejected: address-no-at" in ran.out
    (rejects,) = (workspace / "var" / "rejects").iterdir()
    assert str(rejects) in ran.err
    assert rejects.stat().st_mode & 0o777 == 0o600
    text = rejects.read_text(encoding="utf-8")
    assert [row["line"] for row in csv.DictReader(io.StringIO(text))] == ["3"]
    assert "secret.name" not in text + ran.out + ran.err
    assert tocsin("lists", "--json").json == []


def test_a_refused_file_is_told_to_programs_too(workspace: Path, tocsin: Tocsin) -> None:
    """JSON first, then the error apart from it, with the same keys as ever."""
    file = write(workspace, HEADER + "x,y,,,\n")
    ran = tocsin("lists", "import", file, "--list", "a", "--json")
    assert ran.code == 1
    assert set(ran.json) == KEYS
    assert ran.json["imported"] is False
    assert ran.json["rejects_file"]


def test_a_dry_run_counts_and_keeps_nothing(workspace: Path, tocsin: Tocsin) -> None:
    """What an import would do can be seen before."""
    ran = tocsin("lists", "import", write(workspace, HEADER + ANNA), "--list", "a", "--dry-run", "--json")
    assert (ran.code, ran.json["accepted"], ran.json["imported"]) == (0, 1, False)
    assert tocsin("lists", "--json").json == []


@pytest.mark.usefixtures("workspace")
def test_standard_input_and_options_for_consent(tocsin: Tocsin) -> None:
    """A file without consent columns takes them from the options; its list takes its title from one, too."""
    ran = tocsin(
        *(
            "lists",
            "import",
            "-",
            "--list",
            "stall",
            "--title",
            "Friends of the harbour",
            "--basis",
            "consent",
        ),
        *("--source", "stall", "--when", "2026-06-20", "--wording", "Yes.", "--json"),
        stdin=b"email\nanna@example.org\n",
    )
    assert ran.code == 0, ran.err
    assert ran.json["without_consent"] == 0
    assert tocsin("lists", "--json").json == [
        {"list": "stall", "title": "Friends of the harbour", "members": 1}
    ]
    assert "1 person" in tocsin("send", "chechnya-report", "--list", "stall", "--dry-run").out


def test_rows_without_consent_are_pointed_out(workspace: Path, tocsin: Tocsin) -> None:
    """They may be held, but will not be written to; the operator hears that at once, not on the day."""
    ran = tocsin("lists", "import", write(workspace, "email\nanna@example.org\n"), "--list", "a")
    assert ran.code == 0
    assert "1 row lacks" in ran.err
    ran = tocsin("send", "chechnya-report", "--list", "a", "--dry-run")
    assert ran.code == 1
    assert "1 no consent" in ran.out
    assert "--basis" in ran.err


def test_dates_can_be_told_apart(workspace: Path, tocsin: Tocsin) -> None:
    """03/04/2026 is refused until the operator says which is the day."""
    file = write(workspace, HEADER + ANNA.replace("2025-01-01", "03/04/2025"))
    assert tocsin("lists", "import", file, "--list", "a").code == 1
    assert tocsin("lists", "import", file, "--list", "a", "--dates", "day-first").code == 0


@pytest.mark.usefixtures("people")
def test_lists_for_people(tocsin: Tocsin) -> None:
    """Each list with its title and how many are on it."""
    assert tocsin("lists").out.split() == ["List", "Title", "Members", "example", "Example", "41"]


@pytest.mark.usefixtures("workspace")
def test_no_lists_yet_says_how_to_begin(tocsin: Tocsin) -> None:
    """An empty table would be a riddle."""
    assert "tocsin lists import" in tocsin("lists").out


@pytest.mark.parametrize("number", [signal.SIGINT])
def test_an_interrupted_import_leaves_nothing_behind(
    workspace: Path, tocsin: Tocsin, number: signal.Signals
) -> None:
    """Ctrl-C in the middle: one line, exit 130, no list, no member, no list of bad rows."""
    rows = "".join(f"person{i}@example.org,P,consent,form,2025-01-01\nbad,,,,\n" for i in range(60_000))
    write(workspace, HEADER + rows, "big.csv")
    running = subprocess.Popen(
        [sys.executable, "-m", "worker.cli", "lists", "import", "big.csv", "--list", "big"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    rejects = workspace / "var" / "rejects"
    assert processes.until(lambda: rejects.is_dir() and any(rejects.iterdir()), seconds=60)
    running.send_signal(number)
    out, err = running.communicate(timeout=60)
    assert (running.returncode, out, err.strip()) == (130, "", "stopped; nothing was imported")
    assert not any(rejects.iterdir())
    assert tocsin("lists", "--json").json == []


def test_who_is_invited_is_counted_before_and_asked_once(workspace: Path, tocsin: Tocsin) -> None:
    """Dry run, run and second run agree about everybody; a bad row or no answer leaves all as it was."""
    tocsin("suppress", "add", "no@example.org")
    tocsin("lists", "import", write(workspace, HEADER + ANNA), "--list", "a")
    rows = "email,discreet\nanna@example.org,\nben@example.org,\nBEN@example.org,\nno@example.org,\n"
    file = write(workspace, rows + "eva@example.org,yes\n", "invite.csv")
    left_out = {"consent is there": 1, "no discreet form": 1, "said no": 1, "twice in the file": 1}
    found = {"list": "a", "invited": 1, "left_out": left_out, "minutes": 0.0}
    dry = tocsin("lists", "invite", "a", "--csv", file, "--dry-run", "--json")
    assert dry.json == {**found, "dry_run": True}
    bad = write(workspace, rows + "x,\n", "bad.csv")
    for words, code in ((["a", "--csv", bad, "--yes"], 1), (["a", "--csv", file], 2), (["b"], 1)):
        assert tocsin("lists", "invite", *words).code == code
    assert tocsin("lists", "--json").json[0]["members"] == 1
    assert tocsin("lists", "invite", "a", "--csv", file, "--yes", "--json").json == {
        **found,
        "dry_run": False,
    }
    again = tocsin("lists", "invite", "a", "--yes")
    assert "left out: asked before      1" in again.out
    policy = tocsin("lists", "policy", "a", "--json").json
    assert (policy["members"], policy["enough"]) == (2, 1)
    deeds = [line for line in tocsin("audit", "--json").out.splitlines() if "lists invite" in line]
    assert len(deeds) == 1
    assert '"invited": 1' in deeds[0]
    assert "example.org" not in deeds[0]
