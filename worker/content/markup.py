"""Any text as Markdown that says the same and nothing more: no mark, no link, no HTML, no Jinja.

Refuses: to judge what it is given. A brace that would begin Jinja gets a backslash, which Markdown drops.
"""

import re
import textwrap
from typing import Final

_WIDTH: Final = 100
_MARKS: Final = re.compile(r"[\\`*\[\]<]|(?<![^\W_])_|_(?![^\W_])|&(?=#?\w{1,32};)")
_JINJA: Final = re.compile(r"\{(?=[{%#])")
#: A brace that would begin Jinja, or the sign of a button.
_BRACE: Final = re.compile(r"\{(?=[{%#.])")
#: One that the text to come could make a beginning of.
_LAST: Final = re.compile(r"\{\Z")
#: What begins a block where it begins a line.
_BEGINNING: Final = re.compile(r"(\d{1,9})(?=[.)])|(?=[-+>#=~])")
_FENCE: Final = re.compile("`{3,}")


def safe_text(text: str) -> str:
    """Escape a text for the middle of a line."""
    return _LAST.sub("&#123;", _BRACE.sub(r"{\\", _MARKS.sub(r"\\\g<0>", text)))


def safe_code(text: str) -> str:
    """Write a text as a block of code."""
    fence = max((found[0] for found in _FENCE.finditer(text)), key=len, default="``") + "`"
    return f"{fence}\n{as_value(text)}\n{fence}"


def as_value(text: str) -> str:
    """Keep a text that Markdown does not read from being read as Jinja."""
    return _JINJA.sub('{{ "{" }}', text)


def paragraph(lines: list[str], *, wrap: bool = True) -> str:
    """Put lines of Markdown that break where they end into a paragraph that begins nothing else."""
    return "\\\n".join(_line(line, wrap=wrap) for line in lines)


def _line(line: str, *, wrap: bool) -> str:
    wrapped = [line]
    if wrap:
        wrapped = textwrap.wrap(line, _WIDTH, break_long_words=False, break_on_hyphens=False) or [line]
    return "\n".join(
        _BEGINNING.sub(lambda found: f"{found[1] or ''}\\", each, count=1) if _BEGINNING.match(each) else each
        for each in wrapped
    )
