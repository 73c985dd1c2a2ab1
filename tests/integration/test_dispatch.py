"""Dispatch on real parts: a real SMTP server, a real Redis, a real store of each kind."""

import logging
import secrets
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import redis
import sqlalchemy as sa
import structlog
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from worker import bars, broker, journal
from worker.addresses import parse
from worker.campaigns import Alarms, Campaigns
from worker.deeds import Action, Deed
from worker.deliveries import RetryPolicy, State
from worker.dispatch import Dispatcher, Pace
from worker.errors import Refused, WrongUse
from worker.journal import Journal
from worker.measures import FIRST_REST_SECONDS, REST_SECONDS
from worker.post.parcels import Parcel
from worker.post.relay import Endpoint, Relay
from worker.replica import Replica
from worker.routes import Route, Routes
from worker.sealing import Keyring, Person
from worker.store.audience import Rule
from worker.store.bars import Bars
from worker.store.database import Database
from worker.store.docket import Docket
from worker.store.ledger import Ledger, Outcome
from worker.store.people import People
from worker.store.plans import Campaign, Draft, Plans
from worker.store.schema import campaigns, deliveries, people
from worker.store.staging import Staged
from worker.store.suppressions import EVERYTHING, Suppression, Suppressions
from worker.store.tallies import Tallies
from worker.sweep import Sweep
from worker.throttle import Throttle


class Post:
    """A mail server that keeps what it takes, and answers RCPT and the final dot as it is told."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.at_rcpt: Callable[[str], str | None] = lambda _address: None
        self.at_dot: Callable[[str], str | None] = lambda _address: None

    async def handle_RCPT(  # noqa: N802 - the library's own name
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        """Answer one recipient."""
        answer = self.at_rcpt(address)
        if answer is None:
            envelope.rcpt_tos.append(address)
        return answer or "250 2.1.5 ok"

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802 - likewise
        """Answer one message."""
        answer = self.at_dot(envelope.rcpt_tos[0])
        if answer is None:
            self.taken += envelope.rcpt_tos
        return answer or "250 2.0.0 taken"


class Letters:
    """Makes small mails; refuses where it is told to."""

    def __init__(self) -> None:
        self.refuse_for: set[str] = set()

    def parcel(self, delivery_id: int, person: Person, now: float) -> Parcel | None:
        """Return a mail; None for people who want the discreet form."""
        if person.address.spec in self.refuse_for:
            raise Refused("the appeal cannot be made")
        if person.discreet:
            return None
        data = f"Subject: {now:.0f}\r\n\r\nhello\r\n".encode()
        return Parcel(delivery_id, f"b{delivery_id}@example.org", person.address.spec, data)


class Bells:
    """A doorbell that remembers what it rang."""

    def __init__(self) -> None:
        self.rung: list[int] = []
        self.launched: list[int] = []

    def launch(self, campaign_id: int) -> None:
        """Remember a launch."""
        self.launched.append(campaign_id)

    def ring(self, batch_ids: "list[int]") -> None:
        """Remember batches."""
        self.rung += batch_ids

    def waiting(self) -> int:
        """Nobody ever hears us."""
        return 0


@pytest.fixture(scope="module")
def redis_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator["redis.Redis"]:
    """A private Redis."""
    with broker.running(tmp_path_factory.mktemp("state")) as private:
        client = redis.Redis(unix_socket_path=str(private.socket))
        yield client
        client.close()


@pytest.fixture
def post() -> Iterator[tuple[Post, int]]:
    """The mail server and its port."""
    handler = Post()
    with socket.create_server(("127.0.0.1", 0)) as free:  # the library cannot be asked for any port
        port = free.getsockname()[1]
    controller = Controller(handler, hostname="127.0.0.1", port=port)
    controller.start()
    yield handler, port
    controller.stop()


#: Where nothing listens.
NOWHERE = Relay(Endpoint("127.0.0.1", 1, "plain"))


class Office:
    """Everything around one dispatcher."""

    def __init__(
        self, database: Database, client: "redis.Redis", port: int, folder: Path, clock: object
    ) -> None:
        self.database = database
        self.clock = clock
        self.keyring = Keyring.generate(secrets.token_bytes)
        self.ledger = Ledger(database)
        self.plans = Plans(database, batch_size=100)
        self.bells = Bells()
        self.letters = Letters()
        self.stopping = False
        self.folder = folder
        self.port = port
        self.relays = {"main": Relay(Endpoint("127.0.0.1", port, "plain", connections=2))}
        self.made: list[Relay] = []
        self.client = client
        client.flushdb()
        self.throttle = Throttle(client, {"main": 0.0}, {})
        self.dispatcher = self.process("first")
        self.campaigns = Campaigns(
            self.plans, Docket(database), Tallies(database), self.bells, clock=clock, two_people=False
        )
        self.sweep = Sweep(self.plans, self.ledger, self.campaigns, self.bells, folder, clock)

    def process(self, name: str) -> Dispatcher:
        """Make the dispatcher of one more process."""
        return Dispatcher(
            ledger=self.ledger,
            journal=Journal(self.folder, journal.owner_name(name)),
            keyring=self.keyring,
            routes=self.routes({name: Route(relay) for name, relay in self.relays.items()}),
            throttle=self.throttle,
            printers=self.printer,
            alarms=Alarms(self.plans),
            pace=Pace(chunk=4, retry=RetryPolicy(attempts=3)),
            clock=self.clock,
            dice=lambda: 0.5,
            stopping=lambda: self.stopping,
            others_wait=lambda: False,
        )

    def use(self, **relays: Relay | tuple[Relay, float]) -> None:
        """Send by these relays from now on; beside a relay its weight, where it is not 1."""
        routes = {name: one if isinstance(one, tuple) else (one, 1.0) for name, one in relays.items()}
        self.made += self.relays.values()
        self.relays = {name: relay for name, (relay, _) in routes.items()}
        self.throttle = Throttle(self.client, dict.fromkeys(relays, 0.0), {})
        self.dispatcher.throttle = self.throttle
        self.dispatcher.routes = self.routes({name: Route(*one) for name, one in routes.items()})

    def printer(self, campaign_id: int, content: str) -> Letters:
        """Give what makes the mails, if the content is still there."""
        assert self.plans.edition(campaign_id, content)
        return self.letters

    def routes(self, routes: dict[str, Route]) -> Routes:
        """Make the choice of relays."""
        return Routes(routes, self.throttle, lambda: 0.5)

    def wait(self, seconds: float) -> None:
        """Let time pass, for Redis too, by whose own clock relays and providers rest and go on."""
        self.clock.forward(seconds)
        for key in self.client.keys("tocsin:pace:*"):
            for name in ("rest", "at", "since"):
                moment = self.client.hget(key, name)
                if moment is not None:
                    self.client.hset(key, name, float(moment) - seconds)

    def launch(self, count: int, **options: object) -> tuple[Campaign, int]:
        """Put people on a list and launch a campaign to them in one batch."""
        people = People(self.database)
        opened = people.begin_import()
        consent = people.consent_ids([("consent", "form", "")])[0]
        staged = []
        for number in range(1, count + 1):
            person = Person(
                parse(f"p{number}@example.org"), {}, discreet=number in options.get("discreet", ())
            )
            sealed = self.keyring.seal(number, person.to_bytes(), secrets.token_bytes(12))
            provider = options.get("providers", {}).get(number, "other")
            key = self.keyring.address_key(person.address)
            staged.append(Staged(key, number, sealed, provider, consent, 1.0))
        opened.add(staged)
        opened.finish("one", "One", 1.0)
        rule = Rule((people.find_lists(["one"])[0].id,))
        draft = Draft("a", "{}", rule, "d", "running", "op", "op", 0.0, "UTC", options.get("not_after"))
        campaign = self.plans.record(draft, 1.0)
        batches = []
        while made := self.plans.slice(campaign, 100, self.clock()):
            batches += made
        return self.plans.get(campaign.id), batches[0]

    def states(self) -> dict[int, tuple[str, str]]:
        """State and reason by person."""
        query = sa.select(deliveries.c.person_id, deliveries.c.state, deliveries.c.reason)
        with self.database.read() as connection:
            return {row.person_id: (row.state, row.reason) for row in connection.execute(query)}


@pytest.fixture
def office(
    database: Database, redis_client: "redis.Redis", post: tuple[Post, int], tmp_path: Path, clock: object
) -> Iterator[Office]:
    """A dispatcher with all it needs."""
    made = Office(database, redis_client, post[1], tmp_path / "journal", clock)
    yield made
    for relay in (*made.made, *made.relays.values()):
        relay.close()


def everyone(count: int) -> list[str]:
    """The addresses of the first people."""
    return sorted(f"p{number}@example.org" for number in range(1, count + 1))


def test_each_recipient_gets_one_mail_and_one_settled_row(office: Office, post: tuple[Post, int]) -> None:
    """A batch goes out whole, once, and the sum is right."""
    campaign, batch = office.launch(23)
    summary = office.dispatcher.send(batch)
    assert summary is not None
    assert (summary.sent, summary.halt) == (23, "empty")
    assert sorted(post[0].taken) == everyone(23)
    assert office.dispatcher.send(batch) is None  # the doubled task
    assert office.plans.finish_whole(office.clock()) == [campaign.name]
    assert office.campaigns.verify(campaign.name).holds


def test_each_refusal_concerns_its_own_recipient(office: Office, post: tuple[Post, int]) -> None:
    """A 5xx bounces one, a 4xx defers one, at RCPT or after the dot; the rest are sent."""
    post[0].at_rcpt = {
        "p1@example.org": "550 5.1.1 no such user",
        "p2@example.org": "450 4.2.0 later",
    }.get
    post[0].at_dot = {"p3@example.org": "554 5.6.0 no", "p4@example.org": "452 4.3.1 full"}.get
    _, batch = office.launch(8)
    office.dispatcher.send(batch)
    found = {number: state for number, (state, _) in office.states().items()}
    assert found == {1: "bounced", 2: "deferred", 3: "bounced", 4: "deferred"} | dict.fromkeys(
        range(5, 9), "sent"
    )


def test_a_deferred_mail_goes_again_when_its_time_has_come(office: Office, post: tuple[Post, int]) -> None:
    """Not before, once, and only that recipient."""
    post[0].at_rcpt = lambda address: "450 4.2.0 later" if address.startswith("p1@") else None
    _, batch = office.launch(2)
    office.dispatcher.send(batch)
    post[0].at_rcpt = lambda _address: None
    assert office.dispatcher.send(batch) is None
    office.clock.forward(1300)
    office.dispatcher.send(batch)
    assert sorted(post[0].taken) == everyone(2)


def test_a_recipient_who_is_deferred_for_ever_expires(office: Office, post: tuple[Post, int]) -> None:
    """Attempts end, and it is called expired, not bounced."""
    post[0].at_rcpt = lambda _address: "450 4.2.0 later"
    _, batch = office.launch(1)
    for _ in range(3):
        office.dispatcher.send(batch)
        office.clock.forward(20_000)
    assert office.states()[1][0] == "expired"


def test_our_own_fault_pauses_the_campaign_and_changes_nobody(office: Office, post: tuple[Post, int]) -> None:
    """A refusal for our set-up (STANDARDS P8) stops the campaign; everyone stays queued."""
    post[0].at_dot = lambda _address: "550 5.7.26 unauthenticated sender"
    campaign, batch = office.launch(9)
    office.dispatcher.send(batch)
    paused = office.plans.get(campaign.id)
    assert paused.state == "paused"
    assert "5.7.26" in paused.notice
    assert {state for state, _ in office.states().values()} == {"queued"}
    post[0].at_dot = lambda _address: None
    office.campaigns.resume(campaign.name, "alice")
    office.clock.forward(4000)
    office.dispatcher.send(batch)
    assert sorted(post[0].taken) == everyone(9)


def test_one_servers_word_stops_nobody_else(office: Office, post: tuple[Post, int]) -> None:
    """A refusal that blames us, among others that are taken, makes that one mail wait and no more."""
    post[0].at_dot = {"p4@example.org": "550 5.7.26 unauthenticated sender"}.get
    campaign, batch = office.launch(9)
    office.dispatcher.send(batch)
    assert sorted(post[0].taken) == sorted(set(everyone(9)) - {"p4@example.org"})
    assert office.states()[4] == ("queued", "unauthenticated")
    assert office.plans.get(campaign.id).state == "running"
    assert "5.7.26" in office.plans.get(campaign.id).notice
    assert office.dispatcher.send(batch) is None  # it waits as long as that fault asks
    post[0].at_dot = lambda _address: None
    office.clock.forward(4000)
    office.dispatcher.send(batch)
    assert "p4@example.org" in post[0].taken
    assert office.plans.get(campaign.id).notice == ""


def test_no_log_line_names_a_recipient_at_any_level(
    office: Office, post: tuple[Post, int], caplog: pytest.LogCaptureFixture
) -> None:
    """Sent, refused, deferred, paused: whatever is logged at DEBUG and above carries ids only."""
    post[0].at_rcpt = {"p2@example.org": "550 5.1.1 <p2@example.org> unknown, p2"}.get
    post[0].at_dot = {"p3@example.org": "450 4.2.2 mailbox of p3@example.org is full"}.get
    _, batch = office.launch(6)
    with caplog.at_level(logging.DEBUG), structlog.testing.capture_logs() as events:
        office.dispatcher.send(batch)
        office.sweep.run()
    assert events
    # "mail.log" is the other side of the wire: the test's own mail server.
    ours = [record.getMessage() for record in caplog.records if record.name != "mail.log"]
    assert not [line for line in [*ours, *map(str, events)] if "example.org" in line]
    with office.database.read() as connection:
        kept = connection.execute(sa.select(deliveries.c.reply_text)).scalars().all()
    assert not [text for text in kept if text and ("@" in text or "p2" in text or "p3" in text)]


def test_an_unreachable_relay_loses_nobody(office: Office) -> None:
    """Everyone stays queued, the batch rests, and status says why."""
    office.use(main=NOWHERE)
    campaign, batch = office.launch(5)
    office.dispatcher.send(batch)
    assert {state for state, _ in office.states().values()} == {"queued"}
    assert "relay" in office.plans.get(campaign.id).notice
    assert office.plans.get(campaign.id).state == "running"
    assert office.dispatcher.send(batch) is None  # it rests
    assert office.ledger.held() == []


def test_a_relay_that_broke_once_rests_for_a_moment_only(office: Office, post: tuple[Post, int]) -> None:
    """All its links cut at once, as by a restart, cost two seconds; half a minute only if it stays away."""
    here = office.relays["main"]
    office.use(main=NOWHERE)
    _, batch = office.launch(5)
    for rest in (FIRST_REST_SECONDS, REST_SECONDS, REST_SECONDS):
        assert office.dispatcher.send(batch) is not None
        office.wait(rest - 0.5)
        assert office.dispatcher.send(batch) is None
        office.wait(1.0)
    office.use(main=here)
    office.dispatcher.send(batch)
    assert sorted(post[0].taken) == everyone(5)


def test_a_success_clears_the_notice(office: Office, post: tuple[Post, int]) -> None:
    """When it goes again, status no longer says that it does not."""
    campaign, batch = office.launch(1)
    office.plans.note(campaign.id, "the relay is away")
    office.dispatcher.send(batch)
    assert office.plans.get(campaign.id).notice == ""
    assert post[0].taken == ["p1@example.org"]


def test_a_record_under_a_key_that_this_machine_lacks_waits_for_the_key(
    office: Office, post: tuple[Post, int]
) -> None:
    """Nobody ends by it: the notice says what to copy, and once it is there all goes on without a restart."""
    campaign, batch = office.launch(3)
    newer = office.keyring.with_new(secrets.token_bytes).using_newest()
    person = Person(parse("p2@example.org"), {})
    record = newer.seal(2, person.to_bytes(), secrets.token_bytes(12))
    with office.database.write() as connection:
        connection.execute(sa.update(people).where(people.c.id == 2).values(sealed=record))
    summary = office.dispatcher.send(batch)
    assert summary is not None
    assert summary.halt == "unavailable"
    assert office.states()[2] == office.states()[3] == ("queued", "")
    assert "Copy var/secret.toml" in office.plans.get(campaign.id).notice
    files = [newer]
    office.dispatcher.keyring = replace(office.keyring, again=lambda: files[-1])
    office.wait(60)
    assert office.dispatcher.send(batch) is not None
    assert {state for state, _ in office.states().values()} == {"sent"}
    assert sorted(post[0].taken) == [f"p{number}@example.org" for number in (1, 2, 3)]
    assert office.plans.get(campaign.id).notice == ""


def test_a_mail_that_cannot_be_made_pauses_the_campaign(office: Office, post: tuple[Post, int]) -> None:
    """It is our fault: nobody is skipped for it, those before it are settled, and status says what it is."""
    office.letters.refuse_for.add("p6@example.org")
    campaign, batch = office.launch(8)
    office.dispatcher.send(batch)
    assert office.plans.get(campaign.id).state == "paused"
    assert "cannot be made" in office.plans.get(campaign.id).notice
    assert sorted(post[0].taken) == everyone(5)
    assert [office.states()[number][0] for number in (6, 7, 8)] == ["queued"] * 3


def test_an_edition_that_cannot_be_read_any_more_pauses_the_campaign(
    office: Office, post: tuple[Post, int]
) -> None:
    """After an upgrade, say: the operator is told, nobody is lost, and no lease goes round and round."""

    def unreadable(_campaign: int, _content: str) -> Letters:
        raise WrongUse("the appeal has an error")

    office.dispatcher.printers = unreadable
    campaign, batch = office.launch(3)
    office.dispatcher.send(batch)
    assert office.plans.get(campaign.id).state == "paused"
    assert "the appeal has an error" in office.plans.get(campaign.id).notice
    assert {state for state, _ in office.states().values()} == {"queued"}
    assert office.ledger.held() == []
    assert post[0].taken == []


def test_content_that_is_not_what_was_approved_is_sent_to_nobody(
    office: Office, post: tuple[Post, int]
) -> None:
    """Each claim names the content it is for; an edition changed in the store pauses the campaign."""
    campaign, batch = office.launch(3)
    with office.database.write() as connection:
        connection.execute(sa.update(campaigns).values(edition='{"other": 1}'))
    office.dispatcher.send(batch)
    assert office.plans.get(campaign.id).state == "paused"
    assert "not what was approved" in office.plans.get(campaign.id).notice
    assert post[0].taken == []


def test_who_may_only_get_a_form_that_there_is_not_is_skipped(office: Office) -> None:
    """Discreet people are never sent the open form."""
    _, batch = office.launch(3, discreet={2})
    office.dispatcher.send(batch)
    assert office.states()[2] == ("skipped", "no discreet form")


def test_an_opt_out_in_mid_batch_is_honoured(office: Office, post: tuple[Post, int]) -> None:
    """Whoever says no while the batch is under way gets nothing, even from the chunk in hand."""
    last = "p4@example.org"

    def say_no(address: str) -> None:
        if address.startswith("p1@"):
            key = office.keyring.address_key(parse(last))
            Suppressions(office.database).add([Suppression(key, EVERYTHING, "opt-out", "page", 1.0)])
            office.clock.forward(1.0)

    post[0].at_rcpt = say_no
    office.use(main=Relay(Endpoint("127.0.0.1", office.port, "plain", connections=1)))
    _, batch = office.launch(4)
    office.dispatcher.send(batch)
    assert last not in post[0].taken
    assert office.states()[4] == ("skipped", "suppressed")


def test_a_never_mail_rule_holds_from_the_next_claim(office: Office, post: tuple[Post, int]) -> None:
    """Also before anybody has been counted for it; the reason is the rule's name."""

    def forbid(address: str) -> None:
        if address.startswith("p1@"):
            bar = bars.drafted("no-org", bars.Kind.DOMAIN, "example.org")
            Bars(office.database).add(bar, 1.0, Deed(1.0, "op", Action.RULES_ADD))

    post[0].at_rcpt = forbid
    _, batch = office.launch(12)
    office.dispatcher.send(batch)
    states = office.states()
    assert [states[number] for number in (11, 12)] == [("skipped", "rule no-org")] * 2
    assert "p12@example.org" not in post[0].taken


@pytest.mark.parametrize("how", ["pause", "cancel", "stop"])
def test_a_stop_in_mid_batch_is_prompt_and_exact(office: Office, post: tuple[Post, int], how: str) -> None:
    """After a pause, a cancel or SIGTERM nothing new begins; what was taken is settled, the rest waits."""
    campaign, batch = office.launch(40)

    def stop(address: str) -> None:
        if address.startswith("p3@"):
            if how == "stop":
                office.stopping = True
            else:
                getattr(office.campaigns, how)(campaign.name, "alice")
            office.clock.forward(1.0)

    post[0].at_dot = stop
    office.dispatcher.send(batch)
    assert len(post[0].taken) < 10
    found = [state for state, _ in office.states().values()]
    assert found.count("sent") == len(post[0].taken)
    assert found.count("skipped" if how == "cancel" else "queued") == 40 - len(post[0].taken)
    assert office.ledger.held() == []


def test_a_killed_process_is_settled_by_its_journal(office: Office, post: tuple[Post, int]) -> None:
    """Sent ones stay sent, never-begun ones go again, one in the air is unconfirmed; nobody gets two."""
    _, batch = office.launch(12)
    dispatcher = office.process("doomed")
    lease = office.ledger.lease(batch, dispatcher.journal.owner, office.clock(), office.clock() + 60)
    assert lease is not None
    taken = office.ledger.advance(lease, [], 12, office.clock(), office.clock() + 60).claimed
    sent, begun = taken[:5], taken[5]
    for one in sent:
        dispatcher.journal.begin(one.id)
        dispatcher.journal.settle(Outcome(one.id, State.SENT, "accepted", code=250, text="ok"))
    dispatcher.journal.begin(begun.id)
    office.sweep.run()
    assert len(office.ledger.held()) == 1  # it lives: its lock is held, its lease stands
    dispatcher.journal.succeed()  # what the kernel does at its death: the lock is gone
    office.sweep.run()
    found = [state for state, _ in sorted(office.states().values())]
    assert (found.count("sent"), found.count("unconfirmed"), found.count("queued")) == (5, 1, 6)
    office.dispatcher.send(batch)
    assert len(post[0].taken) == 6
    assert [state for state, _ in office.states().values()].count("sent") == 11


def test_a_process_killed_on_another_machine_is_settled_there(office: Office, tmp_path: Path) -> None:
    """The tick cannot read its journal and waits; its successor on that machine settles the hand exactly."""
    _, batch = office.launch(12)
    dispatcher = office.process("doomed")
    lease = office.ledger.lease(batch, dispatcher.journal.owner, office.clock(), office.clock() + 60)
    assert lease is not None
    taken = office.ledger.advance(lease, [], 12, office.clock(), office.clock() + 60).claimed
    dispatcher.journal.begin(taken[0].id)
    dispatcher.journal.succeed()  # leaves the file unlocked, as a death does
    elsewhere = Sweep(
        office.plans,
        office.ledger,
        office.campaigns,
        office.bells,
        tmp_path / "elsewhere",
        office.clock,
    )
    elsewhere.run()
    elsewhere.recover()
    assert {state for state, _ in office.states().values()} == {"sending"}
    office.sweep.recover()
    assert sorted(state for state, _ in office.states().values()) == ["queued"] * 11 + ["unconfirmed"]
    assert office.ledger.held() == []


def test_an_unexpected_failure_is_left_to_the_journal(
    office: Office, post: tuple[Post, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database lost at the worst moment costs nothing: the sweep settles exactly what was sent."""
    _, batch = office.launch(9)

    def away(*_args: object, **_options: object) -> None:
        raise Refused("the database is away")

    monkeypatch.setattr(office.ledger, "give_back", away)
    with pytest.raises(Refused):
        office.dispatcher.send(batch)
    monkeypatch.undo()
    assert len(post[0].taken) == 9
    office.sweep.run()
    assert {state for state, _ in office.states().values()} == {"sent"}
    assert office.ledger.held() == []


def test_a_rate_reply_slows_that_provider_and_nobody_else(office: Office, post: tuple[Post, int]) -> None:
    """Too fast for one is a wait shared by all workers; nobody's attempt is used up; the others go on."""
    post[0].at_dot = {"p1@example.org": "421 4.7.28 unusual rate of mail"}.get
    _, batch = office.launch(9, providers=dict.fromkeys((1, 2, 3, 4), "google"))
    office.dispatcher.pace = Pace(chunk=1)
    office.use(main=Relay(Endpoint("127.0.0.1", office.port, "plain", connections=1)))
    office.dispatcher.send(batch)
    others = [f"p{number}@example.org" for number in range(5, 10)]
    assert set(others) <= set(post[0].taken)
    assert "p4@example.org" not in post[0].taken  # not begun when the reply came
    found = office.states()
    assert found[1] == ("queued", "rate-limit")
    assert found[4] == ("queued", "pace")
    (strain,) = Throttle(office.client, {"main": 0.0}, {"google": 0.0, "other": 0.0}).strains()
    assert (strain.kind, strain.name) == ("provider", "google")
    assert "4.7.28" in strain.why
    assert strain.rest > 60
    post[0].at_dot = lambda _address: None
    for _ in range(20):  # at its half pace it takes a few turns
        office.wait(1200)
        office.dispatcher.send(batch)
    assert sorted(post[0].taken) == everyone(9)


def test_rate_replies_for_several_providers_are_the_relays(office: Office, post: tuple[Post, int]) -> None:
    """Then the relay catches its breath, and the providers are not blamed."""
    post[0].at_dot = lambda _address: "421 4.7.0 too many messages, slow down"
    _, batch = office.launch(4, providers={1: "google", 2: "yahoo", 3: "google", 4: "yahoo"})
    office.dispatcher.send(batch)
    assert {state for state, _ in office.states().values()} == {"queued"}
    assert list(office.throttle.resting()) == ["main"]
    throttle = Throttle(office.client, {"main": 0.0}, {"google": 0.0, "yahoo": 0.0})
    assert [one.name for one in throttle.strains()] == ["main"]


def test_a_provider_that_blocks_us_rests_and_the_campaign_goes_on(
    office: Office, post: tuple[Post, int]
) -> None:
    """Its people wait, unchanged; everybody else gets the mail."""
    post[0].at_dot = {f"p{n}@example.org": "550 5.7.1 (S3140) blocked" for n in (1, 2, 3)}.get
    campaign, batch = office.launch(6, providers=dict.fromkeys((1, 2, 3), "microsoft"))
    office.dispatcher.send(batch)
    assert sorted(post[0].taken) == ["p4@example.org", "p5@example.org", "p6@example.org"]
    assert {office.states()[number][0] for number in (1, 2, 3)} == {"queued"}
    assert office.plans.get(campaign.id).state == "running"


def test_a_small_servers_word_about_blocking_rests_nobody_else(
    office: Office, post: tuple[Post, int]
) -> None:
    """Whoever is no large provider speaks for one mail."""
    post[0].at_dot = {"p1@example.org": "550 5.7.1 (S3140) blocked"}.get
    _, batch = office.launch(5)
    office.dispatcher.send(batch)
    assert len(post[0].taken) == 4
    assert Throttle(office.client, {"main": 0.0}, {"other": 0.0}).strains() == []


def test_a_long_row_of_refusals_pauses_and_undoes_what_may_be_our_fault(
    office: Office, post: tuple[Post, int]
) -> None:
    """Fifty policy refusals and not one success: a person should look, and nobody is marked for it."""
    post[0].at_dot = lambda _address: "550 5.7.1 message rejected by policy"
    campaign, batch = office.launch(60)
    office.dispatcher.send(batch)
    paused = office.plans.get(campaign.id)
    assert paused.state == "paused"
    assert "refused" in paused.notice
    assert {state for state, _ in office.states().values()} == {"queued"}
    post[0].at_dot = lambda _address: None
    office.campaigns.resume(campaign.name, "alice")
    office.dispatcher.send(batch)
    assert sorted(post[0].taken) == everyone(60)


def test_a_row_of_refusals_that_a_success_ends_is_the_recipients(
    office: Office, post: tuple[Post, int]
) -> None:
    """What the relay refused stands when it shows that it works."""
    refused = {f"p{number}@example.org": "550 5.7.1 policy" for number in range(1, 30)}
    post[0].at_dot = refused.get
    _, batch = office.launch(31)
    office.dispatcher.send(batch)
    found = [state for state, _ in office.states().values()]
    assert (found.count("bounced"), found.count("sent")) == (29, 2)


def test_a_second_relay_takes_over_at_once(office: Office, post: tuple[Post, int]) -> None:
    """One relay is away: its batch goes by the other without a wait, and status says so."""
    office.use(main=NOWHERE, backup=(office.relays["main"], 0.0))
    campaign, batch = office.launch(5)
    office.dispatcher.send(batch)
    assert post[0].taken == []
    assert "the others carry on" in office.plans.get(campaign.id).notice
    assert list(office.throttle.resting()) == ["main"]
    office.dispatcher.send(batch)
    assert sorted(post[0].taken) == everyone(5)


def test_a_relay_that_locks_us_out_is_set_aside_while_another_carries_on(
    office: Office, post: tuple[Post, int]
) -> None:
    """A refused login pauses the campaign only when there is no other way."""
    password = Endpoint("127.0.0.1", office.port, "plain", username="u", password="p")
    here = office.relays["main"]
    office.use(main=Relay(password), backup=(here, 0.0))
    campaign, batch = office.launch(5)
    office.dispatcher.send(batch)
    assert office.plans.get(campaign.id).state == "running"
    office.dispatcher.send(batch)
    assert sorted(post[0].taken) == everyone(5)
    office.use(main=Relay(password))
    office.client.flushdb()
    other, batch = office.launch(5)
    office.dispatcher.send(batch)
    assert office.plans.get(other.id).state == "paused"


def test_all_processes_together_keep_to_the_relays_connections(
    office: Office, post: tuple[Post, int]
) -> None:
    """Who finds none free waits with his batch; what a process gives back, the next one has."""
    here = office.relays["main"]
    office.dispatcher.routes = office.routes({"main": Route(here, connections=3, in_all=4)})
    assert office.throttle.links("main", "another", 4, 4) == 4
    _, batch = office.launch(9)
    office.dispatcher.send(batch)
    assert post[0].taken == []
    assert office.throttle.links("main", "another", 2, 4) == 2
    office.wait(3)
    office.dispatcher.send(batch)
    assert here.allowed == 2
    assert sorted(post[0].taken) == everyone(9)
    assert office.throttle.links("main", "third", 4, 4) == 2  # given back, for nothing else waited


def test_one_providers_pace_holds_up_no_other(office: Office, post: tuple[Post, int]) -> None:
    """Beside a slow provider's mail the others' goes at once, and the slow rest waits in the ledger."""
    office.throttle = office.dispatcher.throttle = Throttle(office.client, {"main": 0.0}, {"google": 2.0})
    office.dispatcher.others_wait = lambda: True
    _, batch = office.launch(30, providers=dict.fromkeys(range(1, 21), "google"))
    summary = office.dispatcher.send(batch)
    assert summary is not None
    assert {f"p{number}@example.org" for number in range(21, 31)} <= set(post[0].taken)
    assert 11 <= summary.sent < 20
    assert set(office.states().values()) == {("sent", "accepted"), ("queued", "pace")}
    assert office.dispatcher.send(batch) is None  # its turn is booked


def test_a_sender_that_slept_past_its_lease_lets_no_dot_leave(office: Office, post: tuple[Post, int]) -> None:
    """A machine stopped and woken: what others took over meanwhile is not begun by us."""
    _, batch = office.launch(4)
    office.use(main=Relay(Endpoint("127.0.0.1", office.port, "plain", connections=1)))

    def sleep_long(address: str) -> None:
        if address.startswith("p2@"):
            office.clock.forward(600)
            for lease, _ in office.ledger.held():
                office.ledger.recover(lease, [], [], office.clock())

    post[0].at_rcpt = sleep_long
    summary = office.dispatcher.send(batch)
    assert summary is not None
    assert summary.halt == "unavailable"
    assert post[0].taken == ["p1@example.org"]


def test_a_redis_that_dies_in_mid_batch_ends_it_in_order(
    office: Office, post: tuple[Post, int], tmp_path: Path
) -> None:
    """No dot leaves that the journal's copy does not know, nothing is in doubt, and no relay is blamed."""
    _, batch = office.launch(40)
    with broker.running(tmp_path / "other") as private:
        client = redis.Redis(unix_socket_path=str(private.socket))
        office.use(main=Relay(Endpoint("127.0.0.1", office.port, "plain", connections=12)))
        office.dispatcher.journal = Journal(office.folder, journal.owner_name("copied"), Replica(client))
        office.dispatcher.throttle = Throttle(client, {"main": 0.0}, {})

        def die(_address: str) -> None:
            if len(post[0].taken) == 20:
                client.shutdown(nosave=True)

        post[0].at_dot = die
        summary = office.dispatcher.send(batch)
        client.close()
    assert summary is not None
    assert summary.halt == "unavailable"
    ended = {f"p{person}@example.org": state for person, (state, _) in office.states().items()}
    assert sorted(one for one, state in ended.items() if state == "sent") == sorted(post[0].taken)
    assert set(ended.values()) == {"sent", "queued"}


def test_an_endless_answer_does_not_cost_the_lease(office: Office, post: tuple[Post, int]) -> None:
    """Past its end, a lease that nobody took over is renewed before the next dot."""
    _, batch = office.launch(4)
    office.use(main=Relay(Endpoint("127.0.0.1", office.port, "plain", connections=1)))
    office.dispatcher.pace = Pace(chunk=4, slice_seconds=1000)
    post[0].at_dot = lambda address: office.clock.forward(100) if address.startswith("p1@") else None
    office.dispatcher.send(batch)
    assert sorted(post[0].taken) == everyone(4)


@pytest.mark.parametrize("how", ["resend", "accept"])
def test_what_is_unconfirmed_is_settled_by_a_person_only(
    office: Office, post: tuple[Post, int], how: str
) -> None:
    """Never again by itself; called sent, or sent again under the same number, when a person says so."""
    campaign, batch = office.launch(3)
    lease = office.ledger.lease(batch, office.dispatcher.journal.owner, office.clock(), office.clock() + 60)
    assert lease is not None
    taken = office.ledger.advance(lease, [], 3, office.clock(), office.clock() + 60).claimed
    lost = [Outcome(one.id, State.UNCONFIRMED, "link lost after the dot") for one in taken]
    office.ledger.give_back(lease, lost, office.clock())
    office.clock.forward(100_000)
    office.sweep.run()
    assert office.dispatcher.send(batch) is None
    assert post[0].taken == []
    assert office.campaigns.verify(campaign.name).by_state == {"unconfirmed": 3}
    if how == "resend":
        assert office.campaigns.retry(campaign.name, [State.UNCONFIRMED], None, "alice").opened == 3
        office.dispatcher.send(batch)
        assert sorted(post[0].taken) == everyone(3)
    else:
        assert office.campaigns.accept(campaign.name, "alice") == 3
        assert post[0].taken == []
    assert office.campaigns.verify(campaign.name).by_state == {"sent": 3}
