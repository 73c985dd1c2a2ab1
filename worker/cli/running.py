"""`up`, `worker`, `beat`, `web`, `demo`: the processes that do the work.

Owns which processes there are and what each is called with. Refuses: to be in them; each runs what `wiring`
built for it.
"""

import contextlib
import logging
import os
import secrets
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from worker import broker, demo, logs, processes, serving, tasks
from worker.cli import dossiers, grammar, session, suppressed, terminal
from worker.cli.terminal import Column
from worker.errors import Unavailable, WrongUse
from worker.settings import DEBUG_VARIABLE, Settings
from worker.supervision import Child, Supervisor, listens, python

app = grammar.commands()

#: Seconds that a sender may take to stop: its soft shutdown, and a little.
_SENDER_PATIENCE = 40.0


@grammar.command(app, "up", "tocsin up", "tocsin up --workers 4")
def up(
    *,
    workers: Annotated[
        int, typer.Option(metavar="N", min=1, max=64, help="How many processes send mail.")
    ] = 2,
) -> None:
    """Run everything on this machine until Ctrl-C.

    The queue (a private Redis, unless broker.url names one), a worker for short work, workers that send, the
    clock and the opt-out pages. One that ends is started again. Ctrl-C lets senders finish what they have in
    hand, then stops all in order. Each writes its log under var/log.
    """
    found = session.settings_found()
    with contextlib.ExitStack() as held:
        # First of all, so that a second `up` meets this one line and nothing else.
        held.enter_context(processes.alone(found.state / "run" / "up.lock", "Tocsin"))
        with session.opened():
            pass  # a store of another version is told now, not by every process
        _mind_port(found)
        children = [*_queue(found, held), *_children(found, workers)]
        supervisor = Supervisor(children, session.log_folder(found), say=terminal.warn)
        held.enter_context(supervisor)
        terminal.say("Starting…", terminal.FAINT)
        supervisor.start()
        _tell(found, children)
        supervisor.watch()
        terminal.say("Stopping: senders finish what they have in hand. Ctrl-C again ends their patience.")
    terminal.say("Stopped.")


def _mind_port(found: Settings) -> None:
    """Refuse to start where another program serves: it would be taken for our own pages."""
    host, port = _reachable(found.web.host), found.web.port
    if listens(host, port)():
        raise Unavailable(
            f"another program listens on {host} port {port}, where the opt-out pages belong",
            remedy="Stop it, or set web.port in tocsin.toml to another.",
        )


def _queue(found: Settings, held: contextlib.ExitStack) -> Iterator[Child]:
    """Reserve the private Redis, where that is the queue."""
    if found.broker.url == "embedded":
        private = held.enter_context(broker.reserved(found.state))
        yield Child("redis", private.argv, ready=private.ready, base=True)


def _children(found: Settings, workers: int) -> Iterator[Child]:
    control, dispatch = _node("control"), _node("dispatch")
    roll = _Roll(found)
    yield Child(
        "control",
        _tocsin("worker", "--queues", tasks.CONTROL, "--processes", "1", "--name", control),
        ready=lambda: roll.answers(control),
    )
    yield Child(
        "dispatch",
        _tocsin("worker", "--queues", tasks.DISPATCH, "--processes", str(workers), "--name", dispatch),
        ready=lambda: roll.answers(dispatch),
        patience=_SENDER_PATIENCE,
    )
    yield Child("beat", _tocsin("beat"))
    yield Child("web", _tocsin("web"), ready=listens(_reachable(found.web.host), found.web.port))


class _Roll:
    """Which workers have answered so far."""

    def __init__(self, found: Settings) -> None:
        self._found = found
        self._answered: set[str] = set()

    def answers(self, name: str) -> bool:
        if name not in self._answered:
            with contextlib.suppress(Unavailable):
                self._answered.update(session.workers(self._found, [name]))
        return name in self._answered


def _tocsin(*words: str) -> Sequence[str]:
    return python("worker.cli", *words)


def _node(kind: str) -> str:
    """Name a worker as no other one is named, on this machine or another."""
    return f"{kind}-{secrets.token_hex(3)}@{socket.gethostname()}"


def _reachable(host: str) -> str:
    """Return where a server that listens on `host` can be reached from here."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not listened on


def _tell(found: Settings, children: Sequence[Child]) -> None:
    where = {
        "redis": "the queue, on a private socket",
        "control": "short work: starts campaigns, recovers what was left",
        "dispatch": "sends",
        "beat": f"wakes them every {tasks.TICK_SECONDS:g} s",
        "web": f"opt-out pages on {found.web.host} port {found.web.port} ({found.web.base_url})",
    }
    rows = [(child.name, where[child.name]) for child in children]
    terminal.show(terminal.table((Column("Runs"), Column("What it does")), rows))
    terminal.say(f"Logs: {session.log_folder(found)}. Ctrl-C stops everything.")


@grammar.command(
    app,
    "worker",
    "tocsin worker",
    "tocsin worker --queues dispatch --processes 4",
    "tocsin worker --queues control",
)
def worker(
    *,
    queues: Annotated[
        str, typer.Option(metavar="NAMES", help="What to take: control (short work), dispatch (sending).")
    ] = f"{tasks.CONTROL},{tasks.DISPATCH}",
    count: Annotated[
        int, typer.Option("--processes", metavar="N", min=1, max=64, help="How many at once.")
    ] = 2,
    name: Annotated[
        str, typer.Option(metavar="NAME", help="What it is called; by default made up, different each time.")
    ] = "",
) -> None:
    """Run one worker, which sends what is due.

    Run at least one for each queue; sending may be spread over machines that share database, queue and key.
    SIGTERM lets it finish what it has in hand. It logs events with ids to standard error, never an address.
    """
    if unknown := set(queues.split(",")) - {tasks.CONTROL, tasks.DISPATCH}:
        raise WrongUse(f"there is no queue called {min(unknown)}", remedy="There are control and dispatch.")
    found = _ready()
    session.celery(found).worker_main(
        [
            "worker",
            "--pool=prefork",
            f"--concurrency={count}",
            f"--queues={queues}",
            f"--hostname={name or _node('worker')}",
            # Workers have nothing to say to each other; without these they start at once.
            "--without-gossip",
            "--without-mingle",
            f"--loglevel={_level()}",
        ]
    )


@grammar.command(app, "beat", "tocsin beat")
def beat() -> None:
    """Run the clock that wakes the workers.

    It keeps nothing on disk and says only "look". Run one; two do no harm.
    """
    found = session.settings_found()  # it needs neither store nor key, only the queue
    _log()
    # The plain scheduler: the usual one keeps a file, which can only be out of date.
    session.celery(found).Beat(scheduler_cls="celery.beat:Scheduler", loglevel=_level(), quiet=True).run()


@grammar.command(app, "web", "tocsin web")
def web() -> None:
    """Serve the opt-out pages.

    On web.host and web.port; put a proxy with https before it, as web.base_url says. SIGTERM stops it.
    """
    with session.opened() as tocsin:
        _log()
        found = tocsin.settings.web
        pages = tocsin.web(lambda subject: dossiers.facts(subject, suppressed.scope_names(tocsin)))
        serving.serve(pages, found.host, found.port, proxies=found.proxies.split())
        tocsin.visits.write()


def _ready() -> Settings:
    """Check what a process needs before it starts, and log as processes do."""
    with session.opened() as tocsin:
        tocsin.keyring  # noqa: B018 - a missing key is told now, not at the first mail
        found = tocsin.settings
    _log()
    return found


def _level() -> str:
    """Return how much is logged: with TOCSIN_DEBUG=1 all that the libraries say, and no address either."""
    return "DEBUG" if os.environ.get(DEBUG_VARIABLE) else "INFO"


def _log() -> None:
    """Log as processes do: our events, and of the libraries only what went wrong.

    Celery tells of each task three times and beat of each tick: 100,000 lines a day about nothing.
    """
    logs.configure(_level())
    if _level() == "DEBUG":
        return
    for name in ("alembic", "celery.app.trace", "celery.beat", "celery.worker.strategy"):
        logging.getLogger(name).setLevel(logging.WARNING)


@grammar.command(app, "demo", "tocsin demo", "tocsin demo --folder /tmp/show")
def show(
    *,
    folder: Annotated[
        Path, typer.Option(metavar="DIR", help="Where its var/ goes; by default here.")
    ] = Path(),
) -> None:
    """Show the whole path on this machine, with invented people.

    A private queue, real workers, the opt-out pages, and a mail server that delivers nothing. Every mail ends
    up under var/outbox, with a page to look through them. Nothing that is yours is touched.
    """
    demo.run(Console(), folder.resolve())
