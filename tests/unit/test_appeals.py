"""An appeal's files are read whole, and every fault is named with its file and line."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.content.appeals import Appeal, AppealErrors, Finding, parse
from worker.content.versions import Kind
from worker.errors import WrongUse

TEMPLATES = Path(__file__).parents[2] / "templates"

#: A small sound appeal; each line's number is used below.
GOOD = """\
---
subject: Help us today
preheader: Three things you can do
sender: Example Equality
content_warning: This message tells of violence.
actions:
  - kind: read
    text: Read the report
    link: https://example.org/report?src=a
    main: true
    share: Read this
  - kind: donate
    text: Give
    link: https://example.org/give
discreet:
  subject: A letter
  preheader: To read in quiet
  sender: Letters
  links:
    https://example.org/report?src=a: https://example.org/l/1
telling_words: [report]
---
Dear {{ first_name | default("friend") }},

## What happened

Read [what was found](https://example.org/found).
"""


def found(text: str, name: str = "en.md") -> list[tuple[int, str]]:
    """Return the faults of one file."""
    with pytest.raises(AppealErrors) as caught:
        parse("rain", {name: text})
    assert all(finding.file == name for finding in caught.value.findings)
    return [(finding.line, finding.message) for finding in caught.value.findings]


def sample() -> Appeal:
    """Return the appeal that ships."""
    folder = TEMPLATES / "appeals" / "chechnya-report"
    return parse(folder.name, {path.name: path.read_text("utf-8") for path in folder.iterdir()})


def test_a_sound_file_becomes_a_version_with_all_it_says() -> None:
    """Every key of the front matter arrives, and what is left out is empty."""
    version = parse("rain", {"en.md": GOOD}).languages["en"]
    assert (version.subject, version.sender, version.headline) == ("Help us today", "Example Equality", "")
    read, give = version.actions
    assert (read.kind, read.main, read.link) == (Kind.READ, True, "https://example.org/report?src=a")
    assert set(read.share) == {"x", "bluesky", "mastodon", "facebook", "whatsapp", "telegram", "email"}
    assert (give.kind, give.main, dict(give.share)) == (Kind.DONATE, False, {})
    assert version.discreet is not None
    assert version.discreet.links == {"https://example.org/report?src=a": "https://example.org/l/1"}
    assert version.body.startswith("Dear {{ first_name")


def test_lines_are_joined_by_a_space_and_words_stay_together() -> None:
    """A text over several lines is one; a space that keeps two words on a line stays what it is."""
    file = GOOD.replace("subject:", "reason: >\n  a\u202f: b\u00a0?\n  c\nsubject:", 1)
    assert parse("rain", {"en.md": file}).languages["en"].reason == "a\u202f: b\u00a0? c"


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "\ufeff" + text,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("\n", "\r"),
    ],
)
def test_marks_of_other_editors_change_nothing(change: object) -> None:
    """A byte order mark and CRLF or CR line ends are read as if they were not there."""
    assert callable(change)
    assert parse("rain", {"en.md": change(GOOD)}) == parse("rain", {"en.md": GOOD})


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("subject: Help us today\n", "", 2, '"subject" is missing'),
        (
            "preheader: Three",
            "prehaeder: Three",
            3,
            '"prehaeder" is not a key here: did you mean "preheader"?',
        ),
        (
            "sender: Example",
            "colour: red\nsender: Example",
            4,
            '"colour" is not a key here: known are actions',
        ),
        ("sender: Example", "subject: Again\nsender: Ex", 4, '"subject" stands here twice (first on line 2)'),
        ("subject: Help us today", "subject:", 2, '"subject" is empty'),
        ("subject: Help us today", 'subject: ""', 2, '"subject" is empty'),
        ("subject: Help us today", "subject: 2024", 2, '"subject" must be a text: put "2024" in quotes'),
        ("subject: Help us today", "subject: No", 2, '"subject" must be a text: put "No" in quotes'),
        ("subject: Help us today", "subject: [a, b]", 2, '"subject" must be a text, not a list'),
        ("subject: Help us today", "subject: {a: b}", 2, '"subject" must be a text, not a group of keys'),
        ("subject: Help us today", "subject: {{ name }}, help", 2, '"{{" or "{%" must stand in quotes'),
        ("subject: Help us today", "subject: {% if a %}b{% endif %}", 2, '"{{" or "{%" must stand in quotes'),
        ("subject: Help us today", "subject: {{ name }}", 2, 'begins with "{" in quotes'),
        ("subject: Help us today", "subject: Help: now", 2, 'a text that holds ": " must stand in quotes'),
        ("subject: Help us today", f"subject: {'a' * 151}", 2, '"subject" is 151 characters long; 150 are'),
        ("subject: Help us today", 'subject: "a\\nBcc: b"', 2, '"subject" must stand on one line'),
        ("subject: Help us today", 'subject: "a\\u2028b"', 2, '"subject" must stand on one line'),
        ("subject: Help us today", 'subject: "a\\0b"', 2, '"subject" holds an invisible control character'),
        ("subject: Help us today", "subject: a\u202eb", 2, '"subject" holds an invisible control character'),
        ("subject: Help us today", "subject: a\x00b", 2, "the character U+0000 is not allowed here"),
        ("preheader: Three", "\u2028preheader: Three", 3, "the character U+2028 is not allowed here"),
        ("subject: Help us today", "subject: &a Help", 2, "anchors and aliases (& and *) are not read here"),
        ("subject: Help us today", "subject: *a", 2, "anchors and aliases (& and *) are not read here"),
        ("subject: Help us today", "subject: !!python/name:os.system", 2, "tags (!) are not read here"),
        ("subject: Help us today", "? [a]\n: b", 2, "a key must be a plain word"),
        ("subject: Help us today", "subject: [[[[[[]]]]]]", 2, "groups and lists are nested over 5 deep"),
        ("subject: Help us today", "\tsubject: a", 2, "a tab cannot indent here"),
        ("preheader: Three", "...\npreheader: Three", 4, "YAML cannot read this"),
        ("subject: Help us today", "subject: Dear {{ name", 2, '"subject": this is not closed'),
        (
            "subject: Help us today",
            "subject: '{{ name | safe }}'",
            2,
            '"subject": the filter "safe" would let',
        ),
        ("sender: Example", "sender: 'Example", 4, "a quotation mark is not closed"),
        ("Example Equality", "'{{ name }}'", 4, '"sender" must be the same for everyone'),
        ("kind: read", "kind: reed", 7, '"reed" is no kind of action: choose read, watch, share, donate'),
        ("- kind: read\n    text", "- text", 7, '"kind" is missing'),
        ("    main: true\n", "", 6, 'exactly one of "actions" must have "main: true" (the button), not 0'),
        ("text: Give", "main: true\n    text: Give", 6, '"main: true" (the button), not 2'),
        ("main: true", "main: perhaps", 10, '"main" must be true or false'),
        ("text: Give", "txet: Give", 13, '"txet" is not a key here: did you mean "text"?'),
        ("https://example.org/give", "http://example.org/give", 14, '"link" must begin with https://'),
        ("https://example.org/give", "javascript:alert(1)", 14, '"link" must begin with https://'),
        ("https://example.org/give", "https://localhost/give", 14, '"link" needs a host'),
        ("https://example.org/give", "https:///give", 14, '"link" needs a host'),
        ("https://example.org/give", "https://[::1/give", 14, '"link" cannot be read'),
        ("https://example.org/give", "https://a:b@example.org/", 14, '"link" must not hold a user name'),
        ("https://example.org/give", "https://example.org/a b", 14, '"link" holds a space'),
        ("https://example.org/give", "mailto:nobody", 14, '"link" needs an address after mailto:'),
        (
            "https://example.org/give",
            "https://{{ name }}.org/",
            14,
            '"link" must have the same host for everyone',
        ),
        ("share: Read this", "share: {tvitter: Read}", 11, '"tvitter" is not a network known here'),
        ("share: Read this", f"share: {{x: {'a' * 257}}}", 11, "the text for x is 257 characters long; 256"),
        ("share: Read this", "share: 'Hi {{ name }}'", 11, "a text to share must be the same for everyone"),
        ("report?src=a\n    main", "report?src={{ a }}\n    main", 9, "a link to share must be the same for"),
        ("sender: Letters", "from: Letters", 16, '"sender" is missing'),
        ("subject: A letter", "subject: A REPORT", 16, '"subject" of the discreet form tells "report"'),
        ("example.org/l/1", "example.org/%72eport", 9, 'this link tells "report"'),
        ("example.org/l/1", "xn--rport-bsa.example.org/l", 9, 'this link tells "report"'),
        (
            "subject: A letter",
            "subject: A RE\u0301PO\u00adRT",
            16,
            '"subject" of the discreet form tells "report"',
        ),
        ("report?src=a: ", "report?src=b: ", 20, "this link stands nowhere in the appeal"),
        (
            "https://example.org/l/1",
            "http://example.org/l/1",
            20,
            "the link put for it must begin with https",
        ),
        ("## What", "# What", 25, 'begin headings with "##"'),
        ("## What", "#### What", 25, "a heading of level 4 follows one of level 1"),
        ("## What", "<b>What</b>", 25, "HTML is not read here, only Markdown: <b>"),
        ("## What", "![a](https://example.org/a.png)", 25, "must be a file of the appeal's own"),
        ("Read [what", "One\n[two](/three)\n\nRead [what", 28, "this link must begin with https://"),
        ("Read [what", "[a](javascript:alert(1))\n[what", 27, "this link must begin with https://"),
        ("## What", "{# a\nb #}\n\n[a](b)\n\n## What", 28, "this link must begin with https://"),
        ("## What", "{% if a %}\n## What", 25, "Jinja cannot read this"),
        ("## What", "{{ a | shout }}", 25, "Jinja cannot read this: No filter named 'shout'"),
        ("## What", "{{ a | random }}", 25, "Jinja cannot read this: No filter named 'random'"),
        ("## What", "{% include 'a' %}", 25, "{% include %} is not available in an appeal"),
        ("## What", "{{ a\n| upper }}", 25, "keep this on one line: {{ a"),
        ("## What", "{%- if a %}{% endif %}", 25, '"{%-" moves white space that Markdown needs'),
        ("## What", "{% raw %}{% endraw %}", 25, '"raw" is not needed'),
    ],
)
def test_each_fault_is_named_with_its_line(old: str, new: str, line: int, message: str) -> None:
    """A change to a sound file is told at the line where it was made."""
    assert old in GOOD
    faults = found(GOOD.replace(old, new, 1))
    assert any(at == line and message in said for at, said in faults), faults


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", 1, 'the file must begin with a line "---"'),
        ("Hello", 1, 'the file must begin with a line "---"'),
        ("---\nsubject: a\n", 1, "the front matter is not closed"),
        ("---\n---\nHello", 2, 'the front matter must hold lines of the form "key: value"'),
        ("---\n- a\n---\nHello", 2, 'the front matter must hold lines of the form "key: value"'),
        (f"---\na: {'b' * 40_000}\n---\nHello", 2, "the front matter is over 32,000 characters long"),
        ("---\n" + "[" * 20_000 + "\n---\nHello", 2, "groups and lists are nested over 5 deep"),
        (GOOD + "a" * 60_001, 23, "the body is over 60,000 characters long"),
        (GOOD.partition("Dear")[0], 23, "the body is empty"),
    ],
)
def test_a_file_that_is_no_appeal_is_told_so(text: str, line: int, message: str) -> None:
    """Text without front matter, or too much of it, gives one clear fault."""
    assert any(at == line and said.startswith(message) for at, said in found(text))


def test_a_billion_laughs_are_refused_before_they_are_built() -> None:
    """Aliases that would grow to gigabytes cost nothing."""
    laughs = "\n".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 9))
    assert found(f"---\nl0: &l0 [ha]\n{laughs}\n---\n") == [
        (2, "anchors and aliases (& and *) are not read here: put the text in quotes")
    ]


def test_all_faults_of_all_files_are_told_at_once() -> None:
    """One run names every fault, in the order of files and lines, and nothing but an error comes out."""
    wrong = GOOD.replace("subject: Help", "subjet: Help").replace("kind: read", "kind: reed")
    with pytest.raises(AppealErrors) as caught:
        parse("Rain", {"en.md": wrong, "ru.md": "", "notes.txt": "x"})
    places = [(finding.file, finding.line) for finding in caught.value.findings]
    assert places == [(".", 1), ("en.md", 2), ("en.md", 2), ("en.md", 7), ("notes.txt", 1), ("ru.md", 1)]
    assert isinstance(caught.value, WrongUse)
    assert "6 errors" in str(caught.value)
    assert "en.md:7: " in str(caught.value)


def test_a_single_fault_is_one_line() -> None:
    """One fault makes a message of one line, with a remedy."""
    with pytest.raises(AppealErrors) as caught:
        parse("rain", {"en.md": ""})
    assert str(caught.value).startswith("the appeal rain has an error: en.md:1: the file must begin")
    assert "\n" not in str(caught.value)
    assert caught.value.remedy
    assert caught.value.findings == (Finding("en.md", 1, caught.value.findings[0].message),)


def test_an_empty_folder_is_told_so() -> None:
    """No file at all is an error, not an appeal without languages."""
    with pytest.raises(AppealErrors, match="there is no file here"):
        parse("rain", {})


@pytest.mark.parametrize(
    ("files", "reader", "chosen"),
    [
        (["en", "ru"], "ru", "ru"),
        (["en", "pt"], "pt-BR", "pt"),
        (["en", "pt-BR"], "pt", "pt-BR"),
        (["en", "pt-BR", "pt"], "pt-PT", "pt"),
        (["en", "ru"], "de", "en"),
        (["en", "ru"], "", "en"),
        (["de", "ru"], "fr", "de"),
        (["de", "en", "ru:default"], "fr", "ru"),
    ],
)
def test_a_reader_gets_the_nearest_language(files: list[str], reader: str, chosen: str) -> None:
    """The reader's language, then that without its region, then the default, English or the first."""
    marked = GOOD.replace("sender: Example", "default: true\nsender: Example")
    texts = {f"{name.partition(':')[0]}.md": marked if ":" in name else GOOD for name in files}
    assert parse("rain", texts).language_for(reader) == chosen


@pytest.mark.parametrize(
    ("files", "order", "chosen"),
    [
        (["de", "en", "ru"], ["ru", "en"], "ru"),
        (["de", "en"], ["ru", "de"], "de"),
        (["de", "en-GB"], ["ru", "en"], "en-GB"),
        (["de", "en"], ["ru"], "de"),
        (["de", "en:default"], ["de"], "en"),
    ],
)
def test_the_charity_says_what_stands_in_for_a_language(
    files: list[str], order: list[str], chosen: str
) -> None:
    """Readers of a language that is not there get the first of the charity's order, unless a file says it."""
    marked = GOOD.replace("sender: Example", "default: true\nsender: Example")
    texts = {f"{name.partition(':')[0]}.md": marked if ":" in name else GOOD for name in files}
    assert parse("rain", texts, order).language_for("fr") == chosen


def test_two_defaults_are_refused() -> None:
    """Only one language can be the one for everybody else."""
    marked = GOOD.replace("sender: Example", "default: true\nsender: Example")
    with pytest.raises(AppealErrors, match=r"ru\.md:1: en\.md is the default already"):
        parse("rain", {"en.md": marked, "ru.md": marked})


def test_share_texts_can_differ_by_network() -> None:
    """A default text serves all the appeal's networks but those named with their own."""
    text = GOOD.replace("share: Read this", "share: {default: All, email: Mail}").replace(
        "actions:", "networks: [telegram, email]\nactions:"
    )
    share = parse("rain", {"en.md": text}).languages["en"].actions[0].share
    assert list(share.items()) == [("telegram", "All"), ("email", "Mail")]


def test_the_sample_appeal_is_sound_in_every_language() -> None:
    """The appeal that ships has the four actions in their order, a warning and a discreet form."""
    appeal = sample()
    assert set(appeal.languages) == {"ar", "de", "en", "es", "fr", "ru"}
    assert appeal.default_language == "en"
    for version in appeal.languages.values():
        assert [action.kind for action in version.actions] == [Kind.READ, Kind.WATCH, Kind.SHARE, Kind.DONATE]
        assert version.actions[0].main
        assert version.actions[0].content_warning
        assert version.content_warning
        assert version.discreet is not None
        assert version.telling_words


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=200), st.integers(0, len(GOOD)), st.integers(0, 60))
def test_no_text_breaks_the_reader(noise: str, at: int, cut: int) -> None:
    """Whatever is written over a file, the answer is an appeal or findings with lines within the file."""
    text = GOOD[:at] + noise + GOOD[at + cut :]
    findings: tuple[Finding, ...] = ()
    try:
        parse("rain", {"en.md": text})
    except AppealErrors as error:
        findings = error.findings
    lines = re.sub("\r\n?", "\n", text).count("\n") + 1
    assert all(1 <= finding.line <= lines for finding in findings)
