"""Source codes: every link says which campaign and which link it is, and no link says who reads."""

import re
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.content.appeals import AppealErrors, parse
from worker.content.rendering import Look, Organisation, PlainContent, Renderer
from worker.content.sources import Source, faults, read

TEMPLATES = Path(__file__).parents[2] / "templates"
LOOK = Look(
    {
        path.name: path.read_text("utf-8")
        for name in ("look", "locale")
        for path in (TEMPLATES / name).iterdir()
    }
)
CHARITY = Organisation("Example Equality", "1 Example Street", "", "", "https://example.org/privacy")
APPEAL = """\
---
subject: Subject
preheader: Preheader
%s
actions:
  - {kind: sign, text: Sign, link: "https://example.org/sign?a=1#form", main: true, share: Please sign}
  - {kind: write-to, text: Write, link: "mailto:council@example.org"}
discreet:
  subject: Letter
  preheader: Inside
  sender: Monthly letter
  links: {"https://example.org/sign?a=1#form": "https://example.net/7"}
---
Read [this](https://example.org/{{ town | default("all") }}) and [sign](https://example.org/sign?a=1#form).
"""


def shown(source: str, *, discreet: bool = False, town: str = "") -> PlainContent:
    """Return the appeal with this line in its front matter, as one person sees it."""
    renderer = Renderer(parse("rain", {"en.md": APPEAL % source}), LOOK, CHARITY, "c12")
    values = {"opt_out_url": "https://example.org/o/mark", "town": town}
    return renderer.render_plain("en", discreet, values)


def links(content: PlainContent) -> set[str]:
    """Return every link of the HTML part."""
    return set(re.findall(r'href="([^"]*)"', content.html.replace("&amp;", "&")))


def test_every_link_has_its_campaign_and_number_and_both_parts_the_same() -> None:
    """Actions first; the opt-out, the privacy notice and mail addresses stay as they are."""
    content = shown("source: utm_campaign=report")
    plain = {
        "https://example.org/sign?a=1&utm_campaign=report-c12-1#form",
        "mailto:council@example.org",
        "https://example.org/all?utm_campaign=report-c12-3",
        "https://example.org/o/mark",
        "https://example.org/privacy",
    }
    posts = links(content) - plain
    assert plain <= links(content)
    assert len(posts) > 5
    assert {*re.findall(r"report-c12-(\w+)", unquote(unquote(" ".join(posts))))} >= {"x", "email", "telegram"}
    assert all(each in content.text for each in plain)


def test_the_codes_are_the_same_for_everybody() -> None:
    """A field of the reader changes the link that holds it and no code."""
    codes = [
        re.findall(r"source=([\w-]+)", shown("source: report", town=town).html) for town in ("", "Leeds")
    ]
    assert codes[0] == codes[1]
    assert "https://example.org/Leeds?source=report-c12-3" in links(shown("source: report", town="Leeds"))


def test_without_a_code_the_links_are_as_they_were_written() -> None:
    """No source, no parameter."""
    assert "c12" not in shown("").html + shown("").text


def test_the_discreet_forms_own_links_are_counted_too() -> None:
    """What stands for a telling link has the number of the link it stands for."""
    assert "https://example.net/7?source=report-c12-1" in links(shown("source: report", discreet=True))


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('source: "a b"', "has letters, digits"),
        ('source: "a=b=c"', "has letters, digits"),
        ("source: report\ntelling_words: [report]", 'tells "report"'),
        ('source: "{{ town }}"', "has letters, digits"),
    ],
)
def test_an_unfit_code_is_refused(line: str, told: str) -> None:
    """A code is plain and the same for everybody, and gives no discreet reader away."""
    with pytest.raises(AppealErrors, match=told):
        parse("rain", {"en.md": APPEAL % line})


@given(st.from_regex(r"https://example\.org(/[a-z]{0,3})?(\?[a-m=&]{0,8})?(#[a-z]{0,3})?", fullmatch=True))
def test_nothing_else_of_a_link_changes(link: str) -> None:
    """Host, path, fragment and every other parameter stay, in their order; a second time changes nothing."""
    coded = Source("source", "a-c1").put(link, "1")
    before, after = urlsplit(link), urlsplit(coded)
    kept = [pair for pair in parse_qsl(after.query, keep_blank_values=True) if pair[0] != "source"]
    assert kept == parse_qsl(before.query, keep_blank_values=True)
    assert (after.netloc, after.path, after.fragment) == (before.netloc, before.path, before.fragment)
    assert Source("source", "a-c1").put(coded, "1") == coded


@given(st.text(max_size=60))
def test_what_is_no_fault_is_a_code_that_needs_no_quoting(text: str) -> None:
    """Whatever is taken stands in a query as it is."""
    source = read(text, "c1")
    assert (source is None) == (text == "" or any(faults(text)))
    if source:
        assert re.fullmatch(r"[A-Za-z0-9_.-]+", source.name + source.code)
