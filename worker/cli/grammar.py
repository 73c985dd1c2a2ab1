"""What every command line here shares: how a command is declared, and the options that mean the same.

Owns the shape of the help: one line, the story, described options, examples. Refuses: any command's own
words.
"""

import inspect
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import typer
from rich.markup import escape
from typer.core import TyperCommand, TyperGroup

from worker.cli import completion

#: What every level of the command line agrees on.
CONTEXT = {"help_option_names": ["-h", "--help"]}

_Callback = TypeVar("_Callback", bound=Callable[..., object])


def plain(help_option: Any) -> Any:  # noqa: ANN401 - typer's own option, whose class it does not publish
    """Take the type off `--help`: it takes no value, so it should not show one."""
    if help_option is not None:
        help_option.metavar = ""
    return help_option


class _Command(TyperCommand):
    """A command whose `--help` shows no type."""

    def get_help_option(self, ctx: Any) -> Any:  # noqa: ANN401 - see plain
        """Return typer's own option, without a type."""
        return plain(super().get_help_option(ctx))


class Group(TyperGroup):
    """A group whose `--help` shows no type."""

    def get_help_option(self, ctx: Any) -> Any:  # noqa: ANN401 - see plain
        """Return typer's own option, without a type."""
        return plain(super().get_help_option(ctx))


def examples(*lines: str) -> str:
    """Return the section that ends every help."""
    # Escaped as a whole: `escape` doubles a backslash that ends its text, and shells do not go on after two.
    return escape("\n".join(("Examples:", *(f"  {line}" for line in lines))))


def story(callback: Callable[..., object]) -> str:
    """Return a docstring as help: each paragraph on one line, for the terminal to wrap."""
    paragraphs = inspect.cleandoc(callback.__doc__ or "").split("\n\n")
    return escape("\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs))


def command(app: typer.Typer, name: str, *lines: str) -> Callable[[_Callback], _Callback]:
    """Declare a command with its examples; its docstring is its help."""

    def declare(callback: _Callback) -> _Callback:
        return app.command(name, cls=_Command, help=story(callback), epilog=examples(*lines))(callback)

    return declare


def commands(name: str = "", *lines: str) -> typer.Typer:
    """Make the holder of some commands; with a name, it is a group that is called by it."""
    return typer.Typer(
        name=name or None,
        cls=Group,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings=CONTEXT,
        epilog=examples(*lines) if lines else "",
    )


def flag(name: str, *, help: str) -> Any:  # noqa: A002, ANN401 - as typer's own Option, whose type it hides
    """Declare an option without a value."""
    return typer.Option(name, help=help, metavar="")


Json = Annotated[bool, flag("--json", help="Print JSON with stable keys, for programs.")]
Yes = Annotated[bool, flag("--yes", help="Do not ask first.")]
Campaign = Annotated[
    str,
    typer.Argument(
        metavar="CAMPAIGN",
        help="The campaign's name.",
        autocompletion=completion.campaigns,
        show_default=False,
    ),
]
Appeal = Annotated[
    str,
    typer.Argument(
        metavar="APPEAL", help="The appeal's name.", autocompletion=completion.appeals, show_default=False
    ),
]
