"""Suppressions as files: read from anybody's, written as our own, in constant memory.

Owns the columns of an export and its way back in. Refuses: an address in either direction's output.
"""

import contextlib
import csv
import datetime as dt
import io
import itertools
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO, TypeAlias

from worker import addresses, coffer, disguises
from worker.addresses import AddressError
from worker.cli import incoming, terminal
from worker.errors import WrongUse
from worker.sealing import ADDRESS_KEY_BYTES, Person, SealError
from worker.store.suppressions import EVERYTHING, REST, Suppression, is_topic, list_scope
from worker.tables.columns import arrange, names_addresses
from worker.tables.spreadsheets import Record, Rejected, Sheet
from worker.tables.spreadsheets import read as read_sheet
from worker.wiring import Wiring

#: Scopes by how the store has them, and what they are called.
Names: TypeAlias = Mapping[str, str]

#: The columns of an export; the first one tells it from a file of addresses.
_COLUMNS = ("address_key", "scope", "reason", "source", "at")
#: What a column of hashes is called.
_HASHED = re.compile(r"hash|md5|sha")
#: How addresses may be written out.
FORMS = ("plain", *disguises.KINDS)
_CALLED = {"plain": "email"}
#: Entries written at once.
_CHUNK = 1_000


@dataclass(frozen=True, slots=True)
class Manner:
    """What is written down for each address of somebody else's file."""

    scope: str
    reason: str
    source: str
    hashed: bool = False  #: the file holds hashes of addresses, as other tools export them


@dataclass(slots=True)
class Result:
    """What an import found and did."""

    rows: int = 0
    added: int = 0
    known: int = 0  #: stood already, or came twice
    rejected: Counter[str] = field(default_factory=Counter)
    recognised: int | None = None  #: suppressions that are somebody's now whom we hold; None: no hashes

    def facts(self) -> Mapping[str, object]:
        """Return it for programs."""
        return {
            "rows": self.rows,
            "added": self.added,
            "known": self.known,
            "rejected": dict(sorted(self.rejected.items())),
            **({} if self.recognised is None else {"recognised": self.recognised}),
        }


def scope_names(tocsin: Wiring) -> Names:
    """Return what scopes are called outside: "all", or "list:" and its name; a topic's is the same."""
    return {
        EVERYTHING: EVERYTHING,
        **{list_scope(one.id): f"list:{one.slug}" for one in tocsin.people.lists()},
    }


def facts(entry: Suppression, names: Names) -> Mapping[str, str | None]:
    """Return one entry for programs; no hash."""
    return {
        "scope": names.get(entry.scope, entry.scope),
        "reason": entry.reason,
        # That of a rest is the number of the mail that it began with, which is nothing to anybody.
        "source": "our last mail" if entry.source.isdecimal() and entry.scope == REST else entry.source,
        "at": terminal.iso(entry.created_at),
        "until": terminal.iso(entry.ends_at),
    }


def bring_in(
    tocsin: Wiring, chunks: Iterable[bytes], manner: Manner, result: Result, progress: Callable[[int], None]
) -> None:
    """Add every good row of a file, chunk by chunk, and count; what was added stays if it is interrupted."""
    sheet = read_sheet(chunks, is_header=lambda cells: _is_ours(cells) or _names_column(cells, manner))
    read = _ours(tocsin, sheet) if _is_ours(sheet.header) else _theirs(tocsin, sheet, manner)
    while rows := list(itertools.islice(read, _CHUNK)):
        entries = [one for one in rows if isinstance(one, Suppression)]
        added = tocsin.suppressions.add(entries)
        result.rows += len(rows)
        result.added += added
        result.known += len(entries) - added
        result.rejected.update(one.reason for one in rows if isinstance(one, Rejected))
        progress(result.rows)
    if _is_ours(sheet.header) and len(tocsin.keyring.lookup_keys.by_id) > 1:
        # Hashes of a key that is in use no more: whom we hold is held under another.
        tocsin.rotation(tocsin.keyring).run(lambda _renewed: None, everybody=True)


def _is_ours(header: Sequence[str]) -> bool:
    return _COLUMNS[0] in header


def _theirs(tocsin: Wiring, sheet: Sheet, manner: Manner) -> Iterator[Suppression | Rejected]:
    """Read the address column; whatever else the file says of a person, they are in it to be left alone."""
    place, now = _place(sheet.header, manner), tocsin.clock()
    for record in sheet.records:
        if isinstance(record, Rejected):
            yield record
            continue
        text = record.cells[place] if place < len(record.cells) else ""
        if manner.hashed:
            found = disguises.read(text)
            if found is None:
                yield Rejected(record.line, "hash", "this is no MD5, SHA-1 or SHA-256 in hexadecimal")
            else:
                key = tocsin.keyring.address_key(disguises.disguised(*found))
                yield Suppression(key, manner.scope, manner.reason, manner.source, now)
            continue
        try:
            _, address = addresses.parse_mailbox(text)
        except AddressError as error:
            yield Rejected(record.line, f"address-{error.reason}", error.message)
            continue
        forms = tocsin.keyring.address_keys(address)
        yield Suppression(forms[0], manner.scope, manner.reason, manner.source, now, forms=forms)


def _names_column(cells: Sequence[str], manner: Manner) -> bool:
    if manner.hashed:  # any row that holds no hash names the columns
        return not any(map(disguises.read, cells)) and any(map(str.strip, cells))
    return names_addresses(cells)


def _place(header: Sequence[str], manner: Manner) -> int:
    """Return where the addresses stand, or the hashes: in the first column that says so, else the first."""
    if not manner.hashed:
        return arrange(header or ("email",)).index["email"]
    told = (place for place, name in enumerate(header) if _HASHED.search(name.casefold()))
    return next(told, 0)


def _ours(tocsin: Wiring, sheet: Sheet) -> Iterator[Suppression | Rejected]:
    """Read an export of ours."""
    if missing := [name for name in _COLUMNS if name not in sheet.header]:
        raise WrongUse(f"this export lacks its column {missing[0]}", remedy="Export it anew.")
    scopes = {name: scope for scope, name in scope_names(tocsin).items()}
    places = [list(sheet.header).index(name) for name in _COLUMNS]
    ours = frozenset(tocsin.keyring.lookup_keys.by_id)
    for record in sheet.records:
        found = record if isinstance(record, Rejected) else _restored(record, places, scopes)
        if isinstance(found, Suppression) and found.address_key[0] not in ours:
            found = Rejected(record.line, "key", "it was made with a key that is not in our key ring")
        yield found


def _restored(record: Record, places: Sequence[int], scopes: Names) -> Suppression | Rejected:
    try:
        key, scope, reason, source, at = (record.cells[place] for place in places)
        found = Suppression(
            bytes.fromhex(key),
            _scope(scope, scopes),
            reason,
            source,
            dt.datetime.fromisoformat(at).timestamp(),
        )
    except KeyError:
        return Rejected(record.line, "list", "it is for a list that is not here")
    except (ValueError, IndexError):
        return Rejected(record.line, "export", "this is no line of an export")
    if len(found.address_key) != ADDRESS_KEY_BYTES or not reason:
        return Rejected(record.line, "export", "this is no line of an export")
    return found


def _scope(name: str, scopes: Names) -> str:
    """Return how the store has a scope; a topic is called the same everywhere."""
    return name if is_topic(name) else scopes[name]


def write_out(tocsin: Wiring, file: str, form: str = "") -> tuple[int, int]:
    """Write every entry to a file that only we may read, whole or not at all.

    Args:
        tocsin: the workspace.
        file: its path; - for standard output.
        form: how addresses are written, one of FORMS; "" for our keyed hashes.

    Returns:
        How many are written, and how many cannot be: of whom we hold no address.
    """
    if file == incoming.STANDARD_INPUT:
        return _write(tocsin, sys.stdout, form)
    path = Path(file)
    draft = path.with_name(f".{path.name}.new")
    try:
        with io.TextIOWrapper(coffer.begun(draft), encoding="utf-8", newline="") as stream:
            number = _write(tocsin, stream, form)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return number


def _write(tocsin: Wiring, stream: TextIO, form: str) -> tuple[int, int]:
    names = scope_names(tocsin)
    writer = csv.writer(stream)
    writer.writerow((_CALLED.get(form, form) or _COLUMNS[0], *_COLUMNS[1:]))
    number = unknown = 0
    entries = tocsin.suppressions.all()
    while some := list(itertools.islice(entries, _CHUNK)):
        known = (
            _known(tocsin, some, form) if form else {one.address_key: one.address_key.hex() for one in some}
        )
        for entry in some:
            if entry.address_key in known:
                told = facts(entry, names)
                writer.writerow((known[entry.address_key], *(told[name] for name in _COLUMNS[1:])))
                number += 1
            else:
                unknown += 1
    return number, unknown


def _known(tocsin: Wiring, entries: Sequence[Suppression], form: str) -> Mapping[bytes, str]:
    """Return addresses in this form by key, of those whom we hold."""
    found = {}
    for number, key, sealed in tocsin.people.records([one.address_key for one in entries]):
        with contextlib.suppress(SealError):
            address = Person.from_bytes(tocsin.keyring.open(number, sealed)).address
            found[key] = address.spec if form == FORMS[0] else disguises.plain(form, address.spec.lower())
    return found
