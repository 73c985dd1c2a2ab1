"""The preview in a real browser: deaf to hostile mails, clear to every reader, and it follows edits."""

import contextlib
import os
import re
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Page, expect

from worker import processes, screenshots
from worker.cli import main
from worker.frames import Scheme, frame

if TYPE_CHECKING:
    from tests.browser.conftest import Axe, OpenPage

SLUG = "chechnya-report"
#: What a look could hold if somebody hostile wrote it.
HOSTILE = """
<script>parent.document.title = "ran"; top.ran = 1; document.title = "ran"</script>
<img src="http://127.0.0.1:9/seen.png" alt="A" onerror="parent.ran = 1">
<img src="x" alt="B" onerror="top.ran = 1"><link rel="stylesheet" href="http://127.0.0.1:9/seen.css">
<meta http-equiv="refresh" content="0;url=http://127.0.0.1:9/away"><base href="http://127.0.0.1:9/">
<iframe src="http://127.0.0.1:9/inner"></iframe><object data="http://127.0.0.1:9/o"></object>
<link rel="preconnect" href="http://127.0.0.1:9/"><video src="http://127.0.0.1:9/v" autoplay></video>
<svg><image href="http://127.0.0.1:9/i"/></svg>
<form action="http://127.0.0.1:9/form"><input name="a" autofocus onfocus="top.ran = 1"></form>
</iframe></article><script>window.ran = 1</script><h1 id="broken-out">out</h1>
"""
NAME = "</iframe><script>window.ran = 1</script><h1 id='broken-out'>"


@pytest.fixture
def office(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have a fresh workspace, and be there; no program but the browser is asked anything."""
    folder = tmp_path / "office"
    for name in [name for name in os.environ if name.startswith("TOCSIN_")]:
        monkeypatch.delenv(name)
    assert main(["init", str(folder)]) == 0
    monkeypatch.chdir(folder)
    for file in (folder / "templates" / "appeals" / SLUG).glob("*.md"):
        if file.stem not in {"en", "ru"}:  # two are enough here
            file.unlink()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "chromium").symlink_to(screenshots.browser())
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return folder


def preview(office: Path) -> str:
    """Write the page; return its address."""
    assert main(["appeals", "preview", SLUG]) == 0
    return (office / "var" / "preview" / f"{SLUG}.html").as_uri()


def test_a_hostile_mail_does_nothing(office: Path, page: Page) -> None:
    """No script of a mail runs, nothing is fetched or navigated, and no name ends the frame it stands in."""
    layout = office / "templates" / "look" / "layout.html"
    world = socket.create_server(("127.0.0.1", 0))
    world.settimeout(0)
    hostile = HOSTILE.replace("127.0.0.1:9", f"127.0.0.1:{world.getsockname()[1]}")
    layout.write_text(layout.read_text("utf-8").replace("</body>", f"{hostile}</body>"), encoding="utf-8")
    config = office / "tocsin.toml"
    config.write_text(config.read_text("utf-8").replace("Example Equality", NAME), encoding="utf-8")
    page.goto(preview(office))
    frames = page.locator("iframe").count()
    expect(page.locator("iframe").first.content_frame.get_by_alt_text("A")).to_be_attached()
    assert page.title() == f"Preview: {SLUG}"
    assert page.evaluate("() => window.ran") is None
    assert page.locator("#broken-out").count() == 0
    assert frames == 2 * 3 * 2  # languages, views, widths
    page.set_content(page.content().replace('sandbox="', 'data-none="'))  # the policies alone hold, too
    assert page.evaluate("() => window.ran") is None
    with world, pytest.raises(BlockingIOError):
        world.accept()[0].close()


@pytest.mark.parametrize("dark", [False, True])
def test_each_view_shows_what_it_says(office: Path, open_page: "OpenPage", axe: "Axe", *, dark: bool) -> None:
    """Light is light and dark is dark whatever the operator's own; nothing stands in a reader's way."""
    page: Page = open_page(width=1400, dark=dark)
    page.goto(preview(office))
    assert axe(page) == []
    mail = page.locator("article", has_text="A new report")
    look = "() => getComputedStyle(document.querySelector('.card')).backgroundColor"
    for view, colour in (("Light", "rgb(255, 255, 255)"), ("Dark", "rgb(31, 33, 39)")):
        mail.get_by_label(view, exact=True).check(force=True)
        shown = mail.locator("iframe:visible")
        expect(shown).to_have_count(2)
        for each in shown.all():
            inner = each.element_handle().content_frame()
            assert inner is not None
            assert inner.evaluate(look) == colour
    mail.get_by_label("Text part").check(force=True)
    expect(mail.locator("pre:visible")).to_contain_text("CONTENT WARNING")
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")


@contextlib.contextmanager
def serving() -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """Run `preview --serve` as an operator does; give the process and the address it tells."""
    argv = [sys.executable, "-m", "worker.cli", "appeals", "preview", SLUG, "--serve", "--port", "0"]
    root = str(Path(__file__).parents[2])
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": root}
    ) as process:
        try:
            assert process.stdout is not None
            told = process.stdout.readline()
            yield process, told.removeprefix("Open ").strip()
        finally:
            process.kill()


def test_a_served_preview_follows_edits(office: Path, page: Page) -> None:
    """What is saved is shown without a key pressed, a fault as a finding; Ctrl-C ends it cleanly."""
    file = office / "templates" / "appeals" / SLUG / "en.md"
    text = file.read_text("utf-8")
    with serving() as (process, address):
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{16}/", address)
        page.goto(address)
        expect(page.get_by_role("heading", name="A new report, and four things you can do")).to_be_visible()
        file.write_text(text.replace("subject: A new report", "subject: A newer report"), encoding="utf-8")
        newer = page.get_by_role("heading", name="A newer report, and four things you can do")
        expect(newer).to_be_visible(timeout=15_000)
        file.write_text(text.replace("subject:", "subjekt:", 1), encoding="utf-8")
        expect(page.locator("#findings")).to_contain_text("en.md:2", timeout=15_000)
        process.send_signal(2)
        assert process.wait(10) == 0
        assert process.stdout is not None
        assert process.stdout.read().splitlines()[-1] == "The preview has stopped."
        expect(page.get_by_role("status")).to_be_visible()


def test_pictures_are_whole_and_leave_nothing_behind(tmp_path: Path) -> None:
    """As tall as the mail, in the scheme asked for, for us alone; no profile, no process stays."""
    mail = (
        "<style>@media (prefers-color-scheme: dark) { body { background: #000 !important } }</style>"
        "<body style='margin:0;background:#fff' onload='document.body.style.height = 9000'>"
        "<div style='height:2345px'>a</div>"
    )
    wanted = [screenshots.Picture(str(each), frame(mail, each, {}), 390) for each in Scheme]
    (tmp_path / "room").mkdir()
    taken = list(screenshots.take(wanted, tmp_path, tmp_path / "room"))
    assert [file.name for file in taken] == ["light.png", "dark.png"]
    for file in taken:
        data = file.read_bytes()
        assert struct.unpack(">II", data[16:24]) == (390, 2345)
        assert file.stat().st_mode & 0o777 == 0o600
    assert taken[0].read_bytes() != taken[1].read_bytes()
    assert list((tmp_path / "room").iterdir()) == []
    assert list(Path(tempfile.gettempdir()).glob("tocsin-picture-*")) == []
    assert processes.until(lambda: str(tmp_path) not in _running(), seconds=10)


def _running() -> str:
    return subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, text=True, check=True).stdout
