"""The opt-out pages: one short link that shows a page, and stops the mail when the button or a mailbox posts.

Owns the routes and the headers of every answer. Refuses: to change anything on GET, HEAD or OPTIONS; cookies
and sign-in; redirects; and to say "done" before what was asked is stored.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, Final, Protocol, TypeVar

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from worker import forms
from worker.errors import Unavailable
from worker.forms import Choice, Form
from worker.gathering import Gathering
from worker.pages import Choices, Page, Pages, Shown, digest

_T = TypeVar("_T")

#: Path of an opt-out link, before its mark. Short, so that no mail program breaks the link.
PATH: Final = "/o/"
#: Path of the link in a notice.
NOTICE_PATH: Final = "/n/"
#: Path of a sign-up form, before its list's mark.
SIGN_UP_PATH: Final = "/s/"
#: How a mailbox's opt-out is called when it is handed to `OptOuts`.
ONE_CLICK: Final = "one-click"
#: The query that asks a link for its preferences.
_CHOICES: Final = "choices"
#: The page of our own that says nothing.
_EXIT: Final = "exit"

#: Seconds that a client has for its body.
_PATIENCE: Final = 10.0
_RETRY_SECONDS: Final = 60
_TAGS_MOST: Final = 20
_NOTHING: Final = Shown()
_METHODS: Final = "GET, HEAD, OPTIONS, POST"


class Stopped(Protocol):
    """An opt-out by the page."""

    @property
    def about(self) -> Page:
        """What its page may tell."""

    @property
    def voucher(self) -> str:
        """With it the same link takes this back; "" if it cannot."""


class OptOuts(Protocol):
    """What the links need done. All but `knows` may block, and raise Unavailable without a database."""

    def knows(self, token: str) -> bool:
        """Tell whether a link can be ours; asks no store."""

    def describe(self, token: str) -> Page | None:
        """Tell what a link is about; None if the token is not ours. Changes nothing."""

    def opt_out_all(self, tokens: Sequence[str], how: str) -> Sequence[bool]:
        """Store opt-outs before returning; idempotent. False, with nothing changed, for each not ours."""

    def stop(self, token: str, *, this_list: bool) -> Stopped | None:
        """Store one by the page before returning; None if not ours."""

    def undo(self, token: str, voucher: str) -> bool | None:
        """Take back what a voucher is for; False if that cannot be any more, None if not ours."""


class Preferences(Protocol):
    """What the page of preferences needs done; both may block, and raise Unavailable."""

    def choices(self, token: str) -> Choices | None:
        """Return how things stand; None if not ours. Changes nothing."""

    def choose(self, token: str, wanted: forms.Wish) -> Choices | None:
        """Store what is wanted before returning; None if not ours."""


class Pending(Protocol):
    """What the link in a notice would do."""

    @property
    def about(self) -> Page:
        """What its page may tell."""

    @property
    def kind(self) -> str:
        """What was asked for: "forget", "export" or "choices"; "invite" or "join" for a consent."""

    @property
    def choices(self) -> Choices | None:
        """What could be had again, where that was asked for."""

    @property
    def opt_out(self) -> str:
        """The mark of the link by which its reader says no for good; "" where it asks for no consent."""


class Confirmed(Protocol):
    """What it has done."""

    @property
    def about(self) -> Page:
        """What its page may tell."""

    @property
    def kind(self) -> str:
        """What was asked for."""

    @property
    def facts(self) -> Mapping[str, Any] | None:
        """All that we hold of them, where that was asked for."""


class Confirmations(Protocol):
    """What is asked for on a page and confirmed by the link in a notice; as `OptOuts`."""

    def ask(self, token: str, kind: str) -> Page | None:
        """Have a notice sent to a link's reader, or not, which nobody is told; None if not ours."""

    def knows(self, mark: str) -> bool:
        """Tell whether a notice's link can be ours; asks no store."""

    def pending(self, mark: str) -> Pending | None:
        """Tell what it would do; None if not ours, used or too old. Changes nothing."""

    def confirm(self, mark: str, again: Collection[str], wording: str) -> Confirmed | None:
        """Do it before returning; None as before, or where nothing is named that could be had `again`.

        None too for a consent without the `wording` that was shown.
        """


class Guard(Protocol):
    """Who keeps strangers from trying one link after the other."""

    def guessed(self, address: str) -> int:
        """Count a link that is not ours, from this IP address; return the seconds to turn it away."""

    def entered(self, address: str) -> int:
        """Count what is entered in a form; the same."""


class SignUps(Protocol):
    """What is entered in forms; both may block, and raise Unavailable."""

    def form(self, mark: str) -> Page | None:
        """Tell what list a form is for; None where it is not ours, or not open."""

    def enter(self, mark: str, text: str, name: str, language: str) -> bool | None:
        """Take it; None where the form is not open, False where that is no address."""


@dataclass(frozen=True, slots=True)
class Staff:
    """Who does what the pages ask for."""

    opt_outs: OptOuts
    preferences: Preferences
    confirmations: Confirmations
    guard: Guard
    sign_ups: SignUps | None = None


def create_app(
    staff: Staff,
    files: Mapping[str, str],
    *,
    further: Sequence[BaseRoute] = (),
    languages: Sequence[str] = (),
    https: bool = False,
    exit_url: str = "",
    patience: float = _PATIENCE,
) -> ASGIApp:
    """Build the app from the texts of `templates/web` and `templates/locale`, by file name.

    `further` are routes of others, under the same headers and limits.
    `languages` are those of last resort, in order.
    `https` says that readers come by https (web.base_url does), also where a proxy hides it from us.
    `exit_url` is where the quick exit leads; "" for a page of our own.
    `patience` is the number of seconds a client has to send a body. WrongUse names a text that is wrong.
    """
    pages = Pages(files, languages)
    face = _Face(pages, staff.guard, exit_url)
    desk = _Desk(staff, face, patience)
    app = Starlette(
        routes=[
            Route(PATH + "{token}", desk.ask, methods=["GET"]),
            Route(PATH + "{token}", desk.act, methods=["POST"]),
            Route(PATH + "{token}", _options, methods=["OPTIONS"]),
            Route(NOTICE_PATH + "{mark}", desk.show_notice, methods=["GET"]),
            Route(NOTICE_PATH + "{mark}", desk.confirm, methods=["POST"]),
            *_door(staff, face, patience),
            Route("/" + _EXIT, face.exit, methods=["GET"]),
            Route("/healthz", _health, methods=["GET"]),
            *further,
        ],
        exception_handlers={
            HTTPException: face.refuse,
            Unavailable: face.away,
            ClientDisconnect: face.gone,
            HTTPStatus.INTERNAL_SERVER_ERROR: face.away,
        },
        max_body_size=forms.BODY_MOST,
    )
    # A redirect to or from a trailing slash would turn a mailbox's POST away (RFC 8058 3.1 forbids it).
    app.router.redirect_slashes = False
    return _Headers(app, pages.policy, https=https)


class _Face:
    """Says what there is to say, in the reader's language, and turns away what is not ours."""

    def __init__(self, pages: Pages, guard: Guard, exit_url: str) -> None:
        self._pages = pages
        self._guard = guard
        self._exit_url = exit_url

    def page(
        self,
        request: Request,
        name: str,
        about: Page | None = None,
        shown: Shown = _NOTHING,
        *,
        status: int = HTTPStatus.OK,
    ) -> Response:
        """Render a page, for the reader of this mail or else for whoever asks."""
        # Relative, for only a proxy knows what path of its own it has put before ours.
        exit_url = self._exit_url or "../" * (request.url.path.count("/") - 1) + _EXIT
        accepted = _accepted(request.headers.get("accept-language", ""))
        return HTMLResponse(
            self._pages.render(name, about, accepted, replace(shown, exit_url=exit_url)), status
        )

    def agreed(self, about: Page, form: Form) -> str:
        """Return the words that a form agrees to; "" where they are not those that its page showed."""
        wording = self._pages.wording(about, form.language)
        return wording if digest(wording) == form.shown else ""

    async def exit(self, request: Request) -> Response:
        """Show the page that says nothing."""
        return self.page(request, "exit")

    async def refuse(self, request: Request, error: Exception) -> Response:
        """Say that nothing was changed; an unknown mark and a forged one get the same page."""
        status = error.status_code if isinstance(error, HTTPException) else HTTPStatus.BAD_REQUEST
        wait = 0
        guess = request.url.path.startswith((PATH, NOTICE_PATH, SIGN_UP_PATH))
        if status == HTTPStatus.NOT_FOUND and request.client and guess:
            wait = await run_in_threadpool(self._guard.guessed, request.client.host)
        if wait:
            status = HTTPStatus.TOO_MANY_REQUESTS
        name = "lost" if status in {HTTPStatus.NOT_FOUND, HTTPStatus.TOO_MANY_REQUESTS} else "refused"
        response = self.page(request, name, status=status)
        if isinstance(error, HTTPException) and error.headers:
            response.headers.update(error.headers)
        if wait:
            response.headers["Retry-After"] = str(wait)
        return response

    async def away(self, request: Request, error: Exception) -> Response:
        """Say that it was not done and is worth trying again."""
        known = isinstance(error, Unavailable)
        status = HTTPStatus.SERVICE_UNAVAILABLE if known else HTTPStatus.INTERNAL_SERVER_ERROR
        response = self.page(request, "away", status=status)
        response.headers["Retry-After"] = str(_RETRY_SECONDS)
        return response

    async def gone(self, _request: Request, _error: Exception) -> Response:
        """Close the books on a client that left before its body was whole: nothing was changed."""
        return PlainTextResponse("", HTTPStatus.BAD_REQUEST)


class _Desk:
    """Answers the requests about one link."""

    def __init__(self, staff: Staff, face: _Face, patience: float) -> None:
        self._opt_outs = staff.opt_outs
        self._preferences = staff.preferences
        self._confirmations = staff.confirmations
        self._face = face
        self._patience = patience
        self._clicks = Gathering[str, bool](lambda tokens: self._opt_outs.opt_out_all(tokens, ONE_CLICK))

    async def ask(self, request: Request) -> Response:
        """Show the page with its one button, or the preferences (GET, HEAD)."""
        token = self._token(request)
        if _CHOICES in request.query_params:
            choices = _ours(await run_in_threadpool(self._preferences.choices, token))
            return self._face.page(request, "choices", choices.about, Shown(choices))
        return self._face.page(request, "ask", _ours(await run_in_threadpool(self._opt_outs.describe, token)))

    async def act(self, request: Request) -> Response:
        """Do what a mailbox or one of our pages posts, and say so once it is stored."""
        form = await forms.read(request, self._patience)
        token = self._token(request)
        if form.choice is Choice.ONE_CLICK:
            _ours(await self._clicks.ask(token) or None)
            return PlainTextResponse("Unsubscribed.\n")
        return await run_in_threadpool(self._pressed, request, token, form)

    def _pressed(self, request: Request, token: str, form: Form) -> Response:
        """Do what a button of ours asks."""
        if form.choice is Choice.SAVE:
            choices = _ours(self._preferences.choose(token, form.wish))
            return self._face.page(request, "choices", choices.about, Shown(choices, saved=True))
        if form.choice in {Choice.FORGET, Choice.EXPORT}:
            asked = _ours(self._confirmations.ask(token, form.choice))
            return self._face.page(request, "asked", asked)
        if form.choice is Choice.UNDO:
            about = _ours(self._opt_outs.describe(token))
            undone = _ours(self._opt_outs.undo(token, form.voucher))
            return self._face.page(request, "undone" if undone else "late", about)
        if form.choice is Choice.CONFIRM:
            raise HTTPException(HTTPStatus.BAD_REQUEST)
        stopped = _ours(self._opt_outs.stop(token, this_list=form.choice is Choice.LEAVE))
        return self._face.page(request, "done", stopped.about, Shown(voucher=stopped.voucher))

    async def show_notice(self, request: Request) -> Response:
        """Show the page behind the link in a notice, with its one button (GET, HEAD)."""
        mark = self._mark(request)
        pending = await run_in_threadpool(self._confirmations.pending, mark)
        if pending is None:
            return self._face.page(request, "spent", status=HTTPStatus.GONE)
        shown = Shown(pending.choices, kind=pending.kind, opt_out=pending.opt_out)
        return self._face.page(request, "confirm", pending.about, shown)

    async def confirm(self, request: Request) -> Response:
        """Do what the notice's reader confirms by that button, and show it."""
        form = await forms.read(request, self._patience)
        mark = self._mark(request)
        if form.choice is not Choice.CONFIRM:
            raise HTTPException(HTTPStatus.BAD_REQUEST)
        wording = ""
        if form.shown and (pending := await run_in_threadpool(self._confirmations.pending, mark)):
            wording = self._face.agreed(pending.about, form)
        done = await run_in_threadpool(self._confirmations.confirm, mark, form.again, wording)
        if done is None:
            return await self.show_notice(request)
        return self._face.page(request, "confirmed", done.about, Shown(kind=done.kind, facts=done.facts))

    def _mark(self, request: Request) -> str:
        mark: str = request.path_params["mark"]
        return _ours(mark if self._confirmations.knows(mark) else None)

    def _token(self, request: Request) -> str:
        """Return the mark of a link; 404 for what cannot be one of ours, before the store is asked."""
        token: str = request.path_params["token"]
        return _ours(token if self._opt_outs.knows(token) else None)


def _door(staff: Staff, face: _Face, patience: float) -> Sequence[Route]:
    """Return the routes of the sign-up forms."""
    sign_ups = staff.sign_ups
    if sign_ups is None:
        return ()

    async def show(request: Request) -> Response:
        about = _ours(await run_in_threadpool(sign_ups.form, request.path_params["mark"]))
        return face.page(request, "join", about)

    async def enter(request: Request) -> Response:
        entry = await forms.read_entry(request, patience)
        mark: str = request.path_params["mark"]
        about = _ours(await run_in_threadpool(sign_ups.form, mark))
        host = request.client.host if request.client else ""
        if wait := await run_in_threadpool(staff.guard.entered, host):
            response = face.page(request, "away", about, status=HTTPStatus.TOO_MANY_REQUESTS)
            response.headers["Retry-After"] = str(wait)
            return response
        what = mark, entry.address, entry.name, entry.language
        if not _ours(await run_in_threadpool(sign_ups.enter, *what)):
            status = HTTPStatus.UNPROCESSABLE_ENTITY
            return face.page(request, "join", about, Shown(wrong=True), status=status)
        return face.page(request, "asked", about)

    path = SIGN_UP_PATH + "{mark}"
    return [Route(path, show, methods=["GET"]), Route(path, enter, methods=["POST"])]


async def _options(_request: Request) -> Response:
    """Tell what the link takes (OPTIONS), to any origin, and change nothing."""
    return Response(status_code=HTTPStatus.NO_CONTENT, headers={"Allow": _METHODS})


async def _health(_request: Request) -> Response:
    """Answer that this process serves; it says nothing of the database."""
    return PlainTextResponse("ok\n")


def _ours(found: _T | None) -> _T:
    """Return what a link led to; 404 where it led to nothing."""
    if found is None:
        raise HTTPException(HTTPStatus.NOT_FOUND)
    return found


def _accepted(header: str) -> Iterator[str]:
    """Yield the tags of an Accept-Language header in the order written, which is the order browsers mean."""
    for part in header.split(",")[:_TAGS_MOST]:
        yield part.partition(";")[0].strip()


class _Headers:
    """Sets the headers of every answer, errors included."""

    def __init__(self, app: ASGIApp, policy: str, *, https: bool) -> None:
        self._app = app
        self._https = https
        self._always = [
            (b"content-security-policy", policy.encode()),
            (b"referrer-policy", b"no-referrer"),
            (b"x-robots-tag", b"noindex, nofollow"),
            (b"cache-control", b"no-store"),
            (b"x-content-type-options", b"nosniff"),
            (b"x-frame-options", b"DENY"),
            (b"cross-origin-resource-policy", b"same-origin"),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        https = self._https or scope.get("scheme") == "https"

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = list(message.get("headers", ()))
                given = {name for name, _ in own}  # a page that holds a mail has a policy of its own
                message["headers"] = [*own, *(one for one in self._always if one[0] not in given)]
                if https:
                    message["headers"].append((b"strict-transport-security", b"max-age=63072000"))
                if message["status"] in {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.REQUEST_ENTITY_TOO_LARGE}:
                    # The rest of that body is not worth reading.
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        await self._app(scope, receive, send_with_headers)
