"""Bring a file of recipients onto a list: all of it or nothing, unless the good rows are asked for.

Owns the order of an import: read, hash, leave out who said no, seal, stage, and make members in one last
transaction. Refuses: lifting a suppression, keeping a row it could not read, and repeating a rejected row's
content anywhere.
"""

import csv
import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TextIO

from worker.addresses import provider
from worker.errors import Refused
from worker.sealing import NONCE_BYTES, Keyring, Person
from worker.store.people import People, Sealed, Staged
from worker.store.suppressions import EVERYTHING, Suppressions, list_scope
from worker.tables.lists import Consent, Rejected, Row

#: Rows per transaction: enough that a commit's cost vanishes, few enough that the queue is not held up.
CHUNK = 5_000
#: Person ids are taken in blocks; what is left of a block is never used, which harms nobody.
ID_BLOCK = 50_000
#: Consent texts remembered with their ids.
_CONSENTS_KEPT = 1_000


class Progress(Protocol):
    """Told how far the import is; the caller shows it."""

    def __call__(self, rows: int) -> None:
        """Take the number of rows read so far."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where the rows go and how strict to be."""

    slug: str
    title: str
    accept_valid: bool = False  #: take the good rows although some are rejected
    dry_run: bool = False  #: count everything, keep nothing


@dataclass(slots=True)
class Result:
    """What an import found and did."""

    rows: int = 0
    accepted: int = 0
    duplicates: int = 0  #: further rows of an address that the file holds already
    suppressed: int = 0  #: people who said no; left out and not told apart in any file
    rejected: Counter[str] = field(default_factory=Counter)  #: by reason
    new_people: int = 0
    new_members: int = 0
    rejects_file: Path | None = None
    kept: bool = False  #: whether anybody became a member


class Importer:
    """Imports files into lists."""

    def __init__(
        self,
        people: People,
        suppressions: Suppressions,
        keyring: Keyring,
        *,
        random: Callable[[int], bytes],
        clock: Callable[[], float],
    ) -> None:
        """Take the adapters, the keys, and what is neither pure nor ours: randomness and time."""
        self._people = people
        self._suppressions = suppressions
        self._keyring = keyring
        self._random = random
        self._clock = clock
        self._consents: dict[Consent, int] = {}
        self._ids: Iterator[int] = iter(())

    def run(
        self, rows: Iterable[Row | Rejected], target: Target, rejects: "Rejects", progress: Progress
    ) -> Result:
        """Import the rows; leave nothing behind on any error, Ctrl-C included.

        Raises:
            Refused: rows were rejected and `accept_valid` was not given, or no row was usable.
        """
        result = Result()
        import_id = self._people.begin_import(self._clock())
        try:
            for chunk in _chunks(_kept(rows, rejects, result, progress)):
                self._stage(import_id, target.slug, chunk, result)
            result.rejects_file = rejects.file
            _decide(result, target)
            if not target.dry_run:
                result.new_people, result.new_members = self._people.finish_import(
                    import_id, target.slug, target.title, self._clock()
                )
                result.kept = True
        finally:
            if not result.kept:
                self._people.abandon_import(import_id, self._clock())
        return result

    def _stage(self, import_id: int, slug: str, rows: Sequence[Row], result: Result) -> None:
        coming: dict[bytes, _Coming] = {}
        forms: dict[bytes, bytes] = {}  # every hash of an address, earlier hash keys' too, to today's
        for row in rows:
            keys = self._keyring.address_keys(row.address)
            one = _Coming.of(row)
            coming[keys[0]] = coming[keys[0]].before(one) if keys[0] in coming else one
            forms.update(dict.fromkeys(keys, keys[0]))
        result.duplicates += len(rows) - len(coming)
        for key in self._said_no(forms, slug):
            del coming[key]
            result.suppressed += 1
        aside = self._people.staged(import_id, list(coming))
        held = self._people.held([key for key in coming if key not in aside])
        result.duplicates += len(aside)
        result.accepted += len(coming) - len(aside)
        self._people.stage(import_id, list(self._sealed(coming, aside, held)))

    def _sealed(
        self, coming: Mapping[bytes, "_Coming"], aside: Mapping[bytes, Sealed], held: Mapping[bytes, Sealed]
    ) -> Iterator[Staged]:
        """Yield what is to be put aside: new people, and what is already held with what the file adds."""
        for key, one in coming.items():
            person, number = one.person, None
            if key in aside:  # an earlier row of this file: it stands, and this one fills its gaps
                number = aside[key].id
                earlier = self._opened(aside[key])
                person = person.updated(earlier)
                if person == earlier:
                    continue
            elif key in held:
                number = held[key].id
                person = self._opened(held[key]).updated(person)
            number = self._next_id() if number is None else number
            yield Staged(
                address_key=key,
                person_id=number,
                sealed=self._keyring.seal(number, person.to_bytes(), self._random(NONCE_BYTES)),
                provider=provider(person.address.domain),
                consent_id=self._consent_id(one.consent),
                consented_at=one.consent.at.timestamp() if one.consent.at else None,
            )

    def _opened(self, sealed: Sealed) -> Person:
        return Person.from_bytes(self._keyring.open(sealed.id, sealed.sealed))

    def _said_no(self, forms: Mapping[bytes, bytes], slug: str) -> set[bytes]:
        """Return the keys of those who said no, under whichever of their address's hashes."""
        scopes = [EVERYTHING, *(list_scope(each.id) for each in self._people.lists_named(slug))]
        return {forms[form] for form in self._suppressions.said_no(list(forms), scopes)}

    def _next_id(self) -> int:
        number = next(self._ids, None)
        if number is None:
            first = self._people.new_ids(ID_BLOCK)
            self._ids = iter(range(first + 1, first + ID_BLOCK))
            return first
        return number

    def _consent_id(self, consent: Consent) -> int:
        text = Consent(consent.basis, consent.source, consent.wording, None)
        if text not in self._consents:
            if len(self._consents) >= _CONSENTS_KEPT:  # a file with a source of its own in every row
                self._consents.clear()
            self._consents[text] = self._people.consent_id(text.basis, text.source, text.wording)
        return self._consents[text]


@dataclass(frozen=True, slots=True)
class _Coming:
    """One person as a file gives them, perhaps in several rows."""

    person: Person
    consent: Consent

    @classmethod
    def of(cls, row: Row) -> "_Coming":
        return cls(Person(row.address, row.fields, row.language, row.discreet), row.consent)

    def before(self, later: "_Coming") -> "_Coming":
        """Return both rows as one: the first stands, the later fills its gaps."""
        consent = self.consent if self.consent.basis else later.consent
        return _Coming(later.person.updated(self.person), consent)


class Rejects:
    """The file that lists rejected rows: line, reason, sentence; never the row itself (mode 0600)."""

    def __init__(self, path: Path) -> None:
        """Name the file; it is made when there is something to say."""
        self._path = path
        self._stream: TextIO | None = None

    @property
    def file(self) -> Path | None:
        """Return where the rejected rows are listed, or None when there is none."""
        return None if self._stream is None else self._path

    def add(self, row: Rejected) -> None:
        """List one row."""
        if self._stream is None:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            made = os.open(self._path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
            self._stream = os.fdopen(made, "w", encoding="utf-8", newline="")
            csv.writer(self._stream).writerow(("line", "reason", "message"))
        csv.writer(self._stream).writerow((row.line, row.reason, row.message))

    def close(self) -> None:
        """Finish the file."""
        if self._stream is not None:
            self._stream.close()


def _kept(
    rows: Iterable[Row | Rejected], rejects: Rejects, result: Result, progress: Progress
) -> Iterator[Row]:
    """Yield the good rows; list the others."""
    try:
        for row in rows:
            result.rows += 1
            if result.rows % 1000 == 0:
                progress(result.rows)
            if isinstance(row, Row):
                yield row
            else:
                result.rejected[row.reason] += 1
                rejects.add(row)
    finally:
        rejects.close()
    progress(result.rows)


def _chunks(rows: Iterator[Row]) -> Iterator[list[Row]]:
    while chunk := list(itertools.islice(rows, CHUNK)):
        yield chunk


def _decide(result: Result, target: Target) -> None:
    """Refuse what must not become members."""
    rejected = result.rejected.total()
    listed = f"See {result.rejects_file}" if result.rejects_file else "Check the file"
    if not result.accepted and not result.suppressed:
        raise Refused(
            f"no usable row: {result.rows} read, {rejected} rejected; nothing was imported",
            remedy=f"{listed}, mend it, and import again.",
        )
    if rejected and not target.accept_valid and not target.dry_run:
        raise Refused(
            f"{rejected} of {result.rows} rows were rejected; nothing was imported",
            remedy=f"{listed}; mend them, or take the good ones with --accept-valid.",
        )
