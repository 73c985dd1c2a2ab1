"""`lists invite`: people asked by one mail whether they want to be on a list (double opt-in).

Owns how that is asked for, counted before and told. Refuses: to ask anybody twice, which the store holds, and
to show a person.
"""

import datetime as dt
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated

import typer

from worker.cli import completion, grammar, incoming, session, terminal
from worker.deeds import Action
from worker.errors import Refused
from worker.imports import Rejects, Target
from worker.invitations import Candidate, Summary
from worker.sealing import Person
from worker.store.invitations import APART
from worker.store.people import List
from worker.tables import lists as recipients
from worker.tables.lists import Consent, Rejected, Row
from worker.wiring import Wiring

_MINUTE = 60


def invite(
    *,
    slug: Annotated[
        str,
        typer.Argument(metavar="LIST", help="The list.", autocompletion=completion.lists, show_default=False),
    ],
    csv: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            help="Those of a CSV file (- for standard input), imported first.",
            show_default=False,
        ),
    ] = "",
    dry_run: Annotated[bool, grammar.flag("--dry-run", help="Count everything, ask nobody.")] = False,
    yes: grammar.Yes = False,
    as_json: grammar.Json = False,
) -> None:
    """Ask people by one mail each whether they want to be on a list (double opt-in).

    It asks the members who lack the consent that the list's policy wants, or those of a file. The mail leads
    to a page with one button; whoever presses it has consented, with proof. Each is asked once ever for one
    list; whoever said no, is on a pause or is kept out by a rule is never asked, and counted here.

    JSON: {list, invited, left_out: {reason: count}, minutes, dry_run}.
    """
    with session.opened() as tocsin:
        one = tocsin.people.find_lists([slug])[0]
        session.mind_examples(tocsin, dry_run=dry_run)
        told = _Told(slug, dry_run=dry_run)
        try:
            if csv:
                _of_file(tocsin, one, csv, told, yes=yes)
            else:
                _of_list(tocsin, one, told, yes=yes)
        except KeyboardInterrupt as stop:
            asked = terminal.people(told.summary.invited)
            raise terminal.Stopped(
                f"stopped; {asked} asked. Again asks the others: nobody is asked twice"
            ) from stop
    told.show(as_json=as_json)


@dataclass(slots=True)
class _Told:
    """What there is to tell."""

    list: str
    dry_run: bool
    summary: Summary = field(default_factory=Summary)

    def show(self, *, as_json: bool) -> None:
        """Print it."""
        invited, left_out = self.summary.invited, self.summary.left_out
        minutes = round(invited * APART / _MINUTE, 1)
        if as_json:
            found = {"list": self.list, "invited": invited, "left_out": dict(sorted(left_out.items()))}
            terminal.show_json({**found, "minutes": minutes, "dry_run": self.dry_run})
            return
        rows = [(f"left out: {reason}", terminal.count(number)) for reason, number in left_out.most_common()]
        columns = (terminal.Column("People"), terminal.Column("Count", number=True))
        asked = "would be asked" if self.dry_run else "asked"
        terminal.show(terminal.table(columns, [*rows, (asked, terminal.count(invited))], total=True))
        if self.dry_run:
            terminal.say("A dry run: nobody was asked.")
        elif invited:
            pace = f", over some {minutes:.0f} minutes" if minutes > 1 else ""
            terminal.say(f"The mails go out while `tocsin up` runs{pace}.")


def _of_list(tocsin: Wiring, one: List, told: _Told, *, yes: bool) -> None:
    """Ask members: counted first, and looked at once more when they are asked, so that memory stays flat."""
    found = Summary()
    with terminal.busy("Looking at the members…"):
        found.invited = sum(
            1 for _ in tocsin.invitations.choose(one, tocsin.invitations.candidates(one), found)
        )
    if told.dry_run or not found.invited:
        told.summary = found
        return
    _confirm(one, found.invited, yes=yes)
    chosen = tocsin.invitations.choose(one, tocsin.invitations.candidates(one), told.summary)
    _ask(tocsin, one, (each.id for each in chosen), told)


def _of_file(tocsin: Wiring, one: List, file: str, told: _Told, *, yes: bool) -> None:
    """Ask those of a file: those who may be asked are brought onto the list first, without any consent."""
    rows = _read(file)
    keyed = _Keyed(tocsin, rows, told.summary.left_out)
    chosen = list(tocsin.invitations.choose(one, keyed, told.summary))
    bad = [row for row in rows if isinstance(row, Rejected)]
    if told.dry_run or not (chosen or bad):
        told.summary.invited = len(chosen)
        told.summary.left_out += Counter(f"bad row: {row.reason}" for row in bad)
        return
    if not bad:
        _confirm(one, len(chosen), yes=yes)
    _bring(tocsin, one, [*(keyed.rows[each.keys[0]] for each in chosen), *bad])
    _ask(tocsin, one, tocsin.invitations.members(one, chosen), told)


class _Keyed:
    """The people of a file, each once, by the hash of their address."""

    def __init__(self, tocsin: Wiring, rows: Iterable[Row | Rejected], left_out: Counter[str]) -> None:
        self.rows: dict[bytes, Row] = {}
        self._candidates: list[Candidate] = []
        for row in rows:
            if isinstance(row, Row):
                one = tocsin.invitations.newcomer(Person(row.address, row.fields, row.language, row.discreet))
                if one.keys[0] in self.rows:
                    left_out["twice in the file"] += 1
                else:
                    self.rows[one.keys[0]] = row
                    self._candidates.append(one)

    def __iter__(self) -> Iterator[Candidate]:
        return iter(self._candidates)


def _read(file: str) -> Sequence[Row | Rejected]:
    with incoming.opened(file) as (stream, size), incoming.bar(size) as bar:
        return list(recipients.read(bar.chunks(stream), defaults=Consent()))


def _bring(tocsin: Wiring, one: List, rows: Sequence[Row | Rejected]) -> None:
    """Import them; what the file says of a consent counts for nothing before they have said it themselves."""
    now = dt.datetime.now(dt.UTC)
    path = tocsin.settings.state / "rejects" / f"{one.slug}-{now:%Y%m%d-%H%M%S-%f}.csv"
    bare = (replace(row, consent=Consent()) if isinstance(row, Row) else row for row in rows)
    deed = session.deed(tocsin, Action.LISTS_IMPORT, one.slug)
    try:
        tocsin.importer.run(
            *(bare, Target(one.slug, one.title), Rejects(path), lambda _rows: None),
            lambda result: deed.noting(rows=result.rows, accepted=result.accepted, source="invite"),
        )
    except Refused as error:
        raise Refused(f"{error}, and nobody was asked", remedy=f"See {path}, and mend the file.") from error


def _confirm(one: List, number: int, *, yes: bool) -> None:
    terminal.ask(f"Ask {terminal.people(number)} whether they want to be on {one.slug}", agreed=yes)


def _ask(tocsin: Wiring, one: List, ids: Iterable[int], told: _Told) -> None:
    deed = session.deed(tocsin, Action.LISTS_INVITE, one.slug)
    with terminal.busy("Writing the invitations down…"):
        tocsin.invitations.ask(one, ids, told.summary, deed)
