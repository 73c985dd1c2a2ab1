"""Findings: what is wrong with a mail, where, and how to mend it; and the rules that they are found by.

A rule has a name that never changes, because people waive errors by it and programs read it. Refuses: to know
how anything is found.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Finding", "Rule", "Severity", "errors", "merged"]


class Severity(StrEnum):
    """What a finding does to a campaign."""

    #: stops it, unless it is waived by name
    ERROR = "error"
    #: is shown, and stops nothing
    WARNING = "warning"
    #: is worth knowing
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing that is looked for."""

    #: a family and a word, as in links.shortener
    name: str
    #: how bad it is
    severity: Severity
    #: what is found, in a few words, for the table of all rules
    about: str
    #: what to do, as a sentence
    mend: str
    #: whether an operator may send all the same; not where there is no mail to send
    waivable: bool = True

    def found(self, what: str, part: str) -> "Finding":
        """Return a finding of this rule in a part of the mail at hand."""
        return Finding(self, what, part)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found."""

    #: what it was found by
    rule: Rule
    #: one sentence
    what: str
    #: subject, preheader, headers, HTML, text, envelope, DNS, or a file and line
    part: str
    #: the mails that it is in, as in ("en", "ru, discreet"); none: all, or no mail could be made
    forms: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The rule's name."""
        return self.rule.name

    @property
    def severity(self) -> Severity:
        """The rule's severity."""
        return self.rule.severity

    @property
    def where(self) -> str:
        """The mails and the part, for people."""
        return f"{self.part} ({'; '.join(self.forms)})" if self.forms else self.part


def merged(found: Iterable[Finding]) -> Sequence[Finding]:
    """Make one of findings that say the same of several mails; the worst come first."""
    forms: dict[tuple[str, str, str], dict[str, None]] = {}
    rules: dict[str, Rule] = {}
    for one in found:
        rules[one.name] = one.rule
        forms.setdefault((one.name, one.what, one.part), {}).update(dict.fromkeys(one.forms))
    made = [Finding(rules[name], what, part, tuple(each)) for (name, what, part), each in forms.items()]
    return sorted(made, key=lambda one: (list(Severity).index(one.severity), one.name))


def errors(found: Iterable[Finding], waived: Iterable[str] = ()) -> Sequence[Finding]:
    """Return what stops a campaign: the errors that are not waived by name."""
    names = frozenset(waived)
    stops = [one for one in found if one.severity is Severity.ERROR]
    return [one for one in stops if not (one.rule.waivable and one.name in names)]
