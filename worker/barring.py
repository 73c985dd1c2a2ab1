"""A never-mail rule put in force: written down first, then everybody looked at once, for plans to count.

Owns the order of that, so that from the first moment nobody whom a rule holds for is mailed. Refuses: to
change a record (it gives people another shape, no other content).
"""

from collections.abc import Callable, Iterator, Sequence

from worker.bars import Bar, under
from worker.deeds import Deed
from worker.sealing import Keyring, Person, SealError
from worker.store.bars import Bars, Marked, Record

#: Records looked at in one go; a change of theirs is one transaction.
_CHUNK = 2_000


class Barring:
    """The never-mail rules, as an operator changes them."""

    def __init__(self, bars: Bars, keyring: Keyring, clock: Callable[[], float]) -> None:
        """Take the rules' rows and the keys."""
        self._bars = bars
        self._keyring = keyring
        self._clock = clock

    def add(self, bar: Bar, deed: Deed) -> int:
        """Put a rule in force and count whom it holds for; return how many people that is.

        May be repeated, and has to be where it was stopped: until all are counted no campaign is planned.
        """
        made = self._bars.add(bar, self._clock(), deed)
        bars = self._bars.book().bars
        held = sum(self._mark(made, bars, records) for records in self._bars.records(_CHUNK))
        self._bars.counted(made.id)
        return held

    def _mark(self, bar: Bar, bars: Sequence[Bar], records: Sequence[Record]) -> int:
        """Mark whom the rule holds for; whoever changes meanwhile is looked at again."""
        held = set[int]()
        while records:
            found = list(self._held(bar, bars, records))
            held |= {one.person_id for one in found}
            missed = self._bars.mark(found) if found else ()
            held.difference_update(missed)
            records = self._bars.again(missed) if missed else ()
        return len(held)

    def _held(self, bar: Bar, bars: Sequence[Bar], records: Sequence[Record]) -> Iterator[Marked]:
        for one in records:
            try:
                person = Person.from_bytes(self._keyring.open(one.id, one.sealed))
            except SealError:  # nobody can write to them; a claim says so
                continue
            if bar.holds(person):
                rules = under(bars, person)
                yield Marked(one.id, one.version, self._keyring.shape(person, rules), rules)
