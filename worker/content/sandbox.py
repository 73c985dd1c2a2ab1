"""The sandbox that templates run in: strict, without loaders, its output clean.

Owns what a missing value means, what no text may hold (`clean`), and how a value is shown. Refuses: templates
that load others or switch autoescaping, Python's internals, the file system, and randomness (a retried mail
has to be the same mail).
"""

import re
from collections.abc import Mapping
from functools import partial
from typing import Any, Final, Literal, TypeAlias, cast

from jinja2 import (
    Environment,
    StrictUndefined,
    Template,
    TemplateSyntaxError,
    UndefinedError,
    nodes,
    pass_context,
)
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from markupsafe import Markup

from worker.content import locales
from worker.errors import Refused, WrongUse

__all__ = [
    "LANGUAGE",
    "Kind",
    "MissingField",
    "TemplateFault",
    "as_shown",
    "clean",
    "compiled",
    "deeply_clean",
    "environment",
    "parsed",
]

Kind: TypeAlias = Literal["html", "text"]

#: The name of the reader's language among a template's values; no template can write it.
LANGUAGE: Final = "the language"
#: C0 but for tab and LF, DEL, lone surrogates (UTF-8 cannot write them), and what else XML cannot hold.
_FORBIDDEN: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
#: The longest `range` a template may ask for.
_LONGEST_RANGE: Final = 1000
_LOADING: Final = (nodes.Extends, nodes.Include, nodes.Import, nodes.FromImport)


class MissingField(Refused):
    """The template needs a field that this person lacks.

    Attributes:
        field: the field's name.
    """

    def __init__(self, field: str) -> None:
        """Take the field's name."""
        super().__init__(
            f'the text needs the field "{field}", which this person lacks',
            remedy=f'give it a fallback: {{{{ {field} | default("…") }}}}',
        )
        self.field = field

    def __reduce__(self) -> tuple[type["MissingField"], tuple[str]]:
        """Rebuild from the field, so that the error crosses a process boundary."""
        return type(self), (self.field,)


class TemplateFault(WrongUse):
    """A template that cannot be used.

    Attributes:
        line: where, from 1.
    """

    def __init__(self, message: str, line: int) -> None:
        """Take what is wrong and the line."""
        super().__init__(f"line {line}: {message}", remedy="mend the template")
        self.line = line


class _Missing(StrictUndefined):
    """A value that is not there: fine to ask about, an error to use."""

    __slots__ = ()

    def __init__(self, *args: Any, **named: Any) -> None:  # noqa: ANN401 - Jinja's own call, handed on
        super().__init__(*args, **named)
        if self._undefined_exception is UndefinedError:  # and not the sandbox's SecurityError
            # Jinja calls this with its message when it raises.
            self._undefined_exception = cast("Any", partial(_missing, self._undefined_name or "?"))


def _missing(field: str, _message: str | None = None) -> MissingField:
    return MissingField(field)


def clean(text: str) -> str:
    """Drop what no mail may hold (NUL and other controls, lone surrogates, U+FFFE); line ends become LF."""
    if text.isprintable():
        return text
    return _FORBIDDEN.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))


def environment(kind: Kind) -> Environment:
    """Return a sandbox for templates: strict, without loaders, its output cleaned; `html` autoescapes."""
    made = ImmutableSandboxedEnvironment(
        autoescape=kind == "html", undefined=_Missing, finalize=as_shown, keep_trailing_newline=True
    )
    made.globals["range"] = _range
    made.filters["date"], made.filters["number"] = _date, _number
    # Both answer anew each time, and a retried mail has to be the same mail.
    del made.globals["lipsum"], made.filters["random"]
    return made


@pass_context
def _date(context: Context, value: object, form: str = "long") -> str:
    """Write a day in the reader's language: `{{ "2026-11-30" | date }}`."""
    return locales.date(value, context.get(LANGUAGE, ""), form)


@pass_context
def _number(context: Context, value: object) -> str:
    """Write a number in the reader's language: `{{ 1200 | number }}`."""
    return locales.number(value, context.get(LANGUAGE, ""))


def _range(*bounds: int) -> range:
    found = range(*bounds)
    if found[_LONGEST_RANGE:]:
        raise Refused(
            f"a template asks for a range of more than {_LONGEST_RANGE} numbers",
            remedy="Mend the range( ) in its {{ }} or {% %}.",
        )
    return found


def deeply_clean(value: object) -> object:
    """Clean the texts inside lists and mappings too, so that no filter meets what is forbidden."""
    if type(value) is str:
        return clean(value)
    if isinstance(value, list | tuple):
        return [deeply_clean(part) for part in value]
    if isinstance(value, Mapping):
        return {name: deeply_clean(part) for name, part in value.items()}
    return value


def as_shown(value: object) -> str:
    """Make a value the text that is shown; markup stays markup."""
    if type(value) is str:
        return clean(value)
    if hasattr(value, "__html__"):
        return Markup(clean(value.__html__()))  # noqa: S704 - it is markup already
    return clean(str(value))


def parsed(sandbox: Environment, source: str) -> nodes.Template:
    """Parse a template; TemplateFault if it cannot be read or does what is refused here."""
    try:
        tree = sandbox.parse(source)
    except TemplateSyntaxError as error:
        raise TemplateFault(f"Jinja cannot read this: {error.message}", error.lineno) from error
    for node in tree.find_all((*_LOADING, nodes.EvalContextModifier)):
        what = "switches autoescaping" if isinstance(node, nodes.EvalContextModifier) else "loads another"
        raise TemplateFault(f"the template {what}, which cannot be woven", node.lineno)
    return tree


def compiled(sandbox: Environment, tree: nodes.Template) -> Template:
    """Compile a parsed template; TemplateFault for an unknown filter or test."""
    try:
        code = sandbox.compile(tree)
    except TemplateSyntaxError as error:
        raise TemplateFault(f"Jinja cannot compile this: {error.message}", error.lineno) from error
    return Template.from_code(sandbox, code, sandbox.make_globals(None))
