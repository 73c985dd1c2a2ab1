"""The browser that the other tests here rest on: it obeys, it sees faults, and it reaches nobody."""

import asyncio
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Error, Page

if TYPE_CHECKING:
    from tests.browser.conftest import Axe, OpenPage


def test_a_page_is_as_it_was_asked_for(open_page: "OpenPage") -> None:
    """Width, colour scheme, language and scripts are the test's to choose."""
    page: Page = open_page(width=390, dark=True, locale="ar")
    page.set_content("<p id=p>before</p><script>p.textContent = 'after'</script>")
    asked = "() => [innerWidth, matchMedia('(prefers-color-scheme: dark)').matches, navigator.language]"
    assert page.evaluate(asked) == [390, True, "ar"]
    assert page.inner_text("#p") == "after"

    still: Page = open_page(javascript=False)
    still.set_content("<p id=p>before</p><script>p.textContent = 'after'</script>")
    assert still.inner_text("#p") == "before"


def test_axe_sees_what_is_wrong_and_nothing_else(page: Page, axe: "Axe") -> None:
    """A picture without words is reported by rule and place; a sound page has no violation."""
    sound = "<!doctype html><html lang=en><title>T</title><main><h1>Words</h1>{}</main>"
    page.set_content(sound.format(""))
    assert axe(page) == []
    page.set_content(sound.format("<img src='data:,'>"))
    [found] = axe(page)
    assert found.startswith("image-alt (critical): <img")


def test_the_world_is_out_of_reach(page: Page) -> None:
    """No test depends on, or tells anything to, a host that is not this one."""
    with pytest.raises(Error, match="ERR_NAME_NOT_RESOLVED"):
        page.goto("http://www.example.org/")


@pytest.mark.usefixtures("_chromium")
def test_other_tests_may_run_event_loops_beside_the_browser() -> None:
    """Between two of its tests, the browser's loop is not taken for the running one."""

    async def answer() -> int:
        await asyncio.sleep(0)
        return 42

    assert asyncio.run(answer()) == 42
