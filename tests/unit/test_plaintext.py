"""Plain text is wrapped between words and never within them."""

from hypothesis import given
from hypothesis import strategies as st

from worker.content.plaintext import WIDTH, indent, wrap

words = st.lists(st.text(alphabet="abcё-", min_size=1, max_size=90), min_size=1, max_size=30)


@given(words)
def test_wrapping_keeps_every_word(text: list[str]) -> None:
    """The words are the same in the same order, and only a single long one exceeds the width."""
    wrapped = wrap(" ".join(text), first="1. ", rest="   ")
    assert wrapped.startswith("1. ")
    assert wrapped.removeprefix("1. ").split() == text
    for line in wrapped.splitlines():
        assert len(line) <= WIDTH or len(line[3:].split()) == 1


def test_line_breaks_of_the_text_stay() -> None:
    """A text of several lines is wrapped line by line, all indented alike."""
    assert wrap("one\ntwo", first="- ", rest="  ") == "- one\n  two"


def test_indenting_leaves_empty_lines_empty() -> None:
    """No line gets white space at its end."""
    assert indent("a\n\nb", "1. ", "   ") == "1. a\n\n   b"
    assert indent("", "1. ", "   ") == ""
