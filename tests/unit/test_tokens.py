"""The rules of the marks that leave in a mail."""

import re
import string
import timeit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.tokens import LENGTH, Marks, Purpose

KEY = bytes(range(32))
OTHER = bytes(range(32, 64))
MARKS = Marks(KEY)
IDS = st.integers(0, 2**63 - 1)
PURPOSES = st.sampled_from(Purpose)


@given(PURPOSES, IDS)
def test_round_trip(purpose: Purpose, delivery_id: int) -> None:
    """What was marked is read back, in any case, and the text is 32 lower-case letters and digits."""
    mark = MARKS.mark(purpose, delivery_id)
    assert re.fullmatch(r"[a-z2-7]{32}", mark)
    assert MARKS.read(purpose, mark) == delivery_id
    assert MARKS.read(purpose, mark.upper()) == delivery_id
    assert MARKS.mark(purpose, delivery_id) == mark, "a retried mail carries the same mark"


@given(PURPOSES, IDS, st.integers(0, LENGTH - 1), st.characters())
def test_every_changed_character_is_noticed(
    purpose: Purpose, delivery_id: int, place: int, character: str
) -> None:
    """A mark with one other character in it, whatever it is, is no mark."""
    mark = MARKS.mark(purpose, delivery_id)
    changed = mark[:place] + character + mark[place + 1 :]
    same = character in {mark[place], mark[place].upper()}
    assert MARKS.read(purpose, changed) == (delivery_id if same else None)


def test_every_place_guards_every_letter() -> None:
    """No letter of a mark is spare: each of the other 31 letters in each of the 32 places is noticed."""
    mark = MARKS.mark(Purpose.OPT_OUT, 70_001)
    alphabet = string.ascii_lowercase + "234567"
    forged = [
        mark[:place] + letter + mark[place + 1 :]
        for place in range(LENGTH)
        for letter in alphabet
        if letter != mark[place]
    ]
    assert len(forged) == LENGTH * 31
    assert {MARKS.read(Purpose.OPT_OUT, each) for each in forged} == {None}


@given(st.one_of(st.text(), st.text(string.ascii_letters + string.digits, min_size=28, max_size=36)))
def test_garbage_is_nothing(text: str) -> None:
    """Any text that we did not write reads as None, never as an error."""
    assert all(MARKS.read(purpose, text) is None for purpose in Purpose)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a" * LENGTH,
        "a" * (LENGTH + 1),
        "\0" * LENGTH,
        "\N{LATIN SMALL LETTER DOTLESS I}" * LENGTH,
        "\N{LATIN SMALL LETTER LONG S}" * LENGTH,
        "٣" * LENGTH,
        "\ud800" * LENGTH,
        " " + "a" * LENGTH,
        "a" * LENGTH + "\n",
        "a" * 24 + "=" * 8,
    ],
)
def test_look_alikes_are_nothing(text: str) -> None:
    """Padding, white space, other alphabets and half characters are not folded into a mark."""
    assert MARKS.read(Purpose.OPT_OUT, text) is None


def test_folding_letters_do_not_stand_for_ascii() -> None:
    """A letter that upper-cases into the alphabet (dotless i, long s) does not stand for it."""
    for delivery_id in range(200):
        mark = MARKS.mark(Purpose.BOUNCE, delivery_id)
        dotless, long = "\N{LATIN SMALL LETTER DOTLESS I}", "\N{LATIN SMALL LETTER LONG S}"
        folded = mark.replace("i", dotless).replace("s", long)
        assert MARKS.read(Purpose.BOUNCE, folded) == (delivery_id if folded == mark else None)


def test_huge_garbage_costs_nothing() -> None:
    """Ten megabytes of letters are refused in under a millisecond, before any work on them."""
    text = "a" * 10_000_000
    assert min(timeit.repeat(lambda: MARKS.read(Purpose.OPT_OUT, text), number=1, repeat=5)) < 0.001


@given(IDS, PURPOSES, PURPOSES)
def test_a_mark_serves_one_purpose(delivery_id: int, made_for: Purpose, read_as: Purpose) -> None:
    """A mark of one purpose is never read as another, so a bounce address opts nobody out."""
    mark = MARKS.mark(made_for, delivery_id)
    assert MARKS.read(read_as, mark) == (delivery_id if made_for is read_as else None)


@given(PURPOSES, IDS)
def test_marks_survive_a_new_key(purpose: Purpose, delivery_id: int) -> None:
    """After a rotation the old marks still read; a key that is gone reads nothing."""
    old = MARKS.mark(purpose, delivery_id)
    rotated = Marks(OTHER, older=[KEY])
    assert rotated.read(purpose, old) == delivery_id
    assert rotated.mark(purpose, delivery_id) == Marks(OTHER).mark(purpose, delivery_id)
    assert Marks(OTHER).read(purpose, old) is None


def test_neighbours_look_unrelated() -> None:
    """The marks of a campaign show neither the order nor the number of its deliveries."""
    marks = [MARKS.mark(Purpose.OPT_OUT, delivery_id) for delivery_id in range(2_000)]
    assert len(set(marks)) == len(marks)
    for place in range(LENGTH):
        assert len({mark[place] for mark in marks}) == 32, "each place takes every letter"
    assert sorted(marks) != marks


@pytest.mark.parametrize("delivery_id", [-1, 2**63, 2**64, 2**200])
def test_ids_out_of_range_are_refused(delivery_id: int) -> None:
    """An id that no delivery can have gets no mark."""
    with pytest.raises(ValueError, match="delivery id"):
        MARKS.mark(Purpose.OPT_OUT, delivery_id)


def test_test_mails_have_id_zero() -> None:
    """Id 0, the mark of a test mail, is read as 0 and not as "nothing"."""
    assert MARKS.read(Purpose.OPT_OUT, MARKS.mark(Purpose.OPT_OUT, 0)) == 0


def test_the_key_is_not_shown() -> None:
    """Neither repr nor str of the marks holds the key."""
    shown = f"{MARKS!r} {MARKS}"
    assert KEY.hex() not in shown
    assert repr(KEY) not in shown


def test_known_marks() -> None:
    """The text of a mark never changes between versions: links already sent must keep working."""
    assert [MARKS.mark(purpose, 1) for purpose in Purpose] == [
        "cwpapso6fccps42cymzizletcdgyxtgy",
        "tfusbdkrsagv3pbbkvbz2wpx4kuzj6zj",
        "nfz4mpb57m4ww6isszdkogvplry26w4o",
        "gaikust6skveygxgqovk53zxbwrqj5o3",
        "xgjhrmtq7piakjcmptsi3pqje7ehdkyb",
        "56j2uet25trqr7vklhy3nripb5a4zpny",
        "4lpocdqxbpmt25kzdd43v4lewimiytt7",
        "al5xrxlspdioow6fjqjxcd7nyrviengk",
        "ii5sgqhswgng5gcajbil5mv3fvqrpgid",
    ]
