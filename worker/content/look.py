"""The look: the templates, style sheets and tokens that turn an appeal into a mail's two parts.

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
    pass_context,
    select_autoescape,
)
from jinja2.runtime import Context

from worker.content import locales
from worker.content.plaintext import WIDTH, wrap
from worker.content.words import Catalogues, Words, direction
from worker.errors import WrongUse

#: What every look has.
NEEDED: Final = ("layout.html", "layout.txt", "look.toml")
#: One macro, called with the facts of a block.
_BLOCK: Final = '{% import "blocks.html" as blocks with context %}{{ blocks[name](**facts) }}'


@dataclass(frozen=True)
class Look:
    """The texts of a look's files and of the catalogues of words, by name."""

    #: `layout.html`, `layout.txt`, `look.toml`, whatever the layouts include, `en.po` and the other languages
    files: Mapping[str, str]


class LookError(WrongUse):
    """A file of the look is missing or wrong."""

    def __init__(self, message: str) -> None:
        """Take the sentence; the remedy is the same for all."""
        super().__init__(
            message, remedy="mend templates/look, or copy the file anew from a fresh `tocsin init`"
        )


class Press:
    """A look made ready to render both layouts with any number of contexts."""

    def __init__(self, look: Look) -> None:
        """Take the look; LookError if a file is missing or cannot be read."""
        for name in NEEDED:
            if name not in look.files:
                raise LookError(f"the look has no {name}")
        self._look = look
        self._tokens = _toml(look, "look.toml")
        self._catalogues = Catalogues(look.files)
        self._environment = Environment(
            loader=DictLoader(dict(look.files)),
            autoescape=select_autoescape(["html"], default=False),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters.update(wrap=partial(wrap, width=WIDTH), date=_date, number=_number)

    def texts(self) -> tuple[str, ...]:
        """Return every text of the look."""
        return tuple(self._look.files.values())

    def words(self, language: str) -> Words:
        """Return what mails say in a language; CatalogueError where there is no catalogue for it."""
        return self._catalogues.words(language).under("mail")

    def render(self, name: str, language: str, context: Mapping[str, object]) -> str:
        """Render one layout; LookError names the file and line that fails."""
        try:
            return self._environment.get_template(name).render(self._around(language), **context)
        except TemplateSyntaxError as error:
            raise LookError(f"{error.name or name}:{error.lineno}: {error.message}") from error
        except TemplateError as error:
            raise LookError(f"{name}: {error}") from error

    def block(self, name: str, language: str, context: Mapping[str, object]) -> str:
        """Render one macro of `blocks.html` with the facts in the context; LookError if it fails."""
        try:
            return self._environment.from_string(_BLOCK).render(self._around(language), **context, name=name)
        except TemplateError as error:
            raise LookError(f"blocks.html: {name}: {error}") from error

    def _around(self, language: str) -> dict[str, object]:
        """Return what every template of a language is given: its tokens, its sides, its name."""
        sides = ("left", "right") if direction(language) == "ltr" else ("right", "left")
        type_ = self._tokens.get("type", {})
        return {
            **self._tokens,
            "type": {**type_, **type_.get(language.partition("-")[0], {})},
            **dict(zip(("start", "end"), sides, strict=True)),
            "language": language,
            "dir": direction(language),
            "width": WIDTH,
        }


@pass_context
def _date(context: Context, value: object, form: str = "long") -> str:
    """Write a day in the language of the mail."""
    return locales.date(value, context["language"], form)


@pass_context
def _number(context: Context, value: object) -> str:
    """Write a number in the language of the mail."""
    return locales.number(value, context["language"])


def _toml(look: Look, name: str) -> dict[str, Any]:
    try:
        return tomllib.loads(look.files[name])
    except tomllib.TOMLDecodeError as error:
        raise LookError(f"{name}: {error}") from error
