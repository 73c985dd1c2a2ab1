"""`keys`: the key ring looked at, given new keys, and everything renewed under them while all runs.

Owns what is said of keys. Refuses: to show one, to drop one, and to use one that a worker does not have.
"""

import contextlib
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated

import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from worker import rotation, workspace
from worker.cli import grammar, session, terminal
from worker.cli.terminal import Column, count
from worker.deeds import Action
from worker.errors import Refused, WrongUse
from worker.rotation import KeyState, Result, Rotation
from worker.store import keyrings
from worker.store.records import Records
from worker.wiring import Wiring

app = grammar.commands("keys", "tocsin keys check", "tocsin keys new", "tocsin keys rotate --dry-run")

_PURPOSES = {"seal": "seal records", "lookup": "look up by", "mark": "sign links"}
_NEXT = "Copy the file to every machine that shares the database, and to your safe; then: tocsin keys rotate"


@app.callback(invoke_without_command=True)
def keys(ctx: typer.Context) -> int:
    """Show the secret keys' numbers, make new ones, and change over to them."""
    return 0 if ctx.invoked_subcommand else _check(as_json=False)


@grammar.command(app, "check", "tocsin keys check", "tocsin keys check --json")
def check(*, as_json: grammar.Json = False) -> int:
    """Show which keys there are, what needs each of them, and which may be dropped.

    No key is shown. Suppressions of people whose address nobody holds (they were erased, or came as hashes)
    can never be hashed anew: the key they were made with stays for as long as they do. The key of links stays
    for good: links never expire. Exits 1 if the database needs a key that the ring here lacks.

    JSON: {keys: [{purpose, id, state, records, suppressions, may_be_dropped}], left}; left is how many people
    have anything under an older key than the one in use.
    """
    return _check(as_json=as_json)


def _check(*, as_json: bool) -> int:
    with session.opened() as tocsin:
        found, left = _states(tocsin)
    missing = [one for one in found if one.state == "missing"]
    if as_json:
        terminal.show_json({"keys": [_facts(one) for one in found], "left": left})
        return 1 if missing else 0
    columns = (
        *map(Column, ("Key to", "No.", "State")),
        *(Column("Records", number=True), Column("Suppressions", number=True)),
        Column("May be dropped"),
    )
    terminal.show(terminal.table(columns, [_row(one) for one in found]))
    if any(one.state == "waits" for one in found):
        terminal.say(f"There are keys that wait to be used. {_NEXT}")
    elif left:
        terminal.say(f"{terminal.people(left)} under older keys: go on with `tocsin keys rotate`.")
    if missing:
        raise Refused(
            "the database needs a key that this key ring lacks: who said no might be written to",
            remedy="Restore var/secret.toml from a copy that has it.",
        )
    return 0


def _states(tocsin: Wiring) -> tuple[Sequence[KeyState], int]:
    """Return the keys, and how many people have anything under an older one than is in use."""
    ring = keyrings.require(tocsin.database, tocsin.ring())
    use = keyrings.Use(ring.seal_keys.current, ring.lookup_keys.current)
    records = Records(tocsin.database)
    return list(rotation.states(ring, use, records.standing())), records.left(use)


def _row(one: KeyState) -> tuple[str, ...]:
    numbers = ("-" if number is None else count(number) for number in (one.records, one.suppressions))
    dropped = "yes" if one.free else "never" if one.purpose == "mark" else "no"
    return (_PURPOSES[one.purpose], str(one.id), one.state, *numbers, dropped)


def _facts(one: KeyState) -> Mapping[str, object]:
    return {
        "purpose": one.purpose,
        "id": one.id,
        "state": one.state,
        "records": one.records,
        "suppressions": one.suppressions,
        "may_be_dropped": one.free,
    }


@grammar.command(app, "new", "tocsin keys new")
def new() -> None:
    """Add a key to seal with and a key to look up with, which nothing uses yet.

    Every machine needs them before anything is written under them: copy the file, then `tocsin keys rotate`.
    The keys that sign links are never changed: a link that is out there must be read for good.
    """
    with session.opened() as tocsin:
        if tocsin.settings.secret is not None:
            raise WrongUse(
                "the key ring stands in a variable, which cannot be written from here",
                remedy="Put it into a file (secret_file), and unset TOCSIN_SECRET everywhere.",
            )
        ring = tocsin.ring()
        in_use = keyrings.require(tocsin.database, ring)
        if ring.lookup_keys.newest > in_use.lookup_keys.current:
            raise Refused(f"key {ring.lookup_keys.newest} waits to be used already", remedy=_NEXT)
        made = ring.with_new(secrets.token_bytes)
        workspace.replace_key(tocsin.settings.secret_file, made)
        lookup = made.lookup_keys.newest
        tocsin.audit.note(session.deed(tocsin, Action.KEYS_NEW, seal=made.seal_keys.newest, lookup=lookup))
    terminal.say(f"{tocsin.settings.secret_file} has new keys, number {lookup}. Nothing uses them yet.")
    terminal.say(_NEXT)


@grammar.command(
    app, "rotate", "tocsin keys rotate --dry-run", "tocsin keys rotate", "tocsin keys rotate --yes --json"
)
def rotate(
    *,
    dry_run: Annotated[
        bool, grammar.flag("--dry-run", help="Show what would be renewed, and who lacks the key.")
    ] = False,
    yes: grammar.Yes = False,
    as_json: grammar.Json = False,
) -> int:
    """Use the newest keys from now on, and renew everything that is under older ones.

    While all runs: imports, launches, senders and opt-outs go on. It may be stopped at any moment, by Ctrl-C
    or worse, and goes on when it is called again. Every worker that answers is asked first whether its
    machine has the key; one that has not, later, keeps its mail queued and says what to do.

    Exits 1 if records were found that do not open; they stay as they are.

    JSON: {seal, lookup, begun, renewed, suppressions_moved, unreadable, left, lacking: [worker]}.
    """
    with session.opened() as tocsin:
        ring = tocsin.ring()
        keyrings.require(tocsin.database, ring)
        rotating = tocsin.rotation(ring.using_newest())
        begun, left = rotating.has_begun(), rotating.left()
        lacking = [] if begun else _lacking(tocsin, rotating)
        result = Result()
        if not dry_run and (left or not begun):
            _agree(tocsin, rotating, left, lacking, begun=begun, yes=yes)
            result = _run(tocsin, rotating, left)
            begun, left = True, rotating.left()
    if as_json:
        terminal.show_json(
            {
                "seal": rotating.to.seal,
                "lookup": rotating.to.lookup,
                "begun": begun,
                "renewed": result.renewed,
                "suppressions_moved": result.moved,
                "unreadable": result.unreadable,
                "left": left,
                "lacking": lacking or [],
            }
        )
    else:
        _tell(rotating, result, left, lacking, begun=begun)
    return 1 if result.unreadable else 0


def _lacking(tocsin: Wiring, rotating: Rotation) -> list[str] | None:
    """Return the workers whose machine lacks the newest key; None where they could not be asked."""
    marks = tocsin.ring().fingerprints()
    wanted = str(rotating.to.lookup), marks[rotating.to.lookup].hex()
    told = session.workers_keys(tocsin.settings)
    return None if told is None else sorted(name for name, keys in told.items() if wanted not in keys.items())


def _agree(
    tocsin: Wiring, rotating: Rotation, left: int, lacking: list[str] | None, *, begun: bool, yes: bool
) -> None:
    """Make sure that the new keys may be used; refuse while a worker lacks them."""
    if lacking:
        raise Refused(
            f"{len(lacking)} of the workers lack key {rotating.to.lookup}: {', '.join(lacking)}",
            remedy="Copy var/secret.toml to their machines, and try again; nothing was changed.",
        )
    if begun:
        return
    if lacking is None and not tocsin.database.is_sqlite:
        terminal.warn("The queue does not answer, so nobody could be asked whether they have the key.")
    terminal.ask(f"Use key {rotating.to.lookup} from now on, and renew {terminal.people(left)}", agreed=yes)


def _run(tocsin: Wiring, rotating: Rotation, left: int) -> Result:
    deed = session.deed(tocsin, Action.KEYS_ROTATE, seal=rotating.to.seal, lookup=rotating.to.lookup)
    rotating.begin(deed.noting(step="begun"))
    done = replace(deed.noting(step="done"), at=tocsin.clock())
    try:
        with _bar(left) as progress:
            return rotating.run(progress, done)
    except KeyboardInterrupt as error:
        raise terminal.Stopped("Stopped. Nothing is lost; go on with: tocsin keys rotate") from error


class _Bar:
    """A bar on the terminal; silent where there is none."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress = progress
        self._task = progress.add_task("renewing", total=total)

    def __call__(self, renewed: int) -> None:
        self._progress.update(self._task, completed=renewed)


@contextlib.contextmanager
def _bar(total: int) -> Iterator[_Bar]:
    console = terminal.err()
    columns = (
        *(SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=None)),
        *(MofNCompleteColumn(), TimeElapsedColumn()),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield _Bar(progress, total)


def _tell(rotating: Rotation, result: Result, left: int, lacking: list[str] | None, *, begun: bool) -> None:
    if not begun:
        terminal.say(f"Key {rotating.to.lookup} is not used yet; {terminal.people(left)} would be renewed.")
        if lacking:
            terminal.say(f"It is not on the machine of: {', '.join(lacking)}")
        elif lacking is None:
            terminal.say("The queue does not answer: the workers could not be asked whether they have it.")
    elif result.renewed or left:
        terminal.say(f"{terminal.people(result.renewed)} renewed, {count(left)} left.")
    else:
        terminal.say(f"Everybody is under key {rotating.to.lookup} already. For a new one: tocsin keys new")
    if result.unreadable:
        terminal.warn(f"{count(result.unreadable)} records do not open; they stay as they are.")
