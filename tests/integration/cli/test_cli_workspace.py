"""A workspace is made whole, looked over with a remedy for each fault, and its store brought up to date."""

import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

#: Runs a command line; see conftest.
Tocsin = Callable[..., Any]


def test_init_makes_everything_and_says_what_comes_next(
    tmp_path: Path, tocsin: Tocsin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settings, templates, lists, a key for its owner only, a store; then three commands."""
    monkeypatch.chdir(tmp_path)
    ran = tocsin("init", "office")
    assert ran.code == 0, ran.err
    home = tmp_path / "office"
    made = ("tocsin.toml", "templates/look", "templates/appeals/chechnya-report/en.md", "lists/example.csv")
    assert all((home / name).exists() for name in made)
    for name in ("secret.toml", "tocsin.db"):
        assert stat.S_IMODE((home / "var" / name).stat().st_mode) == 0o600
    following = ran.out.partition("Next:")[2].split("\n")
    assert [line.strip() for line in following if line] == [
        "cd office",
        "tocsin doctor",
        "tocsin lists import lists/example.csv --list example",
        "tocsin up",
    ]


def test_a_second_init_touches_nothing(workspace: Path, tocsin: Tocsin) -> None:
    """A workspace is never overwritten, least of all its key."""
    before = {file: file.read_bytes() for file in workspace.rglob("*") if file.is_file()}
    assert tocsin("init").code == 1
    assert {file: file.read_bytes() for file in workspace.rglob("*") if file.is_file()} == before


@pytest.mark.usefixtures("workspace")
def test_init_makes_a_store_that_is_current(tocsin: Tocsin) -> None:
    """Nobody has to know of migrations to begin."""
    ran = tocsin("db", "status", "--json")
    assert ran.code == 0
    assert ran.json["kind"] == "sqlite"
    assert ran.json["current"] is True
    assert ran.json["revision"] == ran.json["newest"]


def test_db_upgrade_makes_a_lost_store_anew_and_may_be_repeated(workspace: Path, tocsin: Tocsin) -> None:
    """`db status` exits 1 until `db upgrade` was run; a second one changes nothing."""
    (workspace / "var" / "tocsin.db").unlink()
    assert tocsin("db").code == 1
    assert tocsin("db", "status").code == 1
    assert "now" in tocsin("db", "upgrade").out
    assert "already" in tocsin("db", "upgrade").out
    assert tocsin("db").code == 0


@pytest.mark.usefixtures("workspace")
def test_doctor_tells_each_thing_with_a_remedy(tocsin: Tocsin) -> None:
    """Every check has its line; what fails has a remedy, and the exit code is 1."""
    ran = tocsin("doctor", "--json")
    assert ran.code == 1  # nobody listens where the relay should be
    found = {one["name"]: one for one in ran.json}
    assert list(found) == ["settings", "keys", "queue", "database", "relay", "clock", "disk"]
    assert {key for one in ran.json for key in one} == {"name", "ok", "detail", "remedy"}
    assert [name for name, one in found.items() if not one["ok"]] == ["relay"]
    assert all(bool(one["remedy"]) is not one["ok"] for one in ran.json)


@pytest.mark.usefixtures("workspace")
def test_doctor_on_a_terminal_fits_its_width(tocsin: Tocsin) -> None:
    """The same for people: a word for each finding, no colour needed to tell them apart."""
    ran = tocsin("doctor")
    assert ran.code == 1
    assert max(map(len, ran.out.splitlines())) <= 80
    assert [line.split()[0] for line in ran.out.splitlines() if not line.startswith(" ")] == [
        *("ok", "ok", "ok", "ok"),
        "no",
        *("ok", "ok"),
    ]


def test_doctor_without_a_workspace_stops_at_the_settings(
    tmp_path: Path, tocsin: Tocsin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing can be asked, that one thing is told."""
    monkeypatch.chdir(tmp_path)
    ran = tocsin("doctor", "--json")
    assert ran.code == 1
    assert [one["name"] for one in ran.json] == ["settings"]
    assert "tocsin init" in ran.json[0]["remedy"]


def test_a_command_works_in_any_folder_of_the_workspace(
    people: Path, tocsin: Tocsin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The workspace is found from below, as a repository is."""
    monkeypatch.chdir(people / "templates" / "look")
    assert tocsin("lists", "--json").json[0]["list"] == "example"


@pytest.mark.parametrize("word", ["--version", "--help", "-h"])
def test_version_and_help_need_no_workspace(
    tmp_path: Path, tocsin: Tocsin, monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    """What Tocsin is can be asked anywhere."""
    monkeypatch.chdir(tmp_path)
    ran = tocsin(word)
    assert ran.code == 0
    assert "tocsin" in ran.out


def test_a_bare_tocsin_shows_its_help(
    tmp_path: Path, tocsin: Tocsin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever types only the name learns what there is; the exit code says that nothing was done."""
    monkeypatch.chdir(tmp_path)
    ran = tocsin()
    assert ran.code == 2
    assert "send" in ran.out + ran.err
    assert "error:" not in ran.err
