"""A file of people on its way in: opened, read in pieces, with a bar that knows how far it is.

Owns `-` for standard input and the wording of what cannot be opened. Refuses: to look into the bytes.
"""

import contextlib
import hashlib
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from worker.cli import terminal
from worker.errors import Refused, WrongUse

#: Standard input, as it is named on a command line.
STANDARD_INPUT = "-"
#: Bytes read at once: small enough that the bar moves, large enough that reading costs nothing.
_CHUNK = 256 * 1024


@contextlib.contextmanager
def opened(name: str) -> Iterator[tuple[BinaryIO, int | None]]:
    """Give a file's bytes and their number, None where that is not known beforehand.

    Raises:
        WrongUse: it cannot be opened.
    """
    if name == STANDARD_INPUT:
        yield sys.stdin.buffer, None
        return
    path = Path(name)
    try:
        stream = path.open("rb")
    except OSError as error:
        raise WrongUse(
            f"cannot read {name}: {(error.strerror or 'it cannot be opened').lower()}",
            remedy="Check the file's name; - reads standard input.",
        ) from error
    with stream:
        yield stream, path.stat().st_size if path.is_file() else None


def word(given: str) -> str:
    """Return what was given, or for `-` the first line of standard input that is not empty."""
    if given != STANDARD_INPUT:
        return given
    with opened(given) as (stream, _):
        for line in stream:
            if text := line.decode("utf-8-sig", "replace").strip():
                return text
    raise Refused("there was nothing to read")


class Digest:
    """The SHA-256 of a file while it passes."""

    def __init__(self) -> None:
        """Begin with nothing read."""
        self._sha = hashlib.sha256()
        self._whole = False

    def watch(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the pieces as they are."""
        for chunk in chunks:
            self._sha.update(chunk)
            yield chunk
        self._whole = True

    @property
    def hex(self) -> str | None:
        """Return it; None for a file that was not read to its end."""
        return self._sha.hexdigest() if self._whole else None


class Bar:
    """A bar on the terminal: bytes read of all, rows, time. Silent where there is no terminal."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        """Take a bar that is shown."""
        self._progress = progress
        self._task = task

    def chunks(self, stream: BinaryIO) -> Iterator[bytes]:
        """Yield a file's bytes in pieces, and move the bar."""
        while chunk := stream.read(_CHUNK):
            self._progress.update(self._task, advance=len(chunk))
            yield chunk
        self._progress.update(self._task, description="storing")

    def rows(self, rows: int) -> None:
        """Show how many rows were read."""
        self._progress.update(self._task, rows=terminal.count(rows))


@contextlib.contextmanager
def bar(size: int | None) -> Iterator[Bar]:
    """Show a bar while the block runs; it leaves nothing behind."""
    console = terminal.err()
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        DownloadColumn(),
        TextColumn("{task.fields[rows]} rows"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield Bar(progress, progress.add_task("reading", total=size, rows="0"))
