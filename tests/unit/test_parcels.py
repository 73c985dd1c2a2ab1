"""What may be carried, and the bytes that carry it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.post.parcels import (
    Lost,
    Offer,
    Parcel,
    Wire,
    envelope,
    speakable,
    stuff,
    verdict,
    well_formed,
    xtext,
)
from worker.post.replies import Reply, Trouble

#: Several people share the machine: no test fails for being slow.
CALM = settings(deadline=None)

ALL = Offer(pipelining=True, size=100_000, dsn=True, smtputf8=True, eightbit=True)
FROM = "MAIL FROM:<b+mark@bounces.example.org>"
MAIL = b"Subject: x\r\n\r\nHello.\r\n"


def parcel(**changed: object) -> Parcel:
    """Make an ordinary parcel, changed as told."""
    values: dict[str, object] = {
        "id": 7,
        "sender": "b+mark@bounces.example.org",
        "recipient": "zoe@example.com",
        "data": MAIL,
        "envid": "e7",
    }
    return Parcel(**{**values, **changed})  # type: ignore[arg-type]  # a table of changes has no types


def test_repr_hides_people() -> None:
    """Neither address nor content of a parcel shows in a log."""
    assert repr(parcel()) == "Parcel(id=7, smtputf8=False)"


@pytest.mark.parametrize(
    ("offer", "changed", "mail", "rcpt"),
    [
        (Offer(), {}, FROM, "RCPT TO:<zoe@example.com>"),
        (
            Offer(size=1000, dsn=True),
            {},
            f"{FROM} SIZE={len(MAIL)} RET=HDRS ENVID=e7",
            "RCPT TO:<zoe@example.com> NOTIFY=FAILURE,DELAY ORCPT=rfc822;zoe@example.com",
        ),
        (
            Offer(dsn=True),
            {"envid": "", "recipient": "a+b=c@example.com"},
            f"{FROM} RET=HDRS",
            "RCPT TO:<a+b=c@example.com> NOTIFY=FAILURE,DELAY ORCPT=rfc822;a+2Bb+3Dc@example.com",
        ),
        (
            ALL,
            {"recipient": "δ@example.com", "smtputf8": True},
            f"{FROM} SIZE={len(MAIL)} BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=e7",
            "RCPT TO:<δ@example.com> NOTIFY=FAILURE,DELAY",
        ),
    ],
)
def test_envelope(offer: Offer, changed: dict[str, object], mail: str, rcpt: str) -> None:
    """Parameters appear only where the server offers them and the parcel needs them."""
    assert envelope(parcel(**changed), offer) == (f"{mail}\r\n".encode(), f"{rcpt}\r\n".encode(), b"DATA\r\n")


@pytest.mark.parametrize(
    "address",
    [
        "",
        "a",
        "@b",
        "a@",
        "a b@example.org",
        "a@example.org\r\nRCPT TO:<x@example.org>",
        "a@example.org\n",
        "a>@example.org",
        "<a@example.org",
        "a\0@example.org",
        "a\u0085@example.org",
        "a\u2028@example.org",
        "a\ud800@example.org",
        '"john doe"@example.org',
        "a@example.org,b@example.com",
        "a,b@example.org",
        "a@example.org;b@example.com",
        "a@example.org@example.com",
        "@example.com:a@example.org",
        "a" * 65 + "@example.org",
        "a@" + "b" * 254,
    ],
)
def test_unspeakable(address: str) -> None:
    """No address can end its command, begin another, overrun it, or be two people's."""
    assert not speakable(address)
    judged = verdict(parcel(recipient=address), ALL)
    assert isinstance(judged, Reply)
    assert (judged.code, judged.status) == (553, "5.1.3")
    judged = verdict(parcel(sender=address, smtputf8=True), ALL)
    assert judged == Lost(begun=False, reason="malformed", trouble=Trouble.SENDER)


@CALM
@given(st.text(min_size=1, max_size=20), st.text(min_size=1, max_size=20))
def test_no_injection(local: str, domain: str) -> None:
    """Whatever is let through stands on one line, whole, between its brackets."""
    address = f"{local}@{domain}"
    changed = parcel(recipient=address, smtputf8=not address.isascii())
    if verdict(changed, ALL) is None:
        _, rcpt, _ = envelope(changed, ALL)
        assert rcpt.startswith(f"RCPT TO:<{address}> ".encode())
        assert rcpt.count(b"\r") == rcpt.count(b"\n") == 1
        assert rcpt.count(b">") == 1
        assert rcpt.endswith(b"\r\n")


@pytest.mark.parametrize(
    ("offer", "changed", "code", "status"),
    [
        (Offer(), {"recipient": "δ@example.com", "smtputf8": True}, 550, "5.6.7"),
        (Offer(), {"recipient": "δ@example.com"}, 550, "5.6.7"),
        (Offer(size=10), {}, 552, "5.3.4"),
    ],
)
def test_local_refusals(offer: Offer, changed: dict[str, object], code: int, status: str) -> None:
    """What this server cannot take is refused here, for that one recipient."""
    judged = verdict(parcel(**changed), offer)
    assert isinstance(judged, Reply)
    assert (judged.code, judged.status) == (code, status)


@pytest.mark.parametrize(
    "data",
    [
        b"a\r\n.\nb\r\n",
        b"a\r\n.\rb\r\n",
        b"a\n.\r\n",
        b"a\n",
        b"a\r",
        b"a\r\n\r",
        b"\na\r\n",
        b"a\r\r\n",
        b"no end of line",
        b"",
        b"a\0\r\n",
        "ä\r\n".encode(),
    ],
)
def test_malformed_mail(data: bytes) -> None:
    """A bare CR or LF, NUL, or 8-bit octet never leaves, and it is our fault, not the recipient's."""
    assert not well_formed(data, utf8=False)
    assert verdict(parcel(data=data), ALL) == Lost(begun=False, reason="malformed", trouble=Trouble.SENDER)


@CALM
@given(st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"a", b".", b" "]), max_size=12).map(b"".join))
def test_line_ends_law(data: bytes) -> None:
    """Well formed means exactly: some line end, and none but CRLF."""
    rest = data.replace(b"\r\n", b"")
    assert well_formed(data, utf8=False) == (b"\r\n" in data and b"\r" not in rest and b"\n" not in rest)


def test_utf8_mail() -> None:
    """Headers in UTF-8 go only with SMTPUTF8, and only if they are UTF-8."""
    data = "To: δ@example.com\r\n\r\n".encode()
    assert well_formed(data, utf8=True)
    assert not well_formed(b"\xff\r\n", utf8=True)


@CALM
@given(st.lists(st.sampled_from([b".", b"..", b"a", b"", b".a", b"a."]), min_size=1, max_size=8))
def test_stuffing_law(lines: list[bytes]) -> None:
    """No line of what leaves is a lone dot, and taking one leading dot off each gives the message back."""
    for data in (b"\r\n".join(lines) + b"\r\n", b"\r\n".join(lines)):
        sent = stuff(data)
        assert sent.endswith(b"\r\n")
        sent_lines = sent[:-2].split(b"\r\n")
        assert b"." not in sent_lines
        back = b"".join((line[1:] if line.startswith(b".") else line) + b"\r\n" for line in sent_lines)
        assert back == (data if data.endswith(b"\r\n") else data + b"\r\n")


SCRAPS = st.lists(
    st.sampled_from([b"\r", b"\n", b"\r\n", b"a", b".", b" ", b"\0", b"\xc3\xa9"]), max_size=6
).map(b"".join)


@CALM
@given(st.lists(SCRAPS, max_size=5))
def test_proof_law(scraps: list[bytes]) -> None:
    """Whatever proved pieces are joined, the relay would have found nothing in it, and nothing to double."""
    pieces = [piece for piece in map(Wire.proved, scraps) if piece is not None]
    whole = Wire.joined(pieces)
    assert Wire.proved(bytes(whole)) == whole
    sent = stuff(whole)
    assert sent == stuff(bytes(whole))
    assert well_formed(sent, utf8=False)
    assert verdict(parcel(data=whole), ALL) is None


@CALM
@given(SCRAPS)
def test_no_false_proof(data: bytes) -> None:
    """What a line end, a dot or an octet makes unfit has no proof."""
    rest = data.replace(b"\r\n", b"")
    dots = any(line.startswith(b".") for line in data.split(b"\r\n"))
    unfit = dots or b"\r" in rest or b"\n" in rest or b"\0" in rest or not rest.isascii()
    assert (Wire.proved(data) is None) == unfit


@CALM
@given(st.text(st.characters(min_codepoint=0, max_codepoint=127), max_size=30))
def test_xtext_law(text: str) -> None:
    """Encoded text is printable without = and decodes to itself."""
    encoded = xtext(text)
    assert encoded.isascii()
    assert all("!" <= letter <= "~" for letter in encoded)
    assert "=" not in encoded
    head, *rest = encoded.split("+")
    assert head + "".join(chr(int(part[:2], 16)) + part[2:] for part in rest) == text


@pytest.mark.parametrize("envid", ["é", "a" * 101, "+" * 40])
def test_envelope_id(envid: str) -> None:
    """An envelope id that does not fit is a fault of ours."""
    assert isinstance(verdict(parcel(envid=envid), ALL), Lost)


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ({}, Offer()),
        ({"size": "", "pipelining": "", "x-unknown": "1"}, Offer(pipelining=True)),
        (
            {"size": "1000", "dsn": "", "smtputf8": "", "8bitmime": ""},
            Offer(size=1000, dsn=True, smtputf8=True, eightbit=True),
        ),
        ({"size": "-5"}, Offer()),
        ({"size": "²"}, Offer()),
        ({"size": "9" * 5000}, Offer()),
        ({"auth": " plain LOGIN", "starttls": ""}, Offer(auth=("PLAIN", "LOGIN"), starttls=True)),
    ],
)
def test_offer(features: dict[str, str], expected: Offer) -> None:
    """Odd or unknown keywords are ignored."""
    assert Offer.parse(features) == expected
