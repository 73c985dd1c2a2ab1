"""Pictures of mails, taken by a Chromium or Chrome that is installed here.

Owns finding it, running it without a profile, network or leftovers, and how tall a picture must be. Refuses:
scripts in a mail, and to wait for a browser that does not end.
"""

import html
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from worker import processes
from worker.errors import Unavailable

#: What it is called, the first found on PATH.
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
#: Seconds that one run may take, on a busy machine too.
_PATIENCE = 60.0
#: What a browser still draws, in pixels; a mail that is taller is cut there.
_TALLEST = 16_000
#: Browsers that run side by side.
_AT_ONCE = 4
_FLAGS = (
    *("--headless", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--no-default-browser-check"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-extensions", "--disable-breakpad", "--disable-dev-shm-usage", "--mute-audio"),
    # Whatever asks for a host is told that there is none.
    "--host-resolver-rules=MAP * ~NOTFOUND",
)
_MEASURED = re.compile(r"heights=([\d,]+);")
_PAGE = """\
<!doctype html><meta charset="utf-8"><style>* { margin: 0; border: 0; padding: 0 }
html, body { overflow: hidden } iframe { display: block }</style>
"""
_MEASURE = """\
<script>addEventListener("load", () => {
const roots = [...document.querySelectorAll("iframe")].map(one => one.contentDocument.documentElement);
document.body.append("heights=" + roots.map(one => one.scrollHeight).join() + ";");
})</script>
"""


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture to take."""

    #: the file's name, without its suffix
    name: str
    #: the HTML of a frame (`frames.frame`)
    html: str
    #: in CSS pixels
    width: int


def browser() -> Path:
    """Find the browser; Unavailable where none is installed."""
    for name in _NAMES:
        if found := shutil.which(name):
            return Path(found)
    raise Unavailable(
        "no Chromium or Chrome is on PATH, and it takes the pictures",
        remedy="Install chromium, or look at the page: leave --png out.",
    )


def take(pictures: Sequence[Picture], folder: Path, room: Path) -> Iterator[Path]:
    """Take pictures of whole mails, from top to end, as PNG files that only we can read; yield each.

    Args:
        pictures: what to take; a file of the same name is replaced.
        folder: where they go; it is there already.
        room: a folder of ours for what is only needed meanwhile; nothing stays in it.

    Raises:
        Unavailable: there is no browser, or it fails.
    """
    program = browser()
    with tempfile.TemporaryDirectory(prefix="tmp-", dir=room, ignore_cleanup_errors=True) as name:
        desk = _Desk(program, Path(name))
        sized = list(zip(pictures, desk.heights(pictures), strict=True))
        for start in range(0, len(sized), _AT_ONCE):
            for picture, taken in desk.shots(sized[start : start + _AT_ONCE]):
                taken.chmod(0o600)
                yield taken.replace(folder / f"{picture.name}.png")


class _Desk:
    """A browser and the folder it may write to."""

    def __init__(self, program: Path, folder: Path) -> None:
        self._program, self._folder = program, folder

    def heights(self, pictures: Sequence[Picture]) -> Sequence[int]:
        """Return how tall each mail is at its width."""
        page = _PAGE + _MEASURE + "".join(_frame(one, height=1) for one in pictures)
        with self._running(page, "--dump-dom", "--virtual-time-budget=10000") as run:
            found = _MEASURED.search(run.output())
        if found is None:
            raise _failed()
        return [min(max(int(height), 1), _TALLEST) for height in found[1].split(",")]

    def shots(self, sized: Sequence[tuple[Picture, int]]) -> Iterator[tuple[Picture, Path]]:
        """Take pictures of these heights, all at once."""
        with ExitStack() as held:
            runs = [(one, held.enter_context(self._shot(one, height))) for one, height in sized]
            for picture, run in runs:
                run.output()
                if not run.picture.exists():
                    raise _failed()
                yield picture, run.picture

    def _shot(self, picture: Picture, height: int) -> AbstractContextManager["_Run"]:
        size = f"--window-size={picture.width},{height}"
        return self._running(_PAGE + _frame(picture, height=height), "--screenshot=shot.png", size)

    @contextmanager
    def _running(self, page: str, *flags: str) -> Iterator["_Run"]:
        """Let the browser open a page of ours while the block runs."""
        desk = Path(tempfile.mkdtemp(dir=self._folder))
        source = desk / "page.html"
        source.write_text(page, encoding="utf-8")
        # It refuses to run as root in its sandbox.
        root = ["--no-sandbox"] if os.geteuid() == 0 else []
        with tempfile.TemporaryDirectory(prefix="tocsin-picture-", ignore_cleanup_errors=True) as home:
            argv = [str(self._program), *root, *_FLAGS, f"--user-data-dir={home}", *flags, source.as_uri()]
            with (desk / "output").open("wb") as opened:
                process = processes.spawn(argv, env=_environment(home), output=opened, cwd=desk)
            try:
                yield _Run(process, desk)
            finally:
                processes.kill(process)


@dataclass(frozen=True, slots=True)
class _Run:
    """The browser at one page."""

    process: subprocess.Popen[bytes]
    desk: Path

    def output(self) -> str:
        """Return what it said, once it has ended; Unavailable if it does not."""
        if not processes.until(lambda: processes.ending(self.process) is not None, seconds=_PATIENCE):
            raise Unavailable("the browser did not end in time", remedy="Try again on a quieter machine.")
        return (self.desk / "output").read_text("utf-8", "replace")

    @property
    def picture(self) -> Path:
        """Where its picture is."""
        return self.desk / "shot.png"


def _environment(home: str) -> Mapping[str, str]:
    """Return ours, but for where programs leave things behind.

    Not a folder of the workspace: the path of a browser's own socket may have 107 characters.
    """
    kept = ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "TMPDIR")
    return {**os.environ, **dict.fromkeys(kept, home)}


def _frame(picture: Picture, *, height: int) -> str:
    # Of our origin, so that it can be measured, and is drawn in time for the picture; no script runs in it.
    size = f"width:{picture.width}px;height:{height}px"
    source = html.escape(picture.html)
    return f'<iframe sandbox="allow-same-origin" style="{size}" srcdoc="{source}"></iframe>'


def _failed() -> Unavailable:
    return Unavailable(
        "the browser made no picture", remedy="Try it by hand: chromium --headless --screenshot URL"
    )
