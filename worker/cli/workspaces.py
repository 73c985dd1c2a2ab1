"""`init` and `doctor`: a workspace made, and looked over.

Refuses: to touch a workspace that is there.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated

import redis
import typer

from worker import broker, doctor, workspace
from worker.cli import grammar, session, stores, terminal
from worker.doctor import Check
from worker.errors import TocsinError, Unavailable
from worker.sealing import Keyring
from worker.settings import Settings
from worker.store import keyrings
from worker.wiring import Wiring

app = grammar.commands()


@grammar.command(app, "init", "tocsin init", "tocsin init my-charity")
def init(
    *,
    folder: Annotated[
        Path, typer.Argument(metavar="[DIR]", help="Where to make it; by default here.")
    ] = Path(),
) -> None:
    """Make a workspace: settings, templates, lists, a fresh key and a store.

    What is there already stays as it is. The key in var/secret.toml seals everybody's data: without it nobody
    on a list can be read, so keep a copy of it in another safe place.
    """
    home = folder.resolve()
    workspace.make(home)
    terminal.say(f"Made a workspace in {home}:", terminal.STRONG)
    terminal.show(
        terminal.facts(
            [
                ("  tocsin.toml", "who asks, under which names, through which relay: edit this first"),
                ("  templates/", "the look, the opt-out pages, and appeals/"),
                ("  lists/", "files of recipients; an example is there"),
                ("  var/secret.toml", "the key (for you alone): keep a copy of it in another safe place"),
            ]
        )
    )
    found = session.settings_read(home)
    tocsin = Wiring(found, session.Bell(found))
    try:
        stores.bring_up(tocsin)
    finally:
        tocsin.database.close()
    terminal.say("\nNext:", terminal.STRONG)
    if home != Path.cwd():
        terminal.say(f"  cd {folder}")
    for line in ("tocsin doctor", "tocsin lists import lists/example.csv --list example", "tocsin up"):
        terminal.say(f"  {line}")


@grammar.command(app, "doctor", "tocsin doctor", "tocsin doctor --json")
def look_over(*, as_json: grammar.Json = False) -> int:
    """Check everything a campaign depends on, with a remedy for each fault.

    Settings, keys, queue, database, relay (connect, EHLO, TLS, AUTH), clocks, disk and workers. Exits 1
    if any fails.

    JSON: an array of {name, ok, detail, remedy}.
    """
    found = []
    for finding in doctor.examine(_checks()):
        found.append(finding)
        if not as_json:
            _tell(finding)
    if as_json:
        keys = ("name", "ok", "detail", "remedy")
        terminal.show_json([{key: getattr(finding, key) for key in keys} for finding in found])
    return 0 if all(finding.ok for finding in found) else 1


def _checks() -> Iterator[tuple[str, Check]]:
    """Yield what is asked, the settings first: nothing can be asked without them."""
    yield "settings", doctor.config(session.settings_found)
    try:
        found = session.settings_found()
    except TocsinError:
        return  # told by the check just above
    wiring = Wiring(found, session.Bell(found))
    private = found.broker.url == "embedded"
    text = found.secret_text
    yield (
        "keys",
        doctor.keys(lambda: text().get_secret_value(), functools.partial(_ours, wiring), found.secret_file),
    )
    yield "queue", doctor.queue(lambda: broker.client(found), broker.find_program if private else None)
    yield "database", doctor.database(wiring.database.revisions)
    relays = found.all_relays()
    for name in relays:
        yield f"relay {name}" if len(relays) > 1 else "relay", doctor.relay(wiring.relay(name).probe)
    yield "clock", doctor.clock(_clocks(found, wiring))
    yield "disk", doctor.disk(found.state)
    if session.queue_answers(found):
        yield "workers", doctor.workers(lambda: session.workers(found))
    wiring.database.close()


def _ours(wiring: Wiring, text: str) -> None:
    """Read a key ring, and hold it against the store where there is one to ask."""
    found = Keyring.load(text)
    with contextlib.suppress(Unavailable):  # told by the database's own check
        current, newest = wiring.database.revisions()
        if current == newest:
            keyrings.require(wiring.database, found)


def _clocks(found: Settings, wiring: Wiring) -> Sequence[tuple[str, Callable[[], float]]]:
    """Return the clocks of other machines; one on this machine is our own."""
    clocks: list[tuple[str, Callable[[], float]]] = []
    if not wiring.database.is_sqlite:
        clocks.append(("database", lambda: _database_time(wiring)))
    if found.broker.url != "embedded":
        clocks.append(("queue", lambda: _queue_time(found)))
    return clocks


def _database_time(wiring: Wiring) -> float:
    with wiring.database.read() as connection:
        return float(connection.exec_driver_sql("SELECT extract(epoch FROM clock_timestamp())").scalar_one())


def _queue_time(found: Settings) -> float:
    try:
        with contextlib.closing(broker.client(found)) as client:
            seconds, microseconds = client.time()
    except redis.RedisError as error:
        raise Unavailable("the queue's clock cannot be asked.", remedy="Mend the queue first.") from error
    return seconds + microseconds / 1e6


def _tell(finding: doctor.Finding) -> None:
    mark = terminal.cell("ok", terminal.GOOD) if finding.ok else terminal.cell("no", terminal.BAD)
    rows = [(mark, finding.name, finding.detail)]
    if finding.remedy:
        rows.append((terminal.cell(""), "", f"→ {finding.remedy}"))
    terminal.show(terminal.findings(rows, width=len("database")))
