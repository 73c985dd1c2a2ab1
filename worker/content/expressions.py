"""The author's Jinja in a text: found, checked, hidden while other tools work on the text, and put back.

A mail is made in two stages: the look is rendered once per language and form, and what differs from person
to person is filled in per mail. `Holes` carries the author's expressions through the first stage as inert
words; whatever else looks like Jinja by then (a brace in the charity's name) is data, and stays so.
Refuses: to evaluate anything.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Final

from jinja2 import Environment, TemplateSyntaxError, meta, nodes

from worker.content.sandbox import environment

#: What only the mail itself knows: never a field of a person.
RESERVED: Final = frozenset({"opt_out_url"})

_NEEDS_A_LOADER = (nodes.Extends, nodes.Include, nodes.Import, nodes.FromImport, nodes.Block)
#: Filters that switch escaping off, or make a link from a person's own text.
_REFUSED_FILTERS = {
    "safe": "would let a value from a list write HTML",
    "urlize": "would turn a value from a list into a link",
}
_OPENS = re.compile(r"\{[{%#]")
#: Jinja that could begin in plain data: the brace of {{, {% or {#, also one that meets it later.
_OPENER = re.compile(r"\{(?=[{%#]|\Z)")
#: A brace that stays a brace in a Jinja source.
_INERT_BRACE = "{% raw %}{{% endraw %}"


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with the Jinja of a text."""

    #: line within the text, from 1
    line: int
    #: one sentence
    message: str


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a text: plain, or one Jinja expression, statement or comment."""

    #: "plain", "value", "statement" or "comment"
    kind: str
    #: as the author wrote it
    source: str
    #: line within the text, from 1
    line: int


class NotReadableError(ValueError):
    """The Jinja in a text cannot be read; `fault` says where and why."""

    def __init__(self, fault: Fault) -> None:
        """Take the fault."""
        super().__init__(fault.message)
        self.fault = fault


@cache
def _environment() -> Environment:
    """Return the sandbox that the expressions will run in, to be checked by its rules."""
    return environment("html")


_BEGINS = {"variable_begin": "value", "block_begin": "statement", "comment_begin": "comment"}
_ENDS = {"variable_end", "block_end", "comment_end"}


def split(text: str) -> list[Piece]:
    """Cut a text into plain stretches and Jinja pieces; joined, their sources are the text again.

    Raises:
        NotReadableError: the Jinja is unclosed, or uses what would move the white space that Markdown reads.
    """
    pieces: list[Piece] = []
    kind, held, start = "plain", "", 1
    for line, token, source in _lexed(text):
        if token.startswith("raw"):
            raise NotReadableError(Fault(line, '"raw" is not needed: write {{ "{{" }} for two braces'))
        if token in _BEGINS:
            kind, held, start = _BEGINS[token], "", line
        held += source
        if token in _ENDS or kind == "plain":
            if kind in {"value", "statement"} and "\n" in held:
                raise NotReadableError(Fault(start, f"keep this on one line: {held.splitlines()[0][:40]} …"))
            pieces.append(Piece(kind, held, start if kind != "plain" else line))
            kind, held = "plain", ""
    if kind != "plain":
        raise NotReadableError(Fault(start, f"this is not closed: {held.splitlines()[0][:40]}"))
    return pieces


def _lexed(text: str) -> Iterator[tuple[int, str, str]]:
    try:
        for line, token, source in _environment().lex(text):
            edge = source.strip()
            if (token in _BEGINS and edge[-1] in "-+") or (token in _ENDS and edge[0] in "-+"):
                raise NotReadableError(
                    Fault(line, f'"{edge}" moves white space that Markdown needs: leave the sign out')
                )
            yield line, token, source
    except TemplateSyntaxError as error:
        raise NotReadableError(Fault(error.lineno, f"Jinja cannot read this: {error.message}")) from error


def faults(text: str) -> Iterator[Fault]:
    """Check the Jinja of a text without running it."""
    try:
        split(text)
        tree = _environment().parse(text)
        yield from _refused(tree)
        _environment().compile(tree)  # finds unknown filters and tests
    except NotReadableError as error:
        yield error.fault
    except TemplateSyntaxError as error:
        yield Fault(error.lineno, f"Jinja cannot read this: {error.message}")
    except (RecursionError, MemoryError, SyntaxError):  # what Python's own limits on nesting raise
        yield Fault(1, "the Jinja here is nested too deeply")


def _refused(tree: nodes.Template) -> Iterator[Fault]:
    for node in tree.find_all(_NEEDS_A_LOADER):
        yield Fault(node.lineno, f"{{% {type(node).__name__.lower()} %}} is not available in an appeal")
    for escaping in tree.find_all(nodes.ScopedEvalContextModifier):
        yield Fault(escaping.lineno, "{% autoescape %} is not available in an appeal")
    for used in tree.find_all(nodes.Filter):
        if used.name in _REFUSED_FILTERS:
            yield Fault(used.lineno, f'the filter "{used.name}" {_REFUSED_FILTERS[used.name]}')


def fields(text: str) -> set[str]:
    """Name the fields of a person that a text with sound Jinja uses."""
    named = meta.find_undeclared_variables(_environment().parse(text))
    return named - RESERVED - _environment().globals.keys()


def plain(text: str) -> bool:
    """Tell whether a text holds no Jinja at all, sound or not."""
    return not _OPENS.search(text)


class Holes:
    """Words that stand for Jinja while a text goes through Markdown, escaping, wrapping and the look.

    A word is ASCII letters and digits, so that none of these tools changes it.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        """Take every text that will go into the source, to choose words that none of them holds."""
        prefix, everything = "zqj", "\n".join(texts)
        while prefix in everything:
            prefix += "j"
        self._prefix = prefix
        self._words: dict[str, str] = {}
        self._sources: dict[str, str] = {}
        self._word = re.compile(rf"({prefix}[vs]\d+q)")
        #: matches a line that holds statements only, such as `{% if … %}`
        self.statements = re.compile(rf"(?:{prefix}s\d+q[ \t]*)+")

    def hide(self, text: str) -> str:
        """Replace the Jinja of a text by words, line for line; comments go."""
        return "".join(self._stand_in(piece) for piece in split(text))

    def _stand_in(self, piece: Piece) -> str:
        if piece.kind == "plain":
            return piece.source
        if piece.kind == "comment":
            return "\n" * piece.source.count("\n")
        word = self._words.setdefault(piece.source, f"{self._prefix}{piece.kind[0]}{len(self._words)}q")
        self._sources[word] = piece.source
        return word

    def restore(self, text: str) -> str:
        """Return the Jinja source: hidden pieces are back, and all other braces inert."""
        return "".join(
            self._sources.get(part) or _OPENER.sub(_INERT_BRACE, part) for part in self._word.split(text)
        )
