"""Lists: whom a file names, whom it must not, and that no row goes missing."""

import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.errors import WrongUse
from worker.tables.lists import Consent, Rejected, Row, cell, read, tidy

LISTS = Path(__file__).parents[2] / "lists"


def result(
    data: str | bytes, defaults: Consent | None = None, *, day_first: bool | None = None
) -> list[Row | Rejected]:
    """All rows of a file, read in small pieces."""
    whole = data.encode() if isinstance(data, str) else data
    chunks = (whole[i : i + 11] for i in range(0, len(whole), 11))
    return list(read(chunks, defaults=defaults or Consent(), day_first=day_first))


def only(data: str | bytes, *, day_first: bool | None = None) -> Row:
    """The single row of a file."""
    (row,) = result(data, day_first=day_first)
    assert isinstance(row, Row), row
    return row


def refusal(data: str | bytes) -> Rejected:
    """The single rejected row of a file."""
    (row,) = result(data)
    assert isinstance(row, Rejected)
    return row


def test_a_row() -> None:
    """A row holds the checked address, what else is known, and nothing that is empty."""
    row = only(
        "E-Mail;Vorname;Nachname;Sprache;Diskret;Ort;Notiz\nA@Example.ORG;Anna; Doe ;DE;ja;Köln;\n".encode()
    )
    assert row.line == 2
    assert row.address.spec == "A@example.org"
    assert row.fields == {"first_name": "Anna", "last_name": "Doe", "ort": "Köln"}
    assert (row.language, row.discreet, row.consent) == ("de", True, Consent())


def test_only_an_address() -> None:
    """A file with nothing but addresses is enough, with a header or without one."""
    for data in ("email\nanna@example.org\n", "anna@example.org\n", '"anna@example.org"'):
        row = only(data)
        assert (row.address.spec, row.fields, row.language, row.discreet) == (
            "anna@example.org",
            {},
            "",
            False,
        )


def test_repr_shows_nobody() -> None:
    """A row in a log or traceback shows its line and nothing of the person."""
    row = only("email,name,source\nanna@example.org,Anna,stall\n")
    assert repr(row) == "Row(line=2)"
    assert "stall" not in repr(row.consent)


@pytest.mark.parametrize(
    ("text", "spec", "name"),
    [
        ("anna@example.org", "anna@example.org", None),
        (" anna@example.org\u00a0", "anna@example.org", None),
        ("Anna <anna@example.org>", "anna@example.org", "Anna"),
        ('"""Doe, Anna"" <anna@example.org>"', "anna@example.org", "Doe, Anna"),
        ("<anna@example.org>", "anna@example.org", None),
        ("'anna@example.org", "anna@example.org", None),
        ("'anna@example.org'", "anna@example.org", None),
        ("'+bell@example.org", "+bell@example.org", None),
        ("anna@bücher.example.org", "anna@xn--bcher-kva.example.org", None),
    ],
)
def test_address_cells(text: str, spec: str, name: str | None) -> None:
    """An address may come with a name, in brackets, or with a spreadsheet's text mark."""
    row = only(f"email\n{text}\n")
    assert (row.address.spec, row.fields.get("name")) == (spec, name)


def test_name_column_wins() -> None:
    """A name beside the address is used only where the file has no other."""
    assert only("email,first name\nAnna Doe <anna@example.org>,Anna\n").fields == {"first_name": "Anna"}
    assert only("email,first name\nAnna Doe <anna@example.org>,\n").fields == {"name": "Anna Doe"}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (",Anna", "address-empty"),
        ("anna,Anna", "address-no-at"),
        ("a@example.org; b@example.org,Anna", "address-several"),
        ('"a@example.org, b@example.org",Anna', "address-several"),
        ('"a@example.org\nb@example.org",Anna', "address-control"),
        ("a\x00@example.org,Anna", "address-control"),
        ("a\u200b@example.org,Anna", "address-invisible"),
        ("anna@example.org", "short"),
        ("anna@example.org,Doe, Anna", "long"),
        ('anna@example.org,"Anna', "quote"),
        ("anna@example.org,Jos\ufffd", "encoding"),
        (f"anna@example.org,{'x' * 10_001}", "length"),
    ],
)
def test_rejected(row: str, reason: str) -> None:
    """A row that cannot be used is rejected with its line and reason, in words that repeat none of it."""
    found = refusal(f"email,name\n{row}\n")
    assert (found.line, found.reason) == (2, reason)
    assert found.message
    assert "example" not in found.message
    assert "Anna" not in found.message


def test_blank_rows() -> None:
    """Blank lines and rows of empty cells are no rows; empty cells past the header do no harm."""
    rows = result("email,name\n\n,\n , \na@example.org,Anna,,\n\n")
    assert [row.line for row in rows] == [5]


def test_same_address_again() -> None:
    """Every row comes out, however often its address did: merging needs to know who is held already."""
    data = "email\n" + "".join(f"{'aA'[i % 2]}nna@example.org\n" for i in range(1000))
    rows = result(data)
    assert len(rows) == 1000
    assert {row.address.canonical for row in rows if isinstance(row, Row)} == {"anna@example.org"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Anna\u2028Doe", "Anna Doe"),
        ("Anna\r\nBcc: b@example.org", "Anna Bcc: b@example.org"),
        ("An\x00na\x07", "Anna"),
        ("\u202eannA\u202c", "annA"),
        ("An\u200bna\ufeff", "Anna"),
        ("  Anna \t\u00a0 Doe ", "Anna Doe"),
        ("E\u0301mile", "Émile"),
        ("👩\u200d🚀", "👩\u200d🚀"),
        ("\u0645\u06cc\u200c\u062e", "\u0645\u06cc\u200c\u062e"),
        ("=1+1", "=1+1"),
        ("-5", "-5"),
        ("+44 20 7946 0958", "+44 20 7946 0958"),
        ("'=1+1", "=1+1"),
        ("'t Hooft", "'t Hooft"),
        ("{{7*7}}", "{{7*7}}"),
        ("Chris <they/them> Lee", "Chris <they/them> Lee"),
    ],
)
def test_names_are_cleaned(text: str, expected: str) -> None:
    """A name loses what cannot be seen or would break a header, and nothing else; its sign stays."""
    quoted = text.replace('"', '""')
    assert only(f'email,name\nanna@example.org,"{quoted}"\n').fields["name"] == expected


@pytest.mark.parametrize("text", ["\x00", "\u200b", " \u2028 ", "\u202e"])
def test_nothing_left(text: str) -> None:
    """A name of nothing but invisible characters is no name."""
    assert only(f"email,name\nanna@example.org,{text}\n").fields == {}


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("language", "a kind of English", "language"),
        ("discreet", "perhaps", "discreet"),
        ("when", "03/04/2026", "date"),
        ("when", "last summer", "date"),
        ("consent", "no", "no-consent"),
        ("consent", "", "no-consent"),
        ("consent", "withdrawn", "no-consent"),
        ("basis", "none", "no-consent"),
        ("unsubscribed", "yes", "said-no"),
        ("unsubscribed", "2026-03-01 10:00", "said-no"),
        ("opt-out", "x", "said-no"),
        ("status", "Unsubscribed", "said-no"),
        ("status", "cleaned", "said-no"),
    ],
)
def test_said_otherwise(column: str, value: str, reason: str) -> None:
    """Whoever the file says did not agree or has left is never taken, and an unclear answer is not a yes."""
    assert refusal(f"email,{column}\nanna@example.org,{value}\n").reason == reason


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("consent", "yes"),
        ("unsubscribed", "no"),
        ("unsubscribed", ""),
        ("status", "subscribed"),
        ("status", "donor"),
    ],
)
def test_agreed(column: str, value: str) -> None:
    """Whoever agreed, or did not leave, is taken."""
    only(f"email,{column}\nanna@example.org,{value}\n")


def test_consent() -> None:
    """The file's consent columns are kept per row, and the defaults fill what it leaves out."""
    defaults = Consent("consent", "web form", "Yes, write to me.", datetime(2026, 1, 1, tzinfo=UTC))
    rows = result(
        "email,basis,when,wording\na@example.org,soft opt-in,2026-03-01,Tick here\nb@example.org,,,\n",
        defaults,
    )
    assert [row.consent for row in rows if isinstance(row, Row)] == [
        Consent("soft opt-in", "web form", "Tick here", datetime(2026, 3, 1, tzinfo=UTC)),
        defaults,
    ]
    (row,) = result("email\na@example.org\n", defaults)
    assert isinstance(row, Row)
    assert row.consent == defaults


def test_told_the_date_order() -> None:
    """Told that days come first, an ambiguous date is read so."""
    row = only("email,when\nanna@example.org,03/04/2026\n", day_first=True)
    assert row.consent.at == datetime(2026, 4, 3, tzinfo=UTC)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"foo,bar\n1,2\n", "no address column"),
        (b"anna@example.org,Anna\n", "no address column"),
        (b"sep=;\n", "no address column"),
        (b'{"email": "anna@example.org"}', "no address column"),
        (b"<html><body>", "no address column"),
        (b"PK\x03\x04rest", "workbook"),
        (b"email,E-Mail\na,b\n", '"email" and "E-Mail"'),
        ("email,имя\nanna@example.org,Анна Иванова\n".encode("cp1251"), "encoding"),
    ],
)
def test_wrong_file(data: bytes, message: str) -> None:
    """A file that is no list of people is refused at once, with a remedy, and shows none of it."""
    with pytest.raises(WrongUse, match=message) as caught:
        result(data)
    assert caught.value.remedy
    assert "anna" not in str(caught.value)


def test_named_encoding() -> None:
    """An encoding that cannot be told is read when the operator names it."""
    data = "email,имя\nanna@example.org,Анна Иванова\n".encode("cp1251")
    (row,) = read([data], defaults=Consent(), encoding="windows-1251")
    assert isinstance(row, Row)
    assert row.fields["first_name"] == "Анна Иванова"


def test_header_only() -> None:
    """A header without rows gives no rows; what to make of that is the importer's business."""
    assert result("email,name\n") == []


def test_flat_memory() -> None:
    """Twenty megabytes are read while holding a few, whatever the number of rows."""

    def chunks() -> Iterator[bytes]:
        yield b"email,name,wording\n"
        row = b"anna%d@example.org,Anna," + b"x" * 2000 + b"\n"
        for start in range(0, 10_000, 50):
            yield b"".join(row % i for i in range(start, start + 50))

    tracemalloc.start()
    try:
        count = sum(1 for _ in read(chunks(), defaults=Consent()))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 10_000
    assert peak < 4_000_000


def test_example_list() -> None:
    """The shipped list is valid to the last row, names nobody twice, and shows what people are called."""
    rows = result((LISTS / "example.csv").read_bytes())
    people = [row for row in rows if isinstance(row, Row)]
    assert len(people) == len(rows) >= 40
    assert len({row.address.canonical for row in people}) == len(people)
    assert all(row.address.domain.endswith(("example.org", "example.com", "example.net")) for row in people)
    assert not any(row.address.needs_smtputf8 for row in people)
    assert {row.language[:2] for row in people} == {"", "en", "ru"}
    assert sum(row.discreet for row in people) >= 5
    assert all(
        row.consent.basis and row.consent.at and row.consent.wording and row.consent.source for row in people
    )
    assert max(len(row.fields.get("name", "")) for row in people) > 80


ADDRESS_PROBLEMS = (
    "empty no-at no-local no-dot dot domain literal reserved space characters length quoted mailto several "
    "brackets invisible lookalike unicode control"
)
PROBLEMS = [
    *((line, f"address-{reason}") for line, reason in enumerate(ADDRESS_PROBLEMS.split(), start=4)),
    *((24, "language"), (25, "discreet"), (26, "date"), (27, "date"), (28, "no-consent"), (29, "said-no")),
    *((30, "said-no"), (31, "encoding"), (32, "short"), (33, "long"), (34, "quote"), (35, "quote")),
]


def test_example_problems() -> None:
    """The list of problems shows each kind of rejected row, and the good rows around them are taken."""
    rows = result((LISTS / "example-problems.csv").read_bytes())
    assert [(row.line, row.reason) for row in rows if isinstance(row, Rejected)] == PROBLEMS
    assert [row.line for row in rows if isinstance(row, Row)] == [2, 3, 36]


@settings(max_examples=80)
@given(st.one_of(st.binary(max_size=200), st.text("@.,;\"\n\r\x00 aé<>'=", max_size=80).map(str.encode)))
def test_any_bytes(data: bytes) -> None:
    """Whatever follows a header, reading ends in rows, rejected rows, or one clear refusal."""
    try:
        rows = result(b"email,name,discreet,when\n" + data)
    except WrongUse:
        return
    lines = [row.line for row in rows]
    assert lines == sorted(set(lines))
    for row in rows:
        assert isinstance(row, Rejected) or all(tidy(text) == text != "" for text in row.fields.values())


@given(st.text())
def test_tidy_settles(text: str) -> None:
    """Tidying twice changes nothing, and what is left is one line that can be encoded."""
    done = tidy(text)
    assert tidy(done) == done
    assert done.splitlines() in ([], [done])
    done.encode()


@given(st.text(st.characters(codec="utf-8", exclude_characters="\ufffd"), max_size=30))
def test_export_and_import(text: str) -> None:
    """A name that was exported disarmed and imported again is the same name."""
    name = tidy(text)
    if not name or name.startswith("'"):
        return
    quoted = cell(name).replace('"', '""')
    assert only(f'email,name\nanna@example.org,"{quoted}"\n').fields["name"] == name
