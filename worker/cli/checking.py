"""`appeals check`: all that would embarrass us, found before anybody gets it, with where and how to mend it.

Refuses: to decide what is bad (the rules do), and to send anything.
"""

import os
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from worker import preflight, workspace
from worker.cli import completion, grammar, session, terminal
from worker.content import appeals
from worker.content.appeals import AppealErrors
from worker.content.checks import hrefs
from worker.content.checks.findings import Finding, Severity, errors, merged
from worker.content.checks.table import SOURCE, UNFILLABLE
from worker.errors import WrongUse
from worker.readers import Trial
from worker.settings import Settings
from worker.wiring import Wiring

_STYLES: Mapping[Severity, str] = {
    Severity.ERROR: terminal.BAD,
    Severity.WARNING: terminal.DOUBTFUL,
    Severity.NOTE: terminal.FAINT,
}

Lists = Annotated[
    list[str] | None,
    typer.Option(
        "--list",
        metavar="SLUG",
        help="Count who on it lacks a merge field; may be repeated.",
        autocompletion=completion.lists,
    ),
]
Waive = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME", help="Send in spite of this error, as in: links.shortener; may be repeated."
    ),
]


def declare(app: typer.Typer) -> None:
    """Add the command to a group."""
    grammar.command(
        app,
        "check",
        "tocsin appeals check chechnya-report",
        "tocsin appeals check chechnya-report --online --list supporters",
    )(check)


def check(
    *,
    slug: grammar.Appeal,
    online: Annotated[
        bool, grammar.flag("--online", help="Open every link, and ask the DNS about our domains.")
    ] = False,
    lists: Lists = None,
    as_json: grammar.Json = False,
) -> int:
    """Check an appeal whole: make every mail that it can make, and examine each.

    Errors stop `send`, and exit 1 here; warnings and notes stop nothing. What cannot be read is told as
    file:line: what is wrong. Where SpamAssassin or rspamd is installed, its opinion is asked.

    JSON: {appeal, languages, forms, needs, findings: [{severity, name, what, where, mend, forms, file,
    line}]}.
    """
    found = session.settings_found()
    result = examined(found, slug, lists or [], online=online)
    if as_json:
        terminal.show_json(_facts(slug, result))
    else:
        _show(slug, result)
    return 1 if errors(result.findings) else 0


@dataclass(frozen=True, slots=True)
class Result:
    """What a check came to."""

    #: None: the appeal could not be read
    trial: Trial | None
    #: the worst first
    findings: Sequence[Finding]


def examined(
    found: Settings, slug: str, lists: Sequence[str] = (), *, online: bool = False, outside: bool = True
) -> Result:
    """Make every mail of an appeal and find what is wrong; an appeal that cannot be read is a finding.

    Args:
        found: where the appeal is.
        slug: its name.
        lists: whose people are counted who lack a field.
        online: whether links are opened and the DNS is asked.
        outside: whether an installed spam filter is asked.
    """
    folder = found.templates / "appeals" / slug
    try:
        edition = Wiring(found, session.Bell(found)).edition(slug)
    except WrongUse as error:
        return Result(None, [*_written(found, slug), SOURCE.found(str(error), shown(folder))])
    try:
        trial = Trial(edition)
        findings = [*preflight.examine(trial)]
    except AppealErrors as error:
        return Result(None, _unreadable(folder, error))
    except WrongUse as error:
        return Result(None, [SOURCE.found(str(error), "templates/look")])
    topics = {topic for version in trial.appeal.languages.values() for topic in version.topics}
    findings += [
        preflight.UNTITLED.found(f"{topic} has no title", "settings")
        for topic in sorted(topics - found.topics.keys())
    ]
    if outside:
        findings += _outside(trial, online=online)
    if lists:
        with session.opened() as tocsin:
            lacking = tocsin.planner.lacking(slug, lists)
        findings += [
            preflight.LACKING.found(f"{terminal.people(count)} on {', '.join(lists)} lack {field}", "lists")
            for field, count in lacking.items()
        ]
    return Result(trial, merged(findings))


def _written(found: Settings, slug: str) -> Sequence[Finding]:
    """Find what is wrong with the texts of an appeal whose pictures or attachments cannot be read."""
    texts = workspace.appeal_files(found, slug)
    try:
        appeals.parse(slug, texts, found.organisation.languages.split())
    except AppealErrors as error:
        return _unreadable(found.templates / "appeals" / slug, error)
    return ()


def _unreadable(folder: Path, error: AppealErrors) -> Sequence[Finding]:
    return [replace(one, part=shown(folder / one.part)) for one in preflight.unreadable(error)]


def _outside(trial: Trial, *, online: bool) -> Sequence[Finding]:
    """Ask whoever is not us: a spam filter, and with --online the linked sites and the DNS."""
    # Here, because `send` takes its options from this module and asks none of them.
    from worker.soundings import names, spam, visits  # noqa: PLC0415 - see above

    letters = list(preflight.letters(trial))
    with terminal.busy("Asking the spam filter…"):
        found = [*spam.examine((letter.form, bytes(letter.parcel.data)) for letter in letters)]
    if online:
        links = dict.fromkeys(link.href for letter in letters for link in hrefs.fetchable(letter))
        with terminal.busy("Opening the links…"):
            found += visits.visit(links, visits.public())
        with terminal.busy("Asking the DNS…"):
            found += names.examine(trial.edition)
    return found


def _facts(slug: str, result: Result) -> Mapping[str, object]:
    trial = result.trial
    return {
        "appeal": slug,
        "languages": sorted(trial.appeal.languages) if trial else [],
        "forms": [str(form) for form in trial.forms()] if trial else [],
        "needs": sorted(trial.needed()) if trial else [],
        "findings": [fact(one) for one in result.findings],
    }


def fact(one: Finding) -> Mapping[str, object]:
    """Return a finding for programs."""
    file, _, line = one.part.rpartition(":") if one.rule is SOURCE else ("", "", "")
    return {
        "severity": str(one.severity),
        "name": one.name,
        "what": one.what,
        "where": one.where,
        "mend": one.rule.mend,
        "forms": list(one.forms),
        "file": file,
        "line": int(line) if line.isdigit() else 0,
    }


def _show(slug: str, result: Result) -> None:
    for one in result.findings:
        if one.rule is SOURCE:
            terminal.say(f"{one.where}: {one.what}", terminal.BAD)
    if result.trial is None:
        return
    forms = "; ".join(map(str, result.trial.forms()))
    show(result.findings, forms)
    said = ", ".join(sorted(result.trial.appeal.languages))
    said += "; open and discreet" if result.trial.edition.discreet else ""
    if not any(one.rule is UNFILLABLE for one in result.findings):
        terminal.say(f"Every mail was made: {said}.")
    counts = {each: sum(one.severity is each for one in result.findings) for each in Severity}
    if counts[Severity.ERROR]:
        terminal.say(f"{slug} cannot be sent like this.", terminal.BAD)
    elif counts[Severity.WARNING]:
        terminal.say(f"{slug} can be sent; look at the warnings first.")
    else:
        terminal.say(f"{slug} is well.", terminal.GOOD)


def show(findings: Sequence[Finding], forms: str) -> None:
    """Print findings: those of one name under one heading, which says what to do about them.

    Args:
        findings: the worst first.
        forms: all mails of the appeal; what is in all of them need not be told one by one.
    """
    width = max(40, min(terminal.out().width, 100)) - 4
    for name in dict.fromkeys(one.name for one in findings):
        these = [one for one in findings if one.name == name]
        rule = these[0].rule
        heading = Text.assemble((f"{rule.severity}", _STYLES[rule.severity]), ("  ", ""), (name, "bold"))
        terminal.show(heading)
        for one in these:
            where = one.part if "; ".join(one.forms) == forms else one.where
            for line in textwrap.wrap(f"{where}: {one.what}", width, subsequent_indent="  "):
                terminal.say(f"  {line}")
        for line in textwrap.wrap(rule.mend, width, initial_indent="→ ", subsequent_indent="  "):
            terminal.show(Text(f"  {line}", "cyan"))
        terminal.say()


def shown(path: Path) -> str:
    """Return a path as short as it can be from here."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
