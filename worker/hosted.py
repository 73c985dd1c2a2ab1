"""Pictures that lie on our pages: each campaign's own, as they were approved, the same for every reader.

Owns the way from a picture's mark to its bytes. Refuses: to know who asks. Whoever opens such a mail tells
our web server that somebody did; an appeal that must not tell embeds its pictures.
"""

from collections.abc import Callable
from functools import lru_cache

from worker.content.editions import Edition
from worker.content.pictures import Picture
from worker.errors import Refused
from worker.tokens import Marks, Purpose

#: Pictures that one process keeps; a mail's come together, and each mailbox asks once a reader.
_KEPT = 32


class Hosted:
    """Finds pictures by their marks."""

    def __init__(self, marks: Marks, frozen: Callable[[int], str]) -> None:
        """Take what reads a campaign's frozen edition by its id."""
        self._marks, self._frozen = marks, frozen
        self._picture = lru_cache(_KEPT)(self._read)

    def picture(self, token: str) -> tuple[str, bytes] | None:
        """Return a picture's MIME type and bytes; None if it is not ours. Unavailable without a database."""
        number = self._marks.read(Purpose.PICTURE, token)
        if number is None:
            return None
        try:
            found = self._picture(number >> 16, number & 0xFFFF)
        except (Refused, LookupError):  # from another store under the same keys
            return None
        return found.kind, found.data

    def _read(self, campaign: int, index: int) -> Picture:
        pictures = Edition.from_json(self._frozen(campaign)).enclosed.pictures
        return list(pictures.values())[index]
