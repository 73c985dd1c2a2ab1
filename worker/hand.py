"""What one process has in hand of a batch, by mailbox provider, and what of it may begin.

Pure. Owns whose turn it is: providers take turns, and one that must wait holds up no other. Refuses: the
pace itself (throttle).
"""

from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence

from worker.store.ledger import Claimed


class Hand:
    """Deliveries that are claimed and not begun."""

    def __init__(self) -> None:
        """Hold nothing yet."""
        self._waiting: dict[str, deque[Claimed]] = {}
        self._granted: dict[str, int] = {}

    def __len__(self) -> int:
        """Return how many there are."""
        return sum(map(len, self._waiting.values()))

    def __bool__(self) -> bool:
        """Return whether there is any: asked for each mail, so without counting."""
        return bool(self._waiting)

    def take(self, claimed: Iterable[Claimed]) -> None:
        """Take deliveries in hand."""
        for one in claimed:
            self._waiting.setdefault(one.provider, deque()).append(one)

    def count(self, provider: str) -> int:
        """Return how many wait for a provider."""
        return len(self._waiting.get(provider, ()))

    def wants(self, most: int) -> Mapping[str, int]:
        """Return how many are waiting by provider, at most so many each."""
        return {provider: min(len(waiting), most) for provider, waiting in self._waiting.items()}

    def grant(self, counts: Mapping[str, int]) -> None:
        """Let so many begin."""
        for provider, count in counts.items():
            self._granted[provider] = self._granted.get(provider, 0) + count

    def next(self) -> Claimed | None:
        """Return the next that may begin, the providers in turn; None when none may."""
        for provider, waiting in self._waiting.items():
            left = self._granted.get(provider, 0)
            if not left:
                continue
            self._granted[provider] = left - 1
            one = waiting.popleft()
            del self._waiting[provider]
            if waiting:
                self._waiting[provider] = waiting  # at the end: the others first
            return one
        return None

    def stop(self, provider: str) -> None:
        """Take back what a provider was granted: it may not begin now."""
        self._granted.pop(provider, None)

    def leave(self, provider: str) -> Sequence[Claimed]:
        """Let go of all that waits for a provider, and return it."""
        self.stop(provider)
        return self._waiting.pop(provider, deque())

    def drop(self, ids: Collection[int]) -> Sequence[Claimed]:
        """Let go of these, and return those that were here."""
        dropped: list[Claimed] = []
        if not ids:
            return dropped
        for provider, waiting in tuple(self._waiting.items()):
            dropped += [one for one in waiting if one.id in ids]
            kept = deque(one for one in waiting if one.id not in ids)
            if kept:
                self._waiting[provider] = kept
            else:
                del self._waiting[provider]
        return dropped
