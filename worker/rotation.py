"""New keys in the place of old ones, while everything runs: every record sealed anew, every hash made anew.

Owns the order: a key is known on every machine before the store says that it is in use; from then on what is
new is made with it, and what is old is renewed, some people at a time. It may be stopped anywhere, and goes
on where it was. Refuses: to drop a key. What nobody holds an address for (a "no" of somebody erased) can
never be hashed anew, and is looked for under every key we have.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from worker.bars import Bar, under
from worker.deeds import Deed
from worker.sealing import NONCE_BYTES, Keyring, Person, SealError
from worker.store.keyrings import Use
from worker.store.records import Records, Renewed, Standing, Step

#: People renewed in one transaction: nobody who writes waits for longer than that takes.
SIZE = 500
#: Seconds between two looks at those whose mail somebody had in hand.
BUSY_REST = 0.2
#: Seconds that SQLite is left to others after a step, at most: its one lock has no queue.
_MOST_REST = 0.1


class Progress(Protocol):
    """Told how far it is; the caller shows it."""

    def __call__(self, renewed: int) -> None:
        """Take the number of people renewed so far."""


@dataclass(slots=True)
class Result:
    """What a run came to."""

    renewed: int = 0  #: people
    moved: int = 0  #: suppressions found under another hash of somebody we hold
    unreadable: int = 0  #: people whose record does not open


@dataclass(frozen=True, slots=True)
class KeyState:
    """One key of the ring, and what needs it."""

    purpose: str  #: seal, lookup or mark
    id: int
    state: str  #: "in use", "waits" (not yet used), "old" or "missing" from the ring
    records: int | None = None  #: people's records or hashes; None: not of this kind
    suppressions: int | None = None

    @property
    def free(self) -> bool:
        """Whether nothing needs it any more."""
        return self.state == "old" and not self.records and not self.suppressions and self.purpose != "mark"


class Rotation:
    """The change from other keys to those that a ring has in use."""

    def __init__(
        self,
        records: Records,
        ring: Keyring,
        *,
        random: Callable[[int], bytes],
        clock: Callable[[], float],
        rest: Callable[[float], None],
    ) -> None:
        """Take the store, the ring with the keys in use that are to be, and what is neither pure nor ours."""
        self._records = records
        self.to = Use(ring.seal_keys.current, ring.lookup_keys.current)
        self._ring = ring
        self._random = random
        self._clock = clock
        self._rest = rest

    def has_begun(self) -> bool:
        """Tell whether the store uses these keys already."""
        return self._records.use() == self.to

    def left(self) -> int:
        """Return how many people have anything under an older key."""
        return self._records.left(self.to)

    def begin(self, deed: Deed) -> bool:
        """Use these keys from now on; False if they are in use already."""
        return self._records.change(self.to, self._ring.fingerprints()[self.to.lookup], deed)

    def run(self, progress: Progress, deed: Deed | None = None, *, everybody: bool = False) -> Result:
        """Renew until nobody is left; the deed is written down then.

        Args:
            progress: told how far it is.
            deed: what an operator does.
            everybody: look also for what stands under older hashes of those who are renewed already.
        """
        result = Result()
        while self._pass(result, progress, everybody=everybody):
            self._rest(BUSY_REST)
        if not everybody:
            # Once more, for what somebody wrote under a hash that they had read before it changed.
            again = Result()
            while self._pass(again, lambda _renewed: None, everybody=True):
                self._rest(BUSY_REST)
            result.moved += again.moved
        if deed is not None:
            self._records.note(
                deed.noting(renewed=result.renewed, moved=result.moved, unreadable=result.unreadable)
            )
        return result

    def _pass(self, result: Result, progress: Progress, *, everybody: bool) -> int:
        """Go through everybody once; return how many were busy."""
        after, busy, result.unreadable = 0, 0, 0
        while (step := self._step(after, everybody=everybody)).last is not None:
            after = step.last
            busy += step.busy
            result.renewed += step.renewed
            result.moved += step.moved
            result.unreadable += step.unreadable
            progress(result.renewed)
        return busy

    def _step(self, after: int, *, everybody: bool) -> Step:
        began = self._clock()
        step = self._records.renew(self.to, self._renewed, after, SIZE, everybody=everybody)
        self._rest(min(max(self._clock() - began, 0.0) / 2, _MOST_REST))
        return step

    def _renewed(self, rules: Sequence[Bar], number: int, key: bytes, sealed: bytes) -> Renewed | None:
        try:
            person = Person.from_bytes(self._ring.open(number, sealed))
        except SealError:
            return None
        today, *others = self._ring.address_keys(person.address)
        record = None
        if self._ring.needs_resealing(sealed):
            record = self._ring.seal(number, person.to_bytes(), self._random(NONCE_BYTES))
        held = {*others, key} - {today}
        barred = under(rules, person)
        shape = self._ring.shape(person, barred)
        return Renewed(number, today, sorted(held), record, key != today, shape, barred)


def states(ring: Keyring, use: Use, standing: Standing) -> Iterator[KeyState]:
    """Yield every key of a ring, and every one that the store needs and the ring lacks."""
    refusals: Counter[int] = Counter(standing.refusals)
    for purpose, keys, in_use, records, found in (
        ("seal", ring.seal_keys, use.seal, standing.sealed, None),
        ("lookup", ring.lookup_keys, use.lookup, standing.hashed, refusals),
    ):
        for number in sorted({*keys.by_id, *records, *(found or ())}):
            yield KeyState(
                purpose,
                number,
                _state(number, in_use, held=number in keys.by_id),
                records.get(number, 0),
                None if found is None else found[number],
            )
    for number in sorted(ring.mark_keys.by_id):
        yield KeyState("mark", number, "in use" if number == ring.mark_keys.current else "old")


def _state(number: int, in_use: int, *, held: bool) -> str:
    if not held:
        return "missing"
    if number == in_use:
        return "in use"
    return "waits" if number > in_use else "old"
