"""Our marks in what comes back: which delivery a returned mail is about, and how surely.

Owns where marks are looked for and in which order (STANDARDS F1). Refuses: whatever is not proved by a mark,
however plausible: anybody can send a report that names somebody.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from worker.returns.opened import Fields, Opened
from worker.tokens import Marks, Purpose

#: Where mail servers write the envelope's recipient; `To` comes last, for files that lost the others.
_ENVELOPE: Final = (
    *("delivered-to", "x-original-to", "envelope-to", "x-envelope-to", "x-delivered-to", "x-rcpt-to"),
    "to",
)
#: Forwarders put letters and signs about our local part (SRS, BATV), so a mark is found wherever it stands.
_CANDIDATE: Final = re.compile(r"(?<![A-Za-z0-9])[A-Za-z2-7]{32}(?![A-Za-z0-9])")
#: Marks that are proved in one mail at most; a proof costs some microseconds.
_MOST: Final = 200


@dataclass(frozen=True, slots=True)
class Trace:
    """A delivery, and whether only those who saw its envelope could have named it."""

    #: The delivery's number; 0 is a test mail.
    delivery: int
    #: False for a Message-ID: answers quote it, so strangers may know it.
    sure: bool = True


class Tracer:
    """Finds the marks of one mail."""

    def __init__(self, mail: Opened, marks: Marks, recipients: Iterable[str] = ()) -> None:
        """Take the mail, the keys, and the envelope's recipients where the caller knows them."""
        self._mail = mail
        self._marks = marks
        self._left = _MOST
        self._envelope = [*recipients, *mail.fields.all(*_ENVELOPE)]

    def by_envelope(self, purpose: Purpose) -> int | None:
        """Find a mark of a purpose in the address that the mail was sent to."""
        return self._find(purpose, self._envelope)

    def by_subject(self, purpose: Purpose) -> int | None:
        """Find a mark of a purpose in the subject."""
        return self._find(purpose, self._mail.fields.all("subject"))

    def reported(self, envelope_ids: Iterable[str], returned: Fields) -> Trace | None:
        """Tell which delivery a delivery report is about: return path, envelope id, then Message-ID."""
        found = self.by_envelope(Purpose.BOUNCE)
        if found is None:
            found = self._find(Purpose.BOUNCE, [*envelope_ids, *returned.all("return-path")])
        if found is not None:
            return Trace(found)
        # Not References: an answer of ours to that person, bounced, would quote the mark too.
        found = self._find(Purpose.MESSAGE, returned.all("message-id"))
        return None if found is None else Trace(found, sure=False)

    def complained_of(self, report: Fields, returned: Fields) -> int | None:
        """Tell which delivery a complaint is about, by what providers leave in when they redact."""
        marked = (
            (Purpose.OPT_OUT, returned.all("list-unsubscribe")),
            (Purpose.MESSAGE, returned.all("message-id")),
            (Purpose.BOUNCE, (*returned.all("return-path"), *report.all("original-mail-from"))),
            (Purpose.BOUNCE, report.all("original-envelope-id")),
        )
        return next((it for one, texts in marked if (it := self._find(one, texts)) is not None), None)

    def answered(self) -> int | None:
        """Tell which delivery a person or their program answers to."""
        for purpose in (Purpose.BOUNCE, Purpose.OPT_OUT):
            if (found := self.by_envelope(purpose)) is not None:
                return found
        return self._find(Purpose.MESSAGE, self._mail.fields.all("in-reply-to", "references"))

    def is_our_own(self) -> bool:
        """Tell whether this is a mail of ours that somebody's rule or a loop sent back."""
        return self._find(Purpose.MESSAGE, self._mail.fields.all("message-id")) is not None

    def _find(self, purpose: Purpose, texts: Iterable[str]) -> int | None:
        for candidate in _candidates(texts):
            self._left -= 1
            if self._left < 0:
                return None
            if (found := self._marks.read(purpose, candidate)) is not None:
                return found
        return None


def _candidates(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        yield from (match[0] for match in _CANDIDATE.finditer(text))
