"""The route of copies on the web: a mail to read in a browser.

Owns the policy under which a mail is shown: its own styles, pictures that are in it, and nothing else; no
script runs, whatever a look holds. Refuses: to tell a link that never was from one that was forged.
"""

from http import HTTPStatus
from typing import Final, Protocol

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

#: Path of a copy, before its mark.
PATH: Final = "/c/"
_POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; sandbox allow-popups allow-popups-to-escape-sandbox "
    "allow-top-navigation-by-user-activation"
)


class Copies(Protocol):
    """Who has them; may block, and raise Unavailable."""

    def read(self, token: str) -> str | None:
        """Return the page of a link; None if it is not ours."""


def route(copies: Copies) -> Route:
    """Return the route of all copies."""

    async def show(request: Request) -> Response:
        page = await run_in_threadpool(copies.read, request.path_params["token"])
        if page is None:
            raise HTTPException(HTTPStatus.NOT_FOUND)
        return HTMLResponse(page, headers={"Content-Security-Policy": _POLICY})

    return Route(PATH + "{token}", show, methods=["GET"])
