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
from dataclasses import dataclass, field
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
#: Length of an address key: 128 bits of HMAC-SHA-256.
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
# Never delete a key here: an old key still opens old records, finds old suppressions and reads old links.
"""
_REMEDY: Final = "Restore the secret file from your copy; do not make a new one over it."


class SealError(Refused):
    """A sealed record does not open: altered, moved from another person, or sealed under a key we lack."""


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

    def newest_first(self) -> tuple[bytes, ...]:
        """Return the current key, then the others by falling id."""
        others = sorted(self.by_id.keys() - {self.current}, reverse=True)
        return tuple(self.by_id[key_id] for key_id in (self.current, *others))


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
    _ciphers: Mapping[int, AESGCM] = field(init=False)
    _lookups: tuple[bytes, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Build the ciphers once: making one costs more than opening a record with it."""
        ciphers = {key_id: AESGCM(key) for key_id, key in self.seal_keys.by_id.items()}
        object.__setattr__(self, "_ciphers", ciphers)
        object.__setattr__(self, "_lookups", self.lookup_keys.newest_first())

    def __repr__(self) -> str:
        """Show no key."""
        return "Keyring(…)"

    @classmethod
    def generate(cls, random: Callable[[int], bytes]) -> "Keyring":
        """Make a new keyring; `random` gives that many unpredictable bytes (`secrets.token_bytes`)."""
        return cls(*(Keys(current=1, by_id={1: random(KEY_BYTES)}) for _ in _PURPOSES))

    @classmethod
    def load(cls, text: str) -> "Keyring":
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
        every = [key for family in families for key in family.by_id.values()]
        if len(set(every)) != len(every):
            raise WrongUse("the secret file holds the same key twice", remedy=_REMEDY)
        return cls(*families)

    def dump(self) -> str:
        """Return the text of the secret file, to be written with mode 0600."""
        families = zip(_PURPOSES, (self.seal_keys, self.lookup_keys, self.mark_keys), strict=True)
        return "\n".join([f"{_HEADING}\nversion = {_FORMAT}\n", *(_section(*each) for each in families)])

    def marks(self) -> Marks:
        """Return the writer and reader of the marks that leave in mails."""
        current, *older = self.mark_keys.newest_first()
        return Marks(current, older)

    def address_key(self, address: Address) -> bytes:
        """Return the 16 bytes under which this address is stored and looked up."""
        return _hashed(self._lookups[0], address)

    def address_keys(self, address: Address) -> tuple[bytes, ...]:
        """Return the address's key under every look-up key held, the current one first.

        A suppression outlives the person it came from, so it can never be hashed anew: after a rotation it is
        still found under the key of its day.
        """
        return tuple(_hashed(key, address) for key in self._lookups)

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
        return int.from_bytes(key[:8], "big", signed=True)

    def network_key(self, network: str) -> bytes:
        """Return the 16 bytes under which the web pages count what comes from a network."""
        return self.address_key(Address("", f"network {network}"))

    def fingerprints(self) -> tuple[bytes, ...]:
        """Return a mark of each look-up key held, the current one first, that gives none of them away."""
        return tuple(hmac.digest(key, _FINGERPRINT, "sha256")[:ADDRESS_KEY_BYTES] for key in self._lookups)

    def seal(self, person_id: int, record: bytes, nonce: bytes) -> bytes:
        """Encrypt a record for this person; `nonce` is 12 fresh random bytes, never used twice."""
        if len(nonce) != NONCE_BYTES:
            raise ValueError("a nonce is 12 bytes")
        key_id = self.seal_keys.current
        sealed = self._ciphers[key_id].encrypt(nonce, record, _ABOUT + person_id.to_bytes(8, "big"))
        return bytes((key_id,)) + nonce + sealed

    def open(self, person_id: int, sealed: bytes) -> bytes:
        """Decrypt the record of this person; SealError if it is not exactly what was sealed for them."""
        cipher = self._ciphers.get(sealed[0]) if sealed else None
        if cipher is None or len(sealed) <= NONCE_BYTES + _TAG_BYTES:
            raise SealError(f"the record of person {person_id} was sealed with a key we lack", remedy=_REMEDY)
        try:
            return cipher.decrypt(sealed[1:13], sealed[13:], _ABOUT + person_id.to_bytes(8, "big"))
        except InvalidTag as error:
            raise SealError(
                f"the record of person {person_id} does not open: it was altered or moved",
                remedy="Restore that record from a backup, or import the person again.",
            ) from error

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


def _hashed(key: bytes, address: Address) -> bytes:
    """Return the truncated HMAC of the canonical address."""
    return hmac.digest(key, address.canonical.encode(), "sha256")[:ADDRESS_KEY_BYTES]


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
