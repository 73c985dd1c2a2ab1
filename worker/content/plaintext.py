"""Plain text that reads well: wrapped paragraphs, lists, quotations, and links that can be followed.

A link is numbered where it stands, `the report [1]`, and written out under the paragraph or item that holds
it, never wrapped, so that a terminal can open it.

Refuses: emphasis marks, which a screen reader spells out; and to wrap anew for each reader. A line is wrapped
with the names of its merge fields, before they are filled in: a long value makes its line longer than WIDTH,
and a short one shorter. Readers' programs fold what is too wide, the wire has lines of 76 octets in any case
(quoted-printable), and wrapping the whole text anew would cost each mail more than all of its weaving. What
the look or the author left long is a finding, text.lines.
"""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from markdown_it.tree import SyntaxTreeNode

WIDTH: Final = 72
_RULE: Final = "* * *"
#: Keeps a link's number on the line of its last word; no text of an author's can hold it.
_GLUE: Final = "\x00"


def wrap(text: str, width: int = WIDTH, *, first: str = "", rest: str = "") -> str:
    """Wrap each line of a text, never within a word; `first` and `rest` begin the first and other lines."""
    lines: list[str] = []
    for line in text.split("\n"):
        lines += textwrap.wrap(
            line,
            width,
            initial_indent=rest if lines else first,
            subsequent_indent=rest,
            break_long_words=False,
            break_on_hyphens=False,
        )
    return "\n".join(lines)


def indent(text: str, first: str, rest: str) -> str:
    """Begin the first line with one thing and the other lines with another; empty lines stay empty."""
    return first + textwrap.indent(text, rest)[len(rest) :] if text else ""


def write(document: SyntaxTreeNode, words: Mapping[str, str], width: int = WIDTH) -> str:
    """Write a parsed document as plain text that ends without a line break.

    Args:
        document: as markdown-it has it, with the blocks of `furniture`.
        words: what is said in its language: `label` (any label before its text) and `content_warning`.
        width: of a line, but for links.
    """
    return _Writer(words).blocks(document.children, width).rstrip("\n")


class _Writer:
    """One document's way into text, with the numbers its links have been given."""

    def __init__(self, words: Mapping[str, str]) -> None:
        self._words = words
        self._numbers: dict[str, int] = {}
        self._unlisted: list[str] = []

    def blocks(self, nodes: Sequence[SyntaxTreeNode], width: int, gap: str = "\n\n") -> str:
        """Write blocks, each followed by the gap; a statement goes right before the block it precedes."""
        return "".join(
            node.content if node.type == "statement" else self._block(node, width) + gap for node in nodes
        )

    def _block(self, node: SyntaxTreeNode, width: int) -> str:
        return _BLOCKS[node.type](self, node, width)

    def _paragraph(self, node: SyntaxTreeNode, width: int) -> str:
        text = wrap(self._inline(node.children[0]), width).replace(_GLUE, " ")
        listed = [f"[{self._numbers[href]}] {href}" for href in self._unlisted]
        self._unlisted.clear()
        return "\n".join([text, *listed])

    def _heading(self, node: SyntaxTreeNode, width: int) -> str:
        text = self._paragraph(node, width)
        longest = max(len(line) for line in text.splitlines())
        return f"{text}\n{'-' * min(longest, width)}"

    def _list(self, node: SyntaxTreeNode, width: int) -> str:
        tight = any(
            leaf.hidden for item in node.children for leaf in item.children if leaf.type == "paragraph"
        )
        start = int(node.attrs.get("start", 1))
        items = []
        for number, item in enumerate(node.children, start):
            mark = "- " if node.type == "bullet_list" else f"{number}. "
            body = self.blocks(item.children, width - len(mark), "\n" if tight else "\n\n").rstrip("\n")
            items.append(indent(body, mark, " " * len(mark)))
        return ("\n" if tight else "\n\n").join(items)

    def _quote(self, node: SyntaxTreeNode, width: int) -> str:
        inner = self.blocks(node.children, width - 2).rstrip("\n")
        return "\n".join(f"> {line}".rstrip() for line in inner.split("\n"))

    def _warning(self, node: SyntaxTreeNode, width: int) -> str:
        return f"{self._words['content_warning'].upper()}\n{self.blocks(node.children, width)}".rstrip("\n")

    def _button(self, node: SyntaxTreeNode, width: int) -> str:
        (link,) = node.children[0].children
        text = "".join(map(self._inline, link.children))
        return f"{wrap(self._words['label'] % {'label': text}, width)}\n{link.attrs['href']}"

    def _code(self, node: SyntaxTreeNode, _width: int) -> str:
        return textwrap.indent(node.content.rstrip("\n"), "    ")

    def _rule(self, _node: SyntaxTreeNode, _width: int) -> str:
        return _RULE

    def _shown(self, node: SyntaxTreeNode, width: int) -> str:
        return wrap(node.content.strip(), width)

    def _inline(self, node: SyntaxTreeNode) -> str:
        if node.type == "link":
            return self._link(node)
        if node.type == "image":
            return f"[{''.join(map(self._inline, node.children)) or node.content}]"
        if node.type in {"softbreak", "hardbreak"}:
            return " " if node.type == "softbreak" else "\n"
        return "".join(map(self._inline, node.children)) if node.children else node.content

    def _link(self, node: SyntaxTreeNode) -> str:
        href, text = str(node.attrs["href"]), "".join(map(self._inline, node.children))
        if text in {href, href.removeprefix("mailto:")}:
            return text
        if href not in self._numbers:
            self._numbers[href] = len(self._numbers) + 1
            self._unlisted.append(href)
        return f"{text}{_GLUE}[{self._numbers[href]}]"


_BLOCKS: Final[Mapping[str, Callable[[_Writer, SyntaxTreeNode, int], str]]] = MappingProxyType(
    {
        "paragraph": _Writer._paragraph,  # noqa: SLF001 - the class's own table
        "figure": _Writer._paragraph,  # noqa: SLF001 - likewise
        "source": _Writer._paragraph,  # noqa: SLF001 - likewise
        "button": _Writer._button,  # noqa: SLF001 - likewise
        "warning": _Writer._warning,  # noqa: SLF001 - likewise
        "heading": _Writer._heading,  # noqa: SLF001 - likewise
        "bullet_list": _Writer._list,  # noqa: SLF001 - likewise
        "ordered_list": _Writer._list,  # noqa: SLF001 - likewise
        "blockquote": _Writer._quote,  # noqa: SLF001 - likewise
        "fence": _Writer._code,  # noqa: SLF001 - likewise
        "code_block": _Writer._code,  # noqa: SLF001 - likewise
        "hr": _Writer._rule,  # noqa: SLF001 - likewise
        "html_block": _Writer._shown,  # noqa: SLF001 - likewise
    }
)
