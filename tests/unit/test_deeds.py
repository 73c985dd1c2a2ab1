"""The chain of the audit log: whatever is done to it but at its end is found, at the first wrong entry."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.deeds import BEGINNING, Action, Deed, Entry, link, verify

_FACTS = st.dictionaries(st.text(max_size=8), st.none() | st.integers() | st.text(max_size=8), max_size=3)
_DEEDS = st.builds(
    Deed,
    at=st.floats(0, 4e9),
    operator=st.text(max_size=8),
    action=st.sampled_from(Action),
    subject=st.text(max_size=8),
    details=_FACTS,
)
_PLACES = st.integers(0, 10**6)


def _chain(deeds: Sequence[Deed]) -> list[Entry]:
    chain: list[Entry] = []
    for number, deed in enumerate(deeds, 1):
        chain.append(link(deed, number, chain[-1].hash if chain else BEGINNING))
    return chain


_CHAINS = st.lists(_DEEDS, min_size=2, max_size=8).map(_chain)


@given(_CHAINS)
def test_a_chain_as_it_was_written_holds(chain: list[Entry]) -> None:
    """Its head is the last entry's, and every hash in it may have been kept."""
    verdict = verify(chain, counted=len(chain))
    assert (verdict.holds, verdict.number, verdict.head) == (True, len(chain), chain[-1].hash)
    assert all(verify(chain, kept=one.hash).holds for one in chain)


def test_no_entry_at_all_holds() -> None:
    """A store in which nobody has done anything has a head too."""
    assert verify([], counted=0, kept=BEGINNING).holds


@given(_CHAINS, _PLACES, st.data())
def test_a_changed_entry_is_found(chain: list[Entry], place: int, data: st.DataObject) -> None:
    """Any field of any entry, even when its own hash is made anew; the last one's hash is the operator's."""
    place %= len(chain)
    old = chain[place]
    new = data.draw(
        st.one_of(
            st.floats(0, 4e9).map(lambda at: replace(old, at=at)),
            st.text().map(lambda text: replace(old, operator=text)),
            st.text().map(lambda text: replace(old, action=text)),
            st.text().map(lambda text: replace(old, subject=text)),
            st.text().map(lambda text: replace(old, details=text)),
            st.text().map(lambda text: replace(old, previous=text)),
            st.integers().map(lambda number: replace(old, number=number)),
            st.text().map(lambda text: replace(old, hash=text)),
        ).filter(lambda new: new != old)
    )
    verdict = verify([*chain[:place], new, *chain[place + 1 :]])
    assert not verdict.holds
    # A false hash shows at its own entry, never later.
    assert verdict.broken == place + 1


@given(_CHAINS, _PLACES, st.text(max_size=8))
def test_a_forger_who_makes_the_hash_anew_is_found_at_the_next_entry(
    chain: list[Entry], place: int, name: str
) -> None:
    """An entry written again in somebody else's name no longer bears the one after it."""
    place %= len(chain) - 1
    old = chain[place]
    deed = Deed(old.at, f"{old.operator}{name}!", old.action, old.subject)
    forged = link(deed, old.number, old.previous)
    verdict = verify([*chain[:place], forged, *chain[place + 1 :]])
    assert verdict.broken == place + 2


@given(_CHAINS, _PLACES)
def test_a_removed_entry_is_found(chain: list[Entry], place: int) -> None:
    """In the middle by the next one, at the end by the counter and by a head that was kept."""
    place %= len(chain)
    rest = chain[:place] + chain[place + 1 :]
    assert verify(rest, counted=len(chain)).broken == place + 1
    assert not verify(rest, kept=chain[-1].hash).holds


@given(_CHAINS, _PLACES, _PLACES)
def test_entries_in_another_order_are_found(chain: list[Entry], one: int, other: int) -> None:
    """Two that have changed places, renumbered or not."""
    one, other = sorted((one % len(chain), other % len(chain)))
    if one == other:
        return
    moved = list(chain)
    moved[one], moved[other] = moved[other], moved[one]
    assert verify(moved).broken == one + 1
    numbered = [replace(entry, number=number) for number, entry in enumerate(moved, 1)]
    assert verify(numbered).broken == one + 1


@given(_CHAINS, _PLACES, _DEEDS)
def test_an_entry_slipped_in_is_found(chain: list[Entry], place: int, deed: Deed) -> None:
    """Though it follows its neighbour, what comes after does not follow it."""
    place %= len(chain)
    extra = link(deed, place + 1, chain[place - 1].hash if place else BEGINNING)
    shifted = [replace(entry, number=entry.number + 1) for entry in chain[place:]]
    for tail in (chain[place:], shifted):
        verdict = verify([*chain[:place], extra, *tail])
        assert verdict.broken in {place + 1, place + 2}


@given(_CHAINS, _DEEDS)
def test_a_chain_written_anew_is_found_by_whoever_kept_a_head(chain: list[Entry], deed: Deed) -> None:
    """Hashes need no key, so a whole new chain holds by itself; the head that was kept is not in it."""
    anew = _chain([replace(deed, operator=f"{deed.operator}{entry.operator}!") for entry in chain])
    assert verify(anew).holds
    assert not verify(anew, kept=chain[-1].hash).holds


@pytest.mark.parametrize("details", ["", "nonsense", "[1]", "null", "\x00"])
def test_spoilt_details_can_still_be_shown(details: str) -> None:
    """A log that somebody has spoilt is read all the same."""
    entry = replace(link(Deed(1.0, "alice", Action.PAUSE, "one-1"), 1, BEGINNING), details=details)
    assert entry.facts == {"spoilt": details}


@given(_CHAINS, _PLACES, st.integers(0, 3), st.sampled_from(["said", "unsaid", "further", "forged"]))
def test_a_beginning_may_be_missing_only_where_a_later_entry_says_so(
    chain: list[Entry], place: int, more: int, how: str
) -> None:
    """With the number and the hash of the last that went; one entry more, or another hash, is a finding."""
    last = chain[place % len(chain)]
    cut = {"cut": last.number, "head": last.hash if how != "forged" else "f" * 64}
    action = Action.RETENTION if how != "unsaid" else Action.PAUSE
    for deed in (Deed(1.0, "x", Action.PAUSE), Deed(1.0, "(the timer)", action, "audit", cut)):
        chain = [*chain, link(deed, len(chain) + 1, chain[-1].hash)]
    for _ in range(more):
        chain = [*chain, link(Deed(2.0, "x", Action.PAUSE), len(chain) + 1, chain[-1].hash)]
    rest = chain[last.number + (how == "further") :]
    verdict = verify(rest, counted=len(chain), kept=chain[-1].hash)
    if how == "said":
        assert (verdict.holds, verdict.number, verdict.first) == (True, len(chain), last.number + 1)
        # What stood there is not in it any more, and the answer says why.
        assert "its time was over" in verify(rest, kept="0" * 63 + "1").why
    else:
        assert (verdict.holds, verdict.broken) == (False, 1)
