"""A mail's HTML made fit for a frame in a page: its scheme chosen, its own pictures in it, nothing fetched.

Pure. Whether a frame follows the scheme of what is around it differs from browser to browser, so the mail's
own media queries are answered here. Refuses: scripts, forms and anything from a server, by a policy that
stands in the frame; links open in a tab of their own.
"""

import re
from collections.abc import Mapping
from enum import StrEnum
from functools import partial
from typing import Final

#: What a frame may hold: its styles, and pictures that are in it already.
_POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src {}; base-uri 'none'; form-action 'none'"
)
_HEAD: Final = re.compile(r"<head\b[^>]*>", re.IGNORECASE)
_STYLE: Final = re.compile(r"<style\b[^>]*>.*?</style>", re.IGNORECASE | re.DOTALL)
_ASKED: Final = re.compile(r"\(\s*prefers-color-scheme\s*:\s*(dark|light)\s*\)", re.IGNORECASE)
_OFFERED: Final = re.compile(r"(?<![\w-])(color-scheme\s*:\s*)(?:light dark|dark light)", re.IGNORECASE)
_META: Final = re.compile(
    r"""(<meta\s+name=["']?(?:supported-)?color-schemes?["']?\s+content=["'])[^"']*""", re.IGNORECASE
)
_EMBEDDED: Final = re.compile(r"""(?<=["'(])cid:([^"')\s]+)""", re.IGNORECASE)
#: What no mail program shows. It is shown as text: Chromium opens a connection even to what a policy forbids
#: (a frame in the frame, a link that asks for one).
_ACTIVE: Final = re.compile(
    r"<(?=/?(?:applet|base|embed|fencedframe|frame|frameset|iframe|link|object|portal|script)\b"
    r"|meta\b[^>]*\brefresh\b)",
    re.IGNORECASE,
)
_TRUE, _FALSE = "(min-width: 0)", "(max-width: 0)"


class Scheme(StrEnum):
    """The colours that a reader's system asks for."""

    LIGHT = "light"
    DARK = "dark"


def frame(html: str, scheme: Scheme, embedded: Mapping[str, str], *, pictures: bool = True) -> str:
    """Return the HTML to stand in a frame (`srcdoc`, sandboxed without scripts).

    Args:
        html: the mail's HTML part.
        scheme: what a query for the reader's scheme is answered.
        embedded: the mail's own pictures as data URLs, by Content-ID.
        pictures: whether they are shown, or their alt texts as where a mail program blocks them.
    """
    html = _ACTIVE.sub("&lt;", html)
    html = _STYLE.sub(partial(_answered, scheme), html)
    html = _META.sub(rf"\g<1>{scheme}", html)
    html = _EMBEDDED.sub(lambda found: embedded.get(found[1], found[0]), html)
    policy = _POLICY.format("data:" if pictures else "'none'")
    ours = f'<meta http-equiv="Content-Security-Policy" content="{policy}"><base target="_blank">'
    head = _HEAD.search(html)
    at = head.end() if head else 0
    return html[:at] + ours + html[at:]


def _answered(scheme: Scheme, style: re.Match[str]) -> str:
    told = _ASKED.sub(lambda asked: _TRUE if asked[1].lower() == scheme else _FALSE, style[0])
    return _OFFERED.sub(rf"\g<1>{scheme}", told)
