"""A share link opens exactly the text and link that the author wrote."""

from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.content.networks import NETWORKS

LINK = "https://example.org/a?src=b&c=d#e"


@pytest.mark.parametrize("slug", NETWORKS)
@given(text=st.text(min_size=1, max_size=40))
def test_text_and_link_arrive_as_written(slug: str, text: str) -> None:
    """Whatever characters a text holds, the network reads back that text and link, or the link alone."""
    parts = urlsplit(NETWORKS[slug].share(text, LINK))
    assert parts.scheme in {"https", "mailto"}
    values = [value for _, value in parse_qsl(parts.query or parts.fragment, keep_blank_values=True)]
    assert set(values) in ({text, LINK}, {f"{text} {LINK}"}, {LINK})


@pytest.mark.parametrize("slug", NETWORKS)
def test_a_share_link_can_stand_in_a_mail(slug: str) -> None:
    """It is ASCII without spaces, whatever the text's script."""
    link = NETWORKS[slug].share("Привет, мир", LINK)
    assert link.isascii()
    assert " " not in link
