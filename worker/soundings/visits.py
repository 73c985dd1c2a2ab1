"""Visits: whether the pages that a mail links to are there.

Owns the bounds: time, octets, hops. Refuses: to connect to an address that is not public (a link, or a page
that leads on, could otherwise make this machine ask its own network for things), cookies, proxies, http.
"""

import contextlib
import http.client
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import quote, urljoin, urlsplit

from worker.content.checks.findings import Finding
from worker.soundings import rules

#: Seconds for one hop, from the connection to the last header.
SECONDS = 10.0
#: Pages that lead on to others, at most.
HOPS = 5
#: Visits at the same time, and links visited at most.
AT_ONCE, MOST = 8, 200
#: What sites answer to programs whose page is well: not allowed, too many, go away.
_REFUSALS = frozenset({401, 403, 405, 406, 429, 451, 503, 999})
#: What may stand in a path or query as it is; "%" because it is encoded already.
_KEPT = "/%:@!$&'()*+,;=?~-._"
_HEADERS = {"User-Agent": "Mozilla/5.0 (compatible; link check)", "Accept": "*/*", "Connection": "close"}

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class _TrustlessError(Exception):
    """The next hop would leave the public network, or TLS."""


def is_public(address: _Address) -> bool:
    """Tell whether an address is one of the public network's, whatever other address it is wrapped in."""
    if isinstance(address, ipaddress.IPv6Address):
        # 64:ff9b::/96 (RFC 6052) and 2002::/16 carry an IPv4 address that a gateway would connect to.
        if address in ipaddress.ip_network("64:ff9b::/96"):
            return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        wrapped = address.ipv4_mapped or address.sixtofour
        if wrapped is not None:
            return is_public(wrapped)
    return address.is_global and not address.is_multicast


@dataclass(frozen=True, slots=True)
class Network:
    """How the outside is reached; tests stand at another door."""

    #: returns a host's addresses; OSError where it has none
    resolve: Callable[[str, int], Sequence[str]]
    #: tells whether an address may be connected to
    permitted: Callable[[_Address], bool]
    #: what certificates are trusted
    tls: ssl.SSLContext
    #: for one hop
    seconds: float = SECONDS


def _resolve(host: str, port: int) -> Sequence[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(each[4][0]) for each in found]


def public() -> Network:
    """Return the real network."""
    return Network(_resolve, is_public, ssl.create_default_context())


class _UnansweredError(Exception):
    """The DNS did not answer: that says nothing of the page."""


class _Connection(http.client.HTTPSConnection):
    """Connects to the address that was judged: a name may change its mind between two questions."""

    def __init__(self, host: str, port: int, address: str, network: Network) -> None:
        super().__init__(host, port, timeout=network.seconds, context=network.tls)
        self._address, self._tls = address, network.tls
        #: whether its time was up; what was read until then may look like an answer
        self.is_cut = False

    def connect(self) -> None:
        """Open the link; the certificate is the name's."""
        link = socket.create_connection((self._address, self.port), self.timeout)
        self.sock = self._tls.wrap_socket(link, server_hostname=self.host)

    def cut(self) -> None:
        """End it from another thread, whatever it waits for."""
        self.is_cut = True
        if self.sock is not None:
            with contextlib.suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)


def visit(links: Iterable[str], network: Network) -> Iterator[Finding]:
    """Visit links, some at a time, and yield what is wrong with each."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for found in pool.map(lambda link: _visited(link, network), list(links)[:MOST]):
            yield from found


def _visited(link: str, network: Network) -> Sequence[Finding]:
    shown = link if len(link) <= 60 else f"{link[:59]}…"  # noqa: PLR2004 - fits a line
    place, status = link, 0
    try:
        for _ in range(HOPS):
            status, target = _hop(place, network)
            if not target:
                break
            place = urljoin(place, target)
        else:
            return [rules.BROKEN.found(f"{shown} leads on and on", "HTML")]
    except _TrustlessError as error:
        return [rules.PRIVATE.found(f"{shown} leads to {error}", "HTML")]
    except (TimeoutError, _UnansweredError):
        return [rules.DOUBTFUL.found(f"{shown} did not answer in time", "HTML")]
    except (OSError, http.client.HTTPException, ValueError) as error:
        return [rules.BROKEN.found(f"{shown} cannot be reached ({_why(error)})", "HTML")]
    return list(_judged(shown, link, place, status))


def _judged(shown: str, link: str, place: str, status: int) -> Iterator[Finding]:
    if status in _REFUSALS:
        yield rules.DOUBTFUL.found(f"{shown} answers {status}", "HTML")
    elif status >= 400:  # noqa: PLR2004 - RFC 9110 section 15
        yield rules.BROKEN.found(f"{shown} answers {status}", "HTML")
    elif urlsplit(place).hostname != urlsplit(link).hostname:
        yield rules.MOVED.found(f"{shown} leads on to {urlsplit(place).hostname}", "HTML")


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return "its certificate is not trusted"
    if isinstance(error, socket.gaierror):
        return "there is no such host"
    return "no answer that can be read" if isinstance(error, http.client.HTTPException) else "no connection"


def _hop(place: str, network: Network) -> tuple[int, str]:
    """Ask for one page; return its status, and where it leads on to ("": nowhere)."""
    parts = urlsplit(place)
    host = (parts.hostname or "").encode("idna").decode("ascii")
    if parts.scheme != "https" or not host:
        raise _TrustlessError("a page that is not https")
    port = parts.port or 443
    connection = _Connection(host, port, _judged_address(host, port, network), network)
    # A timeout of a socket is one for each read: a page that drips would hold us for hours.
    end = threading.Timer(network.seconds, connection.cut)
    end.daemon = True
    end.start()
    try:
        path = quote(parts.path or "/", safe=_KEPT) + (
            f"?{quote(parts.query, safe=_KEPT)}" if parts.query else ""
        )
        connection.request("GET", path, headers=_HEADERS)
        answer = connection.getresponse()
        target = answer.getheader("Location") if answer.status in {301, 302, 303, 307, 308} else ""
    except (OSError, http.client.HTTPException) as error:
        if connection.is_cut:
            raise TimeoutError from error
        raise
    else:
        if connection.is_cut:
            raise TimeoutError
        return answer.status, target or ""
    finally:
        end.cancel()
        connection.close()


def _judged_address(host: str, port: int, network: Network) -> str:
    """Return an address to connect to; none may be private, or the next question could be answered by it."""
    try:
        found = network.resolve(host, port)
    except socket.gaierror as error:
        if error.errno == socket.EAI_AGAIN:
            raise _UnansweredError from error
        raise
    for each in found:
        if not network.permitted(ipaddress.ip_address(each.partition("%")[0])):
            raise _TrustlessError("an address of a private network")
    return found[0]
