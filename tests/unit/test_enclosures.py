"""Enclosures: what a mail carries beside its text is where every mail program looks for it."""

import base64
import email
import email.policy
import os
import re
from email.message import EmailMessage

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.content.additions import attachment_faults, header_faults
from worker.content.enclosures import Attachment, Enclosures, attachment
from worker.content.pictures import Picture

_SHARED = "=_part"


def _picture(data: bytes) -> Picture:
    return Picture("image/png", 1, 1, (1, 1), (1, 1), base64.b64encode(data).decode())


def _mail(enclosures: Enclosures) -> bytes:
    """A mail as the composer puts it together."""
    return (
        "MIME-Version: 1.0\r\n"
        + enclosures.opening(_SHARED)
        + f"--{_SHARED}\r\nContent-Type: text/plain\r\n\r\nText.\r\n--{_SHARED}\r\n"
        + f"{enclosures.before_html}Content-Type: text/html\r\n\r\n<p>Page.</p>{enclosures.after_html}"
        + f"\r\n--{_SHARED}--\r\n{enclosures.closing}"
    ).encode("ascii")


def _read(raw: bytes) -> EmailMessage:
    return email.message_from_bytes(raw, policy=email.policy.default)


def _shape(part: EmailMessage) -> object:
    inner = [_shape(each) for each in part.iter_parts()] if part.is_multipart() else None
    return (part.get_content_type(), inner) if inner else part.get_content_type()


def _expected(pictures: int, attachments: int) -> object:
    page: object = "text/html"
    if pictures:
        page = ("multipart/related", ["text/html", *["image/png"] * pictures])
    whole: object = ("multipart/alternative", ["text/plain", page])
    return ("multipart/mixed", [whole, *["application/pdf"] * attachments]) if attachments else whole


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.binary(min_size=1, max_size=200), max_size=3),
    st.lists(st.binary(min_size=1, max_size=200), max_size=3),
)
def test_a_parser_finds_everything(shown: list[bytes], enclosed: list[bytes]) -> None:
    """Whatever the files hold, each comes out byte for byte, in its place, and no line is over 998 octets."""
    raw = _mail(
        Enclosures(
            [(f"p{number}@mail", _picture(data)) for number, data in enumerate(shown)],
            [Attachment("a.pdf", "application/pdf", base64.b64encode(data).decode()) for data in enclosed],
        )
    )
    message = _read(raw)
    assert not [part.defects for part in message.walk() if part.defects]
    assert _shape(message) == _expected(len(shown), len(enclosed))
    leaves = [part for part in message.walk() if part.get_content_maintype() in {"image", "application"}]
    assert [part.get_content() for part in leaves] == [*shown, *enclosed]
    assert [part["Content-ID"] for part in leaves[: len(shown)]] == [
        f"<p{n}@mail>" for n in range(len(shown))
    ]
    assert not re.search(rb"(?<!\r)\n|\r(?!\n)", raw)


NAMES = [
    "leaflet.pdf",
    "Zeit für uns.pdf",
    "Отчёт.pdf",
    "تقرير.pdf",
    f"{chr(0x1F6A8) * 90}.pdf",
    "\u0430" * 96 + ".pdf",
]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_names_survive(name: str) -> None:
    """A name in any script is read as it was written, on lines that a relay takes (RFC 2231)."""
    assert not list(attachment_faults(f"attachments/{name}"))
    raw = _mail(Enclosures(attachments=[attachment(f"attachments/{name}", os.fsencode("x"))]))
    assert [part.get_filename() for part in _read(raw).iter_attachments()] == [name]
    assert max(map(len, raw.split(b"\r\n"))) <= 78


@pytest.mark.parametrize(
    "name",
    [
        *("../leaflet.pdf", "a/b.pdf", ".pdf", "", "a\r\nBcc: b@example.org.pdf", "a\x00.pdf", 'a".pdf'),
        *("a\\b.pdf", "invoice\u202efdp.exe", "x.pdf.exe", "run.js", "macro.docm", "page.html", "no-ending"),
    ],
)
def test_dangerous_names_are_refused(name: str) -> None:
    """No path, no control, no direction that turns a name round, and nothing that a system would run."""
    assert list(attachment_faults(f"attachments/{name}"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[
            (name, "x")
            for name in (
                *("From", "to", "BCC", "Message-ID", "List-Unsubscribe", "DKIM-Signature", "Content-Type"),
                *("X-Mailer", "User-Agent", "Return-Receipt-To", "Disposition-Notification-To", "Received"),
                *("X-A:", "X A", "X-Ä", "X\r\nBcc", "", "-X", "X" * 61),
            )
        ],
        ("X-Topic", " "),
    ],
)
def test_header_fields_are_refused(name: str, value: str) -> None:
    """An appeal names no field that machines act on, none that tells the software, none that is no name."""
    assert list(header_faults(name, value))


def test_a_field_of_its_own_is_allowed() -> None:
    """A field that nobody acts on may stand in an appeal."""
    assert not list(header_faults("X-Topic", "Prisons"))
