"""How fast parcels leave: our relay beside Postfix's load generator, into Postfix's sink, in one run.

    .venv/bin/python bench/relay.py [--mails 20000] [--rounds 3] [--json FILE]

Needs `smtp-sink` and `smtp-source` (Debian: postfix). The mails are ready made, 12 KB each, so that only
the SMTP work is measured. "processor" is what our own process used per mail; the sink has the other core.
"""

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from worker.post.relay import Endpoint, Lost, Parcel, Relay
from worker.post.replies import Reply

_SIZE = 12_000
_DELAY = 0.05
_DEBIAN = "/usr/sbin"


@dataclass(frozen=True)
class Figure:
    """One line of the table."""

    who: str
    connections: int
    rate: float
    processor: float | None


def free_port() -> int:
    """Ask the kernel for a port that nobody uses."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def wait_for(port: int) -> None:
    """Return once something listens."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    raise TimeoutError("nothing listens")


def tool(name: str) -> str:
    """Find a program of Postfix, also where an ordinary PATH does not look."""
    found = shutil.which(name) or shutil.which(name, path=_DEBIAN)
    if found is None:
        raise SystemExit(f"{name} is not installed (Debian: apt-get install postfix)")
    return found


@contextlib.contextmanager
def sink() -> Iterator[int]:
    """Run smtp-sink and give its port."""
    port = free_port()
    server = subprocess.Popen(
        [tool("smtp-sink"), "-u", "nobody", f"127.0.0.1:{port}", "200"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(port)
        yield port
    finally:
        server.terminate()
        server.wait()


async def _later(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float) -> None:
    """Pass bytes on, each piece `delay` seconds after it came, in order."""
    loop = asyncio.get_running_loop()
    while data := await reader.read(65536):
        if delay:
            loop.call_later(delay, writer.write, data)
        else:
            writer.write(data)
            await writer.drain()
    loop.call_later(delay, writer.close)


def delaying_proxy(port: int, target: int) -> None:
    """Add the delay to everything that the server says, for ever."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", target)
        await asyncio.gather(
            _later(reader, there_writer, 0.0), _later(there_reader, writer, _DELAY), return_exceptions=True
        )

    async def run() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", port)
        await server.serve_forever()

    asyncio.run(run())


@contextlib.contextmanager
def delayed(target: int) -> Iterator[int]:
    """Run the proxy in a process of its own and give its port."""
    port = free_port()
    proxy = multiprocessing.get_context("spawn").Process(
        target=delaying_proxy, args=(port, target), daemon=True
    )
    proxy.start()
    try:
        wait_for(port)
        yield port
    finally:
        proxy.terminate()
        proxy.join()


def mail() -> bytes:
    """Make 12 KB that look like a quoted-printable mail."""
    head = b"From: a@example.org\r\nTo: b@example.com\r\nSubject: bench\r\nMIME-Version: 1.0\r\n\r\n"
    line = b'<p style=3D"color:#222">An appeal. It has full stops, as mails have.</p>=20\r\n'
    return head + line * ((_SIZE - len(head)) // len(line))


def source(port: int, connections: int, mails: int) -> Figure:
    """Measure the yardstick."""
    began = time.monotonic()
    subprocess.run(
        [
            *(tool("smtp-source"), "-d", "-s", str(connections), "-m", str(mails), "-l", str(_SIZE)),
            *("-f", "a@example.org", "-t", "b@example.com", f"127.0.0.1:{port}"),
        ],
        check=True,
    )
    return Figure("smtp-source", connections, mails / (time.monotonic() - began), None)


def ours(port: int, connections: int, mails: int, who: str = "tocsin") -> Figure:
    """Measure our relay; refuses to report a run that lost anything."""
    endpoint = Endpoint("127.0.0.1", port, "plain", connections=connections, messages_per_connection=0)
    data = mail()
    relay = Relay(endpoint)
    left = iter(range(1, mails + 1))
    accepted = 0

    def next_parcel() -> Parcel | None:
        number = next(left, None)
        if number is None:
            return None
        return Parcel(
            number, f"b+{number}@bounces.example.org", f"person{number}@example.com", data, f"e{number}"
        )

    def on_dot(_: int) -> None:
        """Keep no journal here."""

    def on_outcome(_: int, end: Reply | Lost) -> None:
        nonlocal accepted
        accepted += isinstance(end, Reply) and end.accepted

    began, used = time.monotonic(), time.process_time()
    relay.carry(next_parcel, on_dot, on_outcome)
    took, used = time.monotonic() - began, time.process_time() - used
    relay.close()
    assert accepted == mails, f"{mails - accepted} of {mails} were not accepted"
    return Figure(who, connections, mails / took, used / mails * 1e6)


def median(figures: list[Figure]) -> Figure:
    """Take the middle of several rounds."""
    first = figures[0]
    used = [figure.processor for figure in figures if figure.processor is not None]
    return Figure(
        first.who,
        first.connections,
        statistics.median(figure.rate for figure in figures),
        statistics.median(used) if used else None,
    )


def measure(mails: int, rounds: int) -> list[Figure]:
    """Run everything, the contestants taking turns so that a busy moment hits all alike."""
    with sink() as port:
        runs = [
            [source(port, 10, mails), *(ours(port, connections, mails) for connections in (1, 4, 10))]
            for _ in range(rounds)
        ]
        figures = [median(list(column)) for column in zip(*runs, strict=True)]
        with delayed(port) as slow:
            figures.append(ours(slow, 32, max(mails // 4, 1000), "tocsin, replies 50 ms late"))
    return figures


def show(figures: list[Figure]) -> None:
    """Print the table, with ratios to the yardstick."""
    yardstick = figures[0].rate
    print(f"{'':28}{'connections':>12}{'mails/s':>10}{'ratio':>8}{'µs processor/mail':>20}")
    for figure in figures:
        used = f"{figure.processor:.1f}" if figure.processor is not None else "-"
        print(
            f"{figure.who:28}{figure.connections:>12}{figure.rate:>10,.0f}"
            f"{figure.rate / yardstick:>8.2f}{used:>20}"
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mails", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="keep the raw figures here")
    chosen = parser.parse_args()
    figures = measure(chosen.mails, chosen.rounds)
    show(figures)
    if chosen.json:
        chosen.json.write_text(json.dumps([asdict(figure) for figure in figures], indent=1))


if __name__ == "__main__":
    main()
