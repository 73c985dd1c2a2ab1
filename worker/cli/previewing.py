"""`appeals preview`: what would be sent, looked at: as a page, as a page that follows edits, or as pictures.

Owns whom it is shown for and where it is written. What holds real people's data is written for us alone,
under the state folder, and nowhere else. Refuses: to send anything, and links that work.
"""

import datetime as dt
import hashlib
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from worker import coffer, previews, screenshots, workspace
from worker.cli import checking, completion, grammar, incoming, session, terminal
from worker.content.checks.findings import Finding
from worker.content.checks.table import SOURCE
from worker.deeds import Action
from worker.errors import Refused, TocsinError, WrongUse
from worker.frames import Scheme
from worker.readers import Form, Trial
from worker.sealing import Person
from worker.settings import Settings
from worker.store.audience import Rule
from worker.wiring import Wiring

_MOST = 50
_PORT = 8090


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What to show."""

    appeal: str
    language: str
    discreet: bool
    people: Sequence[Person] = ()

    @property
    def stem(self) -> str:
        """The beginning of the files' names; what holds personal data says so."""
        return f"{self.appeal}.people" if self.people else self.appeal

    def forms(self, trial: Trial) -> Sequence[Form]:
        """Return which of the appeal's mails."""
        if self.language or self.discreet:
            return [trial.form(self.language, discreet=self.discreet)]
        return list(trial.forms())


def declare(app: typer.Typer) -> None:
    """Add the command to a group."""
    grammar.command(
        app,
        "preview",
        "tocsin appeals preview chechnya-report",
        "tocsin appeals preview chechnya-report --serve",
        "tocsin appeals preview chechnya-report --png --out pictures --language ru",
        "tocsin appeals preview chechnya-report --list supporters --random 3",
    )(preview)


def preview(  # noqa: PLR0913 - each is an option of the command
    *,
    slug: grammar.Appeal,
    language: Annotated[
        str, typer.Option("--language", metavar="CODE", help="Only this one; by default all.")
    ] = "",
    discreet: Annotated[bool, grammar.flag("--discreet", help="Only the neutral form.")] = False,
    as_: Annotated[
        list[str] | None,
        typer.Option(
            "--as",
            metavar="ADDRESS",
            help="As this person would get it; may be repeated; - reads it from standard input.",
        ),
    ] = None,
    lists: Annotated[
        list[str] | None,
        typer.Option(
            "--list", metavar="SLUG", help="With --random: of these lists.", autocompletion=completion.lists
        ),
    ] = None,
    number: Annotated[
        int, typer.Option("--random", metavar="N", min=0, max=_MOST, help="As N people picked by chance.")
    ] = 0,
    serve: Annotated[
        bool, grammar.flag("--serve", help="Serve it on this machine, and follow your edits.")
    ] = False,
    port: Annotated[
        int, typer.Option(metavar="N", min=0, max=65535, help="With --serve: where; 0 for any free port.")
    ] = _PORT,
    png: Annotated[
        bool, grammar.flag("--png", help="Take pictures instead, with an installed Chromium or Chrome.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="With --png: where they go; by default var/preview.")
    ] = None,
    as_json: grammar.Json = False,
) -> None:
    """Write one page that shows every mail of an appeal, and all that `check` found.

    At phone and desktop width, light and dark, with pictures off; text, headers, source, size. The page
    fetches nothing and runs nothing; open it in any browser. It is for an invented reader, unless you name
    people or have some picked: then it holds personal data, and is kept under var/preview for you alone.

    JSON: {appeal, files, personal, findings}; not with --serve.
    """
    _mind(serve=serve, png=png, out=out, number=number, lists=lists or (), as_json=as_json)
    found = session.settings_found()
    workspace.appeal_files(found, slug)  # a slip of the name is told before anybody is looked up
    people = _people(as_ or (), lists or (), number, slug)
    if people and (language or discreet):
        raise WrongUse(
            "a person gets the language and form that are theirs",
            remedy="Leave --language or --discreet out.",
        )
    if people and out is not None:
        raise WrongUse(
            "pictures with real people's data stay under var/preview", remedy="Leave --out out, or --as."
        )
    wanted = _Wanted(slug, language, discreet, people)
    if serve:
        _serve(found, wanted, port)
        return
    told = _Looked.at(found, wanted, outside=not png)
    files = list(_pictures(found, wanted, told, out)) if png else [_written(found, wanted, told.page(""))]
    if as_json:
        terminal.show_json(_facts(wanted, told, files))
    else:
        _tell(wanted, told, files)


def _mind(
    *, serve: bool, png: bool, out: Path | None, number: int, lists: Sequence[str], as_json: bool
) -> None:
    if serve and (png or as_json):
        raise WrongUse("--serve goes on until Ctrl-C", remedy="Leave --png and --json out.")
    if out is not None and not png:
        raise WrongUse("--out is where pictures go", remedy="Add --png.")
    if bool(number) != bool(lists):
        raise WrongUse("--random picks people of a list", remedy="As in: --list supporters --random 3")


# -- whom it is shown for --------------------------------------------------------------------------


def _people(named: Sequence[str], lists: Sequence[str], number: int, appeal: str) -> Sequence[Person]:
    """Open the records of those named and of some picked; that is written down."""
    if not named and not number:
        return ()
    with session.opened() as tocsin:
        people = [_named(tocsin, one) for one in named]
        if number:
            people += _picked(tocsin, lists, number)
        tocsin.audit.note(session.deed(tocsin, Action.APPEALS_PREVIEW, appeal, people=len(people)))
    return people


def _named(tocsin: Wiring, who: str) -> Person:
    person = tocsin.rights.find(incoming.word(who)).person
    if person is None:
        raise Refused("there is no record of that person that opens", remedy="See `tocsin people show -`.")
    return person


def _picked(tocsin: Wiring, lists: Sequence[str], number: int) -> Sequence[Person]:
    rule = Rule(tuple(one.id for one in tocsin.people.find_lists(lists)))
    found = tocsin.plans.records(tocsin.plans.some(rule, number))
    people = [Person.from_bytes(tocsin.keyring.open(each, sealed)) for each, sealed in found]
    if not people:
        raise Refused("nobody on these lists would be written to", remedy="See `tocsin lists`.")
    return people


# -- what is shown ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Looked:
    """An appeal as it stands now."""

    preview: previews.Preview
    mails: Sequence[previews.Mail]
    template: str

    @classmethod
    def at(cls, found: Settings, wanted: _Wanted, *, outside: bool) -> "_Looked":
        """Make the mails and examine them; `outside` asks an installed spam filter too."""
        result = checking.examined(found, wanted.appeal, outside=outside)
        notes, mails, forms = [], list[previews.Mail](), tuple[str, ...]()
        if trial := result.trial:
            forms = tuple(map(str, trial.forms()))
            mails = list(previews.mails(trial, wanted.forms(trial), wanted.people))
            if trial.edition.discreet is None:
                notes.append("The discreet form is not shown: there is no [discreet] table in tocsin.toml.")
        return cls(
            _preview(wanted, result.findings, forms, notes),
            mails,
            _template(found),
        )

    def page(self, stamp: str) -> str:
        """Write the page."""
        return previews.page(self.preview, self.mails, self.template, stamp=stamp)


def _preview(
    wanted: _Wanted, findings: Sequence[Finding], forms: tuple[str, ...] = (), notes: Sequence[str] = ()
) -> previews.Preview:
    made_at = dt.datetime.now().astimezone().strftime("%-d %B %Y, %H:%M")
    return previews.Preview(wanted.appeal, made_at, bool(wanted.people), findings, forms, notes)


def _template(found: Settings) -> str:
    try:
        return workspace.read_folder(found.templates, "preview")["index.html"]
    except KeyError as error:
        raise WrongUse(
            "templates/preview/index.html is missing", remedy="Copy it from a fresh `tocsin init`."
        ) from error


def _room(found: Settings) -> Path:
    """Return the folder of previews, which is ours alone."""
    folder = found.state / "preview"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _written(found: Settings, wanted: _Wanted, page: str) -> Path:
    """Write the page for us alone, whole or not at all."""
    file = _room(found) / f"{wanted.stem}.html"
    draft = file.with_suffix(".new")
    with coffer.begun(draft) as opened:
        opened.write(page.encode())
    return draft.replace(file)


def _pictures(found: Settings, wanted: _Wanted, looked: _Looked, out: Path | None) -> Iterator[Path]:
    """Take four pictures of each mail: on a phone and a desktop, light and dark."""
    room = _room(found)
    folder = out or room
    folder.mkdir(parents=True, exist_ok=True)
    wanted_ones = [
        screenshots.Picture(f"{_name(wanted, mail)}.{device}.{scheme}", mail.frame(scheme), width)
        for mail in looked.mails
        for device, width in previews.WIDTHS.items()
        for scheme in Scheme
    ]
    with terminal.busy(f"Taking {len(wanted_ones)} pictures…"):
        yield from screenshots.take(wanted_ones, folder, room)


def _name(wanted: _Wanted, mail: previews.Mail) -> str:
    """Name a mail's files; a person is a number there, never an address."""
    form = f"{mail.form.language}.discreet" if mail.form.discreet else mail.form.language
    return f"{wanted.stem}.{mail.number}.{form}" if wanted.people else f"{wanted.stem}.{form}"


def _facts(wanted: _Wanted, looked: _Looked, files: Sequence[Path]) -> dict[str, object]:
    return {
        "appeal": wanted.appeal,
        "files": [str(file) for file in files],
        "personal": bool(wanted.people),
        "findings": [checking.fact(one) for one in looked.preview.findings],
    }


def _tell(wanted: _Wanted, looked: _Looked, files: Sequence[Path]) -> None:
    for file in files:
        terminal.say(f"{'Open' if file.suffix == '.html' else 'Took'} {checking.shown(file)}")
    terminal.say(f"Found: {looked.preview.verdict}. See `tocsin appeals check {wanted.appeal}`.")
    for note in looked.preview.notes:
        terminal.warn(note)
    if wanted.people:
        _warn_of_people(files[0].parent)


def _warn_of_people(folder: Path) -> None:
    terminal.warn(
        f"It shows real people's data. Delete it when you have looked: {checking.shown(folder)}/*.people.*"
    )


# -- served ----------------------------------------------------------------------------------------


def _serve(found: Settings, wanted: _Wanted, port: int) -> None:
    """Serve the page until Ctrl-C."""
    from worker import serving, showcase  # noqa: PLC0415 - the web's libraries load slowly, and only here

    secret = secrets.token_urlsafe(12)
    app = showcase.create_app(secret, lambda: _stamp(found, wanted), _maker(found, wanted))

    def ready(taken: int) -> None:
        terminal.say(f"Open http://127.0.0.1:{taken}/{secret}/")
        terminal.say("It follows your edits. Ctrl-C ends it.", terminal.FAINT)

    try:
        serving.serve(app, "127.0.0.1", port, ready=ready)
    except WrongUse as error:
        raise WrongUse(
            str(error), remedy="Choose another with --port; --port 0 takes any that is free."
        ) from error
    terminal.say("The preview has stopped.")


def _stamp(found: Settings, wanted: _Wanted) -> str:
    """Return what tells two states of the files apart."""
    folders = [found.templates / name for name in ("look", "locale", "preview", f"appeals/{wanted.appeal}")]
    files = [file for folder in folders for file in sorted(folder.rglob("*"))]
    told = hashlib.sha256()
    for file in [*files, *([found.file] if found.file else [])]:
        try:
            state = file.stat()
        except OSError:  # gone between the two looks, as editors do it
            continue
        told.update(f"{file}\0{state.st_mtime_ns}\0{state.st_size}\0{state.st_ino}\n".encode())
    return told.hexdigest()[:16]


def _maker(found: Settings, wanted: _Wanted) -> Callable[[str], str]:
    def make(stamp: str) -> str:
        try:
            return _Looked.at(session.settings_found(), wanted, outside=False).page(stamp)
        except TocsinError as error:  # half of an edit; the next one may mend it
            fault = SOURCE.found(str(error), "the files")
            return previews.page(_preview(wanted, [fault]), (), _template(found), stamp=stamp)

    return make
