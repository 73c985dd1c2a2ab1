"""A workspace that sends the benchmark's appeal: real processes, real store, real queue.

Owns its set-up, its campaigns and what each of its parts uses of the processor. Refuses to know what it is
compared with. Settings are the product's own, but for the pace (none) and where a benchmark says otherwise.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import mails
import sqlalchemy as sa
from kills import Part, Postgres
from sinks import Pass, Sink, Watch, processor

from worker import broker, processes, settings, workspace
from worker.addresses import parse
from worker.cli import session
from worker.errors import Unavailable
from worker.imports import Rejects, Target
from worker.store.schema import deliveries
from worker.store.suppressions import EVERYTHING, Suppression
from worker.wiring import Wiring

#: People who said no: what every claim is held against. Some of them are on the list.
SUPPRESSED: Final = 100_000
_ON_THE_LIST: Final = 100
_PATIENCE: Final = 60.0
_CONFIG: Final = """\
[organisation]
name = "Letters For All"
postal_address = "2 Quay Street, London E1 1AA"
registration = "Registered charity 0000000"
[mail]
from_address = "letters@example.org"
bounce_domain = "bounces.example.org"
[relay]
host = "127.0.0.1"
security = "plain"
per_second = 0
[web]
base_url = "https://act.example.org"
[database]
url = "{database}"
[broker]
url = "embedded"
"""


@dataclass(frozen=True)
class Run:
    """One campaign from `tocsin send` to its end."""

    recipients: int  #: whom it was to reach
    taken: Pass  #: as the sink saw it
    overall: float  #: mails a second from the campaign's first moment to its last mail, launch included
    states: Mapping[str, int]  #: as the ledger has it
    attempts: int  #: tries, all deliveries together
    verified: bool  #: `tocsin verify` agrees
    processor: Mapping[str, float]  #: microseconds per mail of each part
    faults: Sequence[str] = field(default_factory=list)  #: what does not add up


class Office:
    """A workspace with a list of people, and the processes that serve it."""

    def __init__(self, home: Path, people: int, postgres: Postgres | None = None) -> None:
        """Make it, import the people, and note who said no."""
        self.home, self.people, self._postgres = home, people, postgres
        folder = home / "templates" / "appeals" / mails.SLUG
        folder.mkdir(parents=True)
        (folder / "en.md").write_text(mails.APPEAL, encoding="utf-8")
        config = home / "tocsin.toml"
        config.write_text(_CONFIG.format(database=postgres.url if postgres else "sqlite"), encoding="utf-8")
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TOCSIN_")}
        self.env = {**kept, "NO_COLOR": "1", "TOCSIN_CONFIG": str(config), "TOCSIN_OPERATOR": "bench"}
        workspace.make_key(home / "var" / "secret.toml")
        self.wiring = self.wired({})
        self.wiring.database.upgrade()
        target, rejects = Target("people", "People"), Rejects(home / "rejects")
        self.wiring.importer.run(mails.rows(people), target, rejects, lambda _rows: None)
        self._suppress()
        self._parts: dict[str, Part] = {}

    @property
    def database(self) -> str:
        """What the store is called."""
        return "PostgreSQL" if self._postgres else "SQLite"

    @property
    def recipients(self) -> int:
        """How many of the people have not said no."""
        return self.people - _ON_THE_LIST

    def wired(self, variables: Mapping[str, str]) -> Wiring:
        """Return the workspace's objects for this process."""
        found = settings.load(self.home, {**variables, "TOCSIN_CONFIG": str(self.home / "tocsin.toml")})
        return Wiring(found, _Mute())

    def _suppress(self) -> None:
        """Fill the list of those who said no: strangers, and the last few of the people."""
        late = range(self.people - _ON_THE_LIST + 1, self.people + 1)
        keys = [self.wiring.keyring.address_key(parse(mails.address(number))) for number in late]
        keys += [os.urandom(16) for _ in range(SUPPRESSED - len(keys))]
        now = self.wiring.clock()
        self.wiring.suppressions.add([Suppression(key, EVERYTHING, "opt-out", "page", now) for key in keys])

    # -- processes ----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Run the queue, the control worker and the beat while the block runs."""
        with broker.reserved(self.wiring.settings.state) as private, contextlib.ExitStack() as held:
            held.callback(self.wiring.database.close)
            held.enter_context(self._part("redis", private.argv))
            assert processes.until(private.ready, seconds=_PATIENCE), "the queue did not come up"
            words = ("worker", "--queues", "control", "--processes", "1", "--name", "control@bench")
            held.enter_context(self._part("control", _tocsin(*words)))
            held.enter_context(self._part("beat", _tocsin("beat")))
            self._await("control@bench")
            yield

    @contextlib.contextmanager
    def senders(self, port: int, *, count: int, connections: int) -> Iterator[None]:
        """Run a dispatch worker with so many sending processes, as `tocsin up` does, while the block runs."""
        name = f"dispatch{time.monotonic_ns()}@bench"
        words = ("worker", "--queues", "dispatch", "--processes", str(count), "--name", name)
        relay = {"TOCSIN_RELAY__PORT": str(port), "TOCSIN_RELAY__CONNECTIONS": str(connections)}
        with self._part("dispatch", _tocsin(*words), relay):
            self._await(name)
            yield

    @contextlib.contextmanager
    def _part(
        self, name: str, argv: Sequence[str | Path], more: Mapping[str, str] | None = None
    ) -> Iterator[None]:
        log = self.home / "var" / "log" / f"{name}.log"
        log.parent.mkdir(exist_ok=True)
        part = self._parts[name] = Part(name, argv, {**self.env, **(more or {})}, log)
        try:
            yield
        finally:
            del self._parts[name]
            processes.end(part.process, patience=40)

    def _await(self, name: str) -> None:
        def answers() -> bool:
            with contextlib.suppress(Unavailable):
                return name in session.workers(self.wiring.settings)
            return False

        assert processes.until(answers, seconds=_PATIENCE), f"{name} did not come up; see {self.home}"

    def _used(self, sink: Sink) -> Mapping[str, float]:
        """Return the seconds of processor time of each part so far."""
        named: dict[str, Sequence[int]] = {name: part.pids for name, part in self._parts.items()}
        dispatch = named.pop("dispatch")
        named["sending processes"] = dispatch[1:]
        named["their parent"] = dispatch[:1]
        named["control and beat"] = [*named.pop("control"), *named.pop("beat")]
        named["Redis"] = named.pop("redis")
        named["sink"] = [sink.pid]
        if self._postgres:
            named["PostgreSQL"] = family(self._postgres.process.pid)
        return {name: processor(pids) for name, pids in named.items()}

    # -- campaigns ----------------------------------------------------------------------------------

    def run(self, sink: Sink, recipients: int, *, seconds: float = 180) -> Run:
        """Send to the first so many people; everything is counted at its end."""
        words = ("send", mails.SLUG, "--list", "people", "--limit", str(recipients), "--yes", "--json")
        before, watch, started = self._used(sink), Watch(sink), time.time() - time.monotonic()
        order = subprocess.Popen(_tocsin(*words), env=self.env, stdout=subprocess.PIPE)  # watched from now on
        came = watch.until(recipients, seconds=seconds)
        name = json.loads(order.communicate()[0])["campaign"]
        ended = processes.until(lambda: self._finished(name), seconds=20 if came else 1)
        watch.look()
        after, taken = self._used(sink), watch.result()
        campaign = self.wiring.campaigns.find(name)
        states, attempts = self._believed(campaign.id)
        proof = json.loads(self._tell("verify", name, "--json", code=0 if ended else 1))
        last = started + watch.began + taken.seconds
        run = Run(
            recipients=recipients,
            taken=taken,
            overall=taken.mails / (last - campaign.created_at),
            states=states,
            attempts=attempts,
            verified=bool(proof["holds"]),
            processor={part: (after[part] - before[part]) / recipients * 1e6 for part in after},
        )
        return Run(**{**vars(run), "faults": _faults(run)})

    def _finished(self, name: str) -> bool:
        time.sleep(0.1)  # a look costs the store something
        return self.wiring.campaigns.find(name).state == "finished"

    def _believed(self, campaign_id: int) -> tuple[Mapping[str, int], int]:
        query = (
            sa.select(deliveries.c.state, sa.func.count(), sa.func.sum(deliveries.c.attempts))
            .where(deliveries.c.campaign_id == campaign_id)
            .group_by(deliveries.c.state)
        )
        with self.wiring.database.read() as connection:
            rows = connection.execute(query).all()
        return {row[0]: row[1] for row in rows}, sum(row[2] for row in rows)

    def _tell(self, *words: str, code: int = 0) -> str:
        done = subprocess.run(_tocsin(*words), env=self.env, capture_output=True, text=True, check=False)
        assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout


def _faults(run: Run) -> Sequence[str]:
    """Say what does not add up in a run, one line each."""
    told = []
    if run.taken.mails != run.recipients:
        told.append(f"the sink took {run.taken.mails} mails for {run.recipients} recipients")
    if run.states.get("sent", 0) != run.recipients:
        told.append(f"the ledger has {run.states}")
    if run.attempts != run.recipients:
        told.append(f"{run.attempts} attempts for {run.recipients} recipients")
    if not run.verified:
        told.append("`tocsin verify` does not agree")
    return told


def compared(expected: int, recipients: Sequence[str]) -> tuple[int, int]:
    """Hold recorded mails against the people, one by one: how many were lost, and how many mailed twice."""
    counts = Counter(recipients)
    people = {mails.address(number) for number in range(1, expected + 1)}
    strangers = sum(count for who, count in counts.items() if who not in people)
    assert not strangers, f"{strangers} mails to people who were not to be written to"
    return len(people - counts.keys()), sum(count - 1 for count in counts.values())


def _tocsin(*words: str) -> Sequence[str]:
    return [sys.executable, "-m", "worker.cli", *words]


def family(pid: int) -> Sequence[int]:
    """Return a process and its children."""
    with contextlib.suppress(OSError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
        return [pid, *map(int, children)]
    return [pid]


class _Mute:
    """A doorbell for a process that rings nobody."""

    def launch(self, campaign_id: int) -> None:
        """Ring nobody."""

    def ring(self, batch_ids: Sequence[int]) -> None:
        """Ring nobody."""

    def waiting(self) -> int:
        """Nobody waits."""
        return 0
