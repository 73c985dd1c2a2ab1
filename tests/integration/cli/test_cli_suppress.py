"""Standing "no"s go in by many ways, come out only with a reason, and never show an address."""

import csv
import hashlib
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

#: Runs a command line; see conftest.
Tocsin = Callable[..., Any]


@pytest.mark.usefixtures("workspace")
def test_added_once_however_it_is_written(tocsin: Tocsin) -> None:
    """Case, spaces, a name around it and an IDN domain are the same address."""
    assert "1 added, 0 stood already" in tocsin("suppress", "add", "Anna@Example.org").out
    ran = tocsin("suppress", "add", " anna@example.org", "Anna <ANNA@example.ORG>")
    assert "0 added, 2 stood already" in ran.out


@pytest.mark.usefixtures("workspace")
def test_standard_input_keeps_addresses_out_of_the_shells_history(tocsin: Tocsin) -> None:
    """`-` reads one a line; empty lines are nothing."""
    ran = tocsin("suppress", "add", "-", stdin=b"\xef\xbb\xbfanna@example.org\n\nben@example.org\r\n")
    assert "2 added" in ran.out


@pytest.mark.usefixtures("workspace")
def test_one_wrong_address_and_none_is_added(tocsin: Tocsin) -> None:
    """It is told by its number, not repeated."""
    ran = tocsin("suppress", "add", "anna@example.org", "broken.example.org")
    assert ran.code == 2
    assert "address 2" in ran.err
    assert "broken" not in ran.err
    assert tocsin("suppress", "check", "anna@example.org").code == 0


@pytest.mark.usefixtures("workspace")
def test_check_says_why_and_since_when(tocsin: Tocsin) -> None:
    """Exit 1 if any is suppressed; told by number, no address repeated."""
    tocsin("suppress", "add", "anna@example.org", "--reason", "complaint")
    ran = tocsin("suppress", "check", "ben@example.org", "ANNA@example.org", "--json")
    assert ran.code == 1
    free, taken = ran.json
    assert free == {"number": 1, "suppressed": False, "entries": []}
    assert taken["suppressed"] is True
    (entry,) = taken["entries"]
    assert (entry["scope"], entry["reason"], entry["source"]) == ("all", "complaint", "cli")
    assert entry["at"].endswith("+00:00")
    ran = tocsin("suppress", "check", "anna@example.org")
    assert "complaint" in ran.out
    assert "@" not in ran.out


def test_lifting_takes_a_reason_which_is_kept_with_who_did_it(workspace: Path, tocsin: Tocsin) -> None:
    """Somebody asked to hear from us again: that is written down, without their address."""
    tocsin("suppress", "add", "anna@example.org")
    assert tocsin("suppress", "lift", "anna@example.org").code == 2
    ran = tocsin(
        "suppress", "lift", "anna@example.org", "--reason", "asked by phone (anna@example.org)", "--yes"
    )
    assert (ran.code, ran.out.strip()) == (0, "1 lifted.")
    assert tocsin("suppress", "check", "anna@example.org").code == 0
    kept = json.loads(tocsin("audit", "--json").out.splitlines()[-1])
    assert (kept["action"], kept["operator"], kept["details"]["reason"]) == (
        "suppress lift",
        "alice",
        "asked by phone ((address))",
    )
    assert "anna" not in str(kept)
    assert not (workspace / "var" / "log" / "cli.log").exists()
    assert tocsin("suppress", "lift", "anna@example.org", "--reason", "again", "--yes").code == 1


@pytest.mark.usefixtures("workspace")
def test_a_complaint_is_lifted_only_where_it_is_named(tocsin: Tocsin) -> None:
    """An operator who lifts without a look does not write to whoever called our mail spam."""
    tocsin("suppress", "add", "anna@example.org", "--reason", "complaint")
    words = ("suppress", "lift", "anna@example.org", "--reason", "asked", "--yes")
    ran = tocsin(*words)
    assert (ran.code, ran.out) == (1, "")
    assert "--although complaint" in ran.err
    assert tocsin("suppress", "check", "anna@example.org").code == 1
    assert tocsin(*words, "--although", "complaint").code == 0
    assert tocsin("suppress", "check", "anna@example.org").code == 0


@pytest.mark.usefixtures("people")
def test_a_no_to_one_list_leaves_the_others(tocsin: Tocsin) -> None:
    """--list keeps to that list, when adding and when lifting."""
    tocsin("suppress", "add", "anna.bell@example.org", "--list", "example")
    ran = tocsin("suppress", "check", "anna.bell@example.org", "--json")
    assert ran.json[0]["entries"][0]["scope"] == "list:example"
    assert (
        tocsin("send", "chechnya-report", "--list", "example", "--dry-run", "--json").json["recipients"] == 32
    )
    words = ("--list", "example", "--reason", "asked", "--yes")
    assert tocsin("suppress", "lift", "anna.bell@example.org", *words).code == 0
    assert (
        tocsin("send", "chechnya-report", "--list", "example", "--dry-run", "--json").json["recipients"] == 33
    )


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("anna@example.org\nben@example.org\nanna@example.org\n", (3, 2, 1, 0)),
        ("name,E-Mail,status\nAnna,anna@example.org,unsubscribed\nB,broken,unsubscribed\n", (2, 1, 0, 1)),
        ("email;opted_out\nanna@example.org;yes\n", (1, 1, 0, 0)),
    ],
    ids=["lines", "csv", "semicolons"],
)
def test_an_import_takes_what_is_good(
    workspace: Path, tocsin: Tocsin, text: str, counts: tuple[int, int, int, int]
) -> None:
    """Also those whom an import of people leaves out: here they are who is meant. Bad rows are counted."""
    (workspace / "out.csv").write_text(text, encoding="utf-8")
    ran = tocsin("suppress", "import", "out.csv", "--reason", "bounce", "--json")
    assert ran.code == 0, ran.err
    told = ran.json
    assert (told["rows"], told["added"], told["known"], sum(told["rejected"].values())) == counts
    entry = tocsin("suppress", "check", "anna@example.org", "--json").json[0]["entries"][0]
    assert (entry["reason"], entry["source"]) == ("bounce", "out.csv")


@pytest.mark.usefixtures("workspace")
def test_an_import_without_a_good_row_is_a_no(tocsin: Tocsin) -> None:
    """Exit 1; the reasons are shown."""
    ran = tocsin("suppress", "import", "-", stdin=b"email\nbroken\n")
    assert ran.code == 1
    assert "rejected: address-no-at" in ran.out


def test_an_export_names_nobody_and_is_for_us_alone(workspace: Path, tocsin: Tocsin) -> None:
    """Keyed hash, scope, reason, source, date; mode 0600."""
    tocsin("suppress", "add", "anna@example.org")
    assert tocsin("suppress", "export", "kept.csv").code == 0
    file = workspace / "kept.csv"
    assert file.stat().st_mode & 0o777 == 0o600
    text = file.read_text(encoding="utf-8")
    assert "@" not in text
    (row,) = csv.DictReader(io.StringIO(text))
    assert list(row) == ["address_key", "scope", "reason", "source", "at"]
    assert len(bytes.fromhex(row["address_key"])) == 16
    assert tocsin("suppress", "export", "-").out.splitlines() == text.splitlines()


@pytest.mark.usefixtures("people")
def test_an_export_comes_back_with_its_reasons_and_dates(tocsin: Tocsin) -> None:
    """On a machine with the same key a backup of the "no"s is a backup."""
    tocsin("suppress", "add", "anna@example.org", "--reason", "complaint")
    tocsin("suppress", "add", "ben@example.org", "--list", "example")
    tocsin("suppress", "export", "kept.csv")
    before = tocsin("suppress", "check", "anna@example.org", "ben@example.org", "--json").json
    for name in ("anna@example.org", "ben@example.org"):
        tocsin("suppress", "lift", name, "--reason", "test", "--although", "complaint", "--yes")
    ran = tocsin("suppress", "import", "kept.csv", "--json")
    assert (ran.code, ran.json["added"]) == (0, 2)
    assert tocsin("suppress", "check", "anna@example.org", "ben@example.org", "--json").json == before


def test_a_damaged_export_is_rejected_by_line(workspace: Path, tocsin: Tocsin) -> None:
    """Nothing is guessed from it."""
    rows = ("zz,all,operator,cli,2026-01-01T00:00:00+00:00", "ab,all,operator,cli,2026-01-01T00:00:00+00:00")
    other = f"{'ab' * 16},list:none,operator,cli,2026-01-01T00:00:00+00:00"
    (workspace / "kept.csv").write_text(
        "\n".join(("address_key,scope,reason,source,at", *rows, other)), encoding="utf-8"
    )
    ran = tocsin("suppress", "import", "kept.csv", "--json")
    assert ran.code == 1
    assert ran.json["rejected"] == {"export": 2, "list": 1}


@pytest.mark.usefixtures("workspace")
def test_said_no_stays_out_of_an_import(tocsin: Tocsin) -> None:
    """Whoever is suppressed is not imported, counted, and told apart in no file."""
    shutil.copy("lists/example.csv", "again.csv")
    tocsin("suppress", "add", "anna.bell@example.org")
    told = tocsin("lists", "import", "again.csv", "--list", "example", "--json").json
    assert (told["suppressed"], told["accepted"]) == (1, 40)
    assert told["rejects_file"] is None


@pytest.mark.parametrize(
    ("kind", "header"), [("md5", ""), ("sha1", "email_hash\n"), ("sha256", "id,SHA256\n")]
)
def test_another_tools_hashes_hold_for_whom_they_mean(
    workspace: Path, tocsin: Tocsin, kind: str, header: str
) -> None:
    """For somebody held already, at once; and for somebody who is imported later. No plain hash is kept."""
    people = "email,basis,source,when\n{}@Example.org,consent,form,2026-01-02\n"
    tocsin("lists", "import", "-", "--list", "one", stdin=people.format("Anna").encode())
    named = [hashlib.new(kind, f"{who}@example.org".encode()).hexdigest() for who in ("anna", "ben")]
    cells = "1," if header.startswith("id") else ""
    text = f"{header}{cells}{named[0].upper()}\n{cells}{named[1]}\n{cells}none\n"
    ran = tocsin("suppress", "import", "-", "--hashed", "--json", stdin=text.encode())
    told = ran.json
    assert (told["added"], told["recognised"], told["rejected"]) == (2, 1, {"hash": 1})
    assert tocsin("suppress", "check", "anna@example.org").code == 1
    assert tocsin("suppress", "check", "ben@example.org").code == 1
    again = tocsin("lists", "import", "-", "--list", "one", "--json", stdin=people.format("Ben").encode())
    assert again.json["suppressed"] == 1
    ran = tocsin("suppress", "check", "ben@example.org", "--json")
    assert [one["reason"] for one in ran.json[0]["entries"]] == ["imported"]
    lifting = ("suppress", "lift", "ben@example.org", "--reason", "asked", "--yes")
    assert tocsin(*lifting).code == 0
    again = tocsin("lists", "import", "-", "--list", "one", "--json", stdin=people.format("Ben").encode())
    assert (again.json["suppressed"], again.json["accepted"]) == (0, 1)
    for file in (workspace / "var").glob("tocsin.db*"):
        stored = file.read_bytes()
        assert not any(bytes.fromhex(one) in stored or one.encode() in stored for one in named)


def test_an_export_for_another_tool_names_whom_we_hold(workspace: Path, tocsin: Tocsin) -> None:
    """Plain or hashed as that tool does it; it says how many it cannot name, and stands in the audit log."""
    row = b"email,basis,source,when\nAnna@Example.org,consent,form,2026-01-02\n"
    tocsin("lists", "import", "-", "--list", "one", stdin=row)
    tocsin("suppress", "add", "anna@example.org", "nobody@example.org")
    ran = tocsin("suppress", "export", "plain.csv", "--as", "plain")
    assert "1 could not be written" in ran.err
    (one,) = csv.DictReader(io.StringIO((workspace / "plain.csv").read_text(encoding="utf-8")))
    assert one["email"].lower() == "anna@example.org"
    assert (workspace / "plain.csv").stat().st_mode & 0o777 == 0o600
    text = tocsin("suppress", "export", "-", "--as", "sha256").out
    (one,) = csv.DictReader(io.StringIO(text))
    assert one["sha256"] == hashlib.sha256(b"anna@example.org").hexdigest()
    kept = [json.loads(line) for line in tocsin("audit", "--json").out.splitlines()]
    assert [one["details"]["form"] for one in kept if one["action"] == "suppress export"] == [
        "plain",
        "sha256",
    ]
