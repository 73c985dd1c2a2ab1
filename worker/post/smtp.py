"""The SMTP conversation that carries parcels, without a socket: what to write next, what the answers mean.

Owns the reader of replies (`Replies`) and `Session`, one connection's pipelined or lock-step
transactions (RFC 5321, RFC 2920). Pure. Refuses to match a reply to a command by its text (one reply per
command, counted), and to send a final dot for anything but a whole message whose envelope was accepted.
"""

import re
from collections import deque
from collections.abc import Iterator
from enum import Enum

from worker.post.parcels import Lost, Offer, Outcome, Parcel, envelope, stuff, verdict
from worker.post.replies import Reply, ReplyError, sender_fault

#: Longest reply line taken, in octets (RFC 5321 section 4.5.3.1.5 asks for 512) ...
MAX_LINE = 2048
#: ... and most lines of one reply. Beyond either it is no mail server.
MAX_LINES = 1000
_DONE, _GO_ON, _CLOSING = range(200, 300), 354, 421


class Replies:
    """Bytes as they arrive into replies, each a list of its lines without line ends."""

    __slots__ = ("_lines", "_rest")

    def __init__(self) -> None:
        self._rest = b""
        self._lines: list[bytes] = []

    @property
    def pending(self) -> bool:
        """Some bytes of an unfinished reply are held."""
        return bool(self._rest or self._lines)

    def feed(self, data: bytes) -> Iterator[list[bytes]]:
        """Yield each reply that these bytes complete; however they are cut, the replies are the same.

        Raises:
            ReplyError: what arrives is not a reply, or is one without end.
        """
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        for line in lines:
            if len(line) > MAX_LINE or not _REPLY_LINE(line):
                raise ReplyError("not an SMTP reply")
            self._lines.append(line[:-1] if line.endswith(b"\r") else line)
            if line[3:4] != b"-":
                reply, self._lines = self._lines, []
                yield reply
            elif len(self._lines) >= MAX_LINES:
                raise ReplyError("a reply without end")
        if len(self._rest) > MAX_LINE:
            raise ReplyError("a reply line without end")


_REPLY_LINE = re.compile(rb"[2-5][0-9][0-9](?:[ -]|\r?$)").match


class Phase(Enum):
    """The command, or the end of a message, whose reply is awaited: each has its own patience."""

    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    DOT = "end of message"
    LONE_DOT = "end of no message"
    RSET = "RSET"


_GROUP = (Phase.MAIL, Phase.RCPT, Phase.DATA)


class Session:
    """One connection's transactions, after EHLO and AUTH: at most one message and one envelope on the way.

    The driver alternates: `feed` what arrived and pass the outcomes on; while `hungry`, `take` a parcel;
    record `final_dot`, then `flush`, write `pending` and tell `wrote` how much left. Once `closing` is
    set, or the link is gone, `lost` says how the rest ended. Every parcel taken has exactly one outcome.
    """

    __slots__ = (
        "_awaited",
        "_begun",
        "_dot_at",
        "_dot_left",
        "_due",
        "_limit",
        "_offset",
        "_opening",
        "_out",
        "_rcpt_taken",
        "_ready",
        "_refusal",
        "_replies",
        "_sent",
        "_settled",
        "answers",
        "closing",
        "offer",
    )

    def __init__(self, offer: Offer, *, limit: int = 0) -> None:
        """Start idle; `limit` is the number of parcels it may carry, 0 for any number."""
        self.offer = offer
        #: Why no more may be exchanged on this link; "" while it is good.
        self.closing = ""
        #: Replies that have come, so that a driver sees progress.
        self.answers = 0
        self._limit = limit
        self._begun = 0
        self._replies = Replies()
        self._due: deque[tuple[Phase, bytes]] = deque()
        self._awaited: deque[Phase] = deque()
        self._settled: list[Outcome] = []
        #: The parcel whose envelope is out, the one told to go on, the one whose dot is out.
        self._opening: Parcel | None = None
        self._ready: Parcel | None = None
        self._sent: Parcel | None = None
        #: The first refusal of the opening envelope, and whether its RCPT was taken.
        self._refusal: Reply | None = None
        self._rcpt_taken = False
        self._out = b""
        self._offset = 0
        self._dot_at = 0
        self._dot_left = False

    @property
    def idle(self) -> bool:
        """No parcel is in hand."""
        return self._opening is None and self._ready is None and self._sent is None

    @property
    def spent(self) -> bool:
        """It has carried as many parcels as it may."""
        return 0 < self._limit <= self._begun

    @property
    def hungry(self) -> bool:
        """Another parcel's envelope could go out with the next write."""
        if self._opening is not None or self._sent is not None or self.closing or self.spent:
            return False
        return self.offer.pipelining or not (self._ready or self._due or self._awaited)

    @property
    def awaiting(self) -> Phase | None:
        """What the next reply will answer."""
        return self._awaited[0] if self._awaited else None

    @property
    def final_dot(self) -> int | None:
        """The parcel whose final dot the next `flush` would put on its way."""
        return self._ready.id if self._ready is not None else None

    @property
    def pending(self) -> bytes | memoryview:
        """What is still to be written."""
        return memoryview(self._out)[self._offset :] if self._offset else self._out

    def take(self, parcel: Parcel) -> Reply | Lost | None:
        """Accept a parcel as the next transaction, or say why this link cannot carry it (None: accepted)."""
        judged = verdict(parcel, self.offer)
        if judged is None:
            self._begun += 1
            self._opening = parcel
            self._refusal = None
            self._rcpt_taken = False
            self._due.extend(zip(_GROUP, envelope(parcel, self.offer), strict=True))
        return judged

    def flush(self) -> None:
        """Put what is due into `pending`: all of it, or one command where PIPELINING is not offered."""
        if not self._due or (self._awaited and not self.offer.pipelining):
            return
        parts = [self._out[self._offset :]] if self._out else []
        while self._due:
            phase, words = self._due.popleft()
            self._awaited.append(phase)
            if phase is Phase.DOT:
                self._ready, self._sent = None, self._ready
                self._dot_left = False
                self._dot_at = sum(map(len, parts)) + len(words)
                parts.append(words)
                words = b".\r\n"
            parts.append(words)
            if not self.offer.pipelining:
                break
        self._out = b"".join(parts)
        self._offset = 0

    def wrote(self, count: int) -> None:
        """Note that so many octets of `pending` have left."""
        self._offset += count
        if self._sent is not None and self._offset > self._dot_at:
            self._dot_left = True
        if self._offset >= len(self._out):
            self._out = b""
            self._offset = 0

    def feed(self, data: bytes) -> list[Outcome]:
        """Take bytes from the server and return the outcomes which they settle."""
        try:
            for lines in self._replies.feed(data):
                self._answer(lines)
                if self.closing:
                    break
        except ReplyError:
            self.closing = "garbled"
        settled, self._settled = self._settled, []
        return settled

    def lost(self, reason: str) -> list[Outcome]:
        """End everything in hand, the link being gone or of no more use, and say how each ended."""
        self.closing = self.closing or reason
        ends: list[Outcome] = []
        if self._sent is not None:
            ends.append((self._sent.id, Lost(begun=self._dot_left, reason=self.closing)))
        if self._ready is not None:
            ends.append((self._ready.id, Lost(begun=False, reason=self.closing)))
        if self._opening is not None:
            # A refusal that has arrived stands, whatever came of the link.
            end = self._refusal or Lost(begun=False, reason=self.closing)
            ends.append((self._opening.id, end))
        self._sent = self._ready = self._opening = None
        return ends

    def _answer(self, lines: list[bytes]) -> None:
        """Give one reply to the command it answers: the oldest that has none."""
        code = int(lines[-1][:3])
        self.answers += 1
        if not self._awaited:
            # Unasked: a server that says good-bye to an idle link, or one that cannot count.
            self.closing = "closing" if code == _CLOSING else "protocol"
            return
        phase = self._awaited.popleft()
        if phase is Phase.DOT:
            self._end(lines)
        elif phase is Phase.DATA:
            self._data(code, lines)
        elif phase is Phase.MAIL or phase is Phase.RCPT:
            self._envelope_reply(phase, code, lines)
        elif phase is Phase.RSET and code not in _DONE:
            self.closing = "protocol"
        if code == _CLOSING:
            self.closing = "closing"

    def _envelope_reply(self, phase: Phase, code: int, lines: list[bytes]) -> None:
        """Note what became of MAIL or RCPT."""
        if code in _DONE:
            self._rcpt_taken = phase is Phase.RCPT
            return
        reply = Reply.parse(lines)
        if not (reply.temporary or reply.permanent):
            self.closing = "protocol"
        elif code == _CLOSING and phase is Phase.MAIL and sender_fault(reply) is None:
            pass  # the link goes before it heard whom the parcel is for: no verdict on them
        elif self._refusal is None:
            self._refusal = reply
            if not self.offer.pipelining:
                self._refuse(reply)

    def _data(self, code: int, lines: list[bytes]) -> None:
        """Go on, or clean up after a refused envelope (RFC 2920 section 3.1)."""
        if code != _GO_ON:
            reply = Reply.parse(lines)
            if reply.temporary or reply.permanent:
                self._refuse(self._refusal or reply)
            else:
                # It said more than it was asked: what looked like a refusal was the answer to something else.
                self._refusal = None
                self.closing = "protocol"
        elif self._refusal is None:
            parcel, self._opening = self._opening, None
            self._ready = parcel
            if parcel is not None:
                self._due.append((Phase.DOT, stuff(parcel.data)))
        elif self._rcpt_taken:
            # MAIL refused, RCPT taken, and now it wants a message: a dot would deliver an empty one.
            self.closing = "protocol"
        else:
            self._due.append((Phase.LONE_DOT, b".\r\n"))
            self._refuse(self._refusal)

    def _refuse(self, reply: Reply) -> None:
        """Settle the opening envelope as refused and start afresh."""
        if self._opening is not None:
            self._settled.append((self._opening.id, reply))
        self._opening = None
        kept = [item for item in self._due if item[0] is Phase.LONE_DOT]
        self._due.clear()
        self._due.extend([*kept, (Phase.RSET, b"RSET\r\n")])

    def _end(self, lines: list[bytes]) -> None:
        """Settle the message whose dot was answered."""
        if self._sent is None:
            return
        reply = Reply.parse(lines)
        if reply.accepted and self._dot_left:
            self._settled.append((self._sent.id, reply))
            self._sent = None
        elif reply.temporary or reply.permanent:
            self._settled.append((self._sent.id, reply))
            self._sent = None
            if not self._dot_left:
                # Refused in the middle of the body: a dot now would have an answer of its own.
                self.closing = "protocol"
        else:
            self.closing = "protocol"
