"""The open connections to the relay, driven by one thread with a selector.

Owns who gets the next parcel, when another connection is opened, and the patience with each. Refuses: to
block (only `Opening` does, in threads of its own), and to know what an answer means (`smtp` does).
"""

import contextlib
import selectors
import socket
import ssl
import time
from collections.abc import Iterable, Sequence
from queue import Empty, SimpleQueue
from typing import Final

from worker.post.connections import Connection
from worker.post.endpoints import Endpoint, RelayDown, Timeouts
from worker.post.errands import Errand
from worker.post.handshake import Opening
from worker.post.parcels import STOPPED, Offer, Outcome
from worker.post.replies import Reply
from worker.post.smtp import Phase, Session

#: Seconds between two looks at who is overdue, at most.
_LOOK: Final = 1.0
#: Connections in a row that broke before one parcel was answered; then the relay counts as down.
_BARREN: Final = 3
#: Seconds until a connection that could not be opened, while others work, is tried again.
_RETRY: Final = 30.0
#: Connections whose final dots are told at once: the caller writes them down where a successor finds them,
#: which costs the same for one as for six. With more, the first waits while mails for the others are made.
_TOGETHER: Final = 6
#: Seconds after which a connection on its way up counts as slow, and another may be opened instead.
_SLOW: Final = 2.0


def _steps(patience: Timeouts) -> dict[Phase, float]:
    """Say how long each answer may take."""
    return {
        Phase.MAIL: patience.command,
        Phase.RCPT: patience.command,
        Phase.RSET: patience.command,
        Phase.DATA: patience.data,
        Phase.DOT: patience.final,
        Phase.LONE_DOT: patience.final,
    }


class Fleet:
    """Carries one errand at a time over as many connections as it needs, and keeps them for the next."""

    def __init__(self, endpoint: Endpoint, context: ssl.SSLContext) -> None:
        """Open nothing yet."""
        self._endpoint = endpoint
        self._context = context
        self._patience = endpoint.timeouts
        self._steps = _steps(self._patience)
        shortest = min(*self._steps.values(), self._patience.block, self._patience.idle, self._patience.drain)
        self._look_every = min(_LOOK, shortest / 4)
        self._next_look = 0.0
        self._links: set[Connection] = set()
        self._idle: set[Connection] = set()
        self._openings: set[Opening] = set()
        self._opened: SimpleQueue[Opening] = SimpleQueue()
        self._most = endpoint.connections
        self._ceiling = self._most
        self._ceiling_until = 0.0
        self._barren = 0
        self._bell, self._clapper = socket.socketpair()
        self._bell.settimeout(0.0)
        self._clapper.settimeout(0.0)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._bell, selectors.EVENT_READ, None)

    def allow(self, connections: int) -> None:
        """Hold at most so many from now on; those above it close when they have nothing in flight."""
        self._most = connections
        self._ceiling = min(self._ceiling, connections)
        for link in tuple(self._idle)[: max(0, len(self._links) - connections)]:
            self._quit(link)

    def carry(self, errand: Errand) -> None:
        """Run until the errand is done and nothing is in flight."""
        self._serve(errand, 0.0)  # what the server said, or closed, while we were away
        self._look(errand, time.monotonic())
        while True:
            self._employ(errand)
            if errand.drained and all(link.session.idle for link in self._links):
                return
            now = time.monotonic()
            if errand.give_up_at is not None and now >= errand.give_up_at:
                return
            self._open_more(errand, now)
            self._serve(errand, self._pause(errand, now))
            if now >= self._next_look:
                self._look(errand, now)

    def stop(self, errand: Errand) -> None:
        """Cut the connections that still have a parcel in hand."""
        for link in tuple(self._links):
            if not link.session.idle:
                link.session.closing = link.session.closing or STOPPED
                self._drop(errand, link)

    def close(self) -> None:
        """Say good-bye where nothing is in flight, and close everything."""
        for link in tuple(self._links):
            link.quit()
            self._forget(link)
        for opening in self._openings:
            opening.abandon()
        self._openings.clear()
        self._selector.close()
        self._bell.close()
        self._clapper.close()

    # -- the loop ----------------------------------------------------------------------------------

    def _employ(self, errand: Errand) -> None:
        """Find work for the connections that have none."""
        if self._idle and errand.open:
            self._advance(errand, tuple(self._idle))

    def _pause(self, errand: Errand, now: float) -> float:
        """Seconds until something is to be done even if no socket stirs."""
        until = self._next_look
        if not errand.drained and errand.resume_at > now:
            until = min(until, errand.resume_at)
        return max(until - now, 0.0)

    def _serve(self, errand: Errand, wait: float) -> None:
        """Wait for sockets and serve those that stir."""
        self._advance(errand, self._stirred(errand, wait))

    def _stirred(self, errand: Errand, wait: float) -> list[Connection]:
        """Wait for sockets, hear what they say, and return the connections that may have something to do."""
        stirred: list[Connection] = []
        for key, mask in self._selector.select(wait):
            link = key.data
            if link is None:
                self._collect(errand)
            elif link.leaving:
                if link.parted():
                    self._forget(link)
            elif not link.session.closing:
                if mask & selectors.EVENT_READ:
                    self._hear(errand, link)
                stirred.append(link)
        return stirred

    def _look(self, errand: Errand, now: float) -> None:
        """Drop the connections that answer too late, and close those without work."""
        self._next_look = now + self._look_every
        for link in tuple(self._links):
            if not link.overdue(now, self._patience, self._steps):
                continue
            if link.leaving:
                self._forget(link)
            elif link.session.idle:
                self._quit(link)
            else:
                link.session.closing = "timeout"
                self._drop(errand, link)

    # -- one connection ----------------------------------------------------------------------------

    def _hear(self, errand: Errand, link: Connection) -> None:
        """Pass on what a connection has to say."""
        ends = link.hear()
        if ends:
            self._note(link)
            errand.tell(ends)

    def _advance(self, errand: Errand, links: Sequence[Connection]) -> None:
        """Give connections their next parcels, and write what is due, some connections at a time."""
        for start in range(0, len(links), _TOGETHER):
            self._advance_some(errand, self._supplied(errand, links[start : start + _TOGETHER]))

    def _supplied(self, errand: Errand, links: Sequence[Connection]) -> Sequence[Connection]:
        """Give connections their next parcels, and those that have stirred meanwhile; return all of them.

        One that stirs a second time may have heard "go on" only now: without its next parcel, its body would
        leave alone and the next envelope a round trip later.
        """
        supplied: dict[Connection, None] = {}
        while links := [link for link in links if link in self._links]:
            for link in links:
                self._supply(errand, link)
            known = len(supplied)
            supplied |= dict.fromkeys(links)
            links = self._stirred(errand, 0.0) if known < len(supplied) < _TOGETHER else []
        return list(supplied)

    def _advance_some(self, errand: Errand, links: Sequence[Connection]) -> None:
        ending = [link for link in links if not link.session.closing and link.session.final_dot is not None]
        if ending and not errand.dots(
            [dot for link in ending if (dot := link.session.final_dot) is not None]
        ):
            for link in ending:
                link.session.closing = STOPPED
        for link in links:
            if link.session.closing:
                self._drop(errand, link)
            else:
                link.session.flush()
                self._say(errand, link)

    def _supply(self, errand: Errand, link: Connection) -> None:
        """Give a connection its next parcel if it can take one."""
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

    def _say(self, errand: Errand, link: Connection) -> None:
        """Write, and see what the connection is to do next."""
        watched = link.wanted
        last_words = link.say()
        if link.session.closing:
            self._drop(errand, link, last_words)
            return
        if link.wanted != watched:
            self._selector.modify(link.sock, link.wanted, link)
        if link.session.idle:
            if link.session.spent:
                self._quit(link)
            else:
                self._idle.add(link)

    def _note(self, link: Connection) -> None:
        """An answer about a parcel has come: the relay works."""
        link.fruitful = True
        self._barren = 0

    def _drop(self, errand: Errand, link: Connection, last_words: Iterable[Outcome] = ()) -> None:
        """Cut a connection, and say how everything it had in hand ended."""
        self._forget(link)
        ends = [*last_words, *link.session.lost("closed")]
        if any(isinstance(end, Reply) for _, end in ends):
            self._note(link)
        elif link.used and not link.fruitful:
            self._barren += 1
            if self._barren >= _BARREN:
                self._barren = 0
                errand.fail(self._useless(link.session.closing))
        errand.tell(ends)

    def _useless(self, reason: str) -> RelayDown:
        return RelayDown(
            f"connections to {self._endpoint.host}:{self._endpoint.port} open but carry nothing ({reason})",
            remedy="Ask whoever runs the relay; it is tried again later.",
        )

    def _quit(self, link: Connection) -> None:
        """Say good-bye, and keep the place until the server has closed: we never hold more than we may."""
        link.quit()
        self._idle.discard(link)

    def _forget(self, link: Connection) -> None:
        self._links.discard(link)
        self._idle.discard(link)
        with contextlib.suppress(KeyError):  # a signal's exception may have come between before
            self._selector.unregister(link.sock)
        link.sock.close()

    # -- more connections --------------------------------------------------------------------------

    def _open_more(self, errand: Errand, now: float) -> None:
        """Open as many as are open already while all are busy and there is more to carry, or the first.

        One that takes long to open holds no other up.
        """
        if errand.drained or errand.resume_at > now:
            return
        if now >= self._ceiling_until:
            self._ceiling = self._most
        links = len(self._links)
        if links >= self._ceiling or (links and (self._idle or not errand.more)):
            return
        slow = sum(now - opening.since > _SLOW for opening in self._openings)
        wanted = min(max(links, 1) + slow, self._ceiling - links)
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
            self._bell.recv(64)
        with contextlib.suppress(Empty):
            while True:
                opening = self._opened.get_nowait()
                self._openings.discard(opening)
                if isinstance(opening.end, Offer) and opening.greeter.sock is not None:
                    self._adopt(opening.greeter.sock, opening.end)
                elif isinstance(opening.end, RelayDown):
                    self._turned_down(errand, opening.end)

    def _adopt(self, sock: socket.socket, offer: Offer) -> None:
        """Take over an open connection; it has no work yet."""
        link = Connection(sock, Session(offer, limit=self._endpoint.messages_per_connection))
        self._selector.register(sock, link.wanted, link)
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
