"""Header fields by hand: encoded words of whole characters, lines that fit, nothing machine-read encoded."""

import re
from email.header import decode_header
from email.utils import getaddresses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.content import headers
from worker.content.headers import UnfitHeader

WORD = re.compile(r"=\?utf-8\?[qb]\?[!->@-~]+\?=")
#: What one line may hold: no controls, no line ends, no lone surrogates; spaces are single.
lines = st.text(
    st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1, max_size=200
).map(lambda text: re.sub("  +", " ", text).strip(" "))  # fmt: skip


def words(field: str) -> list[str]:
    """The encoded words of a field, each decoded on its own (RFC 2047 section 5: no character is split)."""
    found = WORD.findall(field)
    assert all(len(word) <= 75 for word in found)
    return [data.decode("utf-8") for word in found for data, _ in decode_header(word)]


def check_lines(field: str) -> None:
    """Check what RFC 5322 and RFC 2047 say about lines."""
    assert field.isascii()
    for line in field.split("\r\n"):
        assert len(line) <= (76 if "=?" in line else 78)
        assert line.strip()


@given(lines)
def test_text(value: str) -> None:
    """Free text comes back whole, from plain words or from encoded ones."""
    field = headers.text("Subject", value)
    if value:
        check_lines(field)
    if "=?" in field:
        assert "".join(words(field)) == value
    else:
        assert field.replace("\r\n", "") == f"Subject: {value}"


@given(lines)
def test_mailbox(name: str) -> None:
    """A display name comes back whole, and its address is the one address in the field."""
    field = headers.mailbox("To", name, "anna@example.com")
    check_lines(field)
    [(shown, address)] = getaddresses([field.removeprefix("To: ").replace("\r\n", "")])
    assert address == "anna@example.com"
    assert ("".join(words(field)) if "=?" in field else shown) == name


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("", "To: a@example.org"),
        ("Anna Berg", "To: Anna Berg <a@example.org>"),
        ("O'Neil", "To: O'Neil <a@example.org>"),
        ("Berg, Anna", 'To: "Berg, Anna" <a@example.org>'),
        ("Dr. Berg", 'To: "Dr. Berg" <a@example.org>'),
        ('Anna "Nan" B\\', 'To: "Anna \\"Nan\\" B\\\\" <a@example.org>'),
        ("=?utf-8?q?x?=", "To: =?utf-8?q?=3D=3Futf-8=3Fq=3Fx=3F=3D?= <a@example.org>"),
        ("Zoë", "To: =?utf-8?q?Zo=C3=AB?= <a@example.org>"),
        ("Анна", "To: =?utf-8?b?0JDQvdC90LA=?= <a@example.org>"),
        (" Anna   Berg ", "To: Anna Berg <a@example.org>"),
    ],
)
def test_names(name: str, shown: str) -> None:
    """A name is written the plainest way that keeps it whole; no encoded word stands inside quotes (H4)."""
    assert headers.mailbox("To", name, "a@example.org") == shown


def test_long_ascii_subject_folds_between_words() -> None:
    """Plain text folds where it has spaces, and not elsewhere."""
    field = headers.text("Subject", "one two three four " * 8)
    check_lines(field)
    assert "=?" not in field
    assert field.replace("\r\n", "") == "Subject: " + ("one two three four " * 8).strip()


@pytest.mark.parametrize("value", ["", "a b", "<a>", "é", "a\r\nb", "=?utf-8?q?x?="])
def test_token(value: str) -> None:
    """What machines read is ASCII in one word, and no encoded word."""
    with pytest.raises(UnfitHeader):
        headers.token("Message-ID", value)
    assert headers.token("Message-ID", "a+b@example.org") == "a+b@example.org"
