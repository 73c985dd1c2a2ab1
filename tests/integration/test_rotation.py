"""Keys change while everything runs: nobody is mailed twice, nobody who said no, and no "no" is lost."""

import random
import secrets
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from worker import disguises, imports
from worker.addresses import Address, parse
from worker.deeds import Deed
from worker.deliveries import State
from worker.errors import Unavailable, WrongUse
from worker.feedback import OptOuts
from worker.imports import Importer, Rejects, Result, Target
from worker.recognising import Recogniser
from worker.rights import Rights
from worker.rotation import Rotation, states
from worker.sealing import Keyring, NewKeyError, Person
from worker.store import keyrings
from worker.store.audience import Rule
from worker.store.audit import Audit
from worker.store.bars import Bars
from worker.store.database import Database
from worker.store.ledger import Ledger, Outcome
from worker.store.people import People
from worker.store.plans import Draft, Plans
from worker.store.records import Records, Step
from worker.store.schema import deliveries, memberships, people, suppressions
from worker.store.suppressions import EVERYTHING, Suppression, Suppressions
from worker.tables.lists import Consent, Row

EVERYONE = [parse(f"someone{number}@mail.example.org") for number in range(40)]
DEED = Deed(1.0, "tester", "keys rotate")


class Bureau:
    """A store, the secret file, and processes that have read it at different times."""

    def __init__(self, database: Database, folder: Path, clock: Callable[[], float]) -> None:
        """Make the first keys."""
        self.database, self.clock, self.folder = database, clock, folder
        self.file = Keyring.generate(secrets.token_bytes)  # what var/secret.toml holds
        self.plans, self.ledger = Plans(database, batch_size=5), Ledger(database)
        self.suppressions = Suppressions(database)

    def ring(self) -> Keyring:
        """What a process that starts now works with."""
        return keyrings.require(self.database, Keyring.load(self.file.dump(), again=lambda: self.file))

    def new_key(self) -> None:
        """As `keys new` does."""
        self.file = self.file.with_new(secrets.token_bytes)

    def rotation(self) -> Rotation:
        """As `keys rotate` makes it."""
        how = {"random": secrets.token_bytes, "clock": self.clock, "rest": lambda _seconds: None}
        return Rotation(Records(self.database), self.file.using_newest(), **how)

    def bring(
        self, who: Sequence[Address], ring: Keyring, between: Callable[[], None] = lambda: None
    ) -> Result:
        """Import people; `between` runs before each row and before the last transaction."""
        consent = Consent("consent", "form", "", None)

        def rows() -> Iterator[Row]:
            for address in who:
                between()
                yield Row(1, address, {"first_name": "Alex"}, "", discreet=False, consent=consent)

        def deed(_: Result) -> Deed:
            between()
            return DEED

        adapters = People(self.database), Suppressions(self.database), Bars(self.database), ring
        importer = Importer(*adapters, random=secrets.token_bytes, clock=self.clock)
        rejects = Rejects(self.folder / "rejects.csv")
        return importer.run(rows(), Target("one", "One"), rejects, lambda _rows: None, deed)

    def campaign(self) -> Any:
        """Record one to everybody."""
        rule = Rule((People(self.database).find_lists(["one"])[0].id,), require_consent=False)
        return self.plans.record(Draft("a", "{}", rule, "d", "running", "op", "op", 0.0, "UTC", None), 1.0)

    def held(self) -> dict[str, bytes]:
        """Everybody's address and the hash that they are held under."""
        with self.database.read() as connection:
            rows = connection.execute(sa.select(people.c.id, people.c.sealed, people.c.address_key)).all()
        ring = self.file
        found = [(Person.from_bytes(ring.open(row.id, row.sealed)).address.spec, row[2]) for row in rows]
        assert len(dict(found)) == len(found), "somebody is held twice"
        return dict(found)

    def claim(self, batch: int) -> list[int]:
        """Take what may be taken of a batch and call it sent; return whose it was."""
        lease = self.ledger.lease(batch, "me", self.clock(), self.clock() + 60)
        if lease is None:
            return []
        taken = self.ledger.advance(lease, [], 100, self.clock(), self.clock() + 60)
        sent = [Outcome(one.id, State.SENT, code=250) for one in taken.claimed]
        self.ledger.give_back(lease, sent, self.clock())
        return [one.person_id for one in taken.claimed]

    def all(self, column: "sa.ColumnElement[Any]") -> list[Any]:
        """Return a column."""
        with self.database.read() as connection:
            return list(connection.execute(sa.select(column)).scalars())


@pytest.fixture
def bureau(database: Database, tmp_path: Path, clock: Callable[[], float]) -> Bureau:
    """An empty one."""
    made = Bureau(database, tmp_path, clock)
    made.ring()
    return made


class _Play:
    """A random order of everything that may happen, and what must be true of it."""

    def __init__(self, bureau: Bureau, seed: int) -> None:
        self.bureau, self.dice = bureau, random.Random(seed)  # noqa: S311 - a play, no secret
        self.said_no: set[str] = set()
        self.forgotten: set[str] = set()
        self.sent: Counter[str] = Counter()
        self.begun = False
        self.after = 0
        bureau.bring(EVERYONE[:25], bureau.ring())
        self.stale = bureau.ring()  # of a process that has run since before the new key
        self.addresses = {address.spec: address for address in EVERYONE}
        bureau.new_key()
        self.campaign = bureau.campaign()
        self.batches: list[int] = []
        self.actions = (
            self.step,
            self.step,
            self.launch,
            self.send,
            self.opt_out,
            self.suppress,
            self.forget,
        )

    def any(self, steps: int) -> None:
        """Do some of it."""
        for _ in range(steps):
            self.dice.choice(self.actions)()

    def process(self) -> Keyring:
        return self.stale if self.dice.random() < 0.5 else self.bureau.ring()

    def step(self) -> None:
        rotation = self.bureau.rotation()
        if not self.begun:
            self.begun = rotation.begin(DEED)
        step: Step = Records(self.bureau.database).renew(
            rotation.to, rotation._renewed, self.after, self.dice.randint(1, 6)
        )
        self.after = step.last or 0

    def launch(self) -> None:
        self.batches += self.bureau.plans.slice(self.campaign, self.dice.randint(2, 8), 1.0)

    def send(self) -> None:
        with self.bureau.database.read() as connection:
            rows = connection.execute(sa.select(people.c.id, people.c.sealed)).all()
        whose = {row.id: Person.from_bytes(self.bureau.file.open(row.id, row.sealed)) for row in rows}
        if self.batches:
            for number in self.bureau.claim(self.dice.choice(self.batches)):
                address = whose[number].address.spec
                assert address not in self.said_no, "somebody who said no"
                self.sent[address] += 1

    def opt_out(self) -> None:
        ids = self.bureau.all(deliveries.c.id)
        if not ids:
            return
        number = self.dice.choice(ids)
        whose = sa.select(people.c.id, people.c.sealed).join(
            deliveries, deliveries.c.person_id == people.c.id
        )
        with self.bureau.database.read() as connection:
            row = connection.execute(whose.where(deliveries.c.id == number)).one_or_none()
        desk = OptOuts(
            self.bureau.database, self.stale, sender="", discreet_sender="", clock=self.bureau.clock
        )
        assert desk.said_no(number, "page")
        if row is not None:
            person = Person.from_bytes(self.bureau.file.open(row.id, row.sealed))
            self.said_no.add(person.address.spec)

    def suppress(self) -> None:
        who = self.dice.choice(EVERYONE)
        forms = self.process().address_keys(who)
        entry = Suppression(forms[0], EVERYTHING, "operator", "cli", 1.0, forms=forms)
        try:
            self.bureau.suppressions.add([entry])
        except WrongUse:  # an old copy of the ring: it is told so, and nothing is called done
            return
        self.said_no.add(who.spec)

    def forget(self) -> None:
        rights = Rights(
            self.bureau.database, self.bureau.ring(), random=secrets.token_bytes, clock=self.bureau.clock
        )
        held = sorted(self.bureau.held())
        if held and self.dice.random() < 0.3:
            who = self.dice.choice(held)
            rights.forget(rights.find(who), "cli")
            self.said_no.add(who)
            self.forgotten.add(who)


@pytest.mark.parametrize("seed", range(2))
def test_in_whatever_order_nobody_is_mailed_twice_and_no_no_is_lost(
    bureau: Bureau, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys change amid imports (by processes that know of it or not), launch, sending, opt-outs, erasures."""
    monkeypatch.setattr(imports, "CHUNK", 8)
    play = _Play(bureau, seed)
    play.any(6)
    for _ in range(2):
        who = play.dice.sample(EVERYONE, 20)
        before, there = set(play.said_no), set(bureau.held())
        bureau.bring(who, play.process(), between=lambda: play.any(play.dice.randint(0, 2)))
        assert not before & (set(bureau.held()) - there), "somebody who had said no came in"
    while not bureau.plans.get(play.campaign.id).launched_at:
        play.launch()
    bureau.rotation().begin(DEED)
    result = bureau.rotation().run(lambda _renewed: None, DEED)
    for batch in play.batches:
        play.batches = [batch]
        play.send()
    assert result.unreadable == 0
    assert max(play.sent.values(), default=0) <= 1, "somebody got it twice"
    held = bureau.held()
    assert not play.forgotten & set(held), "somebody forgotten came back"
    assert {key[0] for key in held.values()} <= {2}
    assert {record[0] for record in bureau.all(people.c.sealed)} <= {2}
    assert {key[0] for key in bureau.all(deliveries.c.address_key)} <= {0, 2}  # 0: erased
    for address in play.said_no & set(held):
        assert bureau.suppressions.find(held[address]), "a no is not where the claim looks"
    again = bureau.bring([play.addresses[one] for one in play.said_no], bureau.ring())
    assert again.suppressed == len(play.said_no)
    ends = Counter(bureau.all(deliveries.c.state))
    assert ends["sent"] == sum(play.sent.values())
    assert ends["sent"] + ends["skipped"] == ends.total(), "somebody was lost"
    assert ends["skipped"] <= len(play.said_no)


class _Beside:
    """What runs while keys change, each in a thread of its own."""

    def __init__(self, bureau: Bureau, who: Sequence[Address]) -> None:
        self.bureau, self.who = bureau, who
        self.campaign, self.stale = bureau.campaign(), bureau.ring()
        self.batches: list[int] = []
        self.sent: list[int] = []
        self.whole = threading.Event()

    def launch(self) -> None:
        while made := self.bureau.plans.slice(self.campaign, 20, 1.0):
            self.batches.extend(made)
        self.whole.set()

    def send(self) -> None:
        done = 0
        while not self.whole.is_set() or done < len(self.batches):
            if done < len(self.batches):
                self.sent.extend(self.bureau.claim(self.batches[done]))
                done += 1

    def opt_out(self) -> None:
        bureau = self.bureau
        desk = OptOuts(bureau.database, self.stale, sender="", discreet_sender="", clock=bureau.clock)
        self.whole.wait(30)
        for number in sorted(bureau.all(deliveries.c.id))[::7]:
            assert desk.said_no(number, "page")

    def add(self) -> None:
        for who in self.who[::11]:
            forms = self.bureau.ring().address_keys(who)
            entry = Suppression(forms[0], EVERYTHING, "operator", "cli", 1.0, forms=forms)
            self.bureau.suppressions.add([entry])

    def rotate(self) -> None:
        self.bureau.rotation().run(lambda _renewed: None)


def test_a_rotation_beside_senders_and_opt_outs_waits_for_nobody_and_loses_none(bureau: Bureau) -> None:
    """In threads of their own, on real servers: everybody ends under the new key, sent once or refused."""
    many = [parse(f"reader{number}@mail.example.org") for number in range(110)]
    bureau.bring(many, bureau.ring())
    beside = _Beside(bureau, many)
    bureau.new_key()
    bureau.rotation().begin(DEED)
    with ThreadPoolExecutor(5) as pool:
        all_of_it = (beside.launch, beside.send, beside.opt_out, beside.add, beside.rotate)
        for each in [pool.submit(one) for one in all_of_it]:
            each.result(60)
    assert len(set(beside.sent)) == len(beside.sent)
    held, refused = bureau.held(), set(bureau.all(suppressions.c.address_key))
    assert len(held) == len(many)
    assert {key[0] for key in (*held.values(), *refused)} == {2}
    assert {held[each.spec] for each in many[::11]} <= refused
    opted = sa.select(deliveries.c.address_key)
    opted = opted.where(deliveries.c.id.in_(sorted(bureau.all(deliveries.c.id))[::7]))
    with bureau.database.read() as connection:
        assert set(connection.execute(opted).scalars()) <= refused


def test_an_opt_out_that_has_looked_is_waited_for(postgres_url: str, tmp_path: Path) -> None:
    """Keys change between its look at the delivery and its "no": that delivery keeps its hash until then."""
    database = Database(postgres_url)
    database.upgrade()
    bureau = Bureau(database, tmp_path, lambda: 1.0)
    bureau.bring(EVERYONE[:3], bureau.ring())
    campaign = bureau.campaign()
    bureau.plans.slice(campaign, 9, 1.0)
    bureau.new_key()
    rotating, steps = bureau.rotation(), list[Step]()
    rotating.begin(DEED)

    def rotate_meanwhile() -> float:
        steps.append(Records(database).renew(rotating.to, rotating._renewed, 0, 9))
        return 1.0

    desk = OptOuts(database, bureau.ring(), sender="", discreet_sender="", clock=rotate_meanwhile)
    assert desk.said_no(min(bureau.all(deliveries.c.id)), "page")
    assert [(step.renewed, step.busy) for step in steps] == [(2, 1)]
    assert bureau.rotation().run(lambda _renewed: None).moved == 1
    assert set(bureau.all(suppressions.c.address_key)) <= set(bureau.held().values())
    database.close()


def test_a_stopped_rotation_goes_on_and_is_written_down_with_what_it_changed(bureau: Bureau) -> None:
    """Stopped between any two transactions; the audit log says when it began and when it was done."""
    bureau.bring(EVERYONE, bureau.ring())
    bureau.new_key()
    rotating = bureau.rotation()
    assert (rotating.has_begun(), rotating.left()) == (False, 40)
    assert rotating.begin(DEED.noting(step="begun"))
    Records(bureau.database).renew(rotating.to, rotating._renewed, 0, 15)
    again = bureau.rotation()  # another process, after a kill
    assert (again.has_begun(), again.begin(DEED), again.left()) == (True, False, 25)
    seen: list[int] = []
    assert again.run(seen.append, DEED.noting(step="done")).renewed == 25
    assert (again.left(), seen[-1]) == (0, 25)
    told = [entry.facts for entry in Audit(bureau.database).entries() if entry.action == "keys rotate"]
    assert [facts.get("step") for facts in told if "step" in facts] == ["begun", "done"]
    assert told[-1]["renewed"] == 25
    assert len(set(bureau.all(memberships.c.shape))) == 1


def test_a_no_of_somebody_nobody_holds_is_found_for_good_and_keeps_its_key(bureau: Bureau) -> None:
    """Such a hash cannot be made anew: `keys check` counts it, and an import leaves its owner out."""
    gone = parse("erased@example.com")
    bureau.suppressions.add([Suppression(bureau.ring().address_key(gone), EVERYTHING, "erasure", "cli", 1.0)])
    bureau.bring(EVERYONE[:3], bureau.ring())
    bureau.new_key()
    bureau.rotation().begin(DEED)
    bureau.rotation().run(lambda _renewed: None)
    ring = bureau.ring()
    use, records = keyrings.Use(2, 2), Records(bureau.database)
    found = {(one.purpose, one.id): one for one in states(ring, use, records.standing())}
    assert {key: one.free for key, one in found.items()} == {
        ("seal", 1): True,
        ("seal", 2): False,
        ("lookup", 1): False,
        ("lookup", 2): False,
        ("mark", 1): False,
    }
    assert (found["lookup", 1].records, found["lookup", 1].suppressions) == (0, 1)
    assert bureau.bring([gone], ring).suppressed == 1
    lone = Keyring.load(ring.dump().replace("1 = ", "9 = ").replace("current = 1", "current = 9"))
    told = [one.id for one in states(lone, use, records.standing()) if one.state == "missing"]
    assert told == [1]


def test_hashes_of_an_old_export_are_brought_to_those_they_stand_for(bureau: Bureau) -> None:
    """A list of "no"s written out before the keys changed holds for whoever is held under the new one."""
    ring = bureau.ring()
    bureau.bring(EVERYONE[:3], ring)
    old = ring.address_key(EVERYONE[0])
    bureau.new_key()
    bureau.rotation().begin(DEED)
    bureau.rotation().run(lambda _renewed: None)
    bureau.suppressions.add([Suppression(old, EVERYTHING, "opt-out", "export", 1.0)])
    assert bureau.rotation().run(lambda _renewed: None, everybody=True).moved == 1
    assert bureau.suppressions.find(bureau.held()[EVERYONE[0].spec])
    assert not bureau.suppressions.find(old)


def test_a_process_without_the_new_key_says_so_and_calls_nothing_done(bureau: Bureau) -> None:
    """It reads the file again first; while that is an old copy, it imports nobody and opens nothing."""
    old = Keyring.load(bureau.file.dump())
    stale = Keyring.load(bureau.file.dump(), again=lambda: old)
    bureau.bring(EVERYONE[:3], bureau.ring())
    bureau.new_key()
    bureau.rotation().begin(DEED)
    bureau.rotation().run(lambda _renewed: None)
    with pytest.raises(Unavailable, match="lacks key 2"):
        bureau.bring(EVERYONE[3:6], stale)
    with bureau.database.read() as connection:
        row = connection.execute(sa.select(people.c.id, people.c.sealed).limit(1)).one()
    with pytest.raises(NewKeyError, match="key 2, newer"):
        stale.open(row.id, row.sealed)
    with pytest.raises(WrongUse, match="lacks key 2"):
        keyrings.require(bureau.database, old)
    forms = stale.address_keys(EVERYONE[0])
    with pytest.raises(WrongUse, match="lacks key 2"):
        bureau.suppressions.add([Suppression(forms[0], EVERYTHING, "operator", "cli", 1.0, forms=forms)])
    knows = Keyring.load(old.dump(), again=lambda: bureau.file)
    assert Person.from_bytes(knows.open(row.id, row.sealed)).address in EVERYONE


def test_another_tools_hash_holds_through_a_rotation(bureau: Bureau) -> None:
    """Found in the middle of one, it is put under the hash that its person is still held under.

    Of somebody whom nobody holds it stays under its own key, which is not free then, and is still found.
    """
    held, unknown = EVERYONE[0], parse("nobody@example.net")
    bureau.bring(EVERYONE[:2], bureau.ring())
    batch = bureau.plans.slice(bureau.campaign(), 10, 1.0)[0]
    old = bureau.ring()
    keys = [
        old.address_key(disguises.disguised("md5", disguises.plain("md5", one.spec)))
        for one in (held, unknown)
    ]
    bureau.suppressions.add([Suppression(key, EVERYTHING, "imported", "a.csv", 1.0) for key in keys])
    bureau.new_key()
    bureau.rotation().begin(DEED)
    ring = bureau.ring()
    recogniser = Recogniser(bureau.suppressions, Bars(bureau.database), ring)
    recogniser.expect(["md5"])
    assert recogniser.everybody() == 1
    assert len(bureau.claim(batch)) == 1
    bureau.rotation().run(lambda _renewed: None, DEED)
    (one,) = bureau.suppressions.find(ring.address_key(held))
    assert one.reason == "imported"
    assert [one.address_key for one in bureau.suppressions.standing(recogniser.keys(unknown))] == [keys[1]]
    found = states(ring, keyrings.Use(2, 2), Records(bureau.database).standing())
    assert [(one.suppressions, one.free) for one in found if (one.purpose, one.id) == ("lookup", 1)] == [
        (2, False)
    ]
