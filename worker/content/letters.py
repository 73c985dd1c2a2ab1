"""Letters of our own: short mails that ask a person to confirm what they have just asked for.

Owns what such a letter says, from the catalogues and the look's own `notice` layouts. Its words name no
cause; the discreet form leaves out who we are, and the list it invites to. Refuses: an author's text.
"""

from dataclasses import dataclass
from typing import Final

from worker.content import quoted
from worker.content.inlining import inline
from worker.content.look import Look, Press
from worker.content.rendering import Content, Organisation
from worker.content.words import MEASURE, Catalogues

#: What asks for a consent to mail of one list, and which of it comes unasked.
INVITE: Final = "invite"
_ONTO_A_LIST: Final = (INVITE, "join")
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

    def letter(
        self, kind: str, language: str, links: Links, *, discreet: bool, days: int, list_title: str = ""
    ) -> Content:
        """Return the letter that asks to confirm, in the reader's language or the first of ours.

        Args:
            kind: what is to be confirmed, as the catalogues call it.
            language: a tag, or "".
            links: of this one letter.
            discreet: whether it may not say who writes.
            days: for how long its link works.
            list_title: of the list that it invites to.
        """
        wanted = (language, *self._organisation.languages.split(), MEASURE)
        spoken = next(found for tag in wanted if (found := self._catalogues.match(tag)))
        words = self._press.words(spoken)
        sender = words["discreet_sender"] if discreet else self._organisation.name
        invites = kind == INVITE
        subject = words["invite_subject" if invites else "notice_subject"]
        asked = words[f"notice_{kind}_discreet" if discreet and kind in _ONTO_A_LIST else f"notice_{kind}"]
        if kind in _ONTO_A_LIST and not discreet:
            asked %= {"sender": sender, "list": list_title}
        context = {
            "words": words,
            "subject": subject,
            "asked": asked,
            "until": words["invite_days" if invites else "notice_days"] % {"days": days},
            "otherwise": words["invite_once" if invites else "notice_not_you"],
            "leave": words["invite_no" if invites else "opt_out"],
            "links": links,
            "sender": sender,
            "organisation": None if discreet else self._organisation,
        }
        html = inline(self._press.render(_HTML, spoken, context))
        text = self._press.render(_TEXT, spoken, context)
        return Content(
            language=spoken,
            subject=subject,
            sender_name=sender,
            html=quoted.encode(html, last=True),
            text=quoted.encode(text, last=True),
        )
