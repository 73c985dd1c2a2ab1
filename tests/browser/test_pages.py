"""The opt-out pages as readers use them, in a real Chromium: by keyboard, without scripts, zoomed, dark.

Run as a program this file is the server: real pages over a real store, with a reader of each kind.
"""

import json
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from playwright.sync_api import Page, expect

from worker import processes
from worker.addresses import parse
from worker.cli import dossiers
from worker.deeds import Action, Deed
from worker.feedback import OptOuts
from worker.invitations import Invitations
from worker.notices import Confirmations
from worker.policies import Policy
from worker.preferences import Preferences, Topic
from worker.rights import Rights
from worker.sealing import Keyring, Person
from worker.serving import serve
from worker.store.audience import Rule
from worker.store.database import Database
from worker.store.notices import Notices
from worker.store.people import People
from worker.store.plans import Draft, Plans
from worker.store.policies import Policies
from worker.store.schema import deliveries, notices, suppressions
from worker.store.staging import Staged
from worker.tokens import Purpose
from worker.web import Staff, create_app

if TYPE_CHECKING:
    from tests.browser.conftest import Axe, OpenPage

_ROOT = Path(__file__).parents[2]
#: A reader for each test that changes something, and one of each kind for those that look.
READERS = {
    "keyboard": Person(parse("kay@example.org"), {}, "en"),
    "chooser": Person(parse("cho@example.org"), {}, "en"),
    "asker": Person(parse("ask@example.org"), {}, "en", discreet=True),
    "open": Person(parse("open@example.org"), {"town": "Exampleton", "first_name": "Olive"}, "en"),
    "arabic": Person(parse("ara@example.org"), {"first_name": "ليلى"}, "ar", discreet=True),
}


class _Anybody:
    """Lets everybody guess."""

    def guessed(self, _address: str) -> int:
        """Turn nobody away."""
        return 0

    entered = guessed


def main(folder: Path) -> None:
    """Serve pages for each of the readers; the first line out says where."""
    database, keyring = Database(f"sqlite:///{folder}/t.sqlite3"), Keyring.generate(secrets.token_bytes)
    database.upgrade()
    store = People(database)
    consent = store.consent_ids([("consent", "form", "Yes, write to me when it is urgent.")])[0]
    with store.begin_import() as opened:
        for number, person in enumerate(READERS.values(), start=1):
            sealed = keyring.seal(number, person.to_bytes(), secrets.token_bytes(12))
            key = keyring.address_key(person.address)
            opened.add([Staged(key, number, sealed, "other", consent, 1_780_000_000.0)])
        opened.finish("urgent", "Urgent appeals", 1.0)
    store.new_ids(len(READERS))  # theirs were not minted
    listed = store.find_lists(["urgent"])[0].id
    Policies(database).set(listed, Policy(sign_up=True), 1.0, Deed(1.0, "op", Action.LISTS_POLICY))
    rule = Rule((listed,))
    plans = Plans(database, batch_size=100)
    plans.slice(
        plans.record(Draft("a", "{}", rule, "d", "running", "op", "op", 0.0, "UTC", None), 1.0), 100, 1.0
    )
    query = sa.select(deliveries.c.id).order_by(deliveries.c.person_id)
    with database.read() as connection:
        ids = connection.execute(query).scalars().all()
    marks = {
        name: keyring.marks().mark(Purpose.OPT_OUT, number) for name, number in zip(READERS, ids, strict=True)
    }
    marks |= {f"notice {number}": keyring.marks().mark(Purpose.NOTICE, number) for number in range(1, 40)}
    marks |= {"sign-up": keyring.marks().mark(Purpose.SIGN_UP, listed)}
    marks |= {"test": keyring.marks().mark(Purpose.OPT_OUT, 0), "forged": "a" * 32}
    opt_outs = OptOuts(
        database, keyring, sender="Example Equality", discreet_sender="Letters", clock=time.time
    )
    rights = Rights(database, keyring, random=secrets.token_bytes, clock=time.time)
    topics = [
        Topic("petitions", "Petitions", {"ar": "عرائض"}),
        Topic("health", "Health and advice", discreet_title="Well-being"),
    ]
    preferences = Preferences(
        database, opt_outs, rights, offers_discreet=True, topics=topics, clock=time.time
    )
    invitations = Invitations(
        database,
        keyring,
        senders={False: "Example Equality", True: "Letters"},
        random=secrets.token_bytes,
        clock=time.time,
    )
    confirmations = Confirmations(
        Notices(database),
        opt_outs,
        rights,
        preferences,
        invitations,
        keyring.marks(),
        portray=lambda subject: dossiers.facts(subject, {}),
        note=lambda _deed: None,
        clock=time.time,
    )
    files = {
        path.name: path.read_text("utf-8")
        for folder in ("web", "locale")
        for path in (_ROOT / "templates" / folder).iterdir()
    }
    app = create_app(Staff(opt_outs, preferences, confirmations, _Anybody(), invitations), files)

    def ready(port: int) -> None:
        keys = {name: keyring.address_key(one.address).hex() for name, one in READERS.items()}
        print(json.dumps({"port": port, "marks": marks, "keys": keys}), flush=True)  # noqa: T201 - read below

    serve(app, "127.0.0.1", 0, ready=ready)


@dataclass(frozen=True)
class Site:
    """The server, as the tests see it."""

    base: str
    marks: Mapping[str, str]
    keys: Mapping[str, str]
    database: Database

    def link(self, name: str) -> str:
        """Return the link in a reader's mail."""
        return f"{self.base}/o/{self.marks[name]}"

    def notice(self, name: str = "") -> str:
        """Return the link in the last notice to a reader, or to anybody."""
        query = sa.select(sa.func.max(notices.c.id))
        if name:
            query = query.where(notices.c.address_key == bytes.fromhex(self.keys[name]))
        with self.database.read() as connection:
            number = connection.execute(query).scalar_one()
        return f"{self.base}/n/{self.marks[f'notice {number}']}"

    def stands(self, name: str) -> set[str]:
        """Return the scopes that stand against writing to a reader."""
        query = sa.select(suppressions.c.scope)
        query = query.where(suppressions.c.address_key == bytes.fromhex(self.keys[name]))
        with self.database.read() as connection:
            return set(connection.execute(query).scalars())


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The server as a process of its own."""
    folder = tmp_path_factory.mktemp("pages")
    words = [sys.executable, __file__, str(folder)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=_ROOT) as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        database = Database(f"sqlite:///{folder}/t.sqlite3")
        yield Site(f"http://127.0.0.1:{told['port']}", told["marks"], told["keys"], database)
        database.close()
        processes.end(process, patience=20)


def press(page: Page, key: str, words: str) -> None:
    """Go on by Tab until what bears these words has the focus, and press a key on it."""
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.locator(":focus").count() and words in page.locator(":focus").inner_text():
            page.keyboard.press(key)
            return
    pytest.fail(f"no way to {words} by keyboard")


def test_stop_and_take_back_by_keyboard_without_scripts(site: Site, open_page: "OpenPage") -> None:
    """The button is the first stop of the Tab key; the page after it takes it back; no script is needed."""
    page: Page = open_page(javascript=False)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(site.link("keyboard"))
    page.keyboard.press("Tab")
    expect(page.locator(":focus")).to_have_text("Stop these emails")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("Done. We will stop these emails.")
    assert site.stands("keyboard") == {"all"}
    press(page, "Enter", "Undo")
    expect(page.locator("h1")).to_have_text("Undone. Everything is as it was before.")
    assert site.stands("keyboard") == set()
    page.reload()
    expect(page.locator("h1")).to_have_text("This can no longer be undone here")
    press(page, "Enter", "Leave this page quickly")
    expect(page.locator("h1")).to_have_text("Nothing to see here")
    assert {url.rpartition("/")[0] for url in asked} == {f"{site.base}/o", site.base}
    assert page.context.cookies() == []


def test_choose_by_keyboard_without_scripts(site: Site, open_page: "OpenPage") -> None:
    """Pause, fewer, form and language are chosen and saved; the page then shows them, in that language."""
    page: Page = open_page(width=390, javascript=False)
    page.goto(site.link("chooser"))
    press(page, "Enter", "Rather fewer emails")
    page.get_by_label("Nothing for 30 days").focus()
    page.keyboard.press("Space")
    for label in ("At most one email in 30 days", "Discreet emails"):
        page.get_by_label(label).focus()
        page.keyboard.press("Space")
    page.get_by_label("Language of the emails").select_option("de")
    press(page, "Enter", "Save")
    expect(page.get_by_role("status")).to_have_text("Gespeichert. Es gilt ab sofort.")
    expect(page).to_have_title("Gespeichert. Es gilt ab sofort.")  # what a screen reader says first
    assert site.stands("chooser") == {"pause", "fewer"}
    for label in ("Nichts bis zum", "Höchstens eine E-Mail in 30 Tagen", "Unauffällige E-Mails"):
        expect(page.get_by_label(label)).to_be_checked()
    assert "Urgent appeals" not in page.content()
    page.get_by_role("button", name="Diese Liste verlassen").click()
    expect(page.locator("h1")).to_contain_text("Erledigt")
    assert site.stands("chooser") == {"pause", "fewer", "list:1"}


def test_ask_and_confirm_by_keyboard_without_scripts(site: Site, open_page: "OpenPage") -> None:
    """Topics and the discreet form go off by the page alone; on again, and "delete me", by the notice's link.

    On its page the button is the first stop of the Tab key, but for what is to be ticked before it.
    """
    page: Page = open_page(width=390, javascript=False)
    page.goto(f"{site.link('asker')}?choices")
    for label in ("Well-being", "Discreet emails"):
        page.get_by_label(label).focus()
        page.keyboard.press("Space")
    press(page, "Enter", "Save")
    expect(page.get_by_role("status")).to_contain_text("an email with a link is on its way")
    expect(page.get_by_label("Well-being")).not_to_be_checked()
    expect(page.get_by_label("Discreet emails")).to_be_checked()
    assert site.stands("asker") == {"topic:health"}
    page.goto(site.notice("asker"))
    for _ in range(2):
        page.keyboard.press("Tab")
        expect(page.locator(":focus")).not_to_be_checked()
        page.keyboard.press("Space")
    press(page, "Enter", "Yes, send me this again")
    expect(page.locator("h1")).to_have_text("Saved. It holds from now on.")
    assert site.stands("asker") == set()
    page.goto(f"{site.link('asker')}?choices")
    expect(page.get_by_label("Discreet emails")).not_to_be_checked()
    expect(page.get_by_label("Petitions")).to_be_checked()
    press(page, "Enter", "Delete my data")
    expect(page.locator("h1")).to_have_text("Please look into your mailbox")
    page.goto(site.notice("asker"))
    page.keyboard.press("Tab")
    expect(page.locator(":focus")).to_have_text("Delete everything")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("Deleted")
    assert site.stands("asker") == {"all"}
    press(page, "Enter", "Leave this page quickly")
    expect(page.locator("h1")).to_have_text("Nothing to see here")


def _pages(site: Site, page: Page, name: str) -> Iterator[str]:
    """Open each page of a reader in turn; in the end they are forgotten."""
    page.goto(site.link(name))
    yield "ask"
    page.goto(f"{site.link(name)}?choices")
    yield "choices"
    page.locator("form", has=page.locator("select")).locator("button").click()
    yield "saved"
    page.goto(site.link(name))
    page.locator("button").click()
    yield "done"
    page.goto(f"{site.link(name)}?choices")
    yield "stopped"
    page.locator("button").first.click()
    page.locator("button").first.click()
    yield "undone"
    page.reload()
    yield "late"
    yield from _signing_up(site, page, name)
    yield from _notices(site, page, name)
    page.goto(site.link("forged"))
    yield "lost"
    page.goto(f"{site.link('test')}?choices")
    yield "test"
    page.goto(f"{site.base}/exit")
    yield "exit"


def _signing_up(site: Site, page: Page, name: str) -> Iterator[str]:
    """Enter a new address in the form, and confirm it."""
    page.goto(f"{site.base}/s/{site.marks['sign-up']}")
    yield "sign up"
    page.locator("#address").fill(f"new-{name}@example.org")
    page.locator("main button").click()
    page.locator("form").wait_for(state="detached")
    yield "asked to sign up"
    page.goto(site.notice())
    yield "confirm sign-up"
    page.locator("main button").click()
    page.locator("form").wait_for(state="detached")
    yield "signed up"


def _notices(site: Site, page: Page, name: str) -> Iterator[str]:
    """Ask for each thing on a reader's page, and open what stands behind the links in their mails."""
    page.goto(f"{site.link(name)}?choices")
    for box in page.locator('input[name="topic"]').all():
        box.uncheck()
    page.locator("form", has=page.locator("select")).locator("button").click()
    page.get_by_role("status").wait_for()
    for box in page.locator('input[name="topic"]').all():
        box.check()
    page.locator("form", has=page.locator("select")).locator("button").click()
    yield "saved, and asked"
    for kind in ("choices", "export", "forget"):
        if kind != "choices":
            page.goto(f"{site.link(name)}?choices")
            page.locator("form", has=page.locator(f'input[value="{kind}"]')).locator("button").click()
            yield f"asked for {kind}"
        link = site.notice(name)
        page.goto(link)
        for box in page.locator('input[name="again"][type="checkbox"]').all():
            box.check()
        yield f"confirm {kind}"
        page.locator("main button").click()
        yield f"confirmed {kind}"
        page.goto(link)
        yield f"spent {kind}"


@pytest.mark.parametrize(("name", "width", "dark"), [("open", 1000, False), ("arabic", 320, True)])
def test_nothing_stands_in_a_readers_way(
    site: Site,
    open_page: "OpenPage",
    axe: "Axe",
    name: str,
    width: int,
    dark: bool,  # noqa: FBT001 - a parameter of the table
) -> None:
    """Axe finds nothing wrong with any page, and none has to be moved sideways.

    320 pixels are a window of 1280 at 400 % (WCAG 1.4.10).
    """
    page: Page = open_page(width=width, height=256 if width == 320 else 800, dark=dark, locale="ar")
    seen = []
    for stage in _pages(site, page, name):
        assert axe(page) == [], stage
        assert page.evaluate("() => document.documentElement.scrollWidth") <= width, stage
        seen.append(page.evaluate("() => document.documentElement.dir"))
    assert len(seen) == 26
    # Those that belong to nobody speak the browser's language.
    own = "rtl" if name == "arabic" else "ltr"
    assert seen == [own] * 7 + ["rtl"] * 4 + [own, own, own, "rtl"] * 3 + ["rtl"] * 3


if __name__ == "__main__":
    main(Path(sys.argv[1]))
