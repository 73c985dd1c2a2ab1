"""`tocsin audit`: every deed of an operator is in it, nobody's address is, and a change is found."""

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Tocsin = Callable[..., Any]
SEND = ("send", "chechnya-report", "--list", "example", "--yes", "--at", "2030-12-01 09:00")


def _log(tocsin: Tocsin) -> list[dict[str, Any]]:
    return [json.loads(line) for line in tocsin("audit", "--json").out.splitlines()]


@pytest.mark.usefixtures("people")
def test_each_deed_is_written_down_with_who_did_it(tocsin: Tocsin, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands in their order, with counts; a refused one leaves no entry."""
    before = _log(tocsin)
    assert [one["action"] for one in before] == ["db upgrade", "lists import"]
    assert before[1]["subject"] == "example"
    assert before[1]["details"]["rows"] == 41
    assert len(before[1]["details"]["sha256"]) == 64
    monkeypatch.setenv("TOCSIN_OPERATOR", "bob")
    for words in (
        SEND,
        ("pause", "chechnya-report-1"),
        ("resume", "chechnya-report-1"),
        ("cancel", "chechnya-report-1", "--yes"),
        ("suppress", "add", "anna.bell@example.org", "--list", "example"),
        ("suppress", "lift", "anna.bell@example.org", "--reason", "wrote again", "--yes"),
    ):
        assert tocsin(*words).code == 0, words
    assert tocsin("pause", "chechnya-report-1").code == 1
    assert tocsin("suppress", "import", "-", stdin=b"ben@example.org\n").code == 0
    found = _log(tocsin)[2:]
    assert {one["operator"] for one in found} == {"bob"}
    assert [(one["action"], one["subject"]) for one in found] == [
        ("send", "chechnya-report-1"),
        ("pause", "chechnya-report-1"),
        ("resume", "chechnya-report-1"),
        ("cancel", "chechnya-report-1"),
        ("suppress add", "list:example"),
        ("suppress lift", "every scope"),
        ("suppress import", "all"),
    ]
    assert found[0]["details"]["recipients"] == 33
    assert found[4]["details"] == {"addresses": 1, "new": 1, "reason": "operator"}
    assert len(found[5]["details"]["key"]) == 32
    assert found[6]["details"]["new"] == 1


@pytest.mark.usefixtures("people")
def test_a_colleague_who_approves_is_named(tocsin: Tocsin, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two people, two entries, one digest."""
    monkeypatch.setenv("TOCSIN_SENDING__APPROVAL", "two")
    digest = json.loads(tocsin(*SEND, "--json").out)["digest"]
    monkeypatch.setenv("TOCSIN_OPERATOR", "bob")
    assert tocsin("approve", "chechnya-report-1", "--digest", digest).code == 0
    planned, approved = _log(tocsin)[-2:]
    assert (planned["action"], planned["operator"]) == ("send", "alice")
    assert (approved["action"], approved["operator"]) == ("approve", "bob")
    assert planned["details"]["digest"] == approved["details"]["digest"] == digest


@pytest.mark.usefixtures("people")
def test_it_is_shown_on_80_columns_and_obeys_no_operator(
    tocsin: Tocsin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No line is longer, no control character and no address comes through."""
    monkeypatch.setenv("TOCSIN_OPERATOR", "mallory\x1b[2J")
    tocsin(*SEND)
    tocsin("suppress", "add", "anna@example.org")
    tocsin("suppress", "lift", "anna@example.org", "--yes", "--reason", "\x1b]0;x\x07 call anna@example.org")
    for words in (("audit",), ("audit", "--json")):
        ran = tocsin(*words)
        assert ran.code == 0, ran.err
        assert not set(ran.out) & {"\x1b", "\x07"}
        assert "anna" not in ran.out
        assert "@" not in ran.out
    lines = tocsin("audit").out.splitlines()
    assert max(map(len, lines)) <= 80
    assert any("mallory" in line for line in lines)


def test_a_change_is_found_and_the_first_changed_entry_named(people: Path, tocsin: Tocsin) -> None:
    """Exit 1 with a remedy; a head that was kept proves that the end is still there."""
    tocsin(*SEND)
    whole = tocsin("audit", "--verify")
    assert whole.code == 0
    head = whole.out.split()[-1]
    assert tocsin("audit", "--verify", "--json").json == {
        "holds": True,
        "entries": 3,
        "head": head,
        "broken": None,
        "why": "",
    }
    tocsin("pause", "chechnya-report-1")
    assert tocsin("audit", "--head", head).code == 0
    assert tocsin("audit", "--verify", "--head", "0" * 63 + "1").code == 1
    (file,) = (people / "var").glob("*.db")
    with sqlite3.connect(file) as store:
        store.execute("DROP TRIGGER audit_no_update")
        store.execute("UPDATE audit SET operator = 'bob' WHERE id = 2")
    store.close()
    ran = tocsin("audit", "--verify")
    assert ran.code == 1
    assert "broken at entry 2: it is not as it was written" in ran.err
    assert "backup" in ran.err
    ran = tocsin("audit", "--verify", "--json")
    assert (ran.code, ran.json["broken"], ran.json["holds"]) == (1, 2, False)


@pytest.mark.usefixtures("people")
def test_since_leaves_out_what_is_older(tocsin: Tocsin) -> None:
    """A date or a time, in UTC unless it says otherwise; what cannot be read is told so."""
    assert len(tocsin("audit", "--json", "--since", "2020-01-01").out.splitlines()) == 2
    assert tocsin("audit", "--since", "2100-01-01 09:00+02:00").out.strip() == "There is none."
    for words in (("--since", "soon"), ("--since", "2020-01-01", "--verify"), ("--head", "abc")):
        ran = tocsin("audit", *words)
        assert (ran.code, "→" in ran.err) == (2, True), words
