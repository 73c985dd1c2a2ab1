"""The preview: one page that fetches nothing, for an invented reader or for chosen people."""

import json
import re
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import pytest

#: Runs a command line; see conftest.
Tocsin = Callable[..., Any]

SLUG = "chechnya-report"
#: Two are enough here, and are made three times as fast.
LANGUAGES = ("en", "ru")
DISCREET = """
[discreet]
from_address = "hello@letters.example.net"
sender_name = "Monthly letter"
"""


@pytest.fixture
def office(people: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace with people, and with names for discreet mail."""
    monkeypatch.setenv("PATH", str(people))  # a spam filter takes seconds for each mail
    for file in (people / "templates" / "appeals" / SLUG).glob("*.md"):
        if file.stem not in LANGUAGES:
            file.unlink()
    config = people / "tocsin.toml"
    text = config.read_text(encoding="utf-8")
    text = text.replace("[web]", '[web]\ndiscreet_base_url = "https://letters.example.net"', 1)
    config.write_text(text + DISCREET, encoding="utf-8")
    return people


def written(office: Path, name: str = SLUG) -> str:
    """Read the page that was written."""
    file = office / "var" / "preview" / f"{name}.html"
    assert file.stat().st_mode & 0o777 == 0o600
    return file.read_text(encoding="utf-8")


def test_the_preview_is_one_page_that_fetches_and_runs_nothing(office: Path, tocsin: Tocsin) -> None:
    """Every language and form: two widths, light, dark and without pictures, in frames without scripts."""
    ran = tocsin("appeals", "preview", SLUG)
    assert (ran.code, ran.out.splitlines()[0]) == (0, f"Open var/preview/{SLUG}.html")
    assert max(map(len, ran.out.splitlines())) <= 80
    page = written(office)
    outside = re.sub(r'srcdoc="[^"]*"', "", page)  # an escaped quote is no quote
    assert not re.findall(r'(?:src|href|action|data)="(?!#)', outside)
    assert not re.findall(r"url\(|@import|<script|<link|<form|<object", outside)
    frames = re.findall(r'<iframe sandbox="([^"]*)"[^>]* srcdoc="([^"]*)"', page)
    assert len(frames) == len(LANGUAGES) * 2 * 3 * 2
    assert {allowed for allowed, _ in frames} == {"allow-popups allow-popups-to-escape-sandbox"}
    for language in LANGUAGES:
        assert f"{language}, for an invented reader" in page
        assert f"{language}, discreet, for an invented reader" in page
    for telling in (
        "HTML 2",
        "of 102 KB",
        "css.lost",
        "CONTENT WARNING",
        "List-Unsubscribe-Post",
        "quoted-pr",
    ):
        assert telling in page
    assert "personal" not in ran.err
    # In a subject the same letters stand in a header, a frame and the page: all as text.
    assert unescape(frames[0][1]).count("<html") == 1


def test_a_preview_as_somebody_shows_what_they_would_get(office: Path, tocsin: Tocsin) -> None:
    """Their fields, language and form; kept apart, for us alone, and written down."""
    table = office / "more.csv"
    table.write_text(
        "email,first_name,language,discreet,basis,source,when\n"
        "asel@example.com,Асель <b>,ru,yes,consent,stall,2026-01-02\n",
        encoding="utf-8",
    )
    assert tocsin("lists", "import", "more.csv", "--list", "more").code == 0
    ran = tocsin("appeals", "preview", SLUG, "--as", "-", "--json", stdin=b"\nasel@example.com\n")
    assert ran.code == 0, ran.err
    assert ran.json["personal"] is True
    assert ran.json["files"] == [str(office / "var" / "preview" / f"{SLUG}.people.html")]
    page = written(office, f"{SLUG}.people")
    assert "ru, discreet, for asel@example.com" in page
    assert "real person" in page
    assert "Асель &amp;lt;b&amp;gt;" in page  # escaped in the mail, and again in the frame's attribute
    assert not re.search("en, |invented", page[page.index("<body") :])
    assert tocsin("appeals", "preview", SLUG).code == 0
    assert "asel" not in written(office)
    entry = json.loads(tocsin("audit", "--json").out.splitlines()[-1])
    assert (entry["action"], entry["subject"], entry["operator"]) == ("appeals preview", SLUG, "alice")
    assert entry["details"] == {"people": 1}
    assert "asel" not in str(entry)


def test_people_are_picked_of_those_who_would_be_written_to(office: Path, tocsin: Tocsin) -> None:
    """By chance, each once; somebody who said no is not among them."""
    assert tocsin("suppress", "add", "1234567890@example.net", "--reason", "complaint").code == 0
    ran = tocsin("appeals", "preview", SLUG, "--list", "example", "--random", "50")
    assert ran.code == 0, ran.err
    assert "Delete it when you have looked: var/preview/*.people.*" in ran.err
    page = written(office, f"{SLUG}.people")
    shown = re.findall(r'<p class="faint"><bdi>[^<]*, for ([^<]*)</bdi>', page)
    assert len(shown) == len(set(shown)) == 40
    assert "1234567890@example.net" not in page


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["--as", "nobody@example.org"], 1, "we hold nothing under that address"),
        (["--as", "1234567890@example.net", "--language", "ru"], 2, "the language and form that are theirs"),
        (["--as", "1234567890@example.net", "--png", "--out", "x"], 2, "stay under var/preview"),
        (["--random", "2"], 2, "--random picks people of a list"),
        (["--list", "example"], 2, "--random picks people of a list"),
        (["--list", "nowhere", "--random", "2"], 1, "there is no list called nowhere"),
        (["--language", "cy"], 1, "is not written in cy"),
        (["--out", "x"], 2, "--out is where pictures go"),
        (["--serve", "--png"], 2, "--serve goes on until Ctrl-C"),
    ],
)
@pytest.mark.usefixtures("office")
def test_what_cannot_be_shown_is_said_in_one_line(
    words: list[str], code: int, told: str, tocsin: Tocsin
) -> None:
    """With what to do instead, and nobody's address."""
    ran = tocsin("appeals", "preview", SLUG, *words)
    assert (ran.code, ran.out) == (code, "")
    assert told in ran.err
    assert "example.net" not in ran.err


@pytest.mark.usefixtures("office")
def test_without_a_browser_there_are_no_pictures(tocsin: Tocsin) -> None:
    """The error says what to install, and what can be done without."""
    ran = tocsin("appeals", "preview", SLUG, "--png")
    assert ran.code == 3
    assert "no Chromium or Chrome is on PATH" in ran.err
    assert "leave --png out" in ran.err


def test_an_appeal_that_cannot_be_read_has_a_page_too(office: Path, tocsin: Tocsin) -> None:
    """It tells the file and line to mend."""
    file = office / "templates" / "appeals" / SLUG / "en.md"
    file.write_text(file.read_text("utf-8").replace("subject:", "subjekt:", 1), encoding="utf-8")
    assert "2 errors" in tocsin("appeals", "preview", SLUG).out
    page = written(office)
    assert f"templates/appeals/{SLUG}/en.md:2" in page
    assert "<iframe" not in page
