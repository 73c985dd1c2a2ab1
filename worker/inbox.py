"""Where returned mail lies: the Maildir that the mail server fills, and the folder of what is for a person.

Owns the files: read within bounds, deleted once they were acted upon, kept for our eyes only. Refuses: to
delete what is not ours, to follow links, and to decide what a mail means.
"""

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from worker import coffer
from worker.errors import Unavailable, WrongUse

#: Mails kept for a person at most; whoever floods us must not fill the disk.
MOST_KEPT = 1_000
#: Part of a kept mail's file name that says: these words may mean "stop".
STOP_SIGN = ".stop"


class Maildir:
    """A Maildir that is ours to empty (D. J. Bernstein): what is new is read, what is not ours is left."""

    def __init__(self, folder: Path, most_bytes: int) -> None:
        """Take the folder, and how much of a mail is worth reading."""
        self.folder = folder
        self._most = most_bytes

    def names(self) -> Sequence[str]:
        """Return the new mails' names, the oldest first; WrongUse where there is no Maildir."""
        try:
            found = [file.name for file in (self.folder / "new").iterdir()]
        except OSError as error:
            raise WrongUse(
                f"{self.folder} is no Maildir that we may read: {(error.strerror or '').lower()}",
                remedy="Name the folder that holds new/ and cur/, and check its owner.",
            ) from error
        return sorted(name for name in found if not name.startswith("."))

    def read(self, name: str) -> bytes | None:
        """Return the beginning of a mail; None where another reader took it, or where it is no plain file."""
        path = self.folder / "new" / name
        with _ours(self.folder), contextlib.suppress(FileNotFoundError):
            # Neither a link that leads elsewhere nor a pipe that never ends.
            if stat.S_ISREG(path.lstat().st_mode):
                with open(path, "rb", opener=_plainly) as file:
                    return file.read(self._most)
        return None

    def delete(self, name: str) -> None:
        """Delete a mail that was acted upon."""
        with _ours(self.folder):
            (self.folder / "new" / name).unlink(missing_ok=True)

    def leave(self, name: str) -> None:
        """Call a mail seen, which leaves it where every mail program finds it."""
        with _ours(self.folder), contextlib.suppress(FileNotFoundError):
            (self.folder / "new" / name).rename(self.folder / "cur" / f"{name}:2,")


def _plainly(path: str, _: int) -> int:
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)


@contextlib.contextmanager
def _ours(folder: Path) -> Iterator[None]:
    """Say what to mend when the mail server's files are not ours to read and delete."""
    try:
        yield
    except PermissionError as error:
        raise Unavailable(
            f"the mail in {folder} is not ours to read and delete",
            remedy="Let the mail server deliver there as the user who runs Tocsin.",
        ) from error


def says_stop(file: Path) -> bool:
    """Tell from a kept mail's name whether its words may mean "stop"."""
    return STOP_SIGN in file.suffixes


class Kept:
    """What a person must read, in files for our eyes only."""

    def __init__(self, folder: Path) -> None:
        """Take the folder; it is made when there is something to keep."""
        self.folder = folder

    def files(self) -> Sequence[Path]:
        """Return the mails that wait for a person, the oldest first."""
        found = [file for file in self.folder.glob("*.eml") if file.is_file()]
        return sorted(found, key=lambda file: (file.stat().st_mtime, file.name))

    def keep(self, data: bytes, *, stop: bool = False) -> bool:
        """Keep a mail whole or not at all, the same one once; False when there are too many already."""
        sign = STOP_SIGN if stop else ""
        file = self.folder / f"{hashlib.sha256(data).hexdigest()[:16]}{sign}.eml"
        if file.exists():
            return True
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if len(self.files()) >= MOST_KEPT:
            return False
        draft = file.with_suffix(".new")
        with coffer.begun(draft) as opened:
            opened.write(data)
            opened.flush()
            os.fsync(opened.fileno())
        draft.replace(file)
        return True
