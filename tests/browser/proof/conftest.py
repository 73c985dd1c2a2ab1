"""What readers and operators get to see, whole: every mail, page and export, made once for each test process.

Nothing is named here that the product can name itself: languages are the appeals' files, pages are those that
the product rehearses. Who adds one has it proved.
"""

import contextlib
import email
import email.policy
import io
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from worker import capture, gallery, pages, workspace
from worker.cli import main, session
from worker.readers import Form, Trial
from worker.soundings import spam
from worker.wiring import Wiring

#: What a workspace must have set before it may send both forms.
_OURS = {
    'base_url = "http://127.0.0.1:8080"': 'base_url = "https://act.example.org"',
    "#[discreet]": "[discreet]",
    '#from_address = "news@letters.example.net"': 'from_address = "news@letters.example.net"',
    '#sender_name = "Monthly letter"': 'sender_name = "Monthly letter"',
    "#discreet_base_url": "discreet_base_url",
}

_PICTURED = """\
---
subject: The clinic on Elm Street stays open
preheader: Five hundred people came, and the council listened.
attachments: ["attachments/Plan für alle, Übersicht.txt", attachments/plan.pdf]
headers: {Organization: Żółta Łódź}
actions:
  - kind: read
    text: Read how it went
    link: https://act.example.org/story
    main: true
discreet:
  sender: Monthly letter
  subject: Your letter is here
  preheader: Something to read when you have a quiet moment.
---
Dear {{ first_name | default("friend") }},

On Friday **five hundred people** stood on the square. The council voted at noon, and the clinic stays open.

![People on a square in the morning light](images/square.jpg)
The square on Friday, at a quarter past nine. [More pictures](https://act.example.org/pictures)

> We did not expect so many.
> — A nurse of the clinic

Thank you. What you wrote to your councillors was read out, letter by letter, for two hours.
"""


@contextlib.contextmanager
def _at(folder: Path) -> Iterator[pytest.MonkeyPatch]:
    """Be in a folder, with no variable of ours set."""
    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("TOCSIN_")]:
            patch.delenv(name)
        yield patch


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
    with _at(home.parent):
        _tocsin("init", home)
    config = home / "tocsin.toml"
    text = config.read_text(encoding="utf-8")
    for example, ours in _OURS.items():
        assert example in text, example
        text = text.replace(example, ours)
    config.write_text(text, encoding="utf-8")
    _add_pictured(home / "templates" / "appeals" / "pictured")
    return home


def _add_pictured(folder: Path) -> None:
    """Write an appeal that carries what the sample does not: a picture, files, a header field of its own."""
    for name in ("images", "attachments"):
        (folder / name).mkdir(parents=True)
    Image.linear_gradient("L").convert("RGB").save(folder / "images" / "square.jpg")
    (folder / "attachments" / "Plan für alle, Übersicht.txt").write_text("10:00 Ж\n", encoding="utf-8")
    (folder / "attachments" / "plan.pdf").write_bytes(bytes(range(256)) * 9)
    (folder / "en.md").write_text(_PICTURED, encoding="utf-8")


@pytest.fixture(scope="session")
def trials(office: Path) -> Mapping[str, Trial]:
    """Every appeal that ships, ready to be tried in all languages and forms."""
    with _at(office):
        found = session.settings_found()
        wiring = Wiring(found, session.Bell(found))
        return {slug: Trial(wiring.edition(slug)) for slug in workspace.appeal_slugs(found)}


def _name(slug: str, form: Form) -> str:
    return f"{slug}.{form}".replace(", ", ".")


@pytest.fixture(scope="session")
def mails(trials: Mapping[str, Trial]) -> Mapping[str, bytes]:
    """Every mail by name, as on the wire."""
    found = {
        _name(slug, form): bytes(trial.parcel(form).data)
        for slug, trial in trials.items()
        for form in trial.forms()
    }
    assert all(_name(slug, Form("en", discreet)) in found for slug in trials for discreet in (False, True))
    return found


@pytest.fixture(scope="session")
def hard_mails(trials: Mapping[str, Trial]) -> Mapping[str, bytes]:
    """Mails to a reader whose name has everything that a header must encode, fold or quote."""
    name = 'Žofia "Ž." Nováková-李小龍 (عائشة), ' + "Ἀσπασία " * 20 + "🕯"
    return {
        f"hard.{_name(slug, form)}": bytes(
            trial.parcel(form, {**dict.fromkeys(trial.fields, name), "name": name}).data
        )
        for slug, trial in trials.items()
        for form in trial.forms()
    }


@pytest.fixture(scope="session")
def letters(mails: Mapping[str, bytes]) -> Mapping[str, str]:
    """The HTML part of each of these mails, as a mail program decodes it."""
    found = {}
    for name, data in mails.items():
        body = email.message_from_bytes(data, policy=email.policy.default).get_body(("html",))
        assert body, name
        found[name] = str(body.get_content())
    return found


@pytest.fixture(scope="session")
def copies(trials: Mapping[str, Trial]) -> Mapping[str, str]:
    """The copies on the web of these appeals, as if their authors had asked for one."""
    found = {}
    for slug, trial in trials.items():
        asked = {
            name: text.replace("---\n", "---\nview_in_browser: yes\n", 1)
            for name, text in trial.edition.appeal.items()
        }
        renderer = replace(trial.edition, appeal=asked).renderer()
        found |= {f"copy.{slug}.{language}": renderer.copy(language) for language in renderer.languages}
    return found


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
    """What an operator opens: the previews, the captured mails (and none), and a person's export."""
    with _at(office) as patch:
        patch.setattr(spam, "_FILTERS", ())  # test_spam asks them
        for slug in workspace.appeal_slugs(session.settings_found()):
            _tocsin("appeals", "preview", slug)
        _tocsin("lists", "import", "lists/example.csv", "--list", "example")
        _tocsin("people", "export", "anna.bell@example.org", "--to", "answers")
    captured = [gallery.Captured(name, "b@example.org", ("a@example.org",), mails[name]) for name in mails]
    template = capture._template()
    files: Sequence[Path] = [*office.glob("var/preview/*.html"), *office.glob("answers/*.html")]
    assert {file.parent.name for file in files} == {"preview", "answers"}
    return {
        "capture": gallery.page(captured, template, left_out=1),
        "capture-empty": gallery.page([], template),
        **{f"{file.parent.name}-{file.stem}": file.read_text(encoding="utf-8") for file in files},
    }
