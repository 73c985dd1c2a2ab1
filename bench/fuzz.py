"""Whatever strangers can feed us, a hundred thousand times: no crash, no second's thought, no wrong accept.

    .venv/bin/python bench/fuzz.py [NAME …] [--runs 100000]        (or `make fuzz`)

atheris grows the inputs by what code they reach, from the seeds below. Each reader runs in a process of its
own; an input that crashes it, holds it for over a second or is accepted wrongly stays in the folder named.
"""

import argparse
import asyncio
import base64
import contextlib
import re
import subprocess
import sys
import tempfile
import time
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Final

import atheris

#: Only who is fed needs to see where an input leads.
_WATCHED: Final = ["worker", "yaml", "python_multipart", "starlette"]
with atheris.instrument_imports(include=_WATCHED) if "--into" in sys.argv else contextlib.nullcontext():
    from worker import addresses
    from worker.content import appeals
    from worker.errors import WrongUse
    from worker.post.replies import Reply, ReplyError, scrub
    from worker.returns.sorting import sort
    from worker.returns.verdicts import Foreign
    from worker.tables import lists
    from worker.tokens import Marks, Purpose
    from worker.web import Staff, create_app

ROOT: Final = Path(__file__).parents[1]
MARKS: Final = Marks(b"k" * 32, older=[b"o" * 32])
#: The delivery that every true mark of the seeds stands for.
OURS: Final = 4711
_TRUE: Final = {
    "{bounce}": MARKS.mark(Purpose.BOUNCE, OURS),
    "{message}": MARKS.mark(Purpose.MESSAGE, OURS),
    "{opt_out}": MARKS.mark(Purpose.OPT_OUT, OURS),
    "{OPT_OUT}": MARKS.mark(Purpose.OPT_OUT, OURS).upper(),
    "{forged}": Marks(b"x" * 32).mark(Purpose.OPT_OUT, OURS),
}
_SECOND: Final = 1.0


class WrongAccept(Exception):  # noqa: N818 - it is a finding, told by its name
    """A reader took what it must refuse."""


def _must(*, hold: bool, what: str) -> None:
    if not hold:
        raise WrongAccept(what)


# -- marks -------------------------------------------------------------------------------------------


def mark(data: bytes) -> None:
    """A mark is read as a delivery only if it is letter by letter what we write for that delivery."""
    # As it is, and in the shape of a mark, so that every input comes as far as the proof.
    shaped = base64.b32encode(data[:20].ljust(20, b"\0")).decode()
    for text, purpose in product((data.decode("utf-8", "surrogateescape"), shaped), Purpose):
        found = MARKS.read(purpose, text)
        _must(hold=found is None or MARKS.mark(purpose, found) == text.lower(), what="a forged mark was read")


def _marks() -> Iterable[bytes]:
    for ring in (MARKS, Marks(b"x" * 32)):
        for purpose in Purpose:
            for number in (0, 1, OURS, 2**63 - 1):
                text = ring.mark(purpose, number)
                yield from (text.encode(), base64.b32decode(text, casefold=True))


# -- the opt-out form --------------------------------------------------------------------------------


class _Desk:
    """Stands where the store does: it remembers what words would have changed something."""

    def __init__(self) -> None:
        self.words: list[bytes] = []

    def knows(self, token: str) -> bool:
        return token == "known"  # noqa: S105 - no secret, a path

    def describe(self, token: str) -> Any:  # noqa: ANN401 - a page or nothing, as the app asks
        return _ABOUT if self.knows(token) else None

    def opt_out_all(self, tokens: Sequence[str], how: str) -> Sequence[bool]:
        self.words.append(how.encode())
        return [self.knows(token) for token in tokens]

    def stop(self, token: str, *, this_list: bool) -> Any:  # noqa: ANN401 - as the app asks
        self.words.append(b"leave" if this_list else b"stop")
        return _Stopped() if self.knows(token) else None

    def undo(self, token: str, voucher: str) -> bool | None:
        self.words.append(b"undo")
        return bool(voucher) if self.knows(token) else None

    def choices(self, token: str) -> Any:  # noqa: ANN401 - as the app asks
        return _Choices() if self.knows(token) else None

    def choose(self, token: str, wanted: object) -> Any:  # noqa: ANN401 - as the app asks
        self.words.append(b"save")
        return wanted and self.choices(token)

    def ask(self, token: str, kind: str) -> Any:  # noqa: ANN401 - as the app asks
        self.words.append(kind.encode())
        return self.describe(token)

    def pending(self, mark: str) -> None:
        pass

    def confirm(self, mark: str, again: Collection[str], wording: str) -> None:
        pass

    def guessed(self, address: str) -> int:
        return len(address) and 0

    def entered(self, address: str) -> int:
        return len(address) and 0


@dataclass(frozen=True)
class _About:
    sender: str = "Example Equality"
    list_title: str = "Appeals"
    language: str = ""
    discreet: bool = False
    test: bool = False


_ABOUT: Final = _About()


@dataclass(frozen=True)
class _Stopped:
    about: _About = _ABOUT
    voucher: str = ""


@dataclass(frozen=True)
class _Choices:
    about: _About = _ABOUT
    stopped: bool = False
    paused_until: float | None = None
    fewer: bool = False
    language: str = ""
    discreet: bool = False
    offers_discreet: bool = True
    held: bool = True
    topics: Sequence[Any] = ()
    asked: bool = False


_KINDS: Final = (
    b"application/x-www-form-urlencoded",
    b"multipart/form-data; boundary=b",
    b"application/x-www-form-urlencoded; charset=utf-8",
    b"application/json",
)


class _Form:
    """The app, built once."""

    def __init__(self) -> None:
        texts = {
            file.name: file.read_text("utf-8")
            for folder in ("web", "locale")
            for file in (ROOT / "templates" / folder).iterdir()
        }
        self._desk = _Desk()
        self._app = create_app(Staff(self._desk, self._desk, self._desk, self._desk), texts)
        self._loop = asyncio.new_event_loop()

    def __call__(self, data: bytes) -> None:
        """A post is answered, never with a 5xx, and changes only what it holds the word for."""
        choice, _, rest = data.partition(b"\n")
        kind = _KINDS[choice[0] % 4] if len(choice) == 1 else choice
        self._desk.words.clear()
        status = self._loop.run_until_complete(self._post(kind, rest))
        _must(hold=status < 500, what=f"answered {status}")
        plain = re.sub(rb"%([0-9a-f]{2})", lambda found: bytes.fromhex(found[1].decode()), rest.lower())
        _must(hold=all(word in plain for word in self._desk.words), what="changed by nobody's word")

    async def _post(self, kind: bytes, body: bytes) -> int:
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": "/o/known",
            "query_string": b"",
            "headers": [(b"content-type", kind)],
        }
        answered: list[int] = []
        waiting = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Any:  # noqa: ANN401 - a message of ASGI
            return waiting.pop() if waiting else {"type": "http.disconnect"}

        async def send(message: Mapping[str, Any]) -> None:
            answered.extend([message["status"]] if "status" in message else [])

        await self._app(scope, receive, send)
        return answered[0]


def _forms() -> Iterable[bytes]:
    yield b"\x00\nList-Unsubscribe=One-Click"
    for words in (
        b"stop",
        b"leave",
        b"undo&voucher=v",
        b"forget",
        b"export",
        b"save&pause=30&of=fewer&fewer=1&language=de",
        b"save&of=topic:a&of=topic:b&topic=a&of=discreet",
        b"confirm&again=open&again=topic:a",
    ):
        yield b"\x00\nchoice=" + words
    part = b'--b\r\nContent-Disposition: form-data; name="List-Unsubscribe"\r\n\r\nOne-Click\r\n--b--\r\n'
    yield b"\x01\n" + part
    yield b"multipart/form-data; boundary=b; charset=utf-7\n" + part
    yield b"\x01\n" + part.replace(b'name="List-Unsubscribe"', b'name="a"; filename="b"')


# -- recipients' files -------------------------------------------------------------------------------

_HIDDEN: Final = {"Cc", "Cs", "Zl", "Zp"}


def table(data: bytes) -> None:
    """A row that is taken holds a usable address, and nothing that could break a header or a screen."""
    try:
        for row in lists.read([data[:7], data[7:]], defaults=lists.Consent(basis="consent")):
            if isinstance(row, lists.Row):
                _must(hold=addresses.parse(row.address.spec) == row.address, what="an address that is none")
                told = "".join((*row.fields, *row.fields.values(), row.language, row.consent.basis))
                _must(hold=not _HIDDEN & set(map(unicodedata.category, told)), what="a hidden character")
    except WrongUse:
        return


def _tables() -> Iterable[bytes]:
    for file in (ROOT / "lists").glob("*.csv"):
        yield file.read_bytes()[:2000]
    yield "email;Имя;consent date\nann@example.org;Анна;03/04/2026\n".encode()
    yield 'email\tname\nann@example.org\t"A\nB"\n'.encode("utf-16")
    yield b"Ann <ann@example.org>\nben@example.net\n"
    yield '\ufeffE-Mail,Sprache,abgemeldet\n"j\u00f6rg@b\u00fccher.example",de,nein\n'.encode()
    yield b"email,name\n\"=cmd|' /c calc'!A0\",x\n'ann@example.org,\xe9\n"


# -- front matter ------------------------------------------------------------------------------------


_SHORT: Final = b"""---
subject: A
preheader: B
actions:
  - kind: read
    text: C
    link: https://example.org/
    main: true
    button: D
---
Body {{ town | default("there") }}
"""


def letter(data: bytes) -> None:
    """An appeal that is taken has its needed lines whole, and leads nowhere but to the web and to mail."""
    try:
        found = appeals.parse("one", {"en.md": data.decode("utf-8", "replace")}).languages["en"]
    except appeals.AppealErrors:
        return
    for line in (found.subject, found.preheader, found.sender):
        _must(hold=not _HIDDEN & set(map(unicodedata.category, line)), what="a header of two lines")
    _must(hold=bool(found.subject and found.preheader), what="an appeal without a subject")
    _must(hold=sum(action.main for action in found.actions) == 1, what="not one main action")
    for action in found.actions:
        link = action.link.strip().lower()
        _must(hold=link.startswith(("https:", "http:", "mailto:", "{")), what="a link to elsewhere")


def _letters() -> Iterable[bytes]:
    for file in sorted((ROOT / "templates/appeals").glob("*/*.md")):
        yield file.read_bytes()
    yield _SHORT
    yield b"---\na: &a [*a, !!python/object:os.system x]\n? {b: c}\n: |\n  d\n---\n{% for x in x %}{{ x }}"


# -- returned mail, and what a relay says ------------------------------------------------------------


def returned(data: bytes) -> None:
    """A returned mail moves no delivery but one whose true mark it holds."""
    verdict = sort(data, MARKS)
    if not isinstance(verdict, Foreign):
        _must(hold=verdict.delivery == OURS, what="another delivery than the mark's")


def _returned() -> Iterable[bytes]:
    for file in sorted((ROOT / "tests/returned").glob("*.eml")):
        text = file.read_text("utf-8")
        for place, true in _TRUE.items():
            text = text.replace(place, true)
        yield text.encode()


def reply(data: bytes) -> None:
    """What a relay says is a reply or is refused, and no known address stays in what is kept of it."""
    try:
        said = Reply.parse(data.splitlines())
    except ReplyError:
        return
    _must(hold=200 <= said.code < 600, what="a code that is none")
    kept = scrub(said.text, ["ann@example.org"])
    _must(hold="ann@example.org" not in kept.lower(), what="an address was kept")


def _replies() -> Iterable[bytes]:
    yield b"250-example.org\r\n250-PIPELINING\r\n250 8BITMIME\r\n"
    yield b"550 5.1.1 <ann@example.org>: Recipient address rejected: User unknown\r\n"
    yield b"421 4.7.0 [192.0.2.1 15] Our system has detected ANN=40example.org\r\n"


READERS: Final[Mapping[str, tuple[Callable[[], Callable[[bytes], None]], Callable[[], Iterable[bytes]]]]] = {
    "mark": (lambda: mark, _marks),
    "form": (_Form, _forms),
    "table": (lambda: table, _tables),
    "letter": (lambda: letter, _letters),
    "returned": (lambda: returned, _returned),
    "reply": (lambda: reply, _replies),
}


def _child(name: str, folder: Path, runs: int) -> None:
    """Feed one reader; never returns."""
    made, seeds = READERS[name]
    seen = folder / "seen"
    seen.mkdir()
    for number, seed in enumerate(seeds()):
        (seen / f"seed{number}").write_bytes(seed)
    read = made()

    def fed(data: bytes) -> None:
        begun = time.process_time()  # the machine may be busy with other things
        read(data)
        _must(hold=time.process_time() - begun < _SECOND, what="over a second")

    limits = ["-timeout=60", "-max_len=4096", "-print_final_stats=1", f"-artifact_prefix={folder}/"]
    atheris.Setup([sys.argv[0], f"-runs={runs}", "-seed=1", *limits, str(seen)], fed)
    atheris.Fuzz()


def _run(name: str, runs: int) -> bool:
    """Run one reader's process and print its line."""
    folder = Path(tempfile.mkdtemp(prefix=f"fuzz-{name}-"))
    begun = time.monotonic()
    words = [sys.executable, __file__, name, "--runs", str(runs), "--into", str(folder)]
    ended = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False)
    told = dict(re.findall(r"stat::(\w+):\s+(\d+)", ended.stderr))
    inputs, took = int(told.get("number_of_executed_units", 0)), time.monotonic() - begun
    good = ended.returncode == 0 and inputs >= runs
    print(
        f"{name:10}{inputs:10,} inputs {took:6.0f} s   {'holds' if good else f'FAILED: {folder}'}", flush=True
    )
    if not good:
        (folder / "log").write_text(ended.stdout + ended.stderr, encoding="utf-8")
        print(ended.stdout, *ended.stderr.splitlines()[-5:], sep="\n")
    return good


def main() -> int:
    """Run the readers named, or all; 1 if one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", choices=[*READERS, []], metavar="NAME", help=", ".join(READERS))
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.into:
        _child(options.names[0], options.into, options.runs)
    failed = [name for name in options.names or READERS if not _run(name, options.runs)]
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
