"""The plan, the launch and the claim agree on everybody: who is written to, and why each other one is not.

Over random people, lists, "no"s, topics and never-mail rules; the claim looks at records and suppressions
themselves, the launch at shapes, the plan at marks alone.
"""

import csv
import io
import random
import secrets
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest
import sqlalchemy as sa

from worker import bars
from worker.addresses import parse
from worker.barring import Barring
from worker.bars import Kind, drafted
from worker.deeds import Action, Deed
from worker.errors import Refused
from worker.imports import Importer, Rejects, Result, Target
from worker.policies import Policy
from worker.rights import Correction, Rights
from worker.sealing import Keyring, Person
from worker.store.audience import Rule
from worker.store.bars import Bars
from worker.store.database import Database
from worker.store.ledger import Ledger
from worker.store.people import People
from worker.store.plans import Campaign, Draft, Plans
from worker.store.policies import Policies
from worker.store.schema import deliveries, lists
from worker.store.suppressions import EVERYTHING, Suppression, Suppressions, list_scope
from worker.tables.lists import Consent, read

TOWNS, LANDS = ("Exampleton", "Sampleford", ""), ("KZ", "Germany", "")
DOMAINS = ("example.org", "mail.example.net")
RULES = (
    ("no-net", Kind.DOMAIN, "example.net"),
    ("not-there", Kind.COUNTRY, "KZ"),
    ("a-town", Kind.FIELD, "town=exam*"),
)
TOPICS = ("war", "law")
BASES = ("consent", "consent", "soft opt-in", "Charitable soft opt-in", "contract", "")
#: What lists may ask for.
POLICIES = (
    Policy(),
    Policy(grounds=("consent",)),
    Policy(grounds=("consent", "charity"), wording=True),
    Policy(offered=True),
    Policy(confirmed=True),
)
COLUMNS = ("email", "town", "country", "basis", "source", "when", "wording", "opt-out offered", "DOI date")
DEED = Deed(1.0, "op", Action.RULES_ADD)


class World:
    """A store with keys, and whatever is done to it."""

    def __init__(self, database: Database, folder: Path, seed: int = 0) -> None:
        self.database, self.folder = database, folder
        self.dice = random.Random(seed)  # noqa: S311 - chance, not secrecy
        self.keyring = Keyring.generate(secrets.token_bytes)
        self.bars, self.suppressions = Bars(database), Suppressions(database)
        self.barring = Barring(self.bars, self.keyring, lambda: 1.0)
        self.plans, self.policies = Plans(database, batch_size=4), Policies(database)

    def importer(self) -> Importer:
        """What brings files in."""
        adapters = People(self.database), self.suppressions, self.bars, self.keyring
        return Importer(*adapters, random=secrets.token_bytes, clock=lambda: 2.0)

    def bring(self, slug: str, rows: list[tuple[str, ...]], importer: Importer | None = None) -> Result:
        """Import people by rows of these columns."""
        text = io.StringIO()
        csv.writer(text).writerows([COLUMNS, *rows])
        found = read([text.getvalue().encode()], defaults=Consent())
        here = importer or self.importer()
        return here.run(found, Target(slug, slug), Rejects(self.folder / "r"), lambda _: None)

    def somebody(self, number: int) -> tuple[str, ...]:
        """Invent a row."""
        choice = self.dice.choice
        address, told = f"p{number}@{DOMAINS[number % 2]}", (choice(BASES), choice(("form", "form", "")))
        when, offered = choice(("2026-01-02", "2026-02-05", "")), choice(("yes", "no", ""))
        return (
            address,
            choice(TOWNS),
            choice(LANDS),
            *told,
            when,
            choice(("Tick here", "")),
            offered,
            choice(("2026-02-06", "")),
        )

    def say(self, number: int, *scopes: str) -> None:
        """Let somebody say no."""
        key = self.keyring.address_key(parse(f"p{number}@{DOMAINS[number % 2]}"))
        self.suppressions.add([Suppression(key, scope, "opt-out", "page", 1.0) for scope in scopes])

    def launched(self, rule: Rule) -> Campaign:
        """Launch to all of them."""
        draft = Draft("a", "{}", rule, "d" * 64, "running", "op", "op", 0.0, "UTC", None)
        campaign = self.plans.record(draft, 0.0)
        while self.plans.slice(campaign, 5, 1.0):
            pass
        return campaign

    def written(self, campaign: Campaign) -> Mapping[str, int]:
        """How many a launch wrote, by reason."""
        query = sa.select(deliveries.c.reason, sa.func.count()).group_by(deliveries.c.reason)
        with self.database.read() as connection:
            return dict(connection.execute(query.where(deliveries.c.campaign_id == campaign.id)).all())

    def claimed(self, campaign: Campaign) -> Mapping[str, int]:
        """How many a sender would write to, and why it skips the others, asked when all were let in."""
        with self.database.write() as connection:
            of_it = deliveries.c.campaign_id == campaign.id
            connection.execute(sa.update(deliveries).where(of_it).values(state="queued", reason=""))
            connection.execute(sa.update(lists).values(policy_at=1.0))  # since the campaign was planned
            numbers = sa.select(deliveries.c.batch_id).where(of_it).distinct()
            batches = list(connection.execute(numbers).scalars())
        ledger, counts = Ledger(self.database), Counter[str]()
        for batch in batches:
            lease = ledger.lease(batch, "owner", 3.0, 100.0)
            assert lease
            taken = ledger.advance(lease, [], 100, 3.0, 100.0)
            for one in taken.claimed:
                person = Person.from_bytes(self.keyring.open(one.person_id, one.sealed))
                bar = bars.first(taken.bars, person)
                counts[bar.reason if bar else ""] += 1
        with self.database.read() as connection:
            query = sa.select(deliveries.c.reason, sa.func.count()).where(
                of_it, deliveries.c.state == "skipped"
            )
            return counts + Counter(dict(connection.execute(query.group_by(deliveries.c.reason)).all()))


def planned(world: World, rule: Rule) -> Mapping[str, int]:
    """How many a plan counts, by reason."""
    counts = Counter[str]()
    for one in world.plans.kinds(rule):
        counts[one.reason] += one.count
    return counts


@pytest.mark.parametrize("seed", range(6))
def test_the_plan_the_launch_and_the_claim_agree_on_everybody(
    database: Database, tmp_path: Path, seed: int
) -> None:
    """Rules that come before an import, after it and between two, people corrected, "no"s of every scope."""
    world = World(database, tmp_path, seed)
    dice, rules = world.dice, [drafted(*each) for each in RULES]
    dice.shuffle(rules)
    for number, slug in enumerate(("one", "two")):
        world.bring(slug, [world.somebody(each) for each in range(number * 6, 18 + number * 6)])
        world.barring.add(rules.pop(), DEED)
        list_id = People(database).find_lists([slug])[0].id
        world.policies.set(list_id, dice.choice(POLICIES), 0.5, DEED)
        world.bring(slug, [world.somebody(each) for each in range(number * 6, 9 + number * 6)])
    world.barring.add(rules.pop(), DEED)
    if dice.random() < 0.5:
        assert world.bars.remove(dice.choice(RULES)[0], DEED)
    ids = [one.id for one in People(database).lists()]
    scopes = (EVERYTHING, *map(list_scope, ids), *(f"topic:{topic}" for topic in TOPICS))
    for number in range(24):
        world.say(number, *(scope for scope in scopes if dice.random() < 0.1))
    rights = Rights(database, world.keyring, random=secrets.token_bytes, clock=lambda: 3.0)
    for number in dice.sample(range(24), 4):
        subject = rights.find(f"p{number}@{DOMAINS[number % 2]}")
        rights.correct(subject, Correction({"town": dice.choice(TOWNS[:2])}, language="ru"))
    for on in ((ids[0],), tuple(ids)):
        for topics in ((), ("war",)):
            rule = Rule(on, topics=topics)
            campaign = world.launched(rule)
            written = world.written(campaign)
            assert planned(world, rule) == written
            if len(on) == 1:  # of several lists a delivery knows one
                assert world.claimed(campaign) == written
            some = Rule(on, limit=7, topics=topics)
            assert planned(world, some) == world.written(world.launched(some))


def test_a_rule_that_comes_in_the_midst_of_an_import_is_not_missed(
    database: Database, tmp_path: Path
) -> None:
    """The import is refused, with nothing kept; again, it is taken, and says whom the rule keeps out."""
    world = World(database, tmp_path)
    importer = world.importer()
    people, bar = importer._people, drafted(*RULES[0])
    begin = people.begin_import

    def interrupted() -> object:
        world.barring.add(bar, DEED)
        return begin()

    people.begin_import = interrupted  # type: ignore[method-assign, assignment]  # the moment to hit
    rows = [("p1@mail.example.net", "", "", "consent", "form", "2026-01-02", "", "", "")]
    with pytest.raises(Refused, match="have changed meanwhile"):
        world.bring("one", rows, importer)
    assert People(database).lists() == []
    assert world.bring("one", rows).barred == {"no-net": 1}


def test_no_campaign_is_planned_while_a_rule_is_not_counted(database: Database, tmp_path: Path) -> None:
    """A count stopped half-way would promise mails that a claim then holds back; repeated, it ends."""
    world = World(database, tmp_path)
    world.bring("one", [("p1@mail.example.net", "", "", "consent", "form", "2026-01-02", "", "", "")])
    bar = drafted(*RULES[0])
    world.bars.add(bar, 1.0, DEED)
    rule = Rule((People(database).lists()[0].id,))
    with pytest.raises(Refused, match="no-net"):
        planned(world, rule)
    assert world.barring.add(bar, DEED) == 1
    assert planned(world, rule) == {"rule no-net": 1}
    with pytest.raises(Refused, match="another rule"):
        world.barring.add(drafted("no-net", Kind.DOMAIN, "example.com"), DEED)
