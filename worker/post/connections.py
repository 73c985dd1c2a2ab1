"""One open SMTP connection: its socket, its conversation, and since when it waits.

Owns reading and writing without ever blocking, over plain sockets and TLS alike. Refuses: to know what a
parcel is worth or when to open another (`fleet` does), and to open itself (`handshake` does).
"""

import contextlib
import selectors
import socket
import ssl
import time
from collections.abc import Mapping
from typing import Final

from worker.post.endpoints import Timeouts
from worker.post.parcels import Outcome
from worker.post.smtp import Phase, Session

#: Bytes read at a time. No smaller than a TLS record, so that none stays behind where no selector sees it.
_CHUNK: Final = 16384
#: One TLS record at most is written at a time: a write that did not finish then surely did not leave, for
#: the peer cannot open a part of it.
_RECORD: Final = 16384
#: Bytes written in one turn: then others get theirs, and we hear what the server says to a long body.
_TURN: Final = 262144
#: Seconds for the server to close a connection after QUIT.
_GOODBYE: Final = 2.0
_READ, _BOTH = selectors.EVENT_READ, selectors.EVENT_READ | selectors.EVENT_WRITE
_LATER = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Connection:
    """A socket and its session. When the link breaks, `session.closing` says why."""

    __slots__ = (
        "_answers",
        "_piece",
        "_pieces",
        "fruitful",
        "leaving",
        "session",
        "since",
        "sock",
        "used",
        "wanted",
    )

    def __init__(self, sock: socket.socket, session: Session) -> None:
        """Take over a socket on which mail may flow."""
        sock.settimeout(0.0)
        self.sock = sock
        self.session = session
        #: What the selector should watch for.
        self.wanted = _READ
        #: When something last moved (monotonic seconds).
        self.since = time.monotonic()
        #: It has taken a parcel; an answer about one has come.
        self.used = False
        self.fruitful = False
        #: QUIT is said; the server closes next.
        self.leaving = False
        self._piece = _RECORD if isinstance(sock, ssl.SSLSocket) else _TURN
        self._pieces = _TURN // self._piece
        self._answers = 0

    def hear(self) -> list[Outcome]:
        """Read what has arrived and return the outcomes that it settles."""
        session = self.session
        try:
            data = self.sock.recv(_CHUNK)
        except _LATER:
            return []
        except OSError as error:
            session.closing = "tls" if isinstance(error, ssl.SSLError) else "closed"
            return []
        if not data:
            session.closing = "closed"
            return []
        ends = session.feed(data)
        if session.answers != self._answers:  # half a reply is no progress
            self._answers = session.answers
            self.since = time.monotonic()
        return ends

    def say(self) -> list[Outcome]:
        """Write as much as the socket takes; return outcomes only if the link broke, as its last words."""
        session = self.session
        self.wanted = _READ
        for _ in range(self._pieces):
            piece = session.pending[: self._piece]
            if not piece:
                return []
            try:
                count = self.sock.send(piece)
            except ssl.SSLWantReadError:
                return []
            except (BlockingIOError, ssl.SSLWantWriteError):
                break
            except OSError:
                return self._last_words()
            session.wrote(count)
            self.since = time.monotonic()
        if session.pending:
            self.wanted = _BOTH
        return []

    def _last_words(self) -> list[Outcome]:
        """Hear what a server said before it closed: the answer to a final dot may be there."""
        ends: list[Outcome] = []
        with contextlib.suppress(OSError):
            while not self.session.closing and (data := self.sock.recv(_CHUNK)):
                ends += self.session.feed(data)
        self.session.closing = self.session.closing or "closed"
        return ends

    def quit(self) -> None:
        """Say good-bye, once; whether it arrives does not matter (RFC 5321 section 4.1.1.10)."""
        if self.session.idle and not self.session.pending and not self.leaving:
            with contextlib.suppress(OSError):
                self.sock.send(b"QUIT\r\n")
        self.leaving = True
        self.since = time.monotonic()

    def parted(self) -> bool:
        """After QUIT: tell whether the server has closed the connection."""
        try:
            return not self.sock.recv(_CHUNK)
        except _LATER:
            return False
        except OSError:
            return True

    def overdue(self, now: float, patience: Timeouts, steps: Mapping[Phase, float]) -> bool:
        """Tell whether the present step, a rest or a good-bye has lasted too long."""
        waited = now - self.since
        if self.leaving:
            return waited > _GOODBYE
        if self.session.idle:
            return waited > patience.idle
        phase = self.session.awaiting
        if self.session.pending or phase is None:
            return waited > patience.block
        return waited > steps[phase]
