"""Before anybody is mailed: every mail that an appeal makes, examined; and what stands in the way of sending.

Owns which mails are looked at (each language and form, for a reader of whom all is known and one of whom only
the necessary is), and what a waiver can and cannot do. Refuses: to mend anything, and real people's mails.
"""

import contextlib
import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from worker.content.appeals import AppealErrors
from worker.content.checks import table
from worker.content.checks.findings import Finding, Rule, errors, merged
from worker.content.checks.letters import Letter
from worker.content.editions import Edition
from worker.content.look import Look, Press
from worker.content.rendering import UnfillableError
from worker.content.versions import Version
from worker.content.weaving import MissingField
from worker.errors import Refused, WrongUse
from worker.readers import Form, Trial
from worker.soundings import rules as soundings

#: The rule that an audience breaks; planning counts.
LACKING = table.LACKING
#: The rule about topics; whoever has read the settings looks.
UNTITLED = table.UNTITLED
#: Every rule, by its name.
RULES: Mapping[str, Rule] = {rule.name: rule for rule in (*table.OWN, *soundings.RULES)}


def waivers(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names to waive, each once; WrongUse where one is no rule, or none that can be waived."""
    for name in names:
        if name not in RULES:
            near = difflib.get_close_matches(name, RULES, n=1)
            raise WrongUse(
                f"{name} is no finding",
                remedy=f"Did you mean {near[0]}?" if near else "See `tocsin appeals check APPEAL`.",
            )
        if not RULES[name].waivable:
            raise WrongUse(f"{name} cannot be waived: there would be no mail", remedy=RULES[name].mend)
    return tuple(sorted(set(names)))


def examine(trial: Trial) -> Sequence[Finding]:
    """Make every mail of an appeal and return all that is found in them, the worst first."""
    made, found, needed = list[Letter](), list[Finding](), set[str]()
    for form in trial.forms():
        try:
            lacked = trial.needed(form)
            made.append(_letter(trial, form, None))
            if trial.fields:
                made.append(_letter(trial, form, trial.invented(form, lacked)))
        except UnfillableError as error:
            found.append(Finding(table.UNFILLABLE, str(error), "appeal", (str(form),)))
        else:
            needed |= lacked
            found += _slow(trial, form)
            if lacked and trial.appeal.languages[form.language].view_in_browser and not form.discreet:
                found += [table.COPY.found(f"{field} has no fallback", "copy") for field in sorted(lacked)]
    found += [table.FALLBACK.found(f"{field} has no fallback", "appeal") for field in sorted(needed)]
    return merged([*found, *table.examine(made)])


def _slow(trial: Trial, form: Form) -> Iterator[Finding]:
    with contextlib.suppress(UnfillableError):  # what we have invented proves nothing
        if trial.fields and trial.is_slow(form):
            told = "every reader needs CSS inlined anew"
            yield replace(table.SLOW.found(told, "appeal"), forms=(str(form),))


def letters(trial: Trial) -> Iterator[Letter]:
    """Yield one letter for each mail that an appeal makes, its reader one of whom all is known.

    A form that cannot be filled in makes none; `examine` names it.
    """
    for form in trial.forms():
        with contextlib.suppress(MissingField, UnfillableError):
            yield _letter(trial, form, None)


def _letter(trial: Trial, form: Form, fields: Mapping[str, str] | None) -> Letter:
    person = trial.reader(form, fields)
    version = trial.appeal.languages[form.language]
    return Letter(
        edition=trial.edition,
        version=version,
        language=form.language,
        discreet=form.discreet,
        reason=_reason(trial.edition, form.language, version),
        fields=person.fields,
        shown=trial.shown(form, fields),
        parcel=trial.parcel(form, fields),
    )


def _reason(edition: Edition, language: str, version: Version) -> str:
    """Return why the reader gets it: the version's words, or the look's."""
    if version.reason:
        return version.reason
    words = Press(Look(edition.look)).words(language)
    return words["reason"] % {"organisation": edition.organisation.name}


def unreadable(error: AppealErrors) -> Sequence[Finding]:
    """Return the faults of an appeal's files as findings; no mail could be made."""
    return [table.SOURCE.found(one.message, f"{one.file}:{one.line}") for one in error.findings]


def require(found: Sequence[Finding], waived: Sequence[str], appeal: str) -> tuple[str, ...]:
    """Refuse an appeal with errors; return which of the waivers were needed."""
    stopping = errors(found, waived)
    if not stopping:
        return tuple(sorted({one.name for one in errors(found)}))
    count = "an error" if len(stopping) == 1 else f"{len(stopping)} errors"
    told = "\n".join(f"{one.name}: {one.where}: {one.what}" for one in stopping)
    names = " ".join(
        f"--waive {name}" for name in dict.fromkeys(one.name for one in stopping if one.rule.waivable)
    )
    otherwise = f"; or send it all the same with {names}" if names else ""
    raise Refused(
        f"the appeal {appeal} has {count}:\n{told}",
        remedy=f"Mend it and see `tocsin appeals check {appeal}`{otherwise}.",
    )
