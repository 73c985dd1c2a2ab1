"""The `tocsin` command as an operator runs it, in a workspace of its own, on an 80-column pipe."""

import contextlib
import io
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog

from worker.cli import main
from worker.soundings import spam

#: What a workspace must have set before it may send, and a relay on this machine that nobody listens at.
_OURS = {
    'name = "Example Equality"': 'name = "Fair Shore"',
    'postal_address = "1 Example Street, London N1 1AA"': 'postal_address = "2 Harbour Road, Leith"',
    'from_address = "appeals@example.org"': 'from_address = "appeals@fairshore.example.org"',
    'host = "smtp.example.org"': 'host = "127.0.0.1"',
    'security = "starttls"': 'security = "plain"',
    'base_url = "http://127.0.0.1:8080"': 'base_url = "https://act.example.org"',
}


@dataclass(frozen=True)
class Ran:
    """What one command came to."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Read the output as JSON."""
        return json.loads(self.out)


Tocsin = Callable[..., Ran]


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Be in a folder, with no variable of ours set; for fixtures that outlive one test."""
    kept, before = dict(os.environ), Path.cwd()
    for name in [name for name in os.environ if name.startswith("TOCSIN_")]:
        del os.environ[name]
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
        os.environ.clear()
        os.environ.update(kept)
        structlog.reset_defaults()


@pytest.fixture(scope="session")
def _fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make one workspace that may send, to be copied."""
    folder = tmp_path_factory.mktemp("fresh") / "office"
    with _alone(folder.parent):
        assert main(["init", str(folder)]) == 0
    config = folder / "tocsin.toml"
    text = config.read_text(encoding="utf-8")
    for example, ours in _OURS.items():
        assert example in text, example
        text = text.replace(example, ours)
    config.write_text(re.sub(r"(?m)^#? ?port = (587|25)$", "port = 9", text), encoding="utf-8")
    # Each plan tries every mail of an appeal: two languages are enough here, six are proved elsewhere.
    for file in (folder / "templates" / "appeals" / "chechnya-report").glob("*.md"):
        if file.stem not in {"en", "ru"}:
            file.unlink()
    return folder


@pytest.fixture(scope="session")
def _peopled(_fresh: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make one workspace with a list "example" of the 41 people that ship, to be copied."""
    folder = tmp_path_factory.mktemp("peopled") / "office"
    shutil.copytree(_fresh, folder)
    with _alone(folder):
        assert main(["lists", "import", "lists/example.csv", "--list", "example"]) == 0
    return folder


@pytest.fixture
def workspace(_fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have a workspace that may send, and be there."""
    monkeypatch.chdir(shutil.copytree(_fresh, tmp_path / "office"))
    return tmp_path / "office"


@pytest.fixture
def people(_peopled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have a workspace with the list "example", and be there."""
    monkeypatch.chdir(shutil.copytree(_peopled, tmp_path / "office"))
    return tmp_path / "office"


@pytest.fixture(scope="session")
def filters() -> object:
    """The spam filters that would be asked."""
    return spam._FILTERS


@pytest.fixture
def tocsin(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Tocsin]:
    """Run a command line in this process, as `alice`; `stdin` is no terminal."""
    for name in [name for name in os.environ if name.startswith("TOCSIN_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TOCSIN_OPERATOR", "alice")
    monkeypatch.setenv("COLUMNS", "80")
    # It takes seconds each time; that it is asked and understood, tests/browser/proof shows.
    monkeypatch.setattr(spam, "_FILTERS", ())

    def run(*words: str, stdin: bytes = b"") -> Ran:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
        capsys.readouterr()
        code = main(words)
        told = capsys.readouterr()
        return Ran(code, told.out, told.err)

    yield run
    structlog.reset_defaults()
