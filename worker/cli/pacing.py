"""What does not go at its full pace, and why: relays and providers that rest or were slowed by a refusal.

Refuses: to change it. Redis being away is no error here: then nothing is known, and nothing is sent either.
"""

import datetime as dt
from collections.abc import Mapping, Sequence

from worker.errors import Unavailable
from worker.throttle import Strain
from worker.wiring import Wiring


def strains(tocsin: Wiring) -> Sequence[Strain]:
    """Return what rests or goes slowly now."""
    try:
        return tocsin.throttle.strains()
    except Unavailable:
        return []


def line(strain: Strain) -> str:
    """Say one of them in a line: "google rests 0:04:10, then 12.5 a second: rate-limit (421 4.7.28)"."""
    name = f"relay {strain.name}" if strain.kind == "relay" else strain.name
    does = []
    if strain.rest > 0:
        does.append(f"rests {dt.timedelta(seconds=round(strain.rest) or 1)}")
    if strain.pace > 0:
        does.append(f"{strain.pace:.3g} a second, growing")
    return f"{name} {', then '.join(does)}: {strain.why}"


def facts(strain: Strain) -> Mapping[str, object]:
    """Return one of them for programs; seconds, and mails a second."""
    return {
        "kind": strain.kind,
        "name": strain.name,
        "rests": round(strain.rest, 1),
        "pace": round(strain.pace, 2) or None,
        "why": strain.why,
    }
