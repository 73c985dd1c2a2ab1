"""What is done about our own faults: a relay or provider rests or slows, a campaign pauses, and why is said.

Owns how long, and the words for the operator. Refuses: deciding that something is wrong (breakers), and to
touch a delivery: nobody's state changes because of our fault.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

import structlog

from worker.breakers import Act
from worker.deliveries import Trouble
from worker.post.relay import RelayDown
from worker.routes import Way
from worker.store.ledger import Lease
from worker.throttle import Throttle

log = structlog.get_logger()

#: How long a relay that cannot be reached is left alone (seconds): at first, for it may only be restarting,
FIRST_REST_SECONDS = 2.0
#: and when that did not help, or when another can carry on.
REST_SECONDS = 30.0
#: How long a relay that does not let us in is left alone while another carries on (seconds).
LOCKED_OUT_SECONDS = 300.0
#: How long a relay that cannot keep up rests (seconds), before it goes on at half its pace.
BREATH_SECONDS = 10.0


class Alarms(Protocol):
    """Told of what stops a campaign by our own fault, and that it goes again."""

    def stop(self, campaign_id: int, notice: str) -> None:
        """Pause the campaign and say why."""

    def warn(self, campaign_id: int, notice: str) -> None:
        """Say why the campaign stands still though it runs."""

    def clear(self, campaign_id: int) -> None:
        """It goes again."""


@dataclass(frozen=True, slots=True)
class Blame:
    """What was said against us."""

    said: str  #: a slug and the reply's codes, never its text
    rest: float  #: seconds that it asks for
    provider: str  #: of the recipient for whom it was said
    hurried: Collection[str]  #: the providers that asked us to slow down


@dataclass(frozen=True, slots=True)
class Halt:
    """The batch in hand goes back to the ledger."""

    why: str
    rest: float = 0.0  #: seconds until it may be taken again


class Measures:
    """What one batch's breakers set off."""

    def __init__(self, throttle: Throttle, alarms: Alarms, lease: Lease) -> None:
        """Take what to slow, whom to tell, and the batch."""
        self._throttle = throttle
        self._alarms = alarms
        self._lease = lease

    def take(self, act: Act, way: Way, blame: Blame) -> Halt | None:
        """Do what the breakers say; return why the batch must be given back, if it must."""
        if act is Act.NOTHING:
            return None
        campaign = self._lease.campaign_id
        log.warning("our_fault", campaign=campaign, relay=way.name, act=act, said=blame.said, rest=blame.rest)
        if act is Act.SET_ASIDE:
            act = Act.REST_RELAY if way.spares else Act.PAUSE
        match act:
            case Act.PAUSE:
                self._alarms.stop(campaign, f"paused: {blame.said}; nobody was lost")
                return Halt(blame.said, blame.rest)
            case Act.REST_RELAY:
                return self._rest_relay(way, blame.said, blame.rest)
            case Act.SLOW_RELAY:
                for one in blame.hurried:
                    self._throttle.forgive(one)
                self._throttle.slow_relay(way.name, BREATH_SECONDS, blame.said)
                return Halt(blame.said)
            case Act.REST_PROVIDER:
                self._throttle.rest_provider(blame.provider, blame.rest, blame.said)
            case Act.SLOW_PROVIDER:
                self._throttle.slow_provider(blame.provider, blame.rest, blame.said)
            case _:
                self._alarms.warn(campaign, f"some mail waits: {blame.said}")
        return None

    def relay_down(self, way: Way, down: RelayDown, *, worked: bool) -> Halt:
        """Leave a relay alone that cannot be used; pause where a person must mend it and no other is left."""
        if down.trouble is not Trouble.AUTH:
            return self._rest_relay(way, f"it cannot be used: {down}", self.patience(way, worked=worked))
        if way.spares:
            return self._rest_relay(way, f"it cannot be used: {down}", LOCKED_OUT_SECONDS)
        self._alarms.stop(self._lease.campaign_id, f"paused: {way.called} cannot be used: {down}")
        return Halt("relay down")

    def patience(self, way: Way, *, worked: bool) -> float:
        """Return how long to leave a relay alone (seconds).

        Long when there was trouble as we began and nothing has `worked` since, or another can carry on.
        """
        return REST_SECONDS if way.spares or (self._lease.noticed and not worked) else FIRST_REST_SECONDS

    def _rest_relay(self, way: Way, said: str, rest: float) -> Halt:
        """Leave the relay alone for a while; the batch goes by another at once, where there is one."""
        self._throttle.rest_relay(way.name, rest, said)
        others = "; the others carry on" if way.spares else ""
        self._alarms.warn(self._lease.campaign_id, f"{way.called} rests {rest:.0f} s: {said}{others}")
        return Halt(said, 0.0 if way.spares else rest)
