"""One delivery: the states it may be in, the moves it may make, and what a server's reply means for it.

Owns `State`, `RetryPolicy` and `next_step`. Pure: the time and the dice are arguments. Refuses to
change a delivery for a fault of ours: it stays queued, with no attempt used, while something rests.
"""

from dataclasses import dataclass
from enum import StrEnum

from worker.post.replies import Reply, ReplyError, Trouble, scrub, sender_fault, why

__all__ = [
    "OPEN",
    "Reply",
    "ReplyError",
    "RetryPolicy",
    "State",
    "Step",
    "Trouble",
    "allowed",
    "next_step",
    "scrub",
]


class State(StrEnum):
    """Where a delivery stands. `SENT` means that the relay took it, never that it arrived."""

    QUEUED = "queued"
    SENDING = "sending"
    SENT = "sent"
    DEFERRED = "deferred"
    BOUNCED = "bounced"
    UNCONFIRMED = "unconfirmed"
    SKIPPED = "skipped"
    EXPIRED = "expired"


#: States from which the delivery still goes on by itself.
OPEN = frozenset({State.QUEUED, State.SENDING, State.DEFERRED})

#: What a known reply may make of a delivery that was being sent.
_SETTLED = frozenset({State.SENT, State.DEFERRED, State.BOUNCED, State.EXPIRED, State.QUEUED})

_MOVES: dict[State, frozenset[State]] = {
    State.QUEUED: frozenset({State.SENDING, State.SKIPPED, State.EXPIRED}),
    # Back to QUEUED: given back unsent, or refused for our own fault.
    State.SENDING: _SETTLED | {State.UNCONFIRMED, State.SKIPPED},
    State.DEFERRED: frozenset({State.SENDING, State.QUEUED, State.SKIPPED, State.EXPIRED}),
    # A sender that woke up late, a bounce or the operator may still tell how it ended, or that none began.
    State.UNCONFIRMED: _SETTLED | {State.SKIPPED},
    # Only `tocsin retry` opens these again.
    State.BOUNCED: frozenset({State.QUEUED}),
    State.EXPIRED: frozenset({State.QUEUED}),
    # A late bounce or complaint is a fact added to a sent delivery, not a move.
    State.SENT: frozenset(),
    State.SKIPPED: frozenset(),
}


def allowed(before: State, after: State) -> bool:
    """Tell whether a delivery may move from one state to the other; staying put is no move."""
    return after in _MOVES[before]


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long to wait before another try, and how often to try."""

    #: Seconds before the second attempt.
    first: float = 1200.0
    #: Each wait is this many times the one before.
    factor: float = 2.0
    #: No wait is longer than this many seconds, jitter apart.
    most: float = 14400.0
    #: Fraction by which a wait may be shorter or longer, so that deferrals do not come back in a crowd.
    jitter: float = 0.2
    #: Attempts in all.
    attempts: int = 8

    def __post_init__(self) -> None:
        """Refuse numbers that would never wait, never grow or never end."""
        if not (
            0 < self.first <= self.most and self.factor >= 1 and 0 <= self.jitter <= 1 and self.attempts >= 1
        ):
            raise ValueError(
                "a retry policy needs 0 < first <= most, factor >= 1, 0 <= jitter <= 1, attempts >= 1"
            )

    def delay(self, attempt: int, jitter: float) -> float:
        """Seconds to wait after this attempt (1 is the first), with dice between 0 and 1."""
        grown = self.first
        for _ in range(attempt - 1):
            grown *= self.factor
            if grown >= self.most or self.factor == 1:
                break
        return min(grown, self.most) * (1 + self.jitter * (2 * jitter - 1))


@dataclass(frozen=True, slots=True)
class Step:
    """What becomes of a delivery after a reply. With a `trouble` the state is always `QUEUED`."""

    #: The state to settle in.
    state: State
    #: Slug of at most 40 characters, for counts and reports.
    reason: str
    #: When to try again (same clock as `now`), for `DEFERRED` only.
    due_at: float | None = None
    #: Our own fault, if it is one: the delivery is unchanged and its attempt is not used up.
    trouble: Trouble | None = None
    #: Seconds the relay, provider or campaign should rest; 0 without trouble.
    wait: float = 0.0


_SENT = Step(State.SENT, "accepted")
_CLOSING = 421


def next_step(
    reply: Reply,
    *,
    attempt: int,
    now: float,
    deadline: float | None,
    jitter: float,
    policy: RetryPolicy,
) -> Step:
    """Decide what a reply means for the delivery it was given to.

    Args:
        reply: the answer that settled the transaction.
        attempt: which attempt it answers; 1 is the first.
        now: seconds on any clock, the same as the deadline's.
        deadline: after this moment nothing may be sent; None for no limit.
        jitter: dice between 0 and 1.
        policy: how to retry.
    """
    if reply.accepted:
        return _SENT
    fault = sender_fault(reply)
    if fault is not None:
        return Step(State.QUEUED, fault.reason, trouble=fault.trouble, wait=fault.rest)
    if reply.permanent:
        return Step(State.BOUNCED, why(reply))
    if not reply.temporary:
        return Step(State.UNCONFIRMED, "not-an-outcome")  # a 3xx can end no transaction
    due_at = now + policy.delay(attempt, jitter)
    given_up = attempt >= policy.attempts
    if given_up or (deadline is not None and due_at > deadline):
        return Step(State.EXPIRED, "attempts" if given_up else "deadline")
    return Step(State.DEFERRED, "closing" if reply.code == _CLOSING else why(reply), due_at)
