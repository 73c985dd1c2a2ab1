"""An appeal is listed, checked to the line, written out and shown, all for an invented reader."""

import email
import email.policy
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from worker.soundings import spam

#: Runs a command line; see conftest.
Tocsin = Callable[..., Any]

SLUG = "chechnya-report"
LANGUAGES = ["en", "ru"]
DISCREET = """
[discreet]
from_address = "hello@letters.example.net"
sender_name = "Monthly letter"
"""


def with_discreet(workspace: Path) -> None:
    """Give the workspace names for discreet mail."""
    config = workspace / "tocsin.toml"
    text = config.read_text(encoding="utf-8")
    text = text.replace("[web]", '[web]\ndiscreet_base_url = "https://letters.example.net"', 1)
    config.write_text(text + DISCREET, encoding="utf-8")


@pytest.mark.usefixtures("workspace")
def test_appeals_are_listed_with_their_languages(tocsin: Tocsin) -> None:
    """For people and for programs; `appeals` alone lists as well."""
    assert tocsin("appeals", "list", "--json").json == [
        {
            "appeal": SLUG,
            "languages": LANGUAGES,
            "subject": "A new report, and four things you can do",
            "errors": 0,
        }
    ]
    assert tocsin("appeals").out == tocsin("appeals", "list").out
    assert SLUG in tocsin("appeals").out


def test_a_broken_appeal_is_listed_as_broken(workspace: Path, tocsin: Tocsin) -> None:
    """One bad appeal does not hide the others, nor itself."""
    other = workspace / "templates" / "appeals" / "other"
    other.mkdir()
    (other / "en.md").write_text("no front matter", encoding="utf-8")
    listed = {one["appeal"]: one["errors"] for one in tocsin("appeals", "list", "--json").json}
    assert listed[SLUG] == 0
    assert listed["other"] > 0
    assert "tocsin appeals check other" in tocsin("appeals").out


def test_a_topic_that_readers_cannot_see_is_told(workspace: Path, tocsin: Tocsin) -> None:
    """It can be said no to by an operator only, until the settings give it a title."""
    file = workspace / "templates" / "appeals" / SLUG / "en.md"
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("---\n", "---\ntopics: [petitions]\n", 1), encoding="utf-8")
    told = tocsin("appeals", "check", SLUG, "--json").json["findings"]
    assert [one["what"] for one in told if one["name"] == "topics.untitled"] == ["petitions has no title"]
    with (workspace / "tocsin.toml").open("a", encoding="utf-8") as config:
        config.write('\n[topics.petitions]\ntitle = "Petitions"\n')
    told = tocsin("appeals", "check", SLUG, "--json").json["findings"]
    assert "topics.untitled" not in {one["name"] for one in told}


def test_a_good_appeal_is_said_to_be_well(workspace: Path, tocsin: Tocsin) -> None:
    """Every language and form was made, and what it asks of people without a fallback is told."""
    ran = tocsin("appeals", "check", SLUG, "--json")
    assert ran.code == 0
    told = ran.json
    assert {one["severity"] for one in told.pop("findings")} <= {"note"}
    assert told == {"appeal": SLUG, "languages": LANGUAGES, "forms": LANGUAGES, "needs": []}
    *_, made, well = tocsin("appeals", "check", SLUG).out.splitlines()
    assert (made, well) == ("Every mail was made: en, ru.", f"{SLUG} is well.")
    with_discreet(workspace)
    assert "; open and discreet." in tocsin("appeals", "check", SLUG).out


def test_each_fault_is_told_with_file_and_line(workspace: Path, tocsin: Tocsin) -> None:
    """`file:line: message`, one a line, as editors understand it; exit 1."""
    file = workspace / "templates" / "appeals" / SLUG / "en.md"
    lines = file.read_text(encoding="utf-8").splitlines()
    lines[1] = "subjekt: A new report"
    file.write_text("\n".join(lines), encoding="utf-8")
    ran = tocsin("appeals", "check", SLUG)
    assert ran.code == 1
    assert f"templates/appeals/{SLUG}/en.md:2: " in ran.out
    findings = tocsin("appeals", "check", SLUG, "--json").json["findings"]
    assert set(findings[0]) == {"severity", "name", "what", "where", "mend", "forms", "file", "line"}
    assert (findings[0]["name"], findings[0]["line"]) == ("appeal.source", 2)
    assert findings[0]["file"].endswith(f"{SLUG}/en.md")


def test_files_that_cannot_go_along_hide_no_other_fault(workspace: Path, tocsin: Tocsin) -> None:
    """A broken picture and a program to attach are told in one go with what is wrong in the text."""
    folder = workspace / "templates" / "appeals" / SLUG
    for name in ("images/vigil.jpg", "attachments/run.exe"):
        (folder / name).parent.mkdir()
        (folder / name).write_bytes(b"MZ")
    file = folder / "en.md"
    text = file.read_text(encoding="utf-8").replace("---\n", "---\nattachments: [attachments/run.exe]\n", 1)
    file.write_text(f"{text}\n![A vigil](images/vigil.jpg)\n", encoding="utf-8")
    ran = tocsin("appeals", "check", SLUG)
    assert ran.code == 1
    attached, broken = ran.out.splitlines()
    assert f"templates/appeals/{SLUG}/en.md:2: " in attached
    assert broken == f"templates/appeals/{SLUG}: images/vigil.jpg is no picture"


def test_a_field_without_a_fallback_is_pointed_out(workspace: Path, tocsin: Tocsin) -> None:
    """It is no fault of the appeal; whether it matters depends on the list."""
    file = workspace / "templates" / "appeals" / SLUG / "en.md"
    text = file.read_text(encoding="utf-8")
    file.write_text(text + "\nGreetings to {{ town }}.\n", encoding="utf-8")
    ran = tocsin("appeals", "check", SLUG)
    assert ran.code == 0
    assert "fields.fallback" in ran.out
    assert "town has no fallback" in ran.out
    assert tocsin("appeals", "check", SLUG, "--json").json["needs"] == ["town"]


def test_people_who_lack_a_field_are_counted(people: Path, tocsin: Tocsin) -> None:
    """With a list at hand it is known how many, and that nobody could be sent it."""
    file = people / "templates" / "appeals" / SLUG / "en.md"
    file.write_text(file.read_text(encoding="utf-8") + "\nGreetings to {{ shoe }}.\n", encoding="utf-8")
    ran = tocsin("appeals", "check", SLUG, "--list", "example")
    assert ran.code == 1
    assert re.search(r"\d+ people on example lack shoe", ran.out)


def test_errors_are_told_with_what_to_do_and_exit_1(workspace: Path, tocsin: Tocsin) -> None:
    """The worst first, each under its name; what can be sent all the same is said to be so."""
    file = workspace / "templates" / "appeals" / SLUG / "en.md"
    text = file.read_text(encoding="utf-8")
    file.write_text(
        f"{text}\nMore: [the page](https://bit.ly/3x), or [here](https://example.org/x).\n", "utf-8"
    )
    ran = tocsin("appeals", "check", SLUG)
    assert ran.code == 1
    lines = ran.out.splitlines()
    assert lines[:3] == [
        "error  links.shortener",
        "  HTML (en): https://bit.ly/3x hides where it leads",
        "  → Link to the page itself.",
    ]
    assert "warning  links.vague" in lines
    assert lines[-1].startswith(f"{SLUG} cannot be sent like this.")
    assert max(map(len, lines)) <= 80


@pytest.mark.usefixtures("workspace")
def test_a_spam_filter_that_is_installed_is_asked(
    tmp_path: Path, tocsin: Tocsin, monkeypatch: pytest.MonkeyPatch, filters: object
) -> None:
    """What it says of each mail, all asked at once, is a finding with the rules that cost points."""
    monkeypatch.setattr(spam, "_FILTERS", filters)
    program = tmp_path / "bin" / "spamassassin"
    program.parent.mkdir()
    program.write_text(
        "#!/bin/sh\n[ \"$1 $2\" = '-L -t' ] || exit 9\nshift 2\nfor mail; do\n"
        "grep '^Subject: ' \"$mail\" || exit 9\n"
        "echo 'Inhaltsanalyse:   (6.1 Punkte, 5.0 required)'\necho\n"
        "echo ' pts rule name              description'\n"
        "echo '---- ---------------------- -------------'\n"
        "echo ' 6.5 TOO_LOUD               BODY: It shouts'\n"
        "echo '-0.4 LIST                   A list'\necho\ndone\n"
    )
    program.chmod(0o700)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    findings = tocsin("appeals", "check", SLUG, "--json").json["findings"]
    assert [(one["name"], one["what"]) for one in findings if one["name"].startswith("spam.")] == [
        ("spam.high", "spamassassin gives it 6.1 points (TOO_LOUD)")
    ]


@pytest.mark.parametrize(
    ("part", "beginning"),
    [("html", "<!doctype html>"), ("text", "CONTENT WARNING"), ("subject", "A new report"), ("eml", "")],
)
@pytest.mark.usefixtures("workspace")
def test_each_part_is_written_to_standard_output(tocsin: Tocsin, part: str, beginning: str) -> None:
    """As it is, to be piped on."""
    ran = tocsin("appeals", "render", SLUG, "--part", part)
    assert ran.code == 0, ran.err
    assert ran.out.lower().startswith(beginning.lower())
    assert len(ran.out) > 20


@pytest.mark.usefixtures("workspace")
def test_the_whole_mail_is_a_mail(tocsin: Tocsin) -> None:
    """The .eml is what would leave: headers, both parts, the opt-out link."""
    for words, subject in (((), "A new report"), (("--language", "ru"), "Новый доклад")):
        ran = tocsin("appeals", "render", SLUG, "--part", "eml", *words)
        mail = email.message_from_string(ran.out, policy=email.policy.default)
        assert str(mail["Subject"]).startswith(subject)
        assert str(mail["To"]) == "Sam Example <sam@example.org>"
        assert "https://act.example.org/o/" in str(mail["List-Unsubscribe"])
        assert [part.get_content_type() for part in mail.iter_parts()] == ["text/plain", "text/html"]


@pytest.mark.usefixtures("workspace")
def test_links_of_a_rendered_mail_lead_nowhere(tocsin: Tocsin) -> None:
    """A preview that is passed around opts nobody out: its marks are made under a key thrown away."""

    def link() -> str:
        ran = tocsin("appeals", "render", SLUG, "--part", "eml")
        return str(email.message_from_string(ran.out, policy=email.policy.default)["List-Unsubscribe"])

    assert link() != link()


def test_all_parts_go_to_a_folder(workspace: Path, tocsin: Tocsin) -> None:
    """With --out, four files that say in their names what they are."""
    with_discreet(workspace)
    assert tocsin("appeals", "render", SLUG, "--out", "mails", "--discreet").code == 0
    assert sorted(file.name for file in (workspace / "mails").iterdir()) == [
        f"{SLUG}.en.discreet.{suffix}" for suffix in ("eml", "html", "subject.txt", "txt")
    ]
