"""The words and pages that a reader sees after following a link in a mail, as texts in and texts out.

Owns the templates and the style sheet of `templates/web`, the choice of a page's language, and the content
policy that allows that style sheet and nothing else. Refuses: scripts, third parties, and a list's name on a
discreet page.
"""

import base64
import datetime as dt
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from typing import Any, Final, Protocol

from jinja2 import DictLoader, StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from markupsafe import Markup

from worker.content.locales import date, own_name
from worker.content.words import MEASURE, Catalogues, direction
from worker.errors import WrongUse
from worker.forms import OPEN, PAUSES, TOPIC
from worker.holdings import tell

#: The pages there are: before, after, taken back and too late for that, the preferences, the four of what is
#: confirmed by mail, the three ways in which it did not happen, and the one that says nothing.
NAMES: Final = (
    *("ask", "done", "undone", "late", "choices", "asked", "confirm", "confirmed", "spent"),
    *("lost", "refused", "away", "exit", "join"),
)


class Page(Protocol):
    """What an opt-out link is about, as far as its page may tell."""

    @property
    def sender(self) -> str:
        """The name the mails come from; for the discreet form the neutral one; "" for none."""

    @property
    def list_title(self) -> str:
        """The list's public title; never shown on a discreet page."""

    @property
    def language(self) -> str:
        """Language tag of the mail, or ""."""

    @property
    def discreet(self) -> bool:
        """Whether the page may name no cause and no organisation but `sender`."""

    @property
    def test(self) -> bool:
        """Whether the link came from a test mail, so that there is nobody to opt out."""


class Topic(Protocol):
    """What some mails are about."""

    @property
    def slug(self) -> str:
        """Its name in forms."""

    @property
    def title(self) -> str:
        """What it is called."""

    @property
    def titles(self) -> Mapping[str, str]:
        """The same by language, where it is another."""

    @property
    def discreet_title(self) -> str:
        """The same on a discreet page; "" where it is not to be named there."""

    @property
    def wanted(self) -> bool:
        """Whether they want to hear of it."""


class Choices(Protocol):
    """How things stand for one reader, as far as the page of preferences may tell."""

    @property
    def about(self) -> Page:
        """What the link is about."""

    @property
    def stopped(self) -> bool:
        """Whether nothing comes any more."""

    @property
    def paused_until(self) -> float | None:
        """The end of a pause, in UTC seconds."""

    @property
    def fewer(self) -> bool:
        """Whether they want fewer mails."""

    @property
    def language(self) -> str:
        """Tag of the language they want, or ""."""

    @property
    def discreet(self) -> bool:
        """Whether they want the discreet form."""

    @property
    def offers_discreet(self) -> bool:
        """Whether there is one."""

    @property
    def held(self) -> bool:
        """Whether a language and a form can be kept."""

    @property
    def topics(self) -> Sequence[Topic]:
        """What the mails may be about, as far as that can be chosen."""

    @property
    def asked(self) -> bool:
        """Whether something of what was wanted waits for their word from their mailbox."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What a page shows beside what its link is about."""

    choices: Choices | None = None
    saved: bool = False
    #: Lets the page take back what was just done; "" for nothing.
    voucher: str = ""
    #: Where the quick exit leads.
    exit_url: str = "exit"
    #: What a notice is about: "forget", "export", "choices", "invite" or "join".
    kind: str = "forget"
    #: Whether what was entered is no address.
    wrong: bool = False
    #: The mark by which the reader of an invitation says no for good.
    opt_out: str = ""
    #: All that we hold of a reader, for them.
    facts: Mapping[str, Any] | None = None


_NOTHING: Final = Shown()


class Pages:
    """The pages' templates, words and style, read once and tried out."""

    def __init__(self, files: Mapping[str, str], languages: Sequence[str] = ()) -> None:
        """Take the texts of `templates/web` and `templates/locale` by name, and the languages of last resort.

        Raises:
            WrongUse: one of the texts is missing or wrong.
        """
        self._catalogues = Catalogues(files)
        self._words = {
            name: self._catalogues.words(name).under("page") for name in self._catalogues.languages
        }
        self._fallback = (*languages, MEASURE)
        # Browsers hash the style after folding line ends, so it must leave here with plain ones.
        style = _file(files, "style.css").replace("\r\n", "\n")
        if "</" in style:
            raise WrongUse("templates/web/style.css holds '</', which would end it early")
        style_hash = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        #: The Content-Security-Policy of every answer: our one style sheet, our own form, and nothing else.
        self.policy = (
            f"default-src 'none'; style-src 'sha256-{style_hash}'; form-action 'self'; "
            "base-uri 'none'; frame-ancestors 'none'"
        )
        environment = ImmutableSandboxedEnvironment(
            loader=DictLoader(files), autoescape=True, undefined=StrictUndefined, trim_blocks=True
        )
        environment.globals["style"] = Markup(style)  # noqa: S704 - our own file, checked above
        try:
            self._templates = {name: environment.get_template(f"{name}.html") for name in NAMES}
            self._rehearse()
        except (TemplateError, KeyError, ValueError) as error:
            raise WrongUse(f"the pages in templates/web do not render: {error}") from error

    def render(
        self, name: str, about: Page | None, accepted: Iterable[str] = (), shown: Shown = _NOTHING
    ) -> str:
        """Return a page in the mail's language, else the first we have of `accepted`, then of our order."""
        wanted = (about.language if about else "", *accepted, *self._fallback)
        language = next(found for tag in wanted if (found := self._catalogues.match(tag)))
        discreet = about is not None and about.discreet
        wording = self.wording(about, language) if about else ""
        say = partial(_sentence, self._words[language])
        topics = _topics(shown.choices, language, discreet=discreet)
        return self._templates[name].render(
            say=say,
            language=language,
            direction=direction(language),
            sender=about.sender if about else "",
            # Withheld here and not in the templates, so that no template can forget it.
            list_title=about.list_title if about and not discreet else "",
            discreet=discreet,
            test=about is not None and about.test,
            shown=digest(wording),
            opt_out=shown.opt_out,
            voucher=shown.voucher,
            exit_url=shown.exit_url,
            saved=shown.saved,
            kind=shown.kind,
            told=tell(shown.facts, self._words[language], language) if shown.facts else (),
            choices=shown.choices,
            topics=topics,
            again=[
                *([(OPEN, say("confirm_open"))] if discreet else ()),
                *(
                    (TOPIC + slug, say("confirm_topic", topic=title))
                    for slug, title, wanted in topics
                    if not wanted
                ),
            ],
            paused_until=_day(shown.choices, language),
            languages=self._languages(shown.choices, everyone=name == "join"),
            wrong=shown.wrong,
            pauses=PAUSES,
        )

    def wording(self, about: Page, language: str) -> str:
        """Return the words of a consent as a page shows them and a proof keeps them; "" for no language."""
        found = self._catalogues.match(language)
        if not found:
            return ""
        words = self._words[found]
        if about.discreet:
            return words["invite_wording_discreet"] % {"sender": about.sender}
        return words["invite_wording"] % {"sender": about.sender, "list": about.list_title}

    def _languages(self, choices: Choices | None, *, everyone: bool = False) -> Sequence[tuple[str, str]]:
        """Return the tag and own name of each language that can be asked for; theirs is one of them."""
        if choices is None and not everyone:
            return ()
        tags = {*self._catalogues.languages, choices.language if choices else ""} - {""}
        return sorted(((tag, own_name(tag)) for tag in tags), key=lambda one: one[1].casefold())

    def _rehearse(self) -> None:
        """Render every page in every language, so that a slip shows at the start and not to a reader."""
        for language, name in product(self._words, NAMES):
            for sample, shown in _SAMPLES:
                about = replace(sample, language=language)
                stand = replace(_STAND, about=about, stopped=shown.saved)
                self.render(name, about, shown=replace(shown, choices=stand))


@dataclass(frozen=True, slots=True)
class _Sample:
    """A page's facts to rehearse with."""

    sender: str = "A"
    list_title: str = "B"
    language: str = MEASURE
    discreet: bool = False
    test: bool = False


@dataclass(frozen=True, slots=True)
class _Stand:
    """A reader's choices to rehearse with."""

    about: Page
    stopped: bool = False
    paused_until: float | None = 1.0
    fewer: bool = True
    language: str = MEASURE
    discreet: bool = True
    offers_discreet: bool = True
    held: bool = True
    topics: Sequence[Topic] = ()
    asked: bool = True


@dataclass(frozen=True, slots=True)
class _Topic:
    """A topic to rehearse with."""

    wanted: bool
    slug: str = "t"
    title: str = "T"
    titles: Mapping[str, str] = field(default_factory=dict)
    discreet_title: str = "U"


_STAND: Final = _Stand(
    _Sample(), topics=(_Topic(wanted=True), _Topic(wanted=False), _Topic(wanted=False, slug="u"))
)
_FACTS: Final = {"person": None, "lists": [{"title": "B", "at": None}]}
_SAMPLES: Final = (
    (_Sample(), Shown(voucher="v")),
    (_Sample(discreet=True), Shown(saved=True, kind="export", facts=_FACTS)),
    (_Sample(sender="", list_title="", test=True), Shown(kind="choices")),
    (_Sample(), Shown(kind="invite", opt_out="o", wrong=True)),
)


def digest(wording: str) -> str:
    """Return what a form carries to say which words its page has shown."""
    return hashlib.sha256(wording.encode()).hexdigest()[:32]


def _topics(choices: Choices | None, language: str, *, discreet: bool) -> Sequence[tuple[str, str, bool]]:
    """Return each topic's name, title and whether it is wanted; on a discreet page only neutral titles."""
    topics = choices.topics if choices else ()
    open_titles = ((each, each.titles.get(language) or each.title) for each in topics)
    titles = ((each, each.discreet_title) for each in topics) if discreet else open_titles
    return [(each.slug, title, each.wanted) for each, title in titles if title]


def _day(choices: Choices | None, language: str) -> str:
    """Return the day on which a pause ends, as its reader writes it; "" for none."""
    if choices is None or choices.paused_until is None:
        return ""
    ends = dt.datetime.fromtimestamp(choices.paused_until, dt.UTC)
    return date(ends.date().isoformat(), language, "long")


def _sentence(words: Mapping[str, str], key: str, **values: str) -> Markup:
    """Put values into one of the sentences, each kept apart from the direction of the text around it."""
    sentence = Markup.escape(words[key])
    isolated = {place: Markup("<bdi>{}</bdi>").format(value) for place, value in values.items()}
    return sentence % isolated if "%(" in sentence else sentence


def _file(files: Mapping[str, str], name: str) -> str:
    """Return one of the texts, or say which is missing."""
    try:
        return files[name]
    except KeyError as error:
        raise WrongUse(f"templates/web/{name} is missing") from error
