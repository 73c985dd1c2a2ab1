"""What the shell offers behind TAB: campaigns, appeals, lists.

Everything is imported only when TAB is pressed, so that no other command waits for it. Refuses: to complain
when there is no workspace or no database; a shell prompt is no place for it.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from worker.errors import TocsinError

if TYPE_CHECKING:
    from worker.wiring import Wiring


def campaigns(incomplete: str) -> Sequence[str]:
    """Offer the campaigns' names, newest first."""
    return _offered(incomplete, lambda tocsin: (each.name for each in tocsin.campaigns.all()))


def lists(incomplete: str) -> Sequence[str]:
    """Offer the lists' names."""
    return _offered(incomplete, lambda tocsin: (each.slug for each in tocsin.people.lists()))


def appeals(incomplete: str) -> Sequence[str]:
    """Offer the appeals' names."""
    from worker import workspace  # noqa: PLC0415 - see the module

    return _offered(incomplete, lambda tocsin: workspace.appeal_slugs(tocsin.settings))


def _offered(incomplete: str, names: "Callable[[Wiring], Iterable[str]]") -> Sequence[str]:
    from worker.cli import session  # noqa: PLC0415 - see the module

    try:
        with session.opened() as tocsin:
            return [name for name in names(tocsin) if name.startswith(incomplete)]
    except (TocsinError, OSError):
        return []
