"""How fast, beside others, in one run: real workers, a real store, and Postfix's sink at the other end.

    make bench
    .venv/bin/python bench/dispatch.py [--rounds 3] [--scale 1.0] [--json FILE] [--plot FILE]

Personalised mails of 12 KB with ten merge fields; ledger and journal on, 100,000 people who said no. The
contestants take turns, so that a busy moment hits all alike; each figure is a median, each ratio the median
of the rounds' ratios. Rates are counted by the sink itself: "steady" between a tenth and nine tenths of the
mails, "overall" from the order to the last mail. Then every recipient of one run on each store is looked up
in what the sink took. Exits with 1 if anybody was lost or mailed twice. Takes about eight minutes.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import chart
import figures as told
import mails
import rivals
from figures import FAR, NAIVE, ONE, POSTGRES, SENDING, SQLITE, WHOLE, YARDSTICK, Figures
from kills import Postgres
from office import Office, Run, compared
from sinks import Pass, delayed, middle, processor, sink, source

_HERE: Final = Path(__file__).parent
#: smtp-source's own headers, in octets: what its -l does not count.
_HEADERS: Final = 125
#: Connections: of smtp-source, of Tocsin in all, and of Tocsin towards the far server in all.
_SOURCE, _OURS, _FAR = 10, 10, 32
#: Load above which rates mean little.
_BUSY: Final = 0.5


@dataclass(frozen=True)
class Sizes:
    """How many mails each sends in one round."""

    tocsin: int = 40_000
    one: int = 15_000
    source: int = 40_000
    naive: int = 300
    rival: int = 3_000
    far: int = 6_000
    recorded: int = 15_000
    cost: int = 10_000

    def scaled(self, scale: float) -> "Sizes":
        """Return smaller or larger ones, for trying it out."""
        return Sizes(**{name: max(round(value * scale), 100) for name, value in asdict(self).items()})


# -- the run ------------------------------------------------------------------------------------------


class Bench:
    """Everybody, ready to run."""

    def __init__(self, sizes: Sizes, held: contextlib.ExitStack) -> None:
        """Make two workspaces, the rivals, the sinks and the far server."""
        self.sizes, self.figures, self._held = sizes, Figures(), held
        self._folder = Path(held.enter_context(_folder("bench")))
        # Mails kept for looking them up never touch a disk where memory serves.
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - a fresh folder in it
        self._kept = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="kept", dir=memory)))
        self._postgres = Postgres(Path(held.enter_context(_folder("bpg"))), sync=True)
        held.callback(self._postgres.stop)
        self._offices = {SQLITE: self._office("sqlite", None), POSTGRES: self._office("pg", self._postgres)}
        self.sink = held.enter_context(sink(self._folder))
        self.recorder = held.enter_context(sink(self._kept, record=True))
        edition = self._offices[SQLITE].wiring.edition(mails.SLUG)
        self.size = mails.size(edition)
        others = mails.source(edition)
        self._few = rivals.orders(self._folder / "few.json", others, sizes.naive)
        many = rivals.orders(self._folder / "many.json", others, sizes.rival)
        self._rival = held.enter_context(rivals.post_office(self.sink, many))

    def _office(self, name: str, postgres: Postgres | None) -> Office:
        office = Office(self._folder / name, self.sizes.tocsin + 100, postgres)
        self._held.enter_context(office.open())
        return office

    def round(self) -> None:
        """Let everybody run once."""
        sizes = self.sizes
        self._theirs(YARDSTICK, source(self.sink, _SOURCE, sizes.source, self.size - _HEADERS))
        for who in (SQLITE, POSTGRES):
            self._ours(who, self._offices[who], sizes.tocsin)
        self._ours(ONE, self._offices[SQLITE], sizes.one, processes=1, connections=_OURS // 2)
        self._theirs(NAIVE, rivals.naive(self.sink, self._few, sizes.naive))
        for who, choice in WHOLE.items():
            self._theirs(who, self._rival.whole(self.sink, choice, sizes.rival))
        for who, choice in SENDING.items():
            self._theirs(who, self._rival.sending(self.sink, choice, sizes.rival))
        self._far()

    def _ours(
        self, who: str, office: Office, count: int, processes: int = 2, connections: int = _OURS
    ) -> None:
        each = connections // processes
        with office.senders(self.sink.port, count=processes, connections=each):
            self._note(who, office.run(self.sink, count))

    def _theirs(self, who: str, taken: Pass) -> None:
        self.figures.note_pass(who, taken)
        self._say(who)

    def _note(self, who: str, run: Run) -> None:
        self.figures.note(who, run)
        self._say(who)

    def _say(self, who: str) -> None:
        steady, overall = self.figures.steady[who][-1], self.figures.overall[who][-1]
        print(f"  {who:56}{steady:>9,.0f}{overall:>9,.0f}", flush=True)

    def _far(self) -> None:
        """Send to a server 50 ms away; it keeps the mails, since it has the time."""
        office, count = self._offices[SQLITE], self.sizes.far
        with delayed(self.recorder.port) as proxy:
            with office.senders(proxy.port, count=2, connections=_FAR // 2):
                before, began = processor([proxy.pid]), time.monotonic()
                self._note(FAR, office.run(self.recorder, count))
                used = processor([proxy.pid]) - before
            self.figures.proxy.append(used / (time.monotonic() - began))
        self._look_up(count)

    def look_up(self) -> None:
        """Send at full speed to a sink that keeps every mail, and look everybody up in it."""
        for who, office in self._offices.items():
            with office.senders(self.recorder.port, count=2, connections=_OURS // 2):
                run = office.run(self.recorder, self.sizes.recorded)
            self.figures.check(f"{who}, recorded", run)
            self._look_up(self.sizes.recorded)

    def _look_up(self, count: int) -> None:
        lost, twice = compared(count, self.recorder.recipients())
        self.recorder.forget()
        self.figures.looked_up += count
        self.figures.lost += lost
        self.figures.twice += twice


def costs(mails_: int, rounds: int) -> dict[str, Any]:
    """Measure what certainty costs, in a process of its own."""
    with _folder("cost") as folder:
        raw = Path(folder) / "cost.json"
        words = ["--mails", str(mails_), "--rounds", str(rounds), "--json", str(raw)]
        subprocess.run([sys.executable, _HERE / "microseconds.py", *words], check=True)
        found: dict[str, Any] = json.loads(raw.read_text(encoding="utf-8"))
        return found


def _folder(prefix: str) -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix=prefix)


def main() -> int:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description="Tocsin beside others, in one run.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="of the numbers of mails, for trying it out")
    parser.add_argument("--json", type=Path, help="where the raw figures go")
    parser.add_argument("--plot", type=Path, help="where the picture goes (SVG)")
    parser.add_argument("--page", type=Path, help="a page with a place for the tables")
    given = parser.parse_args()
    sizes, began = Sizes().scaled(given.scale), time.monotonic()
    about: dict[str, Any] = {"machine": told.machine(), "mails": asdict(sizes)}
    if (load := about["machine"]["load_before"]) > _BUSY:
        print(f"note: the machine is busy (load {load}); rates will suffer")
    with contextlib.ExitStack() as held:
        bench = Bench(sizes, held)
        about["mail_octets"], figures = bench.size, bench.figures
        print(f"ready after {time.monotonic() - began:.0f} s; mails a second, steady and from the order on")
        for number in range(given.rounds):
            print(f"round {number + 1}")
            bench.round()
        bench.look_up()
    figures.cost = costs(sizes.cost, given.rounds)
    print(tables := told.markdown(figures, about))
    print("\n".join(figures.faults))
    print(f"took {time.monotonic() - began:.0f} s")
    if given.json:
        given.json.write_text(told.as_json(figures, about), encoding="utf-8")
    if given.plot:
        rates = {who: middle(rates) for who, rates in figures.steady.items()}
        given.plot.write_text(chart.bars(rates, "Mails a second, steady"), encoding="utf-8")
    if given.page:
        given.page.write_text(told.replaced(given.page.read_text(encoding="utf-8"), tables), encoding="utf-8")
    return 1 if figures.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
