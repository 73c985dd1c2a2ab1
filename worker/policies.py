"""What a list asks of each consent before anybody on it is written to.

Pure. Owns the grounds that the law knows (PECR reg. 22, GDPR Art. 6 and 9) and what each needs beside a
source and a date, which every list asks for. Refuses: legal advice, and a policy looser than that.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Final

#: From when on details may have been collected under the charitable soft opt-in (PECR reg. 22(3A), in force
#: since 5 February 2026): it does not reach back to people who were not offered an opt-out.
CHARITY_SINCE: Final = 1_770_249_600.0


class Ground(StrEnum):
    """On what basis somebody may be written to."""

    CONSENT = "consent"
    #: PECR reg. 22(3): details got in a sale of ours; an opt-out was offered then.
    SOFT = "soft"
    #: PECR reg. 22(3A): a charity, details got while they expressed interest or gave support; an opt-out was
    #: offered then.
    CHARITY = "charity"
    #: Anything else that a file names.
    OTHER = "other"


#: Grounds that stand on an opt-out having been offered when the details were collected.
OFFERED: Final = (Ground.SOFT, Ground.CHARITY)


def ground(basis: str) -> str:
    """Return the ground that a file's word for it means; "" where it says nothing."""
    text = " ".join(basis.casefold().replace("-", " ").split())
    if not text:
        return ""
    if "soft" in text:
        return Ground.CHARITY if "charit" in text else Ground.SOFT
    told = ("consent", "einwilligung", "consentement", "consentimiento", "соглас", "موافقة", "double opt in")
    return Ground.CONSENT if any(word in text for word in told) else Ground.OTHER


@dataclass(frozen=True, slots=True)
class Policy:
    """What a list asks of each consent. The default: a basis, a source and a date."""

    grounds: tuple[str, ...] = ()  #: which are enough; none named: any
    confirmed: bool = False  #: by the person, from their mailbox (double opt-in)
    wording: bool = False  #: what they were shown is known
    offered: bool = False  #: that they were offered an opt-out then is known
    discreet: bool = False  #: whoever is written to by way of it gets the discreet form
    sign_up: bool = False  #: whether a form on the pages lets people ask to be on it
    special: bool = False  #: to be on this list tells of health, belief, politics, sexuality (GDPR Art. 9)

    @property
    def is_set(self) -> bool:
        """Tell whether anything is asked beyond the least; then soft opt-ins must be lawful ones."""
        return self != Policy(special=self.special, discreet=self.discreet, sign_up=self.sign_up)

    def to_json(self) -> str:
        """Return the stored form."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Policy":
        """Read what `to_json` wrote; "" is the default."""
        facts = json.loads(text) if text else {}
        return cls(**{**facts, "grounds": tuple(facts.get("grounds", ()))})


def told(policy: Policy) -> Iterable[str]:
    """Yield what a policy asks for, each in a few words."""
    yield f"basis: {' or '.join(policy.grounds)}" if policy.grounds else "any basis that is named"
    yield "a source and a date"
    if policy.is_set and (not policy.grounds or set(policy.grounds) & {*OFFERED}):
        yield "soft opt-ins: an opt-out was offered, and charitable ones are since 5 February 2026"
    if policy.wording:
        yield "the wording shown"
    if policy.offered:
        yield "an opt-out was offered"
    if policy.confirmed:
        yield "confirmed by the person (double opt-in)"
    if policy.discreet:
        yield "the discreet form for everybody"
    if policy.sign_up:
        yield "whoever signs up on the web confirms it from their mailbox"
    if policy.special:
        yield "special category: named nowhere outside the mail itself"
