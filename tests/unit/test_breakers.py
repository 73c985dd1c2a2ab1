"""What happens in a row, and what it makes us do."""

import pytest

from worker.breakers import BLAMED_IN_A_ROW, LOST_IN_A_ROW, REFUSED_IN_A_ROW, Act, Breakers
from worker.deliveries import Trouble


@pytest.mark.parametrize(
    ("trouble", "provider", "acts"),
    [
        (Trouble.AUTH, "google", [Act.WARN, Act.WARN, Act.SET_ASIDE]),
        (Trouble.SENDER, "google", [Act.WARN, Act.WARN, Act.PAUSE]),
        (Trouble.RELAY, "other", [Act.WARN, Act.WARN, Act.REST_RELAY]),
        (Trouble.RATE, "google", [Act.SLOW_PROVIDER, Act.SLOW_PROVIDER]),
        (Trouble.RATE, "other", [Act.WARN, Act.WARN, Act.SLOW_PROVIDER]),
        (Trouble.BLOCKED, "yahoo", [Act.REST_PROVIDER]),
        (Trouble.BLOCKED, "other", [Act.WARN, Act.WARN, Act.WARN, Act.WARN]),
    ],
)
def test_blame_is_believed_where_it_hurts_nobody_else(
    trouble: Trouble, provider: str, acts: list[Act]
) -> None:
    """A large provider speaks for itself at once; anybody else only in a row."""
    breakers = Breakers()
    assert [breakers.blamed(trouble, provider) for _ in acts] == acts


def test_a_success_ends_every_row() -> None:
    """Rows count only what nothing good came between."""
    breakers = Breakers()
    for _ in range(3):
        for _ in range(LOST_IN_A_ROW - 1):
            assert breakers.lost() is Act.NOTHING
        for _ in range(BLAMED_IN_A_ROW - 1):
            assert breakers.blamed(Trouble.SENDER, "other") is Act.WARN
        for _ in range(REFUSED_IN_A_ROW - 1):
            assert breakers.refused() is Act.NOTHING
        breakers.accepted("other")
    for _ in range(LOST_IN_A_ROW - 1):
        breakers.lost()
    assert breakers.lost() is Act.REST_RELAY
    for _ in range(REFUSED_IN_A_ROW - 1):
        breakers.refused()
    assert breakers.refused() is Act.PAUSE


def test_two_providers_at_once_mean_the_relay() -> None:
    """Unless the first has taken mail again since."""
    breakers = Breakers()
    assert breakers.blamed(Trouble.RATE, "google") is Act.SLOW_PROVIDER
    breakers.accepted("google")
    assert breakers.blamed(Trouble.RATE, "yahoo") is Act.SLOW_PROVIDER
    assert breakers.blamed(Trouble.RATE, "google") is Act.SLOW_RELAY
    assert set(breakers.hurried) == {"google", "yahoo"}
