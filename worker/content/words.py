"""What Tocsin itself says to a reader, in each language: gettext catalogues, read by Babel and held whole.

A catalogue is `<language>.po`. Its msgctxt is the name that a template asks for (`mail.opt_out`), msgid the
English that a translator sees, msgstr what is said; English has one too, so that it can be corrected alike.
Refuses: a catalogue with a gap, a fuzzy entry or other placeholders than its msgid; and to let one language
stand in for another.
"""

import re
from collections.abc import Iterator, Mapping
from io import StringIO
from typing import TYPE_CHECKING, Final

from worker.errors import WrongUse

if TYPE_CHECKING:
    from babel.messages.catalog import Message

#: The language whose catalogue all others are measured by.
MEASURE: Final = "en"
_SUFFIX: Final = ".po"
#: Languages written from right to left.
_RIGHT_TO_LEFT: Final = frozenset({"ar", "ckb", "dv", "fa", "he", "ks", "ps", "sd", "ug", "ur", "yi"})
_PLACEHOLDER: Final = re.compile(r"%\((\w+)\)s")
#: Names told of one gap; they all come from one cause.
_MOST_TOLD: Final = 5


class CatalogueError(WrongUse):
    """A catalogue is missing, cannot be read, or is not whole."""

    def __init__(self, message: str) -> None:
        """Take the sentence; the remedy is the same for all."""
        super().__init__(
            message,
            remedy="mend templates/locale; a new language is a copy of en.po with every msgstr translated",
        )


def direction(language: str) -> str:
    """Return the writing direction of a language, as HTML's dir has it."""
    return "rtl" if language.partition("-")[0].lower() in _RIGHT_TO_LEFT else "ltr"


class Words(dict[str, str]):
    """What is said in one language, by name."""

    def __missing__(self, key: str) -> str:
        raise CatalogueError(f"no catalogue has {key}")

    def under(self, prefix: str) -> "Words":
        """Return the words whose names begin with a prefix and a dot, by the rest of their names."""
        start = f"{prefix}."
        return Words({name[len(start) :]: said for name, said in self.items() if name.startswith(start)})


class Catalogues:
    """The catalogues of a folder, each read when first asked for. Other files are not looked at."""

    def __init__(self, files: Mapping[str, str]) -> None:
        """Take texts by file name; CatalogueError when English, the measure of the others, is not there."""
        self._files = files
        self._names = {
            name.removesuffix(_SUFFIX).lower(): name.removesuffix(_SUFFIX)
            for name in sorted(files)
            if name.endswith(_SUFFIX)
        }
        self._read: dict[str, Words] = {}
        if MEASURE not in self._names:
            raise CatalogueError(f"{MEASURE}{_SUFFIX} is missing")

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages there are catalogues for."""
        return tuple(self._names.values())

    def match(self, tag: str) -> str:
        """Return the language that serves a reader's tag, its own or that without its region; "" for none."""
        lowered = tag.lower()
        return self._names.get(lowered) or self._names.get(lowered.partition("-")[0], "")

    def words(self, language: str) -> Words:
        """Return what is said in a language.

        Raises:
            CatalogueError: nothing is, or the catalogue is not whole.
        """
        found = self.match(language)
        if not found:
            file = f"locale/{language}{_SUFFIX}"
            raise CatalogueError(f"there is no catalogue for the language {language}: {file}")
        if found not in self._read:
            messages = _messages(f"{found}{_SUFFIX}", self._files[f"{found}{_SUFFIX}"])
            words = Words({str(each.context): str(each.string) for each in messages})
            if found != MEASURE:
                _compare(f"{found}{_SUFFIX}", words, self.words(MEASURE))
            self._read[found] = words
        return self._read[found]


def _messages(name: str, text: str) -> "list[Message]":
    """Read one catalogue; CatalogueError if Babel cannot, or an entry may not be used as it is."""
    # Imported where a catalogue is read: most commands need none, and Babel takes 20 ms.
    from babel.messages.pofile import PoFileError, read_po  # noqa: PLC0415 - see above

    try:
        messages = [each for each in read_po(StringIO(text), abort_invalid=True) if each.id]
    except (PoFileError, ValueError, LookupError, AttributeError, TypeError) as error:
        raise CatalogueError(f"{name} is no gettext catalogue: {' '.join(str(error).split())}") from error
    for each in messages:
        if fault := next(_faults(each), ""):
            raise CatalogueError(f"{name}:{each.lineno}: {each.context or each.id} {fault}")
    return messages


def _faults(message: "Message") -> Iterator[str]:
    if not message.context:
        yield "has no msgctxt"
    if not isinstance(message.string, str):
        yield "has plural forms, which nothing here asks for"
    elif not message.string.strip():
        yield "is not translated"
    elif _filled(message.string) != _filled(str(message.id)):
        yield "must fill in what its msgid does, and hold no other %"
    if message.fuzzy:
        yield 'is marked "fuzzy": look at it and take the mark out'


def _compare(name: str, words: Words, measure: Words) -> None:
    """Refuse a catalogue that lacks what English has, or has what English lacks."""
    if odd := sorted(words.keys() ^ measure.keys()):
        more = f" and {len(odd) - _MOST_TOLD} more" if len(odd) > _MOST_TOLD else ""
        raise CatalogueError(f"{name} lacks, or alone has: {', '.join(odd[:_MOST_TOLD])}{more}")


def _filled(text: str) -> tuple[frozenset[str], bool]:
    """Return what a text fills in, and whether it holds a per cent sign beside."""
    return frozenset(_PLACEHOLDER.findall(text)), "%" in _PLACEHOLDER.sub("", text)
