"""Whom a never-mail rule holds for, and what is no rule."""

import pytest

from worker.addresses import parse
from worker.bars import Kind, drafted, first, under
from worker.errors import WrongUse
from worker.sealing import Person


def person(address: str = "sam@mail.example.org", **fields: str) -> Person:
    """Somebody."""
    return Person(parse(address), fields)


@pytest.mark.parametrize(
    ("kind", "pattern", "who", "holds"),
    [
        (Kind.DOMAIN, "example.org", person("a@example.org"), True),
        (Kind.DOMAIN, "Example.ORG", person("a@mail.example.org"), True),
        (Kind.DOMAIN, "example.org", person("a@notexample.org"), False),
        (Kind.DOMAIN, "example.org", person("a@example.org.example.com"), False),
        (Kind.DOMAIN, "*.example.org", person("a@example.org"), False),
        (Kind.DOMAIN, "*.example.org", person("a@mail.example.org"), True),
        (Kind.DOMAIN, "mail.*", person("a@mail.example.net"), True),
        (Kind.DOMAIN, "bücher.example.org", person("a@xn--bcher-kva.example.org"), True),
        (Kind.COUNTRY, "kz", person(country="KZ"), True),
        (Kind.COUNTRY, "KZ", person(country=" kazakhstan"), True),
        (Kind.COUNTRY, "Казахстан", person(land="Kasachstan"), True),
        (Kind.COUNTRY, "KZ", person(town="Kazakhstan"), False),
        (Kind.COUNTRY, "GB", person(country_code="UK"), True),
        (Kind.COUNTRY, "GB", person(), False),
        (Kind.FIELD, "town=Exam*", person(town="EXAMPLETON"), True),
        (Kind.FIELD, "town=Exam", person(town="Exampleton"), False),
        (Kind.FIELD, "staff=*", person(staff="yes"), True),
        (Kind.FIELD, "staff=*", person(), False),
    ],
)
def test_a_rule_holds_for_whom_it_says(kind: Kind, pattern: str, who: Person, *, holds: bool) -> None:
    """A domain and all under it; a country by code or by a name in any of our languages; a field's text."""
    bar = drafted("one", kind, pattern)
    assert bar.holds(who) is holds
    assert (first([bar], who) is bar) is holds
    assert bool(under([bar], who)) is holds


@pytest.mark.parametrize(
    ("name", "kind", "pattern"),
    [
        ("Big", Kind.DOMAIN, "example.org"),
        ("a" * 33, Kind.DOMAIN, "example.org"),
        ("one", Kind.DOMAIN, "sam@example.org"),
        ("one", Kind.DOMAIN, "*"),
        ("one", Kind.DOMAIN, ""),
        ("one", Kind.COUNTRY, "Atlantis"),
        ("one", Kind.FIELD, "town"),
        ("one", Kind.FIELD, "Town=x"),
    ],
)
def test_what_is_no_rule_is_wrong_use(name: str, kind: Kind, pattern: str) -> None:
    """Above all no rule that holds for everybody by a slip, and none that names an address."""
    with pytest.raises(WrongUse):
        drafted(name, kind, pattern)
