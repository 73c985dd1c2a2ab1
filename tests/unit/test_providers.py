"""Mailbox providers: who runs a domain, and what a slip was meant for."""

import pytest

from worker.providers import meant, provider


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
    ("domain", "expected"),
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
def test_meant(domain: str, expected: str) -> None:
    """A slip in a well-known domain, or a top level that does not exist, brings what was probably meant."""
    assert meant(domain) == expected


@pytest.mark.parametrize(
    "domain",
    ["gmail.com", "googlemail.com", "mail.com", "email.com", "ymail.com", "yahoo.fr", "example.co", "me.com"],
)
def test_nothing_else_meant(domain: str) -> None:
    """A real domain is left alone, however near it is to a better known one."""
    assert meant(domain) is None
