"""The relay against a server that goes wrong: how each parcel ends, and that none is lost.

What follows for the delivery, for every fault at every step, is the table of test_faults.
"""

import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from worker.errors import WrongUse
from worker.post.parcels import stuff
from worker.post.relay import Endpoint, Lost, Offer, Parcel, Relay, RelayDown, Timeouts
from worker.post.replies import Reply, Trouble

Serve = Callable[..., Any]

BODY = b"Subject: x\r\n\r\n.dot\r\nHello.\r\n"
#: Long enough for a busy machine; the tests of hanging servers shorten the one step concerned.
PATIENT = Timeouts(connect=20, command=20, data=20, block=20, final=20, idle=20, drain=5)


def parcel(number: int, data: bytes = BODY, **changed: Any) -> Parcel:
    """Make a parcel whose recipient names its number."""
    return Parcel(number, "b@example.org", f"p{number}@example.com", data, **changed)


def shown(end: Reply | Lost) -> str:
    """Write an outcome as the tables do: "550", "lost closed" (surely not begun), "begun closed"."""
    if isinstance(end, Reply):
        return str(end.code)
    return f"{'begun' if end.begun else 'lost'} {end.reason}"


@dataclass
class Caller:
    """Gives its parcels (or waits) one after another and keeps what it is told."""

    work: list[Parcel | float]
    outcomes: dict[int, str] = field(default_factory=dict)
    taken: list[int] = field(default_factory=list)
    dots: list[int] = field(default_factory=list)

    def next_parcel(self) -> Parcel | float | None:
        """Give the next."""
        item = self.work.pop(0) if self.work else None
        if isinstance(item, Parcel):
            self.taken.append(item.id)
        return item

    def on_dots(self, numbers: Sequence[int]) -> None:
        """Keep them; each dot is told once, before any outcome."""
        assert numbers
        assert not set(numbers) & {*self.dots, *self.outcomes}
        self.dots += numbers

    def on_outcome(self, number: int, end: Reply | Lost) -> None:
        """Keep it; each parcel ends once, and only a dot that was told can have left."""
        assert number in self.taken
        assert number not in self.outcomes
        if (isinstance(end, Reply) and end.accepted) or (isinstance(end, Lost) and end.begun):
            assert number in self.dots
        self.outcomes[number] = shown(end)

    def use(self, relay: Relay) -> dict[int, str]:
        """Have everything carried."""
        relay.carry(self.next_parcel, self.on_dots, self.on_outcome)
        assert sorted(self.taken) == sorted(self.outcomes)
        return self.outcomes


def endpoint(server: Any, **changed: Any) -> Endpoint:
    """Say how to reach a fault server: one connection, patient, plain on loopback."""
    values: dict[str, Any] = {
        "security": server.security,
        "connections": 1,
        "timeouts": PATIENT,
        "helo": "client.example",
    }
    return Endpoint("127.0.0.1", server.port, **{**values, **changed})


def carry(server: Any, count: int = 3, **changed: Any) -> dict[int, str]:
    """Carry so many parcels to a server and say how each ended."""
    relay = Relay(endpoint(server, **changed))
    try:
        return Caller([parcel(number) for number in range(1, count + 1)]).use(relay)
    finally:
        relay.close()


def consistent(server: Any, outcomes: dict[int, str]) -> bool:
    """Tell whether the server has what we say it has, at most once each, and nothing that we deny."""
    delivered = [address for address, _ in server.delivered]
    accepted = {f"p{number}@example.com" for number, end in outcomes.items() if end == "250"}
    doubtful = {f"p{number}@example.com" for number, end in outcomes.items() if end.startswith("begun")}
    assert all(message == stuff(BODY) for _, message in server.heard)
    return len(delivered) == len(set(delivered)) and accepted <= set(delivered) <= accepted | doubtful


ALL_SENT = {1: "250", 2: "250", 3: "250"}

#: What the states of deliveries (test_faults) do not show: why a parcel was lost, and which was lost with it.
#: "~": only because the envelope was pipelined behind the one before; in lock-step such a parcel goes out on
#: the next connection.
FAULTS: list[tuple[str, list[tuple[str, str | None, str]], dict[int, str]]] = [
    ("nothing wrong", [], ALL_SENT),
    ("MAIL 421", [("mail#2", "421 4.3.2 bye", "cut")], {**ALL_SENT, 2: "lost closing"}),
    ("MAIL garbage", [("mail#2", "hello", "go")], {**ALL_SENT, 2: "lost garbled"}),
    ("MAIL 354", [("mail#2", "354 what", "go")], {**ALL_SENT, 2: "lost protocol"}),
    ("MAIL cut", [("mail#2", None, "cut")], {**ALL_SENT, 2: "lost closed"}),
    ("RCPT refused", [("rcpt#2", "550 5.1.1 unknown", "go")], {**ALL_SENT, 2: "550"}),
    ("RCPT wrong enhanced class", [("rcpt#2", "550 2.1.5 fine", "go")], {**ALL_SENT, 2: "550"}),
    ("DATA 250", [("data#2", "250 what", "go")], {**ALL_SENT, 2: "lost protocol"}),
    # after the dot: the next envelope is on its way as well
    ("after the dot 451", [("dot#2", "451 4.3.0 later", "go")], {**ALL_SENT, 2: "451"}),
    ("after the dot 421", [("dot#2", "421 4.3.2 bye", "cut")], {**ALL_SENT, 2: "421", 3: "lost closing~"}),
    (
        "after the dot 354",
        [("dot#2", "354 more", "go")],
        {**ALL_SENT, 2: "begun protocol", 3: "lost protocol~"},
    ),
    ("after the dot garbage", [("dot#2", "hm", "go")], {**ALL_SENT, 2: "begun garbled", 3: "lost garbled~"}),
    ("after the dot cut", [("dot#2", None, "cut")], {**ALL_SENT, 2: "begun closed", 3: "lost closed~"}),
    (
        "cut after a 250, the next envelope out",
        [("accepted#2", None, "cut")],
        {**ALL_SENT, 3: "lost closed~"},
    ),
    ("421 after the second", [("accepted#2", "421 4.3.2 bye", "cut")], {**ALL_SENT, 3: "lost closing~"}),
    (
        "RSET refused",
        [("rcpt#1", "550 5.1.1 unknown", "go"), ("rset#1", "500 what", "go")],
        {**ALL_SENT, 1: "550", 2: "lost protocol~"},
    ),
]


@pytest.mark.parametrize(("faults", "ends"), [row[1:] for row in FAULTS], ids=[row[0] for row in FAULTS])
def test_fault(fault_server: Serve, faults: list[tuple[str, str | None, str]], ends: dict[int, str]) -> None:
    """Each fault ends each parcel in the state that the table names, and the server agrees."""
    server = fault_server(*faults)
    expected = {number: end.removesuffix("~") for number, end in ends.items()}
    assert carry(server) == expected
    assert consistent(server, expected)


#: Without those that race with the next MAIL.
LOCK_STEP = [row for row in FAULTS if "accepted#2" not in str(row[1])]


@pytest.mark.parametrize(
    ("faults", "ends"), [row[1:] for row in LOCK_STEP], ids=[row[0] for row in LOCK_STEP]
)
def test_fault_in_lock_step(
    fault_server: Serve, faults: list[tuple[str, str | None, str]], ends: dict[int, str]
) -> None:
    """Without PIPELINING nothing is sent before its turn, and a fault touches no parcel but its own."""
    server = fault_server(*faults, offer="SIZE")
    expected = {number: "250" if end.endswith("~") else end for number, end in ends.items()}
    assert carry(server) == expected
    assert consistent(server, expected)
    assert not server.impatient


def _patience(**changed: float) -> Timeouts:
    """Shorten some steps."""
    values = {name: getattr(PATIENT, name) for name in Timeouts.__slots__}
    return Timeouts(**{**values, **changed})


@pytest.mark.parametrize(
    ("said", "trouble"), [("554 5.3.2 no service", Trouble.RELAY), ("421 4.7.0 [TSS04] slow", Trouble.RATE)]
)
def test_down(fault_server: Serve, said: str, trouble: Trouble) -> None:
    """When no connection can be opened the error says whose trouble it is, and nothing was asked for."""
    server = fault_server(("banner", said, "cut"))
    relay = Relay(endpoint(server))
    caller = Caller([parcel(1)])
    with pytest.raises(RelayDown, match=f"turned us away: {said[:3]}") as caught:
        caller.use(relay)
    relay.close()
    assert caught.value.trouble is trouble
    assert caught.value.remedy
    assert caller.taken == []


def test_nothing_listens() -> None:
    """A port where nothing listens is one clear line."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    relay = Relay(Endpoint("127.0.0.1", port, "plain", timeouts=PATIENT))
    with pytest.raises(RelayDown, match=f"nothing listens at 127.0.0.1:{port}"):
        Caller([parcel(1)]).use(relay)
    relay.close()


@pytest.mark.parametrize("host", ["nowhere.invalid", "a..b", "x" * 70])
def test_no_such_host(host: str) -> None:
    """A name that cannot be found, or is none, is one clear line."""
    relay = Relay(Endpoint(host, 25, "plain", timeouts=PATIENT))
    with pytest.raises(RelayDown, match=r"cannot find|not a host name"):
        relay.probe()


# -- TLS and AUTH ----------------------------------------------------------------------------------


@pytest.mark.parametrize("security", ["starttls", "tls"])
@pytest.mark.parametrize("connections", [1, 3])
def test_tls(fault_server: Serve, certificates: Path, security: str, connections: int) -> None:
    """Mail flows inside verified TLS, from the first byte or after STARTTLS, with AUTH inside it."""
    server = fault_server(security=security)
    got = carry(
        server,
        40,
        connections=connections,
        ca_file=certificates / "ca.pem",
        username="team",
        password="secret",
    )
    assert set(got.values()) == {"250"}
    assert consistent(server, got)


def test_unknown_authority(fault_server: Serve) -> None:
    """Without the authority's file the system's authorities decide, and they do not know it."""
    server = fault_server(security="tls")
    with pytest.raises(RelayDown, match=r"certificate .* not accepted"):
        carry(server)


def test_tls_to_a_plain_server(fault_server: Serve) -> None:
    """TLS from the first byte to a server that speaks plainly is one clear line."""
    server = fault_server()
    with pytest.raises(RelayDown, match="TLS failed"):
        carry(server, security="tls")


def test_second_ehlo_offers_less(fault_server: Serve, certificates: Path) -> None:
    """What was offered before TLS is forgotten: no PIPELINING inside means lock-step."""
    server = fault_server(security="starttls", offer_inside="AUTH=PLAIN")
    got = carry(server, ca_file=certificates / "ca.pem")
    assert got == ALL_SENT
    assert not server.impatient
    assert not [line for line in server.commands if "SIZE=" in line or "NOTIFY" in line]


AUTH: list[tuple[str, str, str, Trouble]] = [
    ("535 5.7.8 no", "PIPELINING AUTH=PLAIN", "does not accept our user name", Trouble.AUTH),
    ("454 4.7.0 later", "PIPELINING AUTH=PLAIN", "cannot check our password now", Trouble.RELAY),
    ("235 ok", "PIPELINING", "offers no AUTH", Trouble.AUTH),
    ("235 ok", "PIPELINING AUTH=GSSAPI", "offers no AUTH", Trouble.AUTH),
]


@pytest.mark.parametrize(("said", "offer", "words", "trouble"), AUTH)
def test_auth_refused(
    fault_server: Serve, certificates: Path, said: str, offer: str, words: str, trouble: Trouble
) -> None:
    """A refused AUTH stops the relay and touches no recipient; neither name nor password is shown."""
    server = fault_server(("auth", said, "go"), offer=offer, security="tls")
    with pytest.raises(RelayDown, match=words) as caught:
        carry(server, ca_file=certificates / "ca.pem", username="team@example.org", password="secret")
    assert caught.value.trouble is trouble
    assert "team" not in str(caught.value)
    assert not [line for line in server.commands if line.startswith("MAIL")]


def test_no_password_in_the_clear(fault_server: Serve) -> None:
    """A password goes over a plain line only to this machine, and only when that is allowed."""
    server = fault_server()
    with pytest.raises(RelayDown, match="in the clear") as caught:
        carry(server, username="team", password="secret")
    assert caught.value.trouble is Trouble.AUTH
    assert carry(server, username="team", password="secret", allow_plain=True) == ALL_SENT


def test_authority_file_missing(tmp_path: Path) -> None:
    """A file of authorities that cannot be read is wrong use, and names the setting."""
    relay = Relay(Endpoint("127.0.0.1", 9, ca_file=tmp_path / "none.pem"))
    with pytest.raises(WrongUse, match=r"none\.pem") as caught:
        Caller([parcel(1)]).use(relay)
    assert "relay.ca_file" in caught.value.remedy


def test_probe(fault_server: Serve, certificates: Path) -> None:
    """A probe says what is offered after TLS and AUTH, and sends no mail."""
    server = fault_server(security="starttls", offer_inside="PIPELINING SIZE=1000 DSN AUTH=PLAIN")
    probed = Relay(
        endpoint(server, ca_file=certificates / "ca.pem", username="team", password="secret")
    ).probe()
    assert probed == Offer(pipelining=True, size=1000, dsn=True, auth=("PLAIN",), tls=probed.tls)
    assert probed.tls.startswith("TLSv1.")


# -- several connections, time, and the caller -----------------------------------------------------


def test_many_connections(fault_server: Serve) -> None:
    """Work is spread over connections that open as it lasts, and each parcel arrives once."""
    server = fault_server()
    got = carry(server, 400, connections=5, messages_per_connection=0)
    assert consistent(server, got)
    assert set(got.values()) == {"250"}
    assert 1 < server.connections <= 5


def test_fewer_connections_than_wished(fault_server: Serve) -> None:
    """A connection that is turned away while others work lowers the count and loses nobody."""
    server = fault_server(most=1)
    # Not renewed: a server that is slow to count out the old connection would turn the new one away.
    got = carry(server, 400, connections=5, messages_per_connection=0)
    assert consistent(server, got)
    assert set(got.values()) == {"250"}


def test_renewed_after_so_many(fault_server: Serve) -> None:
    """A connection carries its number of mails, says good-bye, and another goes on."""
    server = fault_server()
    got = carry(server, 5, messages_per_connection=2)
    assert set(got.values()) == {"250"}
    server.wait_for(lambda: server.ended == 3)
    assert server.connections == 3
    assert server.quits == 3


def test_a_good_bye_unanswered(fault_server: Serve) -> None:
    """A server that never closes after QUIT delays the next connection a little, and no more."""
    server = fault_server(("quit#1", "", "hang"))
    assert carry(server, 2, messages_per_connection=1) == {1: "250", 2: "250"}
    assert server.connections >= 2


def test_connections_are_kept(fault_server: Serve) -> None:
    """The next errand finds the connection still open."""
    server = fault_server()
    relay = Relay(endpoint(server))
    assert Caller([parcel(1)]).use(relay) == {1: "250"}
    assert Caller([parcel(2)]).use(relay) == {2: "250"}
    assert Caller([]).use(relay) == {}
    relay.close()
    relay.close()
    assert server.connections == 1
    assert Caller([parcel(3)]).use(relay) == {3: "250"}
    relay.close()
    assert server.connections == 2


@pytest.mark.parametrize("said", ["", "421 4.4.2 idle too long"])
def test_idle_link_closed_by_the_server(fault_server: Serve, said: str) -> None:
    """A link that the server closed while it was idle is opened anew, and no parcel notices."""
    server = fault_server(("accepted#1", said or None, "cut"))
    relay = Relay(endpoint(server))
    assert Caller([parcel(1)]).use(relay) == {1: "250"}
    server.wait_for(lambda: server.ended == 1)
    assert Caller([parcel(2)]).use(relay) == {2: "250"}
    relay.close()
    assert server.connections == 2


def test_idle_link_closed_by_us(fault_server: Serve) -> None:
    """A link without work says good-bye after its time, while the caller still waits for its pace."""
    server = fault_server()
    relay = Relay(endpoint(server, timeouts=_patience(idle=0.05)))
    assert Caller([parcel(1), 0.5, parcel(2)]).use(relay) == {1: "250", 2: "250"}
    relay.close()
    assert server.connections == 2
    server.wait_for(lambda: server.quits == 2)


def test_waits_are_kept(fault_server: Serve) -> None:
    """While the caller waits what is in flight is settled, and nothing is asked before its time."""
    server = fault_server()
    relay = Relay(endpoint(server, connections=2))
    caller = Caller([parcel(1), 0.2, parcel(2)])
    asked: list[tuple[float, dict[int, str]]] = []

    def next_parcel() -> Parcel | float | None:
        asked.append((time.monotonic(), dict(caller.outcomes)))
        return caller.next_parcel()

    relay.carry(next_parcel, caller.on_dots, caller.on_outcome)
    relay.close()
    assert caller.outcomes == {1: "250", 2: "250"}
    assert asked[2][0] - asked[1][0] >= 0.2
    assert asked[2][1] == {1: "250"}


def test_barren_links(fault_server: Serve) -> None:
    """Links that open but never answer about a parcel end in "down" after a few, not in a busy loop."""
    server = fault_server(("mail", None, "cut"))
    relay = Relay(endpoint(server))
    caller = Caller([parcel(number) for number in range(1, 100)])
    with pytest.raises(RelayDown, match="carry nothing"):
        caller.use(relay)
    relay.close()
    assert set(caller.outcomes.values()) == {"lost closed"}
    assert server.connections < 10


def test_the_relay_goes_down_in_the_middle(fault_server: Serve) -> None:
    """When the server dies, what flies is settled or in doubt, the rest was not asked for, and it is down."""
    server = fault_server()
    relay = Relay(endpoint(server, connections=3))
    caller = Caller([parcel(number) for number in range(1, 1000)])

    def on_outcome(number: int, end: Reply | Lost) -> None:
        caller.on_outcome(number, end)
        if len(caller.outcomes) == 50:
            server.close()

    with pytest.raises(RelayDown):
        relay.carry(caller.next_parcel, caller.on_dots, on_outcome)
    relay.close()
    assert sorted(caller.taken) == sorted(caller.outcomes)
    assert consistent(server, caller.outcomes)
    assert len([end for end in caller.outcomes.values() if end.startswith("begun")]) <= 3
    assert len(caller.taken) < 200


def test_an_open_that_hangs_holds_up_nobody(fault_server: Serve) -> None:
    """While one connection is slow to open the others carry, and closing does not wait for it."""
    server = fault_server(("banner#2", None, "hang"))
    got = carry(server, 200, connections=2)
    assert set(got.values()) == {"250"}
    for thread in threading.enumerate():
        if thread.name == "opening":
            thread.join(20)
            assert not thread.is_alive()


class CallerError(Exception):
    """Something went wrong in the caller's own function."""


@pytest.mark.parametrize("fails", ["next_parcel", "on_dots", "on_outcome"])
def test_a_caller_that_fails(fault_server: Serve, fails: str) -> None:
    """When the caller's function raises, nothing more begins, what flies is told, and the error comes out."""
    server = fault_server()
    relay = Relay(endpoint(server, connections=2))
    caller = Caller([parcel(number) for number in range(1, 100)])

    def failing(name: str) -> Callable[..., Any]:
        method = getattr(caller, name)

        def call(*args: Any) -> Any:
            result = method(*args)
            if name == fails and len(caller.taken) >= 10:
                raise CallerError
            return result

        return call

    with pytest.raises(CallerError):
        relay.carry(failing("next_parcel"), failing("on_dots"), failing("on_outcome"))
    relay.close()
    told = set(caller.taken) - set(caller.outcomes)
    # A parcel that next_parcel made but never gave is the caller's.
    assert told == ({caller.taken[-1]} if fails == "next_parcel" else set())
    assert "begun" not in "".join(caller.outcomes.values())
    assert consistent(server, caller.outcomes)


# -- what goes on the wire -------------------------------------------------------------------------


@pytest.mark.parametrize("security", ["plain", "tls"])
def test_long_messages(fault_server: Serve, certificates: Path, security: str) -> None:
    """A message larger than any buffer arrives whole, also over TLS, with dots doubled."""
    server = fault_server(security=security)
    relay = Relay(endpoint(server, ca_file=certificates / "ca.pem", connections=2))
    data = b".A line of a long mail.\r\n" * 100_000
    assert set(Caller([parcel(number, data) for number in range(1, 5)]).use(relay).values()) == {"250"}
    relay.close()
    assert all(message == stuff(data) for _, message in server.delivered)
    assert len(server.delivered) == 4


def test_one_that_cannot_go(fault_server: Serve) -> None:
    """What this server cannot take is refused here for that one recipient, while the others go."""
    server = fault_server(offer="PIPELINING SIZE=1000")
    relay = Relay(endpoint(server))
    caller = Caller(
        [
            parcel(1),
            Parcel(2, "b@example.org", "δ@example.com", BODY, smtputf8=True),
            parcel(3, b"line\r\n" * 1000),
            parcel(4, b"a\n.\r\nMAIL FROM:<evil@example.net>\r\n"),
            Parcel(5, "b@example.org", "p@example.com>\r\nRCPT TO:<x@example.net", BODY),
            parcel(6),
        ]
    )
    ends = caller.use(relay)
    relay.close()
    assert ends == {1: "250", 2: "550", 3: "552", 4: "lost malformed", 5: "553", 6: "250"}
    assert [address for address, _ in server.heard] == ["p1@example.com", "p6@example.com"]


def test_parameters(fault_server: Serve) -> None:
    """SIZE, DSN and SMTPUTF8 parameters are sent where offered, and only one recipient an envelope."""
    server = fault_server()
    relay = Relay(endpoint(server))
    Caller([Parcel(1, "b@example.org", "δ@example.com", BODY, envid="e+1", smtputf8=True)]).use(relay)
    relay.close()
    assert server.commands[:4] == [
        "ehlo client.example",
        "MAIL FROM:<b@example.org> BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=e+2B1",
        "RCPT TO:<δ@example.com> NOTIFY=FAILURE,DELAY",
        "DATA",
    ]


def test_never_the_body_of_a_refused_one(fault_server: Serve) -> None:
    """After a refused RCPT whose DATA says 354, a lone dot goes out and no message."""
    server = fault_server(("rcpt#2", "550 5.1.1 unknown", "go"), ("data#2", "354 go", "go"))
    assert carry(server) == {**ALL_SENT, 2: "550"}
    assert server.lone_dots == 1
    assert len(server.heard) == 2
