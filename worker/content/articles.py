"""A plain article (Markdown, text or a web page) read into its title and the blocks of an appeal's body.

Every form becomes HTML first, so that there is one reader. Refuses: files that are no text.
"""

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from html import escape
from typing import Any, Final

from markdown_it import MarkdownIt

from worker.content import clutter
from worker.content.blocks import BARE, TAKEN, Block, Writer, one_line, plain, tree
from worker.content.frontmatter import FORMAT
from worker.errors import WrongUse

_META_CHARSET: Final = re.compile(
    rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([A-Za-z0-9_:.-]{2,30})""", re.IGNORECASE
)
#: Codecs of real pages; Python has others that fail in ways of their own.
_CHARSETS: Final = re.compile(r"utf-8|cp12\d\d|iso8859-\d+|koi8-[ru]|shift_jis|euc_\w+|gb\w+|big5\w*|mac-\w+")
_MARKS: Final = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
#: What other programs put before Markdown.
_FRONT: Final = re.compile(
    r"---[ \t]*\n((?:[\w-]+:.*\n|[ \t].*\n|- .*\n|#.*\n|\n)*)(?:---|\.\.\.)[ \t]*(?:\n|\Z)"
)
_LANGUAGE: Final = re.compile("[a-z]{2,3}(-[A-Za-z0-9]{2,8})*")
_BULLET: Final = re.compile(r"[-*\u2022\u2013]\s+|\d{1,3}[.)]\s+")
_HEADLINE_MOST: Final = 70


class Form(StrEnum):
    """How an article is written."""

    MARKDOWN = "md"
    TEXT = "txt"
    HTML = "html"


@dataclass(slots=True)
class Article:
    """What was read."""

    #: its headline, plain; may be ""
    title: str = ""
    #: what it says of itself in a sentence, plain; may be ""
    summary: str = ""
    #: the language that it says it is in; may be ""
    language: str = ""
    #: what it says
    blocks: list[Block] = field(default_factory=list)
    #: addresses of links that were left out, as they stood
    lost: list[str] = field(default_factory=list)
    #: how many links begin with http and were made https
    upgraded: int = 0
    #: how many pictures were left out
    pictures: int = 0


def decode(data: bytes, form: Form) -> str:
    """Return the text of a file: by its mark, by what a page declares, as UTF-8, else as Windows-1252.

    Raises:
        WrongUse: it is no text.
    """
    named = next((codec for mark, codec in _MARKS if data.startswith(mark)), "")
    if not named and b"\x00" in data:
        raise WrongUse("the article is not a text file", remedy="Save it as .md, .txt or .html, in UTF-8.")
    declared = _META_CHARSET.search(data[:4096]) if form is Form.HTML else None
    for codec in (named, _codec(declared[1].decode()) if declared else "", "utf-8"):
        try:
            if codec:
                return data.decode(codec)
        except UnicodeDecodeError:
            continue
    return data.decode("cp1252", "replace")


def _codec(name: str) -> str:
    try:
        found = codecs.lookup(name).name
    except LookupError:
        return ""
    return found if _CHARSETS.fullmatch(found) else ""


def read(text: str, form: Form) -> Article:
    """Read an article; whatever it holds, something comes out."""
    kept = (
        c
        for c in text.replace("\r\n", "\n").replace("\r", "\n")
        if c.isprintable() or c in "\n\t" or c in FORMAT
    )
    return _Reader().read("".join(kept), form)


class _Reader:
    """Reads one article."""

    def __init__(self) -> None:
        self._article = Article()
        self._base = ""

    def read(self, text: str, form: Form) -> Article:
        article = self._article
        if form is Form.MARKDOWN:
            markdown = MarkdownIt("commonmark", {"html": True}).enable("table")
            text = markdown.render(self._front_matter(text))
        elif form is Form.TEXT:
            text = "".join(_marked_up(text))
        root = tree(text)
        if root is None:
            return article
        if form is Form.HTML:
            self._head(root)
        clutter.tidy(root)
        main = _main(root)
        title = next(main.iter("h1"), None)
        if title is not None and (said := plain(title)):
            article.title = said
            title.tag = TAKEN
        writer = Writer(self._base)
        article.blocks = writer.blocks(main)
        article.lost, article.upgraded, article.pictures = writer.lost, writer.upgraded, writer.pictures
        return article

    def _front_matter(self, text: str) -> str:
        """Take off what other programs put before Markdown, and keep the title of it."""
        found = _FRONT.match(text.lstrip("\ufeff\n"))
        if not found:
            return text
        facts = dict(re.findall(r"(?m)^(title|description|lang):[ \t]*[\"']?(.*?)[\"']?[ \t]*$", found[1]))
        self._article.title, self._article.summary = facts.get("title", ""), facts.get("description", "")
        self._speaks(facts.get("lang", ""))
        return text.lstrip("\ufeff\n")[found.end() :]

    def _speaks(self, language: str) -> None:
        if _LANGUAGE.fullmatch(language):
            self._article.language = language

    def _head(self, root: Any) -> None:  # noqa: ANN401 - lxml has no types
        """Take what a page says of itself."""
        named = {
            (each.get("property") or each.get("name") or "").lower(): one_line(each.get("content") or "")
            for each in root.iter("meta")
        }
        title = one_line(root.findtext(".//title") or "").partition(" | ")[0]
        self._article.title = named.get("og:title") or title
        self._article.summary = named.get("description") or named.get("og:description") or ""
        self._speaks(root.get("lang") or "")
        canonical = root.xpath("//link[@rel='canonical']/@href") + root.xpath("//base/@href")
        self._base = next(iter([*canonical, named.get("og:url", "")]), "")


def _main(root: Any) -> Any:  # noqa: ANN401 - lxml has no types
    """Choose what of a page is the article."""
    for path in ("//article", "//main", "//*[@role='main']", "//body"):
        found = root.xpath(path)
        if len(found) == 1:
            return found[0]
    return root


def _marked_up(text: str) -> Iterator[str]:
    """Write plain text as HTML: headings are short lines alone or underlined, lists begin with a sign."""
    groups = [
        group.split("\n") for group in re.split(r"\n[ \t]*(?:\n[ \t]*)+", text.strip()) if group.strip()
    ]
    for position, lines in enumerate(groups):
        tag = _heading_tag(lines, first=position == 0, last=position == len(groups) - 1)
        if tag:
            yield f"<{tag}>{escape(lines[0])}</{tag}>"
        rest = lines[2:] if tag else lines
        if rest and all(_BULLET.match(line.strip()) or line.startswith("  ") for line in rest):
            yield from _listed(rest)
        elif rest:
            yield f"<p>{escape(' '.join(rest))}</p>"


def _heading_tag(lines: list[str], *, first: bool, last: bool) -> str:
    underline = lines[1].strip() if len(lines) > 1 else ""
    if len(underline) > 2 and set(underline) in ({"="}, {"-"}):  # noqa: PLR2004 - a line, not a dash
        return "h1" if underline[0] == "=" else "h2"
    alone = len(lines) == 1 and not last and not _BULLET.match(lines[0].strip())
    if not alone or BARE.search(lines[0]):
        return ""
    if first:
        return "h1" if len(lines[0]) < 2 * _HEADLINE_MOST else ""
    return "h2" if len(lines[0]) < _HEADLINE_MOST and lines[0].rstrip()[-1] not in ".,;:!\u2026" else ""


def _listed(lines: list[str]) -> Iterator[str]:
    ordered = lines[0].strip()[0].isdigit()
    yield "<ol>" if ordered else "<ul>"
    item = ""
    for line in lines:
        if begun := _BULLET.match(line.strip()):
            yield f"<li>{escape(item)}</li>" if item else ""
            item = line.strip()[begun.end() :]
        else:
            item += f" {line.strip()}"
    yield f"<li>{escape(item)}</li>" + ("</ol>" if ordered else "</ul>")
