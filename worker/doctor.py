"""Is this workspace fit to send? One finding for each thing a campaign stands on, each with its remedy.

Owns what is asked and what counts as well. Refuses: to build what it asks (each check takes callables), to
change anything, and to stop at the first trouble.
"""

import shutil
import stat
import tempfile
import time
import zoneinfo
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import redis

from worker.broker import OLDEST, Program
from worker.errors import Refused, TocsinError, Unavailable, WrongUse
from worker.post.parcels import Offer
from worker.settings import Settings

#: Free space under which a campaign may stop half-way: its ledger, journal and logs grow with it.
FREE_BYTES = 500_000_000
#: Seconds two clocks may differ: deadlines, leases and opt-out times are compared between machines.
SKEW_SECONDS = 5.0
#: A zone with odd rules that must be known, for schedules in local time.
_ZONE = "Europe/London"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found."""

    #: What was checked, in one word.
    name: str
    #: Whether it is well.
    ok: bool
    #: What was found, in one line.
    detail: str
    #: What to do about it; "" where all is well.
    remedy: str = ""


#: A check gives one line about what is well, and raises what is not.
Check = Callable[[], str]


def examine(checks: Iterable[tuple[str, Check]]) -> Iterator[Finding]:
    """Run named checks one after the other and give each one's finding as soon as it is there."""
    for name, check in checks:
        try:
            yield Finding(name, ok=True, detail=check())
        except TocsinError as error:
            yield Finding(name, ok=False, detail=str(error), remedy=error.remedy)


def config(load: Callable[[], Settings]) -> Check:
    """Check that the settings load, and that no example is left that would go out in a mail."""

    def check() -> str:
        settings = load()
        if left := settings.examples_left():
            raise WrongUse(
                f"still at their examples: {', '.join(left)}", remedy="Set them before a real campaign."
            )
        return str(settings.file or "variables only")

    return check


def keys(secret_text: Callable[[], str], parse: Callable[[str], object], file: Path) -> Check:
    """Check that the key ring can be read, by us only, and understood.

    Args:
        secret_text: gives the key ring's text; raises where it is missing or open to others.
        parse: reads that text.
        file: where it is kept, if it is.
    """

    def check() -> str:
        parse(secret_text())
        if not file.exists():
            return "readable, from a variable"
        return f"readable, at {file} (mode {stat.S_IMODE(file.stat().st_mode):o})"

    return check


def queue(client: Callable[[], "redis.Redis"], program: Callable[[], Program] | None) -> Check:
    """Check that Redis answers, is new enough and throws no task away.

    Args:
        client: gives a client; raises Unavailable where the private server does not run.
        program: finds the private server's program; None where a Redis is configured.
    """

    def check() -> str:
        try:
            connected = client()
        except Unavailable:
            if program is None:
                raise
            found = program()
            return f"private, not running now; {found.path} {_version(found.version)}"
        try:
            with closing(connected):
                return _redis_is_well(connected)
        except redis.RedisError as error:
            raise Unavailable(
                f"Redis does not answer ({type(error).__name__}).", remedy="Start it, or mend broker.url."
            ) from error

    return check


def _redis_is_well(connected: "redis.Redis") -> str:
    told = connected.info("server")
    version = tuple(int(part) for part in str(told["redis_version"]).split(".")[:3])
    if version < OLDEST:
        raise Unavailable(
            f"Redis {_version(version)} is too old.", remedy=f"Use {_version(OLDEST)} or newer."
        )
    policy = connected.info("memory").get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        raise WrongUse(
            f"Redis may throw tasks away ({policy}).", remedy="Set its maxmemory-policy to noeviction."
        )
    return f"Redis {_version(version)} answers"


def database(schema_state: Callable[[], tuple[str, str]]) -> Check:
    """Check that the database answers and has this version's tables.

    Args:
        schema_state: gives its revision ("" for none) and the one that this code wants.
    """

    def check() -> str:
        current, head = schema_state()
        if current != head:
            raise WrongUse(f"at revision {current or 'none'}, not {head}.", remedy="Run `tocsin db upgrade`.")
        return f"answers, at revision {head}"

    return check


def relay(probe: Callable[[], Offer]) -> Check:
    """Check that the relay lets us in, and tell what it offers."""

    def check() -> str:
        offer = probe()
        offered = {
            "pipelining": offer.pipelining,
            "delivery reports": offer.dsn,
            "non-ASCII addresses": offer.smtputf8,
            f"mails up to {offer.size // 1_000_000} MB": offer.size,
        }
        names = [name for name, is_there in offered.items() if is_there] or ["nothing beyond the basics"]
        return f"lets us in ({offer.tls or 'plain line'}), offers {', '.join(names)}"

    return check


def clock(others: Iterable[tuple[str, Callable[[], float]]], now: Callable[[], float] = time.time) -> Check:
    """Check that our clock agrees with others', and that time zones are known.

    Args:
        others: names, and what gives the time there in seconds since 1970.
        now: our clock.
    """

    def check() -> str:
        agreed = []
        for name, theirs in others:
            # The answer was given somewhere between the question and now.
            before, told, after = now(), theirs(), now()
            ahead = told - min(max(told, before), after)
            if abs(ahead) > SKEW_SECONDS:
                side = "ahead of" if ahead > 0 else "behind"
                raise Refused(
                    f"the {name}'s clock is {abs(ahead):.0f} s {side} ours.",
                    remedy="Set both by NTP, and look again.",
                )
            agreed.append(name)
        try:
            zoneinfo.ZoneInfo(_ZONE)
        except zoneinfo.ZoneInfoNotFoundError as error:
            raise Unavailable("time zones are not known here.", remedy="Install tzdata.") from error
        compared = f"agrees with {' and '.join(agreed)}" if agreed else "no other clock to compare it with"
        return f"{compared}; time zones known"

    return check


def disk(folder: Path, free: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free) -> Check:
    """Check that a folder can be written to and has room for a campaign."""

    def check() -> str:
        try:
            with tempfile.TemporaryFile(dir=folder) as tried:
                tried.write(b"x")
            left = free(folder)
        except OSError as error:
            raise Unavailable(
                f"cannot write to {folder}: {error.strerror}", remedy="Run `tocsin init`, or mend the folder."
            ) from error
        if left < FREE_BYTES:
            raise Refused(
                f"only {left / 1e6:.0f} MB are free in {folder}.",
                remedy=f"Free {FREE_BYTES / 1e6:.0f} MB at least.",
            )
        return f"{left / 1e9:.1f} GB free in {folder}"

    return check


def workers(ping: Callable[[], Collection[str]]) -> Check:
    """Check that workers answer; worth asking only where the queue runs.

    Args:
        ping: gives the names of those that answer.
    """

    def check() -> str:
        if not (names := ping()):
            raise Unavailable("no worker answers.", remedy="Start them with `tocsin up` or `tocsin worker`.")
        return f"{len(names)} answer"

    return check


def _version(version: Iterable[int]) -> str:
    return ".".join(map(str, version))
