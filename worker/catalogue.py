"""The keys of the settings as people meet them: names, variables, complaints, the file to fill in.

Pure: works on any pydantic model whose tables are `Section`s. Refuses to read anything, or to show a secret.
"""

import difflib
import functools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from worker.sections import Section, without_password

#: User name and password inside a URL, wherever one stands in a value that is shown.
_USERINFO = re.compile(r"://[^/\s]*@")

#: What pydantic puts behind a name, where it is the name itself that is wrong.
_NAME = ".[key]"
#: Stands for any name in the key of a table that there may be several of.
_EACH = "*"

#: Letters of a wrong value that are shown: it may be a file's worth.
_SHOWN = 100


class Catalogue:
    """Every key that may be set, tables included, by its dotted name.

    Args:
        model: the settings' top.
        prefix: what the variables' names start with.
        found: fields of the top that are found out while loading and never set.
    """

    def __init__(self, model: type[BaseModel], *, prefix: str, found: frozenset[str]) -> None:
        self.model = model
        self.prefix = prefix
        self.found = found

    @functools.cached_property
    def keys(self) -> Mapping[str, FieldInfo]:
        """Give each key's field."""
        return {key: field for key, field in _walk(self.model, "") if key not in self.found}

    @functools.cached_property
    def tables(self) -> Mapping[str, type[Section]]:
        """Give each key that holds a table."""
        return {key: section for key, field in self.keys.items() if (section := _section(field))}

    def variable(self, key: str) -> str:
        """Name the variable that sets a key."""
        return self.prefix + key.upper().replace(".", "__")

    def misplaced(self, document: Mapping[str, object]) -> Iterator[str]:
        """Find the keys of a file's document that hold a secret: a file is shown, copied and committed."""
        for pattern, field in self.keys.items():
            for key, value in _found(document, pattern.split("."), ""):
                if value is not None and _is_secret(field):
                    yield key
                if key.endswith(".url") and isinstance(value, str) and without_password(value)[1] is not None:
                    yield key

    def unknown(self, variables: Mapping[str, str]) -> Iterator[str]:
        """Complain of the variables that would be silently ignored."""
        for name in variables:
            key = name.removeprefix(self.prefix).lower().replace("__", ".")
            if key in self.tables:
                first = next(iter(self.tables[key].__annotations__))
                yield f"{name} is a whole table: set its keys, as in {name}__{first.upper()}"
            elif key.partition(".")[0] not in self.keys:
                yield f"{name} is not a setting{self._suggestion(key, self.variable)}"

    def complaint(self, details: ErrorDetails, place: Callable[[str], str]) -> str | None:
        """Say what is wrong with one key in one line; None where it only follows from another.

        Args:
            details: pydantic's finding.
            place: names, for a key, the variable or the file and key that gave the value.
        """
        context = details.get("ctx", {})
        key = ".".join(str(part) for part in (*details["loc"], context.get("key", ""))).strip(".")
        if details["type"] == "default_factory_not_called":
            return None
        if details["type"] == "extra_forbidden":
            where = place(key)
            shown = self.variable if where.startswith(self.prefix) else str
            return f"{where} is not a setting{self._suggestion(key, shown)}"
        field = self.keys.get(key) or self.keys.get(re.sub(r"^(\w+)\.[\w-]+\.", rf"\1.{_EACH}.", key))
        meaning = f" ({field.description})" if field and field.description else ""
        if details["type"] == "missing":
            return f"{place(key)} is missing{meaning}"
        sentence = details["msg"].removeprefix("Value error, ").replace("Input should", "should", 1)
        if key.endswith(_NAME):
            return f"{place(key.removesuffix(_NAME))} {sentence}{meaning}"
        return f"{place(key)} = {_shown(context.get('value', details['input']), field)}: {sentence}{meaning}"

    def template(self, defaults: BaseModel) -> Iterator[str]:
        """Write the lines of a file that explains every key and changes nothing.

        A key that is off, or that follows from others, stands behind a `#` with an example.
        """
        yield from self._table("", self.model, defaults, mark="")

    def _suggestion(self, key: str, shown: Callable[[str], str]) -> str:
        # What stands in place of the name is the one given.
        each = key.split(".")[1] if key.count(".") > 1 else _EACH
        known = [one.replace(_EACH, each) for one in self.keys]
        flat = {one.replace(".", "_"): one for one in known}
        close = difflib.get_close_matches(key.replace(".", "_"), flat, n=1)
        return f"; did you mean {shown(flat[close[0]])}?" if close else ""

    def _table(self, prefix: str, model: type[BaseModel], defaults: BaseModel, *, mark: str) -> Iterator[str]:
        """Write one table, its keys first and its inner tables after them, as TOML wants it."""
        inner: list[str] = []
        fields = model.model_fields
        for name in sorted(fields, key=lambda name: name not in model.__annotations__):
            key, field, value = f"{prefix}{name}", fields[name], getattr(defaults, name)
            if key not in self.keys:
                continue
            if section := _section(field):
                off = mark if isinstance(value, Section) else "#"
                each = f"{key}.{field.examples[0]}" if _named(field) and field.examples else key
                inner += ["", f"# {field.description}", f"{off}[{each}]"]
                # Of many that are alike, the first explains itself.
                if each == key:
                    inner += self._table(f"{key}.", section, value or _example(section), mark=off)
                elif not any(_section(other) is section and not _named(other) for other in fields.values()):
                    inner += self._table(f"{key}.{_EACH}.", section, _example(section), mark=off)
            elif _is_secret(field):
                yield f"# {field.description} Only as {self.variable(key)}."
            else:
                off = mark if isinstance(field.default, str | int | float | Path) else "#"
                yield f"# {field.description}"
                yield f"{off}{name} = {_literal(field, value)}"
        yield from inner


def _walk(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}", field
        if section := _section(field):
            yield from _walk(section, f"{prefix}{name}.{_EACH}." if _named(field) else f"{prefix}{name}.")


def _found(value: object, parts: list[str], key: str) -> Iterator[tuple[str, object]]:
    """Yield what a document holds under a pattern of keys, each with its own key."""
    if not parts:
        yield key, value
    elif isinstance(value, dict):
        for name in value if parts[0] == _EACH else (parts[0],):
            yield from _found(value.get(name), parts[1:], f"{key}.{name}".lstrip("."))


def _section(field: FieldInfo) -> type[Section] | None:
    """Tell which table a field holds, if it holds one."""
    for kind in (field.annotation, *get_args(field.annotation)):
        if isinstance(kind, type) and issubclass(kind, Section):
            return kind
    return None


def _named(field: FieldInfo) -> bool:
    """Tell whether a field holds tables of one kind under names of the operator's choice."""
    return get_origin(field.annotation) is dict


def _example(section: type[Section]) -> Section:
    """Fill a table that is off by default with its examples."""
    return section.model_validate(
        {
            name: (field.examples or [""])[0]
            for name, field in section.model_fields.items()
            if field.is_required()
        }
    )


def _is_secret(field: FieldInfo) -> bool:
    return SecretStr in get_args(field.annotation)


def _shown(value: object, field: FieldInfo | None) -> str:
    """Show a wrong value, unless it is a secret or may hide one."""
    if field is None or _is_secret(field) or _section(field) or not isinstance(value, str | int | float):
        return "(not shown)"
    return _USERINFO.sub("://…@", json.dumps(value, ensure_ascii=False)[:_SHOWN])


def _literal(field: FieldInfo, value: object) -> str:
    if field.examples:
        value = field.examples[0]
    elif isinstance(field.default, Path):
        value = field.default
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {json.dumps(each)}" for name, each in value.items()) + " }"
    return json.dumps(str(value) if isinstance(value, Path) else value, ensure_ascii=False)
