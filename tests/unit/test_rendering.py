"""What a person is sent: the same content in both parts, nothing that tells from outside, no Jinja left."""

import quopri
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import html as lxml_html

from worker.content.appeals import Appeal, parse
from worker.content.look import LookError
from worker.content.rendering import Look, Organisation, PlainContent, Renderer
from worker.content.weaving import MissingField
from worker.content.words import CatalogueError, Catalogues, direction
from worker.errors import Refused

TEMPLATES = Path(__file__).parents[2] / "templates"
LOOK = Look(
    {
        path.name: path.read_text("utf-8")
        for name in ("look", "locale")
        for path in (TEMPLATES / name).iterdir()
    }
)
CATALOGUES = Catalogues(LOOK.files)
CHARITY = Organisation(
    name="Example Equality",
    postal_address="1 Example Street\nLondon N1 0AA",
    registration="Registered charity 0000000",
    website="https://example.org",
    privacy_url="https://example.org/privacy",
)
OPT_OUT = "https://act.example.org/u/abcdefghijklmnopqrstuvwxyz"
MINIMAL = """\
---
subject: Subject
preheader: Preheader
content_warning: Warning
actions:
  - {kind: sign, text: Sign, link: "https://example.org/sign", main: true}
---
"""
LANGUAGES = ("ar", "de", "en", "es", "fr", "ru")
FORMS = [(language, form) for language in LANGUAGES for form in ("open", "discreet")]
every_form = pytest.mark.parametrize(("language", "form"), FORMS)


def sample() -> Appeal:
    """Return the appeal that ships."""
    folder = TEMPLATES / "appeals" / "chechnya-report"
    return parse(folder.name, {path.name: path.read_text("utf-8") for path in folder.iterdir()})


SAMPLE = Renderer(sample(), LOOK, CHARITY)


def shown(language: str, form: str, **values: str) -> PlainContent:
    """Return the sample as one person sees it."""
    return SAMPLE.render_plain(language, form == "discreet", {"opt_out_url": OPT_OUT, **values})


def written(
    body: str,
    values: Mapping[str, str] = MappingProxyType({}),
    *,
    language: str = "en",
    discreet: bool = False,
    charity: Organisation = CHARITY,
) -> PlainContent:
    """Return an appeal of this body as one person sees it."""
    renderer = Renderer(parse("rain", {f"{language}.md": MINIMAL + body}), LOOK, charity)
    return renderer.render_plain(language, discreet, {"opt_out_url": OPT_OUT, **values})


def page(content: PlainContent) -> Any:
    """Return the HTML part as a tree."""
    return lxml_html.document_fromstring(content.html)


def hrefs(content: PlainContent) -> set[str]:
    """Return the links of the HTML part but those that open a ready post."""
    shares = page(content).xpath("//*[@class='share']//a/@href")
    return set(page(content).xpath("//a/@href")) - set(shares)


def text_of(tree: Any) -> str:
    """Return the text of a tree with single spaces."""
    return " ".join(tree.text_content().split())


@every_form
def test_the_warning_comes_first_in_both_parts(language: str, form: str) -> None:
    """Nothing of the appeal stands before the content warning but the sender and the preheader."""
    content = shown(language, form)
    version = sample().languages[language]
    body = text_of(page(content).find("body"))
    warning = " ".join(version.content_warning.split())
    assert warning in body
    before = body.partition(warning)[0]
    plain = " ".join(content.text.split())
    assert warning in plain
    for heading in re.findall(r"^## (.*)$", version.body, re.MULTILINE):
        assert heading in body
        assert heading not in before
        assert heading not in plain.partition(warning)[0]
    if form == "open":
        label = CATALOGUES.words(language)["mail.content_warning"]
        assert plain.startswith(f"{label.upper()} {warning}")


@every_form
def test_both_parts_hold_the_same_links(language: str, form: str) -> None:
    """What can be followed in one part can be followed in the other; ready posts are texts to copy."""
    content = shown(language, form)
    assert hrefs(content) == set(re.findall(r"https://\S+", content.text))
    for action in sample().languages[language].actions:
        for text in action.share.values():
            said = " ".join(content.text.replace("|", " ").split())
            assert (" ".join(text.split()) in said) is (form == "open")


@every_form
def test_both_parts_hold_the_same_numbers_and_headings(language: str, form: str) -> None:
    """Every number and heading of the HTML part is in the text part."""
    content = shown(language, form)
    tree = page(content)
    assert set(re.findall(r"\d+", text_of(tree.find("body")))) <= set(re.findall(r"\d+", content.text))
    plain = " ".join(content.text.split())
    assert [heading for heading in tree.xpath("//h1|//h2") if text_of(heading) not in plain] == []


@every_form
def test_the_opt_out_link_is_visible_in_both_parts(language: str, form: str) -> None:
    """The footer of each part holds the person's own opt-out link, and the rest the law asks for."""
    content = shown(language, form)
    (link,) = page(content).xpath(f"//a[@href='{OPT_OUT}']")
    assert text_of(link) == CATALOGUES.words(language)["mail.opt_out"]
    assert f"\n{OPT_OUT}\n" in content.text
    for needed in (CHARITY.name, "London N1 0AA", CHARITY.registration):
        assert needed in content.text
        assert needed in text_of(page(content))


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_discreet_form_tells_nothing_from_outside(language: str) -> None:
    """No telling word is in what a mailbox list, a window title, an address bar or a preview shows."""
    content = shown(language, "discreet")
    tree = page(content)
    outside = [content.subject, content.preheader, content.sender_name, tree.findtext("head/title")]
    outside += tree.xpath("//@aria-label") + [text_of(heading) for heading in tree.xpath("//h1")]
    outside += [unquote(link) for link in (*tree.xpath("//@href"), *re.findall(r"https://\S+", content.text))]
    # Mailbox lists show as much of the beginning as fits after the subject.
    outside += [text_of(tree.find("body"))[:160], content.text[:160]]
    telling = sample().languages[language].telling_words
    assert [(word, seen) for word in telling for seen in outside if word in seen.casefold()] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_discreet_form_has_no_ready_posts(language: str) -> None:
    """A ready post would write the appeal's words into a link."""
    assert page(shown(language, "discreet")).xpath("//*[@class='share']") == []
    assert page(shown(language, "open")).xpath("//*[@class='share']") != []


def test_an_appeal_without_a_discreet_form_gets_neutral_words() -> None:
    """Whoever must not be seen is never sent the open subject for want of another."""
    content = written("Body", discreet=True)
    assert content.subject == "Your letter is here"
    assert content.sender_name == "Reader Letters"
    assert "Subject" not in content.html
    assert "Preheader" not in content.html
    assert "Subject" not in content.text


@every_form
def test_the_html_is_small_and_filled_in(language: str, form: str) -> None:
    """The HTML part stays under what mail programs cut off, and holds no Jinja."""
    content = shown(language, form)
    assert len(content.html.encode()) < 90_000
    without_css = re.sub(r"<style>.*?</style>", "", content.html, flags=re.DOTALL)
    for part in (without_css, content.text, content.subject, content.preheader, content.sender_name):
        assert not re.search(r"[{}]|zqj", part)


@every_form
def test_the_html_says_its_language_and_structure(language: str, form: str) -> None:
    """Doctype, language, direction, one headline, layout tables marked, one button, the preheader first."""
    content = shown(language, form)
    tree = page(content)
    assert content.html.startswith("<!DOCTYPE html>")
    (outer,) = tree.xpath("//body/div")
    for element in (tree, outer):
        assert (element.get("lang"), element.get("dir")) == (language, direction(language))
    assert text_of(outer[0]) == content.preheader
    assert tree.findtext("head/title") == content.subject
    assert len(tree.xpath("//h1")) == 1
    assert tree.xpath("//table[not(@role='presentation')]") == []
    assert len(tree.xpath("//a[@class='button']")) == 1
    assert len(tree.xpath("//ol/li")) == len(sample().languages[language].actions)


@every_form
def test_css_is_inlined_and_nothing_is_fetched(language: str, form: str) -> None:
    """Elements carry their styles; the only address in the mail is one that a reader may follow."""
    content = shown(language, form)
    tree = page(content)
    assert all(element.get("style") for element in tree.xpath("//body//p|//body//a|//body//h2"))
    assert tree.xpath("//link|//img|//script|//@src|//@background") == []
    assert "url(" not in content.html
    assert "prefers-color-scheme: dark" in content.html


@pytest.mark.parametrize("language", CATALOGUES.languages)
@pytest.mark.parametrize("form", ["open", "discreet"])
def test_every_language_is_spoken_throughout(language: str, form: str) -> None:
    """Label, button, reason and opt-out are the language's own in both parts; no placeholder is left."""
    content = written("Text", language=language, discreet=form == "discreet")
    words = CATALOGUES.words(language).under("mail")
    tree = text_of(page(content))
    reason = words["reason"] % {"organisation": CHARITY.name}
    for said in (words["question"], reason, words["opt_out"], words["privacy"]):
        assert " ".join(said.split()) in tree
        assert " ".join(said.split()) in " ".join(content.text.split())
    assert words["button_sign"] in tree
    assert " ".join((words["label"] % {"label": words["content_warning"]}).split()) in tree
    assert "%(" not in content.html + content.text + content.subject + content.preheader


def test_a_language_that_we_do_not_speak_is_refused() -> None:
    """An appeal in a language without a catalogue makes no mail, and none half in English."""
    with pytest.raises(CatalogueError, match="there is no catalogue for the language cy"):
        Renderer(parse("rain", {"en.md": MINIMAL + "a", "cy.md": MINIMAL + "b"}), LOOK, CHARITY)


@pytest.mark.parametrize(
    ("language", "said"),
    [("en", "30 November 2026: 1,200"), ("de", "30. November 2026: 1.200"), ("ar", "30 نوفمبر 2026: 1,200")],
)
def test_dates_and_numbers_are_the_readers(language: str, said: str) -> None:
    """The author writes them once for all languages, in the body and in a person's field."""
    body = 'On {{ "2026-11-30" | date }}: {{ sum | number }}'
    content = written(body, {"sum": "1200"}, language=language)
    assert said in content.text
    assert said in content.html


def test_the_look_may_write_dates_and_numbers() -> None:
    """The same filters serve the layouts."""
    layout = '{{ "2026-11-30" | date("medium") }} {{ 1200 | number }}'
    look = Look({**LOOK.files, "layout.txt": layout})
    content = Renderer(parse("rain", {"de.md": MINIMAL + "a"}), look, CHARITY)
    assert (
        content.render_plain("de", discreet=False, values={"opt_out_url": OPT_OUT}).text == "30.11.2026 1.200"
    )


def test_a_language_from_right_to_left_turns_the_page() -> None:
    """Direction and sides follow the language, and the look speaks it."""
    tree = page(written("نص", language="ar"))
    assert tree.get("dir") == "rtl"
    (warning,) = tree.xpath("//*[@class='warning-text']")
    assert "border-right" in warning.get("style")
    assert "text-align:right" in warning.get("style").replace(" ", "")
    (footer,) = tree.xpath("//*[@class='footer']")
    assert "إلغاء الاشتراك" in text_of(footer)


@pytest.mark.parametrize(
    ("body", "values", "in_html", "in_text"),
    [
        ("Hi {{ name }}", {"name": "Zoë"}, "<p>Hi Zoë</p>", "Hi Zoë"),
        ('Hi {{ name | default("friend") }}', {}, "<p>Hi friend</p>", "Hi friend"),
        ('Hi {{ name | default("friend") }}', {"name": ""}, "<p>Hi friend</p>", "Hi friend"),
        ("**{{ name }}**s", {"name": "A"}, "<p><strong>A</strong>s</p>", "As"),
        ("Hi {{ name }}", {"name": "<b>{{ 7*7 }}&"}, "Hi &lt;b&gt;{{ 7*7 }}&amp;", "Hi <b>{{ 7*7 }}&"),
        ("`{{ name }}`", {"name": "<A>"}, "<code>&lt;A&gt;</code>", "<A>"),
        ("{% if town is defined %}\nIn {{ town }}\n{% endif %}\nEnd", {}, "<p>End</p>", "\n\nEnd\n"),
        (
            "{% if town is defined %}\nIn {{ town }}\n{% endif %}\nEnd",
            {"town": "X"},
            "<p>In X</p>",
            "In X\n\nEnd",
        ),
        ("a{% if name == '}}' %}b{% endif %}", {"name": "}}"}, "<p>ab</p>", "ab"),
        ("{# a note #}Text", {}, "<p>Text</p>", "Text"),
        ("A { brace } and }} two", {}, "<p>A { brace } and }} two</p>", "A { brace } and }} two"),
        ('{{ "{{" }}', {}, "<p>{{</p>", "{{"),
    ],
)
def test_the_authors_jinja_survives_markdown(
    body: str, values: dict[str, str], in_html: str, in_text: str
) -> None:
    """What the author writes in braces is evaluated per person, and only that."""
    content = written(body, values)
    assert in_html in re.sub(r" style='[^']*'| style=\"[^\"]*\"", "", content.html)
    assert in_text in content.text
    assert "<p></p>" not in content.html


def test_jinja_in_a_link_survives_in_both_parts() -> None:
    """A link's query may be filled in per person."""
    content = written(
        "[Write](https://example.org/w?p={{ postcode | urlencode }}&q=ä)", {"postcode": "N1 0AA"}
    )
    link = "https://example.org/w?p=N1%200AA&q=%C3%A4"
    assert page(content).xpath(f"//a[@href='{link}']")
    assert f"Write [1]\n[1] {link}\n" in content.text


def test_the_reserved_links_may_stand_in_the_body() -> None:
    """The author may offer the opt-out where it matters."""
    content = written("[Leave]({{ opt_out_url }}) at any time.")
    assert len(page(content).xpath(f"//a[@href='{OPT_OUT}']")) == 2


@pytest.mark.parametrize(
    "hostile", ["{{ 7*7 }}", "{% if x %}", "{# c #}", "{", "{{{%", "<b>&\"'", "{% endraw %}", "zqjv0q"]
)
def test_a_charitys_words_are_never_read_as_jinja_or_html(hostile: str) -> None:
    """Names and addresses from the settings come out as they went in."""
    name = f"A {hostile} B {hostile}"
    content = written("Body {{ name }}", {"name": "N"}, charity=Organisation(name, hostile, hostile, "", ""))
    assert content.sender_name == name
    assert name in text_of(page(content))
    assert f"\n{name}\n" in content.text
    assert "Body N" in content.text


@settings(max_examples=25, deadline=None)
@given(
    st.text(alphabet=st.sampled_from("{%#} ab-'\"<&zqjv0"), min_size=1, max_size=12)
    .map(str.strip)
    .filter(bool)
)
def test_no_charitys_name_becomes_jinja(name: str) -> None:
    """Whatever braces a name holds, both parts show it and the rest still works."""
    content = written("Body {{ name }}", {"name": "N"}, charity=Organisation(name, "", "", "", ""))
    assert f"\n{name}\n" in content.text
    assert "Content warning:</strong><br>Warning" in content.html
    assert " ".join(name.split()) in text_of(page(content))


def test_a_missing_field_without_fallback_is_refused() -> None:
    """A person who lacks what the appeal needs is not sent a gap."""
    with pytest.raises(MissingField):
        written("Hi {{ name }}")


@pytest.mark.parametrize("expression", ["{{ age + 1 }}", "{{ 1 / 0 }}", "{{ range(2000) | list }}"])
def test_jinja_that_fails_on_a_value_is_refused_without_telling_it(expression: str) -> None:
    """An expression that a person's value does not suit is one clear line, and keeps the value to itself."""
    with pytest.raises(Refused) as caught:
        written(expression, {"age": "thirty"})
    assert "thirty" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_the_fields_used_are_known_beforehand() -> None:
    """The renderer names the fields of a person that any version uses, not the mail's own links."""
    assert SAMPLE.fields == {"first_name"}
    text = (
        MINIMAL.replace("Subject", "For {{ town }}")
        + "[Leave]({{ opt_out_url }}) {{ name }} {{ range(2) | length }}"
    )
    assert Renderer(parse("rain", {"en.md": text}), LOOK, CHARITY).fields == {"town", "name"}


def test_front_matter_may_hold_fields() -> None:
    """Subject, preheader, warning and actions are filled in too, and escaped in HTML only."""
    text = re.sub(r"(Subject|Preheader|Warning|\bSign)\b", r"'\1 {{ name }}'", MINIMAL) + "Body"
    renderer = Renderer(parse("rain", {"en.md": text}), LOOK, CHARITY)
    content = renderer.render_plain("en", discreet=False, values={"opt_out_url": OPT_OUT, "name": "<Z>"})
    assert (content.subject, content.preheader) == ("Subject <Z>", "Preheader <Z>")
    for words in ("Subject &lt;Z&gt;", "Preheader &lt;Z&gt;", "Warning &lt;Z&gt;", "Sign &lt;Z&gt;"):
        assert words in content.html
    assert "1. Sign <Z>" in content.text


@every_form
def test_what_is_sent_is_what_was_previewed(language: str, form: str) -> None:
    """The woven parts, decoded, are the preview's parts."""
    values = {"opt_out_url": OPT_OUT, "first_name": "Zoë <&> =?"}
    plain = SAMPLE.render_plain(language, form == "discreet", values)
    sent = SAMPLE.render(language, form == "discreet", values)
    assert (sent.subject, sent.sender_name, sent.language) == (plain.subject, plain.sender_name, language)
    for woven, whole in ((sent.html, plain.html), (sent.text, plain.text)):
        assert quopri.decodestring(woven).decode().replace("\r\n", "\n").rstrip("\n") == whole.rstrip("\n")


@every_form
def test_the_text_part_is_wrapped_and_plain(language: str, form: str) -> None:
    """Lines are at most 72 characters but for links, and hold no tags, entities or hard spaces."""
    content = shown(language, form, first_name="Zoë")
    assert [line for line in content.text.splitlines() if len(line) > 72 and "https://" not in line] == []
    assert not re.search(r"<\w|&\w+;|\u00a0|\x00", content.text)
    assert "\n\n\n" not in content.text


RICH = """\
## A heading

- one [link](https://example.org/1)
- two
  - nested

1. first

   more of it
2. second

> Quoted words
> go on.

    code <x>

* * *

<https://example.org/2> and [write](mailto:a@example.org), hard\\
break
"""


def test_every_kind_of_block_is_written_in_both_parts() -> None:
    """Lists, quotations, code, rules and links read well as plain text, and are HTML in the other."""
    content = written(RICH)
    assert (
        content.text.partition("=\n\n")[2].partition("\n\nHow can")[0]
        == """\
A heading
---------

- one link [1]
  [1] https://example.org/1
- two
  - nested

1. first

   more of it

2. second

> Quoted words go on.

    code <x>

* * *

https://example.org/2 and write [2], hard
break
[2] mailto:a@example.org"""
    )
    for tag in ("h2", "ul", "ol", "li", "blockquote", "pre", "hr"):
        assert page(content).xpath(f"//*[@class='body']//{tag}"), tag


def luminance(colour: str) -> float:
    """Return the relative luminance of a colour (WCAG 2.2)."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    ("ink", "ground"),
    [
        ("ink", "sheet"),
        ("ink", "page"),
        ("quiet", "sheet"),
        ("quiet", "page"),
        ("link", "sheet"),
        ("accent", "sheet"),
        ("on_accent", "accent"),
        ("on_warning", "warning"),
    ],
)
def test_every_ink_is_legible_on_its_ground(scheme: str, ink: str, ground: str) -> None:
    """Contrast is at least 4.5:1 in both colour schemes."""
    tokens = tomllib.loads(LOOK.files["look.toml"])[scheme]
    low, high = sorted((luminance(tokens[ink]), luminance(tokens[ground])))
    assert (high + 0.05) / (low + 0.05) >= 4.5


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("layout.html", None, "the look has no layout.html"),
        ("layout.html", "a\n{% if %}", "layout.html:2: "),
        ("layout.txt", "{{ nonsense }}", "layout.txt: 'nonsense' is undefined"),
        ("layout.html", "{% include 'gone.html' %}", "layout.html: gone.html"),
    ],
)
def test_a_broken_look_is_named(name: str, text: str | None, message: str) -> None:
    """A missing or wrong file of the look is one clear line with a remedy."""
    files = {**LOOK.files, name: text or ""}
    if text is None:
        del files[name]
    with pytest.raises(LookError) as caught:
        Renderer(sample(), Look(files), CHARITY).render_plain(
            "en", discreet=False, values={"opt_out_url": OPT_OUT}
        )
    assert str(caught.value).startswith(message)
    assert caught.value.remedy
