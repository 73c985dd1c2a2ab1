"""`suppress rules`: the never-mail rules, by domain, country or field.

Owns how they are asked for and told. Refuses: a rule for one address (that is `suppress add`).
"""

from typing import Annotated

import typer

from worker import bars
from worker.bars import Kind
from worker.cli import grammar, session, terminal
from worker.cli.terminal import Column
from worker.deeds import Action
from worker.errors import Refused, WrongUse

app = grammar.commands(
    "rules", "tocsin suppress rules add no-officials --domain gov.example", "tocsin suppress rules list"
)

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="What plans and reports call the rule.", show_default=False)
]


@app.callback()
def rules() -> None:
    """Never write to some domains, countries or fields, whatever list people are on."""


@grammar.command(
    app,
    "add",
    "tocsin suppress rules add no-officials --domain gov.example",
    "tocsin suppress rules add not-there --country KZ",
    "tocsin suppress rules add staff --field 'team=*'",
)
def add(
    *,
    name: Name,
    domain: Annotated[
        str,
        typer.Option(metavar="PATTERN", help="A domain and all under it; * stands for any letters."),
    ] = "",
    country: Annotated[
        str, typer.Option(metavar="CODE", help="Whoever's field country says so, by code or by name.")
    ] = "",
    field: Annotated[
        str,
        typer.Option("--field", metavar="NAME=TEXT", help="Whoever's field says so; * stands for any text."),
    ] = "",
    as_json: grammar.Json = False,
) -> None:
    """Put a rule in force, and count whom it holds for.

    At once, also in a campaign that is under way; and for whoever is imported later. Plans count them under
    the rule's name. Safe to repeat; repeat it where it was stopped, for no campaign is planned meanwhile.

    JSON: {name, kind, pattern, people}.
    """
    given = [(kind, text) for kind, text in zip(Kind, (domain, country, field), strict=True) if text]
    if len(given) != 1:
        raise WrongUse(
            "a rule looks at one thing", remedy="Give one of --domain, --country and --field; add more rules."
        )
    bar = bars.drafted(name, *given[0])
    with session.opened() as tocsin, terminal.busy("Looking at everybody…"):
        deed = session.deed(tocsin, Action.RULES_ADD, name, kind=str(bar.kind), pattern=bar.pattern)
        held = tocsin.barring.add(bar, deed)
    if as_json:
        terminal.show_json({"name": name, "kind": bar.kind, "pattern": bar.pattern, "people": held})
    else:
        terminal.say(f"{name} is in force. Of those we hold, it keeps out {terminal.people(held)}.")


@grammar.command(app, "list", "tocsin suppress rules list", "tocsin suppress rules list --json")
def list_(*, as_json: grammar.Json = False) -> None:
    """List the rules in force.

    JSON: an array of {name, kind, pattern, counted}.
    """
    with session.opened() as tocsin:
        found, uncounted = tocsin.bars.book().bars, tocsin.bars.uncounted()
    if as_json:
        terminal.show_json(
            [
                {
                    "name": one.name,
                    "kind": one.kind,
                    "pattern": one.pattern,
                    "counted": one.id not in uncounted,
                }
                for one in found
            ]
        )
    elif not found:
        terminal.say("There is no rule. Add one: tocsin suppress rules add NAME --domain PATTERN")
    else:
        rows = [
            (one.name, one.kind, one.pattern, "not finished: add it again" if one.id in uncounted else "")
            for one in found
        ]
        terminal.show(terminal.table([*map(Column, ("Rule", "Looks at", "For", ""))], rows))


@grammar.command(app, "remove", "tocsin suppress rules remove not-there")
def remove(*, name: Name, yes: grammar.Yes = False) -> None:
    """Take a rule out of force. Exits 1 if there is none of that name."""
    with session.opened() as tocsin:
        terminal.ask(f"Write again to whom only {name} keeps out", agreed=yes)
        if not tocsin.bars.remove(name, session.deed(tocsin, Action.RULES_REMOVE, name)):
            raise Refused(f"there is no rule called {name}", remedy="See: tocsin suppress rules list")
    terminal.say(f"{name} is no longer in force.")
