"""An opt-out is stored before it is confirmed, once, and only for our own mark."""

import secrets
from collections.abc import Callable

import pytest
import sqlalchemy as sa

from worker.addresses import parse
from worker.feedback import OptOuts
from worker.sealing import Keyring, Person
from worker.store.audience import Rule
from worker.store.database import Database
from worker.store.people import People
from worker.store.plans import Draft, Plans
from worker.store.schema import deliveries, facts
from worker.store.staging import Staged
from worker.store.suppressions import Suppressions
from worker.tokens import Purpose


@pytest.fixture
def keyring() -> Keyring:
    """Fresh keys."""
    return Keyring.generate(secrets.token_bytes)


@pytest.fixture
def person() -> Person:
    """Somebody discreet who reads Russian."""
    return Person(parse("vera@example.org"), {}, language="ru", discreet=True)


@pytest.fixture
def delivery(database: Database, keyring: Keyring, person: Person) -> int:
    """One delivery to that person."""
    people = People(database)
    opened = people.begin_import()
    key = keyring.address_key(person.address)
    sealed = keyring.seal(1, person.to_bytes(), secrets.token_bytes(12))
    opened.add([Staged(key, 1, sealed, "other", people.consent_ids([("consent", "form", "")])[0], 1.0)])
    opened.finish("one", "One", 1.0)
    plans = Plans(database, batch_size=10)
    rule = Rule((people.find_lists(["one"])[0].id,))
    campaign = plans.record(Draft("a", "{}", rule, "d", "running", "op", "op", 0.0, "UTC", None), 1.0)
    plans.slice(campaign, 10, 1.0)
    with database.read() as connection:
        return int(connection.execute(sa.select(deliveries.c.id)).scalar_one())


@pytest.fixture
def desk(database: Database, keyring: Keyring, clock: Callable[[], float]) -> OptOuts:
    """What the pages call."""
    return OptOuts(database, keyring, sender="Example Equality", discreet_sender="Letters", clock=clock)


def test_an_opt_out_suppresses_everywhere_and_twice_is_once(
    desk: OptOuts, delivery: int, keyring: Keyring, person: Person, database: Database
) -> None:
    """The second POST answers the same and adds nothing (STANDARDS U4)."""
    token = keyring.marks().mark(Purpose.OPT_OUT, delivery)
    assert desk.opt_out(token, "one-click")
    assert desk.opt_out(token.upper(), "page")
    (found,) = Suppressions(database).find(keyring.address_key(person.address))
    assert (found.scope, found.reason, found.source) == ("all", "opt-out", "one-click")
    with database.read() as connection:
        assert connection.execute(sa.select(facts.c.kind)).scalars().all() == ["opted out"]


def test_looking_at_the_page_changes_nothing(
    desk: OptOuts, delivery: int, keyring: Keyring, person: Person, database: Database
) -> None:
    """A scanner that follows the link opts nobody out; the page speaks the reader's form and language."""
    about = desk.describe(keyring.marks().mark(Purpose.OPT_OUT, delivery))
    assert about is not None
    assert (about.sender, about.language, about.discreet) == ("Letters", "ru", True)
    assert Suppressions(database).find(keyring.address_key(person.address)) == []


@pytest.mark.parametrize("purpose", [Purpose.BOUNCE, Purpose.MESSAGE])
def test_a_mark_of_another_purpose_opts_nobody_out(
    desk: OptOuts, delivery: int, keyring: Keyring, purpose: Purpose
) -> None:
    """A Message-ID quoted in public is no opt-out link."""
    token = keyring.marks().mark(purpose, delivery)
    assert not desk.opt_out(token, "page")
    assert desk.describe(token) is None


def test_a_mark_of_a_delivery_that_is_not_here_is_never_called_done(
    desk: OptOuts, delivery: int, keyring: Keyring
) -> None:
    """After a restored backup the honest answer is no."""
    token = keyring.marks().mark(Purpose.OPT_OUT, delivery + 1)
    assert not desk.opt_out(token, "page")
    assert desk.describe(token) is None


def test_a_test_mail_has_a_page_and_opts_nobody_out(
    desk: OptOuts, keyring: Keyring, database: Database
) -> None:
    """Delivery 0 belongs to no campaign."""
    token = keyring.marks().mark(Purpose.OPT_OUT, 0)
    about = desk.describe(token)
    assert about is not None
    assert about.test
    assert desk.opt_out(token, "page")
    assert list(Suppressions(database).all()) == []
