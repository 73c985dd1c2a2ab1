"""One table of what a mail server may do wrong, at each command, and the state each delivery must end in.

Five people and one real server over a real socket; the real dispatcher, ledger, journal and relay. Each fault
is met twice: as it is, and once more after the server is well again, when everything that was left open must
end by itself. Both times the server's own record is held against the ledger: nobody twice, nobody lost, and
"unconfirmed" only where the dot had left and no answer came.
"""

import secrets
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import redis
import sqlalchemy as sa

from worker import broker, journal
from worker.addresses import parse
from worker.campaigns import Alarms, Campaigns
from worker.deliveries import RetryPolicy
from worker.dispatch import Dispatcher, Pace
from worker.journal import Journal
from worker.post.parcels import Parcel
from worker.post.relay import Endpoint, Relay, Timeouts
from worker.routes import Route, Routes
from worker.sealing import Keyring, Person
from worker.store.audience import Rule
from worker.store.database import Database
from worker.store.docket import Docket
from worker.store.ledger import Ledger
from worker.store.people import People
from worker.store.plans import Draft, Plans
from worker.store.schema import deliveries
from worker.store.staging import Staged
from worker.store.tallies import Tallies
from worker.throttle import Throttle

Fault = tuple[str, str | None, str]
Serve = Callable[..., Any]

GOES_ON, RESTS, PAUSES = "goes on", "relay rests", "pauses"
EVERYBODY = range(1, 6)
#: Nobody's mail began: all wait, and no attempt is used up.
WAITING = dict.fromkeys(EVERYBODY, "queued")
LINES = "250-x\n" * 499
PATIENT, HASTY = 20.0, 0.4
#: Which patience a step that hangs is up to.
STEPS = {"handshake": "connect", "data": "data", "body": "block", "dot": "final"}
#: Larger than what the kernel takes off our hands while nobody reads.
LONG = b"line\r\n" * 3_000_000


@dataclass(frozen=True)
class Case:
    """A row of the table."""

    #: Where it goes wrong and how.
    what: str
    #: See conftest; "mail#2" is the second person's MAIL, "mail" is each one's.
    faults: list[Fault]
    #: Who is not "sent" when the run ends; "?": whether its words outlive the cut is for the kernel to say.
    states: dict[int, str] = field(default_factory=dict)
    then: str = GOES_ON
    #: What status says.
    words: str = ""
    certificate: str = "good"
    security: str = "plain"
    offer: str = "PIPELINING SIZE DSN SMTPUTF8 8BITMIME AUTH=PLAIN"
    #: What EHLO offers inside TLS, where that differs.
    inside: str | None = None
    #: Mails that one connection carries.
    most: int = 100


def brief(said: str | None, then: str) -> str:
    """Name a fault."""
    return f"{said.splitlines()[0]}, {then}" if said else then


def opening(point: str, said: str | None, then: str, words: str = "", **more: Any) -> Case:
    """Write a row about a fault before mail can flow, on every connection: everybody waits."""
    more = {"security": "starttls" if point in {"starttls", "handshake"} else "plain", **more}
    name = more.pop("what", "") or brief(said, then)
    return Case(f"{point}: {name}", [(point, said, then)], WAITING, more.pop("ends", RESTS), words, **more)


def auth(said: str | None, then: str, words: str, ends: str = RESTS) -> Case:
    """Write a row about AUTH."""
    return opening("auth", said, then, words, ends=ends, security="tls")


def second(point: str, said: str | None, then: str, state: str = "sent", what: str = "") -> Case:
    """Write a row about a fault that the second person's mail meets, and nobody else's."""
    name = what or brief(said, then)
    return Case(f"{point}: {name}", [(f"{point}#2", said, then)], {} if state == "sent" else {2: state})


def drip(point: str, **more: Any) -> Case:
    """Write a row about an answer that comes byte by byte, each time: nothing is wrong."""
    return Case(f"{point}: byte by byte", [(point, "", "drip")], **more)


OPENING = [
    # banner
    opening("banner", "421 4.3.2 busy", "cut", "turned us away: 421"),
    opening("banner", "450 4.3.2 later", "cut", "turned us away: 450"),
    opening("banner", "554 5.3.2 no service", "cut", "turned us away: 554"),
    opening("banner", "421 4.7.0 [TSS04] slow", "cut", "turned us away: 421"),
    opening("banner", "250 what", "go", "turned us away: 250"),
    opening("banner", None, "hang", "no answer in time"),
    opening("banner", None, "cut", "closed before mail could flow"),
    opening("banner", "SSH-2.0-x", "go", "no mail server"),
    opening("banner", "220-x\n" * 2000 + "220-x", "hang", "no mail server", what="without end"),
    opening("banner", "220-x\n" * 900 + "220-x", "hang", "no answer in time", what="unfinished"),
    Case("banner: two lines", [("banner", "220-hello\n220 there", "go")]),
    drip("banner"),
    # EHLO
    Case("ehlo: 450, HELO taken", [("ehlo", "450 4.3.0 later", "go")]),
    Case("ehlo: 502, HELO taken", [("ehlo", "502 5.5.1 what", "go")]),
    Case(
        "ehlo: 550, HELO too",
        [("ehlo", "550 5.7.1 no", "go"), ("helo", "550 5.7.1 no", "go")],
        WAITING,
        RESTS,
        "turned us away: 550",
    ),
    Case(
        "ehlo: 450, HELO too",
        [("ehlo", "450 4.3.0 no", "go"), ("helo", "450 4.3.0 no", "go")],
        WAITING,
        RESTS,
        "turned us away: 450",
    ),
    opening("ehlo", "421 4.3.2 bye", "cut", "closed before mail could flow"),
    opening("ehlo", None, "hang", "no answer in time"),
    opening("ehlo", None, "cut", "closed before mail could flow"),
    opening("ehlo", "\0\0\0\0", "go", "no mail server", what="garbage"),
    opening("ehlo", "250-x\n" * 2000 + "250-x", "hang", "no mail server", what="without end"),
    opening("ehlo", "250 x\n250 y", "go", "out of turn", what="two answers"),
    Case("ehlo: 500 lines", [("ehlo", LINES + "250 PIPELINING", "go")]),
    Case("ehlo: 500 lines byte by byte", [("ehlo", LINES + "250 SIZE", "drip")]),
    drip("ehlo"),
    # STARTTLS and what follows it
    opening("starttls", "454 4.7.0 not now", "go", "refuses it: 454"),
    opening("starttls", "501 5.5.4 no", "go", "refuses it: 501"),
    opening("starttls", "421 4.3.2 bye", "cut", "refuses it: 421"),
    opening("starttls", None, "hang", "no answer in time"),
    opening("starttls", None, "cut", "closed before mail could flow"),
    opening("starttls", "hello", "go", "no mail server"),
    opening("starttls", "220 go\n250 injected", "go", "added to the connection", what="plain text behind"),
    opening("ehlo", "250 fault.example", "go", "does not offer STARTTLS", security="starttls"),
    drip("starttls", security="starttls"),
    Case("ehlo: inside TLS offers less", [], security="starttls", inside="AUTH=PLAIN"),
    opening("handshake", None, "hang", "no answer in time"),
    opening("handshake", None, "hang", "no answer in time", what="hang, TLS at once", security="tls"),
    opening("handshake", None, "cut", "TLS failed"),
    opening("handshake", "250 injected", "go", "", what="plain text instead"),
    *(
        opening(
            "handshake",
            None,
            "go",
            words,
            what=f"certificate {certificate}, {security}",
            certificate=certificate,
            security=security,
        )
        for certificate, words in (
            ("expired", "is not accepted: certificate has expired"),
            ("wrong-host", "is not accepted: IP address mismatch"),
            ("self-signed", "is not accepted: self-signed certificate"),
        )
        for security in ("starttls", "tls")
    ),
    # AUTH
    auth("454 4.7.0 later", "go", "cannot check our password now: 454"),
    auth("421 4.3.2 bye", "cut", "cannot check our password now: 421"),
    auth("535 5.7.8 no", "go", "does not accept our user name and password: 535", PAUSES),
    auth("535 2.7.0 welcome", "go", "does not accept our user name and password: 535", PAUSES),
    auth(None, "hang", "no answer in time"),
    auth(None, "cut", "closed before mail could flow"),
    auth("hello", "go", "no mail server"),
    drip("auth", security="tls"),
]

CARRYING = [
    Case("nothing wrong", []),
    Case("all: byte by byte", [(point, "", "drip") for point in ("mail", "rcpt", "data", "dot", "rset")]),
    # MAIL
    second("mail", "451 4.3.0 later", "go", "deferred"),
    second("mail", "550 5.7.1 no", "go", "bounced"),
    second("mail", "421 4.3.2 bye", "cut"),
    second("mail", "421 4.7.28 unusual rate", "cut", "queued"),
    second("mail", "530 5.7.0 log in first", "go", "queued"),
    second("mail", None, "hang"),
    second("mail", "250-unfinished\n250-x", "hang"),
    second("mail", None, "cut"),
    second("mail", "hello", "go"),
    second("mail", "354 what", "go"),
    # RCPT; DATA is pipelined behind it, and a real Postfix answers it 554
    second("rcpt", "450 4.2.0 greylisted", "go", "deferred"),
    second("rcpt", "550 5.1.1 unknown", "go", "bounced"),
    second("rcpt", "550-5.1.1 un\n550 5.1.1 known", "go", "bounced", "multi-line"),
    second("rcpt", "550 2.1.5 fine", "go", "bounced", "wrong enhanced class"),
    second("rcpt", "421 4.3.2 bye", "cut", "deferred"),
    second("rcpt", "550 5.1.1 unknown", "cut", "bounced"),
    second("rcpt", None, "hang"),
    second("rcpt", None, "cut"),
    second("rcpt", "\0\0\0", "go", what="garbage"),
    Case("rcpt: all refused", [("rcpt", "550 5.1.1 no", "go")], dict.fromkeys(EVERYBODY, "bounced")),
    # DATA
    second("data", "451 4.3.0 later", "go", "deferred"),
    second("data", "554 5.7.1 no", "go", "bounced"),
    second("data", "421 4.3.2 bye", "cut", "deferred"),
    second("data", None, "hang"),
    second("data", None, "cut"),
    second("data", "hello", "go"),
    second("data", "250 what", "go"),
    # in the middle of the message
    second("body", "451 4.3.0 later", "hang", "deferred"),
    second("body", "552 5.3.4 too big", "hang", "bounced"),
    second("body", "552 5.3.4 too big", "cut", "bounced?"),
    second("body", "421 4.3.2 bye", "hang", "deferred"),
    second("body", None, "stall"),
    second("body", None, "cut"),
    second("body", "hello", "go"),
    second("body", "250 thanks", "hang"),
    # after the dot; the next envelope is on its way as well
    second("dot", "451 4.3.0 later", "go", "deferred"),
    second("dot", "550 5.7.1 spam", "go", "bounced"),
    second("dot", "552 5.3.4 too big", "go", "bounced"),
    second("dot", "421 4.3.2 bye", "cut", "deferred"),
    second("dot", "421 4.7.28 unusual rate", "cut", "queued"),
    second("dot", "550 5.7.26 unauthenticated", "go", "queued"),
    second("dot", "250 5.0.0 taken", "go", what="250, wrong enhanced class"),
    second("dot", None, "hang", "unconfirmed"),
    second("dot", "250-unfinished", "hang", "unconfirmed"),
    second("dot", None, "cut", "unconfirmed"),
    second("dot", "hm", "go", "unconfirmed"),
    second("dot", "354 more", "go", "unconfirmed"),
    # after its answer
    second("accepted", None, "hang"),
    second("accepted", None, "cut"),
    second("accepted", "421 4.3.2 bye", "cut"),
    second("accepted", "hello", "go"),
    Case("rset: refused", [("rcpt#1", "550 5.1.1 no", "go"), ("rset#1", "500 what", "go")], {1: "bounced"}),
    Case("rset: cut", [("rcpt#1", "550 5.1.1 no", "go"), ("rset#1", None, "cut")], {1: "bounced"}),
    Case(
        "mail: cut, and the next connection turned away",
        [("mail#2", None, "cut"), ("banner#2", "421 4.3.2 busy", "cut")],
        dict.fromkeys((2, 3, 4, 5), "queued"),
        RESTS,
        "turned us away: 421",
    ),
    # every time: it must end, and not in a busy loop
    Case("mail: cut every time", [("mail", None, "cut")], WAITING, RESTS, "carry nothing"),
    Case("rcpt: garbage every time", [("rcpt", "hello", "go")], WAITING, RESTS, "carry nothing"),
    Case("data: 250 every time", [("data", "250 what", "go")], WAITING, RESTS, "carry nothing"),
    Case(
        "dot: 421 every time",
        [("dot", "421 4.3.2 bye", "cut")],
        dict.fromkeys(EVERYBODY, "deferred"),
    ),
    Case("dot: our fault", [("dot", "550 5.7.26 unauthenticated", "go")], WAITING, PAUSES, "5.7.26"),
    Case("mail: log in first", [("mail", "530 5.7.0 log in first", "go")], WAITING, PAUSES, "530"),
]

#: Where an envelope rides behind the message before it.
BEHIND = [
    Case(
        "rcpt: refused, DATA answered 354",
        [("rcpt#2", "550 5.1.1 unknown", "go"), ("data#2", "354 go", "go")],
        {2: "bounced"},
    ),
    Case(
        "mail: refused, RCPT taken, DATA answered 354",
        [("mail#2", "550 5.7.1 no", "go"), ("data#2", "354 go", "go")],
        {2: "bounced"},
    ),
    second("accepted", "250 2.0.0 again", "go"),
    second("accepted", "550 5.1.1 unasked", "go"),
    # The second, twice behind another whose link is cut, waits; then the relay is left alone.
    Case(
        "dot: cut every time",
        [("dot", None, "cut")],
        {1: "unconfirmed", 2: "deferred", 3: "unconfirmed", 4: "queued", 5: "unconfirmed"},
        RESTS,
        "carry nothing",
    ),
]

#: In lock-step. What nobody asked for cannot be told there from the answer to the command that has just left.
ONE_BY_ONE = [
    Case(
        "dot: cut every time",
        [("dot", None, "cut")],
        {1: "unconfirmed", 2: "unconfirmed", 3: "unconfirmed", 4: "queued", 5: "queued"},
        RESTS,
        "carry nothing",
    ),
]

PARTING = [
    Case("quit: 451", [("quit", "451 4.3.0 later", "go")], most=2),
    Case("quit: 500", [("quit", "500 5.5.1 what", "go")], most=2),
    Case("quit: 421", [("quit", "421 4.3.2 bye", "cut")], most=2),
    Case("quit: cut", [("quit", None, "cut")], most=2),
    Case("quit: garbage", [("quit", "\0\0\0", "go")], most=2),
    Case("quit: hang", [("quit#1", None, "hang")], most=3),
    drip("quit", most=2),
]


class Letters:
    """Makes small mails; to one person a long one, once."""

    def __init__(self, *, long_for: str) -> None:
        self._long_for = long_for

    def parcel(self, delivery_id: int, person: Person, _now: float) -> Parcel:
        """Return a mail that names its reader."""
        address = person.address.spec
        data = f"Subject: to {address}\r\n\r\n.hello\r\n".encode()
        if address == self._long_for:
            data, self._long_for = data + LONG, ""
        return Parcel(delivery_id, f"b{delivery_id}@example.org", address, data)


@dataclass
class House:
    """What all cases share: a store with five people, keys, and a Redis."""

    database: Database
    client: "redis.Redis"
    keyring: Keyring
    folder: Path
    rule: Rule


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Five people on a list."""
    folder = tmp_path_factory.mktemp("house")
    database = Database(f"sqlite:///{folder}/t.sqlite3")
    database.upgrade()
    keyring = Keyring.generate(secrets.token_bytes)
    people = People(database)
    opened = people.begin_import()
    consent = people.consent_ids([("consent", "form", "")])[0]
    staged = []
    for number in EVERYBODY:
        person = Person(parse(f"p{number}@example.org"), {})
        sealed = keyring.seal(number, person.to_bytes(), secrets.token_bytes(12))
        staged.append(Staged(keyring.address_key(person.address), number, sealed, "other", consent, 1.0))
    opened.add(staged)
    opened.finish("one", "One", 1.0)
    with broker.running(tmp_path_factory.mktemp("state")) as private:
        client = redis.Redis(unix_socket_path=str(private.socket))
        yield House(database, client, keyring, folder, Rule((people.find_lists(["one"])[0].id,)))
        client.close()
    database.close()


class Run:
    """One campaign to these five, by one faulty server."""

    def __init__(self, house: House, case: Case, server: Any, ca_file: Path, clock: Any) -> None:
        """Launch it; nothing is sent yet."""
        self.server = server
        self.clock = clock
        #: What the server heard while it was faulty.
        self.first: list[str] = []
        self._house = house
        house.client.flushdb()
        self.plans = Plans(house.database, batch_size=100)
        draft = Draft("a", "{}", house.rule, "d", "running", "op", "op", 0.0, "UTC", None)
        made = self.plans.record(draft, 1.0)
        (self._batch,) = self.plans.slice(made, 100, clock())
        self.plans.slice(made, 100, clock())  # says that the launch is whole
        self._id = made.id
        self.campaigns = Campaigns(
            self.plans,
            Docket(house.database),
            Tallies(house.database),
            Quiet(),
            clock=clock,
            two_people=False,
        )
        hangs = [point.partition("#")[0] for point, _, then in case.faults if then in {"hang", "stall"}]
        hasty = [STEPS.get(point, "command") for point in hangs]
        locked = case.security != "plain"
        steps = dict.fromkeys(("connect", "command", "data", "block", "final", "idle"), PATIENT)
        endpoint = Endpoint(
            "127.0.0.1",
            server.port,
            case.security,
            username="team" if locked else "",
            password="secret" if locked else "",
            ca_file=ca_file,
            connections=1,
            messages_per_connection=case.most,
            timeouts=Timeouts(**{**steps, **dict.fromkeys(hasty, HASTY)}),
        )
        self.relay = Relay(endpoint)
        self.throttle = Throttle(house.client, {"main": 0.0}, {})
        long = any(point.startswith("body") for point, _, _ in case.faults)
        letters = Letters(long_for="p2@example.org" if long else "")
        self.dispatcher = Dispatcher(
            ledger=Ledger(house.database),
            journal=Journal(house.folder / "journal", journal.owner_name("faults")),
            keyring=house.keyring,
            routes=Routes({"main": Route(self.relay)}, self.throttle, lambda: 0.5),
            throttle=self.throttle,
            printers=lambda _campaign, _content: letters,
            alarms=Alarms(self.plans),
            pace=Pace(retry=RetryPolicy(attempts=3)),
            clock=clock,
            dice=lambda: 0.5,
            stopping=lambda: False,
            others_wait=lambda: True,
        )

    def send(self) -> str:
        """Send what is due, and tell what became of the whole: it goes on, the relay rests, it pauses."""
        self.dispatcher.send(self._batch)
        assert self.dispatcher.ledger.held() == []
        if self.plans.get(self._id).state == "paused":
            return PAUSES
        return RESTS if self.throttle.resting() else GOES_ON

    def mend(self, certificates: Path) -> None:
        """Make the server well, let a day pass and have an operator resume what stands."""
        self.server.faults = ()
        self.server.context.load_cert_chain(certificates / "good.pem")
        self.relay.close()  # a day idle
        if self.plans.get(self._id).state == "paused":
            self.campaigns.resume(self.name, "alice")
        self.clock.forward(86_400)
        self._house.client.flushdb()  # by whose own clock relays rest

    def close(self) -> None:
        """Let go of everything."""
        self.relay.close()
        self.dispatcher.journal.close()

    @property
    def name(self) -> str:
        """The campaign's name."""
        return self.plans.get(self._id).name

    @property
    def notice(self) -> str:
        """What status says."""
        return self.plans.get(self._id).notice

    def states(self) -> dict[int, str]:
        """How each person's delivery stands."""
        query = sa.select(deliveries.c.person_id, deliveries.c.state).where(
            deliveries.c.campaign_id == self._id
        )
        with self._house.database.read() as connection:
            return dict(connection.execute(query).all())

    def attempts(self) -> dict[int, int]:
        """How many attempts each delivery has used up."""
        query = sa.select(deliveries.c.person_id, deliveries.c.attempts)
        with self._house.database.read() as connection:
            return dict(connection.execute(query.where(deliveries.c.campaign_id == self._id)).all())

    def agrees(self) -> bool:
        """Tell whether the server's own record is what the ledger says: nobody twice, nobody lost."""
        heard = Counter(address for address, _ in self.server.heard)
        taken = Counter(address for address, _ in self.server.delivered)
        for address, message in self.server.heard:
            assert message.startswith(f"Subject: to {address}\r\n\r\n..hello\r\n".encode())
        for number, state in self.states().items():
            address = f"p{number}@example.org"
            if state == "unconfirmed":
                assert heard[address] == 1
            else:
                assert taken[address] == (state == "sent")
        return True


class Quiet:
    """A doorbell that nobody hears."""

    def launch(self, campaign_id: int) -> None:
        """Nobody launches."""

    def ring(self, batch_ids: object) -> None:
        """Nobody comes."""

    def waiting(self) -> int:
        """Nobody waits."""
        return 0


@pytest.fixture
def meet(
    house: House, fault_server: Serve, certificates: Path, clock: Any
) -> Iterator[Callable[[Case], Run]]:
    """Have a case met: everything it says must come true, and afterwards everything must end."""
    runs: list[Run] = []

    def meet_it(case: Case) -> Run:
        server = fault_server(
            *case.faults,
            certificate=case.certificate,
            security=case.security,
            offer=case.offer,
            offer_inside=case.inside,
        )
        run = Run(house, case, server, certificates / "ca.pem", clock)
        runs.append(run)
        then = run.send()
        run.first = list(server.commands)
        expected = {number: case.states.get(number, "sent") for number in EVERYBODY}
        found = run.states()
        for number in [one for one, state in expected.items() if state.endswith("?")]:
            assert found[number] in {expected[number][:-1], "sent"}
            expected[number] = found[number]
        assert (found, then) == (expected, case.then)
        assert case.words in run.notice
        assert run.agrees()
        run.mend(certificates)
        assert run.send() == GOES_ON
        ended = {n: state if state in {"bounced", "unconfirmed"} else "sent" for n, state in expected.items()}
        assert run.states() == ended
        assert run.agrees()
        assert run.campaigns.verify(run.name).holds
        return run

    yield meet_it
    for run in runs:
        run.close()


def named(cases: list[Case]) -> Any:
    """Run a test for each row, under the row's own name."""
    assert len({case.what for case in cases}) == len(cases)
    return pytest.mark.parametrize("case", cases, ids=[case.what for case in cases])


@named(OPENING)
def test_before_mail_can_flow(meet: Callable[[Case], Run], case: Case) -> None:
    """No fault at opening touches a recipient, or gets a password or a mail before its time."""
    run = meet(case)
    if case.states:
        assert not [line for line in run.first if line.startswith("MAIL")]
        assert case.what.startswith("auth") or not [line for line in run.first if line.startswith("AUTH")]
        assert set(run.attempts().values()) == {1}


@named([*CARRYING, *BEHIND])
def test_while_mail_flows(meet: Callable[[Case], Run], case: Case) -> None:
    """A fault touches that one person whose mail meets it; the others get theirs in the same run."""
    meet(case)


@named([*CARRYING, *ONE_BY_ONE])
def test_in_lock_step(meet: Callable[[Case], Run], case: Case) -> None:
    """Without PIPELINING the same states follow, and nothing is said before its turn."""
    run = meet(replace(case, offer="SIZE"))
    assert not run.server.impatient


@named([case for case in CARRYING if case.faults and case.faults[0][0].startswith(("body", "dot"))])
def test_inside_tls(meet: Callable[[Case], Run], case: Case) -> None:
    """What has left is told as surely where bytes travel in records, and a link breaks with another error."""
    meet(replace(case, security="tls"))


@named(PARTING)
def test_when_we_part(meet: Callable[[Case], Run], case: Case) -> None:
    """What a server says to QUIT, or does not say, changes nothing (RFC 5321 section 4.1.1.10)."""
    assert meet(case).server.quits >= 2
