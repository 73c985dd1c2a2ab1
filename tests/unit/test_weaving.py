"""Weaving: the woven mail is the mail that Jinja and premailer would have given, at a fraction of the cost.

The templates come from a table of places, the values from a table of nasty ones and from Hypothesis.
"""

import pickle
import quopri
import re
from collections.abc import Mapping

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jinja2 import Environment, StrictUndefined
from premailer import Premailer

from worker.content.weaving import (
    HtmlWeaver,
    LineWeaver,
    MissingField,
    TemplateFault,
    TextWeaver,
    clean,
    environment,
)
from worker.errors import Refused
from worker.post.parcels import Wire

CSS = """
p { color: #333; margin: 0 }
a[title] { color: red }
td:first-child { padding: 4px }
.big, h1 { font-size: 20px !important }
@media (prefers-color-scheme: dark) { .big { color: #fff } }
"""

PAGE = (
    '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{{ name }}</title>'
    f"<style>{CSS}</style></head>\n<body>%s</body></html>\n"
)

#: One place each; `name`, `city` and `url` are values, `items` a list of them, `flag` says yes or no.
PLACES = {
    "text": "<p class=big>Dear {{ name }}, how is {{ city }}?</p>",
    "text alone": "<h1>{{ name }}</h1>",
    "text side by side": "<p>{{ name }}{{ city }}{{ name }}</p>",
    "text between blocks": "<div>{{ name }}<p>x</p>{{ city }}</div>",
    "list item": "<ul><li>{{ name }}</li><li>{{ city }}{{ name }}</li></ul>",
    "cell": "<table><tr><td>{{ name }}</td></tr></table>",
    "outside cells": "<table>{{ name }}<tr>{{ city }}<td>x</td></tr></table>",
    "preformatted": "<pre>{{ name }}</pre><textarea>{{ city }}</textarea>",
    "attribute": '<img src="a.png" alt="{{ name }}"><img src="b.png" alt="of {{ name }} in \'{{ city }}\'">',
    "attribute with quotes": '<img src="a.png" alt=\'the "{{ name }}" of {{ city }}\'>',
    "attribute that CSS selects": '<a title="{{ name }}" href="x">y</a>',
    "class": '<p class="{{ name }}">x</p>',
    "whole link": '<a href="{{ url }}">x</a>',
    "link path": '<a href="https://example.org/{{ name }}/é?a=1">x</a>',
    "link query": '<a href="https://example.org/?a={{ name }}&amp;b={{ city }}#{{ url }}">x</a>',
    "encoded link": '<a href="https://example.org/?a={{ name | urlencode }}">x</a>',
    "image": '<img src="https://example.org/{{ city }}.png" alt="">',
    "embedded picture": '<p class="figure"><img src="cid:image1@example.org" alt="{{ name }}" width="4"></p>',
    "unquoted": "<a href={{ url }}>x</a>",
    "tag": "<p {{ name }}>x</p><{{ city }}>",
    "style": '<p style="color: {{ name }}">x</p>',
    "style sheet": "<style>p::after { content: '{{ name }}' }</style>",
    "script": "<script>var x = '{{ name }}';</script>",
    "comment": "<!-- {{ name }} -->",
    "reference": "<p>&{{ name }}; &am{{ city }};</p>",
    "loop": "<p>{% for item in items %}<b>{{ loop.index }}: {{ item }}</b> {{ name }}{% endfor %}</p>",
    "condition": "<p>{% if flag %}{{ name }}{% else %}no {{ city }}{% endif %}</p>",
    "condition on a value": "<p>{% if name == 'Anna' or name|length > 3 %}{{ city }}{% endif %}</p>",
    "half a condition": "<p>{{ name if flag }}</p>",
    "macro": "{% macro m(a) %}<i>{{ a }}</i> {{ city }}{% endmacro %}<p>{{ m(name) }}{{ m(url) }}</p>",
    "call": "{% macro c() %}<i>{{ caller() }}</i>{% endmacro %}<p>{% call c() %}{{ name }}{% endcall %}</p>",
    "set block": "{% set b %}<u>{{ name }}</u>{% endset %}<p>{{ b }} and {{ b }}</p>",
    "set block looked at": (
        "{% set l %}{{ name }}{% endset %}<p>{{ l|upper }} {{ l|length }}"
        "{% if l == city %}{{ l }}{% endif %}</p>"
    ),
    "macro looked at": "{% macro n() %}{{ name }}{% endmacro %}<p>{{ n() ~ '!' }}{{ n()|length }}</p>",
    "filter block": "<p>{% filter upper %}{{ name }}{% endfilter %}</p>",
    "block": "<p>{% block k %}{{ name }}{% endblock %}{{ self.k() }}</p>",
    "recursive loop": "<p>{% for i in tree recursive %}{{ i.v }}({{ loop(i.c) }}){% endfor %}</p>",
    "filters": "<p>{{ name|upper }} {{ city|truncate(5) }} {{ items|join(', ') }} {{ name ~ city }}</p>",
    "fallback": "<p>{{ absent|default('friend') }} {{ name|default('friend', true) }}</p>",
    "constants": '<p>{{ "\\x00<b>" }}{{ 1 + 1 }}{{ "é" }}</p>',
    "markup": "<p>{{ ('<b>' ~ name ~ '</b>')|safe }} {{ name|e }} {{ city|e }}</p>",
    "numbers": "<p>{{ items|length }} {{ flag }} {{ 3.5 }} {{ none }}</p>",
    "block looked at": "{% block o %}{{ name }}{% endblock %}<p>{{ self.o()|upper }}</p>",
    "caller with arguments": (
        "{% macro o() %}<i>{{ caller(city) }}</i>{% endmacro %}"
        "{% call(a) o() %}{{ name }}{% call(b) o() %}{{ b }}{{ a }}{% endcall %}{% endcall %}"
    ),
    "set blocks in each other": (
        "{% set a %}<u>{{ name }}{% set b %}<b>{{ city }}</b>{% endset %}"
        "{{ b }}{{ b }}</u>{% endset %}<p>{{ a }}</p>"
    ),
    "sets of pictures": '<img src=a.png alt={{ name }} srcset="{{ url }} 1x, {{ city }}.png 2x">',
    "letter": "<a href='mailto:a@b.org?subject={{ name }}&amp;body={{ city }}%0A{{ url }}'>{{ name }}</a>",
    "Outlook": (
        "<!--[if mso]><table><tr><td width='{{ name }}'>{{ city }}</table><![endif]--><p>{{ url }}</p>"
        "<!--[if !mso]><!--><p>{{ city }}</p><!--<![endif]-->"
    ),
    "server side": """<a href="?<!-- {{ name }}--{{ city }}>" title="&{ {{ url }} }{{ name }}">x</a>""",
}

NASTY = [
    *("", " ", "\n", " x ", "\n\nx", "x\n", "\t", "Anna", "0", "None"),
    *("<b>", "</p>", "<script>", "&", "&amp;", "amp", "amp;", "#65;", "lt", "a&b;c", "<!--", "-->", "]]>"),
    *('"', "'", "\"'", 'a"b', "a'b", 'a" onclick="x', "=", "=3D", ".", "..", ". x", "From me", "%", "%41"),
    *("https://example.org/?a=1&b=2", "javascript:x", "//x", " https://x", "é", "Ωμ", "ل", "日本", "😀" * 40),
    *("\x00", "\x1f\x7f", "\r", "\r\n", "a\rb", "\x85", "\u2028", "\ufeff", "\ud800", "\ufffe", "\xa0"),
    *("{{ 7 * 7 }}", "{% raw %}", "#}", "Tw0n0z", "x" * 75, "x" * 76, "x y " * 60, "=" * 80, "." * 200),
    *("é" * 99, "\xa0x", "x\x00", " \x00", "%zz", "<!-- <é> -->", "<!-->", "&{<x> }", "&{", "}"),
]

values = st.one_of(
    st.sampled_from(NASTY),
    st.text(st.characters(exclude_categories=()), max_size=8),
    st.text("<>&\"'=%#;. \n\t/aeé\u2028\x00", max_size=12),
)
people = st.fixed_dictionaries(
    {
        "name": values,
        "city": values,
        "url": values,
        "flag": st.booleans(),
        "items": st.lists(values, max_size=3),
    }
)


def whole(person: Mapping[str, object]) -> dict[str, object]:
    """Add what no strategy needs to vary."""
    name, city = person["name"], person["city"]
    return {**person, "tree": [{"v": name, "c": [{"v": city, "c": []}]}]}


def read(body: bytes) -> str:
    """Decode a body as a reader's program does, with LF for CRLF, after checking its form on the wire."""
    assert isinstance(body, Wire)
    assert Wire.proved(bytes(body)) == body
    for line in body.split(b"\r\n"):
        assert len(line) <= 76
        assert b"\r" not in line
        assert b"\n" not in line
        assert not line.startswith((b".", b"From "))
        assert not line.endswith((b" ", b"\t"))
    return quopri.decodestring(body).decode().replace("\r\n", "\n")


@pytest.mark.parametrize("place", PLACES)
def test_law_place_by_place(place: str) -> None:
    """Every hostile value in every kind of place comes out as the slow road would write it."""
    weaver = HtmlWeaver(PAGE % PLACES[place])
    for position, value in enumerate(NASTY):
        other = NASTY[position * 7 % len(NASTY)]
        person = whole(
            {"name": value, "city": other, "url": value, "flag": bool(position % 3), "items": [value, other]}
        )
        assert read(weaver.weave(person)) == weaver.plain(person)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(sorted(PLACES)), min_size=1, max_size=5, unique=True),
    st.lists(people, max_size=4),
)
def test_law_in_any_template(places: list[str], crowd: list[dict[str, object]]) -> None:
    """Whatever places a template combines, and whoever came before, everybody gets their own mail."""
    weaver = HtmlWeaver(PAGE % "\n".join(PLACES[place] for place in places), max_skeletons=3)
    for person in map(whole, [*crowd, *crowd[:1]]):
        assert read(weaver.weave(person)) == weaver.plain(person)


#: What broken HTML is made of.
SCRAPS = [
    *("{{ name }}", "{{ city }}", " ", "x", "&", "<", ">", '"', "'", "=", "/", "é", "#", ";"),
    *(
        "<p>",
        "</p>",
        "<a href=",
        '<img alt="',
        "<table>",
        "<tr>",
        "<td>",
        "<li>",
        "</li>",
        "<pre>",
        "<!--",
        "-->",
    ),
    *("<style>", "</style>", "<script>", "</script>", "<title>", "</title>", "</body>", "<head>", "<select>"),
    *("<svg>", "<math>", "<b>", "</b>", "<textarea>", "<noscript>", "<template>", "<plaintext>", "<![CDATA["),
]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.sampled_from(SCRAPS), max_size=9), st.lists(st.tuples(values, values), min_size=1, max_size=4)
)
def test_law_in_broken_html(scraps: list[str], crowd: list[tuple[str, str]]) -> None:
    """Even where the HTML is broken, and a value changes how it parses, nobody gets another's mail."""
    weaver = HtmlWeaver("<p>" + "".join(scraps))
    for name, city in crowd:
        person = {"name": name, "city": city}
        assert read(weaver.weave(person)) == weaver.plain(person)


@settings(max_examples=60, deadline=None)
@given(people)
def test_slow_road_is_jinja_then_premailer(person: dict[str, object]) -> None:
    """The law's right-hand side is plain Jinja and premailer, once the values are clean."""
    source = PAGE % "\n".join(PLACES[p] for p in ("text", "attribute", "link query", "loop", "set block"))
    cleaned = {
        key: clean(value)
        if isinstance(value, str)
        else [*map(clean, value)]
        if isinstance(value, list)
        else value
        for key, value in person.items()
    }
    jinja = Environment(autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True)
    html = jinja.from_string(source).render(cleaned)
    inliner = Premailer(
        html,
        allow_network=False,
        strip_important=False,
        disable_leftover_css=True,
        disable_validation=True,
        disable_basic_attributes=["width", "height"],
        cssutils_logging_level=50,
    )
    assert HtmlWeaver(source).plain(person) == inliner.transform(pretty_print=False)


def test_every_character_in_every_place() -> None:
    """Each character of the first plane, and some beyond, is written as libxml2 writes it."""
    source = '<p>{{ v }}</p><img alt="{{ v }}"><a href="x{{ v }}" title="{{ v }}">{{ v }}</a>'
    weaver = HtmlWeaver(PAGE.replace("{{ name }}", "x").replace("a[title]", "a") % source)
    points = [*range(0x20, 0xD800), *range(0xE000, 0x10000), 0x1F600, 0x1FFFE, 0xE0001, 0x10FFFF]
    for start in range(0, len(points), 4096):
        v = "x" + "".join(map(chr, points[start : start + 4096])) + "x"
        assert read(weaver.weave({"v": v})) == weaver.plain({"v": v})
    assert weaver.skeletons == 1
    assert not weaver.slow_lines


def test_premailer_runs_once_per_skeleton() -> None:
    """A thousand people in three branches cost three runs of premailer."""
    weaver = HtmlWeaver(
        PAGE % "<p>{{ name }}{% if lot %} is {{ lot }}{% if lot > 1 %} of many{% endif %}{% endif %}</p>"
    )
    for number in range(1000):
        weaver.weave({"name": f"n{number}", "lot": number % 3})
    assert weaver.premailer_calls == weaver.skeletons == 3
    assert not weaver.slow_lines


def test_empty_fields_do_not_multiply_skeletons() -> None:
    """Ten fields that may each be empty still make one skeleton, where being empty changes no markup."""
    names = [f"f{number}" for number in range(10)]
    weaver = HtmlWeaver(
        PAGE.replace("{{ name }}", "x") % "".join(f"<p>{{{{ {name} }}}}</p>" for name in names)
    )
    for number in range(200):
        weaver.weave({name: "x" if number >> bit & 1 else "" for bit, name in enumerate(names)})
    assert weaver.skeletons == 1


def test_skeletons_are_bounded_and_slow_places_named() -> None:
    """A template that makes a skeleton per person keeps only so many, and says which line is to blame."""
    source = PAGE % '<p>{{ name }}</p>\n<p style="color: {{ city }}">x</p>'
    weaver = HtmlWeaver(source, max_skeletons=4)
    for number in range(10):
        weaver.weave({"name": "Anna", "city": f"#00000{number}"})
    assert weaver.skeletons == 10
    assert len(weaver._kept) == 4
    assert weaver.slow_lines == {source[: source.index("city")].count("\n") + 1}


def test_forged_stand_in_is_text() -> None:
    """Someone called like a stand-in, in a place that is not woven, gets that name and nobody's value."""
    source = PAGE % '<p style="color: {{ name }}">{{ city }} {{ name|safe }}</p>'
    weaver = HtmlWeaver(source)
    word = weaver._words.word(0)
    for name in (word, f"{word} {weaver._words.word(1)}", weaver._words.word(7)):
        person = {"name": name, "city": "Oslo"}
        for _ in range(2):
            assert read(weaver.weave(person)) == weaver.plain(person)
            assert name in weaver.plain(person)


def test_media_queries_survive_and_win() -> None:
    """CSS that cannot be inlined stays, marked important: else the inlined styles would beat dark mode."""
    html = read(HtmlWeaver(PAGE % '<p class="big" width="100">{{ name }}</p>').weave({"name": "Anna"}))
    assert html.startswith("<!DOCTYPE html>")
    assert re.search(r"prefers-color-scheme: dark\).*color: #fff !important", html, re.DOTALL)
    assert 'class="big" width="100" style="' in html


@pytest.mark.parametrize(
    "source", ["", " ", "<!-- x -->", "<!DOCTYPE html>", "{{ name }}", " {% if 0 %}x{% endif %}"]
)
def test_empty_page(source: str) -> None:
    """A page with nothing to show is empty, and no crash."""
    weaver = HtmlWeaver(source)
    assert weaver.weave({"name": ""}) == b""
    assert weaver.plain({"name": ""}) == ""


@pytest.mark.parametrize("doctype", ["<!doctype html>", "<!DOCTYPE html>", "\n <!DocType HTML>"])
def test_doctype_is_kept(doctype: str) -> None:
    """A doctype in any case is kept, since premailer drops a lower-case one (quirks mode)."""
    source = (PAGE % "{{ name }}").replace("<!DOCTYPE html>", doctype)
    assert HtmlWeaver(source).plain({"name": "x"}).startswith("<!DOCTYPE html>")


@pytest.mark.parametrize(
    "link", ['<link rel="stylesheet" href="http://127.0.0.1:1/x.css">', "<style>@import 'x.css';</style>"]
)
def test_no_network(link: str) -> None:
    """A style sheet elsewhere is not fetched."""
    weaver = HtmlWeaver(PAGE.replace("<style>", link + "<style>") % "<p>{{ name }}</p>")
    assert read(weaver.weave({"name": "Anna"})) == weaver.plain({"name": "Anna"})


TEXTS = {
    "plain": "Dear {{ name }},\n\n{{ city }}\n",
    "open end": "Dear {{ name }}, {{ city }}",
    "nothing but": "{{ name }}",
    "dots": ".\n{{ name }}.\n..{{ city }}\nFrom {{ url }}\n",
    "spaces": "a \n {{ name }} \n\t{{ city }}\t\nend ",
    "looped": "{% for item in items %}* {{ item }}\n{% endfor %}",
    "block looked at": "{% block b %}{{ name }}{% endblock %}{{ self.b()|upper }} {{ self.b()[::-1] }}\n",
    "captured": "{% set b %}<{{ name }}>{% endset %}{{ b }}{% macro m(a) %}{{ a }}{% endmacro %}{{ m(url) }}",
    "looked at": "{% set b %}{{ name }}{% endset %}{{ b|upper }}{{ b|length }}{{ b }}\n",
    "escaped": "{{ name|e }} {{ ('<' ~ city)|safe }}\n",
    "nothing": "Only words, é = 1\n",
}  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_text_law(text: str) -> None:
    """A text part holds the values as they are, unescaped, whatever they are."""
    weaver = TextWeaver(TEXTS[text])
    jinja = Environment(keep_trailing_newline=True)  # noqa: S701 - plain text
    for position, value in enumerate(NASTY):
        other = NASTY[position * 7 % len(NASTY)]
        person = {"name": value, "city": other, "url": value, "items": [value, other]}
        assert read(weaver.weave(person)) == weaver.plain(person)
        cleaned = {"name": clean(value), "city": clean(other), "url": clean(value)}
        assert weaver.plain(person) == jinja.from_string(TEXTS[text]).render(
            **cleaned, items=[clean(value), clean(other)]
        )


@settings(max_examples=200, deadline=None)
@given(people)
@example({"name": "x ", "city": " ", "url": "", "items": [], "flag": True})
def test_text_law_for_anybody(person: dict[str, object]) -> None:
    """The same, for values that nobody thought of."""
    weaver = TextWeaver(TEXTS["dots"] + TEXTS["spaces"] + TEXTS["open end"])
    assert read(weaver.weave(person)) == weaver.plain(person)


@given(st.text(st.characters(exclude_categories=())), st.text(st.characters(exclude_categories=())))
def test_line_is_one_line(first: str, second: str) -> None:
    """A header value is one line without controls, whatever was woven into it."""
    line = LineWeaver("{{ a }}: {{ b }}\n").weave({"a": first, "b": second})
    assert "\n" not in line
    assert not re.search("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]|  ", line)
    assert line == line.strip(" ")


@pytest.mark.parametrize(
    ("given_", "line"),
    [
        ("Anna", "Hello Anna"),
        ("A\r\nBcc: b@example.org", "Hello A Bcc: b@example.org"),
        (" A \t B ", "Hello A B"),
        ("A\u2028B\x00C", "Hello A BC"),
        ("<b> & {{ 7 * 7 }}", "Hello <b> & {{ 7 * 7 }}"),
    ],
)
def test_line(given_: str, line: str) -> None:
    """Line ends, controls and runs of white space become one space; nothing is escaped or run."""
    assert LineWeaver("Hello {{ name }}").weave({"name": given_}) == line


@pytest.mark.parametrize("source", [*TEXTS.values(), "{{ name }}{{ name }} {{ 'c' }}", "Tw0n0z {{ city }}"])
def test_line_law(source: str) -> None:
    """Whoever came before, a header value is what Jinja would give, made one line."""
    weaver = LineWeaver(source)
    for position, value in enumerate(NASTY):
        other = NASTY[position * 7 % len(NASTY)]
        person = {"name": value, "city": other, "url": value, "items": [value, other]}
        line = weaver._template.plain(person)
        assert weaver.weave(person) == re.sub("[\x00-\x20\x7f-\x9f\u2028\u2029]+", " ", line).strip(" ")


@pytest.mark.parametrize("weaver", [HtmlWeaver, TextWeaver, LineWeaver])
@pytest.mark.parametrize(
    "source",
    ["{{ town }}", "{{ town|upper }}", "{% if town == 1 %}{% endif %}", "{{ town.street }}", "{{ a.town }}"],
)
def test_missing_field_is_named(weaver: type[HtmlWeaver], source: str) -> None:
    """A value that a person lacks is an error that names it, and a remedy."""
    with pytest.raises(MissingField, match='"town"') as caught:
        weaver(f"<p>{source}</p>").weave({"a": {}})
    assert caught.value.field == "town"
    assert isinstance(caught.value, Refused)
    assert "default" in caught.value.remedy
    assert pickle.loads(pickle.dumps(caught.value)).field == "town"  # noqa: S301 - our own


@pytest.mark.parametrize("weaver", [HtmlWeaver, TextWeaver, LineWeaver])
@pytest.mark.parametrize(
    "source",
    [
        *("x\n{{ a", "x\n{% nope %}", "x\n{{ a|nope }}", "x\n{% include 'a' %}", "x\n{% extends 'a' %}"),
        *(
            "x\n{% import 'a' as b %}",
            "x\n{% autoescape false %}{{ a }}{% endautoescape %}",
            "x\n{{ a|random }}",
        ),
    ],
)
def test_wrong_template_is_refused(weaver: type[HtmlWeaver], source: str) -> None:
    """A template that cannot be read, loads others or switches escaping is refused with its line."""
    with pytest.raises(TemplateFault, match="line 2") as caught:
        weaver(source)
    assert caught.value.line == 2


@pytest.mark.parametrize("kind", ["html", "text"])
def test_sandbox_bounds(kind: str) -> None:
    """A template reaches no Python internals, changes no value and loops no longer than a mail could need."""
    made = environment(kind)  # type: ignore[arg-type]  # the two kinds
    assert made.from_string("{{ range(3)|list }}").render() == "[0, 1, 2]"
    for hostile in (
        "{{ ''.__class__.mro() }}",
        "{{ a.append(1) }}",
        "{% for i in range(1001) %}{% endfor %}",
        "{% for i in range(10**30) %}{% endfor %}",
    ):
        with pytest.raises(Exception, match=r"unsafe|range"):
            made.from_string(hostile).render(a=[])
