"""An article becomes a draft that says the same, does nothing of its own, and names what it lacks."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.content import articles, drafts
from worker.content.appeals import Appeal, AppealErrors, parse
from worker.content.articles import Form
from worker.content.drafts import Draft
from worker.content.markdown import Document
from worker.content.versions import Kind
from worker.errors import WrongUse

ARTICLES = Path(__file__).parents[1] / "articles"


def drafted(text: str, form: Form = Form.MARKDOWN) -> Draft:
    """Return the draft of an article."""
    return drafts.draft(articles.read(text, form))


def body(text: str, form: Form = Form.MARKDOWN) -> str:
    """Return the body of the draft of an article."""
    return drafted(text, form).text.partition("\n---\n\n")[2]


def parsed(draft: Draft) -> Appeal:
    """Read a draft as an appeal, its unfound links given."""
    return parse("rain", {"en.md": draft.text.replace('link: "TODO"', "link: https://example.org/found")})


@pytest.mark.parametrize("name", ["report.md", "clinic.txt", "bericht.html", "blog.html", "word.html"])
def test_articles_become_the_drafts_that_were_looked_at(name: str) -> None:
    """Title, question, actions, headings, quotations, links and pictures each come out in their place."""
    file = ARTICLES / name
    form = Form(file.suffix[1:])
    draft = drafts.draft(articles.read(articles.decode(file.read_bytes(), form), form))
    told = "".join(f"{one}\n" for one in draft.unfinished)
    assert f"{draft.text}\n{told}" == (ARTICLES / f"{name}.draft").read_text("utf-8")
    assert parsed(draft)


def test_a_draft_fails_its_check_for_unfound_links_alone() -> None:
    """What was not found cannot be sent by mistake; nothing else is wrong."""
    draft = drafted((ARTICLES / "report.md").read_text("utf-8"))
    with pytest.raises(AppealErrors) as caught:
        parse("rain", {"en.md": draft.text})
    assert [finding.message for finding in caught.value.findings] == [
        '"link" must begin with https:// (or mailto:): TODO'
    ]


def test_an_empty_skeleton_names_all_that_is_to_be_written() -> None:
    """Without an article there is a file with every needed key, and a list of what to write."""
    draft = drafts.skeleton()
    assert parsed(draft).languages["en"].subject.startswith("TODO")
    for key in ("subject", "preheader", "content_warning", "action 1", "the text"):
        assert any(key in one for one in draft.unfinished), key


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("Read and share the report", Kind.READ),
        ("Share and read", Kind.SHARE),
        ("Sign the petition", Kind.SIGN),
        ("Watch the film", Kind.WATCH),
        ("Write to your MP", Kind.WRITE_TO),
        ("Give what you can", Kind.DONATE),
        ("Jetzt spenden", Kind.DONATE),
        ("Signez la pétition", Kind.SIGN),
        ("Подпишите петицию", Kind.SIGN),
        ("Comparta este enlace", Kind.SHARE),
        ("تبرّعوا الآن", Kind.DONATE),
        ("Something else", Kind.READ),
    ],
)
def test_an_actions_kind_is_what_it_says_first(words: str, kind: Kind) -> None:
    """The verb decides, in each of our languages; what says none is something to read."""
    draft = drafted(f"# T\n\nText\n\n## How to help\n\n- [{words}](https://example.org/a)\n")
    (action,) = parsed(draft).languages["en"].actions
    assert (action.kind, action.text) == (kind, words)


@pytest.mark.parametrize(
    ("article", "expected"),
    [
        ("Dear {{ name }}", "Dear {\\{ name }}"),
        ("{% if a %}x{% endif %}", "{\\% if a %}x{\\% endif %}"),
        ("{{{ a", "{\\{\\{ a"),
        ("a <b onclick=x>bold</b>", "a **bold**"),
        ("# T\n\n### Deep\n\n# Again", "## Deep\n\n## Again"),
        ("1\\. not a list", "1\\. not a list"),
        ("\\# no heading", "\\# no heading"),
        ("<a href='javascript:alert(1)'>x</a>", "x"),
        ("[x](https://localhost/)", "x"),
        ("[x](https://example.org/a(b))", "[x](https://example.org/a%28b%29)"),
        ("[x](https://example.org/{{a}})", "[x](https://example.org/%7B%7Ba%7D%7D)"),
        ("```\n{{ a }}\n# x\n```", '```\n{{ "{" }}{ a }}\n# x\n```'),
        ("a\n\n---\n\nb", "a\n\n* * *\n\nb"),
        ("x<!-- {{ a }} -->y", "xy"),
        ("<style>p{}</style><p>y</p>", "y"),
        ("<div hidden>no</div><p>y</p>", "y"),
        ("<img src=x width=1><img style='height: 0.5px' src=y><p>y</p>", "y"),
        ("<div class=share-row>Tweet</div><p>y</p><p role=search>z</p>", "y"),
        (f"<div class=social>{'x' * 400}</div>", "x" * 400),
        ("<blockquote><p>Q</p><cite>A</cite></blockquote>", "> Q\n>\n> — A"),
        ("| A | B |\n|---|---|\n| 1 | 2 |", "A · B\n\n1 · 2"),
    ],
)
def test_nothing_of_an_article_acts(article: str, expected: str) -> None:
    """Jinja, HTML, scripts and marks of the article are words in the draft, or gone."""
    assert body(article).strip() == expected


@pytest.mark.parametrize(
    ("data", "form", "text"),
    [
        ("é".encode(), Form.TEXT, "é"),
        (b"\xef\xbb\xbfa", Form.TEXT, "\ufeffa"),
        ("é".encode("utf-16"), Form.TEXT, "é"),
        (b"\xe9", Form.TEXT, "é"),
        ('<meta charset="windows-1251">Дом'.encode("cp1251"), Form.HTML, '<meta charset="windows-1251">Дом'),
        (b'<meta charset="idna">\xe9', Form.HTML, '<meta charset="idna">é'),
        (b'<meta charset="nonsense">a', Form.HTML, '<meta charset="nonsense">a'),
    ],
)
def test_encodings_are_found_out(data: bytes, form: Form, text: str) -> None:
    """A mark, a page's own word, UTF-8, or Windows-1252; never a codec that is no charset of pages."""
    assert articles.decode(data, form) == text


def test_what_is_no_text_is_refused() -> None:
    """A picture under an article's name is one clear line."""
    with pytest.raises(WrongUse, match="not a text file"):
        articles.decode(b"\x89PNG\r\n\x1a\n\x00\x00", Form.TEXT)


def test_front_matter_of_other_programs_gives_the_title() -> None:
    """What stands before Markdown for a site's generator is not the text."""
    draft = drafted("---\ntitle: 'One: two'\ndescription: Three\nlang: fr\n---\n\nText")
    assert draft.text.startswith('---\nsubject: "One: two"\npreheader: "Three"\n')
    assert body("---\nsome words\n---\n").strip() != "TODO: the text"


def test_long_and_deep_articles_are_bounded() -> None:
    """A book is cut and said to be; a thousand nested elements cost no stack."""
    draft = drafted("word " * 5 + "\n\n" + ("sentence here. " * 400 + "\n\n") * 20)
    assert any("its end was left out" in one for one in draft.unfinished)
    assert parsed(draft)
    # An unclosed front matter of blank lines took a careless pattern longer than the universe has been there.
    assert parsed(drafted("---\n" + " \n" * 400 + "x"))
    for tag in ("div", "b", "ul><li", "blockquote", "span"):
        deep = f"<{tag}>" * 3000 + "word"
        assert "word" in body(deep, Form.HTML) or "TODO" in body(deep, Form.HTML)


MARKS = st.text(alphabet=st.sampled_from("ab \n\t-+*_#>`~[]()<>&;!{}%\\|=:/.\"'0123é\u2028"), max_size=60)
PIECES = st.lists(
    st.one_of(
        MARKS,
        st.text(max_size=20),
        st.sampled_from(
            [
                "<b>",
                "</b>",
                "<p>",
                "<a href='",
                "'>",
                "</a>",
                "<img src=x>",
                "<ul><li>",
                "<pre>",
                "<h2>",
                "<br>",
                "https://example.org/a",
                "\n\n",
                "\n- ",
                "\n1. ",
                "{{ a }}",
                "{% raw %}",
                "{#",
                "\n---\n",
                "&amp;",
                "```\n",
                "[a](",
                "](https://example.org)",
                "<blockquote>",
                "<table><tr><td>",
                "help\n",
                "\n## ",
            ]
        ),
    ),
    max_size=14,
).map("".join)


@settings(max_examples=250, deadline=None)
@given(PIECES, st.sampled_from(Form))
def test_any_text_gives_a_draft_that_parses(text: str, form: Form) -> None:
    """Whatever an article holds, its draft is an appeal once the unfound links are given."""
    assert parsed(drafted(text, form)).languages["en"].actions


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=80))
def test_plain_words_come_through(text: str) -> None:
    """A paragraph of any characters reads in the mail as it was written, but for white space."""
    words = " ".join("".join(c for c in text if c.isprintable() or c.isspace()).split())
    words = words.replace("http", "")
    article = articles.read(f"<p>x {_escaped(words)}</p>", Form.HTML)
    shown = "".join(_words(block.markdown) for block in article.blocks)
    assert " ".join(shown.split()) == f"x {words}".strip()


def _escaped(words: str) -> str:
    return words.replace("&", "&amp;").replace("<", "&lt;")


def _words(markdown: str) -> str:
    assert not re.search(r"\{[{%#]", markdown)
    return Document(markdown).text(10_000, {"content_warning": "!", "label": "%(label)s"})
