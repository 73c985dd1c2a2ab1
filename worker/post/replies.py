"""What a mail server answered: read it, tell whose fault it names, say why, make it fit to be stored.

Owns `Reply`, the table of replies that name *our* fault, the meaning of enhanced status codes, and
`scrub`. Pure. Refuses to decide what becomes of a delivery (see `deliveries`), and to blame a recipient
for us: a reply about our set-up or our speed is a `Fault` with a rest.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self


class ReplyError(ValueError):
    """The bytes are not an SMTP reply (RFC 5321 section 4.2); the message never quotes them."""


_ACCEPTED, _TEMPORARY, _PERMANENT = range(200, 300), range(400, 500), range(500, 600)
_LINE = re.compile(rb"([2-5][0-9][0-9])(?:[ -]|$)(.*)", re.DOTALL)
_STATUS = re.compile(r"([245]\.[0-9]{1,3}\.[0-9]{1,3})(?: |$)")


@dataclass(frozen=True, slots=True)
class Reply:
    """A server's answer to one command, or a local verdict in the same words."""

    #: Three digits; the first decides, and nothing else does.
    code: int
    #: Enhanced status (RFC 3463) such as "5.1.1"; "" if none, or if its class contradicts the code.
    status: str = ""
    #: All lines joined by spaces; may quote an address, so it goes through `scrub` before it is kept.
    text: str = field(default="", repr=False)

    @property
    def accepted(self) -> bool:
        """The server took it (2xx)."""
        return self.code in _ACCEPTED

    @property
    def temporary(self) -> bool:
        """Not now (4xx)."""
        return self.code in _TEMPORARY

    @property
    def permanent(self) -> bool:
        """Never (5xx)."""
        return self.code in _PERMANENT

    @classmethod
    def parse(cls, lines: Sequence[bytes]) -> Self:
        """Read the lines of one reply, without their line ends.

        Where lines disagree the last one is believed (RFC 5321 section 4.2.1); an enhanced status
        of another class than the code is dropped (RFC 2034 section 4).

        Raises:
            ReplyError: a line is not "three digits, then a space, a hyphen or the end".
        """
        code, status, texts = 0, "", []
        for line in lines:
            match = _LINE.match(line)
            if match is None:
                raise ReplyError("not an SMTP reply")
            code, text = int(match[1]), match[2].decode("utf-8", "replace").strip()
            if enhanced := _STATUS.match(text):
                status, text = enhanced[1], text[enhanced.end() :]
            if text:
                texts.append(text)
        if not code:
            raise ReplyError("not an SMTP reply")
        return cls(code, status if status[:1] == str(code)[0] else "", " ".join(texts))


class Trouble(StrEnum):
    """Whose fault a refusal is, when it is ours: what has to rest or be mended."""

    #: The relay does not accept our name and password, or wants them first. Stops the relay.
    AUTH = "auth"
    #: Our own set-up: SPF, DKIM, DMARC, PTR, return path. Stops the campaign.
    SENDER = "sender"
    #: One provider takes nothing from us for a while. Rests that provider.
    BLOCKED = "blocked"
    #: Too fast. Slows the provider down.
    RATE = "rate"
    #: The relay refuses to relay for us, or is unwell. Rests the relay.
    RELAY = "relay"


@dataclass(frozen=True, slots=True)
class Fault:
    """One row of the table of replies that name the sender's fault (4xx and 5xx alike)."""

    #: Slug for `Step.reason`.
    reason: str
    #: What is in trouble.
    trouble: Trouble
    #: Seconds of rest before the next try.
    rest: float
    #: Enhanced statuses without their class: "7.27" stands for 4.7.27 and 5.7.27.
    statuses: frozenset[str] = frozenset()
    #: Reply codes that say it by themselves.
    codes: frozenset[int] = frozenset()
    #: Words that say it, whatever the codes.
    words: re.Pattern[str] | None = None

    def matches(self, reply: Reply) -> bool:
        """Tell whether this row speaks of the reply."""
        return (
            reply.code in self.codes
            or reply.status[2:] in self.statuses
            or (self.words is not None and self.words.search(reply.text) is not None)
        )


def _words(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


def _codes(text: str) -> frozenset[str]:
    return frozenset(text.split())


_MINUTE = 60.0
_HOUR = 3600.0
_AUTH, _SENDER, _SPEED, _RELAY = Trouble.AUTH, Trouble.SENDER, Trouble.RATE, Trouble.RELAY
_BLOCKED = Trouble.BLOCKED
_DENIED = r"relay access denied|relaying (denied|not (allowed|permitted)|prohibited)|unable to relay"

#: First match wins. From Gmail's list of SMTP errors, Microsoft's and Yahoo's sender pages, RFC 7372 and
#: RFC 4954; the rests are those which large senders use for each provider.
FAULTS: tuple[Fault, ...] = (
    Fault("yahoo-tss05", _SPEED, 4 * _HOUR, words=_words(r"\[TSS05\]")),
    Fault("yahoo-tss04", _SPEED, 2 * _HOUR, words=_words(r"\[TSS04\]")),
    Fault("yahoo-tss", _SPEED, 30 * _MINUTE, words=_words(r"\[TSS\d\d\]")),
    Fault("yahoo-blocked", _BLOCKED, 4 * _HOUR, words=_words(r"\[BL\d\d\]")),
    Fault("microsoft-rate", _SPEED, 30 * _MINUTE, _codes("7.500 7.650 7.651 7.652")),
    Fault("microsoft-rate", _SPEED, 30 * _MINUTE, words=_words(r"temporarily rate limited|\(RP-00[1-3]\)")),
    Fault("microsoft-blocked", _BLOCKED, 4 * _HOUR, _codes("7.511 7.606"), words=_words(r"\(S31[45]0\)")),
    Fault("microsoft-unauthenticated", _SENDER, _HOUR, _codes("7.509 7.515")),
    Fault("rate-limit", _SPEED, 10 * _MINUTE, _codes("7.28"), words=_words(r"unusual rate of")),
    # Amazon's, with the code that is AUTH's elsewhere.
    Fault("rate-limit", _SPEED, 5 * _MINUTE, words=_words(r"throttling failure|maximum sending rate")),
    Fault("auth-required", _AUTH, 5 * _MINUTE, _codes("7.11"), frozenset({530, 538})),
    Fault("auth-failed", _AUTH, 5 * _MINUTE, _codes("7.8 7.9 7.14"), frozenset({534, 535})),
    Fault("auth-unavailable", _RELAY, 5 * _MINUTE, codes=frozenset({454})),
    Fault("spf", _SENDER, _HOUR, _codes("7.24 7.27")),
    Fault("dkim", _SENDER, _HOUR, _codes("7.20 7.21 7.22 7.30")),
    Fault("dmarc", _SENDER, _HOUR, _codes("7.31 7.32 7.40")),
    Fault("tls-required", _SENDER, _HOUR, _codes("7.10 7.29")),
    Fault("reverse-dns", _SENDER, _HOUR, _codes("7.23 7.25")),
    Fault("unauthenticated", _SENDER, _HOUR, _codes("7.26")),
    Fault("sender-set-up", _SENDER, _HOUR, _codes("7.33 7.34 7.35 7.36 7.37 7.38 7.39")),
    Fault("return-path", _SENDER, _HOUR, _codes("1.7 1.8"), words=_words(r"sender (address )?rejected")),
    Fault("unauthenticated", _SENDER, _HOUR, words=_words(r"\b(spf|dkim|dmarc)\b.{0,40}\bfail")),
    Fault("relay-denied", _RELAY, 15 * _MINUTE, words=_words(_DENIED)),
)

#: Rate words count only outside subject 2 of the enhanced codes: that is the *recipient's* mailbox being
#: too busy (Gmail's "450 4.2.1 ... receiving mail at a rate"), and only in 4xx replies.
_RATE = Fault(
    "rate-limit",
    Trouble.RATE,
    5 * _MINUTE,
    words=_words(
        r"rate.?limit|throttl|too many (messages|mails|e-?mails|connections|sessions|recipients)|"
        r"too (fast|quickly)|sending rate|exceeded.{0,30}\b(rate|messages per)\b"
    ),
)


def sender_fault(reply: Reply) -> Fault | None:
    """Find the row that says this refusal is our fault, or None when it concerns the recipient."""
    if not (reply.temporary or reply.permanent):
        return None
    for fault in FAULTS:
        if fault.matches(reply):
            return fault
    busy_recipient = reply.status[1:4] == ".2."
    if reply.temporary and not busy_recipient and _RATE.matches(reply):
        return _RATE
    return None


#: Reasons which say that the address is gone, and may suppress it at once.
GONE = frozenset({"no-mailbox", "no-domain"})
#: Reasons which say so only when they come a second time.
GONE_IF_AGAIN = frozenset({"disabled", "no-route"})

#: What an enhanced status means, without its class. Half of all 5xx replies do not say "dead address",
#: so everything that is not listed is read from the text.
_MEANINGS = {
    "1.1": "no-mailbox",
    "1.2": "no-domain",
    "1.3": "bad-address",
    "1.6": "no-mailbox",
    "1.10": "no-domain",
    "2.1": "disabled",
    "2.2": "quota",
    "2.3": "too-big",
    "3.4": "too-big",
    "4.4": "no-route",
    "4.6": "loop",
    "6.7": "needs-smtputf8",
    "7.13": "disabled",
}
_QUOTA = re.compile(r"quota|mailbox (is )?full|storage|insufficient (disk )?space", re.IGNORECASE)
_TOO_BIG = re.compile(r"too (large|big)|(message|maximum) size|size (limit|exceed)", re.IGNORECASE)
_POLICY = re.compile(
    r"spam|virus|polic(y|ies)|block|blacklist|denied|reputation|unsolicited|banned|prohibited|content",
    re.IGNORECASE,
)
_NO_MAILBOX = re.compile(
    r"(user|recipient|mailbox|account|address)( name)? (is )?(unknown|invalid|not found)|"
    r"(unknown|invalid|no such) (local )?(user|recipient|mailbox|account|address|person)|"
    r"(does not|doesn.t) exist|no mailbox (here )?by that name",
    re.IGNORECASE,
)
_DISABLED = re.compile(r"disabled|suspended|inactive|deactivated", re.IGNORECASE)
_GREYLIST = re.compile(r"gr[ae]y.?list", re.IGNORECASE)
_WORDING = (
    (_QUOTA, "quota"),
    (_TOO_BIG, "too-big"),
    (_GREYLIST, "greylisted"),
    (_POLICY, "policy"),
    (_NO_MAILBOX, "no-mailbox"),
    (_DISABLED, "disabled"),
)
_NO_MAIL_HERE = frozenset({521, 556})  # RFC 7504: this host, this domain takes no mail


def why(reply: Reply) -> str:
    """Name the cause of a refusal that concerns the recipient or the message, as a stable slug."""
    if reply.code in _NO_MAIL_HERE:
        return "no-domain"
    meaning = _MEANINGS.get(reply.status[2:], "")
    read = next((slug for words, slug in _WORDING if words.search(reply.text)), "")
    if meaning == "no-mailbox" and read in {"quota", "policy"}:
        return read  # some say 5.1.1 for a full mailbox or a spam verdict
    if meaning:
        return meaning
    subject = reply.status[2:4]
    if subject == "7.":
        return "greylisted" if read == "greylisted" else "policy"
    if subject == "6.":
        return "content"
    return read or "refused"


_KEPT = 200  # characters of a reply that are worth a column
_READ = 2000  # characters looked at: long enough for any real reply
_QUOTED_LOCAL = re.compile(r'"[^"]{0,64}"@')
_ADDRESS = re.compile(r"@|%40|=40|&#64|^[^\w]*<[^>]*>|[=#!%][\w-]+\.\w", re.IGNORECASE)
_QUERY = re.compile(r"^(\W*https?://[^?#]*)[?#].*", re.IGNORECASE)
_MARK = re.compile(r"[a-z0-9]{16,}", re.IGNORECASE)
_UNPRINTABLE = re.compile(r"[^ -~]")
#: Without one of these no word can be what `_scrub_word` replaces. Most replies say "Ok" and a queue id.
_SUSPECT = re.compile(r"[@%=&#<!?]|[a-z0-9]{16}", re.IGNORECASE)


def scrub(text: str, known: Iterable[str] = ()) -> str:
    """Make a reply's text fit to be stored: no address, no mark, printable ASCII, 200 characters.

    Args:
        text: what the server said; it often quotes the recipient.
        known: strings to remove wherever they stand, such as the recipient's address; of an
            address the local part is removed as well ("user zoe unknown").
    """
    cut = len(text) > _READ
    text = unicodedata.normalize("NFKC", text[:_READ])
    for secret in known:
        text = _without(text, secret)
    text = _QUOTED_LOCAL.sub("quoted@", text)
    words = text.split()
    if cut:
        words = words[:-1]  # it may be half an address
    if _SUSPECT.search(text):
        words = [_scrub_word(word, words[max(0, at - 1) : at + 2]) for at, word in enumerate(words)]
    return _UNPRINTABLE.sub("?", " ".join(words))[:_KEPT].rstrip()


def _scrub_word(word: str, around: list[str]) -> str:
    """Replace a word that is or carries an address or a mark; `around` holds it and its neighbours."""
    if "@" in around or _ADDRESS.search(word):  # also "zoe @ example.org"
        return "<address>"
    return _MARK.sub("[mark]", _QUERY.sub(r"\1", word))


def _without(text: str, secret: str) -> str:
    """Remove a known string, and its local part where it stands as a word, in any case."""
    secret = unicodedata.normalize("NFKC", secret)
    local = secret.rpartition("@")[0]
    # Compiling a pattern for each recipient costs more than making their mail, and few replies name them.
    if text.isascii() and secret.isascii() and (local or secret).lower() not in text.lower():
        return text
    if secret:
        text = re.sub(re.escape(secret), "<address>", text, flags=re.IGNORECASE)
    if local:
        text = re.sub(rf"(?<!\w){re.escape(local)}(?!\w)", "<address>", text, flags=re.IGNORECASE)
    return text
