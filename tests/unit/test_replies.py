"""What a server's words mean, whose fault they name, and what of them may be kept."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.post import replies
from worker.post.replies import FAULTS, GONE, Reply, ReplyError, Trouble, scrub, sender_fault, why

#: Several people share the machine: no test fails for being slow.
CALM = settings(deadline=None)


def reply(line: str) -> Reply:
    """Read a reply of one line."""
    return Reply.parse([line.encode()])


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([b"250 2.1.0 Ok"], Reply(250, "2.1.0", "Ok")),
        ([b"250 Ok"], Reply(250, "", "Ok")),
        ([b"250"], Reply(250)),
        ([b"250 "], Reply(250)),
        ([b"550-5.1.1 No such", b"550 5.1.1 user"], Reply(550, "5.1.1", "No such user")),
        ([b"550-first", b"451 4.3.0 last"], Reply(451, "4.3.0", "first last")),
        ([b"450 5.1.1 wrong class"], Reply(450, "", "wrong class")),
        ([b"550 2.0.0 wrong class"], Reply(550, "", "wrong class")),
        ([b"550 5.1.1"], Reply(550, "5.1.1", "")),
        ([b"550 5.1.1111 not a status"], Reply(550, "", "5.1.1111 not a status")),
        ([b"550 5.1.1\xff"], Reply(550, "", "5.1.1\ufffd")),
        ([b"354 go"], Reply(354, "", "go")),
    ],
)
def test_reply_lines(lines: list[bytes], expected: Reply) -> None:
    """The last line's code stands, and an enhanced status only if its class is the code's."""
    assert Reply.parse(lines) == expected


@pytest.mark.parametrize(
    "lines", [[], [b""], [b"25"], [b"hello"], [b"250Ok"], [b"650 x"], [b"1234"], [b"250 x", b""]]
)
def test_not_a_reply(lines: list[bytes]) -> None:
    """Anything but three digits and a separator is a named error that quotes nothing."""
    with pytest.raises(ReplyError, match=r"^not an SMTP reply$"):
        Reply.parse(lines)


def test_repr_hides_the_text() -> None:
    """A reply often quotes the recipient, so its repr leaves the text out."""
    assert "zoe" not in repr(reply("550 5.1.1 zoe@example.org unknown"))


FAULTY = [
    ("450 4.7.23 no PTR", Trouble.SENDER),
    ("550 5.7.27 SPF", Trouble.SENDER),
    ("421 4.7.27 SPF", Trouble.SENDER),
    ("421 4.7.29 TLS", Trouble.SENDER),
    ("550 5.7.30 DKIM", Trouble.SENDER),
    ("421 4.7.31 no DMARC", Trouble.SENDER),
    ("550 5.7.40 no DMARC", Trouble.SENDER),
    ("550 5.7.32 not aligned", Trouble.SENDER),
    ("550 5.7.26 unauthenticated", Trouble.SENDER),
    ("421 4.7.28 unusual rate", Trouble.RATE),
    ("550 5.7.515 Access denied", Trouble.SENDER),
    ("451 4.7.650 The mail server has been temporarily rate limited", Trouble.RATE),
    ("550 5.7.1 Part of their network is on our block list (S3140)", Trouble.BLOCKED),
    ("421 4.7.0 [TSS04] Messages temporarily deferred", Trouble.RATE),
    ("421 4.7.0 [TSS05] Messages temporarily deferred", Trouble.RATE),
    ("553 5.7.1 [BL21] Connections will not be accepted", Trouble.BLOCKED),
    ("550 5.1.7 bad return path", Trouble.SENDER),
    ("450 4.1.8 Sender address rejected: Domain not found", Trouble.SENDER),
    ("550 SPF check failed", Trouble.SENDER),
    ("530 5.7.0 Authentication required", Trouble.AUTH),
    ("535 5.7.8 no", Trouble.AUTH),
    ("454 4.7.0 Temporary authentication failure", Trouble.RELAY),
    ("454 Throttling failure: Maximum sending rate exceeded.", Trouble.RATE),
    ("554 5.7.1 <zoe@example.org>: Relay access denied", Trouble.RELAY),
    ("451 4.7.1 Rate limit exceeded", Trouble.RATE),
    ("421 too many connections from you", Trouble.RATE),
]


@pytest.mark.parametrize(("line", "trouble"), FAULTY)
def test_our_fault(line: str, trouble: Trouble) -> None:
    """Replies that the receivers document as the sender's fault are known as such, with a rest."""
    fault = sender_fault(reply(line))
    assert fault is not None
    assert fault.trouble is trouble
    assert fault.rest > 0


@pytest.mark.parametrize(
    "line",
    [
        "250 2.0.0 rate limit is fine",
        "450 4.2.1 The user is receiving mail at a rate limit",
        "452 4.2.2 over quota",
        "550 5.1.1 no such user",
        "550 5.7.1 spam",
        "450 4.7.1 greylisted, try again in 5 minutes",
        "421 4.3.2 shutting down",
    ],
)
def test_not_our_fault(line: str) -> None:
    """A reply about the recipient, the message or a restart is not blamed on our set-up."""
    assert sender_fault(reply(line)) is None


def test_fault_slugs() -> None:
    """Every row of the table has a slug that fits the ledger's column."""
    assert all(0 < len(fault.reason) <= 40 for fault in FAULTS)


@pytest.mark.parametrize(
    ("line", "slug"),
    [
        ("550 5.1.1 no such user", "no-mailbox"),
        ("550 5.1.1 mailbox is full", "quota"),
        ("550 5.1.1 considered spam", "policy"),
        ("550 5.1.2 bad host", "no-domain"),
        ("550 5.1.10 null MX", "no-domain"),
        ("556 domain takes no mail", "no-domain"),
        ("521 no mail here", "no-domain"),
        ("550 5.4.4 no route", "no-route"),
        ("550 5.2.1 disabled", "disabled"),
        ("552 5.2.2 over quota", "quota"),
        ("552 5.3.4 too big", "too-big"),
        ("552 message size exceeds the limit", "too-big"),
        ("552 storage", "quota"),
        ("550 5.7.1 rejected", "policy"),
        ("450 4.7.1 Greylisted, come back", "greylisted"),
        ("554 5.6.0 bad MIME", "content"),
        ("550 5.6.7 address needs SMTPUTF8", "needs-smtputf8"),
        ("550 User unknown", "no-mailbox"),
        ("550 5.0.0 does not exist", "no-mailbox"),
        ("550 5.5.0 mailbox unavailable", "refused"),
        ("550 go away", "refused"),
        ("550 account suspended", "disabled"),
    ],
)
def test_why(line: str, slug: str) -> None:
    """The enhanced code says why; where it is vague the text does, and the default is soft."""
    assert why(reply(line)) == slug


@pytest.mark.parametrize(
    "line", ["550 5.2.2 x", "550 5.7.1 x", "550 5.0.0 x", "550 x", "552 x", "450 4.2.0 x", "554 5.3.0 x"]
)
def test_soft_by_default(line: str) -> None:
    """An address counts as gone only when the reply says so."""
    assert why(reply(line)) not in GONE


@pytest.mark.parametrize(
    "text",
    [
        "<zoe.smith@example.org>: unknown",
        "zoe.smith@example.org",
        'user "zoe.smith smith"@example.org unknown',
        "user zoe.smith=example.org unknown",
        "rcpt zoe.smith%40example.org",
        "see https://x.example/why?to=zoe.smith&x=1",
        "<zoe.smith> unknown",
        "zoe.smith @ example.org",
        "zoe.smith\uff20example.org",
        "zoe.smith&#64;example.org",
        "ZOE.SMITH unknown",
        "b+" + "zoe.smith" + "@bounces.example.org",
        "x " * 995 + "zoe.smith@example.org",
    ],
)
def test_scrub_addresses(text: str) -> None:
    """However a server quotes the address, what is stored does not hold it."""
    kept = scrub(text, ["zoe.smith@example.org"])
    assert "zoe" not in kept.lower()
    assert "smith" not in kept.lower()


def test_scrub_marks() -> None:
    """A mark that names a delivery does not survive, a queue id and the words do."""
    kept = scrub("550 4XyZ12 rejected abcdefgh234567abcdefgh23 for policy")
    assert kept == "550 4XyZ12 rejected [mark] for policy"


def test_scrub_keeps_help_links() -> None:
    """A link that explains the refusal stays, without its query."""
    assert scrub("see https://support.example.com/mail/answer/81126?hl=en.") == (
        "see https://support.example.com/mail/answer/81126"
    )


@CALM
@given(st.text(max_size=400), st.sampled_from(["", "zoe@example.org", "a\u00e9@xn--x.org"]))
def test_scrub_law(text: str, known: str) -> None:
    """Whatever comes in, at most 200 printable ASCII characters without an at sign come out."""
    kept = scrub(text, [known])
    assert len(kept) <= 200
    assert kept.isascii()
    assert kept.isprintable()
    assert "@" not in kept
    assert scrub(kept) == kept


@CALM
@given(
    st.text(alphabet=" <>@%=&#!?/:.abAB0123\u0131\u017f\u212a", max_size=40),
    st.sampled_from(["a", "AB@b.a", "@a", "", "b\u0131@a", "i@a"]),
)
def test_scrub_short_cuts(text: str, secret: str) -> None:
    """What makes a harmless reply cheap to keep leaves nothing out: the long way would give the same."""
    if not replies._SUSPECT.search(text):
        assert [replies._scrub_word(word, text.split()) for word in text.split()] == text.split()
    local = secret.rpartition("@")[0]
    expected = text
    for pattern in [re.escape(secret)] * bool(secret) + [rf"(?<!\w){re.escape(local)}(?!\w)"] * bool(local):
        expected = re.sub(pattern, "<address>", expected, flags=re.IGNORECASE)
    assert replies._without(text, secret) == expected
