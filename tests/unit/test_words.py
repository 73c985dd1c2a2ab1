"""What we say ourselves is whole in every language, and no language is passed off as another."""

import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from babel import Locale
from hypothesis import given
from hypothesis import strategies as st

from worker.content.words import CatalogueError, Catalogues, Words, direction

TEMPLATES = Path(__file__).parents[2] / "templates"
FILES: Mapping[str, str] = {path.name: path.read_text("utf-8") for path in (TEMPLATES / "locale").iterdir()}
SHIPPED = Catalogues(FILES)
EVERY = pytest.mark.parametrize("language", SHIPPED.languages)
PLACEHOLDER = re.compile(r"%\(\w+\)s")


def parts(language: str) -> dict[str, str]:
    """Return each msgid of a catalogue by its msgctxt, read without Babel."""
    entries = re.findall(r'^msgctxt "(.*)"\nmsgid "(.*)"$', FILES[f"{language}.po"], re.MULTILINE)
    return dict(entries)


def asked(folder: str, pattern: str) -> set[str]:
    """Return the words that the templates of a folder ask for."""
    texts = (path.read_text("utf-8") for path in (TEMPLATES / folder).iterdir() if path.suffix != ".css")
    return {name for text in texts for name in re.findall(pattern, text)}


def test_the_six_languages_are_there() -> None:
    """English, Russian, German, French, Spanish and Arabic ship."""
    assert set(SHIPPED.languages) == {"en", "ru", "de", "fr", "es", "ar"}


@EVERY
def test_every_catalogue_is_whole(language: str) -> None:
    """Each has every message, translated, not fuzzy, with the same placeholders, from the same English."""
    said, english = SHIPPED.words(language), SHIPPED.words("en")
    assert said.keys() == english.keys()
    assert parts(language) == parts("en")
    for name, text in said.items():
        assert text == text.strip()
        assert sorted(PLACEHOLDER.findall(text)) == sorted(PLACEHOLDER.findall(english[name])), name
    assert "#, fuzzy" not in FILES[f"{language}.po"]
    assert f'"Language: {language}\\n"' in FILES[f"{language}.po"]


@EVERY
def test_nothing_is_left_in_english(language: str) -> None:
    """No sentence of another language is the English one."""
    if language != "en":
        same = SHIPPED.words(language).items() & SHIPPED.words("en").items()
        assert {name for name, _ in same} <= {"mail.label", "page.data_no"}  # "No" is Spanish too


@EVERY
def test_the_direction_is_that_of_unicode(language: str) -> None:
    """Right to left is what CLDR says it is, also with a region."""
    assert direction(language) == direction(f"{language}-XX") == Locale.parse(language).text_direction


@EVERY
def test_the_discreet_opening_fills_a_mailbox_lists_line(language: str) -> None:
    """What lists show of the beginning of a discreet mail is the opening and nothing of the appeal."""
    assert len(SHIPPED.words(language)["mail.discreet_opening"]) >= 150


def test_templates_ask_for_what_there_is() -> None:
    """Every word that a template asks for is in the catalogues."""
    names = SHIPPED.words("en").keys()
    mail = {f"mail.{name}" for name in asked("look", r"words\.(\w+)")}
    page = {f"page.{name}" for name in asked("web", r'say\(["\'](\w+)')}
    assert mail
    assert page
    assert mail | page <= names


@pytest.mark.parametrize(
    ("tag", "serves"), [("ru", "ru"), ("RU-ru", "ru"), ("de-AT", "de"), ("cy", ""), ("", ""), ("../en", "")]
)
def test_a_tag_finds_its_language(tag: str, serves: str) -> None:
    """A region is served by its language; what there is no catalogue for is not served."""
    assert SHIPPED.match(tag) == serves


def test_a_language_without_a_catalogue_is_refused() -> None:
    """Nobody is answered in English because their language is missing."""
    with pytest.raises(CatalogueError, match=r"no catalogue for the language cy: locale/cy\.po") as caught:
        SHIPPED.words("cy")
    assert "copy of en.po" in (caught.value.remedy or "")


OPT_OUT = 'msgctxt "mail.opt_out"\nmsgid "Unsubscribe"\nmsgstr '


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"Abmelden"', '""', "mail.opt_out is not translated"),
        ('"Abmelden"', '"  "', "mail.opt_out is not translated"),
        ('"Abmelden"', '"Zu 100 % weg"', "mail.opt_out must fill in what its msgid does"),
        (OPT_OUT, f"#, fuzzy\n{OPT_OUT}", 'mail.opt_out is marked "fuzzy"'),
        ('msgctxt "mail.opt_out"', 'msgctxt "mail.optout"', "lacks, or alone has: mail.opt_out, mail.optout"),
        ('msgctxt "mail.opt_out"\n', "", "Unsubscribe has no msgctxt"),
        ("%(organisation)s gebeten", "%(organization)s gebeten", "mail.reason must fill in"),
        (OPT_OUT, OPT_OUT.replace("msgstr", 'msgid_plural "a"\nmsgstr[0]'), "has plural forms"),
        ('msgid "Unsubscribe"', "Unsubscribe", "de.po is no gettext catalogue"),
    ],
)
def test_a_catalogue_with_a_fault_is_refused(old: str, new: str, said: str) -> None:
    """A gap, a doubt or another placeholder is named with its file, not sent."""
    assert old in FILES["de.po"]
    broken = Catalogues({**FILES, "de.po": FILES["de.po"].replace(old, new, 1)})
    with pytest.raises(CatalogueError, match=r"de\.po") as caught:
        broken.words("de")
    assert said in str(caught.value)
    assert broken.words("fr")


def test_without_english_there_is_no_measure() -> None:
    """The catalogue that the others are held against has to be there."""
    with pytest.raises(CatalogueError, match=r"en\.po is missing"):
        Catalogues({"de.po": FILES["de.po"]})


def test_english_may_be_corrected_too() -> None:
    """An operator changes what is said in English where it is said in every language: in msgstr."""
    changed = FILES["en.po"].replace('msgstr "Unsubscribe"', 'msgstr "Leave this list"')
    assert Catalogues({**FILES, "en.po": changed}).words("en-GB")["mail.opt_out"] == "Leave this list"


def test_an_unknown_word_is_named() -> None:
    """A template that asks for what no catalogue has is told so."""
    with pytest.raises(CatalogueError, match="no catalogue has nonsense"):
        Words()["nonsense"]


@given(st.text(max_size=80), st.integers(0, 1500))
def test_no_text_breaks_the_reader(noise: str, at: int) -> None:
    """Whatever is written over a catalogue, it is read whole or refused in one line."""
    text = FILES["de.po"][:at] + noise + FILES["de.po"][at + 40 :]
    words, told = SHIPPED.words("en"), ""
    try:
        words = Catalogues({**FILES, "de.po": text}).words("de")
    except CatalogueError as error:
        told = str(error)
    assert words.keys() == SHIPPED.words("en").keys()
    assert "\n" not in told
