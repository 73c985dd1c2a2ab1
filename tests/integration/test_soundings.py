"""What is asked outside: pages that answer, refuse, lead on, drip or betray; a spam filter; a real DNS."""

import http.server
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.resolver
import dns.rrset
import pytest

from worker.content.editions import Edition, Form
from worker.content.messages import Identity
from worker.content.rendering import Organisation
from worker.soundings import names, spam, visits
from worker.soundings.visits import Network, is_public

#: Pages by path: status, and where it leads.
PAGES: Mapping[str, tuple[int, str]] = {
    "/well": (200, ""),
    "/gone": (404, ""),
    "/broken": (500, ""),
    "/busy": (429, ""),
    "/moved": (301, "/well"),
    "/around": (302, "/around"),
    "/plain": (302, "http://example.org/"),
    "/inside": (302, "https://inside.example/"),
    "/file": (302, "file:///etc/passwd"),
}


class _Page(http.server.BaseHTTPRequestHandler):
    """Answers as PAGES says; /drip sends a header that never ends, /hang nothing."""

    def do_GET(self) -> None:
        """Answer."""
        stop = self.server.stop  # type: ignore[attr-defined]  # set by the fixture
        if self.path == "/hang":
            stop.wait(20)
            return
        if self.path == "/drip":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
            while not stop.wait(0.05):
                try:
                    self.wfile.write(b"x")
                except OSError:
                    return
            return
        status, target = PAGES[self.path.partition("?")[0]]
        self.send_response(status)
        if target:
            self.send_header("Location", target)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's own name
        """Say nothing."""


class _Sites(http.server.ThreadingHTTPServer):
    """A site whose visitors may hang up in the middle of anything."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing."""


@pytest.fixture
def site(certificates: Path) -> Iterator[Callable[..., str]]:
    """Start sites with a certificate; each gives the address it stands at."""
    running, stop = list[_Sites](), threading.Event()

    def start(certificate: str = "good") -> str:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates / f"{certificate}.pem")
        server = _Sites(("127.0.0.1", 0), _Page)
        server.stop = stop  # type: ignore[attr-defined]  # for the pages that wait
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        running.append(server)
        return f"https://127.0.0.1:{server.server_port}"

    yield start
    stop.set()
    for server in running:
        server.shutdown()
        server.server_close()


def _resolve(host: str, port: int) -> list[str]:
    if host == "inside.example":
        return ["10.0.0.1"]
    return [str(each[4][0]) for each in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


@pytest.fixture
def network(certificates: Path) -> Network:
    """The network of this machine, and no other."""
    context = ssl.create_default_context(cafile=certificates / "ca.pem")
    return Network(_resolve, lambda address: address.is_loopback, context, seconds=1.0)


def found(link: str, network: Network) -> list[tuple[str, str]]:
    """Visit one link; return the findings' names and words."""
    return [(one.name, one.what) for one in visits.visit([link], network)]


@pytest.mark.parametrize(
    ("path", "name", "told"),
    [
        ("/well?src=a b", "", ""),
        ("/moved", "", ""),
        ("/gone", "links.broken", "answers 404"),
        ("/broken", "links.broken", "answers 500"),
        ("/busy", "links.doubtful", "answers 429"),
        ("/around", "links.broken", "leads on and on"),
        ("/plain", "links.private", "not https"),
        ("/file", "links.private", "not https"),
        ("/inside", "links.private", "private network"),
        ("/hang", "links.doubtful", "did not answer in time"),
        ("/drip", "links.doubtful", "did not answer in time"),
    ],
)
def test_each_answer_of_a_site_is_judged(
    site: Callable[..., str], network: Network, path: str, name: str, told: str
) -> None:
    """What does not open is an error; what may be a robot's fate is a warning; nothing holds us for long."""
    started = time.monotonic()
    result = found(site() + path.replace(" ", "%20"), network)
    assert time.monotonic() - started < 8
    assert [each for each, _ in result] == ([name] if name else [])
    assert all(told in words for _, words in result)


@pytest.mark.parametrize("certificate", ["expired", "wrong-host", "self-signed"])
def test_a_certificate_that_nobody_trusts_breaks_a_link(
    site: Callable[..., str], network: Network, certificate: str
) -> None:
    """As it would for the reader."""
    (name, told), = found(f"{site(certificate)}/well", network)  # fmt: skip
    assert (name, "certificate" in told) == ("links.broken", True)


def test_a_site_that_is_not_there_breaks_a_link(network: Network) -> None:
    """No server, or no such name."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert [name for name, _ in found(f"https://127.0.0.1:{port}/", network)] == ["links.broken"]

    def nowhere(_host: str, _port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "no such host")

    (name, told), = found("https://nowhere.example/", replace(network, resolve=nowhere))  # fmt: skip
    assert (name, "no such host" in told) == ("links.broken", True)


def test_a_dns_that_is_away_says_nothing_of_a_page(network: Network) -> None:
    """A warning, not an error: the operator's network is down, not the page."""

    def silent(_host: str, _port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_AGAIN, "try again")

    network = replace(network, resolve=silent)
    assert [name for name, _ in found("https://fairshore.example/", network)] == ["links.doubtful"]


def test_a_name_with_one_private_address_is_not_visited(site: Callable[..., str], network: Network) -> None:
    """Or the second question would be answered by the machines of our own network."""
    network = replace(network, resolve=lambda _host, _port: ["127.0.0.1", "192.168.0.1"])
    assert [name for name, _ in found(f"{site()}/well", network)] == ["links.private"]


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.215.14", True),
        ("2606:2800:21f:cb07:6820:80da:af6b:8b2c", True),
        *((one, False) for one in ("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254")),
        *((one, False) for one in ("100.64.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255")),
        *((one, False) for one in ("::1", "::", "fe80::1", "fd00::1", "ff02::1", "::ffff:10.0.0.1")),
        *((one, False) for one in ("64:ff9b::a00:1", "2002:a00:1::", "::ffff:127.0.0.1")),
    ],
)
def test_only_public_addresses_are_connected_to(address: str, public: bool) -> None:  # noqa: FBT001 - a table
    """Whatever they are wrapped in."""
    assert is_public(ipaddress.ip_address(address)) is public


REPORTS = """\
Content analysis details:   (1.3 points, 5.0 required)

 pts rule name              description
---- ---------------------- --------------------------------------------------
-1.0 MAILING_LIST_MULTI     Multiple indicators imply a widely-seen list
                            manager
 2.3 MISSING_DATE           Missing Date: header
 0.0 HTML_MESSAGE           BODY: HTML included in message

X-Spam-Checker-Version: SpamAssassin 4.0.1 (2024-03-25) on host
Inhaltsanalyse im Detail:   (1000.0 Punkte, 5.0 ben\ufffdtigt)

Pkte Regelname              Beschreibung
---- ---------------------- --------------------------------------------------
1000 GTUBE                  BODY: Test zur Sicherstellung der Funktion
"""
RSPAMD = """\
Results for file: 0000.eml (0.05 seconds)
[Metric: default]
Action: add header
Spam: true
Score: 6.20 / 15.00
Symbol: MIME_GOOD (-0.10)[multipart/alternative]
Symbol: HFILTER_HOSTNAME_UNKNOWN (2.50)
Message-ID: undef

Results for file: 0001.eml (0.05 seconds)
[Metric: default]
Action: no action
Spam: false
Score: -0.10 / 15.00
"""


def test_the_filters_reports_are_read() -> None:
    """Score and the rules that cost points, in whatever language; what is no report is no opinion."""
    told = spam.read("spamassassin", REPORTS)
    assert [(one.score, one.against) for one in told] == [(1.3, ("MISSING_DATE",)), (1000.0, ("GTUBE",))]
    told = spam.read("rspamc", RSPAMD)
    assert [(one.score, one.against) for one in told] == [(6.2, ("HFILTER_HOSTNAME_UNKNOWN",)), (-0.1, ())]
    assert spam.read("rspamc", "IO read error") == []


def test_without_a_filter_one_note_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Once, however many mails."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert [one.name for one in spam.examine([("en", b"x"), ("ru", b"x")])] == ["spam.unknown"]


WELL = {
    ("fairshore.example", "TXT"): ['"some=thing"', '"v=spf1 include:relay.example -all"'],
    ("fairshore.example", "MX"): ["10 mx.fairshore.example."],
    ("_dmarc.fairshore.example", "TXT"): ['"v=DMARC1;" " p=none"'],
    ("s1._domainkey.fairshore.example", "TXT"): ['"v=DKIM1; p=abc"'],
}


class _Zone:
    """A DNS server for the names that a test gives it; it says nothing about silent.example."""

    def __init__(self, records: Mapping[tuple[str, str], list[str]]) -> None:
        self.records = records
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.port = int(self.socket.getsockname()[1])
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                wire, who = self.socket.recvfrom(4096)
            except OSError:
                return
            asked = dns.message.from_wire(wire)
            name = asked.question[0].name.to_text(omit_final_dot=True).lower()
            if not name.endswith("silent.example"):
                self.socket.sendto(self._answer(asked, name).to_wire(), who)

    def _answer(self, asked: dns.message.Message, name: str) -> dns.message.Message:
        answer = dns.message.make_response(asked)
        kind = dns.rdatatype.to_text(asked.question[0].rdtype)
        if records := self.records.get((name, kind)):
            answer.answer.append(dns.rrset.from_text(f"{name}.", 60, "IN", kind, *records))
        elif not any(known == name or known.endswith(f".{name}") for known, _ in self.records):
            answer.set_rcode(dns.rcode.NXDOMAIN)
        return answer


@pytest.fixture
def asked() -> Iterator[Callable[..., list[tuple[str, str]]]]:
    """Ask a DNS with these records about an edition that sends as somebody at this domain."""
    zones = list[_Zone]()

    def ask(
        records: Mapping[tuple[str, str], list[str]], domain: str = "fairshore.example"
    ) -> list[tuple[str, str]]:
        zone = _Zone(records)
        zones.append(zone)
        resolver = dns.resolver.Resolver(configure=False)
        resolver.nameservers, resolver.port, resolver.lifetime = ["127.0.0.1"], zone.port, 1.0
        return [(one.name, one.what) for one in names.examine(edition(domain), resolver)]

    yield ask
    for zone in zones:
        zone.socket.close()


def edition(domain: str) -> Edition:
    """Return an edition whose mails stand on one domain."""
    mailbox = f"appeals@{domain}"
    ours = Identity(mailbox, mailbox, domain, domain, domain, f"mail.{domain}", "fairshore")
    charity = Organisation("Fair Shore", "2 Harbour Road", "", "", "")
    return Edition("clinic", {}, {}, charity, Form(ours, f"https://act.{domain}"), None)


Asked = Callable[..., list[tuple[str, str]]]


def test_a_domain_in_good_order_has_no_finding(asked: Asked) -> None:
    """SPF once among other records, DMARC in two pieces, some DKIM key, a mail server."""
    assert asked(WELL) == []


def test_dmarc_of_the_domain_above_holds(asked: Asked) -> None:
    """RFC 9989: the tree is walked up to the organisation's own record."""
    below = {
        (f"news.{name}" if "dmarc" not in name else name, kind): told for (name, kind), told in WELL.items()
    }
    below["_domainkey.news.fairshore.example", "TXT"] = ['"o=~"']
    assert asked(below, "news.fairshore.example") == []


@pytest.mark.parametrize(
    ("key", "records", "name"),
    [
        (("fairshore.example", "TXT"), [], "dns.spf"),
        (("fairshore.example", "TXT"), ['"v=spf1 -all"', '"v=spf1 mx -all"'], "dns.spf"),
        (("fairshore.example", "TXT"), ['"v=spf1 +all"'], "dns.spf"),
        (("fairshore.example", "TXT"), ['"v=spf10 -all"'], "dns.spf"),
        (("_dmarc.fairshore.example", "TXT"), [], "dns.dmarc"),
        (("_dmarc.fairshore.example", "TXT"), ['"hello"'], "dns.dmarc"),
        (("s1._domainkey.fairshore.example", "TXT"), [], "dns.dkim"),
        (("fairshore.example", "MX"), ["0 ."], "dns.mx"),
        (("fairshore.example", "MX"), [], "dns.mx"),
    ],
)
def test_what_is_missing_in_the_dns_is_named(
    asked: Asked, key: tuple[str, str], records: list[str], name: str
) -> None:
    """One record taken out or spoilt gives exactly its finding."""
    told = {**WELL, key: records}
    assert [each for each, _ in asked({one: kept for one, kept in told.items() if kept})] == [name]


def test_a_dns_that_says_nothing_is_not_taken_for_a_no(asked: Asked) -> None:
    """Silence is a warning; nobody should mend what is well."""
    assert {name for name, _ in asked({}, "silent.example")} == {"dns.silent"}
