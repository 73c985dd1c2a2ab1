"""`people`: what one person may ask of us: to be told, corrected, forgotten.

Owns how they are asked for and what is said. Refuses: to write an address or a name into a log or an error.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from worker.cli import dossiers, grammar, incoming, session, suppressed, terminal
from worker.cli.terminal import Column, count
from worker.deeds import Action, Deed
from worker.errors import WrongUse
from worker.rights import Correction, Subject, check_field
from worker.store.dossiers import Erased
from worker.store.left import Kind
from worker.tables import readings
from worker.tables.lists import tidy
from worker.wiring import Wiring

app = grammar.commands("people", "tocsin people show -", "tocsin people forget me@example.org --dry-run")

#: Files that hold what was said to or of people; lists of rejected rows hold line numbers and reasons.
_MAY_NAME = (Kind.EXPORTS, Kind.CAPTURED, Kind.PREVIEWS)
#: Of those, how many are told by name.
_MOST_TOLD = 20

Who = Annotated[
    str,
    typer.Argument(
        metavar="WHO",
        help="An address, an opt-out link, its token, or a Message-ID; - reads it from standard input, so "
        "that no shell history keeps it.",
        show_default=False,
    ),
]


@app.callback()
def people() -> None:
    """Show, export, correct or forget what is held about one person."""


@grammar.command(app, "show", "tocsin people show me@example.org", "tocsin people show - --json")
def show(*, who: Who, as_json: grammar.Json = False) -> None:
    """Show what we hold about somebody.

    Fields, lists with their consent, suppressions, never-mail rules that keep them out, and mails with how
    they ended. Exits 1 if that is nothing.

    JSON: {person, unreadable_record, lists, suppressions, mails, asked, rules}; asked are the mails outside
    any campaign: those that they asked for on our pages, and invitations.
    """
    with session.opened() as tocsin:
        subject = _found(tocsin, who)
        told, rules = dossiers.facts(subject, suppressed.scope_names(tocsin)), subject.rules
        tocsin.audit.note(_deed(tocsin, Action.PEOPLE_SHOW, subject))
    if as_json:
        terminal.show_json(told)
        return
    person = told["person"]
    if person:
        known = {**person, **person["fields"]}
        del known["fields"]
        terminal.show(terminal.facts([(name, str(value)) for name, value in known.items()]))
    elif told["unreadable_record"]:
        terminal.warn("There is a record of them that does not open with our keys.")
    if rules:
        terminal.warn(f"No campaign writes to them, by the never-mail rule {', '.join(rules)}.")
    for title in ("lists", "suppressions", "mails", "asked"):
        terminal.say(f"\n{title}: {count(len(told[title]))}", terminal.STRONG)
        for one in told[title]:
            terminal.show(terminal.facts([(name, _shown(value)) for name, value in one.items()]))


def _shown(value: object) -> str:
    if isinstance(value, list):
        return "; ".join(f"{one['what']} {one['at']} ({one['source']})" for one in value) or "-"
    return "-" if value in {None, ""} else str(value)


@grammar.command(app, "export", "tocsin people export me@example.org", "tocsin people export - --to answers")
def export(
    *,
    who: Who,
    to: Annotated[
        str, typer.Option(metavar="DIR", help="The folder to write to; by default exports, beside the logs.")
    ] = "",
) -> None:
    """Write all of it for them to read: JSON, and one page without scripts.

    Only you may read the files (mode 600), and none is written over. Remove them when they have been handed
    over; `tocsin retention` lists them until then. Exits 1 if we hold nothing.
    """
    with session.opened() as tocsin:
        subject = _found(tocsin, who)
        told = dossiers.facts(subject, suppressed.scope_names(tocsin))
        folder = Path(to) if to else tocsin.settings.state / "exports"
        made_at = str(terminal.iso(tocsin.clock()))
        paths = dossiers.write(told, folder, tocsin.settings.organisation.name, made_at)
        for path in paths:
            tocsin.retention.note(Kind.EXPORTS, path)
        tocsin.audit.note(_deed(tocsin, Action.PEOPLE_EXPORT, subject))
    for path in paths:
        terminal.say(f"Written: {path} (mode 600)")


@grammar.command(
    app,
    "correct",
    "tocsin people correct me@example.org --set first_name=Asel --language ru",
    "tocsin people correct - --clear town --discreet yes --yes",
)
def correct(
    *,
    who: Who,
    given: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=TEXT", help="Set a field; may be repeated.")
    ] = None,
    clear: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Take a field away; may be repeated.")
    ] = None,
    language: Annotated[
        str | None, typer.Option(metavar="CODE", help='The language they read; "" for none.')
    ] = None,
    discreet: Annotated[
        str | None, typer.Option(metavar="YES|NO", help="Whether they get the neutral form.")
    ] = None,
    yes: grammar.Yes = False,
) -> None:
    """Correct what we hold about somebody.

    Another address is another person: import it, and forget this one. Exits 1 if we hold nothing.
    """
    wanted = Correction(
        _fields(given or ()),
        frozenset(check_field(name) for name in clear or ()),
        _language(language),
        _discreet(discreet),
    )
    if not wanted:
        raise WrongUse("this corrects nothing", remedy="Say what: --set, --clear, --language or --discreet.")
    with session.opened() as tocsin:
        subject = _found(tocsin, who)
        terminal.ask("Change this record", agreed=yes)
        tocsin.rights.correct(subject, wanted, session.deed(tocsin, Action.PEOPLE_CORRECT))
    terminal.say("Corrected.")


def _fields(given: Sequence[str]) -> dict[str, str]:
    found = {}
    for one in given:
        name, equals, text = one.partition("=")
        if not equals or not tidy(text):
            raise WrongUse("a field is set as NAME=TEXT", remedy="To take one away: --clear NAME")
        found[check_field(name)] = tidy(text)
    return found


def _language(text: str | None) -> str | None:
    try:
        return readings.language(text) if text else text
    except readings.UnclearError as error:
        raise WrongUse(str(error), remedy='As in: --language ru, or --language "" for none.') from error


def _discreet(text: str | None) -> bool | None:
    if text is None:
        return None
    answer = readings.yes(text)
    if answer is None:
        raise WrongUse("--discreet is yes or no")
    return answer


@grammar.command(
    app, "forget", "tocsin people forget me@example.org --dry-run", "tocsin people forget - --yes"
)
def forget(
    *,
    who: Who,
    dry_run: Annotated[bool, grammar.flag("--dry-run", help="Show what would go; change nothing.")] = False,
    yes: grammar.Yes = False,
) -> None:
    """Forget somebody for good, and never write to them again.

    Their record and lists go, and no mail of ours leads to them any more. The counts stay, and so does a
    keyed hash that keeps them from being imported again. At once, also in a campaign that is under way. Safe
    to repeat. Exits 1 if we hold nothing.
    """
    with session.opened() as tocsin:
        subject = _found(tocsin, who)
        if dry_run:
            _tell(tocsin.rights.would_forget(subject), "Would go")
            return
        terminal.ask("Forget this person for good", agreed=yes)
        done = tocsin.rights.forget(subject, "cli", session.deed(tocsin, Action.PEOPLE_FORGET))
        kept = [Path(one.what) for one in tocsin.retention.items() if one.kind in _MAY_NAME]
    _tell(done, "Gone")
    terminal.say("Not reached by this: backups, files you imported, exports, and mail kept in the inbox.")
    _tell_of_files(kept, subject)


def _tell_of_files(kept: Sequence[Path], subject: Subject) -> None:
    """Tell which files of ours hold their address still; others may name them in a way that no look finds."""
    address = subject.person.address.spec.lower().encode() if subject.person else None
    found = [path for path in kept if address and address in _read(path).lower()]
    if found:
        terminal.warn(f"Files that name them still, for you to remove: {count(len(found))}")
        for path in found[:_MOST_TOLD]:
            terminal.warn(f"  {path}")
    if others := len(kept) - len(found):
        terminal.warn(f"Other files here that may name them: {count(others)}. See: tocsin retention")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # removed meanwhile
        return b""


def _deed(tocsin: Wiring, action: Action, subject: Subject) -> Deed:
    """Return what is written down of somebody: by a keyed hash, which names nobody without the key."""
    return session.deed(tocsin, action, key=subject.keys[0].hex())


def _tell(done: Erased, title: str) -> None:
    rows = [
        ("sealed record", count(done.records)),
        ("memberships", count(done.memberships)),
        ("mails that lead to them", count(done.mails)),
        ("of these, waiting: not sent", count(done.stopped)),
        ("of these, in hand: stopped if not yet begun", count(done.in_hand)),
    ]
    terminal.show(terminal.table([Column(title), Column("Count", number=True)], rows))
    terminal.say(
        'Stays: the counts, and a new "no" by keyed hash.'
        if done.suppressed
        else 'Stays: the counts, and the "no" that stood already.'
    )


def _found(tocsin: Wiring, who: str) -> Subject:
    return tocsin.rights.find(incoming.word(who))
