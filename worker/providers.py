"""Mailbox providers: whose mail system a domain is, and which well-known domain a slip was meant for.

Owns: the table of domains by provider, for pacing and reports, and the table of typing slips.

Refuses: the network (a business domain hosted by a provider counts as "other"), and repair: a suggestion
is for a person to decide.
"""

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Final

#: Everybody who is none of the large ones.
OTHER: Final = "other"

_COUNTRY_ENDS: Final = (
    "at be ca ch cl cn co.id co.il co.in co.jp co.kr co.nz co.th co.uk co.za com.ar com.au com.br com.cn "
    "com.co com.hk com.mx com.my com.pe com.ph com.sg com.tr com.tw com.ua com.ve com.vn cz de dk es fi fr "
    "gr hu ie in it jp lv nl no pl pt ro rs ru se sg sk"
)
#: (provider, names, ends): every name under every end belongs to the provider.
_FAMILIES: Final = (
    ("google", "gmail googlemail", "com"),
    ("microsoft", "hotmail live outlook", f"com {_COUNTRY_ENDS}"),
    ("microsoft", "msn passport windowslive", "com"),
    ("yahoo", "yahoo", f"com {_COUNTRY_ENDS}"),
    ("yahoo", "aol", "com at be co.uk de es fr in it jp nl pl se com.au com.br"),
    ("yahoo", "ymail rocketmail aim netscape", "com"),
    ("apple", "icloud me mac", "com"),
)
#: Well-known names long enough that a slip in one is hardly another real name.
_SLIPPERY: Final = (
    "gmail.com googlemail.com hotmail.com hotmail.co.uk hotmail.fr outlook.com yahoo.com yahoo.co.uk "
    "yahoo.fr icloud.com btinternet.com protonmail.com yandex.ru"
)
#: One slip away from a well-known name, and real all the same.
_REAL: Final = frozenset({"mail.com", "cloud.com", "email.com", "ymail.com", "gmal.com"})
#: Top levels that do not exist, and what was meant.
_ENDS_MEANT: Final[Mapping[str, str]] = MappingProxyType(
    dict.fromkeys(("con", "cmo", "ocm", "comm", "coom", "vom", "xom", "cim"), "com")
    | dict.fromkeys(("ogr", "rog", "orgg"), "org")
    | dict.fromkeys(("nte", "ent", "nett"), "net")
)


@cache
def _providers() -> Mapping[str, str]:
    return {
        f"{name}.{end}": owner
        for owner, names, ends in _FAMILIES
        for name in names.split()
        for end in ends.split()
    }


def provider(domain: str) -> str:
    """Whose mail system a lower-case domain is: google, microsoft, yahoo, apple or other."""
    return _providers().get(domain, OTHER)


@cache
def _slips() -> Mapping[str, str]:
    """Every single slip (two letters swapped, one left out, one doubled) in a well-known name."""
    slips = dict.fromkeys(("gmail.co", "gmail.cm", "gmail.om", "gmail.co.uk", "gmai.com"), "gmail.com")
    known = frozenset(_SLIPPERY.split())
    for domain in sorted(known):
        name, _, end = domain.partition(".")
        slips |= {f"{slip}.{end}": domain for slip in _slips_of(name)}
    real = known | _REAL | _providers().keys()
    return {slip: domain for slip, domain in slips.items() if slip not in real}


def _slips_of(name: str) -> set[str]:
    cuts = [(name[:i], name[i:]) for i in range(len(name))]
    left_out = {head + tail[1:] for head, tail in cuts}
    doubled = {head + tail[0] + tail for head, tail in cuts}
    swapped = {head + tail[1:2] + tail[0] + tail[2:] for head, tail in cuts}
    return left_out | doubled | swapped


def meant(domain: str) -> str | None:
    """The domain that was probably meant (gmial.com: gmail.com), or None where nothing looks wrong."""
    head, _, end = domain.rpartition(".")
    mended = f"{head}.{_ENDS_MEANT.get(end, end)}"
    likely = _slips().get(mended, mended)
    return None if likely == domain else likely
