"""What we hold of a person, put into their own language for the page that shows it to them once.

Pure. Owns what each kind of fact is called there, and how days and answers are written. Refuses: to leave out
anything but what is empty, and to translate a value: what we hold stands there as we hold it.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

from worker.content.locales import date, own_name

#: One record: names and values, in order; and what it is a part of, with all of its kind.
Record: TypeAlias = Sequence[tuple[str, str]]
Part: TypeAlias = tuple[str, Sequence[Record]]

_MOMENT: Final = re.compile(r"(\d{4}-\d{2}-\d{2})T(\d{2}:\d{2}):\d{2}\+00:00", re.ASCII)
#: What stands before a fact's name in the catalogues.
_WORD: Final = "data_"


def tell(facts: Mapping[str, Any], words: Mapping[str, str], language: str) -> Sequence[Part]:
    """Return all facts by parts, as their reader calls and writes them.

    Args:
        facts: as they are exported: times in ISO 8601 and UTC, lists of records.
        words: what the pages say in a language.
        language: its tag.
    """
    teller = _Teller(words, language)
    return [teller.part(name, found) for name, found in facts.items() if found is not False]


class _Teller:
    """Writes facts in one language."""

    def __init__(self, words: Mapping[str, str], language: str) -> None:
        self._words = words
        self._language = language

    def part(self, name: str, found: Any) -> Part:  # noqa: ANN401 - whatever was exported
        """Return one part; of a lone fact, a part with no record."""
        records = [found] if isinstance(found, Mapping) else found if isinstance(found, list) else []
        return self._called(name), [list(self._lines(one)) for one in records]

    def _lines(self, record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        for name, value in record.items():
            if isinstance(
                value, Mapping
            ):  # the columns of a list, which are called as their owner calls them
                yield from ((own.replace("_", " "), str(text)) for own, text in value.items())
            elif text := self._written(name, value):
                yield self._called(name), text

    def _written(self, name: str, value: Any) -> str:  # noqa: ANN401 - whatever was exported
        if isinstance(value, list):
            return "; ".join(", ".join(self._written("", each) for each in one.values()) for one in value)
        if isinstance(value, bool):
            return self._words["data_yes" if value else "data_no"]
        text = "" if value is None else str(value)
        if moment := _MOMENT.fullmatch(text):
            return f"{date(moment[1], self._language)}, {moment[2]} UTC"
        return own_name(text) if name == "language" and text else text

    def _called(self, name: str) -> str:
        return self._words.get(_WORD + name) or name.replace("_", " ")
