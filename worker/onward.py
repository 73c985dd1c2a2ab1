"""The routes of what a mail refers to: counted links, which lead on, and pictures that lie here.

Owns the form of the answers. Refuses: cookies, a Referer (the headers of all pages see to that), and to count
whoever only asks where a link leads (HEAD).
"""

from http import HTTPStatus
from typing import Final, Protocol

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

#: Paths of a counted link and of a picture, before their marks.
LINKS: Final = "/v/"
PICTURES: Final = "/i/"
#: Other than the pages: shown within a mailbox's page, kept by caches, the same for everybody and for good.
_PICTURE_HEADERS: Final = {
    "cache-control": "public, max-age=31536000, immutable",
    "cross-origin-resource-policy": "cross-origin",
}


class Links(Protocol):
    """Who knows where counted links lead. Both may block, and raise Unavailable."""

    def target(self, token: str) -> str | None:
        """Return where a link leads; None if it is not ours."""

    def follow(self, token: str) -> str | None:
        """Return the same, and count it."""


class Pictures(Protocol):
    """Who has the pictures. May block, and raise Unavailable."""

    def picture(self, token: str) -> tuple[str, bytes] | None:
        """Return MIME type and bytes; None if it is not ours."""


def pictures_route(pictures: Pictures) -> Route:
    """Return the route of all pictures."""

    async def show(request: Request) -> Response:
        found = await run_in_threadpool(pictures.picture, request.path_params["token"])
        if found is None:
            raise HTTPException(HTTPStatus.NOT_FOUND)
        kind, data = found
        return Response(data, media_type=kind, headers=_PICTURE_HEADERS)

    return Route(PICTURES + "{token}", show, methods=["GET"])


def links_route(links: Links) -> Route:
    """Return the route of all counted links."""

    async def lead(request: Request) -> Response:
        ask = links.target if request.method == "HEAD" else links.follow
        found = await run_in_threadpool(ask, request.path_params["token"])
        if found is None:
            raise HTTPException(HTTPStatus.NOT_FOUND)
        # Not for good: a browser that remembers it would say where its reader has been.
        return RedirectResponse(found, HTTPStatus.FOUND)

    return Route(LINKS + "{token}", lead, methods=["GET"])
