"""The conversation without a socket: replies counted, envelopes pipelined, dots only after whole messages."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.post.parcels import Lost, Offer, Outcome, Parcel, stuff
from worker.post.replies import Reply, ReplyError
from worker.post.smtp import MAX_LINE, MAX_LINES, Phase, Replies, Session

PIPELINED = Offer(pipelining=True)
LOCK_STEP = Offer()
#: Several people share the machine: no test fails for being slow.
CALM = settings(deadline=None, max_examples=150)
SIZES = st.lists(st.integers(1, 60), min_size=1, max_size=6)


def parcel(number: int, data: bytes = b"Subject: x\r\n\r\n.dot\r\nHello.\r\n") -> Parcel:
    """Make a parcel whose sender and recipient name its number."""
    return Parcel(number, f"b{number}@example.org", f"p{number}@example.com", data)


def pieces(data: bytes, sizes: Sequence[int]) -> Iterator[bytes]:
    """Cut bytes into pieces of these sizes, over and over."""
    sizes_for_ever = cycle(sizes)
    while data:
        size = next(sizes_for_ever)
        yield data[:size]
        data = data[size:]


# -- replies ---------------------------------------------------------------------------------------

LINE = st.sampled_from([b"250 Ok", b"250-more", b"354 go", b"550 5.1.1 no", b"250", b"garbage", b"x" * 2100])


def read(chunks: Iterator[bytes]) -> tuple[list[list[bytes]], bool]:
    """Read all replies, and tell whether the stream turned out to be garbage."""
    replies = Replies()
    got: list[list[bytes]] = []
    try:
        for chunk in chunks:
            got.extend(replies.feed(chunk))
    except ReplyError:
        return got, True
    return got, False


@CALM
@given(st.lists(LINE, max_size=8), st.sampled_from([b"\r\n", b"\n"]), SIZES)
def test_cuts_do_not_matter(lines: list[bytes], end: bytes, sizes: list[int]) -> None:
    """Replies cut at any byte boundary are the same replies, up to the same garbage."""
    stream = b"".join(line + end for line in lines)
    whole: list[list[bytes]] = []
    replies = Replies()
    garbage = False
    try:
        for reply in replies.feed(stream):
            whole.append(reply)  # noqa: PERF402 - what came before the garbage counts
    except ReplyError:
        garbage = True
    cut: list[list[bytes]] = []
    replies = Replies()
    try:
        for piece in pieces(stream, sizes):
            for reply in replies.feed(piece):
                cut.append(reply)  # noqa: PERF402 - as above
    except ReplyError:
        assert garbage
    else:
        assert not garbage
    assert cut == whole


def test_long_but_sane() -> None:
    """A reply of 500 lines is taken, even byte by byte."""
    stream = b"250-keyword\r\n" * 499 + b"250 end\r\n"
    got, garbage = read(pieces(stream, [1]))
    assert not garbage
    assert [len(reply) for reply in got] == [500]


@pytest.mark.parametrize(
    "stream",
    [
        b"250-x\r\n" * (MAX_LINES + 1),
        b"2" * (MAX_LINE + 1),
        b"250 " + b"x" * MAX_LINE + b"\r\n",
        b"HTTP/1.1 200\r\n",
    ],
)
def test_endless_garbage(stream: bytes) -> None:
    """Lines or replies without end are a named error, not a growing buffer."""
    assert read(pieces(stream, [4096]))[1]


# -- a server without a socket ---------------------------------------------------------------------


@dataclass(frozen=True)
class Script:
    """How the server answers one transaction."""

    mail: int = 250
    rcpt: int = 250
    #: A refusal of DATA, or 0 for none.
    data: int = 0
    dot: int = 250
    #: Answer 354 though nobody was accepted.
    go_anyway: bool = False

    @property
    def verdict(self) -> int:
        """The code that settles the parcel."""
        refusals = [code for code in (self.mail, self.rcpt, self.data) if code not in {0, 250}]
        return refusals[0] if refusals else self.dot


@dataclass
class Server:
    """Keeps to RFC 5321 and answers by script; knows what it has really accepted."""

    scripts: dict[int, Script]
    pipelining: bool
    delivered: dict[int, bytes] = field(default_factory=dict)
    empty_dots: int = 0
    _buffer: bytes = b""
    _number: int = 0
    _script: Script = field(default_factory=Script)
    _mail: bool = False
    _rcpt: bool = False
    _in_body: bool = False

    def hear(self, data: bytes) -> bytes:
        """Take bytes and return the replies to what is complete in them."""
        self._buffer += data
        said = b""
        while True:
            end = b"\r\n.\r\n" if self._in_body else b"\r\n"
            if self._in_body and self._buffer.startswith(b".\r\n"):
                body, rest = b"", self._buffer[3:]
            else:
                body, found, rest = self._buffer.partition(end)
                if not found:
                    return said
                body += b"\r\n"
            self._buffer = rest
            code = self._end(body) if self._in_body else self._command(body)
            said += b"%d-more\r\n%d last\r\n" % (code, code)
            assert self.pipelining or not rest, "the client did not wait"

    def _command(self, line: bytes) -> int:
        verb = line[:4]
        if verb == b"MAIL":
            self._number = int(line.split(b"<b")[1].split(b"@")[0])
            self._script = self.scripts[self._number]
            assert not self._mail
            self._mail = self._script.mail == 250
            return self._script.mail
        if verb == b"RCPT":
            self._rcpt = self._mail and self._script.rcpt == 250
            return self._script.rcpt if self._mail else 503
        if verb == b"DATA":
            return self._data()
        assert verb == b"RSET", "not a command: part of a message?"
        self._mail = self._rcpt = False
        return 250

    def _data(self) -> int:
        self._in_body = (self._rcpt and not self._script.data) or (not self._rcpt and self._script.go_anyway)
        return 354 if self._in_body else self._script.data or 554

    def _end(self, body: bytes) -> int:
        self._in_body = False
        self._mail = False
        if not self._rcpt:
            assert body == b"", "a message for nobody"
            self.empty_dots += 1
            return 554
        self._rcpt = False
        if self._script.dot == 250:
            assert self._number not in self.delivered, "delivered twice"
            self.delivered[self._number] = body
        return self._script.dot


@dataclass
class Drive:
    """A driver: gives parcels, carries bytes in pieces, keeps outcomes."""

    session: Session
    server: Server
    parcels: list[Parcel]
    outcomes: list[Outcome] = field(default_factory=list)
    taken: list[int] = field(default_factory=list)
    dots: list[int] = field(default_factory=list)

    def run(self, writes: Sequence[int], reads: Sequence[int], steps: int = 100_000) -> None:
        """Go on until nothing moves, or for so many steps; then the link is cut."""
        write, hear = cycle(writes), cycle(reads)
        coming = b""
        for _ in range(steps):
            self.advance()
            count = min(next(write), len(self.session.pending))
            coming += self.server.hear(bytes(self.session.pending[:count]))
            self.session.wrote(count)
            size = next(hear)
            heard, coming = coming[:size], coming[size:]
            self.outcomes += self.session.feed(heard)
            if self.session.closing or not (count or heard or self.session.pending):
                break
        self.outcomes += self.session.lost("closed")

    def advance(self) -> None:
        """Take what can be taken and put on its way what is due."""
        while self.session.hungry and self.parcels:
            one = self.parcels.pop(0)
            assert self.session.take(one) is None
            self.taken.append(one.id)
        if self.session.final_dot is not None and self.session.final_dot not in self.dots:
            self.dots.append(self.session.final_dot)
        self.session.flush()


CODES = st.sampled_from([250, 250, 250, 450, 550, 554])
SCRIPTS = st.lists(
    st.builds(Script, CODES, CODES, st.sampled_from([0, 0, 0, 451, 554]), CODES, st.booleans()), max_size=6
)


def drive(scripts: Sequence[Script], offer: Offer) -> Drive:
    """Set a conversation up, one parcel a script."""
    numbered = dict(enumerate(scripts, 1))
    parcels = [parcel(number) for number in numbered]
    return Drive(Session(offer), Server(numbered, offer.pipelining), parcels)


@CALM
@given(SCRIPTS, st.booleans(), SIZES, SIZES)
def test_counting_law(scripts: list[Script], pipelining: bool, writes: list[int], reads: list[int]) -> None:  # noqa: FBT001 - drawn
    """Whatever is refused where, and however the bytes are cut, each parcel gets its own answer."""
    talk = drive(scripts, Offer(pipelining=pipelining))
    expected = [(number, script.verdict) for number, script in talk.server.scripts.items()]
    talk.run(writes, reads)
    assert [(number, end.code) for number, end in talk.outcomes if isinstance(end, Reply)] == expected
    assert len(talk.outcomes) == len(expected)
    assert set(talk.server.delivered) == {number for number, code in expected if code == 250}
    assert set(talk.server.delivered.values()) <= {stuff(parcel(1).data)}
    assert all(number in talk.dots for number in talk.server.delivered)


@CALM
@given(SCRIPTS, st.booleans(), SIZES, SIZES, st.integers(0, 60))
def test_cut_law(
    scripts: list[Script],
    pipelining: bool,  # noqa: FBT001 - drawn
    writes: list[int],
    reads: list[int],
    steps: int,
) -> None:
    """Wherever the link is cut: one outcome each, "not begun" was not taken, a known answer is true."""
    talk = drive(scripts, Offer(pipelining=pipelining))
    talk.run(writes, reads, steps)
    assert sorted(number for number, _ in talk.outcomes) == sorted(talk.taken)
    for number, end in talk.outcomes:
        if isinstance(end, Reply):
            assert end.code == talk.server.scripts[number].verdict
            assert end.accepted == (number in talk.server.delivered)
        elif not end.begun:
            assert number not in talk.server.delivered
        else:
            assert number in talk.dots


def test_round_trips() -> None:
    """With PIPELINING the body of one mail and the envelope of the next share a write."""
    talk = drive([Script()] * 5, PIPELINED)
    writes = 0
    while True:
        talk.advance()
        if not talk.session.pending:
            break
        writes += 1
        said = talk.server.hear(bytes(talk.session.pending))
        talk.session.wrote(len(talk.session.pending))
        talk.outcomes += talk.session.feed(said)
    assert writes == 6
    assert len(talk.outcomes) == 5


@pytest.mark.parametrize("offer", [PIPELINED, LOCK_STEP])
def test_refused_envelope_with_data_pipelined(offer: Offer) -> None:
    """DATA after a refused RCPT: 554 leads to RSET, 354 to a lone dot and RSET, and never to the body."""
    talk = drive([Script(rcpt=550), Script(rcpt=550, go_anyway=True), Script()], offer)
    talk.run([1000], [1000])
    assert [end.code for _, end in talk.outcomes if isinstance(end, Reply)] == [550, 550, 250]
    assert talk.server.empty_dots == (1 if offer.pipelining else 0)


# -- odd servers -----------------------------------------------------------------------------------


def begun(*parcels: Parcel, said: bytes = b"") -> Session:
    """A pipelined session that has taken the parcels, written all it could, and heard this."""
    session = Session(PIPELINED)
    waiting = list(parcels)
    for reply in said.splitlines(keepends=True) or [b""]:
        while session.hungry and waiting:
            session.take(waiting.pop(0))
        session.flush()
        session.wrote(len(session.pending))
        session.feed(reply)
    while session.hungry and waiting:
        session.take(waiting.pop(0))
    return session


GO = b"250 a\r\n250 b\r\n354 c\r\n"


@pytest.mark.parametrize(
    ("heard", "reply", "reason", "ends"),
    [
        # The first parcel's dot is out, the second's envelope rides behind it.
        (GO, b"421 4.3.2 bye\r\n", "closing", [(1, 421), (2, "closing")]),
        (GO, b"250 ok\r\n421 4.3.2 bye\r\n", "closing", [(1, 250), (2, "closing")]),
        (GO, b"250 ok\r\n421 4.7.0 [TSS04] slow\r\n", "closing", [(1, 250), (2, 421)]),
        (GO, b"250 ok\r\n250 mail\r\n421 bye\r\n", "closing", [(1, 250), (2, 421)]),
        (GO, b"250 ok\r\n250 mail\r\n550 no\r\nxxx\r\n", "garbled", [(1, 250), (2, 550)]),
        (GO, b"552 5.3.4 too big\r\n", "", [(1, 552)]),
        (GO, b"354 what\r\n", "protocol", [(1, "begun"), (2, "protocol")]),
        (GO, b"hello\r\n", "garbled", [(1, "begun"), (2, "garbled")]),
        # Only an envelope is out.
        (b"", b"354 what\r\n", "protocol", [(1, "protocol")]),
        (b"", b"250 a\r\n250 b\r\n250 c\r\n", "protocol", [(1, "protocol")]),
        (b"", b"550 a\r\n250 b\r\n354 c\r\n", "protocol", [(1, 550)]),
        (b"", b"250 a\r\n250 b\r\n354 c\r\n250 d\r\n", "protocol", [(1, "protocol")]),
        (b"", b"550 a\r\n503 b\r\n554 c\r\n", "", [(1, 550)]),
        (b"", b"550 unasked\r\n250 a\r\n250 b\r\n354 c\r\n", "protocol", [(1, "protocol")]),
    ],
)
def test_odd_answers(heard: bytes, reply: bytes, reason: str, ends: list[tuple[int, int | str]]) -> None:
    """Each odd answer ends in the state it must: nothing accepted is doubted, nothing doubtful accepted."""
    session = begun(parcel(1), parcel(2), said=heard)
    session.flush()
    session.wrote(len(session.pending))
    got = session.feed(reply)
    assert session.closing == reason
    if reason:
        got += session.lost("closed")
    shown = [
        (number, end.code if isinstance(end, Reply) else "begun" if end.begun else end.reason)
        for number, end in got
    ]
    assert shown == ends


@pytest.mark.parametrize(("code", "end"), [(b"552", 552), (b"250", "lost")])
def test_answer_in_mid_body(code: bytes, end: int | str) -> None:
    """A refusal before the dot has left stands, an acceptance cannot be true; the link goes either way."""
    session = begun(parcel(1), parcel(2), said=GO)
    session.flush()
    session.wrote(5)
    got = session.feed(code + b" early\r\n")
    assert session.closing == "protocol"
    got += session.lost("closed")
    first = next(found for number, found in got if number == 1)
    assert (first.code if isinstance(first, Reply) else "begun" if first.begun else "lost") == end
    assert (2, Lost(begun=False, reason="protocol")) in got


def test_the_dot_counts_from_its_first_octet() -> None:
    """Until the dot itself has left, the parcel is surely not handed over; from then on it may be."""
    whole = stuff(parcel(1).data)
    for count, left in ((len(whole) - 1, False), (len(whole), False), (len(whole) + 1, True)):
        session = begun(parcel(1), said=GO)
        session.flush()
        session.wrote(count)
        assert session.lost("closed") == [(1, Lost(begun=left, reason="closed"))]


@pytest.mark.parametrize(
    ("said", "reason"), [(b"421 4.4.2 idle\r\n", "closing"), (b"250 hm\r\n", "protocol")]
)
def test_unasked(said: bytes, reason: str) -> None:
    """What a server says unasked ends the link, and answers no parcel."""
    session = Session(PIPELINED)
    assert session.feed(said) == []
    assert session.closing == reason
    assert not session.hungry
    assert session.lost("closed") == []


def test_limit() -> None:
    """A link that has carried as many parcels as it may takes no more."""
    session = Session(PIPELINED, limit=1)
    assert session.take(parcel(1)) is None
    session.flush()
    session.wrote(len(session.pending))
    session.feed(GO)
    assert not session.hungry
    session.flush()
    session.wrote(len(session.pending))
    session.feed(b"250 ok\r\n")
    assert session.idle
    assert session.spent
    assert not session.hungry


def test_awaiting() -> None:
    """The session says which step it waits for, so that each can have its own patience."""
    session = Session(PIPELINED)
    assert session.awaiting is None
    session.take(parcel(1))
    session.flush()
    session.wrote(len(session.pending))
    steps = [session.awaiting]
    for said in (b"250 a\r\n", b"250 b\r\n", b"354 c\r\n"):
        session.feed(said)
        session.flush()
        steps.append(session.awaiting)
    assert steps == [Phase.MAIL, Phase.RCPT, Phase.DATA, Phase.DOT]


def test_local_refusal_leaves_the_link_alone() -> None:
    """A parcel that this server cannot take costs no command."""
    session = Session(PIPELINED)
    assert session.take(Parcel(1, "b@example.org", "δ@example.com", b"x\r\n", smtputf8=True)) is not None
    session.flush()
    assert not session.pending
    assert session.hungry
