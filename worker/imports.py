"""Bring a file of recipients onto a list: all of it or nothing, unless the good rows are asked for.

Owns the order of an import: read, hash, leave out who said no, merge with what is held, seal, stage, and make
members in one last transaction. Refuses: lifting a suppression, keeping a row it could not read, and
repeating a rejected row's content anywhere.
"""

import csv
import io
import itertools
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TextIO

from worker import coffer
from worker.addresses import provider
from worker.bars import first, under
from worker.deeds import Deed
from worker.errors import Refused
from worker.recognising import Recogniser
from worker.sealing import NONCE_BYTES, Keyring, Person
from worker.store.bars import Bars, Book
from worker.store.people import ConsentText, People
from worker.store.staging import Hashes, Held, Staged, Staging
from worker.store.suppressions import EVERYTHING, Suppressions, is_topic, list_scope
from worker.tables.lists import Consent, Rejected, Row

#: Rows per transaction: enough that a commit's cost vanishes, few enough that the queue is not held up.
CHUNK = 5_000
#: Person ids are taken in blocks; what is left of a block is never used, which harms nobody.
ID_BLOCK = 50_000
#: Consent texts and shapes remembered with their numbers.
_CONSENTS_KEPT = 10_000
_SHAPES_KEPT = 10_000


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
    barred: Counter[str] = field(default_factory=Counter)  #: people taken whom a never-mail rule keeps out
    no_to_topics: int = 0  #: people taken who said no to some topic; campaigns about it leave them out
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
        bars: Bars,
        keyring: Keyring,
        *,
        random: Callable[[int], bytes],
        clock: Callable[[], float],
    ) -> None:
        """Take the adapters, the keys, and what is neither pure nor ours: randomness and time."""
        self._people = people
        self._suppressions = suppressions
        self._bars = bars
        self._keyring = keyring
        self._random = random
        self._clock = clock
        self._consents: dict[ConsentText, int] = {}
        self._shapes: dict[tuple[frozenset[str], str, bool, tuple[int, ...]], int] = {}
        self._book = Book((), 0)
        self._recogniser = Recogniser(suppressions, bars, keyring)
        self._kinds: Collection[str] = ()  # of hashes by which other tools named whoever said no
        self._ids: Iterator[int] = iter(())
        self._earlier: dict[bytes, bytes] = {}  # hashes under which something stands, to those of today
        self._latest: Keyring | None = None

    def run(
        self,
        rows: Iterable[Row | Rejected],
        target: Target,
        rejects: "Rejects",
        progress: Progress,
        deed: Callable[[Result], Deed] | None = None,
    ) -> Result:
        """Import the rows; leave nothing behind on any error, Ctrl-C included.

        Args:
            rows: what the file holds.
            target: where they go.
            rejects: where bad rows are listed.
            progress: told how far it is.
            deed: asked, when every row is read, what to write in the audit log.

        Raises:
            Refused: rows were rejected and `accept_valid` was not given, or no row was usable.
        """
        result = Result()
        self._book, self._kinds = self._bars.book(), self._recogniser.kinds()
        self._shapes.clear()
        self._earlier, self._latest = {}, None
        # Each has so many hashes to be looked for.
        size = max(CHUNK // len(self._keyring.lookup_keys.by_id), 1)
        with self._people.begin_import() as aside:
            for chunk in _chunks(_kept(rows, rejects, result, progress), size):
                self._stage(aside, target.slug, chunk, result)
            result.rejects_file = rejects.file
            _decide(result, target)
            if not target.dry_run:
                result.new_people, result.new_members = aside.finish(
                    *(target.slug, target.title, self._clock(), self._mended),
                    None if deed is None else deed(result),
                    self._book.edition,
                    Hashes(self._forms, self._earlier),
                )
                result.kept = True
        return result

    def _stage(self, aside: Staging, slug: str, rows: Sequence[Row], result: Result) -> None:
        coming: dict[bytes, _Coming] = {}
        forms: dict[bytes, bytes] = {}  # every hash of an address, earlier hash keys' too, to today's
        for row in rows:
            keys = self._keyring.address_keys(row.address)
            key, one = keys[0], _Coming.of(row)
            coming[key] = coming[key].before(one) if key in coming else one
            for form in keys:
                forms[form] = key
        result.duplicates += len(rows) - len(coming)
        if self._kinds:
            self._recogniser.these((one.person.address for one in coming.values()), self._kinds)
        out, some = self._said_no(forms, slug)
        for key in out:
            del coming[key]
        result.suppressed += len(out)
        self._know_consents(list(coming.values()))
        earlier = aside.find(coming)
        result.no_to_topics += len(some - earlier.keys())
        # While hashes are changed, some are held under an earlier one still.
        held = {forms[key]: one for key, one in aside.held(forms).items()}
        if older := [form for form, key in forms.items() if form != key]:
            self._earlier.update({form: forms[form] for form, _ in self._suppressions.scopes(older)})
        result.duplicates += len(earlier)
        result.accepted += len(coming) - len(earlier)
        aside.add([self._staged(key, coming[key], held.get(key)) for key in coming if key not in earlier])
        for key in coming.keys() - earlier.keys() if self._book.bars else ():
            if bar := first(self._book.bars, coming[key].person):
                result.barred[bar.name] += 1
        aside.replace([self._joined(coming[key], one, held.get(key)) for key, one in earlier.items()])

    def _staged(self, key: bytes, one: "_Coming", held: Held | None) -> Staged:
        """Make what is put aside: a new person, or one whom we hold with what the file adds."""
        if held is None:
            person, number, version = one.person, self._next_id(), 0
            sealed: bytes | None = self._sealed(number, person)
        else:
            before = self._opened(held.id, held.sealed)
            person, number, version = before.updated(one.person), held.id, held.version
            sealed = None if person == before else self._sealed(number, person)
        return Staged(
            key,
            number,
            sealed,
            provider(person.address.domain),
            self._consents[one.text],
            one.consent.at.timestamp() if one.consent.at else None,
            version,
            self._shape(person),
            one.consent.confirmed_at.timestamp() if one.consent.confirmed_at else None,
        )

    def _joined(self, one: "_Coming", earlier: Staged, held: Held | None) -> Staged:
        """Let a further row of somebody fill the gaps of the one that is put aside; that one stands."""
        record = earlier.sealed or (held.sealed if held else None)
        if record is None:  # erased since; they do not come in
            return earlier
        before = self._opened(earlier.person_id, record)
        person = one.person.updated(before)
        if person == before:
            return earlier
        sealed = self._sealed(earlier.person_id, person)
        return earlier._replace(sealed=sealed, shape=self._shape(person))

    def _mended(self, ours: Staged, held: Held) -> Staged:
        """Merge with a record that another import has brought in since ours was made.

        What only one of them says is kept, the discreet mark above all; else the last one counts.
        """
        person = before = self._opened(held.id, held.sealed)
        if ours.sealed is not None:
            person = before.updated(self._opened(ours.person_id, ours.sealed))
        return ours._replace(
            person_id=held.id,
            sealed=self._sealed(held.id, person) if person != before else None,
            version=held.version,
            shape=self._shape(person),
        )

    def _forms(self, one: Staged) -> Sequence[bytes]:
        """Return every hash of somebody's address, by the secret file as it is now."""
        if self._latest is None:
            self._latest = self._keyring.latest()
        if one.sealed is None:
            return (one.address_key,)
        return self._latest.address_keys(self._opened(one.person_id, one.sealed).address)

    def _opened(self, number: int, sealed: bytes) -> Person:
        return Person.from_bytes(self._keyring.open(number, sealed))

    def _sealed(self, number: int, person: Person) -> bytes:
        return self._keyring.seal(number, person.to_bytes(), self._random(NONCE_BYTES))

    def _shape(self, person: Person) -> int:
        """Return the number shared by those who can be told the same things (the schema's memberships)."""
        rules = under(self._book.bars, person)
        what = frozenset(person.fields), person.language, person.discreet, rules
        if what not in self._shapes:
            if len(self._shapes) >= _SHAPES_KEPT:
                self._shapes.clear()
            self._shapes[what] = self._keyring.shape(person, rules)
            if rules:
                self._bars.know(self._shapes[what], rules)
        return self._shapes[what]

    def _said_no(self, forms: Mapping[bytes, bytes], slug: str) -> tuple[set[bytes], set[bytes]]:
        """Return the keys of those who said no to all this, and of those who said it to a topic only.

        Under whichever of their address's hashes.
        """
        scopes = [EVERYTHING, *(list_scope(each.id) for each in self._people.lists_named(slug))]
        standing = self._suppressions.scopes(list(forms))
        out = {forms[form] for form, scope in standing if scope in scopes}
        return out, {forms[form] for form, scope in standing if is_topic(scope)} - out

    def _next_id(self) -> int:
        number = next(self._ids, None)
        if number is None:
            first = self._people.new_ids(ID_BLOCK)
            self._ids = iter(range(first + 1, first + ID_BLOCK))
            return first
        return number

    def _know_consents(self, coming: Sequence["_Coming"]) -> None:
        """Have a number for every consent text among them, in one transaction."""
        unknown = dict.fromkeys(text for one in coming if (text := one.text) not in self._consents)
        if len(self._consents) > _CONSENTS_KEPT:  # a file with a source of its own in every row
            self._consents.clear()
            unknown = dict.fromkeys(one.text for one in coming)
        texts = list(unknown)
        if texts:
            self._consents.update(zip(texts, self._people.consent_ids(texts), strict=True))


@dataclass(frozen=True, slots=True)
class _Coming:
    """One person as a file gives them, perhaps in several rows."""

    person: Person
    consent: Consent

    @classmethod
    def of(cls, row: Row) -> "_Coming":
        return cls(Person(row.address, row.fields, row.language, row.discreet), row.consent)

    @property
    def text(self) -> ConsentText:
        """What the consent says, without its date."""
        said = self.consent.basis, self.consent.source, self.consent.wording
        return (*said, True) if self.consent.offered else said

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
            self._stream = io.TextIOWrapper(coffer.begun(self._path), encoding="utf-8", newline="")
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


def _chunks(rows: Iterator[Row], size: int) -> Iterator[list[Row]]:
    while chunk := list(itertools.islice(rows, size)):
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
