"""The rules of what is asked outside of us. Pure; who asks stands beside it."""

from typing import Final

from worker.content.checks.findings import Rule, Severity

BROKEN: Final = Rule(
    "links.broken", Severity.ERROR, "a link that does not open (--online)", "Mend the link, or its page."
)
DOUBTFUL: Final = Rule(
    "links.doubtful",
    Severity.WARNING,
    "a link whose site refused us or was too slow (--online)",
    "Open it in a browser: sites turn programs away.",
)
PRIVATE: Final = Rule(
    "links.private",
    Severity.ERROR,
    "a link, or where it leads on to, that is no public address (--online)",
    "Link to what everybody can reach.",
)
MOVED: Final = Rule(
    "links.moved",
    Severity.NOTE,
    "a link that leads on to another host (--online)",
    "Link there, if it stays.",
)
SPAM_HIGH: Final = Rule(
    "spam.high",
    Severity.ERROR,
    "a score that spam filters refuse: 5 or more",
    "Mend what the filter names.",
)
SPAM_RAISED: Final = Rule(
    "spam.raised", Severity.WARNING, "a score of 1 or more by a spam filter", "Mend what the filter names."
)
SPAM_UNKNOWN: Final = Rule(
    "spam.unknown",
    Severity.NOTE,
    "no spam filter to ask is installed",
    "Install SpamAssassin or rspamd, if you want its opinion.",
)
SPF: Final = Rule(
    "dns.spf",
    Severity.ERROR,
    "no SPF record for the return path, or not exactly one (--online)",
    "Publish one TXT record that begins with v=spf1 and names your relay.",
)
DKIM: Final = Rule(
    "dns.dkim",
    Severity.WARNING,
    "no DKIM key under the sender's domain (--online)",
    "Let your relay sign, and publish the key that it names.",
)
DMARC: Final = Rule(
    "dns.dmarc",
    Severity.ERROR,
    "no DMARC record for the sender's domain (--online)",
    "Publish at least v=DMARC1; p=none at _dmarc under it: the large providers refuse mail without.",
)
MX: Final = Rule(
    "dns.mx",
    Severity.ERROR,
    "a domain that answers, bounces or opt-outs go to and that takes no mail (--online)",
    "Publish an MX record for it.",
)
SILENT: Final = Rule(
    "dns.silent", Severity.WARNING, "the DNS did not answer (--online)", "Try again in a while."
)
RULES: Final = (
    *(BROKEN, DOUBTFUL, PRIVATE, MOVED, SPAM_HIGH, SPAM_RAISED, SPAM_UNKNOWN),
    *(SPF, DKIM, DMARC, MX, SILENT),
)
