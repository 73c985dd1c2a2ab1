"""Special-category facts (GDPR Art. 9) in what is seen of a mail from outside.

Owns two rules: a field and a list that an operator has marked. Refuses: to guess which are.
"""

from collections.abc import Iterator, Mapping
from typing import Final
from urllib.parse import unquote

from worker.content import expressions
from worker.content.checks.findings import Finding, Rule, Severity
from worker.content.checks.letters import Letter
from worker.content.versions import telling

__all__ = ["RULES", "fields", "lists"]

FIELD: Final = Rule(
    "special.field",
    Severity.ERROR,
    "a special-category field in a subject, preheader, header or link, be it only as a condition",
    "Say it inside the mail only: others see these, and so do the servers on the way.",
)
LIST: Final = Rule(
    "special.list",
    Severity.ERROR,
    "the name of a special-category list in a subject, preheader, header or link",
    "Name it inside the mail only, or call the list otherwise.",
)
RULES: Final = (FIELD, LIST)
#: Shorter values of an invented reader stand in any text.
_LEAST: Final = 4


def fields(letter: Letter) -> Iterator[Finding]:
    """Find special-category fields outside of the mail's own text."""
    marked = set(letter.edition.special.fields)
    for part, text in _written(letter).items():
        for name in sorted(marked & expressions.fields(text)):
            yield FIELD.found(f"it depends on {name}", part)
    told = {name: letter.fields.get(name, "") for name in sorted(marked)}
    for part, text in _outside(letter).items():
        for name, value in told.items():
            if len(value) >= _LEAST and value in text:
                yield FIELD.found(f"it tells {name}", part)


def lists(letter: Letter) -> Iterator[Finding]:
    """Find names of special-category lists outside of the mail's own text."""
    names = letter.edition.special.names
    seen = {**_outside(letter), "subject": letter.shown.subject, "preheader": letter.shown.preheader}
    for part, text in seen.items():
        if word := telling(text, names):
            yield LIST.found(f"it names “{word}”", part)


def _written(letter: Letter) -> Mapping[str, str]:
    """Return what the author wrote for outside, by part; a condition tells as much as a word."""
    version = letter.version
    form = version.discreet if letter.discreet and version.discreet else version
    return {
        "subject": form.subject,
        "preheader": form.preheader,
        "links": " ".join(action.link for action in version.actions),
    }


def _outside(letter: Letter) -> Mapping[str, str]:
    """Return what is seen outside of the mail's own text, as it leaves; To is the reader's own."""
    heads = [f"{name}: {letter.message[name]}" for name, _ in letter.headers if name not in {"To", "Subject"}]
    hrefs = [link.href for link in letter.links] + sorted(letter.text_links)
    sources = [str(each.get("src") or "") for each in letter.page.iter("img")]
    return {
        "envelope": letter.parcel.sender,
        "headers": unquote("\n".join(heads)),
        "links": unquote("\n".join(dict.fromkeys([*hrefs, *sources]))),
    }
