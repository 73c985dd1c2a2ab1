"""Postfix's smtp-sink and smtp-source, and a proxy that makes a server slow: what all benchmarks send into.

Owns the counting: the sink itself says how many mails it took, so a rate does not rest on what a sender
believes. Needs `smtp-sink` and `smtp-source` (Debian: postfix).
"""

import asyncio
import contextlib
import multiprocessing
import os
import re
import shutil
import socket
import statistics
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

from worker import processes

#: Seconds that the proxy adds to every reply.
DELAY: Final = 0.05
_DEBIAN: Final = "/usr/sbin"
_BACKLOG: Final = "200"
#: What the sink says each time; looked at while it writes, the last line may be cut short.
_COUNT: Final = re.compile(rb"mesg=([0-9]+)\r")
_TICKS: Final = os.sysconf("SC_CLK_TCK")
#: Seconds between two looks at a counter.
_LOOK: Final = 0.02
#: The part of a run that counts as steady: nobody starts or stops in it.
_FROM, _TO = 0.1, 0.9


def wait_for(port: int) -> None:
    """Return once something listens."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(_LOOK)
    raise TimeoutError("nothing listens")


def tool(name: str) -> str:
    """Find a program of Postfix, also where an ordinary PATH does not look."""
    found = shutil.which(name) or shutil.which(name, path=_DEBIAN)
    if found is None:
        raise SystemExit(f"{name} is not installed (Debian: apt-get install postfix)")
    return found


def processor(pids: Sequence[int]) -> float:
    """Return the seconds of processor time that these processes have used so far; the dead count nothing."""
    used = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            # Behind the name, which may hold blanks: the 14th and 15th fields of proc(5) are the 12th here.
            words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            used += int(words[11]) + int(words[12])
    return used / _TICKS


class Sink:
    """One smtp-sink, which counts its mails and, if asked, keeps each in a file of its own."""

    def __init__(self, folder: Path, *, record: bool = False) -> None:
        """Start it; `folder` holds its counter and its mails, and need not be empty of other files."""
        self.port = processes.free_port()
        self._counter = folder / f"sink-{self.port}.count"
        self._mails = folder / f"sink-{self.port}" if record else None
        keep: list[str] = []
        root = os.geteuid() == 0
        if self._mails:
            self._mails.mkdir()
            if root:
                shutil.chown(self._mails, "nobody")
                folder.chmod(0o711)
            keep = ["-d", f"{self._mails}/%M."]
        user = ["-u", "nobody"] if root else []
        words = [tool("smtp-sink"), *user, "-c", *keep, f"127.0.0.1:{self.port}", _BACKLOG]
        with self._counter.open("wb") as output:
            self._process = subprocess.Popen(words, stdout=output, stderr=subprocess.DEVNULL)
        self.pid = self._process.pid
        wait_for(self.port)
        self._read = os.open(self._counter, os.O_RDONLY)

    def count(self) -> int:
        """Return how many mails it has taken, as it says itself (sess=… quit=… mesg=…)."""
        size = os.fstat(self._read).st_size
        told = _COUNT.findall(os.pread(self._read, 200, max(size - 200, 0)))
        return int(told[-1]) if told else 0

    def recipients(self) -> Sequence[str]:
        """Return the recipient of every mail kept, in no order."""
        assert self._mails, "this sink keeps no mails"
        found = subprocess.run(
            ["grep", "-rhao", "--max-count=1", "^X-Rcpt-Args: <.*>", str(self._mails)],
            capture_output=True,
            check=False,  # 1 where there is no mail
            text=True,
        )
        return [line.partition("<")[2].removesuffix(">") for line in found.stdout.splitlines()]

    def forget(self) -> None:
        """Throw away the mails kept so far."""
        assert self._mails, "this sink keeps no mails"
        for file in self._mails.iterdir():
            file.unlink()

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()
        os.close(self._read)


@contextlib.contextmanager
def sink(folder: Path, *, record: bool = False) -> Iterator[Sink]:
    """Run a sink while the block runs."""
    server = Sink(folder, record=record)
    try:
        yield server
    finally:
        server.close()


@dataclass(frozen=True)
class Pass:
    """How mails came in over time, as the sink counted them."""

    mails: int
    seconds: float  #: from the first look to the last mail
    steady: float  #: mails a second between a tenth and nine tenths of them
    first: float  #: seconds until the first mail

    @property
    def overall(self) -> float:
        """Return mails a second from the first look to the last mail."""
        return self.mails / self.seconds


class Watch:
    """Looks at a sink's counter until enough has come."""

    def __init__(self, watched: Sink) -> None:
        """Begin now."""
        self._sink = watched
        self._before = watched.count()
        self.began = time.monotonic()
        self._seen: list[tuple[float, int]] = [(0.0, 0)]

    def look(self) -> int:
        """Note how many have come since the beginning, and return it."""
        count = self._sink.count() - self._before
        if count != self._seen[-1][1]:
            self._seen.append((time.monotonic() - self.began, count))
        return count

    def until(self, mails: int, *, seconds: float, alive: "subprocess.Popen[bytes] | None" = None) -> bool:
        """Look until so many mails have come; False when time runs out or the sender has ended before."""
        deadline = time.monotonic() + seconds
        while self.look() < mails:
            if time.monotonic() > deadline:
                return False
            if alive is not None and alive.poll() is not None:
                return self.look() >= mails
            time.sleep(_LOOK)
        return True

    def result(self) -> Pass:
        """Sum up what was seen."""
        at, mails = self._seen[-1]
        if not mails:
            return Pass(0, at, 0.0, at)
        early, late = (self._when(mails * share) for share in (_FROM, _TO))
        steady = mails * (_TO - _FROM) / (late - early) if late > early else 0.0
        return Pass(mails, at, steady, self._seen[1][0])

    def _when(self, wanted: float) -> float:
        """Say when the counter passed a number, between two looks in proportion."""
        before = self._seen[0]
        for at, count in self._seen:
            if count >= wanted:
                share = (wanted - before[1]) / (count - before[1])
                return before[0] + share * (at - before[0])
            before = at, count
        return before[0]


def source(target: Sink, connections: int, mails: int, payload: int) -> Pass:
    """Let Postfix's load generator send; `payload` is the size of each body in octets."""
    watch = Watch(target)
    words = ["-d", "-s", str(connections), "-m", str(mails), "-l", str(payload)]
    ends = ["-f", "a@example.org", "-t", "b@example.com", f"127.0.0.1:{target.port}"]
    process = subprocess.Popen([tool("smtp-source"), *words, *ends])
    try:
        watch.until(mails, seconds=120, alive=process)
    finally:
        code = process.wait()
    assert code == 0, "smtp-source failed"
    watch.until(mails, seconds=5)
    return watch.result()


# -- the slow server ---------------------------------------------------------------------------------


class _Back(asyncio.Protocol):
    """The server's side: what it says is passed on later."""

    def __init__(self, front: "_Front") -> None:
        self._front = front

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Pass on what the client has said already."""
        self._front.opened(cast("asyncio.Transport", transport))

    def data_received(self, data: bytes) -> None:
        """Hold it for as long as the server is far away."""
        self._front.later(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Close the client's side, after what it has still to hear."""
        del exc
        self._front.closed()


class _Front(asyncio.Protocol):
    """The client's side: what it says is passed on at once."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._loop = asyncio.get_running_loop()
        self._early: list[bytes] = []
        self._client: asyncio.Transport | None = None
        self._server: asyncio.Transport | None = None
        self._opening: asyncio.Task[object] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Open the way on."""
        self._client = cast("asyncio.Transport", transport)
        way = self._loop.create_connection(lambda: _Back(self), "127.0.0.1", self._target)
        self._opening = self._loop.create_task(way)

    def opened(self, server: asyncio.Transport) -> None:
        """The way on is open."""
        self._server = server
        server.writelines(self._early)
        self._early.clear()

    def data_received(self, data: bytes) -> None:
        """Pass it on."""
        if self._server is None:
            self._early.append(data)
        else:
            self._server.write(data)

    def later(self, data: bytes) -> None:
        """Tell the client, when the time has come."""
        assert self._client is not None
        self._loop.call_later(DELAY, self._client.write, data)

    def closed(self) -> None:
        """The server has closed."""
        assert self._client is not None
        self._loop.call_later(DELAY, self._client.close)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has closed."""
        del exc
        if self._server is not None:
            self._server.close()


def delaying_proxy(port: int, target: int) -> None:
    """Add the delay to everything that the server says, for ever, in one event loop."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Front(target), "127.0.0.1", port, backlog=200)
        await server.serve_forever()

    asyncio.run(run())


@dataclass(frozen=True)
class Proxy:
    """A running proxy."""

    port: int
    pid: int


@contextlib.contextmanager
def delayed(target: int) -> Iterator[Proxy]:
    """Run the proxy in a process of its own."""
    port = processes.free_port()
    proxy = multiprocessing.get_context("spawn").Process(
        target=delaying_proxy, args=(port, target), daemon=True
    )
    proxy.start()
    try:
        wait_for(port)
        assert proxy.pid is not None
        yield Proxy(port, proxy.pid)
    finally:
        proxy.terminate()
        proxy.join()


def middle(figures: Sequence[float]) -> float:
    """Return the median."""
    return statistics.median(figures)
