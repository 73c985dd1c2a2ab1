"""What SpamAssassin makes of every mail, without the network: what is wrong with the mail as such.

What judges a delivery (SPF, DKIM, DMARC, the relay's name and standing) cannot be proved here: the relay
signs, and `tocsin appeals check --online` looks at the DNS.
"""

import re
import shutil
from collections.abc import Mapping

from worker.soundings import spam

#: Is paid for nothing but that there is an HTML part, and is worth 0 points.
_HARMLESS = {"HTML_MESSAGE"}
_BADLY_MADE = re.compile(r"\b(?:MIME|HTML|MISSING)_[A-Z0-9_]+\b")
#: The string by which all filters can be tried.
_GTUBE = b"XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"


def test_no_mail_looks_like_spam(mails: Mapping[str, bytes]) -> None:
    """Every mail has a score below 1, and none is held to be badly made; real spam is known as such."""
    assert shutil.which("spamassassin"), "there is no SpamAssassin: apt-get install spamassassin"
    poisoned = b"Subject: x\r\n\r\n" + _GTUBE + b"\r\n"
    opinions = spam.ask([poisoned, *mails.values()])
    assert opinions
    assert opinions[0].program == "spamassassin"
    assert "GTUBE" in opinions[0].against
    assert "MISSING_DATE" in opinions[0].against
    faults = {
        name: opinion
        for name, opinion in zip(mails, opinions[1:], strict=True)
        if opinion.score >= 1 or set(_BADLY_MADE.findall(" ".join(opinion.against))) - _HARMLESS
    }
    assert faults == {}
