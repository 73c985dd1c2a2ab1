"""Who or what wrote a mail that is no report: a program, or a person who may want something of us.

Owns the signs of programs (RFC 3834, and what the large ones do instead) and the words that are worth a
person's eye. Refuses: to act on words. Somebody who writes "stop" is shown to a person, not opted out.
"""

import re
from email.errors import MessageError
from email.header import decode_header, make_header
from typing import Final

from worker.returns.opened import Opened

#: Fields that only programs write.
_PROGRAMS: Final = (
    *("x-autoreply", "x-autorespond", "x-autoresponder", "x-auto-reply-from", "x-auto-response-suppress"),
    *("list-id", "list-unsubscribe", "list-post"),
    # Challenge-response systems, which want their sender to prove that they are a person.
    *("x-boxbe-challenge", "x-challenge", "x-spamarrest-noauth", "x-choicemail-registration-request"),
)
_COMMENT: Final = re.compile(r"\([^()]{0,200}\)")
_PRECEDENCE: Final = frozenset({"bulk", "junk", "list", "auto_reply", "auto-reply"})
_RECEIPTS: Final = ("message/disposition-notification", "message/global-disposition-notification")
_FROM_DAEMON: Final = re.compile(
    r"<?\s{0,9}(?:mailer-daemon|postmaster)\b|<\s{0,9}>|\bmailer-daemon@", re.IGNORECASE
)
_AUTOMATIC: Final = re.compile(
    r"\s{0,9}(?:auto(?:matic|matische|matisk|matické)?[ -]?(?:reply|response|antwort|svar)|"
    r"out of (?:the )?office|"
    r"abwesenheits|abwesend|réponse automatique|absen(?:t|ce) du bureau|respuesta automática|autorespuesta|"
    r"fuera de (?:la )?oficina|risposta automatica|автоответ|автоматический ответ|вне офиса|"
    r"رد تلقائي|الرد التلقائي|خارج المكتب|"
    r"\[?(?:boxbe|spam ?arrest)\b|please (?:confirm|verify) your (?:e-?mail|message))",
    re.IGNORECASE,
)
#: A mail that so many servers have passed on goes in a circle (RFC 5321 section 6.3).
_HOPS: Final = 30

_ADDRESS: Final = re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}\.[\w.-]{2,60}")
_CHANGED: Final = re.compile(
    r"\b(?:new|changed?|moved|different|no longer|instead|neue|geändert|nouvelle|changé|nueva|cambiad[oa]|"
    r"nuovo|"
    r"новый|новая|изменил[аи]?|сменил[аи]?)\b",
    re.IGNORECASE,
)
_STOP: Final = re.compile(
    r"\b(?:stop|unsubscribe|opt[ -]?out|remove me|take me off|no more (?:e-?)?mails?|"
    r"do(?: not|n.t) (?:contact|write|e-?mail)|"
    r"abmelden|austragen|désabonne|désinscri|darme de baja|cancellami|disiscriv|"
    r"отпис|отказ|удалите)",
    re.IGNORECASE,
)
#: Characters of a text that are read for words; a quoted mail of ours below would say "opt out" itself.
_READ: Final = 2_000
_QUOTED: Final = re.compile(r"^(?:>|-{2,}|_{5,}|(?:On|Am|Le|El|Il) .{5,200}:$|From: |Von: )", re.MULTILINE)


def is_from_nobody(mail: Opened) -> bool:
    """Tell whether the envelope had no sender, so that nobody may be answered (RFC 5321 section 4.5.5)."""
    if mail.unix_from is not None and mail.unix_from.upper() in {"", "<>", "MAILER-DAEMON"}:
        return True
    return any(path.replace(" ", "") == "<>" for path in mail.fields.all("return-path"))


def is_automatic(mail: Opened) -> bool:
    """Tell whether a program wrote this: a vacation notice, a receipt, a newsletter, a loop."""
    fields = mail.fields
    # A comment may stand anywhere (RFC 3834 section 5).
    said = _COMMENT.sub(" ", fields.get("auto-submitted")).partition(";")[0].partition("(")[0].strip().lower()
    return (
        (bool(said) and said != "no")
        or any(name in fields for name in _PROGRAMS)
        or any(value.lower() in _PRECEDENCE for value in fields.all("precedence"))
        or is_from_nobody(mail)
        or mail.part(*_RECEIPTS) is not None
        or _FROM_DAEMON.search(fields.get("from")) is not None
        or fields.get("content-type").lower().startswith("multipart/report")
        or _AUTOMATIC.match(subject(mail)) is not None
        or fields.count("received") >= _HOPS
    )


def names_a_new_address(mail: Opened) -> bool:
    """Tell whether an automatic answer may say that somebody has another address now."""
    text = _fresh(mail)
    return _CHANGED.search(text) is not None and _ADDRESS.search(text) is not None


def asks_to_stop(mail: Opened) -> bool:
    """Tell whether somebody's own words may mean that they want no more mail."""
    return _STOP.search(f"{subject(mail)}\n{_fresh(mail)}") is not None


def subject(mail: Opened) -> str:
    """Return the subject as people read it."""
    raw = mail.fields.get("subject")[:500]
    try:
        return str(make_header(decode_header(raw)))
    except (MessageError, ValueError, LookupError):  # no encoded word, or in no charset that there is
        return raw


def _fresh(mail: Opened) -> str:
    """Return what they wrote themselves, above whatever they quote."""
    return _QUOTED.split(mail.text[:_READ], maxsplit=1)[0]
