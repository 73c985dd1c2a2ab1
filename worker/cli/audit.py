"""`audit`: who did what when to what, and the proof that it stands as it was written.

Owns how the audit log is shown. Refuses: to change it in any way.
"""

import datetime as dt
import json
import re
from typing import Annotated

import typer
from rich.text import Text

from worker import calendar
from worker.blots import blotted
from worker.cli import grammar, session, terminal
from worker.cli.terminal import count
from worker.deeds import Entry, Verdict
from worker.errors import Refused, WrongUse

app = grammar.commands()

_HASH = re.compile(r"[0-9a-f]{64}")
_REMEDY = (
    "Somebody has changed the store by another way than this program. Compare it with a backup (this command "
    "reads that too), and find out who can write to the database."
)


@grammar.command(
    app,
    "audit",
    "tocsin audit",
    "tocsin audit --since 2026-12-01",
    "tocsin audit --verify",
    "tocsin audit --json | tail -1",
)
def audit(
    *,
    verify: Annotated[
        bool, grammar.flag("--verify", help="Look through the whole log; exit 1 if it was changed.")
    ] = False,
    head: Annotated[
        str,
        typer.Option(metavar="HASH", help="A head that you kept: verify, and that it is still in the log."),
    ] = "",
    since: Annotated[str, typer.Option(metavar="TIME", help="Only what was done since then (UTC).")] = "",
    as_json: grammar.Json = False,
) -> int:
    """Show who did what when, and prove that nobody has changed it.

    Each entry carries the hash of the one before, so one that was changed, removed, moved or slipped in is
    found. Who can write to the database could still cut off the end, or write the whole anew: so --verify
    prints the head for you to keep somewhere else, and --head proves that it is still there. No reader is
    named: counts, names of campaigns and lists, keyed hashes.

    JSON: one object a line, {number, at, operator, action, subject, details, previous, hash}; with --verify
    one object, {holds, entries, head, broken, why}.
    """
    kept = _checked(head)
    if (verify or kept) and since:
        raise WrongUse("--since shows a part, and --verify looks at all", remedy="Give one of them.")
    with session.opened() as tocsin:
        if verify or kept:
            return _tell(tocsin.audit.verify(kept), as_json=as_json, was_kept=bool(kept))
        found = tocsin.audit.entries(_moment(since))
        if as_json:
            for entry in found:
                typer.echo(json.dumps(_keys(entry)))
        else:
            _show(list(found))
    return 0


def _checked(head: str) -> str:
    kept = head.strip().lower()
    if kept and not _HASH.fullmatch(kept):
        raise WrongUse(
            "--head takes a whole hash, of 64 characters", remedy="As `tocsin audit --verify` printed it."
        )
    return kept


def _moment(text: str) -> float:
    """Read a date or time, in UTC where it names no zone."""
    if not text:
        return 0.0
    try:
        found = dt.datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise WrongUse(
            f"{text!r} is not a date or time", remedy='As in: --since 2026-12-01, or "2026-12-01 09:00".'
        ) from error
    return (found if found.tzinfo else found.replace(tzinfo=dt.UTC)).timestamp()


def _tell(verdict: Verdict, *, as_json: bool, was_kept: bool) -> int:
    if as_json:
        terminal.show_json(
            {
                "holds": verdict.holds,
                "entries": verdict.number,
                "head": verdict.head,
                "broken": verdict.broken,
                "why": verdict.why,
            }
        )
        return 0 if verdict.holds else 1
    if not verdict.holds:
        where = "" if verdict.broken is None else f" at entry {verdict.broken}"
        raise Refused(f"the audit log is broken{where}: {verdict.why}", remedy=_REMEDY)
    first, last = count(verdict.first), count(verdict.number)
    terminal.say(f"Entries {first} to {last} stand as they were written.", terminal.GOOD)
    if verdict.first > 1:
        terminal.say("Those before them were cut off when their time was over, and an entry says so.")
    if was_kept:
        terminal.say("The head that you kept is among them.", terminal.GOOD)
    terminal.say(f"Head, to keep somewhere else: entry {count(verdict.number)},\n{verdict.head}")
    return 0


def _show(entries: list[Entry]) -> None:
    if not entries:
        terminal.say("There is none.")
        return
    # Two lines each, not a table: six columns leave the details no room on a terminal of 80.
    terminal.show(terminal.facts((str(one.number), _lines(one)) for one in entries))


def _lines(entry: Entry) -> Text:
    """Return who did what to what, and under it the details."""
    head = (calendar.show(entry.at, "UTC"), entry.operator, f"{entry.action} {entry.subject}")
    details = terminal.cell(blotted(_in_words(entry)), terminal.FAINT)
    return Text("\n").join(line for line in (Text("  ").join(map(terminal.cell, head)), details) if line)


def _in_words(entry: Entry) -> str:
    """Return the details in one line; hashes by their first twelve characters."""
    return ", ".join(
        f"{name.replace('_', ' ')} {_fact(value)}" for name, value in entry.facts.items() if value is not None
    )


def _fact(value: object) -> str:
    if isinstance(value, dict):
        return "(" + ", ".join(f"{_fact(number)} {why}" for why, number in value.items()) + ")"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, int):
        return count(value)
    return re.sub(r"\b([0-9a-f]{12})[0-9a-f]{20,}\b", r"\1…", str(value))


def _keys(entry: Entry) -> dict[str, object]:
    return {
        "number": entry.number,
        "at": terminal.iso(entry.at),
        "operator": entry.operator,
        "action": entry.action,
        "subject": entry.subject,
        "details": dict(entry.facts),
        "previous": entry.previous,
        "hash": entry.hash,
    }
