"""An import takes all or nothing, leaves out who said no, and names what it rejects without repeating it."""

import csv
import secrets
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from worker.addresses import parse
from worker.errors import Refused, WrongUse
from worker.imports import Importer, Rejects, Result, Target
from worker.sealing import Keyring, Keys, Person
from worker.store import keyrings
from worker.store.bars import Bars
from worker.store.database import Database
from worker.store.people import People
from worker.store.schema import consents, memberships, people
from worker.store.staging import Staged
from worker.store.suppressions import EVERYTHING, Suppression, Suppressions
from worker.tables.lists import Consent, read

Bring = Callable[..., Result]
GOOD = "email,name,basis,source,when\nanna@example.org,Anna,consent,form,2025-01-01\n"


@pytest.fixture
def keyring() -> Keyring:
    """Fresh keys."""
    return Keyring.generate(secrets.token_bytes)


@pytest.fixture
def bring(database: Database, keyring: Keyring, tmp_path: Path, clock: Callable[[], float]) -> Bring:
    """Import a text into the list "one"."""

    def run(text: str | Iterable[bytes], slug: str = "one", **options: bool) -> Result:
        importer = Importer(
            People(database),
            Suppressions(database),
            Bars(database),
            keyring,
            random=secrets.token_bytes,
            clock=clock,
        )
        chunks = [text.encode()] if isinstance(text, str) else text
        rows = read(chunks, defaults=Consent())
        return importer.run(
            rows, Target(slug, slug.title(), **options), Rejects(tmp_path / "rejects.csv"), lambda _rows: None
        )

    return run


def rows(database: Database) -> list[sa.Row[int, bytes]]:
    """Everyone we hold, as they are stored."""
    with database.read() as connection:
        return list(connection.execute(sa.select(people.c.id, people.c.sealed).order_by(people.c.id)))


def held(database: Database, keyring: Keyring) -> list[Person]:
    """Everyone we hold, opened."""
    return [Person.from_bytes(keyring.open(row.id, row.sealed)) for row in rows(database)]


def test_people_come_in_sealed_and_open_again(bring: Bring, database: Database, keyring: Keyring) -> None:
    """What the file says is what the keys open, and nothing of it stands in the store in clear."""
    result = bring(GOOD)
    assert (result.rows, result.accepted, result.new_people, result.new_members) == (1, 1, 1, 1)
    (person,) = held(database, keyring)
    assert (person.address.spec, person.name) == ("anna@example.org", "Anna")
    (row,) = rows(database)
    assert b"anna" not in row.sealed.lower()


def test_one_bad_row_keeps_everybody_out(bring: Bring, database: Database) -> None:
    """All or nothing is the default, and the refusal names the way out."""
    with pytest.raises(Refused) as caught:
        bring(GOOD + "not an address,Bo,consent,form,2025-01-01\n")
    assert "--accept-valid" in caught.value.remedy
    assert People(database).lists() == []


def test_accept_valid_takes_the_good_rows_and_lists_the_others(
    bring: Bring, database: Database, tmp_path: Path
) -> None:
    """The rejects file has line and reason, is private, and repeats nothing of the row."""
    result = bring(GOOD + "secret-not-an-address,Bo,consent,form,2025-01-01\n", accept_valid=True)
    assert (result.accepted, result.rejected.total()) == (1, 1)
    assert [each.members for each in People(database).lists()] == [1]
    rejects = tmp_path / "rejects.csv"
    assert rejects.stat().st_mode & 0o777 == 0o600
    (row,) = csv.DictReader(rejects.read_text(encoding="utf-8").splitlines())
    assert row["line"] == "3"
    assert row["reason"].startswith("address")
    assert "secret" not in rejects.read_text(encoding="utf-8")


def test_a_file_with_no_usable_row_is_refused(bring: Bring) -> None:
    """Zero valid rows is one clear line, with or without --accept-valid."""
    with pytest.raises(Refused, match="no usable row"):
        bring("email\nnonsense\n", accept_valid=True)


def test_a_dry_run_counts_and_keeps_nothing(bring: Bring, database: Database) -> None:
    """Everything is counted as it would be, and nobody comes in."""
    result = bring(GOOD + GOOD.splitlines()[1] + "\n", dry_run=True)
    assert (result.accepted, result.duplicates, result.kept) == (1, 1, False)
    assert People(database).lists() == []


@pytest.mark.parametrize("again", ["anna@example.org", "ANNA@Example.ORG", " anna@example.org "])
def test_one_person_comes_in_once(again: str, bring: Bring, database: Database) -> None:
    """Another case or stray spaces make no second person, in one file or in the next."""
    assert bring(f"{GOOD}{again},Anna,consent,form,2025-01-01\n").duplicates == 1
    assert bring(f"email\n{again}\n").new_people == 0
    assert [each.members for each in People(database).lists()] == [1]


@pytest.mark.parametrize(
    "form", ["anna@example.org", "ANNA@EXAMPLE.ORG", '"Anna <anna@example.org>"', "  anna@example.org"]
)
def test_who_said_no_stays_out_in_any_spelling(
    form: str, bring: Bring, database: Database, keyring: Keyring
) -> None:
    """An import never lifts a suppression (STANDARDS L8); it counts it."""
    key = keyring.address_key(parse("anna@example.org"))
    Suppressions(database).add([Suppression(key, EVERYTHING, "opt-out", "page", 1.0)])
    result = bring(f"email\n{form}\nbo@example.org\n")
    assert (result.accepted, result.suppressed) == (1, 1)
    assert [person.address.spec for person in held(database, keyring)] == ["bo@example.org"]


def test_a_suppression_is_found_under_an_older_hash_key(database: Database, keyring: Keyring) -> None:
    """After a rotation the "no" of someone since erased still holds."""
    key = keyring.address_key(parse("anna@example.org"))
    Suppressions(database).add([Suppression(key, EVERYTHING, "opt-out", "page", 1.0)])
    old = keyring.lookup_keys.by_id[1]
    rotated = Keyring(keyring.seal_keys, Keys(2, {1: old, 2: secrets.token_bytes(32)}), keyring.mark_keys)
    importer = Importer(
        People(database),
        Suppressions(database),
        Bars(database),
        rotated,
        random=secrets.token_bytes,
        clock=lambda: 1.0,
    )
    rows = read([GOOD.encode() + b"bo@example.org,Bo,consent,form,2025-01-01\n"], defaults=Consent())
    result = importer.run(rows, Target("one", "One"), Rejects(Path("unused")), lambda _rows: None)
    assert (result.accepted, result.suppressed) == (1, 1)


def test_discreet_once_is_discreet(bring: Bring, database: Database, keyring: Keyring) -> None:
    """A list that knows nothing of it never brings the open form to somebody who asked for the other."""
    head = "email,discreet,language,basis,source,when\n"
    bring(head + "anna@example.org,yes,ru,consent,form,2025-01-01\n")
    bring("email\nanna@example.org\n")
    bring(head + "anna@example.org,no,,consent,form,2025-01-01\n")
    (person,) = held(database, keyring)
    assert (person.discreet, person.language) == (True, "ru")


@pytest.mark.parametrize("rows", [["no", "yes"], ["yes", "no"], ["no"] * 6000 + ["yes"]])
def test_discreet_in_any_row_of_a_file_is_discreet(
    rows: list[str], bring: Bring, database: Database, keyring: Keyring
) -> None:
    """Also when the rows are far apart; the first row's other fields stand, later ones fill the gaps."""
    lines = [
        f"anna@example.org,{'Anna' if not n else 'Other'},{'' if not n else 'Hull'},{mark}"
        for n, mark in enumerate(rows)
    ]
    result = bring("\n".join(["email,name,town,discreet", *lines, ""]))
    assert (result.accepted, result.duplicates) == (1, len(rows) - 1)
    (person,) = held(database, keyring)
    assert person.discreet
    assert dict(person.fields) == {"name": "Anna", "town": "Hull"}


def test_a_file_that_says_nothing_of_consent_takes_none_away(bring: Bring, database: Database) -> None:
    """A bare file of addresses leaves basis, source and date as they were; a better record replaces them."""
    bring(GOOD)
    bring("email\nanna@example.org\n")
    assert consent(database) == ("consent", 1_735_689_600.0)
    bring(GOOD.replace("consent,form,2025-01-01", "soft opt-in,stall,2025-01-02"))
    assert consent(database) == ("soft opt-in", 1_735_776_000.0)


def consent(database: Database) -> tuple[str, float]:
    """The one membership's basis and date."""
    query = sa.select(consents.c.basis, memberships.c.consented_at).join_from(memberships, consents)
    with database.read() as connection:
        return tuple(connection.execute(query).one())


def test_another_key_ring_is_refused(database: Database, keyring: Keyring) -> None:
    """With another key no opt-out would be found, so nothing goes on; a rotation keeps the old one."""
    keyrings.require(database, keyring)
    keyrings.require(database, keyring)
    with pytest.raises(WrongUse, match="not the one"):
        keyrings.require(database, Keyring.generate(secrets.token_bytes))
    rotated = Keys(2, {**keyring.lookup_keys.by_id, 2: secrets.token_bytes(32)})
    keyrings.require(database, Keyring(keyring.seal_keys, rotated, keyring.mark_keys))


def test_a_second_import_updates_what_is_held(bring: Bring, database: Database, keyring: Keyring) -> None:
    """A person's newer fields replace the older ones, under the same number."""
    bring(GOOD)
    bring(GOOD.replace("Anna,", "Anna Bell,"))
    assert [person.name for person in held(database, keyring)] == ["Anna Bell"]


def test_an_interrupt_leaves_nothing_behind(bring: Bring, database: Database, tmp_path: Path) -> None:
    """Ctrl-C in the middle: nobody came in, nothing lies about."""

    def chunks() -> Iterable[bytes]:
        yield GOOD.encode() + b"".join(
            b"p%d@example.org,P,consent,form,2025-01-01\n" % n for n in range(9000)
        )
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bring(chunks())
    assert People(database).lists() == []
    assert rows(database) == []
    assert [file.name for file in tmp_path.iterdir() if "import" in file.name] == []


@pytest.mark.parametrize("known", [False, True], ids=["new to us", "known to us"])
@pytest.mark.parametrize("first", ["yes", "no"], ids=["the first says so", "the second says so"])
def test_two_imports_at_once_lose_nothing_of_each_other(
    *, first: str, known: bool, bring: Bring, database: Database, keyring: Keyring, tmp_path: Path
) -> None:
    """A discreet mark, and every field that only one of the two files has, outlives the other file."""
    if known:
        bring("email,name\nanna@example.org,Anna\n")

    def other_first() -> float:
        """Let another file in just before the first one's last transaction."""
        if not raced:
            raced.append(True)
            bring(f"email,town,discreet\nanna@example.org,Hull,{first}\nbo@example.org,York,no\n")
        return 1.0

    raced: list[bool] = []
    importer = Importer(
        People(database),
        Suppressions(database),
        Bars(database),
        keyring,
        random=secrets.token_bytes,
        clock=other_first,
    )
    text = f"email,county,discreet\nanna@example.org,Kent,{'no' if first == 'yes' else 'yes'}\n"
    result = importer.run(
        read([text.encode()], defaults=Consent()),
        Target("two", "Two"),
        Rejects(tmp_path / "r"),
        lambda _rows: None,
    )
    assert (result.new_people, result.new_members) == (0, 1)
    anna = next(one for one in held(database, keyring) if one.address.spec == "anna@example.org")
    assert anna.discreet
    assert dict(anna.fields) == {"town": "Hull", "county": "Kent"} | ({"name": "Anna"} if known else {})
    assert len(shapes(database, rows(database)[0].id)) == 1


def test_two_imports_that_end_at_the_same_time_both_come_in(database: Database) -> None:
    """One waits for the other, and nobody is held twice."""
    store = People(database)
    consent = store.consent_ids([("consent", "form", "")])[0]
    both = [store.begin_import(), store.begin_import()]
    for place, one in enumerate(both):
        start = 1000 * (place + 1)
        one.add([Staged(b"%16d" % n, start + n, b"sealed", "other", consent, 1.0) for n in range(500)])
    with ThreadPoolExecutor() as pool:
        ended = list(pool.map(lambda one, slug: one.finish(slug, slug, 1.0), both, ("one", "two")))
    assert sorted(ended) == [(0, 500), (500, 500)]
    assert [each.members for each in store.lists()] == [500, 500]
    assert len(rows(database)) == 500


def test_a_changed_record_changes_its_shape_on_every_list(bring: Bring, database: Database) -> None:
    """People who can be told the same things are alike, on the lists they joined before as well."""
    bring("email,town\nanna@example.org,Hull\nbo@example.org,\n")
    anna, bo = (shapes(database, row.id) for row in rows(database))
    assert anna != bo
    bring("email,town\nbo@example.org,York\n", slug="two")
    assert shapes(database, rows(database)[1].id) == anna


def test_rows_with_a_consent_of_their_own_keep_it(bring: Bring, database: Database) -> None:
    """However many there are."""
    lines = [f"p{n}@example.org,consent,form {n},2025-01-01" for n in range(300)]
    bring("\n".join(["email,basis,source,when", *lines, ""]))
    query = sa.select(memberships.c.person_id, consents.c.source).join_from(memberships, consents)
    with database.read() as connection:
        sources = [row.source for row in connection.execute(query.order_by(memberships.c.person_id))]
    assert sources == [f"form {n}" for n in range(300)]


def shapes(database: Database, person_id: int) -> set[int]:
    """The shapes of a person, over all their lists."""
    with database.read() as connection:
        query = sa.select(memberships.c.shape).where(memberships.c.person_id == person_id)
        return set(connection.execute(query).scalars())
