"""What is told when something goes wrong that nobody raised on purpose.

Owns the one line, and the traceback in the log, which holds no address. Refuses: to show a traceback to
anybody who did not ask for it (TOCSIN_DEBUG=1).
"""

import contextlib
import importlib
import os
import sys
import traceback
from pathlib import Path

from worker import errors
from worker.blots import blotted
from worker.cli import terminal

#: Exit codes: an internal error (sysexits.h), and something we depend on that is down.
CRASHED, DOWN = 70, errors.Unavailable.exit_code


def tell_of_the_machine(error: OSError) -> int:
    """Tell of a full disk, a closed folder or a lost network: nothing of ours, and no traceback helps."""
    _debug(error)
    place = f": {error.filename}" if error.filename else ""
    terminal.complain(
        f"{(error.strerror or type(error).__name__).lower()}{place}",
        "Check free space and permissions, then try again.",
    )
    return DOWN


def tell(error: Exception) -> int:
    """Tell of an error in Tocsin itself, and keep its traceback."""
    _debug(error)
    kept = _keep(error)
    where = f"The traceback is in {kept}" if kept else "No log could be written"
    terminal.complain(
        f"unexpected {type(error).__name__}: this is a fault in Tocsin",
        f"{where}; TOCSIN_DEBUG=1 shows it here.",
    )
    return CRASHED


def _debug(error: Exception) -> None:
    if os.environ.get("TOCSIN_DEBUG"):
        sys.stderr.write(blotted("".join(traceback.format_exception(error))))


def _keep(error: Exception) -> Path | None:
    """Write the traceback to the workspace's log, for our eyes only; None where there is no place for it."""
    with contextlib.suppress(errors.TocsinError, OSError, ImportError):
        session = importlib.import_module("worker.cli.session")  # heavy, and needed only when something broke
        log: Path = session.log_folder(session.settings_found()) / "cli.log"
        log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        text = "".join(traceback.format_exception(error))
        with os.fdopen(os.open(log, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600), "a") as opened:
            opened.write(blotted(text))
        return log
    return None
