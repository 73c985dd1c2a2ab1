"""Addresses as other tools hash them for their suppression lists: plain MD5, SHA-1 or SHA-256, as hex digits.

Pure. Owns which hashes of an address may be meant. Refuses: to have one kept as it is, for anybody can try
addresses against a plain hash: it is hashed again, with our key, like an address.
"""

import hashlib
import re
from collections.abc import Collection, Iterator
from typing import Final

from worker.addresses import Address

#: Hexadecimal digits of each kind.
KINDS: Final = {"md5": 32, "sha1": 40, "sha256": 64}
_HEX: Final = re.compile(r"[0-9a-f]+")


def read(text: str) -> tuple[str, str] | None:
    """Return kind and digest of what another tool has written; None for anything else."""
    digest = text.strip().casefold()
    kind = next((kind for kind, length in KINDS.items() if len(digest) == length), None)
    return (kind, digest) if kind and _HEX.fullmatch(digest) else None


def disguised(kind: str, digest: str) -> Address:
    """Return what stands for an unknown address, to be hashed with our key. No address looks like this."""
    return Address("", f"{kind} {digest}")


def of(address: Address, kinds: Collection[str]) -> Iterator[Address]:
    """Yield all that may stand for an address: as typed, in lower case, and as we compare it."""
    for text in dict.fromkeys((address.spec, address.spec.lower(), address.canonical)):
        for kind in kinds:
            yield disguised(kind, plain(kind, text))


def plain(kind: str, text: str) -> str:
    """Return an address hashed as other tools do it."""
    return hashlib.new(kind, text.encode(), usedforsecurity=False).hexdigest()
