"""`appeals`: what a campaign says, listed, checked, written out and looked at, before anybody gets it.

Refuses: real people, but where a preview is asked for as one of them (`previewing`).
"""

import email
import email.policy
import sys
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from worker import workspace
from worker.cli import checking, grammar, previewing, session, terminal
from worker.content import appeals as contents
from worker.content import articles, drafts
from worker.content.appeals import AppealErrors
from worker.content.articles import Article
from worker.content.editions import Edition
from worker.errors import WrongUse
from worker.post.parcels import Parcel
from worker.readers import Trial
from worker.settings import Settings
from worker.wiring import Wiring

app = grammar.commands("appeals", "tocsin appeals", "tocsin appeals check chechnya-report")

Language = Annotated[
    str, typer.Option("--language", metavar="CODE", help="As in: ru; by default the appeal's own default.")
]
#: A page with its scripts has been seen with two million octets.
_ARTICLE_MOST = 5_000_000
Discreet = Annotated[bool, grammar.flag("--discreet", help="The neutral form.")]


class Part(Enum):
    """What of a mail to write out."""

    HTML = "html"
    TEXT = "text"
    SUBJECT = "subject"
    EML = "eml"


@app.callback(invoke_without_command=True)
def appeals(ctx: typer.Context) -> int:
    """Show, check and preview what a campaign says."""
    return 0 if ctx.invoked_subcommand else _list(as_json=False)


@grammar.command(app, "list", "tocsin appeals list", "tocsin appeals list --json")
def list_(*, as_json: grammar.Json = False) -> int:
    """List the appeals that can be sent, and which need mending.

    JSON: an array of {appeal, languages, subject, errors}.
    """
    return _list(as_json=as_json)


def _list(*, as_json: bool) -> int:
    found = session.settings_found()
    summaries = [_summary(found, slug) for slug in workspace.appeal_slugs(found)]
    if as_json:
        terminal.show_json(summaries)
    elif not summaries:
        terminal.say("There is no appeal yet. Begin one: tocsin appeals new NAME")
    else:
        columns = [terminal.Column(title) for title in ("Appeal", "Languages", "Subject")]
        rows = [
            (
                str(one["appeal"]),
                ", ".join(one["languages"]),
                str(one["subject"]) or f"{one['errors']} to mend: tocsin appeals check {one['appeal']}",
            )
            for one in summaries
        ]
        terminal.show(terminal.table(columns, rows))
    return 0


def _summary(found: Settings, slug: str) -> dict[str, Any]:
    try:
        appeal = contents.parse(slug, workspace.appeal_files(found, slug))
    except AppealErrors as error:
        return {"appeal": slug, "languages": [], "subject": "", "errors": len(error.findings)}
    subject = appeal.languages[appeal.default_language].subject
    return {"appeal": slug, "languages": sorted(appeal.languages), "subject": subject, "errors": 0}


checking.declare(app)


@grammar.command(
    app,
    "new",
    "tocsin appeals new clinic-closing",
    "tocsin appeals new clinic-closing --from article.html",
    "tocsin appeals new clinic-closing --from article.txt --language de",
)
def new(
    *,
    slug: Annotated[str, typer.Argument(metavar="APPEAL", help="Its name: small letters, digits, hyphens.")],
    article: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE", help="The charity's own text: .md, .txt or .html."),
    ] = None,
    language: Annotated[
        str, typer.Option("--language", metavar="CODE", help="By default the article's own, else en.")
    ] = "",
) -> None:
    """Write a draft of an appeal, from an article of your own or empty.

    Says what is still to be filled in. Nothing is overwritten.
    """
    read = Article() if article is None else _article(article)
    draft = drafts.draft(read)
    file = f"{language or read.language or 'en'}.md"
    if faults := contents.misnamed(slug, file):
        raise WrongUse(faults, remedy="As in: tocsin appeals new clinic-closing --language pt-BR")
    terminal.say(
        f"Wrote {checking.shown(workspace.add_appeal(session.settings_found(), slug, file, draft.text))}"
    )
    terminal.say("Still to be written or looked at:")
    for one in draft.unfinished:
        terminal.say(f"  {one}")
    terminal.say(f"Then: tocsin appeals check {slug}")


def _article(file: Path) -> Article:
    suffix = file.suffix.lower().lstrip(".").replace("markdown", "md").replace("text", "txt")
    form = "html" if suffix == "htm" else suffix
    if form not in set(articles.Form):
        raise WrongUse(f"{file.name} is no article", remedy="Save it as .md, .txt or .html.")
    try:
        with file.open("rb") as opened:
            data = opened.read(_ARTICLE_MOST + 1)
    except OSError as error:
        raise WrongUse(f"cannot read {file}: {error.strerror}") from error
    if len(data) > _ARTICLE_MOST:
        raise WrongUse(f"{file.name} is larger than any article", remedy="Save the text alone.")
    return articles.read(articles.decode(data, articles.Form(form)), articles.Form(form))


@grammar.command(
    app,
    "render",
    "tocsin appeals render chechnya-report",
    "tocsin appeals render chechnya-report --part html --language ru > ru.html",
    "tocsin appeals render chechnya-report --out mails",
)
def render(
    *,
    slug: grammar.Appeal,
    part: Annotated[Part, typer.Option(help="What to write to standard output.")] = Part.TEXT,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write all parts as files there instead.")
    ] = None,
    language: Language = "",
    discreet: Discreet = False,
) -> None:
    """Write out the mail that an invented reader would get: a part, or the whole."""
    trial = Trial(_edition(slug))
    form = trial.form(language, discreet=discreet)
    parts = _parts(trial.parcel(form))
    if out is None:
        _write(parts[part])
        return
    out.mkdir(parents=True, exist_ok=True)
    for each, data in parts.items():
        suffix = "subject.txt" if each is Part.SUBJECT else "txt" if each is Part.TEXT else each.value
        file = out / f"{slug}.{form.language}{'.discreet' if discreet else ''}.{suffix}"
        file.write_bytes(data)
        terminal.say(str(file))


previewing.declare(app)


def _edition(slug: str) -> Edition:
    found = session.settings_found()
    return Wiring(found, session.Bell(found)).edition(slug)


def _parts(parcel: Parcel) -> Mapping[Part, bytes]:
    """Take a mail apart as a mail program does."""
    message = email.message_from_bytes(parcel.data, policy=email.policy.default)
    bodies = {kind: message.get_body((kind,)) for kind in ("html", "plain")}
    html, text = (str(body.get_content()).encode() if body else b"" for body in bodies.values())
    subject = f"{message['Subject']}\n".encode()
    return {Part.HTML: html, Part.TEXT: text, Part.SUBJECT: subject, Part.EML: parcel.data}


def _write(data: bytes) -> None:
    """Write bytes as they are; to a terminal, only what it will not obey."""
    if sys.stdout.isatty():
        terminal.say(data.decode("utf-8", "replace").replace("\r\n", "\n").rstrip("\n"))
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
