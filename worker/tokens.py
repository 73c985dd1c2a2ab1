"""The marks that leave in a mail and must come back authentic: opt-out links, return paths, Message-IDs.

Owns the text form of a mark: which delivery it names, for which purpose, and the proof that we wrote it; and
the vouchers that a page hands out to get back in a moment.
Refuses: to expire (RFC 8058 asks only for the post, not for haste), to say anything about a person, and to
tell a forged mark from a mistyped one.
"""

import base64
import math
import re
import struct
from collections.abc import Iterator, Sequence
from enum import Enum
from hashlib import blake2b
from hmac import compare_digest
from typing import Final, TypeAlias

#: A mark is 20 bytes, so 32 base32 letters with no bits to spare: no two texts decode to the same mark.
LENGTH: Final = 32

_ID_BYTES: Final = 8
_PROOF_BYTES: Final = 12
_FORMAT: Final = b"tocsin mark 1"
_LARGEST: Final = 2**63 - 1
_SHAPE: Final = re.compile(r"[A-Za-z2-7]{32}")
_LETTERS: Final = bytes.maketrans(bytes(range(32)), b"abcdefghijklmnopqrstuvwxyz234567")


def _spreading() -> Iterator[tuple[int, int]]:
    """Yield the steps that spread 160 bits over 32 bytes: in each, lanes are halved and upper halves move up.

    A step is the mask of the upper halves, and what to multiply them with before they are added.
    """
    for step in range(5):
        half, lane = 160 >> step + 1, 256 >> step
        upper = sum((1 << half) - 1 << half + lane * number for number in range(1 << step))
        yield upper, (1 << lane // 2 - half) - 1


_STEPS: Final = tuple(_spreading())


class Purpose(Enum):
    """What a mark may be used for; a mark made for one purpose is garbage for the others."""

    OPT_OUT = b"opt-out"
    BOUNCE = b"bounce"
    MESSAGE = b"message"
    VISIT = b"visit"
    COPY = b"copy"
    #: Of a notice, whose numbers are its own: the link in it, and all else of it that comes back.
    NOTICE = b"notice"
    NOTICE_MAIL = b"notified"
    PICTURE = b"picture"
    #: Of a list's sign-up form, whose address so gives no name away.
    SIGN_UP = b"sign-up"


#: The hashes that write proof and pad, ready with their key: copying one costs a fifth of keying it anew.
_Hashes: TypeAlias = tuple[blake2b, blake2b]


class Marks:
    """Writes and reads marks under one key, and still reads those written under the keys before it.

    A mark is a 96-bit proof, keyed BLAKE2b (RFC 7693) of the delivery id, followed by the id itself hidden
    under a keyed pad taken from that proof: without the key the marks of neighbouring deliveries show no
    order and no count. Marks are the same each time, so that a retried mail carries the very same links.
    """

    __slots__ = ("_hashes", "_vouching")

    def __init__(self, key: bytes, older: Sequence[bytes] = ()) -> None:
        """Prepare the hashes of each purpose; `older` keys only read."""
        self._hashes = {
            purpose: tuple(_hashes(each, purpose) for each in (key, *older)) for purpose in Purpose
        }
        self._vouching = tuple(
            blake2b(digest_size=_PROOF_BYTES, key=each, salt=_FORMAT, person=b"voucher")
            for each in (key, *older)
        )

    def mark(self, purpose: Purpose, delivery_id: int) -> str:
        """Return the 32 lower-case letters and digits that stand for `delivery_id`; id 0 is a test mail."""
        if not 0 <= delivery_id <= _LARGEST:
            raise ValueError("a delivery id is a whole number from 0 to 2^63-1")
        proving, padding = self._hashes[purpose][0]
        proof = _hashed(proving, delivery_id.to_bytes(_ID_BYTES, "big"))
        number = (int.from_bytes(proof, "big") << 64) | (delivery_id ^ _pad(padding, proof))
        return _text(number)

    def read(self, purpose: Purpose, text: str) -> int | None:
        """Return the delivery id of an authentic mark of this purpose, and None for anything else."""
        # The shape first: it bounds the work for hostile text and keeps non-ASCII look-alikes out, which
        # upper-casing would otherwise fold into the alphabet (dotless i, long s).
        if _SHAPE.fullmatch(text) is None:
            return None
        raw = base64.b32decode(text, casefold=True)
        proof, hidden = raw[:_PROOF_BYTES], int.from_bytes(raw[_PROOF_BYTES:], "big")
        found = None
        for proving, padding in self._hashes[purpose]:
            delivery_id = hidden ^ _pad(padding, proof)
            expected = _hashed(proving, delivery_id.to_bytes(_ID_BYTES, "big"))
            # Every key is tried whatever the others said, so the time tells nothing about which one fitted.
            if compare_digest(expected, proof):
                found = delivery_id
        return found

    def voucher(self, subject: str, at: float) -> str:
        """Return 32 letters and digits which prove that we said this at that moment (UTC seconds)."""
        moment = struct.pack(">d", at)
        proof = _hashed(self._vouching[0], moment + subject.encode())
        return _text(int.from_bytes(moment + proof, "big"))

    def vouched(self, subject: str, text: str) -> float | None:
        """Return the moment at which we said this; None if that is no voucher of ours for it."""
        if _SHAPE.fullmatch(text) is None:
            return None
        raw = base64.b32decode(text, casefold=True)
        moment, proof = raw[:_ID_BYTES], raw[_ID_BYTES:]
        proofs = [_hashed(each, moment + subject.encode()) for each in self._vouching]
        # All are compared, as in `read`.
        ours = sum(compare_digest(each, proof) for each in proofs)
        at: float = struct.unpack(">d", moment)[0]
        return at if ours and math.isfinite(at) else None


def _text(number: int) -> str:
    """Write 160 bits in base32, seven times as fast as the standard library: every mail has three marks."""
    for upper, factor in _STEPS:
        number += (number & upper) * factor
    return number.to_bytes(LENGTH, "big").translate(_LETTERS).decode("ascii")


def _hashes(key: bytes, purpose: Purpose) -> _Hashes:
    """Key the hashes of one purpose, so that a proof for one is noise for every other."""
    return (
        blake2b(digest_size=_PROOF_BYTES, key=key, salt=_FORMAT, person=b"proof:" + purpose.value),
        blake2b(digest_size=_ID_BYTES, key=key, salt=_FORMAT, person=b"pad:" + purpose.value),
    )


def _hashed(keyed: blake2b, data: bytes) -> bytes:
    one = keyed.copy()
    one.update(data)
    return one.digest()


def _pad(padding: blake2b, proof: bytes) -> int:
    """Return the 64-bit pad that hides the id next to this proof."""
    return int.from_bytes(_hashed(padding, proof), "big")
