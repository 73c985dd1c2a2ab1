"""When a campaign is due: an operator's local time into UTC, checked against what clocks really show.

Pure: the present is an argument. Refuses: past times, and local times that a clock change skips or repeats.
"""

import datetime as dt
import zoneinfo

from worker.errors import WrongUse

_REMEDY = 'Write it as "2026-12-01 09:00", in the zone that --tz names.'


def zone(name: str) -> zoneinfo.ZoneInfo:
    """Return a time zone by its IANA name; WrongUse when there is none of that name."""
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise WrongUse(
            f"there is no time zone called {name!r}", remedy="Use an IANA name such as Europe/London, or UTC."
        ) from error


def moment(text: str, zone_name: str, now: float) -> float:
    """Return the UTC seconds of a local time such as "2026-12-01 09:00".

    Raises:
        WrongUse: it cannot be read, is past, or does not exist or exists twice in that zone.
    """
    where = zone(zone_name)
    try:
        local = dt.datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise WrongUse(f"{text!r} is not a date and time", remedy=_REMEDY) from error
    if local.tzinfo is None:
        local = _placed(local, where, text)
    found = local.timestamp()
    if found < now:
        raise WrongUse(f"{text} ({zone_name}) is past", remedy="Give a time to come.")
    return found


def show(seconds: float, zone_name: str) -> str:
    """Return a moment as an operator reads it: "2026-12-01 09:00 GMT"."""
    return dt.datetime.fromtimestamp(seconds, zone(zone_name)).strftime("%Y-%m-%d %H:%M %Z")


def _placed(local: dt.datetime, where: zoneinfo.ZoneInfo, text: str) -> dt.datetime:
    """Put a clock reading into its zone; refuse one that a change of clocks skips or shows twice."""
    first = local.replace(tzinfo=where, fold=0)
    second = local.replace(tzinfo=where, fold=1)
    if first.utcoffset() == second.utcoffset():
        return first
    back = dt.datetime.fromtimestamp(first.timestamp(), where).replace(tzinfo=None)
    if back != local:
        raise WrongUse(
            f"{text} does not exist in {where.key}: the clocks skip it", remedy="Choose a time an hour later."
        )
    raise WrongUse(
        f"{text} happens twice in {where.key}: the clocks go back",
        remedy=f'Add the offset you mean, as in "{first.isoformat(" ", "minutes")}".',
    )
