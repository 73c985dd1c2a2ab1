"""The opt-out link on a real server and port, spoken to with raw sockets as mailboxes and attackers do.

Run as a program this file is that server, with the declared double of `OptOuts` behind it.
"""

import contextlib
import logging
import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from worker.errors import Unavailable, WrongUse
from worker.serving import serve
from worker.web import Staff, create_app

ROOT = Path(__file__).parents[2]
MARK = "goodmarkgoodmarkgoodmarkgoodmark"
#: Seconds that the server under test gives a slow client.
PATIENCE = 1.0
CLICK = b"List-Unsubscribe=One-Click"
FORM = b"Content-Type: application/x-www-form-urlencoded\r\n"


@dataclass(frozen=True)
class About:
    """What a link is about."""

    sender: str = "Example Equality"
    list_title: str = "Urgent appeals"
    language: str = "en"
    discreet: bool = False
    test: bool = False


@dataclass(frozen=True)
class Stopped:
    """An opt-out by the page."""

    about: About
    voucher: str = ""


class Files:
    """The declared double of `OptOuts`: a file with a line for each opt-out, and one that holds things up."""

    def __init__(self, folder: Path) -> None:
        self._store = folder / "store"
        self._hold = folder / "hold"
        self._begun = folder / "begun"

    def describe(self, token: str) -> About | None:
        """Tell what a link is about."""
        if token == "away":
            raise Unavailable("the database is away")
        return About() if token == MARK else None

    def knows(self, token: str) -> bool:
        """Tell whether a link can be ours."""
        return token in {MARK, "away"}

    def opt_out_all(self, tokens: Sequence[str], how: str) -> Sequence[bool]:
        """Store opt-outs, as soon as nothing holds them up."""
        known = [self.describe(token) is not None for token in tokens]
        self._begun.touch()
        while self._hold.exists():
            time.sleep(0.01)
        with self._store.open("a") as store:
            store.write("".join(how + "\n" for ours in known if ours))
        return known

    def stop(self, token: str, *, this_list: bool) -> Stopped | None:
        """Store one by the page."""
        self.opt_out_all([token], "list" if this_list else "page")
        return Stopped(About())

    def undo(self, _token: str, _voucher: str) -> bool | None:
        """Take nothing back."""
        return False

    def choices(self, _token: str) -> None:
        """Know no preferences."""

    def choose(self, _token: str, _wanted: object) -> None:
        """Keep none."""

    def ask(self, _token: str, _kind: str) -> None:
        """Ask nobody."""

    def pending(self, _mark: str) -> None:
        """Know of no notice."""

    def confirm(self, _mark: str, _again: object, _wording: str) -> None:
        """Do nothing."""

    def guessed(self, _address: str) -> int:
        """Let everybody guess."""
        return 0


def main(folder: Path) -> None:
    """Serve from this process until a signal comes, logging all that anything in it would log."""
    logging.basicConfig(level=1, stream=sys.stderr)
    files = {
        path.name: path.read_text("utf-8")
        for folder in ("web", "locale")
        for path in (ROOT / "templates" / folder).iterdir()
    }
    work = Files(folder)
    app = create_app(Staff(work, work, work, work), files, patience=PATIENCE)
    serve(app, "127.0.0.1", 0, ready=lambda port: print(port, flush=True), patience=PATIENCE)  # noqa: T201 - read by the fixture
    print("stopped cleanly", flush=True)  # noqa: T201 - read by the tests


@dataclass
class Server:
    """The server as a process, and what it has stored."""

    process: subprocess.Popen[str]
    port: int
    folder: Path
    stopped: bool = False

    def stop(self, with_signal: int) -> None:
        """Ask it to stop, and expect it to do so cleanly."""
        self.process.send_signal(with_signal)
        self.expect_stop()

    def expect_stop(self) -> None:
        """Wait for it to stop: with its last words, and 0."""
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "stopped cleanly\n"
        assert self.process.wait(20) == 0
        self.stopped = True

    @property
    def stored(self) -> list[str]:
        """The opt-outs so far."""
        store = self.folder / "store"
        return store.read_text().splitlines() if store.exists() else []

    @property
    def log(self) -> str:
        """All that the process has logged."""
        return (self.folder / "log").read_text()

    def connect(self) -> socket.socket:
        """Open a connection to it."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def say(self, request: bytes) -> bytes:
        """Send one request on a connection of its own; return all that comes back until it closes."""
        with self.connect() as client:
            client.sendall(request)
            return everything(client)


def everything(client: socket.socket) -> bytes:
    """Read until the other side closes."""
    received = b""
    try:
        while piece := client.recv(65_536):
            received += piece
    except ConnectionResetError:
        pass  # closed with our own bytes unread: a close all the same
    return received


def request_of(method: str, path: str = f"/o/{MARK}", headers: bytes = b"", body: bytes = b"") -> bytes:
    """Return the bytes of a request that asks for the connection to be closed after it."""
    head = f"{method} {path} HTTP/1.1\r\nHost: pages.example.org\r\nConnection: close\r\n".encode()
    length = f"Content-Length: {len(body)}\r\n".encode() if body else b""
    return head + headers + length + b"\r\n" + body


def status_of(answer: bytes) -> int:
    """Return the status of an answer, or 0 where there is none."""
    found = re.match(rb"HTTP/1\.1 (\d{3}) ", answer)
    return int(found[1]) if found else 0


@contextmanager
def running(folder: Path) -> Iterator[Server]:
    """Run a server process; afterwards it must stop cleanly when asked."""
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, __file__, folder],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert process.stdout is not None
    with process.stdout:
        try:
            made = Server(process, int(process.stdout.readline()), folder)
            yield made
            if not made.stopped:
                made.stop(signal.SIGTERM)
        finally:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all the tests that leave it running."""
    with running(tmp_path_factory.mktemp("server")) as made:
        yield made


@pytest.fixture
def server(shared: Server) -> Server:
    """The shared server, with nothing stored."""
    (shared.folder / "store").unlink(missing_ok=True)
    return shared


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Server]:
    """A server of this test's own, to be stopped."""
    with running(tmp_path) as made:
        yield made


def multipart(boundary: bytes) -> bytes:
    """Return the one-click form as RFC 8058 prefers it."""
    head = b'Content-Disposition: form-data; name="List-Unsubscribe"\r\n\r\n'
    return b"--" + boundary + b"\r\n" + head + b"One-Click\r\n--" + boundary + b"--\r\n"


def chunked(body: bytes) -> bytes:
    """Return a body in HTTP chunks of seven bytes."""
    pieces = [body[at : at + 7] for at in range(0, len(body), 7)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


@pytest.mark.parametrize(
    "request_bytes",
    [
        request_of("POST", headers=FORM, body=CLICK),
        request_of("POST", headers=FORM + b"User-Agent: \r\n", body=CLICK),
        request_of("POST", headers=FORM + b"User-Agent: \r\nOrigin: null\r\nCookie: a=b\r\n", body=CLICK),
        request_of(
            "POST", headers=b"content-type: multipart/form-data; boundary=X\r\n", body=multipart(b"X")
        ),
        request_of(
            "POST",
            headers=b'Content-Type: multipart/form-data; boundary="=_a b"\r\nUser-Agent: \r\n',
            body=multipart(b"=_a b"),
        ),
        request_of("POST", headers=FORM + b"Transfer-Encoding: chunked\r\n") + chunked(CLICK),
        request_of("POST", headers=FORM + b"Expect: 100-continue\r\n", body=CLICK),
        request_of("POST", path=f"https://pages.example.org/o/{MARK}", headers=FORM, body=CLICK).replace(
            b"https://pages.example.org", b""
        ),
        f"POST /o/{MARK} HTTP/1.0\r\n".encode() + FORM + b"Content-Length: 26\r\n\r\n" + CLICK,
    ],
)
def test_one_click(server: Server, request_bytes: bytes) -> None:
    """U1: both encodings, as mailboxes send them, are stored before they are answered, with 200."""
    answer = server.say(request_bytes).removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert status_of(answer) == 200
    assert answer.endswith(b"\r\n\r\nUnsubscribed.\n")
    assert server.stored == ["one-click"]


def test_one_click_in_small_pieces(server: Server) -> None:
    """A form that comes byte by byte, but in time, counts."""
    with server.connect() as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in request_of("POST", headers=FORM, body=CLICK):
            client.sendall(bytes((byte,)))
        assert status_of(everything(client)) == 200
    assert server.stored == ["one-click"]


def test_reading_changes_nothing(server: Server) -> None:
    """U2: GET, HEAD and OPTIONS, repeated as scanners do, change nothing; HEAD has no body."""
    for _ in range(3):
        page = server.say(request_of("GET"))
        assert status_of(page) == 200
        assert b"<button" in page
        head, _, body = server.say(request_of("HEAD")).partition(b"\r\n\r\n")
        assert (status_of(head), body) == (200, b"")
        assert status_of(server.say(request_of("OPTIONS"))) == 204
        assert status_of(server.say(request_of("GET", headers=FORM, body=CLICK))) == 200
    assert server.stored == []


def test_the_page_and_its_button(server: Server) -> None:
    """The page's own form works, and a second press says the same."""
    first, second = (server.say(request_of("POST", headers=FORM, body=b"choice=stop")) for _ in range(2))
    assert first.partition(b"\r\n\r\n")[2] == second.partition(b"\r\n\r\n")[2]
    assert b"Done. We will stop these emails." in first
    assert server.stored == ["page", "page"]


def test_many_on_one_connection(server: Server) -> None:
    """A mailbox that keeps its connection gets every answer at once, not 40 ms late each."""
    request = request_of("POST", headers=FORM, body=CLICK).replace(b"Connection: close\r\n", b"")
    began = time.monotonic()
    with server.connect() as client:
        for _ in range(100):
            client.sendall(request)
            answer = b""
            while not answer.endswith(b"Unsubscribed.\n"):
                answer += client.recv(65_536)
            assert status_of(answer) == 200
    assert time.monotonic() - began < 3
    assert len(server.stored) == 100


def test_a_pipelined_pair(server: Server) -> None:
    """Two requests in one packet get two answers, in order."""
    pair = request_of("GET").replace(b"Connection: close\r\n", b"") + request_of(
        "POST", headers=FORM, body=CLICK
    )
    answer = server.say(pair)
    assert answer.count(b"HTTP/1.1 200") == 2
    assert answer.endswith(b"Unsubscribed.\n")


def test_no_database(server: Server) -> None:
    """When the database is away the answer is 503 with Retry-After, and nothing is said to be done."""
    answer = server.say(request_of("POST", path="/o/away", headers=FORM, body=CLICK))
    assert status_of(answer) == 503
    assert b"retry-after: " in answer
    assert b"Unsubscribed" not in answer


@pytest.mark.parametrize(("proto", "strict"), [(b"https", True), (b"http", False), (b"gopher", False)])
def test_behind_a_proxy(server: Server, proto: bytes, strict: bool) -> None:  # noqa: FBT001 - a parameter of the table
    """A proxy on this machine is believed when it says that the reader came by https."""
    answer = server.say(request_of("GET", headers=b"X-Forwarded-Proto: " + proto + b"\r\n"))
    assert (b"strict-transport-security: " in answer) == strict
    assert b"\r\nserver: " not in answer.lower()


def test_a_body_said_to_be_huge(server: Server) -> None:
    """A body that announces a gigabyte is refused unread, and the connection closed."""
    head = request_of("POST", headers=FORM + b"Content-Length: 1000000000\r\n")
    answer = server.say(head.replace(b"Connection: close\r\n", b""))
    assert status_of(answer) == 413
    assert server.stored == []


def test_an_endless_body(server: Server) -> None:
    """A body without a length is cut off once it passes 64 KiB, and nobody reads the rest."""
    request = request_of("POST", headers=FORM + b"Transfer-Encoding: chunked\r\n")
    with server.connect() as client:
        client.sendall(request.replace(b"Connection: close\r\n", b""))
        sent = 0
        try:
            while sent < 100_000_000:
                sent += client.send(b"1000\r\n" + b"x" * 4096 + b"\r\n")
        except (ConnectionResetError, BrokenPipeError):
            pass
    assert sent < 100_000_000, "the server went on reading"
    assert server.stored == []
    assert status_of(server.say(request_of("POST", headers=FORM, body=CLICK))) == 200


@pytest.mark.parametrize(
    "junk",
    [
        b"\0" * 1000,
        b"GET\r\n\r\n",
        b"POST /o/x SMTP/1.1\r\n\r\n",
        request_of("GET", path="/o/" + "a" * 500_000),
        request_of("GET", headers=b"X-Long: " + b"a" * 500_000 + b"\r\n"),
        request_of("POST", headers=FORM + b"Content-Length: 26\r\nTransfer-Encoding: chunked\r\n\r\n")
        + CLICK,
        request_of("POST", headers=FORM + b"Content-Length: 5\r\nContent-Length: 26\r\n\r\n") + CLICK,
        request_of("POST", headers=FORM + b"Content-Length: -1\r\n\r\n") + CLICK,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_junk(server: Server, junk: bytes) -> None:
    """What is not sound HTTP/1.1 is refused and hung up on, changes nothing, and harms nobody else."""
    assert status_of(server.say(junk)) in {0, 400, 404}
    assert server.stored == []
    assert status_of(server.say(request_of("POST", headers=FORM, body=CLICK))) == 200


@pytest.mark.parametrize("begun", [b"", b"POST /o/", request_of("POST", headers=FORM)[:-2]])
def test_a_slow_head(server: Server, begun: bytes) -> None:
    """A client that does not finish the head of its request, trickling or silent, is hung up on."""
    with server.connect() as client, selectors.DefaultSelector() as selector:
        client.sendall(begun)
        selector.register(client, selectors.EVENT_READ)
        began = time.monotonic()
        while not selector.select(timeout=PATIENCE / 5):
            client.sendall(b"x" if begun else b"")
            assert time.monotonic() - began < PATIENCE * 10, "still waiting for the head"
        assert everything(client) == b""
    assert server.stored == []


def test_a_slow_head_later_on(server: Server) -> None:
    """A client that behaved once is hung up on like any other when it dawdles on its next request."""
    with server.connect() as client:
        client.sendall(request_of("GET", path="/healthz").replace(b"Connection: close\r\n", b""))
        assert client.recv(65_536)
        client.sendall(b"POST /o/")
        began = time.monotonic()
        everything(client)
        assert time.monotonic() - began < PATIENCE * 6


def test_a_slow_body(server: Server) -> None:
    """A body that stops coming is answered 408, and the connection closed."""
    request = request_of("POST", headers=FORM + b"Content-Length: 26\r\n") + CLICK[:10]
    answer = server.say(request.replace(b"Connection: close\r\n", b""))
    assert status_of(answer) == 408
    assert server.stored == []


def test_a_body_that_trickles(server: Server) -> None:
    """A body that comes byte by byte without end gets no longer than any other: 408, nothing stored."""
    request = request_of("POST", headers=FORM + b"Content-Length: 60000\r\n")
    with server.connect() as client, selectors.DefaultSelector() as selector:
        client.sendall(request.replace(b"Connection: close\r\n", b""))
        selector.register(client, selectors.EVENT_READ)
        began = time.monotonic()
        while not selector.select(timeout=PATIENCE / 10):
            client.sendall(b"x")
            assert time.monotonic() - began < PATIENCE * 10, "still waiting for the body"
        assert status_of(everything(client)) == 408
    assert server.stored == []


def _ask_on(client: socket.socket, request: bytes) -> None:
    """Ask again and again, for as long as somebody takes it, and read nothing."""
    began = time.monotonic()
    while time.monotonic() - began < PATIENCE * 10:
        with contextlib.suppress(TimeoutError):
            client.send(request)


def test_a_client_that_does_not_listen(server: Server) -> None:
    """Who asks and asks and never reads an answer is hung up on, and holds nothing of ours."""
    with server.connect() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(PATIENCE / 5)
        request = request_of("GET").replace(b"Connection: close\r\n", b"") * 100
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            _ask_on(client, request)
    assert status_of(server.say(request_of("POST", headers=FORM, body=CLICK))) == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (b"Content-Encoding: gzip\r\n" + FORM, 415),
        (b"Content-Type: application/x-www-form-urlencoded; charset=utf-7\r\n", 415),
        (b"Content-Type: application/x-www-form-urlencoded; charset=utf-16\r\n", 415),
        (b"Content-Type: multipart/form-data; boundary=" + b"b" * 2000 + b"\r\n", 400),
        (b"Content-Type: text/plain\r\n", 415),
        (FORM + b"Transfer-Encoding: gzip, chunked\r\n", 400),
    ],
)
def test_strange_encodings(server: Server, headers: bytes, status: int) -> None:
    """What no mailbox and no page of ours sends is refused on the wire, and changes nothing."""
    assert status_of(server.say(request_of("POST", headers=headers, body=CLICK))) == status
    assert server.stored == []


def test_slow_clients_keep_nobody_out(server: Server) -> None:
    """With two hundred clients hanging on, a one-click is still answered at once."""
    clients = [server.connect() for _ in range(200)]
    try:
        for client in clients:
            client.sendall(request_of("POST", headers=FORM + b"Content-Length: 26\r\n"))
        began = time.monotonic()
        assert status_of(server.say(request_of("POST", headers=FORM, body=CLICK))) == 200
        assert time.monotonic() - began < 5
    finally:
        for client in clients:
            client.close()


def test_a_stop_finishes_what_is_in_hand(own: Server) -> None:
    """SIGTERM in the middle of an opt-out: it is stored and answered, and the process exits with 0."""
    (own.folder / "hold").touch()
    with own.connect() as client:
        client.sendall(request_of("POST", headers=FORM, body=CLICK))
        limit = time.monotonic() + 20
        while not (own.folder / "begun").exists():
            assert time.monotonic() < limit
            time.sleep(0.01)
        own.process.send_signal(signal.SIGTERM)
        refused = False
        while not refused:
            assert time.monotonic() < limit
            try:
                own.connect().close()
                time.sleep(0.01)
            except ConnectionRefusedError:
                refused = True
        (own.folder / "hold").unlink()
        assert everything(client).endswith(b"Unsubscribed.\n")
    own.expect_stop()
    assert own.stored == ["one-click"]


def test_control_c(own: Server) -> None:
    """SIGINT ends it as cleanly, without a traceback."""
    own.stop(signal.SIGINT)
    assert "Traceback" not in own.log


def test_no_log_holds_a_mark(own: Server) -> None:
    """With every logger wide open, no log line holds a mark, a path or a client's address."""
    own.say(request_of("GET"))
    own.say(request_of("POST", headers=FORM, body=CLICK))
    own.say(request_of("POST", path="/o/away", headers=FORM, body=CLICK))
    own.say(request_of("POST", path="/o/forgedmark", headers=FORM, body=b"x"))
    own.say(b"GET /o/forgedmark HTTP/9\r\n\r\n")
    own.stop(signal.SIGTERM)
    for secret in (MARK, "forgedmark", "/o/", "pages.example.org"):
        assert secret not in own.log


def test_a_port_that_is_taken(server: Server) -> None:
    """A taken port is refused in one line with a remedy, before anything runs."""

    async def nothing(_scope: object, _receive: object, _send: object) -> None:
        """Serve nothing."""

    with pytest.raises(WrongUse, match=f"cannot listen on 127.0.0.1 port {server.port}") as caught:
        serve(nothing, "127.0.0.1", server.port)
    assert "web.port" in caught.value.remedy


if __name__ == "__main__":
    main(Path(sys.argv[1]))
