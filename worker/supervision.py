"""The processes of one machine, started together, watched, and stopped in order: `tocsin up` and `demo`.

Owns their order, their logs, their restarts and the one lock of a workspace. Refuses: to know what the
processes do (that is the command line's, which names them), and to leave one of them behind.
"""

import contextlib
import functools
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from worker import processes
from worker.errors import Unavailable

#: Seconds between two looks at the children: a stop is felt as immediate, an idle machine stays idle.
_LOOK = 0.1
#: Waits before a dead child is started again: doubled from the first to the longest, in seconds.
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 30.0
#: Seconds of life after which an earlier death is forgiven.
_SETTLED = 60.0


@dataclass(frozen=True, slots=True)
class Child:
    """One process to run."""

    #: Its name in messages and of its log.
    name: str
    #: Its command line.
    argv: Sequence[str]
    #: Variables to set beside our own.
    env: Mapping[str, str] = field(default_factory=dict)
    #: Whether it does its work now; asked while it starts. None: being there is enough.
    ready: Callable[[], bool] | None = None
    #: Whether the others stand on it (the queue): started before them, stopped after them.
    base: bool = False
    #: Seconds it may take to stop; a sender finishes what it has in hand.
    patience: float = 30.0
    #: What the kernel sends it when we are killed.
    orphaned: signal.Signals = signal.SIGTERM


@dataclass(slots=True)
class _Run:
    """A child as it runs now."""

    child: Child
    process: subprocess.Popen[bytes]
    since: float
    #: Deaths in a row.
    deaths: int = 0
    #: When to start it again; None while it runs.
    again_at: float | None = None

    @property
    def ending(self) -> str | None:
        """How it ended; None while it runs."""
        return processes.ending(self.process)


class Supervisor:
    """Runs children while its block runs; SIGTERM and Ctrl-C raise KeyboardInterrupt in the block.

    Args:
        children: in the order in which to start them.
        log_dir: gets each child's output in `<name>.log`, for our eyes only.
        lock: file that keeps a second supervisor out of the workspace; Refused where one holds it.
        restart: whether a dead child is started again; if not, its death raises Unavailable.
        start_seconds: how long the children may take to be ready, all together.
        say: is told of deaths and restarts, one line each.
    """

    def __init__(
        self,
        children: Iterable[Child],
        log_dir: Path,
        *,
        lock: Path | None = None,
        restart: bool = True,
        start_seconds: float = 60.0,
        say: Callable[[str], None] = lambda _line: None,
    ) -> None:
        self.children = tuple(children)
        self.log_dir = log_dir
        self._lock = lock
        self._restart = restart
        self._start_seconds = start_seconds
        self._say = say
        self._runs: list[_Run] = []
        #: Processes that died, and until when what they started may finish what it has in hand.
        self._former: list[tuple[subprocess.Popen[bytes], float]] = []
        self._hurry = False
        self._held = contextlib.ExitStack()

    def __enter__(self) -> Self:
        """Take the lock and the signals; start nothing yet."""
        if self._lock:
            self._held.enter_context(processes.alone(self._lock, "Tocsin"))
        self._held.enter_context(_signals_to(signal.default_int_handler))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop everything, then give back signals and lock."""
        try:
            self.stop()
        finally:
            self._held.close()

    def start(self) -> None:
        """Start the children, those that others stand on first, and wait until all are ready.

        Raises:
            Unavailable: one ended, or was not ready in time.
        """
        self.log_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        deadline = time.monotonic() + self._start_seconds
        for base in (True, False):
            wave = [_Run(c, self._spawn(c), time.monotonic()) for c in self.children if c.base is base]
            self._runs += wave
            self._await(wave, deadline)

    def watch(self) -> None:
        """Look after the children until SIGTERM or Ctrl-C."""
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                self.check()
                time.sleep(_LOOK)

    def check(self) -> None:
        """Look after the children once: note deaths, and start again what is due.

        Raises:
            Unavailable: a child died and is not to be started again.
        """
        now = time.monotonic()
        for run in self._runs:
            if run.again_at is not None and now >= run.again_at:
                run.process, run.since, run.again_at = self._spawn(run.child), now, None
            elif run.again_at is None and run.ending:
                self._mourn(run, now)
        for process, until in list(self._former):
            if now > until:
                processes.kill(process)
                self._former.remove((process, until))

    def stop(self) -> None:
        """Stop the children, those that others stand on last; idempotent.

        Each gets SIGTERM, its patience, then SIGKILL with all it started. A second Ctrl-C ends the patience.
        """
        runs, self._runs = self._runs, []
        with _signals_to(self._hurry_up):
            for base in (False, True):
                self._stop_wave([run for run in runs if run.child.base is base])
            for process, _until in self._former:
                processes.kill(process)
            self._former.clear()

    def _stop_wave(self, wave: Sequence[_Run]) -> None:
        for run in wave:
            processes.ask_to_stop(run.process)
        began = time.monotonic()
        for run in wave:
            left = began + run.child.patience - time.monotonic()
            processes.until(functools.partial(self._stopped, run), seconds=left)
            processes.kill(run.process)

    def _stopped(self, run: _Run) -> bool:
        return self._hurry or run.ending is not None

    def _hurry_up(self, _number: int, _frame: FrameType | None) -> None:
        self._hurry = True

    def _spawn(self, child: Child) -> subprocess.Popen[bytes]:
        opener = functools.partial(os.open, mode=0o600)
        with open(self._log(child), "ab", opener=opener) as output:
            return processes.spawn(
                child.argv, env={**os.environ, **child.env}, output=output, orphaned=child.orphaned
            )

    def _log(self, child: Child) -> Path:
        return self.log_dir / f"{child.name}.log"

    def _await(self, wave: Sequence[_Run], deadline: float) -> None:
        """Wait until a wave is ready; a child that is ready once is not asked again."""
        waiting = list(wave)

        def settled() -> bool:
            waiting[:] = [run for run in waiting if run.child.ready and not run.child.ready()]
            return not waiting or any(run.ending for run in wave)

        processes.until(settled, seconds=deadline - time.monotonic())
        for run in wave:
            if run.ending:
                raise self._lost(run, "while starting")
        if waiting:
            raise Unavailable(
                f"{waiting[0].child.name} is not ready after {self._start_seconds:.0f} s.",
                remedy=f"See {self._log(waiting[0].child)}.",
            )

    def _mourn(self, run: _Run, now: float) -> None:
        """Note a death and set the time of the next start, later after each death in a row."""
        if not self._restart:
            raise self._lost(run, "")
        run.deaths = 1 if now - run.since > _SETTLED else run.deaths + 1
        wait = min(_LONGEST_WAIT, _FIRST_WAIT * 2 ** (run.deaths - 1))
        run.again_at = now + wait
        self._former.append((run.process, now + run.child.patience))
        self._say(f"{run.child.name} ended ({run.ending}); starting it again in {wait:.1f} s.")

    def _lost(self, run: _Run, when: str) -> Unavailable:
        message = f"{run.child.name} ended {when}".rstrip()
        return Unavailable(f"{message} ({run.ending}).", remedy=f"See {self._log(run.child)}.")


def python(*words: str) -> list[str]:
    """Give the command line that runs one of our modules with this interpreter."""
    return [sys.executable, "-m", *words]


def listens(host: str, port: int) -> Callable[[], bool]:
    """Make a readiness check: somebody takes connections there."""

    def ready() -> bool:
        try:
            socket.create_connection((host, port), timeout=1.0).close()
        except OSError:
            return False
        return True

    return ready


@contextlib.contextmanager
def _signals_to(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Give both stop signals to a handler while the block runs."""
    before = {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handled in before.items():
            signal.signal(number, handled)
