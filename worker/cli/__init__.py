"""The `tocsin` command: words in, exit code out.

Owns how every ending is told: an error is one line with its remedy, an interruption is one line, and what
nobody foresaw is one line and a log. Refuses: rules of any kind; the commands parse, call and print.
"""

import sys
from collections.abc import Sequence

import typer

from worker.cli import crashes, index, terminal
from worker.errors import TocsinError

#: What a shell reports for a program that Ctrl-C ended (128 + SIGINT).
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:  # noqa: PLR0911 - one for each way that a command ends
    """Run one command line and return its exit code: 0 done, 1 no, 2 wrong use, 3 something is down."""
    terminal.prepare()
    words = sys.argv[1:] if argv is None else list(argv)
    try:
        answer = index.root().main(args=words, prog_name="tocsin", standalone_mode=False)
    except TocsinError as error:
        terminal.complain(str(error), error.remedy)
        return error.exit_code
    except (terminal.Stopped, KeyboardInterrupt) as stop:
        terminal.warn(str(stop) or "stopped")
        return INTERRUPTED
    except typer.Abort:
        terminal.warn("stopped")
        return 1
    except typer.TyperException as error:
        return _misused(error)
    except OSError as error:
        return crashes.tell_of_the_machine(error)
    except Exception as error:  # noqa: BLE001 - the last line of defence: nobody is shown a traceback
        return crashes.tell(error)
    if answer == INTERRUPTED:  # typer turns Ctrl-C into this answer
        terminal.warn("stopped")
    return answer if isinstance(answer, int) else 0


def _misused(error: typer.TyperException) -> int:
    """Tell of a wrong command line, in one line like every error; a bare `tocsin` gets its help."""
    if type(error).__name__ == "NoArgsIsHelpError":  # typer publishes no name for it; the help is out already
        return error.exit_code
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "tocsin"
    message = " ".join(error.format_message().split()).replace(": Value error, ", ": ")  # pydantic's prefix
    terminal.complain(message[:1].lower() + message[1:].rstrip("."), f"See `{path} --help`.")
    return error.exit_code
