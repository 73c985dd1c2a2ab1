"""`lists`: who is held, and files of people brought onto a list.

Owns how an import is asked for and told. Refuses: to show a person, and to keep anything of a file that was
refused or interrupted but the list of its bad rows.
"""

import datetime as dt
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from worker.cli import completion, grammar, incoming, inviting, policies, session, terminal
from worker.deeds import Action, Deed, Fact
from worker.errors import Refused, WrongUse
from worker.imports import Rejects, Result, Target
from worker.tables import lists as recipients
from worker.tables import readings
from worker.tables.lists import Consent, Rejected, Row
from worker.wiring import Wiring

app = grammar.commands("lists", "tocsin lists", "tocsin lists import supporters.csv --list supporters")

_SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_SLUG_MOST = 64


grammar.command(
    app,
    "policy",
    "tocsin lists policy supporters",
    "tocsin lists policy supporters --basis consent --basis charity --proof wording",
    "tocsin lists policy patients --basis consent --confirmed yes --special yes",
)(policies.policy)


grammar.command(
    app,
    "invite",
    "tocsin lists invite supporters --dry-run",
    "tocsin lists invite supporters",
    "tocsin lists invite supporters --csv stall.csv",
)(inviting.invite)


class Dates(Enum):
    """How a file writes 03/04/2026."""

    DAY_FIRST = "day-first"
    MONTH_FIRST = "month-first"


@app.callback(invoke_without_command=True)
def lists(ctx: typer.Context, *, as_json: grammar.Json = False) -> int:
    """Show the lists of people, or import a file into one.

    JSON: an array of {list, title, members}.
    """
    if ctx.invoked_subcommand:
        return 0
    with session.opened() as tocsin:
        found = tocsin.people.lists()
    if as_json:
        terminal.show_json([{"list": one.slug, "title": one.title, "members": one.members} for one in found])
    elif not found:
        terminal.say("There is no list yet. Import one: tocsin lists import FILE --list SLUG")
    else:
        columns = (terminal.Column("List"), terminal.Column("Title"), terminal.Column("Members", number=True))
        rows = [(one.slug, one.title, terminal.count(one.members)) for one in found]
        terminal.show(terminal.table(columns, rows))
    return 0


@grammar.command(
    app,
    "import",
    "tocsin lists import lists/example.csv --list example",
    "tocsin lists import - --list stall --basis consent --source 'Pride stall' \\",
    "    --when 2026-06-20 --wording 'Yes, email me appeals.' < stall.csv",
    "tocsin lists import export.csv --list supporters --accept-valid --dry-run",
)
def import_(  # noqa: PLR0913 - each is an option of the command
    *,
    file: Annotated[
        str,
        typer.Argument(metavar="FILE", help="CSV file; - for standard input.", show_default=False),
    ],
    slug: Annotated[
        str,
        typer.Option(
            "--list",
            metavar="SLUG",
            help="The list to import into; made if it is new.",
            autocompletion=completion.lists,
            show_default=False,
        ),
    ],
    title: Annotated[
        str, typer.Option(metavar="TEXT", help="A new list's title; readers see it on the opt-out page.")
    ] = "",
    basis: Annotated[
        str, typer.Option(metavar="TEXT", help="Legal basis where the file names none, as in: consent.")
    ] = "",
    source: Annotated[
        str, typer.Option(metavar="TEXT", help="Where consent was given, as in: web form.")
    ] = "",
    when: Annotated[str, typer.Option(metavar="DATE", help="When it was given, as in: 2026-03-14.")] = "",
    wording: Annotated[str, typer.Option(metavar="TEXT", help="The words that people agreed to.")] = "",
    offered: Annotated[
        bool, grammar.flag("--opt-out-offered", help="They were offered an opt-out when they gave it.")
    ] = False,
    encoding: Annotated[
        str, typer.Option(metavar="NAME", help="The file's encoding, where its bytes do not tell.")
    ] = "",
    dates: Annotated[
        Dates | None, typer.Option(metavar="ORDER", help="day-first or month-first, for dates as 03/04/2026.")
    ] = None,
    accept_valid: Annotated[
        bool, grammar.flag("--accept-valid", help="Take the good rows although some are bad.")
    ] = False,
    dry_run: Annotated[bool, grammar.flag("--dry-run", help="Count everything, keep nothing.")] = False,
    as_json: grammar.Json = False,
) -> None:
    """Import a file of people into a list: all of it, or nothing if any row is bad.

    Any common encoding and delimiter will do. Columns are known by their names in many languages; further
    ones are kept as fields. People who said no stay out. Bad rows are listed by line and reason in a file
    under var/rejects. Nobody is written to without a basis, a source and a date of their consent: give them
    by column or by option.

    JSON: {list, rows, accepted, new_people, new_members, duplicates, suppressed, no_to_topics, barred: {rule:
    count}, rejected: {reason: count}, without_consent, rejects_file, imported}.
    """
    target = Target(_checked(slug), title or slug.replace("-", " ").capitalize(), accept_valid, dry_run)
    day_first = None if dates is None else dates is Dates.DAY_FIRST
    consent = Consent(basis, source, wording, _moment(when, day_first=day_first), offered)
    order = _Order(file, target, consent, encoding or None, day_first)
    told = _Told(target.slug)
    try:
        _run(order, told)
    except Refused:
        told.show(as_json=as_json)
        raise
    told.show(as_json=as_json)


@dataclass(frozen=True, slots=True)
class _Order:
    """What to import, and how to read it."""

    file: str
    target: Target
    consent: Consent
    encoding: str | None
    day_first: bool | None


def _run(order: _Order, told: "_Told") -> None:
    """Import; what is found on the way is noted, so that it can be told of a refused file as well."""
    with (
        session.opened() as tocsin,
        incoming.opened(order.file) as (stream, size),
        incoming.bar(size) as bar,
    ):
        digest = incoming.Digest()
        rows = recipients.read(
            digest.watch(bar.chunks(stream)),
            defaults=order.consent,
            encoding=order.encoding,
            day_first=order.day_first,
        )
        now = dt.datetime.now(dt.UTC)
        path = tocsin.settings.state / "rejects" / f"{order.target.slug}-{now:%Y%m%d-%H%M%S-%f}.csv"
        try:
            told.result = tocsin.importer.run(
                *(told.watch(rows), order.target, Rejects(path), bar.rows),
                lambda result: _deed(tocsin, order.target.slug, result, digest.hex),
            )
        except KeyboardInterrupt as stop:
            path.unlink(missing_ok=True)
            raise terminal.Stopped("stopped; nothing was imported") from stop
        finally:
            told.rejects_file = path if path.exists() else None


def _deed(tocsin: Wiring, slug: str, result: Result, sha256: str | None) -> Deed:
    """Return what the audit log keeps of an import: counts, and which file it was, not what it is called."""
    facts: dict[str, Fact] = {
        "rows": result.rows,
        "accepted": result.accepted,
        "suppressed": result.suppressed,
        "rejected": result.rejected.total(),
        "sha256": sha256,
    }
    return session.deed(tocsin, Action.LISTS_IMPORT, slug, **facts)


@dataclass(slots=True)
class _Told:
    """What there is to tell of an import, whether it was taken or refused."""

    list: str
    rows: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    without_consent: int = 0  #: good rows that lack a basis, a source or a date
    rejects_file: Path | None = None
    result: Result | None = None  #: None: it was refused

    def watch(self, rows: Iterable[Row | Rejected]) -> Iterator[Row | Rejected]:
        """Count rows as they pass."""
        for row in rows:
            self.rows += 1
            if isinstance(row, Rejected):
                self.rejected[row.reason] += 1
            elif not (row.consent.basis and row.consent.source and row.consent.at):
                self.without_consent += 1
            yield row

    def show(self, *, as_json: bool) -> None:
        """Print it."""
        if as_json:
            terminal.show_json(self._facts())
        elif self.rows:
            self._print()

    def _facts(self) -> dict[str, object]:
        result = self.result or Result()
        return {
            "list": self.list,
            "rows": self.rows,
            "accepted": result.accepted,
            "new_people": result.new_people,
            "new_members": result.new_members,
            "duplicates": result.duplicates,
            "suppressed": result.suppressed,
            "no_to_topics": result.no_to_topics,
            "barred": dict(sorted(result.barred.items())),
            "rejected": dict(sorted(self.rejected.items())),
            "without_consent": self.without_consent,
            "rejects_file": str(self.rejects_file) if self.rejects_file else None,
            "imported": result.kept,
        }

    def _print(self) -> None:
        rows: list[tuple[str, str]] = []
        if self.result:
            rows = [
                ("accepted", terminal.count(self.result.accepted)),
                ("further rows of one address", terminal.count(self.result.duplicates)),
                ("suppressed: they said no", terminal.count(self.result.suppressed)),
            ]
        rows += [
            (f"rejected: {reason}", terminal.count(count)) for reason, count in self.rejected.most_common()
        ]
        shown = [row for row in rows if row[1] != "0" or row[0] == "accepted"]
        columns = (terminal.Column("Rows"), terminal.Column("Count", number=True))
        terminal.show(terminal.table(columns, [*shown, ("read", terminal.count(self.rows))], total=True))
        if self.rejects_file and self.result:
            terminal.say(f"Bad rows, by line: {self.rejects_file}")
        if self.result:
            self._conclude(self.result)

    def _conclude(self, result: Result) -> None:
        for name, number in result.barred.most_common():
            who = terminal.people(number)
            terminal.say(f"Accepted too: {who} under the never-mail rule {name}. No campaign writes to them.")
        if result.no_to_topics:
            who = terminal.people(result.no_to_topics)
            terminal.say(f"Accepted too: {who} who said no to some topic. Appeals about it leave them out.")
        if result.kept:
            terminal.say(
                f"{self.list}: {terminal.count(result.new_members)} new on the list, "
                f"{terminal.count(result.new_people)} of them new to us."
            )
        else:
            terminal.say("A dry run: nothing was imported.")
        if self.without_consent:
            who = (
                "1 row lacks"
                if self.without_consent == 1
                else f"{terminal.count(self.without_consent)} rows lack"
            )
            terminal.warn(
                f"{who} a basis, source or date of consent, and will not be written to. Import again with "
                "--basis, --source and --when."
            )


def _checked(slug: str) -> str:
    if not _SLUG.fullmatch(slug) or len(slug) > _SLUG_MOST:
        raise WrongUse(
            "a list's name is small letters, digits and hyphens, 64 at most",
            remedy="For example: --list supporters",
        )
    return slug


def _moment(text: str, *, day_first: bool | None) -> dt.datetime | None:
    try:
        return readings.moment(text, day_first=day_first) if text else None
    except readings.UnclearError as error:
        raise WrongUse(f"--when: {error}", remedy="Write it as 2026-03-14.") from error
