"""Agreement: the text part says what the HTML says (STANDARDS B3), and can be read as it stands.

Refuses: to compare every word; links, numbers, the warning and the opt-out are what must not be lost.
"""

import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import unquote

from worker.content.checks.findings import Finding, Rule, Severity
from worker.content.checks.hrefs import HOLE, is_share
from worker.content.checks.letters import Letter, plain

__all__ = ["RULES", "draft", "lines", "links", "markup", "numbers", "warning"]

LINKS: Final = Rule(
    "text.links", Severity.ERROR, "a link of the HTML that the text part lacks", "Add it to layout.txt."
)
NUMBERS: Final = Rule(
    "text.numbers", Severity.ERROR, "a number of the HTML that the text part lacks", "Say the same in both."
)
WARNING: Final = Rule(
    "text.warning",
    Severity.ERROR,
    "a content warning that is not in both parts, or not before the appeal",
    "Put it before the headline and the body in layout.html and layout.txt.",
)
MARKUP: Final = Rule(
    "text.markup", Severity.ERROR, "HTML tags or entities in the text part", "Write plain words there."
)
LINES: Final = Rule(
    "text.lines",
    Severity.WARNING,
    "lines of the text part that are longer than 78 characters, or a link of more than 998 octets",
    "Wrap them in layout.txt: {{ text | wrap }}. Links may be long, within reason.",
)
HOLES: Final = Rule(
    "words.placeholder",
    Severity.ERROR,
    "a merge field that nothing filled in",
    "Write it as a merge field, {{ first_name }}, or take it out.",
)
DRAFT: Final = Rule(
    "words.draft", Severity.WARNING, "words of a draft, such as TODO or lorem ipsum", "Finish the sentence."
)
RULES: Final = (LINKS, NUMBERS, WARNING, MARKUP, LINES, HOLES, DRAFT)

#: Characters that a terminal shows in a line, and octets that SMTP can carry in one (RFC 5321 section 4.5.3).
_WIDEST, _MOST_OCTETS = 78, 998
_NUMBER: Final = re.compile(r"\d+(?:[.,:\u00a0\u202f]\d+)*")
#: Of a bounded beginning: one that may be anything takes hours over a million letters without a space.
_LINK: Final = re.compile(r"\b[a-z][a-z0-9+.-]{1,20}://\S+|mailto:\S+", re.IGNORECASE)
_TAG: Final = re.compile(r"</?[a-z][a-z0-9]*(?:\s[^<>]*)?/?>|&(?:[a-z]{2,8}|#\d{2,5});", re.IGNORECASE)
_DRAFT: Final = re.compile(
    r"\b(?:TODO|TBC|TBD|FIXME|XXX+|lorem ipsum)\b|\?\?\?|\[(?i:insert|add|link|(?:your |first |last )?name)\b"
)


def links(letter: Letter) -> Iterator[Finding]:
    """Find links that readers of the text part could not follow."""
    said = unquote(letter.text)
    for link in letter.links:
        # HTML percent-encodes what a merge field puts into a link, and plain text may not.
        bare = unquote(link.href.removeprefix("mailto:"))
        if bare not in said and not is_share(link):
            yield LINKS.found(f"the link “{link.text}” is not in it", "text")


def numbers(letter: Letter) -> Iterator[Finding]:
    """Find numbers and amounts that the text part does not say."""
    said = set(_NUMBER.findall(letter.text))
    missing = dict.fromkeys(one for one in _NUMBER.findall(letter.words) if one not in said)
    if missing:
        yield NUMBERS.found(f"it does not say {', '.join(missing)}", "text")


def warning(letter: Letter) -> Iterator[Finding]:
    """Find a content warning that some reader would not meet before the appeal itself."""
    wanted = _filled(letter.version.content_warning)
    if not wanted:
        return
    after = [one for one in map(_filled, _appeal(letter)) if one]
    for part, words in (("HTML", letter.words), ("text", plain(letter.text))):
        at = words.find(wanted[0])
        if at < 0 or any(piece not in words for piece in wanted):
            yield WARNING.found("the content warning is not in it", part)
        elif any(0 <= words.find(one[0]) < at for one in after):
            yield WARNING.found("the content warning comes too late", part)


def _appeal(letter: Letter) -> Iterator[str]:
    """Yield lines of the author's that must not stand before the warning."""
    version = letter.version
    if not letter.discreet:
        yield version.headline if version.headline != version.subject else ""
    yield from re.findall(r"(?m)^#+ +(.*)$", version.body)
    yield from (action.text for action in version.actions)


def _filled(text: str) -> list[str]:
    """Return the pieces of an author's text that are the same for everybody."""
    pieces = re.split(r"\{\{.*?\}\}|\{%.*?%\}|[*_`\[\]]", text)
    return [plain(piece) for piece in pieces if plain(piece)]


def markup(letter: Letter) -> Iterator[Finding]:
    """Find tags and entities that a reader of plain text would see."""
    for found in dict.fromkeys(_TAG.findall(letter.text)):
        yield MARKUP.found(f"it shows {found}", "text")


def lines(letter: Letter) -> Iterator[Finding]:
    """Find lines too long for a terminal; a link cannot be broken."""
    long = [line for line in letter.text.split("\n") if len(line) > _WIDEST and "://" not in line]
    if long:
        yield LINES.found(f"{len(long)} line(s) are longer than {_WIDEST} characters", "text")
    octets = max(len(line.encode()) for line in letter.text.split("\n"))
    if octets > _MOST_OCTETS:
        yield LINES.found(f"a line has {octets} octets: some programs cut after {_MOST_OCTETS}", "text")


def draft(letter: Letter) -> Iterator[Finding]:
    """Find what was meant to be filled in or finished."""
    shown = letter.shown
    parts = {"subject": shown.subject, "preheader": shown.preheader, "HTML": letter.words}
    parts["text"] = _LINK.sub(" ", letter.text)
    for part, words in parts.items():
        for found in dict.fromkeys(each[0] for each in HOLE.finditer(words)):
            yield HOLES.found(f"it shows “{found}”", part)
        for found in dict.fromkeys(each[0] for each in _DRAFT.finditer(words)):
            yield DRAFT.found(f"it says “{found}”", part)
