"""The open connections to the relay, driven by one thread with a selector.

Owns the sockets, the patience with each, and when another is opened. Refuses: to block (only `Opening`
does, in threads of its own), and to know what an answer means (`smtp` does).
"""

import contextlib
import selectors
import socket
import ssl
import time
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Final

from worker.endpoints import Endpoint, RelayDown
from worker.errands import Errand
from worker.handshake import Opening
from worker.parcels import Offer, Outcome
from worker.replies import Reply
from worker.smtp import Phase, Session

#: Bytes read at a time. No smaller than a TLS record, so that none stays behind where no selector sees it.
_CHUNK: Final = 16384
#: One TLS record at most is written at a time: a write that did not finish then surely did not leave, for
#: the peer cannot open a part of it.
_RECORD: Final = 16384
#: Seconds between two looks at who is overdue, at most.
_LOOK: Final = 1.0
#: Links in a row that broke before one parcel was answered; then the relay counts as down.
_BARREN: Final = 3
#: Seconds until a connection that could not be opened, while others work, is tried again.
_RETRY: Final = 30.0
_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


@dataclass(slots=True, eq=False)
class _Link:
    """One open connection."""

    sock: socket.socket
    session: Session
    #: It speaks TLS.
    secure: bool
    #: When something last moved (monotonic seconds).
    since: float
    #: What the selector watches for.
    watched: int = _READ
    #: How many replies it had when last looked at.
    answers: int = 0
    #: It has taken a parcel.
    used: bool = False
    #: An answer about a parcel has come.
    fruitful: bool = False


class Fleet:
    """Carries one errand at a time over as many connections as it needs, and keeps them for the next."""

    def __init__(self, endpoint: Endpoint, context: ssl.SSLContext) -> None:
        """Open nothing yet."""
        self._endpoint = endpoint
        self._context = context
        self._patience = endpoint.timeouts
        self._selector = selectors.DefaultSelector()
        self._links: set[_Link] = set()
        self._idle: set[_Link] = set()
        self._openings: set[Opening] = set()
        self._opened: SimpleQueue[Opening] = SimpleQueue()
        self._bell, self._clapper = socket.socketpair()
        self._bell.settimeout(0.0)
        self._clapper.settimeout(0.0)
        self._selector.register(self._bell, _READ, None)
        self._ceiling = endpoint.connections
        self._ceiling_until = 0.0
        self._barren = 0
        self._next_look = 0.0
        patience = self._patience
        self._steps = {
            Phase.MAIL: patience.command,
            Phase.RCPT: patience.command,
            Phase.RSET: patience.command,
            Phase.DATA: patience.data,
            Phase.DOT: patience.final,
            Phase.LONE_DOT: patience.final,
        }
        shortest = min(*self._steps.values(), patience.block, patience.idle, patience.drain)
        self._look_every = min(_LOOK, shortest / 4)

    def carry(self, errand: Errand) -> None:
        """Run until the errand is done and nothing is in flight."""
        self._serve(0.0, errand)  # what the server said, or closed, while we were away
        self._look(errand, time.monotonic())
        self._run(errand)

    def wind_up(self, errand: Errand) -> None:
        """After a failure of the caller's: begin nothing more, and wait a little for what is in flight."""
        errand.wind_up(time.monotonic() + self._patience.drain)
        for link in tuple(self._links):
            if link.session.closing or link.session.final_dot is not None:
                self._drop(errand, link, "stopped")
        self._run(errand)

    def stop(self, errand: Errand) -> None:
        """Cut the links that still have a parcel in hand."""
        for link in tuple(self._links):
            if not link.session.idle:
                self._drop(errand, link, "stopped")

    def close(self) -> None:
        """Say good-bye where nothing is in flight, and close everything."""
        for link in tuple(self._links):
            self._quit(link)
        for opening in self._openings:
            opening.abandon()
        self._openings.clear()
        self._selector.close()
        self._bell.close()
        self._clapper.close()

    # -- the loop ----------------------------------------------------------------------------------

    def _run(self, errand: Errand) -> None:
        while True:
            self._employ(errand)
            if errand.drained and all(link.session.idle for link in self._links):
                return
            now = time.monotonic()
            if errand.give_up_at is not None and now >= errand.give_up_at:
                return
            self._open_more(errand, now)
            self._serve(self._pause(errand, now), errand)
            if now >= self._next_look:
                self._look(errand, now)

    def _employ(self, errand: Errand) -> None:
        """Find work for the links that have none."""
        for link in tuple(self._idle):
            if not errand.open:
                return
            self._advance(errand, link)

    def _pause(self, errand: Errand, now: float) -> float:
        """Seconds until something is to be done even if no socket stirs."""
        until = self._next_look
        if not errand.drained and errand.resume_at > now:
            until = min(until, errand.resume_at)
        return max(until - now, 0.0)

    def _serve(self, wait: float, errand: Errand) -> None:
        """Wait for sockets and serve those that stir."""
        for key, mask in self._selector.select(wait):
            link = key.data
            if link is None:
                self._collect(errand)
            elif not mask & _READ or self._read(errand, link):
                self._advance(errand, link)

    def _look(self, errand: Errand, now: float) -> None:
        """Drop the links that answer too late, and close those that have had no work for long."""
        self._next_look = now + self._look_every
        for link in tuple(self._links):
            waited = now - link.since
            if link in self._idle:
                if waited > self._patience.idle:
                    self._quit(link)
            elif waited > self._limit(link.session):
                self._drop(errand, link, "timeout")

    def _limit(self, session: Session) -> float:
        """Seconds that the present step may take."""
        phase = session.awaiting
        if session.pending or phase is None:
            return self._patience.block
        return self._steps[phase]

    # -- one link ----------------------------------------------------------------------------------

    def _read(self, errand: Errand, link: _Link) -> bool:
        """Hear what has arrived; False when the link is gone."""
        try:
            data = link.sock.recv(_CHUNK)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return True
        except OSError as error:
            self._drop(errand, link, "tls" if isinstance(error, ssl.SSLError) else "reset")
            return False
        if not data:
            self._drop(errand, link, "closed")
            return False
        session = link.session
        ends = session.feed(data)
        if session.answers != link.answers:  # half a reply is no progress
            link.answers = session.answers
            link.since = time.monotonic()
        if session.closing:
            self._drop(errand, link, session.closing, ends)
            return False
        if ends:
            self._note(link)
            errand.tell(ends)
        return True

    def _advance(self, errand: Errand, link: _Link) -> None:
        """Give the link its next parcel if it can take one, and write what is due."""
        session = link.session
        while session.hungry and errand.open:
            parcel = errand.ask()
            if parcel is None:
                break
            end = session.take(parcel)
            if end is None:
                link.used = True
                self._idle.discard(link)
            else:
                errand.tell([(parcel.id, end)])
        dot = session.final_dot
        if dot is not None:
            errand.dot(dot)
        session.flush()
        if self._write(errand, link) and session.idle:
            if session.spent:
                self._quit(link)
            else:
                self._idle.add(link)

    def _write(self, errand: Errand, link: _Link) -> bool:
        """Write as much as the socket takes; False when the link is gone."""
        session = link.session
        data = session.pending
        wanted = _READ
        while data:
            try:
                count = link.sock.send(data[:_RECORD] if link.secure else data)
            except ssl.SSLWantReadError:
                break
            except (BlockingIOError, ssl.SSLWantWriteError):
                wanted = _READ | _WRITE
                break
            except OSError:
                self._drop(errand, link, "reset", self._last_words(link))
                return False
            session.wrote(count)
            link.since = time.monotonic()
            data = session.pending
        if wanted != link.watched:
            link.watched = wanted
            self._selector.modify(link.sock, wanted, link)
        return True

    def _last_words(self, link: _Link) -> list[Outcome]:
        """Hear what a server said before it closed: the answer to a final dot may be there."""
        ends: list[Outcome] = []
        with contextlib.suppress(OSError):
            while not link.session.closing and (data := link.sock.recv(_CHUNK)):
                ends += link.session.feed(data)
        return ends

    def _note(self, link: _Link) -> None:
        """The link has brought an answer about a parcel: the relay works."""
        link.fruitful = True
        self._barren = 0

    def _drop(self, errand: Errand, link: _Link, reason: str, ends: list[Outcome] | None = None) -> None:
        """Cut a link, and say how everything it had in hand ended."""
        self._forget(link)
        ends = [*(ends or ()), *link.session.lost(reason)]
        if any(isinstance(end, Reply) for _, end in ends):
            self._note(link)
        elif link.used and not link.fruitful:
            self._barren += 1
            if self._barren >= _BARREN:
                self._barren = 0
                errand.fail(self._useless(link.session.closing))
        errand.tell(ends)

    def _useless(self, reason: str) -> RelayDown:
        where = f"{self._endpoint.host}:{self._endpoint.port}"
        return RelayDown(
            f"connections to {where} open but carry nothing ({reason})",
            remedy="Ask whoever runs the relay; it is tried again later.",
        )

    def _quit(self, link: _Link) -> None:
        """Close a link politely; whether QUIT arrives does not matter (RFC 5321 section 4.1.1.10)."""
        if link.session.idle and not link.session.pending:
            with contextlib.suppress(OSError):
                link.sock.send(b"QUIT\r\n")
        self._forget(link)

    def _forget(self, link: _Link) -> None:
        self._selector.unregister(link.sock)
        self._links.discard(link)
        self._idle.discard(link)
        link.sock.close()

    # -- more links --------------------------------------------------------------------------------

    def _open_more(self, errand: Errand, now: float) -> None:
        """Open as many as are open already while all are busy and there is more to carry, or the first."""
        if errand.drained or errand.resume_at > now:
            return
        if now >= self._ceiling_until:
            self._ceiling = self._endpoint.connections
        links = len(self._links)
        if links and (self._idle or not errand.more):
            return
        wanted = min(max(links, 1), self._ceiling - links)
        while len(self._openings) < wanted:
            self._openings.add(Opening(self._endpoint, self._context, self._ring))

    def _ring(self, opening: Opening) -> None:
        """Tell the driving thread that a connection is open, or is not to be had."""
        self._opened.put(opening)
        with contextlib.suppress(OSError):  # full: it will wake anyhow; closed: nobody waits
            self._clapper.send(b"\0")

    def _collect(self, errand: Errand) -> None:
        """Take over what the opening threads have finished."""
        with contextlib.suppress(BlockingIOError):
            self._bell.recv(_CHUNK)
        with contextlib.suppress(Empty):
            while True:
                opening = self._opened.get_nowait()
                self._openings.discard(opening)
                if isinstance(opening.end, Offer):
                    self._adopt(opening, opening.end)
                elif opening.end is not None:
                    self._turned_down(errand, opening.end)

    def _adopt(self, opening: Opening, offer: Offer) -> None:
        """Take over an open connection; it has no work yet."""
        sock = opening.greeter.sock
        if sock is None:
            return
        sock.settimeout(0.0)
        session = Session(offer, limit=self._endpoint.messages_per_connection)
        link = _Link(sock, session, isinstance(sock, ssl.SSLSocket), time.monotonic())
        self._selector.register(sock, _READ, link)
        self._links.add(link)
        self._idle.add(link)

    def _turned_down(self, errand: Errand, down: RelayDown) -> None:
        """Make do with the connections there are; with none, the relay is down."""
        working = len(self._links) + len(self._openings)
        if working:
            self._ceiling = working
            self._ceiling_until = time.monotonic() + _RETRY
        elif not errand.drained:
            errand.fail(down)
