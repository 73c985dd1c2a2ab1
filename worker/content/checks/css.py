"""The CSS of a mail, as far as checks must read it: rules, where they hold, and declarations.

Reads what our own look and premailer write. Refuses: to judge syntax, and @import.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

__all__ = ["Declaration", "Rule", "declarations", "rules"]

_COMMENT: Final = re.compile(r"/\*.*?\*/|<!--|-->", re.DOTALL)
_BLOCK: Final = re.compile(r"([^{};]*)\{")
_SEMICOLON: Final = re.compile(r""";(?=(?:[^"'()]|"[^"]*"|'[^']*'|\([^)]*\))*$)""")
_IMPORTANT: Final = re.compile(r"\s*!\s*important\s*$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Declaration:
    """One property and its value."""

    #: lower case, as in background-color
    name: str
    #: as written, without !important
    value: str
    #: whether it was marked so
    important: bool


@dataclass(frozen=True, slots=True)
class Rule:
    """A selector with what it declares."""

    #: the at-rule around it, lower case, as in "@media (prefers-color-scheme: dark)"; "" for none
    media: str
    #: one selector, of those that commas part; "" for a block of an at-rule's own (@font-face)
    selector: str
    #: what it declares, in order
    declarations: tuple[Declaration, ...]


def rules(css: str) -> Iterator[Rule]:
    """Yield the rules of a style sheet in their order, one for each selector."""
    yield from _read(_COMMENT.sub("", css), "")


def _read(css: str, media: str) -> Iterator[Rule]:
    position = 0
    while opened := _BLOCK.search(css, position):
        prelude, start = " ".join(opened[1].split()), opened.end()
        end = _closing(css, start)
        inside, position = css[start:end], end + 1
        if prelude.startswith("@") and "{" in inside:
            yield from _read(inside, prelude.lower())
        elif prelude.startswith("@"):
            yield Rule(prelude.lower(), "", tuple(declarations(inside)))
        else:
            declared = tuple(declarations(inside))
            yield from (Rule(media, each.strip(), declared) for each in prelude.split(","))


def _closing(css: str, start: int) -> int:
    """Find the brace that closes the block which begins there; the end where none does."""
    depth = 1
    for found in re.compile(r"[{}]").finditer(css, start):
        depth += 1 if found[0] == "{" else -1
        if not depth:
            return found.start()
    return len(css)


def declarations(style: str) -> Iterator[Declaration]:
    """Yield what a block, or a style attribute, declares."""
    for each in _SEMICOLON.split(style):
        name, colon, value = each.partition(":")
        if colon and name.strip():
            bare = _IMPORTANT.sub("", value)
            yield Declaration(name.strip().lower(), bare.strip(), bare != value)
