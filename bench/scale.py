"""A list of a million: import, plan, launch, first mail, disk, and a sender's memory, on each database.

    .venv/bin/python bench/scale.py [--rows 1000000] [--mails 300000] [--databases sqlite,postgresql]
        [--json FILE] [--page FILE]

Real commands and real processes, as `tocsin up` runs them, into Postfix's sink. People are invented, with the
ten merge fields of the other benchmark; 100,000 suppressions stand beside them. Memory is the largest
resident of a process of ours, as the kernel counted it. Exits with 1 if a figure misses what it must reach.
"""

import argparse
import compileall
import contextlib
import csv
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import figures as told
import mails
from kills import Postgres
from office import Office, family
from sinks import Sink, middle, sink

import worker
from worker import broker, processes
from worker.store.plans import Campaign

LIST: Final = "everybody"
#: What must be reached, whatever the number of rows: seconds, and MB of the largest process.
MUST: Final = {
    "import, everybody new": (90.0, 300.0),
    "import, everybody known": (90.0, 300.0),
    "launch, to the last delivery's row": (60.0, 300.0),
    "`send` to the first mail": (2.0, 300.0),
}
#: MB that a sender may grow between a tenth of the mails and all of them.
FLAT: Final = 15.0
_CONSENT: Final = ("--basis", "consent", "--source", "a form", "--when", "2025-01-01")
_ROUNDS: Final = 5
_PATIENCE: Final = 900.0


@dataclass
class Figures:
    """What one database came to."""

    database: str
    rows: int
    seconds: dict[str, list[float]] = field(default_factory=dict)
    peak: dict[str, float] = field(default_factory=dict)  #: MB
    processor: dict[str, float] = field(default_factory=dict)  #: seconds of it that a command used itself
    memory: dict[int, Sequence[float]] = field(default_factory=dict)  #: MB of each sender, by per cent sent
    octets: dict[str, float] = field(default_factory=dict)  #: disk for each row, and Redis' memory
    rate: float = 0.0  #: mails a second, from the order to the last

    def note(self, what: str, seconds: float, megabytes: float) -> None:
        """Keep one measurement."""
        self.seconds.setdefault(what, []).append(round(seconds, 2))
        self.peak[what] = round(max(megabytes, self.peak.get(what, 0.0)), 1)
        print(f"  {self.database}, {what}: {seconds:.2f} s, {megabytes:.0f} MB", flush=True)

    def lines(self) -> Iterator[tuple[str, str, str, bool]]:
        """Yield each figure: what, how much, what it must be, and whether that is so."""
        for what, times in self.seconds.items():
            took, peak = middle(times), self.peak[what]
            most, memory = MUST.get(what, (0.0, 0.0))
            must = f"{most:g} s, {memory:g} MB" if most else ""
            kept = not most or (took <= most and peak <= memory)
            own = f" ({self.processor[what]} s of processor)" if what in self.processor else ""
            yield what, f"{took:.1f} s{own}, {peak:.0f} MB", must, kept
        grown = max(self.memory[100]) - max(self.memory[10])
        looks = ", ".join(f"{max(self.memory[part]):.0f}" for part in (10, 50, 100))
        yield "a sender at 10, 50 and 100 % of the mails", f"{looks} MB", f"+{FLAT:g} MB", grown <= FLAT
        yield "mails a second, from the order to the last", f"{self.rate:,.0f}", "", True
        for what, octets in self.octets.items():
            yield what, f"{octets:,.0f} octets", "", True


class Place:
    """A workspace with its figures."""

    def __init__(self, office: Office, rows: int) -> None:
        """Take a workspace with nobody else in it."""
        self.office, self.figures = office, Figures(office.database, rows)
        self._size = self._disk()

    def measure(self, file: Path, target: Sink, count: int) -> None:
        """Measure everything."""
        for what in ("import, everybody new", "import, everybody known"):
            self._run(what, "lists", "import", str(file), "--list", LIST, *_CONSENT)
            self._grown("disk for each person" if "new" in what else "", self.figures.rows)
        for _ in range(_ROUNDS):
            self._run("plan (`send --dry-run`)", "send", mails.SLUG, "--list", LIST, "--dry-run")
        self._launch()
        with self._senders(target):
            for _ in range(_ROUNDS):
                self._first_mail(target)
        with self._senders(target):
            self._send(target, count)

    def _launch(self) -> None:
        """Launch to everybody while nobody sends; only the control worker runs."""
        with self.office.open():
            began = time.monotonic()
            self._popen("send", mails.SLUG, "--list", LIST, "--yes").wait()
            _until(lambda: self._newest().launched_at is not None)
            peak = self._peak("control", "beat")
            self.figures.note("launch, to the last delivery's row", time.monotonic() - began, peak)
            self._grown("disk for each delivery, written", self.figures.rows)
            for _ in range(_ROUNDS):
                self._run("`status` of all these", "status", self._newest().name)
            self._popen("cancel", self._newest().name, "--yes").wait()

    @contextlib.contextmanager
    def _senders(self, target: Sink) -> Iterator[None]:
        with self.office.open(), self.office.senders(target.port, count=2, connections=5):
            yield

    def _first_mail(self, target: Sink) -> None:
        before, began = target.count(), time.monotonic()
        order = self._popen("send", mails.SLUG, "--list", LIST, "--yes")
        assert processes.until(lambda: target.count() > before, seconds=_PATIENCE), "no mail came"
        took = time.monotonic() - began
        order.wait()
        self.figures.note("`send` to the first mail", took, self._peak("control", "dispatch"))
        self._popen("cancel", self._newest().name, "--yes").wait()
        seen = -1
        while seen != target.count():
            seen = target.count()
            time.sleep(2)

    def _send(self, target: Sink, count: int) -> None:
        """Send so many mails, and look at the senders' memory on the way."""
        self._grown("", 1)
        before, began = target.count(), time.monotonic()
        self._popen("send", mails.SLUG, "--list", LIST, "--limit", str(count), "--yes").wait()
        for part in (10, 50):
            _until(lambda: target.count() - before >= count * part // 100)  # noqa: B023 - asked at once
            self._remember(part)
        # Not counted: some are left out, for there is no form for them.
        _until(lambda: self._newest().state == "finished")
        self._remember(100)
        self.figures.rate = (target.count() - before) / (time.monotonic() - began)
        self._grown("disk for each delivery, sent", count)
        with contextlib.closing(broker.client(self.office.wiring.settings)) as redis:
            self.figures.octets["Redis at its most"] = float(redis.info("memory")["used_memory_peak"])

    def _remember(self, part: int) -> None:
        """Note the memory of each sender now."""
        resident = [round(_megabytes(pid, "VmRSS"), 1) for pid in self._pids("dispatch")[1:]]
        self.figures.memory[part] = resident
        print(f"  {self.figures.database}, {part} % sent: {resident} MB", flush=True)

    # -- looks -------------------------------------------------------------------------------------

    def _run(self, what: str, *words: str) -> None:
        """Run a command to its end and note what it took."""
        began, used = time.monotonic(), _used()
        command = self._popen(*words)
        peak = 0.0
        while command.poll() is None:  # what `wait4` says begins with the memory of whoever started it
            peak = max(peak, _megabytes(command.pid, "VmHWM"))
            time.sleep(0.02)
        assert command.returncode == 0, f"{words}: {command.returncode}"
        self.figures.note(what, time.monotonic() - began, peak)
        self.figures.processor[what] = round(_used() - used, 1)

    def _popen(self, *words: str) -> "subprocess.Popen[bytes]":
        argv = [sys.executable, "-m", "worker.cli", *words]
        return subprocess.Popen(argv, env=self.office.env, stdout=subprocess.DEVNULL)

    def _newest(self) -> Campaign:
        return self.office.wiring.campaigns.all()[0]

    def _grown(self, what: str, number: int) -> None:
        """Keep by how much the store has grown since the last look, for each of so many."""
        before, self._size = self._size, self._disk()
        if what:
            self.figures.octets[what] = round((self._size - before) / number)

    def _disk(self) -> int:
        database = self.office.wiring.database
        if database.is_sqlite:
            with contextlib.closing(database.engine.raw_connection()) as raw:
                raw.driver_connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # type: ignore[union-attr]  # opened
            return Path(str(database.url.database)).stat().st_size
        with database.read() as connection:
            size = connection.exec_driver_sql("SELECT pg_database_size(current_database())")
            return int(size.scalar_one())

    def _peak(self, *names: str) -> float:
        return max(_megabytes(pid, "VmHWM") for name in names for pid in self._pids(name))

    def _pids(self, name: str) -> Sequence[int]:
        return family(self.office._parts[name].process.pid)  # noqa: SLF001 - the same bench's


def _until(holds: Callable[[], bool]) -> None:
    """Wait until something holds, and look ten times a second: a look costs something."""

    def looked() -> bool:
        time.sleep(0.1)
        return holds()

    assert processes.until(looked, seconds=_PATIENCE), "it stands"


def _used() -> float:
    """Return the seconds of processor time of the commands that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _megabytes(pid: int, what: str) -> float:
    """Read one of the kernel's figures of a process's memory."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith(f"{what}:"):
                return int(line.split()[1]) / 1024
    return 0.0


def write(file: Path, rows: int) -> None:
    """Make a list of invented people: ten fields, some languages, one in a hundred discreet, many gaps."""
    dice = random.Random(1)  # noqa: S311 - chance, not secrecy
    with file.open("w", encoding="utf-8", newline="") as stream:
        sheet = csv.writer(stream)
        sheet.writerow(["email", *mails.FIELDS, "language", "discreet", "county"])
        for number in range(1, rows + 1):
            address = f"person.{number}@{dice.choice(('example.org', 'example.com', 'example.net'))}"
            more = dice.choice(("en", "de", "ru", "")), "no" if number % 100 else "yes"
            fields = mails.fields(number).values()
            sheet.writerow([address, *fields, *more, "Kent" if number % 3 else ""])


def measure(kind: str, folder: Path, file: Path, rows: int, count: int) -> Figures:
    """Measure everything on one database."""
    with contextlib.ExitStack() as held:
        postgres = None
        if kind == "postgresql":  # in a folder of its own: its user may not enter ours
            own = held.enter_context(tempfile.TemporaryDirectory(prefix="spg"))
            postgres = Postgres(Path(own), sync=True)
            held.callback(postgres.stop)
        place = Place(Office(folder / kind, 200, postgres), rows)
        place.measure(file, held.enter_context(sink(folder)), min(count, rows * 9 // 10))
        return place.figures


def markdown(found: Sequence[Figures], machine: dict[str, Any]) -> str:
    """Return the table for a page."""
    yields = [list(one.lines()) for one in found]
    rows = [
        f"{found[0].rows:,} people. Measured {machine['date']} on {machine['cores']} cores of",
        f"{machine['processor']} ({machine['system']}), Python {machine['python']}, with a load of",
        f"{machine['load_before']} before it. Database, queue, sink and senders share these cores.",
        "",
        f"| figure | {' | '.join(one.database for one in found)} | must | |",
        "|---" * (len(found) + 3) + "|",
    ]
    for each in zip(*yields, strict=True):
        verdict = ("reached" if all(line[3] for line in each) else "**missed**") if each[0][2] else ""
        rows.append(f"| {each[0][0]} | {' | '.join(line[1] for line in each)} | {each[0][2]} | {verdict} |")
    return "\n".join([*rows, ""])


def main() -> int:
    """Run from the command line; 0 when every figure is what it must be."""
    parser = argparse.ArgumentParser(description="A list of a million.")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--mails", type=int, default=300_000, help="how many to send for the memory")
    parser.add_argument("--databases", default="sqlite,postgresql")
    parser.add_argument("--json", type=Path, help="where the raw figures go")
    parser.add_argument("--page", type=Path, help="a page with a place for the table")
    given = parser.parse_args()
    machine = dict(told.machine())
    compileall.compile_dir(Path(str(worker.__file__)).parent, quiet=2)  # as an installation has it
    with tempfile.TemporaryDirectory(prefix="scale") as name:
        folder = Path(name)
        folder.chmod(0o711)  # the sink runs as somebody else
        write(file := folder / "people.csv", given.rows)
        kinds = given.databases.split(",")
        found = [measure(kind, folder, file, given.rows, given.mails) for kind in kinds]
    print(table := markdown(found, machine))
    if given.json:
        facts = {"machine": machine, "databases": [asdict(one) for one in found]}
        given.json.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    if given.page:
        given.page.write_text(told.replaced(given.page.read_text(encoding="utf-8"), table), encoding="utf-8")
    return 1 if "missed" in table else 0


if __name__ == "__main__":
    sys.exit(main())
