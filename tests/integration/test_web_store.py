"""The opt-out pages over a real store: one that goes away in the middle of a POST, and comes back."""

import asyncio
import secrets
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import kills
import pytest
import sqlalchemy as sa
from starlette.types import ASGIApp

from worker import processes
from worker.addresses import parse
from worker.feedback import OptOuts
from worker.invitations import Invitations
from worker.notices import Confirmations
from worker.preferences import Preferences
from worker.rights import Rights
from worker.sealing import Keyring, Person
from worker.store.audience import Rule
from worker.store.database import Database
from worker.store.notices import Notices
from worker.store.people import People
from worker.store.plans import Draft, Plans
from worker.store.schema import deliveries, facts, suppressions
from worker.store.staging import Staged
from worker.tokens import Marks, Purpose
from worker.web import Staff, create_app

_PEOPLE = 40
_ROOT = Path(__file__).parents[2]
_FORM = {"content-type": "application/x-www-form-urlencoded"}


class _Anybody:
    """Lets everybody guess."""

    def guessed(self, _address: str) -> int:
        """Turn nobody away."""
        return 0


class Site:
    """Forty people with a mail each, and the pages. The record of every second one opens."""

    def __init__(self, database: Database) -> None:
        self.database, keyring = database, Keyring.generate(secrets.token_bytes)
        self.marks = keyring.marks()
        known = Person(parse("someone@example.org"), {}, discreet=True).to_bytes()
        store = People(database)
        consent = store.consent_ids([("consent", "form", "")])[0]
        with store.begin_import() as opened:
            records = [
                (n, keyring.seal(n, known, secrets.token_bytes(12)) if n % 2 else b"x" * 64)
                for n in range(1, _PEOPLE + 1)
            ]
            opened.add([Staged(n.to_bytes(16, "big"), n, one, "other", consent, 1.0) for n, one in records])
            opened.finish("one", "One", 1.0)
        rule = Rule((store.find_lists(["one"])[0].id,))
        plans = Plans(database, batch_size=100)
        draft = Draft("a", "{}", rule, "d", "running", "op", "op", 0.0, "UTC", None)
        plans.slice(plans.record(draft, 1.0), 100, 1.0)
        with database.read() as connection:
            ids = connection.execute(sa.select(deliveries.c.id).order_by(deliveries.c.person_id)).scalars()
            self.ids = list(ids)
        self.paths = [f"/o/{self.marks.mark(Purpose.OPT_OUT, number)}" for number in self.ids]
        opt_outs = OptOuts(database, keyring, sender="A", discreet_sender="B", clock=time.time)
        rights = Rights(database, keyring, random=secrets.token_bytes, clock=time.time)
        preferences = Preferences(database, opt_outs, rights, offers_discreet=False, clock=time.time)
        confirmations = Confirmations(
            Notices(database),
            opt_outs,
            rights,
            preferences,
            Invitations(
                database,
                keyring,
                senders={False: "Example Equality", True: "Letters"},
                random=secrets.token_bytes,
                clock=time.time,
            ),
            keyring.marks(),
            portray=lambda _subject: {},
            note=lambda _deed: None,
            clock=time.time,
        )
        files = {
            path.name: path.read_text("utf-8")
            for folder in ("web", "locale")
            for path in (_ROOT / "templates" / folder).iterdir()
        }
        self.app: ASGIApp = create_app(Staff(opt_outs, preferences, confirmations, _Anybody()), files)

    def stored(self) -> tuple[int, int]:
        """Count suppressions and facts."""
        with self.database.read() as connection:
            count = sa.select(sa.func.count())
            return (
                connection.execute(count.select_from(suppressions)).scalar_one(),
                connection.execute(count.select_from(facts)).scalar_one(),
            )

    def waiting(self) -> bool:
        """Tell whether a POST's transaction hangs at a lock."""
        query = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        with self.database.read() as connection:
            return connection.exec_driver_sql(query).first() is not None


@pytest.fixture
def away() -> Iterator[tuple[Site, kills.Postgres]]:
    """A site on a PostgreSQL of its own."""
    with tempfile.TemporaryDirectory(prefix="awaypg") as folder:
        postgres = kills.Postgres(Path(folder))
        database = Database(postgres.url)
        database.upgrade()
        yield Site(database), postgres
        database.close()
        postgres.stop()


def body_of(place: int) -> bytes:
    """Return what each of them posts: mailboxes and, every fourth, somebody at the page."""
    return b"choice=stop" if place % 4 == 0 else b"List-Unsubscribe=One-Click"


async def _post(client: httpx.AsyncClient, paths: Sequence[str]) -> list[httpx.Response]:
    posts = (client.post(path, content=body_of(place), headers=_FORM) for place, path in enumerate(paths))
    return list(await asyncio.gather(*posts))


async def _through(site: Site, postgres: kills.Postgres) -> Sequence[Sequence[httpx.Response]]:
    transport = httpx.ASGITransport(site.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://pages.example.org") as client:
        held = site.database.engine.connect()
        held.exec_driver_sql("LOCK TABLE suppressions IN ACCESS EXCLUSIVE MODE")
        posts = asyncio.create_task(_post(client, site.paths))
        hangs = await asyncio.to_thread(processes.until, site.waiting, seconds=20)
        assert hangs, "no POST came as far as the store"
        postgres.stop(signal.SIGQUIT)  # at once, with no goodbye to anybody
        first = await posts
        held.invalidate()
        held.close()
        without = await _post(client, site.paths[:4])
        postgres.start()
        assert site.stored() == (0, 0)
        return first, without, await _post(client, site.paths)


def test_none_is_lost_and_none_is_called_done_while_the_database_is_away(
    away: tuple[Site, kills.Postgres],
) -> None:
    """Stopped in mid-POST: each is told 503 and when to come again, nothing is stored, the next counts."""
    site, postgres = away
    first, without, again = asyncio.run(_through(site, postgres))
    for answer in (*first, *without):
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
        assert "nothing has changed" in answer.text
    assert Counter(answer.status_code for answer in again) == {200: _PEOPLE}
    assert site.stored() == (_PEOPLE, _PEOPLE)


#: Everything that can be asked of a link.
_ASKED = (
    *(("GET", "", b""), ("GET", "?choices", b""), ("POST", "", b"List-Unsubscribe=One-Click")),
    *(
        ("POST", "", b"choice=" + choice)
        for choice in (b"stop", b"leave", b"save&pause=30", b"forget", b"export")
    ),
    ("POST", "", b"choice=undo&voucher=" + b"a" * 32),
)
#: An answer: its status, its header fields, its body.
_Answer = tuple[int, tuple[tuple[str, str], ...], bytes]


async def _ask(app: ASGIApp, paths: Sequence[str]) -> list[list[_Answer]]:
    """Ask everything of each path, in order; return what was answered to each."""
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://pages.example.org") as client:
        answers = []
        for path in paths:
            told = [
                await client.request(method, path + query, content=body, headers=_FORM)
                for method, query, body in _ASKED
            ]
            answers.append([(one.status_code, tuple(one.headers.items()), one.content) for one in told])
        return answers


def _statements(site: Site, paths: Sequence[str]) -> tuple[list[list[_Answer]], list[str]]:
    """Ask everything of each path; return the answers, and what the store was asked for them."""
    asked: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        asked.append(statement)

    sa.event.listen(site.database.engine, "before_cursor_execute", note)
    try:
        return asyncio.run(_ask(site.app, paths)), asked
    finally:
        sa.event.remove(site.database.engine, "before_cursor_execute", note)


def test_all_links_that_are_not_ours_get_one_answer_and_never_reach_the_store(database: Database) -> None:
    """Status, header fields and body tell a forger nothing, and nor does the store's time: it is not asked.

    Whether the number that a forged mark holds is somebody's makes no difference, for nobody looks.
    """
    site = Site(database)
    strangers, ours = Marks(b"k" * 32), site.marks.mark(Purpose.OPT_OUT, site.ids[0])
    wrong = [
        *(strangers.mark(Purpose.OPT_OUT, number) for number in (site.ids[0], 10**12)),
        *(ours[:at] + ("a" if ours[at] != "a" else "b") + ours[at + 1 :] for at in (0, 15, 31)),
        *(site.marks.mark(purpose, site.ids[0]) for purpose in (Purpose.BOUNCE, Purpose.MESSAGE)),
        *("x", "a" * 32, ours + "a", ours[:-1]),
    ]
    answers, asked = _statements(site, [f"/o/{mark}" for mark in wrong])
    assert asked == []
    assert len({one for each in answers for one in each}) == 1
    assert answers[0][0][0] == 404
    # Only who has our key can write a mark of a number that is nobody's; even theirs is answered the same.
    (nobodys,), _ = _statements(site, [f"/o/{site.marks.mark(Purpose.OPT_OUT, 10**12)}"])
    assert nobodys == answers[0]


def test_what_is_answered_does_not_tell_whether_we_hold_somebody(database: Database) -> None:
    """Whose record we hold and whose we do not get the same answers, the first time and the second.

    But for the page of preferences, which offers what can be kept; whoever sees it holds their mail.
    """
    site = Site(database)
    answers, _ = _statements(site, [path for path in site.paths[:4] for _ in range(2)])
    same = [[one[at] for at in (0, 2, 6, 7)] for one in answers]  # look, one click, forget, export
    assert [one[0] for one in same[0]] == [200] * 4
    assert all(one == same[0] for one in same)
