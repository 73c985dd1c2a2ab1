"""Spreadsheet text: the bytes of a CSV file into numbered records of cells, and a cell made safe to export.

Owns: encoding, delimiter, quoting and line ends, in constant memory and for any size.

Refuses: guessing. A line whose bytes do not read as text, or whose quotes do not close, becomes a `Rejected`
value with its number; it neither stops the file nor takes the lines after it along. What a cell means is not
known here.
"""

import csv
import io
import itertools
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from worker.errors import WrongUse
from worker.tables.decoding import Encoding, detect

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

#: Bytes looked at before encoding and delimiter are decided.
_HEAD: Final = 262_144
#: Characters in one physical line, the csv module's own limit for one field.
_LINE_MOST: Final = 131_072
#: Physical lines in one record; a quote open for longer is a stray quote, not a long note.
_LINES_MOST: Final = 100
_DELIMITERS: Final = ",;\t|"
#: Excel's own first line, which names the delimiter.
_SEP_LINE = re.compile(r'"?sep=([,;\t|])"?\s*', re.IGNORECASE)
#: Characters in an address, with room for padding.
_ADDRESS_MOST: Final = 320
#: An address that stands alone, as in a cell of its own.
_ADDRESS_ALONE = re.compile(r"""[\s"']*[^\s"'@]+@[^\s"'@]+\.[^\s"'@]+[\s"']*""")
_FORMULA_MARKS: Final = "=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"
#: Signed numbers and phone numbers: no letters, so no formula worth the name.
_NUMBER = re.compile(r"[+-][0-9(][0-9 ().,/-]*")


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that was not taken, in words that repeat none of it."""

    #: Number of its first physical line in the file, from 1.
    line: int
    #: A stable slug, for counting.
    reason: str
    #: What is wrong, as a sentence for people.
    message: str


class Record(NamedTuple):
    """One row of cells as written; it may span several physical lines."""

    #: Number of its first physical line in the file, from 1.
    line: int
    #: The cells, without quotes.
    cells: list[str]


@dataclass(frozen=True, slots=True)
class Sheet:
    """A file opened: its header, and the rows still to come."""

    #: The cells of the header row; empty where no row names a column, and then every record is one line.
    header: Sequence[str]
    #: What follows the header; to be read once.
    records: Iterator[Record | Rejected]


def read(
    chunks: Iterable[bytes], *, is_header: Callable[[Sequence[str]], bool], encoding: str | None = None
) -> Sheet:
    """Open a CSV file; `is_header` says whether some cells name the columns, which decides the delimiter.

    Raises:
        WrongUse: the bytes are no text (a workbook, an archive), are empty, or are in an unknown encoding.
    """
    stream = iter(chunks)
    head = b"".join(_up_to(stream, _HEAD))
    # Whole lines only: a character cut in two would look like another encoding.
    text = detect(head[: head.rfind(b"\n") + 1] or head if len(head) >= _HEAD else head, encoding)
    raw = io.BufferedReader(_Chunks(itertools.chain([head], stream)), _LINE_MOST)
    lines = _Lines(io.TextIOWrapper(raw, encoding=text.codec, errors="replace", newline=""))
    delimiter = _delimiter(lines, is_header)
    if delimiter is None:
        return Sheet((), _plain_lines(lines, text))
    records = _records(lines, delimiter, text)
    header = next(records, None)
    if not isinstance(header, Record):
        raise _no_header("the header row cannot be read")
    return Sheet(header.cells, records)


def cell(text: str) -> str:
    """Disarm a cell for export, so that no spreadsheet program runs it as a formula.

    Numbers and phone numbers keep their sign. Write with every cell quoted: a program that splits at another
    delimiter would else find a formula inside a cell.
    """
    if text.lstrip(" ")[:1] not in _FORMULA_MARKS or not text.strip(" ") or _NUMBER.fullmatch(text):
        return text
    return f"'{text}"


def uncell(text: str) -> str:
    """Undo `cell`; any other leading apostrophe is part of the text ('t Hooft)."""
    return text[1:] if text.startswith("'") and cell(text[1:]) == text else text


class _Chunks(io.RawIOBase):
    """Chunks of bytes, to be read like a file."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        room = memoryview(buffer)
        size = min(len(room), len(self._rest))
        room[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size


class _BrokenError(Exception):
    """A record that cannot be read on."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class _Lines:
    """Physical lines, numbered; what a stray quote swallowed can be given back and read again."""

    def __init__(self, stream: io.TextIOWrapper) -> None:
        self._readline = stream.readline
        self._again: deque[str] = deque()
        #: The lines of the record being read.
        self.taken: list[str] = []
        #: Number of the last line handed out.
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else self._readline(_LINE_MOST)
        if not line:
            raise StopIteration
        self.number += 1
        if self.number == 1:
            line = line.removeprefix("\ufeff")
        self.taken.append(line)
        if len(line) >= _LINE_MOST and line[-1] not in "\r\n":
            self._skip_line()
            raise _BrokenError("length", "the line is too long to be a row")
        if len(self.taken) > _LINES_MOST:
            raise _BrokenError("quote", "a quotation mark opens here and is not closed")
        return line

    @property
    def first(self) -> int:
        """Number of the first line of the record being read."""
        return self.number - len(self.taken) + 1

    def begin(self) -> None:
        """Begin a record."""
        self.taken.clear()

    def give_back(self, *, but: int) -> None:
        """Un-read the lines of this record, but for the first few."""
        back = self.taken[but:]
        self._again.extendleft(reversed(back))
        self.number -= len(back)
        del self.taken[but:]

    def _skip_line(self) -> None:
        while (more := self._readline(_LINE_MOST)) and more[-1] not in "\r\n":
            pass


def _no_header(message: str) -> WrongUse:
    return WrongUse(message, remedy='Begin the file with a row that names the columns, such as "email,name".')


def _up_to(chunks: Iterator[bytes], size: int) -> Iterator[bytes]:
    """Take chunks until there are that many bytes."""
    for chunk in chunks:
        yield chunk
        size -= len(chunk)
        if size <= 0:
            return


def _delimiter(lines: _Lines, is_header: Callable[[Sequence[str]], bool]) -> str | None:
    """Find the delimiter under which the first row names the columns, and most of them; None if none does."""
    try:
        named = _sep_line(lines)
        widths = {mark: _width(lines, mark, is_header) for mark in named or _DELIMITERS}
    except _BrokenError as error:
        raise _no_header(f"the header row cannot be read: {error.message}") from error
    best = max(widths, key=widths.__getitem__)
    return best if widths[best] else None


def _sep_line(lines: _Lines) -> str | None:
    """Skip blank lines and Excel's `sep=;`, and return the delimiter that it names."""
    for line in lines:
        if named := _SEP_LINE.fullmatch(line):
            lines.begin()
            return named[1]
        if line.strip():
            lines.give_back(but=len(lines.taken) - 1)
            return None
        lines.begin()
    raise WrongUse("the file is empty", remedy="Check that the export worked.")


def _width(lines: _Lines, delimiter: str, is_header: Callable[[Sequence[str]], bool]) -> int:
    """Count the columns that the first row names under this delimiter; 0 if it names none."""
    lines.begin()
    try:
        cells = next(_csv(lines, delimiter), [])
    except csv.Error:
        cells = []
    lines.give_back(but=0)
    return len(cells) if is_header(cells) else 0


def _csv(lines: _Lines, delimiter: str) -> Iterator[list[str]]:
    # strict: text after a closing quote is an error, not a cell silently glued to the next row.
    return csv.reader(lines, delimiter=delimiter, strict=True, skipinitialspace=True)


def _records(lines: _Lines, delimiter: str, text: Encoding) -> Iterator[Record | Rejected]:
    reader = _csv(lines, delimiter)
    while True:
        lines.begin()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield _broken(lines, *_why(error))
            continue
        except _BrokenError as error:
            yield _broken(lines, error.reason, error.message)
            continue
        if not any(map(str.strip, cells)):
            continue
        yield _flaw(lines, cells, delimiter, text) or Record(lines.first, cells)


def _why(error: csv.Error) -> tuple[str, str]:
    if "limit" in str(error):
        return "length", "a cell is too long"
    return "quote", "a quotation mark is not closed, or text follows one that closes a cell"


def _broken(lines: _Lines, reason: str, message: str) -> Rejected:
    """Reject the first line of a record that cannot be read; the others are rows of their own again."""
    lines.give_back(but=1)
    return Rejected(lines.first, reason, message)


def _flaw(lines: _Lines, cells: Sequence[str], delimiter: str, text: Encoding) -> Rejected | None:
    if any(map(text.damaged, lines.taken)):
        return Rejected(
            lines.first, "encoding", "some of its bytes are no text in the encoding of the rest of the file"
        )
    if len(lines.taken) > 1 and any(_holds_row(cell, delimiter) for cell in cells):
        return Rejected(
            lines.first,
            "quote",
            f"a quoted cell runs on to line {lines.number} and holds what looks like another row",
        )
    return None


def _holds_row(text: str, delimiter: str) -> bool:
    """Whether two stray quotes made one cell of several rows: one line in it has an address in a cell."""
    rows = (line.split(delimiter) for line in re.split(r"[\r\n]+", text)) if "@" in text else ()
    return any(len(row) > 1 and any(map(_is_address, row)) for row in rows)


def _is_address(text: str) -> bool:
    # The length comes first: a long run of dots would keep the pattern busy for minutes.
    return len(text) <= _ADDRESS_MOST and _ADDRESS_ALONE.fullmatch(text) is not None


def _plain_lines(lines: _Lines, text: Encoding) -> Iterator[Record | Rejected]:
    """Read a file without columns: every line is one cell, and delimiters in it are text."""
    while True:
        lines.begin()
        try:
            line = next(lines).strip()
        except StopIteration:
            return
        except _BrokenError as error:
            yield _broken(lines, error.reason, error.message)
            continue
        if len(line) > 1 and line[0] == line[-1] == '"':
            line = line[1:-1].replace('""', '"')
        if line:
            yield _flaw(lines, [], "", text) or Record(lines.first, [line])
