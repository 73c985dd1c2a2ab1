"""The tables of `tocsin.toml`: every key with its default, its check and its one-line explanation.

Pure values; reading them from file and environment is `settings`' work. Refuses: unknown keys, mail or
passwords in the clear to another machine, links without TLS, two places for one password.
"""

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import parse_qs, quote, unquote, urlsplit, urlunsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator
from pydantic_core import PydanticCustomError
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from worker.addresses import parse as parse_address

_LANGUAGE = r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*"
_TOPIC, _TOPIC_MOST = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*"), 64
_HOSTNAME = re.compile(r"(?=.{1,253}\Z)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]*[a-z0-9]")


_DATABASE_URL = "should be sqlite, sqlite:///FILE or postgresql://USER@HOST/NAME"


def is_loopback(host: str) -> bool:
    """Tell whether a host name or address literal stays on this machine."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _own_address(text: str) -> str:
    return parse_address(text).spec


def _feedback_id(domain: str) -> str:
    """Make the sender's mark of Feedback-ID from a domain: 5 to 15 letters (STANDARDS H11)."""
    mark = domain.replace(".", "-")
    return (mark if len(mark) > 4 else f"{mark}-mail")[:15].strip("-")  # noqa: PLR2004 - said above


def _domain(text: str) -> str:
    if not _HOSTNAME.fullmatch(text):
        raise ValueError("should be a domain in lower case, as in example.org (an IDN as xn--…)")
    return text


def _link_base(text: str) -> str:
    parts = urlsplit(text)
    if not parts.hostname or parts.query or parts.fragment or parts.username or not text.isascii():
        raise ValueError("should be a plain address of a site, as in https://act.example.org")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname)):
        raise ValueError("should start with https:// (http only for this machine itself)")
    return text.rstrip("/")


def _proxies(text: str) -> str:
    for each in text.split():
        try:
            ipaddress.ip_network(each)
        except ValueError as error:
            raise ValueError("should be IP addresses or networks, as in 127.0.0.1 10.0.0.0/24") from error
    return text


def without_password(url: str) -> tuple[str, str | None]:
    """Split a URL into itself without its password, and that password (None if it has none)."""
    parts = urlsplit(url)
    if parts.password is None:
        return url, None
    user, _, place = parts.netloc.rpartition("@")
    user = user.partition(":")[0]
    return urlunsplit(parts._replace(netloc=f"{user}@{place}" if user else place)), unquote(parts.password)


def with_password(url: str, password: str) -> str:
    """Put a password into a URL that has none."""
    parts = urlsplit(url)
    user, _, place = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user}:{quote(password, safe='')}@{place}"))


def _no_password_inside(url: str) -> str:
    if "password" in parse_qs(urlsplit(url).query):
        raise ValueError("should not hold ?password=: set the password on its own")
    return url


def _database_url(text: str) -> str:
    if text == "sqlite":
        return text
    try:
        url = make_url(text)
    except ArgumentError as error:
        raise ValueError(_DATABASE_URL) from error
    if url.get_backend_name() not in {"sqlite", "postgresql"} or url.database in {None, "", ":memory:"}:
        raise ValueError(_DATABASE_URL)
    return _no_password_inside(text)


def _broker_url(text: str) -> str:
    if text != "embedded" and urlsplit(text).scheme not in {"redis", "rediss", "redis+socket"}:
        raise ValueError("should be embedded, redis://HOST, rediss://HOST or redis+socket://FILE")
    return _no_password_inside(text)


def _topic(text: str) -> str:
    if not _TOPIC.fullmatch(text) or len(text) > _TOPIC_MOST:
        raise ValueError("should be called by small letters, digits and hyphens, as in [topics.petitions]")
    return text


def wrong(key: str, value: object, sentence: str) -> PydanticCustomError:
    """Make the error of a check that spans keys: it names the one key to mend."""
    return PydanticCustomError(
        "across_keys", "{sentence}", {"key": key, "value": value, "sentence": sentence}
    )


OwnAddress = Annotated[str, AfterValidator(_own_address)]
Domain = Annotated[str, AfterValidator(_domain)]
LinkBase = Annotated[str, AfterValidator(_link_base)]
Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0)]
PerSecond = Annotated[float, Field(ge=0)]
RelayName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,19}$")]
#: As in the front matter of appeals.
TopicName = Annotated[str, AfterValidator(_topic)]
Language = Annotated[str, Field(pattern=rf"^{_LANGUAGE}$")]
Title = Annotated[str, Field(min_length=1, max_length=80)]


class Section(BaseModel):
    """A table of `tocsin.toml`: frozen, checked whole, deaf to keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, hide_input_in_errors=True)


class Protected(Section):
    """A table whose service may want a password: by variable or from a file, never in `tocsin.toml`."""

    password: SecretStr | None = Field(default=None, description="Its password.")
    password_file: Path | None = Field(
        default=None, description="File that holds the password.", examples=["/run/secrets/password"]
    )

    @model_validator(mode="before")
    @classmethod
    def _apart(cls, data: object) -> object:
        """Take a password out of a URL, so that the URL may be shown."""
        if not (isinstance(data, dict) and isinstance(data.get("url"), str)):
            return data
        url, password = without_password(data["url"])
        if password is None:
            return data
        if data.get("password"):
            raise wrong("password", "", "is given twice: in url and on its own")
        return {**data, "url": url, "password": password}

    @model_validator(mode="after")
    def _once(self) -> Self:
        """Refuse two places for one password: the operator would mend the wrong one."""
        if self.password and self.password_file:
            raise wrong("password_file", str(self.password_file), "stands beside a password: give one")
        return self


class Organisation(Section):
    """Who asks: the facts that stand in every mail's footer (STANDARDS B9, L1)."""

    name: str = Field(default="Example Equality", min_length=1, description="The name supporters know.")
    postal_address: str = Field(
        default="1 Example Street, London N1 1AA",
        min_length=1,
        description="Postal address, which the law asks for.",
    )
    registration: str = Field(default="", description="Charity line, as in: Registered charity 1234567.")
    website: LinkBase = Field(default="https://www.example.org", description="Public website.")
    privacy_url: LinkBase = Field(default="https://www.example.org/privacy", description="Privacy notice.")
    languages: str = Field(
        default="en",
        pattern=rf"^{_LANGUAGE}( {_LANGUAGE})*$",
        description="For readers of other languages: the first of these that there is, as in: ru en.",
    )


class Mail(Section):
    """Names under which mail leaves; the domains follow from `from_address` unless they are set."""

    from_address: OwnAddress = Field(default="appeals@example.org", description="Visible sender.")
    reply_to: OwnAddress = Field(
        default_factory=lambda data: data["from_address"],
        description="Where answers go; by default from_address.",
    )
    domain: Domain = Field(
        default_factory=lambda data: data["from_address"].rpartition("@")[2].lower(),
        description="Right side of Message-ID; by default the domain of from_address.",
    )
    bounce_domain: Domain = Field(
        default_factory=lambda data: data["domain"],
        description="Where bounces return (one address a mail: a catch-all); by default domain.",
    )
    opt_out_domain: Domain = Field(
        default_factory=lambda data: data["bounce_domain"],
        description="Where opt-outs by mail arrive (a catch-all too); by default bounce_domain.",
    )
    list_domain: Domain = Field(
        default_factory=lambda data: data["domain"],
        description="Right side of List-Id; by default domain.",
    )
    feedback_id: str = Field(
        default_factory=lambda data: _feedback_id(data["domain"]),
        pattern=r"^[A-Za-z0-9][A-Za-z0-9-]{3,13}[A-Za-z0-9]$",
        description="Sender's mark in Feedback-ID, 5 to 15 letters; by default made from domain.",
    )


class Discreet(Mail):
    """Neutral names for people who must not be seen to get our mail; without it they get none."""

    from_address: OwnAddress = Field(
        description="Visible sender, on a domain that gives nothing away.",
        examples=["news@letters.example.net"],
    )
    sender_name: str = Field(min_length=1, description="Neutral display name.", examples=["Monthly letter"])


class Topic(Section):
    """A topic of appeals that readers may say no to on the page of preferences."""

    title: Title = Field(description="What readers see.", examples=["Petitions"])
    titles: dict[Language, Title] = Field(
        default={}, description="The same for readers of other languages.", examples=[{"de": "Petitionen"}]
    )
    discreet_title: str = Field(
        default="", max_length=80, description="What discreet readers see; without it they are not asked."
    )


class Web(Section):
    """The opt-out and preference pages."""

    base_url: LinkBase = Field(
        default="http://127.0.0.1:8080",
        description="Where readers reach them; https but for this machine.",
    )
    host: str = Field(default="127.0.0.1", min_length=1, description="Address to listen on.")
    port: Port = Field(default=8080, description="Port to listen on.")
    discreet_base_url: LinkBase | None = Field(
        default=None,
        description="The same pages under a neutral host, for discreet mail.",
        examples=["https://letters.example.net"],
    )
    exit_url: LinkBase | None = Field(
        default=None,
        description="Where their quick exit leads; by default a page of ours that says nothing.",
        examples=["https://www.example.com"],
    )
    proxies: Annotated[str, AfterValidator(_proxies)] = Field(
        default="127.0.0.1 ::1",
        description="Addresses of your proxies: only they say where a reader comes from.",
    )


class Fields(Section):
    """What is known of people beside their address."""

    special: str = Field(
        default="",
        pattern=r"^([a-z][a-z0-9_]*( [a-z][a-z0-9_]*)*)?$",
        description="Fields that tell of health, belief, politics or sexuality, as in: diagnosis faith. They "
        "stand inside a mail only, never in its subject, preheader, headers or links.",
    )


class Timeouts(Section):
    """Patience per SMTP step, in seconds (RFC 5321 section 4.5.3.2)."""

    connect: Seconds = Field(default=30.0, description="Opening the connection and TLS.")
    command: Seconds = Field(default=300.0, description="Greeting, EHLO, AUTH, MAIL and RCPT.")
    data: Seconds = Field(default=120.0, description="From DATA to 354.")
    block: Seconds = Field(default=180.0, description="Each piece of a message.")
    final: Seconds = Field(default=600.0, description="After the final dot; shorter means mail in doubt.")


class Relay(Protected):
    """The mail server that takes our mail."""

    host: str = Field(default="smtp.example.org", min_length=1, description="Name, as in its certificate.")
    security: Literal["starttls", "tls", "plain"] = Field(
        default="starttls", description="starttls, tls, or plain (only on this machine)."
    )
    port: Port = Field(
        default_factory=lambda data: {"starttls": 587, "tls": 465, "plain": 25}[data["security"]],
        description="By default 587 for starttls, 465 for tls, 25 for plain.",
    )
    username: str = Field(default="", description="User for AUTH; empty for none.")
    helo: str = Field(
        default="[127.0.0.1]",
        pattern=r"^(\[[0-9A-Za-z:.]+\]|[A-Za-z0-9.-]+)$",
        description="Name we give in EHLO; it can be read in every mail, so the default says nothing.",
    )
    allow_plain: bool = Field(default=False, description="Allow plain to another machine, for all to read.")
    ca_file: Path | None = Field(
        default=None, description="Certificates to trust, instead of the system's.", examples=["relay.pem"]
    )
    connections: int = Field(default=4, ge=1, le=100, description="Connections of each worker process.")
    # Exim takes 1000, Postfix any number; to open another costs four round trips.
    messages_per_connection: int = Field(default=1000, ge=1, description="Mails one connection carries.")
    connections_in_all: int = Field(
        default=0, ge=0, description="Connections of all processes together; 0 for no limit."
    )
    per_second: float = Field(default=50.0, ge=0, description="Mails a second in all; 0 for no limit.")
    weight: float = Field(
        default=1.0, ge=0, description="Share of the mail beside other relays; 0 for a spare."
    )
    timeouts: Timeouts = Field(default=Timeouts(), description="Patience per SMTP step, in seconds.")

    @model_validator(mode="after")
    def _guarded(self) -> Self:
        """Refuse mail and passwords in the clear."""
        if self.security == "plain" and not (self.allow_plain or is_loopback(self.host)):
            raise wrong("security", "plain", "would send every mail in the clear: set starttls or tls")
        return self


class Pace(Section):
    """How fast at most to each large mailbox provider, over all relays; after a refusal slower by itself."""

    google: PerSecond = Field(default=0.0, description="Mails a second to Gmail; 0 for no limit.")
    microsoft: PerSecond = Field(default=0.0, description="To Outlook, Hotmail and Live.")
    yahoo: PerSecond = Field(default=0.0, description="To Yahoo and AOL.")
    apple: PerSecond = Field(default=0.0, description="To iCloud.")
    other: PerSecond = Field(default=0.0, description="To everybody else together.")


class Inbox(Section):
    """Where the mail server puts what comes back."""

    maildir: Path | None = Field(
        default=None,
        description="Maildir of its own for bounce_domain and opt_out_domain; read while workers run.",
        examples=["/var/mail/returned"],
    )


class Database(Protected):
    """Where the truth is kept."""

    url: Annotated[str, AfterValidator(_database_url)] = Field(
        default="sqlite", description="sqlite (a file in the state folder) or postgresql://USER@HOST/NAME."
    )


class Broker(Protected):
    """The queue: a doorbell, never the truth."""

    url: Annotated[str, AfterValidator(_broker_url)] = Field(
        default="embedded", description="embedded (a private Redis of our own) or redis://HOST:PORT/0."
    )


class Retry(Section):
    """When a deferred mail is tried again: doubling waits, scattered."""

    first_seconds: Seconds = Field(default=1200.0, description="Wait before the second attempt.")
    factor: float = Field(default=2.0, ge=1, description="Each wait is this many times the one before.")
    most_seconds: Seconds = Field(default=14400.0, description="The longest wait.")
    jitter: float = Field(default=0.2, ge=0, le=1, description="Share of a wait that is left to chance.")
    attempts: int = Field(default=8, ge=1, description="Attempts in all.")


class Sending(Section):
    """How a campaign is cut up, leased and given up."""

    batch_size: int = Field(default=1000, ge=1, le=10_000, description="Recipients in one task.")
    chunk_size: int = Field(default=500, ge=1, le=10_000, description="Recipients in one transaction.")
    lease_seconds: Seconds = Field(default=60.0, description="How long a silent worker keeps its batch.")
    slice_seconds: Seconds = Field(default=20.0, description="How long a task works at a stretch.")
    not_after_hours: Seconds = Field(default=72.0, description="Hours until an appeal is too late.")
    approval: Literal["one", "two"] = Field(default="one", description="People a launch takes: one or two.")
    retry: Retry = Field(default=Retry(), description="When a deferred mail is tried again.")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        """Keep a task shorter than its lease, so that a living worker never loses its batch."""
        if self.slice_seconds >= self.lease_seconds:
            raise wrong("slice_seconds", self.slice_seconds, "should be shorter than lease_seconds")
        return self


Days = Annotated[int, Field(ge=0, le=36_500)]
_YEAR = 365


def _never_or_a_year(days: int) -> int:
    """Keep whoever can edit this file from removing what they did last week."""
    if 0 < days < _YEAR:
        raise ValueError(f"the audit log is kept for {_YEAR} days at least, or for good (0)")
    return days


class Retention(Section):
    """After how many days what names people is removed by itself; 0 for never."""

    rejects: Days = Field(default=30, description="Days for lists of rejected rows (var/rejects).")
    exports: Days = Field(default=30, description="Days for exports of one person or of suppressions.")
    previews: Days = Field(default=7, description="Days for previews (var/preview).")
    captured: Days = Field(default=7, description="Days for mail that a demo captured (var/outbox).")
    replies: Days = Field(
        default=90, description="Days after a campaign's end for the relay's words on each mail."
    )
    audit: Annotated[Days, AfterValidator(_never_or_a_year)] = Field(
        default=0, description="Days for entries of the audit log: 0, or 365 at least."
    )
