"""One call of `Relay.carry`: what the caller wants, and how far it is done.

Owns the three functions of the caller and the promise that each outcome is told once. Refuses: to know
what a connection is.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from worker.endpoints import RelayDown
from worker.parcels import Lost, Outcome, Parcel
from worker.replies import Reply

NextParcel = Callable[[], Parcel | float | None]
OnDot = Callable[[int], None]
OnOutcome = Callable[[int, Reply | Lost], None]


@dataclass(slots=True)
class Errand:
    """The caller's wishes, and how far they are fulfilled."""

    next_parcel: NextParcel
    on_dot: OnDot
    on_outcome: OnOutcome
    #: No more parcels are asked for.
    drained: bool = False
    #: The last answer was a parcel, so another connection may find work.
    more: bool = False
    #: Not to be asked before this moment (monotonic seconds).
    resume_at: float = 0.0
    #: One of the caller's functions is running, or has failed.
    calling: bool = False
    #: Raised once everything in flight is settled.
    failure: RelayDown | None = None
    #: When to stop waiting for what is in flight; None for as long as each step may take.
    give_up_at: float | None = None
    _ends: deque[Outcome] = field(default_factory=deque)

    @property
    def open(self) -> bool:
        """The caller may be asked for a parcel now."""
        return not self.drained and (not self.resume_at or self.resume_at <= time.monotonic())

    def ask(self) -> Parcel | None:
        """Get the next parcel, if there is one now."""
        self.calling = True
        answer = self.next_parcel()
        self.calling = False
        self.more = False
        if isinstance(answer, Parcel):
            self.more = True
            return answer
        if answer is None:
            self.drained = True
        else:
            self.resume_at = time.monotonic() + max(answer, 0.0)
        return None

    def dot(self, parcel_id: int) -> None:
        """Say that a final dot is about to leave."""
        self.calling = True
        self.on_dot(parcel_id)
        self.calling = False

    def tell(self, ends: Iterable[Outcome] = ()) -> None:
        """Pass outcomes on, each once, even if the caller fails at one of them."""
        self._ends.extend(ends)
        while self._ends:
            parcel_id, end = self._ends.popleft()
            self.calling = True
            self.on_outcome(parcel_id, end)
            self.calling = False

    def fail(self, failure: RelayDown) -> None:
        """Ask for no more, and raise this in the end; the first failure stands."""
        self.drained = True
        self.failure = self.failure or failure

    def wind_up(self, give_up_at: float) -> None:
        """Begin nothing more after a failure of the caller's; what flies may still land until then."""
        self.calling = False
        self.drained = True
        self.give_up_at = give_up_at
        self.tell()
