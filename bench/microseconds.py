"""Where a sender's microseconds go: what certainty costs, and a profile by step.

    .venv/bin/python bench/microseconds.py [--mails 10000] [--rounds 5] [--database sqlite|postgresql|both]
        [--profile] [--json FILE]

One sending process, the product's own `Dispatcher`, into smtp-sink; what is measured is processor time. The
cost of ledger, journal, claim and suppression check is a difference: the same campaign with them, and again
with a ledger that only hands out what the first one took and a journal that writes nothing; all else,
weaving and relay and pace, is the same. 100,000 people have said no.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, cast

import mails
import sqlalchemy as sa
import structlog
from kills import Postgres
from office import Office, family
from sinks import Sink, middle, processor, sink

from worker import broker
from worker.dispatch import Dispatcher
from worker.planning import Order
from worker.store.ledger import Lease, Ledger, Taken
from worker.store.schema import batches

if TYPE_CHECKING:
    from worker.journal import Journal
    from worker.wiring import Wiring

#: Steps by where the code stands; the innermost frame that stands in one of them counts.
_STEPS: Final = (
    ("worker/store/", "ledger: claim, suppression check, settle"),
    ("worker/journal", "journal"),
    ("worker/replica", "journal's second copy"),
    ("worker/sealing", "open the sealed record"),
    ("worker/addresses", "open the sealed record"),
    ("worker/tokens", "marks: Message-ID, return path, opt-out link"),
    ("worker/content/messages", "headers and MIME"),
    ("worker/content/headers", "headers and MIME"),
    ("worker/content/editions", "headers and MIME"),
    ("worker/content/", "weave HTML, text, subject"),
    ("worker/post/replies", "read replies"),
    ("worker/deliveries", "read replies"),
    ("worker/post/connections", "sockets: system calls"),
    ("worker/post/", "SMTP conversation"),
    ("worker/throttle", "pace: Redis"),
    ("worker/", "the batch's own steps"),
)


@dataclass
class Cost:
    """What one database came to, in microseconds of processor time per mail."""

    database: str
    with_all: list[float] = field(default_factory=list)  #: by round
    without: list[float] = field(default_factory=list)
    in_ledger: list[float] = field(default_factory=list)  #: measured inside the ledger's calls
    server: list[float] = field(default_factory=list)  #: what PostgreSQL's own processes used
    steps: dict[str, float] = field(default_factory=dict)  #: a profile by step

    @property
    def certainty(self) -> float:
        """Return what ledger, journal, claim and suppression check cost."""
        return middle([dear - cheap for dear, cheap in zip(self.with_all, self.without, strict=True)])


class _Tape:
    """The ledger, with what it handed out kept, and the time in it taken."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.leases: dict[int, Lease] = {}
        self.taken: dict[int, list[Taken]] = {}
        self.seconds = 0.0

    @property
    def mails(self) -> int:
        """How many deliveries it holds."""
        return sum(len(taken.claimed) for all_ in self.taken.values() for taken in all_)

    def lease(self, batch_id: int, *rest: Any) -> Lease | None:  # noqa: ANN401 - passed on as it is
        lease = self._timed("lease", batch_id, *rest)
        self.leases[batch_id] = lease
        self.taken[lease.id] = []
        return cast("Lease", lease)

    def advance(self, lease: Lease, *rest: Any) -> Taken:  # noqa: ANN401 - passed on as it is
        taken = self._timed("advance", lease, *rest)
        self.taken[lease.id].append(taken)
        return cast("Taken", taken)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - the ledger's other functions
        return lambda *given: self._timed(name, *given)

    def _timed(self, name: str, *given: Any) -> Any:  # noqa: ANN401 - passed on as it is
        began = time.thread_time()
        try:
            return getattr(self._ledger, name)(*given)
        finally:
            self.seconds += time.thread_time() - began


class _Replay:
    """A ledger that does nothing but hand out what a tape holds."""

    def __init__(self, tape: _Tape) -> None:
        self._leases, self._taken = tape.leases, {lease: iter(all_) for lease, all_ in tape.taken.items()}

    def lease(self, batch_id: int, *_: object) -> Lease:
        return self._leases[batch_id]

    def advance(self, lease: Lease, *_: object) -> Taken:
        return next(self._taken[lease.id], Taken((), "empty"))

    def recheck(self, *_: object) -> tuple[str, set[int]]:
        return "", set()

    def renew(self, *_: object) -> bool:
        return True

    def give_back(self, *_: object) -> None:
        """Nothing was taken."""


class _Blank:
    """A journal that writes nothing."""

    owner = "nobody"

    def __getattr__(self, _name: str) -> Any:  # noqa: ANN401 - whatever a journal can
        return self._nothing

    def _nothing(self, *_: object) -> None:
        """Write nothing."""


class Sender:
    """One sending process: this one."""

    def __init__(self, office: Office, port: int) -> None:
        """Take a workspace whose queue runs, and the sink's port."""
        self._wiring: Wiring = office.wired({**os.environ, "TOCSIN_RELAY__PORT": str(port)})
        self._real: Dispatcher = self._wiring.dispatcher

    def launch(self) -> Sequence[int]:
        """Write a campaign down whole, send its first batch, and return the others.

        The first mail of a campaign is made slowly (its CSS is inlined); that is none of what is measured.
        """
        plan = self._wiring.planner.plan(Order(mails.SLUG, ["people"]))
        campaign = self._wiring.campaigns.start(plan, "bench")
        self._wiring.campaigns.begin(campaign)
        self._wiring.campaigns.launch(campaign.id)
        with self._wiring.database.read() as connection:
            query = sa.select(batches.c.id).where(batches.c.campaign_id == campaign.id)
            first, *rest = connection.execute(query.order_by(batches.c.id)).scalars()
        self._real.send(first)
        return rest

    def send(self, batch_ids: Sequence[int]) -> float:
        """Send batches as the product does; return microseconds of processor time per mail."""
        return self._measured(self._real, batch_ids)

    def send_taped(self, batch_ids: Sequence[int]) -> tuple[float, float, _Tape]:
        """Send likewise; return also what the ledger's calls took of it, and the tape."""
        tape = _Tape(self._real.ledger)
        used = self._measured(dataclasses.replace(self._real, ledger=cast("Ledger", tape)), batch_ids)
        return used, tape.seconds / tape.mails * 1e6, tape

    def send_bare(self, batch_ids: Sequence[int], tape: _Tape) -> float:
        """Send the same again without ledger and journal."""
        ledger, journal = cast("Ledger", _Replay(tape)), cast("Journal", _Blank())
        return self._measured(dataclasses.replace(self._real, ledger=ledger, journal=journal), batch_ids)

    def _measured(self, dispatcher: Dispatcher, batch_ids: Sequence[int]) -> float:
        before, sent = _used(), 0
        for batch_id in batch_ids:
            summary = dispatcher.send(batch_id)
            sent += summary.sent if summary else 0
        used = _used() - before
        return used / sent * 1e6


def _used() -> float:
    """Return this process's seconds of processor time, its own and the kernel's for it."""
    told = resource.getrusage(resource.RUSAGE_SELF)
    return told.ru_utime + told.ru_stime


# -- the profile --------------------------------------------------------------------------------------


class Profile:
    """Samples of this process by processor time (SIGPROF), each put under one step."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.steps: Counter[str] = Counter()
        self.functions: Counter[str] = Counter()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Sample while the block runs."""
        before = signal.signal(signal.SIGPROF, self._sample)
        signal.setitimer(signal.ITIMER_PROF, 0.001, 0.001)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.signal(signal.SIGPROF, before)

    def _sample(self, _number: int, frame: FrameType | None) -> None:
        if frame is not None:
            self.functions[_place(frame)] += 1
        while frame is not None:
            file = frame.f_code.co_filename
            for part, step in _STEPS:
                if part in file:
                    self.steps[step] += 1
                    return
            frame = frame.f_back

    def table(self, whole: float) -> dict[str, float]:
        """Return microseconds per mail by step, most first, `whole` being what a mail costs in all."""
        total = self.steps.total()
        return {step: round(whole * count / total, 1) for step, count in self.steps.most_common()}


def _place(frame: FrameType) -> str:
    code = frame.f_code
    file = code.co_filename.rpartition("/site-packages/")[2].rpartition("/lib/")[2]
    file = file[file.find("worker/") :] if "/worker/" in file else file
    return f"{file}:{frame.f_lineno} {code.co_qualname}"


# -- the run ------------------------------------------------------------------------------------------


def measure(office: Office, target: Sink, rounds: int, server: int | None) -> Cost:
    """Measure one workspace, with and without in turn; `server` is PostgreSQL's process."""
    sender, cost = Sender(office, target.port), Cost(office.database)
    sender.send(sender.launch())  # once for what is made once
    for _ in range(rounds):
        batch_ids = sender.launch()
        before = processor(family(server)) if server else 0.0
        used, inside, tape = sender.send_taped(batch_ids)
        if server:
            cost.server.append((processor(family(server)) - before) / tape.mails * 1e6)
        cost.with_all.append(used)
        cost.in_ledger.append(inside)
        cost.without.append(sender.send_bare(batch_ids, tape))
    whole, seen = profile(sender, max(rounds // 2, 1))
    cost.steps = seen.table(whole)
    return cost


def profile(sender: Sender, rounds: int) -> tuple[float, Profile]:
    """Sample some campaigns; return what a mail costs in all, and the samples."""
    seen, costs = Profile(), []
    for _ in range(rounds):
        batch_ids = sender.launch()
        with seen.running():
            costs.append(sender.send(batch_ids))
    return middle(costs), seen


@contextlib.contextmanager
def prepared(people: int, database: str) -> Iterator[tuple[Office, Sink, int | None]]:
    """Give a workspace with its queue, a sink, and PostgreSQL's process where there is one."""
    with contextlib.ExitStack() as held:
        folder = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="micro")))
        postgres = None
        if database == "postgresql":
            # In a folder of its own: its user may not enter ours.
            postgres = Postgres(
                Path(held.enter_context(tempfile.TemporaryDirectory(prefix="mpg"))), sync=True
            )
            held.callback(postgres.stop)
        office = Office(folder / "office", people, postgres)
        held.callback(office.wiring.database.close)
        held.enter_context(broker.running(office.wiring.settings.state))
        yield office, held.enter_context(sink(folder)), postgres.process.pid if postgres else None


def show(cost: Cost) -> None:
    """Print one database's costs."""
    print(f"{cost.database}: microseconds of processor time per mail, median of {len(cost.with_all)}")
    rows = [
        ("a mail in all", middle(cost.with_all)),
        ("without ledger and journal", middle(cost.without)),
        ("ledger + journal + claim + suppression check", cost.certainty),
        ("  of it inside the ledger's calls", middle(cost.in_ledger)),
    ]
    if cost.server:
        rows.append(("and PostgreSQL's own processes", middle(cost.server)))
    for name, value in rows:
        print(f"  {name:48}{value:8.1f}")


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Where a sender's microseconds go.")
    parser.add_argument("--mails", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--database", choices=["sqlite", "postgresql", "both"], default="both")
    parser.add_argument("--profile", action="store_true", help="sample only, and print by line")
    parser.add_argument("--json", type=Path, help="where the raw figures go")
    given = parser.parse_args()
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    raw: dict[str, object] = {}
    for database in ["sqlite", "postgresql"] if given.database == "both" else [given.database]:
        with prepared(given.mails, database) as (office, target, server):
            if given.profile:
                sender = Sender(office, target.port)
                sender.send(sender.launch())
                _show_profile(office.database, *profile(sender, given.rounds))
            else:
                cost = measure(office, target, given.rounds, server)
                show(cost)
                raw[office.database] = {**vars(cost), "certainty": cost.certainty}
    if given.json:
        given.json.write_text(json.dumps(raw, indent=1) + "\n", encoding="utf-8")
    return 0


def _show_profile(database: str, whole: float, seen: Profile) -> None:
    print(f"{database}: {whole:.1f} µs of processor time per mail, {seen.steps.total()} samples")
    for step, value in seen.table(whole).items():
        print(f"  {step:48}{value:8.1f}")
    print("  where the samples stood")
    total = seen.functions.total()
    for place, count in seen.functions.most_common(60):
        print(f"  {whole * count / total:8.2f}  {place}")


if __name__ == "__main__":
    sys.exit(main())
