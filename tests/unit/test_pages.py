"""The rules of the opt-out pages as texts."""

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.errors import WrongUse
from worker.pages import NAMES, Pages, Shown

FILES: Mapping[str, str] = {
    path.name: path.read_text("utf-8")
    for folder in ("web", "locale")
    for path in (Path(__file__).parents[2] / "templates" / folder).iterdir()
}
PAGES = Pages(FILES)
LANGUAGES = sorted(name.removesuffix(".po") for name in FILES if name.endswith(".po"))


@dataclass(frozen=True)
class About:
    """What a link is about, for these tests."""

    sender: str = "Example Equality"
    list_title: str = "Urgent appeals"
    language: str = "en"
    discreet: bool = False
    test: bool = False


@dataclass(frozen=True)
class Choices:
    """How things stand for a reader, for these tests."""

    about: About
    stopped: bool = False
    paused_until: float | None = 1_800_000_000.0
    fewer: bool = True
    language: str = "en"
    discreet: bool = False
    offers_discreet: bool = True
    held: bool = True
    topics: Sequence[Any] = ()
    asked: bool = False


def shown(name: str, about: About, **facts: Any) -> str:
    """Return a page with all that it can show."""
    return PAGES.render(name, about, shown=Shown(Choices(about, **facts), voucher="v" * 32))


class Outline(HTMLParser):
    """The elements, attributes and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element and its attributes."""
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        """Note text, but for the style sheet."""
        if self.tags and self.tags[-1] != "style":
            self.text += data


EVERY = pytest.mark.parametrize("name", NAMES)
SPOKEN = pytest.mark.parametrize("language", LANGUAGES)


@EVERY
@SPOKEN
@pytest.mark.parametrize("about", [About(), About(discreet=True), About("", ""), About(test=True)])
def test_every_page_is_sound(name: str, language: str, about: About) -> None:
    """Each page in each language says its language and direction, and has one heading in one main part."""
    page = shown(name, About(about.sender, about.list_title, language, about.discreet, about.test))
    outline = Outline(page)
    assert page.startswith("<!DOCTYPE html>")
    assert ("html", "lang", language) in outline.attributes
    assert ("html", "dir", "rtl" if language == "ar" else "ltr") in outline.attributes
    assert ("meta", "charset", "utf-8") in outline.attributes
    assert [outline.tags.count(tag) for tag in ("title", "main", "h1")] == [1, 1, 1]
    assert "%" not in outline.text
    assert "{" not in outline.text


@EVERY
@SPOKEN
def test_no_page_runs_or_fetches_anything(name: str, language: str) -> None:
    """No page holds a script, a handler, an image or an address of another host."""
    page = shown(name, About(language=language))
    outline = Outline(page)
    assert not {"script", "img", "iframe", "object", "embed", "link", "base", "svg"} & set(outline.tags)
    assert not [
        name for _, name, _ in outline.attributes if name.startswith("on") or name in {"src", "style"}
    ]
    assert "//" not in page
    assert "url(" not in page
    assert "@import" not in page


@EVERY
def test_the_policy_allows_exactly_the_style_sheet(name: str) -> None:
    """The hash in the policy is that of the one style element, and nothing else is allowed."""
    page = shown(name, About())
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}';" in PAGES.policy
    assert PAGES.policy.startswith("default-src 'none';")
    for word in ("script-src", "unsafe", "http", "*", "data:"):
        assert word not in PAGES.policy


def test_a_checkout_with_windows_line_ends_keeps_its_style() -> None:
    """The style sheet is hashed as browsers hash it, whatever line ends its file has."""
    pages = Pages({**FILES, "style.css": FILES["style.css"].replace("\n", "\r\n")})
    assert pages.policy == PAGES.policy
    assert "\r" not in pages.render("ask", About())


@SPOKEN
def test_the_page_has_one_button_and_asks_for_nothing(language: str) -> None:
    """The page to opt out is one form with one button, posted to the same link, with nothing to fill in.

    The button is the first thing on it that can be reached; after it come two links at most.
    """
    outline = Outline(PAGES.render("ask", About(language=language)))
    assert [outline.tags.count(tag) for tag in ("form", "button", "input", "a")] == [1, 1, 1, 2]
    assert [tag for tag in outline.tags if tag in {"button", "a"}] == ["button", "a", "a"]
    assert [value for tag, name, value in outline.attributes if (tag, name) == ("a", "href")] == [
        "?choices",
        "exit",
    ]
    assert {entry for entry in outline.attributes if entry[0] in {"form", "input"}} == {
        ("form", "class", "act"),
        ("form", "method", "post"),
        ("input", "type", "hidden"),
        ("input", "name", "choice"),
        ("input", "value", "stop"),
    }


@SPOKEN
def test_the_preferences_begin_with_the_same_button(language: str) -> None:
    """On the page of preferences too, stopping everything is one button before all else."""
    ask, choices = PAGES.render("ask", About(language=language)), shown("choices", About(language=language))
    (form,) = re.findall(r"<form.*?</form>", ask, re.DOTALL)
    assert re.findall(r"<form.*?</form>", choices, re.DOTALL)[0] == form
    assert choices.index("<form") < min(choices.index(tag) for tag in ("<a ", "<select", "<fieldset"))


def test_the_preferences_show_how_things_stand() -> None:
    """What is chosen is ticked; what cannot be chosen is not offered; after a no, nothing is."""
    page = shown("choices", About(), language="de")
    assert "Nothing until <bdi>15 January 2027</bdi>" in page
    assert 'value="keep" checked' in page
    assert '<option value="de" lang="de" selected>Deutsch</option>' in page
    assert 'name="fewer" value="1" checked' in page
    assert 'name="discreet" value="1" aria' in page
    fresh = shown("choices", About(), paused_until=None, fewer=False, language="", offers_discreet=False)
    assert 'value="keep"' not in fresh
    assert 'value="0" checked' in fresh
    assert '<option value="" selected>' in fresh
    assert 'name="discreet"' not in fresh
    unheld = shown("choices", About(), held=False)
    assert 'name="language"' not in unheld
    assert 'value="forget"' not in unheld
    assert '<option value="cy"' in shown("choices", About(), language="cy")
    stopped = Outline(shown("choices", About(), stopped=True))
    assert "You get no more of these emails." in stopped.text
    assert stopped.tags.count("form") == 3


@SPOKEN
def test_the_open_page_says_who_and_what(language: str) -> None:
    """The open page names the sender and the list, so that the reader knows what will stop."""
    text = Outline(PAGES.render("ask", About(language=language))).text
    assert "Example Equality" in text
    assert "Urgent appeals" in text


@EVERY
@SPOKEN
def test_the_discreet_page_names_no_list(name: str, language: str) -> None:
    """A discreet page shows the neutral name at most, never the list, and no title names either."""
    page = shown(name, About("Letters", "Urgent appeals", language, discreet=True))
    assert "Urgent appeals" not in page
    (title,) = re.findall(r"<title>(.*?)</title>", shown(name, About(language=language)))
    assert "Example" not in title
    assert "Urgent" not in title


def test_no_template_can_forget_to_be_discreet() -> None:
    """The list's title is withheld from the templates themselves, not only left out by ours."""
    files = {**FILES, "ask.html": "{{ sender }}/{{ list_title }}/{{ discreet }}"}
    assert Pages(files).render("ask", About(discreet=True)) == "Example Equality//True"


@given(st.text(max_size=60), st.text(max_size=60))
def test_names_cannot_become_markup(sender: str, title: str) -> None:
    """Whatever the names hold, the page has the same elements as with plain names."""
    page = PAGES.render("ask", About("x" + sender, "x" + title))
    assert Outline(page).tags == Outline(PAGES.render("ask", About())).tags


@pytest.mark.parametrize("hostile", ["<script>x</script>", "{{7*7}}", "$list ${x} $", "</bdi><h1>", "%s {0}"])
def test_names_are_shown_as_they_are(hostile: str) -> None:
    """Template, placeholder and markup signs in a name come out as the name."""
    assert Outline(PAGES.render("ask", About(hostile, hostile))).text.count(hostile) == 2


@pytest.mark.parametrize(
    ("language", "accepted", "expected"),
    [
        ("ru", ["en"], "ru"),
        ("RU-ru", [], "ru"),
        ("en-gb", ["ru"], "en"),
        ("", ["ru-RU", "en"], "ru"),
        ("cy", ["xx", "ru"], "ru"),
        ("cy", [], "en"),
        ("../../etc", ["", "*"], "en"),
    ],
)
def test_the_language_of_a_page(language: str, accepted: list[str], expected: str) -> None:
    """A page is in the mail's language, else the first that the browser asks for, else English."""
    assert f'<html lang="{expected}"' in PAGES.render("ask", About(language=language), accepted)


def test_a_new_language_is_a_new_file() -> None:
    """Adding a catalogue adds a language, with its direction."""
    page = Pages({**FILES, "he.po": FILES["en.po"]}).render("done", None, ["he-IL"])
    assert '<html lang="he" dir="rtl">' in page


def test_the_charitys_order_comes_before_english() -> None:
    """Who asks for no language that there is gets the first of the charity's own order."""
    pages = Pages(FILES, ["cy", "fr"])
    assert '<html lang="fr"' in pages.render("lost", None, ["xx"])
    assert '<html lang="de"' in pages.render("lost", None, ["de"])


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"style.css": None}, "style.css is missing"),
        ({"en.po": None}, "en.po is missing"),
        ({"ask.html": None}, "ask.html"),
        ({"base.html": None}, "base.html"),
        ({"ask.html": "{% if %}"}, "do not render"),
        ({"ask.html": "{{ nonsense }}"}, "nonsense"),
        ({"ask.html": "{{ say('nonsense') }}"}, "nonsense"),
        ({"ask.html": "{{ say('about_list') }}"}, "sender"),
        ({"ask.html": "{{ say.__globals__ }}"}, "do not render"),
        ({"style.css": "a{}</style><script>"}, "style.css"),
        ({"ru.po": "nonsense"}, "ru.po is no gettext catalogue"),
        ({"ru.po": ""}, "ru.po lacks"),
        (
            {"ru.po": FILES["ru.po"].replace("%(sender)s. Список", "% Список")},
            "page.about_list must fill in what its msgid",
        ),
    ],
)
def test_a_slip_in_the_files_shows_at_the_start(changed: dict[str, str | None], said: str) -> None:
    """A missing file, a broken template or an incomplete language is refused before anything is served."""
    merged = {**FILES, **changed}
    with pytest.raises(WrongUse, match=re.escape(said)):
        Pages({name: text for name, text in merged.items() if text is not None})


def test_contrast() -> None:
    """Text and buttons have a contrast of at least 4.5 to 1 in both colour schemes (WCAG 1.4.3)."""
    schemes = [
        dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", part))
        for part in re.split("@media", FILES["style.css"])[:2]
    ]
    assert len(schemes[0]) == len(schemes[1]) == 9

    def light(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        red, green, blue = (
            part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
        )
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    for scheme in schemes:
        for front, back in (
            ("ink", "sheet"),
            ("quiet", "sheet"),
            ("on-act", "act"),
            ("on-act", "act-over"),
            ("act", "sheet"),
            ("act", "told"),
            ("ink", "told"),
            ("quiet", "ground"),
        ):
            bright, dark = sorted((light(scheme[front]), light(scheme[back])), reverse=True)
            assert (bright + 0.05) / (dark + 0.05) >= 4.5, (front, back)


@dataclass(frozen=True)
class Topic:
    """What some mails are about, for these tests."""

    slug: str
    title: str
    titles: Mapping[str, str]
    discreet_title: str
    wanted: bool


_TOPICS = (
    Topic("petitions", "Petitions", {"de": "Petitionen"}, "", wanted=True),
    Topic("health", "Health", {}, "Well-being", wanted=False),
)


@pytest.mark.parametrize(
    ("language", "discreet", "titles", "hidden"),
    [
        ("en", False, ["Petitions", "Health"], "Well-being"),
        ("de", False, ["Petitionen", "Health"], "Petitions"),
        ("de", True, ["Well-being"], "Health"),
    ],
)
def test_topics_are_called_as_their_reader_may_see_them(
    language: str,
    discreet: bool,  # noqa: FBT001 - a parameter of the table
    titles: list[str],
    hidden: str,
) -> None:
    """In the reader's language; on a discreet page by neutral titles, and those without one not at all."""
    about = About(language=language, discreet=discreet)
    page = shown("choices", about, topics=_TOPICS)
    assert re.findall(r'name="topic".*?<span>(.*?)</span>', page) == titles
    assert re.findall(r'name="topic" value="(\w+)" checked', page) == ["petitions"] * (not discreet)
    assert f">{hidden}<" not in page
    choices = Choices(about, topics=_TOPICS, discreet=discreet)
    again = PAGES.render("confirm", about, shown=Shown(choices, kind="choices"))
    assert re.findall(r'name="again" value="([\w:]+)"', again) == ["open"] * discreet + ["topic:health"]
    assert hidden not in again
    assert "checked" not in again
