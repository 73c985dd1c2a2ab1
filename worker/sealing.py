"""Personal fields to ciphertext and back, and the keyed hash by which an address is found again.

Owns the keyring (its secret file's text, its rotation-ready ids) and the sealed form of a person. Refuses to
show a key or a personal field in any repr or error, and to open a record under another person's number.
"""

import base64
import binascii
import hmac
import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from worker.addresses import Address
from worker.errors import Refused, WrongUse
from worker.tokens import Marks

#: Length of each key, in bytes (AES-256, and HMAC-SHA-256 keys of the same strength).
KEY_BYTES: Final = 32
#: Length of the random nonce that `Keyring.seal` takes.
NONCE_BYTES: Final = 12
#: Length of an address key: one byte that says which look-up key made it, then 120 bits of HMAC-SHA-256.
ADDRESS_KEY_BYTES: Final = 16

_FORMAT: Final = 1
_KEY_ID: Final = re.compile(r"[1-9][0-9]{0,2}")
_LARGEST_ID: Final = 255
_PURPOSES: Final = ("seal", "lookup", "mark")
_ABOUT: Final = b"tocsin person 1:"
_TAG_BYTES: Final = 16
# Not an address, so it is nobody's key.
_FINGERPRINT: Final = b"tocsin key ring 1"
# A record's length would tell a thief of the database how long a name and an address are; in steps of this
# many bytes it tells almost nothing, for a few bytes each.
_STEP: Final = 64
_HEADING: Final = """\
# The secret keys of this Tocsin workspace. Keep a copy apart from the database's backups, and show it to
# nobody: with both, every person on the lists can be read; without it, no list can be used again.
# Never delete a key here that `tocsin keys check` does not call free: an old key still opens old records,
# finds old suppressions and reads old links. "current" is for a new database; one that is there says itself
# which keys it uses, so that all machines change over at the same moment.
"""
_REMEDY: Final = "Restore the secret file from your copy; do not make a new one over it."
_COPY: Final = "Copy var/secret.toml here from the machine where `tocsin keys new` ran; nothing is lost."
#: A record whose key id is at most so far above ours was sealed with a newer key; further off, it is spoilt.
_NEWER: Final = 8


class SealError(Refused):
    """A sealed record does not open: altered, moved from another person, or sealed under a key we lack."""


class NewKeyError(SealError):
    """A record was sealed with a newer key than any of ours: the key ring on this machine is an old copy."""


@dataclass(frozen=True, slots=True, repr=False)
class Keys:
    """The keys of one purpose: one in use, the others kept for what was made with them."""

    #: Id of the key that new work uses.
    current: int
    #: Key by id; ids are 1 to 255.
    by_id: Mapping[int, bytes]

    def __repr__(self) -> str:
        """Show which ids are held, never a key."""
        return f"Keys(current={self.current}, ids={sorted(self.by_id)})"

    @property
    def newest(self) -> int:
        """Return the id of the last key that was made."""
        return max(self.by_id)

    def ids(self) -> tuple[int, ...]:
        """Return the current id, then the others, falling."""
        return (self.current, *sorted(self.by_id.keys() - {self.current}, reverse=True))

    def newest_first(self) -> tuple[bytes, ...]:
        """Return the current key, then the others by falling id."""
        return tuple(self.by_id[key_id] for key_id in self.ids())

    def using(self, key_id: int) -> "Keys":
        """Return the same keys with another in use; WrongUse when it is not among them."""
        if key_id not in self.by_id:
            raise WrongUse(f"the key ring here lacks key {key_id}, which the database uses", remedy=_COPY)
        return Keys(key_id, self.by_id)

    def and_one(self, key: bytes) -> "Keys":
        """Return the same keys and a new one that is not in use yet."""
        if self.newest == _LARGEST_ID:
            raise Refused(f"there are {_LARGEST_ID} keys already", remedy="No more can be told apart.")
        return Keys(self.current, {**self.by_id, self.newest + 1: key})


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Keyring:
    """Every secret key of a workspace, and what is done with them.

    A sealed record is one byte of key id, a 12-byte nonce, and the AES-256-GCM ciphertext with its tag; the
    person's number is bound in as associated data, so that a record copied onto another row does not open.
    """

    #: Keys that seal personal records.
    seal_keys: Keys
    #: Keys of the address hash; the older ones still find suppressions of people since erased.
    lookup_keys: Keys
    #: Keys of the marks that leave in mails; the older ones still read marks already out there.
    mark_keys: Keys
    #: Reads the secret file again, for a process that has run since before there was a new key.
    again: "Callable[[], Keyring] | None" = None
    _ciphers: dict[int, AESGCM] = field(init=False)
    _lookups: tuple[tuple[bytes, bytes], ...] = field(init=False)

    def __post_init__(self) -> None:
        """Build the ciphers once: making one costs more than opening a record with it."""
        ciphers = {key_id: AESGCM(key) for key_id, key in self.seal_keys.by_id.items()}
        object.__setattr__(self, "_ciphers", ciphers)
        ids = self.lookup_keys.ids()
        lookups = tuple((bytes((one,)), self.lookup_keys.by_id[one]) for one in ids)
        object.__setattr__(self, "_lookups", lookups)

    def __repr__(self) -> str:
        """Show no key."""
        return "Keyring(…)"

    @classmethod
    def generate(cls, random: Callable[[int], bytes]) -> "Keyring":
        """Make a new keyring; `random` gives that many unpredictable bytes (`secrets.token_bytes`)."""
        seal, lookup, mark = (Keys(current=1, by_id={1: random(KEY_BYTES)}) for _ in _PURPOSES)
        return cls(seal, lookup, mark)

    @classmethod
    def load(cls, text: str, again: "Callable[[], Keyring] | None" = None) -> "Keyring":
        """Read the secret file's text; WrongUse, naming no key, when it is not one."""
        try:
            table = tomllib.loads(text)
        except tomllib.TOMLDecodeError:
            # Not chained: the parser's message may quote the line, and the line may be a key.
            raise WrongUse("the secret file is not valid TOML", remedy=_REMEDY) from None
        if table.get("version") != _FORMAT or isinstance(table["version"], bool):
            raise WrongUse(f"the secret file is not of version {_FORMAT}", remedy=_REMEDY)
        if unknown := table.keys() - {"version", *_PURPOSES}:
            raise WrongUse(f"the secret file has {len(unknown)} unknown section(s)", remedy=_REMEDY)
        families = [_keys(purpose, table.get(purpose)) for purpose in _PURPOSES]
        seal, lookup, mark = families
        every = [key for family in families for key in family.by_id.values()]
        if len(set(every)) != len(every):
            raise WrongUse("the secret file holds the same key twice", remedy=_REMEDY)
        return cls(seal, lookup, mark, again)

    def dump(self) -> str:
        """Return the text of the secret file, to be written with mode 0600."""
        families = zip(_PURPOSES, (self.seal_keys, self.lookup_keys, self.mark_keys), strict=True)
        return "\n".join([f"{_HEADING}\nversion = {_FORMAT}\n", *(_section(*each) for each in families)])

    def with_new(self, random: Callable[[int], bytes]) -> "Keyring":
        """Return the ring with one more key to seal with and one more to look up with, neither in use.

        The keys of marks stay: what they say is a number, and a link that is out there must be read for good.
        """
        seal, lookup = random(KEY_BYTES), random(KEY_BYTES)
        return replace(
            self, seal_keys=self.seal_keys.and_one(seal), lookup_keys=self.lookup_keys.and_one(lookup)
        )

    def using(self, seal: int, lookup: int) -> "Keyring":
        """Return the ring with these keys in use, as a store says; WrongUse when it lacks one."""
        return replace(self, seal_keys=self.seal_keys.using(seal), lookup_keys=self.lookup_keys.using(lookup))

    def using_newest(self) -> "Keyring":
        """Return the ring with its newest keys in use."""
        return self.using(self.seal_keys.newest, self.lookup_keys.newest)

    def latest(self) -> "Keyring":
        """Return what the secret file holds now."""
        return self if self.again is None else self.again()

    def marks(self) -> Marks:
        """Return the writer and reader of the marks that leave in mails."""
        current, *older = self.mark_keys.newest_first()
        return Marks(current, older)

    def address_key(self, address: Address) -> bytes:
        """Return the 16 bytes under which this address is stored and looked up."""
        return _hashed(*self._lookups[0], address)

    def address_keys(self, address: Address) -> tuple[bytes, ...]:
        """Return the address's key under every look-up key held, the current one first.

        A suppression outlives the person it came from, so it can never be hashed anew: after a rotation it is
        still found under the key of its day.
        """
        return tuple(_hashed(*each, address) for each in self._lookups)

    def shape(self, person: "Person", rules: Sequence[int] = ()) -> int:
        """Return the number shared by those who can be told the same things (the schema's memberships).

        Args:
            person: somebody.
            rules: ids of the never-mail rules that they are under.
        """
        told = json.dumps([sorted(person.fields), person.language, person.discreet, *rules])
        # Hashed like an address, for a language and the discreet mark are nobody's business: whoever has the
        # store alone sees who is alike, not in what. No address begins like this.
        key = self.address_key(Address("", f"shape {told}"))
        return int.from_bytes(key[-8:], "big", signed=True)

    def network_key(self, network: str) -> bytes:
        """Return the 16 bytes under which the web pages count what comes from a network."""
        return self.address_key(Address("", f"network {network}"))

    def fingerprints(self) -> Mapping[int, bytes]:
        """Return by its id a mark of each look-up key held that does not give it away."""
        return {
            key_id: hmac.digest(key, _FINGERPRINT, "sha256")[:ADDRESS_KEY_BYTES]
            for key_id, key in self.lookup_keys.by_id.items()
        }

    def seal(self, person_id: int, record: bytes, nonce: bytes) -> bytes:
        """Encrypt a record for this person; `nonce` is 12 fresh random bytes, never used twice."""
        if len(nonce) != NONCE_BYTES:
            raise ValueError("a nonce is 12 bytes")
        key_id = self.seal_keys.current
        sealed = self._ciphers[key_id].encrypt(nonce, record, _ABOUT + person_id.to_bytes(8, "big"))
        return bytes((key_id,)) + nonce + sealed

    def open(self, person_id: int, sealed: bytes) -> bytes:
        """Decrypt the record of this person; SealError if it is not exactly what was sealed for them."""
        cipher = self._cipher(person_id, sealed[0]) if sealed else None
        if cipher is None or len(sealed) <= NONCE_BYTES + _TAG_BYTES:
            raise SealError(f"the record of person {person_id} was sealed with a key we lack", remedy=_REMEDY)
        try:
            return cipher.decrypt(sealed[1:13], sealed[13:], _ABOUT + person_id.to_bytes(8, "big"))
        except InvalidTag as error:
            raise SealError(
                f"the record of person {person_id} does not open: it was altered or moved",
                remedy="Restore that record from a backup, or import the person again.",
            ) from error

    def _cipher(self, person_id: int, key_id: int) -> AESGCM | None:
        """Return what opens records under this key; where we lack it, look into the secret file again."""
        if key_id not in self._ciphers and self.again is not None:
            for number, key in self.again().seal_keys.by_id.items():
                self._ciphers.setdefault(number, AESGCM(key))
        found, newest = self._ciphers.get(key_id), max(self._ciphers)
        if found is None and newest < key_id <= newest + _NEWER:
            raise NewKeyError(
                f"the record of person {person_id} was sealed with a key we lack: key {key_id}, newer than "
                "any in the key ring on this machine",
                remedy=_COPY,
            )
        return found

    def needs_resealing(self, sealed: bytes) -> bool:
        """Tell whether a record is under an older key than the current one."""
        return sealed[:1] != bytes((self.seal_keys.current,))


@dataclass(frozen=True, slots=True, repr=False)
class Person:
    """What we hold about someone, as it stands inside the sealed record."""

    #: Where to write.
    address: Address
    #: Cleaned attributes by name ("first_name", "town"); never the address.
    fields: Mapping[str, str]
    #: Language tag they asked for, or "".
    language: str = ""
    #: Whether they must not be seen to receive our mail.
    discreet: bool = False

    def __repr__(self) -> str:
        """Show nothing personal."""
        return "Person(…)"

    @property
    def name(self) -> str:
        """Return the name for the To header, or "" when none is known."""
        known = self.fields.get
        return known("name") or f"{known('first_name', '')} {known('last_name', '')}".strip()

    def updated(self, newer: "Person") -> "Person":
        """Return this person with what a newer record says; what it does not say stays.

        Discreet once is discreet: a list that knows nothing of it must not bring the open form to somebody
        who must not be seen to get it.
        """
        return Person(
            newer.address,
            {**self.fields, **newer.fields},
            newer.language or self.language,
            self.discreet or newer.discreet,
        )

    def to_bytes(self) -> bytes:
        """Return the record to seal: compact JSON, filled with spaces to a multiple of 64 bytes."""
        spec, canonical = self.address.spec, self.address.canonical
        record: dict[str, object] = {"a": spec}
        if canonical != spec:
            record["c"] = canonical
        if self.fields:
            record["f"] = dict(self.fields)
        if self.language:
            record["l"] = self.language
        if self.discreet:
            record["d"] = 1
        # "surrogatepass": half a character must not stop an import here; cleaning it is the importer's work.
        text = json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
        return text + b" " * (-len(text) % _STEP)

    @classmethod
    def from_bytes(cls, record: bytes) -> "Person":
        """Read what `to_bytes` wrote, once opened; SealError for anything else."""
        try:
            found = json.loads(record.decode("utf-8", "surrogatepass"))
            spec = found["a"]
            address = Address(spec, found.get("c", spec))
            return cls(address, found.get("f", {}), found.get("l", ""), "d" in found)
        except (ValueError, KeyError, TypeError, AttributeError):
            # Not chained: a decoder's error carries the whole text it failed on.
            raise SealError("an opened record is not a person's", remedy=_REMEDY) from None


def _hashed(key_id: bytes, key: bytes, address: Address) -> bytes:
    """Return the key's id and the truncated HMAC of the canonical address."""
    return key_id + hmac.digest(key, address.canonical.encode(), "sha256")[: ADDRESS_KEY_BYTES - 1]


def _section(purpose: str, family: Keys) -> str:
    """Return the lines of one purpose in the secret file."""
    lines = (f'{key_id} = "{base64.b64encode(key).decode()}"' for key_id, key in sorted(family.by_id.items()))
    return "\n".join((f"[{purpose}]", f"current = {family.current}", *lines, ""))


def _keys(purpose: str, section: object) -> Keys:
    """Check one purpose's section of the secret file."""
    if not isinstance(section, dict):
        raise WrongUse(f"the secret file has no [{purpose}] section", remedy=_REMEDY)
    by_id = dict(_entries(purpose, section))
    current = section.get("current")
    if not isinstance(current, int) or isinstance(current, bool) or current not in by_id:
        raise WrongUse(f"the secret file's current {purpose} key is not among its keys", remedy=_REMEDY)
    return Keys(current=current, by_id=by_id)


def _entries(purpose: str, section: Mapping[str, object]) -> Iterator[tuple[int, bytes]]:
    """Yield the id and the bytes of each key in a section."""
    for name, text in section.items():
        if name == "current":
            continue
        # The name is not repeated in the message: in a muddled file it may be the key itself.
        if _KEY_ID.fullmatch(name) is None or int(name) > _LARGEST_ID:
            raise WrongUse(f"a {purpose} key in the secret file has an id outside 1 to 255", remedy=_REMEDY)
        yield int(name), _key(purpose, int(name), text)


def _key(purpose: str, key_id: int, text: object) -> bytes:
    """Decode one key."""
    try:
        key = base64.b64decode(text, validate=True) if isinstance(text, str) else b""
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise WrongUse(f"{purpose} key {key_id} in the secret file is not 32 bytes of base64", remedy=_REMEDY)
    return key
