"""One-click opt-outs as a large mailbox provider posts them: as many a second as the pages take, each stored.

    .venv/bin/python bench/clicks.py [--people 20000] [--connections 64] [--database sqlite,postgresql]
        [--away 2] [--json bench/results/clicks.json]

A workspace with so many people and a mail each, `tocsin web`, and one client on this same machine that keeps
its connections and posts each mail's own link once. An answer counts when it is 200; in the end the store is
asked whether each of them is there. PostgreSQL commits to the disk, as in earnest. Exits with 1 if one is
missing or was answered otherwise. With `--away` PostgreSQL is killed in mid-flood and comes back that many
seconds later: who is answered 503 posts again, as mailboxes do, and every 200 must be stored.
"""

import argparse
import collections
import contextlib
import json
import os
import re
import selectors
import signal
import socket
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
from kills import Part, Plan, Postgres, Site

from worker import processes, supervision
from worker.store.audience import Rule
from worker.store.plans import Draft
from worker.store.schema import deliveries, facts, suppressions
from worker.tokens import Purpose

_BODY: Final = b"List-Unsubscribe=One-Click"
_HEAD: Final = (
    "POST /o/{} HTTP/1.1\r\nHost: act.example.org\r\nX-Forwarded-For: 192.0.2.1\r\n"
    "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 26\r\n\r\n"
)
_STATUS: Final = re.compile(rb"HTTP/1\.1 (\d{3})")
_LENGTH: Final = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE)
_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass
class Figures:
    """What a run came to."""

    database: str
    people: int
    connections: int
    seconds: float = 0.0
    rate: float = 0.0  #: answers of 200 a second
    milliseconds: dict[str, float] = field(default_factory=dict)  #: from a post to its answer
    answers: dict[int, int] = field(default_factory=dict)  #: by status
    stored: int = 0  #: suppressions, each with its fact
    cores: dict[str, float] = field(default_factory=dict)  #: processors in use, by whom

    @property
    def whole(self) -> bool:
        """Whether each was answered with 200 in the end, once, and is there."""
        done, others = self.answers.get(200, 0), self.answers.keys() - {200, 503}
        return done == self.stored == self.people and not others


class Client:
    """One thread, many connections, each with one post under way."""

    def __init__(self, port: int, posts: Sequence[bytes], connections: int) -> None:
        """Take the requests, ready made."""
        self._port, self._left = port, collections.deque(posts)
        self._connections = connections
        self.total = len(posts)
        self.answers: Counter[int] = Counter()
        self.waits: list[float] = []

    def run(self) -> None:
        """Post them all, and hear every answer."""
        with selectors.DefaultSelector() as selector:
            for _ in range(self._connections):
                link = socket.create_connection(("127.0.0.1", self._port), timeout=60)
                link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._say(selector, link)
            while selector.get_map():
                for key, _ in selector.select():
                    self._hear(selector, key)

    def _say(self, selector: selectors.BaseSelector, link: socket.socket) -> None:
        post = self._left.popleft() if self._left else None
        if post is None:
            with contextlib.suppress(KeyError):
                selector.unregister(link)
            link.close()
            return
        heard = bytearray()
        with contextlib.suppress(KeyError):
            selector.unregister(link)
        selector.register(link, selectors.EVENT_READ, (heard, time.perf_counter(), post))
        link.sendall(post)

    def _hear(self, selector: selectors.BaseSelector, key: selectors.SelectorKey) -> None:
        link, (heard, said, post) = key.fileobj, key.data
        assert isinstance(link, socket.socket)
        piece = link.recv(65_536)
        assert piece, "the pages hung up"
        heard += piece
        head, found, body = bytes(heard).partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not found or length is None or len(body) < int(length[1]):
            return
        status = _STATUS.match(head)
        assert status, head
        self.answers[int(status[1])] += 1
        self.waits.append(time.perf_counter() - said)
        if status[1] == b"503" and b"\r\nretry-after: " in head.lower():
            self._left.append(post)
        self._say(selector, link)


class Meter:
    """Reads how much processor time processes have used."""

    def __init__(self, **groups: int) -> None:
        """Take process ids by name; children count with their parents."""
        self._groups = groups
        self._before = self._used()

    def _used(self) -> dict[str, float]:
        return {name: sum(map(_seconds_of, _family(pid))) for name, pid in self._groups.items()}

    def since(self, seconds: float) -> dict[str, float]:
        """Return the processors each had in use."""
        return {name: round((used - self._before[name]) / seconds, 2) for name, used in self._used().items()}


def _family(pid: int) -> Iterator[int]:
    yield pid
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            yield from _family(int(child))


def _seconds_of(pid: int) -> float:
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return 0.0
    return (int(words[11]) + int(words[12])) / _TICKS


def _posts(site: Site) -> Sequence[bytes]:
    """Write a mail to everybody down, and return the post of each one's link."""
    wiring = site.wiring
    rule = Rule((wiring.people.find_lists(["people"])[0].id,))
    draft = Draft("appeal", "{}", rule, "d" * 64, "running", "op", "op", 0.0, "UTC", None)
    campaign = wiring.plans.record(draft, 1.0)
    while wiring.plans.slice(campaign, 5_000, 1.0):
        pass
    marks = wiring.keyring.marks()
    with wiring.database.read() as connection:
        ids = connection.execute(sa.select(deliveries.c.id)).scalars().all()
    return [_HEAD.format(marks.mark(Purpose.OPT_OUT, number)).encode() + _BODY for number in ids]


def _go_away(postgres: Postgres, client: Client, seconds: float) -> None:
    """Kill the store once a quarter of the posts is answered, and let it come back."""
    quarter = client.total // 4
    assert processes.until(lambda: client.answers[200] > quarter, seconds=60), "no flood"
    postgres.stop(signal.SIGQUIT)
    time.sleep(seconds)
    postgres.start()


def run(
    folder: Path, database: str, people: int, connections: int, postgres: Postgres | None, away: float
) -> Figures:
    """Run one kind of store."""
    figures = Figures(database.partition(":")[0], people, connections)
    site = Site(Plan(recipients=people), folder, database)
    with site.held:
        site.import_people()
        posts = _posts(site)
        port = processes.free_port()
        argv = [sys.executable, "-m", "worker.cli", "web"]
        web = Part("web", argv, {**site.env, "TOCSIN_WEB__PORT": str(port)}, site.logs / "web.log")
        try:
            assert processes.until(supervision.listens("127.0.0.1", port), seconds=60), "no pages"
            client = Client(port, posts, connections)
            store = {"postgresql": postgres.process.pid} if postgres else {}
            used = Meter(pages=web.process.pid, **store)
            began, own = time.perf_counter(), time.process_time()
            if postgres and away:
                threading.Thread(target=_go_away, args=(postgres, client, away)).start()
            client.run()
            figures.seconds = round(time.perf_counter() - began, 2)
            figures.cores = used.since(figures.seconds)
            figures.cores["client"] = round((time.process_time() - own) / figures.seconds, 2)
        finally:
            processes.end(web.process, patience=20)
        _judge(site, client, figures)
    return figures


def _judge(site: Site, client: Client, figures: Figures) -> None:
    figures.answers = dict(client.answers)
    figures.rate = round(client.answers[200] / figures.seconds, 1)
    waits = sorted(client.waits)
    figures.milliseconds = {
        "p50": round(statistics.median(waits) * 1000, 1),
        "p99": round(waits[int(len(waits) * 0.99)] * 1000, 1),
        "max": round(waits[-1] * 1000, 1),
    }
    count = sa.select(sa.func.count())
    with site.wiring.database.read() as connection:
        said = connection.execute(count.select_from(suppressions)).scalar_one()
        told = connection.execute(count.select_from(facts)).scalar_one()
    figures.stored = min(said, told)


def main() -> int:
    """Run from the command line; 0 when none is missing."""
    parser = argparse.ArgumentParser(description="Post one-click opt-outs as fast as they are taken.")
    parser.add_argument("--people", type=int, default=20_000)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--database", default="sqlite,postgresql", help="one or both, with a comma")
    parser.add_argument("--away", type=float, default=0.0, help="seconds that PostgreSQL is gone")
    parser.add_argument("--json", type=Path, help="where the raw figures go")
    given = parser.parse_args()
    found = []
    for kind in given.database.split(","):
        with contextlib.ExitStack() as held:
            folder = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="clicks"))).resolve()
            url, postgres = kind, None
            if kind == "postgresql":
                home = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="cpg")))
                postgres = Postgres(home, sync=True)
                held.callback(postgres.stop)
                url = postgres.url
            found.append(run(folder, url, given.people, given.connections, postgres, given.away))
        one = found[-1]
        print(f"{one.database}: {one.people:,} one-clicks in {one.seconds} s, {one.rate:,.0f}/s")
        print(f"  answers {one.answers}, stored {one.stored:,}; ms {one.milliseconds}; cores {one.cores}")
    if given.json:
        given.json.parent.mkdir(exist_ok=True)
        given.json.write_text(json.dumps({"runs": [asdict(one) for one in found]}, indent=1) + "\n")
    return 0 if all(one.whole for one in found) else 1


if __name__ == "__main__":
    sys.exit(main())
