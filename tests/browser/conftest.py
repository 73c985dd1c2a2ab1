"""A real Chromium for the tests of what a reader sees: started once for each test process, gone with it.

It can reach this machine and nothing else. A browser or a tool that is missing fails the test, which says how
to get it.
"""

import asyncio
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",  # a container's is small
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
)
_AXE = Path(sys.prefix) / "tools" / "node_modules" / "axe-core" / "axe.min.js"

OpenPage = Callable[..., Page]
Axe = Callable[[Page], list[str]]


@pytest.fixture(scope="session")
def _chromium() -> Iterator[tuple[Browser, asyncio.AbstractEventLoop]]:
    """The browser, and the event loop that talks to it."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert program, "the browser tests need Chromium: apt-get install chromium"
    with sync_playwright() as playwright:
        loop = asyncio.get_running_loop()
        browser = playwright.chromium.launch(executable_path=program, args=list(_FLAGS))
        asyncio._set_running_loop(None)
        yield browser, loop
        asyncio._set_running_loop(loop)
        browser.close()


@pytest.fixture
def browser(_chromium: tuple[Browser, asyncio.AbstractEventLoop]) -> Iterator[Browser]:
    """The browser, as long as the test lasts.

    Between calls Playwright's event loop stands still in a greenlet of this very thread, and Python would
    take it for the running one: other tests of the process could run none of their own. So it is put away.
    """
    browser, loop = _chromium
    asyncio._set_running_loop(loop)
    yield browser
    asyncio._set_running_loop(None)


@pytest.fixture
def open_page(browser: Browser) -> Iterator[OpenPage]:
    """Open a page of its own (cookies, storage): width and height in CSS pixels, dark, locale, javascript."""
    contexts: list[BrowserContext] = []

    def opened(
        *,
        width: int = 1000,
        height: int = 800,
        dark: bool = False,
        locale: str = "en",
        javascript: bool = True,
    ) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            locale=locale,
            java_script_enabled=javascript,
        )
        contexts.append(context)
        return context.new_page()

    yield opened
    for context in contexts:
        context.close()


@pytest.fixture
def page(open_page: OpenPage) -> Page:
    """An empty page: 1000 px wide, light, English, with JavaScript."""
    return open_page()


@pytest.fixture(scope="session")
def axe() -> Axe:
    """Ask axe-core what stands in the way of a reader: one line for each thing wrong, none where all is well.

    It wants a page with JavaScript on; the page's own content security policy does not hinder it.
    """
    assert _AXE.exists(), "the browser tests need axe-core: run `make test`, which installs it"
    source = _AXE.read_text(encoding="utf-8")

    def violations(page: Page) -> list[str]:
        if page.evaluate(
            "typeof axe === 'undefined'"
        ):  # it takes a quarter of a second, and outlives set_content
            page.evaluate(source)
        # Nothing is fetched beforehand: only a rule that is off would look at style sheets of others.
        options = "{resultTypes: ['violations'], preload: false}"
        found = page.evaluate(f"async () => (await axe.run(document, {options})).violations")
        return [
            f"{rule['id']} ({rule['impact']}): {node['html'][:200]} — {node['failureSummary']}"
            for rule in found
            for node in rule["nodes"]
        ]

    return violations
