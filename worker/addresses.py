"""Email addresses: checking one, its wire form, and the one form by which two are compared.

Owns: the refusal of every address that could split a header, hide a character or never be delivered; IDNA;
the canonical form that suppression and de-duplication rest on.

Refuses: the network (no DNS), silent repair (`providers` may suggest one), and printing an address:
neither an `Address` nor an `AddressError` shows one, so neither can leak through a log or a traceback.
"""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from email_validator import SPECIAL_USE_DOMAIN_NAMES, EmailNotValidError, validate_email

from worker.providers import meant, provider

__all__ = ["Address", "AddressError", "fold", "is_role", "parse", "parse_mailbox", "provider", "suggestion"]

#: RFC 5321 4.5.3.1.1, in octets.
_LOCAL_MOST: Final = 64
#: RFC 5321 4.5.3.1.3: a path of 256 octets less its angle brackets. It bounds the domain as well.
_SPEC_MOST: Final = 254
#: Longer text is no address and is not worth normalising (a cell may hold a megabyte).
_TEXT_MOST: Final = 1000

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]++"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
#: An ordinary address: all ASCII, dot-atom @ host name with an alphabetic top level. Nothing here backtracks.
_PLAIN = re.compile(rf"({_ATOM}(?:\.{_ATOM})*+)@((?:{_LABEL}\.)+[A-Za-z]{{2,63}})")
_DOT_ATOM = re.compile(rf"{_ATOM}(?:\.{_ATOM})*+")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"@(.*)', re.DOTALL)
#: What a local part may hold only inside quotes (RFC 5322 3.2.3 specials, and space).
_NEEDS_QUOTES = re.compile(r'[\s"(),:;<>@\[\]\\]|^\.|\.\.|\.$|^$')
_MAILBOX = re.compile(r'((?:"(?:[^"\\]|\\.)*"|[^<>"])*)<([^<>]*)>')
_ADDRESS_IN_NAME = re.compile(r"[^\s@]@[^\s@]")
#: Invisible, and not of category Cf: joiners, fillers and variation selectors.
_IGNORABLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
#: Padding around an address that means nothing; a line end is not among it.
_PADDING: Final = " \t\u00a0"

#: All that an address ever shows of itself.
_HIDDEN: Final = "‹address›"  # noqa: RUF001 - these marks cannot be mistaken for mail syntax, < and > can

_RESERVED: Final = frozenset(SPECIAL_USE_DOMAIN_NAMES)

#: RFC 2142 and the usual machines: nobody in particular reads these.
_ROLES: Final = frozenset(
    {
        "abuse",
        "admin",
        "do-not-reply",
        "donotreply",
        "hostmaster",
        "info",
        "mailer-daemon",
        "marketing",
        "news",
    }
    | {"no-reply", "noc", "noreply", "office", "postmaster", "root", "sales", "security", "support", "usenet"}
    | {"webmaster", "www"}
)

_WHY: Final[Mapping[str, str]] = MappingProxyType(
    {
        "brackets": "the angle brackets around the address do not match",
        "characters": "the part before the @ holds a character that is not allowed there",
        "control": "it holds a control character or a line break",
        "domain": "the part after the @ is not a domain name",
        "dot": "a dot stands first, last or twice in a row",
        "empty": "there is no address",
        "invisible": "it holds an invisible or text-direction character",
        "length": "it is longer than an address may be",
        "literal": "an IP address stands where the domain name belongs",
        "lookalike": "it holds a character that only looks like a plain letter or sign",
        "mailto": "it is a mailto: link, not an address",
        "no-at": "there is no @ in it",
        "no-dot": "the part after the @ has no dot",
        "no-local": "nothing stands before the @",
        "quoted": "the part before the @ works only in quotes, which few mail systems take",
        "reserved": "the domain is reserved and receives no mail",
        "several": "there is more than one address",
        "space": "there is a space in it",
        "unicode": "the part before the @ holds a character that is not allowed there",
    }
)


class AddressError(ValueError):
    """Why a text is no usable address, in words that do not repeat it.

    Attributes:
        reason: a stable slug for counting and tests, a key of the table above.
        message: the sentence for people.
    """

    def __init__(self, reason: str) -> None:
        """Take the slug; the sentence follows from it."""
        self.reason = reason
        self.message = _WHY[reason]
        super().__init__(self.message)

    def __reduce__(self) -> tuple[type["AddressError"], tuple[str]]:
        """Rebuild from the slug, so that the error crosses a process boundary."""
        return type(self), (self.reason,)


@dataclass(frozen=True, slots=True, repr=False)
class Address:
    """A checked email address that does not show itself: ask for `spec` where it must be written out."""

    #: What goes on the wire: local part as typed (NFC), domain as lower-case A-labels.
    spec: str
    #: What is compared: the case-folded local part @ the same domain. No +tag or dot is stripped: that would
    #: be another address.
    canonical: str

    @property
    def domain(self) -> str:
        """The domain as lower-case A-labels."""
        return self.spec.rpartition("@")[2]

    @property
    def needs_smtputf8(self) -> bool:
        """Whether the local part is not ASCII, so that only a relay with SMTPUTF8 (RFC 6531) can take it."""
        return not self.spec.isascii()

    def __repr__(self) -> str:
        return _HIDDEN

    def __str__(self) -> str:
        return _HIDDEN

    def __format__(self, _spec: str) -> str:
        return _HIDDEN


def parse(text: str) -> Address:
    """Check one bare address; spaces around it are ignored, anything else odd raises AddressError."""
    plain = _PLAIN.fullmatch(text)
    if plain is None:
        return _unusual(text.strip(_PADDING))
    local, domain = plain.groups()
    domain = domain.lower()
    # "--" in third place is Punycode or reserved (RFC 5891 4.2.3.1): a matter for the library.
    if len(local) > _LOCAL_MOST or len(text) > _SPEC_MOST or "--" in domain:
        return _unusual(text)
    if domain.rpartition(".")[2] in _RESERVED:
        raise AddressError("reserved")
    return _address(local, domain)


def parse_mailbox(text: str) -> tuple[str, Address]:
    """Check `Name <a@b.org>` or `a@b.org`; the name comes without its quotes, "" where there is none.

    A name that repeats the address is dropped; one that holds another address is refused as "several".
    """
    if "<" not in text and ">" not in text:
        return "", parse(text)
    if _holds_control(text):
        raise AddressError("control")
    found = _MAILBOX.fullmatch(text.strip(_PADDING)) if len(text) <= _TEXT_MOST else None
    if found is None:
        raise AddressError("several" if text.count("@") > 1 else "brackets")
    address = parse(found[2])
    name = _unquoted(found[1].strip(_PADDING))
    if not _ADDRESS_IN_NAME.search(name):
        return name, address
    if name.strip("'").casefold() in {found[2].strip(_PADDING).casefold(), address.canonical}:
        return "", address
    raise AddressError("several")


def fold(local: str) -> str:
    """The compared form of a local part; folding twice changes nothing.

    Full Unicode case folding, not lower(): it joins ß with ss and both Greek sigmas, and keeps the dotless
    and the dotted Turkish i apart from each other and from the ASCII one.
    """
    folded = unicodedata.normalize("NFD", local).casefold()
    return unicodedata.normalize("NFC", folded)


def _address(local: str, domain: str) -> Address:
    folded = local.lower() if local.isascii() else fold(local)
    return Address(f"{local}@{domain}", f"{folded}@{domain}")


def _unusual(text: str) -> Address:
    """The slow road: say why not, or accept what is international, Punycode or needlessly quoted."""
    _refuse_hidden(text)
    if text.startswith('"'):
        return _quoted(text)
    _refuse_shape(text)
    local, domain = text.split("@")
    local = unicodedata.normalize("NFC", local)
    _refuse_length(local, domain)
    _refuse_domain_shape(domain)
    _check_local(local)
    host = _host(domain)
    _refuse_length(local, host)
    return _address(local, host)


def _quoted(text: str) -> Address:
    """Take `"anna"@x.org`, the same as anna@x.org (RFC 5321 4.1.2); refuse what the quotes are needed for."""
    found = _QUOTED.fullmatch(text)
    if found is None:
        raise AddressError("characters" if "@" in text else "no-at")
    local = re.sub(r"\\(.)", r"\1", found[1])
    if _NEEDS_QUOTES.search(local):
        raise AddressError("quoted")
    return parse(f"{local}@{found[2]}")


def _refuse_hidden(text: str) -> None:
    """Refuse what a reader would not see, or would take for something else."""
    if not text:
        raise AddressError("empty")
    if len(text) > _TEXT_MOST:
        raise AddressError("length")
    if _holds_control(text):
        raise AddressError("control")
    if text.isascii():
        return
    if _IGNORABLE.search(text) or any(unicodedata.category(c) in {"Cf", "Cs", "Co"} for c in text):
        raise AddressError("invisible")
    if any(_is_lookalike(c) for c in text):
        raise AddressError("lookalike")


def _is_lookalike(char: str) -> bool:
    """Whether a non-ASCII character becomes ASCII under NFKC: fullwidth, mathematical, the Kelvin sign."""
    return not char.isascii() and not char.isspace() and unicodedata.normalize("NFKC", char).isascii()


def _holds_control(text: str) -> bool:
    return not text.isprintable() and any(unicodedata.category(c) in {"Cc", "Zl", "Zp"} for c in text)


def _refuse_shape(text: str) -> None:
    """Name what is wrong with the text as a whole."""
    if text[:7].lower() == "mailto:":
        raise AddressError("mailto")
    if "@" not in text:
        raise AddressError("no-at")
    if text.count("@") > 1 or "," in text or ";" in text:
        raise AddressError("several")
    if "<" in text or ">" in text:
        raise AddressError("brackets")
    if any(c.isspace() for c in text):
        raise AddressError("space")


def _refuse_length(local: str, domain: str) -> None:
    """Count octets; a domain only grows when it becomes A-labels, so it is counted again after that."""
    octets = len(local.encode())
    if octets > _LOCAL_MOST or octets + 1 + len(domain) > _SPEC_MOST:
        raise AddressError("length")


def _refuse_domain_shape(domain: str) -> None:
    if domain.startswith("["):
        raise AddressError("literal")
    if domain.startswith(".") or domain.endswith(".") or ".." in domain:
        raise AddressError("dot")
    if not domain:
        raise AddressError("domain")
    if domain.isascii() and "." not in domain:
        raise AddressError("no-dot")


def _check_local(local: str) -> None:
    if not local:
        raise AddressError("no-local")
    if _DOT_ATOM.fullmatch(local):
        return
    if local.startswith(".") or local.endswith(".") or ".." in local:
        raise AddressError("dot")
    try:
        # A domain known to be good, so that the verdict is about the local part alone.
        validate_email(f"{local}@example.org", check_deliverability=False, strict=True)
    except EmailNotValidError as error:
        raise AddressError("characters" if local.isascii() else "unicode") from error


def _host(domain: str) -> str:
    """The lower-case A-labels of a domain as typed (UTS 46 non-transitional: faß.de is not fass.de)."""
    host = _idna(domain)
    if host is None:
        raise AddressError("domain")
    if host.rpartition(".")[2] in _RESERVED:
        raise AddressError("reserved")
    return host


@lru_cache(maxsize=4096)
def _idna(domain: str) -> str | None:
    if domain.rpartition(".")[2].lower() in _RESERVED:
        return domain.lower()
    try:
        return validate_email(f"a@{domain}", check_deliverability=False, strict=True).ascii_domain
    except EmailNotValidError:
        return None


def _unquoted(name: str) -> str:
    if len(name) > 1 and name[0] == name[-1] == '"':
        name = re.sub(r"\\(.)", r"\1", name[1:-1])
    return name.strip()


def is_role(address: Address) -> bool:
    """Whether an office or a machine reads it (RFC 2142, no-reply) rather than a person: worth a warning."""
    return address.canonical.rpartition("@")[0] in _ROLES


def suggestion(address: Address) -> str | None:
    """The domain that was probably meant (gmial.com: gmail.com), for a person to decide; never applied."""
    return meant(address.domain)
