"""Links as an appeal may hold them: https to a named host, or mailto.

Refuses: to follow one.
"""

import re
from typing import Final
from urllib.parse import SplitResult, urlsplit

from markdown_it.common.normalize_url import normalizeLink

from worker.content.expressions import RESERVED, Holes, faults, split

_HOST: Final = re.compile(r"(?=.{1,253}\Z)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]*[a-z0-9]")
_MAILBOX: Final = re.compile(r"[^\s@<>()]+@[^\s@<>()]+")
#: A link that is nothing but one of our own, filled in per mail.
_OUR_OWN: Final = re.compile(rf"\{{\{{\s*({'|'.join(sorted(RESERVED))})\s*\}}\}}")
_FILLED_IN: Final = "\x00"


def normal(link: str) -> str:
    """Return a link as a mail carries it: host as A-labels, everything else but Jinja percent-encoded."""
    holes = Holes([link])
    return holes.restore(normalizeLink(holes.hide(link)))


def fault(link: str) -> str | None:
    """Say what is wrong with a link, whose path and query may hold Jinja; None when nothing is."""
    if _OUR_OWN.fullmatch(link):
        return None
    if unsound := next(faults(link), None):
        return f"is wrong: {unsound.message}"
    skeleton = "".join(piece.source if piece.kind == "plain" else _FILLED_IN for piece in split(link))
    try:
        parts = urlsplit(skeleton)
    except ValueError:
        return "cannot be read"
    if any(character.isspace() for character in skeleton):
        return "holds a space"
    if parts.scheme == "mailto":
        return None if _MAILBOX.fullmatch(parts.path) else "needs an address after mailto:"
    return _web_fault(parts)


def _web_fault(parts: SplitResult) -> str | None:
    if parts.scheme != "https":
        return "must begin with https:// (or mailto:)"
    if _FILLED_IN in parts.netloc:
        return "must have the same host for everyone"
    if "@" in parts.netloc:
        return "must not hold a user name"
    host = urlsplit(normal(f"https://{parts.netloc}")).hostname or ""
    return None if _HOST.fullmatch(host) else "needs a host, as in https://example.org/page"
