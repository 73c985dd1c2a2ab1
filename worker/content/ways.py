"""Where the pictures of a mail are, and its links lead: to their targets, or by a page of ours that counts.

Owns the numbers of links (actions first, then the body, each once) and which of them can be counted. Refuses:
to count a link that differs from reader to reader, and to let anything in a link tell readers apart.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from worker.content import expressions, links, sources
from worker.content.expressions import Holes
from worker.content.markdown import Document, Placing
from worker.content.sources import Source
from worker.content.versions import Version

#: Makes the link by which our pages count a link, from its number.
Counted: TypeAlias = Callable[[int], str]
#: As many links of a mail as can be counted: their number has a byte.
_MOST_COUNTED = 255


@dataclass(frozen=True, slots=True)
class Ways:
    """What to put for the links of one version in one form."""

    #: what stands for each link as it is written; a link that is not here stays as it is
    put: Mapping[str, str]
    #: what marks the links of ready posts
    source: Source | None
    #: where pictures are
    placed: Placing
    #: where its copy on the web is; "" for none
    copy: str = ""
    #: whether this is that copy, which is nobody's: without any link of one reader's
    on_web: bool = False


def targets(version: Version, campaign: str, *, discreet: bool) -> Mapping[str, str]:
    """Return where each link of actions and body leads in the end, in the order of their numbers (from 1).

    Args:
        version: as read.
        campaign: its opaque name.
        discreet: the form.
    """
    instead = version.discreet.links if discreet and version.discreet else {}
    holes = Holes([version.body])
    body = Document(holes.hide(version.body), holes.statements)
    written = [links.normal(action.link) for action in version.actions]
    written += [links.normal(holes.restore(link)) for _, link in body.links()]
    source = sources.read(version.source, campaign)
    if source is not None:
        return source.numbered(written, instead)
    return {link: instead.get(link, link) for link in written}


def ways(
    version: Version, campaign: str, counted: Counted | None, placed: Placing, *, discreet: bool
) -> Ways:
    """Return what to put for each link; `counted` is asked only if the version wants its links counted."""
    put = targets(version, campaign, discreet=discreet)
    if counted is not None and version.count_links:
        put = {
            link: counted(number) if _countable(number, target) else target
            for number, (link, target) in enumerate(put.items(), 1)
        }
    return Ways(put, sources.read(version.source, campaign), placed)


def _countable(number: int, target: str) -> bool:
    """Tell whether a page of ours can lead on to it: a web page, the same for everybody."""
    return number <= _MOST_COUNTED and target.startswith("https:") and expressions.plain(target)
