"""What a returned mail is, told from mails as real servers, providers and people write them.

The mails stand in tests/returned, with {bounce}, {message} and {opt_out} where our marks were. Those of
Postfix are its own work, word for word.
"""

import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.returns.opened import MOST_BYTES, blocks, open_mail
from worker.returns.sorting import sort
from worker.returns.verdicts import (
    Bounce,
    Complaint,
    Delivered,
    Foreign,
    OptOut,
    Personal,
    Quiet,
    Verdict,
)
from worker.tokens import Marks, Purpose

MAILS = Path(__file__).parents[1] / "returned"
MARKS = Marks(b"k" * 32)
#: The delivery that all the mails are about.
OURS = 4711
PLACES = {
    "{bounce}": MARKS.mark(Purpose.BOUNCE, OURS),
    "{message}": MARKS.mark(Purpose.MESSAGE, OURS),
    "{opt_out}": MARKS.mark(Purpose.OPT_OUT, OURS),
    "{OPT_OUT}": MARKS.mark(Purpose.OPT_OUT, OURS).upper(),
    "{forged}": Marks(b"x" * 32).mark(Purpose.OPT_OUT, OURS),
}


def returned(name: str) -> bytes:
    """A mail of tests/returned with our marks in it."""
    text = (MAILS / f"{name}.eml").read_text(encoding="utf-8")
    for place, mark in PLACES.items():
        text = text.replace(place, mark)
    return text.encode()


def bounce(reason: str, code: int | None, status: str) -> Bounce:
    """A bounce of our delivery, whatever its text."""
    return Bounce(OURS, reason, code, status, "")


GONE = bounce("no-mailbox", 550, "5.1.1")
UNDELIVERED = bounce("undelivered", 550, "5.1.1")
QUIET = Quiet(OURS)
FOREIGN = Foreign()

#: STANDARDS F1-F8 and U5 by example: the file, and what it is.
TABLE: dict[str, Verdict] = {
    # Delivery reports, by who wrote them.
    "postfix-failed": GONE,
    "postfix-delayed": QUIET,
    "postfix-expired": bounce("quota", 450, "4.2.2"),
    "postfix-delivered": Delivered(OURS),
    "postfix-utf8": bounce("needs-smtputf8", None, "5.6.7"),
    "exchange-gone": bounce("no-domain", 550, "5.1.10"),
    "exchange-2003": bounce("no-mailbox", None, "5.1.1"),
    "gmail-gone": GONE,
    "gmail-unauthenticated": bounce("unauthenticated", 550, "5.7.26"),
    "qmail-gone": bounce("no-mailbox", None, "5.1.1"),
    "qmail-gave-up": bounce("undelivered", 450, "4.1.1"),
    "exim-quota": bounce("quota", 552, "5.2.2"),
    "sendmail-gone": GONE,
    # Their odd forms.
    "base64": GONE,
    "no-action": GONE,
    "generic-status": GONE,
    "relayed": Delivered(OURS),
    "daemon-delay": QUIET,
    "unreadable": QUIET,
    "alias-one-arrived": Delivered(OURS),
    "alias-one-waits": QUIET,
    "alias-none-arrived": bounce("quota", 552, "5.2.2"),
    # Whom they are about.
    "srs": GONE,
    "by-envelope-id": GONE,
    "by-message-id": UNDELIVERED,
    "no-mark": FOREIGN,
    "answer-of-ours": FOREIGN,
    "report-to-opt-out": FOREIGN,
    # Complaints.
    "yahoo-complaint": Complaint(OURS, "abuse"),
    "headers-complaint": Complaint(OURS, "abuse"),
    "not-spam": Complaint(OURS, "not-spam"),
    "auth-failure": Complaint(OURS, "auth-failure"),
    "fraud": Complaint(OURS, "fraud"),
    "two-types": FOREIGN,
    "complaint-no-mark": FOREIGN,
    # Programs.
    "vacation-dovecot": QUIET,
    "vacation-exchange": QUIET,
    "vacation-old": QUIET,
    "vacation-precedence": QUIET,
    "vacation-subject": QUIET,
    "vacation-null-path": QUIET,
    "vacation-moved": Quiet(OURS, new_address=True),
    "challenge": QUIET,
    "receipt": QUIET,
    "loop": QUIET,
    "newsletter": QUIET,
    # People.
    "person": Personal(OURS),
    "person-says-no-auto": Personal(OURS),
    "person-stop": Personal(OURS, asks_to_stop=True),
    "person-no-mark": Foreign(personal=True),
    # Opt-outs by mail, and what must be none.
    "opt-out": OptOut(OURS),
    "opt-out-upper-case": OptOut(OURS),
    "opt-out-subject": OptOut(OURS),
    "opt-out-by-somebody-else": OptOut(OURS),
    "opt-out-forged": Foreign(personal=True),
    "opt-out-message-mark": Foreign(personal=True),
    "opt-out-bounce-mark": Personal(OURS, asks_to_stop=True),
    "opt-out-vacation": QUIET,
    "opt-out-null-path": QUIET,
    "opt-out-mbox-daemon": QUIET,
    "opt-out-loop": QUIET,
    "opt-out-forwarded-appeal": QUIET,
}


def without_text(verdict: Verdict) -> Verdict:
    """A verdict less the server's words."""
    if isinstance(verdict, Bounce):
        return Bounce(verdict.delivery, verdict.reason, verdict.code, verdict.status, "")
    return verdict


@pytest.mark.parametrize(("name", "verdict"), TABLE.items(), ids=TABLE)
def test_a_mail_is_what_its_table_says(name: str, verdict: Verdict) -> None:
    """Each real shape has one verdict (STANDARDS F1-F8, U5)."""
    assert without_text(sort(returned(name), MARKS)) == verdict


@pytest.mark.parametrize(
    ("field", "verdict"),
    [
        ("Subject: Автоматический ответ: unsubscribe", QUIET),
        ("Subject: رد تلقائي: unsubscribe", QUIET),
        ("Subject: Fuera de la oficina: unsubscribe", QUIET),
        ("Subject: Absence du bureau : unsubscribe", QUIET),
        ("Subject: Automatische Antwort: unsubscribe", QUIET),
        ("Subject: unsubscribe\nAuto-Submitted: (by us) auto-replied (vacation)", QUIET),
        ("Subject: unsubscribe\nAuto-Submitted: (by us) no", OptOut(OURS)),
        ("Subject: отпишите меня", OptOut(OURS)),
        ("Subject: أوقفوا الرسائل", OptOut(OURS)),
    ],
)
def test_a_program_opts_nobody_out_in_any_of_our_languages(field: str, verdict: Verdict) -> None:
    """Where no header says that a program wrote it, its subject does; a person's own words never do."""
    mail = returned("opt-out").replace(b"Subject: unsubscribe", field.encode())
    assert sort(mail, MARKS) == verdict


def test_every_mail_of_the_collection_is_in_the_table() -> None:
    """A shape that nobody checks is not understood."""
    assert {file.stem for file in MAILS.glob("*.eml")} == TABLE.keys()


@pytest.mark.parametrize("ends", [b"\r\n", b"\r"], ids=["CRLF", "CR"])
@pytest.mark.parametrize("name", ["postfix-failed", "gmail-gone", "qmail-gone", "yahoo-complaint", "opt-out"])
def test_line_ends_do_not_matter(name: str, ends: bytes) -> None:
    """Pipes, files and Maildirs differ in them."""
    assert without_text(sort(returned(name).replace(b"\n", ends), MARKS)) == TABLE[name]


@pytest.mark.parametrize("name", TABLE)
def test_no_address_is_kept_of_a_report(name: str) -> None:
    """What a server said is scrubbed of whom it said it about."""
    verdict = sort(returned(name), MARKS)
    if isinstance(verdict, Bounce):
        assert "zoe" not in verdict.text.lower()
        assert "@" not in verdict.text
        assert not any(mark in verdict.text for mark in PLACES.values())


@pytest.mark.parametrize("name", TABLE)
def test_under_another_key_nothing_is_ours(name: str) -> None:
    """A forged or foreign mark is as good as none, whatever the rest says (F1)."""
    assert isinstance(sort(returned(name), Marks(b"other" * 6)), Foreign)


def test_the_envelope_may_be_told_apart_from_the_mail() -> None:
    """A pipe that writes no Delivered-To names the recipient on its command line."""
    address = f"b+{PLACES['{bounce}']}@bounces.example.org"
    assert without_text(sort(returned("no-mark"), MARKS, [address])) == GONE


def test_the_return_path_counts_before_the_message_id() -> None:
    """A report about one delivery that returns another's headers is about the first (F1)."""
    other = MARKS.mark(Purpose.MESSAGE, 1)
    mail = returned("sendmail-gone").replace(PLACES["{message}"].encode(), other.encode())
    assert without_text(sort(mail, MARKS)) == GONE


def test_the_copy_below_a_notice_says_nothing() -> None:
    """A mail that we wrote could hold any words; only the server's own are read."""
    verdict = sort(returned("exim-quota"), MARKS)
    assert isinstance(verdict, Bounce)
    assert verdict.text.endswith("552 5.2.2 Mailbox <address> is over quota")


def test_a_test_mail_has_marks_too() -> None:
    """Delivery 0 belongs to no campaign; what comes back of it is told all the same."""
    address = f"b+{MARKS.mark(Purpose.BOUNCE, 0)}@bounces.example.org"
    assert sort(returned("no-mark"), MARKS, [address]).delivery == 0  # type: ignore[union-attr]  # a bounce


# -- bounds ------------------------------------------------------------------------------------------

M = MOST_BYTES
HOSTILE = {
    "nothing": b"",
    "zeros": b"\0" * M,
    "line ends": b"\n" * M,
    "carriage returns": b"\r" * M,
    "headers": b"A: b\n" * (M // 5),
    "one long line": b":" * M,
    "nested multiparts": b"".join(
        b'Content-Type: multipart/mixed; boundary="b%d"\n\n--b%d\n' % (n, n) for n in range(20_000)
    ),
    "nested messages": b"Content-Type: message/rfc822\n\n" * 30_000,
    "parts": b"Content-Type: multipart/mixed; boundary=b\n\n" + b"--b\n\n" * 200_000,
    "parameters": b"Content-Type: multipart/mixed; " + b'a="";' * 190_000 + b"\n\n",
    "quoted quotes": b'Content-Type: multipart/mixed; boundary="' + b'\\";' * 300_000 + b"\n\n",
    "encoded words": b"Subject: " + b"=?utf-8?q?=41?= " * 60_000 + b"\n\n",
    "unknown charset": b"Subject: =?klingon?q?=41?=\n\n",
    "broken encoded word": b"Subject: =?utf-8?b?A?=\n\n",
    "slow charset": b"Content-Type: text/plain; charset=punycode\n\n" + b"a" * 900_000,
    "charset with a NUL": b"Content-Type: text/plain; charset=a\0b\n\n\xff",
    "charset of no name": b"Content-Type: text/plain; charset*=x'y'z\n\n\xff",
    "status blocks": b"Content-Type: message/delivery-status\n\n" + b"Action: failed\n\n" * 60_000,
    "recipients": b"Content-Type: message/delivery-status\n\nFinal-Recipient: rfc822; " + b"a@" * 400_000,
    "diagnostic": b"Content-Type: message/delivery-status\n\nFinal-Recipient: rfc822; a@b\nAction: failed\n"
    b"Diagnostic-Code: " + b"5.5." * 200_000,
    "marks": b"To: " + b"abcdefghabcdefghabcdefghabcdefgh," * 30_000 + b"\n\n",
    "addresses": b"From: MAILER-DAEMON\nSubject: undeliverable\n\n5.1.1 " + b"a@" * 490_000,
    "qmail": b"\n\nHi. This is the qmail-send program at x\n" + b"<a@b>:\n\n" * 100_000,
    "exim": b"X-Failed-Recipients: " + b"a@b," * 200_000 + b"\n\n" + b"a@b " * 200_000,
    "quoted-printable": b"Content-Transfer-Encoding: quoted-printable\n\n" + b"=3D=" * 240_000,
    "broken base64": b"Content-Type: message/delivery-status\nContent-Transfer-Encoding: base64\n\nA",
    "folded": b"Subject: a\n" + b" b\n" * 300_000 + b"\n",
    "octets": b"Subject: " + b"\xff" * 900_000 + b"\n\n",
    "dashes": b"\n\n" + b"\n--" * 300_000,
    "blanks": b"Content-Type: message/delivery-status\n\n" + b"\n \t" * 300_000,
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_hostile_mail_is_foreign_and_soon_done(data: bytes) -> None:
    """No shape costs a second of processor time, and none has an effect."""
    began = time.process_time()
    assert isinstance(sort(data, MARKS), Foreign)
    assert time.process_time() - began < 1


def test_what_is_read_is_bounded() -> None:
    """However many parts and blocks there are, a few dozen are looked at."""
    assert len(open_mail(HOSTILE["parts"]).parts) <= 40
    assert len([*blocks("a: b\n\n" * 10_000)]) <= 40


LINES = st.sampled_from(
    [
        *(
            "Content-Type: multipart/report; boundary=b",
            "Content-Type: message/delivery-status",
            "--b",
            "--b--",
        ),
        *(
            "Content-Type: message/feedback-report",
            "Content-Type: message/rfc822",
            "Content-Type: text/plain",
        ),
        *("Content-Transfer-Encoding: base64", "Content-Transfer-Encoding: quoted-printable", "", "", " x"),
        *("Feedback-Type: abuse", "Action: failed", "Action: delayed", "Status: 5.1.1", "Status: 4.2.2"),
        *("Final-Recipient: rfc822; a@example.net", "Diagnostic-Code: smtp; 550 5.1.1 no", "Subject: stop"),
        *("Return-Path: <>", "Auto-Submitted: auto-replied", "From: MAILER-DAEMON@example.net", "From x"),
        *("To: b+{bounce}@x", "To: unsub+{opt_out}@x", "Message-ID: <{message}@x>", "Subject: {opt_out}"),
        *("List-Unsubscribe: <mailto:unsub+{opt_out}@x>", "Original-Envelope-Id: {bounce}", "=?utf-8?q?=?="),
        *(
            "Hi. This is the qmail-send program at x",
            "<a@example.net>:",
            "X-Failed-Recipients: a@example.net",
        ),
    ]
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(LINES, max_size=30), st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=8)
)
def test_any_arrangement_of_a_reports_lines_has_a_verdict(
    lines: list[str], damage: list[tuple[int, int]]
) -> None:
    """Whatever the order and whichever octets are broken, nothing raises and nobody else is named."""
    text = "\n".join(lines)
    for place, mark in PLACES.items():
        text = text.replace(place, mark)
    data = bytearray(text.encode())
    for at, octet in damage:
        if at < len(data):
            data[at] = octet
    verdict = sort(bytes(data), MARKS)
    assert isinstance(verdict, Foreign) or verdict.delivery == OURS


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=2000))
def test_any_octets_are_foreign(data: bytes) -> None:
    """Nothing that does not hold a mark has an effect."""
    assert isinstance(sort(data, MARKS), Foreign)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(TABLE)), st.integers(0, 4000), st.binary(max_size=40))
def test_damaged_mail_never_becomes_somebody_elses(name: str, at: int, junk: bytes) -> None:
    """Octets put into a real mail, or its end cut off, change at most what it says of our delivery."""
    data = returned(name)
    for damaged in (data[:at] + junk + data[at:], data[:at] + junk):
        verdict = sort(damaged, MARKS)
        assert isinstance(verdict, Foreign) or verdict.delivery == OURS
