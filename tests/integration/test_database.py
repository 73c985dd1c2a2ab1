"""The store comes up, stays in step with its migrations, and says in words what is wrong with it."""

from pathlib import Path

import alembic.autogenerate
import alembic.migration
import pytest
import sqlalchemy as sa

from worker.errors import Unavailable, WrongUse
from worker.store import database as module
from worker.store.database import Database
from worker.store.schema import lists, metadata


def test_migrations_make_exactly_the_tables_of_the_schema(database: Database) -> None:
    """What `db upgrade` builds is what the code expects, on both databases."""
    with database.read() as connection:
        context = alembic.migration.MigrationContext.configure(connection)
        assert alembic.autogenerate.compare_metadata(context, metadata) == []


def test_upgrading_twice_changes_nothing(database: Database) -> None:
    """`db upgrade` may be repeated."""
    before = database.revisions()
    database.upgrade()
    assert database.revisions() == before
    assert before[0] == before[1]


def test_a_store_without_tables_names_the_remedy(empty_url: str) -> None:
    """A store that was never upgraded is an operator's mistake, with the command that mends it."""
    database = Database(empty_url)
    with pytest.raises(WrongUse) as caught:
        database.require_current()
    assert "tocsin db upgrade" in caught.value.remedy
    database.close()


def test_a_sqlite_file_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    """The file, and what SQLite puts beside it, are private."""
    database = Database(f"sqlite:///{tmp_path}/sub/t.sqlite3")
    database.upgrade()
    assert {file.stat().st_mode & 0o077 for file in (tmp_path / "sub").iterdir()} == {0}
    database.close()


def test_a_server_that_is_away_is_unavailable_not_a_traceback(tmp_path: Path) -> None:
    """A PostgreSQL that does not answer is one clear line and exit code 3."""
    database = Database(f"postgresql://nobody@/x?host={tmp_path}")
    with pytest.raises(Unavailable), database.read():
        pass


@pytest.mark.parametrize("url", ["mysql://x/y", "nonsense", "sqlite://"])
def test_an_unknown_kind_of_database_is_refused(url: str) -> None:
    """Only SQLite files and PostgreSQL are offered."""
    with pytest.raises(WrongUse):
        Database(url)


def test_who_stops_in_mid_transaction_locks_nobody_out_for_long(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer that says nothing more (stopped, or its machine gone) is ended by PostgreSQL, and told so."""
    monkeypatch.setattr(module, "SILENT_SECONDS", 1)
    stopped, other = Database(postgres_url), Database(postgres_url)
    other.upgrade()
    with other.write() as connection:
        connection.execute(sa.insert(lists).values(slug="one", title="", created_at=1.0))

    def stop_and_wake_up() -> None:
        with stopped.write() as connection:
            connection.execute(sa.update(lists).values(title="stopped"))
            with other.write() as waiting:  # for its lock
                waiting.execute(sa.update(lists).values(title="other"))
            connection.execute(sa.update(lists).values(title="woken up"))

    with pytest.raises(Unavailable, match="had stopped"):
        stop_and_wake_up()
    with other.read() as connection:
        assert connection.execute(sa.select(lists.c.title)).scalar_one() == "other"
    for each in (stopped, other):
        each.close()
