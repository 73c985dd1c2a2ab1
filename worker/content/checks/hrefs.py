"""Links and pictures: whether each leads where it says, can be followed, and gives nobody away.

Refuses: to follow a link (soundings do).
"""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

from worker.content.checks.findings import Finding, Rule, Severity
from worker.content.checks.letters import Letter, Link
from worker.content.networks import NETWORKS

__all__ = [
    "RULES",
    "duplicate",
    "faulty",
    "fetchable",
    "is_share",
    "named",
    "personal",
    "pictures",
    "placeholder",
    "where",
]

SYNTAX: Final = Rule(
    "links.syntax", Severity.ERROR, "a link that cannot be read", "Write it whole: https://example.org/page."
)
SCHEME: Final = Rule(
    "links.scheme", Severity.ERROR, "a link that is neither https nor mailto", "Link to an https address."
)
PLACEHOLDER: Final = Rule(
    "links.placeholder",
    Severity.ERROR,
    "a link with a placeholder that nothing filled in",
    "Put the real address, or a merge field that people have.",
)
SHORTENER: Final = Rule(
    "links.shortener",
    Severity.ERROR,
    "a link shortener, which hides the target and counts readers",
    "Link to the page itself.",
)
DISGUISED: Final = Rule(
    "links.disguised",
    Severity.ERROR,
    "a visible address that is not where the link leads",
    "Show the address it leads to, or words.",
)
EMPTY: Final = Rule(
    "links.empty", Severity.ERROR, "a link without any words", "Give it words, or its picture an alt text."
)
VAGUE: Final = Rule(
    "links.vague",
    Severity.WARNING,
    'a link that says only "click here"',
    "Let its words say what it leads to: screen readers list links alone.",
)
PERSONAL: Final = Rule(
    "links.personal",
    Severity.WARNING,
    "a link that tells the site something about the reader",
    "Take the merge field out of the link.",
)
DUPLICATE: Final = Rule(
    "links.duplicate",
    Severity.WARNING,
    "the same address behind different words",
    "Give each its own source code, as in ?src=report-button.",
)
LOCAL: Final = Rule(
    "links.local", Severity.NOTE, "a link to this machine", "Set web.base_url before a real campaign."
)
ALT: Final = Rule(
    "images.alt", Severity.ERROR, "a picture without alt", 'Describe it, or write alt="" for an ornament.'
)
SIZE: Final = Rule(
    "images.size",
    Severity.WARNING,
    "a picture without width and height",
    "Give both, so that nothing jumps while it loads.",
)
REMOTE: Final = Rule(
    "images.remote",
    Severity.WARNING,
    "a picture from a server, which is told who opens the mail",
    "Leave it out: nothing may watch the reader.",
)
RESIZED: Final = Rule(
    "images.resized",
    Severity.WARNING,
    "a picture larger than a mail can show, which leaves smaller",
    "Nothing, if it looks well; else save it 1056 pixels wide.",
)
HEAVY: Final = Rule(
    "images.heavy",
    Severity.WARNING,
    "pictures and attachments over 500 KB, a wait on a poor line and a cost to some",
    "Use fewer or smaller ones, or link to them.",
)
RULES: Final = (
    *(SYNTAX, SCHEME, PLACEHOLDER, SHORTENER, DISGUISED, EMPTY, VAGUE, PERSONAL, DUPLICATE, LOCAL),
    *(ALT, SIZE, REMOTE, RESIZED, HEAVY),
)

#: Hosts that only lead elsewhere. As known on 2026-11-22.
SHORTENERS: Final = frozenset(
    {
        *("adf.ly", "bit.do", "bit.ly", "bitly.com", "bl.ink", "buff.ly", "clck.ru", "cutt.ly"),
        *("dlvr.it", "fb.me", "goo.gl", "goo.su", "ht.ly", "ift.tt", "is.gd", "j.mp"),
        *("lnk.to", "lnkd.in", "ow.ly", "qr.ae", "rb.gy", "rebrand.ly", "s.id", "shorturl.at"),
        *("short.io", "smarturl.it", "t.co", "t.ly", "tiny.cc", "tinyurl.com", "tr.im", "trib.al"),
        *("u.to", "urlz.fr", "v.gd", "vk.cc", "x.co"),
    }
)
#: What mail tools and tired people leave behind: {{ x }}, {% x %}, %recipient%, *|FNAME|*, ${x}, [[x]], %7B.
HOLE: Final = re.compile(
    r"\{\{|\}\}|\{%|%\}|\{[a-z_]{2,}\}|\*?\|[A-Z][A-Z:_0-9]+\|\*?|%%?(?![0-9a-f]{2})[a-z][a-z_]{2,}%%?"
    r"|\$\{\w+\}|\[\[\w+\]\]|%7B",
    re.IGNORECASE,
)
_STAND_IN: Final = re.compile(r"[/=.?&](?:todo|tbc|tbd|xxx+|changeme|(?:your|insert)-link)\b", re.IGNORECASE)
_ADDRESS: Final = re.compile(r"(?:https?://)?((?:[a-z0-9-]+\.)+[a-z]{2,})(?:[/:?#]\S*)?", re.IGNORECASE)
_HOST: Final = re.compile(r"(?=.{1,253}\Z)(?:[a-z0-9_-]{1,63}\.)+[a-z][a-z0-9-]*", re.IGNORECASE)
_SHARES: Final = tuple(each.pattern.partition("{")[0] for each in NETWORKS.values())
#: Octets, as they leave.
_HEAVY: Final = 500_000
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_VAGUE: Final = frozenset(
    {"click here", "click", "here", "link", "more", "read more", "this", "this link", "go", "learn more"}
    | {
        "сюда",
        "тут",
        "здесь",
        "нажмите здесь",
        "подробнее",
        "ссылка",
        "далее",
        "hier",
        "mehr",
        "hier klicken",
    }
    | {"ici", "cliquez ici", "en savoir plus", "aquí", "haga clic aquí", "más", "هنا", "اضغط هنا", "المزيد"}
)
#: Fields shorter than this stand in many a link by chance.
_TELLING_LENGTH: Final = 3


def _parts(link: str) -> SplitResult | None:
    try:
        parts = urlsplit(link)
        _ = parts.port  # which is read, and may fail, only when asked for
    except ValueError:
        return None
    return parts


def _host(link: str) -> str:
    parts = _parts(link)
    return (parts.hostname or "").lower() if parts else ""


def _shown(link: str) -> str:
    return link if len(link) <= 60 else f"{link[:59]}…"  # noqa: PLR2004 - fits a line beside what is said of it


def faulty(letter: Letter) -> Iterator[Finding]:
    """Find links that cannot be read, or are not https."""
    for link in dict.fromkeys(one.href for one in letter.links):
        parts = _parts(link)
        if HOLE.search(link):
            continue
        if not link or link.startswith("#") or parts is None or any(map(str.isspace, link)):
            yield SYNTAX.found(f"{_shown(link) or 'an empty link'} leads nowhere", "HTML")
        elif link == letter.opt_out_url and parts.hostname in _LOOPBACK:
            yield LOCAL.found(f"the opt-out link leads to {parts.hostname}", "HTML")
        elif link == letter.copy_url and parts.hostname in _LOOPBACK:
            yield LOCAL.found(f"the link to the copy leads to {parts.hostname}", "HTML")
        elif parts.scheme not in {"https", "mailto"}:
            yield SCHEME.found(f"{_shown(link)} is not https", "HTML")
        elif parts.scheme == "https" and (not _HOST.fullmatch(parts.hostname or "") or "@" in parts.netloc):
            yield SYNTAX.found(f"{_shown(link)} does not name a host", "HTML")


def placeholder(letter: Letter) -> Iterator[Finding]:
    """Find links that hold what somebody should have filled in."""
    for link in sorted({one.href for one in letter.links} | letter.text_links):
        # What an escape stands for is data: a query may well hold "%7B", but then not as a pair.
        if HOLE.search(link) or _STAND_IN.search(link):
            yield PLACEHOLDER.found(f"{_shown(link)} is not filled in", "HTML")


def where(letter: Letter) -> Iterator[Finding]:
    """Find links that hide where they lead: by a shortener, or behind another address."""
    told = {}
    for link in letter.links:
        host = _host(link.href)
        if host.removeprefix("www.") in SHORTENERS:
            told[link.href] = SHORTENER.found(f"{_shown(link.href)} hides where it leads", "HTML")
        address = _ADDRESS.fullmatch(link.text)
        if address and host and address[1].lower().removeprefix("www.") != host.removeprefix("www."):
            yield DISGUISED.found(f"{_shown(link.text)} leads to {host}", "HTML")
    yield from told.values()


def named(letter: Letter) -> Iterator[Finding]:
    """Find links whose words tell nothing."""
    for link in letter.links:
        said = (link.label or link.text).strip(" .:!»→>").casefold()
        if not said:
            yield EMPTY.found(f"the link to {_shown(link.href)} has no words", "HTML")
        elif said in _VAGUE:
            yield VAGUE.found(f"a link says only “{link.label or link.text}”", "HTML")


def personal(letter: Letter) -> Iterator[Finding]:
    """Find links that carry a field of the reader, or their address."""
    own = {value for value in letter.fields.values() if len(value) >= _TELLING_LENGTH}
    for link in letter.links:
        if link.href == letter.opt_out_url:
            continue
        held = unquote(link.href)
        if letter.parcel.recipient in held or any(value in held for value in own):
            yield PERSONAL.found(f"the link “{link.text}” carries a merge field", "HTML")


def duplicate(letter: Letter) -> Iterator[Finding]:
    """Find addresses that several links of the mail lead to."""
    words: dict[str, dict[str, None]] = {}
    for link in letter.links:
        words.setdefault(link.href, {})[link.text] = None
    ours = (letter.edition.organisation.website, letter.edition.organisation.privacy_url)
    counted = Counter({href: len(each) for href, each in words.items() if href not in ours})
    for href, count in counted.items():
        if count > 1:
            yield DUPLICATE.found(f"{count} links lead to {_shown(href)}", "HTML")


def pictures(letter: Letter) -> Iterator[Finding]:
    """Find pictures that say nothing, shift the page, or tell on the reader."""
    for image in letter.page.iter("img"):
        source = str(image.get("src") or "")
        if image.get("alt") is None:
            yield ALT.found(f"the picture {_shown(source)} has no alt", "HTML")
        if image.get("width") is None or image.get("height") is None:
            yield SIZE.found(f"the picture {_shown(source)} has no width and height", "HTML")
        if source.lower().startswith(("http:", "https:", "//")):
            yield REMOTE.found(f"the picture {_shown(source)} is loaded from a server", "HTML")
    enclosed, version = letter.edition.enclosed, letter.version
    for path in version.pictures:
        if version.linked_images:  # in a mail to look at they are embedded
            yield REMOTE.found(f"the picture {path} is loaded from your pages", "HTML")
        if (picture := enclosed.pictures[path]).resized:
            sizes = [f"{width} x {height}" for width, height in (picture.was, picture.has)]
            yield RESIZED.found(f"{path} has {sizes[0]} pixels and leaves with {sizes[1]}", "HTML")
    octets = sum(len(enclosed.attachments[path].encoded) for path in version.attachments)
    octets += sum(len(enclosed.pictures[path].encoded) for path in version.pictures)
    if octets > _HEAVY and not version.linked_images:
        yield HEAVY.found(f"they are {octets // 1000:,} KB in base64", "mail")


def is_share(link: Link) -> bool:
    """Tell whether a link opens a ready post, which the text part holds as words."""
    return link.href.startswith(_SHARES)


def fetchable(letter: Letter) -> Iterator[Link]:
    """Yield the links that can be fetched: https, each once; not our own opt-out.

    Nor ready posts: a network would be told before the day what the appeal says.
    """
    met = {letter.opt_out_url, letter.copy_url}
    for link in letter.links:
        if link.href not in met and link.href.startswith("https://") and not is_share(link):
            met.add(link.href)
            yield link
