"""Social networks and messengers: the link that opens a ready post in each of them.

Changing knowledge, kept as one table. The links are plain ones: no button script, no counter, nothing that
tells a network who received a mail until the reader follows the link. Refuses: to know who shares.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType
from urllib.parse import quote

from worker.content.expressions import plain


@dataclass(frozen=True, slots=True)
class Network:
    """One place to share to."""

    #: the name in front matter
    slug: str
    #: the name that readers know it by; empty: a word of the reader's language (`words.network_<slug>`)
    label: str
    #: what opens the post; `{text}`, `{link}` and `{both}` stand for percent-encoded values
    pattern: str
    #: most characters of text beside the link; 0 when there is no limit worth checking
    most: int = 0

    def share(self, text: str, link: str) -> str:
        """Return the link that opens a post of this text and link."""
        values = {"text": text, "link": link, "both": f"{text} {link}"}
        return self.pattern.format_map({name: quote(value, safe="") for name, value in values.items()})


#: Every network that front matter may name, in the order in which a mail lists them. X counts a link as 23
#: characters, and the space before it as one; Bluesky allows 300 graphemes and Mastodon 500 with the link in.
NETWORKS: Mapping[str, Network] = MappingProxyType(
    {
        network.slug: network
        for network in (
            Network("x", "X", "https://x.com/intent/tweet?text={text}&url={link}", 256),
            Network("bluesky", "Bluesky", "https://bsky.app/intent/compose?text={both}", 230),
            Network("mastodon", "Mastodon", "https://share.joinmastodon.org/#text={both}", 430),
            Network("facebook", "Facebook", "https://www.facebook.com/sharer/sharer.php?u={link}"),
            Network("whatsapp", "WhatsApp", "https://wa.me/?text={both}"),
            Network("telegram", "Telegram", "https://t.me/share/url?url={link}&text={text}"),
            Network("email", "", "mailto:?body={both}"),
        )
    }
)


def network_faults(slug: str) -> Iterator[str]:
    """Say that a network is unknown, and which may have been meant."""
    if slug not in NETWORKS:
        near = get_close_matches(slug, NETWORKS, n=1)
        meant = f'did you mean "{near[0]}"?' if near else f"known are {', '.join(NETWORKS)}"
        yield f'"{slug}" is not a network known here: {meant}'


def share_faults(slug: str, text: str) -> Iterator[str]:
    """Say why a text cannot be shared there."""
    yield from network_faults(slug)
    most = NETWORKS[slug].most if slug in NETWORKS else 0
    if 0 < most < len(text):
        yield f"the text for {slug} is {len(text)} characters long; {most} leave room for the link"
    if not plain(text):
        yield "a text to share must be the same for everyone: no {{ or {% here"
