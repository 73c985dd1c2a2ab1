"""By which relay a batch goes: by weight among those that do not rest, with a share of its connections.

Owns the choice and the connections held over all processes. Refuses: to say when a relay rests (breakers),
and to speak to one (post).
"""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from worker.errors import Unavailable
from worker.post.relay import Relay
from worker.throttle import Throttle

#: Seconds until a process that found no connection free asks again.
NO_LINK_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Route:
    """One relay, and what part of the mail goes by it."""

    relay: Relay
    weight: float = 1.0  #: its share beside the others'; 0 = only while all others rest
    connections: int = 0  #: how many each process would like
    in_all: int = 0  #: how many all processes may hold together; 0 = any number


@dataclass(frozen=True, slots=True)
class Way:
    """The relay that one batch goes by."""

    name: str
    relay: Relay
    called: str  #: for people: "the relay", or which of several
    spares: bool  #: whether another could take over at once


def choose(weights: Mapping[str, float], dice: float) -> str:
    """Pick a relay by weight, `dice` being between 0 and 1; spares (weight 0) only when there is no other."""
    mark = dice * sum(weights.values())
    for name, weight in weights.items():
        mark -= weight
        if weight and mark <= 0:
            return name
    # The sum was rounded past the last, or all are spares.
    shares = [name for name, weight in weights.items() if weight]
    return shares[-1] if shares else next(iter(weights))


class Routes:
    """The relays of one process."""

    def __init__(self, routes: Mapping[str, Route], throttle: Throttle, dice: Callable[[], float]) -> None:
        """Take the relays by their names; nothing is opened yet."""
        self._routes = routes
        self._throttle = throttle
        self._dice = dice

    def choose(self, owner: str) -> Way | float:
        """Choose the relay for a batch; the seconds to wait when all rest or none has a connection free."""
        resting = self._throttle.resting()
        free = {name: route.weight for name, route in self._routes.items() if name not in resting}
        if not free:
            return min(resting.values())
        name = choose(free, self._dice())
        called = "the relay" if len(self._routes) == 1 else f"relay {name}"
        way = Way(name, self._routes[name].relay, called, spares=len(free) > 1)
        return way if self.renew(way, owner) else NO_LINK_SECONDS

    def renew(self, way: Way, owner: str) -> bool:
        """Ask for our share of a relay's connections, or keep it; False when none is left for us."""
        route = self._routes[way.name]
        if not route.in_all:
            return True
        route.relay.allowed = self._throttle.links(way.name, owner, route.connections, route.in_all)
        return route.relay.allowed > 0

    def leave(self, way: Way, owner: str) -> None:
        """Close a relay's connections and give our share back, where others may want it."""
        route = self._routes[way.name]
        if route.in_all:
            route.relay.close()
            with contextlib.suppress(Unavailable):  # then it comes back by itself
                self._throttle.links(way.name, owner, 0, route.in_all)

    def close(self) -> None:
        """Close every connection."""
        for route in self._routes.values():
            route.relay.close()
