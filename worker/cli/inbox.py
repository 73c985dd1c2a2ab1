"""`inbox`: the mail that comes back, read from a Maildir, a file or a pipe, and what of it is for a person.

Owns the exit codes that a mail server understands: whatever goes wrong while it hands us a mail, it keeps the
mail and tries again. Refuses: to print anything out of a mail.
"""

import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from worker.cli import crashes, grammar, incoming, session, terminal
from worker.cli.terminal import Column, count
from worker.deeds import Action, Fact
from worker.errors import Refused, TocsinError, WrongUse
from worker.inbox import Maildir, says_stop
from worker.postroom import Effect
from worker.returns.opened import MOST_BYTES
from worker.wiring import Wiring

app = grammar.commands("inbox", "tocsin inbox read", "tocsin inbox list")

#: "Temporary failure; the mail server should try again" (sysexits.h).
TRY_AGAIN = 75

#: What each effect is called to an operator.
_TOLD = {
    Effect.BOUNCED: "bounced",
    Effect.DELIVERED: "delivered after all",
    Effect.OPTED_OUT: "opted out",
    Effect.COMPLAINED: "complained, and suppressed",
    Effect.NOTHING: "nothing new (delays, vacation notices, repeats)",
    Effect.PERSON: "for a person",
    Effect.FOREIGN: "not ours",
    Effect.LATER: "later: still being sent, or no room",
}

Recipient = Annotated[
    list[str],
    typer.Option(
        "--recipient",
        metavar="ADDRESS",
        help="Whom the mail server delivered it to, where no header says so.",
        show_default=False,
    ),
]


@app.callback()
def inbox() -> None:
    """Read the mail that comes back: bounces, complaints and opt-outs."""


@grammar.command(
    app,
    "read",
    "tocsin inbox read",
    "tocsin inbox read /var/mail/returned",
    "tocsin inbox read report.eml",
    "tocsin inbox read - < report.eml",
)
def read(
    *,
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A Maildir, a file, or - for a mail server's pipe; by default inbox.maildir.",
            show_default=False,
        ),
    ] = "",
    recipient: Recipient = [],  # noqa: B006 - typer copies it
    as_json: grammar.Json = False,
) -> int:
    """Act on mail that has come back.

    A bounce settles an unconfirmed mail, or is noted at a sent one. An address that is gone is suppressed,
    and so is whoever complains or writes to the opt-out address. Only our own marks count. Reading a mail
    twice changes nothing.

    In a Maildir, what is done is deleted and what is not ours stays. A file stays. From a pipe it exits 75
    when the mail server should try again.

    JSON: {read, bounced, delivered, opted_out, complained, nothing, person, foreign, later}.
    """
    if source == incoming.STANDARD_INPUT:
        return _piped(recipient, as_json=as_json)
    with session.opened() as tocsin:
        counts = _read(tocsin, source, recipient)
        if counts:
            facts: dict[str, Fact] = {effect.name.lower(): number for effect, number in counts.items()}
            tocsin.audit.note(session.deed(tocsin, Action.INBOX_READ).noting(**facts))
    _tell(counts, as_json=as_json)
    return 0


def _read(tocsin: Wiring, source: str, recipients: Sequence[str]) -> Counter[Effect]:
    if source and not Path(source).is_dir():
        with incoming.opened(source) as (stream, _):
            return Counter([tocsin.postroom.look(stream.read(MOST_BYTES), recipients)])
    maildir = Maildir(Path(source), MOST_BYTES) if source else tocsin.maildir
    if maildir is None:
        raise WrongUse("no Maildir is set", remedy="Name one, or set inbox.maildir.")
    with terminal.busy("reading"):
        return tocsin.postroom.read(maildir)


def _piped(recipients: Sequence[str], *, as_json: bool) -> int:
    """Act on the mail on standard input; whatever happens, it is acted upon or handed back."""
    data = sys.stdin.buffer.read(MOST_BYTES)
    with Path("/dev/null").open("wb") as nowhere:  # a mail server calls it a failure when we do not listen
        shutil.copyfileobj(sys.stdin.buffer, nowhere)
    try:
        with session.opened() as tocsin:
            effect = tocsin.postroom.take(data, recipients)
    except TocsinError as error:
        terminal.complain(str(error), error.remedy)
        return TRY_AGAIN
    except OSError as error:
        crashes.tell_of_the_machine(error)
        return TRY_AGAIN
    except Exception as error:  # noqa: BLE001 - the last line of defence: the mail must outlive our faults
        crashes.tell(error)
        return TRY_AGAIN
    if as_json:
        _tell(Counter([effect]), as_json=True)
    else:
        terminal.say(_TOLD[effect])  # one line, for the mail server's log
    return TRY_AGAIN if effect is Effect.LATER else 0


def _tell(counts: Counter[Effect], *, as_json: bool) -> None:
    if as_json:
        by_name = {effect.name.lower(): counts[effect] for effect in Effect}
        terminal.show_json({"read": counts.total(), **by_name})
        return
    rows = [(told, count(counts[effect])) for effect, told in _TOLD.items() if counts[effect]]
    columns = (Column("Mails"), Column("Count", number=True))
    terminal.show(terminal.table(columns, [*rows, ("read", count(counts.total()))], total=True))


@grammar.command(app, "list", "tocsin inbox list", "tocsin inbox list --json")
def list_(*, as_json: grammar.Json = False) -> None:
    """List what a person must read.

    Words of people, and notices that name a new address. Delete a file when you are done with it.

    JSON: an array of {file, at, may_say_stop}.
    """
    with session.opened() as tocsin:
        kept = tocsin.postroom.kept.files()
    facts = [(str(file), terminal.iso(file.stat().st_mtime), says_stop(file)) for file in kept]
    if as_json:
        terminal.show_json([{"file": file, "at": at, "may_say_stop": stop} for file, at, stop in facts])
    elif not facts:
        terminal.say("There is none.")
    else:
        columns = (Column("Since"), Column("May say stop"), Column("File"))
        rows = [(str(at), "yes" if stop else "", file) for file, at, stop in facts]
        terminal.show(terminal.table(columns, rows))


@grammar.command(app, "opt-out", "tocsin inbox opt-out var/inbox/0123456789abcdef.stop.eml")
def opt_out(
    *,
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE", help="Files that `tocsin inbox list` shows.", show_default=False),
    ],
) -> None:
    """Opt out whoever wrote these mails, because they say so in their own words.

    They are found by the mark of the mail that they answer, and their files are deleted.
    """
    with session.opened() as tocsin:
        for file in files:
            with incoming.opened(str(file)) as (stream, _):
                data = stream.read(MOST_BYTES)
            if not tocsin.postroom.opt_out(data):
                raise Refused(f"{file} does not tell who wrote it", remedy="As in: tocsin suppress add -")
            tocsin.audit.note(session.deed(tocsin, Action.INBOX_OPT_OUT))
            file.unlink()
    terminal.say(f"{terminal.people(len(files))} opted out.")
