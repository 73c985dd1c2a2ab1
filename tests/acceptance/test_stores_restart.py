"""Database and queue go away and come back, or forget, in mid-campaign: it ends by itself, once each."""

import contextlib
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import kills
import pytest
import redis

from worker import broker, processes
from worker.tasks import DISPATCH

_PATIENCE = 120.0


class Doubled(kills.Site):
    """A site with two beats."""

    def _workers(self) -> Iterator[Sequence[str]]:
        yield from super()._workers()
        yield "beat2", "beat"

    def redeliver(self, client: "redis.Redis") -> int:
        """Put every batch that waits in the queue into it a second time; returns how many there were."""
        waiting = client.lrange(DISPATCH, 0, -1)
        if waiting:
            client.lpush(DISPATCH, *waiting)
        return len(waiting)

    def mails(self, more: int) -> None:
        """Return when the mail server has taken so many more mails."""
        goal = len(self.sink.taken()) + more
        assert processes.until(lambda: len(self.sink.taken()) >= goal, seconds=_PATIENCE), "it stands still"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Doubled, Any]]:
    """A site on PostgreSQL with everybody on a list, and its server."""
    plan = kills.Plan(
        recipients=3000,
        kills=8,  # with `every`, the campaign's length: eight seconds at its pace
        batch=100,
        chunk=50,
        lease=3.0,
        slice=2.0,
        lost=2.0,
        reply_delay=0.01,
    )
    with contextlib.ExitStack() as held:
        folder = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="restartpg")))
        postgres = kills.Postgres(folder)
        held.callback(postgres.stop)
        made = Doubled(plan, tmp_path, postgres.url)
        held.enter_context(made.held)
        made.import_people()
        made.start()
        yield made, postgres


def test_what_the_stores_lose_costs_nobody_a_mail_nor_brings_a_second(site: tuple[Doubled, Any]) -> None:
    """PostgreSQL stopped at once, Redis flushed and killed, tasks twice: each person gets one mail."""
    office, postgres = site
    office.run("send", "chechnya-report", "--list", "people", "--yes")
    with contextlib.closing(broker.client(office.settings)) as client:
        office.mails(200)
        assert processes.until(lambda: office.redeliver(client) > 0, seconds=_PATIENCE)
        office.mails(200)
        postgres.stop(signal.SIGQUIT)  # `pg_ctl stop -m immediate`: no goodbye to anybody
        stopped = time.time()
        postgres.start()
        office.mails(400)
        client.flushall()
        office.mails(400)
        office.parts["redis"].kill()  # keeps nothing on its disk
        office.mails(400)
    assert processes.until(lambda: office.finished, seconds=_PATIENCE), "it did not finish"
    assert {name for name, part in office.parts.items() if processes.ending(part.process)} == set()
    office._end()  # whoever is late is heard before the comparison
    figures = kills.Figures(office.plan, "postgresql", finished=True)
    # Without a database the senders drop their links, each with one mail at most whose answer is not heard.
    links = office.plan.workers * office.plan.processes * office.plan.connections
    kills._compare(office, figures, [kills.Kill(stopped, "database", cut=links)])
    assert figures.problems == []
    assert figures.states["sent"] + figures.unconfirmed == office.plan.recipients
    assert figures.unconfirmed <= links
    assert figures.taken == figures.states["sent"] + figures.unconfirmed_taken
