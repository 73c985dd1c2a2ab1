"""A mail that nobody could confirm is settled by its bounce, and one that was sent is joined by its own."""

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from email import message_from_bytes
from typing import TYPE_CHECKING

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from worker import processes

if TYPE_CHECKING:
    from tests.acceptance.conftest import Office

_REPORT = """\
Return-Path: <>
Delivered-To: {path}
From: MAILER-DAEMON@mx.example.net
To: {path}
Subject: Undelivered Mail Returned to Sender
Auto-Submitted: auto-replied
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status; boundary="b"

--b
Content-Type: text/plain

I'm sorry to have to inform you that your message could not be delivered.

--b
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.example.net

Final-Recipient: rfc822; {recipient}
Action: failed
Status: {status}
Diagnostic-Code: smtp; 550 {status} <{recipient}> {words}

--b
Content-Type: text/rfc822-headers

Message-ID: {message_id}

--b--
"""


@dataclass
class Relay:
    """Takes every mail, and loses the link before its answer for those it is told to."""

    lost: frozenset[str]
    #: By recipient: return path and message.
    taken: dict[str, tuple[str, bytes]] = field(default_factory=dict)

    async def handle_DATA(  # noqa: N802 - aiosmtpd's name
        self, server: SMTP, _session: Session, envelope: Envelope
    ) -> str:
        """Take it; then answer, or cut."""
        (recipient,) = envelope.rcpt_tos
        self.taken[recipient] = envelope.mail_from or "", envelope.content or b""  # type: ignore[assignment]  # bytes
        if recipient in self.lost and server.transport:
            server.transport.abort()
            await asyncio.sleep(0)
        return "250 2.0.0 taken"

    def report(self, recipient: str, status: str, words: str) -> str:
        """What the recipient's server says of it later."""
        path, message = self.taken[recipient]
        return _REPORT.format(
            path=path,
            recipient=recipient,
            status=status,
            words=words,
            message_id=message_from_bytes(message)["Message-ID"],
        )


@contextlib.contextmanager
def _running(relay: Relay, port: int) -> Iterator[None]:
    controller = Controller(relay, hostname="127.0.0.1", port=port)
    controller.start()
    try:
        yield
    finally:
        controller.stop()


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # aiosmtpd does not close the link that we cut
def test_a_later_bounce_settles_what_was_unconfirmed(office: "Office", free_port: int) -> None:
    """By Maildir while workers run, and by a mail server's pipe; everybody is accounted for all the way."""
    maildir = office.home / "returned"
    for name in ("new", "cur", "tmp"):
        (maildir / name).mkdir(parents=True)
    people = ["anna", "ben", "carl", "dora"]
    anna, ben, carl, dora = (f"{name}@{name}.example.org" for name in people)
    relay = Relay(frozenset({anna, ben}))
    with _running(relay, free_port):
        office.configure(relay_port=free_port)
        with (office.home / "tocsin.toml").open("a", encoding="utf-8") as config:
            config.write(f'[inbox]\nmaildir = "{maildir}"\n')
        office.import_people([f"{name}@{name}.example.org,{name.title()}" for name in people])
        with office.up():
            office.run("send", "chechnya-report", "--list", "people", "--yes", "--wait")
            assert office.verify("chechnya-report-1") == {"sent": 2, "unconfirmed": 2}
            assert len(office.run("unconfirmed", "chechnya-report-1", "--json").json) == 2

            (maildir / "new" / "1").write_text(relay.report(anna, "5.1.1", "User unknown"), encoding="utf-8")
            (maildir / "new" / "2").write_text(relay.report(carl, "5.2.2", "Over quota"), encoding="utf-8")
            assert processes.until(lambda: not [*(maildir / "new").iterdir()], seconds=60)
            piped = relay.report(ben, "5.2.2", "Over quota")
            office.run("inbox", "read", "-", given=piped)
            office.run("inbox", "read", "-", given=piped)  # twice is once

            assert office.verify("chechnya-report-1") == {"sent": 2, "bounced": 2}
            account = office.run("report", "chechnya-report-1", "--json").json
            assert account["facts"] == {"address gone": 1, "bounced later": 1}
            office.run("suppress", "check", anna, code=1)
            office.run("suppress", "check", ben, carl, dora)

            again = office.run("send", "chechnya-report", "--list", "people", "--dry-run", "--json").json
    assert again["recipients"] == 3  # all but whose mailbox is gone
    assert office.verify("chechnya-report-1") == {"sent": 2, "bounced": 2}
    named = [*(office.home / "var").rglob("*.log"), office.home / "up.log"]
    assert not [file for file in named for name in people if f"{name}@" in file.read_text(encoding="utf-8")]
