"""New keys are made, waited for and changed over to, and no key is ever shown."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

#: Runs a command line; see conftest.
Tocsin = Callable[..., Any]


def test_the_whole_way_from_an_old_key_to_dropping_it(people: Path, tocsin: Tocsin) -> None:
    """`new`, `rotate`, `check`: told at each step what is next; after it every address is found as before."""
    secret = people / "var" / "secret.toml"
    tocsin("suppress", "add", "gone@example.com")
    before = secret.read_text(encoding="utf-8")
    assert "already" in tocsin("keys", "rotate").out
    made = tocsin("keys", "new")
    assert "number 2" in made.out
    assert "Copy the file" in made.out
    assert secret.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in secret.parent.glob(".*")] == []
    refused = tocsin("keys", "new")
    assert (refused.code, "waits to be used" in refused.err) == (1, True)
    assert "wait to be used" in tocsin("keys").out
    looked = tocsin("keys", "rotate", "--dry-run", "--json").json
    assert (looked["begun"], looked["left"], looked["renewed"]) == (False, 41, 0)
    assert tocsin("keys", "rotate").code == 2  # it asks first, and nobody is there
    done = tocsin("keys", "rotate", "--yes", "--json")
    assert (done.code, done.json["renewed"], done.json["left"]) == (0, 41, 0)
    told = tocsin("keys", "check", "--json").json
    free = {(one["purpose"], one["id"]): one["may_be_dropped"] for one in told["keys"]}
    assert free == {
        ("seal", 1): True,
        ("seal", 2): False,
        ("lookup", 1): False,  # of somebody whom we do not hold
        ("lookup", 2): False,
        ("mark", 1): False,
    }
    assert tocsin("suppress", "check", "gone@example.com").code == 1
    done = tocsin("lists", "import", "lists/example.csv", "--list", "example", "--json")
    assert (done.code, done.json["new_people"]) == (0, 0)
    every = [
        re.findall(r'"([A-Za-z0-9+/=]{44})"', text) for text in (before, secret.read_text(encoding="utf-8"))
    ]
    shown = tocsin("keys", "check").out + made.out + json.dumps(told) + tocsin("audit").out
    assert all(key not in shown for keys in every for key in keys)
    assert set(every[0]) < set(every[1])
    assert tocsin("audit", "--verify").code == 0
    assert "keys rotate" in tocsin("audit").out


@pytest.mark.usefixtures("people")
def test_an_old_export_of_refusals_counts_for_whom_we_hold(tocsin: Tocsin) -> None:
    """Written before the change of keys, lifted, read again after it: it stands under the hash of today."""
    tocsin("suppress", "add", "anna.bell@example.org")
    tocsin("suppress", "export", "no.csv")
    tocsin("suppress", "remove", "anna.bell@example.org", "--reason", "asked", "--yes")
    tocsin("keys", "new")
    tocsin("keys", "rotate", "--yes")
    tocsin("suppress", "import", "no.csv")
    assert tocsin("suppress", "check", "anna.bell@example.org").code == 1
    rows = Path("no.csv").read_text(encoding="utf-8").replace("\n01", "\n07")
    Path("others.csv").write_text(rows, encoding="utf-8")
    ran = tocsin("suppress", "import", "others.csv", "--json")
    assert (ran.code, ran.json["rejected"]) == (1, {"key": 1})


def test_a_database_ahead_of_its_key_ring_is_told(people: Path, tocsin: Tocsin) -> None:
    """On a machine that has an old copy of the ring, each command says what to copy; none says "done"."""
    secret = people / "var" / "secret.toml"
    old = secret.read_text(encoding="utf-8")
    tocsin("keys", "new")
    tocsin("keys", "rotate", "--yes")
    secret.write_text(old, encoding="utf-8")
    for words in (("suppress", "add", "x@example.org"), ("people", "show", "x@example.org"), ("keys",)):
        ran = tocsin(*words)
        assert ran.code == 2
        assert "lacks key 2" in ran.err
        assert "Copy var/secret.toml" in ran.err


def test_a_ring_in_a_variable_cannot_be_added_to(
    people: Path, tocsin: Tocsin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says where to put it instead."""
    monkeypatch.setenv("TOCSIN_SECRET", (people / "var" / "secret.toml").read_text(encoding="utf-8"))
    ran = tocsin("keys", "new")
    assert (ran.code, "secret_file" in ran.err) == (2, True)
