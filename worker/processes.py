"""Child processes that never outlive us, and the lock that keeps a workspace to one of them.

Owns starting, ending and waiting for one process; watching over several is `supervision`'s.
Refuses: shells, and sleeping in hope (waits poll a condition up to a deadline).
"""

import contextlib
import ctypes
import fcntl
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from worker.errors import Refused, Unavailable

#: Seconds between two looks at a condition.
_LOOK = 0.02
#: From linux/prctl.h: the signal the kernel sends us when our parent ends, however it ends.
_PR_SET_PDEATHSIG = 1
_LIBC = "libc.so.6"


def spawn(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    output: IO[bytes] | int = subprocess.DEVNULL,
    orphaned: signal.Signals = signal.SIGTERM,
    cwd: Path | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own; call from the main thread.

    The session keeps the terminal's Ctrl-C from it, so that we decide the order in which processes stop.

    Args:
        argv: the program, with its path, and its arguments.
        env: its whole environment; by default ours.
        output: where both its outputs go.
        orphaned: the signal it gets when we end in any way, SIGKILL included (Linux only).
        cwd: where it runs.

    Raises:
        Unavailable: the program cannot be started.
    """
    bind = _parent_death_signal(orphaned)
    try:
        return subprocess.Popen(  # noqa: S603 - argv is ours; no shell
            [str(word) for word in argv],
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=bind,  # noqa: PLW1509 - a few system calls, prepared before the fork
        )
    except OSError as error:
        raise Unavailable(f"cannot start {argv[0]}: {error.strerror}") from error


def _parent_death_signal(orphaned: signal.Signals) -> Callable[[], None] | None:
    """Make what the child runs before its program; None where the kernel has no such thing."""
    try:
        prctl = ctypes.CDLL(_LIBC).prctl
    except OSError:
        return None
    parent = os.getpid()

    def bind() -> None:
        prctl(_PR_SET_PDEATHSIG, int(orphaned), 0, 0, 0)
        if os.getppid() != parent:  # we ended between the fork and the line above
            os._exit(1)

    return bind


def ending(process: subprocess.Popen[bytes]) -> str | None:
    """Tell how a process ended (`code 1`, `signal SIGKILL`); None while it runs.

    It is left as a zombie, so that its number, and its session's, stays its own until `kill`.
    """
    if process.returncode is None:
        found = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if found is None:
            return None
        code = found.si_status if found.si_code == os.CLD_EXITED else -found.si_status
    else:
        code = process.returncode
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"code {code}"


def end(process: subprocess.Popen[bytes], *, patience: float) -> None:
    """Ask a process to stop, and after `patience` seconds end it with its whole session; idempotent."""
    ask_to_stop(process)
    until(lambda: ending(process) is not None, seconds=patience)
    kill(process)


def ask_to_stop(process: subprocess.Popen[bytes]) -> None:
    """Send SIGTERM to a process that has not been reaped (Popen's own way would reap it); idempotent."""
    if process.returncode is None:
        os.kill(process.pid, signal.SIGTERM)


def kill(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that is left of its session, at once; idempotent."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def until(condition: Callable[[], bool], *, seconds: float) -> bool:
    """Wait for a condition; tell whether it came true within the seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_LOOK)
    return True


def free_port() -> int:
    """Return a port of this machine that nobody uses, for a server that is about to start.

    Not one that the system would give: between our look and the server's start it would give it to somebody
    else, while those below its range (Linux: from 32768) go only to who names them.
    """
    for port in random.SystemRandom().sample(range(10_000, 32_000), 1000):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise Unavailable("no port is free on this machine", remedy="Stop what holds them: ss -ltn shows it.")


@contextlib.contextmanager
def alone(lock: Path, what: str) -> Iterator[None]:
    """Hold a lock file while the block runs; the kernel drops it on any death.

    Args:
        lock: the file; its folder is made, for us only.
        what: names the holder for the one who comes second.

    Raises:
        Refused: another process holds it.
    """
    try:
        for folder in (lock.parent.parent, lock.parent):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        opened = lock.open("a+", encoding="ascii")
    except OSError as error:
        raise Unavailable(
            f"cannot write to {lock.parent}: {error.strerror}",
            remedy="Mend that folder, or set state to another.",
        ) from error
    with opened as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            held.seek(0)
            raise Refused(
                f"{what} already runs in this workspace (process {held.read().strip() or 'unknown'}).",
                remedy="Use that one, or stop it first.",
            ) from error
        held.truncate(0)
        held.write(str(os.getpid()))
        held.flush()
        # The file stays behind: removing it would let two holders lock two files of one name.
        yield
