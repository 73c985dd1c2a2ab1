"""`db`: the database brought to this version, or looked at.

Refuses: to go back to an older version; that is what a backup is for.
"""

import typer

from worker.cli import grammar, session, terminal
from worker.deeds import Action
from worker.wiring import Wiring

app = grammar.commands("db", "tocsin db status", "tocsin db upgrade")


@app.callback(invoke_without_command=True)
def db(ctx: typer.Context) -> int:
    """Bring the database to this version, or show where it stands."""
    return 0 if ctx.invoked_subcommand else _status(as_json=False)


@grammar.command(app, "upgrade", "tocsin db upgrade")
def upgrade() -> None:
    """Bring the database to this version; safe to repeat."""
    with session.unchecked() as tocsin:
        before, newest = bring_up(tocsin)
    if before == newest:
        terminal.say(f"The database is at {newest} already.")
    else:
        terminal.say(f"The database is at {newest} now{f', from {before}' if before else ''}.")


def bring_up(tocsin: Wiring) -> tuple[str, str]:
    """Bring the store to this version, and write that down; return (its revision before, and now)."""
    before, newest = tocsin.database.revisions()
    tocsin.database.upgrade()
    if before != newest:
        tocsin.audit.note(session.deed(tocsin, Action.UPGRADE, before=before or None, now=newest))
    return before, newest


@grammar.command(app, "status", "tocsin db status", "tocsin db status --json")
def status(*, as_json: grammar.Json = False) -> int:
    """Show where the database stands; exits 1 if it is not at this version.

    JSON: {kind, revision, newest, current}.
    """
    return _status(as_json=as_json)


def _status(*, as_json: bool) -> int:
    with session.unchecked() as tocsin:
        revision, newest = tocsin.database.revisions()
        kind = "SQLite" if tocsin.database.is_sqlite else "PostgreSQL"
    current = revision == newest
    if as_json:
        facts = {"kind": kind.lower(), "revision": revision, "newest": newest, "current": current}
        terminal.show_json(facts)
    elif current:
        terminal.say(f"{kind}, at {newest}: this version's.")
    else:
        terminal.say(
            f"{kind}, at {revision or 'nothing yet'}; this version wants {newest}: tocsin db upgrade"
        )
    return 0 if current else 1
