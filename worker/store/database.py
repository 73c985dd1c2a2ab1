"""The connection to the store: SQLite in WAL mode or PostgreSQL, and the migrations of either.

Owns how a transaction begins and how its failure is told. Refuses: what the statements say (that is the
adapters'), and any state at import: a `Database` is built after the fork.
"""

import contextlib
import importlib.resources
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import event, exc

from worker.errors import Unavailable, WrongUse

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql, sqlite

#: PostgreSQL ends a write transaction whose owner has said nothing for so many seconds: one that was stopped
#: in the middle, or whose machine is gone without a word, would hold its locks, and with them the tick.
SILENT_SECONDS = 20
#: The package of the migrations. Each one's file begins with its revision.
_MIGRATIONS = "worker.store.migrations"
#: Seconds a SQLite writer waits for another; a launch slice or an import's last step may hold it for some.
BUSY_SECONDS = 60


class Database:
    """One engine on the store. `read()` and `write()` are the only ways in."""

    def __init__(self, url: str) -> None:
        """Build the engine; nothing is opened before the first use."""
        self.url = _checked(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        options: dict[str, Any] = {
            "hide_parameters": True
        }  # an error must not print a sealed record or a hash
        if self.is_sqlite:
            self._options_sqlite()
        else:
            # A restarted server is met with a fresh connection, not with an error in mid-batch.
            options |= {"pool_pre_ping": True, "pool_size": 4, "connect_args": {"connect_timeout": 10}}
        self.engine = sa.create_engine(self.url, **options)
        if self.is_sqlite:
            event.listen(self.engine, "connect", _prepare_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)
        else:
            event.listen(self.engine, "begin", _begin_postgresql)

    def _options_sqlite(self) -> None:
        path = self.url.database
        if not path or path == ":memory:":
            raise WrongUse(
                "database.url names no SQLite file",
                remedy="Use sqlite:///var/tocsin.sqlite3 or a PostgreSQL URL.",
            )

    @contextlib.contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """Give a connection in a read transaction (one snapshot on SQLite)."""
        with translated(), self.engine.connect() as connection:
            yield connection

    @contextlib.contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """Give a connection in a write transaction; commit at the end, roll back on any exception."""
        with translated():
            if self.is_sqlite:
                _create_private(Path(str(self.url.database)))
            with self.engine.connect() as connection:
                writer = connection.execution_options(tocsin_writes=True)
                with writer.begin():
                    yield writer

    def upgrade(self) -> None:
        """Bring the store to the newest migration; safe to repeat."""
        # Here, because they take a tenth of a second to load, and each command asks for this module.
        import alembic.command  # noqa: PLC0415 - see above
        import alembic.config  # noqa: PLC0415 - see above

        config = alembic.config.Config()
        config.set_main_option("script_location", str(importlib.resources.files(_MIGRATIONS)))
        with self.write() as connection:
            config.attributes["connection"] = connection
            alembic.command.upgrade(config, "head")

    def revisions(self) -> tuple[str, str]:
        """Return (the store's revision, "" when it has none; the newest revision that this code knows)."""
        files = (importlib.resources.files(_MIGRATIONS) / "versions").iterdir()
        head = max(file.name.partition("_")[0] for file in files if file.name[0].isdigit())
        if self.is_sqlite and not Path(str(self.url.database)).exists():
            return "", head
        with self.read() as connection:
            if not sa.inspect(connection).has_table("alembic_version"):
                return "", head
            current = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
        return str(current or ""), head

    def require_current(self) -> None:
        """Raise WrongUse unless the store is at the newest migration."""
        current, head = self.revisions()
        if current != head:
            raise WrongUse("the database is not at this version's schema", remedy="Run `tocsin db upgrade`.")

    def close(self) -> None:
        """Give every pooled connection back; the object may be used again."""
        self.engine.dispose()


def _checked(url: str) -> sa.URL:
    try:
        parsed = sa.make_url(url)
    except exc.ArgumentError as error:
        raise WrongUse(
            "database.url cannot be read", remedy="Use sqlite:///FILE or postgresql://…"
        ) from error
    if parsed.drivername in {"postgresql", "postgres"}:
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername not in {"sqlite", "sqlite+pysqlite", "postgresql+psycopg"}:
        raise WrongUse(
            f"database.url names an unknown kind of database: {parsed.drivername}",
            remedy="Use sqlite:///FILE or postgresql://…",
        )
    return parsed


def _create_private(path: Path) -> None:
    """Create the file readable by its owner only; SQLite gives its WAL the same mode."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))


def _prepare_sqlite(dbapi: Any, _record: object) -> None:  # noqa: ANN401 - the driver's own connection
    dbapi.isolation_level = None  # we say BEGIN ourselves; the driver's own guess is a deferred one
    cursor = dbapi.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    # FULL, not NORMAL: with NORMAL a power cut may forget the last commits, and a delivery whose
    # "sending" is forgotten would be sent twice. One fsync a chunk is what certainty costs.
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute(f"PRAGMA busy_timeout={BUSY_SECONDS * 1000}")
    cursor.execute("PRAGMA cache_size=-32000")
    cursor.execute("PRAGMA temp_store=MEMORY")  # no recipient's hash in a temporary file
    cursor.close()


def _begin_sqlite(connection: sa.Connection) -> None:
    # A deferred transaction that reads and then writes fails at once with SQLITE_BUSY (no waiting).
    writes = connection.get_execution_options().get("tocsin_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _begin_postgresql(connection: sa.Connection) -> None:
    # Writers only: a reader locks nothing out, and may be a person with a pager. And no machine code for a
    # statement: for a slice of a launch, PostgreSQL would compile for longer than it then works.
    if connection.get_execution_options().get("tocsin_writes", False):
        connection.exec_driver_sql(
            "SELECT set_config('idle_in_transaction_session_timeout', %s, true), "
            "set_config('jit', 'off', true)",
            (f"{SILENT_SECONDS}s",),
        )


def insert_new(table: sa.Table, connection: sa.Connection) -> "sqlite.Insert | postgresql.Insert":
    """Return this database's INSERT that knows ON CONFLICT."""
    # The other database's dialect is never loaded.
    if connection.dialect.name == "sqlite":
        from sqlalchemy.dialects import sqlite  # noqa: PLC0415 - see above

        return sqlite.insert(table)
    from sqlalchemy.dialects import postgresql  # noqa: PLC0415 - see above

    return postgresql.insert(table)


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turn the driver's words into ours, by remedy."""
    try:
        yield
    except exc.TimeoutError as error:
        raise Unavailable("the database is busy: no connection came free", remedy="Try again.") from error
    except (exc.OperationalError, exc.InterfaceError) as error:
        told = str(error.orig).lower()
        if "disk is full" in told or "no space left" in told or "disk i/o" in told:
            raise Unavailable("the disk is full, or cannot be written", remedy="Free some space.") from error
        if "no such table" in told or "no such column" in told:
            raise WrongUse("the database has no tables yet", remedy="Run `tocsin db upgrade`.") from error
        if "readonly" in told or "unable to open" in told:
            raise Unavailable(
                "the database file cannot be written", remedy="Check its folder's owner and mode."
            ) from error
        raise Unavailable(
            "the database does not answer", remedy="Check database.url and the server."
        ) from error
    except exc.InternalError as error:
        if error.connection_invalidated:
            raise Unavailable(
                "the database ended a transaction that had stopped", remedy="Try again."
            ) from error
        raise
    except exc.ProgrammingError as error:
        if "does not exist" in str(error.orig):
            raise WrongUse("the database has no tables yet", remedy="Run `tocsin db upgrade`.") from error
        raise
