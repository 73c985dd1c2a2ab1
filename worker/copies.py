"""Copies of a campaign's mail on the web, for readers whose mail program shows it badly.

Owns the step from a link's mark to the frozen mail in its language, with nothing of any reader in it.
Refuses: the discreet form, which must not stand anywhere; a language whose author asked for no copy; and to
be found by anybody who was not given the link.
"""

from collections.abc import Callable
from functools import lru_cache

from worker.content.editions import Copy, Edition
from worker.errors import Refused
from worker.tokens import Marks, Purpose

#: Copies that one process keeps: making one takes some 10 ms, and a campaign's readers come all at once.
_KEPT = 64


class Copies:
    """Reads copies."""

    def __init__(self, marks: Marks, frozen: Callable[[int], str]) -> None:
        """Take what reads a campaign's frozen edition by its id."""
        self._marks, self._frozen = marks, frozen
        self._page = lru_cache(_KEPT)(self._make)

    def read(self, token: str) -> str | None:
        """Return the page of a link; None if it is not ours. Unavailable when the database is away."""
        number = self._marks.read(Purpose.COPY, token)
        if number is None:
            return None
        copy = Copy.unpacked(number)
        try:
            return self._page(copy.campaign, copy.language)
        except (Refused, LookupError):  # a test mail's, or one that cannot be made: `check` has said so
            return None

    def _make(self, campaign: int, language: int) -> str:
        edition = Edition.from_json(self._frozen(campaign))
        renderer = edition.renderer(f"c{campaign}", placed=edition.within)
        return renderer.copy(renderer.languages[language])
