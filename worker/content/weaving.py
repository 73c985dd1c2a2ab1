"""Weaving: "inline once, send many" (one template, any number of people, microseconds each).

A template is rendered with inert words in the places of the person's values; what is left depends only on the
branches taken. That text is inlined once, kept as a `Skeleton`, and every further mail only has its values
woven in. The law: a woven mail is byte for byte what Jinja and then premailer would have given that person
(`weave` against `plain`), whatever the values hold.

Refuses: guessing. What cannot be woven (a value in a style, a tag, a comment) is rendered as part of the
skeleton: right, but slower; `slow_lines` names the places.
"""

import re
from collections import OrderedDict
from collections.abc import Mapping
from hashlib import blake2b
from typing import ClassVar, Final, cast

from markupsafe import Markup

from worker.content import inlining, quoted
from worker.content.inlining import Faults
from worker.content.sandbox import Kind, MissingField, TemplateFault, clean, environment
from worker.content.skeletons import Skeleton
from worker.content.slots import Record, SlottedTemplate, StandIns, is_airy
from worker.post.parcels import Wire

__all__ = ["HtmlWeaver", "LineWeaver", "MissingField", "TemplateFault", "TextWeaver", "clean", "environment"]

#: What cannot stand in one line: controls and Unicode's own line ends; with the white space around them.
_BREAKS: Final = re.compile("[\x00-\x20\x7f-\x9f\u2028\u2029]+")


class _Weaver:
    """One template and its skeletons. Not for several threads at once."""

    _kind: ClassVar[Kind]

    def __init__(self, source: str, *, max_skeletons: int = 64) -> None:
        """Compile the template.

        Args:
            source: Jinja.
            max_skeletons: how many are kept; the one unused for longest goes first.

        Raises:
            TemplateFault: it cannot be compiled, loads other templates or switches autoescaping.
        """
        self._template = SlottedTemplate(source, self._kind)
        # Two sets of words, told apart by length as well as by look.
        marked = Markup if self._kind == "html" else str
        self._words = StandIns(_prefix("Tw", source), marked)
        self._others = StandIns(_prefix("Other", source), marked)
        self._kept: OrderedDict[tuple[str, ...], Skeleton | None] = OrderedDict()
        self._most = max_skeletons
        #: of a template that only shows fields: the skeleton that takes a value in each of its slots
        self._usual: Skeleton | None = None
        #: how many skeletons have been made so far; one per person means that the template defeats weaving
        self.skeletons = 0

    @property
    def slow_lines(self) -> frozenset[int]:
        """Lines of the template with a value that cannot be woven: each new value there costs a skeleton."""
        pairs = zip(self._template.lines, self._template.pinned, strict=True)
        return frozenset(line for line, pinned in pairs if pinned)

    def weave(self, values: Mapping[str, object]) -> Wire:
        """Return the text for one person: quoted-printable, CRLF, lines of at most 76 octets.

        Raises:
            MissingField: the template needs a value that is not there.
        """
        if self._usual is not None and (taken := self._template.take(values)) is not None:
            return self._usual.encode(taken)
        record = Record(self._words)
        key = self._template.render(values, record)
        if key in self._kept:
            skeleton = self._kept[key]
            self._kept.move_to_end(key)
        else:
            skeleton, record = self._new(key, values, record)
        if skeleton is None:
            return quoted.encode(self.plain(values), last=True)
        if record.values == self._template.take(values):
            self._usual = skeleton
        return skeleton.encode(record.values)

    def plain(self, values: Mapping[str, object]) -> str:
        """Return the same by the slow road, as text with LF."""
        return self._template.plain(values)

    def _new(
        self, key: tuple[str, ...], values: Mapping[str, object], record: Record
    ) -> tuple[Skeleton | None, Record]:
        """Make a skeleton, after pinning what cannot be woven; None where only the slow road is right."""
        while key not in self._kept:
            source = "".join(key)
            if not self._is_honest(source, values, record):
                self._keep(key, None)
            elif self._pin(self._examine(source), record):
                record = Record(self._words)
                key = self._template.render(values, record)
            else:
                self._keep(key, self._make(source))
        return self._kept[key], record

    def _is_honest(self, source: str, values: Mapping[str, object], record: Record) -> bool:
        """Tell whether all stand-ins in a text are ours: with other words, all of them are others.

        A value that stays in place may spell one, and a template may have done something to one: shown it
        changed, or made a value of it.
        """
        other = Record(self._others)
        others = "".join(self._template.render(values, other))
        ours = self._words.pattern.sub(lambda found: self._others.word(int(found[1])), source)
        return others == ours and other.values == record.values

    def _pin(self, faults: Faults, record: Record) -> bool:
        """Note what has to stay in place from now on; tell whether a value just set aside has to."""
        for number in faults.pinned:
            self._template.pinned[record.slots[number]] = True
        for number in faults.fragile:
            self._template.fragile[record.slots[number]] = True
        return bool(faults.pinned) or any(is_airy(record.values[number]) for number in faults.fragile)

    def _keep(self, key: tuple[str, ...], skeleton: Skeleton | None) -> None:
        self.skeletons += 1
        self._kept[key] = skeleton
        if len(self._kept) > self._most:
            self._kept.popitem(last=False)

    def _examine(self, source: str) -> Faults:
        raise NotImplementedError

    def _make(self, source: str) -> Skeleton | None:
        raise NotImplementedError


class HtmlWeaver(_Weaver):
    """An HTML template: autoescaped, its CSS inlined."""

    _kind = "html"
    #: how often premailer ran: once per skeleton, and for each text made by the slow road
    premailer_calls = 0

    def plain(self, values: Mapping[str, object]) -> str:
        """Return the same by the slow road (Jinja, then premailer), as text with LF."""
        self.premailer_calls += 1
        return inlining.inline(super().plain(values))

    def _examine(self, source: str) -> Faults:
        return inlining.examine(source, self._words)

    def _make(self, source: str) -> Skeleton | None:
        self.premailer_calls += 1
        return inlining.make(source, self._words)


class TextWeaver(_Weaver):
    """A plain-text template: no escaping, no CSS."""

    _kind = "text"

    def _examine(self, source: str) -> Faults:  # noqa: ARG002 - every place in a text can be woven
        return Faults()

    def _make(self, source: str) -> Skeleton:
        return Skeleton.of_text(self._words.split(source))


class LineWeaver:
    """A template for one header value, such as the subject."""

    def __init__(self, source: str) -> None:
        """Compile the template; TemplateFault as for the others."""
        self._template = SlottedTemplate(source, "text")
        self._words = StandIns(_prefix("Tw", source))
        #: of a template that only shows fields: its own texts, with places for the values between
        self._pieces: list[str | int] | None = None

    def weave(self, values: Mapping[str, object]) -> str:
        """Return the line for one person; line ends, controls and runs of white space become one space."""
        taken = self._template.take(values)
        line = self._template.plain(values) if taken is None else self._filled(values, taken)
        if line.isprintable() and "  " not in line:
            return line.strip(" ")
        return _BREAKS.sub(" ", line).strip(" ")

    def _filled(self, values: Mapping[str, object], taken: list[str]) -> str:
        """Return what rendering would give, having rendered once."""
        if self._pieces is None:
            self._pieces = self._words.split("".join(self._template.render(values, Record(self._words))))
        pieces = self._pieces.copy()
        pieces[1::2] = taken
        return "".join(cast("list[str]", pieces))


def _prefix(word: str, source: str) -> str:
    """Return a beginning for stand-ins that no other template has."""
    return f"{word}{blake2b(source.encode(errors='replace'), digest_size=8).hexdigest()}n"
