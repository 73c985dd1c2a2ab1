"""How often one network may try links that are not ours, counted in Redis without keeping an address.

Owns what a network is, and the count. Refuses: to stand in the way of a link that is ours (it is never
asked about one), and to need Redis: without it everybody passes.
"""

import ipaddress
import math
import time
from collections.abc import Callable
from typing import Final

import redis
import structlog

from worker.errors import Unavailable

log = structlog.get_logger()

#: Wrong links that one network may try in a window, and the window's seconds. A family behind one address
#: with a mangled link each is far below it; for a mark, 2^96 guesses are needed.
MOST: Final = 100
WINDOW: Final = 600
#: Sign-ups from one network in a window: a stall's tablet is below it.
ENTRIES_MOST: Final = 30
#: Seconds for which Redis is left alone after it did not answer.
_REST: Final = 5.0
_PREFIX: Final = "tocsin:turnstile:"
#: Leading bits that tell one network from another, as they are given out to one customer.
_BITS: Final = {4: 24, 6: 48}


def network_of(address: str) -> str:
    """Return the network of an IP address: its /24, or its /48 in IPv6; "" for what is no address."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped:
        found = found.ipv4_mapped
    return str(ipaddress.ip_network((found, _BITS[found.version]), strict=False))


class Turnstile:
    """Counts by network, for all web processes together."""

    def __init__(self, connect: Callable[[], "redis.Redis"], hashed: Callable[[str], bytes]) -> None:
        """Take what makes a client of Redis with little patience, and the keyed hash of a network's name."""
        self._connect = connect
        self._client: redis.Redis | None = None
        self._hashed = hashed
        self._rests_until = -math.inf

    def guessed(self, address: str) -> int:
        """Count a wrong link from this IP address; return the seconds to wait once there were too many."""
        return self._counted(address, "", MOST)

    def entered(self, address: str) -> int:
        """Count what was entered in a form from this IP address; the same."""
        return self._counted(address, "entered ", ENTRIES_MOST)

    def _counted(self, address: str, what: str, most: int) -> int:
        network = network_of(address)
        if not network or time.monotonic() < self._rests_until:
            return 0
        try:
            count, left = self._count(_PREFIX + self._hashed(what + network).hex())
        except (redis.RedisError, Unavailable) as error:
            # Made anew the next time: a Redis of our own may come back at another place.
            self._client, self._rests_until = None, time.monotonic() + _REST
            log.warning("turnstile_open", kind=type(error).__name__)
            return 0
        return max(left, 1) if count > most else 0

    def _count(self, key: str) -> tuple[int, int]:
        if self._client is None:
            self._client = self._connect()
        with self._client.pipeline(transaction=True) as pipe:
            # The first of a window sets its end; those after it do not move it.
            pipe.set(key, 0, ex=WINDOW, nx=True)
            pipe.incr(key)
            pipe.ttl(key)
            _, count, left = pipe.execute()
        return count, left
