"""Names: whether the DNS says of our domains what mailbox providers ask for (SPF, DKIM, DMARC, MX).

Refuses: to judge a policy; a record that is there is the postmaster's business (RFC 9989, RFC 7208).
"""

from collections.abc import Iterator, Sequence

import dns.exception
import dns.rdatatype
import dns.resolver

from worker.content.checks.findings import Finding
from worker.content.editions import Edition
from worker.soundings import rules

#: Seconds for one question.
SECONDS = 5.0
#: Labels that DMARC's walk up the tree looks at, at most (RFC 9989 section 4.10).
_WALK = 8


def examine(edition: Edition, resolver: dns.resolver.Resolver | None = None) -> Iterator[Finding]:
    """Ask about every domain that an edition's mails stand on, by default the machine's own resolver."""
    if resolver is None:
        try:
            resolver = dns.resolver.Resolver()
        except dns.exception.DNSException:
            yield rules.SILENT.found("this machine has no resolver", "DNS")
            return
        resolver.lifetime = SECONDS
    forms = [form.identity for form in (edition.open, edition.discreet) if form is not None]
    domains = [(one.from_address.rpartition("@")[2], one) for one in forms]
    asked = _Asked(resolver)
    for sender in dict.fromkeys(domain for domain, _ in domains):
        yield from asked.sender(sender)
    for bounce in dict.fromkeys(one.bounce_domain for one in forms):
        yield from asked.spf(bounce)
    for domain in dict.fromkeys(
        each
        for one in forms
        for each in (one.reply_to.rpartition("@")[2], one.bounce_domain, one.opt_out_domain)
    ):
        yield from asked.mx(domain)


class _Asked:
    """One resolver's answers."""

    def __init__(self, resolver: dns.resolver.Resolver) -> None:
        self._resolver = resolver

    def _answers(self, name: str, kind: str) -> Sequence[str] | None:
        """Return records as text; [] where there is none, None where there is not even the name."""
        try:
            found = self._resolver.resolve(name, kind, search=False)
        except dns.resolver.NXDOMAIN:
            return None
        except dns.resolver.NoAnswer:
            return []
        return [_text(each) for each in found]

    def sender(self, domain: str) -> Iterator[Finding]:
        """Look for DMARC and DKIM under the visible sender's domain."""
        try:
            if not any(self._has_dmarc(each) for each in _upwards(domain)):
                yield rules.DMARC.found(f"{domain} has no DMARC record", "DNS")
            # RFC 8020: a name that does not exist has nothing below it; selectors are our relay's secret.
            if self._answers(f"_domainkey.{domain}", "TXT") is None:
                yield rules.DKIM.found(f"{domain} has no DKIM key", "DNS")
        except dns.exception.DNSException:
            yield rules.SILENT.found(f"no answer about {domain}", "DNS")

    def _has_dmarc(self, domain: str) -> bool:
        return any(_is(one, "v=DMARC1") for one in self._answers(f"_dmarc.{domain}", "TXT") or ())

    def spf(self, domain: str) -> Iterator[Finding]:
        """Look for the one SPF record of the return path's domain (RFC 7208 section 4.5)."""
        try:
            found = [
                one for one in self._answers(domain, "TXT") or () if one.lower().split(" ")[0] == "v=spf1"
            ]
        except dns.exception.DNSException:
            yield rules.SILENT.found(f"no answer about {domain}", "DNS")
            return
        if len(found) != 1:
            count = f"{len(found)} SPF records" if found else "no SPF record"
            yield rules.SPF.found(f"{domain} has {count}", "DNS")
        elif {"+all", "all"} & set(found[0].lower().split()):
            yield rules.SPF.found(f"the SPF record of {domain} allows everybody", "DNS")

    def mx(self, domain: str) -> Iterator[Finding]:
        """Look whether a domain takes mail: an MX that is not the null one (RFC 7505), or an address."""
        try:
            exchangers = self._answers(domain, "MX")
            takes = any(one.split()[-1] != "." for one in exchangers or ())
            if not exchangers and not (takes := bool(self._answers(domain, "A"))):
                takes = bool(self._answers(domain, "AAAA"))
        except dns.exception.DNSException:
            yield rules.SILENT.found(f"no answer about {domain}", "DNS")
            return
        if not takes:
            yield rules.MX.found(f"{domain} takes no mail", "DNS")


def _upwards(domain: str) -> Iterator[str]:
    """Yield a domain and those above it, but for the top (RFC 9989's walk)."""
    labels = domain.split(".")[-_WALK:]
    for start in range(max(len(labels) - 1, 1)):
        yield ".".join(labels[start:])


def _is(record: str, version: str) -> bool:
    return record.replace(" ", "").lower().startswith(version.lower())


def _text(record: object) -> str:
    strings = getattr(record, "strings", None)  # a TXT record comes in pieces
    return b"".join(strings).decode("utf-8", "replace") if strings else str(record)
