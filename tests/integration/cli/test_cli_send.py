"""Before anybody is mailed, the operator has seen what, to whom, when and to whom not, and has said yes."""

import email
import email.policy
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from worker import capture

#: Runs a command line; see conftest.
Tocsin = Callable[..., Any]

SEND = ("send", "chechnya-report", "--list", "example")
KEYS = {
    "topics",
    *(
        "appeal",
        "subjects",
        "lists",
        "recipients",
        "left_out",
        "start_at",
        "time_zone",
        "not_after",
        "findings",
        "waived",
        "digest",
    ),
    "campaign",
}


@pytest.fixture
def outbox(people: Path) -> Iterator[Path]:
    """Stand a capture server in for the relay."""
    folder = people / "outbox"
    folder.mkdir()
    with capture.running(
        folder,
        [
            capture.Rule("full@*", "452 4.2.2 full@example.org is full"),
            capture.Rule("gone@*", "550 5.1.1 gone@example.org is gone"),
        ],
    ) as relay:
        config = people / "tocsin.toml"
        config.write_text(
            config.read_text(encoding="utf-8").replace("port = 9", f"port = {relay.port}"), encoding="utf-8"
        )
        yield folder


@pytest.mark.usefixtures("people")
def test_a_dry_run_shows_everything_and_records_nothing(tocsin: Tocsin) -> None:
    """Subject in every language, how many, who not, start, deadline, digest."""
    tocsin("suppress", "add", "anna.bell@example.org")
    ran = tocsin(*SEND, "--dry-run", "--at", "2030-12-01 09:00", "--tz", "Europe/London")
    assert ran.code == 0
    facts = dict(line.split(maxsplit=1) for line in ran.out.splitlines() if re.match(r"[A-Z]\w+  +", line))
    assert facts["Subject"].strip() == "en: A new report, and four things you can do"
    assert "ru: Новый доклад" in ran.out
    assert facts["Recipients"].strip() == "32 people"
    assert "1 suppressed" in ran.out
    assert "8 no discreet form" in ran.out
    assert "2030-12-01 09:00 GMT" in ran.out
    assert "2030-12-04 09:00 GMT" in ran.out
    assert len(facts["Digest"].strip()) == 12
    assert tocsin("status", "--json").json == []


@pytest.mark.usefixtures("people")
def test_a_plan_for_programs(tocsin: Tocsin) -> None:
    """The same as JSON with stable keys; times are UTC."""
    ran = tocsin(*SEND, "--dry-run", "--json", "--at", "2030-07-01 09:00", "--tz", "Europe/London")
    assert set(ran.json) == KEYS
    assert ran.json["recipients"] == 33
    assert ran.json["start_at"] == "2030-07-01T08:00:00+00:00"
    assert ran.json["campaign"] is None


@pytest.mark.usefixtures("people")
def test_a_limit_is_kept(tocsin: Tocsin) -> None:
    """A careful start with the first few."""
    assert tocsin(*SEND, "--dry-run", "--json", "--limit", "3").json["recipients"] == 3


@pytest.mark.usefixtures("people")
def test_a_scheduled_campaign_is_recorded_with_its_name(tocsin: Tocsin) -> None:
    """It needs neither queue nor workers to be written down; how to start them is said."""
    ran = tocsin(*SEND, "--yes", "--at", "2030-12-01 09:00")
    assert ran.code == 0, ran.err
    assert "chechnya-report-1 starts 2030-12-01 09:00 UTC" in ran.out
    assert "tocsin up" in ran.err
    (campaign,) = tocsin("status", "--json").json
    assert (campaign["campaign"], campaign["state"]) == ("chechnya-report-1", "scheduled")
    assert campaign["created_by"] == "alice"


@pytest.mark.usefixtures("people")
def test_a_campaign_for_now_is_recorded_although_the_queue_is_away(tocsin: Tocsin) -> None:
    """The store is the truth; the tick starts it when it runs again, which is said in one line."""
    ran = tocsin(*SEND, "--yes")
    assert ran.code == 0
    assert ran.err.strip().splitlines() == [
        "The queue does not answer. All is recorded, and goes on when `tocsin up` runs."
    ]
    assert tocsin("status", "--json").json[0]["state"] == "running"


def test_our_examples_are_never_sent_to_real_people(people: Path, tocsin: Tocsin) -> None:
    """A footer with an example address breaks law and trust; a server on this machine may have it."""
    config = people / "tocsin.toml"
    text = config.read_text(encoding="utf-8").replace(
        "2 Harbour Road, Leith", "1 Example Street, London N1 1AA"
    )
    config.write_text(text, encoding="utf-8")
    assert tocsin(*SEND, "--yes", "--at", "2030-12-01 09:00").code == 0
    text = text.replace('host = "127.0.0.1"\n# starttls', 'host = "mail.fairshore.example.org"\n# starttls')
    config.write_text(text.replace('security = "plain"', 'security = "tls"'), encoding="utf-8")
    for words in (SEND, ("lists", "invite", "example")):
        ran = tocsin(*words, "--yes")
        assert ran.code == 2
        assert "organisation.postal_address" in ran.err
    assert len(tocsin("status", "--json").json) == 1


@pytest.mark.parametrize(("answer", "recorded"), [(b"y\n", 1), (b"n\n", 0), (b"\n", 0), (b"\x04", 0)])
@pytest.mark.usefixtures("people")
def test_it_asks_on_a_terminal_and_takes_only_a_yes(tocsin: Tocsin, answer: bytes, recorded: int) -> None:
    """Anything but y or yes, the end of input included, sends nothing: exit 1."""
    ours, theirs = pty.openpty()
    os.write(ours, answer)
    ran = subprocess.run(
        [sys.executable, "-m", "worker.cli", *SEND],
        stdin=theirs,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    os.close(ours)
    os.close(theirs)
    assert "Send it to 33 people? [y/N]" in ran.stderr
    assert ran.returncode == (0 if recorded else 1)
    assert len(tocsin("status", "--json").json) == recorded


def test_two_people_when_two_are_asked_for(
    people: Path, tocsin: Tocsin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever planned it cannot approve it, and the approval names exactly what was looked at."""
    config = people / "tocsin.toml"
    config.write_text(
        config.read_text(encoding="utf-8").replace('approval = "one"', 'approval = "two"'), encoding="utf-8"
    )
    ran = tocsin(*SEND, "--yes", "--at", "2030-12-01 09:00")
    digest = tocsin("status", "chechnya-report-1", "--json").json["digest"]
    assert f"tocsin approve chechnya-report-1 --digest {digest[:12]}" in " ".join(ran.out.split())
    assert tocsin("approve", "chechnya-report-1", "--digest", digest).code == 1
    monkeypatch.setenv("TOCSIN_OPERATOR", "bella")
    assert tocsin("approve", "chechnya-report-1", "--digest", "0" * 12).code == 1
    assert tocsin("approve", "chechnya-report-1", "--digest", digest[:12]).code == 0
    campaign = tocsin("status", "chechnya-report-1", "--json").json
    assert (campaign["state"], campaign["created_by"], campaign["approved_by"]) == (
        "scheduled",
        "alice",
        "bella",
    )


@pytest.mark.parametrize(
    ("words", "subject"),
    [
        ((), "[test] A new report, and four things you can do"),
        (("--language", "ru"), "[test] Новый доклад и четыре способа помочь"),
    ],
)
def test_a_test_mail_goes_to_the_operator_only(
    outbox: Path, tocsin: Tocsin, words: tuple[str, ...], subject: str
) -> None:
    """One real mail through the relay, marked as a test, for an invented reader; nothing is recorded."""
    ran = tocsin("send", "chechnya-report", "--test-to", "me@example.org", *words)
    assert ran.code == 0, ran.err
    (kept,) = capture.kept(outbox)
    assert kept.recipients == ("me@example.org",)
    mail = email.message_from_bytes(kept.data, policy=email.policy.default)
    assert mail["Subject"] == subject
    assert str(mail["To"]) == "Sam Example <me@example.org>"
    assert tocsin("status", "--json").json == []


def test_a_test_mail_is_checked_like_any_other(people: Path, outbox: Path, tocsin: Tocsin) -> None:
    """An error stops it unless it is waived by name; a program hears what was found and that it was taken."""
    file = people / "templates" / "appeals" / "chechnya-report" / "en.md"
    text = file.read_text(encoding="utf-8")
    file.write_text(text + "\nMore: [the page](https://bit.ly/3x).\n", encoding="utf-8")
    words = ("send", "chechnya-report", "--test-to", "me@example.org", "--json")
    refused = tocsin(*words)
    assert (refused.code, refused.out) == (1, "")
    assert "--waive links.shortener" in refused.err
    assert list(capture.kept(outbox)) == []
    told = tocsin(*words, "--waive", "links.shortener").json
    assert "links.shortener" in {one["name"] for one in told.pop("findings")}
    assert told == {
        "appeal": "chechnya-report",
        "form": "en",
        "language": "en",
        "discreet": False,
        "waived": ["links.shortener"],
        "taken": True,
    }
    assert len(list(capture.kept(outbox))) == 1


@pytest.mark.parametrize(
    ("to", "code", "told"), [("gone@example.org", 1, "550 5.1.1"), ("full@example.org", 3, "452 4.2.2")]
)
@pytest.mark.usefixtures("outbox")
def test_what_the_relay_says_of_a_test_mail_is_told(tocsin: Tocsin, to: str, code: int, told: str) -> None:
    """A refusal is a no, a deferral may work later; the reply is shown without the address in it."""
    ran = tocsin("send", "chechnya-report", "--test-to", to)
    assert ran.code == code
    assert told in ran.err
    assert to not in ran.err


def test_a_test_mail_never_goes_to_somebody_who_said_no(outbox: Path, tocsin: Tocsin) -> None:
    """Not even a test."""
    tocsin("suppress", "add", "me@example.org")
    ran = tocsin("send", "chechnya-report", "--test-to", "ME@example.org")
    assert ran.code == 1
    assert "said no" in ran.err
    assert list(capture.kept(outbox)) == []


def test_an_appeal_with_errors_is_not_sent_unless_each_is_waived(people: Path, tocsin: Tocsin) -> None:
    """By name; what was waived is shown, frozen under the digest, and noted with who did it."""
    file = people / "templates" / "appeals" / "chechnya-report" / "en.md"
    text = file.read_text(encoding="utf-8")
    file.write_text(text + "\nMore: [the page](https://bit.ly/3x).\n", encoding="utf-8")
    at = ("--at", "2030-12-01 09:00", "--yes")
    refused = tocsin(*SEND, *at)
    assert refused.code == 1
    assert "links.shortener: HTML (en): https://bit.ly/3x hides where it leads" in refused.err
    assert "--waive links.shortener" in refused.err
    assert tocsin(*SEND, *at, "--waive", "links.empty").code == 1
    assert tocsin(*SEND, *at, "--waive", "links.shortner").code == 2
    assert tocsin("status", "--json").json == []
    sent = tocsin(*SEND, *at, "--waive", "links.shortener", "--waive", "links.empty")
    assert sent.code == 0, sent.err
    assert re.search(r"(?m)^Waived +links\.shortener *$", sent.out)
    assert re.search(r"(?m)^Waived +links\.shortener *$", tocsin("status", "chechnya-report-1").out)
    noted = json.loads(tocsin("audit", "--json").out.splitlines()[-1])
    assert (noted["action"], noted["operator"], noted["subject"]) == ("send", "alice", "chechnya-report-1")
    assert noted["details"]["waived"] == ["links.shortener"]
    assert tocsin("status", "--json").json[0]["waived"] == ["links.shortener"]


@pytest.mark.usefixtures("people")
def test_a_good_appeal_waives_nothing(tocsin: Tocsin) -> None:
    """A waiver that nothing needs leaves no trace."""
    told = tocsin(*SEND, "--dry-run", "--json", "--waive", "links.shortener").json
    assert told["waived"] == []
    assert {one["severity"] for one in told["findings"]} == {"note"}


@pytest.mark.usefixtures("people")
def test_a_discreet_list_never_gets_the_open_form(tocsin: Tocsin) -> None:
    """Where there are no names for the discreet form, nothing is planned; `--discreet` asks the same."""
    plan = ("send", "chechnya-report", "--list", "example", "--dry-run")
    assert tocsin(*plan).code == 0
    assert tocsin(*plan, "--discreet").code == 1
    assert (
        tocsin("lists", "policy", "example", "--discreet", "yes", "--yes", "--json").json["discreet"] is True
    )
    refused = tocsin(*plan)
    assert refused.code == 1
    assert "no names to leave under" in refused.err
    assert tocsin("lists", "policy", "example", "--discreet", "no", "--yes").code == 0
    assert tocsin(*plan).code == 0
