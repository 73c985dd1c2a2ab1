"""What a reader chooses behind their link is kept, holds at the next mail, and can be seen there again."""

import secrets
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from worker.addresses import parse
from worker.feedback import OptOuts
from worker.forms import Wish
from worker.preferences import Choices, Preferences, Topic
from worker.rights import Correction, Rights
from worker.sealing import Keyring, Person
from worker.store.audience import Rule
from worker.store.audit import Audit
from worker.store.database import Database
from worker.store.people import People
from worker.store.plans import Draft, Plans
from worker.store.schema import deliveries, facts, memberships, people
from worker.store.staging import Staged
from worker.store.suppressions import EVERYTHING, UNDO_SECONDS, Suppressions, list_scope
from worker.tokens import Purpose

_DAY = 86_400.0


class Desk:
    """One reader with one mail, and all that stands behind the link in it."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self.database, self.clock = database, clock
        self.keyring = Keyring.generate(secrets.token_bytes)
        self.person = Person(parse("vera@example.org"), {"town": "Exampleton"}, language="ru")
        self.key = self.keyring.address_key(self.person.address)
        self._import()
        self.plans = Plans(database, batch_size=10)
        self.rule = Rule((People(database).find_lists(["one"])[0].id,))
        draft = Draft("a", "{}", self.rule, "d", "running", "op", "op", 0.0, "UTC", None)
        self.plans.slice(self.plans.record(draft, 1.0), 10, 1.0)
        with database.read() as connection:
            self.delivery = int(connection.execute(sa.select(deliveries.c.id)).scalar_one())
        self.token = self.keyring.marks().mark(Purpose.OPT_OUT, self.delivery)
        self.rights = Rights(database, self.keyring, random=secrets.token_bytes, clock=clock)
        names = {"sender": "Example Equality", "discreet_sender": "Letters"}
        self.opt_outs = OptOuts(database, self.keyring, **names, clock=clock)
        topics = [Topic("petitions", "Petitions"), Topic("health", "Health")]
        self.preferences = Preferences(
            database, self.opt_outs, self.rights, offers_discreet=True, topics=topics, clock=clock
        )

    def _import(self) -> None:
        store = People(self.database)
        opened = store.begin_import()
        sealed = self.keyring.seal(1, self.person.to_bytes(), secrets.token_bytes(12))
        consent = store.consent_ids([("consent", "form", "")])[0]
        shape = self.keyring.shape(self.person)
        opened.add([Staged(self.key, 1, sealed, "other", consent, 1.0, shape=shape)])
        opened.finish("one", "One", 1.0)

    def choose(self, **wanted: Any) -> Choices:
        """Choose, and return how things stand then."""
        choices = self.preferences.choose(self.token, Wish(**wanted))
        assert choices is not None
        assert replace(choices, asked=False) == self.preferences.choices(self.token)
        return choices

    @property
    def scopes(self) -> set[str]:
        """What stands against writing to them."""
        return {one.scope for one in Suppressions(self.database).find(self.key)}

    @property
    def reasons(self) -> set[str]:
        """What a plan says."""
        return {kind.reason for kind in self.plans.kinds(self.rule)}


@pytest.fixture
def desk(database: Database, clock: Callable[[], float]) -> Desk:
    """The desk, on each kind of database."""
    return Desk(database, clock)


def test_choices_are_kept_and_shown_again(desk: Desk, clock: Any) -> None:
    """Pause, fewer, language and form: each is kept, alone or together, and what is not asked stays."""
    first = desk.choose(pause_days=30, fewer=True)
    assert (first.paused_until, first.fewer, first.language, first.discreet) == (
        clock() + 30 * _DAY,
        True,
        "ru",
        False,
    )
    second = desk.choose(language="de", discreet=True)
    assert (second.paused_until, second.fewer) == (first.paused_until, True)
    assert (second.language, second.discreet, second.about.discreet, second.about.sender) == (
        "de",
        True,
        True,
        "Letters",
    )
    kept = desk.rights.find("vera@example.org").person
    assert kept == Person(desk.person.address, {"town": "Exampleton"}, "de", discreet=True)
    with desk.database.read() as connection:
        (shape,) = connection.execute(sa.select(memberships.c.shape)).scalars()
    assert shape == desk.keyring.shape(kept)
    assert desk.reasons == {"suppressed"}
    third = desk.choose(pause_days=0, fewer=False, discreet=False)
    # The form of the mail waits for their word from their mailbox (test_notices).
    assert (third.paused_until, third.fewer, third.asked, third.discreet) == (None, False, True, True)
    assert desk.reasons == {""}
    assert desk.scopes == set()


def test_a_topic_is_left_out_from_the_next_plan_on(desk: Desk) -> None:
    """Who does not want to hear about something is left out of appeals about it, and of no others."""
    about = replace(desk.rule, topics=("petitions",))
    choices = desk.choose(topics={"petitions": False, "health": True})
    assert [(one.slug, one.wanted) for one in choices.topics] == [("petitions", False), ("health", True)]
    assert desk.scopes == {"topic:petitions"}
    assert (desk.reasons, {kind.reason for kind in desk.plans.kinds(about)}) == ({""}, {"suppressed"})
    (entry,) = Suppressions(desk.database).find(desk.key)
    assert (entry.reason, entry.source) == ("opt-out", "page")
    assert desk.choose().topics == choices.topics  # a form without topics leaves them alone


def test_a_pause_ends_by_the_tick(desk: Desk, clock: Any) -> None:
    """After the last day the next mail goes out again."""
    desk.choose(pause_days=90)
    clock.forward(90 * _DAY)
    assert desk.preferences.end_due() == 1
    assert desk.reasons == {""}


def test_somebody_else_changes_the_record_at_the_same_moment(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A correction between reading and writing is not lost, nor is what the reader chose."""
    find, others = desk.rights.find, [{"town": "Elsewhere"}]

    def slow(who: str) -> Any:
        found = find(who)
        if others:
            desk.rights.correct(find(who), Correction(fields=others.pop()))
        return found

    monkeypatch.setattr(desk.rights, "find", slow)
    assert desk.choose(language="fr").language == "fr"
    person = find("vera@example.org").person
    assert person is not None
    assert (person.fields["town"], person.language) == ("Elsewhere", "fr")


def test_who_is_forgotten_has_a_page_without_a_record(desk: Desk) -> None:
    """After an erasure the link leads to nobody; it answers, and keeps nothing new of them."""
    desk.rights.forget(desk.rights.find(desk.token), "cli")
    choices = desk.preferences.choose(desk.token, Wish(pause_days=30, language="de"))
    assert choices is not None
    assert (choices.held, choices.about.discreet, choices.language) == (False, True, "")
    with desk.database.read() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(people)).scalar_one() == 0
    assert desk.scopes == {EVERYTHING}


@pytest.mark.parametrize("number", [None, 0])
def test_links_that_lead_to_nobody(desk: Desk, number: int | None) -> None:
    """A forged mark has no preferences; a test mail's has a page on which nothing changes."""
    token = "a" * 32 if number is None else desk.keyring.marks().mark(Purpose.OPT_OUT, number)
    assert (desk.preferences.choose(token, Wish(pause_days=30)) is None) == (number is None)
    assert (desk.opt_outs.stop(token) is None) == (number is None)
    assert desk.opt_outs.undo(token, "a" * 32) is (None if number is None else False)
    assert desk.scopes == set()


@pytest.mark.parametrize("this_list", [False, True])
def test_an_opt_out_is_taken_back_by_its_own_page_in_time(desk: Desk, clock: Any, this_list: bool) -> None:  # noqa: FBT001 - a parameter
    """All is as before, the opt-out's fact included, and it stands in the audit log; once."""
    desk.choose(pause_days=30)
    before = desk.scopes
    stopped = desk.opt_outs.stop(desk.token, this_list=this_list)
    assert stopped is not None
    assert desk.scopes - before == {list_scope(desk.rule.lists[0]) if this_list else EVERYTHING}
    assert desk.preferences.choices(desk.token).stopped  # type: ignore[union-attr]  # it is ours
    clock.forward(UNDO_SECONDS - 1)
    assert desk.opt_outs.undo(desk.token, stopped.voucher) is True
    assert desk.opt_outs.undo(desk.token, stopped.voucher) is False
    assert desk.scopes == before
    with desk.database.read() as connection:
        assert connection.execute(sa.select(facts.c.kind)).all() == []
    (entry,) = Audit(desk.database).entries()
    assert (entry.operator, entry.action) == ("(the person)", "suppress lift")


def test_a_voucher_is_good_for_one_link_one_scope_and_half_an_hour(desk: Desk, clock: Any) -> None:
    """Late, altered, or of another opt-out, it takes nothing back."""
    stopped = desk.opt_outs.stop(desk.token)
    assert stopped is not None
    bad = stopped.voucher[:-1] + ("a" if stopped.voucher[-1] != "a" else "b")
    marks = desk.keyring.marks()
    for voucher in (bad, "", "x" * 5000, marks.voucher(f"undo {desk.delivery} list:1", clock())):
        assert desk.opt_outs.undo(desk.token, voucher) is False
    clock.forward(UNDO_SECONDS)
    assert desk.opt_outs.undo(desk.token, stopped.voucher) is False
    assert desk.scopes == {EVERYTHING}


def test_what_a_mailbox_has_stopped_no_page_takes_back(desk: Desk) -> None:
    """After a one-click the page's button offers nothing to take back."""
    assert desk.opt_outs.opt_out(desk.token, "one-click")
    stopped = desk.opt_outs.stop(desk.token)
    assert stopped is not None
    assert stopped.voucher == ""


def test_the_button_twice_is_one_opt_out_that_can_be_taken_back(desk: Desk, clock: Any) -> None:
    """Who reloads the page after the button still finds the way back, for as long as at first."""
    first = desk.opt_outs.stop(desk.token)
    clock.forward(5)
    second = desk.opt_outs.stop(desk.token)
    assert first == second
    assert second is not None
    assert desk.opt_outs.undo(desk.token, second.voucher) is True
    assert desk.scopes == set()
