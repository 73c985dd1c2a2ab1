"""The rules of the keyring and of the sealed record of a person."""

import base64
import copy
import hashlib
import itertools
import json
import pickle
import timeit
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.addresses import Address, parse
from worker.errors import WrongUse
from worker.sealing import KEY_BYTES, NONCE_BYTES, Keyring, Keys, Person, SealError
from worker.tokens import Purpose


def source(seed: bytes) -> Callable[[int], bytes]:
    """Return a stand-in for `secrets.token_bytes` that gives the same bytes on every run."""
    count = itertools.count()
    return lambda length: hashlib.shake_256(seed + bytes((next(count),))).digest(length)


RING = Keyring.generate(source(b"first"))
NONCE = bytes(range(NONCE_BYTES))
ADDRESS = parse("Anna.Petrova@example.org")
ANNA = Person(ADDRESS, {"first_name": "Anna", "last_name": "Петрова", "town": "Leeds"}, "ru", discreet=True)
TEXT = st.text(max_size=40)
PEOPLE = st.builds(
    Person,
    address=st.sampled_from([ADDRESS, parse("b@example.com"), Address("Zoë@example.net", "zoë@example.net")]),
    fields=st.dictionaries(st.from_regex(r"[a-z][a-z0-9_]{0,20}", fullmatch=True), TEXT, max_size=8),
    language=st.sampled_from(["", "en", "ru", "pt-br"]),
    discreet=st.booleans(),
)


def rotated(ring: Keyring) -> Keyring:
    """Return the ring with a second key of each purpose in use, as a rotation leaves it."""
    fresh = source(b"second")
    families = (ring.seal_keys, ring.lookup_keys, ring.mark_keys)
    return Keyring(*(Keys(2, {**family.by_id, 2: fresh(KEY_BYTES)}) for family in families))


@given(st.integers(0, 2**63 - 1), st.binary(max_size=300), st.binary(min_size=12, max_size=12))
def test_seal_and_open(person_id: int, record: bytes, nonce: bytes) -> None:
    """What was sealed for a person opens for that person, and its plain bytes do not show."""
    sealed = RING.seal(person_id, record, nonce)
    assert RING.open(person_id, sealed) == record
    assert len(record) < 8 or record not in sealed[1 + NONCE_BYTES :]


@given(st.data())
def test_any_change_is_noticed(data: st.DataObject) -> None:
    """A record with any one bit changed does not open."""
    sealed = bytearray(RING.seal(7, ANNA.to_bytes(), NONCE))
    place = data.draw(st.integers(0, len(sealed) - 1))
    sealed[place] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(SealError):
        RING.open(7, bytes(sealed))


@given(st.binary(max_size=200))
def test_garbage_does_not_open(garbage: bytes) -> None:
    """Bytes that we did not seal raise SealError and nothing else, whatever their length."""
    with pytest.raises(SealError):
        RING.open(7, garbage)


def test_a_record_belongs_to_its_person() -> None:
    """A record copied onto another person's row does not open there."""
    sealed = RING.seal(7, ANNA.to_bytes(), NONCE)
    with pytest.raises(SealError, match="person 8"):
        RING.open(8, sealed)


@pytest.mark.parametrize("length", [0, 8, 11, 13, 16])
def test_a_nonce_is_twelve_bytes(length: int) -> None:
    """A nonce of another length is a programming error."""
    with pytest.raises(ValueError, match="nonce"):
        RING.seal(1, b"", bytes(length))


@given(PEOPLE)
def test_person_round_trip(person: Person) -> None:
    """A person comes back from the record as they went in, and the record's length is a multiple of 64."""
    record = person.to_bytes()
    assert Person.from_bytes(record) == person
    assert len(record) % 64 == 0


def test_half_a_character_does_not_stop_a_batch() -> None:
    """A lone surrogate that slipped past the importer is kept as it is."""
    person = Person(ADDRESS, {"name": "\ud83d"})
    assert Person.from_bytes(person.to_bytes()) == person


@pytest.mark.parametrize(
    "record",
    [b"", b"{", b"[]", b"null", b"7", b"{}", b'"a"', b"\xff\xfe", b'{"f":{}}', b"\0" * 64],
)
def test_a_record_that_is_no_person(record: bytes) -> None:
    """Opened bytes that are not a person raise SealError, which shows none of them."""
    with pytest.raises(SealError) as caught:
        Person.from_bytes(record)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({}, ""),
        ({"name": "Anna Petrova", "first_name": "Anya"}, "Anna Petrova"),
        ({"first_name": "Anna"}, "Anna"),
        ({"last_name": "Petrova"}, "Petrova"),
        ({"first_name": "Anna", "last_name": "Petrova"}, "Anna Petrova"),
        ({"town": "Leeds"}, ""),
    ],
)
def test_display_name(fields: dict[str, str], name: str) -> None:
    """The name for the To header is the given name, else first and last, else nothing."""
    assert Person(ADDRESS, fields).name == name


def test_address_key() -> None:
    """The address key is 16 bytes, the same for one canonical form, and another under another key."""
    key = RING.address_key(parse("ANNA.petrova@example.org"))
    assert len(key) == 16
    assert key == RING.address_key(ADDRESS)
    assert key != RING.address_key(parse("b@example.com"))
    assert key != rotated(RING).address_key(ADDRESS)


def test_rotation_loses_nothing() -> None:
    """Under new keys the old records still open, old suppressions are still found, old links still read."""
    after = rotated(RING)
    old = RING.seal(7, b"record", NONCE)
    new = after.seal(7, b"record", NONCE)
    assert after.open(7, old) == after.open(7, new) == b"record"
    assert (after.needs_resealing(old), after.needs_resealing(new)) == (True, False)
    assert after.address_keys(ADDRESS) == (after.address_key(ADDRESS), RING.address_key(ADDRESS))
    link = RING.marks().mark(Purpose.OPT_OUT, 5)
    assert after.marks().read(Purpose.OPT_OUT, link) == 5
    assert after.marks().mark(Purpose.OPT_OUT, 5) != link
    with pytest.raises(SealError, match="key we lack"):
        RING.open(7, new)


def test_the_secret_file_round_trip() -> None:
    """A keyring written to its file and read back does all that it did."""
    for ring in (RING, rotated(RING)):
        again = Keyring.load(ring.dump())
        assert again.dump() == ring.dump()
        assert again.open(3, ring.seal(3, b"record", NONCE)) == b"record"
        assert again.address_keys(ADDRESS) == ring.address_keys(ADDRESS)
        assert again.marks().mark(Purpose.MESSAGE, 9) == ring.marks().mark(Purpose.MESSAGE, 9)


def test_generate_asks_for_three_keys() -> None:
    """A new keyring takes 32 fresh bytes for each of its three purposes."""
    asked: list[int] = []
    give = source(b"third")

    def fresh(count: int) -> bytes:
        asked.append(count)
        return give(count)

    assert Keyring.generate(fresh).dump() != Keyring.generate(fresh).dump()
    assert asked == [KEY_BYTES] * 6


GOOD = RING.dump()
KEY_TEXT = base64.b64encode(RING.seal_keys.by_id[1]).decode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "version = 1",
        "not toml at all: " + KEY_TEXT,
        KEY_TEXT,
        GOOD.replace("version = 1", "version = 2"),
        GOOD.replace("version = 1", "version = true"),
        GOOD.replace("version = 1\n", ""),
        GOOD.replace("[seal]", "[sael]"),
        GOOD.replace("[mark]", "[other]"),
        GOOD + "\n[extra]\n",
        GOOD.replace("current = 1", "current = 2"),
        GOOD.replace("current = 1", "current = true"),
        GOOD.replace("current = 1", 'current = "1"'),
        GOOD.replace("current = 1\n", ""),
        GOOD.replace('1 = "', '0 = "'),
        GOOD.replace('1 = "', '256 = "'),
        GOOD.replace('1 = "', '01 = "'),
        GOOD.replace('1 = "', '"\N{ARABIC-INDIC DIGIT ONE}" = "'),
        GOOD.replace('1 = "', '-1 = "'),
        GOOD.replace('1 = "', "9" * 5000 + ' = "'),
        GOOD.replace(KEY_TEXT, KEY_TEXT[:-4]),
        GOOD.replace(KEY_TEXT, KEY_TEXT + "AAAA"),
        GOOD.replace(KEY_TEXT, "*" + KEY_TEXT[1:]),
        GOOD.replace(KEY_TEXT, "é" + KEY_TEXT[1:]),
        GOOD.replace(f'"{KEY_TEXT}"', "7"),
        GOOD.replace(f'1 = "{KEY_TEXT}"', f'{KEY_TEXT.rstrip("=").replace("/", "").replace("+", "")} = "1"'),
        GOOD.replace(base64.b64encode(RING.mark_keys.by_id[1]).decode(), KEY_TEXT),
        GOOD + "\n[seal]\n",
    ],
)
def test_a_bad_secret_file(text: str) -> None:
    """A file that is not a whole keyring is refused, with a remedy, and no piece of a key in the message."""
    with pytest.raises(WrongUse) as caught:
        Keyring.load(text)
    error: BaseException | None = caught.value
    assert caught.value.remedy
    while error is not None:
        shown = f"{error} {error!r}"
        assert not any(KEY_TEXT[at : at + 6] in shown for at in range(len(KEY_TEXT) - 6))
        error = error.__cause__


@given(st.text(max_size=300))
def test_any_text_as_a_secret_file(text: str) -> None:
    """No text at all makes the loader fail in another way than WrongUse."""
    with pytest.raises(WrongUse):
        Keyring.load(text)


def test_nothing_secret_is_shown() -> None:
    """No repr, str or format of a keyring, its keys or a person holds a key or a personal field."""
    marks = RING.marks()
    subjects = (RING, RING.seal_keys, RING.lookup_keys, ANNA, marks)
    shown = " ".join(f"{each!r} {each} {[each]}" for each in subjects)
    for family in (RING.seal_keys, RING.lookup_keys, RING.mark_keys):
        for key in family.by_id.values():
            assert not any(
                form in shown for form in (repr(key)[2:12], key.hex(), base64.b64encode(key).decode())
            )
    assert not any(word in shown for word in ("Anna", "Петрова", "example.org", "Leeds"))


@pytest.mark.parametrize("duplicate", [pickle.dumps, copy.deepcopy])
def test_a_keyring_does_not_travel(duplicate: object) -> None:
    """A keyring cannot be pickled, so that no task argument ever carries the keys into the broker."""
    assert callable(duplicate)
    with pytest.raises(TypeError):
        duplicate(RING)


def test_sealed_records_hide_what_they_hold() -> None:
    """Nothing of a person, nor the length of their name, shows in the sealed record."""
    sealed = RING.seal(7, ANNA.to_bytes(), NONCE)
    assert b"example" not in sealed
    short = Person(parse("a@example.org"), {"name": "A"})
    longer = Person(parse("annabella@example.org"), {"name": "Annabella"})
    assert len(RING.seal(1, short.to_bytes(), NONCE)) == len(RING.seal(2, longer.to_bytes(), NONCE))


def test_the_record_is_compact() -> None:
    """A record says a value once: no canonical form where it is the address itself, nothing that is empty."""
    assert json.loads(Person(Address("a@example.org", "a@example.org"), {}).to_bytes()) == {
        "a": "a@example.org"
    }
    assert json.loads(ANNA.to_bytes()).keys() == {"a", "c", "f", "l", "d"}


def test_a_frozen_sample_still_opens() -> None:
    """The stored forms never change silently: a record and a hash from the first version still fit."""
    assert (
        RING.address_key(Address("x@example.org", "x@example.org")).hex()
        == "01aa3d31945a4d34aa0f6e3ceb997637"
    )
    sealed = bytes.fromhex(
        "01000102030405060708090a0bcc72bbdd8ee831b64626d1e2483b5316490de1c511f362ac1cfc213fdc959703582243"
        "1e936343c619bf1ef89ef266d711a18bbd2d299916c2c7771c11e059f20a0022992c00f2ca0d3d71c5ef75a3859c2f12"
        "babb61c1de64182bc574deffc28961ae92c60905c7bc0a17e923c6325f967342c9c8767ec1e7c7903c97f63a5b5195fa"
        "c7884504ba69e6aec4a4f5ea801ac4cbe9015949cc325b6a09c293a647e773c2746626055a97110ef560c7626cb59cec"
        "c04e731a0be18770c589fffeb2fb1d6ce2732c86d690ac15c91dc2d9bd"
    )
    assert Person.from_bytes(RING.open(7, sealed)) == ANNA


def test_opening_is_fast() -> None:
    """Opening and reading a person stays far under what a mail may cost (a few microseconds; bound: 60)."""
    sealed = RING.seal(7, ANNA.to_bytes(), NONCE)
    took = min(timeit.repeat(lambda: Person.from_bytes(RING.open(7, sealed)), number=2_000, repeat=5)) / 2_000
    assert took < 60e-6
    assert min(timeit.repeat(lambda: RING.address_key(ADDRESS), number=2_000, repeat=5)) / 2_000 < 25e-6
