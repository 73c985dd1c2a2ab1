"""A mail server that goes wrong on demand, and certificates good and bad.

A fault is a tuple (point, what to say, what then). Points: banner, ehlo, starttls, handshake, auth, mail,
rcpt, data, body (in the middle of a message), dot, accepted (after the answer to the dot), rset, quit.
"mail#3" is the third MAIL that the server hears, plain "mail" is each. Lines are separated by a newline; None
says nothing, "" the usual. Then: "go" on, "cut" the link, "hang" (hear all, say nothing) until the client
leaves, "stall" (not even read) until the test ends, or "drip" the answer byte by byte. A server is well again
when its `faults` are taken away.
"""

import contextlib
import datetime as dt
import ipaddress
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Fault = tuple[str, str | None, str]


class _GoneError(Exception):
    """The conversation is over."""


@dataclass
class FaultServer:
    """Speaks SMTP by the book but for its faults, and remembers everything."""

    faults: tuple[Fault, ...] = ()
    #: What EHLO offers, and after TLS if that differs.
    offer: str = "PIPELINING SIZE DSN SMTPUTF8 8BITMIME AUTH=PLAIN"
    offer_inside: str | None = None
    security: str = "plain"
    context: ssl.SSLContext | None = None
    #: Answer only so many connections at a time; the others are turned away.
    most: int = 1000
    #: (recipient, message as on the wire) of each message wholly heard, and of each answered with 2xx.
    heard: list[tuple[str, bytes]] = field(default_factory=list)
    delivered: list[tuple[str, bytes]] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    connections: int = 0
    now_open: int = 0
    quits: int = 0
    lone_dots: int = 0
    #: Connections that have ended; notified at each.
    ended: int = 0
    changed: threading.Condition = field(default_factory=threading.Condition)
    #: Set when the test is over.
    over: threading.Event = field(default_factory=threading.Event)
    #: The client did not wait for an answer though PIPELINING was not offered.
    impatient: int = 0

    def __post_init__(self) -> None:
        """Listen."""
        self._seen: Counter[str] = Counter()
        self._socks: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._start(self._accept)

    def _start(self, work: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self.changed:
                self.connections += 1
                self.now_open += 1
                self._socks.append(sock)
            self._start(self._talk, sock)

    def _talk(self, sock: socket.socket) -> None:
        talk = _Talk(self, sock)
        try:
            talk.run()
        except (_GoneError, OSError):
            pass
        finally:
            with self.changed:
                self.now_open -= 1
            talk.close()
            with self.changed:
                self.ended += 1
                self.changed.notify_all()

    def fault(self, point: str) -> Fault | None:
        """Find the fault that is due at this point now."""
        with self.changed:
            self._seen[point] += 1
            due = {point, f"{point}#{self._seen[point]}"}
        return next((fault for fault in self.faults if fault[0] in due), None)

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Return when the condition holds; it is looked at whenever a connection ends."""
        with self.changed:
            assert self.changed.wait_for(condition, timeout=20)

    def close(self) -> None:
        """Stop everything."""
        self.over.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in self._socks:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive()


class _Talk:
    """One connection."""

    def __init__(self, server: FaultServer, sock: socket.socket) -> None:
        self._server = server
        self._sock = sock
        self._plain = sock
        self._buffer = b""
        self._inside = False
        self._recipient = ""
        self._offers_pipelining = False

    def run(self) -> None:
        """Speak until QUIT or a fault ends it."""
        if self._server.now_open > self._server.most:
            self._send("421 4.7.0 no more connections")
            return
        if self._server.security == "tls":
            self._wrap()
        self._say("banner", "220 fault.example ESMTP")
        while True:
            line = self._line()
            self._server.commands.append(line)
            verb = line[:4].upper()
            if verb == "QUIT":
                self._server.quits += 1
                self._say("quit", "221 2.0.0 bye")
                return
            handler = getattr(self, f"_{verb.lower()}", None)
            if handler is None:
                self._send("500 5.5.1 what")
            else:
                handler(line)
            self._server.impatient += bool(self._buffer) and not self._offers_pipelining

    def close(self) -> None:
        """Close both faces of the socket."""
        for sock in {self._sock, self._plain}:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    # -- commands ----------------------------------------------------------------------------------

    def _ehlo(self, _: str) -> None:
        offer = self._server.offer
        if self._inside and self._server.offer_inside is not None:
            offer = self._server.offer_inside
        words = offer.split()
        if self._server.security == "starttls" and not self._inside:
            words.append("STARTTLS")
        self._offers_pipelining = "PIPELINING" in words
        lines = ["fault.example", *(word.replace("=", " ") for word in words)]
        self._say("ehlo", "\n".join([*(f"250-{line}" for line in lines[:-1]), f"250 {lines[-1]}"]))

    def _helo(self, _: str) -> None:
        self._offers_pipelining = False
        self._say("helo", "250 fault.example")

    def _star(self, _: str) -> None:
        if self._say("starttls", "220 2.0.0 go")[0] == "2":
            self._wrap()

    def _wrap(self) -> None:
        assert self._server.context is not None
        if fault := self._server.fault("handshake"):
            self._do(fault, "")
        self._sock = self._server.context.wrap_socket(self._sock, server_side=True)
        self._server._socks.append(self._sock)
        self._inside = True

    def _auth(self, _: str) -> None:
        self._say("auth", "235 2.7.0 welcome")

    def _mail(self, _: str) -> None:
        self._recipient = ""
        self._say("mail", "250 2.1.0 ok")

    def _rcpt(self, line: str) -> None:
        if self._say("rcpt", "250 2.1.5 ok")[0] == "2":
            self._recipient = line.partition("<")[2].partition(">")[0]

    def _rset(self, _: str) -> None:
        self._recipient = ""
        self._say("rset", "250 2.0.0 ok")

    def _data(self, _: str) -> None:
        usual = "354 go" if self._recipient else "554 5.5.1 no valid recipients"
        if self._say("data", usual)[0] != "3":
            return
        fault = self._server.fault("body")
        if fault:
            while len(self._buffer) < 20:
                self._hear()
            self._do(fault, "")
        body, seen = bytearray(b"\r\n"), 0
        while (end := body.find(b"\r\n.\r\n", seen)) < 0:
            if not self._buffer:
                self._hear()
            seen = max(0, len(body) - 4)
            body += self._buffer
            self._buffer = b""
        self._buffer = bytes(body[end + 5 :])
        self._end(bytes(body[2 : end + 2]))

    def _end(self, message: bytes) -> None:
        usual = "250 2.0.0 queued"
        if not self._recipient:
            self._server.lone_dots += not message
            usual = "554 5.5.1 no valid recipients"
        else:
            self._server.heard.append((self._recipient, message))
        delivered = (self._recipient, message)
        if self._say("dot", usual, lambda: self._server.delivered.append(delivered))[0] == "2":
            self._say("accepted", "")

    # -- bytes -------------------------------------------------------------------------------------

    def _say(self, point: str, usual: str, accepted: Callable[[], None] = lambda: None) -> str:
        """Answer, as usual or as the fault has it; returns what was said."""
        fault = self._server.fault(point)
        if fault is None:
            if usual[:1] == "2":
                accepted()
            if usual:
                self._send(usual)
            return usual or "2"
        if fault[1] is not None and (fault[1] or usual)[:1] == "2":
            accepted()
        return self._do(fault, usual)

    def _do(self, fault: Fault, usual: str) -> str:
        _, words, then = fault
        said = "" if words is None else words or usual
        if said:
            self._send(said, drip=then == "drip")
        if then == "cut":
            raise _GoneError
        if then == "stall":
            self._server.over.wait()
        if then == "hang":
            while self._sock.recv(65536):
                pass
            raise _GoneError
        return said or "2"

    def _send(self, words: str, *, drip: bool = False) -> None:
        data = words.replace("\n", "\r\n").encode("latin-1") + b"\r\n"
        for piece in [data[at : at + 1] for at in range(len(data))] if drip else [data]:
            self._sock.sendall(piece)

    def _hear(self) -> None:
        data = self._sock.recv(65536)
        if not data:
            raise _GoneError
        self._buffer += data

    def _line(self) -> str:
        while b"\r\n" not in self._buffer:
            self._hear()
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line.decode("utf-8", "replace")


@pytest.fixture
def fault_server(certificates: Path) -> Iterator[Callable[..., FaultServer]]:
    """Start fault servers: `fault_server(fault, ..., security=, certificate=, offer=, most=)`."""
    servers: list[FaultServer] = []

    def start(*faults: Fault, certificate: str = "good", **options: Any) -> FaultServer:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates / f"{certificate}.pem")
        server = FaultServer(faults, context=context, **options)
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.close()


# -- certificates ----------------------------------------------------------------------------------

_NOW = dt.datetime.now(dt.UTC)
_DAY = dt.timedelta(days=1)


def _certificate(
    name: str,
    signer: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None,
    *,
    days: int = 30,
    ca: bool = False,
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """Make one certificate for a host name or address; self-signed without a signer."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer, issuer_key = (signer[0].subject, signer[1]) if signer else (subject, key)
    try:
        names: list[x509.GeneralName] = [x509.IPAddress(ipaddress.ip_address(name))]
    except ValueError:
        names = [x509.DNSName(name)]
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_NOW - 60 * _DAY)
        .not_valid_after(_NOW + days * _DAY)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False
        )
    )
    if ca:
        usage = x509.KeyUsage(
            digital_signature=True,
            key_cert_sign=True,
            crl_sign=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )
        builder = builder.add_extension(usage, critical=True)
    return builder.sign(issuer_key, hashes.SHA256()), key


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ca.pem, and good, expired, wrong-host and self-signed certificates with their keys."""
    folder = tmp_path_factory.mktemp("certificates")
    authority = _certificate("authority.example", None, ca=True)
    made = {
        "good": _certificate("127.0.0.1", authority),
        "expired": _certificate("127.0.0.1", authority, days=-1),
        "wrong-host": _certificate("other.example", authority),
        "self-signed": _certificate("127.0.0.1", None),
    }
    (folder / "ca.pem").write_bytes(authority[0].public_bytes(serialization.Encoding.PEM))
    for name, (certificate, key) in made.items():
        secret = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (folder / f"{name}.pem").write_bytes(secret + certificate.public_bytes(serialization.Encoding.PEM))
    return folder
