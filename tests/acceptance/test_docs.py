"""What the documents tell people to type works: each command, each option, the first campaign, each link."""

import os
import pty
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from worker import capture, processes
from worker.cli import index
from worker.content import appeals

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
EVERY_DOCUMENT = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)

#: Lines of the README's first campaign that a test cannot run as they stand, and what it runs instead.
STAND_INS: Mapping[str, str] = {
    # Done already, or these tests would not run; it would install from the network.
    "make install && . .venv/bin/activate": "true",
    # In the background, as told; the script must know when it answers, and keep its output apart.
    "tocsin up &": "tocsin up > up.log 2>&1 & up=$!; until_up",
    # It goes on until somebody presses Ctrl-C.
    "tocsin status --watch": "tocsin status",
}
#: Exit codes other than 0: a campaign that starts in 2030 is not accounted for yet.
CODES: Mapping[str, int] = {"tocsin verify chechnya-report-1": 1}

#: Plays $EDITOR: what an operator has to set, and a relay on this machine.
_EDITOR = """\
import pathlib, re, sys
values, file = {values!r}, pathlib.Path(sys.argv[1])
text = file.read_text(encoding="utf-8")
for section, key, value in values:
    pattern = rf"(?ms)^(\\[{{section}}\\]\\n.*?^)#?{{key}} = [^\\n]*$"
    text, found = re.subn(pattern, lambda match: f"{{match[1]}}{{key}} = {{value}}", text, count=1)
    assert found, (section, key)
file.write_text(text, encoding="utf-8")
"""


def _tree() -> dict[str, Any]:
    """Return every command by its words."""

    def walk(path: str, command: Any) -> Iterator[tuple[str, Any]]:
        yield path, command
        for name, child in getattr(command, "commands", {}).items():
            yield from walk(f"{path} {name}", child)

    return {path: one for entry in index.ENTRIES for path, one in walk(entry.name, index.load(entry.name))}


COMMANDS = _tree()


def _options(command: Any) -> set[str]:
    return {word for each in command.params for word in each.opts if word.startswith("-")} | {"--help", "-h"}


def _calls(document: Path) -> Iterator[str]:
    """Yield each `tocsin …` that a document shows, in a block or within a line."""
    text = document.read_text(encoding="utf-8")
    for block in re.findall(r"(?ms)^```sh\n(.*?)^```$", text):
        yield from re.findall(r"(?m)(?:^|&& )(tocsin .*)$", block.replace("\\\n", " "))
    prose = re.sub(r"(?ms)^```.*?^```$", "", text)
    yield from re.findall(r"`(tocsin [^`]*)`", prose)


def _faults(call: str) -> Iterator[str]:
    """Yield what is wrong with a `tocsin …` line: an unknown command, option, or a choice too many."""
    words = shlex.split(re.split(r" && | \| | [<>&]", call.partition(" #")[0])[0])[1:]
    path = ""
    while words and f"{path} {words[0]}".strip() in COMMANDS:
        path = f"{path} {words.pop(0)}".strip()
    if not path:
        if words[:1] != ["COMMAND"]:
            yield f"no such command: {call}"
        return
    if words and hasattr(COMMANDS[path], "commands") and not words[0].startswith("-"):
        yield f"no such command: {call}"
    for word in words:
        if word.startswith("-") and word != "-" and word.partition("=")[0] not in _options(COMMANDS[path]):
            yield f"{path} has no {word}"


@EVERY_DOCUMENT
def test_every_command_in_the_documents_exists(document: Path) -> None:
    """Every `tocsin …` is a command of ours with options that it has."""
    assert [fault for call in _calls(document) for fault in _faults(call)] == []


@EVERY_DOCUMENT
def test_every_option_named_alone_belongs_to_some_command(document: Path) -> None:
    """An option in running text is one that can be given."""
    named = set(re.findall(r"`(--[a-z][a-z-]*)", document.read_text(encoding="utf-8")))
    assert named - set().union(*map(_options, COMMANDS.values())) == set()


def test_the_examples_of_a_help_can_be_pasted() -> None:
    """A line that goes on ends in one backslash: after two, a shell would run half of it."""
    argv = [sys.executable, "-m", "worker.cli", "send", "--help"]
    told = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    going_on = [line.rstrip() for line in told.splitlines() if line.rstrip().endswith("\\")]
    assert going_on
    assert not [line for line in going_on if line.endswith("\\\\")]


def test_the_documents_show_commands() -> None:
    """The searches above find something to check."""
    found = [call for document in DOCUMENTS for call in _calls(document)]
    assert len(found) > 40
    assert list(_faults("tocsin sned --list x"))
    assert list(_faults("tocsin status --wacht"))
    assert list(_faults("tocsin lists imprt x"))


@EVERY_DOCUMENT
def test_every_test_that_is_named_exists(document: Path) -> None:
    """What a document gives as its proof is there under that name."""
    for file, name in re.findall(r"`(tests/[a-z_/]+\.py)(?:::(\w+))?`", document.read_text(encoding="utf-8")):
        assert f"def {name}" in (ROOT / file).read_text(encoding="utf-8"), f"{file}::{name}"


@EVERY_DOCUMENT
def test_every_relative_link_leads_somewhere(document: Path) -> None:
    """A link or picture of the documents is a file of the repository, and an anchor a heading in it."""
    text = re.sub(r"(?ms)^```.*?^```$", "", document.read_text(encoding="utf-8"))
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = unquote(link).partition("#")
        target = (document.parent / path) if path else document
        assert target.exists(), link
        if anchor:
            assert anchor in _anchors(target), link


def _anchors(document: Path) -> set[str]:
    headings = re.findall(r"(?m)^#+ (.*)$", document.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_appeal_in_the_guide_is_well() -> None:
    """Whoever copies the guide's example gets an appeal without a fault."""
    text = (ROOT / "docs" / "guide.md").read_text(encoding="utf-8")
    example = re.search(r"(?ms)^```markdown\n(.*?)^```$", text)
    assert example
    appeal = appeals.parse("clinic-closing", {"en.md": example[1]})
    assert appeal.languages["en"].discreet


def _first_campaign() -> list[str]:
    """Return the lines of the README's block, without their comments."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(r"(?ms)^## A first real campaign$.*?^```sh\n(.*?)^```$", text)
    assert block
    return [line.partition(" #")[0].rstrip() for line in block[1].splitlines() if line.strip()]


def _script(lines: list[str], port: int) -> str:
    """Return the lines as a script that stops at the first unexpected exit code and names the line."""
    answers = f"(: < /dev/tcp/127.0.0.1/{port}) 2> /dev/null"  # bash's own: starts nothing
    steps = [
        f"until_up() {{ until {answers}; do kill -0 $up || return 1; sleep 0.1; done; }}",
        "trap 'kill $up 2> /dev/null; wait $up' EXIT",
    ]
    for number, line in enumerate(lines):
        steps += [STAND_INS.get(line, line), "code=$?", f"echo ran {number} $code"]
        steps.append(f"[ $code = {CODES.get(line, 0)} ] || exit 1")
    steps += ["kill $up", "wait $up", "code=$?", "trap - EXIT", "echo stopped $code"]
    return "\n".join(steps)


def test_the_first_real_campaign_of_the_readme_runs(tmp_path: Path) -> None:
    """Line by line as it stands, but for the stand-ins above, against a mail server of our own."""
    lines = _first_campaign()
    assert set(STAND_INS) | set(CODES) <= set(lines)
    port = processes.free_port()
    outbox = tmp_path / "outbox"
    outbox.mkdir()
    with capture.running(outbox) as relay:
        values = [
            ("organisation", "name", '"Fair Shore"'),
            ("organisation", "postal_address", '"2 Harbour Road, Leith"'),
            ("mail", "from_address", '"appeals@fairshore.example.org"'),
            ("relay", "host", '"127.0.0.1"'),
            ("relay", "security", '"plain"'),
            ("relay", "port", str(relay.port)),
            ("web", "base_url", f'"http://127.0.0.1:{port}"'),
            ("web", "port", str(port)),
        ]
        editor = tmp_path / "editor.py"
        editor.write_text(_EDITOR.format(values=values), encoding="utf-8")
        code, told = _typed(_script(lines, port), tmp_path, f"{sys.executable} {editor}")
        mails = list(capture.kept(outbox))
    ran = re.findall(r"(?m)^ran (\d+) (\d+)$", told)
    assert ran == [(str(number), str(CODES.get(line, 0))) for number, line in enumerate(lines)], told
    assert code == 0, told
    assert told.rstrip().endswith("stopped 0")
    assert [mail.recipients for mail in mails] == [("you@example.org",)]  # the test mail, and nobody else yet


def _typed(script: str, folder: Path, editor: str) -> tuple[int, str]:
    """Run a script as if at a terminal, where a yes is typed; return its exit code and all it said."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TOCSIN_")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', os.defpath)}"
    ours, theirs = pty.openpty()
    try:
        os.write(ours, b"y\n")
        done = subprocess.run(
            ["timeout", "300", "bash", "-c", script],  # which ends what bash has started as well
            cwd=folder,
            env={**kept, "PATH": path, "EDITOR": editor, "NO_COLOR": "1", "COLUMNS": "100"},
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    finally:
        os.close(ours)
        os.close(theirs)
    return done.returncode, done.stdout
