"""Counted links lead where the approved content does, and are counted by campaign, variant and link alone."""

import asyncio
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import sqlalchemy as sa
from starlette.applications import Starlette

from worker import onward
from worker.addresses import parse
from worker.content.editions import Edition, Form, Printer, Visit
from worker.content.messages import Identity
from worker.content.rendering import Organisation
from worker.errors import Unavailable
from worker.sealing import Person
from worker.store.audience import Rule
from worker.store.database import Database
from worker.store.plans import Draft, Plans
from worker.store.schema import visits
from worker.store.visits import Visits as Store
from worker.tokens import Marks, Purpose
from worker.visits import Visits, followed

if TYPE_CHECKING:
    from tests.conftest import Clock

TEMPLATES = Path(__file__).parents[2] / "templates"
LOOK = {
    path.name: path.read_text("utf-8") for name in ("look", "locale") for path in (TEMPLATES / name).iterdir()
}
MARKS = Marks(b"k" * 32)
APPEAL = """\
---
subject: Subject
preheader: Preheader
count_links: yes
source: report
actions:
  - {kind: sign, text: Sign, link: "https://example.org/sign?a=1#form", main: true}
  - {kind: write-to, text: Write, link: "mailto:council@example.org"}
discreet:
  subject: Letter
  preheader: Inside
  sender: Monthly letter
  links: {"https://example.org/sign?a=1#form": "https://example.net/7"}
---
Read [this](https://example.org/{{ town | default("all") }}), [that](https://example.org/that) and
[sign](https://example.org/sign?a=1#form).
"""


def form(domain: str) -> Form:
    """Return the names of one form."""
    names = dict.fromkeys(("domain", "bounce_domain", "opt_out_domain"), domain)
    identity = Identity(
        f"a@{domain}", f"a@{domain}", **names, list_id=f"mail.{domain}", feedback_id="example"
    )
    return Form(identity, f"https://pages.{domain}")


EDITION = Edition(
    slug="rain",
    appeal={"en.md": APPEAL, "de.md": APPEAL},
    look=LOOK,
    organisation=Organisation("Example Equality", "1 Example Street", "", "", "https://example.org/privacy"),
    open=form("example.org"),
    discreet=form("letters.example.net"),
)


@pytest.fixture
def site(database: Database, clock: "Clock") -> Any:
    """A store with one campaign, its pages' counting, and its mails."""
    plans = Plans(database, 100)
    edition = EDITION.to_json()
    draft = Draft("rain", edition, Rule((1,)), "d" * 64, "running", "op", "op", 0.0, "UTC", None)
    number = plans.record(draft, 1.0).id
    made = Visits(MARKS, plans.frozen, Store(database), clock)
    return SimpleNamespace(plans=plans, id=number, visits=made, clock=clock, store=Store(database))


def mail(campaign: int, name: str = "ann", *, language: str = "en", discreet: bool = False) -> set[str]:
    """Return the links of one person's mail, of both parts."""
    person = Person(parse(f"{name}@example.org"), {"town": name}, language, discreet)
    parcel = Printer(EDITION, MARKS, campaign).parcel(hash(name) & 0xFFFF, person, 0.0)
    assert parcel is not None
    text = parcel.data.replace(b"=\r\n", b"").replace(b"=3D", b"=").decode()
    return set(re.findall(r"https://[^\s\"<>]+", text))


def counted(links: set[str]) -> set[str]:
    """Return the marks of those that are counted."""
    return {link.partition("/v/")[2] for link in links if "/v/" in link}


@pytest.mark.parametrize("discreet", [False, True])
@pytest.mark.parametrize("language", ["de", "en"])
def test_a_counted_link_leads_where_the_content_does(site: Any, language: str, *, discreet: bool) -> None:
    """Each link of ours stands for one target with its source code, on the host of its form."""
    links = mail(site.id, language=language, discreet=discreet)
    host = "https://pages.letters.example.net/v/" if discreet else "https://pages.example.org/v/"
    assert all(link.startswith(host) for link in links if "/v/" in link)
    leads = {site.visits.follow(mark) for mark in counted(links)}
    sign = "https://example.net/7?" if discreet else "https://example.org/sign?a=1&"
    end = "" if discreet else "#form"
    assert leads == {
        f"{sign}source=report-c{site.id}-1{end}",
        f"https://example.org/that?source=report-c{site.id}-4",
    }
    assert any(link.startswith("https://example.org/ann?source=") for link in links)  # a field: not counted


def test_counted_links_are_the_same_for_every_reader(site: Any) -> None:
    """Nothing in them tells two readers apart."""
    assert counted(mail(site.id, "ann")) == counted(mail(site.id, "ben")) != set()


def test_mails_to_look_at_lead_straight_on() -> None:
    """A preview or test mail belongs to no campaign, so there is nothing to count."""
    assert counted(mail(0)) == set()


def test_counts_are_sums_and_nothing_else(site: Any) -> None:
    """By variant and link, gathered for two seconds, added to what is there; no column could hold more."""
    marks = sorted(counted(mail(site.id)))
    for _ in range(3):
        for mark in marks:
            site.visits.follow(mark)
    site.visits.follow(next(iter(counted(mail(site.id, discreet=True)))))
    assert site.store.of(site.id) == {}
    site.clock.forward(2.0)
    site.visits.follow(marks[0])
    assert sum(site.store.of(site.id).values()) == 8
    site.visits.follow(marks[1])
    site.visits.write()
    found = followed(site.store.of(site.id), site.id, site.plans.frozen(site.id))
    assert sorted(one.count for one in found if one.variant == "en") == [4, 4]
    assert [one.count for one in found if one.variant == "en discreet"] == [1]
    assert {one.target for one in found} == {site.visits.target(mark) for mark in marks} | {
        one.target for one in found if one.variant == "en discreet"
    }
    assert [column.name for column in visits.columns] == ["campaign_id", "variant", "link", "count"]


def test_looking_does_not_count(site: Any) -> None:
    """A target can be asked for (HEAD) without being counted."""
    mark = next(iter(counted(mail(site.id))))
    assert site.visits.target(mark) is not None
    site.visits.write()
    assert site.store.of(site.id) == {}


def test_nothing_leads_to_where_no_approved_content_does(site: Any) -> None:
    """Forged marks, marks of other purposes, of no campaign, no variant and no link lead nowhere."""
    right = Visit(site.id, 0, discreet=False, link=1)
    wrong = ({"campaign": site.id + 1}, {"language": 2}, {"link": 9}, {"link": 0})
    texts = [MARKS.mark(Purpose.VISIT, replace(right, **one).packed()) for one in wrong]
    texts += [
        Marks(b"x" * 32).mark(Purpose.VISIT, right.packed()),
        MARKS.mark(Purpose.OPT_OUT, 1),
        "",
        "é" * 32,
    ]
    assert [site.visits.follow(text) for text in texts] == [None] * len(texts)
    assert site.visits.follow(MARKS.mark(Purpose.VISIT, right.packed())) is not None


def test_the_page_leads_on_and_keeps_nothing(site: Any) -> None:
    """GET leads on for this once and counts, HEAD only leads, POST neither; what is not ours is not found."""
    app = Starlette(routes=[onward.links_route(site.visits)])
    mark = min(counted(mail(site.id)))

    async def asked(method: str, token: str) -> httpx.Response:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://x.example.org"
        ) as client:
            return await client.request(method, f"/v/{token}")

    answers = [asyncio.run(asked(method, mark)) for method in ("GET", "HEAD", "POST")]
    assert [one.status_code for one in answers] == [302, 302, 405]
    assert answers[0].headers["location"] == site.visits.target(mark)
    assert "set-cookie" not in answers[0].headers
    assert asyncio.run(asked("GET", mark[::-1])).status_code == 404
    site.visits.write()
    assert sum(site.store.of(site.id).values()) == 1


def test_without_a_database_readers_are_led_on_and_no_count_is_lost(site: Any) -> None:
    """Counts wait until it is back."""
    marks = Counter(dict.fromkeys(sorted(counted(mail(site.id))), 1))
    for mark in marks:
        site.visits.follow(mark)

    class Away:
        """A store whose database is away."""

        def add(self, _counts: object) -> None:
            """Refuse, as Database.write does then."""
            raise Unavailable("the database is away")

    there, site.visits._store = site.visits._store, Away()
    site.clock.forward(3.0)
    assert all(site.visits.follow(mark) for mark in marks)
    with pytest.raises(Unavailable):
        site.visits.write()
    site.visits._store = there
    site.visits.write()
    assert sorted(site.store.of(site.id).values()) == [2] * len(marks)


def test_the_table_adds_what_two_processes_bring(site: Any, database: Database) -> None:
    """Counts of the same link are summed by the database itself."""
    for _ in range(2):
        site.store.add({(site.id, "en", 1): 2, (site.id, "en", 2): 1})
    with database.read() as connection:
        assert connection.execute(sa.select(sa.func.sum(visits.c.count))).scalar_one() == 6
