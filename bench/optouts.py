"""Say no while the mail goes out at full speed; then see who got it all the same, and how soon a "no" holds.

    .venv/bin/python bench/optouts.py [--recipients 100000] [--opt-outs 1500] [--database sqlite,postgresql]
        [--json bench/results/optouts.json]

A whole Tocsin with its pace off (control worker, dispatch workers, beat, Redis, opt-out pages) and a mail
server that notes when each mail came. Meanwhile clients post one-click opt-outs over HTTP, half of them for
people who wait in the queue, half for people whose mail a sender holds in its hand at that very moment.

Latency: from the POST to "cannot be sent any more". For who waits in the queue that is its answer, for every
claim asks; for who is in a hand it is the moment at which the sender let go of them (its log), or at which
their mail came all the same. Whose mail had come before the POST was answered is not counted: too late.
Exits with 1 if a mail came later than a second after the answer, or the figures miss what must be reached.
"""

import argparse
import contextlib
import datetime as dt
import http.client
import json
import random
import re
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parent))

import sqlalchemy as sa
from kills import CAMPAIGN, Part, Plan, Postgres, Site

from worker import processes, supervision
from worker.sealing import Person
from worker.store.schema import batches, deliveries, delivery_is_open, people
from worker.tokens import Purpose

#: Seconds after the answer to an opt-out from which nothing may come any more.
PROMISE: Final = 1.0
_MUST: Final = 1.0  # p99 of the latency, seconds
_PATIENCE: Final = 120.0
_CLIENTS: Final = 2
#: The last of those in hands and of those who wait: the first are about to have their mail.
_HAND: Final = (
    sa.select(deliveries.c.id)
    .join(batches, batches.c.id == deliveries.c.batch_id)
    .where(batches.c.done == 0, batches.c.lease_id.is_not(None), deliveries.c.state == "sending")
    .where(delivery_is_open)
    .order_by(deliveries.c.id.desc())
    .limit(200)
)
_QUEUE: Final = (
    sa.select(deliveries.c.id)
    .where(deliveries.c.state == "queued", delivery_is_open)
    .order_by(deliveries.c.id.desc())
    .limit(5000)
)
_FORM: Final = {"Content-Type": "application/x-www-form-urlencoded"}


@dataclass(slots=True)
class OptOut:
    """One person's no."""

    delivery: int
    posted: float  #: all times in UTC seconds
    answered: float
    held: bool  #: in a sender's hand when it was answered
    came: float | None = None  #: when their mail came, if it did
    dropped: float = 0.0  #: when a sender let go of them

    @property
    def too_late(self) -> bool:
        """Their mail was there already."""
        return self.came is not None and self.came <= self.answered

    @property
    def broken(self) -> bool:
        """It came although they had said no for long enough."""
        return self.came is not None and self.came > self.answered + PROMISE

    @property
    def latency(self) -> float:
        """Seconds from the POST until they could not be sent to any more."""
        if self.came is not None:
            return self.came - self.posted
        return (max(self.dropped, self.answered) if self.held else self.answered) - self.posted


@dataclass
class Figures:
    """What a run came to."""

    database: str
    recipients: int
    seconds: float = 0.0  #: from the first mail to the last
    rate: float = 0.0  #: mails a second meanwhile
    came: int = 0  #: people whose mail came
    opt_outs: int = 0
    too_late: int = 0  #: their mail had come already
    saved: int = 0  #: got no mail
    saved_in_hand: int = 0  #: of these, out of a sender's hand
    after_answer: int = 0  #: mail that came after the answer, but within the promise
    broken: int = 0  #: mail that came later than that
    twice: int = 0
    unsettled: int = 0  #: whose state does not say what happened
    sums: dict[str, int] = field(default_factory=dict)  #: what `tocsin verify` says, and what came
    latency: dict[str, dict[str, float]] = field(default_factory=dict)  #: milliseconds, by where they were
    answer: dict[str, float] = field(default_factory=dict)  #: milliseconds until the POST was answered

    @property
    def problems(self) -> list[str]:
        """Say what breaks the promises, one line each."""
        counts = {
            f"mail that came later than {PROMISE:g} s after the no": self.broken,
            "mailed twice": self.twice,
            "states that do not say what happened": self.unsettled,
        }
        found = [f"{what}: {count}" for what, count in counts.items() if count]
        wanted = {"holds": 1, "sent": self.came, "skipped": self.saved}
        return found if self.sums == wanted else [*found, f"`tocsin verify`: {self.sums}, wanted {wanted}"]


class Square(Site):
    """A site with opt-out pages, without a pace."""

    def __init__(self, plan: Plan, folder: Path, database: str) -> None:
        """Make it."""
        super().__init__(plan, folder, database)
        self.port = processes.free_port()
        self.env |= {"TOCSIN_RELAY__PER_SECOND": "0", "TOCSIN_WEB__PORT": str(self.port)}

    def start(self) -> None:
        """Start everything, and the pages."""
        super().start()
        argv = [sys.executable, "-m", "worker.cli", "web"]
        self.parts["web"] = Part("web", argv, self.env, self.logs / "web.log")
        listening = supervision.listens("127.0.0.1", self.port)
        assert processes.until(listening, seconds=_PATIENCE), "the pages did not come up"

    def settled(self) -> dict[int, tuple[str, float]]:
        """Return the state of each delivery, and since when."""
        query = sa.select(deliveries.c.id, deliveries.c.state, deliveries.c.settled_at)
        with self.wiring.database.read() as connection:
            return {number: (state, at) for number, state, at in connection.execute(query)}

    def address(self, delivery: int) -> str:
        """Return whom a delivery is for."""
        query = sa.select(people.c.id, people.c.sealed).join(
            deliveries, deliveries.c.person_id == people.c.id
        )
        with self.wiring.database.read() as connection:
            row = connection.execute(query.where(deliveries.c.id == delivery)).one()
        return Person.from_bytes(self.wiring.keyring.open(row.id, row.sealed)).address.spec

    def in_hand(self, delivery: int) -> bool:
        """Whether a sender has it in hand."""
        query = sa.select(deliveries.c.state).where(deliveries.c.id == delivery)
        with self.wiring.database.read() as connection:
            return bool(connection.execute(query).scalar_one() == "sending")

    def dropped(self) -> Iterator[tuple[int, float]]:
        """Yield when the senders let go of whom, as they logged it."""
        for file in self.logs.glob("dispatch*.log"):
            for line in re.findall(
                r"^\{.*said_no_in_hand.*\}$", file.read_text(encoding="utf-8"), re.MULTILINE
            ):
                told = json.loads(line)
                at = dt.datetime.fromisoformat(told["timestamp"]).timestamp()
                yield from ((delivery, at) for delivery in told["deliveries"])


class Crowd:
    """People who say no over HTTP while the campaign runs, from several clients at once."""

    def __init__(self, site: Square, most: int) -> None:
        """Take the site, and how many of them there are."""
        self.said: list[OptOut] = []
        self._site, self._most = site, most
        self._marks = site.wiring.keyring.marks()
        self._dice = random.Random(1)  # noqa: S311 - chance, not secrecy
        self._taken: set[int] = set()
        self._waiting: list[int] = []
        self._lock = threading.Lock()
        self._failures: list[BaseException] = []

    def speak(self) -> None:
        """Post until all have spoken or nobody is left whose mail could still be stopped."""
        threads = [threading.Thread(target=self._client, args=(number,)) for number in range(_CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self._failures:
            raise self._failures[0]

    def _client(self, number: int) -> None:
        try:
            link = http.client.HTTPConnection("127.0.0.1", self._site.port, timeout=60)
            near = bool(number % 2)
            while len(self.said) < self._most and (delivery := self._next(near=near)) is not None:
                self.said.append(self._post(link, delivery))
                near = not near
            link.close()
        except (OSError, http.client.HTTPException, AssertionError) as failure:
            self._failures.append(failure)

    def _next(self, *, near: bool) -> int | None:
        """Choose somebody: in a hand just now (near), or waiting; None when nobody is left."""
        with self._lock:
            left = self._pick(_HAND) if near else []
            if not left:
                self._waiting = [one for one in self._waiting if one not in self._taken] or self._pick(_QUEUE)
                left = self._waiting
            if not left:
                return None
            chosen = self._dice.choice(left)
            self._taken.add(chosen)
            return chosen

    def _pick(self, query: "sa.Select[int]") -> list[int]:
        with self._site.wiring.database.read() as connection:
            return [one for one in connection.execute(query).scalars() if one not in self._taken]

    def _post(self, link: http.client.HTTPConnection, delivery: int) -> OptOut:
        path = f"/o/{self._marks.mark(Purpose.OPT_OUT, delivery)}"
        posted = time.time()
        link.request("POST", path, b"List-Unsubscribe=One-Click", _FORM)
        answer = link.getresponse()
        answer.read()
        answered = time.time()
        assert answer.status == 200, f"an opt-out was answered {answer.status}"
        return OptOut(delivery, posted, answered, self._site.in_hand(delivery))


def run(plan: Plan, folder: Path, database: str, opt_outs: int) -> Figures:
    """Run a campaign with its opt-outs, and compare.

    Args:
        plan: how large, with how many senders.
        folder: empty; everything is kept there.
        database: "sqlite" or the URL of an empty PostgreSQL database.
        opt_outs: how many at most.
    """
    figures = Figures(database.partition(":")[0], plan.recipients)
    site = Square(plan, folder, database)
    with site.held:
        site.import_people()
        site.start()
        site.run("send", "chechnya-report", "--list", "people", "--yes")
        crowd = Crowd(site, opt_outs)
        assert processes.until(lambda: site.sink.begun, seconds=_PATIENCE), "no mail ever left"
        crowd.speak()
        assert processes.until(lambda: site.finished, seconds=plan.limit), "the campaign did not finish"
        site._end()  # noqa: SLF001 - ours: whoever is late is heard before the comparison
        _compare(site, crowd.said, figures)
    return figures


def _compare(site: Square, said: Sequence[OptOut], figures: Figures) -> None:
    """Hold what came against who had said no."""
    taken, dropped, settled = site.sink.taken(), dict(site.dropped()), site.settled()
    counts = Counter(who for _, who in taken)
    came = {who: at for at, who in reversed(taken)}
    for one in said:
        one.came = came.get(site.address(one.delivery))
        state, since = settled[one.delivery]
        # Given back by a sender that stopped for another reason: not before its next claim do we know.
        one.dropped = dropped.get(one.delivery, since)
        figures.unsettled += state != ("skipped" if one.came is None else "sent")
    times = [at for at, _ in taken]
    figures.seconds = round(max(times) - min(times), 2)
    figures.rate = round(len(times) / figures.seconds, 1)
    figures.opt_outs = len(said)
    figures.too_late = sum(one.too_late for one in said)
    saved = [one for one in said if one.came is None]
    figures.saved, figures.saved_in_hand = len(saved), sum(one.held for one in saved)
    figures.broken = sum(one.broken for one in said)
    figures.after_answer = len(said) - figures.too_late - figures.saved - figures.broken
    figures.twice = sum(count > 1 for count in counts.values())
    in_time = [one for one in said if not one.too_late]
    groups = {
        "all": in_time,
        "queued": [o for o in in_time if not o.held],
        "held": [o for o in in_time if o.held],
    }
    figures.latency = {name: _spread([one.latency for one in group]) for name, group in groups.items()}
    figures.answer = _spread([one.answered - one.posted for one in said])
    figures.came = len(counts)
    proof = json.loads(site.run("verify", CAMPAIGN, "--json"))
    figures.sums = {term: int(proof[term]) for term in ("holds", "sent", "skipped")}


def _spread(seconds: Sequence[float]) -> dict[str, float]:
    """Return count, median, 99th percentile and maximum, in milliseconds."""
    if not seconds:
        return {"n": 0}
    ordered = sorted(seconds)
    figures = {
        "p50": statistics.median(ordered),
        "p99": ordered[min(int(len(ordered) * 0.99), len(ordered) - 1)],
        "max": ordered[-1],
    }
    return {"n": len(ordered), **{name: round(value * 1000, 1) for name, value in figures.items()}}


def show(figures: Figures) -> None:
    """Print a run."""
    print(
        f"{figures.database}: {figures.recipients:,} recipients in {figures.seconds} s, {figures.rate:,.0f}/s"
    )
    print(f"  {figures.opt_outs:,} opt-outs; for {figures.too_late:,} their mail was there already")
    print(f"  {figures.saved:,} saved ({figures.saved_in_hand:,} of them out of a hand)")
    print(f"  {figures.after_answer} mails came up to {PROMISE:g} s after the answer, {figures.broken} later")
    for name, spread in {**figures.latency, "answer": figures.answer}.items():
        print(f"  {name:8}" + "  ".join(f"{what} {value:g}" for what, value in spread.items()) + "  (ms)")
    print("\n".join(["  PROBLEMS", *figures.problems]) if figures.problems else "  holds")


def main() -> int:
    """Run from the command line; 0 when every promise held."""
    parser = argparse.ArgumentParser(description="Say no in mid-campaign and measure how soon it holds.")
    parser.add_argument("--recipients", type=int, default=100_000)
    parser.add_argument("--opt-outs", type=int, default=1_500)
    parser.add_argument("--database", default="sqlite,postgresql", help="one or both, with a comma")
    parser.add_argument("--json", type=Path, help="where the raw figures go")
    given = parser.parse_args()
    found = []
    for kind in given.database.split(","):
        with contextlib.ExitStack() as held:
            folder = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="optouts"))).resolve()
            url = kind
            if kind == "postgresql":
                postgres = Postgres(
                    Path(held.enter_context(tempfile.TemporaryDirectory(prefix="opg"))), sync=True
                )
                held.callback(postgres.stop)
                url = postgres.url
            plan = Plan(
                recipients=given.recipients, reply_delay=0.0, batch=500, chunk=500, lease=60, slice=20
            )
            found.append(run(plan, folder, url, given.opt_outs))
        show(found[-1])
    if given.json:
        runs = [asdict(figures) for figures in found]
        given.json.parent.mkdir(exist_ok=True)
        given.json.write_text(json.dumps({"promise_seconds": PROMISE, "runs": runs}, indent=1) + "\n")
    slow = any(figures.latency["all"].get("p99", 0.0) > _MUST * 1000 for figures in found)
    return 1 if slow or any(figures.problems for figures in found) else 0


if __name__ == "__main__":
    sys.exit(main())
