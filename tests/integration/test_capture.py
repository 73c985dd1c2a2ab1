"""The capture server and its page: mail is kept as it came, delivered to nobody, and shown harmlessly."""

import email.message
import itertools
import json
import shutil
import smtplib
import socket
import stat
import subprocess
import sys
from pathlib import Path

import lxml.html
import pytest

from worker import capture, gallery, outbox, processes
from worker.errors import Unavailable, WrongUse
from worker.outbox import Outbox

ROOT = Path(__file__).parents[2]
TEMPLATE = (ROOT / "templates/capture/index.html").read_text(encoding="utf-8")


def mail(subject: str = "Hello", html: str = "<p>Hi</p>", text: str = "Hi", **headers: str) -> bytes:
    """Make a small mail."""
    message = email.message.EmailMessage()
    message["Subject"] = subject
    message["From"] = "appeals@example.org"
    message["To"] = "ann@example.com"
    for name, value in headers.items():
        message[name] = value
    message.set_content(text)
    message.add_alternative(html, subtype="html")
    return message.as_bytes(policy=message.policy.clone(linesep="\r\n"))


def send(place: capture.Place, data: bytes, *recipients: str) -> dict[str, tuple[int, bytes]]:
    """Send one mail the standard library's way, and give the refused recipients."""
    with smtplib.SMTP(place.host, place.port, timeout=10) as client:
        try:
            return client.sendmail("bounce+1@example.org", recipients or ("ann@example.com",), data)
        except smtplib.SMTPRecipientsRefused as refused:
            return refused.recipients


class TestServer:
    """Taking mail."""

    @pytest.mark.parametrize(
        "data",
        [
            mail(),
            b"Subject: dots\r\n\r\n.\r\n..\r\n.leading\r\nend.\r\n",
            b"Subject: bytes\r\n\r\n\xff\xfe caf\xc3\xa9 \x00\r\n",
            b"Subject: long\r\n\r\n" + b"x" * 990 + b"\r\n",
            b"\r\nno header\r\n",
        ],
    )
    def test_bytes_untouched(self, tmp_path: Path, data: bytes) -> None:
        """A mail is kept byte for byte, with its envelope beside it, for our eyes only."""
        with capture.running(tmp_path) as place:
            assert send(place, data) == {}
        kept, note = tmp_path / "000001.eml", tmp_path / "000001.json"
        assert kept.read_bytes() == data
        envelope = json.loads(note.read_text(encoding="utf-8"))
        assert (envelope["sender"], envelope["recipients"]) == ("bounce+1@example.org", ["ann@example.com"])
        assert {stat.S_IMODE(file.stat().st_mode) for file in (kept, note)} == {0o600}
        assert not list(tmp_path.glob("*.new"))

    def test_numbers_go_on(self, tmp_path: Path) -> None:
        """A server started again keeps what its predecessor kept."""
        for _ in range(2):
            with capture.running(tmp_path) as place:
                send(place, mail())
        assert [found.file for found in capture.kept(tmp_path)] == ["000001.eml", "000002.eml"]

    def test_replies(self, tmp_path: Path) -> None:
        """Chosen recipients get chosen replies, some of them the first time only; the others are taken."""
        rules = [
            capture.Rule("bounce@*", "550 5.1.1 No such user"),
            capture.Rule("full*@example.com", "452 4.2.2 Mailbox full"),
            capture.Rule("grey@*", "451 4.7.1 Come again", once=True),
        ]
        everyone = ["ann@example.com", "Bounce@example.com", "full.up@example.com", "grey@example.com"]
        with capture.running(tmp_path, rules) as place:
            first = send(place, mail(), *everyone)
            second = send(place, mail(), "grey@example.com")
        assert first == {
            "Bounce@example.com": (550, b"5.1.1 No such user"),
            "full.up@example.com": (452, b"4.2.2 Mailbox full"),
            "grey@example.com": (451, b"4.7.1 Come again"),
        }
        assert second == {}
        assert [found.recipients for found in capture.kept(tmp_path)] == [
            ("ann@example.com",),
            ("grey@example.com",),
        ]

    def test_pipelining(self, tmp_path: Path) -> None:
        """Pipelining is offered and kept: a body and the next envelope may come in one write (RFC 2920)."""
        one = b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.com>\r\nDATA\r\n"
        with (
            capture.running(tmp_path) as place,
            socket.create_connection((place.host, place.port), 10) as wire,
        ):
            replies = wire.makefile("rb")
            replies.readline()
            wire.sendall(b"EHLO [127.0.0.1]\r\n")
            offered = list(iter(lambda: replies.readline().strip(), b"250 HELP"))
            wire.sendall(one + b"one\r\n.\r\n" + one + b"two\r\n.\r\nQUIT\r\n")
            codes = [line[:3] for line in replies]
            replies.close()
        assert {b"250-PIPELINING", b"250-8BITMIME", b"250-SMTPUTF8"} <= set(offered)
        assert codes == [b"250", b"250", b"354", b"250"] * 2 + [b"221"]
        assert [found.data for found in capture.kept(tmp_path)] == [b"one\r\n", b"two\r\n"]

    def test_many_on_one_connection(self, tmp_path: Path) -> None:
        """A connection may carry as many mails as the sender likes."""
        with capture.running(tmp_path) as place, smtplib.SMTP(place.host, place.port, timeout=10) as client:
            for _ in range(200):
                client.sendmail("a@example.org", ["b@example.com"], mail())
        assert len(list(capture.kept(tmp_path))) == 200

    def test_nothing_logged(self, tmp_path: Path) -> None:
        """The server's output holds no address, nor anything else while all is well."""
        log = tmp_path / "capture.log"
        with capture.running(tmp_path / "outbox", log=log) as place:
            send(place, mail(), "ann@example.com", "Zoë <zoe@example.com>")
        assert log.read_text(encoding="utf-8") == ""

    def test_cannot_keep(self, tmp_path: Path) -> None:
        """A mail that cannot be kept is not taken: the sender is told to come again."""
        folder = tmp_path / "outbox"
        with capture.running(folder) as place:
            shutil.rmtree(folder)
            with pytest.raises(smtplib.SMTPDataError, match="Cannot keep it") as caught:
                send(place, mail())
        assert caught.value.smtp_code == 451

    def test_second_server(self, tmp_path: Path) -> None:
        """Two servers never number mails of one folder, and the first goes on undisturbed."""
        with capture.running(tmp_path) as place:
            with pytest.raises(Unavailable, match="did not come up"), capture.running(tmp_path):
                pass
            assert send(place, mail()) == {}


class TestCommand:
    """The server's own command line."""

    @pytest.mark.parametrize(
        ("arguments", "told", "code"),
        [
            (["--host", "0.0.0.0"], "is not this machine. Add --anywhere", 2),
            (["--reply", "bounce@*"], "a rule for replies is not understood", 2),
            (["--reply", "bounce@*=no"], "a rule for replies is not understood", 2),
            (["--reply", "bounce@*=550 a\r\nb"], "a rule for replies is not understood", 2),
        ],
    )
    def test_refused(self, tmp_path: Path, arguments: list[str], told: str, code: int) -> None:
        """Wrong use is one line with its remedy."""
        asked = subprocess.run(
            [sys.executable, "-m", "worker.capture", str(tmp_path), *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (asked.returncode, asked.stderr.count("\n")) == (code, 1)
        assert told in asked.stderr

    def test_page(self, tmp_path: Path) -> None:
        """With --page the page is there once the mails pause, and complete when the server ends."""
        with subprocess.Popen(
            [sys.executable, "-m", "worker.capture", str(tmp_path), "--port", "0", "--page"], cwd=ROOT
        ) as process:
            note, index = tmp_path / ".capture.json", tmp_path / "index.html"
            assert processes.until(note.exists, seconds=20)
            place = capture.Place(**json.loads(note.read_text(encoding="ascii")))
            send(place, mail(subject="First"))
            assert processes.until(index.exists, seconds=20)
            send(place, mail(subject="Second"))
            process.terminate()
        assert process.returncode == 0
        assert "Second" in index.read_text(encoding="utf-8")
        assert not note.exists()

    def test_port_taken(self, tmp_path: Path) -> None:
        """A port that is taken is one line, not a traceback."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            asked = subprocess.run(
                [sys.executable, "-m", "worker.capture", str(tmp_path), "--port", str(port)],
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=False,
            )
        assert (asked.returncode, asked.stderr.count("\n")) == (3, 1)
        assert f"port {port}" in asked.stderr

    def test_rule(self) -> None:
        """A rule survives the way through the command line."""
        rule = capture.Rule("bounce@*", "550 5.1.1 No = such user")
        assert capture.Rule.parse(rule.words[1]) == rule
        with pytest.raises(WrongUse):
            capture.Rule.parse("=550 5.1.1 x")


class TestPage:
    """The page to look through them."""

    def shown(self, *mails: bytes) -> lxml.html.HtmlElement:
        """Write the page of some mails and parse it as a browser would."""
        captured = [
            gallery.Captured(f"{number:06d}.eml", "b@example.org", ("r@example.com",), data)
            for number, data in enumerate(mails, 1)
        ]
        return lxml.html.document_fromstring(gallery.page(captured, TEMPLATE))

    @pytest.mark.parametrize(
        "attack",
        [
            "<script>alert(1)</script>",
            "</title></style></textarea></iframe><script>alert(1)</script>",
            '"\' onload=alert(1) x="',
            "--><img src=x onerror=alert(1)>",
            "{{ 7*7 }}{% raw %}",
            "\u202etxt.exe",
        ],
    )
    def test_hostile(self, attack: str) -> None:
        """Nothing in a mail becomes part of the page, wherever in the mail it stands."""
        hostile = mail(subject=attack, html=f"<p>{attack}</p>", text=attack, **{"X-Attack": attack})
        page, harmless = self.shown(hostile), self.shown(mail(**{"X-Attack": "x"}))
        assert [element.tag for element in page.iter()] == [element.tag for element in harmless.iter()]
        assert [sorted(e.attrib) for e in page.iter()] == [sorted(e.attrib) for e in harmless.iter()]
        assert attack in page.xpath("string(//h2)")
        assert attack in page.xpath("string(//*[contains(@class,'text')]/pre)")
        assert attack in page.xpath("//iframe")[0].get("srcdoc")

    def test_frame(self) -> None:
        """A mail's HTML stands whole in a frame that allows nothing, on a page that fetches nothing."""
        html = "<!DOCTYPE html><html><body><h1>Grüße &amp; “quotes”</h1></body></html>"
        frame = self.shown(mail(html=html)).xpath("//iframe")[0]
        assert frame.get("srcdoc").strip() == html
        assert frame.get("sandbox") == ""
        page = self.shown(mail())
        policy = page.xpath("//meta[@http-equiv='Content-Security-Policy']/@content")[0]
        assert policy.startswith("default-src 'none'")
        assert not page.xpath("//script | //link | //img | //*[starts-with(@src,'http')]")

    def test_decoded(self) -> None:
        """People read decoded headers; the source shows what was sent."""
        page = self.shown(mail(subject="Отчёт опубликован", text="Привет"))
        assert "Отчёт опубликован" in page.xpath("string(//ol[@id='list'])")
        assert "Привет" in page.xpath("string(//*[contains(@class,'text')]/pre)")
        assert "=?utf-8?" in page.xpath("string(//*[contains(@class,'source')]/pre)")

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"Subject: =?utf-8?b?!!!?= =?nonsense?q?x?= \xff\r\n\r\nx",
            b"Content-Type: text/plain; charset=nonsense\r\n\r\n\xff",
            b"Content-Type: multipart/alternative\r\n\r\nx",
            b"Content-Type: text/html; charset=\xff\r\n\r\n<p>\xff",
            b"Content-Transfer-Encoding: base64\r\nContent-Type: text/html\r\n\r\n%%%",
            bytes(range(256)),
        ],
    )
    def test_broken_mail(self, data: bytes) -> None:
        """A mail that breaks every rule is still shown."""
        assert len(self.shown(data, mail()).xpath("//article")) == 2

    @pytest.mark.parametrize(("count", "told"), [(0, "0 mails"), (1, "1 mail,"), (3, "3 mails")])
    def test_counted(self, count: int, told: str) -> None:
        """The page tells how many there are, none included."""
        page = self.shown(*itertools.repeat(mail(), count))
        assert told in page.xpath("string(//header)")
        assert len(page.xpath("//ol/li/a")) == count

    def test_links_lead_somewhere(self) -> None:
        """Every link inside the page has its target, and every control its label."""
        page = self.shown(mail(), mail(), mail())
        targets = {element.get("id") for element in page.iter() if element.get("id")}
        assert {link[1:] for link in page.xpath("//a/@href") if link.startswith("#")} <= targets
        assert set(page.xpath("//label/@for")) == set(page.xpath("//input/@id"))

    def test_written(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The page stands beside the mails, for our eyes only, and says how many it leaves out."""
        kept = Outbox(tmp_path)
        for number in range(3):
            kept.keep("", ["r@example.com"], mail(subject=f"Mail {number}"))
        monkeypatch.setattr(outbox, "SHOWN", 2)
        index = capture.write_index(tmp_path)
        text = index.read_text(encoding="utf-8")
        assert index == tmp_path / "index.html"
        assert stat.S_IMODE(index.stat().st_mode) == 0o600
        assert "1 more" in text
        assert "Mail 1" in text
        assert "Mail 2" not in text
