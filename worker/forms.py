"""What a form of ours, or a mailbox in our reader's name, may post: read with patience for nobody.

Owns the encodings, the limits and the names of the fields. Refuses: files, packed bodies, strange charsets,
and a choice that no page of ours offers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus
from typing import Final

import anyio
from python_multipart.multipart import parse_options_header
from starlette.exceptions import HTTPException
from starlette.requests import Request

#: Bytes of the largest body that is read.
BODY_MOST: Final = 64 * 1024
#: Days that a pause may last; 0 ends one.
PAUSES: Final = (30, 90)

_FIELDS_MOST: Final = 60
#: Letters of one field of a sign-up that are looked at; no address is longer.
_ENTRY_MOST: Final = 320
#: What stands before a topic's name where a form says what was shown, and what is wanted again.
TOPIC: Final = "topic:"
#: The wish for mail that is not discreet any more.
OPEN: Final = "open"
_FORMS: Final = (b"application/x-www-form-urlencoded", b"multipart/form-data")


class Choice(StrEnum):
    """What may be asked by a form."""

    ONE_CLICK = "one-click"  #: a mailbox's own button (RFC 8058 3.2)
    STOP = "stop"
    LEAVE = "leave"
    UNDO = "undo"
    SAVE = "save"
    FORGET = "forget"
    EXPORT = "export"
    CONFIRM = "confirm"  #: on the page of a notice's link


@dataclass(frozen=True, slots=True)
class Wish:
    """What a form of the preferences asks; None: nothing of that."""

    pause_days: int | None = None
    fewer: bool | None = None
    language: str | None = None
    discreet: bool | None = None
    topics: Mapping[str, bool] = field(default_factory=dict)  #: by name; those that were shown


@dataclass(frozen=True, slots=True)
class Form:
    """A form that was read."""

    choice: Choice
    voucher: str = ""
    wish: Wish = Wish()
    again: frozenset[str] = frozenset()  #: what is confirmed to be wanted again: `OPEN`, and topics
    #: In which language the words of a consent were shown, and what proves which words they were.
    language: str = ""
    shown: str = ""


@dataclass(frozen=True, slots=True, repr=False)
class Entry:
    """What somebody enters to get mail."""

    address: str
    name: str
    language: str


async def read_entry(request: Request, patience: float) -> Entry:
    """Read the sign-up form of a request; HTTPException as of `read`."""
    fields = dict(await _pairs(request, patience))
    name, language = fields.get("name", ""), fields.get("language", "")
    return Entry(fields.get("address", "")[:_ENTRY_MOST].strip(), name[:_ENTRY_MOST], language[:_ENTRY_MOST])


async def read(request: Request, patience: float) -> Form:
    """Read the form of a request; HTTPException with 4xx if it is none of ours, or none at all.

    Args:
        request: the request.
        patience: seconds that a client has for its body.
    """
    pairs = [(name.lower(), value.lower()) for name, value in await _pairs(request, patience)]
    if ("list-unsubscribe", "one-click") in pairs:
        return Form(Choice.ONE_CLICK)
    try:
        return _form(pairs)
    except ValueError as error:
        raise HTTPException(HTTPStatus.BAD_REQUEST) from error


async def _pairs(request: Request, patience: float) -> Sequence[tuple[str, str]]:
    _check_encoding(request)
    try:
        with anyio.fail_after(patience):
            form = await request.form(max_files=0, max_fields=_FIELDS_MOST, max_part_size=BODY_MOST)
    except TimeoutError as error:
        raise HTTPException(HTTPStatus.REQUEST_TIMEOUT) from error
    return [(name, str(value)) for name, value in form.multi_items()]


def _form(pairs: Sequence[tuple[str, str]]) -> Form:
    """Make sense of the fields; ValueError where there is none."""
    fields = dict(pairs)
    choice = Choice(fields.get("choice", ""))
    if choice is Choice.ONE_CLICK:  # has a field of its own
        raise ValueError
    if choice is Choice.SAVE:
        return Form(choice, wish=_wish(fields, pairs))
    again = frozenset(value for name, value in pairs if name == "again")
    said = fields.get("language", ""), fields.get("shown", "")
    return Form(choice, fields.get("voucher", ""), Wish(), again, *said)


def _wish(fields: Mapping[str, str], pairs: Sequence[tuple[str, str]]) -> Wish:
    """Read the preferences; ValueError where no page of ours has such."""
    # An empty box is not posted: what was shown tells it from one that is not on the page.
    shown = [value for name, value in pairs if name == "of"]
    ticked = {value for name, value in pairs if name == "topic"}
    pause = fields.get("pause", "")
    days = int(pause) if pause.isascii() and pause.isdecimal() else None
    if (days is None) != (pause in {"", "keep"}) or days not in {None, 0, *PAUSES}:
        raise ValueError
    topics = [each.removeprefix(TOPIC) for each in shown if each.startswith(TOPIC)]
    return Wish(
        pause_days=days,
        fewer="fewer" in fields if "fewer" in shown else None,
        language=fields.get("language"),
        discreet="discreet" in fields if "discreet" in shown else None,
        topics={topic: topic in ticked for topic in topics},
    )


def _check_encoding(request: Request) -> None:
    """Refuse a body that is packed, or in a charset that no form of ours comes in.

    Python knows "charsets" (punycode, undefined) that fail in ways a form parser does not expect.
    """
    # Read by the same parser that the form will be read by, so that it cannot be told something else.
    kind, options = parse_options_header(request.headers.get("content-type"))
    if (
        kind not in _FORMS
        or options.get(b"charset", b"utf-8").lower() not in {b"utf-8", b"us-ascii"}
        or request.headers.get("content-encoding", "identity").lower() != "identity"
    ):
        raise HTTPException(HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
