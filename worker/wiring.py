"""The only place where objects are built: settings in, a whole Tocsin out, each part on first use.

Owns which adapter stands behind which interface, and the clock and the dice. Refuses: rules, and I/O of its
own beyond reading the workspace's template files.

Most parts are imported where they are built: what sends, renders and serves takes most of a second to load,
and the commands of every day need none of it.
"""

import importlib
import platform
import random
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from worker.campaigns import Campaigns, Doorbell
from worker.settings import MAIN_RELAY, Settings
from worker.store.audit import Audit
from worker.store.database import Database
from worker.store.docket import Docket
from worker.store.people import People
from worker.store.plans import Plans
from worker.store.tallies import Tallies

if TYPE_CHECKING:
    from redis import Redis
    from starlette.types import ASGIApp

    from worker import sections
    from worker.barring import Barring
    from worker.content.editions import Edition, Form, Printer
    from worker.content.messages import Identity
    from worker.dispatch import Dispatcher
    from worker.feedback import OptOuts
    from worker.hosted import Hosted
    from worker.imports import Importer
    from worker.inbox import Maildir
    from worker.invitations import Invitations
    from worker.notices import Confirmations, Courier
    from worker.planning import Planner
    from worker.post.relay import Relay
    from worker.postroom import PostRoom
    from worker.preferences import Preferences
    from worker.recognising import Recogniser
    from worker.retention import Retention
    from worker.rights import Rights, Subject
    from worker.rotation import Rotation
    from worker.routes import Routes
    from worker.sealing import Keyring
    from worker.store.bars import Bars
    from worker.store.ledger import Ledger
    from worker.store.policies import Policies
    from worker.store.suppressions import Suppressions
    from worker.sweep import Sweep
    from worker.throttle import Throttle
    from worker.visits import Line, Visits

#: What is imported late, and heavy.
_LATE = (
    *("worker.content.editions", "worker.dispatch", "worker.feedback", "worker.planning"),
    *("worker.post.relay", "worker.replica", "worker.routes", "worker.sweep", "worker.throttle"),
)
#: Seconds that Redis has to count somebody's guesses: whoever waits for it is a reader.
_TURNSTILE_SECONDS = 0.5
#: Campaigns whose printers one process keeps ready.
_PRINTERS = 8


def load() -> None:
    """Import what sends now and not with the first mail, for a process that will do little else."""
    for name in _LATE:
        importlib.import_module(name)


class Wiring:
    """One process's objects. Build it after a fork, never before."""

    def __init__(
        self, settings: Settings, doorbell: Doorbell, stopping: Callable[[], bool] = lambda: False
    ) -> None:
        """Take the settings, what rings, and whether this process has been asked to end."""
        self.settings = settings
        self.doorbell = doorbell
        self.clock = time.time
        self._stopping = stopping
        self._printers: OrderedDict[tuple[int, str], Printer] = OrderedDict()

    @cached_property
    def database(self) -> Database:
        """The store."""
        return Database(self.settings.database_url().render_as_string(hide_password=False))

    @cached_property
    def keyring(self) -> "Keyring":
        """The keys; WrongUse when the secret file is missing, open to others, wrong or another store's."""
        from worker.store import keyrings

        return keyrings.require(self.database, self.ring())

    def ring(self) -> "Keyring":
        """Return what the secret file holds at this moment, whatever a store says of it."""
        from worker.sealing import Keyring

        return Keyring.load(self.settings.secret_text().get_secret_value(), again=self.ring)

    @cached_property
    def people(self) -> People:
        """Persons and lists."""
        return People(self.database)

    @cached_property
    def suppressions(self) -> "Suppressions":
        """The standing "no"s."""
        from worker.store.suppressions import Suppressions

        return Suppressions(self.database)

    @cached_property
    def audit(self) -> Audit:
        """Who did what."""
        return Audit(self.database)

    @cached_property
    def plans(self) -> Plans:
        """The campaigns' rows."""
        return Plans(self.database, self.settings.sending.batch_size)

    @cached_property
    def ledger(self) -> "Ledger":
        """The deliveries in hand."""
        from worker.store.ledger import Ledger

        return Ledger(self.database)

    @cached_property
    def tallies(self) -> Tallies:
        """The counts."""
        return Tallies(self.database)

    @cached_property
    def campaigns(self) -> Campaigns:
        """The campaigns, as an operator moves them."""
        return Campaigns(
            self.plans,
            Docket(self.database),
            self.tallies,
            self.doorbell,
            clock=self.clock,
            two_people=self.settings.sending.approval == "two",
        )

    @cached_property
    def importer(self) -> "Importer":
        """What brings files onto lists."""
        from worker.imports import Importer

        return Importer(
            *(self.people, self.suppressions, self.bars, self.keyring),
            random=secrets.token_bytes,
            clock=self.clock,
        )

    def rotation(self, ring: "Keyring") -> "Rotation":
        """Make what changes to the keys that a ring has in use."""
        from worker.rotation import Rotation
        from worker.store.records import Records

        records = Records(self.database)
        return Rotation(records, ring, random=secrets.token_bytes, clock=self.clock, rest=time.sleep)

    @cached_property
    def bars(self) -> "Bars":
        """The never-mail rules."""
        from worker.store.bars import Bars

        return Bars(self.database)

    @cached_property
    def recogniser(self) -> "Recogniser":
        """What tells whom other tools' hashes mean."""
        from worker.recognising import Recogniser

        return Recogniser(self.suppressions, self.bars, self.keyring)

    @cached_property
    def policies(self) -> "Policies":
        """What lists ask of a consent."""
        from worker.store.policies import Policies

        return Policies(self.database)

    @cached_property
    def invitations(self) -> "Invitations":
        """What asks people whether they want to be on a list."""
        from worker.invitations import Invitations

        return Invitations(
            self.database,
            self.keyring,
            senders={
                False: self.settings.organisation.name,
                **({True: self.settings.discreet.sender_name} if self.settings.discreet else {}),
            },
            random=secrets.token_bytes,
            clock=self.clock,
        )

    def sign_up_url(self, list_id: int, *, discreet: bool) -> str:
        """Return where a list's sign-up form is; of a discreet list under the neutral host, if any."""
        from worker.tokens import Purpose

        mark = self.keyring.marks().mark(Purpose.SIGN_UP, list_id)
        web = self.settings.web
        base_url = (web.discreet_base_url if discreet else None) or web.base_url
        return f"{base_url}/s/{mark}"

    @cached_property
    def barring(self) -> "Barring":
        """What puts a never-mail rule in force."""
        from worker.barring import Barring

        return Barring(self.bars, self.keyring, self.clock)

    @cached_property
    def rights(self) -> "Rights":
        """What one person may ask of us."""
        from worker.rights import Rights

        return Rights(self.database, self.keyring, random=secrets.token_bytes, clock=self.clock)

    @cached_property
    def opt_outs(self) -> "OptOuts":
        """Opt-outs by link."""
        from worker.feedback import OptOuts

        discreet = self.settings.discreet
        return OptOuts(
            self.database,
            self.keyring,
            sender=self.settings.organisation.name,
            discreet_sender=discreet.sender_name if discreet else "",
            clock=self.clock,
        )

    @cached_property
    def preferences(self) -> "Preferences":
        """What readers choose by link."""
        from worker.preferences import Preferences, Topic

        return Preferences(
            self.database,
            self.opt_outs,
            self.rights,
            offers_discreet=self.settings.discreet is not None,
            topics=[Topic(slug, **each.model_dump()) for slug, each in self.settings.topics.items()],
            clock=self.clock,
        )

    @cached_property
    def visits(self) -> "Visits":
        """Links that are counted."""
        from worker.store.visits import Visits as Store
        from worker.visits import Visits

        return Visits(self.keyring.marks(), self.plans.frozen, Store(self.database), self.clock)

    @cached_property
    def hosted(self) -> "Hosted":
        """Pictures that lie on our pages."""
        from worker.hosted import Hosted

        return Hosted(self.keyring.marks(), self.plans.frozen)

    def followed(self, campaign_id: int) -> "Sequence[Line]":
        """How often each link of a campaign was followed, where that was counted."""
        from worker.store.visits import Visits as Store

        counts = Store(self.database).of(campaign_id)
        if not counts:
            return ()
        from worker.visits import followed  # what reads an edition takes long to load

        return followed(counts, campaign_id, self.plans.frozen(campaign_id))

    @cached_property
    def courier(self) -> "Courier":
        """What sends notices."""
        from worker.content.letters import Letters
        from worker.content.rendering import Look, Organisation
        from worker.notices import Courier
        from worker.store.notices import Notices

        def letters() -> Letters:
            organisation = Organisation(**self.settings.organisation.model_dump())
            return Letters(Look(self._spoken("look")), organisation)

        return Courier(
            Notices(self.database),
            self.opt_outs,
            self.keyring.marks(),
            letters,
            self._forms(),
            self.relay,
            rests=lambda: MAIN_RELAY in self.throttle.resting(),
            welcome=self.invitations.welcome,
            clock=self.clock,
        )

    def _confirmations(self, portray: "Callable[[Subject], Mapping[str, Any]]") -> "Confirmations":
        from worker.notices import Confirmations
        from worker.store.notices import Notices

        store = Notices(self.database)
        marks = self.keyring.marks()
        return Confirmations(
            store,
            self.opt_outs,
            self.rights,
            self.preferences,
            self.invitations,
            marks,
            portray=portray,
            note=self.audit.note,
            clock=self.clock,
        )

    @cached_property
    def postroom(self) -> "PostRoom":
        """What acts on the mail that comes back."""
        from worker.campaigns import Alarms
        from worker.inbox import Kept
        from worker.postroom import PostRoom
        from worker.store.aftermath import Aftermath
        from worker.store.blames import Blames

        return PostRoom(
            Aftermath(self.database),
            Blames(self.database),
            self.opt_outs,
            self.keyring,
            Kept(self.settings.state / "inbox"),
            self.clock,
            Alarms(self.plans),
        )

    @cached_property
    def retention(self) -> "Retention":
        """What is kept of people, and for how long."""
        from worker.retention import Retention
        from worker.store.left import Left

        left = Left(self.database, platform.node())
        return Retention(
            left, self.audit, self.settings.state.absolute(), self.settings.retention, self.clock
        )

    @property
    def maildir(self) -> "Maildir | None":
        """Where the mail server puts it; None where none is set."""
        from worker.inbox import Maildir
        from worker.returns.opened import MOST_BYTES

        folder = self.settings.inbox.maildir
        return Maildir(folder, MOST_BYTES) if folder else None

    @cached_property
    def sweep(self) -> "Sweep":
        """The tick."""
        from worker import broker
        from worker.replica import Copies
        from worker.sweep import Sweep

        return Sweep(
            self.plans,
            self.ledger,
            self.campaigns,
            self.doorbell,
            self.settings.state / "journal",
            self.clock,
            # With SQLite no other machine could take over: it has the database.
            copies=None if self.database.is_sqlite else Copies(broker.client(self.settings)),
        )

    def relay(self, name: str = MAIN_RELAY) -> "Relay":
        """Make the sessions with a relay; not opened before there is something to carry."""
        from worker.post.relay import Endpoint, Relay, Timeouts

        relay = self.settings.all_relays()[name]
        password = self.settings.relay_password(name)
        return Relay(
            Endpoint(
                host=relay.host,
                port=relay.port,
                security=relay.security,
                username=relay.username,
                password=password.get_secret_value() if password else "",
                helo=relay.helo,
                allow_plain=relay.allow_plain,
                ca_file=relay.ca_file,
                connections=relay.connections,
                messages_per_connection=relay.messages_per_connection,
                timeouts=Timeouts(**relay.timeouts.model_dump()),
            )
        )

    @cached_property
    def throttle(self) -> "Throttle":
        """The pace of all workers together."""
        from worker import broker
        from worker.throttle import Throttle

        relays = self.settings.all_relays()
        return Throttle(
            broker.client(self.settings),
            {name: relay.per_second for name, relay in relays.items()},
            self.settings.pace.model_dump(),
        )

    def _routes(self) -> "Routes":
        from worker.routes import Route, Routes

        relays = {
            name: Route(self.relay(name), relay.weight, relay.connections, relay.connections_in_all)
            for name, relay in self.settings.all_relays().items()
        }
        return Routes(relays, self.throttle, random.random)

    def _forms(self) -> "Mapping[bool, Form]":
        """Return the names under which mail leaves, by whether it is discreet."""
        from worker.content.editions import Form

        discreet, web = self.settings.discreet, self.settings.web
        phrase = self.settings.organisation.name
        forms = {False: Form(_identity(self.settings.mail, phrase=phrase), web.base_url)}
        if discreet:
            forms[True] = Form(_identity(discreet), web.discreet_base_url or web.base_url)
        return forms

    def edition(self, slug: str) -> "Edition":
        """Freeze an appeal, the look and our names as they are now."""
        from worker import workspace
        from worker.content.editions import Edition, Special
        from worker.content.enclosures import Enclosed
        from worker.content.rendering import Organisation

        forms = self._forms()
        appeal = workspace.appeal_files(self.settings, slug)
        return Edition(
            slug=slug,
            appeal=appeal,
            enclosed=Enclosed.read(workspace.appeal_enclosures(self.settings, slug, appeal.values())),
            look=self._spoken("look"),
            organisation=Organisation(**self.settings.organisation.model_dump()),
            open=forms[False],
            special=Special(fields=tuple(self.settings.fields.special.split())),
            discreet=forms.get(True),
        )

    @cached_property
    def planner(self) -> "Planner":
        """What turns an order into a plan."""
        from worker.planning import Planner

        return Planner(
            *(self.people, self.policies),
            self.campaigns,
            self.keyring,
            edition=self.edition,
            clock=self.clock,
            not_after_hours=self.settings.sending.not_after_hours,
        )

    def web(self, portray: "Callable[[Subject], Mapping[str, Any]]") -> "ASGIApp":
        """Make the opt-out pages' app; `portray` writes out what we hold of somebody."""
        from worker import broker, onward, shelf
        from worker.copies import Copies
        from worker.turnstile import Turnstile
        from worker.web import Staff, create_app

        def connect() -> "Redis":
            return broker.client(self.settings, seconds=_TURNSTILE_SECONDS)

        return create_app(
            Staff(
                self.opt_outs,
                self.preferences,
                self._confirmations(portray),
                Turnstile(connect, self.keyring.network_key),
                self.invitations,
            ),
            self._spoken("web"),
            further=[
                onward.links_route(self.visits),
                onward.pictures_route(self.hosted),
                shelf.route(Copies(self.keyring.marks(), self.plans.frozen)),
            ],
            languages=self.settings.organisation.languages.split(),
            https=self.settings.web.base_url.startswith("https:"),
            exit_url=self.settings.web.exit_url or "",
        )

    def _spoken(self, folder: str) -> Mapping[str, str]:
        """Return the texts of a template folder, with the catalogues of what we say ourselves."""
        from worker import workspace

        found = self.settings.templates
        return {**workspace.read_folder(found, "locale"), **workspace.read_folder(found, folder)}

    @cached_property
    def dispatcher(self) -> "Dispatcher":
        """What sends batches."""
        from worker import broker
        from worker.campaigns import Alarms
        from worker.deliveries import RetryPolicy
        from worker.dispatch import Dispatcher, Pace
        from worker.journal import Journal, owner_name
        from worker.replica import Replica

        sending = self.settings.sending
        replica = None if self.database.is_sqlite else Replica(broker.client(self.settings))
        return Dispatcher(
            ledger=self.ledger,
            journal=Journal(self.settings.state / "journal", owner_name(secrets.token_hex(4)), replica),
            keyring=self.keyring,
            routes=self._routes(),
            throttle=self.throttle,
            printers=self.printer,
            alarms=Alarms(self.plans),
            pace=Pace(
                chunk=sending.chunk_size,
                lease_seconds=sending.lease_seconds,
                slice_seconds=sending.slice_seconds,
                retry=RetryPolicy(
                    first=sending.retry.first_seconds,
                    factor=sending.retry.factor,
                    most=sending.retry.most_seconds,
                    jitter=sending.retry.jitter,
                    attempts=sending.retry.attempts,
                ),
            ),
            clock=self.clock,
            dice=random.random,
            stopping=self._stopping,
            others_wait=lambda: self.doorbell.waiting() > 0,
        )

    def printer(self, campaign_id: int, content: str) -> "Printer":
        """Return what makes a campaign's mails; the last few are kept.

        Raises:
            Refused: the store no longer holds the content of that digest.
        """
        from worker.content.editions import Edition, Printer

        key = campaign_id, content
        if key not in self._printers:
            edition = Edition.from_json(self.plans.edition(campaign_id, content))
            self._printers[key] = Printer(edition, self.keyring.marks(), campaign_id)
            if len(self._printers) > _PRINTERS:
                self._printers.popitem(last=False)
        return self._printers[key]


def _identity(mail: "sections.Mail", *, phrase: str = "") -> "Identity":
    """Return the names of one form; the list's own name for people stands in the open form only."""
    from worker.content.messages import Identity

    return Identity(
        from_address=mail.from_address,
        reply_to=mail.reply_to,
        domain=mail.domain,
        bounce_domain=mail.bounce_domain,
        opt_out_domain=mail.opt_out_domain,
        list_id=f"mail.{mail.list_domain}",
        feedback_id=mail.feedback_id,
        list_phrase=phrase,
    )
