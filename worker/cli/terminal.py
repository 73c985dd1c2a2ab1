"""What the operator sees: lines, tables, JSON, questions, and no byte that a terminal would obey.

Owns the one way out to the screen. Colours and bars appear on a terminal only (and never under NO_COLOR);
names, subjects and replies are hostile and are cleaned here. Refuses: to know what any of it means.
"""

import contextlib
import datetime as dt
import io
import json
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from worker.errors import Refused, WrongUse

#: Whatever moves a cursor, changes colours, titles or text direction, or hides: C0, C1, bidi marks, tags,
#: half characters. U+200C and U+200D stay: Persian and emoji need them.
_OBEYED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e0fff]"
)
_SHOWN_INSTEAD = "\N{REPLACEMENT CHARACTER}"

GOOD, BAD, DOUBTFUL, FAINT, STRONG = "green", "red", "yellow", "dim", "bold"


class Stopped(Exception):  # noqa: N818 - not an error: somebody pressed Ctrl-C
    """Ctrl-C, and what it leaves as it is; the message is the one line to print (exit 130)."""


def prepare() -> None:
    """Make sure that no character can stop the output on a terminal that lacks it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def out() -> Console:
    """Return the console for what was asked for."""
    return Console(highlight=False, markup=False, emoji=False)


def err() -> Console:
    """Return the console for errors, notes, questions and bars."""
    return Console(stderr=True, highlight=False, markup=False, emoji=False)


def clean(text: str) -> str:
    """Return text without anything that a terminal would obey; line ends and tabs stay."""
    return _OBEYED.sub(_SHOWN_INSTEAD, text)


def cell(text: str, style: str = "") -> Text:
    """Return hostile text as one line, safe to print."""
    return Text(clean(" ".join(text.split())), style)


def say(text: str = "", style: str = "") -> None:
    """Print lines."""
    _print(out(), Text(clean(text), style))


def show(*parts: RenderableType) -> None:
    """Print tables made here."""
    out().print(*parts)


def warn(line: str) -> None:
    """Print a note to the operator, apart from what was asked for."""
    _print(err(), Text(clean(line), DOUBTFUL))


def complain(message: str, remedy: str) -> None:
    """Print an error: one line (or one a fault), then what to do."""
    console = err()
    first, *others = clean(message).splitlines() or [""]
    _print(console, Text.assemble(("error: ", "bold red"), first))
    for other in others:
        _print(console, Text(f"       {other.strip()}"))
    if remedy:
        arrow = "→" if console.encoding.lower().startswith("utf") else "->"
        _print(console, Text(f"  {arrow} {clean(remedy)}", "cyan"))


def _print(console: Console, text: Text) -> None:
    """Print text, wrapped between words on a terminal, and elsewhere in lines as they are."""
    console.print(text, soft_wrap=not console.is_terminal)


def show_json(value: object) -> None:
    """Print a value for programs; all ASCII, so that it is harmless on any terminal too."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=True) + "\n")


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table."""

    #: Its heading.
    title: str
    #: Whether it holds numbers, which stand to the right.
    number: bool = False


def table(columns: Sequence[Column], rows: Iterable[Sequence[str | Text]], *, total: bool = False) -> Table:
    """Make a plain table that fits 80 columns: long cells fold, none is cut.

    Args:
        columns: its headings.
        rows: cells; strings are cleaned.
        total: whether the last row sums the others up.
    """
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style=FAINT)
    for column in columns:
        # Numbers never fold: half a number is a wrong one.
        made.add_column(
            column.title, justify="right" if column.number else "left", overflow="fold", no_wrap=column.number
        )
    cells = [[each if isinstance(each, Text) else cell(each) for each in row] for row in rows]
    for position, row in enumerate(cells):
        last = total and position == len(cells) - 1
        made.add_row(*row, style=STRONG if last else "")
    return made


def facts(rows: Iterable[tuple[str, str | Text]]) -> Table:
    """Make a list of facts: a faint name and what is so; an empty name goes on with the one before."""
    made = Table.grid(padding=(0, 2))
    made.add_column(style=FAINT, no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in rows:
        made.add_row(cell(name), value if isinstance(value, Text) else cell(value))
    return made


def findings(rows: Iterable[tuple[Text, str, str]], *, width: int) -> Table:
    """Make lines of a mark, a name of at most `width` characters, and a detail."""
    made = Table.grid(padding=(0, 2))
    made.add_column(width=2)
    made.add_column(width=width, no_wrap=True)
    made.add_column(overflow="fold")
    for mark, name, detail in rows:
        made.add_row(mark, cell(name), cell(detail))
    return made


def count(number: int) -> str:
    """Return a number as people read it: 12,345."""
    return f"{number:,}"


def people(number: int) -> str:
    """Return so many people: "1 person", "12,345 people"."""
    return "1 person" if number == 1 else f"{number:,} people"


def iso(seconds: float | None) -> str | None:
    """Return a moment for programs, in UTC; None for none."""
    if seconds is None:
        return None
    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(timespec="seconds")


def busy(doing: str) -> contextlib.AbstractContextManager[object]:
    """Show on a terminal that something takes its time while the block runs."""
    console = err()
    return console.status(Text(doing, FAINT)) if console.is_terminal else contextlib.nullcontext()


def ask(question: str, *, agreed: bool) -> None:
    """Ask for a yes before something that cannot be taken back.

    Args:
        question: ends without a question mark.
        agreed: `--yes` was given; nothing is asked.

    Raises:
        WrongUse: nobody is there to answer.
        Refused: the answer is not yes.
    """
    if agreed:
        return
    if not sys.stdin.isatty():
        raise WrongUse("this asks first, and nobody is there to answer", remedy="Add --yes if you mean it.")
    console = err()
    console.print(Text(f"{clean(question)}? [y/N] ", STRONG), end="")
    if sys.stdin.readline().strip().casefold() not in {"y", "yes"}:
        raise Refused("not confirmed; nothing was changed")
