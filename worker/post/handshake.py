"""Opening one SMTP connection, up to the point where mail may flow: connect, TLS, EHLO, AUTH.

Owns the one TLS context we trust, what each failure means to the operator, and `Opening`, which does it
all in a thread.
Refuses to fall back from required TLS, to trust an unproved host, to speak to another machine in the clear
unless allowed, to show a password on an open line, and to wait for ever for a server that drips.
"""

import contextlib
import ipaddress
import smtplib
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable

from worker.errors import WrongUse
from worker.post.endpoints import Endpoint, RelayDown
from worker.post.parcels import Offer
from worker.post.replies import Reply, Trouble, scrub, sender_fault
from worker.post.smtp import Replies

_READY, _OK = 220, range(200, 300)
_CHUNK = 4096
#: Octets of name and password that leave an AUTH line with initial response under 512 (RFC 4954 section 4).
_AT_ONCE = 370
_TLS = "Ask whoever runs the relay; mail is not sent without TLS."
_PROOF = "relay.host must be the name in the certificate; for an authority of your own set relay.ca_file."
_NO_MAIL_SERVER = "Check relay.host, relay.port and relay.security."
_TRUSTED_ENOUGH = ssl.TLSVersion.TLSv1_2  # RFC 9325 section 3.1.1


def trust(endpoint: Endpoint) -> ssl.SSLContext:
    """Build the TLS context: chain and host name are verified, TLS 1.2 at least.

    Raises:
        WrongUse: the file of trusted certificates cannot be read.
    """
    try:
        context = ssl.create_default_context(cafile=endpoint.ca_file)
    except OSError as error:  # an SSLError too
        raise WrongUse(
            f"cannot read the certificates in {endpoint.ca_file}",
            remedy="relay.ca_file should name a PEM file with the certificates to trust.",
        ) from error
    context.minimum_version = _TRUSTED_ENOUGH
    return context


class Greeter(smtplib.SMTP):
    """The library's client, with a bounded reader of replies and a deadline for each of them."""

    def __init__(self, endpoint: Endpoint) -> None:
        """Prepare; nothing is connected yet."""
        super().__init__(local_hostname=endpoint.helo)  # given, else it asks the DNS who we are
        self._patience = endpoint.timeouts.command
        self._replies = Replies()
        self._heard: deque[list[bytes]] = deque()

    @property
    def ahead(self) -> bool:
        """The server said more than it was asked."""
        return bool(self._heard) or self._replies.pending

    def next_reply(self) -> Reply:
        """Wait for one whole reply."""
        deadline = time.monotonic() + self._patience
        sock = self.sock
        if sock is None:
            raise smtplib.SMTPServerDisconnected("not connected")
        while not self._heard:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError("no reply in time")
            sock.settimeout(left)
            data = sock.recv(_CHUNK)
            if not data:
                raise smtplib.SMTPServerDisconnected("closed")
            self._heard.extend(self._replies.feed(data))
        self._last = self._heard.popleft()
        return Reply.parse(self._last)

    def getreply(self) -> tuple[int, bytes]:
        """Answer the library's own question in its own form."""
        reply = self.next_reply()
        return reply.code, b"\n".join(line[4:] for line in self._last)


def greet(endpoint: Endpoint, context: ssl.SSLContext, greeter: Greeter) -> Offer:
    """Open the connection in `greeter.sock` and say what the server offers; blocking.

    Raises:
        RelayDown: with what to do about it.
    """
    try:
        offer = _greet(endpoint, context, greeter)
    except (OSError, ValueError) as error:  # smtplib's own are OSErrors; ValueError is its bad base64
        greeter.close()
        raise _explained(endpoint, error) from error
    except RelayDown:
        greeter.close()
        raise
    return offer


def _greet(endpoint: Endpoint, context: ssl.SSLContext, greeter: Greeter) -> Offer:
    """Do the steps of `greet`, in the order that keeps the secret ones behind TLS."""
    sock = socket.create_connection((endpoint.host, endpoint.port), endpoint.timeouts.connect)
    greeter.sock = sock
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    local = ipaddress.ip_address(sock.getpeername()[0].partition("%")[0]).is_loopback
    _check_privacy(endpoint, local=local)
    if endpoint.security == "tls":
        greeter.sock = context.wrap_socket(sock, server_hostname=endpoint.host)
    greeting = greeter.next_reply()
    if greeting.code != _READY:
        raise _turned_away(endpoint, greeting)
    greeter.ehlo_or_helo_if_needed()
    if endpoint.security == "starttls":
        _start_tls(endpoint, context, greeter)
    if endpoint.username:
        _log_in(endpoint, greeter)
    if greeter.ahead:
        raise RelayDown(f"{endpoint.host} talks out of turn", remedy=_NO_MAIL_SERVER)
    tls = greeter.sock.version() or "" if isinstance(greeter.sock, ssl.SSLSocket) else ""
    return Offer.parse(greeter.esmtp_features, tls)


def _check_privacy(endpoint: Endpoint, *, local: bool) -> None:
    """Refuse a plain line to another machine, and a password on any plain line, unless allowed."""
    if endpoint.security != "plain":
        return
    if not (local or endpoint.allow_plain):
        raise RelayDown(
            f"mail to {endpoint.host} would travel in the clear",
            remedy='Set relay.security to "starttls" or "tls".',
        )
    if endpoint.username and not (local and endpoint.allow_plain):
        raise RelayDown(
            f"the password for {endpoint.host} would travel in the clear",
            remedy='Set relay.security to "starttls" or "tls", or leave relay.username empty.',
            trouble=Trouble.AUTH,
        )


def _turned_away(endpoint: Endpoint, reply: Reply) -> RelayDown:
    """Explain a greeting that is a refusal."""
    fault = sender_fault(reply)
    return RelayDown(
        f"{endpoint.host}:{endpoint.port} turned us away: {reply.code} {scrub(reply.text)}".rstrip(),
        remedy="Ask whoever runs the relay; it is tried again later.",
        trouble=fault.trouble if fault else Trouble.RELAY,
    )


def _start_tls(endpoint: Endpoint, context: ssl.SSLContext, greeter: Greeter) -> None:
    """Upgrade, and forget what was heard before (RFC 3207 section 4.2)."""
    if not greeter.has_extn("starttls"):
        raise RelayDown(
            f"{endpoint.host} does not offer STARTTLS",
            remedy='Check relay.port; for TLS from the first byte set relay.security to "tls".',
        )
    greeter.putcmd("STARTTLS")
    reply = greeter.next_reply()
    if reply.code != _READY:
        raise RelayDown(f"{endpoint.host} offers STARTTLS but refuses it: {reply.code}", remedy=_TLS)
    if greeter.ahead:
        # Plain text slipped in behind the 220 would count as spoken inside TLS (CVE-2011-0411).
        raise RelayDown(f"{endpoint.host}: something was added to the connection before TLS", remedy=_TLS)
    plain = greeter.sock
    if plain is None:
        raise smtplib.SMTPServerDisconnected("closed")
    plain.settimeout(endpoint.timeouts.connect)
    greeter.sock = context.wrap_socket(plain, server_hostname=endpoint.host)
    greeter.helo_resp = greeter.ehlo_resp = None
    greeter.esmtp_features = {}
    greeter.does_esmtp = False
    greeter.ehlo_or_helo_if_needed()


def _log_in(endpoint: Endpoint, greeter: Greeter) -> None:
    """Give name and password; whatever comes of it concerns us, never a recipient."""
    credentials = endpoint.username + endpoint.password
    if not credentials.isascii():  # the library cannot send them
        raise RelayDown(
            "the relay's user name or password has a character outside ASCII",
            remedy="Choose another password.",
            trouble=Trouble.AUTH,
        )
    try:
        greeter.login(endpoint.username, endpoint.password, initial_response_ok=len(credentials) <= _AT_ONCE)
    except smtplib.SMTPAuthenticationError as error:
        raise _locked_out(endpoint, error.smtp_code) from error
    except smtplib.SMTPServerDisconnected:
        raise
    except smtplib.SMTPException as error:
        raise RelayDown(
            f"{endpoint.host} offers no AUTH that we can do",
            remedy="Check relay.port and relay.security, or leave relay.username empty.",
            trouble=Trouble.AUTH,
        ) from error


def _locked_out(endpoint: Endpoint, code: int) -> RelayDown:
    """Explain a refused AUTH: a 4xx passes by itself, a 5xx needs a person (RFC 4954 section 6)."""
    if Reply(code).temporary:
        return RelayDown(
            f"{endpoint.host} cannot check our password now: {code}", remedy="It is tried again later."
        )
    return RelayDown(
        f"{endpoint.host} does not accept our user name and password: {code}",
        remedy="Check relay.username and the password.",
        trouble=Trouble.AUTH,
    )


#: What went wrong, in words that need no traceback; the first class that fits.
_WORDS: tuple[tuple[type[Exception], str, str], ...] = (
    (ssl.SSLError, "TLS failed with", _TLS),
    (TimeoutError, "no answer in time from", "Check relay.host, relay.port and the firewall between."),
    (socket.gaierror, "cannot find", "Check relay.host, and that this machine can look names up."),
    (UnicodeError, "not a host name:", "Check relay.host."),
    (ConnectionRefusedError, "nothing listens at", "Check relay.host and relay.port, or start the relay."),
    (smtplib.SMTPServerDisconnected, "connection closed before mail could flow by", "Ask whoever runs it."),
    (ValueError, "no mail server answers at", _NO_MAIL_SERVER),
)


def _explained(endpoint: Endpoint, error: Exception) -> RelayDown:
    """Turn what the library raised into one line and a remedy."""
    where = f"{endpoint.host}:{endpoint.port}"
    if isinstance(error, ssl.SSLCertVerificationError):
        return RelayDown(f"the certificate of {where} is not accepted: {error.verify_message}", remedy=_PROOF)
    if isinstance(error, smtplib.SMTPHeloError):
        return _turned_away(endpoint, Reply(error.smtp_code))
    for kind, words, remedy in _WORDS:
        if isinstance(error, kind):
            return RelayDown(f"{words} {where}", remedy=remedy)
    why = error.strerror if isinstance(error, OSError) else ""
    return RelayDown(f"cannot reach {where}: {why or type(error).__name__}", remedy=_WORDS[1][2])


class Opening:
    """One connection on its way up, in a thread of its own, so that a slow handshake holds up nobody."""

    def __init__(
        self, endpoint: Endpoint, context: ssl.SSLContext, done: Callable[["Opening"], None]
    ) -> None:
        """Start at once; `done` is called from the thread, unless it was abandoned before."""
        #: How it ended; None while it has not.
        self.end: Offer | RelayDown | None = None
        self.greeter = Greeter(endpoint)
        #: When it began (monotonic seconds).
        self.since = time.monotonic()
        self._done = done
        self._lock = threading.Lock()
        self._abandoned = False
        # A daemon: a server that hangs must not keep this process from ending.
        threading.Thread(target=self._run, args=(endpoint, context), daemon=True, name="opening").start()

    def _run(self, endpoint: Endpoint, context: ssl.SSLContext) -> None:
        try:
            self.end = greet(endpoint, context, self.greeter)
        except RelayDown as down:
            self.end = down
        with self._lock:
            if self._abandoned:
                self.greeter.close()
            else:
                self._done(self)

    def abandon(self) -> None:
        """Give it up: what is still being said is cut short, and what was opened is closed."""
        with self._lock:
            self._abandoned = True
            if self.end is not None:
                self.greeter.close()
            elif self.greeter.sock is not None:
                with contextlib.suppress(
                    OSError
                ):  # wakes the thread; TLS itself must not be touched from here
                    socket.socket.shutdown(self.greeter.sock, socket.SHUT_RDWR)
