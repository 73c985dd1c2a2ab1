"""The states of a delivery, and what a reply makes of it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.deliveries import OPEN, Reply, RetryPolicy, State, Step, Trouble, allowed, next_step

#: Several people share the machine: no test fails for being slow.
CALM = settings(deadline=None)

POLICY = RetryPolicy()
FINAL = st.integers(200, 599).filter(lambda code: not 300 <= code < 400)
STATUSES = st.one_of(
    st.just(""), st.builds("{}.{}.{}".format, st.sampled_from("245"), st.integers(0, 9), st.integers(0, 600))
)
TEXTS = st.sampled_from(
    ["", "user unknown", "rate limit", "[TSS04]", "relay access denied", "quota", "greylisted"]
)
REPLIES = st.builds(Reply, FINAL, STATUSES, TEXTS)


@st.composite
def policies(draw: st.DrawFn) -> RetryPolicy:
    """Any sane retry policy."""
    first = draw(st.floats(1, 10_000))
    return RetryPolicy(
        first=first,
        factor=draw(st.floats(1, 10)),
        most=first * draw(st.floats(1, 100)),
        jitter=draw(st.floats(0, 0.9)),
        attempts=draw(st.integers(1, 20)),
    )


def step(reply: Reply, *, attempt: int = 1, deadline: float | None = None) -> Step:
    """Ask at time 1000, with the dice in the middle."""
    return next_step(reply, attempt=attempt, now=1000.0, deadline=deadline, jitter=0.5, policy=POLICY)


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (Reply(250, "2.0.0", "Ok"), Step(State.SENT, "accepted")),
        (Reply(451, "4.3.0", "busy"), Step(State.DEFERRED, "refused", 2200.0)),
        (Reply(450, "4.7.1", "Greylisted"), Step(State.DEFERRED, "greylisted", 2200.0)),
        (Reply(452, "4.2.2", "full"), Step(State.DEFERRED, "quota", 2200.0)),
        (Reply(421, "4.3.2", "shutting down"), Step(State.DEFERRED, "closing", 2200.0)),
        (Reply(550, "5.1.1", "unknown"), Step(State.BOUNCED, "no-mailbox")),
        (Reply(552, "5.3.4", "too big"), Step(State.BOUNCED, "too-big")),
        (Reply(354, "", "go on"), Step(State.UNCONFIRMED, "not-an-outcome")),
        (
            Reply(550, "5.7.515", "no"),
            Step(State.QUEUED, "microsoft-unauthenticated", trouble=Trouble.SENDER, wait=3600.0),
        ),
        (
            Reply(535, "5.7.8", "no"),
            Step(State.QUEUED, "auth-failed", trouble=Trouble.AUTH, wait=300.0),
        ),
    ],
)
def test_next_step(reply: Reply, expected: Step) -> None:
    """Each class of reply leads to its own state, and only our fault asks for a rest."""
    assert step(reply) == expected


def test_attempts_run_out() -> None:
    """The last attempt that is put off expires."""
    assert step(Reply(450), attempt=7).state is State.DEFERRED
    assert step(Reply(450), attempt=8) == Step(State.EXPIRED, "attempts")


def test_deadline() -> None:
    """A next try after the deadline expires at once; one before it is kept."""
    assert step(Reply(450), deadline=2199.9) == Step(State.EXPIRED, "deadline")
    assert step(Reply(450), deadline=2200.0).state is State.DEFERRED


@pytest.mark.parametrize(
    "values",
    [
        {"first": 0},
        {"first": 10, "most": 5},
        {"factor": 0.5},
        {"jitter": 1.1},
        {"jitter": -0.1},
        {"attempts": 0},
    ],
)
def test_policy_refuses_nonsense(values: dict[str, float]) -> None:
    """A policy that would never wait, grow or end cannot be made."""
    with pytest.raises(ValueError, match="retry policy"):
        RetryPolicy(**values)  # type: ignore[arg-type]  # the table mixes ints and floats


@CALM
@given(policies(), st.integers(1, 50), st.floats(0, 1))
def test_delay_bounds(policy: RetryPolicy, attempt: int, dice: float) -> None:
    """A delay stays within its jitter, never shrinks with the attempts, and never passes the most."""
    delay = policy.delay(attempt, dice)
    low, high = 1 - policy.jitter, 1 + policy.jitter
    assert policy.first * low * 0.999 <= delay <= policy.most * high * 1.001
    assert delay <= policy.delay(attempt + 1, dice)


@CALM
@given(REPLIES, policies(), st.integers(1, 30), st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0, 1))
def test_next_step_law(
    reply: Reply, policy: RetryPolicy, attempt: int, now: float, left: float, dice: float
) -> None:
    """A reply leads to a legal move, never past the deadline, and our fault changes no recipient."""
    deadline = now + left
    got = next_step(reply, attempt=attempt, now=now, deadline=deadline, jitter=dice, policy=policy)
    assert allowed(State.SENDING, got.state)
    assert len(got.reason) <= 40
    assert (got.due_at is not None) == (got.state is State.DEFERRED)
    assert got.due_at is None or now < got.due_at <= deadline
    assert (got.trouble is not None) == (got.state is State.QUEUED) == (got.wait > 0)
    assert (got.state is State.SENT) == reply.accepted
    if got.state is State.BOUNCED:
        assert reply.permanent


@CALM
@given(st.lists(st.sampled_from(State), max_size=12))
def test_moves(path: list[State]) -> None:
    """What was sent or skipped stays so, and nothing is sent or in doubt unless it was begun."""
    state = State.QUEUED
    for wanted in path:
        if not allowed(state, wanted):
            continue
        assert state not in {State.SENT, State.SKIPPED}
        assert wanted is not State.SENT or state in {State.SENDING, State.UNCONFIRMED}
        assert wanted is not State.UNCONFIRMED or state is State.SENDING
        state = wanted


def test_every_open_state_can_end() -> None:
    """Nothing open is a trap, and staying put is no move."""
    assert all(any(allowed(state, end) for end in State if end not in OPEN) for state in OPEN)
    assert not any(allowed(state, state) for state in State)
