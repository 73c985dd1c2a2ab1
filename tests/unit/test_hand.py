"""Whose turn it is among what a process has in hand."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from worker.hand import Hand
from worker.store.ledger import Claimed

PROVIDERS = ("google", "yahoo", "other")


def claimed(number: int, provider: str) -> Claimed:
    """A delivery in hand."""
    return Claimed(number, number, b"", 0, provider)


@given(
    st.lists(st.sampled_from(PROVIDERS), max_size=30),
    st.dictionaries(st.sampled_from(PROVIDERS), st.integers(0, 12)),
)
def test_exactly_what_was_granted_begins_in_order(people: list[str], grants: dict[str, int]) -> None:
    """For each provider the first so many, and what is left is still there."""
    hand = Hand()
    hand.take(claimed(number, provider) for number, provider in enumerate(people))
    hand.grant(grants)
    begun = []
    while (one := hand.next()) is not None:
        begun.append(one)
    here = Counter(people)
    assert Counter(one.provider for one in begun) == Counter(
        {provider: min(count, here[provider]) for provider, count in grants.items()}
    )
    for provider in PROVIDERS:
        ids = [one.id for one in begun if one.provider == provider]
        assert ids == [number for number, one in enumerate(people) if one == provider][: len(ids)]
    assert len(hand) == len(people) - len(begun)
    assert bool(hand) == (len(hand) > 0)


def test_providers_take_turns() -> None:
    """A long row for one does not hold up the others."""
    hand = Hand()
    hand.take(claimed(number, "google" if number < 4 else "yahoo") for number in range(8))
    hand.grant({"google": 4, "yahoo": 4})
    taken = [one.provider for _ in range(8) if (one := hand.next()) is not None]
    assert taken == ["google", "yahoo"] * 4


def test_what_is_dropped_or_left_never_begins() -> None:
    """Somebody said no; a provider must wait."""
    hand = Hand()
    hand.take([claimed(1, "google"), claimed(2, "google"), claimed(3, "yahoo"), claimed(4, "other")])
    hand.grant(dict.fromkeys(PROVIDERS, 9))
    assert [one.id for one in hand.drop({1, 4, 99})] == [1, 4]
    assert hand.count("google") == 1
    assert [one.id for one in hand.leave("google")] == [2]
    assert hand.wants(5) == {"yahoo": 1}
    hand.stop("yahoo")
    assert hand.next() is None
    hand.take([claimed(5, "google")])
    assert hand.next() is None  # what was granted before it left does not stand
