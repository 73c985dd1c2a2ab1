"""How a command loads what it needs.

Owns the pause of the garbage collector. Refuses: what is loaded, and when.
"""

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Look for no garbage meanwhile: loading makes hardly any, and to look takes a sixth of the time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
