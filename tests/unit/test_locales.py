"""Dates and numbers stand in a mail as its reader writes them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2.exceptions import FilterArgumentError

from worker.content import locales
from worker.content.sandbox import LANGUAGE
from worker.content.weaving import HtmlWeaver, LineWeaver, TextWeaver


@pytest.mark.parametrize(
    ("language", "long", "number"),
    [
        ("en", "30 November 2026", "12,345.60"),
        ("en-US", "November 30, 2026", "12,345.60"),
        ("de", "30. November 2026", "12.345,60"),
        ("de-AT", "30. November 2026", "12.345,60"),
        ("fr", "30 novembre 2026", "12\u202f345,60"),
        ("es", "30 de noviembre de 2026", "12.345,60"),
        ("ru", "30 ноября 2026\u202f\u0433.", "12\u00a0345,60"),
        ("ar", "30 نوفمبر 2026", "12,345.60"),
        ("xx", "2026-11-30", "12345.60"),
    ],
)
def test_each_language_writes_its_own_way(language: str, long: str, number: str) -> None:
    """Order, names of months, and marks between digits are the language's; digits written are kept."""
    assert locales.date("2026-11-30", language) == long
    assert locales.number("12345.60", language) == number


@pytest.mark.parametrize(
    "text",
    ["", "soon", "2026-02-30", "2026-11-30 09:00", "\u0662\u0660\u0662\u0666-11-30", "1e999999", "NaN", "+5"],
)
def test_what_is_neither_stays_as_it_is(text: str) -> None:
    """Nothing is guessed: a list's column holds words as well."""
    assert locales.date(text, "de") == text
    assert locales.number(text, "de") == text


def test_an_unknown_form_is_refused() -> None:
    """A form is one of four, not a pattern of the author's."""
    with pytest.raises(FilterArgumentError, match="full, long, medium, short"):
        locales.date("2026-11-30", "de", "EEEE")


@given(st.text(max_size=30), st.text(max_size=12))
def test_no_value_and_no_tag_breaks_it(text: str, language: str) -> None:
    """Whatever a list or a file name holds, something is shown."""
    assert isinstance(locales.date(text, language), str)
    assert isinstance(locales.number(text, language), str)


@given(st.one_of(st.from_regex(r"-?[0-9]{1,6}(\.[0-9]{1,2})?", fullmatch=True), st.text(max_size=8)))
def test_the_law_of_weaving_holds(value: str) -> None:
    """A woven mail is the mail of the slow road, with a filter that asks for the language too."""
    source = "{{ sum | number }} {{ day | default('2026-11-30') | date('full') }}"
    for language in ("de", "ar"):
        values: dict[str, object] = {"sum": value, LANGUAGE: language}
        for weaver in (HtmlWeaver(f"<p>{source}</p>"), TextWeaver(source)):
            shown = weaver.plain(values)
            assert shown == _decoded(weaver.weave(values))
    assert LineWeaver("{{ 1200 | number }}").weave({LANGUAGE: "de"}) == "1.200"


def _decoded(wire: bytes) -> str:
    import quopri  # noqa: PLC0415 - only here

    return quopri.decodestring(wire).decode().replace("\r\n", "\n")
