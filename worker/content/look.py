"""The look: the templates, style sheets, tokens and words that turn an appeal into a mail's two parts.

Its files are the operator's own (`templates/look/`), rendered once per language and form. Refuses: files it
cannot read, and anything about a single person.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from jinja2 import (
    DictLoader,
    Environment,
    StrictUndefined,
    TemplateError,
    TemplateSyntaxError,
    select_autoescape,
)

from worker.content.plaintext import WIDTH, wrap
from worker.errors import WrongUse

#: What every look has.
NEEDED: Final = ("layout.html", "layout.txt", "look.toml", "words.toml")
_WORDS_OF_LAST_RESORT: Final = "en"
#: Languages written from right to left.
_RIGHT_TO_LEFT: Final = frozenset({"ar", "ckb", "dv", "fa", "he", "ks", "ps", "sd", "ug", "ur", "yi"})


@dataclass(frozen=True)
class Look:
    """The texts of a look's files, by name."""

    #: `layout.html`, `layout.txt`, `look.toml`, `words.toml`, and whatever the layouts include
    files: Mapping[str, str]


class LookError(WrongUse):
    """A file of the look is missing or wrong."""

    def __init__(self, message: str) -> None:
        """Take the sentence; the remedy is the same for all."""
        super().__init__(
            message, remedy="mend templates/look, or copy the file anew from a fresh `tocsin init`"
        )


class _Words(dict[str, str]):
    """What the look says in one language; a word that it lacks is a fault of the look."""

    def __missing__(self, key: str) -> str:
        raise LookError(f"words.toml: [{_WORDS_OF_LAST_RESORT}] has no {key}")


def direction(language: str) -> str:
    """Return the writing direction of a language, as HTML's dir has it."""
    return "rtl" if language.partition("-")[0] in _RIGHT_TO_LEFT else "ltr"


class Press:
    """A look made ready to render both layouts with any number of contexts."""

    def __init__(self, look: Look) -> None:
        """Take the look; LookError if a file is missing or cannot be read."""
        for name in NEEDED:
            if name not in look.files:
                raise LookError(f"the look has no {name}")
        self._look = look
        self._tokens = _toml(look, "look.toml")
        self._words = _toml(look, "words.toml")
        if _WORDS_OF_LAST_RESORT not in self._words:
            raise LookError(f"words.toml has no [{_WORDS_OF_LAST_RESORT}]")
        self._environment = Environment(
            loader=DictLoader(dict(look.files)),
            autoescape=select_autoescape(["html"], default=False),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters["wrap"] = partial(wrap, width=WIDTH)

    def texts(self) -> tuple[str, ...]:
        """Return every text of the look."""
        return tuple(self._look.files.values())

    def words(self, language: str) -> tuple[str, Mapping[str, str]]:
        """Return what the look says in a language, and in which it does: that, or English."""
        general = language.partition("-")[0]
        found = next((one for one in (language, general) if one in self._words), _WORDS_OF_LAST_RESORT)
        return found, _Words({**self._words[_WORDS_OF_LAST_RESORT], **self._words[found]})

    def render(self, name: str, language: str, context: Mapping[str, object]) -> str:
        """Render one layout; LookError names the file and line that fails."""
        left_to_right = direction(language) == "ltr"
        sides = {"start": "left", "end": "right"} if left_to_right else {"start": "right", "end": "left"}
        try:
            template = self._environment.get_template(name)
            return template.render(
                **self._tokens, **sides, **context, language=language, dir=direction(language), width=WIDTH
            )
        except TemplateSyntaxError as error:
            raise LookError(f"{error.name or name}:{error.lineno}: {error.message}") from error
        except TemplateError as error:
            raise LookError(f"{name}: {error}") from error


def _toml(look: Look, name: str) -> dict[str, Any]:
    try:
        return tomllib.loads(look.files[name])
    except tomllib.TOMLDecodeError as error:
        raise LookError(f"{name}: {error}") from error
