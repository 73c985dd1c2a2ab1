"""`retention`: what is kept of people beside their records, until when, and its removal.

Owns how that is shown. Refuses: timers (the settings'), and to look into a file.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from worker.cli import grammar, session, terminal
from worker.cli.terminal import Column, count
from worker.deeds import Action
from worker.retention import Item
from worker.wiring import Wiring

app = grammar.commands()

_DAY = 86_400.0


@grammar.command(app, "retention", "tocsin retention", "tocsin retention --apply", "tocsin retention --json")
def retention(
    *,
    apply: Annotated[bool, grammar.flag("--apply", help="Remove what is due, now.")] = False,
    as_json: grammar.Json = False,
) -> None:
    """Show what is kept of people, and until when; remove what is due.

    Lists of rejected rows, exports (also those you wrote elsewhere on this machine), previews, captured
    mail, and the words that relays said to mails of campaigns that have ended. The timers stand under
    [retention] in tocsin.toml; workers apply them once an hour. A file that has been changed since it was
    written is left alone, and no link is followed. Suppressions never end by themselves, links in mails
    neither: so a mail stays linked to its reader's keyed hash until they are forgotten. The audit log names
    no reader, and stays unless you set its timer, to a year at least; the rest of it says what was cut off.

    JSON: {timers: {kind: days}, removed: {files, replies, entries}, items: [{kind, what, count, since,
    due_at, due, changed}]}.
    """
    with session.opened() as tocsin:
        removed = tocsin.retention.apply() if apply else None
        if removed and (removed.files or removed.replies):
            deed = session.deed(tocsin, Action.RETENTION, files=removed.files, replies=removed.replies)
            tocsin.audit.note(deed)
        items, now, days = tocsin.retention.items(), tocsin.clock(), tocsin.retention.days
    if as_json:
        terminal.show_json(
            {
                "timers": dict(days),
                "removed": {
                    "files": removed.files if removed else 0,
                    "replies": removed.replies if removed else 0,
                    "entries": removed.entries if removed else 0,
                },
                "items": [_facts(one, now) for one in items],
            }
        )
        return
    if removed is not None:
        files = "1 file" if removed.files == 1 else f"{count(removed.files)} files"
        entries = f"; entries of the audit log: {count(removed.entries)}" if removed.entries else ""
        terminal.say(f"Removed: {files}; the relay's words, of mails: {count(removed.replies)}{entries}.")
    _show(tocsin, items, now)


def _show(tocsin: Wiring, items: Sequence[Item], now: float) -> None:
    timers = ", ".join(f"{kind} {days or 'never'}" for kind, days in tocsin.retention.days.items())
    terminal.say(f"Timers in days: {timers}.")
    if not items:
        terminal.say("Nothing is kept that has a timer.")
        return
    columns = (
        *(Column("What"), Column("Which"), Column("Count", number=True)),
        *(Column("Age", number=True), Column("Removed")),
    )
    rows = [
        (one.kind, _which(tocsin, one), count(one.count), _days(now - one.since), _when(one, now))
        for one in _gathered(items)
    ]
    terminal.show(terminal.table(columns, rows))


def _gathered(items: Sequence[Item]) -> Sequence[Item]:
    """Return captured mails, of which there may be thousands, as one line by folder; the rest as it is."""
    found: dict[tuple[str, str], Item] = {}
    for one in items:
        is_many = one.kind == "captured" and not one.changed
        key = one.kind, str(Path(one.what).parent) if is_many else one.what
        first = found.get(key)
        if first is None:
            found[key] = Item(one.kind, key[1], one.since, one.due_at, one.count, one.changed)
        else:
            since = min(first.since, one.since)
            found[key] = Item(one.kind, key[1], since, first.due_at, first.count + one.count)
    return list(found.values())


def _which(tocsin: Wiring, one: Item) -> str:
    home = tocsin.settings.home
    path = Path(one.what)
    return str(path.relative_to(home)) if path.is_relative_to(home) else one.what


def _days(seconds: float) -> str:
    return f"{int(seconds // _DAY)} d"


def _when(one: Item, now: float) -> str:
    if one.changed:
        return "no: changed since"
    if one.due_at is None:
        return "no timer"
    return "due" if one.due_at <= now else f"in {-int(-(one.due_at - now) // _DAY)} d"


def _facts(one: Item, now: float) -> dict[str, object]:
    return {
        "kind": one.kind,
        "what": one.what,
        "count": one.count,
        "since": terminal.iso(one.since),
        "due_at": terminal.iso(one.due_at),
        "due": one.due_at is not None and one.due_at <= now,
        "changed": one.changed,
    }
