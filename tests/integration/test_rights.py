"""Who asks is told everything, corrected, and forgotten so that nothing leads to them but the "no"."""

import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from worker import disguises
from worker.addresses import parse
from worker.bars import Bar, Kind
from worker.deeds import Deed
from worker.deliveries import State
from worker.errors import Refused, WrongUse
from worker.imports import Importer, Rejects, Target
from worker.recognising import Recogniser
from worker.rights import Correction, Rights
from worker.sealing import Keyring, Person
from worker.store.audience import Rule
from worker.store.audit import Audit
from worker.store.bars import Bars
from worker.store.database import Database
from worker.store.dossiers import Asked, Dossiers, blank
from worker.store.invitations import Invitations
from worker.store.ledger import Ledger, Outcome
from worker.store.notices import Notices
from worker.store.people import People
from worker.store.plans import Draft, Plans
from worker.store.schema import deliveries, lists, memberships, people
from worker.store.staging import Staged
from worker.store.suppressions import Suppression, Suppressions
from worker.store.tallies import Tallies
from worker.store.wishes import Wishes, wish
from worker.tables.lists import Consent, Row
from worker.tokens import Purpose

VERA = Person(parse("vera@example.org"), {"first_name": "Veronika", "town": "Leith"}, language="ru")
ADAM = Person(parse("adam@example.com"), {"first_name": "Adam"})


class Office:
    """A store with two people and one campaign that both are in."""

    def __init__(self, database: Database, clock: Callable[[], float], *who: Person) -> None:
        """Bring them onto a list and launch to it."""
        self.database, self.clock = database, clock
        self.keyring = Keyring.generate(secrets.token_bytes)
        self.rights = Rights(database, self.keyring, random=secrets.token_bytes, clock=clock)
        holders = People(database)
        consent = holders.consent_ids([("consent", "form", "Yes, write to me.")])[0]
        first = holders.new_ids(len(who))
        with holders.begin_import() as aside:
            aside.add([self._staged(first + place, one, consent) for place, one in enumerate(who)])
            aside.finish("one", "One", 1.0)
        self.plans = Plans(database, batch_size=10)
        self.rule = Rule((holders.find_lists(["one"])[0].id,))
        draft = Draft("a", "{}", self.rule, "d", "running", "op", "op", 0.0, "UTC", None)
        self.campaign = self.plans.record(draft, 1.0)
        self.batch = self.plans.slice(self.campaign, 10, 1.0)[0]
        self.plans.slice(self.campaign, 10, 1.0)

    def _staged(self, number: int, one: Person, consent: int) -> Staged:
        sealed = self.keyring.seal(number, one.to_bytes(), secrets.token_bytes(12))
        key = self.keyring.address_key(one.address)
        return Staged(key, number, sealed, "other", consent, 1.0, 0, self.keyring.shape(one))

    def importer(self) -> Importer:
        """What brings files in."""
        adapters = People(self.database), Suppressions(self.database), Bars(self.database), self.keyring
        return Importer(*adapters, random=secrets.token_bytes, clock=self.clock)

    def key(self, one: Person) -> bytes:
        """Return the hash of their address."""
        return self.keyring.address_key(one.address)

    def delivery(self, one: Person) -> int:
        """Return the id of their delivery."""
        return self.value(sa.select(deliveries.c.id).where(deliveries.c.address_key == self.key(one)))

    def value(self, query: Any) -> Any:
        """Ask the store for one thing."""
        with self.database.read() as connection:
            return connection.execute(query).scalar_one()

    def dump(self) -> list[tuple[str, tuple[object, ...]]]:
        """Return every row of every table."""
        tables = sa.MetaData()
        tables.reflect(self.database.engine)
        with self.database.read() as connection:
            return [
                (table.name, tuple(row))
                for table in tables.tables.values()
                for row in connection.execute(sa.select(table))
            ]

    def forget(self, one: Person) -> Any:
        """Forget them by their address."""
        return self.rights.forget(self.rights.find(one.address.spec), "cli")


@pytest.fixture
def office(database: Database, clock: Callable[[], float]) -> Office:
    """An office with Vera and Adam."""
    return Office(database, clock, VERA, ADAM)


def _row(one: Person) -> Row:
    return Row(1, one.address, one.fields, one.language, one.discreet, Consent("consent", "form", "", None))


def test_everything_is_found_by_address_and_by_every_mark(office: Office) -> None:
    """An address, a link, its token, a Message-ID and a return path all name the same person."""
    number, marks = office.delivery(VERA), office.keyring.marks()
    token = marks.mark(Purpose.OPT_OUT, number)
    for who in (
        "VERA@example.org",
        "Vera <vera@example.org>",
        token.upper(),
        f"https://act.example.org/u/{token}",
        f"<{marks.mark(Purpose.MESSAGE, number)}@example.org>",
        f"b-{marks.mark(Purpose.BOUNCE, number)}@bounces.example.org",
    ):
        found = office.rights.find(who)
        assert found.person == VERA
        (member,) = found.dossier.memberships
        assert (member.slug, member.basis, member.wording) == ("one", "consent", "Yes, write to me.")
        assert [(mail.campaign, mail.state) for mail in found.dossier.mails] == [("a-1", "queued")]


def test_a_test_mails_marks_are_nobodys_whatever_the_numbers_say(office: Office) -> None:
    """Delivery 0 is a test; a mark of another purpose holds a number too, and that is no delivery's."""
    marks, number = office.keyring.marks(), office.delivery(VERA)
    for token in (
        marks.mark(Purpose.OPT_OUT, 0),
        marks.mark(Purpose.NOTICE, number),
        marks.mark(Purpose.NOTICE_MAIL, number),
        marks.mark(Purpose.COPY, number),
    ):
        with pytest.raises(Refused):
            office.rights.find(token)
    # The first that names a delivery counts, wherever it stands.
    many = ((Purpose.OPT_OUT, 0), (Purpose.COPY, 1), (Purpose.BOUNCE, number))
    assert office.rights.find(" ".join(marks.mark(*one) for one in many)).person == VERA


def test_everything_else_that_is_held_is_in_the_dossier(office: Office) -> None:
    """What they asked for on our pages, what they wish, our rules, and by which list a mail came."""
    number = office.delivery(VERA)
    assert Notices(office.database).ask(number, "export", 7.0)
    with office.database.write() as connection:
        wish(connection, office.key(VERA), Wishes(paused_until=1e10), 8.0)
    Bars(office.database).add(Bar(0, "not-leith", Kind.FIELD, "town=Leith"), 9.0, Deed(9.0, "op", "add"))
    found = office.rights.find("vera@example.org")
    assert found.rules == ["not-leith"]
    assert found.dossier.provider == "other"
    assert found.dossier.asked == [Asked("export", "waiting", 7.0, None)]
    assert [(one.scope, one.ends_at) for one in found.dossier.suppressions] == [("pause", 1e10)]
    assert [(mail.slug, mail.attempts) for mail in found.dossier.mails] == [("one", 0)]


def test_who_is_known_by_another_tools_hash_only_is_found_and_forgotten(office: Office) -> None:
    """It says no for them, so it is something that we hold; erased, the "no" is under their own hash too."""
    who = parse("olga@example.net")
    store, bars = Suppressions(office.database), Bars(office.database)
    Recogniser(store, bars, office.keyring).expect(["sha1"])
    key = office.keyring.address_key(disguises.disguised("sha1", disguises.plain("sha1", who.spec)))
    store.add([Suppression(key, "all", "imported", "a.csv", 5.0)])
    subject = office.rights.find(who.spec)
    assert [(one.reason, one.source) for one in subject.dossier.suppressions] == [("imported", "a.csv")]
    assert office.rights.forget(subject, "cli").suppressed
    found = office.rights.find(who.spec).dossier.suppressions
    assert [(one.reason, one.address_key) for one in found] == [("erasure", office.keyring.address_key(who))]
    assert store.find(key)


def test_an_invitation_is_shown_too(office: Office) -> None:
    """Which list it was for, and when: that is kept so that nobody is asked twice."""
    list_id, who = (
        office.rule.lists[0],
        sa.select(people.c.id).where(people.c.address_key == office.key(VERA)),
    )
    deed = Deed(9.0, "op", "lists invite")
    assert Invitations(office.database).ask(list_id, [office.value(who)], 9.0, deed) == 1
    asked = office.rights.find("vera@example.org").dossier.asked
    assert ("invited to one", 9.0) in [(one.kind, one.asked_at) for one in asked]


def test_a_deed_is_written_with_what_it_did(office: Office) -> None:
    """Corrected or forgotten: in the same transaction, and by the keyed hash that the "no" keeps too."""
    log = Audit(office.database)
    subject = office.rights.find("vera@example.org")
    office.rights.correct(subject, Correction({"town": "Oban"}), Deed(1.0, "op", "people correct"))
    with pytest.raises(Refused):
        office.rights.correct(subject, Correction({"town": "Wick"}), Deed(2.0, "op", "people correct"))
    office.rights.forget(office.rights.find("vera@example.org"), "cli", Deed(3.0, "op", "people forget"))
    key = office.key(VERA).hex()
    assert [(one.at, dict(one.facts)) for one in log.entries()] == [
        (1.0, {"key": key}),
        (3.0, {"key": key, "mails": 1, "stopped": 1}),
    ]


@pytest.mark.parametrize(
    ("who", "error"), [("nobody@example.org", Refused), ("a" * 32, Refused), ("vera example.org", WrongUse)]
)
def test_who_is_not_held_is_not_found_and_not_repeated(
    office: Office, who: str, error: type[Exception]
) -> None:
    """A stranger, a forged mark and a slip are told apart only by their shape, and never quoted."""
    with pytest.raises(error) as raised:
        office.rights.find(who)
    assert who not in str(raised.value)


def test_a_correction_changes_what_it_names_and_the_shape_with_it(office: Office) -> None:
    """Fields are set and taken away, the rest stays; a second correction of an old reading is refused."""
    subject = office.rights.find("vera@example.org")
    wanted = Correction({"first_name": "Vera"}, frozenset({"town"}), language="", discreet=True)
    office.rights.correct(subject, wanted)
    person = office.rights.find("vera@example.org").person
    assert person == Person(VERA.address, {"first_name": "Vera"}, "", discreet=True)
    who = sa.select(people.c.id).where(people.c.address_key == office.key(VERA)).scalar_subquery()
    shape = office.value(sa.select(memberships.c.shape).where(memberships.c.person_id == who))
    assert shape == office.keyring.shape(person)
    with pytest.raises(Refused, match="changed meanwhile"):
        office.rights.correct(subject, wanted)


def test_the_forgotten_are_gone_and_all_still_adds_up(office: Office) -> None:
    """A dry run tells what goes; then it goes, the counts stay, and the second time nothing is left to do."""
    before, number = office.dump(), office.delivery(VERA)
    subject = office.rights.find("vera@example.org")
    would = office.rights.would_forget(subject)
    assert office.dump() == before
    done = office.rights.forget(subject, "cli")
    assert done == would
    assert (done.records, done.memberships, done.mails, done.stopped, done.suppressed) == (1, 1, 1, 1, True)
    again = office.forget(VERA)
    assert (again.records, again.memberships, again.mails, again.suppressed) == (0, 0, 0, False)
    tally = Tallies(office.database).tally(office.campaign.id)
    assert tally == {("queued", ""): 1, ("skipped", "forgotten"): 1}
    assert office.plans.get(office.campaign.id).audience == 2
    assert office.rights.find("adam@example.com").person == ADAM
    with pytest.raises(Refused):
        office.rights.find(office.keyring.marks().mark(Purpose.OPT_OUT, number))


def test_a_no_that_stands_keeps_its_date_and_source(office: Office) -> None:
    """When they said no, and how, is their proof; that they are forgotten makes it harder to lift."""
    opted_out = Suppression(office.key(VERA), "all", "opt-out", "one-click", 5.0)
    Suppressions(office.database).add([opted_out])
    assert not office.forget(VERA).suppressed
    assert Suppressions(office.database).find(office.key(VERA)) == [replace(opted_out, reason="erasure")]


def test_the_forgotten_stay_away_from_a_later_import(office: Office, tmp_path: Path) -> None:
    """Promise 2: an import after the erasure leaves them out and counts them (STANDARDS L8)."""
    office.forget(VERA)
    rejects = Rejects(tmp_path / "rejects.csv")
    told = office.importer().run([_row(VERA), _row(ADAM)], Target("two", "Two"), rejects, lambda _: None)
    assert (told.suppressed, told.new_people, told.new_members) == (1, 0, 1)


@pytest.mark.parametrize("known", [True, False])
def test_an_import_that_saw_them_before_brings_nobody_back(
    office: Office,
    *,
    known: bool,
    tmp_path: Path,
) -> None:
    """Forgotten between an import's look and its last step, they are not there afterwards."""
    one = VERA if known else Person(parse("olga@example.net"), {})

    def rows() -> Any:
        yield _row(one)
        yield from (_row(Person(parse(f"p{place}@example.net"), {})) for place in range(5_000))
        if not known:  # another import brings her meanwhile
            aside = office.importer()
            aside.run([_row(one)], Target("three", "Three"), Rejects(tmp_path / "r1.csv"), lambda _: None)
        office.forget(one)

    office.importer().run(rows(), Target("two", "Two"), Rejects(tmp_path / "r2.csv"), lambda _: None)
    gone = sa.select(sa.func.count()).select_from(people).where(people.c.address_key == office.key(one))
    assert office.value(gone) == 0
    assert office.value(sa.select(sa.func.count()).select_from(lists).where(lists.c.slug == "two")) == 1


def test_who_is_in_hand_is_called_back_and_the_batch_ends(office: Office) -> None:
    """A sender that holds them is told at its next look; what it settles is one row, and the batch ends."""
    ledger, number = Ledger(office.database), office.delivery(VERA)
    lease = ledger.lease(office.batch, "me", 2.0, 60.0)
    assert lease is not None
    taken = ledger.advance(lease, (), 10, 2.0, 60.0)
    assert len(taken.claimed) == 2
    assert office.forget(VERA).in_hand == 1
    assert ledger.recheck(lease, 3.0) == ("", {number})
    ends = [Outcome(one.id, State.SENT, code=250, text="ok") for one in taken.claimed if one.id != number]
    ledger.give_back(lease, [*ends, Outcome(number, State.SKIPPED, "suppressed", tried=False)], 4.0)
    assert Tallies(office.database).tally(office.campaign.id) == {
        ("sent", ""): 1,
        ("skipped", "suppressed"): 1,
    }
    assert office.plans.finish_whole(5.0) == ["a-1"]


def test_who_comes_back_into_the_queue_is_skipped_at_the_claim(office: Office) -> None:
    """An owner that gives back what it had in hand does not make the forgotten due again."""
    ledger = Ledger(office.database)
    lease = ledger.lease(office.batch, "me", 2.0, 60.0)
    assert lease is not None
    ledger.advance(lease, (), 10, 2.0, 60.0)
    office.forget(VERA)
    ledger.give_back(lease, (), 3.0)
    again = ledger.lease(office.batch, "you", 4.0, 60.0)
    assert again is not None
    assert len(ledger.advance(again, (), 10, 4.0, 60.0).claimed) == 1
    assert Tallies(office.database).tally(office.campaign.id)["skipped", "forgotten"] == 1


def test_many_at_once_forget_one_person_once(office: Office) -> None:
    """Two operators and a claim at the same moment: one erasure, one "no", nobody waits for ever."""
    subject = office.rights.find("vera@example.org")
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: office.rights.forget(subject, "cli"), range(4)))
    assert sorted(one.records for one in done) == [0, 0, 0, 1]
    assert sum(one.suppressed for one in done) == 1


_TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=6, max_size=30)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=_TEXT, ended=st.sampled_from([None, State.SENT, State.BOUNCED, State.DEFERRED]))
def test_a_dump_after_forgetting_leads_to_nobody(
    database_url: str, clock: Callable[[], float], name: str, ended: State | None
) -> None:
    """However their mail ended, no table holds address, fields or record; the key is in the "no" alone."""
    unique = secrets.token_hex(6)
    someone = Person(
        parse(f"x{unique}@example.net"), {"first_name": f"N{unique}{name}", "town": f"T{unique}"}
    )
    database = Database(database_url)
    database.upgrade()
    try:
        _forget_whole(Office(database, clock, someone), someone, ended)
    finally:
        with database.write() as connection:
            for table in (
                "facts",
                "deliveries",
                "leases",
                "batches",
                "campaigns",
                "suppressions",
                "memberships",
            ):
                connection.exec_driver_sql(f"DELETE FROM {table}")
        database.close()


def _forget_whole(office: Office, someone: Person, ended: State | None) -> None:
    ledger, number = Ledger(office.database), office.delivery(someone)
    if ended is not None:
        lease = ledger.lease(office.batch, "me", 2.0, 60.0)
        assert lease is not None
        ledger.advance(lease, (), 10, 2.0, 60.0)
        told = someone.fields["first_name"]
        ledger.give_back(lease, [Outcome(number, ended, "mailbox gone", 9e9, code=550, text=told)], 3.0)
    held = Dossiers(office.database).gather([office.key(someone)]).held
    assert held is not None
    office.forget(someone)
    key, known = office.key(someone), [someone.address.spec, *someone.fields.values()]
    for table, row in office.dump():
        for value in row:
            raw = bytes(value) if isinstance(value, bytes | memoryview) else str(value).encode()
            assert held.sealed not in raw, table
            assert key not in raw or table == "suppressions", table
            assert not any(text.encode() in raw for text in known), table
    assert office.value(sa.select(deliveries.c.address_key).where(deliveries.c.id == number)) == blank(number)
