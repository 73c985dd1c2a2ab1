"""The whole path on this machine: import, send, opt out under way, report, and look at every mail.

Owns the order of the show. Everything in it is the real thing, run as an operator would run it: the commands,
the queue, the worker and beat processes, the pages. Only the relay is a capture server that delivers nothing.
Refuses: a second demo beside a running one, and touching any campaign, list or key of the workspace.
"""

import contextlib
import email
import itertools
import os
import re
import shutil
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from importlib.resources import as_file
from pathlib import Path

from rich.console import Console

from worker import capture, processes, supervision, workspace
from worker.errors import Unavailable
from worker.workspace import shipped

_APPEAL = "chechnya-report"
_LIST = "example"
#: Slow enough that a reader can opt out while the campaign is under way.
_PER_SECOND = 12
#: Seconds that the processes may take to come up, and that a first mail may take to arrive.
_PATIENCE = 60.0
_CONFIG = """\
# Made by `tocsin demo`; nothing here leaves this machine.
state = "state"
[organisation]
name = "Example Equality"
postal_address = "1 Example Street, London N1 1AA"
registration = "Registered charity 0000000 (an example)"
[mail]
from_address = "appeals@example.org"
bounce_domain = "bounces.example.org"
[discreet]
from_address = "hello@letters.example.net"
sender_name = "Monthly letter"
[relay]
host = "127.0.0.1"
port = {relay_port}
security = "plain"
per_second = {per_second}
[web]
base_url = "http://127.0.0.1:{web_port}"
discreet_base_url = "http://127.0.0.1:{web_port}"
port = {web_port}
[sending.retry]
first_seconds = 2
"""


def run(console: Console, home: Path) -> None:
    """Run the demo in `home`/var; Refused or Unavailable in one line when it cannot."""
    var = home / "var"
    with processes.alone(var / "demo.lock", "A demo"):
        outbox = _emptied(var / "outbox")
        demo = _emptied(var / "demo")
        workspace.make_key(demo / "state" / "secret.toml")
        with capture.running(outbox, _rules()) as relay:
            port = processes.free_port()
            config = _CONFIG.format(relay_port=relay.port, web_port=port, per_second=_PER_SECOND)
            (demo / "tocsin.toml").write_text(config, encoding="utf-8")
            _Show(console, demo, outbox, port).run()
        index = capture.write_index(outbox)
    console.print(
        f"\nEvery mail, as it would have arrived: [bold]{index.relative_to(home)}[/]", highlight=False
    )


class _Show:
    """One run of the demo."""

    def __init__(self, console: Console, demo: Path, outbox: Path, port: int) -> None:
        self._console = console
        self._outbox = outbox
        self._port = port
        self._demo = demo
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TOCSIN_")}
        self._env = {**kept, "TOCSIN_CONFIG": str(demo / "tocsin.toml"), "TOCSIN_OPERATOR": "demo"}
        self._said_no = ""

    def run(self) -> None:
        """Show it."""
        self._command("db", "upgrade")
        with as_file(shipped().joinpath("lists", "example.csv")) as example:
            self._command("lists", "import", str(example), "--list", _LIST, "--title", "Example supporters")
        with self._services():
            opting_out = threading.Thread(target=self._opt_out, daemon=True)
            opting_out.start()
            self._command("send", _APPEAL, "--list", _LIST, "--yes", "--wait")
            opting_out.join(_PATIENCE)
            if not self._said_no:
                raise Unavailable("the opt-out got no answer", remedy=f"See {self._demo}/state/log.")
            self._say("While it was under way, one reader used the one-click link in their mail's header.")
            self._say("A second campaign to the same list leaves that reader out:")
            self._command("send", _APPEAL, "--list", _LIST, "--yes", "--wait")
            self._prove()
            for number in (1, 2):
                self._command("report", f"{_APPEAL}-{number}")
                self._command("verify", f"{_APPEAL}-{number}")

    @contextlib.contextmanager
    def _services(self) -> Iterator[None]:
        """Run `tocsin up`: Redis, workers, beat and pages, each a process of its own."""
        self._say("$ tocsin up --workers 1   (a private Redis, Celery workers, beat, and the opt-out pages)")
        log = self._demo / "up.log"
        with log.open("wb") as output:
            up = processes.spawn(self._argv("up", "--workers", "1"), env=self._env, output=output)
        try:
            answers = supervision.listens("127.0.0.1", self._port)
            processes.until(lambda: answers() or processes.ending(up) is not None, seconds=_PATIENCE)
            if not answers():
                raise Unavailable("the demo's processes did not come up", remedy=f"See {log}.")
            yield
        finally:
            processes.end(up, patience=40.0)
            self._say("Everything that was started has been stopped.")

    def _command(self, *words: str) -> None:
        """Run one command as an operator would, and show it."""
        self._say("$ tocsin " + " ".join(words))
        done = subprocess.run(self._argv(*words), env=self._env, check=False)  # noqa: S603 - our own command
        if done.returncode:
            raise Unavailable(
                f"`tocsin {words[0]}` ended with {done.returncode}", remedy=f"See {self._demo}/state/log."
            )

    def _opt_out(self) -> None:
        """Take the link from the first captured mail's header and post to it, as a mailbox would."""
        processes.until(lambda: any(capture.kept(self._outbox)), seconds=_PATIENCE)
        for captured in itertools.islice(capture.kept(self._outbox), 1):
            header = str(email.message_from_bytes(captured.data)["List-Unsubscribe"])
            link = re.search(r"<(http[^>]*)>", header)
            if link and _one_click(link[1]):
                self._said_no = captured.recipients[0]

    def _prove(self) -> None:
        """Count that reader's mails."""
        count = sum(self._said_no in mail.recipients for mail in capture.kept(self._outbox))
        if count != 1:
            raise Unavailable(f"the reader who opted out got {count} mails")
        self._say(
            "Captured for the reader who opted out: 1 mail, from before; none from the second campaign."
        )

    def _say(self, line: str) -> None:
        self._console.print(f"\n{line}", style="bold", highlight=False, markup=False)

    def _argv(self, *words: str) -> Sequence[str]:
        return [sys.executable, "-m", "worker.cli", *words]


def _one_click(link: str) -> bool:
    """Post to an opt-out link exactly what RFC 8058 section 3.2 has a mailbox post."""
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    request = urllib.request.Request(link, b"List-Unsubscribe=One-Click", form)  # noqa: S310 - of our own mail
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - likewise
            return bool(answer.status == HTTPStatus.OK)
    except OSError:
        return False


def _rules() -> Sequence[capture.Rule]:
    """Let one mailbox be gone and another be full at first, so that the report has something to say."""
    return (
        capture.Rule("anna.bell@*", "550 5.1.1 No such user"),
        capture.Rule("ben.carter@*", "452 4.2.2 Mailbox full", once=True),
    )


def _emptied(folder: Path) -> Path:
    """Make a folder anew; both of ours hold only what an earlier demo left."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, parents=True)
    return folder
