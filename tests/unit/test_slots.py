"""Slots: what a template that only shows fields sets aside is known without rendering it."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.content.sandbox import Kind, MissingField
from worker.content.slots import Record, SlottedTemplate, StandIns

SHOWING = "{{ a }}<p>{{ b | default('x') }} {{ b | d('y\x00', true) }}{{ 'c' }}</p>{# d #}{{ a }}"
VALUES = st.one_of(st.text(max_size=6), st.sampled_from(["", " x", "a\x00", "\ud800", "None"]))


@given(
    st.sampled_from(["html", "text"]),
    st.dictionaries(st.sampled_from(["a", "b"]), st.one_of(VALUES, VALUES, st.none(), st.integers())),
)
def test_taking_is_rendering(kind: Kind, values: Mapping[str, object]) -> None:
    """Where `take` answers at all, it answers what rendering sets aside."""
    template = SlottedTemplate(SHOWING, kind)
    record = Record(StandIns("Tw"))
    taken = template.take(values)
    if "a" not in values:
        assert taken is None
        with pytest.raises(MissingField):
            template.render(values, record)
        return
    template.render(values, record)
    assert taken == (record.values if all(type(value) is str for value in values.values()) else None)


def test_fragile_places() -> None:
    """Where a value that is empty or framed by white space has to stay in place, it is not taken."""
    template = SlottedTemplate("{{ a }}{{ b }}", "html")
    template.fragile[1] = True
    assert template.take({"a": " ", "b": "x"}) == [" ", "x"]
    assert template.take({"a": "x", "b": " "}) is None


@pytest.mark.parametrize(
    "source",
    [
        "{% if a %}{{ a }}{% endif %}",
        "{% for b in a %}{{ b }}{% endfor %}",
        "{% set a = 1 %}{{ a }}",
        "{% macro a() %}x{% endmacro %}{{ a }}",
        "{{ self }}",
        "{{ range }}",
        "{{ range | default('x') }}",
        "{{ a | default(b) }}",
        "{{ a | default('x', b) }}",
        "{{ a | default('x', boolean=true) }}",
        "{{ a | default(1) }}",
        "{{ a.b | default('x') }}",
        "{{ a | upper }}",
        "{{ a | upper | default('x') }}",
        "{{ a ~ b }}",
        "{{ a() }}",
        "{{ a.b }}",
        "{{ a if b }}",
    ],
)
def test_more_than_showing(source: str) -> None:
    """A template that does anything else with a field is rendered each time."""
    template = SlottedTemplate(source, "html")
    assert template.fields is None
    assert template.take({"a": "x", "b": "x"}) is None


@pytest.mark.parametrize("source", ["", "words", "{{ 1 + 1 }}", "{% raw %}{{ a }}{% endraw %}"])
def test_nothing_to_show(source: str) -> None:
    """A template without fields sets nothing aside."""
    assert SlottedTemplate(source, "text").take({}) == []
