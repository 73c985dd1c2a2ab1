"""A sheet: one language and form of an appeal laid out in the look, with what differs per person left open.

The first of two stages. The author's Jinja goes through Markdown and the look as inert words and comes back
at the end; every other brace is data by then. Refuses: ready share texts in the discreet form, since each
would write the appeal's words into a link.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from markupsafe import Markup

from worker.content import links, locales
from worker.content.expressions import RESERVED, Holes
from worker.content.look import Press
from worker.content.markdown import Document
from worker.content.networks import NETWORKS
from worker.content.plaintext import WIDTH
from worker.content.versions import Action, Goal, Version
from worker.content.ways import Ways
from worker.content.words import direction

#: The facts of a block that are HTML; others are plain.
_MARKED_UP = frozenset({"text", "caption"})


@dataclass(frozen=True, slots=True)
class Organisation:
    """Who asks, as the footer tells it. Each text is plain; all but the name may be ""."""

    #: its name
    name: str
    #: a street address, over one line or several
    postal_address: str
    #: the line that names it as a registered charity
    registration: str
    #: its website
    website: str
    #: its privacy notice
    privacy_url: str
    #: for readers whose language an appeal lacks: the first of these that it has, with spaces between
    languages: str = "en"

    def texts(self) -> tuple[str, ...]:
        """Return every text."""
        return (self.name, self.postal_address, self.registration, self.website, self.privacy_url)


@dataclass(frozen=True, slots=True)
class Sheet:
    """What the weavers fill in. All but language and sender are Jinja sources."""

    #: the appeal's language it is in
    language: str
    #: the display name it comes from: plain text
    sender: str
    #: one line
    subject: str
    #: one line
    preheader: str
    #: the HTML part, before CSS is inlined
    html: str
    #: the text part
    text: str


def lay_out(
    press: Press,
    organisation: Organisation,
    language: str,
    version: Version,
    ways: Ways,
    *,
    discreet: bool,
) -> Sheet:
    """Lay out one version of an appeal in its open or discreet form, its links as `ways` has them.

    Raises:
        LookError: a layout cannot be rendered.
    """
    return _Draft(press, organisation, language, version, ways).sheet(discreet=discreet)


@dataclass(frozen=True, slots=True)
class _Face:
    """What shows of a mail before it is opened, and its headline, with Jinja hidden."""

    sender: str
    subject: str
    preheader: str
    headline: str


class _Draft:
    """One sheet in the making."""

    def __init__(
        self, press: Press, organisation: Organisation, language: str, version: Version, ways: Ways
    ) -> None:
        self._press, self._organisation = press, organisation
        self._language, self._version = language, version
        self._words = press.words(language)
        self._ways = ways
        self._holes = Holes([*version.texts(), *organisation.texts(), *press.texts()])

    def sheet(self, *, discreet: bool) -> Sheet:
        face = self._discreet_face() if discreet else self._open_face()
        body = self._body()
        context = {
            **asdict(face),
            **self._around(),
            "opening": self._words["discreet_opening"] if discreet else "",
            "actions": [self._action(one, shared=not discreet) for one in self._version.actions],
        }
        drawn = Markup(body.html(self._draw))  # noqa: S704 - our own Markdown's output, HTML in it escaped
        html = self._press.render("layout.html", self._language, {**context, "body": drawn})
        written = body.text(WIDTH, self._words)
        text = self._press.render("layout.txt", self._language, {**context, "body": written})
        restore = self._holes.restore
        return Sheet(
            language=self._language,
            sender=face.sender,
            subject=restore(face.subject),
            preheader=restore(face.preheader),
            html=restore(html),
            text=restore(text),
        )

    def _open_face(self) -> _Face:
        version, hide = self._version, self._holes.hide
        return _Face(
            sender=version.sender or self._organisation.name,
            subject=hide(version.subject),
            preheader=hide(version.preheader),
            headline=hide(version.headline or version.subject),
        )

    def _discreet_face(self) -> _Face:
        """Return the version's own, or the look's neutral words: never the open ones."""
        discreet, words, hide = self._version.discreet, self._words, self._holes.hide
        if discreet is None:
            subject = words["discreet_subject"]
            return _Face(words["discreet_sender"], subject, words["discreet_preheader"], subject)
        return _Face(
            sender=discreet.sender,
            subject=hide(discreet.subject),
            preheader=hide(discreet.preheader),
            headline=hide(discreet.headline or discreet.subject),
        )

    def _around(self) -> dict[str, object]:
        """Return what both forms have."""
        version, words, hide = self._version, self._words, self._holes.hide
        return {
            "content_warning": hide(version.content_warning),
            "question": hide(version.question) or words["question"],
            "reason": hide(version.reason) or self._default_reason(),
            "organisation": self._organisation,
            "words": words,
            "mail": {name: "" if self._ways.on_web else hide(f"{{{{ {name} }}}}") for name in RESERVED},
            "copy_url": self._ways.copy,
            "on_web": self._ways.on_web,
            "copy_note": self._copy_note() if self._ways.on_web else "",
            "later": hide,
        }

    def _copy_note(self) -> str:
        return self._words["copy"] % {"organisation": self._organisation.name}

    def _default_reason(self) -> str:
        return self._words["reason"] % {"organisation": self._organisation.name}

    def _body(self) -> Document:
        hide = self._holes.hide
        hidden = {hide(link): hide(other) for link, other in self._ways.put.items()}
        return Document(hide(self._version.body), self._holes.statements, hidden, self._ways.placed)

    def _draw(self, name: str, facts: Mapping[str, str]) -> str:
        """Let the look draw a block of the body."""
        markup = {key: Markup(fact) if key in _MARKED_UP else fact for key, fact in facts.items()}  # noqa: S704 - likewise
        return self._press.block(name, self._language, {"words": self._words, "facts": markup})

    def _goal(self, goal: Goal) -> dict[str, object]:
        """Return how far a collection has come, in the words of the language."""
        reached, of = (
            locales.amount(each, goal.currency, self._language) for each in (goal.reached, goal.of)
        )
        if direction(self._language) == "rtl":  # a currency's sign would move to the other sum
            reached, of = (f"\u2068{each}\u2069" for each in (reached, of))
        said = self._words["goal"] % {"reached": reached, "of": of}
        share = locales.percent(goal.percent, self._language)
        return {"percent": goal.percent, "said": f"{said} ({share})"}

    def _action(self, action: Action, *, shared: bool) -> dict[str, object]:
        hide, link, source = self._holes.hide, links.normal(action.link), self._ways.source
        posts = [
            {
                "label": NETWORKS[slug].label or self._words[f"network_{slug}"],
                "text": text,
                "url": NETWORKS[slug].share(text, source.put(link, slug) if source else link),
            }
            for slug, text in action.share.items()
            if shared
        ]
        return {
            "main": action.main,
            "text": hide(action.text),
            "link": hide(self._ways.put.get(link, link)),
            "button": hide(action.button) or self._words[f"button_{action.kind}"],
            "note": hide(action.note),
            "content_warning": hide(action.content_warning),
            "goal": action.goal and self._goal(action.goal),
            "posts": posts,
            "texts": {
                text: [post["label"] for post in posts if post["text"] == text]
                for text in dict.fromkeys(post["text"] for post in posts)
            },
        }
