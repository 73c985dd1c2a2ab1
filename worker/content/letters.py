"""Letters of our own: short mails that ask a person to confirm what they have just asked for.

Owns what such a letter says, from the catalogues and the look's own `notice` layouts. Its words are the same
in both forms and name no cause; the discreet form leaves out who we are. Refuses: an author's text.
"""

from dataclasses import dataclass

from worker.content import quoted
from worker.content.inlining import inline
from worker.content.look import Look, Press
from worker.content.rendering import Content, Organisation
from worker.content.words import MEASURE, Catalogues

#: The layouts, beside those of appeals.
_HTML, _TEXT = "notice.html", "notice.txt"


@dataclass(frozen=True, slots=True)
class Links:
    """Where a letter's links lead."""

    act: str  #: to the page that confirms
    opt_out: str


class Letters:
    """The letters of one look and one organisation."""

    def __init__(self, look: Look, organisation: Organisation) -> None:
        """Take the look and who writes; LookError if a layout is missing or wrong."""
        self._press = Press(look)
        self._catalogues = Catalogues(look.files)
        self._organisation = organisation

    def letter(self, kind: str, language: str, links: Links, *, discreet: bool, days: int) -> Content:
        """Return the letter that asks to confirm, in the reader's language or the first of ours.

        Args:
            kind: what is to be confirmed, as the catalogues call it.
            language: a tag, or "".
            links: of this one letter.
            discreet: whether it may not say who writes.
            days: for how long its link works.
        """
        wanted = (language, *self._organisation.languages.split(), MEASURE)
        spoken = next(found for tag in wanted if (found := self._catalogues.match(tag)))
        words = self._press.words(spoken)
        context = {
            "words": words,
            "subject": words["notice_subject"],
            "asked": words[f"notice_{kind}"],
            "days": days,
            "links": links,
            "sender": words["discreet_sender"] if discreet else self._organisation.name,
            "organisation": None if discreet else self._organisation,
        }
        html = inline(self._press.render(_HTML, spoken, context))
        text = self._press.render(_TEXT, spoken, context)
        return Content(
            language=spoken,
            subject=words["notice_subject"],
            sender_name=str(context["sender"]),
            html=quoted.encode(html, last=True),
            text=quoted.encode(text, last=True),
        )
