"""When refusals and lost links are no longer the recipients' affair: what then rests, slows or stops.

Pure: counts what happened in a row, and says what to do. Refuses: doing it (dispatch), and reading replies
(replies). Behind a relay that asks the recipient's server before it answers, one hostile server could stop a
campaign by its words alone; so a single reply is believed only where it can hurt nobody else.
"""

from enum import StrEnum

from worker.deliveries import Trouble
from worker.providers import OTHER

#: Links lost one after another, with nothing accepted between, before the relay is left alone.
LOST_IN_A_ROW = 5
#: Refusals for our own fault, one after another, before they are believed.
BLAMED_IN_A_ROW = 3
#: Recipients refused one after another, with nothing accepted between, before a person should look.
REFUSED_IN_A_ROW = 50

#: Refusals that a fault of ours, or of the relay, may stand behind, though the reply does not say so.
DOUBTFUL = frozenset({"policy", "content", "refused", "too-big", "loop", "no-route"})


class Act(StrEnum):
    """What to do about it."""

    NOTHING = "nothing"
    WARN = "warn"  #: say it; this mail waits, the rest goes on
    PAUSE = "pause"  #: the campaign, until a person resumes it
    SET_ASIDE = "set aside"  #: this relay does not let us in: go by another, or pause
    REST_RELAY = "rest relay"
    SLOW_RELAY = "slow relay"
    REST_PROVIDER = "rest provider"
    SLOW_PROVIDER = "slow provider"


class Breakers:
    """What happened in a row to one batch in one process."""

    def __init__(self) -> None:
        """Begin with nothing in a row."""
        self._lost = 0
        self._blamed = 0
        self._refused = 0
        self._hurried: dict[str, int] = {}

    def accepted(self, provider: str) -> None:
        """Note that a mail was taken: whatever came before was no row."""
        self._lost = self._blamed = self._refused = 0
        self._hurried.pop(provider, None)

    def lost(self) -> Act:
        """Note a lost link."""
        self._lost += 1
        return Act.REST_RELAY if self._lost >= LOST_IN_A_ROW else Act.NOTHING

    def refused(self) -> Act:
        """Note a recipient refused for good."""
        self._refused += 1
        return Act.PAUSE if self._refused >= REFUSED_IN_A_ROW else Act.NOTHING

    def blamed(self, trouble: Trouble, provider: str) -> Act:
        """Note a reply that names our fault, given for a recipient at `provider`."""
        if trouble is Trouble.RATE:
            return self._too_fast(provider)
        if trouble is Trouble.BLOCKED:  # "other" is many servers: one of them must not stop the rest
            return Act.WARN if provider == OTHER else Act.REST_PROVIDER
        self._blamed += 1
        if self._blamed < BLAMED_IN_A_ROW:
            return Act.WARN
        if trouble is Trouble.AUTH:
            return Act.SET_ASIDE
        return Act.PAUSE if trouble is Trouble.SENDER else Act.REST_RELAY

    @property
    def hurried(self) -> tuple[str, ...]:
        """Return the providers that asked us to slow down and have taken nothing since."""
        return tuple(self._hurried)

    def _too_fast(self, provider: str) -> Act:
        self._hurried[provider] = self._hurried.get(provider, 0) + 1
        if len(self._hurried) > 1:  # several at once: it is the relay that cannot keep up
            return Act.SLOW_RELAY
        if provider == OTHER and self._hurried[provider] < BLAMED_IN_A_ROW:
            return Act.WARN
        return Act.SLOW_PROVIDER
