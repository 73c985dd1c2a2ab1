"""The tables, and the constraints that make a second send impossible.

Owns the shape of the store, the same on SQLite and PostgreSQL. Refuses: queries (they live in the
adapters) and defaults that depend on a clock. Every time is UTC seconds since the epoch.
"""

from typing import Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

_OPEN_DELIVERY = "state IN ('queued','sending','deferred')"
_OPEN_BATCH = "done = 0"
_OPEN_NOTICE = "state IN ('waiting','sending')"
_ENDS = "ends_at IS NOT NULL"
_TO_A_TOPIC = "substr(scope, 1, 6) = 'topic:'"

#: The same conditions for queries. Written out, never as parameters: only so does SQLite see that the
#: partial index answers, and does not read a million settled rows for each chunk.
delivery_is_open = text(f"deliveries.{_OPEN_DELIVERY}")
batch_is_open = text(f"batches.{_OPEN_BATCH}")
notice_is_open = text(f"notices.{_OPEN_NOTICE}")
no_to_a_topic = text(_TO_A_TOPIC.replace("scope", "suppressions.scope"))

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

#: SQLite gives its fast rowid only to a column spelled INTEGER.
Id = BigInteger().with_variant(Integer, "sqlite")
#: The keyed hash of a canonical address (sealing.Keyring.address_key); its first byte says by which key.
AddressKey = LargeBinary(16)

#: Added to the number of an invitation (invited), it stands wherever a mail is named by its delivery's
#: number: so its links are read, and opt out, as those of every other mail. No delivery gets so far.
INVITED: Final = 1 << 62

# Where `sqlite_autoincrement` stands below, numbers are in links or keyed hashes, and rows are removed:
# SQLite would else give the number of the last one removed to the next row, and an old link would lead to
# somebody else.

lists = Table(
    "lists",
    metadata,
    Column("id", Id, primary_key=True),
    Column("slug", String(64), nullable=False, unique=True),
    Column("title", Text, nullable=False),
    # What is asked of a consent (worker.policies), "" for the least; and when that was last changed.
    Column("policy", Text, nullable=False, server_default=""),
    Column("policy_at", Double, nullable=False, server_default="0"),
    Column("created_at", Double, nullable=False),
)

people = Table(
    "people",
    metadata,
    # Minted before sealing, because the seal binds it; so never by the database.
    Column("id", Id, primary_key=True, autoincrement=False),
    Column("address_key", AddressKey, nullable=False, unique=True),
    Column("sealed", LargeBinary, nullable=False),
    # Coarse on purpose (google, microsoft, … other): pacing needs it, and it names nobody.
    Column("provider", String(16), nullable=False),
    # Counts the records we had of this person: an import that read an earlier one must merge again.
    Column("version", Integer, nullable=False, server_default="1"),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
)

consents = Table(
    "consents",
    metadata,
    Column("id", Id, primary_key=True),
    # Of all the rest together: a wording may be longer than an index entry can be.
    Column("digest", LargeBinary(32), nullable=False, unique=True),
    Column("basis", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("wording", Text, nullable=False),
    # What the basis means in law (policies.Ground), and whether an opt-out was offered then.
    Column("ground", String(16), nullable=False, server_default=""),
    Column("offered", Integer, nullable=False, server_default="0"),
)

memberships = Table(
    "memberships",
    metadata,
    Column("list_id", ForeignKey("lists.id"), nullable=False),
    Column("person_id", ForeignKey("people.id"), nullable=False),
    Column("consent_id", ForeignKey("consents.id"), nullable=False),
    Column("consented_at", Double),
    # When they confirmed it from their mailbox, as another tool has kept it; null: nobody says so.
    Column("confirmed_at", Double),
    # For a plan, which counts a million of these: whether all is there that the list asks for, and whether a
    # suppression stands against it (suppressions.heed): 0 none; 1 to everything or to this list; from 2 only
    # to topics, the number of a set of them (topic_sets). A launch and a claim look at the suppressions.
    Column("consented", Integer, nullable=False),
    Column("refused", Integer, nullable=False, server_default="0"),
    # People who can be told the same things have the same number here: a keyed hash of which fields they
    # have, their language, their form, and the never-mail rules they are under (barred). Whoever changes a
    # person's record sets it anew on all their lists.
    Column("shape", Id, nullable=False, server_default="0"),
    Column("joined_at", Double, nullable=False),
    # In this order, so that a launch walks one list by person without sorting.
    PrimaryKeyConstraint("list_id", "person_id"),
    Index(None, "person_id"),
    # All that a plan asks of a list, so that it reads nothing else; a person of each kind included.
    Index("ix_memberships_kinds", "list_id", "refused", "consented", "shape", "person_id"),
    # On SQLite the key is the table: one tree less to write to.
    sqlite_with_rowid=False,
)

#: Rows of an import on their way in: a table of its connection's own, gone with it (staging).
staged = Table(
    "staged",
    MetaData(),
    Column("address_key", AddressKey, primary_key=True),
    Column("person_id", Id, nullable=False),
    # Null: they are held already, and the file adds nothing.
    Column("sealed", LargeBinary),
    Column("provider", String(16), nullable=False),
    Column("consent_id", Id, nullable=False),
    Column("consented_at", Double),
    # Of the record that this one was merged with; 0: they are new to us.
    Column("version", Integer, nullable=False),
    Column("shape", Id, nullable=False),
    Column("confirmed_at", Double),
)

suppressions = Table(
    "suppressions",
    metadata,
    # No foreign key to people: it outlives them (erasure keeps the "no").
    Column("address_key", AddressKey, nullable=False),
    # "all", "list:<id>", "topic:<slug>", or a wish of the person's own: "pause", "rest", "fewer".
    Column("scope", String(80), nullable=False),
    Column("reason", String(32), nullable=False),
    Column("source", String(64), nullable=False),
    Column("created_at", Double, nullable=False),
    # When a wish ends that the person has dated; null: it never ends by itself.
    Column("ends_at", Double),
    PrimaryKeyConstraint("address_key", "scope"),
    Index("ix_suppressions_ending", "ends_at", sqlite_where=text(_ENDS), postgresql_where=text(_ENDS)),
    Index(
        "ix_suppressions_topics",
        "address_key",
        sqlite_where=text(_TO_A_TOPIC),
        postgresql_where=text(_TO_A_TOPIC),
    ),
)

#: Which topics somebody said no to, as often as that differs between people.
topic_sets = Table(
    "topic_sets",
    metadata,
    # From 2: what memberships.refused says of who said no to these and to nothing more.
    Column("id", Integer, primary_key=True, autoincrement=False),
    # Slugs in order, one space between.
    Column("topics", Text, nullable=False),
)

#: Never-mail rules (worker.bars).
rules = Table(
    "rules",
    metadata,
    Column("id", Id, primary_key=True),
    Column("name", String(32), nullable=False, unique=True),
    Column("kind", String(16), nullable=False),
    Column("pattern", Text, nullable=False),
    # Whether everybody has been looked at for it; until then no campaign is planned.
    Column("counted", Integer, nullable=False),
    Column("created_at", Double, nullable=False),
    sqlite_autoincrement=True,
)

#: Shapes of memberships whose people are under a rule.
barred = Table(
    "barred",
    metadata,
    Column("shape", Id, nullable=False),
    Column("rule_id", ForeignKey("rules.id"), nullable=False),
    PrimaryKeyConstraint("shape", "rule_id"),
)

#: Addresses whose suppressions have changed since their memberships were last looked at.
unheeded = Table(
    "unheeded",
    metadata,
    Column("id", Id, primary_key=True),
    Column("address_key", AddressKey, nullable=False),
)

campaigns = Table(
    "campaigns",
    metadata,
    Column("id", Id, primary_key=True),
    Column("name", String(80), nullable=False, unique=True),
    Column("appeal", String(64), nullable=False),
    # Frozen at planning: the edition (content, look, identities) and the audience rule, as JSON.
    Column("edition", Text, nullable=False),
    Column("rule", Text, nullable=False),
    Column("digest", String(64), nullable=False),
    # SHA-256 of the edition alone: each claim says what content it is for.
    Column("content", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    # Why it stands still, for the operator; empty when nothing is wrong.
    Column("notice", Text, nullable=False, server_default=""),
    Column("created_at", Double, nullable=False),
    Column("created_by", String(64), nullable=False),
    Column("approved_by", String(64)),
    Column("start_at", Double, nullable=False),
    Column("time_zone", String(64), nullable=False),
    Column("not_after", Double),
    # The last person the launch has written a delivery for; the launch is whole when launched_at is set.
    Column("launch_cursor", Id, nullable=False, server_default="0"),
    # How many deliveries it has written so far, and between which ids they stand, strangers among them.
    Column("written", Integer, nullable=False, server_default="0"),
    Column("first_delivery", Id),
    Column("last_delivery", Id),
    Column("launched_at", Double),
    Column("audience", Integer),
    Column("finished_at", Double),
    CheckConstraint(
        "state IN ('awaiting','scheduled','running','paused','cancelled','finished')", name="state"
    ),
)

batches = Table(
    "batches",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=False),
    Column("campaign_id", ForeignKey("campaigns.id"), nullable=False),
    # Open while a delivery in it is; done ones are left alone by every sweep.
    Column("done", Integer, nullable=False, server_default="0"),
    Column("due_at", Double, nullable=False),
    # When its doorbell last rang (a task with its id was enqueued); null = never.
    Column("rung_at", Double),
    # The lease in force; null = free to take. No foreign key: leases refer to batches.
    Column("lease_id", Id),
    Index("ix_batches_open", "due_at", sqlite_where=text(_OPEN_BATCH), postgresql_where=text(_OPEN_BATCH)),
    Index(None, "campaign_id"),
)

#: One row per time that somebody took a batch in hand. Its id is the fence: every later write names it.
leases = Table(
    "leases",
    metadata,
    Column("id", Id, primary_key=True),
    Column("batch_id", ForeignKey("batches.id"), nullable=False),
    # The journal of the process that holds it: boot id, process id and a nonce.
    Column("owner", String(128), nullable=False),
    Column("until", Double, nullable=False),
    # Set when nothing is in that owner's hands any more.
    Column("ended_at", Double),
    Index(
        "ix_leases_held",
        "until",
        sqlite_where=text("ended_at IS NULL"),
        postgresql_where=text("ended_at IS NULL"),
    ),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", Id, primary_key=True),
    # No foreign keys: the launch writes all these in one statement with what it has just read or made, none
    # of it is ever removed, and on PostgreSQL three look-ups for each row are a fifth of a launch.
    Column("campaign_id", Id, nullable=False),
    Column("person_id", Id, nullable=False),
    Column("address_key", AddressKey, nullable=False),
    Column("batch_id", Id, nullable=False),
    # The list that reaches this person in this campaign: an opt-out from it counts here too.
    Column("list_id", Id, nullable=False),
    Column("provider", String(16), nullable=False),
    Column("state", String(12), nullable=False),
    Column("reason", String(40), nullable=False, server_default=""),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("due_at", Double, nullable=False, server_default="0"),
    Column("lease_id", Id),
    Column("reply_code", Integer),
    Column("reply_status", String(12)),
    # Scrubbed: no address, no mark (deliveries.scrub).
    Column("reply_text", Text),
    Column("settled_at", Double),
    # Promise 1, held by the database itself: one campaign, one person, one row.
    UniqueConstraint("campaign_id", "address_key"),
    CheckConstraint(
        "state IN ('queued','sending','sent','deferred','bounced','unconfirmed','skipped','expired')",
        name="state",
    ),
    # SQLite: open rows only, so that a settled delivery costs no index. PostgreSQL: all of them, for a row
    # whose change touches no index, not even an index's condition, is changed within its page (HOT), and
    # each delivery changes twice. The pages are left half empty for it.
    Index("ix_deliveries_open", "batch_id", sqlite_where=text(_OPEN_DELIVERY)),
    postgresql_with={"fillfactor": "50"},
)

#: Mails outside any campaign that a person has just asked for themself, by the link in one of their mails.
notices = Table(
    "notices",
    metadata,
    Column("id", Id, primary_key=True),
    # The delivery whose link asked; by it the person is found again.
    Column("delivery_id", Id, nullable=False),
    Column("address_key", AddressKey, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("state", String(12), nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("asked_at", Double, nullable=False),
    Column("due_at", Double, nullable=False),
    # Of the last attempt.
    Column("begun_at", Double),
    # When what it asks to confirm was done: its link works once.
    Column("confirmed_at", Double),
    CheckConstraint("state IN ('waiting','sending','sent','refused','unconfirmed')", name="state"),
    Index("ix_notices_open", "due_at", sqlite_where=text(_OPEN_NOTICE), postgresql_where=text(_OPEN_NOTICE)),
    Index(None, "address_key"),
    sqlite_autoincrement=True,
)

#: Who was once asked whether they want to be on a list, so that nobody is asked twice: it outlives membership
#: and notice. Its rows stand as deliveries where a mail's links are read (INVITED).
invited = Table(
    "invited",
    metadata,
    Column("id", Id, primary_key=True),
    Column("list_id", ForeignKey("lists.id"), nullable=False),
    Column("address_key", AddressKey, nullable=False),
    Column("asked_at", Double, nullable=False),
    UniqueConstraint("list_id", "address_key"),
    Index(None, "address_key"),
    sqlite_autoincrement=True,
)

#: Who has entered an address in a form and not confirmed it yet: nobody's member, in no plan, and soon gone.
signups = Table(
    "signups",
    metadata,
    Column("invited_id", ForeignKey("invited.id"), primary_key=True),
    # What they are held under once they have: minted before sealing, as people's.
    Column("person_id", Id, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("provider", String(16), nullable=False),
    Column("made_at", Double, nullable=False),
)

#: What became known of a delivery beside how it ended: an opt-out, a complaint, a late bounce.
facts = Table(
    "facts",
    metadata,
    Column("delivery_id", ForeignKey("deliveries.id"), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("at", Double, nullable=False),
    Column("source", String(64), nullable=False),
    PrimaryKeyConstraint("delivery_id", "kind"),
)

#: How often each link of a campaign was followed, where the appeal wants that counted.
visits = Table(
    "visits",
    metadata,
    Column("campaign_id", ForeignKey("campaigns.id"), nullable=False),
    # The mail's language and form: "en", "en discreet".
    Column("variant", String(48), nullable=False),
    # Its number in the mail (content.ways).
    Column("link", Integer, nullable=False),
    Column("count", Integer, nullable=False),
    PrimaryKeyConstraint("campaign_id", "variant", "link"),
)

#: Which key ring this store belongs to (a keyed mark of the look-up key in use, not a key), and which of its
#: keys are in use. One row: so every machine that shares the store changes over at the same moment.
keyrings = Table(
    "keyrings",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=False),
    Column("fingerprint", LargeBinary(16), nullable=False),
    Column("seal", Integer, nullable=False),
    Column("lookup", Integer, nullable=False),
)

#: Who did what when to what, each entry with the hash of the one before (worker.deeds). Triggers refuse to
#: change or remove any.
audit = Table(
    "audit",
    metadata,
    # Numbered by a counter, without gaps; so never by the database.
    Column("id", Id, primary_key=True, autoincrement=False),
    Column("at", Double, nullable=False),
    Column("operator", String(64), nullable=False),
    Column("action", String(32), nullable=False),
    Column("subject", String(80), nullable=False),
    # JSON as it was hashed; no personal data.
    Column("details", Text, nullable=False),
    Column("previous", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
)

#: Files with personal data that were written at places of an operator's choice, to be cleaned up.
left_files = Table(
    "left_files",
    metadata,
    Column("id", Id, primary_key=True),
    # Only there it can be removed.
    Column("host", String(64), nullable=False),
    Column("path", Text, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("made_at", Double, nullable=False),
    # By what it is known again; as text, for they may be larger than any number of ours.
    Column("device", String(24), nullable=False),
    Column("inode", String(24), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("changed_ns", BigInteger, nullable=False),
)

#: Blocks of ids handed out ahead of their rows (person, batch).
counters = Table(
    "counters",
    metadata,
    Column("name", String(16), primary_key=True),
    Column("value", Id, nullable=False),
)
