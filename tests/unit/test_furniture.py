"""Every block that an operator can write stands in both parts, as a block of the look and as plain words."""

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from worker.content.appeals import AppealErrors, parse
from worker.content.markdown import Document
from worker.content.rendering import Look, Organisation, PlainContent, Renderer

TEMPLATES = Path(__file__).parents[2] / "templates"
LOOK = Look({path.name: path.read_text("utf-8") for path in TEMPLATES.glob("lo*/*")})
CHARITY = Organisation("Example Equality", "1 Example Street", "", "", "")
FRONT = """\
---
subject: Subject
preheader: Preheader
actions:
  - {kind: donate, text: Give, link: "https://example.org/give", main: true%s}
---
"""


def written(body: str, goal: str = "", language: str = "en") -> PlainContent:
    """Return an appeal of this body, and of this goal for its action, as one person sees it."""
    source = FRONT % (f", goal: {goal}" if goal else "") + body
    renderer = Renderer(parse("rain", {f"{language}.md": source}), LOOK, CHARITY)
    return renderer.render_plain(language, discreet=False, values={"opt_out_url": "https://example.org/o/1"})


def bare(html: str) -> str:
    """Return HTML without styles and what only old programs need, in one line."""
    html = re.sub(r""" (?:style|bgcolor|cell\w+|border|align|width)=(?:"[^"]*"|'[^']*')""", "", html)
    return re.sub(r"\s*\n\s*", "", html.partition('<div class="body"')[2])


QUOTE = '<table role="presentation" class="quote-table"><tr><td class="quote-cell"><blockquote class="quote">'


@pytest.mark.parametrize(
    ("body", "in_html", "in_text"),
    [
        ("## Why\n\nWords *now*.", "<h2>Why</h2><p>Words <em>now</em>.</p>", "Why\n---\n\nWords now.\n"),
        ("> Said.", f"{QUOTE}<p>Said.</p></blockquote></td>", "\n> Said.\n"),
        (
            "> Said *so*.\n> -- Ann, [nurse](https://example.org/n)",
            f'{QUOTE}<p>Said <em>so</em>.</p><p class="source">\u2014 Ann, <a href="https://example.org/n">nurse',
            "> Said so.\n>\n> \u2014 Ann, nurse [1]\n> [1] https://example.org/n\n",
        ),
        (
            "> Said.\n>\n> \u2014 Ann",
            f'{QUOTE}<p>Said.</p><p class="source">\u2014 Ann</p></blockquote>',
            "> Said.\n>\n> \u2014 Ann\n",
        ),
        ("> \u2014 Said Ann.", f"{QUOTE}<p>\u2014 Said Ann.</p>", "> \u2014 Said Ann.\n"),
        (
            "[Read & *see*](https://example.org/r?a=1&b=2){.button}",
            'class="plain-button" href="https://example.org/r?a=1&amp;b=2">Read &amp; see</a>',
            "\nRead & see:\nhttps://example.org/r?a=1&b=2\n",
        ),
        (
            "> [!WARNING]\n> It *hurts*.",
            "Content warning:</strong><br><p>It <em>hurts</em>.</p></td>",
            "\nCONTENT WARNING\nIt hurts.\n",
        ),
        (
            "> [!WARNING] One.\n>\n> Two.\n\nOn.",
            "<br><p>One.</p><p>Two.</p></td>",
            "\nCONTENT WARNING\nOne.\n\nTwo.\n\nOn.\n",
        ),
        ("> \\[!WARNING] One.", f"{QUOTE}<p>[!WARNING] One.</p>", "> [!WARNING] One."),
        (
            "- > One.\n  > -- Ann",
            f'<ul><li>{QUOTE}<p>One.</p><p class="source">',
            "- > One.\n  >\n  > \u2014",
        ),
    ],
)
def test_a_block_stands_in_both_parts(body: str, in_html: str, in_text: str) -> None:
    """Markdown that any other program can read becomes the look's block, and words that say the same."""
    content = written(body)
    assert in_html in bare(content.html)
    assert in_text in content.text


@pytest.mark.parametrize(
    ("body", "caption", "text"),
    [
        (
            "![A *march*](a.jpg)\nIn [June](https://example.org/j)",
            'In <a href="https://example.org/j">June</a>',
            3,
        ),
        ("![A *march*](a.jpg)", "", 1),
    ],
)
def test_a_picture_on_its_own_line_is_a_figure(body: str, caption: str, text: int) -> None:
    """Its other lines are its caption; the text part says what it shows, then the caption."""
    drawn: list[tuple[str, Mapping[str, str]]] = []
    document = Document(f"{body}\n\nNo ![figure](b.jpg).")
    html = document.html(lambda name, facts: drawn.append((name, facts)) or "FIGURE")
    assert drawn == [
        ("figure", {"text": '<img src="a.jpg" alt="A march" width="1" height="1" />', "caption": caption})
    ]
    assert html.startswith("FIGURE")
    lines = document.text(72, {}).partition("\n\n")[0].split("\n")
    assert len(lines) == text
    assert "A march" in lines[0]


@pytest.mark.parametrize(
    ("goal", "language", "said", "widths"),
    [
        ("{reached: 18250, of: 25000}", "en", "18,250 of 25,000 (73%)", ["73%", "27%"]),
        ("{reached: 1825.50, of: 25000, currency: GBP}", "en", "£1,825.50 of £25,000 (7%)", ["7%", "93%"]),
        ("{reached: 9, of: 30000, currency: EUR}", "de", "9 € von 30.000 € (0 %)", ["100%"]),
        ("{reached: 29999, of: 30000, currency: EUR}", "fr", "29 999 € sur 30 000 € (99 %)", ["99%", "1%"]),
        ("{reached: 31000, of: 30000, currency: USD}", "es", "31.000 US$ de 30.000 US$ (100 %)", ["100%"]),
        ("{reached: 10, of: 20, currency: RUB}", "ru", "10 ₽ из 20 ₽ (50 %)", ["50%", "50%"]),
        ("{reached: 0, of: 2000, currency: GBP}", "ar", "0 GBP من 2,000 GBP (0%)", ["100%"]),
    ],
)
def test_a_goal_is_drawn_and_said(goal: str, language: str, said: str, widths: list[str]) -> None:
    """The bar is as wide as the share, hidden from screen readers; the words say it in both parts."""
    content = written("Words.", goal, language)
    bar = content.html.partition('class="goal"')[2].partition("</table>")[0]
    assert 'aria-hidden="true"' in content.html
    assert re.findall(r'<td[^>]* width="(\d+%)"', bar) == widths
    for part in (content.html, content.text):
        assert said in re.sub("[\u2066-\u2069\u200e\u200f\u061c]", "", part).replace("\u00a0", " ").replace(
            "\u202f", " "
        )


@pytest.mark.parametrize(
    ("body", "goal", "line", "message"),
    [
        ("One\n\n> [!NOTE]\n> Two", "", 9, "[!NOTE] is not known here: only [!WARNING] is"),
        ("One [two](https://example.org/){.button}", "", 7, "a button is a paragraph of its own"),
        ("One", "{reached: 5, of: 0}", 5, '"of" must be more than 0'),
        ("One", "{reached: -5, of: 10}", 5, '"reached" must be a number, as in 1200 or 12.50'),
        ("One", "{reached: '1,200', of: 1e9}", 5, '"of" must be a number'),
        ("One", "{of: 10}", 5, '"reached" is missing'),
        ("One", "{reached: 1, of: 10, currency: QQQ}", 5, '"QQQ" is no currency'),
    ],
)
def test_a_block_gone_wrong_is_told_by_its_line(body: str, goal: str, line: int, message: str) -> None:
    """What was meant as a block and is none is a fault, not words in a mail."""
    with pytest.raises(AppealErrors) as caught:
        written(body, goal)
    assert [
        one for one in caught.value.findings if (one.line, message) == (line, one.message[: len(message)])
    ]
