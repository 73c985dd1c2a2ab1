"""One language of an appeal: its front matter and body, read and checked.

Refuses: keys it does not know, links that are not https or mailto, and a discreet form that tells.
"""

import itertools
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType
from typing import Final
from urllib.parse import unquote

from worker.content import additions, expressions, frontmatter, links, sources
from worker.content.expressions import Holes
from worker.content.frontmatter import Note, Section
from worker.content.locales import is_currency
from worker.content.markdown import Document
from worker.content.networks import NETWORKS, network_faults, share_faults

_MOST_BODY: Final = 60_000
_MOST_LINK: Final = 2_000
_DEFAULT: Final = "default"
_TOPIC: Final = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_PUNYCODE: Final = re.compile(r"\bxn--([a-z0-9-]+)", re.IGNORECASE)
#: Unicode's categories of marks that belong to a letter, and of signs without a look.
_UNSEEN: Final = frozenset({"Mn", "Cf"})
_LINE_END: Final = re.compile("\r\n?")


class Kind(StrEnum):
    """What an action asks the reader to do."""

    READ = "read"
    WATCH = "watch"
    SHARE = "share"
    DONATE = "donate"
    SIGN = "sign"
    WRITE_TO = "write-to"


@dataclass(frozen=True, slots=True)
class Goal:
    """How far a collection has come; the same for everybody."""

    #: so much there is
    reached: Decimal
    #: so much is wanted; more than nought
    of: Decimal
    #: its ISO 4217 code; "" where something else is counted
    currency: str

    @property
    def percent(self) -> int:
        """How much of it is there, in whole hundredths from 0 to 100; all of it only when it is all there."""
        return min(100, int(100 * self.reached / self.of))


@dataclass(frozen=True, slots=True)
class Action:
    """One thing the reader can do. Its texts and link may hold Jinja; its share texts may not."""

    #: what it asks
    kind: Kind
    #: what to do, beginning with a verb
    text: str
    #: where it is done
    link: str
    #: whether it is the one with the button
    main: bool
    #: the button's label; "" for the look's word for the kind
    button: str
    #: a sentence more; may be ""
    note: str
    #: what the reader will meet behind the link; may be ""
    content_warning: str
    #: text ready to post, by network
    share: Mapping[str, str]
    #: how far it has come; None where that is not told
    goal: Goal | None = None


@dataclass(frozen=True, slots=True)
class Discreet:
    """What a mail shows before it is opened, for people who must not be seen to get it."""

    #: its Subject
    subject: str
    #: the line that mailbox lists show after it
    preheader: str
    #: the display name it comes from
    sender: str
    #: the headline within; "" for the subject
    headline: str
    #: links to put for others, whose addresses would tell
    links: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Version:
    """The appeal in one language. Every text but the sender's may hold Jinja."""

    #: its Subject
    subject: str
    #: the line that mailbox lists show after it
    preheader: str
    #: the display name it comes from; "" for the organisation's
    sender: str
    #: the headline within; "" for the subject
    headline: str
    #: what stands before anything distressing; may be ""
    content_warning: str
    #: why the reader gets this; "" for the look's words
    reason: str
    #: the heading over the actions; "" for the look's words
    question: str
    #: what the reader can do, in order; exactly one is main
    actions: tuple[Action, ...]
    #: the discreet form; None for the look's neutral words
    discreet: Discreet | None
    #: whether readers of other languages get this one
    default: bool
    #: what marks its links, "" for nothing (worker.content.sources)
    source: str
    #: what it is about, by slugs: readers may have said no to one
    topics: tuple[str, ...]
    #: whether its links lead by our own pages, which count how often each is followed
    count_links: bool
    #: whether the open form links to a copy on the web
    view_in_browser: bool
    #: whether pictures lie on our pages, and not in the mail itself
    linked_images: bool
    #: pictures in the body, by their path in the appeal's folder, in their order
    pictures: tuple[str, ...]
    #: files that go along with the open form, by their path in the appeal's folder
    attachments: tuple[str, ...]
    #: header fields of its own; the discreet form has none
    headers: Mapping[str, str]
    #: words that must not be seen from outside the discreet form
    telling_words: tuple[str, ...]
    #: Markdown
    body: str

    def texts(self) -> Iterator[str]:
        """Yield every text of the author's."""
        yield from (self.subject, self.preheader, self.sender, self.headline, self.content_warning)
        yield from (self.reason, self.question, self.body)
        for action in self.actions:
            yield from (action.text, action.link, action.button, action.note, action.content_warning)
            yield from action.share.values()
        if self.discreet:
            discreet = self.discreet
            yield from (discreet.subject, discreet.preheader, discreet.sender, discreet.headline)
            yield from (*discreet.links, *discreet.links.values())


def read(text: str, note: Note) -> Version | None:
    """Read a version, noting all that is wrong; None when there is no front matter to read."""
    parted = frontmatter.split(_LINE_END.sub("\n", text.removeprefix("\ufeff")), note)
    if parted is None:
        return None
    front, body, line = parted
    top = frontmatter.read(front, note)
    if top is None:
        return None
    return _Reader(note).version(top, body, line)


class _Reader:
    """Reads one file; remembers the links it met, for the discreet form to be checked against."""

    def __init__(self, note: Note) -> None:
        self._note = note
        self._links: list[tuple[int, str]] = []
        self._pictures: list[str] = []
        self._shared_to: tuple[str, ...] = ()

    def version(self, top: Section, body: str, line: int) -> Version:
        """Read everything, in the order that the discreet form needs."""
        telling_words = top.texts("telling_words", most=60)
        self._shared_to = self._networks(top)
        self._check_body(body, line)
        version = Version(
            subject=self._text(top, "subject", 150, required=True),
            preheader=self._text(top, "preheader", 150, required=True),
            sender=self._fixed(top, "sender", 80),
            headline=self._text(top, "headline", 200),
            content_warning=self._text(top, "content_warning", 500, line=False),
            reason=self._text(top, "reason", 500, line=False),
            question=self._text(top, "question", 150),
            actions=self._actions(top),
            discreet=self._discreet(top, telling_words),
            default=top.flag("default"),
            source=self._source(top, telling_words),
            topics=self._topics(top),
            count_links=top.flag("count_links"),
            view_in_browser=top.flag("view_in_browser"),
            linked_images=self._images(top) == "linked",
            pictures=tuple(dict.fromkeys(self._pictures)),
            attachments=self._attachments(top),
            headers=MappingProxyType(self._headers(top)),
            telling_words=telling_words,
            body=body,
        )
        top.close()
        return version

    def _source(self, top: Section, telling_words: tuple[str, ...]) -> str:
        source = top.text("source", most=100)
        for fault in sources.faults(source):
            top.tell("source", f'"source" {fault}')
        if word := telling(source, telling_words):
            top.tell("source", f'"source" tells "{word}", and stands in the links of the discreet form too')
        return source

    def _text(
        self, section: Section, key: str, most: int, *, required: bool = False, line: bool = True
    ) -> str:
        text = section.text(key, most=most, required=required, line=line)
        for fault in expressions.faults(text):
            section.tell(key, f'"{key}": {fault.message}')
        return text

    def _fixed(self, section: Section, key: str, most: int, *, required: bool = False) -> str:
        text = section.text(key, most=most, required=required)
        if not expressions.plain(text):
            section.tell(key, f'"{key}" must be the same for everyone: no braces here')
        return text

    def _link(self, section: Section) -> str:
        link = section.text("link", most=_MOST_LINK, required=True)
        if link:
            self._met(section.file_line("link"), '"link"', link)
        return link

    def _actions(self, top: Section) -> tuple[Action, ...]:
        actions = tuple(self._action(section) for section in top.groups("actions"))
        main = sum(action.main for action in actions)
        if main != 1:
            top.tell("actions", f'exactly one of "actions" must have "main: true" (the button), not {main}')
        return actions

    def _action(self, section: Section) -> Action:
        kind = section.text("kind", most=20, required=True)
        if kind and kind not in set(Kind):
            section.tell("kind", f'"{kind}" is no kind of action: choose {", ".join(Kind)}')
        action = Action(
            kind=Kind(kind) if kind in set(Kind) else Kind.READ,
            text=self._text(section, "text", 150, required=True),
            link=self._link(section),
            main=section.flag("main"),
            button=self._text(section, "button", 60),
            note=self._text(section, "note", 500, line=False),
            content_warning=self._text(section, "content_warning", 500, line=False),
            share=MappingProxyType(self._share(section)),
            goal=self._goal(section),
        )
        if action.share and not expressions.plain(action.link):
            section.tell("link", "a link to share must be the same for everyone")
        section.close()
        return action

    def _goal(self, action: Section) -> Goal | None:
        section = action.group("goal")
        if section is None:
            return None
        reached, of = section.number("reached", required=True), section.number("of", required=True)
        currency = section.text("currency", most=3)
        if currency and not is_currency(currency):
            section.tell("currency", f'"{currency}" is no currency: write GBP, EUR or the like')
        if of == 0:
            section.tell("of", '"of" must be more than 0')
        section.close()
        return Goal(reached, of, currency) if reached is not None and of else None

    def _networks(self, top: Section) -> tuple[str, ...]:
        """Read the networks to share to: those named, or all."""
        named = top.texts("networks", most=20)
        for slug in named:
            for fault in network_faults(slug):
                top.tell("networks", fault)
        return named or tuple(NETWORKS)

    @staticmethod
    def _images(top: Section) -> str:
        how = top.text("images", most=20) or "embedded"
        if how not in {"embedded", "linked"}:
            top.tell("images", '"images" is either embedded or linked')
        return how

    @staticmethod
    def _attachments(top: Section) -> tuple[str, ...]:
        named = top.texts("attachments", most=150)
        for fault in itertools.chain.from_iterable(map(additions.attachment_faults, named)):
            top.tell("attachments", fault)
        return named

    def _headers(self, top: Section) -> dict[str, str]:
        """Read header fields of the appeal's own, the same for everybody."""
        said = {}
        for name, value, line in top.pairs("headers", most=500):
            for fault in additions.header_faults(name, value):
                self._note(line, fault)
            if not expressions.plain(value):
                self._note(line, f'"{name}" must be the same for everyone: no braces here')
            said[name] = value
        return said

    @staticmethod
    def _topics(top: Section) -> tuple[str, ...]:
        """Read the topics that readers may have said no to."""
        named = top.texts("topics", most=64)
        for slug in named:
            if not _TOPIC.fullmatch(slug):
                top.tell("topics", f'"{slug}" is no topic: small letters, digits and hyphens')
        return named

    def _share(self, section: Section) -> dict[str, str]:
        """Read one text for all networks, or texts by network, where "default" is for those not named."""
        if section.is_text("share"):
            said = {_DEFAULT: (section.text("share", most=1000), section.file_line("share"))}
        else:
            said = {slug: (text, line) for slug, text, line in section.pairs("share", most=1000)}
        default = said.pop(_DEFAULT, ("", 0))
        said = {**(dict.fromkeys(self._shared_to, default) if default[0] else {}), **said}
        for slug, (text, line) in said.items():
            for fault in share_faults(slug, text):
                self._note(line, fault)
        return {slug: text for slug, (text, _) in said.items()}

    def _discreet(self, top: Section, telling_words: tuple[str, ...]) -> Discreet | None:
        section = top.group("discreet")
        replaced = {} if section is None else self._replaced(section)
        for line, link in self._links:
            if word := telling(unveiled(replaced.get(link, link)), telling_words):
                self._note(line, f'this link tells "{word}": put another for it under "links" of "discreet"')
        if section is None:
            return None
        discreet = Discreet(
            subject=self._text(section, "subject", 150, required=True),
            preheader=self._text(section, "preheader", 150, required=True),
            sender=self._fixed(section, "sender", 80, required=True),
            headline=self._text(section, "headline", 200),
            links=MappingProxyType(replaced),
        )
        for key in ("subject", "preheader", "sender", "headline"):
            if word := telling(getattr(discreet, key), telling_words):
                section.tell(key, f'"{key}" of the discreet form tells "{word}"')
        section.close()
        return discreet

    def _replaced(self, section: Section) -> dict[str, str]:
        """Read the links that the discreet form puts for others, each of which must occur."""
        replaced = {}
        known = {link for _, link in self._links}
        for link, other, line in section.pairs("links", most=_MOST_LINK):
            if links.fault(link) or links.normal(link) not in known:
                self._note(line, "this link stands nowhere in the appeal")
            elif fault := links.fault(other):
                self._note(line, f"the link put for it {fault}")
            else:
                replaced[links.normal(link)] = links.normal(other)
        return replaced

    def _check_body(self, body: str, start: int) -> None:
        """Check the body, which begins on that line of the file, and remember its links."""
        if len(body) > _MOST_BODY:
            self._note(start, f"the body is over {_MOST_BODY:,} characters long")
            return
        faults = list(expressions.faults(body))
        for fault in faults:
            self._note(start + fault.line - 1, fault.message)
        if faults:
            return
        holes = Holes([body])
        document = Document(holes.hide(body), holes.statements)
        for line, message in document.faults():
            self._note(start + line - 1, message)
        for line, path, alt in document.pictures():
            if wrong := _picture_fault(holes.restore(path), alt):
                self._note(start + line - 1, wrong)
            self._pictures.append(path)
        for line, hidden in document.links():
            self._met(start + line - 1, "this link", holes.restore(hidden))

    def _met(self, line: int, name: str, link: str) -> None:
        if fault := links.fault(link):
            self._note(line, f"{name} {fault}: {link[:80]}")
        else:
            self._links.append((line, links.normal(link)))


def _picture_fault(path: str, alt: str) -> str:
    if not additions.is_file(path, additions.PICTURES):
        return f"{path[:80]} must be a file of the appeal's own, as in {additions.PICTURES}clinic.jpg"
    return "" if alt.strip() else f"{path} says nothing to who cannot see it: ![what it shows]({path})"


def telling(text: str, words: tuple[str, ...]) -> str | None:
    """Name the first of the words that a text holds, in any case, with or without accents."""
    folded = _folded(text)
    return next((word for word in words if (sought := _folded(word)) and sought in folded), None)


def unveiled(link: str) -> str:
    """Return a link as its readers may see it: percent signs and Punycode decoded."""
    return _PUNYCODE.sub(_decoded, unquote(link))


def _decoded(label: re.Match[str]) -> str:
    try:
        return label[1].encode().decode("punycode")
    except UnicodeError:
        return label[0]


def _folded(text: str) -> str:
    """Fold case and drop accents, vowel points and what is not seen: links are often written without."""
    letters = unicodedata.normalize("NFKD", text).casefold()
    return "".join(each for each in letters if unicodedata.category(each) not in _UNSEEN)
