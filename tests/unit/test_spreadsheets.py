"""Spreadsheets: bytes into numbered records, whatever the quoting, and cells that no program runs."""

import csv
import io
import string
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.errors import WrongUse
from worker.tables.spreadsheets import Record, Rejected, cell, read, uncell

HEADER = "email,name\n"


def is_header(cells: Sequence[str]) -> bool:
    """Any row with a cell "email" names the columns here."""
    return "email" in [each.strip() for each in cells]


def records(data: str | bytes, size: int = 5) -> list[Record | Rejected]:
    """All records after the header, read in small pieces."""
    return list(read(pieces(data, size), is_header=is_header).records)


def pieces(data: str | bytes, size: int) -> Iterator[bytes]:
    """The file in pieces, so that every boundary falls somewhere bad."""
    whole = data.encode() if isinstance(data, str) else data
    return (whole[i : i + size] for i in range(0, len(whole), size))


def rows(data: str | bytes) -> list[list[str]]:
    """The cells of all records, when none is rejected."""
    found = records(data)
    assert all(isinstance(each, Record) for each in found)
    return [each.cells for each in found if isinstance(each, Record)]


def outcome(data: str | bytes) -> list[tuple[int, str]]:
    """Line and reason of each record; the reason of a good one is its first cell."""
    return [
        (each.line, each.reason if isinstance(each, Rejected) else each.cells[0]) for each in records(data)
    ]


@pytest.mark.parametrize("delimiter", list(",;\t|"))
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_delimiters_and_line_ends(delimiter: str, end: str) -> None:
    """Four delimiters and three line ends are told from the header, with and without a final line end."""
    data = end.join(
        [f"email{delimiter}name", f"a@example.org{delimiter}Anna", f"b@example.org{delimiter}Ben"]
    )
    expected = [["a@example.org", "Anna"], ["b@example.org", "Ben"]]
    assert rows(data) == expected
    assert rows(data + end) == expected


def test_mixed_line_ends() -> None:
    """One file may mix its line ends, and none of them shifts the line numbers."""
    assert outcome("email\na\r\nb\rc\n\nd") == [(2, "a"), (3, "b"), (4, "c"), (6, "d")]


@pytest.mark.parametrize("first", ["sep=;\n", '"sep=;"\r\n', "SEP=;\r", "\n\n\n"])
def test_before_the_header(first: str) -> None:
    """Excel's sep line and blank lines may stand before the header."""
    assert rows(f"{first}email;name\na@example.org;Anna\n") == [["a@example.org", "Anna"]]


def test_mark_before_a_quoted_header() -> None:
    """A byte order mark does not become part of the first header, not even of a quoted one."""
    sheet = read([b'\xef\xbb\xbf"email","name"\n'], is_header=is_header)
    assert sheet.header == ["email", "name"]


def test_delimiter_of_the_header_wins() -> None:
    """The delimiter is the one that names most columns, however many others stand in the cells."""
    assert rows("email;name, title\na@example.org;Doe, Dr\n") == [["a@example.org", "Doe, Dr"]]


@pytest.mark.parametrize(
    ("line", "cells"),
    [
        ('a,"Doe, Anna"', ["a", "Doe, Anna"]),
        ('a,"Anna ""the Bell"" Doe"', ["a", 'Anna "the Bell" Doe']),
        ('a, "Doe, Anna"', ["a", "Doe, Anna"]),
        ('a,"Anna\nDoe"', ["a", "Anna\nDoe"]),
        ('a,"Anna\r\nDoe"', ["a", "Anna\r\nDoe"]),
        ('a,5" nail', ["a", '5" nail']),
        ('a,""', ["a", ""]),
        ("a,An\u2028na", ["a", "An\u2028na"]),
        ("a,An\x0b\x0c\x1c\x85na", ["a", "An\x0b\x0c\x1c\x85na"]),
        ("a,An\x00na", ["a", "An\x00na"]),
        ("a,'Anna", ["a", "'Anna"]),
        ("a", ["a"]),
        ("a,b,c", ["a", "b", "c"]),
    ],
)
def test_quoting(line: str, cells: list[str]) -> None:
    """Cells come as written, without their quotes; only CR, LF and CRLF end a line."""
    assert rows(f"{HEADER}{line}\n") == [cells]


def test_line_numbers() -> None:
    """A record has the number of its first physical line, counting blank lines and quoted line ends."""
    data = HEADER + 'a,x\n\n , \nb,"x\ny\nz"\nc,x\n'
    assert outcome(data) == [(2, "a"), (5, "b"), (8, "c")]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ('a,"Anna\nb,Ben\nc,Cy\n', [(2, "quote"), (3, "b"), (4, "c")]),
        ('a,"Anna\nb,"Ben"\nc,Cy\n', [(2, "quote"), (3, "b"), (4, "c")]),
        ('a,"Anna\n' + "b,Ben\n" * 300, [(2, "quote"), *((n, "b") for n in range(3, 303))]),
        ('a,"Anna "the Bell" Doe"\nb,Ben\n', [(2, "quote"), (3, "b")]),
        ('a,"Anna" Doe\nb,Ben\n', [(2, "quote"), (3, "b")]),
        ('a,"x\nb,"x\nc,"x\n', [(2, "quote"), (3, "quote"), (4, "quote")]),
        ('a,"', [(2, "quote")]),
    ],
)
def test_stray_quote(data: str, expected: list[tuple[int, str]]) -> None:
    """A quote that is not closed costs its own line, which is named, and none of those after it."""
    assert outcome(HEADER + data) == expected


@pytest.mark.parametrize(
    "data",
    [
        'a,"Anna\nb@example.org,"\nc,Cy\n',
        'a,"Anna\n"" b@example.org , Ben"\nc,Cy\n',
        '"a@example.org,Anna\nBen",b\nc,Cy\n',
    ],
)
def test_two_stray_quotes(data: str) -> None:
    """Two stray quotes that make one cell of two rows are noticed by the address in it, and rejected."""
    assert outcome(HEADER + data) == [(2, "quote"), (4, "c")]


def test_note_with_an_address() -> None:
    """A note of several lines that only mentions an address is a note."""
    assert rows(HEADER + 'a,"Spoke to b@example.org, who agreed.\nCall again."\n')


def test_endless_dots() -> None:
    """A cell made to keep a pattern busy costs no more than its length."""
    assert rows(HEADER + 'a,"x\na@' + "." * 100_000 + '@,"\n')


def test_damaged_line() -> None:
    """A byte that is no text rejects its row and no other."""
    data = HEADER.encode() + "a,José\n".encode() + b"b,Jos\xe9\n" + "c,Zoë\n".encode()
    assert outcome(data) == [(2, "a"), (3, "encoding"), (4, "c")]


def test_late_damage() -> None:
    """A first odd byte far behind the sample that decided the encoding is rejected, not misread."""
    data = HEADER.encode() + b"a,Anna\n" * 50_000 + b"b,Jos\xe9\nc,Cy\n"
    assert next(r for r in records(data, 65_536) if isinstance(r, Rejected)).line == 50_002


def test_character_cut_by_the_sample() -> None:
    """A character that the sample cuts in two does not change the encoding."""
    data = (HEADER + "a," + "x" * 1000 + "\n" + "b,\u20ac\u20ac\u20ac\u20ac\n" * 30_000).encode()
    assert {tuple(each) for each in rows(data)} == {("a", "x" * 1000), ("b", "\u20ac" * 4)}


@pytest.mark.parametrize("codec", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"])
def test_encodings(codec: str) -> None:
    """Other encodings read the same."""
    assert rows((HEADER + "a@example.org,José\n").encode(codec)) == [["a@example.org", "José"]]


def test_half_a_character_at_the_end() -> None:
    """A UTF-16 file that lost its last byte keeps its whole rows and rejects the damaged one."""
    found = outcome((HEADER + "a@example.org,Anna\nb,Ben").encode("utf-16-le")[:-1])
    assert found == [(2, "a@example.org"), (3, "encoding")]


def test_long_line() -> None:
    """A line too long to be a row is rejected without being held, and the next one is read."""
    data = HEADER + "a," + "x" * 400_000 + "\nb,Ben\n"
    assert [(r.line, getattr(r, "reason", "")) for r in records(data, 65_536)] == [(2, "length"), (3, "")]


def test_long_quoted_cell() -> None:
    """A cell too long for the csv module is a rejected row, not an exception."""
    data = HEADER + 'a,"' + ("x" * 60_000 + "\n") * 5 + '"\nb,Ben\n'
    found = records(data, 65_536)
    assert isinstance(found[0], Rejected)
    assert (found[0].line, found[0].reason) == (2, "length")
    assert found[-1] == Record(8, ["b", "Ben"])


def test_without_header() -> None:
    """Where no row names the columns, each line is one cell, and a delimiter in it is text."""
    sheet = read(
        [b'a@example.org\n"Doe, Anna" <b@example.org>\n\n"c@example.org"\n"""Doe, C"" <c@example.org>"'],
        is_header=is_header,
    )
    assert not sheet.header
    assert list(sheet.records) == [
        Record(1, ["a@example.org"]),
        Record(2, ['"Doe, Anna" <b@example.org>']),
        Record(4, ["c@example.org"]),
        Record(5, ['"Doe, C" <c@example.org>']),
    ]


@pytest.mark.parametrize("data", [b"", b"\n\n\n", "\ufeff\n".encode(), b"\xff\xfe"])
def test_empty(data: bytes) -> None:
    """A file without a row is refused."""
    with pytest.raises(WrongUse, match="empty"):
        read([data], is_header=is_header)


@pytest.mark.parametrize("data", [b"x" * 300_000, b'"email,name\n' + b"x\n" * 300])
def test_endless_header(data: bytes) -> None:
    """A first line without end is refused with a remedy, not read into memory."""
    with pytest.raises(WrongUse, match="header row") as caught:
        read([data], is_header=is_header)
    assert caught.value.remedy


FORMULAS = [
    "=1+1",
    "+cmd|' /C calc'!A0",
    "-2+3+cmd",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    " =1",
    "\uff1d1+1",
    "=",
    "@",
]
PLAIN = [
    "",
    " ",
    "Anna",
    "-5",
    "+5",
    "-5.25",
    "+44 20 7946 0958",
    "+44 (0)20-7946",
    "a=b",
    "'t Hooft",
    "5-3",
    "a@b.org",
]


@pytest.mark.parametrize("text", FORMULAS)
def test_disarms(text: str) -> None:
    """What a spreadsheet program would run gets a leading apostrophe, and loses it again on import."""
    assert cell(text) == f"'{text}"
    assert uncell(cell(text)) == text


@pytest.mark.parametrize("text", PLAIN)
def test_leaves_alone(text: str) -> None:
    """Text, numbers and phone numbers stay usable, out and in."""
    assert cell(text) == text
    assert uncell(text) == text


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\ufffd\ufeff"), max_size=30)


@given(TEXTS)
def test_cells_survive(text: str) -> None:
    """A cell that was exported comes back as it was, and disarming twice changes nothing."""
    assert cell(cell(text)) == cell(text)
    if not text.startswith("'"):
        assert uncell(cell(text)) == text


@settings(max_examples=60)
@given(
    st.lists(st.lists(TEXTS, min_size=2, max_size=2).filter(lambda row: "".join(row).strip()), max_size=6),
    st.sampled_from(",;\t|"),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    st.integers(1, 50),
)
def test_round_trip(table: list[list[str]], delimiter: str, end: str, codec: str, size: int) -> None:
    """What a csv writer quotes in full comes back cell for cell, in pieces of any size."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerows([["email", "name"], *table])
    data = out.getvalue().encode(codec)
    assert [r.cells for r in records(data, size) if isinstance(r, Record)] == table


PRINTABLE = st.text(string.ascii_letters + "@. äé\u2028\x85", min_size=1, max_size=10).filter(str.strip)


@settings(max_examples=60)
@given(st.lists(st.lists(PRINTABLE, min_size=1, max_size=3), max_size=12))
def test_no_row_vanishes(table: list[list[str]]) -> None:
    """Every line that is not blank comes out once, as a record or as rejected, in its order."""
    data = HEADER + "".join(",".join(row) + "\n" for row in table)
    assert [each.line for each in records(data)] == list(range(2, len(table) + 2))


@settings(max_examples=100)
@given(
    st.one_of(st.binary(max_size=200), st.text('email,name;"\n\r\x00\u00e9x', max_size=60).map(str.encode))
)
def test_any_bytes(data: bytes) -> None:
    """Whatever the bytes, reading ends in records or in one clear refusal."""
    try:
        sheet = read(pieces(data, 7), is_header=is_header)
    except WrongUse:
        return
    lines = [each.line for each in sheet.records]
    assert lines == sorted(set(lines))
