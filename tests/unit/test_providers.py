"""Mailbox providers: who runs a domain, and what a slip was meant for."""

import pytest

from worker.addresses import parse
from worker.providers import provider, suggestion


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        ("gmail.com", "google"),
        ("googlemail.com", "google"),
        ("outlook.com", "microsoft"),
        ("hotmail.co.uk", "microsoft"),
        ("live.nl", "microsoft"),
        ("msn.com", "microsoft"),
        ("yahoo.com", "yahoo"),
        ("yahoo.co.jp", "yahoo"),
        ("ymail.com", "yahoo"),
        ("aol.com", "yahoo"),
        ("icloud.com", "apple"),
        ("me.com", "apple"),
        ("mac.com", "apple"),
        ("example.org", "other"),
        ("gmail.com.example.org", "other"),
        ("notgmail.com", "other"),
    ],
)
def test_provider(domain: str, expected: str) -> None:
    """A domain belongs to a provider only if the table names it whole."""
    assert provider(domain) == expected


@pytest.mark.parametrize(
    ("domain", "meant"),
    [
        ("gmial.com", "gmail.com"),
        ("gmai.com", "gmail.com"),
        ("gmmail.com", "gmail.com"),
        ("gmail.con", "gmail.com"),
        ("gmial.con", "gmail.com"),
        ("gmail.co", "gmail.com"),
        ("hotmial.co.uk", "hotmail.co.uk"),
        ("yaho.com", "yahoo.com"),
        ("outlok.com", "outlook.com"),
        ("example.con", "example.com"),
        ("example.ogr", "example.org"),
    ],
)
def test_suggestion(domain: str, meant: str) -> None:
    """A slip in a well-known domain, or a top level that does not exist, brings what was probably meant."""
    assert suggestion(parse(f"anna@{domain}")) == meant


@pytest.mark.parametrize(
    "domain",
    ["gmail.com", "googlemail.com", "mail.com", "email.com", "ymail.com", "yahoo.fr", "example.co", "me.com"],
)
def test_no_suggestion(domain: str) -> None:
    """A real domain is left alone, however near it is to a better known one."""
    assert suggestion(parse(f"anna@{domain}")) is None
