"""Whether the time that a mark takes to be read tells a forger how near they are.

    .venv/bin/python bench/timing.py [--rounds 40000]

Marks of each kind are read in turns, in an order left to chance, and the middle half of each kind's times is
compared: its median, and how many standard errors its mean is from that of marks that are wrong all over.
What a forger could feel over a network is far coarser. Exits with 1 if a kind of forged mark stands out by
more than 50 nanoseconds.
"""

import argparse
import base64
import random
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Final

from worker.tokens import Marks, Purpose

_MARKS: Final = Marks(b"k" * 32, older=[b"o" * 32])
_STRANGER: Final = Marks(b"x" * 32)
#: Bytes of the proof at the beginning of a mark.
_PROOF: Final = 12
_MOST_NANOSECONDS: Final = 50.0
#: Marks of each kind that are made before any is read, so that none is fresher in a cache than others.
_AT_ONCE: Final = 1_000


def _spoilt(mark: str, at: int) -> str:
    """Return a mark with one byte changed."""
    raw = bytearray(base64.b32decode(mark, casefold=True))
    raw[at] ^= 1
    return base64.b32encode(bytes(raw)).decode().lower()


def _kinds(number: int) -> Mapping[str, str]:
    """Return a mark of each kind."""
    ours = _MARKS.mark(Purpose.OPT_OUT, number)
    found = {
        "forged, wrong all over": _STRANGER.mark(Purpose.OPT_OUT, number),
        "forged, first byte of the proof": _spoilt(ours, 0),
        "forged, last byte of the proof": _spoilt(ours, _PROOF - 1),
        "forged, only the number": _spoilt(ours, _PROOF + 7),
        "of another purpose": _MARKS.mark(Purpose.BOUNCE, number),
        "ours, under today's key": ours,
        "ours, under an older key": Marks(b"o" * 32).mark(Purpose.OPT_OUT, number),
    }
    # All made anew in the same way: how a text came about is felt too.
    return {name: mark.upper().lower() for name, mark in found.items()}


def _middle(times: Sequence[int]) -> Sequence[int]:
    """Return the middle half, without what the machine did meanwhile."""
    ordered = sorted(times)
    return ordered[len(ordered) // 4 : -len(ordered) // 4]


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Compare the times that marks take to be read.")
    parser.add_argument("--rounds", type=int, default=40_000)
    rounds, chance = parser.parse_args().rounds, random.Random(1)  # noqa: S311 - the order of a measurement
    times: dict[str, list[int]] = {name: [] for name in _kinds(0)}
    for _ in range(rounds // _AT_ONCE):
        numbers = [chance.randrange(1, 2**40) for _ in range(_AT_ONCE)]
        some = [one for number in numbers for one in _kinds(number).items()]
        chance.shuffle(some)
        for name, mark in some:
            began = time.perf_counter_ns()
            _MARKS.read(Purpose.OPT_OUT, mark)
            times[name].append(time.perf_counter_ns() - began)
    kept = {name: _middle(found) for name, found in times.items()}
    first = next(iter(kept.values()))
    worst = 0.0
    for name, found in kept.items():
        gap = statistics.mean(found) - statistics.mean(first)
        error = (statistics.variance(found) / len(found) + statistics.variance(first) / len(first)) ** 0.5
        told = f"median {statistics.median(found):7,.0f} ns   {gap:+7.1f} ns   {gap / error:+6.1f} errors"
        print(f"{name:34}{told}")
        worst = max(worst, abs(gap) if name.startswith("forged") else 0.0)
    return 1 if worst > _MOST_NANOSECONDS else 0


if __name__ == "__main__":
    sys.exit(main())
