"""Columns: headers in many languages, and a plan without doubt."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.errors import WrongUse
from worker.tables.columns import _KNOWN, _LOOSE, _NAMES, arrange, key, names_addresses


@pytest.mark.parametrize(
    ("header", "column"),
    [
        ("email", "email"),
        ("EMAIL", "email"),
        (" E-Mail ", "email"),
        ("Email Address", "email"),
        ("E-Mail-Adresse", "email"),
        ("e_mail", "email"),
        ("адрес", "email"),
        ("Адрес электронной почты", "email"),
        ("Correo electrónico", "email"),
        ("correo electronico", "email"),
        ("Courriel", "email"),
        ("E-mail 1 - Value", "email"),
        ("メールアドレス", "email"),
        ("البريد الإلكتروني", "email"),
        ("Full Name", "name"),
        ("ФИО", "name"),
        ("First name", "first_name"),
        ("first_name", "first_name"),
        ("firstName", "first_name"),
        ("Vorname", "first_name"),
        ("Prénom", "first_name"),
        ("Имя", "first_name"),
        ("Surname", "last_name"),
        ("Фамилия", "last_name"),
        ("Sprache", "language"),
        ("Язык", "language"),
        ("Discreet", "discreet"),
        ("Legal basis", "basis"),
        ("Consent source", "source"),
        ("Quelle", "source"),
        ("When", "when"),
        ("Consent date", "when"),
        ("Дата согласия", "when"),
        ("Wording", "wording"),
        ("Opt-in", "agreed"),
        ("Unsubscribed", "left"),
        ("Status", "status"),
    ],
)
def test_known(header: str, column: str) -> None:
    """A header is known in any case, spelling and many languages."""
    assert arrange(["email" if column != "email" else "other", header]).index[column] == 1


def test_names_are_unambiguous() -> None:
    """No name means two columns, so the order of the table decides nothing."""
    names = [
        (key(name), column)
        for table in (_NAMES, _LOOSE)
        for column, words in table.items()
        for name in words.split(", ")
    ]
    columns: dict[str, set[str]] = {}
    for name, column in names:
        columns.setdefault(name, set()).add(column)
    assert {name: found for name, found in columns.items() if len(found) > 1} == {}
    assert "" not in _KNOWN


def test_loose_name_gives_way() -> None:
    """A column that is only called "address" is an ordinary field beside one that is called "email"."""
    columns = arrange(["Address", "Email"])
    assert columns.index["email"] == 1
    assert list(columns.extras) == [(0, "address")]


@pytest.mark.parametrize(
    ("header", "slug"),
    [
        ("Town", "town"),
        ("Post code", "post_code"),
        ("Größe", "grosse"),
        ("Île", "ile"),
        ("2025 total (£)", "column_2025_total"),
        ("_id", "id"),
        ("Город", "column_2"),
        ("", "column_2"),
        ("{{7*7}}", "column_7_7"),
        ("x" * 200, "x" * 60),
    ],
)
def test_further_columns(header: str, slug: str) -> None:
    """A further column keeps a plain form of its name, or its number."""
    assert list(arrange(["email", header]).extras) == [(1, slug)]


def test_status_is_kept() -> None:
    """The status column is looked at and kept as a field too, because it may mean something else."""
    assert list(arrange(["email", "Status"]).extras) == [(1, "status")]


@pytest.mark.parametrize(
    ("header", "named"),
    [
        (["email", "E-Mail"], ("email", "E-Mail")),
        (["email", "name", "Full name"], ("name", "Full name")),
        (["email", "Town", "town"], ("Town", "town")),
        (["Address", "Contact"], ("Address", "Contact")),
        (["email", "T\u202eown", "t own "], None),
        (["email", "a" * 300, "A" * 300], ("a" * 40, "A" * 40)),
    ],
)
def test_doubled(header: list[str], named: tuple[str, str] | None) -> None:
    """Two columns for one thing are refused by name; csv readers silently keep the last."""
    if named is None:
        assert len(arrange(header).extras) == 2
        return
    with pytest.raises(WrongUse) as caught:
        arrange(header)
    assert all(f'"{name}"' in str(caught.value) for name in named)


def test_too_many() -> None:
    """A header with hundreds of columns is no list of people."""
    with pytest.raises(WrongUse, match="columns"):
        arrange(["email", *(f"c{i}" for i in range(300))])


@pytest.mark.parametrize(
    "header", [[], [""], ["foo", "bar"], ["anna@example.org"], ["email;name"], ["emails sent"]]
)
def test_no_header(header: list[str]) -> None:
    """A row that names no address column is no header."""
    assert not names_addresses(header)


@given(st.lists(st.text(max_size=12), max_size=6))
def test_field_names(header: list[str]) -> None:
    """Every field name is one that a template can use, and no two are the same."""
    try:
        slugs = [slug for _, slug in arrange(["email", *header]).extras]
    except WrongUse:
        return
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", slug) for slug in slugs)
    assert len(set(slugs)) == len(slugs)
