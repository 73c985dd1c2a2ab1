"""Source codes: what tells the site behind a link from which campaign, and by which link, a visitor came.

Owns the form of a code and how it is put into a link. Refuses: to say who the reader is. A code is the same
in every mail of a campaign.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from worker.content.expressions import Holes

#: The parameter's name where the appeal gives none: what most action platforms read.
_NAME: Final = "source"
_SHAPE: Final = re.compile(r"(?:(?P<name>[A-Za-z][A-Za-z0-9_.-]{0,39})=)?(?P<code>[A-Za-z0-9_.-]{1,40})")


@dataclass(frozen=True, slots=True)
class Source:
    """How the links of one campaign's mails are told apart."""

    #: the parameter of a query, as in utm_campaign
    name: str
    #: what its value begins with: the appeal's own code, and the campaign's
    code: str

    def put(self, link: str, place: str) -> str:
        """Return a link with its code; one that has the parameter already, or is no web page, as it is.

        Args:
            link: may hold Jinja.
            place: which link of the mail it is.
        """
        holes = Holes([link])
        hidden = holes.hide(link)
        parts = urlsplit(hidden)
        if parts.scheme != "https" or re.search(rf"(?:^|&){re.escape(self.name)}=", parts.query):
            return link
        query = f"{parts.query}&" if parts.query else ""
        coded = parts._replace(query=f"{query}{self.name}={self.code}-{place}")
        return holes.restore(coded.geturl())

    def numbered(self, links: Iterable[str], instead: Mapping[str, str]) -> Mapping[str, str]:
        """Return what to put for each link: it, or what stands instead of it, with its number as its code."""
        return {
            link: self.put(instead.get(link, link), str(number))
            for number, link in enumerate(dict.fromkeys(links), 1)
        }


def read(text: str, campaign: str) -> Source | None:
    """Read an appeal's `source`, which is sound, for one campaign; None for "".

    Args:
        text: as in "report" or "utm_campaign=report".
        campaign: opaque, as in "c12".
    """
    found = _SHAPE.fullmatch(text)
    return Source(found["name"] or _NAME, f"{found['code']}-{campaign}") if found else None


def faults(text: str) -> Iterator[str]:
    """Say what is wrong with an appeal's `source`."""
    if text and not _SHAPE.fullmatch(text):
        yield (
            "has letters, digits, dots, hyphens and underscores, at most 40, after the name of the parameter "
            "if it is another than source: as in report, or utm_campaign=report"
        )
