"""The relay: takes parcels to the mail server, over several connections at once.

Owns the promise to the caller: every parcel handed out has exactly one outcome, and none is guessed. The
body of one mail and the envelope of the next leave in one write (`smtp`); one thread drives all connections
(`fleet`). Refuses: to retry, to pace and to say what an answer means for a recipient (`deliveries` does).
"""

import contextlib

from worker.post.endpoints import Endpoint, RelayDown, Timeouts
from worker.post.errands import Errand, NextParcel, OnDots, OnOutcome
from worker.post.fleet import Fleet
from worker.post.handshake import Greeter, greet, trust
from worker.post.parcels import Lost, Offer, Parcel

__all__ = ["Endpoint", "Lost", "Offer", "Parcel", "Relay", "RelayDown", "Timeouts"]


class Relay:
    """Carries parcels to one relay. For one thread; nothing is opened before there is something to carry.

    Connections stay open from one call of `carry` to the next. They must not cross a fork.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        """Take the address; nothing is connected yet."""
        self._endpoint = endpoint
        self._fleet: Fleet | None = None
        self.allowed = endpoint.connections  #: how many connections it may hold, of those that are set

    def carry(self, next_parcel: NextParcel, on_dots: OnDots, on_outcome: OnOutcome) -> None:
        """Carry all parcels that the caller has, and return when each is settled.

        Args:
            next_parcel: gives a parcel to send, or the seconds after which to ask again, or None for "no
                more". It is asked only when a connection can take a parcel at once.
            on_dots: called with parcels' ids just before the writes that hold their final dots, one on each
                connection at most.
            on_outcome: called exactly once for each parcel that was handed out.

        Raises:
            RelayDown: no connection can be opened, or none holds; all that was handed out is settled.
            WrongUse: the file of trusted certificates cannot be read; nothing was asked for.

        What one of the three functions raises comes out of here: nothing more begins, the answers to what is
        in flight are awaited for a short while, and the rest is told as `Lost`. When anything else stops us
        (a signal's exception), that is told at once.
        """
        if self._fleet is None:
            self._fleet = Fleet(self._endpoint, trust(self._endpoint))
        self._fleet.allow(self.allowed)
        errand = Errand(next_parcel, on_dots, on_outcome, self._endpoint.timeouts.drain)
        try:
            self._fleet.carry(errand)
        finally:
            self._fleet.stop(errand)
        if errand.failure is not None:
            raise errand.failure

    def close(self) -> None:
        """Close all connections, politely where possible. May be called twice, and `carry` after it."""
        if self._fleet is not None:
            self._fleet.close()
            self._fleet = None

    def probe(self) -> Offer:
        """Open one connection, say what the server offers after TLS and AUTH, and close it.

        Raises:
            RelayDown: it cannot be opened.
        """
        greeter = Greeter(self._endpoint)
        offer = greet(self._endpoint, trust(self._endpoint), greeter)
        with contextlib.suppress(OSError):
            greeter.putcmd("QUIT")
        greeter.close()
        return offer
