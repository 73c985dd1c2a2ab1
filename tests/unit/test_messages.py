"""Messages: correct bytes for anybody, whatever their name, and one-click that works."""

import email
import re
from collections.abc import Sequence
from dataclasses import replace
from email import policy
from email.header import decode_header, make_header
from email.utils import getaddresses
from random import Random
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.addresses import parse
from worker.content import quoted
from worker.content.headers import UnfitHeader
from worker.content.messages import Composer, Envelope, Identity
from worker.content.rendering import Content
from worker.content.weaving import LineWeaver
from worker.post.parcels import Wire

if TYPE_CHECKING:
    from email.message import Message

IDENTITY = Identity(
    from_address="appeals@example.org",
    reply_to="office@example.org",
    domain="mail.example.org",
    bounce_domain="bounce.example.org",
    opt_out_domain="stop.example.org",
    list_id="appeals.example.org",
    feedback_id="example-org",
    list_phrase="Example Equality, Appeals",
)
CONTENT = Content(
    language="en",
    subject="An appeal",
    sender_name="Example Equality",
    html=quoted.encode("<!DOCTYPE html>\n<p>é = 1</p>\n.\nFrom us\n", last=True),
    text=quoted.encode("Dear friend,\n\né = 1\n", last=True),
)
ENVELOPE = Envelope(
    recipient=parse("anna@example.com"),
    name="Anna",
    message_mark="m234567",
    bounce_mark="b234567",
    opt_out_mark="o234567",
    opt_out_url="https://act.example.org/o/o234567",
)
DATE = "Mon, 23 Nov 2026 09:00:00 -0000"
COMPOSER = Composer(IDENTITY, "c7")
ALWAYS = (
    *("Date", "From", "To", "Reply-To", "Subject", "Message-ID", "MIME-Version", "Content-Type"),
    "Feedback-ID",
)
#: Of a campaign's mail.
ONCE = [*ALWAYS, "List-Unsubscribe", "List-Unsubscribe-Post", "List-Id", "Precedence"]


def named(name: str) -> bytes:
    """Compose the mail of somebody called so."""
    return COMPOSER.compose(CONTENT, replace(ENVELOPE, name=name), DATE)


def fields(mail: bytes, needed: Sequence[str] = ONCE) -> dict[str, str]:
    """The raw header fields, unfolded, after checking that each stands there once and every line's length."""
    assert isinstance(mail, Wire)
    assert Wire.proved(bytes(mail)) == mail
    head = mail.partition(b"\r\n\r\n")[0].decode("ascii")
    for line in head.split("\r\n"):
        assert len(line) <= 998
        assert "=?" not in line or len(line) <= 76
        assert re.fullmatch(r"[!-~][ -~]*| [ -~]*[!-~][ -~]*", line)
    unfolded = [line.split(": ", 1) for line in head.replace("\r\n ", " ").split("\r\n")]
    names = [name for name, _ in unfolded]
    assert len(names) == len(set(names))
    assert set(needed) <= set(names)
    return dict(cast("list[tuple[str, str]]", unfolded))


def hostile_names() -> list[str]:
    """A thousand names as an import lets them through: cleaned of line ends and controls only."""
    dice = Random(7)  # noqa: S311 - the same thousand every time
    scraps = [
        *(
            "Anna",
            "O'Neil",
            "de la",
            "Müller",
            "Анна",
            "محمد",
            "日本太郎",
            "👩‍👩‍👧",
            "{{7*7}}",
            "{% x %}",
            "Zoë",
        ),
        *(
            ",",
            ";",
            ":",
            '"',
            "'",
            "\\",
            "<",
            ">",
            "(",
            ")",
            "[",
            "]",
            "@",
            ".",
            "=?utf-8?q?x?=",
            "=",
            "?",
            "_",
        ),
        *(
            "b@example.net",
            "<b@example.net>",
            "Bcc: b@example.net",
            "\r\nBcc: b@example.net",
            "\x00",
            "\u2028",
        ),
        *(
            "x" * 90,
            "é" * 80,
            "Royal National Institute of Fundraising and Others, ",
            "  ",
            "\t",
            "%0d%0a",
            "­",
        ),
    ]
    names = [*scraps, '"', "\\", '\\"', ", ", "<>", '"a" <b@c>', "a\\", "=?=", "", "🏳️‍🌈" * 30]
    while len(names) < 1000:
        glue = dice.choice(["", " "])
        names.append(glue.join(dice.choices(scraps, k=dice.randint(1, 9))))
    line = LineWeaver("{{ name }}")
    return [line.weave({"name": name}) for name in names]


def same(shown: str, name: str, raw: str) -> bool:
    """Compare names; this parser keeps the space between encoded words, which RFC 2047 section 6.2 drops."""
    return shown == name or (raw.count("=?") > 1 and shown.replace(" ", "") == name.replace(" ", ""))


def test_thousand_hostile_names() -> None:
    """Whatever a person is called, To is exactly that person at that address, for two independent readers."""
    names = hostile_names()
    assert len(names) == 1000
    for name in names:
        mail = named(name)
        raw = fields(mail)["To"]
        assert "Bcc" not in fields(mail)
        old: Message = email.message_from_bytes(mail)
        [(shown, address)] = getaddresses([old["To"]])
        assert address == "anna@example.com"
        assert str(make_header(decode_header(shown))) == name
        new = email.message_from_bytes(mail, policy=policy.default)
        [person] = new["To"].addresses
        assert person.addr_spec == "anna@example.com"
        assert same(person.display_name, name, raw)
        assert not new["To"].defects


@settings(max_examples=300, deadline=None)
@given(st.text(), st.text())
def test_any_name_and_subject(name: str, subject: str) -> None:
    """Any text that fits on a line survives as name and subject; anything else is refused, not sent."""
    one_line = LineWeaver("{{ x }}")
    name, subject = one_line.weave({"x": name}), one_line.weave({"x": subject})
    mail = COMPOSER.compose(replace(CONTENT, subject=subject), replace(ENVELOPE, name=name), DATE)
    fields(mail)
    read = email.message_from_bytes(mail)
    assert str(make_header(decode_header(read["Subject"]))) == subject
    [(shown, address)] = getaddresses([read["To"]])
    assert (str(make_header(decode_header(shown))), address) == (name, "anna@example.com")


@pytest.mark.parametrize(
    "bad", ["a\r\nBcc: b@example.net", "a\nb", "a\rb", "a\x00b", "a\x1fb", "a\x7fb", "a\u2028b"]
)
@pytest.mark.parametrize("where", ["name", "subject", "sender_name"])
def test_controls_are_refused(bad: str, where: str) -> None:
    """A line end or control in a value stops the mail, and the error does not repeat the value (H13)."""
    envelope = replace(ENVELOPE, name=bad) if where == "name" else ENVELOPE
    content = CONTENT if where == "name" else replace(CONTENT, **{where: bad})  # type: ignore[arg-type]  # both are texts
    with pytest.raises(UnfitHeader) as caught:
        COMPOSER.compose(content, envelope, DATE)
    assert bad not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        *(
            {"opt_out_url": url}
            for url in ("http://example.org/o/x", "https://example.org/o/ x", "https://é.org/")
        ),
        *(
            {"opt_out_url": url}
            for url in ("https://x.org/a>,<b", "https://x.org/a,b", "javascript:x", "", "https://")
        ),
        *({"message_mark": mark} for mark in ("", "a@b", "a\r\nb", "é", "a>")),
        {"opt_out_mark": "a@b"},
    ],
)
def test_wrong_marks_and_links_are_refused(change: dict[str, str]) -> None:
    """A link that is not one plain https URI, or a mark that is none, stops the mail."""
    with pytest.raises(UnfitHeader):
        COMPOSER.compose(CONTENT, replace(ENVELOPE, **change), DATE)  # type: ignore[arg-type]  # all are strings
    with pytest.raises(UnfitHeader):
        COMPOSER.compose(CONTENT, ENVELOPE, "today\r\nBcc: b@example.net, etc.")


@pytest.mark.parametrize(
    "name", ["from_address", "reply_to", "domain", "list_id", "feedback_id", "opt_out_domain"]
)
@pytest.mark.parametrize("bad", ["", "a b", "a\r\nb", "é.org", "<a>"])
def test_wrong_identity_is_refused(name: str, bad: str) -> None:
    """Names under which we mail are plain ASCII, or no mail is made."""
    with pytest.raises(UnfitHeader):
        Composer(replace(IDENTITY, **{name: bad}), "c7")


def test_whole_message() -> None:
    """The bytes of a mail, to the letter: this is what relays and receivers get."""
    assert COMPOSER.compose(CONTENT, ENVELOPE, DATE).decode("ascii").split("\r\n") == [
        "Date: Mon, 23 Nov 2026 09:00:00 -0000",
        "From: Example Equality <appeals@example.org>",
        "To: Anna <anna@example.com>",
        "Reply-To: office@example.org",
        "Subject: An appeal",
        "Message-ID: <m234567@mail.example.org>",
        "List-Unsubscribe: <https://act.example.org/o/o234567>,",
        " <mailto:unsub+o234567@stop.example.org>",
        "List-Unsubscribe-Post: List-Unsubscribe=One-Click",
        'List-Id: "Example Equality, Appeals" <appeals.example.org>',
        "Feedback-ID: c7:example-org",
        "Precedence: bulk",
        "X-Auto-Response-Suppress: OOF, AutoReply",
        "MIME-Version: 1.0",
        'Content-Type: multipart/alternative; boundary="=_part"',
        "",
        "--=_part",
        "Content-Type: text/plain; charset=utf-8",
        "Content-Transfer-Encoding: quoted-printable",
        "",
        "Dear friend,",
        "",
        "=C3=A9 =3D 1",
        "",
        "--=_part",
        "Content-Type: text/html; charset=utf-8",
        "Content-Transfer-Encoding: quoted-printable",
        "",
        "<!DOCTYPE html>",
        "<p>=C3=A9 =3D 1</p>",
        "=2E",
        "=46rom us",
        "",
        "--=_part--",
        "",
    ]


def test_parts_read_back() -> None:
    """A reader finds the text first and the HTML last, letter for letter (B1, B2)."""
    mail = email.message_from_bytes(named("Anna"), policy=policy.default)
    text, html = (part for part in mail.walk() if not part.is_multipart())
    assert mail.get_content_type() == "multipart/alternative"
    assert text.get_content_type() == "text/plain"
    assert text.get_content().replace("\r\n", "\n") == "Dear friend,\n\né = 1\n"
    assert html.get_content().replace("\r\n", "\n") == "<!DOCTYPE html>\n<p>é = 1</p>\n.\nFrom us\n"
    assert not mail.defects
    assert not text.defects
    assert not html.defects


def test_no_encoded_word_where_machines_read() -> None:
    """A long opt-out link stays whole in its brackets; encoded, it would kill one-click in silence (H6)."""
    for length in (10, 50, 78, 100, 300, 800):
        url = "https://act.example.org/o/" + "k" * length
        mail = COMPOSER.compose(CONTENT, replace(ENVELOPE, opt_out_url=url, name="Анна " * 30), DATE)
        read = fields(mail)
        assert read["List-Unsubscribe"] == f"<{url}>, <mailto:unsub+o234567@stop.example.org>"
        assert read["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
        for name in ("List-Unsubscribe", "List-Unsubscribe-Post", "List-Id", "Message-ID", "Feedback-ID"):
            assert "=?" not in read[name]


@pytest.mark.parametrize(
    ("phrase", "field"),
    [
        ("", "<appeals.example.org>"),
        ("Appeals", "Appeals <appeals.example.org>"),
        ("Призывы", "<appeals.example.org>"),
        ("x" * 70, "<appeals.example.org>"),
        ("=?x?=", "<appeals.example.org>"),
    ],
)
def test_list_id(phrase: str, field: str) -> None:
    """List-Id is the same for all and never encoded; a phrase that would need that is left out (H10)."""
    mail = Composer(replace(IDENTITY, list_phrase=phrase), "c7").compose(CONTENT, ENVELOPE, DATE)
    assert fields(mail)["List-Id"] == field


def test_nothing_names_software_or_person() -> None:
    """No header names the software, and none but To names the person."""
    mail = named("Anna Beispiel").decode("ascii")
    head = mail.partition("\r\n\r\n")[0]
    assert not re.search("tocsin|worker|python|celery|mailer|user-agent", head, re.IGNORECASE)
    rest = [line for line in head.split("\r\n") if not line.startswith("To:")]
    assert not any(re.search("anna|beispiel|example.com", line, re.IGNORECASE) for line in rest)


def test_retry_is_the_same_mail() -> None:
    """Composing again gives the same bytes, so that a receiver can fold two copies (H2)."""
    assert named("Anna") == named("Anna")


def test_return_path() -> None:
    """Bounces come back to an address of this one delivery; a mark that is none makes no address (S20)."""
    assert COMPOSER.return_path(ENVELOPE) == "b+b234567@bounce.example.org"
    with pytest.raises(UnfitHeader):
        COMPOSER.return_path(replace(ENVELOPE, bounce_mark="a>b"))


def test_international_address() -> None:
    """Only an address that needs SMTPUTF8 puts anything but ASCII into a header (H5)."""
    utf8 = COMPOSER.compose(
        CONTENT, replace(ENVELOPE, recipient=parse("дарья@пример.рф"), name="Дарья"), DATE
    )
    assert "<дарья@xn--e1afmkfd.xn--p1ai>" in utf8.decode()
    assert not isinstance(utf8, Wire)
    plain = COMPOSER.compose(CONTENT, replace(ENVELOPE, recipient=parse("d@пример.рф"), name="Дарья"), DATE)
    assert plain.isascii()


def test_long_address_and_sender() -> None:
    """Long addresses and sender names fold, and are still one mailbox."""
    spec = "a" * 64 + "@" + ".".join(["b" * 60] * 3) + ".org"
    content = replace(CONTENT, sender_name="Example Equality, " * 9)
    mail = COMPOSER.compose(content, replace(ENVELOPE, recipient=parse(spec), name="x" * 40), DATE)
    fields(mail)
    read = email.message_from_bytes(mail, policy=policy.default)
    assert [a.addr_spec for a in read["To"].addresses] == [spec]
    [sender] = read["From"].addresses
    assert same(sender.display_name, ("Example Equality, " * 9).strip(), fields(mail)["From"])


def test_envelope_hides_the_person() -> None:
    """An envelope in a log line shows neither name nor address nor link."""
    shown = repr(replace(ENVELOPE, name="Anna Beispiel"))
    assert "Beispiel" not in shown
    assert "example" not in shown


def test_a_mail_that_was_asked_for_is_a_programs_and_of_no_list() -> None:
    """It says who made it (RFC 3834 5), and no mailbox can opt out by it; all else is as in any mail."""
    mail = fields(Composer(IDENTITY, "n0", asked_for=True).compose(CONTENT, ENVELOPE, DATE), ALWAYS)
    usual = fields(COMPOSER.compose(CONTENT, ENVELOPE, DATE))
    assert set(mail) - set(usual) == {"Auto-Submitted"}
    assert set(usual) - set(mail) == {"List-Unsubscribe", "List-Unsubscribe-Post", "List-Id", "Precedence"}
    assert mail["Auto-Submitted"] == "auto-generated"
    changed = {name for name in mail.keys() & usual.keys() if mail[name] != usual[name]}
    assert changed == {"Feedback-ID"}
