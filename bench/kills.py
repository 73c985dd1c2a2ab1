"""Kill everything, again and again, in mid-campaign; then compare what was sent with what is believed.

    .venv/bin/python bench/kills.py [--kills 100] [--recipients 20000] [--database sqlite|postgresql]
        [--every 1] [--kinds child,worker,…] [--apart [--lost 10]] [--seed N] [--json FILE]

Real processes (control worker, dispatch workers, beat, Redis, the database) and a mail server of our own that
notes each recipient before it answers. Every second one of them dies by SIGKILL, all links of the relay are
cut, or a sender is stopped for longer than its lease. What died is started again at once, as a service
manager would. In the end, recipient by recipient: nobody lost, nobody mailed twice, and no more unconfirmed
than links were open at the kills. Exits with 1 if that does not hold.

With `--apart` each dispatch worker is on a machine of its own, as far as files go, and one more kind of death
is "host": the worker and its journals are gone for good, and only the second copy in Redis is left of them.

A benchmark and a library: `tests/acceptance/test_kills.py` runs a short one.
"""

import argparse
import asyncio
import collections
import contextlib
import datetime as dt
import itertools
import json
import os
import pwd
import random
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, cast

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import sqlalchemy as sa

from worker import broker, processes, settings, workspace
from worker.addresses import parse
from worker.errors import Unavailable
from worker.imports import Rejects, Target
from worker.sealing import Person
from worker.store.schema import deliveries, leases, people
from worker.tables.lists import Consent, Row
from worker.wiring import Wiring

#: The control worker, with less patience for an owner elsewhere than the minute of earnest.
_CONTROL: Final = """
import sys
from worker import sweep
sweep.LOST_OWNER_SECONDS = float(sys.argv.pop(1))
from worker.cli import main
sys.exit(main())
"""
KINDS: Final = ("child", "worker", "parent", "beat", "control", "redis", "links", "freeze")
CAMPAIGN: Final = "chechnya-report-1"
_PATIENCE: Final = 120.0
_WHEN: Final = dt.datetime(2025, 1, 1, tzinfo=dt.UTC)
_CONFIG: Final = """\
[organisation]
name = "Example Equality"
postal_address = "1 Example Street, London N1 1AA"
registration = "Registered charity 0000000"
[mail]
from_address = "appeals@example.org"
bounce_domain = "bounces.example.org"
[relay]
host = "127.0.0.1"
port = {port}
security = "plain"
connections = {plan.connections}
per_second = {plan.per_second}
[web]
base_url = "http://127.0.0.1:9"
[database]
url = "{database}"
[broker]
url = "{broker}"
[sending]
batch_size = {plan.batch}
chunk_size = {plan.chunk}
lease_seconds = {plan.lease}
slice_seconds = {plan.slice}
"""


@dataclass(frozen=True)
class Plan:
    """One run."""

    recipients: int = 20_000
    kills: int = 100
    every: float = 1.0  #: seconds between two kills
    kinds: Sequence[str] = KINDS
    in_turn: bool = False  #: one kind after the other instead of by chance
    workers: int = 2  #: dispatch workers
    processes: int = 1  #: of each
    connections: int = 4  #: of each process
    batch: int = 250
    chunk: int = 100
    lease: float = 5.0
    slice: float = 3.0
    frozen: float = 8.0  #: seconds for which a sender is stopped: longer than its lease
    reply_delay: float = 0.004  #: seconds the mail server takes over a mail
    limit: float = 900.0  #: seconds after which the run is given up
    apart: bool = False  #: each sender as on a machine of its own
    lost: float = 10.0  #: seconds past its lease after which an owner elsewhere is taken over
    seed: int = 0

    @property
    def per_second(self) -> float:
        """Mails a second, so that the campaign lasts as long as the kills even if none of them delays it."""
        return round(self.recipients / (self.kills * self.every), 1)


# -- the mail server, in a process of its own -------------------------------------------------------


class _Talk(asyncio.Protocol):
    """One connection: takes mail by the book, one command after the other, and notes whom it was for."""

    def __init__(self, desk: "_Desk") -> None:
        self._desk = desk
        self._buffer = b""
        self._recipient = b""
        self._in_data = False
        self._busy = False
        self._link: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet."""
        self._link = cast("asyncio.Transport", transport)
        self._desk.links.add(self._link)
        self._link.write(b"220 sink.example ESMTP\r\n")

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that it is gone."""
        del exc
        if self._link is not None:
            self._desk.links.discard(self._link)
        self._link = None

    def data_received(self, data: bytes) -> None:
        """Serve what is whole."""
        self._buffer += data
        self._serve()

    def _serve(self) -> None:
        while self._link is not None and not self._busy:
            head, found, rest = self._buffer.partition(b"\r\n.\r\n" if self._in_data else b"\r\n")
            if not found:
                return
            self._buffer = rest
            if self._in_data:
                self._take()
            else:
                self._answer(head)

    def _answer(self, line: bytes) -> None:
        assert self._link is not None
        verb = line[:4].upper()
        if verb == b"RCPT":
            self._recipient = line.partition(b"<")[2].partition(b">")[0]
        self._in_data = verb == b"DATA"
        self._link.write(_ANSWERS.get(verb, b"250 2.0.0 ok\r\n"))
        if verb == b"QUIT":
            self._link.close()

    def _take(self) -> None:
        """Note the mail before or after a while, and answer after it: a kill may fall before and after."""
        self._in_data, self._busy = False, True
        noted = self._desk.dice.random() < 0.5
        if noted:
            self._desk.note(self._recipient)
        asyncio.get_running_loop().call_later(self._desk.delay, self._taken, noted)

    def _taken(self, noted: bool) -> None:  # noqa: FBT001 - a callback's only argument
        self._busy = False
        if self._link is None:
            return
        if not noted:
            self._desk.note(self._recipient)
        self._link.write(b"250 2.0.0 taken\r\n")
        self._serve()


_ANSWERS: Final = {
    b"EHLO": b"250-sink.example\r\n250-PIPELINING\r\n250-ENHANCEDSTATUSCODES\r\n250 8BITMIME\r\n",
    b"DATA": b"354 go\r\n",
    b"QUIT": b"221 2.0.0 bye\r\n",
}


class _Desk:
    """What the connections share: the file of the taken, and the links to be cut."""

    def __init__(self, file: Path, delay: float) -> None:
        self.delay = delay
        self.dice = random.Random(1)  # noqa: S311 - chance, not secrecy
        self.links: set[asyncio.Transport] = set()
        self._file = os.open(file, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)

    def note(self, recipient: bytes) -> None:
        """Write a recipient down; a plain write survives any SIGKILL."""
        os.write(self._file, b"%.4f %s\n" % (time.time(), recipient))

    def cut(self) -> int:
        """Cut every link in the middle of whatever it says; return how many there were."""
        links = list(self.links)
        for link in links:
            link.abort()
        return len(links)


async def _serve_sink(file: Path, delay: float, address: str) -> None:
    desk = _Desk(file, delay)
    loop = asyncio.get_running_loop()

    async def control(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readline():
            writer.write(b"%d\n" % desk.cut())
            await writer.drain()
        writer.close()

    mail = await loop.create_server(lambda: _Talk(desk), address, 0, backlog=256)
    commands = await asyncio.start_server(control, address, 0)
    ports = [server.sockets[0].getsockname()[1] for server in (mail, commands)]
    draft = file.with_suffix(".new")
    draft.write_text(json.dumps(ports), encoding="ascii")
    draft.replace(file.with_suffix(".ports"))
    await asyncio.Event().wait()


class Sink:
    """The mail server as the run sees it."""

    def __init__(
        self, file: Path, delay: float, *, address: str = "127.0.0.1", within: Sequence[str] = ()
    ) -> None:
        """Start it at an address; `within`: the words that start a program in the network of that address."""
        self._file = file
        words = ["--sink", str(file), "--reply-delay", str(delay), "--address", address]
        self._process = processes.spawn([*within, sys.executable, __file__, *words])
        note = file.with_suffix(".ports")
        assert processes.until(note.exists, seconds=_PATIENCE), "the mail server did not come up"
        self.port, control = json.loads(note.read_text(encoding="ascii"))
        self._control = address, control

    def cut(self) -> int:
        """Cut all links; return how many there were."""
        with socket.create_connection(self._control) as control:
            control.sendall(b"cut\n")
            return int(control.makefile("rb").readline())

    def taken(self) -> list[tuple[float, str]]:
        """Return when each mail was taken and for whom, in order."""
        if not self._file.exists():
            return []
        lines = self._file.read_text(encoding="ascii").splitlines()
        return [(float(at), who) for at, _, who in (line.partition(" ") for line in lines)]

    @property
    def begun(self) -> bool:
        """Whether anything was taken."""
        return self._file.exists() and self._file.stat().st_size > 0

    def close(self) -> None:
        """End it."""
        processes.kill(self._process)


# -- what can be killed ------------------------------------------------------------------------------


class Part:
    """One process of the site, started again whenever it is dead."""

    def __init__(self, name: str, argv: Sequence[str | Path], env: Mapping[str, str], log: Path) -> None:
        """Start it."""
        self.name = name
        self._argv, self._env, self._log = argv, env, log
        self.process = self._spawn()

    def _spawn(self) -> "subprocess.Popen[bytes]":
        with self._log.open("ab") as output:
            return processes.spawn(self._argv, env=self._env, output=output)

    @property
    def pids(self) -> list[int]:
        """The process and its children."""
        return [self.process.pid, *_children(self.process.pid)]

    def restart(self) -> None:
        """Start it again."""
        self.process = self._spawn()

    def kill(self) -> None:
        """End it with all its session, at once, and start it again."""
        processes.kill(self.process)
        self.restart()


def _children(pid: int) -> list[int]:
    """Return a worker's sending processes."""
    with contextlib.suppress(OSError):
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def _links(pids: Sequence[int], port: int) -> dict[int, int]:
    """Count the open connections to a port, by process."""
    wanted = f"0100007F:{port:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    inodes = {f"socket:[{row[9]}]" for row in rows if row[2] == wanted and row[3] == "01"}
    found: dict[int, int] = {}
    for pid in pids:
        found[pid] = 0
        with contextlib.suppress(OSError):
            for file in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    found[pid] += str(file.readlink()) in inodes
    return found


def _signal(pids: Sequence[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


@dataclass
class Kill:
    """One death."""

    at: float
    kind: str
    links: dict[int, int] = field(default_factory=dict)  #: open connections to the relay, by process
    cut: int = 0  #: links cut at the relay's side


class Site:
    """A workspace with everything that runs in it."""

    def __init__(self, plan: Plan, folder: Path, database: str) -> None:
        """Take the plan, an empty folder and the database's URL ("sqlite" or PostgreSQL's)."""
        self.plan = plan
        self.home = folder / "office"
        self.logs = self.home / "var" / "log"
        self.logs.mkdir(parents=True)
        self.held = contextlib.ExitStack()
        self.sink = self._sink(folder / "taken")
        self.held.callback(self.sink.close)
        private = database == "sqlite"  # each kind of queue with one kind of database
        port = processes.free_port()
        config = self.home / "tocsin.toml"
        url = "embedded" if private else f"redis://127.0.0.1:{port}/0"
        config.write_text(_CONFIG.format(plan=plan, port=self.sink.port, database=database, broker=url))
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TOCSIN_")}
        self.env = {**kept, "NO_COLOR": "1", "TOCSIN_CONFIG": str(config), "TOCSIN_OPERATOR": "tester"}
        self.settings = settings.load(self.home, {"TOCSIN_CONFIG": str(config)})
        workspace.make_key(self.home / "var" / "secret.toml")
        self.wiring = Wiring(self.settings, _Mute())
        self.wiring.database.upgrade()
        self.held.callback(self.wiring.database.close)
        self.parts: dict[str, Part] = {}
        self.frozen: dict[int, float] = {}
        self._redis_argv = self._redis(port, private=private)

    def _sink(self, file: Path) -> Sink:
        return Sink(file, self.plan.reply_delay)

    def _within(self, name: str) -> Sequence[str]:
        """Return the words that start a part's program where it belongs: here, as they are."""
        del name
        return ()

    def _redis(self, port: int, *, private: bool) -> Sequence[str | Path]:
        if private:
            return self.held.enter_context(broker.reserved(self.settings.state)).argv
        words = ("--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no")
        return [broker.find_program().path, *words, "--dir", self.home / "var"]

    def start(self) -> None:
        """Start everything."""
        self.held.callback(self._end)
        self._add("redis", self._redis_argv)
        for name, *words in self._workers():
            program = ["-c", _CONTROL, str(self.plan.lost)] if name == "control" else ["-m", "worker.cli"]
            self._add(name, [sys.executable, *program, *words])

    def _workers(self) -> Iterator[Sequence[str]]:
        yield "control", "worker", "--queues", "control", "--processes", "1"
        yield "beat", "beat"
        for number in range(self.plan.workers):
            count = str(self.plan.processes)
            yield f"dispatch{number}", "worker", "--queues", "dispatch", "--processes", count

    def _add(self, name: str, argv: Sequence[str | Path]) -> None:
        env = dict(self.env)
        if self.plan.apart and name.startswith("dispatch"):
            env["TOCSIN_STATE"] = str(self._state(name))
            env["TOCSIN_SECRET_FILE"] = str(self.settings.secret_file)
        self.parts[name] = Part(name, [*self._within(name), *argv], env, self.logs / f"{name}.log")

    def _state(self, name: str) -> Path:
        return self.home / name

    @property
    def senders(self) -> list[Part]:
        """The dispatch workers."""
        return [part for name, part in self.parts.items() if name.startswith("dispatch")]

    def run(self, *words: str, code: int = 0) -> str:
        """Run a command to its end."""
        argv = [*self._within("command"), sys.executable, "-m", "worker.cli", *words]
        done = subprocess.run(argv, env=self.env, cwd=self.home, capture_output=True, text=True, check=False)
        assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def import_people(self) -> None:
        """Put everybody on a list."""
        consent = Consent("consent", "a form", "Yes.", _WHEN)
        rows = (
            Row(number, parse(f"p{number}@example.org"), {"name": "Sam Example"}, "", False, consent)  # noqa: FBT003 - its own order
            for number in range(1, self.plan.recipients + 1)
        )
        self.wiring.importer.run(
            rows, Target("people", "People"), Rejects(self.home / "rejects"), lambda _rows: None
        )

    # -- deaths -------------------------------------------------------------------------------------

    def strike(self, kind: str, dice: random.Random) -> Kill | None:
        """Kill one of a kind and start it again; None when there is none just now."""
        kill = Kill(time.time(), kind)
        if kind == "links":
            kill.cut = self.sink.cut()
        elif kind in {"child", "worker", "parent", "freeze", "host"}:
            return kill if self._strike_sender(kill, dice.choice(self.senders), dice) else None
        else:
            self.parts[kind].kill()
        return kill

    def _strike_sender(self, kill: Kill, part: Part, dice: random.Random) -> bool:
        children = _children(part.process.pid)
        if not children:  # it has not come up yet
            return False
        pids = [dice.choice(children)] if kill.kind in {"child", "freeze"} else part.pids
        _signal(pids, signal.SIGSTOP)  # nobody opens another link while they are counted
        kill.links = _links(pids, self.sink.port)
        if kill.kind == "freeze":
            self.frozen[pids[0]] = time.monotonic() + self.plan.frozen
        elif kill.kind == "child":
            _signal(pids, signal.SIGKILL)
        elif kill.kind == "worker":
            part.kill()
        elif kill.kind == "host":
            processes.kill(part.process)
            shutil.rmtree(self._state(part.name) / "journal")
            part.restart()
        else:
            self._strike_parent(part, children)
        return True

    def _strike_parent(self, part: Part, children: Sequence[int]) -> None:
        """Kill a worker's parent alone; its orphans may finish what they have in hand."""
        _signal([part.process.pid], signal.SIGKILL)
        _signal([pid for pid in children if pid not in self.frozen], signal.SIGCONT)
        part.process.wait()
        part.restart()

    def tend(self, deaths: Counter[str]) -> None:
        """Wake up whoever was stopped long enough, and start again what died by itself."""
        for pid, until in list(self.frozen.items()):
            if time.monotonic() >= until:
                _signal([pid], signal.SIGCONT)
                del self.frozen[pid]
        for name, part in self.parts.items():
            if how := processes.ending(part.process):
                deaths[f"{name} ({how})"] += 1
                part.kill()

    def _end(self) -> None:
        _signal(list(self.frozen), signal.SIGCONT)
        order = sorted(self.parts.values(), key=lambda part: part.name == "redis")
        for part in order[:-1]:
            processes.ask_to_stop(part.process)
        for part in order:
            processes.end(part.process, patience=40)

    @property
    def finished(self) -> bool:
        """Whether the campaign has ended."""
        try:
            found = self.wiring.plans.find(CAMPAIGN)
        except Unavailable:
            return False
        return found is not None and found.state == "finished"


class _Mute:
    """A doorbell for a process that rings nobody."""

    def launch(self, campaign_id: int) -> None:
        """Ring nobody."""

    def ring(self, batch_ids: Sequence[int]) -> None:
        """Ring nobody."""

    def waiting(self) -> int:
        """Nobody waits."""
        return 0


# -- PostgreSQL of our own ---------------------------------------------------------------------------


class Postgres:
    """A private server on a unix socket."""

    def __init__(self, folder: Path, *, sync: bool = False) -> None:
        """Make its files and start it; `sync`: a commit is on the disk, as in earnest."""
        found = shutil.which("initdb") or next(Path("/usr/lib/postgresql").glob("*/bin/initdb"), None)
        assert found, "PostgreSQL is not installed"
        programs = Path(found).resolve().parent
        user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None  # it refuses to run as root
        if user:
            os.chown(folder, user.pw_uid, user.pw_gid)
        self._who = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}
        data = str(folder / "d")
        words = ["-D", data, "-U", "tocsin", "-A", "trust", "-E", "UTF8", "--locale=C", "-N"]
        subprocess.run([programs / "initdb", *words], check=True, stdout=subprocess.DEVNULL, **self._who)  # type: ignore[call-overload]  # who it runs as
        careless = [] if sync else ["-F"]
        self._argv = [programs / "postgres", "-D", data, "-k", str(folder), "-h", "", *careless]
        self.url = f"postgresql://tocsin@/postgres?host={folder}"
        self.start()

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.process = self._spawn()
        engine = sa.create_engine(self.url.replace("postgresql:", "postgresql+psycopg:"))

        def answers() -> bool:
            if self.process.poll() is not None:  # it refuses while a backend of the killed one still lives
                self.process = self._spawn()
            try:
                engine.connect().close()
            except sa.exc.OperationalError:
                return False
            return True

        assert processes.until(answers, seconds=_PATIENCE), "PostgreSQL did not come up"
        engine.dispose()

    def _spawn(self) -> "subprocess.Popen[bytes]":
        quiet = subprocess.DEVNULL
        started: subprocess.Popen[bytes] = subprocess.Popen(  # type: ignore[call-overload]  # as above
            self._argv, stdout=quiet, stderr=quiet, start_new_session=True, **self._who
        )
        return started

    def kill(self) -> None:
        """End it with all its backends, at once, and start it again."""
        self.stop(signal.SIGKILL)
        self.start()

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """End it."""
        os.killpg(self.process.pid, number)
        self.process.wait()


# -- the run and the comparison ----------------------------------------------------------------------


@dataclass
class Figures:
    """What a run came to, recipient by recipient."""

    plan: Plan
    database: str
    seconds: float = 0.0
    finished: bool = False
    events: list[tuple[float, str, int]] = field(default_factory=list)  #: when, what, links open or cut
    kills: Counter[str] = field(default_factory=Counter)
    deaths: Counter[str] = field(default_factory=Counter)  #: of processes that nobody killed directly
    states: Counter[str] = field(default_factory=Counter)
    taken: int = 0
    missing: int = 0  #: recipients without a delivery
    open: int = 0  #: lost: queued, sending or deferred at the end
    sent_not_taken: int = 0  #: lost: believed sent, never taken
    duplicated: int = 0  #: taken twice
    taken_not_believed: int = 0  #: taken, and believed neither sent nor unconfirmed
    unconfirmed: int = 0
    unconfirmed_taken: int = 0  #: of these, how many were in truth taken
    links: int = 0  #: open at the kills of senders, and cut
    unexplained: int = 0  #: unconfirmed beyond the links that their own process had at its kill
    leases_open: int = 0
    tracebacks: Counter[str] = field(default_factory=Counter)
    warnings: Counter[str] = field(default_factory=Counter)
    verified: bool = False
    hand: dict[str, list[float]] = field(default_factory=dict)  #: seconds until a victim's hand was settled
    silence: dict[str, list[float]] = field(default_factory=dict)  #: longest pause in the mails after a kill

    @property
    def problems(self) -> list[str]:
        """Say what breaks the promises, one line each."""
        counts = {
            "recipients without a delivery": self.missing,
            "lost: never settled": self.open,
            "lost: believed sent, never taken": self.sent_not_taken,
            "mailed twice": self.duplicated,
            "taken, and believed neither sent nor unconfirmed": self.taken_not_believed,
            "unconfirmed beyond the open links": max(self.unconfirmed - self.links, 0),
            "unconfirmed for no known reason": self.unexplained,
            "leases that never ended": self.leases_open,
        }
        found = [f"{what}: {count}" for what, count in counts.items() if count]
        found += [f"{count} tracebacks in the logs: {what}" for what, count in self.tracebacks.items()]
        if not self.finished:
            found.append("the campaign did not finish")
        if not self.verified:
            found.append("`tocsin verify` does not agree")
        return found


def run(plan: Plan, folder: Path, database: str = "sqlite", postgres: Postgres | None = None) -> Figures:
    """Run a campaign with its kills, and compare.

    Args:
        plan: how large, how often, what.
        folder: empty; everything is kept there.
        database: "sqlite" or the URL of an empty PostgreSQL database.
        postgres: the server of that database, where it may be killed too.
    """
    figures = Figures(plan, database.partition(":")[0])
    site = Site(plan, folder, database)
    with site.held:
        site.import_people()
        site.start()
        began = time.monotonic()
        site.run("send", "chechnya-report", "--list", "people", "--yes")
        kills = _campaign(site, figures, postgres, began + plan.limit)
        figures.seconds = round(time.monotonic() - began, 1)
        figures.finished = site.finished
        site._end()  # noqa: SLF001 - ours: whoever is late is heard before the comparison
        _compare(site, figures, kills)
        _logs(site.logs, figures)
    return figures


def _campaign(site: Site, figures: Figures, postgres: Postgres | None, deadline: float) -> list[Kill]:
    """Kill by the clock until the campaign has finished."""
    plan, dice = site.plan, random.Random(site.plan.seed)  # noqa: S311 - chance, not secrecy
    kills: list[Kill] = []
    assert processes.until(lambda: site.sink.begun, seconds=_PATIENCE), "no mail ever left"
    next_at = time.monotonic()

    def step() -> bool:
        nonlocal next_at
        site.tend(figures.deaths)
        if len(kills) < plan.kills and time.monotonic() >= next_at:
            kind = plan.kinds[len(kills) % len(plan.kinds)] if plan.in_turn else dice.choice(plan.kinds)
            if kind == "database" and postgres:
                kills.append(Kill(time.time(), kind))
                postgres.kill()
            elif kill := site.strike(kind, dice):
                kills.append(kill)
            next_at = max(next_at + plan.every, time.monotonic())
        return site.finished

    processes.until(step, seconds=deadline - time.monotonic())
    figures.kills.update(kill.kind for kill in kills)
    figures.events = [(round(k.at, 2), k.kind, sum(k.links.values()) + k.cut) for k in kills]
    return kills


def _compare(site: Site, figures: Figures, kills: Sequence[Kill]) -> None:
    """Hold what the mail server took against what the ledger believes."""
    taken = site.sink.taken()
    counts = Counter(who for _, who in taken)
    believed = _believed(site)
    figures.taken = len(taken)
    figures.states = Counter(state for state, _ in believed.values())
    figures.missing = figures.plan.recipients - len(believed)
    figures.duplicated = sum(count > 1 for count in counts.values())
    figures.open = sum(figures.states[state] for state in ("queued", "sending", "deferred"))
    for who, (state, _) in believed.items():
        figures.sent_not_taken += state == "sent" and not counts[who]
        figures.taken_not_believed += state not in {"sent", "unconfirmed"} and counts[who] > 0
        figures.unconfirmed_taken += state == "unconfirmed" and counts[who] > 0
    figures.unconfirmed = figures.states["unconfirmed"]
    _explain(figures, kills, [owner for state, owner in believed.values() if state == "unconfirmed"])
    _recovery(site, figures, kills, [at for at, _ in taken])
    with contextlib.suppress(AssertionError):
        found = json.loads(site.run("verify", CAMPAIGN, "--json"))
        figures.verified = found["holds"] and found["sent"] == figures.states["sent"]


def _believed(site: Site) -> dict[str, tuple[str, str]]:
    """Return state, and owner or reason of the doubt, by address."""
    query = (
        sa.select(people.c.id, people.c.sealed, deliveries.c.state, deliveries.c.reason, leases.c.owner)
        .join(people, people.c.id == deliveries.c.person_id)
        .outerjoin(leases, leases.c.id == deliveries.c.lease_id)
    )
    believed = {}
    with site.wiring.database.read() as connection:
        for row in connection.execute(query):
            address = Person.from_bytes(site.wiring.keyring.open(row.id, row.sealed)).address
            doubt = row.owner if row.reason == "owner lost" else row.reason
            believed[address.spec] = row.state, doubt or ""
    return believed


def _explain(figures: Figures, kills: Sequence[Kill], doubts: Sequence[str]) -> None:
    """Count the unconfirmed that neither their process's death nor a cut explains."""
    dead: Counter[str] = Counter()
    for kill in kills:
        # One that is stopped on this machine is waited for; one on another is taken for dead.
        if kill.kind != "freeze" or figures.plan.apart:
            dead.update({str(pid): count for pid, count in kill.links.items()})
    cut = sum(kill.cut for kill in kills)
    # A stopped sender whose links are cut learns of it when it wakes up, or never, if it is killed first.
    missed = figures.plan.connections * sum(kill.cut > 0 for kill in kills)
    figures.links = dead.total() + cut
    for doubt, count in Counter(doubts).items():
        if doubt == "link lost after the dot":
            figures.unexplained += max(count - cut, 0)
        else:
            pid = doubt.split(".")[-2] if doubt.count(".") > 2 else ""
            figures.unexplained += max(count - dead[pid] - missed, 0)


def _recovery(site: Site, figures: Figures, kills: Sequence[Kill], taken: Sequence[float]) -> None:
    """Measure after each kill how long its victim's hand was open, and the longest pause in the mails."""
    with site.wiring.database.read() as connection:
        held = connection.execute(sa.select(leases.c.owner, leases.c.ended_at)).all()
    figures.leases_open = sum(row.ended_at is None for row in held)
    hand, silence = collections.defaultdict(list), collections.defaultdict(list)
    for kill, following in itertools.zip_longest(kills, kills[1:]):
        pids = {f".{pid}." for pid in kill.links}
        ends = [
            row.ended_at - kill.at
            for row in held
            if row.ended_at and row.ended_at > kill.at and any(pid in row.owner for pid in pids)
        ]
        if ends and kill.kind != "freeze":
            hand[kill.kind].append(round(max(ends), 2))
        until = following.at if following else max([*taken, kill.at])
        after = [at for at in taken if at >= kill.at]
        last = sum(at <= until for at in after) + 1  # the pause that the next kill finds is still ours
        marks = [kill.at, *after[:last], *([] if after else [until])]
        silence[kill.kind].append(round(max(late - soon for soon, late in itertools.pairwise(marks)), 2))
    figures.hand, figures.silence = dict(hand), dict(silence)


#: What Celery says of our own kills: a child dead at work; a child dead while it started (the worker then
#: ends itself, to be started again); a child that was starting when its worker died, with nobody to tell; a
#: tick that the clock could not send because Redis was dead (it sends the next one); a task that ended while
#: Redis was dead (it is delivered again, and finds nothing to do).
_OUR_DOING: Final = (
    "signal 9 (SIGKILL)",
    "Could not start worker processes",
    "self.on_loop_start(pid=pid)",
    "Couldn't apply scheduled task tick",
    "Couldn't ack",
)
_LAST_LINE: Final = re.compile(r"(?:\n|\\n)([A-Za-z_.]+(?:Error|Exception|Lost|Exit|Interrupt)[^\\\"\n]*)")
#: A traceback outside the JSON lines: its head, the indented frames, and the line that names the error.
_BARE: Final = re.compile(r"^Traceback .*\n(?:[ \t].*\n)*.*$", re.MULTILINE)


def _logs(folder: Path, figures: Figures) -> None:
    """Count what the logs hold of errors, by their last line."""
    for file in folder.glob("*.log"):
        text = file.read_text(encoding="utf-8", errors="replace")
        bare = [(f"{file.stem}: bare", found) for found in _BARE.findall(text)]
        told = [(key, line) for line in text.splitlines() if (key := _said(file, line, figures))]
        for key, traceback in (*bare, *told):
            if not any(ours in traceback for ours in _OUR_DOING):
                last = _LAST_LINE.findall(traceback)
                figures.tracebacks[f"{key} … {last[-1][:120] if last else traceback[:120]}"] += 1


def _said(file: Path, line: str, figures: Figures) -> str | None:
    """Count one JSON line's warning; give its name when it holds a traceback."""
    try:
        told = json.loads(line)
        event = re.sub(r"[0-9a-f]{4,}|\d+", "#", str(told.get("event", "")).partition("\n")[0])[:90]
    except (ValueError, AttributeError):  # a plain line, or a lone number
        return None
    key = f"{file.stem.rstrip('0123456789')}: {told.get('level')}: {event}"
    if "Traceback" in line:
        return key
    if told.get("level") in {"warning", "error", "critical"}:
        figures.warnings[key] += 1
    return None


# -- the command line --------------------------------------------------------------------------------


def show(figures: Figures) -> None:
    """Print a run as a table."""
    rows: list[tuple[str, object]] = [
        ("database", figures.database),
        ("recipients", figures.plan.recipients),
        ("seconds", figures.seconds),
        ("kills", f"{figures.kills.total()}  {dict(figures.kills)}"),
        ("mails taken", figures.taken),
        ("states", dict(figures.states)),
        ("lost", figures.missing + figures.open + figures.sent_not_taken),
        ("duplicated", figures.duplicated),
        ("unconfirmed", f"{figures.unconfirmed} ({figures.unconfirmed_taken} of them taken)"),
        ("links open at kills", figures.links),
        ("verify agrees", figures.verified),
    ]
    for name, value in rows:
        print(f"{name:22}{value}")
    for title, found in (("hand settled after", figures.hand), ("longest pause", figures.silence)):
        for kind, seconds in sorted(found.items()):
            middle = statistics.median(seconds)
            print(f"{title:22}{kind:10}median {middle:6.2f} s  worst {max(seconds):6.2f} s  n={len(seconds)}")
    for title, counted in (("warning", figures.warnings), ("traceback", figures.tracebacks)):
        for what, count in counted.most_common():
            print(f"{title:12}{count:5}  {what}")
    print(f"died by themselves: {dict(figures.deaths)}" if figures.deaths else "nothing died by itself")
    print("\n".join(["PROBLEMS", *figures.problems]) if figures.problems else "holds")


def main() -> int:
    """Run from the command line; 0 when every promise held."""
    parser = argparse.ArgumentParser(description="Kill everything in mid-campaign and count.")
    for name, kind in (("recipients", int), ("kills", int), ("seed", int), ("workers", int)):
        parser.add_argument(f"--{name}", type=kind, default=getattr(Plan, name))
    for name in ("every", "lease", "slice", "frozen", "limit", "lost"):
        parser.add_argument(f"--{name}", type=float, default=getattr(Plan, name))
    for name in ("processes", "connections", "batch", "chunk"):
        parser.add_argument(f"--{name}", type=int, default=getattr(Plan, name))
    parser.add_argument("--reply-delay", type=float, default=Plan.reply_delay)
    parser.add_argument("--kinds", default=",".join(KINDS), help=f"of {', '.join(KINDS)}, database, host")
    parser.add_argument("--in-turn", action="store_true", help="one kind after the other, not by chance")
    parser.add_argument("--apart", action="store_true", help="senders as on other machines (PostgreSQL only)")
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--json", type=Path, help="where the raw figures go")
    parser.add_argument("--keep", type=Path, help="an empty folder for all files; else they are removed")
    parser.add_argument("--sink", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--address", default="127.0.0.1", help=argparse.SUPPRESS)
    given = vars(parser.parse_args())
    sink, address = given.pop("sink"), given.pop("address")
    if sink:
        asyncio.run(_serve_sink(sink, given["reply_delay"], address))
    kind, keep, raw = given.pop("database"), given.pop("keep"), given.pop("json")
    plan = Plan(**{**given, "kinds": given["kinds"].split(",")})
    with contextlib.ExitStack() as held:
        folder = keep or Path(held.enter_context(tempfile.TemporaryDirectory(prefix="kills")))
        folder.mkdir(exist_ok=True, parents=True)
        postgres = None
        if kind == "postgresql":
            # In a folder of its own: its user may not enter ours.
            postgres = Postgres(Path(held.enter_context(tempfile.TemporaryDirectory(prefix="kpg"))))
            held.callback(postgres.stop)
        figures = run(plan, folder.resolve(), postgres.url if postgres else "sqlite", postgres)
    show(figures)
    if raw:
        facts = {**vars(figures), "plan": vars(plan), "problems": figures.problems}
        raw.write_text(json.dumps(facts, indent=1), encoding="utf-8")
    return 1 if figures.problems else 0


if __name__ == "__main__":
    sys.exit(main())
