"""Mail programs: which of them do not draw what a mail's CSS and HTML ask for.

Changing knowledge, kept in clients.toml with its date and source. Refuses: to know a program that no fact
names.
"""

import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources
from typing import Any, Final

from worker.content.checks import css
from worker.content.checks.findings import Finding, Rule, Severity
from worker.content.checks.letters import Letter

__all__ = ["RULES", "Facts", "facts", "unsupported"]

BREAKS: Final = Rule(
    "css.breaks",
    Severity.WARNING,
    "CSS or HTML without which a named mail program shows the words wrongly",
    "Build it of tables, padding and colours, which all of them draw.",
)
LOST: Final = Rule(
    "css.lost",
    Severity.NOTE,
    "an ornament that a named mail program leaves out",
    "Nothing, as long as the mail is well without it.",
)
RULES: Final = (BREAKS, LOST)


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that some mail programs do not draw."""

    #: what it is called
    name: str
    #: what matches a property, its value, an at-rule or an element; empty ones match nothing
    property: str
    value: str
    at_rule: str
    element: str
    #: who does not draw it
    lost_in: tuple[str, ...]
    #: year and month of the last test
    tested: str
    #: whether the words suffer
    breaks: bool


@dataclass(frozen=True, slots=True)
class Facts:
    """All that is known, and since when."""

    #: ISO date
    date: str
    #: who says so
    source: str
    #: in the file's order
    known: tuple[Fact, ...]


@cache
def facts() -> Facts:
    """Return the table that ships with this module: as fixed as its code."""
    told = tomllib.loads(resources.files(__package__).joinpath("clients.toml").read_text("utf-8"))
    return Facts(str(told["date"]), told["source"], tuple(map(_fact, told["fact"])))


def _fact(told: dict[str, Any]) -> Fact:
    return Fact(
        name=told["name"],
        property=told.get("property", ""),
        value=told.get("value", ""),
        at_rule=told.get("at_rule", ""),
        element=told.get("element", ""),
        lost_in=tuple(told["lost_in"]),
        tested=told["tested"],
        breaks=bool(told.get("breaks")),
    )


def unsupported(letter: Letter) -> Iterator[Finding]:
    """Find what some mail program would not draw."""
    asked = _Asked.of(letter)
    for fact in facts().known:
        if asked.holds(fact):
            rule = BREAKS if fact.breaks else LOST
            yield rule.found(f"{fact.name}: not in {', '.join(fact.lost_in)} ({fact.tested})", "HTML")


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a mail asks of the program that draws it, each once."""

    declared: Sequence[tuple[str, str]]
    at_rules: Sequence[str]
    elements: Sequence[str]

    @classmethod
    def of(cls, letter: Letter) -> "_Asked":
        styles = {style for each in letter.page.iter() if (style := each.get("style"))}
        inlined = [one for style in styles for one in css.declarations(style)]
        declared = [*inlined, *(one for rule in letter.sheet for one in rule.declarations)]
        return cls(
            sorted({(one.name, one.value.lower()) for one in declared}),
            sorted({rule.media for rule in letter.sheet}),
            sorted({str(each.tag) for each in letter.page.iter()}),
        )

    def holds(self, fact: Fact) -> bool:
        return (
            any(
                _matches(fact.property, name) and _matches(fact.value, value) for name, value in self.declared
            )
            or any(_matches(fact.at_rule, each) for each in self.at_rules)
            or any(_matches(fact.element, each) for each in self.elements)
        )


def _matches(pattern: str, text: str) -> bool:
    return bool(pattern) and _compiled(pattern).fullmatch(text) is not None


@lru_cache(256)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)
