"""Files for our eyes only.

Owns how one is begun: always as a new file of mode 0600. Refuses: to write into what stands at its place, for
that may be readable by all, or a link that somebody left there to lead the writing elsewhere.
"""

import os
from pathlib import Path
from typing import BinaryIO


def begun(path: Path) -> BinaryIO:
    """Return a new, empty file, open to be written; what stood at its place is gone.

    Whoever can write to the folder may still put something there between two steps: then it is
    FileExistsError, and nothing is written.
    """
    path.unlink(missing_ok=True)
    # O_EXCL follows no link, and makes the mode ours whatever the umask is: it can only take bits away.
    return os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb")
