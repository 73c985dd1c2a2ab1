"""Suppressions that name somebody by another tool's hash only, made ours as soon as we know the address.

Owns that step: for everybody held when such a list comes in, and for whoever is imported later. What plans,
launches and claims ask is then the person's own key. Refuses: to keep a plain hash.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from worker import disguises
from worker.addresses import Address
from worker.disguises import KINDS
from worker.sealing import Keyring, Person, SealError
from worker.store.bars import Bars
from worker.store.suppressions import Suppressions

_CHUNK = 1_000


class Recogniser:
    """Tells whom such hashes mean."""

    def __init__(self, suppressions: Suppressions, bars: Bars, keyring: Keyring) -> None:
        """Take the suppressions, whoever is held, and the keys."""
        self._suppressions = suppressions
        self._bars = bars
        self._keyring = keyring

    def kinds(self) -> Collection[str]:
        """Return the kinds of hashes that have ever come in."""
        return self._bars.met(KINDS)

    def expect(self, kinds: Collection[str]) -> None:
        """Have every import from now on look for hashes of these kinds; those under way are refused."""
        self._bars.meet(kinds)

    def everybody(self) -> int:
        """Look at everybody held; return how many suppressions are theirs now. May be repeated."""
        kinds, found = self.kinds(), 0
        for records in self._bars.records(_CHUNK):
            found += self.these((person.address for person in map(self._opened, records) if person), kinds)
        return found

    def these(self, people: Iterable[Address], kinds: Collection[str]) -> int:
        """Give these people the suppressions that stand under hashes of their addresses; return how many."""
        meant: dict[bytes, tuple[bytes, ...]] = {}
        for address in people:
            own = self._keyring.address_keys(address)
            for other in disguises.of(address, kinds):
                meant |= dict.fromkeys(self._keyring.address_keys(other), own)
        if not meant:
            return 0
        # Under every look-up key: while keys are changed, some people are still held under an older one.
        whose = ((one, meant[one.address_key]) for one in self._suppressions.standing(list(meant)))
        return self._suppressions.add([replace(one, address_key=own[0], forms=own) for one, own in whose])

    def keys(self, address: Address) -> Sequence[bytes]:
        """Return the keys under which a suppression may name this address by a hash only."""
        others = disguises.of(address, self.kinds())
        return [key for other in others for key in self._keyring.address_keys(other)]

    def _opened(self, record: tuple[int, bytes, int]) -> Person | None:
        try:
            return Person.from_bytes(self._keyring.open(record[0], record[1]))
        except SealError:
            return None
