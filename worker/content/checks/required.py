"""Required: what the law and the mailbox providers want every mail to say (STANDARDS B9, L1, P3).

Refuses: legal advice; it looks whether the parts are there.
"""

import re
from collections.abc import Iterator
from typing import Final

from worker.content.checks.findings import Finding, Rule, Severity
from worker.content.checks.letters import Letter, plain

__all__ = ["RULES", "footer", "opt_out", "sender"]

SENDER: Final = Rule(
    "parts.sender",
    Severity.ERROR,
    "no name of the sender, in From or in a part",
    "Set organisation.name, and keep it in both layouts.",
)
ADDRESS: Final = Rule(
    "parts.address",
    Severity.ERROR,
    "no postal address in a part",
    "Set organisation.postal_address, and keep it in both layouts.",
)
REASON: Final = Rule(
    "parts.reason",
    Severity.ERROR,
    "no word on why the reader gets this, in a part",
    "Keep {{ reason }} in both layouts.",
)
OPT_OUT: Final = Rule(
    "parts.opt-out",
    Severity.ERROR,
    "no opt-out link in a part",
    "Keep {{ mail.opt_out_url }} in both layouts.",
)
PRIVACY: Final = Rule(
    "parts.privacy",
    Severity.WARNING,
    "no link to the privacy notice in a part",
    "Set organisation.privacy_url, and keep it in both layouts.",
)
RULES: Final = (SENDER, ADDRESS, REASON, OPT_OUT, PRIVACY)


def sender(letter: Letter) -> Iterator[Finding]:
    """Find a mail that does not say who writes."""
    if not letter.shown.sender_name.strip():
        yield SENDER.found("the sender has no name", "headers")
    for part, words in _parts(letter):
        if plain(letter.edition.organisation.name) not in words:
            yield SENDER.found("it does not name the organisation", part)


def footer(letter: Letter) -> Iterator[Finding]:
    """Find what its footer leaves out."""
    charity = letter.edition.organisation
    reason = [one for one in map(plain, re.split(r"\{\{.*?\}\}|\{%.*?%\}", letter.reason)) if one]
    address = [one for one in map(plain, charity.postal_address.splitlines()) if one]
    for part, words in _parts(letter):
        if not address or any(line not in words for line in address):
            yield ADDRESS.found("the postal address is not in it", part)
        if not reason or any(piece not in words for piece in reason):
            yield REASON.found("it does not say why the reader gets this", part)
    privacy = charity.privacy_url
    if not privacy or privacy not in {link.href for link in letter.links}:
        yield PRIVACY.found("the privacy notice is not linked", "HTML")
    if not privacy or privacy not in letter.text:
        yield PRIVACY.found("the privacy notice is not linked", "text")


def opt_out(letter: Letter) -> Iterator[Finding]:
    """Find a part that nobody could opt out from."""
    link = letter.opt_out_url
    if not link or link not in {one.href for one in letter.links}:
        yield OPT_OUT.found("the opt-out link is not in it", "HTML")
    if not link or link not in letter.text:
        yield OPT_OUT.found("the opt-out link is not in it", "text")


def _parts(letter: Letter) -> Iterator[tuple[str, str]]:
    yield "HTML", letter.words
    yield "text", plain(letter.text)
