"""Links that lead by a page of ours, which counts them: by campaign, variant and link, and never by reader.

Owns the way from such a link's mark to its target. Refuses: to lead anywhere that the approved content does
not (an open redirect would lend our name to anybody), and to keep when, from where or by whom a link was
followed. A mail filter that opens every link counts as a reader does.
"""

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from worker.content.editions import Edition, Visit
from worker.content.rendering import Renderer
from worker.errors import Refused, Unavailable
from worker.store.visits import Followed
from worker.store.visits import Visits as Store
from worker.tokens import Marks, Purpose

#: Seconds in which counts are gathered: mail filters follow the links of thousands of mails at once, and the
#: opt-outs need the database more than this does. A process that dies takes the last ones with it.
_GATHER_SECONDS = 2.0
#: Variants of campaigns whose targets one process keeps.
_KEPT = 64


@dataclass(frozen=True, slots=True)
class Line:
    """How often one link was followed."""

    variant: str  #: of the mail: "en", "en discreet"
    link: int  #: its number in the mail
    target: str  #: where it leads
    count: int


class Visits:
    """Tells where a counted link leads, and counts it."""

    def __init__(
        self, marks: Marks, frozen: Callable[[int], str], store: Store, clock: Callable[[], float]
    ) -> None:
        """Take what reads a campaign's frozen edition by its id, where the counts go, and the clock."""
        self._marks, self._frozen, self._store, self._clock = marks, frozen, store, clock
        self._gathered = Counter[Followed]()
        self._lock = threading.Lock()
        self._written_at = clock()
        self._variant = lru_cache(_KEPT)(self._read_variant)

    def target(self, token: str) -> str | None:
        """Return where a link leads; None if it is not ours. Counts nothing."""
        found = self._found(token)
        return found[1] if found else None

    def follow(self, token: str) -> str | None:
        """Return where a link leads and count it; None if it is not ours.

        Raises:
            Unavailable: the database is away, and this process has not led anybody there yet.
        """
        found = self._found(token)
        if found is None:
            return None
        with self._lock:
            self._gathered[found[0]] += 1
            due = self._clock() >= self._written_at + _GATHER_SECONDS
        if due:
            with contextlib.suppress(Unavailable):  # the reader is led on; the counts wait
                self.write()
        return found[1]

    def write(self) -> None:
        """Write what was gathered; Unavailable, with nothing lost, when the database is away."""
        with self._lock:
            counts, self._gathered = self._gathered, Counter[Followed]()
            self._written_at = self._clock()
        if not counts:
            return
        try:
            self._store.add(counts)
        except Unavailable:
            with self._lock:
                self._gathered.update(counts)
            raise

    def _found(self, token: str) -> tuple[Followed, str] | None:
        number = self._marks.read(Purpose.VISIT, token)
        if number is None:
            return None
        visit = Visit.unpacked(number)
        if visit.link < 1:  # Python counts from behind, too
            return None
        try:
            name, targets = self._variant(visit.campaign, visit.language, visit.discreet)
            return (visit.campaign, name, visit.link), targets[visit.link - 1]
        except (Refused, LookupError):  # from another store under the same keys: not ours to lead anywhere
            return None

    def _read_variant(self, campaign: int, language: int, discreet: bool) -> tuple[str, Sequence[str]]:  # noqa: FBT001 - a fact about the form
        renderer = _renderer(campaign, self._frozen(campaign))
        tag = renderer.languages[language]
        return variant(tag, discreet=discreet), renderer.targets(tag, discreet=discreet)


def followed(counts: Mapping[tuple[str, int], int], campaign: int, frozen: str) -> Sequence[Line]:
    """Return a campaign's counts with where each link leads, by variant and in the order of the mail.

    Args:
        counts: as the store has them, by variant and number of the link.
        campaign: its id.
        frozen: its edition, as JSON.
    """
    renderer = _renderer(campaign, frozen)
    leads = {
        variant(tag, discreet=discreet): renderer.targets(tag, discreet=discreet)
        for tag in renderer.languages
        for discreet in (False, True)
    }
    return [Line(name, link, leads[name][link - 1], count) for (name, link), count in sorted(counts.items())]


def _renderer(campaign: int, frozen: str) -> Renderer:
    return Edition.from_json(frozen).renderer(f"c{campaign}")


def variant(language: str, *, discreet: bool) -> str:
    """Return the name of a mail's variant, as in "en" or "en discreet"."""
    return f"{language} discreet" if discreet else language
