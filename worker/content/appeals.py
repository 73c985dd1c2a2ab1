"""An appeal: what a campaign says, in each of its languages, parsed and checked whole from its files.

One file a language, `<language>.md`. All faults of all files are raised at once, each with its file and line.
Refuses: half an appeal, files that are not a language's, and to read a file itself.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from types import MappingProxyType

from worker.content import versions
from worker.content.versions import Version
from worker.errors import WrongUse

_SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
#: Findings that the message itself lists; `findings` holds them all.
_MOST_TOLD = 30
_FILE = re.compile(r"([a-z]{2,3}(?:-[A-Za-z0-9]{2,8})*)\.md")


@dataclass(frozen=True, slots=True)
class Appeal:
    """The content of a campaign."""

    #: the name of its folder
    slug: str
    #: its versions by language
    languages: Mapping[str, Version]
    #: for readers whose language it does not have
    default_language: str

    @property
    def topics(self) -> tuple[str, ...]:
        """What it is about, in any of its languages."""
        return tuple(sorted({topic for version in self.languages.values() for topic in version.topics}))

    def language_for(self, language: str) -> str:
        """Choose among the appeal's languages: the reader's, that of no or another region, or the default."""
        return nearest(language, self.languages) or self.default_language


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One fault in an appeal's files."""

    #: the file's name within the appeal's folder
    file: str
    #: from 1
    line: int
    #: one sentence
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message}"


class AppealErrors(WrongUse):
    """The files of an appeal are wrong; `findings` are all the faults, in the order of the files."""

    def __init__(self, slug: str, findings: list[Finding]) -> None:
        """Take the appeal's name and what was found."""
        self.findings = tuple(sorted(set(findings)))
        count = len(self.findings)
        start = f"the appeal {slug} has {'an error' if count == 1 else f'{count} errors'}"
        separator = ": " if count == 1 else ":\n  "
        told = [str(finding) for finding in self.findings[:_MOST_TOLD]]
        if count > _MOST_TOLD:
            told.append(f"and {count - _MOST_TOLD} more")
        super().__init__(
            start + separator + "\n  ".join(told),
            remedy="mend each line named and check again",
        )


def nearest(language: str, having: Iterable[str]) -> str:
    """Return which of some languages serves a reader: theirs, that of no or another region; "" for none."""
    general = language.partition("-")[0]
    near = [one for one in having if one.partition("-")[0] == general]
    return next((one for one in (language, general, *near) if one in near), "")


def parse(slug: str, files: Mapping[str, str], order: Sequence[str] = ("en",)) -> Appeal:
    """Read an appeal from the texts of its files by name.

    Args:
        slug: the name of its folder.
        files: the texts.
        order: for readers of languages that it lacks: the first of these that it has, unless a file says that
            it is the default; then the first there is.

    Raises:
        AppealErrors: with everything that is wrong in any of them.
    """
    findings: list[Finding] = []
    note = partial(_note, findings)
    if not _SLUG.fullmatch(slug):
        note(".", 1, "the folder's name must be small letters, digits and hyphens")
    if not files:
        note(".", 1, "there is no file here: write one named by its language, as en.md")
    read = {}
    for name, text in sorted(files.items()):
        match = _FILE.fullmatch(name)
        if match is None:
            note(name, 1, "only files named by a language belong here, as en.md or pt-BR.md")
        else:
            version, faults = _read(text)
            for line, message in faults:
                note(name, line, message)
            if version:
                read[match[1]] = version
    marked = [language for language, version in read.items() if version.default]
    for language in marked[1:]:
        note(f"{language}.md", 1, f"{marked[0]}.md is the default already")
    if findings:
        raise AppealErrors(slug, findings)
    preferred = [found for language in order if (found := nearest(language, read))]
    return Appeal(slug, MappingProxyType(read), [*marked, *preferred, *read][0])


@lru_cache(maxsize=32)
def _read(text: str) -> tuple[Version | None, Sequence[tuple[int, str]]]:
    """Read a version and say what is wrong in it, once: a command asks for an appeal several times."""
    faults: list[tuple[int, str]] = []
    return versions.read(text, lambda line, message: faults.append((line, message))), faults


def misnamed(slug: str, file: str) -> str:
    """Say what is wrong with the name of an appeal or of one of its files; "" for nothing."""
    if not _SLUG.fullmatch(slug):
        return f"an appeal's name has small letters, digits and hyphens: not {slug}"
    return "" if _FILE.fullmatch(file) else f"{file.removesuffix('.md')} is no language, as en or pt-BR are"


def _note(findings: list[Finding], name: str, line: int, message: str) -> None:
    findings.append(Finding(name, line, message))
