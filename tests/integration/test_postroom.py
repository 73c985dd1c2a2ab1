"""What comes back has its effect once, whatever the order; what is not ours has none."""

import itertools
import os
import secrets
import stat
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from worker import inbox, postroom
from worker.addresses import parse
from worker.campaigns import Alarms
from worker.deeds import Action, Deed
from worker.errors import WrongUse
from worker.feedback import OptOuts
from worker.inbox import Kept, Maildir
from worker.postroom import Effect, PostRoom
from worker.returns.opened import MOST_BYTES
from worker.sealing import Keyring, Person
from worker.store.aftermath import Aftermath
from worker.store.audience import Rule
from worker.store.blames import Blames
from worker.store.database import Database
from worker.store.people import People
from worker.store.plans import Draft, Plans
from worker.store.schema import campaigns, deliveries, facts
from worker.store.staging import Staged
from worker.store.suppressions import Act, Suppressions
from worker.store.tallies import Tallies
from worker.tokens import Purpose

PLACES = {
    "{bounce}": Purpose.BOUNCE,
    "{message}": Purpose.MESSAGE,
    "{opt_out}": Purpose.OPT_OUT,
}
MAILS = Path(__file__).parents[1] / "returned"


@dataclass
class Bureau:
    """A store with people and campaigns, and the post room of it."""

    database: Database
    keyring: Keyring
    clock: Any
    room: PostRoom
    maildir: Maildir
    people: Sequence[Person]
    list_id: int

    def campaign(self) -> Sequence[int]:
        """Launch a campaign to everybody; the ids of its deliveries, in the order of the people."""
        plans = Plans(self.database, batch_size=100)
        draft = Draft("a", "{}", Rule((self.list_id,)), "d", "running", "op", "op", 0.0, "UTC", None)
        made = plans.record(draft, 1.0)
        while plans.slice(made, 100, 1.0):
            pass
        query = sa.select(deliveries.c.id).where(deliveries.c.campaign_id == made.id)
        with self.database.read() as connection:
            return list(connection.execute(query.order_by(deliveries.c.person_id)).scalars())

    def put(self, delivery: int, state: str, reason: str = "", **columns: object) -> int:
        """Let a delivery stand in a state."""
        with self.database.write() as connection:
            connection.execute(
                sa.update(deliveries)
                .where(deliveries.c.id == delivery)
                .values(state=state, reason=reason, **columns)
            )
        return delivery

    def mail(self, name: str, delivery: int) -> bytes:
        """A mail of tests/returned about a delivery."""
        text = (MAILS / f"{name}.eml").read_text(encoding="utf-8")
        for place, purpose in PLACES.items():
            text = text.replace(place, self.keyring.marks().mark(purpose, delivery))
        return text.encode()

    def arrives(self, name: str, delivery: int) -> Path:
        """Have the mail server put a mail into the Maildir."""
        file = self.maildir.folder / "new" / f"{name}.{delivery}"
        file.write_bytes(self.mail(name, delivery))
        return file

    def state(self, delivery: int) -> tuple[str, str]:
        """A delivery's state and reason."""
        query = sa.select(deliveries.c.state, deliveries.c.reason).where(deliveries.c.id == delivery)
        with self.database.read() as connection:
            return tuple(connection.execute(query).one())

    def facts(self, delivery: int) -> set[tuple[str, str]]:
        """What else is known of it."""
        query = sa.select(facts.c.kind, facts.c.source).where(facts.c.delivery_id == delivery)
        with self.database.read() as connection:
            return {tuple(row) for row in connection.execute(query)}

    def suppressed(self, number: int = 0) -> list[tuple[str, str, str]]:
        """What stands against writing to a person."""
        key = self.keyring.address_key(self.people[number].address)
        return [(one.scope, one.reason, one.source) for one in Suppressions(self.database).find(key)]


@pytest.fixture
def bureau(database: Database, clock: Callable[[], float], tmp_path: Path) -> Bureau:
    """Forty people on a list, a Maildir, and a post room."""
    keyring = Keyring.generate(secrets.token_bytes)
    everybody = [Person(parse(f"zoe{number}@example.org"), {}) for number in range(40)]
    people = People(database)
    opened = people.begin_import()
    consent = people.consent_ids([("consent", "form", "")])[0]
    rows = [
        Staged(keyring.address_key(one.address), at, b"sealed", "other", consent, 1.0)
        for at, one in enumerate(everybody, 1)
    ]
    opened.add(rows)
    opened.finish("one", "One", 1.0)
    for name in ("new", "cur", "tmp"):
        (tmp_path / "md" / name).mkdir(parents=True)
    opt_outs = OptOuts(database, keyring, sender="Example Equality", discreet_sender="", clock=clock)
    alarms = Alarms(Plans(database, batch_size=100))
    kept = Kept(tmp_path / "kept")
    room = PostRoom(Aftermath(database), Blames(database), opt_outs, keyring, kept, clock, alarms)
    maildir = Maildir(tmp_path / "md", MOST_BYTES)
    list_id = people.find_lists(["one"])[0].id
    return Bureau(database, keyring, clock, room, maildir, everybody, list_id)


GONE = [("all", "bounce", "report")]
LATE = ("bounced later", "no-mailbox")
DEAD = ("address gone", "report")
OURS = ("our fault", "unauthenticated")

#: Before, mail; then effect, after, facts, what stands against the person.
NEWS: list[tuple[str, str, Effect, str, set[tuple[str, str]], list[tuple[str, str, str]]]] = [
    ("unconfirmed", "postfix-failed", Effect.BOUNCED, "bounced", {DEAD}, GONE),
    ("unconfirmed", "postfix-expired", Effect.BOUNCED, "bounced", set(), []),
    ("unconfirmed", "gmail-unauthenticated", Effect.BOUNCED, "bounced", {OURS}, []),
    ("sent", "gmail-unauthenticated", Effect.BOUNCED, "sent", {OURS}, []),
    ("queued", "gmail-unauthenticated", Effect.BOUNCED, "queued", {OURS}, []),
    ("bounced", "gmail-unauthenticated", Effect.NOTHING, "bounced", set(), []),
    ("sending", "gmail-unauthenticated", Effect.LATER, "sending", set(), []),
    ("unconfirmed", "postfix-delayed", Effect.NOTHING, "unconfirmed", set(), []),
    ("unconfirmed", "postfix-delivered", Effect.DELIVERED, "sent", set(), []),
    ("unconfirmed", "vacation-dovecot", Effect.NOTHING, "unconfirmed", set(), []),
    ("unconfirmed", "person", Effect.PERSON, "unconfirmed", set(), []),
    ("unconfirmed", "no-mark", Effect.FOREIGN, "unconfirmed", set(), []),
    ("sent", "postfix-failed", Effect.BOUNCED, "sent", {LATE, DEAD}, GONE),
    ("sent", "by-message-id", Effect.BOUNCED, "sent", {("bounced later", "undelivered")}, []),
    ("sent", "exim-quota", Effect.BOUNCED, "sent", {("bounced later", "quota")}, []),
    ("sent", "postfix-delivered", Effect.NOTHING, "sent", set(), []),
    ("sent", "alias-one-arrived", Effect.NOTHING, "sent", set(), []),
    ("queued", "postfix-failed", Effect.BOUNCED, "queued", {LATE, DEAD}, GONE),  # --resend of an old copy
    ("bounced", "postfix-failed", Effect.NOTHING, "bounced", set(), []),
    ("sending", "postfix-failed", Effect.LATER, "sending", set(), []),
    ("sending", "postfix-delivered", Effect.LATER, "sending", set(), []),
    (
        "sent",
        "yahoo-complaint",
        Effect.COMPLAINED,
        "sent",
        {("complained", "abuse")},
        [("all", "complaint", "feedback report")],
    ),
    ("sent", "not-spam", Effect.NOTHING, "sent", {("not spam", "feedback report")}, []),
    ("sent", "auth-failure", Effect.NOTHING, "sent", set(), []),
    ("sent", "fraud", Effect.PERSON, "sent", set(), []),
    ("sent", "opt-out", Effect.OPTED_OUT, "sent", {("opted out", "mail")}, [("all", "opt-out", "mail")]),
    ("queued", "opt-out", Effect.OPTED_OUT, "queued", {("opted out", "mail")}, [("all", "opt-out", "mail")]),
    ("sent", "opt-out-vacation", Effect.NOTHING, "sent", set(), []),
    ("sent", "report-to-opt-out", Effect.FOREIGN, "sent", set(), []),
    ("sent", "vacation-moved", Effect.PERSON, "sent", set(), []),
]


@pytest.mark.parametrize(("before", "name", "effect", "after", "known", "stands"), NEWS)
def test_each_mail_has_its_effect_and_the_second_time_none(
    bureau: Bureau,
    before: str,
    name: str,
    effect: Effect,
    after: str,
    known: set[tuple[str, str]],
    stands: list[tuple[str, str, str]],
) -> None:
    """State, facts and suppression follow from the mail; told twice, they stay as they are."""
    delivery = bureau.put(bureau.campaign()[0], before)
    mail = bureau.mail(name, delivery)
    assert bureau.room.look(mail) is effect
    for _ in range(2):
        assert bureau.state(delivery)[0] == after
        assert bureau.facts(delivery) == known
        assert bureau.suppressed() == stands
        bureau.room.look(mail)


def test_what_the_server_said_is_kept_without_the_address(bureau: Bureau) -> None:
    """A settled delivery shows code, status and scrubbed words, as one that the relay refused."""
    delivery = bureau.put(bureau.campaign()[0], "unconfirmed", "owner lost")
    bureau.room.look(bureau.mail("postfix-failed", delivery))
    columns = (
        deliveries.c.reason,
        deliveries.c.reply_code,
        deliveries.c.reply_status,
        deliveries.c.reply_text,
    )
    with bureau.database.read() as connection:
        found = connection.execute(sa.select(*columns).where(deliveries.c.id == delivery)).one()
    assert tuple(found) == (
        "no-mailbox",
        550,
        "5.1.1",
        "<address> Recipient address rejected: User unknown",
    )


def test_the_order_of_arrival_does_not_matter(bureau: Bureau) -> None:
    """Whatever comes first, the same stands in the end."""
    names = ("postfix-failed", "yahoo-complaint", "opt-out", "postfix-delayed")
    ends = []
    for order in itertools.permutations(names):
        delivery = bureau.put(bureau.campaign()[0], "unconfirmed")
        for name in order:
            bureau.room.look(bureau.mail(name, delivery))
        ends.append((bureau.state(delivery), bureau.facts(delivery)))
    assert [end == ends[0] for end in ends] == [True] * 24
    assert ends[0][0] == ("bounced", "no-mailbox")
    assert len(bureau.suppressed()) == 1


def test_a_bounce_that_overtakes_the_ledger_waits_for_it(bureau: Bureau) -> None:
    """The relay may refuse before our own chunk is settled: the mail stays until it is, and then counts."""
    delivery = bureau.put(bureau.campaign()[0], "sending")
    file = bureau.arrives("postfix-failed", delivery)
    assert bureau.room.read(bureau.maildir) == {Effect.LATER: 1}
    bureau.put(delivery, "unconfirmed")
    assert bureau.room.read(bureau.maildir) == {}  # not again at once
    bureau.clock.forward(11)
    assert bureau.room.read(bureau.maildir) == {Effect.BOUNCED: 1}
    assert bureau.state(delivery) == ("bounced", "no-mailbox")
    assert not file.exists()


# -- addresses that may be gone ------------------------------------------------------------------------


def test_an_address_that_may_be_gone_is_suppressed_the_second_time(bureau: Bureau) -> None:
    """A mailbox that is disabled in one campaign may be so by mistake; the same report twice is one time."""
    first, second = bureau.campaign()[0], bureau.campaign()[0]
    for delivery in (first, second):
        bureau.put(delivery, "sent")
    disabled = bureau.mail("postfix-failed", first).replace(b"5.1.1", b"5.2.1")
    bureau.room.look(disabled)
    bureau.room.look(disabled)
    assert bureau.suppressed() == []
    bureau.room.look(bureau.mail("postfix-failed", second).replace(b"5.1.1", b"5.2.1"))
    assert bureau.facts(second) == {("bounced later", "disabled"), DEAD}
    assert bureau.suppressed() == GONE


def test_a_refusal_by_the_relay_counts_as_the_first_time(bureau: Bureau) -> None:
    """A bounce is a bounce, by whichever way it was told."""
    first, second = bureau.campaign()[0], bureau.campaign()[0]
    bureau.put(first, "bounced", "disabled")
    bureau.put(second, "sent")
    bureau.room.look(bureau.mail("postfix-failed", second).replace(b"5.1.1", b"5.2.1"))
    assert bureau.suppressed() == GONE


def test_a_full_mailbox_is_never_suppressed(bureau: Bureau) -> None:
    """However often it happens (STANDARDS F4)."""
    for _ in range(3):
        bureau.room.look(bureau.mail("exim-quota", bureau.put(bureau.campaign()[0], "sent")))
    assert bureau.suppressed() == []


def test_whom_the_relay_called_gone_is_suppressed_by_the_tick(bureau: Bureau) -> None:
    """Dead addresses at once, doubtful ones the second time, others never; no mail was needed for it."""
    earlier, now = bureau.campaign(), bureau.campaign()
    for number in range(4):
        bureau.put(earlier[number], "sent")
    bureau.put(earlier[2], "bounced", "no-route")
    for number, reason in enumerate(("no-mailbox", "no-route", "no-route", "quota")):
        bureau.put(now[number], "bounced", reason)
    for _ in range(2):  # one campaign a tick
        bureau.room.tick(None)
    relay = [("all", "bounce", "relay")]
    assert [bureau.suppressed(number) for number in range(4)] == [relay, [], relay, []]
    assert bureau.facts(now[0]) == {("address gone", "relay")}


def test_what_an_operator_lifts_stays_lifted(bureau: Bureau) -> None:
    """A later search, or the same report again, does not take back a person's word."""
    here = bureau.campaign()
    bureau.put(here[0], "bounced", "no-mailbox")
    bureau.put(here[1], "sent")
    bureau.room.look(bureau.mail("postfix-failed", here[1]))
    bureau.room.tick(None)
    for number in (0, 1):
        assert bureau.suppressed(number)
        keys = bureau.keyring.address_keys(bureau.people[number].address)
        lifting = Deed(1.0, "op", Action.SUPPRESS_LIFT)
        Suppressions(bureau.database).lift(keys, None, Act.OPERATOR, lifting)
    bureau.clock.forward(3600)
    bureau.room.tick(None)
    bureau.room.look(bureau.mail("postfix-failed", here[1]))
    assert bureau.suppressed(0) == bureau.suppressed(1) == []


def test_a_provider_that_calls_half_a_campaign_dead_is_not_believed(bureau: Bureau) -> None:
    """Twenty of "other" refused and nineteen taken: that is a fault, and nobody is given up for it."""
    here = bureau.campaign()
    for delivery in here[:20]:
        bureau.put(delivery, "bounced", "no-mailbox")
    bureau.put(here[20], "bounced", "no-mailbox", provider="google")
    for delivery in here[21:]:
        bureau.put(delivery, "sent")
    bureau.room.tick(None)
    assert bureau.suppressed(0) == []
    assert bureau.suppressed(20) == [("all", "bounce", "relay")]
    bureau.put(here[19], "sent")
    bureau.clock.forward(601)
    bureau.room.tick(None)
    assert bureau.suppressed(0) == [("all", "bounce", "relay")]


def test_a_campaign_is_searched_now_and_then_and_once_it_has_ended(
    bureau: Bureau, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search reads a whole campaign, so it is not for every tick."""
    bureau.campaign()
    searched: list[float] = []
    real = Aftermath.suppress_refused

    def counted(self: Aftermath, campaign_id: int, now: float) -> int:
        searched.append(now)
        return real(self, campaign_id, now)

    monkeypatch.setattr(Aftermath, "suppress_refused", counted)
    start = bureau.clock()
    for _ in range(400):
        bureau.room.tick(None)
        bureau.clock.forward(2)
    assert [at - start for at in searched] == [0, 600]
    with bureau.database.write() as connection:
        connection.execute(sa.update(campaigns).values(state="finished", finished_at=bureau.clock()))
    for _ in range(1000):
        bureau.room.tick(None)
        bureau.clock.forward(2)
    assert len(searched) == 3


# -- the Maildir ---------------------------------------------------------------------------------------


def test_each_mail_ends_where_it_belongs(bureau: Bureau) -> None:
    """Done is deleted, ours for a person is kept for our eyes only, not ours is left as seen."""
    here = bureau.campaign()
    bureau.put(here[0], "sent")
    for name in ("postfix-failed", "opt-out", "person", "person-stop", "vacation-dovecot", "no-mark"):
        bureau.arrives(name, here[0])
    bureau.arrives("postfix-failed", 0)  # a test mail
    assert bureau.room.read(bureau.maildir) == {
        Effect.BOUNCED: 1,
        Effect.OPTED_OUT: 1,
        Effect.PERSON: 2,
        Effect.NOTHING: 2,
        Effect.FOREIGN: 1,
    }
    assert [*(bureau.maildir.folder / "new").iterdir()] == []
    assert [file.name for file in (bureau.maildir.folder / "cur").iterdir()] == [f"no-mark.{here[0]}:2,"]
    kept = bureau.room.kept.files()
    assert Counter(map(inbox.says_stop, kept)) == {True: 1, False: 1}
    assert {stat.S_IMODE(file.stat().st_mode) for file in kept} == {0o600}
    assert stat.S_IMODE(bureau.room.kept.folder.stat().st_mode) == 0o700
    assert {file.read_bytes() for file in kept} == {
        bureau.mail(one, here[0]) for one in ("person", "person-stop")
    }


def test_a_crash_before_the_deletion_does_no_harm(bureau: Bureau, monkeypatch: pytest.MonkeyPatch) -> None:
    """Acted upon and not deleted, a mail is read again and changes nothing."""
    delivery = bureau.put(bureau.campaign()[0], "unconfirmed")
    bureau.arrives("postfix-failed", delivery)

    class Killed(BaseException):
        """The process is gone."""

    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Maildir, "delete", die)
        with pytest.raises(Killed):
            bureau.room.read(bureau.maildir)
    before = bureau.state(delivery), bureau.facts(delivery), bureau.suppressed()
    assert bureau.room.read(bureau.maildir) == {Effect.NOTHING: 1}
    assert (bureau.state(delivery), bureau.facts(delivery), bureau.suppressed()) == before
    assert [*(bureau.maildir.folder / "new").iterdir()] == []


def test_two_readers_at_once_do_everything_once(bureau: Bureau) -> None:
    """Two ticks share a Maildir; none fails for a mail that the other took."""
    here = bureau.campaign()
    for number, delivery in enumerate(here):
        bureau.put(delivery, "unconfirmed" if number % 2 else "sent")
        bureau.arrives("postfix-failed", delivery)
    counts: list[Counter[Effect]] = []
    readers = [
        threading.Thread(target=lambda: counts.append(bureau.room.read(bureau.maildir))) for _ in range(2)
    ]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(60)
    assert len(counts) == 2
    assert sum(counts, Counter())[Effect.BOUNCED] == len(here)
    assert all(bureau.suppressed(number) == GONE for number in range(len(here)))


def test_what_is_no_plain_file_is_passed_over(bureau: Bureau, tmp_path: Path) -> None:
    """Neither a link that leads elsewhere nor a pipe that never ends is opened."""
    here = bureau.campaign()
    new = bureau.maildir.folder / "new"
    secret = tmp_path / "secret"
    secret.write_bytes(bureau.mail("opt-out", here[0]))
    (new / "link").symlink_to(secret)
    (new / "folder").mkdir()
    os.mkfifo(new / "pipe")
    bureau.arrives("opt-out", here[1])
    assert bureau.room.read(bureau.maildir) == {Effect.OPTED_OUT: 1}
    assert bureau.suppressed(0) == []
    assert secret.exists()


def test_a_folder_that_is_no_maildir_is_told(bureau: Bureau, tmp_path: Path) -> None:
    """With what to do about it."""
    with pytest.raises(WrongUse, match="no Maildir that we may read"):
        bureau.room.read(Maildir(tmp_path / "nowhere", MOST_BYTES))


def test_a_tick_reads_for_a_moment_only(bureau: Bureau) -> None:
    """A thousand reports do not keep the next tick waiting; the rest is read then."""
    here = bureau.campaign()
    for delivery in here:
        bureau.arrives("vacation-dovecot", delivery)
    at = bureau.clock()
    times = itertools.count()
    slow = PostRoom(
        Aftermath(bureau.database),
        Blames(bureau.database),
        bureau.room._opt_outs,
        bureau.keyring,
        bureau.room.kept,
        lambda: at + 0.05 * next(times),
        bureau.room._alarms,
    )
    slow.tick(bureau.maildir)
    left = len([*(bureau.maildir.folder / "new").iterdir()])
    assert 0 < left < len(here)
    slow.tick(bureau.maildir)
    assert len([*(bureau.maildir.folder / "new").iterdir()]) < left


def test_kept_mail_cannot_fill_the_disk(bureau: Bureau, monkeypatch: pytest.MonkeyPatch) -> None:
    """When there is too much for a person the rest stays where it is, and other mail goes on."""
    monkeypatch.setattr(inbox, "MOST_KEPT", 2)
    here = bureau.campaign()
    for delivery in here[:4]:
        bureau.arrives("person", delivery)
    bureau.arrives("zz-opt-out"[3:], here[5])
    counts = bureau.room.read(bureau.maildir)
    assert counts == {Effect.PERSON: 2, Effect.LATER: 2, Effect.OPTED_OUT: 1}
    assert len([*(bureau.maildir.folder / "new").iterdir()]) == 2


def test_an_opt_out_of_a_delivery_that_is_not_here_is_kept_for_a_person(bureau: Bureau) -> None:
    """After a restored backup: somebody said no, and it must not get lost."""
    for name in ("opt-out", "yahoo-complaint", "postfix-failed"):
        bureau.arrives(name, 10**9)
    assert bureau.room.read(bureau.maildir) == {Effect.PERSON: 2, Effect.NOTHING: 1}
    assert len(bureau.room.kept.files()) == 2


def test_a_pipe_keeps_what_a_person_wrote_ours_or_not(bureau: Bureau) -> None:
    """There is no other copy: a mistyped opt-out address must not swallow somebody's "no"."""
    assert bureau.room.take(bureau.mail("person-no-mark", 1)) is Effect.PERSON
    assert bureau.room.take(bureau.mail("no-mark", 1)) is Effect.FOREIGN
    assert len(bureau.room.kept.files()) == 1


def test_a_person_is_opted_out_on_an_operators_word(bureau: Bureau) -> None:
    """The mail they answered tells who they are; a mail without a mark tells nothing."""
    here = bureau.campaign()
    assert bureau.room.opt_out(bureau.mail("person-stop", here[3]))
    assert bureau.suppressed(3) == [("all", "opt-out", "cli")]
    assert not bureau.room.opt_out(bureau.mail("person-no-mark", here[4]))


def test_our_own_fault_is_told(bureau: Bureau, monkeypatch: pytest.MonkeyPatch) -> None:
    """A late bounce that names our set-up is a warning; nobody is suppressed for it (STANDARDS P8)."""
    told: list[dict[str, object]] = []
    monkeypatch.setattr(
        postroom, "log", type("Log", (), {"warning": lambda _, event, **words: told.append({event: words})})()
    )
    delivery = bureau.put(bureau.campaign()[0], "sent")
    for _ in range(2):
        bureau.room.look(bureau.mail("gmail-unauthenticated", delivery))
    assert told == [{"our_fault": {"delivery": delivery, "reason": "unauthenticated"}}]
    assert bureau.suppressed() == []


def blamed(bureau: Bureau, sent: Sequence[int], name: str = "gmail-unauthenticated") -> None:
    """Have mails come back for a fault of ours."""
    for delivery in sent:
        bureau.room.look(bureau.mail(name, delivery))


def standing(bureau: Bureau, delivery: int) -> tuple[str, str]:
    """State and notice of a delivery's campaign, after the tick has looked."""
    bureau.clock.forward(11)
    bureau.room.tick(None)
    query = sa.select(campaigns.c.state, campaigns.c.notice).join(
        deliveries, deliveries.c.campaign_id == campaigns.c.id
    )
    with bureau.database.read() as connection:
        return tuple(connection.execute(query.where(deliveries.c.id == delivery)).one())


def resume(bureau: Bureau) -> None:
    """Let every campaign run again, as an operator does."""
    with bureau.database.write() as connection:
        connection.execute(sa.update(campaigns).values(state="running", notice=""))


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        (b"5.7.26", b"5.7.26", "unauthenticated"),
        (b"5.7.26", b"5.7.27", "spf"),
        (b"5.7.26 Your", b"5.7.1 (S3140) Your", "microsoft-blocked"),
    ],
)
def test_mail_that_comes_back_for_our_fault_pauses_its_campaign(
    bureau: Bureau, before: bytes, after: bytes, reason: str
) -> None:
    """Three are believed, as in a session; the other campaign goes on, and nobody's end changes."""
    here, other = bureau.campaign(), bureau.campaign()
    for delivery in (*here[:20], *other[:20]):
        bureau.put(delivery, "sent", settled_at=bureau.clock())
    mails = [bureau.mail("gmail-unauthenticated", delivery).replace(before, after) for delivery in here[:3]]
    for mail in mails[:2] * 2:
        bureau.room.look(mail)
    assert standing(bureau, here[0]) == ("running", "")
    bureau.room.look(mails[2])
    state, notice = standing(bureau, here[0])
    assert (state, notice.startswith(f"paused: {reason}: 3 mails to other servers")) == ("paused", True)
    assert standing(bureau, other[0]) == ("running", "")
    assert {bureau.state(delivery)[0] for delivery in here[:20]} == {"sent"}
    assert bureau.suppressed() == []


def test_a_fault_is_told_once_for_what_left_before(bureau: Bureau) -> None:
    """After a resume only mail that left since then can pause it again."""
    here = bureau.campaign()
    for delivery in here[:20]:
        bureau.put(delivery, "sent", settled_at=bureau.clock())
    blamed(bureau, here[:5])
    assert standing(bureau, here[0])[0] == "paused"
    resume(bureau)
    assert standing(bureau, here[0])[0] == "running"
    blamed(bureau, here[5:15])  # late
    assert standing(bureau, here[0])[0] == "running"
    for delivery in here[20:]:
        bureau.put(delivery, "sent", settled_at=bureau.clock())
    blamed(bureau, here[20:22])
    assert standing(bureau, here[0])[0] == "running"
    blamed(bureau, here[22:23])
    assert standing(bureau, here[0])[0] == "paused"
    kinds = {kind for kind, _ in Tallies(bureau.database).facts(1)}
    assert kinds == {"our fault"}  # when we were told is none about a person


def test_a_few_readers_servers_stop_nobody(bureau: Bureau) -> None:
    """Who forwards mail breaks its authentication: three of forty are theirs, four may be ours."""
    here = bureau.campaign()
    for delivery in here:
        bureau.put(delivery, "sent", settled_at=bureau.clock())
    blamed(bureau, here[:3])
    assert standing(bureau, here[0])[0] == "running"
    blamed(bureau, here[3:4])
    assert standing(bureau, here[0])[0] == "paused"


def test_each_provider_speaks_for_itself(bureau: Bureau) -> None:
    """Three of Google's four are a fault, though thirty-six others took it."""
    here = bureau.campaign()
    for number, delivery in enumerate(here):
        provider = "google" if number < 4 else "other"
        bureau.put(delivery, "sent", settled_at=bureau.clock(), provider=provider)
    blamed(bureau, [here[0], here[1], here[10], here[11]])
    assert standing(bureau, here[0])[0] == "running"
    blamed(bureau, here[2:3])
    assert "3 mails to google servers" in standing(bureau, here[0])[1]


def test_an_unconfirmed_mail_refused_for_our_fault_does_not_go_again_by_itself(bureau: Bureau) -> None:
    """A forwarder behind the mailbox may have refused it: a second copy is for an operator to decide."""
    here = bureau.campaign()
    bureau.put(here[0], "unconfirmed")
    blamed(bureau, here[:1])
    assert bureau.state(here[0]) == ("bounced", "unauthenticated")
    assert bureau.suppressed() == []
