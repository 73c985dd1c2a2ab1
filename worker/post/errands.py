"""One call of `Relay.carry`: what the caller wants, and how far it is done.

Owns the three functions of the caller, the promise that each outcome is told once, and what failed on the
way. Refuses: to know what a connection is.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from worker.post.parcels import Lost, Outcome, Parcel
from worker.post.replies import Reply

_Args = ParamSpec("_Args")
_Result = TypeVar("_Result")

NextParcel = Callable[[], Parcel | float | None]
OnDots = Callable[[Sequence[int]], None]
OnOutcome = Callable[[int, Reply | Lost], None]


@dataclass(slots=True)
class Errand:
    """The caller's wishes, and how far they are fulfilled."""

    next_parcel: NextParcel
    on_dots: OnDots
    on_outcome: OnOutcome
    #: Seconds for which answers are still awaited after one of these functions has failed.
    drain: float
    #: No more parcels are asked for.
    drained: bool = False
    #: The last answer was a parcel, so another connection may find work.
    more: bool = False
    #: Not to be asked before this moment (monotonic seconds).
    resume_at: float = 0.0
    #: To be raised once everything in flight is settled; the first one stands.
    failure: BaseException | None = None
    #: When to stop waiting for what is in flight; None for as long as each step may take.
    give_up_at: float | None = None

    @property
    def open(self) -> bool:
        """The caller may be asked for a parcel now."""
        return not self.drained and (not self.resume_at or self.resume_at <= time.monotonic())

    def ask(self) -> Parcel | None:
        """Get the next parcel, if there is one now."""
        answer = self._call(self.next_parcel)
        self.more = False
        if isinstance(answer, Parcel):
            self.more = True
            return answer
        if answer is None:
            self.drained = True
        else:
            self.resume_at = time.monotonic() + max(answer, 0.0)
        return None

    def dots(self, parcel_ids: Sequence[int]) -> bool:
        """Say that final dots are about to leave; False when none of them must."""
        return self._call(self._dots, parcel_ids) is not None

    def tell(self, ends: Iterable[Outcome]) -> None:
        """Pass outcomes on, each once, even if the caller fails at one of them."""
        for parcel_id, end in ends:
            self._call(self.on_outcome, parcel_id, end)

    def fail(self, failure: BaseException) -> None:
        """Begin nothing more, and raise this in the end."""
        self.drained = True
        self.failure = self.failure or failure

    def _dots(self, parcel_ids: Sequence[int]) -> bool:
        self.on_dots(parcel_ids)
        return True

    def _call(
        self, function: Callable[_Args, _Result], *args: _Args.args, **named: _Args.kwargs
    ) -> _Result | None:
        """Call the caller; if that fails, what is in flight is settled before the failure comes out."""
        try:
            return function(*args, **named)
        except BaseException as failure:  # noqa: BLE001 - not swallowed: `carry` raises it in the end
            if self.give_up_at is None:
                self.give_up_at = time.monotonic() + self.drain
            self.fail(failure)
            return None
