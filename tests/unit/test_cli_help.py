"""Every command explains itself: one line, described options, examples that exist; so does every document."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from worker.cli import index

ROOT = Path(__file__).parents[2]
#: Commands that tell something, and so have --json.
READING = (
    *(
        "doctor",
        "db status",
        "lists",
        "lists import",
        "appeals list",
        "appeals check",
        "appeals preview",
        "status",
        "report",
    ),
    *("verify", "unconfirmed", "suppress check", "suppress import", "send"),
    *("inbox read", "inbox list", "audit", "people show", "suppress rules add", "suppress rules list"),
    *("keys check", "keys rotate", "retention"),
    *("lists policy", "lists invite"),
)


def _walk(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        yield from _walk(child, f"{path} {name}")


COMMANDS = {
    path: command for entry in index.ENTRIES for path, command in _walk(index.load(entry.name), entry.name)
}
EVERY = pytest.mark.parametrize(("path", "command"), COMMANDS.items(), ids=COMMANDS)


def _options(command: Any) -> set[str]:
    return {word for param in command.params for word in param.opts if word.startswith("-")} | {
        "--help",
        "-h",
    }


def _wrong(line: str) -> str:
    """Return what is wrong with a `tocsin …` line, "" for nothing."""
    words = shlex.split(line.partition(" #")[0].rstrip("\\& "))[1:]
    path, rest = "", words
    while rest and f"{path} {rest[0]}".strip() in COMMANDS:
        path, rest = f"{path} {rest[0]}".strip(), rest[1:]
    if not path:
        return "" if words[:1] in ([], ["COMMAND"], ["--help"], ["--version"]) else f"no command {words[0]}"
    known = _options(COMMANDS[path])
    unknown = [word for word in rest if re.match("--?[a-z]", word) and word.partition("=")[0] not in known]
    return f"{path} has no {unknown[0]}" if unknown else ""


@EVERY
def test_every_command_begins_its_help_with_one_line(path: str, command: Any) -> None:
    """The summary is one sentence that fits a line of 80 columns."""
    summary = command.help.split("\n\n")[0]
    assert summary.endswith(".")
    assert len(summary) <= 80, path


@EVERY
def test_every_command_has_an_example_that_works(path: str, command: Any) -> None:
    """At least one, of the command itself, with options that exist."""
    if path == "suppress":
        assert command.commands  # a mere holder; its own examples are checked all the same
    lines = [line.strip() for line in command.epilog.splitlines()]
    assert lines[0] == "Examples:"
    calls = [line.replace(r"\[", "[") for line in lines[1:] if line.startswith("tocsin ")]
    assert any(line.removeprefix("tocsin ").startswith(path) for line in calls), path
    assert [wrong for line in calls if (wrong := _wrong(line))] == []


@EVERY
def test_every_option_and_argument_is_described(path: str, command: Any) -> None:
    """A word without an explanation is a riddle."""
    assert [param.name for param in command.params if not getattr(param, "help", None)] == [], path


@pytest.mark.parametrize("path", READING)
def test_every_reading_command_has_json_with_documented_keys(path: str) -> None:
    """The keys stand in the help, so that programs may rely on them."""
    assert "--json" in _options(COMMANDS[path])
    assert "JSON: " in COMMANDS[path].help


def test_every_json_option_is_of_a_reading_command() -> None:
    """The list above is whole."""
    assert {path for path, command in COMMANDS.items() if "--json" in _options(command)} == set(READING)


@pytest.mark.parametrize("entry", index.ENTRIES, ids=lambda entry: entry.name)
def test_the_index_says_the_same_as_the_commands_own_help(entry: index.Entry) -> None:
    """The first level is told without importing a command; the two must not drift apart."""
    assert COMMANDS[entry.name].help.split("\n\n")[0] == entry.summary


def _told() -> Iterator[tuple[str, str]]:
    """Yield every `tocsin …` that a document or a message of ours tells people to type."""
    for file in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        text = file.read_text(encoding="utf-8")
        for line in re.findall(r"(?m)^(?:    |\$ )?(tocsin [a-z-].*)$|`(tocsin [a-z-][^`\n]*)`", text):
            yield file.name, max(line)
    for file in sorted((ROOT / "worker").rglob("*.py")):
        for line in re.findall(r"`(tocsin [a-z-][^`\n{]*)`", file.read_text(encoding="utf-8")):
            yield file.name, line


@pytest.mark.parametrize(("file", "line"), sorted(set(_told())))
def test_every_command_that_is_told_of_exists(file: str, line: str) -> None:
    """README, docs, docstrings and remedies name commands and options that there are."""
    first = re.split(r" && | \| | < | > ", line, maxsplit=1)[0]
    assert _wrong(first.replace("…", "")) == "", file


def test_help_and_completion_load_none_of_the_heavy_parts() -> None:
    """`tocsin --help` answers at once: neither the store, the queue nor the mail stack is imported for it."""
    heavy = {"sqlalchemy", "celery", "alembic", "premailer", "pydantic_settings"}
    code = (
        "import sys; from worker.cli import main; main(['--help']); "
        f"sys.exit(bool({heavy} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=False)
    assert done.returncode == 0


def test_importing_the_command_line_has_no_effect() -> None:
    """Nothing is written, opened or connected by an import."""
    code = "import threading, worker.cli.running, worker.cli.sending; assert threading.active_count() == 1"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
