"""A whole Tocsin in a folder of its own: real commands, real processes, real servers."""

import atexit
import contextlib
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from worker import broker, capture, processes
from worker.gallery import Captured

#: Seconds for what takes a moment on an idle machine and much longer on a busy one.
PATIENCE = 120.0
#: Seconds between two commands that look: without it they would take the processor from those who send.
_PAUSE = 0.2
_SAMPLE = Path(__file__).parents[2] / "templates" / "appeals" / "chechnya-report"
GOOD_CONSENT = ("--basis", "consent", "--source", "a form", "--when", "2025-01-01", "--wording", "Yes.")

_CONFIG = """\
[organisation]
name = "Example Equality"
postal_address = "1 Example Street, London N1 1AA"
registration = "Registered charity 0000000"
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
[relay.timeouts]
connect = 5
[web]
base_url = "http://127.0.0.1:{web_port}"
discreet_base_url = "http://127.0.0.1:{web_port}"
port = {web_port}
[database]
url = "{database}"
[broker]
url = "{broker}"
[sending]
batch_size = 100
chunk_size = 50
[sending.retry]
first_seconds = 1
most_seconds = 2
"""


@dataclass
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its output as JSON."""
        return json.loads(self.out)


class _Loaded:
    """A process that has loaded the commands, and runs each in a child of its own."""

    def __init__(self) -> None:
        self._link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        env = {**os.environ, "NO_COLOR": "1", "COLUMNS": "80"}
        argv = [sys.executable, str(Path(__file__).with_name("loaded.py"))]
        self._process = subprocess.Popen(argv, stdin=theirs, env=env)
        theirs.close()

    def run(self, words: list[str], env: dict[str, str], folder: Path, given: str) -> Ran:
        """Run `python -m worker.cli` with these words."""
        asked = json.dumps({"words": words, "env": env, "folder": str(folder)}).encode()
        with contextlib.ExitStack() as held:
            streams = [held.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8")) for _ in range(3)]
            streams[0].write(given)
            streams[0].seek(0)
            told, theirs = (held.enter_context(end) for end in socket.socketpair())
            socket.send_fds(self._link, [asked], [*(stream.fileno() for stream in streams), theirs.fileno()])
            theirs.close()
            code = told.recv(8)
            assert code, "the process that runs the commands has died"
            for stream in streams[1:]:
                stream.seek(0)
            return Ran(int(code), streams[1].read(), streams[2].read())

    def close(self) -> None:
        """End the process."""
        self._link.close()
        self._process.wait(20)


@cache
def _loaded() -> _Loaded:
    made = _Loaded()
    atexit.register(made.close)
    return made


@dataclass
class Office:
    """One workspace and how to work in it."""

    home: Path
    outbox: Path
    database: str = "sqlite"
    broker: str = "embedded"
    per_second: float = 0
    relay_port: int = 1
    debug: bool = False
    web_port: int = field(default_factory=processes.free_port)

    def configure(self, **changes: object) -> None:
        """Write tocsin.toml."""
        for name, value in changes.items():
            setattr(self, name, value)
        config = _CONFIG.format(
            relay_port=self.relay_port,
            per_second=self.per_second,
            web_port=self.web_port,
            database=self.database,
            broker=self.broker,
        )
        (self.home / "tocsin.toml").write_text(config, encoding="utf-8")

    @property
    def env(self) -> dict[str, str]:
        """The variables of every command."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TOCSIN_")}
        return {
            **kept,
            "NO_COLOR": "1",
            "COLUMNS": "80",
            "TOCSIN_CONFIG": str(self.home / "tocsin.toml"),
            "TOCSIN_OPERATOR": "tester",
            **({"TOCSIN_DEBUG": "1"} if self.debug else {}),
        }

    def argv(self, *words: str | Path) -> Sequence[str]:
        """The command line of one command."""
        return [sys.executable, "-m", "worker.cli", *map(str, words)]

    def run(self, *words: str | Path, code: int = 0, given: str = "") -> Ran:
        """Run a command to its end and expect its exit code."""
        done = _loaded().run(list(map(str, words)), self.env, self.home, given)
        assert done.code == code, f"{words}: {done.code}\n{done.out}\n{done.err}"
        return done

    @contextlib.contextmanager
    def up(self, workers: int = 1) -> Iterator["subprocess.Popen[bytes]"]:
        """Run `tocsin up` while the block runs."""
        with (self.home / "up.log").open("ab") as log:
            process = processes.spawn(self.argv("up", "--workers", str(workers)), env=self.env, output=log)
        try:
            assert processes.until(self.answers, seconds=PATIENCE), (self.home / "up.log").read_text()
            yield process
        finally:
            processes.end(process, patience=60)

    def answers(self) -> bool:
        """Whether the pages answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.web_port}/healthz", timeout=2) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False

    def mails(self) -> list[Captured]:
        """Every captured mail."""
        return list(capture.kept(self.outbox))

    def recipients(self) -> list[str]:
        """The envelope recipient of every captured mail."""
        return [one for mail in self.mails() for one in mail.recipients]

    def import_people(self, rows: Sequence[str], *, slug: str = "people", header: str = "email,name") -> None:
        """Import rows with good consent."""
        file = self.home / "lists" / "people.csv"
        file.parent.mkdir(exist_ok=True)
        file.write_text("\n".join([header, *rows, ""]), encoding="utf-8")
        self.run("lists", "import", file, "--list", slug, *GOOD_CONSENT)

    def one_click(self, header: str) -> int:
        """Post to a List-Unsubscribe header as a mailbox would (RFC 8058 section 3.2); return the status."""
        link = re.search(r"<(http[^>]*)>", header)
        assert link
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        request = urllib.request.Request(link[1], b"List-Unsubscribe=One-Click", form)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)

    def state(self, campaign: str) -> str:
        """A campaign's state."""
        return str(self.run("status", campaign, "--json").json["state"])

    def until_finished(self, campaign: str) -> None:
        """Wait until a campaign has ended."""
        assert self.until(lambda: self.state(campaign) == "finished"), self.run("status", campaign).out

    def until(self, condition: Callable[[], bool]) -> bool:
        """Wait for what commands tell; tell whether it came true."""

        def looked() -> bool:
            found = condition()
            if not found:
                time.sleep(_PAUSE)
            return found

        return processes.until(looked, seconds=PATIENCE)

    def verify(self, campaign: str) -> dict[str, int]:
        """Prove a campaign, and return its sum."""
        found = self.run("verify", campaign, "--json").json
        assert found["holds"]
        assert found["open"] == 0
        terms = {name: found[name] for name in ("sent", "bounced", "skipped", "expired", "unconfirmed")}
        assert sum(terms.values()) == found["audience"]
        return {name: count for name, count in terms.items() if count}

    def counts(self, campaign: str) -> dict[str, int]:
        """How many deliveries stand in each state."""
        counts = self.run("status", campaign, "--json").json["counts"]
        return {state: count for state, count in counts.items() if count}


@pytest.fixture
def free_port() -> int:
    """A port that nobody has just now."""
    return processes.free_port()


@pytest.fixture(scope="session")
def tcp_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis on a port, as a charity's server would have one."""
    port = processes.free_port()
    argv = [
        *(
            broker.find_program().path,
            "--port",
            port,
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
        ),
        *("--dir", tmp_path_factory.mktemp("redis")),
    ]
    process = processes.spawn([str(word) for word in argv])
    try:
        assert processes.until(lambda: _listens(port), seconds=PATIENCE)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        processes.end(process, patience=5)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


@pytest.fixture
def bare_office(tmp_path: Path) -> Office:
    """A workspace with SQLite and embedded Redis, and no relay yet."""
    office = Office(tmp_path / "office", tmp_path / "outbox")
    office.home.mkdir()
    office.outbox.mkdir()
    office.configure()
    return office


@pytest.fixture
def office(bare_office: Office) -> Iterator[Office]:
    """The same with keys, tables and a capture relay."""
    with _staffed(bare_office):
        yield bare_office


@pytest.fixture(params=["sqlite-embedded", "postgresql-redis"])
def any_office(request: pytest.FixtureRequest, bare_office: Office) -> Iterator[Office]:
    """The same on each pair of servers in turn."""
    if request.param == "postgresql-redis":
        bare_office.configure(
            database=request.getfixturevalue("postgres_url").replace("+psycopg", ""),
            broker=f"{request.getfixturevalue('tcp_redis')}",
        )
    with _staffed(bare_office):
        yield bare_office


@contextlib.contextmanager
def _staffed(office: Office) -> Iterator[None]:
    from worker import workspace  # noqa: PLC0415 - heavy, and only here

    # Two languages are enough here, six are proved elsewhere; the office finds all else as it ships.
    appeal = office.home / "templates" / "appeals" / "chechnya-report"
    appeal.mkdir(parents=True, exist_ok=True)
    for language in ("en", "ru"):
        shutil.copy(_SAMPLE / f"{language}.md", appeal)
    workspace.make_key(office.home / "var" / "secret.toml")
    office.run("db", "upgrade")
    with capture.running(office.outbox) as relay:
        office.configure(relay_port=relay.port)
        yield


@pytest.fixture
def secret_names() -> list[str]:
    """Names that occur nowhere else, to be looked for where they must not be."""
    return [f"q{secrets.token_hex(6)}" for _ in range(60)]
