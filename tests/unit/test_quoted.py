"""Quoted-printable pieces: joined, they read back as the joined text; on the wire they are safe anywhere."""

import email
import quopri

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from worker.content import quoted
from worker.post.parcels import Wire

pieces = st.lists(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=120) | st.text(" \t.=\nFrom é", max_size=160)
)


@settings(max_examples=300)
@given(pieces)
@example(["x" * 76, "\n"])
@example(["x" * 75 + ".", ".\n.", "From ", "From here " * 20])
@example(["x ", "\n", " ", "\t\n"])
@example(["é" * 40])
def test_pieces_join(texts: list[str]) -> None:
    """Each piece is encoded alone; the join decodes to the joined text; lines fit the wire."""
    encoded = [quoted.encode(text, last=number == len(texts)) for number, text in enumerate(texts, 1)]
    assert all(Wire.proved(bytes(piece)) == piece for piece in encoded)
    body = Wire.joined(encoded)
    expected = "".join(texts).replace("\n", "\r\n").encode()
    assert quopri.decodestring(body) == expected
    parsed = email.message_from_bytes(b"Content-Transfer-Encoding: quoted-printable\r\n\r\n" + body)
    assert parsed.get_payload(decode=True) == expected
    assert body.isascii()
    for line in body.split(b"\r\n"):
        assert len(line) <= 76
        assert not line.startswith((b".", b"From "))
        assert b"\r" not in line
        assert b"\n" not in line


@pytest.mark.parametrize(
    ("text", "wire"),
    [
        ("", b""),
        ("Dear friend\n", b"Dear friend\r\n"),
        ("Dear ", b"Dear =\r\n"),
        ("a \nb\t\n", b"a=20\r\nb=09\r\n"),
        (".\n..x\n", b"=2E\r\n=2E.x\r\n"),
        ("From us\nFromage\n", b"=46rom us\r\nFromage\r\n"),
        ("é=\r", b"=C3=A9=3D=0D=\r\n"),
    ],
)
def test_piece(text: str, wire: bytes) -> None:
    """A piece ends with a line end, hard where the text has one and soft where it has none."""
    assert quoted.encode(text) == wire


def test_last_piece_ends_without_a_soft_break() -> None:
    """The end of a body is no soft break, and keeps its white space (RFC 2045 section 6.7 rule 3)."""
    assert quoted.encode("so long", last=True) == b"so long"
    assert quoted.encode("so long ", last=True) == b"so long=20"
