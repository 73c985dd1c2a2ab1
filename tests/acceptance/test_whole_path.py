"""From a CSV file to the inbox, the opt-out and the proof, with separate worker processes."""

import email
import email.policy
from collections import Counter
from typing import TYPE_CHECKING

from worker import processes
from worker.workspace import shipped

if TYPE_CHECKING:
    from tests.acceptance.conftest import Office

APPEAL = "chechnya-report"


def test_an_appeal_reaches_everyone_once_and_nobody_who_said_no(any_office: "Office") -> None:
    """Import, send, one-click in mid-campaign, send again: each mail once, and both campaigns add up."""
    any_office.configure(per_second=5)
    example = str(shipped().joinpath("lists", "example.csv"))
    rows = any_office.run("lists", "import", example, "--list", "example", "--json").json["accepted"]
    with any_office.up():
        any_office.run("send", APPEAL, "--list", "example", "--yes")
        assert processes.until(lambda: bool(any_office.mails()), seconds=60)
        first = any_office.mails()[0]
        header = str(email.message_from_bytes(first.data)["List-Unsubscribe"])
        assert any_office.one_click(header) == 200
        assert len(any_office.mails()) < rows  # it was under way
        any_office.until_finished(f"{APPEAL}-1")
        any_office.run("send", APPEAL, "--list", "example", "--yes", "--wait")
    assert any_office.verify(f"{APPEAL}-1") == {"sent": rows}
    assert any_office.verify(f"{APPEAL}-2") == {"sent": rows - 1, "skipped": 1}
    counts = Counter(any_office.recipients())
    assert counts.pop(first.recipients[0]) == 1
    assert set(counts.values()) == {2}
    assert len(counts) == rows - 1
    assert all(len(mail.recipients) == 1 for mail in any_office.mails())


def test_each_mail_is_what_the_standards_ask(office: "Office") -> None:
    """STANDARDS H1-H13, B1-B4 and S20 on the bytes that arrived."""
    example = str(shipped().joinpath("lists", "example.csv"))
    office.run("lists", "import", example, "--list", "example")
    with office.up():
        office.run("send", APPEAL, "--list", "example", "--yes", "--wait")
    ids = set()
    for captured in office.mails():
        raw = captured.data
        assert b"\n" not in raw.replace(b"\r\n", b"")
        assert max(map(len, raw.split(b"\r\n"))) <= 998
        assert raw.isascii()
        mail = email.message_from_bytes(raw, policy=email.policy.default)
        for name in ("Date", "From", "To", "Subject", "Message-ID", "List-Unsubscribe", "List-Id"):
            assert len(mail.get_all(name, [])) == 1, name
        assert mail["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
        head = raw.split(b"\r\n\r\n", 1)[0]
        for line in head.replace(b"\r\n ", b" ").split(b"\r\n"):
            if line.lower().startswith((b"list-", b"message-id", b"feedback-id")):
                assert b"=?" not in line
        assert b"tocsin" not in raw.lower()
        assert [part.get_content_type() for part in mail.iter_parts()] == ["text/plain", "text/html"]
        text, html = (part.get_content() for part in mail.iter_parts())
        assert len(html) < 90_000
        assert "{{" not in text.replace("{{nickname}}", "")
        link = str(mail["List-Unsubscribe"]).split(">")[0].strip("<")
        assert link in text
        assert link in html
        ids.add(str(mail["Message-ID"]))
        assert captured.sender.startswith("b+")
        assert "appeals@" not in captured.sender
    assert len(ids) == len(office.mails())
