"""The table of all checks on one letter, and of every rule that any check can find.

Pure: what needs a network or another program stands in `soundings`, with its rules here by name only.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Final

from worker.content.checks import (
    agreement,
    clients,
    colours,
    hrefs,
    required,
    special,
    structure,
    wire,
    wording,
)
from worker.content.checks.findings import Finding, Rule, Severity, merged
from worker.content.checks.letters import Letter

__all__ = ["CHECKS", "OWN", "examine"]

CHECKS: Final[tuple[Callable[[Letter], Iterator[Finding]], ...]] = (
    *(hrefs.faulty, hrefs.placeholder, hrefs.where, hrefs.named, hrefs.personal, hrefs.duplicate),
    hrefs.pictures,
    *(structure.language, structure.title, structure.headings, structure.tables, structure.active),
    *(agreement.links, agreement.numbers, agreement.warning, agreement.markup, agreement.lines),
    agreement.draft,
    colours.contrast,
    clients.unsupported,
    *(wording.subject, wording.preheader, wording.shouting, wording.discreet, wording.hosts),
    *(special.fields, special.lists),
    *(required.sender, required.footer, required.opt_out),
    *(wire.size, wire.lines, wire.octets, wire.fields, wire.one_click),
)

SOURCE: Final = Rule(
    "appeal.source",
    Severity.ERROR,
    "the appeal's or the look's files cannot be read: front matter, Markdown, merge fields, templates",
    "Mend each line named.",
    waivable=False,
)
UNFILLABLE: Final = Rule(
    "fields.unfillable",
    Severity.ERROR,
    "an expression that fails on what people's fields hold",
    "Fields are texts: try the expressions in {{ }} and {% %} with a preview.",
    waivable=False,
)
FALLBACK: Final = Rule(
    "fields.fallback",
    Severity.WARNING,
    "a merge field without a fallback; a list with people who lack it is refused",
    'Give one, as in {{ first_name | default("friend") }}.',
)
LACKING: Final = Rule(
    "fields.lacking",
    Severity.ERROR,
    "a merge field without a fallback that people on the list lack, with their number",
    'Give a fallback, as in {{ first_name | default("friend") }}.',
    waivable=False,
)
COPY: Final = Rule(
    "fields.copy",
    Severity.ERROR,
    "a copy on the web (view_in_browser) that cannot be made: a merge field has no fallback",
    'Give it one, as in {{ first_name | default("friend") }}, or leave view_in_browser out.',
)
SLOW: Final = Rule(
    "fields.slow",
    Severity.WARNING,
    "a loop or condition by which every reader gets another page, which takes a hundred times longer to send",
    "Show fields as they are, and ask of them only whether they are there, or which of a few they are.",
)
UNTITLED: Final = Rule(
    "topics.untitled",
    Severity.NOTE,
    "a topic of the appeal that readers cannot say no to on their page: the settings give it no title",
    'Name it in tocsin.toml, as in [topics.petitions] with title = "Petitions".',
)
#: Rules of this module's own, and those of every module above.
OWN: Final = (
    *(SOURCE, UNFILLABLE, FALLBACK, LACKING, COPY, SLOW, UNTITLED),
    *(*hrefs.RULES, *structure.RULES, *agreement.RULES, *colours.RULES, *clients.RULES),
    *(*wording.RULES, *required.RULES, *special.RULES, *wire.RULES),
)


def examine(letters: Iterable[Letter]) -> Iterator[Finding]:
    """Run every check on every letter; the same finding in several mails is one, the worst come first."""
    yield from merged(
        replace(found, forms=(letter.form,))
        for letter in letters
        for check in CHECKS
        for found in check(letter)
    )
