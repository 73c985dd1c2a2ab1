"""Slots: a Jinja template that can be rendered with stand-ins where the person's values are shown.

Owns the stand-ins and which expressions have a slot. A value is set aside only on its way out, after all
filters. Refuses: to let a template see a stand-in. Where captured output (macro, set block, call) is looked
at, and not just shown, its values stay in place.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple, cast

from jinja2 import Environment, Template, nodes, pass_context
from jinja2.runtime import Context
from jinja2.visitor import NodeTransformer
from markupsafe import Markup

from worker.content.sandbox import Kind, as_shown, clean, compiled, deeply_clean, environment, parsed

__all__ = ["Record", "SlottedTemplate", "StandIns", "is_airy"]

#: Names with a space, which no template can write: the filters put into its code, and what they record in.
_SLOT, _TIDY, _RECORD = "a slot", "a tidying", "the record"

#: Nodes whose output is captured before it is shown.
_CAPTURING: Final = (nodes.Macro, nodes.Block, nodes.CallBlock, nodes.AssignBlock, nodes.FilterBlock)


class StandIns:
    """The words that take the places of values: `<prefix><number>z`, ASCII letters and digits only."""

    __slots__ = ("_kind", "_prefix", "_words", "pattern")

    def __init__(self, prefix: str, kind: type[str] = str) -> None:
        """Take the prefix; `kind` may be Markup, so that autoescaping leaves the words alone."""
        self._prefix, self._kind = prefix, kind
        self._words: list[str] = []
        #: matches any of them; its group is the number
        self.pattern = re.compile(rf"{prefix}(\d+)z")

    def word(self, number: int) -> str:
        """Return the stand-in of a value."""
        while number >= len(self._words):
            self._words.append(self._kind(f"{self._prefix}{len(self._words)}z"))
        return self._words[number]

    def split(self, text: str) -> list[str | int]:
        """Cut a text at its stand-ins: texts and numbers, taking turns."""
        pieces = self.pattern.split(text)
        return [int(piece) if position % 2 else piece for position, piece in enumerate(pieces)]

    def numbers(self, text: str) -> list[int]:
        """Return the numbers of the stand-ins in a text, in order."""
        return [int(number) for number in self.pattern.findall(text)]


class Record:
    """What one rendering set aside: the values in the order met, and the slot each stood in."""

    __slots__ = ("slots", "stand_ins", "values")

    def __init__(self, stand_ins: StandIns) -> None:
        """Take the words to put in their places."""
        self.stand_ins = stand_ins
        self.values: list[str] = []
        self.slots: list[int] = []


class Field(NamedTuple):
    """A slot that shows a field of the person as it is, or a word in its place."""

    #: the field
    name: str
    #: what stands in for a field that is missing; None where that is an error
    fallback: str | None
    #: whether it stands in for an empty one too
    fills: bool


class SlottedTemplate:
    """A template compiled twice: as it is, and with a slot around each expression that it shows.

    Attributes:
        lines: the line of each slot.
        fields: per slot, the field that it shows; None for a template that does anything more than show
            fields, by a condition or a filter.
        pinned: per slot, whether its values stay in place; may be set.
        fragile: per slot, whether its airy values (`is_airy`) do; may be set.
    """

    def __init__(self, source: str, kind: Kind) -> None:
        """Compile it; TemplateFault if it cannot be, loads other templates or switches autoescaping."""
        source, base = clean(source), environment(kind)
        self._html = kind == "html"
        self._globals = dict(base.globals)
        self._plain = compiled(base, parsed(base, source))
        slotting = base.overlay(finalize=None)
        slotting.filters = {**base.filters, _SLOT: self._fill, _TIDY: as_shown}
        maker = _SlotMaker(slotting)
        self._slotted = compiled(slotting, maker.make(parsed(base, source)))
        self.lines = maker.lines
        self.fields = maker.shown_fields()
        self.pinned = maker.pinned
        self.fragile = [False] * len(maker.lines)

    def plain(self, values: Mapping[str, object]) -> str:
        """Render it as it is."""
        return "".join(self._plain.root_render_func(self._context(self._plain, values)))

    def render(self, values: Mapping[str, object], record: Record) -> tuple[str, ...]:
        """Render it with stand-ins; the pieces of the text.

        Pieces, not the text: most are constants of the compiled template and remember their hash, so that as
        a key they cost next to nothing.
        """
        context = self._context(self._slotted, values)
        context.parent[_RECORD] = record
        return tuple(self._slotted.root_render_func(context))

    def take(self, values: Mapping[str, object]) -> list[str] | None:
        """Return what every slot would set aside, without rendering; None where only rendering can tell.

        That saves half the cost of a mail: most templates only show fields.
        """
        if self.fields is None:
            return None
        taken = []
        for (name, fallback, fills), fragile in zip(self.fields, self.fragile, strict=True):
            value = values.get(name)
            if type(value) is not str:
                if fallback is None or name in values:
                    return None
                value = fallback
            elif not value.isprintable():
                value = clean(value)
            if fills and fallback is not None and not value:
                value = fallback
            if fragile and is_airy(value):
                return None
            taken.append(value)
        return taken

    def _context(self, template: Template, values: Mapping[str, object]) -> Context:
        """Make the context that `Template.new_context` would, only faster, and with clean values."""
        names = self._globals.copy()
        for name, value in values.items():
            names[name] = clean(value) if type(value) is str else deeply_clean(value)
        return Context(template.environment, names, template.name, template.blocks)

    @pass_context
    def _fill(self, context: Context, value: object, slot: int) -> str:
        """Set a value aside and return its stand-in, or return it where it has to stay."""
        if type(value) is not str:
            if hasattr(value, "__html__"):
                value = value.__html__()
                if self._html:
                    return Markup(clean(cast("str", value)))  # noqa: S704 - it is markup already
            value = str(value)
        if not value.isprintable():
            value = clean(value)
        if self.pinned[slot] or (self.fragile[slot] and is_airy(value)):
            return value
        record: Record = context.parent[_RECORD]
        record.slots.append(slot)
        record.values.append(value)
        return record.stand_ins.word(len(record.values) - 1)


def is_airy(value: str) -> bool:
    """Whether a value is empty, or begins or ends with white space: HTML parsers may drop those."""
    return not value or value[0] in " \t\n" or value[-1] in " \t\n"


class _SlotMaker(NodeTransformer):
    """Puts a slot around each expression that a template shows.

    Output of macros, set blocks and the like is captured as text before it is shown, stand-ins and all. That
    is safe while the template only shows it; if anywhere it does something else with it (a filter, a
    comparison), the values inside captures stay in place.
    """

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._constant = nodes.EvalContext(environment)
        self._captured: frozenset[str] = frozenset()
        self._loose = False
        self._pinning = 0
        self._fields: list[Field | None] = []
        self.lines: list[int] = []
        self.pinned: list[bool] = []

    def shown_fields(self) -> tuple[Field, ...] | None:
        """Return the field of each slot, if the template made last only shows fields."""
        fields = tuple(field for field in self._fields if field is not None)
        return fields if len(fields) == len(self._fields) else None

    def make(self, tree: nodes.Template) -> nodes.Template:
        """Return the template with its slots."""
        if not all(isinstance(node, nodes.Output) for node in tree.body):
            self._fields.append(None)
        self._captured = frozenset(_captures(tree))
        self._loose = _looked_at(tree, self._captured)
        return cast("nodes.Template", self.visit(tree))

    def generic_visit(self, node: nodes.Node, *args: Any, **named: Any) -> nodes.Node:  # noqa: ANN401 - Jinja's
        """Visit what is inside; note where values have to stay in place."""
        recursive = isinstance(node, nodes.For) and node.recursive
        pins = isinstance(node, nodes.FilterBlock) or recursive
        pins = pins or (self._loose and isinstance(node, _CAPTURING))
        self._pinning += pins
        super().generic_visit(node, *args, **named)
        self._pinning -= pins
        return node

    def visit_Output(self, node: nodes.Output) -> nodes.Output:  # noqa: N802 - Jinja's name for it
        """Give each expression its slot."""
        node.nodes = [self._slotted(child) for child in node.nodes]
        return node

    def _slotted(self, shown: nodes.Expr) -> nodes.Expr:
        if isinstance(shown, nodes.TemplateData):
            return shown
        try:
            # What Jinja works out once, when it compiles, needs no slot.
            return nodes.Const(as_shown(shown.as_const(self._constant)), lineno=shown.lineno)
        except nodes.Impossible:
            pass
        if not self._loose and _name_shown(shown) in self._captured:
            self._fields.append(None)
            return self._filtered(shown, _TIDY)
        self._fields.append(_field(shown, self._environment.globals))
        self.lines.append(shown.lineno)
        self.pinned.append(self._pinning > 0)
        return self._filtered(shown, _SLOT, nodes.Const(len(self.lines) - 1))

    def _filtered(self, shown: nodes.Expr, name: str, *args: nodes.Expr) -> nodes.Expr:
        made = nodes.Filter(shown, name, list(args), [], None, None, lineno=shown.lineno)
        return cast("nodes.Expr", made.set_environment(self._environment))


def _field(shown: nodes.Expr, known: Mapping[str, object]) -> Field | None:
    """Read `{{ name }}` and `{{ name | default("…") }}`; None for any other expression."""
    match shown:
        case nodes.Name(name=name):
            field = Field(name, None, fills=False)
        case nodes.Filter(
            node=nodes.Name(name=name),
            name="default" | "d",
            args=[nodes.Const(value=str(fallback)), *more],
            kwargs=[],
            dyn_args=None,
            dyn_kwargs=None,
        ) if more in ([], [nodes.Const(True)]):  # noqa: FBT003 - Jinja's own constant
            field = Field(name, clean(fallback), fills=bool(more))
        case _:
            return None
    return None if field.name in known else field


def _captures(tree: nodes.Template) -> Iterator[str]:
    """Return the names under which captured output can be had."""
    yield from ("caller", "self", "super")
    for macro in tree.find_all(nodes.Macro):
        yield macro.name
    for block in tree.find_all(nodes.AssignBlock):
        yield block.target.name if isinstance(block.target, nodes.Name) else "namespace"


def _name_shown(shown: nodes.Expr) -> str:
    """Return the name in `{{ name }}` or `{{ name(…) }}`, "" for any other expression."""
    inner = shown.node if isinstance(shown, nodes.Call) else shown
    if isinstance(inner, nodes.Getattr) and shown is not inner:
        inner = inner.node if _is_self(inner.node) else inner
    return inner.name if isinstance(inner, nodes.Name) else ""


def _is_self(node: nodes.Node) -> bool:
    return isinstance(node, nodes.Name) and node.name == "self"


def _looked_at(node: nodes.Node, captured: frozenset[str]) -> bool:
    """Tell whether captured output is used in any other way than to be shown as it is."""
    if isinstance(node, nodes.Name):
        return node.name in captured and node.ctx == "load"
    if isinstance(node, nodes.AssignBlock) and (node.filter or not isinstance(node.target, nodes.Name)):
        return True
    shown = (
        node.nodes
        if isinstance(node, nodes.Output)
        else [node.call]
        if isinstance(node, nodes.CallBlock)
        else []
    )
    for child in node.iter_child_nodes():
        if child in shown and _name_shown(cast("nodes.Expr", child)) in captured:
            inner = child.iter_child_nodes(exclude=("node",))
            if any(_looked_at(part, captured) for part in inner):
                return True
        elif _looked_at(child, captured):
            return True
    return False
