"""The Celery app: thin tasks that carry ids, each option set for a reason.

Owns the queues, the beat and the doorbell. Refuses: results, payloads, countdowns and rate limits (the
database is the truth; the queue only says that there is something to do).
"""

import contextlib
import mmap
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import redis
import structlog
from celery import Celery, signals
from celery.worker import control
from kombu.entity import Queue
from kombu.exceptions import OperationalError

from worker import broker
from worker.campaigns import Campaigns, Doorbell
from worker.dispatch import Dispatcher
from worker.errors import TocsinError, Unavailable
from worker.inbox import Maildir
from worker.invitations import Invitations
from worker.notices import Courier
from worker.postroom import PostRoom
from worker.preferences import Preferences
from worker.retention import Retention
from worker.sealing import Keyring
from worker.settings import Settings
from worker.store.plans import Plans
from worker.sweep import Sweep

log = structlog.get_logger()

#: Short work that must never be late: the tick, launches.
CONTROL = "control"
#: Batches.
DISPATCH = "dispatch"
#: What a worker is asked before a new key is used.
KEYS_COMMAND = "tocsin_keys"
#: Seconds between two looks at what is due.
TICK_SECONDS = 2.0

_OPTIONS: Mapping[str, Any] = {
    "task_ignore_result": True,  # what happened stands in the ledger
    "task_serializer": "json",  # never pickle: whoever can write to Redis must not run code
    "accept_content": ["json"],
    "worker_prefetch_multiplier": 1,  # a batch waits in Redis, where any free process can take it
    "task_acks_late": True,  # a killed process's batch comes back; a doubled one finds nothing to claim
    "task_reject_on_worker_lost": True,  # comes back at once, not after the visibility timeout
    "worker_cancel_long_running_tasks_on_connection_loss": False,  # the ledger knows; let it finish
    "worker_soft_shutdown_timeout": 30.0,  # seconds to drain after SIGTERM before a task is interrupted
    "worker_max_tasks_per_child": 2000,  # bounds what a leak in a library could cost
    "broker_connection_retry_on_startup": True,  # Redis may come up after us
    "broker_connection_max_retries": None,  # and may go away for hours: we wait
    "worker_hijack_root_logger": False,  # our own log format
    "worker_redirect_stdouts": False,
    "worker_enable_remote_control": True,  # `tocsin doctor` pings the workers
    "worker_send_task_events": False,
    "task_create_missing_queues": False,  # a misspelt queue is an error, not a hole
    "enable_utc": True,
    "timezone": "UTC",
}

_TRANSPORT: Mapping[str, Any] = {
    # Longer than any batch is held (10 minutes for a final dot and its drain), so that nothing comes twice
    # in the ordinary course; when it does, it finds nothing to claim.
    "visibility_timeout": 1800,
    # A broker whose host vanished without a word would hold a worker for ever without these.
    "socket_timeout": 10,
    "socket_connect_timeout": 10,
    "health_check_interval": 5,
}


class Tools(Protocol):
    """What the tasks call, built in the process that runs them, never before a fork."""

    @property
    def campaigns(self) -> Campaigns:
        """The campaigns, as an operator moves them."""

    @property
    def plans(self) -> Plans:
        """The campaigns' rows."""

    @property
    def dispatcher(self) -> Dispatcher:
        """What sends batches."""

    @property
    def sweep(self) -> Sweep:
        """The tick."""

    @property
    def courier(self) -> Courier:
        """What sends the notices that people have asked for."""

    @property
    def invitations(self) -> Invitations:
        """What is entered in forms and waits to be confirmed."""

    @property
    def preferences(self) -> Preferences:
        """What readers have wished for a time."""

    @property
    def postroom(self) -> PostRoom:
        """What acts on the mail that comes back."""

    @property
    def retention(self) -> Retention:
        """What removes what is kept too long."""

    @property
    def maildir(self) -> Maildir | None:
        """Where it lies."""


def create(settings: Settings, build: Callable[[Settings, "Bells", Callable[[], bool]], Tools]) -> Celery:
    """Return the app; `build` makes the tools on first use in each process."""
    app = Celery("tocsin", broker=broker.celery_url(settings), set_as_current=False)
    transport = dict(_TRANSPORT)
    if "+socket" not in str(app.conf.broker_url):
        transport["socket_keepalive"] = True  # meaningless, and refused, on a unix socket
    app.conf.update(
        _OPTIONS,
        broker_transport_options=transport,
        task_queues=[Queue(name) for name in (CONTROL, DISPATCH)],  # type: ignore[no-untyped-call]  # kombu publishes none
        task_routes={
            "tocsin.dispatch": {"queue": DISPATCH},
            "tocsin.notices": {"queue": DISPATCH},
            "tocsin.*": {"queue": CONTROL},
        },
        beat_schedule={
            # An interval, never a crontab (those misfire around clock changes); a tick that nobody took
            # before the next one is due is dropped.
            "tick": {
                "task": "tocsin.tick",
                "schedule": TICK_SECONDS,
                "options": {"queue": CONTROL, "expires": 2 * TICK_SECONDS},
            }
        },
    )
    _answer_for_keys(settings)
    drain = _drain_flag()
    bells = Bells(app, settings)
    tools = _per_process(lambda: build(settings, Bells(app, settings), lambda: drain[0] != 0))
    _register(app, tools, bells)
    _recover_first(tools)
    return app


def _register(app: Celery, tools: Callable[[], Tools], bells: "Bells") -> None:
    task: Callable[..., Callable[[Callable[..., None]], object]] = app.task  # celery publishes no types

    @task(name="tocsin.tick")
    def tick() -> None:
        with _told("tick"):
            tools().sweep.run()
        with _told("wishes"):
            tools().preferences.end_due()
        with _told("sign-ups"):
            tools().invitations.tick()
        with _told("notices"):
            if tools().courier.due():
                # To those who may speak to the relay; a doubled one finds nothing to begin.
                bells.notices()
        with _told("returns"):
            tools().postroom.tick(tools().maildir)
        with _told("retention"):
            tools().retention.tick()

    @task(name="tocsin.launch")
    def launch(campaign_id: int) -> None:
        with _told("launch"):
            tools().campaigns.launch(campaign_id)

    @task(name="tocsin.notices")
    def notices() -> None:
        with _told("notices"):
            tools().courier.send()

    @task(name="tocsin.dispatch")
    def dispatch(batch_id: int) -> None:
        with _told("dispatch"):
            kit = tools()
            try:
                summary = kit.dispatcher.send(batch_id)
            except BaseException:
                kit.sweep.recover()  # by the journal it left, which a tick on another machine cannot see
                raise
            if summary is not None:
                kit.campaigns.ring()
                kit.plans.finish_whole(kit.dispatcher.clock())


def _answer_for_keys(settings: Settings) -> None:
    """Let a worker tell which look-up keys the key ring on its machine holds, by marks that give none away.

    It reads the file anew each time: that is what its processes do when they meet a key they do not know.
    """

    def fingerprints(_state: object, **_: object) -> Mapping[str, str]:
        try:
            ring = Keyring.load(settings.secret_text().get_secret_value())
        except TocsinError:
            return {}
        return {str(number): mark.hex() for number, mark in ring.fingerprints().items()}

    control.inspect_command(name=KEYS_COMMAND)(fingerprints)


def keys_of_workers(app: Celery, seconds: float) -> Mapping[str, Mapping[str, str]]:
    """Ask every worker for the fingerprints of its keys, by id; who does not answer in time is not named."""
    with app.connection_for_write() as connection:
        answers = app.control.broadcast(KEYS_COMMAND, reply=True, timeout=seconds, connection=connection)
    return {name: marks for answer in answers or () for name, marks in answer.items()}


def _recover_first(tools: Callable[[], Tools]) -> None:
    """Let every new process settle what dead ones left on its machine, which the tick may not see.

    In a thread: a store that is away must not keep the process from saying that it is up.
    """

    def recover() -> None:
        with _told("recover"):
            tools().sweep.recover()

    def begin(**_: object) -> None:
        threading.Thread(target=recover, name="recover", daemon=True).start()

    signals.worker_process_init.connect(begin, weak=False)


@contextlib.contextmanager
def _told(task: str) -> Any:  # noqa: ANN401 - a context manager
    """Log an expected failure in one line; the tick does the work again when its time has come."""
    try:
        yield
    except TocsinError as error:
        log.warning("task_failed", task=task, kind=type(error).__name__, why=str(error))


def _drain_flag() -> "mmap.mmap":
    """Return one byte that the worker's parent sets on SIGTERM and its children see: begin nothing more."""
    flag = mmap.mmap(-1, 1)

    def set_flag(**_: object) -> None:
        flag[0] = 1

    signals.worker_shutting_down.connect(set_flag, weak=False)
    return flag


def _per_process(make: Callable[[], Tools]) -> Callable[[], Tools]:
    """Build once in each process: an engine or a socket must never cross a fork."""
    made: dict[int, Tools] = {}
    making = threading.Lock()

    def get() -> Tools:
        pid = os.getpid()
        with making:
            if pid not in made:
                made.clear()
                made[pid] = make()
            return made[pid]

    return get


class Bells(Doorbell):
    """Rings through Celery. A bell that cannot ring is no loss: the tick looks for itself."""

    def __init__(self, app: Celery, settings: Settings) -> None:
        """Take the app; the client for looking at the queue is opened on first use."""
        self._app = app
        self._settings = settings
        self._client: redis.Redis | None = None

    def launch(self, campaign_id: int) -> None:
        """Ask for a launch to be begun or continued."""
        self._send([("tocsin.launch", campaign_id, CONTROL)])

    def ring(self, batch_ids: Sequence[int]) -> None:
        """Ask for batches to be sent."""
        self._send([("tocsin.dispatch", batch_id, DISPATCH) for batch_id in batch_ids])

    def notices(self) -> None:
        """Ask for the notices that wait to be sent."""
        self._send([("tocsin.notices", None, DISPATCH)])

    def waiting(self) -> int:
        """Return how many batches wait in the queue; 1 when Redis does not say, so that nothing piles up."""
        try:
            if self._client is None:
                self._client = broker.client(self._settings)
            return self._client.llen(DISPATCH)
        except (redis.RedisError, Unavailable):
            return 1

    def _send(self, rings: Sequence[tuple[str, int | None, str]]) -> None:
        try:
            with self._app.producer_or_acquire() as producer:
                for name, number, queue in rings:
                    words = () if number is None else (number,)
                    self._app.send_task(name, words, queue=queue, producer=producer, retry=False)
        except (OperationalError, redis.RedisError, OSError) as error:
            log.warning("bell_not_rung", count=len(rings), kind=type(error).__name__)
