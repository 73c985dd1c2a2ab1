"""What a person asks for on the page goes by one mail to their own mailbox, and its link does it once."""

import asyncio
import html
import re
import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import sqlalchemy as sa

from worker.addresses import parse
from worker.bars import Bar
from worker.content.editions import Form
from worker.content.letters import Letters
from worker.content.look import Look
from worker.content.messages import Identity
from worker.content.rendering import Organisation
from worker.deeds import PERSON, Action, Deed
from worker.errors import Unavailable
from worker.feedback import OptOuts
from worker.forms import Wish
from worker.invitations import Invitations, Summary
from worker.notices import DAYS, INVITE_DAYS, Confirmations, Courier
from worker.policies import Policy
from worker.post.endpoints import Endpoint
from worker.post.relay import Relay
from worker.preferences import Preferences, Topic
from worker.rights import Rights
from worker.rotation import Rotation
from worker.sealing import Keyring, Person
from worker.store import keyrings
from worker.store.audience import Rule
from worker.store.audit import Audit
from worker.store.bars import Bars
from worker.store.database import Database
from worker.store.notices import MOST_A_DAY, Notices
from worker.store.people import List, People
from worker.store.plans import Draft, Plans
from worker.store.policies import Policies
from worker.store.records import Records
from worker.store.schema import consents, deliveries, invited, memberships, notices, people, signups
from worker.store.staging import Staged
from worker.store.suppressions import EVERYTHING, Suppression, Suppressions
from worker.store.wishes import Wishes, wish
from worker.tokens import Purpose
from worker.web import Staff, create_app

_TEMPLATES = Path(__file__).parents[2] / "templates"
_LOOK = Look(
    {
        path.name: path.read_text("utf-8")
        for folder in ("look", "locale")
        for path in (_TEMPLATES / folder).iterdir()
    }
)
_ORGANISATION = Organisation(
    "Example Equality", "1 Example Street", "", "https://www.example.org", "https://www.example.org/p"
)
_FILES = {
    path.name: path.read_text("utf-8")
    for folder in ("web", "locale")
    for path in (_TEMPLATES / folder).iterdir()
}
_DEED = Deed(1.0, "op", Action.LISTS_INVITE, "one")
_OPT_OUT = re.compile(r"/o/([a-z2-7]{32})")
_LINK = re.compile(r"https://(\S+)/n/([a-z2-7]{32})")


def _identity(domain: str) -> Identity:
    return Identity(
        from_address=f"hello@{domain}",
        reply_to=f"hello@{domain}",
        domain=domain,
        bounce_domain=f"bounces.{domain}",
        opt_out_domain=domain,
        list_id=f"mail.{domain}",
        feedback_id="letters",
    )


class Office:
    """Two readers with a mail each (one discreet), what they can ask for, and the way to their mailboxes."""

    def __init__(self, database: Database, clock: Callable[[], float], server: Any) -> None:
        self.database, self.clock, self.server = database, clock, server
        self.rests = False
        self.keyring = Keyring.generate(secrets.token_bytes)
        self.people = [
            Person(parse("vera@example.org"), {"town": "Exampleton"}, language="de"),
            Person(parse("ben@example.com"), {}, discreet=True),
        ]
        self._import()
        self.build()

    def build(self) -> None:
        """Make everybody who works here, with the keys of today."""
        database, clock = self.database, self.clock
        self.store = Notices(database)
        names = {"sender": "Example Equality", "discreet_sender": "Letters"}
        self.opt_outs = OptOuts(database, self.keyring, **names, clock=clock)
        self.rights = Rights(database, self.keyring, random=secrets.token_bytes, clock=clock)
        topics = [
            Topic("petitions", "Petitions", {"de": "Petitionen"}),
            Topic("health", "Health", discreet_title="Well-being"),
        ]
        self.preferences = Preferences(
            database, self.opt_outs, self.rights, offers_discreet=True, topics=topics, clock=clock
        )
        self.invitations = Invitations(
            database,
            self.keyring,
            senders={False: "Example Equality", True: "Letters"},
            random=secrets.token_bytes,
            clock=clock,
        )
        self.pages = Confirmations(
            self.store,
            self.opt_outs,
            self.rights,
            self.preferences,
            self.invitations,
            self.keyring.marks(),
            portray=lambda subject: {"address": subject.person and subject.person.address.spec},
            note=Audit(database).note,
            clock=clock,
        )

    def _import(self) -> None:
        store = People(self.database)
        consent = store.consent_ids([("consent", "form", "")])[0]
        with store.begin_import() as opened:
            for number, person in enumerate(self.people, start=1):
                sealed = self.keyring.seal(number, person.to_bytes(), secrets.token_bytes(12))
                key = self.keyring.address_key(person.address)
                opened.add([Staged(key, number, sealed, "other", consent, 1.0)])
            opened.finish("one", "One", 1.0)
        rule = Rule((store.find_lists(["one"])[0].id,))
        plans = Plans(self.database, batch_size=10)
        draft = Draft("a", "{}", rule, "d", "running", "op", "op", 0.0, "UTC", None)
        plans.slice(plans.record(draft, 1.0), 10, 1.0)
        query = sa.select(deliveries.c.id).order_by(deliveries.c.person_id)
        with self.database.read() as connection:
            ids = connection.execute(query).scalars().all()
        self.links = [self.keyring.marks().mark(Purpose.OPT_OUT, number) for number in ids]

    def courier(self) -> Courier:
        """One of those who send."""
        endpoint = Endpoint("127.0.0.1", self.server.port, "plain")
        forms = {
            False: Form(_identity("example.org"), "https://act.example.org"),
            True: Form(_identity("letters.example.net"), "https://letters.example.net"),
        }
        return Courier(
            self.store,
            self.opt_outs,
            self.keyring.marks(),
            lambda: Letters(_LOOK, _ORGANISATION),
            forms,
            lambda: Relay(endpoint),
            rests=lambda: self.rests,
            welcome=self.invitations.welcome,
            clock=self.clock,
        )

    def states(self) -> list[str]:
        """How the notices stand."""
        with self.database.read() as connection:
            return list(connection.execute(sa.select(notices.c.state).order_by(notices.c.id)).scalars())

    def marks(self) -> list[str]:
        """The marks of the links in the mails that came, oldest first."""
        texts = [self._text(data) for _, data in self.server.delivered]
        return [_LINK.findall(text)[0][1] for text in texts]

    @staticmethod
    def _text(data: bytes) -> str:
        message = message_from_bytes(data, policy=policy.default)
        part = message.get_body(("plain",))
        assert part is not None
        return str(part.get_content())


@pytest.fixture
def office(
    database: Database, clock: Callable[[], float], fault_server: Callable[..., Any]
) -> Iterator[Office]:
    """The office, on each kind of database, and a real mail server."""
    return Office(database, clock, fault_server())


def test_forget_me(office: Office) -> None:
    """Asked on the page, confirmed from the mailbox: one mail, one deed, and nothing left but the no."""
    assert office.pages.ask(office.links[0], "forget") is not None
    assert office.courier().due()
    office.rests = True  # the relay has asked to be left alone
    assert (office.courier().send(), office.states()) == (0, ["waiting"])
    office.rests = False
    assert office.courier().send() == 1
    assert not office.courier().due()
    ((recipient, data),) = office.server.delivered
    assert recipient == "vera@example.org"
    message = message_from_bytes(data, policy=policy.default)
    assert message["Subject"] == "Bitte bestätigen Sie Ihre Anfrage"
    assert message["From"] == "Example Equality <hello@example.org>"
    assert message["Auto-Submitted"] == "auto-generated"
    lists = [name for name in message if name.lower().startswith("list-") or name == "Precedence"]
    assert lists == []
    (mark,) = office.marks()
    # Whoever only looks changes nothing, and the links of other mails are none of this.
    pending = office.pages.pending(mark)
    assert pending is not None
    assert (pending.kind, pending.about.language) == ("forget", "de")
    assert office.pages.pending(office.links[0]) is None
    assert office.opt_outs.reader(mark) is None
    done = office.pages.confirm(mark)
    assert done is not None
    assert [deed.operator for deed in Audit(office.database).entries()] == ["(the person)"]
    with office.database.read() as connection:
        assert connection.execute(sa.select(people.c.id)).scalars().all() == [2]
    key = office.keyring.address_key(office.people[0].address)
    assert [one.scope for one in Suppressions(office.database).find(key)] == [EVERYTHING]
    assert (office.pages.pending(mark), office.pages.confirm(mark)) == (None, None)
    assert office.states() == []


def test_show_me_my_data_once(office: Office) -> None:
    """The mail holds no datum but the address it goes to; the page behind it shows them once."""
    office.pages.ask(office.links[0], "export")
    office.courier().send()
    ((_, data),) = office.server.delivered
    assert b"Exampleton" not in data
    (mark,) = office.marks()
    done = office.pages.confirm(mark)
    assert done is not None
    assert done.facts == {"address": "vera@example.org"}
    assert office.pages.confirm(mark) is None


def test_the_discreet_notice(office: Office) -> None:
    """Who must not be seen to get our mail gets it under the neutral names, and none says who we are."""
    office.pages.ask(office.links[1], "export")
    office.courier().send()
    ((_, data),) = office.server.delivered
    text = Office._text(data)
    assert _LINK.findall(text)[0][0] == "letters.example.net"
    assert b"Equality" not in data
    assert b"act.example.org" not in data
    assert b"Example Street" not in data


def test_who_said_no_still_gets_what_they_ask_for(office: Office) -> None:
    """A suppression stops what we want to say, not what its owner has just asked for."""
    assert office.opt_outs.opt_out(office.links[0], "one-click")
    office.pages.ask(office.links[0], "forget")
    assert office.courier().send() == 1


def test_nobody_can_be_bombed(office: Office, clock: Any) -> None:
    """However often and at once it is asked, an address gets so many a day; the answer is always the same."""
    with ThreadPoolExecutor(8) as crowd:
        answers = list(crowd.map(lambda _: office.pages.ask(office.links[0], "export"), range(20)))
    assert len(set(answers)) == 1
    assert office.states() == ["waiting"] * MOST_A_DAY
    clock.forward(86_401)
    office.pages.ask(office.links[0], "export")
    assert len(office.states()) == MOST_A_DAY + 1


def test_many_couriers_send_each_once(office: Office) -> None:
    """Several workers rung at once share the work; nothing goes twice."""
    for link in office.links:
        for _ in range(2):
            office.pages.ask(link, "export")
    with ThreadPoolExecutor(4) as crew:
        sent = list(crew.map(lambda _: office.courier().send(), range(4)))
    assert sum(sent) == 4
    assert len(set(office.marks())) == 4
    assert office.states() == ["sent"] * 4


@pytest.mark.parametrize(
    ("fault", "state"),
    [
        (("dot", "450 4.3.0 later", "go"), "waiting"),
        (("rcpt", "550 5.1.1 nobody", "go"), "refused"),
        (("body", None, "cut"), "unconfirmed"),
        (("dot", None, "cut"), "unconfirmed"),
    ],
)
def test_what_a_relay_says(office: Office, clock: Any, fault: Any, state: str) -> None:
    """Later is tried again, no is no, and what may have left is never sent a second time."""
    office.server.faults = (fault,)
    office.pages.ask(office.links[0], "forget")
    office.courier().send()
    assert office.states() == [state]
    office.server.faults = ()
    clock.forward(3600)
    assert office.courier().due() == (state == "waiting")
    assert office.courier().send() == (state == "waiting")


def test_a_crash_between_begun_and_settled_sends_none_twice(office: Office, clock: Any) -> None:
    """What a dead process had in hand stays in doubt; a relay that is away has begun nothing."""
    office.pages.ask(office.links[0], "forget")
    assert office.store.begin(clock()) is not None  # and then its process dies
    assert office.courier().send() == 0
    clock.forward(3600)
    assert not office.courier().due()
    assert office.states() == ["unconfirmed"]
    office.pages.ask(office.links[1], "forget")
    office.server.close()
    with pytest.raises(Unavailable):
        office.courier().send()
    assert office.states() == ["unconfirmed", "waiting"]


def test_a_notices_link_ends(office: Office, clock: Any) -> None:
    """Unlike an opt-out's it works for some days only, and a forged or foreign one never."""
    office.pages.ask(office.links[0], "forget")
    office.courier().send()
    (mark,) = office.marks()
    clock.forward(DAYS * 86_400 + 1)
    assert (office.pages.pending(mark), office.pages.confirm(mark)) == (None, None)
    for other in ("a" * 32, office.keyring.marks().mark(Purpose.NOTICE_MAIL, 1), office.links[0]):
        assert not office.pages.knows(other)
        assert office.pages.confirm(other) is None
    assert office.pages.ask("a" * 32, "forget") is None
    assert office.pages.ask(office.keyring.marks().mark(Purpose.OPT_OUT, 0), "forget") is not None
    assert len(office.states()) == 1


def _stands(office: Office, place: int) -> tuple[set[str], bool]:
    """What one of the two said no to, and whether their mail is discreet."""
    subject = office.rights.find(office.links[place])
    said = Suppressions(office.database).find(subject.keys[0])
    assert subject.person is not None
    return {one.scope for one in said}, subject.person.discreet


def test_what_was_switched_off_comes_back_by_the_mailboxs_word_alone(office: Office) -> None:
    """A topic and the discreet form: off at once, by the page; on again by the link in one mail, and noted.

    Whoever sits at an open page can so neither expose its reader nor lift their "no".
    """
    link = office.links[1]
    choose = office.preferences.choose
    choices = choose(link, Wish(topics={"petitions": False, "health": False, "made-up": False}))
    assert choices is not None
    assert not choices.asked
    assert office.states() == []
    off = {"topic:petitions", "topic:health"}
    assert _stands(office, 1) == (off, True)
    choices = choose(link, Wish(discreet=False, language="de", topics={"petitions": True, "health": False}))
    assert choices is not None
    assert (choices.asked, choices.discreet, choices.language) == (True, True, "de")
    assert _stands(office, 1) == (off, True)
    assert office.courier().send() == 1
    ((_, data),) = office.server.delivered
    assert b"Petition" not in data
    assert b"Equality" not in data
    (mark,) = office.marks()
    pending = office.pages.pending(mark)
    assert pending is not None
    assert pending.choices is not None
    assert pending.choices.lacks == {"open", *off}
    for nothing in ((), ("topic:made-up", "list:1", "all")):
        assert office.pages.confirm(mark, nothing) is None
    assert _stands(office, 1) == (off, True)
    assert office.pages.confirm(mark, ("open", "topic:petitions")) is not None
    assert _stands(office, 1) == ({"topic:health"}, False)
    assert (office.pages.pending(mark), office.pages.confirm(mark, off)) == (None, None)
    told = [(one.operator, one.action, one.subject) for one in Audit(office.database).entries()]
    assert told == [
        ("(the person)", "people correct", ""),
        ("(the person)", "suppress lift", "topic:petitions"),
    ]


def test_what_an_operator_has_set_is_no_readers_to_bring_back(office: Office, clock: Any) -> None:
    """A topic that an operator closed to somebody is not offered, and no link of theirs opens it."""
    key = office.keyring.address_key(office.people[0].address)
    Suppressions(office.database).add([Suppression(key, "topic:petitions", "operator", "cli", clock())])
    choices = office.preferences.choose(office.links[0], Wish(topics={"petitions": True, "health": False}))
    assert choices is not None
    assert [(one.slug, one.wanted) for one in choices.topics] == [("health", False)]
    assert not office.preferences.again(office.links[0], {"topic:petitions"})
    assert _stands(office, 0)[0] == {"topic:petitions", "topic:health"}


# -- invitations --------------------------------------------------------------------------------------


class Answer(NamedTuple):
    """What the pages said."""

    status: int
    text: str

    @property
    def fields(self) -> dict[str, str]:
        """What its first form would post."""
        form = self.text.partition("<form")[2].partition("</form>")[0]
        return dict(re.findall(r'name="(\w+)" value="([^"]*)"', form))

    @property
    def read(self) -> str:
        """The words over its button, as they are read."""
        what = re.findall(r'<p id="what">(.*?)</p>', self.text, re.DOTALL)
        return html.unescape(re.sub(r"<[^>]+>", "", what[0]))


class Desk(Office):
    """The office, with a list that wants double opt-in of the two who are on it, and the pages."""

    def __init__(self, database: Database, clock: Callable[[], float], server: Any) -> None:
        super().__init__(database, clock, server)
        People(database).new_ids(2)  # theirs were not minted
        self.list: List = People(database).find_lists(["one"])[0]
        Policies(database).set(self.list.id, Policy(confirmed=True), clock(), _DEED)
        self.app = create_app(
            Staff(self.opt_outs, self.preferences, self.pages, self, self.invitations), _FILES, https=True
        )
        self.entries = 0
        self.form = f"/s/{self.keyring.marks().mark(Purpose.SIGN_UP, self.list.id)}"

    def guessed(self, _address: str) -> int:
        """No network guesses."""
        return 0

    def entered(self, _address: str) -> int:
        """A network may enter a dozen."""
        self.entries += 1
        return 60 if self.entries > 12 else 0

    def open_form(self) -> None:
        """What `lists policy --sign-up yes` does."""
        Policies(self.database).set(self.list.id, Policy(sign_up=True), self.clock(), _DEED)

    def enter(self, address: str, **more: str) -> Answer:
        """Fill in the form."""
        return self.ask("POST", self.form, {"address": address, "name": "", "language": "de", **more})

    def rows(self, table: sa.Table) -> list[Any]:
        """What a table holds."""
        with self.database.read() as connection:
            return [tuple(row) for row in connection.execute(sa.select(table))]

    def invite(self) -> Summary:
        """What `lists invite` does."""
        summary = Summary()
        chosen = self.invitations.choose(self.list, self.invitations.candidates(self.list), summary)
        self.invitations.ask(self.list, [each.id for each in chosen], summary, _DEED)
        return summary

    def invited(self, clock: Any) -> list[str]:
        """Invite both, and return the marks in their mails."""
        assert self.invite() == Summary(2)
        clock.forward(60)
        assert self.courier().send() == 2
        # In the order of people; that of the mails is nobody's business.
        self.server.delivered.sort(key=lambda one: one[0], reverse=True)
        return self.marks()

    def ask(self, method: str, path: str, fields: Mapping[str, str] | None = None) -> Answer:
        """Ask the pages."""

        async def asked() -> httpx.Response:
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
                return await client.request(method, path, data=fields, headers={"accept-language": "fr"})

        answer = asyncio.run(asked())
        return Answer(answer.status_code, answer.text)

    def members(self) -> list[Any]:
        """Consented, confirmed, basis, source, wording, offered: of each member."""
        query = sa.select(
            *(memberships.c.consented, memberships.c.confirmed_at, consents.c.basis),
            *(consents.c.source, consents.c.wording, consents.c.offered),
        ).join(consents, consents.c.id == memberships.c.consent_id)
        with self.database.read() as connection:
            return [tuple(row) for row in connection.execute(query.order_by(memberships.c.person_id))]


@pytest.fixture
def desk(database: Database, clock: Callable[[], float], fault_server: Callable[..., Any]) -> Iterator[Desk]:
    """The desk, on each kind of database, and a real mail server."""
    return Desk(database, clock, fault_server())


def test_from_the_invitation_to_the_proof(desk: Desk, clock: Any) -> None:
    """One mail each, in the reader's language and form; a look changes nothing, the button does it.

    What is kept as the consent is word for word what its reader read.
    """
    first, second = desk.invited(clock)
    before = desk.members()
    assert [row[0] for row in before] == [0, 0]
    (_, open_mail), (_, discreet_mail) = desk.server.delivered
    assert message_from_bytes(open_mail, policy=policy.default)["Subject"] == "Dürfen wir Ihnen schreiben?"
    assert "„One“" in Office._text(open_mail)
    for secret in (b"Equality", b"act.example.org", b"Auto-Submitted"):
        assert secret not in discreet_mail
    assert "One" not in Office._text(discreet_mail)
    for mark, own, title in ((first, "Example Equality", "„One“"), (second, "Letters", "")):
        shown = desk.ask("GET", f"/n/{mark}")
        assert desk.ask("HEAD", f"/n/{mark}").status == 200
        assert (shown.status, own in shown.read, title in shown.read) == (200, True, True)
        assert desk.ask("POST", f"/n/{mark}", {"choice": "confirm"}).status == 200
        assert desk.ask("POST", f"/n/{mark}", {**shown.fields, "shown": "0" * 32}).status == 200
        assert desk.ask("POST", f"/n/{mark}", {**shown.fields, "language": "es"}).status == 200
        place = (first, second).index(mark)
        assert desk.members()[place] == before[place]
        desk.ask("POST", f"/n/{mark}", shown.fields)
        assert desk.members()[place] == (
            *(1, clock(), "consent", "invitation by email"),
            *(shown.read, 1),
        )
        assert desk.ask("GET", f"/n/{mark}").status == 410
        assert desk.ask("POST", f"/n/{mark}", shown.fields).status == 410
    assert b"Equality" not in desk.ask("GET", f"/n/{second}").text.encode()
    told = [(one.operator, one.action) for one in Audit(desk.database).entries()]
    assert told.count((PERSON, "lists confirm")) == 2
    assert ("op", "lists invite") in told
    assert desk.invite() == Summary(0)


def test_once_ever(desk: Desk, clock: Any) -> None:
    """Neither another run, nor other keys, nor an erasure, which leaves a "no", has anybody asked twice."""
    links = desk.invited(clock)
    assert desk.invite() == Summary(0, Counter({"asked before": 2}))
    keyrings.require(desk.database, desk.keyring)
    ring = desk.keyring.with_new(secrets.token_bytes).using_newest()
    rotation = Rotation(
        Records(desk.database), ring, random=secrets.token_bytes, clock=clock, rest=lambda _: None
    )
    rotation.begin(_DEED)
    assert rotation.run(lambda _: None).renewed == 2
    desk.keyring = ring
    desk.build()
    for mark in links:
        assert desk.pages.pending(mark) is not None
    assert desk.invite() == Summary(0, Counter({"asked before": 2}))
    vera = desk.rights.find("vera@example.org")
    desk.rights.forget(vera, "cli", replace(_DEED, action=Action.PEOPLE_FORGET))
    assert len(desk.rows(invited)) == 1
    summary = Summary()
    assert not list(desk.invitations.choose(desk.list, [desk.invitations.newcomer(desk.people[0])], summary))
    assert summary.left_out == Counter({"said no": 1})


@pytest.mark.parametrize("when", ["queueing", "sending"])
@pytest.mark.parametrize("what", ["all", "list", "pause", "rule"])
def test_who_said_no_is_not_invited(desk: Desk, clock: Any, what: str, when: str) -> None:
    """A no to all or to the list, a pause and a rule hold when a mail is queued, and again when it goes."""
    if when == "sending":
        assert desk.invite() == Summary(2)
    key = desk.keyring.address_key(desk.people[0].address)
    scope = f"list:{desk.list.id}" if what == "list" else "all"
    if what == "pause":
        with desk.database.write() as connection:
            wish(connection, key, Wishes(paused_until=clock() + 1e6), clock())
    elif what == "rule":
        Bars(desk.database).add(Bar(0, "no-org", "domain", "example.org"), clock(), _DEED)
    else:
        Suppressions(desk.database).add([Suppression(key, scope, "opt-out", "page", clock())])
    if when == "queueing":
        reason = {"pause": "on a pause", "rule": "rule no-org"}.get(what, "said no")
        assert desk.invite() == Summary(1, Counter({reason: 1}))
    clock.forward(60)
    assert desk.courier().send() == 1
    assert [recipient for recipient, _ in desk.server.delivered] == ["ben@example.com"]


@pytest.mark.parametrize("scope", ["all", "list"])
def test_a_no_after_the_mail_stands(desk: Desk, clock: Any, scope: str) -> None:
    """The mail's own opt-out, by a mailbox or the reader, closes the invitation; taken back, it opens."""
    mark, other = desk.invited(clock)
    (_, data), _ = desk.server.delivered
    header = message_from_bytes(data, policy=policy.default)["List-Unsubscribe"]
    token = _OPT_OUT.findall(header)[0]
    assert f"../o/{token}" in desk.ask("GET", f"/n/{mark}").text
    shown = desk.ask("GET", f"/n/{mark}")
    if scope == "all":
        assert desk.ask("POST", f"/o/{token}", {"List-Unsubscribe": "One-Click"}).status == 200
    else:
        done = desk.ask("POST", f"/o/{token}", {"choice": "leave"})
    assert desk.ask("POST", f"/n/{mark}", shown.fields).status == 410
    notice, reader = (
        desk.store.find(desk.keyring.marks().read(Purpose.NOTICE, mark) or 0),
        desk.opt_outs.reader(token),
    )
    assert notice is not None
    assert reader is not None
    # Even where the page was asked a moment before it.
    assert not desk.invitations.confirm(notice, reader, shown.read)
    assert [row[0] for row in desk.members()] == [0, 0]
    if scope == "list":
        assert desk.ask("POST", f"/o/{token}", done.fields).status == 200
        desk.ask("POST", f"/n/{mark}", shown.fields)
        assert [row[0] for row in desk.members()] == [1, 0]
    clock.forward(INVITE_DAYS * 86_400 + 1)
    assert desk.ask("GET", f"/n/{other}").status == 410


def test_an_old_link_never_opens_the_next_persons_notice(office: Office) -> None:
    """Numbers stand in links: that of a notice which goes with its person is nobody else's ever after."""
    office.pages.ask(office.links[0], "forget")
    office.courier().send()
    (mark,) = office.marks()
    assert office.pages.confirm(mark) is not None
    office.pages.ask(office.links[1], "export")
    office.courier().send()
    assert len(office.marks()) == 2
    assert (office.pages.pending(mark), office.pages.confirm(mark)) == (None, None)


def test_who_signs_up_is_a_member_once_they_confirm(desk: Desk) -> None:
    """Off unless a list opens it; before the mail is confirmed nobody is held, and after it once."""
    assert (desk.ask("GET", desk.form).status, desk.enter("eva@example.org").status) == (404, 404)
    desk.open_form()
    shown = desk.ask("GET", desk.form)
    assert (shown.status, "Example Equality" in shown.read, "One" in shown.read) == (200, True, True)
    assert desk.enter("eva@").status == 422
    before = len(desk.rows(people))
    assert desk.enter("eva@example.org", name="Eva <b>www.spam.example</b>").status == 200
    assert desk.enter("eva@example.org", name="Another").status == 200
    assert len(desk.rows(people)) == before
    assert all(b"eva" not in bytes(row[2]) for row in desk.rows(signups))
    assert desk.courier().send() == 2
    (to, data), _ = desk.server.delivered
    message = message_from_bytes(data, policy=policy.default)
    assert (to, message["To"], message["List-Unsubscribe"]) == ("eva@example.org", "eva@example.org", None)
    assert message["Subject"] == "Bitte bestätigen Sie Ihre Anfrage"
    assert b"spam" not in data
    mark = desk.marks()[0]
    page = desk.ask("GET", f"/n/{mark}")
    assert len(desk.rows(people)) == before
    assert desk.ask("POST", f"/n/{mark}", page.fields).status == 200
    assert desk.members()[-1][:1] + desk.members()[-1][2:] == (1, "consent", "sign-up form", page.read, 1)
    assert desk.rows(signups) == []
    eva = desk.rights.find("eva@example.org").person
    assert eva is not None
    assert (eva.language, eva.fields) == ("de", {"first_name": "Eva b spam.example b"})


def test_the_form_tells_nobody_who_is_known_and_lifts_no_more_than_it_may(desk: Desk, clock: Any) -> None:
    """One page for strangers, members and who said no: to all that stands, to the list it is lifted."""
    desk.open_form()
    vera, ben = (desk.keyring.address_key(one.address) for one in desk.people)
    noes = [Suppression(vera, "all", "opt-out", "page", clock())]
    noes += [Suppression(ben, f"list:{desk.list.id}", "opt-out", "page", clock())]
    Suppressions(desk.database).add(noes)
    clock.forward(10)
    pages = {
        desk.enter(address).text for address in ("eva@example.org", "vera@example.org", "ben@example.com")
    }
    assert len(pages) == 1
    assert desk.courier().send() == 2
    desk.server.delivered.sort(key=lambda one: one[0])
    assert [one for one, _ in desk.server.delivered] == ["ben@example.com", "eva@example.org"]
    assert b"Equality" not in desk.server.delivered[0][1]
    mark = desk.marks()[0]
    desk.ask("POST", f"/n/{mark}", desk.ask("GET", f"/n/{mark}").fields)
    assert Suppressions(desk.database).find(ben) == []
    assert len(Suppressions(desk.database).find(vera)) == 1
    assert "suppress lift" in [one.action for one in Audit(desk.database).entries()]


def test_what_nobody_confirms_is_dropped_and_nobody_is_bombed(desk: Desk, clock: Any) -> None:
    """So many mails a day for one address, and entries for one network; after the link's time none stays."""
    desk.open_form()
    answers = [desk.enter("eva@example.org").status for _ in range(14)]
    assert answers == [200] * 12 + [429] * 2
    assert desk.courier().send() == MOST_A_DAY
    mark = desk.marks()[0]
    desk.invitations.tick()
    assert len(desk.rows(signups)) == 1
    clock.forward((DAYS + 1) * 86_400)
    desk.invitations.tick()
    assert desk.rows(signups) == []
    assert desk.ask("GET", f"/n/{mark}").status == 410
