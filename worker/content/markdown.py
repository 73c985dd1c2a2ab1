"""An appeal's body: Markdown read once, written as HTML and as plain text with the same links.

Jinja in the body is hidden by the caller (`expressions.Holes`), so a body here is words and Markdown only.
How buttons, warnings and quotations look is the look's own; they are drawn by whoever asks for the HTML.
Refuses: HTML in Markdown (shown as text, and a fault), pictures in mid-sentence, and a first-level heading,
which is the mail's own headline.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Final, TypeAlias
from urllib.parse import unquote

from markdown_it import MarkdownIt
from markdown_it.common.utils import escapeHtml
from markdown_it.renderer import RendererProtocol
from markdown_it.rules_block import StateBlock
from markdown_it.token import Token
from markdown_it.tree import SyntaxTreeNode

from worker.content import furniture
from worker.content.plaintext import write

#: Draws a block of the look: its name and facts into HTML. The body of a block comes as HTML, a label plain.
Draw = Callable[[str, Mapping[str, str]], str]
#: Tells where a picture is, and its width and height in CSS pixels, from its path.
Placing: TypeAlias = Callable[[str], tuple[str, int, int]]

_NO_STATEMENTS: Final = re.compile(r"(?!)")
#: Blocks that a line of statements ends, as it would if it were HTML.
_ENDED_BY_STATEMENTS: Final = ["paragraph", "reference", "blockquote", "list"]


def _statement(pattern: re.Pattern[str], state: StateBlock, line: int, _end: int, silent: bool) -> bool:  # noqa: FBT001 - the signature of a markdown-it rule
    """Read a line of Jinja statements as a block of its own, so that no empty paragraph is left of it."""
    text = state.src[state.bMarks[line] + state.tShift[line] : state.eMarks[line]].rstrip()
    if state.is_code_block(line) or not pattern.fullmatch(text):
        return False
    if not silent:
        state.line = line + 1
        token = state.push("statement", "", 0)
        token.map, token.content = [line, line + 1], text
    return True


def _escaped(_self: RendererProtocol, tokens: Sequence[Token], index: int, _options: Any, _env: Any) -> str:  # noqa: ANN401 - markdown-it's own types
    return escapeHtml(tokens[index].content)


def _verbatim(_self: RendererProtocol, tokens: Sequence[Token], index: int, _options: Any, _env: Any) -> str:  # noqa: ANN401 - markdown-it's own types
    return tokens[index].content


class _Parser(MarkdownIt):
    """Makes links of every scheme, so that the check sees them; else `javascript:` would be left as text."""

    def validateLink(self, url: str) -> bool:  # noqa: ARG002, N802 - markdown-it's own name
        return True


def _parser(statements: re.Pattern[str]) -> MarkdownIt:
    # HTML is recognised in order to be refused, and escaped if it comes this far.
    parser = _Parser("commonmark", {"html": True})
    parser.block.ruler.before(
        "fence", "statement", partial(_statement, statements), {"alt": _ENDED_BY_STATEMENTS}
    )
    parser.add_render_rule("html_inline", _escaped)
    parser.add_render_rule("html_block", _escaped)
    parser.add_render_rule("statement", _verbatim)
    return parser


def _as_written(path: str) -> tuple[str, int, int]:
    return path, 1, 1


def _figures(tokens: Sequence[Token], placed: Placing) -> Iterator[Token]:
    """Put the picture of every figure where it is, and yield it."""
    for opening, inline in pairwise(tokens):
        if opening.type != f"{furniture.FIGURE}_open" or not inline.children:
            continue
        image = inline.children[0]
        path = unquote(str(image.attrs["src"]))
        source, width, height = placed(path)
        image.meta["path"] = path
        image.attrs |= {"src": source, "width": width, "height": height}
        yield image


class Document:
    """One body, parsed."""

    def __init__(
        self,
        source: str,
        statements: re.Pattern[str] = _NO_STATEMENTS,
        links: Mapping[str, str] = MappingProxyType({}),
        placed: Placing = _as_written,
    ) -> None:
        """Take the Markdown, what a line of hidden statements looks like, and what else to put.

        Args:
            source: the Markdown, Jinja hidden in it.
            statements: what a line of hidden statements looks like.
            links: what to put for links.
            placed: tells where a picture is, and its width and height in CSS pixels, from its path.
        """
        self._parser = _parser(statements)
        self._tokens = furniture.arrange(self._parser.parse(source))
        self._alone = list(_figures(self._tokens, placed))
        for _, token in self._lined():
            if token.type == "link_open":
                href = str(token.attrs["href"])
                token.attrs["href"] = links.get(href, href)

    def faults(self) -> Iterator[tuple[int, str]]:
        """Yield the line (from 1) and one sentence for everything a mail cannot hold."""
        if not self._tokens:
            yield 1, "the body is empty"
        yield from furniture.faults(self._tokens)
        level = 1
        for line, token in self._lined():
            if token.type in {"html_inline", "html_block"}:
                yield line, f"HTML is not read here, only Markdown: {token.content.strip()[:40]}"
            elif token.type == "image" and token not in self._alone:
                yield line, "a picture stands on a line of its own, with its caption on the next"
            elif token.type == "image" and "title" in token.attrs:
                yield line, "a caption stands on the line below its picture, without quotes"
            elif token.type == "heading_open":
                yield from ((line, fault) for fault in _heading_faults(int(token.tag[1]), level))
                level = int(token.tag[1])

    def links(self) -> Iterator[tuple[int, str]]:
        """Yield the line (from 1) and target of every link."""
        for line, token in self._lined():
            if token.type == "link_open":
                yield line, str(token.attrs["href"])

    def pictures(self) -> Iterator[tuple[int, str, str]]:
        """Yield the line (from 1), path as written, and alternative text of every picture."""
        for line, token in self._lined():
            if token.type == "image":
                yield line, str(token.meta.get("path", token.attrs["src"])), token.content

    def html(self, draw: Draw) -> str:
        """Write the body as HTML."""
        return self._render(self._tokens, draw)

    def text(self, width: int, words: Mapping[str, str]) -> str:
        """Write the body as plain text, with what is said in its language around buttons and warnings."""
        return write(SyntaxTreeNode(self._tokens), words, width)

    def _render(self, tokens: list[Token], draw: Draw) -> str:
        plain: list[Token] = []
        position = 0
        while position < len(tokens):
            taken = furniture.extent(tokens[position:]) if tokens[position].type in _DRAWN else 1
            block = tokens[position : position + taken]
            plain.append(self._drawn(block, draw) if tokens[position].type in _DRAWN else block[0])
            position += taken
        return str(self._parser.renderer.render(plain, self._parser.options, {}))

    def _drawn(self, block: list[Token], draw: Draw) -> Token:
        """Let the look draw a block, as a token that is written as it is."""
        name = _DRAWN[block[0].type]
        if name == furniture.BUTTON:
            inside = block[1].children or []
            facts = {"link": str(inside[0].attrs["href"]), "label": "".join(each.content for each in inside)}
        elif name == furniture.FIGURE:
            inside = block[1].children or []
            parts = (Token("inline", "", 0, children=part) for part in (inside[:1], inside[2:]))
            picture, caption = (self._render([part], draw) for part in parts)
            facts = {"text": picture, "caption": caption}
        else:
            facts = {"text": self._render(block[1:-1], draw)}
        return Token("statement", "", 0, content=draw(name, facts))

    def _lined(self) -> Iterator[tuple[int, Token]]:
        line = 1
        for token in self._tokens:
            line = token.map[0] + 1 if token.map else line
            yield line, token
            for child in token.children or ():
                yield line, child
                line += child.type in {"softbreak", "hardbreak"}


#: The tokens that begin what the look draws, and the names it has for them.
_DRAWN: Final = MappingProxyType(
    {
        "blockquote_open": "quote",
        f"{furniture.BUTTON}_open": furniture.BUTTON,
        f"{furniture.FIGURE}_open": furniture.FIGURE,
        f"{furniture.SOURCE}_open": furniture.SOURCE,
        f"{furniture.WARNING}_open": furniture.WARNING,
    }
)


def _heading_faults(level: int, above: int) -> Iterator[str]:
    if level == 1:
        yield 'begin headings with "##": the headline above them is the mail\'s own'
    elif level > above + 1:
        yield f"a heading of level {level} follows one of level {above}: screen readers lose their way"
