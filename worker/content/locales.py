"""Dates and numbers as they are written in the reader's language, from Unicode's own tables (CLDR, by Babel).

Refuses: to guess. What is no date or number comes out as it went in, because a list's column holds "about
forty" as well as 40; and a number long enough to cost memory is none.
"""

import datetime as dt
import re
from decimal import Decimal
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, cast

from jinja2.exceptions import FilterArgumentError

if TYPE_CHECKING:
    from babel import Locale

_Form: TypeAlias = Literal["full", "long", "medium", "short"]
#: Ways to write a date, from "Monday, 30 November 2026" to "30/11/2026".
FORMS: Final = ("full", "long", "medium", "short")
_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_NUMBER: Final = re.compile(r"-?\d{1,15}(?:\.\d{1,6})?", re.ASCII)
#: English of no region is the world's: CLDR takes it for American, and 11/30 is no day to most readers.
_REGIONS: Final = MappingProxyType({"en": "en-001"})
#: Values remembered: an appeal's own are asked for again in every mail.
_KEPT: Final = 1024


def date(value: object, language: str, form: str = "long") -> str:
    """Write a day, given as in 2026-11-30, in a language; anything else stays as it is.

    Raises:
        FilterArgumentError: there is no such form.
    """
    if form not in FORMS:
        raise FilterArgumentError(f"date knows the forms {', '.join(FORMS)}, not {form}")
    return _date(str(value), language, form)


def number(value: object, language: str) -> str:
    """Write a number, given as in 1234.5, in a language; anything else stays as it is."""
    return _number(str(value), language)


def own_name(language: str) -> str:
    """Return what a language calls itself, to begin a line with; its tag where nobody knows."""
    locale = _locale(language)
    name = (locale and locale.get_language_name(language.partition("-")[0])) or language
    return name[:1].upper() + name[1:]


def amount(value: Decimal, currency: str, language: str) -> str:
    """Write a sum of money, its places only where it has some; of no currency, a number."""
    from babel.numbers import format_currency  # noqa: PLC0415 - only who writes a sum pays for Babel

    locale = _locale(language)
    if not currency or locale is None:
        return f"{number(value, language)} {currency}".strip()
    pattern = locale.currency_formats["standard"].pattern
    if locale.text_direction == "rtl":  # the code's letters keep together where a sign such as UK£ is torn
        pattern = pattern.replace("\u200f", "").replace("\u00a4", "\u00a4\u00a4")
    if value == value.to_integral_value():
        pattern = pattern.replace(".00", "")
    return format_currency(value, currency, pattern, locale, currency_digits=False)


def percent(share: int, language: str) -> str:
    """Write a share of a hundred."""
    from babel.numbers import format_percent  # noqa: PLC0415 - as above

    locale = _locale(language)
    return f"{share}%" if locale is None else format_percent(share / 100, locale=locale)


def is_currency(code: str) -> bool:
    """Tell whether ISO 4217 has a currency of this code."""
    from babel.numbers import is_currency as known  # noqa: PLC0415 - as above

    return known(code)


@lru_cache(maxsize=_KEPT)
def _date(text: str, language: str, form: str) -> str:
    from babel.dates import format_date  # noqa: PLC0415 - only who writes a date pays for Babel

    locale = _locale(language)
    if locale is None or not _DATE.fullmatch(text):
        return text
    try:
        day = dt.date.fromisoformat(text)
    except ValueError:
        return text
    return format_date(day, cast("_Form", form), locale)


@lru_cache(maxsize=_KEPT)
def _number(text: str, language: str) -> str:
    from babel.numbers import format_decimal  # noqa: PLC0415 - only who writes a number pays for Babel

    locale = _locale(language)
    if locale is None or not _NUMBER.fullmatch(text):
        return text
    # As many places as were written: 12.50 is an amount, and 12.5 would look wrong.
    places = len(text.partition(".")[2])
    whole = locale.decimal_formats[None].pattern.partition(".")[0]
    return format_decimal(Decimal(text), f"{whole}.{'0' * places}" if places else whole, locale)


@lru_cache(maxsize=64)
def _locale(language: str) -> "Locale | None":
    """Return what CLDR knows of a language; None for one that it does not."""
    from babel import Locale, UnknownLocaleError  # noqa: PLC0415 - as above

    for tag in (_REGIONS.get(language, language), language.partition("-")[0]):
        try:
            return Locale.parse(tag, sep="-")
        except (UnknownLocaleError, ValueError):
            continue
    return None
