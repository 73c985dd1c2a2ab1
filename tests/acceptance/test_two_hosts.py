"""Two machines send one campaign, sharing database and queue; one of them is lost, or only cut off.

Where the kernel lets us, each machine is a network of its own with a cable to a third that holds PostgreSQL,
Redis, the mail server and the tick, and a host name of its own. Elsewhere they are processes with a state
folder of their own, and to be cut off is to be stopped: nobody hears of them, and they wake up later.
"""

import contextlib
import os
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import kills
import pytest
import sqlalchemy as sa

from worker import processes
from worker.store.schema import deliveries, leases

_PATIENCE = 180.0
#: Where the shared servers are, in a network that only our own machines see.
_SHARED = "10.77.0.1"
HOSTS = ("dispatch0", "dispatch1")
#: So much in hand that, without the copy of the journal, more would be in doubt than there are connections.
_FULL_HAND = 20


class Networks:
    """Three networks, a cable from the first to each of the others, and a host name in each."""

    def __init__(self) -> None:
        self.hub = f"tocsin-{os.getpid()}-hub"
        self.hosts = {name: f"tocsin-{os.getpid()}-{name}" for name in HOSTS}

    def lay(self) -> None:
        """Make them; CalledProcessError where we may not."""
        for name in (self.hub, *self.hosts.values()):
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
        _ip("-n", self.hub, "address", "add", f"{_SHARED}/32", "dev", "lo")
        for number, name in enumerate(self.hosts.values(), 1):
            near, far = f"10.77.{number}.1", f"10.77.{number}.2"
            peer = ("peer", "name", "cable", "netns", name)
            _ip("-n", self.hub, "link", "add", f"cable{number}", "type", "veth", *peer)
            for where, device, address in ((self.hub, f"cable{number}", near), (name, "cable", far)):
                _ip("-n", where, "address", "add", f"{address}/24", "dev", device)
                _ip("-n", where, "link", "set", device, "up")
            _ip("-n", name, "route", "add", _SHARED, "via", near)

    def within(self, part: str) -> list[str]:
        """Return the words that start a program on the machine of a part."""
        name = self.hosts.get(part, self.hub)
        named = ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', part]
        return ["ip", "netns", "exec", name, *(named if part in self.hosts else [])]

    def plug(self, part: str, *, state: str) -> None:
        """Pull a machine's cable out ("down") or put it back ("up")."""
        _ip("-n", self.hub, "link", "set", f"cable{HOSTS.index(part) + 1}", state)

    def remove(self) -> None:
        """Take everything away, cables with their networks."""
        for name in (self.hub, *self.hosts.values()):
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


class Postgres(kills.Postgres):
    """A PostgreSQL that also listens on the shared network, where there is one."""

    def __init__(self, folder: Path, networks: Networks | None) -> None:
        self._networks = networks
        self._folder = folder
        super().__init__(folder)

    def start(self) -> None:
        """Start it there."""
        if self._networks:
            with (self._folder / "d" / "pg_hba.conf").open("a") as rules:
                rules.write("host all all 10.77.0.0/16 trust\n")
            self._argv[self._argv.index("-h") + 1] = _SHARED
            user = self._who.pop("user", None)
            drop = ["setpriv", f"--reuid={user}", f"--regid={self._who.pop('group')}", "--clear-groups"]
            self._argv = [*self._networks.within("postgres"), *drop, *self._argv]
            self._who.clear()
        super().start()


class Pair(kills.Site):
    """A site whose two senders are machines of their own."""

    def __init__(self, plan: Any, folder: Path, postgres: Postgres, networks: Networks | None) -> None:
        self.networks = networks
        super().__init__(plan, folder, postgres.url)
        if networks:
            self.env |= {
                "TOCSIN_DATABASE__URL": f"postgresql://tocsin@{_SHARED}/postgres",
                "TOCSIN_BROKER__URL": self.settings.broker.url.replace("127.0.0.1", _SHARED),
                "TOCSIN_RELAY__HOST": _SHARED,
                "TOCSIN_RELAY__ALLOW_PLAIN": "true",
                # To another machine nothing is sent under the names that ship as examples.
                "TOCSIN_ORGANISATION__NAME": "Letters For All",
                "TOCSIN_ORGANISATION__POSTAL_ADDRESS": "2 Quay Street, London E1 1AA",
                "TOCSIN_MAIL__FROM_ADDRESS": "letters@example.org",
            }

    def _sink(self, file: Path) -> Any:
        if not self.networks:
            return super()._sink(file)
        within = self.networks.within("sink")
        return kills.Sink(file, self.plan.reply_delay, address=_SHARED, within=within)

    def _redis(self, port: int, *, private: bool) -> Sequence[str | Path]:
        argv = list(super()._redis(port, private=private))
        if self.networks:
            argv[argv.index("--bind") + 1] = _SHARED
            argv += ["--protected-mode", "no"]
        return argv

    def _within(self, name: str) -> Sequence[str]:
        return self.networks.within(name) if self.networks else ()

    def cut_off(self, name: str) -> None:
        """Let nothing reach a stopped machine, nor anything come from it; on a net of its own it goes on."""
        if self.networks:
            self.networks.plug(name, state="down")
            self._signal(name, signal.SIGCONT)

    def reach_again(self, name: str) -> None:
        """Put it back on the net."""
        if self.networks:
            self.networks.plug(name, state="up")
        else:
            self._signal(name, signal.SIGCONT)

    def lose(self, name: str) -> None:
        """Lose a machine with everything on it, for good; its connections are not even closed."""
        part = self.parts.pop(name)
        if self.networks:
            self.networks.plug(name, state="down")
        processes.kill(part.process)
        shutil.rmtree(self._state(name))

    def _signal(self, name: str, number: signal.Signals) -> None:
        for pid in self.parts[name].pids:
            os.kill(pid, number)

    def stop_in_mid_work(self, name: str) -> None:
        """Stop a machine's processes at a moment when much is in their hands."""

        def stopped() -> bool:
            self._signal(name, signal.SIGSTOP)
            if self.hands()[name] > _FULL_HAND:
                return True
            self._signal(name, signal.SIGCONT)
            return False

        assert processes.until(stopped, seconds=_PATIENCE)

    def shares(self) -> Counter[str]:
        """Return how many mails each machine has sent, as the ledger has it by its leases."""
        return self._by_host("sent")

    def hands(self) -> Counter[str]:
        """Return how many deliveries each machine has in hand."""
        return self._by_host("sending")

    def _by_host(self, state: str) -> Counter[str]:
        owners = {f".{pid}.": name for name in HOSTS if name in self.parts for pid in self.parts[name].pids}
        query = sa.select(leases.c.owner, sa.func.count()).join(
            deliveries, deliveries.c.lease_id == leases.c.id
        )
        shares: Counter[str] = Counter()
        with self.wiring.database.read() as connection:
            for owner, count in connection.execute(
                query.where(deliveries.c.state == state).group_by(leases.c.owner)
            ):
                shares.update({name: count for pid, name in owners.items() if pid in owner})
        return shares


@pytest.fixture
def networks() -> Iterator[Networks | None]:
    """Networks of our own, or None where the kernel does not let us."""
    made = Networks()
    try:
        try:
            made.lay()
        except (OSError, subprocess.CalledProcessError):
            yield None
        else:
            yield made
    finally:
        with contextlib.suppress(OSError):
            made.remove()


@pytest.mark.parametrize("fate", ["cut off", "lost"])
def test_what_one_of_two_machines_leaves_the_other_finishes(
    fate: str, networks: Networks | None, tmp_path: Path
) -> None:
    """Both send a share; one goes in mid-campaign, the other ends it: once each, doubt only in the air."""
    plan = kills.Plan(
        recipients=1600,
        kills=8,  # with `every`, the campaign's length: eight seconds at its pace
        batch=100,
        chunk=50,
        lease=3.0,
        slice=2.0,
        lost=2.0,
        reply_delay=0.01,
        apart=True,
    )
    with contextlib.ExitStack() as held:
        folder = Path(held.enter_context(kills.tempfile.TemporaryDirectory(prefix="twopg")))
        postgres = Postgres(folder, networks)
        held.callback(postgres.stop)
        site = Pair(plan, tmp_path, postgres, networks)
        held.enter_context(site.held)
        site.import_people()
        site.start()
        site.run("send", "chechnya-report", "--list", "people", "--yes")
        assert processes.until(lambda: min(map(site.shares().__getitem__, HOSTS)) > 50, seconds=_PATIENCE)
        doomed = HOSTS[0]
        site.stop_in_mid_work(doomed)
        if fate == "lost":
            site.lose(doomed)
        else:
            site.cut_off(doomed)
        assert processes.until(lambda: site.finished, seconds=_PATIENCE), "the other did not finish it"
        if fate == "cut off":
            site.reach_again(doomed)
        _compare(site, doomed, fate)


def _compare(site: Pair, doomed: str, fate: str) -> None:
    """Hold what came against what is believed, person by person."""
    site._end()  # whoever is late is heard first
    believed = {who: state for who, (state, _) in kills._believed(site).items()}
    came = Counter(who for _, who in site.sink.taken())
    assert len(believed) == site.plan.recipients
    assert set(believed.values()) <= {"sent", "unconfirmed"}
    assert [who for who, count in came.items() if count > 1] == []
    assert [who for who, state in believed.items() if state == "sent" and not came[who]] == []
    unconfirmed = Counter(believed.values())["unconfirmed"]
    assert unconfirmed <= site.plan.connections * site.plan.processes, (doomed, fate)
    site.run("verify", kills.CAMPAIGN)
