"""axe-core on everything that people look at: on a phone and a desktop, in a light and a dark room."""

from collections.abc import Iterator, Mapping
from itertools import cycle, product
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Page

if TYPE_CHECKING:
    from tests.browser.conftest import Axe

#: Width in CSS pixels, and whether it is dark.
VIEWS = tuple(product((390, 1000), (False, True)))


def _seen(page: Page, axe: "Axe", views: tuple[tuple[int, bool], ...]) -> Iterator[str]:
    """Look at the page that is open in each view; yield what is wrong, with the view."""
    for width, dark in views:
        page.set_viewport_size({"width": width, "height": 800})
        page.emulate_media(color_scheme="dark" if dark else "light")
        for fault in axe(page):
            yield f"{width} px, {'dark' if dark else 'light'}: {fault}"


def _in_turn(page: Page, axe: "Axe", texts: Mapping[str, str]) -> Iterator[str]:
    """Look at each in one view, and at the next, which differs little from it, in the next view."""
    for (name, text), view in zip(texts.items(), cycle(VIEWS)):
        page.set_content(text)
        yield from (f"{name}: {fault}" for fault in _seen(page, axe, (view,)))


def test_mails_can_be_read_by_everybody(
    page: Page, axe: "Axe", letters: Mapping[str, str], copies: Mapping[str, str]
) -> None:
    """No mail, in any language and form, has a violation in any view, and no copy of one in its turn's."""
    faults = []
    for name, text in letters.items():
        page.set_content(text)
        faults += [f"{name}: {fault}" for fault in _seen(page, axe, VIEWS)]
    faults += _in_turn(page, axe, copies)
    assert not faults, "\n".join(faults)


def test_pages_can_be_read_by_everybody(page: Page, axe: "Axe", web_pages: Mapping[str, str]) -> None:
    """No page has a violation: each is seen in one view, and its other languages and kinds in the others."""
    faults = list(_in_turn(page, axe, web_pages))
    assert not faults, "\n".join(faults)


def test_the_desk_can_be_read_by_everybody(
    page: Page, axe: "Axe", desk_pages: Mapping[str, str], tmp_path: Path
) -> None:
    """Preview, captured mails (the list, and one opened) and export have no violation in any view."""
    faults = []
    for name, text in desk_pages.items():
        file = tmp_path / f"{name}.html"
        file.write_text(text, encoding="utf-8")
        for place in ("", "#mail-1") if ":target" in text else ("",):
            page.goto(file.as_uri() + place)
            faults += [f"{name}{place}: {fault}" for fault in _seen(page, axe, VIEWS)]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(("width", "dark"), VIEWS)
def test_a_fault_of_one_view_is_seen(page: Page, axe: "Axe", width: int, *, dark: bool) -> None:
    """Grey on grey in one width and scheme alone is found, and found there alone."""
    scheme = "dark" if dark else "light"
    span = "max-width: 500px" if width == 390 else "min-width: 500px"
    page.set_content(
        "<!doctype html><html lang=en><title>T</title><style>:root { color-scheme: light dark }"
        f"@media (prefers-color-scheme: {scheme}) and ({span}) {{ p {{ color: #777; background: #888 }} }}"
        "</style><main><h1>T</h1><p>Grey</p></main>"
    )
    [fault] = _seen(page, axe, VIEWS)
    assert fault.startswith(f"{width} px, {scheme}: color-contrast")
