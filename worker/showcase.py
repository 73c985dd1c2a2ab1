"""The preview served on this machine: one page, made anew when a file that it was made from has changed.

Owns the routes, who may ask, and when the page is made again. Refuses: any host name but this machine's (a
site elsewhere could else rebind its name to it and read along), any path without the secret in it (others on
this machine could else), and a connection kept open: the page asks now and then.
"""

import threading
from collections.abc import Callable
from http import HTTPStatus

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

#: What this machine is called by whoever sits at it.
_HOSTS = ("127.0.0.1", "localhost")
_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def create_app(secret: str, stamp: Callable[[], str], make: Callable[[str], str]) -> ASGIApp:
    """Build the app.

    Args:
        secret: stands first in every path.
        stamp: tells two states of the files apart; asked once or twice a second.
        make: writes the page of a state; called from one thread at a time.
    """
    page = _Page(make)

    async def show(_request: Request) -> Response:
        return HTMLResponse(await run_in_threadpool(page.at, stamp), headers=_HEADERS)

    async def tell(_request: Request) -> Response:
        return PlainTextResponse(await run_in_threadpool(stamp), headers=_HEADERS)

    app = Starlette(
        routes=[Route(f"/{secret}/", show), Route(f"/{secret}/stamp", tell)],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=_HOSTS, www_redirect=False)],
        exception_handlers={HTTPStatus.NOT_FOUND: _nothing},
    )
    app.router.redirect_slashes = False
    return app


class _Page:
    """The last page made, and the state of the files that it shows."""

    def __init__(self, make: Callable[[str], str]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._stamp, self._text = "", ""

    def at(self, stamp: Callable[[], str]) -> str:
        """Return the page of this moment."""
        with self._lock:
            # Asked before the files are read: what changes meanwhile makes another stamp, and another page.
            now = stamp()
            if now != self._stamp:
                self._text = self._make(now)
                self._stamp = now
            return self._text


async def _nothing(_request: Request, _error: Exception) -> Response:
    return PlainTextResponse("Nothing here.\n", HTTPStatus.NOT_FOUND, headers=_HEADERS)
