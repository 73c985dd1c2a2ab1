"""Files that name people and that we left lying: rejects, exports, captured mail, previews.

Owns how such a file is found, recognised and removed. Refuses: to follow a link, to touch a file of somebody
else's, and to remove what has become another file than the one that was written.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from worker.store.left import Kind, Leaving, Mark

#: Folders of ours in the state folder, and what lies there; nothing else is written to them.
FOLDERS = {
    "rejects": Kind.REJECTS,
    "exports": Kind.EXPORTS,
    "preview": Kind.PREVIEWS,
    "outbox": Kind.CAPTURED,
}


def mark(path: Path) -> Mark | None:
    """Return by what a file of ours is known; None where there is none, or a link in its place."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return _mark(found)


def _mark(found: os.stat_result) -> Mark | None:
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
        return None
    return Mark(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def scan(state: Path) -> Iterator[Leaving]:
    """Yield every file in our folders, by folder and name."""
    for name, kind in FOLDERS.items():
        folder = state / name
        if folder.is_symlink() or not folder.is_dir():
            continue
        for path in sorted(folder.iterdir()):
            if (found := mark(path)) is not None:
                yield Leaving(kind, path, found.changed_ns / 1e9, found)


def remove(one: Leaving) -> bool:
    """Remove a file if it is still the one that is meant; False when it is not.

    By its folder's descriptor: whoever puts a link in the folder's place meanwhile changes nothing.
    """
    try:
        folder = os.open(one.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        found = os.stat(one.path.name, dir_fd=folder, follow_symlinks=False)
        if _mark(found) != one.mark:
            return False
        os.unlink(one.path.name, dir_fd=folder)
    except OSError:
        return False
    finally:
        os.close(folder)
    return True
