"""The blocks of an HTML tree, each as the Markdown of an appeal's body.

What comes out is this module's own Markdown: a page's characters are escaped one by one, none is copied.
Refuses: scripts, styles, forms, navigation and whatever is hidden; pictures (each leaves a note); links that
no mail may hold; and to let a brace become Jinja.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urljoin

from lxml import etree
from lxml import html as lxml_html
from markdown_it import MarkdownIt

from worker.content import links
from worker.content.markup import paragraph, safe_code, safe_text

#: The tag of what was taken out of a tree.
TAKEN: Final = "x-taken"
#: An address that stands in a text as it is.
BARE: Final = re.compile(r"https?://[^\s<>\"]*[^\s<>\".,;:!?')\]}]")
#: Elements that are no part of what an article says.
_DROPPED: Final = frozenset(
    {"script", "style", "noscript", "template", "head", "nav", "footer", "aside", "form", "button", "input"}
    | {"select", "textarea", "iframe", "object", "embed", "svg", "math", "canvas", "audio", "video", "dialog"}
)
_INLINE: Final = frozenset(
    {
        "a",
        "abbr",
        "b",
        "bdi",
        "bdo",
        "br",
        "cite",
        "code",
        "del",
        "dfn",
        "em",
        "font",
        "i",
        "img",
        "ins",
        "kbd",
    }
    | {
        "label",
        "mark",
        "picture",
        "q",
        "s",
        "samp",
        "small",
        "span",
        "strong",
        "sub",
        "sup",
        "time",
        "u",
        "var",
    }
    | {"wbr"}
)
_STRONG: Final = MappingProxyType({"b": "**", "strong": "**", "em": "*", "i": "*"})
_HEADING: Final = re.compile("h[1-6]")
_SPACE: Final = re.compile(r"\s+")
#: Stands for a line break within a paragraph; no text that is read holds it.
_BREAK: Final = "\x00"
#: What would end a link in Markdown, begin something in Jinja, or be read as a character of another name.
_UNSAFE: Final = re.compile(r"[\s<>(){}\\\"'|^`]|&(?=#?\w{1,32};)", re.ASCII)
_MOST_LINK: Final = 1000
_DEEPEST: Final = 60


@dataclass(frozen=True, slots=True)
class Link:
    """A link of the article that a mail may hold."""

    #: what it stands on, plain
    text: str
    #: where it leads
    href: str


@dataclass(frozen=True, slots=True)
class Item:
    """One item of a list."""

    #: plain, in one line
    text: str
    #: those in it
    links: tuple[Link, ...]


@dataclass(frozen=True, slots=True)
class Block:
    """One block of the article, in order."""

    #: as an appeal's body has it
    markdown: str
    #: plain, in one line
    text: str
    #: of a heading: its level in the article; else 0
    level: int = 0
    #: of a list: its items
    items: tuple[Item, ...] = ()
    #: all links in it
    links: tuple[Link, ...] = ()


class Writer:
    """Writes the blocks of one tree, and remembers what could not come along."""

    def __init__(self, base: str = "") -> None:
        """Take the address that relative links start from; may be "" or nonsense."""
        #: addresses of links that were left out, as they stood
        self.lost: list[str] = []
        #: how many links began with http and were made https
        self.upgraded = 0
        #: how many pictures were left out
        self.pictures = 0
        self._base = base
        self._links: list[Link] = []
        self._notes: list[str] = []
        self._markdown = MarkdownIt("commonmark")
        #: the headings that the next one may stand under: level in the article, level in the appeal
        self._above: list[tuple[int, int]] = []

    def blocks(self, element: Any) -> list[Block]:  # noqa: ANN401 - lxml has no types
        """Return the blocks within an element."""
        return list(self._blocks(element, 0))

    def _blocks(self, parent: Any, depth: int) -> Iterator[Block]:  # noqa: ANN401 - lxml has no types
        """Yield the blocks within an element; what stands between them in a line is a paragraph."""
        run = [self._words(parent.text)]
        for child in parent:
            if _is_line(child):
                run.append(self._inline(child, depth))
            elif _is_said(child):
                yield from self._paragraph(run)
                yield from self._block(child, depth + 1)
                run = []
            run.append(self._words(child.tail))
        yield from self._paragraph(run)

    def _block(self, element: Any, depth: int) -> Iterator[Block]:  # noqa: ANN401 - lxml has no types
        tag = element.tag
        if depth > _DEEPEST:
            yield from self._paragraph([self._words(plain(element))])
        elif _HEADING.fullmatch(tag):
            yield from self._heading(element, depth)
        elif tag in {"ul", "ol"}:
            yield from self._list(element, depth)
        elif tag == "blockquote":
            inner = list(self._blocks(element, depth))
            if inner:
                quoted = "\n".join(f"> {line}".rstrip() for line in _joined(inner).split("\n"))
                yield Block(quoted, _text_of(inner), links=_links_of(inner))
        elif tag == "pre":
            if (code := "".join(element.itertext()).strip("\n")).strip():
                yield Block(safe_code(code), one_line(code))
        elif tag == "hr":
            yield Block("* * *", "")
        elif tag == "tr":
            cells = (plain(cell) for cell in element if _is_said(cell))
            yield from self._paragraph([self._words(" \u00b7 ".join(filter(None, cells)))])
        else:
            yield from self._blocks(element, depth)

    def _heading(self, element: Any, depth: int) -> Iterator[Block]:  # noqa: ANN401 - lxml has no types
        level = int(element.tag[1])
        for one in self._paragraph([self._line(element, depth).replace(_BREAK, " ")], wrap=False):
            if not one.text:
                yield one
                continue
            while self._above and self._above[-1][0] >= level:
                self._above.pop()
            shown = (self._above[-1][1] if self._above else 1) + 1
            self._above.append((level, shown))
            # Signs at the end would be taken for the heading's own.
            said = one.markdown.rstrip("#")
            said += r"\#" * (len(one.markdown) - len(said))
            yield Block(f"{'#' * shown} {said}", one.text, level, links=one.links)

    def _list(self, element: Any, depth: int) -> Iterator[Block]:  # noqa: ANN401 - lxml has no types
        written: list[str] = []
        items: list[Item] = []
        for child in element:
            inner = list(self._blocks(child, depth + 1)) if _is_said(child) else []
            if not inner:
                continue
            mark = "- " if element.tag == "ul" else f"{len(items) + 1}. "
            lines = _joined(inner).split("\n")
            rest = [" " * len(mark) + line if line else "" for line in lines[1:]]
            written.append("\n".join([mark + lines[0], *rest]))
            items.append(Item(_text_of(inner), _links_of(inner)))
        if items:
            between = "\n\n" if any("\n\n" in one for one in written) else "\n"
            found = tuple(link for item in items for link in item.links)
            yield Block(
                between.join(written), " ".join(i.text for i in items), items=tuple(items), links=found
            )

    def _paragraph(self, run: list[str], *, wrap: bool = True) -> Iterator[Block]:
        """Yield what was gathered in a line, then the notes that were left in it."""
        found, self._links = tuple(self._links), []
        notes, self._notes = self._notes, []
        lines = [_SPACE.sub(" ", line).strip() for line in "".join(run).split(_BREAK)]
        if any(lines):
            markdown = paragraph([line for line in lines if line], wrap=wrap)
            shown = self._markdown.renderInline(markdown)
            yield Block(markdown, plain(tree(f"<p>{shown}</p>")), links=found)
        for note in notes:
            yield Block(note, "")

    def _line(self, element: Any, depth: int) -> str:  # noqa: ANN401 - lxml has no types
        """Write what stands in a line within an element."""
        pieces = [self._words(element.text)]
        for child in element:
            if _is_said(child):
                pieces.append(self._inline(child, depth))
            pieces.append(self._words(child.tail))
        return "".join(pieces)

    def _inline(self, element: Any, depth: int) -> str:  # noqa: ANN401 - lxml has no types
        tag = element.tag
        if tag == "br":
            return _BREAK
        if tag == "img":
            return self._picture(element)
        if depth > _DEEPEST:
            return self._words(plain(element))
        if tag == "a" and element.get("href"):
            return self._link(element)
        inner = self._line(element, depth + 1)
        mark, said = _STRONG.get(tag, ""), inner.strip()
        # Marks within marks, and around breaks and links, are where Markdown and its readers disagree.
        if not mark or not said or any(sign in said for sign in (_BREAK, "*", "[", "<")):
            return inner
        start, end = inner[: len(inner) - len(inner.lstrip())], inner[len(inner.rstrip()) :]
        return f"{start}{mark}{said}{mark}{end}"

    def _words(self, text: str | None) -> str:
        """Write text, its bare addresses as links."""
        pieces, position, text = [], 0, text or ""
        for found in BARE.finditer(text):
            pieces.append(safe_text(text[position : found.start()]))
            href = self._followed(found[0])
            pieces.append(f"<{href}>" if href else safe_text(found[0]))
            if href:
                self._links.append(Link(found[0], href))
            position = found.end()
        return "".join([*pieces, safe_text(text[position:])])

    def _link(self, element: Any) -> str:  # noqa: ANN401 - lxml has no types
        said = plain(element)
        for picture in element.iter("img"):
            self._picture(picture)
        href = self._followed(one_line(element.get("href")))
        if not said or not href:
            return safe_text(said)
        self._links.append(Link(said, href))
        if said in {href, href.removeprefix("mailto:")} and ":" in said:
            return f"<{href}>"
        return f"[{safe_text(said)}]({href})"

    def _followed(self, href: str) -> str:
        """Return an address as an appeal's Markdown holds it; "" for one that no mail may hold."""
        if href.startswith("#"):
            return ""
        whole = urljoin(self._base, href) if self._base else href
        if whole.lower().startswith("http://"):
            whole = f"https://{whole[7:]}"
            self.upgraded += 1
        whole = _UNSAFE.sub(lambda sign: f"%{ord(sign[0]):02X}", whole)
        try:
            whole = links.normal(whole)
        except ValueError:
            whole = ""
        if not whole or len(whole) > _MOST_LINK or links.fault(whole):
            self.lost.append(href)
            return ""
        return whole

    def _picture(self, element: Any) -> str:  # noqa: ANN401 - lxml has no types
        """Note that a picture stood here; what it showed is for a person to write."""
        self.pictures += 1
        alt, source = (
            re.sub("[{}#]", "", one_line(element.get(name) or ""))[:200] for name in ("alt", "src")
        )
        self._notes.append(f"{{# TODO picture: {source or 'no address'}; alt: {alt or 'TODO'} #}}")
        return " "


def tree(text: str) -> Any:  # noqa: ANN401 - lxml has no types
    """Parse HTML of any quality; None where there is nothing in it."""
    try:
        return lxml_html.document_fromstring(text.encode(), parser=lxml_html.HTMLParser(encoding="utf-8"))
    except (etree.ParserError, etree.XMLSyntaxError):
        return None


def _is_said(node: Any) -> bool:  # noqa: ANN401 - lxml has no types
    """Tell whether a node is an element that readers of the page see."""
    if not isinstance(node.tag, str) or node.tag in _DROPPED or node.tag == TAKEN:
        return False
    hidden = node.get("hidden") is not None or node.get("aria-hidden") == "true"
    return not hidden and "display:none" not in (node.get("style") or "").replace(" ", "").lower()


def _is_line(node: Any) -> bool:  # noqa: ANN401 - lxml has no types
    return (
        _is_said(node)
        and node.tag in _INLINE
        and not any(inner.tag not in _INLINE for inner in node.iter() if isinstance(inner.tag, str))
    )


def plain(element: Any) -> str:  # noqa: ANN401 - lxml has no types
    """Return the text of an element in one line."""
    if element is None:
        return ""
    texts = [element.text or ""]
    stack = [(child, child.tail or "") for child in reversed(element)]
    while stack:
        node, tail = stack.pop()
        if node is None:
            texts.append(tail)
            continue
        stack.append((None, tail))
        if _is_said(node):
            texts.append(" " if node.tag == "br" else node.text or "")
            stack += [(child, child.tail or "") for child in reversed(node)]
    return one_line("".join(texts))


def one_line(text: str) -> str:
    """Make every run of white space one space."""
    return " ".join(text.split())


def _joined(blocks: list[Block]) -> str:
    return "\n\n".join(block.markdown for block in blocks)


def _text_of(blocks: list[Block]) -> str:
    return " ".join(block.text for block in blocks if block.text)


def _links_of(blocks: list[Block]) -> tuple[Link, ...]:
    return tuple(link for block in blocks for link in block.links)
