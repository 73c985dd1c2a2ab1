"""Spam filters: what SpamAssassin or rspamd, where one is installed, thinks of an appeal's mails.

Refuses: to send a mail to a filter on another machine, and to install one.
"""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from worker.content.checks.findings import Finding
from worker.soundings import rules

#: Seconds for all mails: a filter compiles its rules first, then takes a fraction of one for each.
_SECONDS = 120.0
#: Scores from which a filter is unhappy, and from which most refuse.
_RAISED, _HIGH = 1.0, 5.0


@dataclass(frozen=True, slots=True)
class _Filter:
    """A program that judges mails, and how to read what it says."""

    program: str
    #: what it wants to hear before the mails' files
    words: tuple[str, ...]
    #: one report: its score, and the rules that were hit. It says them in the operator's language, so that
    #: only its shape counts
    report: re.Pattern[str]
    #: one of these rules: name and points, in either order
    hit: re.Pattern[str]


#: In the order of our choice. SpamAssassin is told to ask nothing of the network; rspamd asks what whoever
#: runs it has set up, and takes our mail for this machine's: nobody has delivered it yet.
_FILTERS = (
    _Filter(
        "spamassassin",
        ("-L", "-t"),
        re.compile(r" \((-?\d+\.\d+) [^()\n]*\)\n\n[^\n]*\n-{4} -{5,} -{5,}\n((?:[^\n]+\n)*)"),
        re.compile(r"^\s*(?P<points>-?\d+(?:\.\d+)?) (?P<name>[A-Z][A-Z0-9_]{2,})\b", re.MULTILINE),
    ),
    _Filter(
        "rspamc",
        ("-h", "127.0.0.1:11333", "-i", "127.0.0.1", "-n", "1", "symbols"),
        re.compile(r"^Score: (-?\d+\.\d+) / [^\n]*\n((?:Symbol: [^\n]*\n)*)", re.MULTILINE),
        re.compile(r"^Symbol: (?P<name>[A-Z0-9_]+) \((?P<points>-?\d+\.\d+)\)", re.MULTILINE),
    ),
)


@dataclass(frozen=True, slots=True)
class Opinion:
    """What a filter said of one mail."""

    #: its program
    program: str
    #: points; the more, the worse
    score: float
    #: the rules that cost points
    against: tuple[str, ...]


def examine(mails: Iterable[tuple[str, bytes]]) -> Iterator[Finding]:
    """Ask about mails, each given with its form; one note where nobody is there to be asked."""
    letters = list(mails)
    opinions = ask([data for _, data in letters])
    if opinions is None:
        yield rules.SPAM_UNKNOWN.found("no spam filter is installed that answers here", "source")
        return
    for (form, _), opinion in zip(letters, opinions, strict=True):
        rule = rules.SPAM_HIGH if opinion.score >= _HIGH else rules.SPAM_RAISED
        if opinion.score >= _RAISED:
            why = ", ".join(opinion.against) or "it does not say why"
            told = rule.found(f"{opinion.program} gives it {opinion.score:g} points ({why})", "source")
            yield replace(told, forms=(form,))


def ask(mails: Sequence[bytes]) -> Sequence[Opinion] | None:
    """Return the opinions of the first filter that answers, a mail each in their order; None if none does."""
    with tempfile.TemporaryDirectory(prefix="tocsin-") as folder:
        files = [Path(folder) / f"{number:04}.eml" for number in range(len(mails))]
        for file, data in zip(files, mails, strict=True):
            file.write_bytes(data)
        for each in _FILTERS:
            opinions = read(each.program, _said(each, files))
            if len(opinions) == len(mails):  # fewer: it broke down; more: a mail looks like a report
                return opinions
    return None


def _said(asked: _Filter, files: Sequence[Path]) -> str:
    path = shutil.which(asked.program)
    if path is None:
        return ""
    try:
        done = subprocess.run(  # noqa: S603 - a program found on PATH, with fixed words and our own files
            [path, *asked.words, *files],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace")


def read(program: str, said: str) -> Sequence[Opinion]:
    """Read a filter's reports, in the order of their mails."""
    by = next(each for each in _FILTERS if each.program == program)
    return [
        Opinion(
            program,
            float(score),
            tuple(sorted(hit["name"] for hit in by.hit.finditer(hits) if float(hit["points"]) > 0)),
        )
        for score, hits in by.report.findall(said)
    ]
