"""How fast parcels leave: our relay beside Postfix's load generator, into Postfix's sink, in one run.

    .venv/bin/python bench/relay.py [--mails 20000] [--rounds 3] [--json FILE]

Needs `smtp-sink` and `smtp-source` (Debian: postfix). The mails are ready made, 12 KB each, so that only
the SMTP work is measured. "processor" is what our own process used per mail; the sink has the other core.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from sinks import delayed, sink, source

from worker.post.relay import Endpoint, Lost, Parcel, Relay
from worker.post.replies import Reply

_SIZE = 12_000


@dataclass(frozen=True)
class Figure:
    """One line of the table."""

    who: str
    connections: int
    rate: float
    processor: float | None


def mail() -> bytes:
    """Make 12 KB that look like a quoted-printable mail."""
    head = b"From: a@example.org\r\nTo: b@example.com\r\nSubject: bench\r\nMIME-Version: 1.0\r\n\r\n"
    line = b'<p style=3D"color:#222">An appeal. It has full stops, as mails have.</p>=20\r\n'
    return head + line * ((_SIZE - len(head)) // len(line))


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

    def on_dot(_: Sequence[int]) -> None:
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
    with tempfile.TemporaryDirectory(prefix="relay") as folder, sink(Path(folder)) as target:
        runs = [
            [
                Figure("smtp-source", 10, source(target, 10, mails, _SIZE).overall, None),
                *(ours(target.port, connections, mails) for connections in (1, 4, 10)),
            ]
            for _ in range(rounds)
        ]
        figures = [median(list(column)) for column in zip(*runs, strict=True)]
        with delayed(target.port) as slow:
            figures.append(ours(slow.port, 32, max(mails // 4, 1000), "tocsin, replies 50 ms late"))
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
