"""`suppress`: the standing "no"s, kept by keyed hash, which name nobody and outlive erasure.

Owns the ways in and out of that list. Refuses: to print an address, and to lift a "no" without a reason.
"""

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from worker import addresses, disguises, workspace
from worker.addresses import Address, AddressError
from worker.blots import blotted
from worker.cli import barring, completion, grammar, incoming, session, suppressed, terminal
from worker.cli.terminal import Column, count
from worker.content import appeals
from worker.deeds import Action
from worker.errors import Refused, WrongUse
from worker.store.left import Kind
from worker.store.suppressions import (
    EVERYTHING,
    FEWER,
    Act,
    Lifted,
    Suppression,
    list_scope,
    topic_scope,
)
from worker.wiring import Wiring

app = grammar.commands(
    "suppress", "tocsin suppress add - < said-no.txt", "tocsin suppress check me@example.org"
)

#: What the store holds of where an entry came from.
_SOURCE_MOST = 64


class Form(Enum):
    """How addresses are written out for another tool."""

    PLAIN = "plain"
    MD5 = "md5"
    SHA1 = "sha1"
    SHA256 = "sha256"


class Strict(Enum):
    """What is not lifted unless it is named."""

    COMPLAINT = "complaint"
    ERASURE = "erasure"


class Reason(Enum):
    """Why somebody must not be written to."""

    OPT_OUT = "opt-out"
    COMPLAINT = "complaint"
    BOUNCE = "bounce"
    OPERATOR = "operator"
    IMPORTED = "imported"
    ERASURE = "erasure"


ForTopic = Annotated[
    str,
    typer.Option(
        "--topic",
        metavar="SLUG",
        help="For appeals about that only: those with it under topics in their front matter.",
    ),
]
Addresses = Annotated[
    list[str],
    typer.Argument(
        metavar="ADDRESS",
        help="Addresses; - reads them from standard input, one a line, so that no shell history keeps them.",
        show_default=False,
    ),
]
Why = Annotated[
    Reason, typer.Option(metavar="REASON", help=f"Why: {', '.join(each.value for each in Reason)}.")
]
OfList = Annotated[
    str,
    typer.Option(
        "--list",
        metavar="SLUG",
        help="For that list only; by default for all.",
        autocompletion=completion.lists,
    ),
]


app.add_typer(barring.app)


@app.callback()
def suppress() -> None:
    """Keep the list of those who must not be written to."""


@grammar.command(
    app,
    "add",
    "tocsin suppress add me@example.org",
    "tocsin suppress add - --reason complaint < complaints.txt",
    "tocsin suppress add me@example.org --topic petitions",
)
def add(
    *,
    given: Addresses,
    reason: Why = Reason.OPERATOR,
    of_list: OfList = "",
    topic: ForTopic = "",
) -> None:
    """Never write to these addresses again.

    At once, also in a campaign that is under way. Safe to repeat: what stands already stays as it is. One
    wrong address, and none is added.
    """
    found = _parsed(given)
    with session.opened() as tocsin:
        scope, now = _scope(tocsin, of_list, topic), tocsin.clock()
        new = tocsin.suppressions.add(
            [
                Suppression(forms[0], scope, reason.value, "cli", now, forms=forms)
                for forms in map(tocsin.keyring.address_keys, found)
            ],
            session.deed(tocsin, Action.SUPPRESS_ADD, _called(of_list, topic), reason=reason.value),
        )
    terminal.say(f"{count(new)} added, {count(len(found) - new)} stood already.")


@grammar.command(
    app,
    "lift",
    'tocsin suppress lift me@example.org --reason "asked by phone"',
    "tocsin suppress lift me@example.org --although complaint \\",
    '    --reason "wrote to us: pressed it by mistake"',
)
def lift(
    *,
    given: Addresses,
    reason: Annotated[
        str,
        typer.Option(metavar="TEXT", help="Why; it stays in the audit log, with who you are: name nobody."),
    ],
    of_list: OfList = "",
    topic: ForTopic = "",
    although: Annotated[
        list[Strict] | None,
        typer.Option(metavar="REASON", help="Lift it over this too: complaint or erasure; may be repeated."),
    ] = None,
    yes: grammar.Yes = False,
) -> int:
    """Lift suppressions, because their owner asked to hear from us again.

    No import does this. Who complained, or asked to be forgotten, stays suppressed unless you name that with
    --although: they must have asked in writing. A pause that they chose ends too, unless you name a list or a
    topic; that they want fewer mails stays. Exits 1 if nothing was lifted.
    """
    if not reason.strip():
        raise WrongUse("lifting a suppression takes a reason", remedy='As in: --reason "asked by phone".')
    found = _parsed(given)
    with session.opened() as tocsin:
        scope = _scope(tocsin, of_list, topic) if of_list or topic else None
        terminal.ask(f"Write to {terminal.people(len(found))} again", agreed=yes)
        why = blotted(terminal.clean(reason.strip()))
        subject = _called(of_list, topic) if scope else "every scope"
        deed = session.deed(tocsin, Action.SUPPRESS_LIFT, subject, reason=why)
        over = [one.value for one in although or ()]
        lift_one = tocsin.suppressions.lift
        # What names them by another tool's hash too: it would come back with the next import.
        keys = [[*tocsin.keyring.address_keys(one), *tocsin.recogniser.keys(one)] for one in found]
        done = [lift_one(one, scope, Act.OPERATOR, deed, although=over) for one in keys]
    return _told_lifted(done)


def _told_lifted(done: Sequence[Lifted]) -> int:
    lifted, every = sum(one.lifted for one in done), [each for one in done for each in one.left]
    left = Counter(each.reason for each in every if each.scope != FEWER)
    if lifted or not left:
        terminal.say(f"{count(lifted)} lifted." if lifted else "None of them was suppressed.")
    if wishing := len(every) - left.total():
        people = "One of them wants" if wishing == 1 else f"{count(wishing)} of them want"
        terminal.say(f"{people} fewer mails. That stays; they change it on the page of their opt-out link.")
    for why, number in sorted(left.items()):
        terminal.warn(f"{count(number)} left as they were: {why}. If they asked in writing: --although {why}")
    return 0 if lifted else 1


@grammar.command(
    app, "check", "tocsin suppress check me@example.org", "tocsin suppress check - --json < some.txt"
)
def check(*, given: Addresses, as_json: grammar.Json = False) -> int:
    """Tell whether addresses are suppressed, why and since when. Exits 1 if any is.

    Several are told by their place in the order given; no address is repeated.

    JSON: an array of {number, suppressed, entries: [{scope, reason, source, at, until}]}; until is null where
    it never ends by itself. Scopes are all, list:NAME, topic:NAME, pause (until then nothing) and rest (their
    last mail was less than 30 days ago, and they want fewer).
    """
    found = _parsed(given)
    with session.opened() as tocsin:
        names = suppressed.scope_names(tocsin)
        standing = [_standing(tocsin, one) for one in found]
    if as_json:
        terminal.show_json(
            [
                {
                    "number": number,
                    "suppressed": bool(entries),
                    "entries": [suppressed.facts(one, names) for one in entries],
                }
                for number, entries in enumerate(standing, 1)
            ]
        )
    else:
        rows = [row for number, entries in enumerate(standing, 1) for row in _rows(number, entries, names)]
        columns = [
            Column("No.", number=True),
            *map(Column, ("Suppressed", "For", "Reason", "Source", "Since", "Until")),
        ]
        terminal.show(terminal.table(columns, rows))
    return 1 if any(standing) else 0


def _rows(number: int, entries: Sequence[Suppression], names: suppressed.Names) -> Iterator[tuple[str, ...]]:
    if not entries:
        yield (str(number), "no", "", "", "", "", "")
    for one in entries:
        facts = suppressed.facts(one, names)
        until = (facts["until"] or "")[:10]
        yield (
            *(str(number), "yes", str(facts["scope"]), str(facts["reason"]), str(facts["source"])),
            *(str(facts["at"])[:10], until),
        )


@grammar.command(
    app,
    "import",
    "tocsin suppress import unsubscribed.csv",
    "tocsin suppress import - --reason bounce < bounced.txt",
)
def import_(
    *,
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help="One address a line, or CSV; - for standard input.", show_default=False
        ),
    ],
    reason: Why = Reason.IMPORTED,
    of_list: OfList = "",
    topic: ForTopic = "",
    hashed: Annotated[
        bool,
        grammar.flag("--hashed", help="The file holds MD5, SHA-1 or SHA-256 of addresses, not addresses."),
    ] = False,
    as_json: grammar.Json = False,
) -> int:
    """Suppress everybody in a file.

    One address a line, CSV with an address column, or an export of ours. Good rows are taken whatever the
    others are: a "no" lost to somebody else's typing error is worse. An export of ours brings back its own
    reasons and dates; it needs the key it was made with. Exits 1 if no row was good.

    --hashed takes what other tools export: plain hashes of addresses. Who is meant is found among everybody
    held, and at every later import.

    JSON: {rows, added, known, rejected: {reason: count}}; with --hashed also {recognised}.
    """
    with (
        session.opened() as tocsin,
        incoming.opened(file) as (stream, size),
        incoming.bar(size) as bar,
    ):
        source = "standard input" if file == incoming.STANDARD_INPUT else Path(file).name[:_SOURCE_MOST]
        manner = suppressed.Manner(
            _scope(tocsin, of_list, topic), reason.value, terminal.clean(source), hashed
        )
        digest = incoming.Digest()
        result, chunks = suppressed.Result(), digest.watch(bar.chunks(stream))
        if hashed:  # before the first of them is there: no import that has begun may end without them
            tocsin.recogniser.expect(disguises.KINDS)
        try:
            suppressed.bring_in(tocsin, chunks, manner, result, bar.rows)
        finally:  # what was added stays, whatever stopped us
            if result.rows:
                deed = session.deed(
                    tocsin, Action.SUPPRESS_IMPORT, _called(of_list, topic), reason=reason.value
                )
                tocsin.audit.note(deed.noting(new=result.added, known=result.known, sha256=digest.hex))
        if hashed:
            with terminal.busy("Looking for them among everybody…"):
                result.recognised = tocsin.recogniser.everybody()
    good = result.added + result.known
    if as_json:
        terminal.show_json(result.facts())
    else:
        rows = [("added", count(result.added)), ("stood already", count(result.known))]
        rows += [(f"rejected: {why}", count(number)) for why, number in result.rejected.most_common()]
        columns = (Column("Rows"), Column("Count", number=True))
        terminal.show(terminal.table(columns, [*rows, ("read", count(result.rows))], total=True))
        if result.recognised is not None:
            terminal.say(f"Of those we hold, {terminal.people(result.recognised)} newly recognised.")
    return 0 if good else 1


@grammar.command(
    app,
    "export",
    "tocsin suppress export suppressions.csv",
    "tocsin suppress export for-the-other-tool.csv --as sha256",
)
def export(
    *,
    file: Annotated[
        str,
        typer.Argument(metavar="FILE", help="Where to write it, for your eyes only; - for standard output."),
    ],
    form: Annotated[
        Form | None,
        typer.Option("--as", metavar="FORM", help="Of whom we hold: plain, md5, sha1 or sha256 addresses."),
    ] = None,
) -> None:
    """Write every suppression as CSV, which names nobody.

    Columns: keyed hash, scope, reason, source, date. It is a backup, or moves to another machine that has the
    same key. For another tool, --as writes addresses instead, plain or hashed: of those only whom we still
    hold, for a keyed hash cannot be turned back.
    """
    with session.opened() as tocsin:
        number, unknown = suppressed.write_out(tocsin, file, form.value if form else "")
        if form:
            tocsin.audit.note(session.deed(tocsin, Action.SUPPRESS_EXPORT, EVERYTHING, form=form.value))
            if file != incoming.STANDARD_INPUT:  # ours names nobody; addresses, and hashes of them, do
                tocsin.retention.note(Kind.EXPORTS, Path(file))
    if unknown:
        terminal.warn(f"{count(unknown)} could not be written: we hold no address for them.")
    if file != incoming.STANDARD_INPUT:
        terminal.say(f"{count(number)} written to {file} (mode 600).")


def _parsed(given: Sequence[str]) -> Sequence[Address]:
    """Read the addresses; WrongUse tells by its number which is none."""
    found = []
    for number, text in enumerate(_texts(given), 1):
        try:
            found.append(addresses.parse_mailbox(text)[1])
        except AddressError as error:
            raise WrongUse(
                f"address {number}: {error.message}", remedy="Nothing was changed; mend it."
            ) from error
    if not found:
        raise Refused("there was no address to read")
    return found


def _texts(given: Sequence[str]) -> Iterator[str]:
    for text in given:
        if text != incoming.STANDARD_INPUT:
            yield text
            continue
        with incoming.opened(text) as (stream, _):
            for line in stream:
                if stripped := line.decode("utf-8-sig", "replace").strip():
                    yield stripped


def _called(of_list: str, topic: str) -> str:
    """Return what the audit log calls a scope."""
    if topic:
        return topic_scope(topic)
    return f"list:{of_list}" if of_list else EVERYTHING


def _scope(tocsin: Wiring, of_list: str, topic: str) -> str:
    if of_list and topic:
        raise WrongUse("a no is to a list or to a topic", remedy="Give --list or --topic, not both.")
    if topic:
        scope = topic_scope(topic)
        if topic not in (known := _topics(tocsin)):
            told = f"there are {', '.join(sorted(known))}" if known else "there is none"
            terminal.warn(f"No appeal here has the topic {topic} in its front matter: {told}.")
        return scope
    return list_scope(tocsin.people.find_lists([of_list])[0].id) if of_list else EVERYTHING


def _topics(tocsin: Wiring) -> set[str]:
    """Return the topics of all appeals that can be read."""
    found = set[str]()
    for slug in workspace.appeal_slugs(tocsin.settings):
        with contextlib.suppress(WrongUse):
            found |= {*appeals.parse(slug, workspace.appeal_files(tocsin.settings, slug)).topics}
    return found


def _standing(tocsin: Wiring, address: Address) -> Sequence[Suppression]:
    """Return what stands under any hash key we ever had, or names them by another tool's hash."""
    found = [one for key in tocsin.keyring.address_keys(address) for one in tocsin.suppressions.find(key)]
    own = [one for one in found if one.scope != FEWER]  # in nobody's way but for the rests it makes
    scopes = {one.scope for one in own}
    hashed = tocsin.suppressions.standing(tocsin.recogniser.keys(address))
    return [*own, *{one.scope: one for one in hashed if one.scope not in scopes}.values()]
