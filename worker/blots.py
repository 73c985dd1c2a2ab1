"""Text that may hold an address or a mark by somebody else's doing, made fit for a log.

Pure. Owns what looks like either. Refuses: to be relied upon. What we write ourselves holds none; this is for
what a library, a server or an operator wrote. A person's name looks like any word, and is never found.
"""

import re
from typing import Final

# An apostrophe may stand in a local part (o'neill); in a link the @ is written %40, in a mail =40.
_ADDRESS: Final = re.compile(r"[^\s<>\"(),:;]+(?:@|%40|=40)[^\s<>\"'(),:;]+", re.IGNORECASE)
#: An opt-out link or return path, of which this is the part that counts (worker.tokens).
_MARK: Final = re.compile(r"(?<![A-Za-z0-9])[A-Za-z2-7]{32}(?![A-Za-z0-9])")


def blotted(text: str) -> str:
    """Return text without anything that looks like an address or a mark of ours."""
    return _MARK.sub("(mark)", _ADDRESS.sub("(address)", text))
