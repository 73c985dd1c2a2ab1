"""By which relay a batch goes."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from worker.routes import choose


@given(st.dictionaries(st.text(), st.floats(0, 10), min_size=1), st.floats(0, 1))
def test_a_spare_is_chosen_only_when_there_is_nothing_else(weights: dict[str, float], dice: float) -> None:
    """Whatever the dice, one of those with a share, if there is one."""
    shares = [name for name, weight in weights.items() if weight]
    assert choose(weights, dice) in (shares or weights)


def test_the_dice_follow_the_weights() -> None:
    """Three to one."""
    found = Counter(choose({"a": 3.0, "b": 1.0, "spare": 0.0}, n / 1000) for n in range(1001))
    assert abs(found["a"] - 750) <= 2
    assert found["spare"] == 0
