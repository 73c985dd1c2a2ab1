"""What readers and operators get to see, whole: every mail, page and export, made once for each test process.

Nothing is named here that the product can name itself: languages are the appeals' files, pages are those that
the product rehearses. Who adds one has it proved.
"""

import contextlib
import io
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from worker import capture, gallery, pages, workspace
from worker.cli import main, session
from worker.readers import Trial
from worker.wiring import Wiring

#: What a workspace must have set before it may send both forms.
_OURS = {
    'base_url = "http://127.0.0.1:8080"': 'base_url = "https://act.example.org"',
    "#[discreet]": "[discreet]",
    '#from_address = "news@letters.example.net"': 'from_address = "news@letters.example.net"',
    '#sender_name = "Monthly letter"': 'sender_name = "Monthly letter"',
    "#discreet_base_url": "discreet_base_url",
}


def _tocsin(*words: str | Path) -> None:
    """Run a command in this process; a failure shows what it said."""
    told = io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
        code = main([*map(str, words)])
    assert code == 0, told.getvalue()


@pytest.fixture(scope="session")
def tools() -> Path:
    """The folder of the tools that `make test` installs from tests/tools."""
    found = Path(sys.prefix) / "tools" / "node_modules"
    assert found.exists(), "others' tools are not installed: run `make test`, which installs them"
    return found


@pytest.fixture(scope="session")
def office(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a workspace that may send both forms."""
    home = tmp_path_factory.mktemp("proof") / "office"
    _tocsin("init", home)
    config = home / "tocsin.toml"
    text = config.read_text(encoding="utf-8")
    for example, ours in _OURS.items():
        assert example in text, example
        text = text.replace(example, ours)
    config.write_text(text, encoding="utf-8")
    return home


@pytest.fixture(scope="session")
def made(office: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Render every appeal in every language and form, write the preview, and export a person."""
    folder = tmp_path_factory.mktemp("made")
    with contextlib.chdir(office), pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("TOCSIN_")]:
            patch.delenv(name)
        for appeal in sorted(each for each in Path("templates/appeals").iterdir() if each.is_dir()):
            for file in appeal.glob("*.md"):
                for form in ((), ("--discreet",)):
                    _tocsin("appeals", "render", appeal.name, "--language", file.stem, *form, "--out", folder)
            _tocsin("appeals", "preview", appeal.name)
        _tocsin("lists", "import", "lists/example.csv", "--list", "example")
        _tocsin("people", "export", "anna.bell@example.org", "--to", "answers")
    return folder


@pytest.fixture(scope="session")
def mails(made: Path) -> Mapping[str, bytes]:
    """Every mail by name, as on the wire: the sample appeals in all languages and forms."""
    found = {file.stem: file.read_bytes() for file in sorted(made.glob("*.eml"))}
    assert len(found) >= 4
    return found


@pytest.fixture(scope="session")
def hard_mails(office: Path) -> Mapping[str, bytes]:
    """Mails to a reader whose name has everything that a header must encode, fold or quote."""
    with contextlib.chdir(office):
        found = session.settings_found()
        trial = Trial(Wiring(found, session.Bell(found)).edition(workspace.appeal_slugs(found)[0]))
        name = 'Žofia "Ž." Nováková-李小龍 (عائشة), ' + "Ἀσπασία " * 20 + "🕯"
        fields = {**dict.fromkeys(trial.fields, name), "name": name}
        return {f"hard.{form}": bytes(trial.parcel(form, fields).data) for form in trial.forms()}


@pytest.fixture(scope="session")
def letters(made: Path) -> Mapping[str, str]:
    """The HTML part of each of these mails."""
    return {file.stem: file.read_text(encoding="utf-8") for file in sorted(made.glob("*.html"))}


@pytest.fixture(scope="session")
def web_pages() -> Mapping[str, str]:
    """Every page of the web, in every language and for every kind of link, as the product rehearses them."""
    kept: dict[str, str] = {}

    class Kept(pages.Pages):
        def render(self, name: str, about: pages.Page | None, *more: Any, **others: Any) -> str:
            text = super().render(name, about, *more, **others)
            kept[f"{name}-{about.language if about else ''}-{len(kept)}"] = text
            return text

    shipped = Path("nowhere")
    Kept({**workspace.read_folder(shipped, "web"), **workspace.read_folder(shipped, "locale")})
    assert len(kept) >= 5 * 6
    return {name: text for text, name in {text: name for name, text in kept.items()}.items()}


@pytest.fixture(scope="session")
def desk_pages(office: Path, mails: Mapping[str, bytes]) -> Mapping[str, str]:
    """What an operator opens: the preview, the captured mails (and none), and a person's export."""
    captured = [gallery.Captured(name, "b@example.org", ("a@example.org",), mails[name]) for name in mails]
    template = capture._template()
    files: Sequence[Path] = [*office.glob("var/preview/*.html"), *office.glob("answers/*.html")]
    assert len(files) == 2
    return {
        "capture": gallery.page(captured, template, left_out=1),
        "capture-empty": gallery.page([], template),
        **{file.parent.name: file.read_text(encoding="utf-8") for file in files},
    }
