"""Decoding: which encoding a file is in, and that text of another one is noticed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.errors import WrongUse
from worker.tables.decoding import detect

LINES = "email,name\nanna@example.org,José Müller\nben@example.org,Zoë\n"


@pytest.mark.parametrize(
    ("encoding", "codec"),
    [
        ("ascii", "utf-8"),
        ("utf-8", "utf-8"),
        ("utf-8-sig", "utf-8"),
        ("utf-16", "utf-16"),
        ("utf-16-le", "utf-16-le"),
        ("utf-16-be", "utf-16-be"),
        ("utf-32", "utf-32"),
        ("cp1252", "cp1252"),
        ("latin-1", "cp1252"),
    ],
)
def test_detects(encoding: str, codec: str) -> None:
    """UTF-8 and UTF-16 are known with and without a mark, and Western text falls back to Windows-1252."""
    assert detect(LINES.encode(encoding, "ignore"), None).codec == codec


def test_cyrillic_utf16_without_mark() -> None:
    """UTF-16 is told from the ASCII of its addresses, even when the names have no zero byte."""
    assert detect("адрес,имя\nanna@example.org,Анна\n".encode("utf-16-le"), None).codec == "utf-16-le"


@pytest.mark.parametrize(
    ("encoding", "name"),
    [
        ("cp1251", "Анна Иванова"),
        ("koi8-r", "Анна Иванова"),
        ("iso8859-7", "Δοκιμή"),
        ("mac-roman", "José"),
        ("cp1250", "Paweł"),
    ],
)
def test_refuses_to_guess(encoding: str, name: str) -> None:
    """Eight-bit text that does not read as Western is refused as a whole, not imported as mojibake."""
    with pytest.raises(WrongUse, match="encoding cannot be told"):
        detect(f"email,name\nanna@example.org,{name}\n".encode(encoding), None)


def test_named() -> None:
    """The operator's word decides, under any name that the codec has."""
    encoding = detect("анна".encode("cp1251"), "windows-1251")
    assert (encoding.codec, encoding.assumed) == ("cp1251", False)


@pytest.mark.parametrize("name", ["klingon", "base64", "rot13", "../../x", "utf-8\x00"])
def test_unknown_name(name: str) -> None:
    """A name that is no text encoding is refused."""
    with pytest.raises(WrongUse, match="no such text encoding"):
        detect(b"email\n", name)


@pytest.mark.parametrize(
    ("head", "what"),
    [
        (b"PK\x03\x04\x14\x00", "workbook"),
        (b"PK\x05\x06" + bytes(18), "zip"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "xls"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"%PDF-1.7", "PDF"),
        (b"SQLite format 3\x00", "database"),
        (b"{\\rtf1", "word processor"),
        (b"", "empty"),
        (b" \r\n\t\n", "empty"),
    ],
)
def test_not_text(head: bytes, what: str) -> None:
    """Another kind of file is named for what it is, with a remedy."""
    with pytest.raises(WrongUse, match=what) as caught:
        detect(head, None)
    assert caught.value.remedy


def test_one_bad_byte_in_utf8() -> None:
    """One damaged byte does not turn a UTF-8 file into Windows-1252, with every other name mojibake."""
    encoding = detect(LINES.encode() + b"\xff\n", None)
    assert encoding.codec == "utf-8"


@pytest.mark.parametrize(
    "line", ["JosÃ©", "Jos\x8e".encode("latin-1").decode("cp1252"), "Àííà", "Pawe³", "\ufffd"]
)
def test_damaged(line: str) -> None:
    """In a file taken for Windows-1252, a line that reads like another encoding is damaged."""
    assert detect("Zoë".encode("cp1252"), None).damaged(line)


@pytest.mark.parametrize(
    "line",
    [
        "José",
        "Müller-Lüdenscheid",
        "Þórður Æsir",
        "\u201cZoë\u201d \u2013 l\u2019été",
        "Šárka",
        "nº 1",
        "¿Qué?",
        "€5",
    ],
)
def test_western_text_is_whole(line: str) -> None:
    """Real Western text is not taken for damaged."""
    assert not detect("Zoë".encode("cp1252"), None).damaged(line)


@given(st.binary(max_size=200))
def test_any_bytes(head: bytes) -> None:
    """Whatever the bytes, they get an encoding that decodes them, or one clear refusal."""
    try:
        encoding = detect(head, None)
    except WrongUse:
        return
    head.decode(encoding.codec, "replace")
