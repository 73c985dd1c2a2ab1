"""The rules of the opt-out link, asked of the app itself; the server around it has its own tests."""

import asyncio
import re
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from worker.errors import Unavailable
from worker.forms import Wish
from worker.web import ONE_CLICK, Staff, create_app

FILES: Mapping[str, str] = {
    path.name: path.read_text("utf-8")
    for folder in ("web", "locale")
    for path in (Path(__file__).parents[2] / "templates" / folder).iterdir()
}
URLENCODED = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=--b"
CLICK = b"List-Unsubscribe=One-Click"
CLICK_PARTS = (
    b'----b\r\nContent-Disposition: form-data; name="List-Unsubscribe"\r\n\r\nOne-Click\r\n----b--\r\n'
)
BUTTON = b"choice=stop"
GOOD = "goodmark"
KIB_64 = 64 * 1024


@dataclass(frozen=True)
class About:
    """What a link is about."""

    sender: str = "Example Equality"
    list_title: str = "Urgent appeals"
    language: str = ""
    discreet: bool = False
    test: bool = False


@dataclass(frozen=True)
class Stopped:
    """An opt-out by the page."""

    about: About
    voucher: str = ""


@dataclass(frozen=True)
class Choices:
    """How things stand for a reader."""

    about: About
    stopped: bool = False
    paused_until: float | None = None
    fewer: bool = False
    language: str = ""
    discreet: bool = False
    offers_discreet: bool = True
    held: bool = True
    topics: Sequence[Any] = ()
    asked: bool = False


@dataclass(frozen=True)
class Confirmed:
    """What a notice's link would do, or has done."""

    about: About
    kind: str
    choices: Choices | None = None
    facts: Mapping[str, Any] | None = None
    opt_out: str = ""


VOUCHER = "v" * 32


@dataclass
class Memory:
    """The declared double of all that the app calls: it keeps what is asked of it in memory."""

    known: dict[str, About] = field(default_factory=lambda: {GOOD: About()})
    opted_out: list[tuple[str, str]] = field(default_factory=list)
    wishes: list[Wish] = field(default_factory=list)
    undone: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    confirmed: list[str] = field(default_factory=list)
    kind: str = "forget"
    facts: Mapping[str, Any] | None = None
    again: Collection[str] = ()
    guesses: list[str] = field(default_factory=list)
    wait: int = 0
    fault: Exception | None = None

    def knows(self, token: str) -> bool:
        """Tell whether a link can be ours."""
        return token in self.known

    def describe(self, token: str) -> About | None:
        """Tell what a link is about."""
        if self.fault:
            raise self.fault
        return self.known.get(token)

    def opt_out_all(self, tokens: Sequence[str], how: str) -> Sequence[bool]:
        """Remember opt-outs."""
        known = [self.describe(token) is not None for token in tokens]
        self.opted_out += [(token, how) for token, ours in zip(tokens, known, strict=True) if ours]
        return known

    def stop(self, token: str, *, this_list: bool) -> Stopped | None:
        """Remember one by the page."""
        about = self.describe(token)
        if about is None:
            return None
        self.opted_out.append((token, "list" if this_list else "page"))
        return Stopped(about, "" if about.test else VOUCHER)

    def undo(self, token: str, voucher: str) -> bool | None:
        """Take one back."""
        if self.describe(token) is None:
            return None
        self.undone += [token] if voucher == VOUCHER else []
        return voucher == VOUCHER

    def choices(self, token: str) -> Choices | None:
        """Return how things stand."""
        about = self.describe(token)
        return about and Choices(about, language=about.language, discreet=about.discreet)

    def choose(self, token: str, wanted: Wish) -> Choices | None:
        """Remember what is wanted."""
        choices = self.choices(token)
        self.wishes += [wanted] if choices else []
        return choices

    def ask(self, token: str, kind: str) -> About | None:
        """Remember what a notice is asked for."""
        about = self.describe(token)
        self.asked += [kind] if about else []
        return about

    def pending(self, mark: str) -> Confirmed | None:
        """Tell what a notice's link would do."""
        about = self.describe(mark)
        return None if about is None or mark in self.confirmed else Confirmed(about, self.kind)

    def confirm(self, mark: str, again: Collection[str], _wording: str) -> Confirmed | None:
        """Do it once; where something is to be had again, only what is named."""
        pending = self.pending(mark) if again or self.kind != "choices" else None
        self.confirmed += [mark] if pending else []
        self.again = again
        return pending and replace(pending, facts=self.facts)

    def guessed(self, address: str) -> int:
        """Remember who guessed."""
        self.guesses.append(address)
        return self.wait

    @property
    def changes(self) -> list[object]:
        """All that was changed."""
        return [*self.opted_out, *self.wishes, *self.undone, *self.asked, *self.confirmed]


class _Switch:
    """Stands for whichever memory is asked now."""

    memory: Memory

    def __getattr__(self, name: str) -> Any:
        return getattr(self.memory, name)


_SWITCH = _Switch()


@cache
def _built(*, https: bool, patience: float) -> ASGIApp:
    """Build an app once: to try every page in every language takes a tenth of a second."""
    staff = Staff(_SWITCH, _SWITCH, _SWITCH, _SWITCH)
    return create_app(staff, FILES, https=https, patience=patience)


def app_of(memory: Memory, *, https: bool = False, patience: float = 5) -> ASGIApp:
    """Build the app over the double."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        _SWITCH.memory = memory
        await _built(https=https, patience=patience)(scope, receive, send)

    return app


def ask(
    app: ASGIApp,
    method: str,
    path: str = f"/o/{GOOD}",
    body: bytes | AsyncIterator[bytes] | None = None,
    **headers: str,
) -> httpx.Response:
    """Send one request; header names are written with underscores."""

    async def sent() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://pages.example.org") as client:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            return await client.request(method, path, content=body, headers=named)

    return asyncio.run(sent())


def post(app: ASGIApp, kind: str, *received: Message) -> int:
    """Hand the app a POST as a server would, message by message, and return the status it answers."""
    statuses: list[int] = []
    waiting = list(received)
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": f"/o/{GOOD}",
        "query_string": b"",
        "headers": [(b"content-type", kind.encode("latin-1"))],
    }

    async def receive() -> Message:
        return waiting.pop(0)

    async def send(message: Message) -> None:
        statuses.extend([message["status"]] if "status" in message else [])

    async def handled() -> None:
        await app(scope, receive, send)

    asyncio.run(handled())
    (status,) = statuses
    return status


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "PROPFIND"])
@pytest.mark.parametrize("path", [f"/o/{GOOD}", f"/o/{GOOD}?List-Unsubscribe=One-Click", "/o/forged"])
def test_only_post_changes_anything(method: str, path: str) -> None:
    """U2: no other method changes anything, even with the one-click form in its query and its body."""
    memory = Memory()
    response = ask(app_of(memory), method, path, CLICK, content_type=URLENCODED)
    assert memory.changes == []
    assert response.status_code in {200, 204, 404, 405}


@pytest.mark.parametrize(("body", "kind"), [(CLICK, URLENCODED), (CLICK_PARTS, MULTIPART)])
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"user_agent": ""},
        {"origin": "https://elsewhere.example.com", "referer": "https://elsewhere.example.com/x"},
        {"sec_fetch_site": "cross-site", "cookie": "a=b"},
        {"accept": "text/plain", "accept_language": "ru"},
    ],
)
def test_one_click(body: bytes, kind: str, headers: dict[str, str]) -> None:
    """U1: both encodings opt out at once and answer 200, whatever the agent, the origin and the cookies."""
    memory = Memory()
    response = ask(app_of(memory), "POST", body=body, content_type=kind, **headers)
    assert (response.status_code, response.text) == (200, "Unsubscribed.\n")
    assert response.headers["content-type"].startswith("text/plain")
    assert "set-cookie" not in response.headers
    assert memory.opted_out == [(GOOD, ONE_CLICK)]


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"list-unsubscribe=ONE-CLICK", URLENCODED),
        (b"List%2DUnsubscribe=One%2DClick", URLENCODED),
        (b"a=b&List-Unsubscribe=One-Click&c=d", URLENCODED),
        (CLICK, f"{URLENCODED}; charset=UTF-8"),
        (CLICK, f'{URLENCODED}; charset="utf-8"'),
        (CLICK, URLENCODED.upper()),
        (CLICK_PARTS, 'Multipart/Form-Data; Boundary="--b"'),
        (CLICK_PARTS + b"epilogue", MULTIPART),
        (CLICK_PARTS.replace(b'"', b""), MULTIPART),
    ],
)
def test_one_click_as_others_write_it(body: bytes, kind: str) -> None:
    """The same form in another's spelling (case, quoting, escapes, extra fields) is the same form."""
    memory = Memory()
    assert ask(app_of(memory), "POST", body=body, content_type=kind).status_code == 200
    assert memory.opted_out == [(GOOD, ONE_CLICK)]


@pytest.mark.parametrize(("body", "how"), [(CLICK, ONE_CLICK), (BUTTON, "page")])
def test_the_second_time_is_as_the_first(body: bytes, how: str) -> None:
    """U4: a repeated POST gets the very same answer."""
    memory = Memory()
    app = app_of(memory)
    first, second = (ask(app, "POST", body=body, content_type=URLENCODED) for _ in range(2))
    assert (first.status_code, first.content) == (second.status_code, second.content)
    assert memory.opted_out == [(GOOD, how)] * 2


@pytest.mark.parametrize(
    "path", [f"/o/{GOOD}/", "/o/", "/o", f"/o/{GOOD}/x", "/", "/O/" + GOOD, "//o/" + GOOD]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_there_is_no_redirect(method: str, path: str) -> None:
    """RFC 8058 3.1: nothing is ever answered with a redirect; another path is simply not found."""
    memory = Memory()
    response = ask(app_of(memory), method, path, CLICK, content_type=URLENCODED)
    assert response.status_code == 404
    assert memory.changes == []


def test_the_button_of_the_page() -> None:
    """The page's own form, posted as it stands, opts out and says so on a page."""
    memory = Memory()
    app = app_of(memory)
    assert 'name="choice" value="stop"' in ask(app, "GET").text
    done = ask(app, "POST", body=BUTTON, content_type=URLENCODED)
    assert done.status_code == 200
    assert "Done. We will stop these emails." in done.text
    assert memory.opted_out == [(GOOD, "page")]


@pytest.mark.parametrize(
    ("body", "changes"),
    [
        (b"choice=leave", [(GOOD, "list")]),
        (b"choice=undo&voucher=" + VOUCHER.encode(), [GOOD]),
        (b"choice=undo&voucher=other", []),
        (b"choice=undo", []),
        (b"choice=save", [Wish()]),
        (b"choice=save&pause=30", [Wish(pause_days=30)]),
        (b"choice=save&pause=0&of=fewer", [Wish(pause_days=0, fewer=False)]),
        (b"choice=save&pause=keep&of=fewer&fewer=1&of=discreet", [Wish(fewer=True, discreet=False)]),
        (b"choice=save&fewer=1&discreet=1", [Wish()]),
        (b"CHOICE=Save&language=DE", [Wish(language="de")]),
        (
            b"choice=save&of=topic:a&of=topic:b&topic=b&topic=c&of=discreet&discreet=1",
            [Wish(discreet=True, topics={"a": False, "b": True})],
        ),
        (b"choice=forget", ["forget"]),
        (b"choice=export", ["export"]),
    ],
)
def test_the_other_buttons(body: bytes, changes: list[object]) -> None:
    """Each form of our pages does what it says and nothing else; a box counts where it was shown."""
    memory = Memory()
    response = ask(app_of(memory), "POST", f"/o/{GOOD}?choices", body, content_type=URLENCODED)
    assert response.status_code == 200
    assert memory.changes == changes


def test_the_preferences_are_a_page() -> None:
    """The link's other page shows how things stand, changes nothing, and is as silent about bad marks."""
    memory = Memory()
    app = app_of(memory)
    assert 'name="pause"' in ask(app, "GET", f"/o/{GOOD}?choices").text
    assert ask(app, "GET", "/o/forged?choices").status_code == 404
    assert memory.changes == []


def test_taking_back_is_offered_to_the_page_alone() -> None:
    """The page after the button holds the voucher; a mailbox's one-click is told one word."""
    app = app_of(Memory())
    assert VOUCHER in ask(app, "POST", body=BUTTON, content_type=URLENCODED).text
    assert VOUCHER not in ask(app, "POST", body=CLICK, content_type=URLENCODED).text
    assert (
        "Undone"
        in ask(app, "POST", body=f"choice=undo&voucher={VOUCHER}".encode(), content_type=URLENCODED).text
    )
    assert "no longer" in ask(app, "POST", body=b"choice=undo&voucher=x", content_type=URLENCODED).text


def test_who_guesses_is_turned_away_and_nobody_else() -> None:
    """Only a mark that is not ours is counted and gets 429 with Retry-After; ours never does."""
    memory = Memory(wait=77)
    app = app_of(memory)
    for path, body in (
        ("/o/forged", None),
        ("/o/forged?choices", None),
        ("/o/forged", CLICK),
        ("/o/forged", BUTTON),
    ):
        answer = ask(app, "POST" if body else "GET", path, body, content_type=URLENCODED)
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "77")
        assert "This link does not work" in answer.text
    assert len(memory.guesses) == 4
    assert [ask(app, "GET").status_code, ask(app, "GET", "/favicon.ico").status_code] == [200, 404]
    for body in (CLICK, BUTTON, b"choice=save"):
        assert ask(app, "POST", body=body, content_type=URLENCODED).status_code == 200
    assert len(memory.guesses) == 4
    assert len(memory.changes) == 3


def test_a_notices_link_shows_a_button_does_its_deed_once_and_only_on_post() -> None:
    """GET changes nothing; the button does it; then the link is spent; a forged one is lost."""
    memory = Memory(facts={"person": {"address": "<x@example.org>", "fields": {}}, "lists": [{"title": "A"}]})
    memory.kind = "export"
    app = app_of(memory)
    for _ in range(3):
        assert "It is shown once" in ask(app, "GET", f"/n/{GOOD}").text
        assert ask(app, "HEAD", f"/n/{GOOD}").status_code == 200
    for body in (CLICK, BUTTON, b"choice=forget"):
        assert ask(app, "POST", f"/n/{GOOD}", body, content_type=URLENCODED).status_code == 400
    assert memory.changes == []
    done = ask(app, "POST", f"/n/{GOOD}", b"choice=confirm", content_type=URLENCODED)
    assert "<dd><bdi>&lt;x@example.org&gt;</bdi></dd>" in done.text
    assert done.headers["cache-control"] == "no-store"
    assert memory.changes == [GOOD]
    again = ask(app, "POST", f"/n/{GOOD}", b"choice=confirm", content_type=URLENCODED)
    assert (again.status_code, ask(app, "GET", f"/n/{GOOD}").status_code) == (410, 410)
    assert "example.org" not in again.text
    assert ask(app, "GET", "/n/forged").status_code == 404
    assert ask(app, "POST", "/n/forged", b"choice=confirm", content_type=URLENCODED).status_code == 404
    assert len(memory.guesses) == 2


def test_what_is_to_be_had_again_is_named() -> None:
    """Behind the notice's link only what its page names comes back; a press that names nothing asks again."""
    memory = Memory(kind="choices")
    app = app_of(memory)
    nothing = ask(app, "POST", f"/n/{GOOD}", b"choice=confirm", content_type=URLENCODED)
    assert (nothing.status_code, memory.changes) == (200, [])
    assert 'value="confirm"' in nothing.text
    done = ask(app, "POST", f"/n/{GOOD}", b"choice=confirm&again=open&again=topic:a", content_type=URLENCODED)
    assert (done.status_code, memory.changes) == (200, [GOOD])
    assert memory.again == {"open", "topic:a"}
    assert ask(app, "GET", f"/n/{GOOD}").status_code == 410


def test_the_quick_exit() -> None:
    """Every page leads away in one step: to a page that says nothing, or where the operator wants."""
    app = app_of(Memory())
    for answer in (
        ask(app, "GET"),
        ask(app, "GET", "/o/forged"),
        ask(app, "POST", body=BUTTON, content_type=URLENCODED),
    ):
        assert 'href="../exit"' in answer.text
    page = ask(app, "GET", "/exit")
    assert page.status_code == 200
    assert re.findall(r"<(?:h1|title)>(.*?)</", page.text) == ["Nothing to see here"] * 2
    assert "mail" not in page.text.partition("</head>")[2]
    memory = Memory()
    outside = create_app(Staff(memory, memory, memory, memory), FILES, exit_url="https://www.example.com")
    assert 'href="https://www.example.com" rel="noreferrer"' in ask(outside, "GET").text


async def _crowd(app: ASGIApp, paths: Sequence[str]) -> list[int]:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://pages.example.org") as client:
        posts = (client.post(path, content=CLICK, headers={"content-type": URLENCODED}) for path in paths)
        return [answer.status_code for answer in await asyncio.gather(*posts)]


def test_a_crowd_of_one_clicks() -> None:
    """Those that come at once are stored together, each answered for itself, and fail together."""
    marks = [f"mark{number}" for number in range(60)]
    memory = Memory({mark: About() for mark in marks})
    paths = [f"/o/{mark}" for mark in (*marks, "forged")]
    assert asyncio.run(_crowd(app_of(memory), paths)) == [200] * 60 + [404]
    assert sorted(memory.opted_out) == sorted((mark, ONE_CLICK) for mark in marks)
    away = Memory(memory.known, fault=Unavailable("away"))
    assert asyncio.run(_crowd(app_of(away), paths)) == [503] * 60 + [404]


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"", URLENCODED, 400),
        (b"List-Unsubscribe=", URLENCODED, 400),
        (b"List-Unsubscribe=Two-Click", URLENCODED, 400),
        (b"List-Unsubscribe=One-Click ", URLENCODED, 400),
        (b"One-Click=List-Unsubscribe", URLENCODED, 400),
        (b"choice=", URLENCODED, 400),
        (b"choice=one-click", URLENCODED, 400),
        (b"choice=confirm", URLENCODED, 400),
        (b"choice=forget-everybody", URLENCODED, 400),
        (b"choice=save&pause=31", URLENCODED, 400),
        (b"choice=save&pause=-30", URLENCODED, 400),
        (b"choice=save&pause=" + b"9" * 60_000, URLENCODED, 400),
        ("choice=save&pause=\u0663\u0660".encode(), URLENCODED, 400),
        (b"choice=stop\0", URLENCODED, 400),
        (b"\xff\xfe\x00", URLENCODED, 400),
        (b"&".join([b"a=b"] * 1000) + b"&" + CLICK, URLENCODED, 400),
        (CLICK, MULTIPART, 400),
        (CLICK_PARTS, "multipart/form-data", 400),
        (CLICK_PARTS, "multipart/form-data; boundary=", 400),
        (CLICK_PARTS, f"multipart/form-data; boundary={'b' * 300}", 400),
        (CLICK_PARTS.replace(b'name="List-Unsubscribe"', b'name="x"'), MULTIPART, 400),
        (CLICK_PARTS.replace(b"form-data;", b'form-data; filename="x";'), MULTIPART, 400),
        (CLICK_PARTS.replace(b"Content-Disposition", b"Content-Whatever"), MULTIPART, 400),
        (CLICK_PARTS[:60], MULTIPART, 400),
        (CLICK, "text/plain", 415),
        (CLICK, "", 415),
        (CLICK, "application/json", 415),
        (b'{"List-Unsubscribe":"One-Click"}', "application/json", 415),
        (CLICK, f"{URLENCODED}x", 415),
        (CLICK.decode().encode("utf-16"), f"{URLENCODED}; charset=utf-16", 415),
        (CLICK_PARTS, f"{MULTIPART}; charset=utf-7", 415),
        (CLICK_PARTS, f"{MULTIPART}; charset=undefined", 415),
        (CLICK_PARTS, f"{MULTIPART}; charset=punycode", 415),
    ],
)
def test_anything_else_is_refused(body: bytes, kind: str, status: int) -> None:
    """A POST that is neither of the two forms, or comes in a strange encoding, changes nothing."""
    memory = Memory()
    response = ask(app_of(memory), "POST", body=body, content_type=kind)
    assert response.status_code == status
    assert "nothing has changed" in response.text
    assert memory.changes == []


def test_no_content_type_is_refused() -> None:
    """A body that does not say what it is, is not read."""
    memory = Memory()
    assert ask(app_of(memory), "POST", body=CLICK).status_code == 415
    assert memory.changes == []


@pytest.mark.parametrize("packing", ["gzip", "deflate", "br", "gzip, identity", "x" * 200])
def test_packed_bodies_are_refused(packing: str) -> None:
    """A packed body is not unpacked, so none can burst."""
    memory = Memory()
    response = ask(app_of(memory), "POST", body=CLICK, content_type=URLENCODED, content_encoding=packing)
    assert response.status_code == 415
    assert memory.changes == []


@pytest.mark.parametrize(("size", "status"), [(KIB_64, 200), (KIB_64 + 1, 413), (50 * KIB_64, 413)])
@pytest.mark.parametrize("declared", [True, False])
def test_large_bodies(size: int, status: int, declared: bool) -> None:  # noqa: FBT001 - a parameter of the table
    """A body over 64 KiB is refused with 413, whether it says its length or not."""
    memory = Memory()
    body = CLICK + b"&x=" + b"y" * (size - len(CLICK) - 3)

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(body), 10_000):
            yield body[at : at + 10_000]

    response = ask(app_of(memory), "POST", body=body if declared else pieces(), content_type=URLENCODED)
    assert response.status_code == status
    assert bool(memory.opted_out) == (status == 200)
    if status == 413:
        assert response.headers["connection"] == "close"


def test_a_body_that_does_not_come() -> None:
    """A client that stops in the middle of its body is told so, and changes nothing."""
    memory = Memory()

    async def halting() -> AsyncIterator[bytes]:
        yield CLICK
        await asyncio.Event().wait()

    response = ask(app_of(memory, patience=0.05), "POST", body=halting(), content_type=URLENCODED)
    assert response.status_code == 408
    assert response.headers["connection"] == "close"
    assert memory.changes == []


def test_a_client_that_leaves() -> None:
    """A client gone before its body was whole changes nothing and raises nothing."""
    memory = Memory()
    begun: Message = {"type": "http.request", "body": CLICK, "more_body": True}
    assert post(app_of(memory), URLENCODED, begun, {"type": "http.disconnect"}) == 400
    assert memory.changes == []


@pytest.mark.parametrize("body", [CLICK, BUTTON])
def test_unknown_and_forged_marks_get_the_same(body: bytes) -> None:
    """U3: a mark that is not ours is a 404 without a change, and every such answer is the same."""
    memory = Memory()
    app = app_of(memory)
    marks = (
        "forged",
        GOOD + "x",
        GOOD.upper(),
        "a" * 5_000,
        "%00",
        "..",
        "%2e%2e%2f",
        "%F0%9F%8E%89",
        "{{7*7}}",
    )
    asked = [ask(app, "GET", f"/o/{mark}") for mark in marks]
    posted = [ask(app, "POST", f"/o/{mark}", body, content_type=URLENCODED) for mark in marks]
    assert {response.status_code for response in (*asked, *posted)} == {404}
    # But for the quick exit, which climbs as many steps as the path has.
    said = {re.sub(r'href="[./]*exit"', "", response.text) for response in (*asked, *posted)}
    assert len(said) == 1
    assert memory.changes == []


def test_a_refused_form_tells_nothing_about_the_mark() -> None:
    """A bad body gets the same answer for a good mark and a bad one."""
    app = app_of(Memory())
    good, bad = (ask(app, "POST", f"/o/{mark}", b"x", content_type=URLENCODED) for mark in (GOOD, "bad"))
    assert (good.status_code, good.content) == (bad.status_code, bad.content) == (400, good.content)


@pytest.mark.parametrize(("method", "body"), [("GET", None), ("POST", CLICK), ("POST", BUTTON)])
@pytest.mark.parametrize(
    ("fault", "status"), [(Unavailable("no database"), 503), (RuntimeError("a bug"), 500)]
)
def test_never_a_false_done(method: str, body: bytes | None, fault: Exception, status: int) -> None:
    """When the opt-out could not be stored, the answer is 5xx with Retry-After and never "done"."""
    response = ask(app_of(Memory(fault=fault)), method, body=body, content_type=URLENCODED)
    assert response.status_code == status
    assert int(response.headers["retry-after"]) > 0
    assert "Not done yet" in response.text
    assert "Unsubscribed" not in response.text
    assert "database" not in response.text
    assert "bug" not in response.text


ANSWERS = [
    ("GET", f"/o/{GOOD}", b"", None, 200),
    ("POST", f"/o/{GOOD}", CLICK, None, 200),
    ("POST", f"/o/{GOOD}", BUTTON, None, 200),
    ("OPTIONS", f"/o/{GOOD}", b"", None, 204),
    ("GET", "/healthz", b"", None, 200),
    ("GET", "/o/forged", b"", None, 404),
    ("GET", "/favicon.ico", b"", None, 404),
    ("DELETE", f"/o/{GOOD}", b"", None, 405),
    ("POST", "/healthz", b"", None, 405),
    ("POST", f"/o/{GOOD}", b"x" * 100_000, None, 413),
    ("GET", f"/o/{GOOD}", b"x" * 100_000, None, 413),
    ("POST", f"/o/{GOOD}", b"", None, 400),
    ("GET", f"/o/{GOOD}", b"", Unavailable("away"), 503),
    ("GET", f"/o/{GOOD}", b"", RuntimeError("bug"), 500),
]


@pytest.mark.parametrize(("method", "path", "body", "fault", "status"), ANSWERS)
@pytest.mark.parametrize("https", [True, False])
def test_headers_of_every_answer(
    method: str,
    path: str,
    body: bytes,
    fault: Exception | None,
    status: int,
    https: bool,  # noqa: FBT001 - a parameter of the table
) -> None:
    """Every answer, errors included, keeps out scripts, frames, caches, search engines and referrers."""
    app = app_of(Memory(fault=fault), https=https)
    response = ask(app, method, path, body, content_type=URLENCODED)
    assert response.status_code == status
    policy = response.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "frame-ancestors 'none'" in policy
    assert response.headers["referrer-policy"] == "no-referrer"
    assert "noindex" in response.headers["x-robots-tag"]
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert ("strict-transport-security" in response.headers) == https
    assert not {"set-cookie", "server", "location", "access-control-allow-origin"} & set(response.headers)


def test_options_says_what_the_link_takes() -> None:
    """OPTIONS names the methods, and 405 does so too."""
    app = app_of(Memory())
    assert ask(app, "OPTIONS").headers["allow"] == "GET, HEAD, OPTIONS, POST"
    assert ask(app, "DELETE").headers["allow"]


def test_health() -> None:
    """The health page answers without touching the database."""
    response = ask(app_of(Memory(fault=Unavailable("away"))), "GET", "/healthz")
    assert (response.status_code, response.text) == (200, "ok\n")


@pytest.mark.parametrize(
    ("mail", "browser", "heading"),
    [
        ("ru", "en", "Больше не присылать эти письма?"),
        ("en", "ru", "Stop these emails?"),
        ("", "ru-RU,ru;q=0.9,en;q=0.8", "Больше не присылать эти письма?"),
        ("cy", "", "Stop these emails?"),
        ("", ",;q=x" * 1000, "Stop these emails?"),
    ],
)
def test_language(mail: str, browser: str, heading: str) -> None:
    """The page speaks the mail's language, else the browser's, else English."""
    app = app_of(Memory({GOOD: About(language=mail)}))
    assert heading in ask(app, "GET", accept_language=browser).text


def test_the_discreet_page() -> None:
    """A discreet link shows no list before, and neither list nor sender after."""
    app = app_of(Memory({GOOD: About(sender="Letters", discreet=True)}))
    before = ask(app, "GET").text
    after = ask(app, "POST", body=BUTTON, content_type=URLENCODED).text
    assert "Letters" in before
    assert "Urgent appeals" not in before + after


def test_a_test_mails_link() -> None:
    """The link of a test mail says that it changes nothing, and works."""
    app = app_of(Memory({GOOD: About(test=True)}))
    assert "test email" in ask(app, "GET").text
    done = ask(app, "POST", body=BUTTON, content_type=URLENCODED)
    assert "nothing has changed" in done.text
    assert ask(app, "POST", body=CLICK, content_type=URLENCODED).status_code == 200


def test_no_answer_repeats_the_mark() -> None:
    """No page holds the mark, so that a saved or shared page lets nobody act for the reader."""
    app = app_of(Memory())
    answers = [ask(app, "GET"), ask(app, "POST", body=BUTTON, content_type=URLENCODED)]
    answers += [ask(app, "GET", "/o/forgedmark"), ask(app, "POST", body=b"x", content_type=URLENCODED)]
    for answer in answers:
        assert GOOD not in answer.text
        assert "forgedmark" not in answer.text


PIECES = st.sampled_from(
    [
        CLICK,
        BUTTON,
        b"choice=save",
        b"choice=undo",
        b"pause=",
        b"voucher=",
        b"language=",
        b"&",
        b"=",
        b"%",
        b"%zz",
        b";",
        b"----b",
        b"--",
        b"\r\n",
        b"\n",
        b"\0",
        b"\xff",
        b'name="',
        b'"',
    ]
)

BODIES = st.one_of(st.binary(max_size=200), st.lists(PIECES, max_size=12).map(b"".join))


@settings(max_examples=150, deadline=None)
@given(BODIES, st.sampled_from([URLENCODED, MULTIPART]))
@example(b"=" * 100, URLENCODED)
@example(b"----b\r\n\r\n\r\n----b--", MULTIPART)
def test_any_body(body: bytes, kind: str) -> None:
    """No body breaks the form reader, and none without one of the two forms in it opts anybody out."""
    memory = Memory()
    response = ask(app_of(memory), "POST", body=body, content_type=kind)
    assert response.status_code in {200, 400}
    assert response.status_code == 200 or not memory.changes
    if memory.opted_out:
        assert CLICK in body or BUTTON in body


KINDS = st.one_of(
    st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=60),
    st.lists(
        st.sampled_from(
            [
                URLENCODED,
                "multipart/form-data",
                ";",
                " ",
                "boundary=",
                "boundary*=",
                "charset=",
                "charset*0*=",
                '"',
                "b",
            ]
        ),
        max_size=8,
    ).map("".join),
)


@settings(max_examples=150, deadline=None)
@given(KINDS)
def test_any_content_type(kind: str) -> None:
    """No Content-Type breaks the form reader."""
    whole: Message = {"type": "http.request", "body": CLICK_PARTS, "more_body": False}
    assert post(app_of(Memory()), kind, whole) in {200, 400, 415}
