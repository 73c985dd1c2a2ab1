"""The opt-out pages: one short link that shows a page, and stops the mail when the button or a mailbox posts.

Owns the routes, the reading of what is posted, and the headers of every answer.
Refuses: to change anything on GET, HEAD or OPTIONS; cookies and sign-in; redirects; and to say "done" before
the opt-out is stored.
"""

from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Final, Protocol

import anyio
from python_multipart.multipart import parse_options_header
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from worker.errors import Unavailable
from worker.pages import Page, Pages

#: Path of an opt-out link, before its mark. Short, so that no mail program breaks the link.
PATH: Final = "/o/"
#: How an opt-out reached us, as handed to `OptOuts.opt_out`.
ONE_CLICK: Final = "one-click"
BY_PAGE: Final = "page"

_BODY_MOST: Final = 64 * 1024
_FIELDS_MOST: Final = 20
#: Seconds that a client has for its body.
_PATIENCE: Final = 10.0
_RETRY_SECONDS: Final = 60
_METHODS: Final = "GET, HEAD, OPTIONS, POST"
_FORMS: Final = (b"application/x-www-form-urlencoded", b"multipart/form-data")


class OptOuts(Protocol):
    """What these pages need done. Both calls may block, and raise Unavailable when the database is away."""

    def describe(self, token: str) -> Page | None:
        """Tell what a link is about; None if the token is not ours. Changes nothing."""

    def opt_out(self, token: str, how: str) -> bool:
        """Store the opt-out before returning; idempotent. False, with nothing changed, if not ours."""


def create_app(
    opt_outs: OptOuts,
    files: Mapping[str, str],
    *,
    languages: Sequence[str] = (),
    https: bool = False,
    patience: float = _PATIENCE,
) -> ASGIApp:
    """Build the app from the texts of `templates/web` and `templates/locale`, by file name.

    `languages` are those of last resort, in order.
    `https` says that readers come by https (web.base_url does), also where a proxy hides it from us.
    `patience` is the number of seconds a client has to send a body. WrongUse names a text that is wrong.
    """
    pages = Pages(files, languages)
    desk = _Desk(opt_outs, pages, patience)
    app = Starlette(
        routes=[
            Route(PATH + "{token}", desk.ask, methods=["GET"]),
            Route(PATH + "{token}", desk.settle, methods=["POST"]),
            Route(PATH + "{token}", _options, methods=["OPTIONS"]),
            Route("/healthz", _health, methods=["GET"]),
        ],
        exception_handlers={
            HTTPException: desk.refuse,
            Unavailable: desk.away,
            ClientDisconnect: desk.gone,
            HTTPStatus.INTERNAL_SERVER_ERROR: desk.away,
        },
        max_body_size=_BODY_MOST,
    )
    # A redirect to or from a trailing slash would turn a mailbox's POST away (RFC 8058 3.1 forbids it).
    app.router.redirect_slashes = False
    return _Headers(app, pages.policy, https=https)


class _Desk:
    """Answers the requests about one link."""

    def __init__(self, opt_outs: OptOuts, pages: Pages, patience: float) -> None:
        self._opt_outs = opt_outs
        self._pages = pages
        self._patience = patience

    async def ask(self, request: Request) -> Response:
        """Show the page with its one button (GET, HEAD)."""
        page = await run_in_threadpool(self._opt_outs.describe, request.path_params["token"])
        if page is None:
            raise HTTPException(HTTPStatus.NOT_FOUND)
        return self._page(request, "ask", about=page)

    async def settle(self, request: Request) -> Response:
        """Stop the mail: for a mailbox's one-click (RFC 8058 3.2), or for the button of our own page."""
        how = await self._asked(request)
        page = await run_in_threadpool(self._stop, request.path_params["token"], how)
        if how == ONE_CLICK:
            return PlainTextResponse("Unsubscribed.\n")
        return self._page(request, "done", about=page)

    def _page(
        self, request: Request, name: str, *, about: Page | None = None, status: int = HTTPStatus.OK
    ) -> Response:
        """Render a page, for the reader of this mail or else for whoever asks."""
        accepted = _accepted(request.headers.get("accept-language", ""))
        return HTMLResponse(self._pages.render(name, about, accepted), status)

    def _stop(self, token: str, how: str) -> Page | None:
        """Opt out and return what the page shows, which a mailbox does not need."""
        # Described first: once the opt-out is stored, nothing may stand between it and "done".
        page = self._opt_outs.describe(token) if how == BY_PAGE else None
        if (how == BY_PAGE and page is None) or not self._opt_outs.opt_out(token, how):
            raise HTTPException(HTTPStatus.NOT_FOUND)
        return page

    async def _asked(self, request: Request) -> str:
        """Read the form and tell who asks; 4xx if it is no form of ours, or none at all."""
        _check_encoding(request)
        try:
            with anyio.fail_after(self._patience):
                form = await request.form(max_files=0, max_fields=_FIELDS_MOST, max_part_size=_BODY_MOST)
        except TimeoutError as error:
            raise HTTPException(HTTPStatus.REQUEST_TIMEOUT) from error
        fields = {(name.lower(), str(value).lower()) for name, value in form.multi_items()}
        if ("list-unsubscribe", "one-click") in fields:
            return ONE_CLICK
        if ("choice", "stop") in fields:
            return BY_PAGE
        raise HTTPException(HTTPStatus.BAD_REQUEST)

    async def refuse(self, request: Request, error: Exception) -> Response:
        """Say that nothing was changed; an unknown mark and a forged one get the same page."""
        status = error.status_code if isinstance(error, HTTPException) else HTTPStatus.BAD_REQUEST
        name = "lost" if status == HTTPStatus.NOT_FOUND else "refused"
        response = self._page(request, name, status=status)
        if isinstance(error, HTTPException) and error.headers:
            response.headers.update(error.headers)
        return response

    async def away(self, request: Request, error: Exception) -> Response:
        """Say that it was not done and is worth trying again."""
        known = isinstance(error, Unavailable)
        status = HTTPStatus.SERVICE_UNAVAILABLE if known else HTTPStatus.INTERNAL_SERVER_ERROR
        response = self._page(request, "away", status=status)
        response.headers["Retry-After"] = str(_RETRY_SECONDS)
        return response

    async def gone(self, _request: Request, _error: Exception) -> Response:
        """Close the books on a client that left before its body was whole: nothing was changed."""
        return PlainTextResponse("", HTTPStatus.BAD_REQUEST)


async def _options(_request: Request) -> Response:
    """Tell what the link takes (OPTIONS), to any origin, and change nothing."""
    return Response(status_code=HTTPStatus.NO_CONTENT, headers={"Allow": _METHODS})


async def _health(_request: Request) -> Response:
    """Answer that this process serves; it says nothing of the database."""
    return PlainTextResponse("ok\n")


def _check_encoding(request: Request) -> None:
    """Refuse a body that is packed, or in a charset that no form of ours comes in.

    Python knows "charsets" (punycode, undefined) that fail in ways a form parser does not expect.
    """
    # Read by the same parser that the form will be read by, so that it cannot be told something else.
    kind, options = parse_options_header(request.headers.get("content-type"))
    if (
        kind not in _FORMS
        or options.get(b"charset", b"utf-8").lower() not in {b"utf-8", b"us-ascii"}
        or request.headers.get("content-encoding", "identity").lower() != "identity"
    ):
        raise HTTPException(HTTPStatus.UNSUPPORTED_MEDIA_TYPE)


def _accepted(header: str) -> Iterator[str]:
    """Yield the tags of an Accept-Language header in the order written, which is the order browsers mean."""
    for part in header.split(",")[:_FIELDS_MOST]:
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
                message["headers"] = [*message.get("headers", ()), *self._always]
                if https:
                    message["headers"].append((b"strict-transport-security", b"max-age=63072000"))
                if message["status"] in {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.REQUEST_ENTITY_TOO_LARGE}:
                    # The rest of that body is not worth reading.
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        await self._app(scope, receive, send_with_headers)
