"""Addresses: what is taken, what is refused and why, and the laws of the wire and the compared form."""

import pickle
import re
import sys
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from worker.addresses import Address, AddressError, fold, is_role, parse, parse_mailbox, suggestion

#: 253 octets, the longest domain there is.
LONGEST_DOMAIN = ("a" * 49 + ".") * 5 + "org"

ACCEPTED = [
    # (as typed, on the wire, as compared)
    ("anna@example.org", "anna@example.org", "anna@example.org"),
    ("Zoe@EXAMPLE.com", "Zoe@example.com", "zoe@example.com"),
    ("o'neil@example.com", "o'neil@example.com", "o'neil@example.com"),
    ("a+bell@example.org", "a+bell@example.org", "a+bell@example.org"),
    ("a.b.c@example.org", "a.b.c@example.org", "a.b.c@example.org"),
    ("!#$%&'*+-/=?^_{|}~@example.org", "!#$%&'*+-/=?^_{|}~@example.org", "!#$%&'*+-/=?^_{|}~@example.org"),
    ("`@example.org", "`@example.org", "`@example.org"),
    ("-a@example.org", "-a@example.org", "-a@example.org"),
    ("1@2.example.org", "1@2.example.org", "1@2.example.org"),
    ("a" * 64 + "@example.org", "a" * 64 + "@example.org", "a" * 64 + "@example.org"),
    ("  anna@example.org\t", "anna@example.org", "anna@example.org"),
    ("\u00a0anna@example.org", "anna@example.org", "anna@example.org"),
    ("user@münchen.de", "user@xn--mnchen-3ya.de", "user@xn--mnchen-3ya.de"),
    ("user@MÜNCHEN.de", "user@xn--mnchen-3ya.de", "user@xn--mnchen-3ya.de"),
    ("user@mu\u0308nchen.de", "user@xn--mnchen-3ya.de", "user@xn--mnchen-3ya.de"),
    ("user@xn--mnchen-3ya.de", "user@xn--mnchen-3ya.de", "user@xn--mnchen-3ya.de"),
    ("user@XN--MNCHEN-3YA.de", "user@xn--mnchen-3ya.de", "user@xn--mnchen-3ya.de"),
    ("user@faß.de", "user@xn--fa-hia.de", "user@xn--fa-hia.de"),
    ("user@fass.de", "user@fass.de", "user@fass.de"),
    ("user@a--b.org", "user@a--b.org", "user@a--b.org"),
    ("user@例え。jp", "user@xn--r8jz45g.jp", "user@xn--r8jz45g.jp"),
    ("anna@почта.рф", "anna@xn--80a1acny.xn--p1ai", "anna@xn--80a1acny.xn--p1ai"),
    (
        "Δοκιμή@παράδειγμα.δοκιμή",
        "Δοκιμή@xn--hxajbheg2az3al.xn--jxalpdlp",
        "δοκιμή@xn--hxajbheg2az3al.xn--jxalpdlp",
    ),
    ("e\u0301@example.org", "\u00e9@example.org", "\u00e9@example.org"),
    ("น้ำ@example.org", "น้ำ@example.org", "น้ำ@example.org"),
    ("é" * 32 + "@example.org", "é" * 32 + "@example.org", "é" * 32 + "@example.org"),
    # Needless quotes name the same mailbox (RFC 5321 4.1.2).
    ('"john.doe"@example.com', "john.doe@example.com", "john.doe@example.com"),
    (r'"j\ohn"@example.com', "john@example.com", "john@example.com"),
    # An office address keeps its case on the wire like any other.
    ("INFO@example.org", "INFO@example.org", "info@example.org"),
    ("INFO@münchen.de", "INFO@xn--mnchen-3ya.de", "info@xn--mnchen-3ya.de"),
]

REFUSED = [
    ("", "empty"),
    ("   ", "empty"),
    ("anna", "no-at"),
    ("anna(at)example.org", "no-at"),
    ("@example.org", "no-local"),
    ("anna@", "domain"),
    ("a@b", "no-dot"),
    ("a@localhost", "no-dot"),
    (".a@example.org", "dot"),
    ("a.@example.org", "dot"),
    ("a..b@example.org", "dot"),
    ("a@example.org.", "dot"),
    ("a@.example.org", "dot"),
    ("a@example..org", "dot"),
    ("a@-x.org", "domain"),
    ("a@x-.org", "domain"),
    ("a@ex_ample.com", "domain"),
    ("a@example.c0m-", "domain"),
    ("a@192.0.2.1", "domain"),
    ("a@[192.0.2.1]", "literal"),
    ("a@[IPv6:2001:db8::1]", "literal"),
    ("a@xn--a.com", "domain"),
    ("a@xn--.com", "domain"),
    ("a@ab--c.com", "domain"),
    ("a@ü-.org", "domain"),
    ("a@" + "x" * 64 + ".org", "domain"),
    ("a@\u0301example.org", "domain"),
    ("a@example.org/x", "domain"),
    ("a@example.org:25", "domain"),
    ("a@example.test", "reserved"),
    ("a@box.local", "reserved"),
    ("a@example.invalid", "reserved"),
    ("a@公司.test", "reserved"),
    ("a@公司.TEST", "reserved"),
    ("a" * 65 + "@example.org", "length"),
    ("é" * 33 + "@example.org", "length"),
    ("a@" + "x." * 126 + "org", "length"),
    ("ab@" + LONGEST_DOMAIN, "length"),
    ("a" * 64 + "@" + ("x" * 60 + ".") * 3 + "example.org", "length"),
    ("a" * 2_000_000, "length"),
    ("a@example.org\n", "control"),
    ("a@example.org\r\nBcc: b@example.net", "control"),
    ("a\x00@example.org", "control"),
    ("a\x85@example.org", "control"),
    ("a\u2028@example.org", "control"),
    ("a\u200b@example.org", "invisible"),
    ("a@exam\u200bple.org", "invisible"),
    ("a\u202e@example.org", "invisible"),
    ("a@exam\u00adple.org", "invisible"),
    ("\ufeffa@example.org", "invisible"),
    ("a\ufe0f@example.org", "invisible"),
    ("a\u3164@example.org", "invisible"),
    ("\ud800@example.org", "invisible"),
    ("\ue000@example.org", "invisible"),
    ("\uff41nna@example.org", "lookalike"),  # fullwidth a
    ("anna\uff20example.org", "lookalike"),
    ("anna@\uff45xample.org", "lookalike"),  # fullwidth e
    ("anna@example\uff0eorg", "lookalike"),  # fullwidth full stop
    ("\u212a@example.org", "lookalike"),
    ("a\u037eb@example.org", "lookalike"),
    ("\ufb01@example.org", "lookalike"),
    ("a@example.org;b@example.net", "several"),
    ("a@example.org, b@example.net", "several"),
    ("a@example.org b@example.net", "several"),
    ("a@b@example.org", "several"),
    ("a,b@example.org", "several"),
    ("<a@example.org>", "brackets"),
    ("a@example.org>", "brackets"),
    ("mailto:a@example.org", "mailto"),
    ("MailTo:a@example.org", "mailto"),
    ("a b@example.org", "space"),
    ("a@exam ple.org", "space"),
    ("a\u2003b@example.org", "space"),
    ("a@example.org x", "space"),
    ("(a)b@example.org", "characters"),
    ("a:b@example.org", "characters"),
    ('a"b@example.org', "characters"),
    (r"a\b@example.org", "characters"),
    ('"a@example.org', "characters"),
    ('"anna"', "no-at"),
    ("\u0301a@example.org", "unicode"),
    ("\U000e1000a@example.org", "unicode"),
    ('"john doe"@example.com', "quoted"),
    ('"a@b"@example.com', "quoted"),
    ('"a;b,c"@example.com', "quoted"),
    ('""@example.com', "quoted"),
    ('".a"@example.com', "quoted"),
    (r'"a\"b"@example.com', "quoted"),
    ('"<a@b.org>"@example.com', "quoted"),
]


@pytest.mark.parametrize(("text", "spec", "canonical"), ACCEPTED)
def test_accepts(text: str, spec: str, canonical: str) -> None:
    """A usable address gets one wire form and one compared form."""
    address = parse(text)
    assert (address.spec, address.canonical) == (spec, canonical)


@pytest.mark.parametrize(("text", "reason"), REFUSED)
def test_refuses(text: str, reason: str) -> None:
    """An address that cannot be used, or would not read as what it is, is refused with its reason."""
    with pytest.raises(AddressError) as caught:
        parse(text)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("A@example.org", "a@EXAMPLE.ORG"),
        ("user@münchen.de", "user@xn--mnchen-3ya.de"),
        ("É@example.org", "e\u0301@example.org"),
        ("ΣΊΣΥΦΟΣ@example.org", "σίσυφος@example.org"),
        (" anna@example.org", '"anna"@example.org'),
    ],
)
def test_one_person(one: str, other: str) -> None:
    """Case, Unicode form, IDNA form and needless quotes do not make a second person."""
    assert parse(one).canonical == parse(other).canonical


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a+x@example.org", "a@example.org"),
        ("a.b@gmail.com", "ab@gmail.com"),
        ("user@faß.de", "user@fass.de"),
        ("İ@example.org", "i@example.org"),
        ("\u0131@example.org", "i@example.org"),  # dotless i
        ("\u0131@example.org", "İ@example.org"),  # dotless i
        ("é@example.org", "e@example.org"),
    ],
)
def test_two_people(one: str, other: str) -> None:
    """A tag, a dot, an accent or a Turkish i makes another address, so suppressing one spares the other."""
    assert parse(one).canonical != parse(other).canonical


MAILBOXES = [
    ("anna@example.org", "", "anna@example.org"),
    ("Anna <anna@example.org>", "Anna", "anna@example.org"),
    ("<anna@example.org>", "", "anna@example.org"),
    ("Émile Zola<e@example.org>", "Émile Zola", "e@example.org"),
    ('"Doe, Anna" <anna@example.org>', "Doe, Anna", "anna@example.org"),
    (r'"Anna \"the Bell\" Doe" <anna@example.org>', 'Anna "the Bell" Doe', "anna@example.org"),
    ('"a <b> c" <anna@example.org>', "a <b> c", "anna@example.org"),
    ("Anna @ Work <anna@example.org>", "Anna @ Work", "anna@example.org"),
    ("Anna@Example.org <anna@example.org>", "", "anna@example.org"),
    ("'anna@example.org' <anna@example.org>", "", "anna@example.org"),
    (" Anna  < anna@example.org > ", "Anna", "anna@example.org"),
]


@pytest.mark.parametrize(("text", "name", "spec"), MAILBOXES)
def test_mailbox(text: str, name: str, spec: str) -> None:
    """A name may stand before an address in angle brackets, and loses only its quotes."""
    got, address = parse_mailbox(text)
    assert (got, address.spec) == (name, spec)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("A <a@example.org>, B <b@example.org>", "several"),
        ("b@example.org <a@example.org>", "several"),
        ("A <a@example.org> b@example.org", "several"),
        ("A <a@example.org", "brackets"),
        ("A a@example.org>", "brackets"),
        ("A <<a@example.org>>", "brackets"),
        ("A <a@example.org> (work)", "brackets"),
        ('"A <a@example.org>', "brackets"),
        ("A <>", "empty"),
        ("A <a@b>", "no-dot"),
        ("A\r\nBcc: b <a@example.org>", "control"),
        ("A\u2028b <a@example.org>", "control"),
        ("<" * 2_000_000, "brackets"),
    ],
)
def test_mailbox_refused(text: str, reason: str) -> None:
    """A cell with two addresses, half a bracket or a line break names no one person."""
    with pytest.raises(AddressError) as caught:
        parse_mailbox(text)
    assert caught.value.reason == reason


def test_hidden() -> None:
    """An address does not show itself by repr, str or format, and neither does the error about one."""
    address = parse("anna@example.org")
    shown = f"{address!r} {address} {address:>20} {address!s} {[address]}"
    assert "anna" not in shown
    assert "example" not in shown
    with pytest.raises(AddressError) as caught:
        parse("anna bell@example.org")
    assert "anna" not in f"{caught.value!r} {caught.value} {caught.value.message}"


def test_error_travels() -> None:
    """An AddressError survives pickling, because worker processes send exceptions to each other."""
    error = pickle.loads(pickle.dumps(AddressError("dot")))  # noqa: S301 - our own bytes
    assert (error.reason, str(error)) == ("dot", str(AddressError("dot")))


@pytest.mark.parametrize(
    ("text", "needs"), [("anna@example.org", False), ("anna@münchen.de", False), ("δοκιμή@example.org", True)]
)
def test_smtputf8(text: str, needs: bool) -> None:  # noqa: FBT001 - a parametrised expectation
    """Only a non-ASCII local part needs SMTPUTF8: the domain travels as A-labels."""
    assert parse(text).needs_smtputf8 is needs


@pytest.mark.parametrize(
    ("text", "role"),
    [("postmaster@example.org", True), ("No-Reply@example.org", True), ("anna@example.org", False)],
)
def test_role(text: str, role: bool) -> None:  # noqa: FBT001 - a parametrised expectation
    """RFC 2142 mailboxes and no-reply machines are told apart from people."""
    assert is_role(parse(text)) is role


def test_suggestion() -> None:
    """A likely slip in the domain is only suggested: the address stays as it was typed."""
    address = parse("anna@gmial.com")
    assert (suggestion(address), address.domain) == ("gmail.com", "gmial.com")
    assert suggestion(parse("anna@example.org")) is None


# --- laws ---

#: Parts of addresses, and what breaks them, to be strung together at random.
PIECES = st.sampled_from(
    [
        *'@.aB-_ <>[],;"\\\x00\u00e9\u00df\u0130\u0131\u03c2\u0301\u0338\u037e\u200b\u202e\u212a\u3002\uff0e',
        *("\r\n", "xn--", "mailto:", "example.org", "@example.org", "münchen.de", "faß.de"),
    ]
)
TEXTS = st.one_of(
    st.text(),
    st.lists(PIECES, max_size=12).map("".join),
    st.text(min_size=1, max_size=12).map(lambda local: f"{local}@example.org"),
    st.text(min_size=1, max_size=12).map(lambda label: f"anna@{label}.org"),
)
FORBIDDEN = re.compile(r"[\x00-\x20\x7f-\xa0<>\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")


def taken(text: str) -> Address | None:
    """The address, or None where it is refused; any other error escapes and fails the law."""
    try:
        return parse(text)
    except AddressError:
        return None


@given(TEXTS)
@example("a" * 64 + "@" + "b" * 63 + ".org")
def test_only_address_errors(text: str) -> None:
    """Whatever the text, parsing gives an address or an AddressError."""
    taken(text)
    try:
        name, _ = parse_mailbox(text)
    except AddressError:
        return
    assert not re.search(r"[\r\n\x00]", name)


@given(TEXTS)
@example("İ@example.org")
@example("user@FAß.de")
def test_stable(text: str) -> None:
    """Reading the wire form again gives the same address, and so does comparing the compared form."""
    address = taken(text)
    if address is None:
        return
    assert parse(address.spec) == address
    local, _, domain = address.canonical.rpartition("@")
    assert f"{fold(local)}@{domain}" == address.canonical
    again = taken(address.canonical)
    assert again is None or again.canonical == address.canonical


@given(TEXTS)
def test_safe_to_write(text: str) -> None:
    """No accepted address can end a header, open a bracket or hide a character."""
    address = taken(text)
    if address is None:
        return
    assert not FORBIDDEN.search(address.spec)
    assert not any(
        unicodedata.category(c) in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp", "Zs"} for c in address.spec
    )
    assert address.spec.count("@") == 1
    assert address.domain.isascii()
    assert address.domain == address.domain.lower()
    assert len(address.spec.encode()) <= 254


def test_folding_settles_every_character() -> None:
    """Folding is idempotent for every character there is, not only for those a generator meets."""
    restless = [c for c in map(chr, range(sys.maxunicode + 1)) if fold(fold(c)) != fold(c)]
    assert restless == []
