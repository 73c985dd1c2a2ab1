"""Lists: the bytes of a recipients' file into rows of checked people, or rejected rows with their reasons.

Owns: what a row must hold to be taken, how its cells are cleaned, and that no row vanishes: every line that
is not blank comes out as a `Row` or a `Rejected`.

Refuses: merging (the importer knows who is held already), mending what a row says, and repeating any of it: a
rejected row shows its line and a reason, nothing that was in it. Whoever a file says did not agree, or has
left, is rejected here.
"""

import itertools
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Final

from worker.addresses import Address, AddressError, parse_mailbox
from worker.errors import WrongUse
from worker.tables import readings
from worker.tables.columns import Columns, arrange, names_addresses
from worker.tables.spreadsheets import Record, Rejected, cell, uncell
from worker.tables.spreadsheets import read as read_sheet

__all__ = ["Consent", "Rejected", "Row", "cell", "read"]

#: Characters in one cell; names run to a hundred, wordings of consent to a few thousand.
_CELL_MOST: Final = 10_000
_AGREEMENT: Final = frozenset({"agreed", "left", "status"})
_CONSENT_COLUMNS: Final = ("basis", "source", "wording", "when", "offered", "confirmed")
_NAME_FIELDS: Final = ("name", "first_name", "last_name")
#: Seen by nobody, and able to turn text around or hide some. The joiners U+200C and U+200D stay: Persian and
#: emoji need them.
_UNSEEN = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f"
    "\ufdd0-\ufdef\ufeff\ufff9-\uffff\ud800-\udfff\U000e0000-\U000e0fff]"
)


@dataclass(frozen=True, slots=True)
class Consent:
    """On what basis somebody is on a list: what the law wants shown (PECR reg. 22, GDPR Art. 7)."""

    #: Consent, soft opt-in…; "" where the file does not say.
    basis: str = ""
    #: Where it was given.
    source: str = field(default="", repr=False)
    #: What the person was shown.
    wording: str = field(default="", repr=False)
    #: When it was given, in UTC; None where the file does not say.
    at: datetime | None = field(default=None, repr=False)
    #: Whether they were offered an opt-out then.
    offered: bool = False
    #: When they confirmed it from their mailbox (double opt-in), in UTC; None where the file does not say.
    confirmed_at: datetime | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, repr=False)
class Row:
    """One person as the file gives them, checked and cleaned. Shows only its line."""

    #: Number of its first physical line in the file, from 1.
    line: int
    #: Where mail to them goes.
    address: Address
    #: What else the file holds, cleaned and never empty: name, first_name, last_name, and further columns.
    fields: Mapping[str, str]
    #: Lower-case language code; "" where the file does not say.
    language: str
    #: Whether they must get the neutral form.
    discreet: bool
    #: The file's columns, completed from the defaults.
    consent: Consent

    def __repr__(self) -> str:
        return f"Row(line={self.line})"


def read(
    chunks: Iterable[bytes],
    *,
    defaults: Consent,
    encoding: str | None = None,
    day_first: bool | None = None,
) -> Iterator[Row | Rejected]:
    """Read a CSV file, lazily and in constant memory.

    Args:
        chunks: the file's bytes, in pieces of any size; wrap them to show progress.
        defaults: what holds where the file's consent columns are missing or empty.
        encoding: the file's encoding, where it cannot be told from its bytes.
        day_first: how to read 03/04/2026; without it such a date rejects its row.

    Raises:
        WrongUse: the file is no CSV text, has no address column, or names a column twice.
    """
    sheet = read_sheet(chunks, is_header=names_addresses, encoding=encoding)
    columns = arrange(sheet.header or ("email",))
    rows = _rows(sheet.records, _Reader(columns, defaults, day_first=day_first))
    return rows if sheet.header else _without_header(rows)


def tidy(text: str) -> str:
    """Clean text for a header or a greeting: NFC, one line, single spaces, nothing that cannot be seen."""
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    if not text.isprintable():
        text = _UNSEEN.sub("", text)
    return " ".join(text.split())


class _RowError(Exception):
    """Why a row is not taken."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


def _rows(records: Iterable[Record | Rejected], reader: "_Reader") -> Iterator[Row | Rejected]:
    for record in records:
        if isinstance(record, Rejected):
            yield record
            continue
        try:
            yield reader.row(record.line, record.cells)
        except _RowError as error:
            yield Rejected(record.line, error.reason, error.message)


def _without_header(rows: Iterator[Row | Rejected]) -> Iterator[Row | Rejected]:
    """Take a file without a header as a list of bare addresses, if its first line is one."""
    first = next(rows, None)
    if not isinstance(first, Row):
        raise WrongUse(
            "the first line names no address column, and is no address either",
            remedy='Begin the file with a row that names the columns, such as "email,name".',
        )
    return itertools.chain([first], rows)


class _Reader:
    """Turns the cells of one file into rows."""

    def __init__(self, columns: Columns, defaults: Consent, *, day_first: bool | None) -> None:
        self._width = columns.width
        self._index = columns.index
        self._email = columns.index["email"]
        self._language_column = columns.index.get("language")
        self._discreet_column = columns.index.get("discreet")
        self._agreement = [
            (i, name) for name, i in columns.index.items() if name in {"agreed", "left", "status"}
        ]
        self._fields = [(i, name) for name, i in columns.index.items() if name in _NAME_FIELDS]
        self._fields += columns.extras
        self._consent_columns = [columns.index.get(name) for name in _CONSENT_COLUMNS]
        self._has_consent = any(i is not None for i in self._consent_columns)
        self._defaults = defaults
        # Most rows of a file share their consent; the cache is small because some files give each its own.
        self._consent = lru_cache(maxsize=256)(self._read_consent)
        self._day_first = day_first

    def row(self, line: int, cells: Sequence[str]) -> Row:
        """Check one row; raise _RowError for the first thing wrong with it."""
        self._refuse_shape(cells)
        name, address = self._address(cells[self._email])
        self._refuse_gone(cells)
        fields = self._texts(cells)
        if name and not any(each in fields for each in _NAME_FIELDS):
            fields["name"] = tidy(name)
        consent = self._defaults
        if self._has_consent:
            consent = self._consent(*("" if i is None else cells[i] for i in self._consent_columns))
        return Row(line, address, fields, self._language(cells), self._discreet(cells), consent)

    def _refuse_shape(self, cells: Sequence[str]) -> None:
        if len(cells) < self._width:
            raise _RowError("short", f"the row has {len(cells)} cells and the header {self._width}")
        if len(cells) > self._width and any(map(str.strip, cells[self._width :])):
            raise _RowError("long", f"the row has {len(cells)} cells and the header {self._width}")

    @staticmethod
    def _address(text: str) -> tuple[str, Address]:
        text = text.strip(" \t\u00a0")
        # A spreadsheet's mark for "this is text"; some programs close it, too.
        if text.startswith("'") and "<" not in text:
            text = text[1:].removesuffix("'")
        try:
            return parse_mailbox(text)
        except AddressError as error:
            raise _RowError(
                f"address-{error.reason}", f"the address cannot be used: {error.message}"
            ) from error

    def _refuse_gone(self, cells: Sequence[str]) -> None:
        """Refuse whom the file itself says not to write to; in doubt, as well."""
        for i, name in self._agreement:
            text = cells[i].strip()
            if name == "agreed" and not readings.yes(text):
                raise _RowError("no-consent", "the consent column does not say yes for this person")
            if name == "left" and text and readings.yes(text) is not False:
                raise _RowError("said-no", "the file says that this person opted out")
            if name == "status" and readings.gone(text):
                raise _RowError("said-no", "the status column says that this person is not to be written to")

    def _texts(self, cells: Sequence[str]) -> dict[str, str]:
        return {name: text for i, name in self._fields if cells[i] and (text := _cleaned(cells[i]))}

    def _language(self, cells: Sequence[str]) -> str:
        text = cells[self._language_column].strip() if self._language_column is not None else ""
        if not text:
            return ""
        try:
            return readings.language(text)
        except readings.UnclearError as error:
            raise _RowError("language", str(error)) from error

    def _discreet(self, cells: Sequence[str]) -> bool:
        text = cells[self._discreet_column].strip() if self._discreet_column is not None else ""
        answer = readings.yes(text) if text else False
        if answer is None:
            raise _RowError("discreet", "the column for the neutral form says neither yes nor no")
        return answer

    def _read_consent(
        self, basis: str, source: str, wording: str, when: str, offered: str, confirmed: str
    ) -> Consent:
        given = Consent(_cleaned(basis), _cleaned(source), _cleaned(wording), self._moment(when.strip()))
        if readings.yes(given.basis) is False:
            raise _RowError("no-consent", "the basis column says that there is none")
        return Consent(
            basis=given.basis or self._defaults.basis,
            source=given.source or self._defaults.source,
            wording=given.wording or self._defaults.wording,
            at=given.at or self._defaults.at,
            offered=readings.yes(offered.strip()) is True if offered.strip() else self._defaults.offered,
            confirmed_at=self._moment(confirmed.strip()),
        )

    def _moment(self, text: str) -> datetime | None:
        try:
            return readings.moment(text, day_first=self._day_first) if text else None
        except readings.UnclearError as error:
            raise _RowError("date", str(error)) from error


def _cleaned(text: str) -> str:
    if len(text) > _CELL_MOST:
        raise _RowError("length", "a cell is too long")
    return tidy(uncell(text))
