"""Where the relay is, how we speak to it, how patient we are, and the error that says it is down.

Refuses: to know how any of it is done.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from worker.errors import Unavailable
from worker.post.replies import Trouble


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Patience with each step in seconds, never one timer for a whole mail (RFC 5321 section 4.5.3.2)."""

    #: Connecting, for each address of the host, and the TLS handshake.
    connect: float = 30.0
    #: Greeting, EHLO, AUTH, MAIL, RCPT, RSET: each reply whole, however it drips.
    command: float = 300.0
    #: From DATA to "go ahead".
    data: float = 120.0
    #: For the next piece of a message to be taken.
    block: float = 180.0
    #: After the final dot; cutting it short leaves mail in doubt.
    final: float = 600.0
    #: A connection without work is closed by us after this long, before the server does it.
    idle: float = 30.0
    #: When a callback fails: how long the answers to what is under way are still awaited.
    drain: float = 30.0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The relay and how we speak to it."""

    #: Name, as in its certificate.
    host: str
    port: int
    #: "starttls" (then TLS is required), "tls" from the first byte, or "plain".
    security: Literal["starttls", "tls", "plain"] = "starttls"
    #: For AUTH; "" for none.
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    #: Name we give in EHLO.
    helo: str = "[127.0.0.1]"
    #: Speak plainly to another machine than this one, or give the password on a plain line to this one.
    allow_plain: bool = False
    #: Certificates to trust, instead of the system's.
    ca_file: Path | None = None
    #: Most connections at a time.
    connections: int = 4
    #: Parcels one connection carries before it is renewed; 0 for any number.
    messages_per_connection: int = 1000
    timeouts: Timeouts = field(default_factory=Timeouts)


class RelayDown(Unavailable):
    """No connection to the relay can be opened, or none holds.

    Attributes:
        trouble: `AUTH` if it does not accept our name and password, `RATE` or `SENDER` if its greeting
            says so, else `RELAY`.
    """

    def __init__(self, message: str, *, remedy: str = "", trouble: Trouble = Trouble.RELAY) -> None:
        """Take the message, the remedy and what is in trouble."""
        super().__init__(message, remedy=remedy)
        self.trouble = trouble
