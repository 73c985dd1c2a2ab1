"""A mail server that delivers nothing: it stands in for the relay in `demo` and in tries.

Owns taking mail on this machine into an `outbox`, and answering chosen recipients with chosen replies.
Refuses: sending anything on, and listening beyond this machine unless it is told to. Run it as its own
process: `python -m worker.capture FOLDER`.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import errno
import fnmatch
import json
import logging
import os
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from aiosmtpd.smtp import SMTP, Envelope, Session

from worker import processes, workspace
from worker.errors import TocsinError, Unavailable, WrongUse
from worker.gallery import Captured
from worker.outbox import Outbox
from worker.sections import is_loopback

#: Seconds the server may take to listen: a slow machine imports for some of them.
_START_SECONDS = 30.0
#: Seconds without a mail after which the page is written again.
_PAUSE = 1.0
_PLACE = ".capture.json"
_REPLY = re.compile(r"[245]\d\d( [245]\.\d{1,3}\.\d{1,3})? [\x20-\x7e]{1,200}")


@dataclass(frozen=True, slots=True)
class Rule:
    """A reply to give to certain recipients instead of taking their mail."""

    #: Shell pattern on the whole address, as in `bounce@*`.
    pattern: str
    #: What they are answered, as in `550 5.1.1 No such user`.
    reply: str
    #: Whether only the first attempt for each address is answered so (a greylist).
    once: bool = False

    @classmethod
    def parse(cls, text: str, *, once: bool = False) -> "Rule":
        """Read `PATTERN=REPLY`; WrongUse where it is none."""
        pattern, _, reply = text.partition("=")
        if not pattern or not _REPLY.fullmatch(reply):
            raise WrongUse(
                "a rule for replies is not understood.",
                remedy="Write it as 'bounce@*=550 5.1.1 No such user'.",
            )
        return cls(pattern.lower(), reply, once)

    @property
    def words(self) -> tuple[str, str]:
        """Give the rule as the server's own command line takes it."""
        return "--reply-once" if self.once else "--reply", f"{self.pattern}={self.reply}"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a capture server listens."""

    #: Its address.
    host: str
    #: Its port.
    port: int
    #: Its process.
    pid: int


@dataclass
class _Desk:
    """What aiosmtpd asks at each step of a transaction; the names of the methods are its own."""

    outbox: Outbox
    rules: Sequence[Rule]
    #: The recipients, by rule, that a rule for the first attempt has answered.
    answered: set[tuple[Rule, str]] = field(default_factory=set)
    #: Set when a mail was kept.
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def session(self) -> SMTP:
        """Begin a session with whoever connects."""
        return SMTP(self, hostname="capture.invalid", ident="ESMTP", enable_SMTPUTF8=True)

    async def handle_EHLO(  # noqa: N802 - aiosmtpd's name
        self, _server: SMTP, session: Session, _envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        # The reader takes one line after the other, so pipelined commands are safe with it (RFC 2920).
        session.host_name = hostname
        return [*responses[:-1], "250-PIPELINING", "250-ENHANCEDSTATUSCODES", responses[-1]]

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if reply := self._refusal(address.lower()):
            return reply
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return "250 2.1.5 OK"

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802 - see above
        content = envelope.original_content or b""
        try:
            name = self.outbox.keep(envelope.mail_from or "", envelope.rcpt_tos, content)
        except OSError as error:
            full = error.errno in {errno.ENOSPC, errno.EDQUOT}
            return "452 4.3.1 No space to keep it" if full else "451 4.3.0 Cannot keep it"
        self.changed.set()
        return f"250 2.0.0 Kept as {name}"

    def _refusal(self, address: str) -> str | None:
        for rule in self.rules:
            if fnmatch.fnmatchcase(address, rule.pattern) and (rule, address) not in self.answered:
                if rule.once:
                    self.answered.add((rule, address))
                return rule.reply
        return None


async def serve(outbox: Outbox, *, host: str, port: int, rules: Sequence[Rule], template: str = "") -> None:
    """Take mail until SIGTERM or SIGINT.

    Args:
        outbox: keeps it; when the server listens, its host and port stand there in `.capture.json`.
        host: address to listen on.
        port: port to listen on; 0 for any free one.
        rules: tried in their order.
        template: source of the page, which is then kept up to date; "" for no page.
    """
    # aiosmtpd logs every command, and with it every address; ours are never logged.
    logging.getLogger("mail.log").setLevel(logging.CRITICAL)
    desk = _Desk(outbox, rules)
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    try:
        server = await loop.create_server(desk.session, host, port)
    except OSError as error:
        raise Unavailable(
            f"cannot listen on {host} port {port}: {error.strerror}",
            remedy="Choose another port, or 0 for any.",
        ) from error
    paging = asyncio.create_task(_keep_page(desk, template)) if template else None
    place = Place(host, server.sockets[0].getsockname()[1], os.getpid())
    with _note(outbox.folder, place):
        await stopped.wait()
    server.close()
    if paging:
        paging.cancel()
        outbox.write_index(template)


async def _keep_page(desk: _Desk, template: str) -> None:
    """Write the page whenever mails have come and paused, until cancelled."""
    while await desk.changed.wait():
        while desk.changed.is_set():
            desk.changed.clear()
            await asyncio.sleep(_PAUSE)
        with contextlib.suppress(OSError):  # a full disk is told to the senders
            desk.outbox.write_index(template)


@contextlib.contextmanager
def _note(folder: Path, place: Place) -> Iterator[None]:
    """Leave a note of where the server listens while the block runs."""
    draft = folder / f"{_PLACE}.new"
    draft.write_text(json.dumps(dataclasses.asdict(place)), encoding="ascii")
    draft.replace(folder / _PLACE)
    try:
        yield
    finally:
        (folder / _PLACE).unlink(missing_ok=True)


@contextlib.contextmanager
def running(folder: Path, rules: Sequence[Rule] = (), *, log: Path | None = None) -> Iterator[Place]:
    """Run the server as a process of its own while the block runs, and tell where it listens.

    Raises:
        Unavailable: it did not come up.
    """
    words = [word for rule in rules for word in rule.words]
    with Path(log or os.devnull).open("ab") as output:
        argv = [sys.executable, "-m", "worker.capture", str(folder), "--port", "0", *words]
        process = processes.spawn(argv, output=output)

    def ours() -> Place | None:
        # Its number tells it from another server on the folder, and from what a killed one left.
        place = _noted(folder)
        return place if place and place.pid == process.pid else None

    try:
        processes.until(lambda: bool(ours()) or processes.ending(process) is not None, seconds=_START_SECONDS)
        if (place := ours()) is None:
            raise Unavailable(
                "the capture mail server did not come up.",
                remedy=f"See {log}." if log else "Look at its folder.",
            )
        yield place
    finally:
        processes.end(process, patience=5.0)


def _noted(folder: Path) -> Place | None:
    try:
        return Place(**json.loads((folder / _PLACE).read_text(encoding="ascii")))
    except FileNotFoundError:
        return None


def kept(folder: Path) -> Iterator[Captured]:
    """Read the captured mails of a folder in the order in which they came."""
    return Outbox(folder).mails()


def write_index(folder: Path) -> Path:
    """Write the page to look through a folder's mails, and give its file."""
    return Outbox(folder).write_index(_template())


def _template() -> str:
    return workspace.shipped().joinpath("templates/capture/index.html").read_text("utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the server from a command line; 0 when it was told to stop."""
    parser = argparse.ArgumentParser(
        prog="python -m worker.capture", description="Keep mail, deliver nothing."
    )
    parser.add_argument("folder", type=Path, help="where to keep the mails")
    parser.add_argument("--page", action="store_true", help="keep an index.html of the mails there")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=1025, help="port to listen on; 0 for any")
    parser.add_argument(
        "--anywhere", action="store_true", help="allow another host than this machine (in a container)"
    )
    parser.add_argument("--reply", action="append", default=[], help="'bounce@*=550 5.1.1 No such user'")
    parser.add_argument(
        "--reply-once", action="append", default=[], help="the same, for each first attempt only"
    )
    given = parser.parse_args(argv)
    try:
        if not (given.anywhere or is_loopback(given.host)):
            raise WrongUse(f"{given.host} is not this machine.", remedy="Add --anywhere if you mean it.")
        rules = [Rule.parse(text, once=True) for text in given.reply_once] + [
            Rule.parse(text) for text in given.reply
        ]
        with processes.alone(given.folder / ".lock", "A capture server"):
            asyncio.run(
                serve(
                    Outbox(given.folder),
                    host=given.host,
                    port=given.port,
                    rules=rules,
                    template=_template() if given.page else "",
                )
            )
    except TocsinError as error:
        sys.stderr.write(f"{error} {error.remedy}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
