"""Wording: what the subject, the preheader and the outside of a discreet mail say to whoever sees a screen.

Refuses: taste. What is found here costs readers or betrays them.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Final
from urllib.parse import urlsplit

from worker.content.checks.findings import Finding, Rule, Severity
from worker.content.checks.letters import Letter, plain
from worker.content.versions import telling, unveiled

__all__ = ["RULES", "discreet", "hosts", "preheader", "shouting", "subject"]

LONG: Final = Rule(
    "subject.length",
    Severity.WARNING,
    "a subject that mailboxes cut off",
    "Keep it under 70 characters, with what matters in the first 40.",
)
REPLY: Final = Rule(
    "subject.reply",
    Severity.ERROR,
    "a subject that pretends to be an answer",
    "Take Re: or Fwd: out: it is untrue, and the law forbids it.",
)
CAPITALS: Final = Rule(
    "subject.capitals",
    Severity.WARNING,
    "a subject or preheader that shouts in capitals",
    "Write it as a sentence.",
)
EMOJI: Final = Rule(
    "subject.emoji",
    Severity.WARNING,
    "emoji in the subject or preheader",
    "Leave it out: screen readers spell it out, and filters count it.",
)
REPEATED: Final = Rule(
    "subject.punctuation",
    Severity.WARNING,
    "!!, ?!, $$ or the like in the subject or preheader",
    "One mark is enough.",
)
PREHEADER: Final = Rule(
    "preheader.length",
    Severity.WARNING,
    "a preheader too long to be shown, or too short to fill its line",
    "Between 25 and 140 characters; too short, and the mail's first words follow it.",
)
SAME: Final = Rule(
    "preheader.same", Severity.WARNING, "a preheader that repeats the subject", "Let it add something."
)
TELLS: Final = Rule(
    "discreet.tells",
    Severity.ERROR,
    "a telling word, or our name, in what a discreet mail shows unopened, or in its links",
    "Change the [discreet] table, the discreet group, or put another link under its links.",
)
HOST: Final = Rule(
    "discreet.host",
    Severity.WARNING,
    "a discreet mail that leaves by, or leads to, the open form's own domain",
    "Give [discreet] and web.discreet_base_url a domain of their own.",
)
NO_WORDS: Final = Rule(
    "discreet.words",
    Severity.WARNING,
    "a discreet form that nothing is checked against",
    "List the appeal's telling_words in its front matter.",
)
RULES: Final = (LONG, REPLY, CAPITALS, EMOJI, REPEATED, PREHEADER, SAME, TELLS, HOST, NO_WORDS)

_MOST_SUBJECT: Final = 70
_PREHEADER_LEAST, _PREHEADER_MOST = 25, 140
_REPLY: Final = re.compile(r"\s*(?:re|fwd?|aw|wg|tr|отв?|rv)\s*:", re.IGNORECASE)
_EMOJI: Final = re.compile("[\u2600-\u27bf\u2b00-\u2bff\ufe0f\U0001f000-\U0001faff]")
_REPEATED: Final = re.compile(r"[!?]{2,}|([$€£*~_=#])\1+|!.*!")
_WORD: Final = re.compile(r"[^\W\d_]{2,}")
#: Words in capitals that are names need four letters to count, and two of them to be shouting.
_SHOUTED_LENGTH, _SHOUTED = 4, 2


def subject(letter: Letter) -> Iterator[Finding]:
    """Find a subject that is cut off, or pretends."""
    words = letter.shown.subject
    if len(words) > _MOST_SUBJECT:
        yield LONG.found(f"it has {len(words)} characters", "subject")
    if _REPLY.match(words):
        yield REPLY.found(f"it begins with “{words.partition(':')[0].strip()}:”", "subject")


def preheader(letter: Letter) -> Iterator[Finding]:
    """Find a preheader that wastes its line."""
    words = plain(letter.shown.preheader)
    if not _PREHEADER_LEAST <= len(words) <= _PREHEADER_MOST:
        yield PREHEADER.found(f"it has {len(words)} characters", "preheader")
    if words.casefold().strip(" .!") == plain(letter.shown.subject).casefold().strip(" .!"):
        yield SAME.found("it says what the subject says", "preheader")


def shouting(letter: Letter) -> Iterator[Finding]:
    """Find capitals, emoji and heaps of marks in what mailbox lists show."""
    for part, words in (("subject", letter.shown.subject), ("preheader", letter.shown.preheader)):
        if (
            len([one for one in _WORD.findall(words) if one.isupper() and len(one) >= _SHOUTED_LENGTH])
            >= _SHOUTED
        ):
            yield CAPITALS.found("it is in capitals", part)
        if found := _EMOJI.search(words):
            yield EMOJI.found(f"it holds {found[0]}", part)
        if found := _REPEATED.search(words):
            yield REPEATED.found(f"it holds “{found[0]}”", part)


def discreet(letter: Letter) -> Iterator[Finding]:
    """Find what tells from outside of a discreet mail: envelope, headers, subject, preheader, every link."""
    if not letter.discreet:
        return
    if not letter.version.telling_words:
        yield NO_WORDS.found("there are no telling_words", "front matter")
    words = (*letter.version.telling_words, letter.edition.organisation.name)
    for part, text in _outside(letter).items():
        if word := telling(text, words):
            yield TELLS.found(f"it tells “{word}”", part)
    for link in dict.fromkeys(one.href for one in letter.links):
        if word := telling(unveiled(link), words):
            yield TELLS.found(f"a link tells “{word}”: {link[:60]}", "HTML")


def _outside(letter: Letter) -> Mapping[str, str]:
    """Return what anybody between us and the reader can see, by part."""
    # To is the reader's own address and name; the subject is told apart.
    heads = [f"{name}: {letter.message[name]}" for name, _ in letter.headers if name not in {"To", "Subject"}]
    return {
        "envelope": letter.parcel.sender,
        "headers": unveiled("\n".join(heads)),
        "subject": letter.shown.subject,
        "preheader": letter.shown.preheader,
    }


def hosts(letter: Letter) -> Iterator[Finding]:
    """Find a discreet mail that the open form's own domain betrays."""
    if not letter.discreet:
        return
    ours = letter.edition.open.identity
    domains = {ours.domain, ours.bounce_domain, ours.opt_out_domain, ours.from_address.rpartition("@")[2]}
    web = urlsplit(letter.edition.open.base_url).hostname or ""
    used = {
        "From": letter.header("From").rstrip(">").rpartition("@")[2],
        "the return path": letter.parcel.sender.rpartition("@")[2],
        "Message-ID": letter.header("Message-ID").rstrip(">").rpartition("@")[2],
        "List-Id": letter.header("List-Id").rstrip(">").rpartition("<")[2].removeprefix("mail."),
        "the opt-out link": urlsplit(letter.opt_out_url).hostname or "",
    }
    for place, host in used.items():
        if host.lower() in domains | {web}:
            yield HOST.found(f"{place} is at {host}, as the open form's", "headers")
