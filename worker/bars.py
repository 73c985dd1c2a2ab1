"""Bars: the rules by which an operator never writes to some people, whatever lists they are on.

Pure. Owns what a rule may say and whom it holds for. Refuses: to know who wrote it down, and an address as a
rule: that is a suppression, which survives the person.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from functools import cache
from typing import Final

from worker.errors import WrongUse
from worker.sealing import Person

_NAME: Final = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_NAME_MOST: Final = 32
_DOMAIN: Final = re.compile(r"(?=.*[a-z0-9]{2})[a-z0-9*?.-]+")
_FIELD: Final = re.compile(r"[a-z][a-z0-9_]{0,63}=.{1,200}")
#: The fields that say where somebody lives.
_COUNTRY_FIELDS: Final = ("country", "country_code", "land", "pays", "pais", "страна", "الدولة")
#: In whose languages lists name countries.
_LANGUAGES: Final = ("en", "ru", "de", "fr", "es", "ar")
_CODE: Final = 2
#: What lists call them, and no standard does.
_ALSO: Final = {
    "uk": "GB",
    "usa": "US",
    "great britain": "GB",
    "england": "GB",
    "united states of america": "US",
}


class Kind(StrEnum):
    """What a rule looks at."""

    DOMAIN = "domain"
    COUNTRY = "country"
    FIELD = "field"


@dataclass(frozen=True, slots=True)
class Bar:
    """One never-mail rule."""

    id: int
    name: str
    kind: str
    pattern: str  #: example.gov, *.gov.example; RU; town=Example*

    @property
    def reason(self) -> str:
        """What stands as the reason where somebody is left out for it."""
        return f"rule {self.name}"

    def holds(self, person: Person) -> bool:
        """Tell whether this person is never to be written to."""
        if self.kind == Kind.DOMAIN:
            domain = person.address.domain
            return fnmatchcase(domain, self.pattern) or domain.endswith(f".{self.pattern}")
        if self.kind == Kind.COUNTRY:
            found = (person.fields.get(name, "") for name in _COUNTRY_FIELDS)
            return self.pattern in {country(text) for text in found if text}
        name, _, wanted = self.pattern.partition("=")
        return name in person.fields and fnmatchcase(person.fields[name].casefold(), wanted.casefold())


def drafted(name: str, kind: Kind, pattern: str) -> Bar:
    """Return a rule with its pattern in the one form that is kept; WrongUse where it says nothing."""
    if not _NAME.fullmatch(name) or len(name) > _NAME_MOST:
        raise WrongUse(
            "a rule's name is small letters, digits and hyphens, 32 at most", remedy="As in: no-officials"
        )
    return Bar(0, name, kind, _FORMS[kind](pattern.strip()))


def under(bars: Iterable[Bar], person: Person) -> tuple[int, ...]:
    """Return the ids of the rules that hold for this person."""
    return tuple(bar.id for bar in bars if bar.holds(person))


def first(bars: Sequence[Bar], person: Person) -> Bar | None:
    """Return the first of the rules that holds, in the order given."""
    return next((bar for bar in bars if bar.holds(person)), None)


def country(text: str) -> str:
    """Return the two letters of a country by its code or its name in one of our languages; "" for none."""
    folded = " ".join(text.casefold().split())
    return _countries().get(folded, "")


def _domain(pattern: str) -> str:
    try:
        plain = pattern.lower().encode("idna").decode("ascii") if not pattern.isascii() else pattern.lower()
    except UnicodeError:
        plain = ""
    if "@" in pattern or not _DOMAIN.fullmatch(plain):
        raise WrongUse(
            "that is no pattern for a domain",
            remedy="As in: --domain example.gov or --domain '*.gov.example'",
        )
    return plain


def _country(pattern: str) -> str:
    if found := country(pattern):
        return found
    raise WrongUse("that is no country", remedy="Give its two letters, as in: --country KZ")


def _field(pattern: str) -> str:
    if _FIELD.fullmatch(pattern):
        return pattern
    raise WrongUse(
        "a field is matched as NAME=TEXT", remedy="As in: --field town=Example or --field 'staff=*'"
    )


_FORMS: Final = {Kind.DOMAIN: _domain, Kind.COUNTRY: _country, Kind.FIELD: _field}


@cache
def _countries() -> Mapping[str, str]:
    # Here, because it loads names of every place there is, for the few who have such a rule.
    from babel import Locale  # noqa: PLC0415 - see above

    found: dict[str, str] = {}
    for language in _LANGUAGES:
        for code, name in Locale(language).territories.items():
            if len(code) == _CODE and code.isalpha():
                found |= {name.casefold(): code, code.casefold(): code}
    return {**found, **_ALSO}
