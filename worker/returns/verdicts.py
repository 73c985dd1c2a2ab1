"""What a returned mail is, once it has been read: values, and nothing about what follows from them."""

from dataclasses import dataclass, field
from typing import TypeAlias

__all__ = ["Bounce", "Complaint", "Delivered", "Foreign", "OptOut", "Personal", "Quiet", "Verdict"]


@dataclass(frozen=True, slots=True)
class Bounce:
    """A mail server says for good that a mail did not arrive."""

    delivery: int
    #: Slug, as for a refusal at the relay.
    reason: str
    #: Three digits, where the report gave them.
    code: int | None
    #: Enhanced status; "" for none.
    status: str
    #: The server's words, scrubbed.
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Delivered:
    """A mail server says that it was delivered, or passed on to where no reports come from."""

    delivery: int


@dataclass(frozen=True, slots=True)
class OptOut:
    """The reader, or their mail program for them, wrote to the address in List-Unsubscribe."""

    delivery: int


@dataclass(frozen=True, slots=True)
class Complaint:
    """A provider passes on that the reader has called it spam (RFC 5965)."""

    delivery: int
    #: The report's type, as in "abuse".
    kind: str


@dataclass(frozen=True, slots=True)
class Quiet:
    """About a mail of ours, and nothing follows: a delay, a vacation notice, a receipt, a loop."""

    delivery: int
    #: Whether it may name a new address, so that a person should see it.
    new_address: bool = False


@dataclass(frozen=True, slots=True)
class Personal:
    """Somebody wrote to an address of ours that only programs use; for a person to read."""

    delivery: int
    #: Whether their words may mean that they want no more mail.
    asks_to_stop: bool = False


@dataclass(frozen=True, slots=True)
class Foreign:
    """No mark of ours is in it, so it changes nothing, whatever it says."""

    #: Whether a person seems to have written it.
    personal: bool = False


Verdict: TypeAlias = Bounce | Delivered | OptOut | Complaint | Quiet | Personal | Foreign
