"""What a file's word for a basis means in law, and what a policy says of itself."""

import pytest

from worker.policies import Policy, ground, told


@pytest.mark.parametrize(
    ("basis", "means"),
    [
        ("", ""),
        ("Consent", "consent"),
        ("explicit consent (GDPR 9)", "consent"),
        ("Einwilligung", "consent"),
        ("согласие", "consent"),
        ("soft opt-in", "soft"),
        ("Charitable purpose soft-opt-in", "charity"),
        ("legitimate interest", "other"),
    ],
)
def test_a_basis_is_known_by_its_words(basis: str, means: str) -> None:
    """In the languages that lists come in; what is not known is no consent."""
    assert ground(basis) == means


def test_a_policy_is_stored_whole_and_the_least_one_is_empty() -> None:
    """What comes back is what was set; a list without one asks for the least."""
    policy = Policy(("consent", "charity"), confirmed=True, wording=True, offered=True, special=True)
    assert Policy.from_json(policy.to_json()) == policy
    assert Policy.from_json("") == Policy()
    assert not Policy(special=True).is_set
    assert len(list(told(policy))) == 7
