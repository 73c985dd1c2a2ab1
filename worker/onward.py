"""The route of counted links: one that leads on to where the campaign's content leads.

Owns the form of the answer. Refuses: cookies, a Referer (the headers of all pages see to that), and to count
whoever only asks where a link leads (HEAD).
"""

from http import HTTPStatus
from typing import Final, Protocol

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

#: Path of a counted link, before its mark.
PATH: Final = "/v/"


class Links(Protocol):
    """Who knows where counted links lead. Both may block, and raise Unavailable."""

    def target(self, token: str) -> str | None:
        """Return where a link leads; None if it is not ours."""

    def follow(self, token: str) -> str | None:
        """Return the same, and count it."""


def route(links: Links) -> Route:
    """Return the route of all counted links."""

    async def lead(request: Request) -> Response:
        ask = links.target if request.method == "HEAD" else links.follow
        found = await run_in_threadpool(ask, request.path_params["token"])
        if found is None:
            raise HTTPException(HTTPStatus.NOT_FOUND)
        # Not for good: a browser that remembers it would say where its reader has been.
        return RedirectResponse(found, HTTPStatus.FOUND)

    return Route(PATH + "{token}", lead, methods=["GET"])
