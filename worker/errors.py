"""The exceptions Tocsin raises on purpose, told apart by what the operator does next.

Refuses: anything about a single recipient. A refusal by a mail server is a `Reply`, a bad row is a
`Rejected` value, a throttle is a wait: none of them is an exception.
"""


class TocsinError(Exception):
    """Root of every expected error: one clear line, a remedy, and an exit code.

    Attributes:
        remedy: what to do next, as a sentence; may be empty when the message says it all.
        exit_code: what the command line exits with.
    """

    exit_code = 1

    def __init__(self, message: str, *, remedy: str = "") -> None:
        """Take the one-line message and the remedy."""
        super().__init__(message)
        self.remedy = remedy


class Refused(TocsinError):  # noqa: N818 - named for what happened, as the other two
    """The request is understood, and the answer is no (exit 1)."""

    exit_code = 1


class WrongUse(TocsinError):  # noqa: N818 - see Refused
    """The input, the arguments or the configuration are wrong; mending them mends it (exit 2)."""

    exit_code = 2


class Unavailable(TocsinError):  # noqa: N818 - see Refused
    """Something we depend on is down; trying again later may work (exit 3)."""

    exit_code = 3
