"""A letter: one mail of an appeal, from the bytes that would leave, taken apart once for every check.

Refuses: to judge anything, and real people: its reader is invented.
"""

import email
import email.policy
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from email.message import EmailMessage
from functools import cached_property
from typing import Any, Final

from lxml import etree
from lxml import html as lxml_html

from worker.content.checks import css
from worker.content.editions import COPY_PATH, Edition
from worker.content.rendering import PlainContent
from worker.content.versions import Version
from worker.post.parcels import Parcel

__all__ = ["Element", "Letter", "Link", "plain"]

#: lxml publishes no types.
Element = Any
_UNREAD: Final = frozenset({"head", "style", "script", "title", "template", "noscript"})
_INLINE: Final = frozenset(
    {"a", "abbr", "b", "bdi", "bdo", "code", "em", "i", "s", "small", "span", "strong"}
)
_URL: Final = re.compile(r"""(?:https?://|mailto:)[^\s<>"']+[^\s<>"'.,;:!?)\]]""")
_HIDDEN: Final = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)


def plain(text: str) -> str:
    """Return a text with every run of white space made one space."""
    return " ".join(text.split())


@dataclass(frozen=True, slots=True)
class Link:
    """One link of the HTML part."""

    #: where it leads, as written
    href: str
    #: what is seen of it: its text, or its pictures' alt
    text: str
    #: what a screen reader says instead; may be ""
    label: str


@dataclass(frozen=True)
class Letter:
    """One mail with all that it was made from."""

    #: what it was made from
    edition: Edition
    #: the appeal in this mail's language
    version: Version
    #: which language
    language: str
    #: whether it is the neutral form
    discreet: bool
    #: why the reader gets it, as its footer should say
    reason: str
    #: the fields of the invented reader
    fields: Mapping[str, str]
    #: what is seen before it is opened
    shown: PlainContent
    #: the mail and its envelope, as they would leave
    parcel: Parcel

    @property
    def form(self) -> str:
        """The mail's name for people, as in "ru, discreet"."""
        return f"{self.language}, discreet" if self.discreet else self.language

    @cached_property
    def message(self) -> EmailMessage:
        """The mail as a mail program reads it."""
        return email.message_from_bytes(bytes(self.parcel.data), policy=email.policy.default)

    @cached_property
    def head(self) -> bytes:
        """The header block."""
        return bytes(self.parcel.data).partition(b"\r\n\r\n")[0]

    @cached_property
    def headers(self) -> Sequence[tuple[str, str]]:
        """Every field in its order, unfolded but not decoded."""
        lines = re.sub(r"\r\n(?=[ \t])", "", self.head.decode("utf-8", "replace")).split("\r\n")
        return [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]

    def header(self, name: str) -> str:
        """Return a field's first value, not decoded; "" if there is none."""
        return next((value for known, value in self.headers if known.lower() == name.lower()), "")

    @cached_property
    def html(self) -> str:
        """The HTML part."""
        return self._part("html")

    @cached_property
    def text(self) -> str:
        """The text part, its lines ended by a line feed."""
        return self._part("plain").replace("\r\n", "\n")

    def _part(self, kind: str) -> str:
        body = self.message.get_body((kind,))
        return str(body.get_content()) if body else ""

    @cached_property
    def page(self) -> Element:
        """The HTML part's root element; an empty page where it holds nothing."""
        # Octets, because a text that names its encoding is refused.
        parser = lxml_html.HTMLParser(encoding="utf-8")
        try:
            return lxml_html.document_fromstring(self.html.encode("utf-8", "replace"), parser=parser)
        except etree.LxmlError:
            return lxml_html.document_fromstring("<p></p>")

    @cached_property
    def sheet(self) -> Sequence[css.Rule]:
        """The rules of the style sheets that were left after inlining."""
        return [rule for style in self.page.iter("style") for rule in css.rules(style.text or "")]

    @cached_property
    def seen(self) -> Sequence[Element]:
        """The elements that are shown, in order."""
        return list(_seen(self.page))

    @cached_property
    def words(self) -> str:
        """The HTML part's shown text, white space made one."""
        body = self.page.find("body")
        return plain("".join(_words(self.page if body is None else body)))

    @cached_property
    def links(self) -> Sequence[Link]:
        """The HTML part's links in their order, hidden ones too."""
        return [
            Link(str(each.get("href")).strip(), _said(each), plain(each.get("aria-label") or ""))
            for each in self.page.iter("a", "area")
            if each.get("href") is not None
        ]

    @cached_property
    def text_links(self) -> frozenset[str]:
        """What can be followed in the text part."""
        return frozenset(_URL.findall(self.text))

    @cached_property
    def opt_out_url(self) -> str:
        """Where one click opts out; "" if the mail does not say."""
        found = re.search(r"<(https?:[^<>]*)>", self.header("List-Unsubscribe"))
        return found[1] if found else ""

    @cached_property
    def copy_url(self) -> str:
        """Where its copy on the web is; "" for none."""
        start = self.edition.open.base_url + COPY_PATH
        return next((link.href for link in self.links if link.href.startswith(start)), "")


def _is_hidden(element: Element) -> bool:
    return element.tag in _UNREAD or bool(_HIDDEN.search(element.get("style") or ""))


def _seen(element: Element) -> Iterator[Element]:
    if isinstance(element.tag, str) and not _is_hidden(element):
        yield element
        for child in element:
            yield from _seen(child)


def _words(element: Element) -> Iterator[str]:
    """Yield the shown text; blocks stand apart."""
    if not isinstance(element.tag, str) or _is_hidden(element):
        return
    apart = "" if element.tag in _INLINE else " "
    yield apart + (element.text or "")
    for child in element:
        yield from _words(child)
        yield child.tail or ""
    yield apart


def _said(link: Element) -> str:
    alts = " ".join(image.get("alt") or "" for image in link.iter("img"))
    return plain(f"{''.join(_words(link))} {alts}")
