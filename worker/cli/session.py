"""One command's work with a workspace: found, opened, closed again; and the doorbell of a short process.

Owns who the operator is and what is said when the queue is away. Refuses: to work where there is no
workspace, or on a store of another version.

The queue's libraries are imported where something is asked of the queue: that takes most of a second, and
the commands that only look need none of them.
"""

import contextlib
import logging
import os
import pwd
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from worker import sections, settings
from worker.campaigns import Doorbell
from worker.cli import loading, terminal
from worker.deeds import Action, Deed, Fact
from worker.errors import Unavailable, WrongUse
from worker.settings import Settings
from worker.wiring import Wiring, load

if TYPE_CHECKING:
    from celery import Celery

    from worker import tasks

#: Seconds that workers have to answer a roll call.
_ROLL_CALL_SECONDS = 1.0
#: What a campaign's row holds of a name.
_LONGEST_NAME = 64


def settings_read(start: Path | None = None) -> Settings:
    """Read the settings, from a workspace or from variables alone."""
    return settings.load(start)


def settings_found() -> Settings:
    """Read the settings of the workspace we are in; WrongUse where there is none."""
    found = settings_read()
    if found.file is None and found.secret is None and not found.secret_file.exists():
        raise WrongUse(
            f"there is no workspace here: no {settings.FILE_NAME} in {found.home} or above",
            remedy="Go to yours, or make one: tocsin init DIR",
        )
    return found


@contextlib.contextmanager
def unchecked() -> Iterator[Wiring]:
    """Give the workspace whatever state its store is in."""
    found = settings_found()
    _hush()
    wiring = Wiring(found, Bell(found))
    try:
        yield wiring
    finally:
        if "database" in vars(wiring):  # opened, and not by asking for it
            wiring.database.close()


@contextlib.contextmanager
def opened() -> Iterator[Wiring]:
    """Give the workspace with its store at this version."""
    with unchecked() as wiring:
        wiring.database.require_current()
        yield wiring


def operator() -> str:
    """Return who acts: TOCSIN_OPERATOR, else the user of this machine."""
    name = os.environ.get(settings.OPERATOR_VARIABLE, "").strip()
    if not name:
        # Not getpass.getuser(): LOGNAME and USER survive `su` and would name somebody else.
        try:
            name = pwd.getpwuid(os.getuid()).pw_name
        except KeyError:  # a container's made-up user
            name = f"uid-{os.getuid()}"
    return terminal.clean(" ".join(name.split()))[:_LONGEST_NAME]


def log_folder(found: Settings) -> Path:
    """Return where processes of this workspace write their logs."""
    return found.state / "log"


def deed(tocsin: Wiring, action: Action, subject: str = "", **facts: Fact) -> Deed:
    """Return what the operator does now, for the audit log."""
    return Deed(tocsin.clock(), operator(), action, subject, facts)


def mind_examples(tocsin: Wiring, *, dry_run: bool) -> None:
    """Refuse to write to people under our example names, but through a server on this machine (a try)."""
    if not (left := tocsin.settings.examples_left()):
        return
    relays = tocsin.settings.all_relays().values()
    if dry_run or all(sections.is_loopback(relay.host) for relay in relays):
        terminal.warn(f"Still at their examples: {', '.join(left)}.")
        return
    raise WrongUse(
        f"these settings are still at their examples: {', '.join(left)}",
        remedy=f"Set them in {tocsin.settings.file or 'TOCSIN_* variables'}: every mail shows them.",
    )


def celery(found: Settings) -> "Celery":
    """Make the Celery app of this workspace; Unavailable when there is no queue for it."""
    from celery import signals  # noqa: PLC0415 - see the module

    from worker import tasks  # noqa: PLC0415 - see the module

    # Before it forks: its children share the memory, and their first mail does not wait for libraries.
    signals.worker_init.connect(_load, weak=False)
    return tasks.create(found, _tools)


def _load(**_: object) -> None:
    load()


def _tools(found: Settings, bells: Doorbell, stopping: Callable[[], bool]) -> "tasks.Tools":
    return Wiring(found, bells, stopping)


def queue_answers(found: Settings) -> bool:
    """Tell whether the queue is there."""
    import redis  # noqa: PLC0415 - see the module

    from worker import broker  # noqa: PLC0415 - see the module

    try:
        with contextlib.closing(broker.client(found)) as client:
            return bool(client.ping())
    except (Unavailable, redis.RedisError):
        return False


def workers(found: Settings, named: Sequence[str] = ()) -> Sequence[str]:
    """Call the roll of the workers; empty when none answers in a second.

    Args:
        found: says where the queue is.
        named: only these are called, and nobody waits any longer once all of them have answered.

    Raises:
        Unavailable: there is no queue to call it through.
    """
    import redis  # noqa: PLC0415 - see the module
    from kombu.exceptions import OperationalError  # noqa: PLC0415 - see the module

    if not queue_answers(found):  # asked first, because Celery would try again for seconds
        raise Unavailable("the queue does not answer", remedy="Start it with `tocsin up`.")
    app = celery(found)
    try:
        with app.connection_for_write() as connection:
            answers = app.control.ping(
                named or None, _ROLL_CALL_SECONDS, limit=len(named) or None, connection=connection
            )
    except (OperationalError, redis.RedisError, OSError) as error:
        raise Unavailable("the queue has gone away", remedy="Start it with `tocsin up`.") from error
    return sorted(name for answer in answers for name in answer)


def workers_keys(found: Settings) -> Mapping[str, Mapping[str, str]] | None:
    """Return by worker the fingerprints of the keys on its machine; None where the queue does not answer."""
    import redis  # noqa: PLC0415 - see the module
    from kombu.exceptions import OperationalError  # noqa: PLC0415 - see the module

    from worker import tasks  # noqa: PLC0415 - see the module

    if not queue_answers(found):
        return None
    try:
        return tasks.keys_of_workers(celery(found), _ROLL_CALL_SECONDS)
    except (OperationalError, redis.RedisError, OSError):
        return None


class Bell(Doorbell):
    """Rings through Celery; where the queue does not answer, says so once and leaves it to the tick."""

    def __init__(self, found: Settings) -> None:
        """Take the settings; nothing is reached for before there is something to ring for."""
        self._settings = found

    @property
    def is_mute(self) -> bool:
        """Return whether it was rung and the queue did not answer."""
        return vars(self).get("_bells", self) is None

    def launch(self, campaign_id: int) -> None:
        """Ask for a launch to be begun or continued."""
        if self._bells:
            self._bells.launch(campaign_id)

    def ring(self, batch_ids: Sequence[int]) -> None:
        """Ask for batches to be sent."""
        if self._bells:
            self._bells.ring(batch_ids)

    def waiting(self) -> int:
        """Return how many rings nobody has heard yet."""
        return self._bells.waiting() if self._bells else 1

    @cached_property
    def _bells(self) -> Doorbell | None:
        if queue_answers(self._settings):
            with loading.uncollected():
                from worker import tasks  # noqa: PLC0415 - see the module

            return tasks.Bells(celery(self._settings), self._settings)
        terminal.warn("The queue does not answer. All is recorded, and goes on when `tocsin up` runs.")
        return None


def _hush() -> None:
    """Keep the events of a short command off the screen: what an operator must know is said in words."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    logging.getLogger().addHandler(logging.NullHandler())
