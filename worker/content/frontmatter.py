"""The block of YAML at the top of an appeal's file, read as hostile input and key by key.

Every fault is told with the line it stands on, and reading goes on, so that one run finds them all. Only the
plain part of YAML is read: mappings, lists, text and yes/no. Refuses: aliases, anchors, tags, deep or huge
documents (a few lines of YAML can otherwise grow to gigabytes), keys written twice, and keys
nobody asked for.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from difflib import get_close_matches
from typing import Final

import yaml

#: Told of a fault: its line in the file (from 1) and one sentence.
Note = Callable[[int, str], None]

MOST_CHARACTERS: Final = 32_000
_MOST_DEPTH: Final = 5
_FENCE: Final = "---"
#: The line of the file on which YAML's own line 0 stands.
_FIRST_LINE: Final = 2
_TEXT: Final = "tag:yaml.org,2002:str"
_FLAG: Final = "tag:yaml.org,2002:bool"
_NOTHING: Final = "tag:yaml.org,2002:null"
_NUMBER: Final = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,2})?")
#: Not the spaces that keep words together: French has one before ":" and "?".
_SPACE: Final = re.compile("[ \t\n]+")
_JINJA: Final = re.compile(r"\{[{%#]")
#: YAML counts these as line ends, and no editor does: every line told after one would be wrong.
_STRAY_BREAK: Final = re.compile("[\x85\u2028\u2029]")
#: What YAML's own words for a fault mean to an author.
_MEANT: Final = {
    "\\t": "a tab cannot indent here: use spaces",
    "mapping values are not allowed": 'a text that holds ": " must stand in quotes',
}
_KINDS: Final = {yaml.MappingNode: "a group of keys", yaml.SequenceNode: "a list", yaml.ScalarNode: "a text"}


def split(text: str, note: Note) -> tuple[str, str, int] | None:
    """Part a file into YAML, body and the line the body starts on; None (and a note) if it cannot be."""
    lines = text.split("\n")
    if lines[0].rstrip() != _FENCE:
        note(1, 'the file must begin with a line "---" and its front matter')
        return None
    end = next((number for number, line in enumerate(lines[1:], 1) if line.rstrip() == _FENCE), None)
    if end is None:
        note(1, 'the front matter is not closed: a line "---" must follow it')
        return None
    return "\n".join(lines[1:end]), "\n".join(lines[end + 1 :]), end + 2


def read(source: str, note: Note) -> "Section | None":
    """Read the YAML that `split` found; None (and a note) if it cannot be read."""

    def told(line: int, message: str) -> None:
        note(line + _FIRST_LINE, message)

    if len(source) > MOST_CHARACTERS:
        told(0, f"the front matter is over {MOST_CHARACTERS:,} characters long")
        return None
    if stray := _STRAY_BREAK.search(source):
        told(source.count("\n", 0, stray.start()), f"the character U+{ord(stray[0]):04X} is not allowed here")
        return None
    try:
        if not _is_plain(source, told):
            return None
        node = yaml.compose(source, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        told(*_explained(error, source))
        return None
    if not isinstance(node, yaml.MappingNode):
        told(0, 'the front matter must hold lines of the form "key: value"')
        return None
    return Section(node, told)


def _is_plain(source: str, note: Note) -> bool:
    """Refuse by the event stream, before anything is built, what would make building it costly."""
    depth = 0
    for event in yaml.parse(source, Loader=yaml.SafeLoader):
        line = event.start_mark.line if event.start_mark else 0
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            note(line, "anchors and aliases (& and *) are not read here: put the text in quotes")
            return False
        if getattr(event, "tag", None):
            note(line, "tags (!) are not read here: put the text in quotes")
            return False
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MOST_DEPTH:
            note(line, f"groups and lists are nested over {_MOST_DEPTH} deep")
            return False
    return True


def _explained(error: yaml.YAMLError, source: str) -> tuple[int, str]:
    if isinstance(error, yaml.reader.ReaderError):
        line = source.count("\n", 0, error.position)
        return line, f"the character U+{ord(source[error.position]):04X} is not allowed here"
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return 0, "the front matter is not YAML"
    line, problem = error.problem_mark.line, error.problem or ""
    if "end of stream" in problem and error.context_mark is not None:
        return error.context_mark.line, "a quotation mark is not closed"
    if _JINJA.search(source.split("\n")[line]):
        return line, 'a text that holds "{{" or "{%" must stand in quotes'
    meant = (message for words, message in _MEANT.items() if words in problem)
    return line, next(meant, f"YAML cannot read this: {problem or error.context}")


class Section:
    """One group of keys. Asking for a key marks it known; `close` notes the keys that nobody asked for."""

    def __init__(self, node: yaml.MappingNode, note: Note) -> None:
        """Take the node and whom to tell (with lines from 0 within the YAML)."""
        self._note = note
        self._start: int = node.start_mark.line
        self._nodes: dict[str, yaml.Node] = {}
        self._lines: dict[str, int] = {}
        self._asked: set[str] = set()
        for key, value in node.value:
            self._take(key, value)

    def _take(self, key: yaml.Node, value: yaml.Node) -> None:
        line = key.start_mark.line
        if not isinstance(key, yaml.ScalarNode):
            self._note(line, "a key must be a plain word")
        elif key.value in self._nodes:
            self._note(line, f'"{key.value}" stands here twice (first on line {self.file_line(key.value)})')
        else:
            self._nodes[key.value], self._lines[key.value] = value, line

    def file_line(self, key: str) -> int:
        """Return the line in the file where a key stands, or where its group begins."""
        return self._lines.get(key, self._start) + _FIRST_LINE

    def __iter__(self) -> Iterator[str]:
        return iter(self._nodes)

    def has(self, key: str) -> bool:
        """Tell whether a key is there, and mark it known."""
        self._asked.add(key)
        return key in self._nodes

    def tell(self, key: str, message: str) -> None:
        """Note a fault of a key's value."""
        self._note(self._lines.get(key, self._start), message)

    def text(self, key: str, *, most: int, required: bool = False, line: bool = True) -> str:
        """Return a text, stripped; "" (with a note, if it is required) when there is none.

        Args:
            key: the key.
            most: characters allowed.
            required: whether it may be left out.
            line: whether line breaks are refused (it may become a header); else they become spaces.
        """
        node = self._get(key, required=required)
        return "" if node is None else self._text(node, f'"{key}"', most, line=line)

    def texts(self, key: str, *, most: int) -> tuple[str, ...]:
        """Return a list of texts; () when there is none."""
        items = [self._text(node, f'each of "{key}"', most) for node in self._list(key)]
        return tuple(item for item in items if item)

    def pairs(self, key: str, *, most: int) -> Iterator[tuple[str, str, int]]:
        """Yield each key of a group with its text and its line in the file."""
        group = self.group(key)
        if group is not None:
            for name in group:
                yield name, group.text(name, most=most), group.file_line(name)

    def is_text(self, key: str) -> bool:
        """Tell whether a key holds a text (or nothing), not a group or list."""
        return not isinstance(self._nodes.get(key), yaml.CollectionNode)

    def flag(self, key: str) -> bool:
        """Return a yes/no; no when there is none."""
        node = self._get(key)
        if node is not None and node.tag != _FLAG:
            self._note(node.start_mark.line, f'"{key}" must be true or false')
        return node is not None and node.tag == _FLAG and node.value.lower() in {"true", "yes", "on"}

    def number(self, key: str, *, required: bool = False) -> Decimal | None:
        """Return a number of nought or more, with two places at most; None when there is none."""
        node = self._get(key, required=required)
        if node is None:
            return None
        if isinstance(node, yaml.ScalarNode) and _NUMBER.fullmatch(node.value):
            return Decimal(node.value)
        self._note(node.start_mark.line, f'"{key}" must be a number, as in 1200 or 12.50')
        return None

    def group(self, key: str) -> "Section | None":
        """Return a group of keys within this one; None when there is none."""
        node = self._get(key)
        return None if node is None else self._group(node, f'"{key}"')

    def groups(self, key: str) -> list["Section"]:
        """Return a list of groups; [] when there is none."""
        found = (self._group(node, f'each of "{key}"') for node in self._list(key))
        return [group for group in found if group is not None]

    def close(self) -> None:
        """Note every key that nobody asked for, with the one that may have been meant."""
        for key in self._nodes.keys() - self._asked:
            near = get_close_matches(key, sorted(self._asked), n=1)
            meant = f'did you mean "{near[0]}"?' if near else f"known are {_listed(self._asked)}"
            self.tell(key, f'"{key}" is not a key here: {meant}')

    def _get(self, key: str, *, required: bool = False) -> yaml.Node | None:
        present = self.has(key)
        node = self._nodes.get(key)
        if node is not None and node.tag == _NOTHING:
            self.tell(key, f'"{key}" is empty')
            return None
        if not present and required:
            self.tell(key, f'"{key}" is missing')
        return node

    def _text(self, node: yaml.Node, name: str, most: int, *, line: bool = True) -> str:
        if not isinstance(node, yaml.ScalarNode):
            hint = (
                ' (put one that begins with "{" in quotes)'
                if isinstance(node, yaml.CollectionNode) and node.flow_style
                else ""
            )
            self._note(node.start_mark.line, f"{name} must be a text, not {_KINDS[type(node)]}{hint}")
            return ""
        if node.tag != _TEXT:
            self._note(node.start_mark.line, f'{name} must be a text: put "{node.value[:40]}" in quotes')
            return ""
        text = str(node.value).strip()
        for fault in _text_faults(text, most, line=line):
            self._note(node.start_mark.line, f"{name} {fault}")
        return text if line else _SPACE.sub(" ", text)

    def _list(self, key: str) -> list[yaml.Node]:
        node = self._get(key)
        if node is None:
            return []
        if not isinstance(node, yaml.SequenceNode):
            self._note(node.start_mark.line, f'"{key}" must be a list, not {_KINDS[type(node)]}')
            return []
        return list(node.value)

    def _group(self, node: yaml.Node, name: str) -> "Section | None":
        if isinstance(node, yaml.MappingNode):
            return Section(node, self._note)
        self._note(node.start_mark.line, f"{name} must be a group of keys, not {_KINDS[type(node)]}")
        return None


def _text_faults(text: str, most: int, *, line: bool) -> Iterator[str]:
    if not text:
        yield "is empty"
    if len(text) > most:
        yield f"is {len(text)} characters long; {most} are allowed"
    # U+2028 and U+2029 break lines for some readers, and would for a header
    if line and len((text or " ").splitlines()) > 1:
        yield "must stand on one line"
    if any(not (c.isprintable() or c.isspace() or c in FORMAT) for c in text):
        yield "holds an invisible control character"


#: Invisible characters that words need: soft hyphen, joiners, and the marks of direction.
FORMAT: Final = frozenset("\u00ad\u200c\u200d\u200e\u200f\u061c\u2066\u2067\u2068\u2069")


def _listed(words: Iterable[str]) -> str:
    return ", ".join(sorted(words))
