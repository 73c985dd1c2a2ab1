"""Who may look at a served preview, and when it is made anew."""

import asyncio

import httpx
import pytest
from starlette.types import ASGIApp

from worker.showcase import create_app

SECRET = "q7Yx"


def ask(app: ASGIApp, path: str, host: str = "127.0.0.1:8090", method: str = "GET") -> httpx.Response:
    """Send one request."""

    async def answer() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=f"http://{host}") as client:
            return await client.request(method, path)

    return asyncio.run(answer())


def app() -> ASGIApp:
    """A page that never changes."""
    return create_app(SECRET, lambda: "1", lambda stamp: f"page {stamp}")


@pytest.mark.parametrize(
    ("host", "path", "status"),
    [
        ("127.0.0.1:8090", f"/{SECRET}/", 200),
        ("localhost:8090", f"/{SECRET}/stamp", 200),
        ("evil.example", f"/{SECRET}/", 400),
        ("evil.example:8090", f"/{SECRET}/stamp", 400),
        ("127.0.0.1.evil.example", f"/{SECRET}/", 400),
        ("127.0.0.1", "/", 404),
        ("127.0.0.1", "/stamp", 404),
        ("127.0.0.1", f"/{SECRET}x/", 404),
        ("127.0.0.1", f"/{SECRET}", 404),
    ],
)
def test_only_who_was_told_the_address_sees_the_page(host: str, path: str, status: int) -> None:
    """A site whose name is rebound to this machine does not, nor does another user who finds the port."""
    answer = ask(app(), path, host)
    assert answer.status_code == status
    assert ("page" in answer.text) == (status == 200 and path.endswith("/"))


def test_nothing_is_kept_or_framed() -> None:
    """The page may hold a real person's data."""
    headers = ask(app(), f"/{SECRET}/").headers
    assert headers["cache-control"] == "no-store"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
    assert ask(app(), f"/{SECRET}/", method="POST").status_code == 405


def test_the_page_is_made_once_for_each_state_of_the_files() -> None:
    """Making it takes a second; asking for it does not."""
    made, stamps = list[str](), ["a", "a", "b"]

    def make(stamp: str) -> str:
        made.append(stamp)
        return f"page {stamp}"

    served = create_app(SECRET, lambda: stamps.pop(0), make)
    assert [ask(served, f"/{SECRET}/").text for _ in range(3)] == ["page a", "page a", "page b"]
    assert made == ["a", "b"]
