"""The author's Jinja comes through other tools unharmed, and nothing else is ever read as Jinja."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.content.expressions import Holes, NotReadableError, faults, fields, plain, split
from worker.content.sandbox import environment

#: Plain stretches and sound Jinja, in any order.
PIECES = ["{{ name }}", "{{ '}}' }}", '{{ {"a": 1}["a"] }}', "{% if name %}", "{% endif %}", "{# note #}"]
BRACES = st.text(alphabet="{}%#- ab\n'\"", max_size=30)
sound = st.lists(st.sampled_from([*PIECES, "text ", "\n", "{ ", "} ", "}} ", "%} "]), max_size=12).map(
    "".join
)


@given(sound)
def test_the_pieces_are_the_text(text: str) -> None:
    """Cutting a text into pieces loses nothing, and each piece knows its line."""
    pieces = split(text)
    assert "".join(piece.source for piece in pieces) == text
    read = ""
    for piece in pieces:
        assert piece.line == read.count("\n") + 1
        read += piece.source


@settings(deadline=None)
@given(BRACES)
def test_data_stays_data(text: str) -> None:
    """Text that was not hidden renders to itself, whatever braces it holds."""
    source = Holes([text]).restore(text)
    assert environment("text").from_string(source).render() == text


@settings(deadline=None)
@given(BRACES, BRACES)
def test_data_beside_an_expression_stays_data(before: str, after: str) -> None:
    """A brace next to an expression cannot join it."""
    holes = Holes([before, after])
    source = holes.restore(before + holes.hide("{{ name }}") + after)
    assert environment("text").from_string(source).render(name="N") == f"{before}N{after}"


@given(sound)
def test_what_is_hidden_comes_back(text: str) -> None:
    """Hidden Jinja comes back as written, but for its comments; between, there is none to be seen."""
    holes = Holes([text])
    hidden = holes.hide(text)
    assert "{{ name }}" not in hidden
    assert holes.restore(hidden).replace("{% raw %}{{% endraw %}", "{") == text.replace("{# note #}", "")


def test_words_are_never_those_of_the_text() -> None:
    """A text that holds our kind of words gets others."""
    text = "zqjv0q zqjjs0q {{ name }}"
    holes = Holes([text])
    assert holes.restore(holes.hide(text)) == text


def test_fields_are_what_comes_from_the_person() -> None:
    """Names set in the text, our own link and Jinja's own functions are no fields."""
    ours = "{{ opt_out_url }}{{ range(2) }}"
    text = "{% set a = town %}{{ a }}{{ name | default('x') }}"
    assert fields(ours + text) == {"town", "name"}


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a\n{{ b", 2, "this is not closed: {{ b"),
        ("a\n{% if b %}", 2, "Jinja cannot read this"),
        ("{{ a b }}", 1, "Jinja cannot read this"),
        ("{# a", 1, "Jinja cannot read this"),
        ("{% if a %}" * 2000 + "{% endif %}" * 2000, 1, "the Jinja here is nested too deeply"),
        ("{% for a in b %}" * 30 + "{% endfor %}" * 30, 1, "the Jinja here is nested too deeply"),
        ("{{ " + "(" * 2000 + "1" + ")" * 2000 + " }}", 1, "the Jinja here is nested too deeply"),
        ("\n\n{{ a | safe }}", 3, 'the filter "safe" would let a value from a list write HTML'),
        ("{{ a | urlize }}", 1, 'the filter "urlize" would turn a value from a list into a link'),
        ("{% autoescape false %}{{ a }}{% endautoescape %}", 1, "{% autoescape %} is not available"),
        ("{% extends 'a' %}", 1, "{% extends %} is not available"),
        ("{% import 'a' as a %}", 1, "{% import %} is not available"),
        ("{% block a %}{% endblock %}", 1, "{% block %} is not available"),
    ],
)
def test_unsound_jinja_is_told_with_its_line(text: str, line: int, message: str) -> None:
    """What cannot be read, or would escape the sandbox's rules, is a fault of its line."""
    assert any(fault.line == line and fault.message.startswith(message) for fault in faults(text))


@settings(deadline=None)
@given(BRACES)
def test_any_text_is_either_faulty_or_can_be_hidden(text: str) -> None:
    """No text makes the check crash, and what it passes can be used."""
    if not any(faults(text)):
        assert isinstance(Holes([text]).hide(text), str)
        assert isinstance(plain(text), bool)


def test_unreadable_jinja_is_never_hidden() -> None:
    """Asking to hide what cannot be read is an error, not a guess."""
    with pytest.raises(NotReadableError):
        Holes([]).hide("{{ a")
