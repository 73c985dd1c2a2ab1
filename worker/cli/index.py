"""Every command by name, with its one line and the module that holds it.

Owns the order and grouping of `tocsin --help`. The modules load when their command is called: the store, the
queue and the mail stack take a second to import, and neither help nor completion needs them.
"""

import importlib
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command, get_group

from worker.cli import grammar, loading

SET_UP, PREPARE, SEND, FOLLOW, RUN = "Set up", "Prepare", "Send", "Follow", "Run"


@dataclass(frozen=True, slots=True)
class Entry:
    """One command of the first level."""

    #: As it is typed.
    name: str
    #: Its module in this package.
    module: str
    #: Its one line, the same as its own help begins with (a test holds them together).
    summary: str
    #: Where it stands in the help.
    panel: str


ENTRIES = (
    Entry(
        "init", "workspaces", "Make a workspace: settings, templates, lists, a fresh key and a store.", SET_UP
    ),
    Entry(
        "doctor",
        "workspaces",
        "Check everything a campaign depends on, with a remedy for each fault.",
        SET_UP,
    ),
    Entry("db", "stores", "Bring the database to this version, or show where it stands.", SET_UP),
    Entry("keys", "keys", "Show the secret keys' numbers, make new ones, and change over to them.", SET_UP),
    Entry("lists", "lists", "Show the lists of people, or import a file into one.", PREPARE),
    Entry("appeals", "appeals", "Show, check and preview what a campaign says.", PREPARE),
    Entry("suppress", "suppress", "Keep the list of those who must not be written to.", PREPARE),
    Entry("people", "people", "Show, export, correct or forget what is held about one person.", PREPARE),
    Entry("send", "sending", "Plan a campaign, show whom it reaches, and start it.", SEND),
    Entry("approve", "campaigns", "Approve a campaign that a colleague has planned.", SEND),
    Entry("pause", "campaigns", "Let nothing more of a campaign begin, until it is resumed.", SEND),
    Entry("resume", "campaigns", "Go on with a paused campaign exactly where it stopped.", SEND),
    Entry("cancel", "campaigns", "End a campaign for good: what has not begun is skipped.", SEND),
    Entry("retry", "campaigns", "Send again to exactly those who bounced or expired.", SEND),
    Entry("status", "statuses", "Show how campaigns stand.", FOLLOW),
    Entry("report", "accounts", "Show what became of everybody, in columns that add up.", FOLLOW),
    Entry("verify", "accounts", "Prove that everybody is accounted for, and print the sum.", FOLLOW),
    Entry(
        "unconfirmed",
        "accounts",
        "List or settle the mails of which nobody can know whether they were taken.",
        FOLLOW,
    ),
    Entry(
        "inbox",
        "inbox",
        "Read the mail that comes back: bounces, complaints and opt-outs.",
        FOLLOW,
    ),
    Entry("audit", "audit", "Show who did what when, and prove that nobody has changed it.", FOLLOW),
    Entry(
        "retention", "retention", "Show what is kept of people, and until when; remove what is due.", FOLLOW
    ),
    Entry("up", "running", "Run everything on this machine until Ctrl-C.", RUN),
    Entry("worker", "running", "Run one worker, which sends what is due.", RUN),
    Entry("beat", "running", "Run the clock that wakes the workers.", RUN),
    Entry("web", "running", "Serve the opt-out pages.", RUN),
    Entry("demo", "running", "Show the whole path on this machine, with invented people.", RUN),
)
_MODULES = {entry.name: entry.module for entry in ENTRIES}


def load(name: str) -> TyperCommand | TyperGroup:
    """Import a command's module and return the command (or the group of that name)."""
    with loading.uncollected():
        group = get_group(importlib.import_module(f"worker.cli.{_MODULES[name]}").app)
    found = group.commands.get(name, group)
    if not isinstance(found, TyperCommand | TyperGroup):
        raise TypeError(name)
    found.name = name
    return found


class _Index(grammar.Group):
    """Knows the commands by their one line, and loads the one that is called."""

    def resolve_command(
        self,
        ctx: Any,  # noqa: ANN401 - typer's own context, whose class it does not publish
        args: list[str],
    ) -> tuple[str | None, Any, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        return name, load(name) if name and command else command, rest


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it so
    if wanted:
        from importlib.metadata import version  # noqa: PLC0415 - slow, and for this option only

        typer.echo(f"tocsin {version('tocsin')}")
        raise typer.Exit


def _tocsin(
    *,
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, metavar="", help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Send urgent appeals to the people who asked to hear them: on time, once, exposing nobody.

    Exit codes: 0 done; 1 the answer is no; 2 wrong use; 3 something it depends on is down.
    """


def root() -> TyperGroup:
    """Build the command line."""
    app = typer.Typer(
        cls=_Index,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings=grammar.CONTEXT,
        epilog=grammar.examples("tocsin demo", "tocsin init my-charity", "tocsin COMMAND --help"),
    )
    app.callback(help=grammar.story(_tocsin))(_tocsin)
    group = get_command(app)  # with --install-completion and --show-completion
    if not isinstance(group, TyperGroup):
        raise TypeError(group)
    for entry in ENTRIES:
        group.add_command(TyperCommand(entry.name, help=entry.summary, rich_help_panel=entry.panel))
    return group
