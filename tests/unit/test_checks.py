"""What would embarrass us is found: each fault planted alone is named exactly, and a good appeal has none."""

import base64
import functools
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from worker import preflight, settings, workspace
from worker.content.appeals import AppealErrors
from worker.content.checks import clients, colours, css, hrefs, table
from worker.content.checks.findings import Finding, Rule, Severity, errors, merged
from worker.content.checks.letters import Letter
from worker.content.editions import Edition, Special
from worker.content.enclosures import Enclosed
from worker.errors import Refused, WrongUse
from worker.readers import Trial
from worker.sealing import Person
from worker.wiring import Wiring

WELL = """\
---
subject: The clinic closes on Friday
preheader: One letter to the council takes two minutes.
headline: Keep the clinic open
content_warning: This message speaks of refused health care.
actions:
  - kind: write-to
    text: Write to your councillor
    link: https://act.example.org/letter
    main: true
    note: A draft is ready. Change it as you like.
discreet:
  sender: Monthly letter
  subject: Your letter is here
  preheader: Something to read when you have a quiet moment.
telling_words: [clinic, council, health]
---
Dear {{ first_name | default("friend") }},

It has helped **1,200 people** since 2019: [the whole story](https://act.example.org/story).

## What is at stake

They decide on Friday.
"""
DISCREET = """
[discreet]
from_address = "hello@letters.example.net"
sender_name = "Monthly letter"
"""
#: What an operator has set.
OURS = {
    'name = "Example Equality"': 'name = "Fair Shore"',
    'from_address = "appeals@example.org"': 'from_address = "appeals@fairshore.example.org"',
    'base_url = "http://127.0.0.1:8080"': 'base_url = "https://act.example.org"',
    "[web]": '[web]\ndiscreet_base_url = "https://letters.example.net"',
}


class _Bell:
    """A doorbell that nobody hears."""

    def launch(self, campaign_id: int) -> None:
        """Ring for nothing."""

    def ring(self, batch_ids: object) -> None:
        """Ring for nothing."""

    def waiting(self) -> int:
        """Nothing waits."""
        return 0


@pytest.fixture(scope="module")
def wiring(tmp_path_factory: pytest.TempPathFactory) -> Wiring:
    """A fresh workspace with discreet names and a good appeal."""
    home = tmp_path_factory.mktemp("office")
    workspace.make(home)
    config = home / "tocsin.toml"
    text = config.read_text(encoding="utf-8")
    for example, ours in OURS.items():
        assert example in text, example
        text = text.replace(example, ours, 1)
    config.write_text(text + DISCREET, encoding="utf-8")
    folder = home / "templates" / "appeals" / "clinic"
    folder.mkdir()
    (folder / "en.md").write_text(WELL, encoding="utf-8")
    return Wiring(settings.load(home, {}), _Bell())


@pytest.fixture(scope="module")
def well(wiring: Wiring) -> Edition:
    """The good appeal's edition."""
    return wiring.edition("clinic")


def names(found: Iterator[Finding] | list[Finding]) -> set[str]:
    """Return the names of what is worse than a note."""
    return {one.name for one in found if one.severity is not Severity.NOTE}


def edited(files: Mapping[str, str], name: str, old: str, new: str) -> dict[str, str]:
    """Return files with one place in one of them changed."""
    assert old in files[name], old
    return {**files, name: files[name].replace(old, new, 1)}


@pytest.mark.parametrize("slug", ["clinic", "chechnya-report"])
def test_a_good_appeal_has_neither_errors_nor_warnings(wiring: Wiring, slug: str) -> None:
    """In every language and form; what ships is the first thing that anybody tries."""
    found = preflight.examine(Trial(wiring.edition(slug)))
    assert [str((one.name, one.where, one.what)) for one in found if one.severity is not Severity.NOTE] == []
    assert {one.name for one in found} == {"css.lost"}


PERSONAL = ("links.personal", "fields.fallback")


@pytest.mark.parametrize("language", ["ar", "de", "es", "fr", "ru"])
def test_what_the_look_says_is_well_in_every_language(well: Edition, language: str) -> None:
    """Our own words, from right to left too, give nobody anything to find."""
    appeal = {f"{language}.md": well.appeal["en.md"], "en.md": well.appeal["en.md"]}
    assert names(list(preflight.examine(Trial(replace(well, appeal=appeal))))) == set()


def test_a_field_in_a_link_is_the_same_link_in_both_parts(well: Edition) -> None:
    """However each part has to write what a reader's name puts into it."""
    link = "https://act.example.org/story?name={{ first_name }}"
    appeal = edited(well.appeal, "en.md", "https://act.example.org/story", link)
    trial = Trial(replace(well, appeal=appeal, discreet=None))
    trial.reader = functools.partial(_renamed, trial.reader)  # type: ignore[method-assign]  # a reader with accents
    assert "text.links" not in names(list(preflight.examine(trial)))


def _renamed(reader: Callable[..., Person], *args: Any) -> Person:
    person = reader(*args)
    return replace(person, fields={**person.fields, "first_name": "Zoë [Bo]"})


#: Words of the good appeal, what stands there instead, and where a special-category field is then found.
TOLD_OUTSIDE = [
    ("The clinic closes on Friday", "The {{ diagnosis }} clinic closes", {"subject"}),
    ("The clinic closes", "The clinic closes{% if diagnosis is defined %} soon{% endif %}", {"subject"}),
    ("One letter to the council takes", "One letter on {{ diagnosis }} takes", {"preheader"}),
    ("https://act.example.org/story", "https://act.example.org/{{ diagnosis }}", {"links"}),
    ("https://act.example.org/letter", "https://act.example.org/{{ diagnosis|upper }}", {"links"}),
    ("They decide", "{{ diagnosis }}: they decide", set[str]()),
]


@pytest.mark.parametrize(("old", "new", "parts"), TOLD_OUTSIDE)
def test_a_special_category_field_stays_inside_the_mail(
    well: Edition, old: str, new: str, parts: set[str]
) -> None:
    """In subject, preheader and links it is an error, be it only a condition; in the body it is none."""
    edition = replace(well, appeal=edited(well.appeal, "en.md", old, new), discreet=None)
    for special, expected in ((Special(("diagnosis",)), parts), (Special(("faith",)), set())):
        found = preflight.examine(Trial(replace(edition, special=special)))
        assert {one.part for one in found if one.name == "special.field"} == expected


def test_a_special_category_list_is_named_in_no_header_or_link(well: Edition) -> None:
    """Its slug and its title; what the mail itself says is the author's."""
    named = {"subject": "Friday", "links": "act.example.org/story", "headers": "Fair Shore"}
    for part, name in named.items():
        found = preflight.examine(Trial(replace(well, special=Special(names=("none", name)), discreet=None)))
        assert part in {one.part for one in found if one.name == "special.list"}
    within = replace(well, special=Special(names=("They decide",)))
    assert "special.list" not in names(list(preflight.examine(Trial(within))))


#: Words of the good appeal, what stands there instead, and all that is then found.
IN_THE_APPEAL = [
    ("{{ first_name | default(", "{{ town }} {{ first_name | default(", {"fields.fallback"}),
    ("\n---\nDear", "\nview_in_browser: yes\n---\n{{ town }}\n\nDear", {"fields.fallback", "fields.copy"}),
    ("https://act.example.org/story", "https://bit.ly/3xyz", {"links.shortener"}),
    ("https://act.example.org/story", "https://www.t.co/3xyz", {"links.shortener"}),
    ("https://act.example.org/story", "https://act.example.org/?to=%7B%7Bname%7D%7D", {"links.placeholder"}),
    ("https://act.example.org/story", "https://act.example.org/TODO", {"links.placeholder"}),
    ("https://act.example.org/story", "https://act.example.org/{{ first_name }}", {*PERSONAL}),
    ("https://act.example.org/story", "https://act.example.org/letter", {"links.duplicate"}),
    ("[the whole story]", "[https://fairshore.example.org/story]", {"links.disguised"}),
    ("https://act.example.org/story", f"https://act.example.org/{'s' * 980}", {"text.lines"}),
    ("[the whole story]", "[here]", {"links.vague"}),
    ("[the whole story]", "[]", {"links.empty"}),
    ("They decide", "TODO: they decide", {"words.draft"}),
    ("They decide", "{% for one in first_name | default('x') %}a{% endfor %} They decide", {"fields.slow"}),
    ("They decide", "{{ first_name | default('x') | upper | truncate(3) }}, they decide", set[str]()),
    ("They decide", "[First name], they decide", {"words.draft"}),
    ("They decide", "{first_name}, they decide", {"words.placeholder"}),
    ("They decide", "*|FNAME|*, they decide", {"words.placeholder"}),
    ("They decide", "%recipient_name%, they decide", {"words.placeholder"}),
    ("The clinic closes on Friday", "The clinic closes on Friday" + ", on Friday" * 6, {"subject.length"}),
    ("subject: The clinic closes on Friday", 'subject: "Re: the clinic"', {"subject.reply"}),
    ("The clinic closes on Friday", "The CLINIC CLOSES on Friday", {"subject.capitals"}),
    ("The clinic closes on Friday", "The clinic closes on Friday ⚠️", {"subject.emoji"}),
    ("The clinic closes on Friday", "The clinic closes on Friday!!", {"subject.punctuation"}),
    ("One letter to the council takes two minutes.", "One letter?! To the council", {"subject.punctuation"}),
    ("One letter to the council takes two minutes.", "Write today", {"preheader.length"}),
    ("One letter to the council takes two minutes.", "The clinic closes on Friday.", {"preheader.same"}),
    ("sender: Monthly letter", "sender: Fair Shore", {"discreet.tells"}),
    ("telling_words: [clinic, council, health]\n", "", {"discreet.words"}),
    ("telling_words: [clinic, council, health]", "telling_words: [monthly-mail]", set[str]()),
]


@pytest.mark.parametrize(("old", "new", "expected"), IN_THE_APPEAL)
def test_a_fault_of_the_author_is_named(well: Edition, old: str, new: str, expected: set[str]) -> None:
    """One fault, planted in the appeal's own words, gives exactly its finding."""
    discreet = well.discreet if any("discreet" in name for name in expected) else None
    edition = replace(well, appeal=edited(well.appeal, "en.md", old, new), discreet=discreet)
    assert names(list(preflight.examine(Trial(edition)))) == expected


LINK = '<a class="opt-out" href="{{ mail.opt_out_url }}">{{ words.opt_out }}</a>'
#: A file of the look, words in it, what stands there instead, and all that is then found.
IN_THE_LOOK = [
    ("layout.html", "<h1>", '<p><img src="a.png" width="1" height="1"></p><h1>', {"images.alt"}),
    ("layout.html", "<h1>", '<p><img src="a.png" alt=""></p><h1>', {"images.size"}),
    (
        "layout.html",
        "<h1>",
        '<p><img src="https://x.example.com/a.png" alt="" width="1" height="1"></p><h1>',
        {"images.remote"},
    ),
    (
        "layout.html",
        "<h1>",
        '<p><a href="http://act.example.org/1">One</a></p><h1>',
        {"links.scheme", "text.links"},
    ),
    ("layout.html", "<h1>", '<p><a href="https://exam ple">One</a></p><h1>', {"links.syntax", "text.links"}),
    ("layout.html", "<h1>", '<p><a href="#top">Up</a></p><h1>', {"links.syntax", "text.links"}),
    ("layout.html", "<h1>", '<p><a href="https://act.example.org/9">Nine</a></p><h1>', {"text.links"}),
    ("layout.html", '<html lang="{{ language }}"', "<html", {"page.language"}),
    ("layout.html", 'class="mail" lang="{{ language }}"', 'class="mail" lang="de"', {"page.language"}),
    ("layout.html", 'dir="{{ dir }}">\n<head>', 'dir="rtl">\n<head>', {"page.direction"}),
    ("layout.html", "<title>{{ subject }}</title>", "<title> </title>", {"page.title"}),
    ("layout.html", "<!DOCTYPE html>", "", {"page.doctype"}),
    ("layout.html", "<h1>{{ headline }}</h1>", "<p>{{ headline }}</p>", {"page.headings"}),
    ("layout.html", "<h2>{{ question }}</h2>", "<h4>{{ question }}</h4>", {"page.headings"}),
    ("blocks.html", '<table role="presentation" class="button-table"', "<table", {"page.tables"}),
    ("layout.html", "</body>", "<script>alert(1)</script></body>", {"page.active"}),
    ("layout.html", "<h1>", '<h1 onclick="x()">', {"page.active"}),
    ("layout.html", "<h1>", "<p>It is 889 days.</p><h1>", {"text.numbers"}),
    ("layout.html", "{% if content_warning %}", "{% if False %}", {"text.warning"}),
    ("layout.txt", "{% if content_warning %}", "{% if False %}", {"text.warning"}),
    (
        "layout.txt",
        "{{ headline | wrap }}",
        "{{ question }}\n{{ headline | wrap }} <b>now</b>",
        {"text.markup"},
    ),
    ("layout.txt", "{{ headline | wrap }}", "{{ headline }}{{ ' and on' * 20 }}", {"text.lines"}),
    ("look.toml", 'quiet = "#5a5d66"', 'quiet = "#9a9da6"', {"contrast.light"}),
    ("look.toml", 'quiet = "#a9abb3"', 'quiet = "#595b63"', {"contrast.dark"}),
    ("screen.css", "  .card a { color: {{ dark.link }} !important; }\n", "", {"contrast.dark"}),
    ("look.css", "h1 { margin: 0;", "h1 { display: flex; margin: 0;", {"css.breaks"}),
    ("look.css", "h1 { margin: 0;", "h1 { margin: 0 0 1rem;", {"css.breaks"}),
    ("screen.css", ":root {", "@media print { p { position: absolute; } }\n:root {", {"css.breaks"}),
    ("layout.html", "<p>{{ reason }}<br>", "<p>", {"parts.reason"}),
    ("layout.txt", "{{ reason | wrap }}", "", {"parts.reason"}),
    ("layout.html", LINK, "", {"parts.opt-out"}),
    ("layout.txt", "{{ mail.opt_out_url }}", "", {"parts.opt-out", "text.links"}),
    ("layout.txt", "{{ organisation.postal_address }}", "", {"parts.address"}),
    ("layout.html", "<bdi>{{ line }}</bdi>", "", {"parts.address"}),
    ("layout.txt", "{{ organisation.privacy_url }}", "", {"parts.privacy", "text.links"}),
    ("layout.html", "</body>", f"<!-- {'x' * 91_000} --></body>", {"size.near"}),
    ("layout.html", "</body>", f"<!-- {'x' * 105_000} --></body>", {"size.clipped"}),
]


@pytest.mark.parametrize(("name", "old", "new", "expected"), IN_THE_LOOK)
def test_a_fault_of_the_look_is_named(
    well: Edition, name: str, old: str, new: str, expected: set[str]
) -> None:
    """An operator may change every file of the look, and is told what that broke."""
    # One mail is enough, and quicker: everybody's, and open.
    appeal = edited(well.appeal, "en.md", '{{ first_name | default("friend") }}', "friend")
    edition = replace(well, appeal=appeal, look=edited(well.look, name, old, new), discreet=None)
    assert names(list(preflight.examine(Trial(edition)))) == expected


def test_a_fault_of_the_settings_is_named(well: Edition) -> None:
    """Whatever may be missing, shared or deaf in tocsin.toml."""
    charity, ours = well.organisation, well.open.identity
    assert well.discreet
    cases = {
        "parts.address": replace(well, organisation=replace(charity, postal_address="")),
        "parts.privacy": replace(well, organisation=replace(charity, privacy_url="")),
        "headers.no-reply": replace(
            well, open=replace(well.open, identity=replace(ours, reply_to="no-reply@fairshore.example.org"))
        ),
        "discreet.host": replace(well, discreet=replace(well.discreet, base_url=well.open.base_url)),
        "discreet.tells": replace(
            well, discreet=replace(well.discreet, base_url="https://council.example.net")
        ),
    }
    for name, edition in cases.items():
        assert names(list(preflight.examine(Trial(edition)))) == {name}


def test_what_a_mail_carries_beside_its_text_is_looked_at(well: Edition) -> None:
    """Pictures that were made smaller, that a server would hand out, and more than a poor line can take."""
    made = io.BytesIO()
    Image.effect_noise((1200, 800), 100).convert("RGB").save(made, "PNG")
    enclosed = Enclosed.read({"images/a.png": made.getvalue(), "attachments/b.pdf": b"%PDF"})
    text = well.appeal["en.md"].replace("---\n", "---\nattachments: [attachments/b.pdf]\n", 1)
    appeal = {"en.md": f"{text}\n\n![A crowd](images/a.png)\n"}
    edition = replace(well, appeal=appeal, enclosed=enclosed)
    assert names(list(preflight.examine(Trial(edition)))) == {"images.resized", "images.heavy"}
    linked = {"en.md": appeal["en.md"].replace("---\n", "---\nimages: linked\n", 1)}
    found = names(list(preflight.examine(Trial(replace(edition, appeal=linked)))))
    assert found == {"images.resized", "images.remote"}
    with pytest.raises(AppealErrors, match=r"there is no images/a\.png"):
        Trial(replace(edition, enclosed=Enclosed()))


def test_an_opt_out_link_to_this_machine_is_a_note(well: Edition) -> None:
    """A try is no fault; nor is it what anybody else should get."""
    edition = replace(well, open=replace(well.open, base_url="http://127.0.0.1:8080"))
    found = preflight.examine(Trial(edition))
    assert names(list(found)) == set()
    assert "links.local" in {one.name for one in found}


#: Octets of a mail, what stands there instead, and all that is then found.
ON_THE_WIRE = [
    (b"Precedence: bulk", b"Precedence: bulk\r\nX-Long: " + b"x" * 1100, {"lines.longest"}),
    (b"Precedence: bulk", b"Precedence: bulk\r\nX-Long: " + b"xxx " * 20 + b"x", {"lines.header"}),
    (b"Precedence: bulk\r\n", b"Precedence: bulk\n", {"lines.octets"}),
    (b"Precedence: bulk", b"Precedence: bu\0lk", {"lines.octets"}),
    (b"Precedence: bulk", b"X-Name: \xc3\xa9", {"lines.octets"}),
    (b"Date: ", b"X-Date: ", {"headers.missing"}),
    (b"Precedence: bulk", b"Precedence: bulk\r\nSubject: again", {"headers.twice"}),
    (b"Feedback-ID: c0", b"Feedback-ID: =?utf-8?q?c0?=", {"headers.encoded"}),
    (b"Post: List-Unsubscribe=One-Click", b"Post: One-Click", {"headers.one-click"}),
    (
        b"List-Unsubscribe: <",
        b"List-Unsubscribe: <https://x.example.org/o>,\r\n <",
        {"headers.one-click", "parts.opt-out"},  # it is another link than that of the parts
    ),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "expected"), ON_THE_WIRE)
def test_a_fault_on_the_wire_is_named(well: Edition, old: bytes, new: bytes, expected: set[str]) -> None:
    """The composer makes none of these; the check reads octets and believes nobody."""
    letter = next(iter(preflight.letters(Trial(well))))
    data = bytes(letter.parcel.data)
    assert old in data
    changed = replace(letter, parcel=replace(letter.parcel, data=data.replace(old, new, 1)))
    assert names(list(table.examine([changed]))) == expected


def test_a_mail_that_does_not_say_who_writes_is_named(well: Edition) -> None:
    """In From, and in each part."""
    letter = next(iter(preflight.letters(Trial(well))))
    nameless = replace(letter, shown=replace(letter.shown, sender_name=" "))
    others = replace(well, organisation=replace(well.organisation, name="Far Shore"))
    for changed, parts in ((nameless, {"headers"}), (replace(letter, edition=others), {"HTML", "text"})):
        found = list(table.examine([changed]))
        assert names(found) == {"parts.sender"}
        assert {one.part for one in found if one.name == "parts.sender"} == parts


def test_every_rule_has_a_fault_that_it_finds() -> None:
    """A rule without a planted fault may find nothing at all."""
    tables = (IN_THE_APPEAL, IN_THE_LOOK, ON_THE_WIRE)
    planted = {name for rows in tables for row in rows for name in row[-1]}
    elsewhere = {"appeal.source", "fields.lacking", "fields.unfillable", "links.local", "css.lost"}
    elsewhere |= {"images.resized", "images.heavy"}  # which want files
    elsewhere |= {"special.field", "special.list"}  # which an operator has to mark first
    elsewhere |= {"topics.untitled"}  # which `appeals check` looks for, as it has read the settings
    settings_own = {"headers.no-reply", "discreet.host", "discreet.tells", "parts.privacy", "parts.sender"}
    assert {rule.name for rule in table.OWN} - planted - elsewhere - settings_own == set()


def test_names_are_families_and_stand_once() -> None:
    """Waivers and programs go by them."""
    assert len(preflight.RULES) == len(table.OWN) + len(preflight.soundings.RULES)
    for rule in preflight.RULES.values():
        family, dot, word = rule.name.partition(".")
        assert (bool(family), dot, bool(word)) == (True, ".", True), rule.name
        assert rule.mend.endswith("."), rule.name
        assert not rule.about.endswith("."), rule.name


def test_only_pages_are_visited(wiring: Wiring) -> None:
    """Not the opt-out link, which would be a click; not ready posts: a network would read the appeal."""
    letter = next(iter(preflight.letters(Trial(wiring.edition("chechnya-report")))))
    links = [link.href for link in hrefs.fetchable(letter)]
    assert len(links) == len(set(links)) > 5
    assert {urlsplit(link).hostname for link in links} == {"example.org", "www.example.org"}


def test_the_same_in_several_mails_is_one_finding(well: Edition) -> None:
    """With all the mails that it is in; the worst comes first."""
    edition = replace(well, look=edited(well.look, "layout.html", "<!DOCTYPE html>", ""))
    found = preflight.examine(Trial(edition))
    assert found[0].name == "page.doctype"
    assert found[0].forms == ("en", "en, discreet")
    assert found[0].where == "HTML (en; en, discreet)"


def _rule(name: str, severity: Severity, *, waivable: bool = True) -> Rule:
    return Rule(name, severity, "about", "Mend.", waivable)


def test_only_errors_stop_and_only_by_their_own_name() -> None:
    """A waiver of one name leaves every other standing."""
    one, other = _rule("a.one", Severity.ERROR), _rule("a.other", Severity.ERROR)
    never, mild = _rule("a.never", Severity.ERROR, waivable=False), _rule("a.mild", Severity.WARNING)
    found = [each.found("so", "HTML") for each in (one, other, never, mild)]
    assert {each.name for each in errors(found)} == {"a.one", "a.other", "a.never"}
    assert {each.name for each in errors(found, ["a.one", "a.never"])} == {"a.other", "a.never"}
    assert merged([*found, *found]) == merged(found)


def test_an_appeal_with_errors_is_refused_by_name() -> None:
    """The refusal says what, where, and how to send it all the same; what was needed is remembered."""
    found = [preflight.RULES["links.shortener"].found("x hides", "HTML")]
    with pytest.raises(Refused, match=r"links\.shortener: HTML: x hides") as caught:
        preflight.require(found, [], "clinic")
    assert "--waive links.shortener" in caught.value.remedy
    assert preflight.require(found, ["links.shortener", "links.empty"], "clinic") == ("links.shortener",)
    assert preflight.require([], ["links.shortener"], "clinic") == ()


@pytest.mark.parametrize(("name", "told"), [("links.shortner", "links.shortener"), ("appeal.source", "line")])
def test_a_waiver_must_name_what_can_be_waived(name: str, told: str) -> None:
    """A slip would else leave an operator believing that something was waived."""
    with pytest.raises(WrongUse) as caught:
        preflight.waivers([name])
    assert told in caught.value.remedy


def test_an_expression_that_fails_is_a_finding(well: Edition) -> None:
    """It is told, the other mails are examined all the same, and none of it is shown to a filter."""
    edition = replace(well, appeal=edited(well.appeal, "en.md", "They decide", "{{ age + 1 }} They decide"))
    trial = Trial(edition)
    assert "fields.unfillable" in names(list(preflight.examine(trial)))
    assert not list(preflight.letters(trial))


@pytest.mark.parametrize(
    ("expression", "stops"),
    [
        ("{{ years.split('-')[1] }}", False),
        ("{{ 100 // (age | int) }}", False),
        ("{{ age + 1 }}", True),
        ("{{ first_name.split('-')[5] }}", True),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", True),
    ],
)
def test_an_expression_must_fail_on_more_than_one_invention(
    well: Edition, expression: str, *, stops: bool
) -> None:
    """What only a made-up name in brackets fails stops nobody; what nothing can fill in is a finding."""
    edition = replace(well, appeal=edited(well.appeal, "en.md", "They decide", f"{expression} They decide"))
    assert ("fields.unfillable" in names(list(preflight.examine(Trial(edition))))) is stops


@pytest.mark.parametrize(
    ("value", "colour"),
    [
        ("#fff", (255, 255, 255)),
        ("#102030ff", (16, 32, 48)),
        ("1px solid RGB(1, 2, 3)", (1, 2, 3)),
        ("rgb(1 2 3 / 100%)", (1, 2, 3)),
        ("White", (255, 255, 255)),
        ("rgba(0,0,0,.5)", None),
        ("#00000080", None),
        ("var(--ink)", None),
        ("inherit", None),
    ],
)
def test_colours_are_read_or_left_alone(value: str, colour: tuple[int, int, int] | None) -> None:
    """One that cannot be read, or shines through, is not guessed at."""
    assert colours.read(value) == colour


def test_contrast_is_that_of_the_guidelines() -> None:
    """Black on white is 21:1, and the well-known grey just passes."""
    assert colours.contrast_of((0, 0, 0), (255, 255, 255)) == pytest.approx(21)
    assert colours.contrast_of((0x76, 0x76, 0x76), (255, 255, 255)) == pytest.approx(4.54, abs=0.01)


def test_css_is_read_as_it_is_written() -> None:
    """Nested at-rules, comments, several selectors, semicolons in strings and addresses."""
    sheet = "/* x { */ a, .b { color: red !important; } @media (a) { p { background: url(a;b) } }"
    sheet += " @font-face { x: 1 }"
    assert [(rule.media, rule.selector, len(rule.declarations)) for rule in css.rules(sheet)] == [
        ("", "a", 1),
        ("", ".b", 1),
        ("@media (a)", "p", 1),
        ("@font-face", "", 1),
    ]
    assert [one.important for rule in css.rules(sheet) for one in rule.declarations] == [
        True,
        True,
        False,
        False,
    ]


@given(st.text(alphabet="ab{};:@/*!\"'() .#%", max_size=60))
def test_no_css_stops_a_check(text: str) -> None:
    """What cannot be read gives fewer rules, never an error."""
    list(css.rules(text))
    list(css.declarations(text))


def test_the_facts_about_mail_programs_are_dated_and_named() -> None:
    """Facts of unknown age would be believed for ever."""
    known = clients.facts()
    assert known.date.startswith("20")
    assert "caniemail" in known.source
    assert all(fact.tested <= known.date[:7] for fact in known.known)
    assert all(fact.lost_in and (fact.property or fact.at_rule or fact.element) for fact in known.known)


def test_the_documents_name_every_finding() -> None:
    """The table of findings in the documents is the table of rules, word by word."""
    page = (Path(__file__).parents[2] / "docs" / "findings.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert rows == [
        f"| `{rule.name}` | {rule.severity} | {rule.about} | {rule.mend.replace('|', chr(92) + '|')} |"
        for rule in sorted(preflight.RULES.values(), key=lambda rule: rule.name)
    ]


#: What broken mails are made of.
PIECES = (
    *(
        "<p>",
        "</p>",
        "<a href=",
        '"',
        "'",
        ">",
        "<",
        "https://",
        "http://[",
        "mailto:",
        "//",
        "x",
        " ",
        "\n",
        "&#",
    ),
    *(
        "<table",
        "<td",
        " style=",
        "color:",
        "#ff",
        "rgb(1,2",
        "url(",
        ";",
        "{",
        "}",
        "<style>",
        "</style>",
        "@media",
    ),
    *(
        "<img ",
        "alt",
        "<h1>",
        "<h5>",
        "{{",
        "%}",
        "\x00",
        "é",
        "\ud7ff",
        "<!--",
        "-->",
        "<svg",
        "onclick=",
        "lang=",
    ),
    *(
        '<?xml version="1.0" encoding="x"?>',
        "<!DOCTYPE html>",
        "<html>",
        "<body>",
        ":8x",
        "%7B",
        "font-size:1e9px",
        "(prefers-color-scheme: dark)",
    ),
)


class _Held:
    """Something large that a failing example need not show."""

    def __init__(self, letter: Letter) -> None:
        self.letter = letter


@pytest.fixture(scope="module")
def held(well: Edition) -> _Held:
    """A good letter."""
    return _Held(_letter(well))


@given(st.lists(st.sampled_from(PIECES), max_size=25).map("".join), st.text(max_size=40))
def test_no_mail_stops_a_check(held: _Held, page: str, text: str) -> None:
    """However broken a page, a text or a subject, each check has an answer."""
    letter = held.letter
    head = letter.head.replace(b"=_part", b"=_other")
    parts = [
        b"\r\nContent-Type: text/%s; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n%s\r\n"
        % (kind, base64.encodebytes(content.encode()))
        for kind, content in ((b"plain", text), (b"html", page))
    ]
    data = b"\r\n--=_other".join([head + b"\r\n", *parts, b"--\r\n"])
    shown = replace(letter.shown, subject=text, preheader=text)
    broken = replace(letter, shown=shown, parcel=replace(letter.parcel, data=data))
    assert broken.html.replace("\r\n", "\n").strip() == page.strip() or "\x00" in page
    list(table.examine([broken]))


def _letter(well: Edition) -> Letter:
    return next(iter(preflight.letters(Trial(well))))


def test_a_letter_is_read_from_its_octets(well: Edition) -> None:
    """Parts, links and headers are those of the mail that would leave."""
    letter = _letter(well)
    assert letter.html.lower().startswith("<!doctype html>")
    assert letter.text.startswith("CONTENT WARNING")
    assert letter.opt_out_url in letter.text_links
    assert "Keep the clinic open" in letter.words
    assert "One letter to the council" not in letter.words  # the preheader is hidden
    assert letter.header("list-id").startswith('"Fair Shore"') or "Fair Shore" in letter.header("list-id")
