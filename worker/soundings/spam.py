"""Spam filters: what SpamAssassin or rspamd, where one is installed, thinks of a mail.

Refuses: to send a mail to a filter on another machine, and to install one.
"""

import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from worker.content.checks.findings import Finding
from worker.soundings import rules

#: Seconds for one mail: SpamAssassin compiles its rules each time.
_SECONDS = 60.0
#: Scores from which a filter is unhappy, and from which most refuse.
_RAISED, _HIGH = 1.0, 5.0
#: Programs in the order of our choice, with what they want to hear. Nothing is asked of the network.
_PROGRAMS: Mapping[str, tuple[str, ...]] = {
    "spamassassin": ("-L", "-t"),
    "rspamc": ("-h", "127.0.0.1:11333", "symbols"),
}
_SCORES = (
    re.compile(r"^Content analysis details:\s+\((-?[\d.]+) points", re.MULTILINE),
    re.compile(r"^Score: (-?[\d.]+) /", re.MULTILINE),
)
_HITS = (
    re.compile(r"^\s*(-?\d+\.\d+) ([A-Z][A-Z0-9_]{2,})\b", re.MULTILINE),
    re.compile(r"^Symbol: ([A-Z0-9_]+) \((-?[\d.]+)\)", re.MULTILINE),
)


@dataclass(frozen=True, slots=True)
class Opinion:
    """What a filter said."""

    #: its program
    program: str
    #: points; the more, the worse
    score: float
    #: the rules that cost points
    against: tuple[str, ...]


def examine(mails: Iterable[tuple[str, bytes]]) -> Iterator[Finding]:
    """Ask about each mail, given with its form; one note where nobody is there to be asked."""
    for form, data in mails:
        opinion = ask(data)
        if opinion is None:
            yield rules.SPAM_UNKNOWN.found("no spam filter is installed that answers here", "source")
            return
        rule = rules.SPAM_HIGH if opinion.score >= _HIGH else rules.SPAM_RAISED
        if opinion.score >= _RAISED:
            why = ", ".join(opinion.against) or "it does not say why"
            told = rule.found(f"{opinion.program} gives it {opinion.score:g} points ({why})", "source")
            yield replace(told, forms=(form,))


def ask(data: bytes) -> Opinion | None:
    """Return the opinion of the first filter that answers; None if none does."""
    for program, words in _PROGRAMS.items():
        path = shutil.which(program)
        if path is None:
            continue
        try:
            told = subprocess.run(  # noqa: S603 - a program found on PATH, with fixed words
                [path, *words], input=data, capture_output=True, timeout=_SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            continue
        if opinion := read(program, told.stdout.decode("utf-8", "replace")):
            return opinion
    return None


def read(program: str, said: str) -> Opinion | None:
    """Read a filter's report; None if it holds no score."""
    score = next((float(found[1]) for pattern in _SCORES if (found := pattern.search(said))), None)
    if score is None:
        return None
    lines, symbols = (pattern.findall(said) for pattern in _HITS)
    hits = {name: float(points) for points, name in lines} | {name: float(points) for name, points in symbols}
    return Opinion(program, score, tuple(sorted(name for name, points in hits.items() if points > 0)))
