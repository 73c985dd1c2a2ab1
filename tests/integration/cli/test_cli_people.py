"""What an operator does for one person who asks, from the command line."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

#: Runs a command line; see conftest.
Tocsin = Callable[..., Any]

WHO = "nina@example.net"


@pytest.fixture
def nina(workspace: Path, tocsin: Tocsin) -> Path:
    """Have one supporter with hostile fields."""
    text = f"email,first_name,town\n{WHO},<script>alert(1)</script>,Ni\x1b[31mna\n"
    (workspace / "nina.csv").write_text(text, encoding="utf-8")
    consent = ("--basis", "consent", "--source", "stall", "--when", "2026-01-02")
    ran = tocsin("lists", "import", "nina.csv", "--list", "shore", *consent)
    assert ran.code == 0, ran.err
    return workspace


@pytest.mark.usefixtures("nina")
def test_show_tells_all_and_obeys_nothing(tocsin: Tocsin) -> None:
    """Fields and consent are shown; control characters are not; the address may come from standard input."""
    ran = tocsin("people", "show", "-", stdin=WHO.encode())
    assert ran.code == 0, ran.err
    assert WHO in ran.out
    assert "shore" in ran.out
    assert "stall" in ran.out
    assert "\x1b" not in ran.out
    told = tocsin("people", "show", WHO, "--json").json
    assert told["person"]["address"] == WHO
    assert told["lists"][0]["consent_at"].startswith("2026-01-02")
    assert (told["rules"], told["lists"][0]["enough_for_the_list"]) == ([], True)
    tocsin("suppress", "rules", "add", "not-them", "--domain", WHO.partition("@")[2])
    tocsin("lists", "policy", told["lists"][0]["list"], "--confirmed", "yes", "--yes")
    told = tocsin("people", "show", WHO, "--json").json
    assert (told["rules"], told["lists"][0]["enough_for_the_list"]) == ([{"rule": "not-them"}], False)
    assert "not-them" in tocsin("people", "show", WHO).err


def test_an_export_is_whole_private_and_inert(nina: Path, tocsin: Tocsin) -> None:
    """Both files are written 0600 where it says; the page escapes every value and runs nothing."""
    ran = tocsin("people", "export", WHO, "--to", "out")
    assert ran.code == 0, ran.err
    page, data = sorted((nina / "out").iterdir())
    assert (page.suffix, data.suffix) == (".html", ".json")
    for path in (page, data):
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.name in ran.out.replace("\n", "")
    assert json.loads(data.read_text(encoding="utf-8"))["person"]["address"] == WHO
    html = page.read_text(encoding="utf-8")
    assert "&lt;script&gt;" in html
    assert "stall" in html
    assert not re.search(r"<script|src=|href=", html)


def test_correct_then_forget_from_end_to_end(nina: Path, tocsin: Tocsin) -> None:
    """Both ask first; the erasure holds against a new import, is repeatable, and no log names anybody."""
    assert tocsin("people", "correct", WHO, "--set", "town=Leith").code == 2
    assert tocsin("people", "correct", WHO, "--yes").code == 2
    change = ("--set", "town=Leith", "--clear", "first_name", "--language", "ru", "--discreet", "yes")
    ran = tocsin("people", "correct", WHO, *change, "--yes")
    assert ran.code == 0, ran.err
    person = tocsin("people", "show", WHO, "--json").json["person"]
    assert (person["fields"], person["language"], person["discreet"]) == ({"town": "Leith"}, "ru", True)

    assert "Would go" in tocsin("people", "forget", WHO, "--dry-run").out
    assert tocsin("people", "forget", WHO).code == 2
    tocsin("people", "export", WHO, "--to", "out")
    tocsin("suppress", "export", "other.csv", "--as", "plain")
    ran = tocsin("people", "forget", WHO, "--yes")
    assert ran.code == 0
    told = ran.err.replace("\n", "")
    assert all(str(path) in told for path in (nina / "out").iterdir())
    assert "Files that name them still, for you to remove: 2" in told
    assert "Other files here that may name them: 1" in told
    assert tocsin("people", "forget", WHO, "--yes").code == 0
    told = tocsin("people", "show", WHO, "--json").json
    assert (told["person"], told["lists"], told["mails"]) == (None, [], [])
    assert [one["reason"] for one in told["suppressions"]] == ["erasure"]
    tocsin("lists", "import", "nina.csv", "--list", "shore")
    assert tocsin("people", "show", WHO, "--json").json["person"] is None
    for log in (nina / "var").rglob("*.log"):
        assert WHO not in log.read_text(encoding="utf-8")


@pytest.mark.usefixtures("workspace")
@pytest.mark.parametrize("words", [("show",), ("export",), ("forget", "--yes"), ("correct", "--clear", "x")])
def test_a_stranger_is_nobody(tocsin: Tocsin, words: tuple[str, ...]) -> None:
    """Exit code 1, in one line that does not repeat who was asked for."""
    ran = tocsin("people", words[0], "stranger@example.net", *words[1:])
    assert ran.code == 1
    assert "stranger" not in ran.err + ran.out
