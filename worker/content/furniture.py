"""Blocks that Markdown has no name for, found among its tokens: button, figure, warning, source.

Each is written so that it reads well in any other Markdown program too. A paragraph that is one link with
`{.button}` behind it is a button; one that begins with a picture on a line of its own is a figure, with the
other lines as its caption; a quotation that begins with `[!WARNING]` is a content warning; the last line of a
quotation that begins with a dash says where it comes from. Refuses: to say how any of them looks.
"""

import re
from collections.abc import Iterator
from typing import Final

from markdown_it.token import Token

#: Names of the blocks, as tokens (`button_open`) and macros of the look have them.
BUTTON: Final = "button"
FIGURE: Final = "figure"
SOURCE: Final = "source"
WARNING: Final = "warning"
_BUTTON: Final = re.compile(r"\)\{\.button\}[ \t]*\Z")
_MARK: Final = re.compile(r"\[!(\w+)\][ \t]*")
_DASH: Final = re.compile(r"(?:\u2014|\u2013|--)[ \t]+(?=\S)")
#: open, inline, close
_PARAGRAPH: Final = 3


def arrange(tokens: list[Token]) -> list[Token]:
    """Return the tokens with these blocks under their own names; what is within a quotation included."""
    arranged: list[Token] = []
    position = 0
    while position < len(tokens):
        token, taken = tokens[position], 1
        if token.type == "blockquote_open":
            taken = extent(tokens[position:])
            inner = arrange(tokens[position + 1 : position + taken - 1])
            arranged += _quotation(token, inner, tokens[position + taken - 1])
        elif token.type == "paragraph_open" and _is_button(tokens[position + 1]):
            taken = _PARAGRAPH
            arranged += _button(tokens[position : position + taken])
        elif token.type == "paragraph_open" and _is_figure(tokens[position + 1]):
            taken = _PARAGRAPH
            arranged += _figure(tokens[position : position + taken])
        else:
            arranged.append(token)
        position += taken
    return arranged


def extent(tokens: list[Token]) -> int:
    """Return how many tokens the block takes that begins with the first of these."""
    depth = 0
    for count, token in enumerate(tokens, 1):
        depth += token.nesting
        if depth == 0:
            return count
    return len(tokens)


def faults(tokens: list[Token]) -> Iterator[tuple[int, str]]:
    """Yield the line (from 1) and one sentence for what was meant as such a block and is none."""
    for place, inline in enumerate(tokens):
        if inline.type != "inline":
            continue
        line = inline.map[0] + 1 if inline.map else 1
        quoted = place > 1 and tokens[place - 2].type == "blockquote_open"
        if quoted and (found := _MARK.match(inline.content)):
            yield line, f"[!{found[1]}] is not known here: only [!WARNING] is"
        if "{.button}" in inline.content and tokens[place - 1].type != f"{BUTTON}_open":
            yield line, "a button is a paragraph of its own, of one link: [words](https://…){.button}"


def _is_button(inline: Token) -> bool:
    children = inline.children or []
    return bool(
        _BUTTON.search(inline.content)
        and len(children) > 1
        and children[0].type == "link_open"
        and [child.type for child in children].count("link_close") == 1
        and children[-2].type == "link_close"
    )


def _is_figure(inline: Token) -> bool:
    first, *rest = [child.type for child in inline.children or ()] or [""]
    return first == "image" and rest[:1] in ([], ["softbreak"], ["hardbreak"])


def _figure(tokens: list[Token]) -> list[Token]:
    for between in (tokens[1].children or [])[1:2]:
        between.type = "hardbreak"  # read out, picture and caption are two things
    return _renamed(tokens, FIGURE)


def _button(tokens: list[Token]) -> list[Token]:
    inline = tokens[1]
    inline.children = (inline.children or [])[:-1]
    return _renamed(tokens, BUTTON)


def _quotation(opened: Token, inner: list[Token], closed: Token) -> list[Token]:
    marked = _MARK.match(inner[1].content) if len(inner) > 1 and inner[0].type == "paragraph_open" else None
    if marked and marked[1] == "WARNING":
        rest = _without_mark(inner[1])
        return _renamed([opened, *(inner if rest else inner[_PARAGRAPH:]), closed], WARNING)
    return [opened, *_sourced(inner), closed]


def _without_mark(inline: Token) -> bool:
    """Take the mark off; tell whether anything is left of its paragraph."""
    children = inline.children or []
    children[0].content = _MARK.sub("", children[0].content, count=1)
    while children and (children[0].type in {"softbreak", "hardbreak"} or not _says(children[0])):
        del children[0]
    inline.children = children
    return bool(children)


def _says(token: Token) -> bool:
    return token.type != "text" or bool(token.content)


def _sourced(inner: list[Token]) -> list[Token]:
    """Give the last line of a quotation its own name, if it begins with a dash."""
    if len(inner) < _PARAGRAPH or inner[-1].type != "paragraph_close":
        return inner
    above, inline = inner[:-_PARAGRAPH], inner[-2]
    children = inline.children or []
    breaks = [at for at, child in enumerate(children) if child.type in {"softbreak", "hardbreak"}]
    start = breaks[-1] + 1 if breaks else 0
    if start == len(children) or not _DASH.match(children[start].content) or not (above or start):
        return inner
    children[start].content = _DASH.sub("\u2014 ", children[start].content, count=1)
    if start == 0:
        return [*above, *_renamed(inner[-_PARAGRAPH:], SOURCE)]
    inline.children = children[: start - 1]
    last = Token("inline", "", 0, map=inline.map, level=inline.level, children=children[start:])
    parted = [Token("paragraph_open", "p", 1, map=inline.map), last, Token("paragraph_close", "p", -1)]
    return [*inner, *_renamed(parted, SOURCE)]


def _renamed(tokens: list[Token], name: str) -> list[Token]:
    tokens[0].type, tokens[-1].type = f"{name}_open", f"{name}_close"
    return tokens
