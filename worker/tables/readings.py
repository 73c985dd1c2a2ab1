"""Readings: what the text of a cell says, as yes or no, a language, a moment.

Owns: the words people use for these in the languages that lists come in.

Refuses: guessing. A "maybe" is neither yes nor no, and a date whose day and month could change places is
read only by someone who was told their order.
"""

import re
import unicodedata
from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final

_YES: Final = "yes y true t 1 x on ja j oui o si sí sim s tak da да д так evet hai ✓ ✔ 是 はい 예 نعم כן"
_NO: Final = "no n none false f 0 - off nein non não nie nej nee ei нет ні hay\u0131r いいえ 否 아니오 لا לא"
_ANSWERS: Final[Mapping[str, bool]] = MappingProxyType(
    dict.fromkeys(_YES.split(), True) | dict.fromkeys(_NO.split(), False)
)
#: Words in a status column of people who must not be written to.
_GONE: Final = (
    "unsubscribed cleaned bounced complained complaint spam blocked blacklisted suppressed removed deleted "
    "deceased withdrawn revoked unconfirmed pending optedout optout abgemeldet ausgetragen gesperrt "
    "désinscrit désabonné baja disiscritto wypisany отписан отписался отписана відписано умер"
)
_GONE_WORDS: Final = frozenset(_GONE.split())

_LANGUAGE_CODE = re.compile(r"([a-z]{2,3}(?:[-_][a-z0-9]{2,8})*)(?:\.[a-z0-9-]*)?", re.ASCII)
_LANGUAGES: Final[Mapping[str, str]] = MappingProxyType(
    {
        name: code
        for code, names in (
            ("ar", "arabic arabisch arabe العربية арабский"),
            ("cs", "czech tschechisch čeština чешский"),
            ("de", "german deutsch allemand alemán tedesco немецкий"),
            ("en", "english englisch anglais inglés inglese английский англійська"),
            ("es", "spanish spanisch espagnol español castellano испанский"),
            ("fr", "french französisch français francés francese французский"),
            ("it", "italian italienisch italien italiano итальянский"),
            ("nl", "dutch niederländisch nederlands нидерландский"),
            ("pl", "polish polnisch polonais polski польский"),
            ("pt", "portuguese portugiesisch portugais português португальский"),
            ("ru", "russian russisch russe ruso russo русский російська"),
            ("tr", "turkish türkisch turc türkçe турецкий"),
            ("uk", "ukrainian ukrainisch ukrainien українська украинский"),
        )
        for name in names.split()
    }
)

_MONTH_NAMES: Final = "january february march april may june july august september october november december"
_MONTHS: Final = tuple(_MONTH_NAMES.split())
_TIME = r"(?:[ T,]+(\d{1,2}:\d{2}(?::\d{2})?)(?:\.\d+)?(?: ?([ap])\.?m\.?)?(?: ?(?:Z|UTC|GMT))?)?"
_YEAR_FIRST = re.compile(rf"(\d{{4}})([-./])(\d{{1,2}})\2(\d{{1,2}}){_TIME}", re.ASCII | re.IGNORECASE)
_YEAR_LAST = re.compile(rf"(\d{{1,2}})([-./])(\d{{1,2}})\2(\d{{4}}){_TIME}", re.ASCII | re.IGNORECASE)
_DAY_MONTH = re.compile(
    rf"(\d{{1,2}})(?:st|nd|rd|th|\.)?[ -]([a-z]+)\.?,?[ -](\d{{4}}){_TIME}", re.ASCII | re.IGNORECASE
)
_MONTH_DAY = re.compile(
    rf"([a-z]+)\.? (\d{{1,2}})(?:st|nd|rd|th)?,? (\d{{4}}){_TIME}", re.ASCII | re.IGNORECASE
)
_SHORTEST_MONTH: Final = 3
#: Nobody consented to an email before; what comes out earlier is a slip of the keyboard.
_EARLIEST: Final = 1980


class UnclearError(ValueError):
    """A cell that says nothing we can act on, in a sentence that does not repeat it."""


def yes(text: str) -> bool | None:
    """Whether a cell says yes or no; None where it says neither."""
    return _ANSWERS.get(_word(text))


def gone(status: str) -> bool:
    """Whether a status says that the person left or cannot be reached."""
    return "".join(filter(str.isalnum, _word(status))) in _GONE_WORDS


def language(text: str) -> str:
    """A language as a lower-case code: `EN`, `en_GB.UTF-8` and `English` are `en`, `en-gb` and `en`.

    Raises:
        UnclearError: no language is recognised.
    """
    word = _word(text)
    if word in _LANGUAGES:
        return _LANGUAGES[word]
    if code := _LANGUAGE_CODE.fullmatch(word):
        return code[1].replace("_", "-")
    raise UnclearError("the language is not one we know: write a code such as en or ru")


def moment(text: str, *, day_first: bool | None = None) -> datetime:
    """A date, with or without a time, in UTC; without a zone it is taken as UTC.

    Raises:
        UnclearError: it is no date, or day and month could change places and `day_first` does not say.
    """
    try:
        found = _iso(text.strip()) or _written(text.strip(), day_first=day_first)
    except (ValueError, OverflowError) as error:
        if isinstance(error, UnclearError):
            raise
        raise UnclearError("the date does not exist") from error
    if found is None or found.year < _EARLIEST:
        raise UnclearError("the date cannot be read: write it as 2026-12-31")
    return found


def _word(text: str) -> str:
    return unicodedata.normalize("NFKC", text).strip().casefold()


def _iso(text: str) -> datetime | None:
    # Digits alone are a count of something (Excel counts days, Unix seconds) as likely as a date.
    if not text.isascii() or "-" not in text[4:]:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def _written(text: str, *, day_first: bool | None) -> datetime | None:
    """Read the forms that people and spreadsheets write; None if it is none of them."""
    if found := _YEAR_FIRST.fullmatch(text):
        return _at(int(found[1]), int(found[3]), int(found[4]), found[5], found[6])
    if found := _YEAR_LAST.fullmatch(text):
        month, day = _order(int(found[1]), int(found[3]), day_first=day_first)
        return _at(int(found[4]), month, day, found[5], found[6])
    if found := _DAY_MONTH.fullmatch(text):
        return _at(int(found[3]), _month(found[2]), int(found[1]), found[4], found[5])
    if found := _MONTH_DAY.fullmatch(text):
        return _at(int(found[3]), _month(found[1]), int(found[2]), found[4], found[5])
    return None


def _order(one: int, other: int, *, day_first: bool | None) -> tuple[int, int]:
    """Tell month and day apart: by being told, by a day past 12, or by being the same."""
    if one > len(_MONTHS) or (day_first and other <= len(_MONTHS)):
        return other, one
    if other > len(_MONTHS) or one == other or day_first is False:
        return one, other
    raise UnclearError("day and month of the date could change places: write it as 2026-12-31")


def _month(name: str) -> int:
    if len(name) < _SHORTEST_MONTH:
        raise ValueError(name)
    return [month.startswith(name.lower()) for month in _MONTHS].index(True) + 1


def _at(year: int, month: int, day: int, clock: str | None, half: str | None) -> datetime:
    hour, minute, second = [*map(int, (clock or "0:0").split(":")), 0][:3]
    if half:
        hour = hour % 12 + (12 if half.lower() == "p" else 0)
    return datetime(year, month, day, hour, minute, second, tzinfo=UTC)
