"""What the operator has set: the only reader of the environment and of `tocsin.toml`.

Variables win over the file: `TOCSIN_RELAY__HOST` is `relay.host`. The file is the one that `TOCSIN_CONFIG`
names, else `tocsin.toml` in the current folder or a parent. The keys themselves stand in `sections`.
Refuses: unknown keys, secrets inside the file, and to parse the key ring (that is sealing's work).
"""

import json
import os
import stat
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from sqlalchemy.engine import URL, make_url

from worker import sections
from worker.catalogue import Catalogue
from worker.errors import WrongUse

FILE_NAME = "tocsin.toml"
PREFIX = "TOCSIN_"
#: The variable that names the file itself; it is no setting.
CONFIG_VARIABLE = "TOCSIN_CONFIG"
#: Variables of the command line itself (who acts, how much is told of a crash); they are no settings.
OPERATOR_VARIABLE, DEBUG_VARIABLE = "TOCSIN_OPERATOR", "TOCSIN_DEBUG"
#: The name of the relay that `[relay]` sets.
MAIN_RELAY = "main"

_Kind = TypeVar("_Kind", bound=sections.Section)
#: Container engines mount secrets here, with modes the operator cannot choose and nobody else to read them.
_MOUNTED_SECRETS = Path("/run/secrets")


class Settings(BaseSettings):
    """Everything set, in one frozen value; relative paths stand relative to `home`."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        hide_input_in_errors=True,
        env_prefix=PREFIX,
        env_nested_delimiter="__",
    )

    home: Path = Field(description="The workspace: the folder of tocsin.toml, else where the command runs.")
    file: Path | None = Field(default=None, description="The tocsin.toml that was read.")
    state: Path = Field(default=Path("var"), description="Folder for database, keys, logs and captured mail.")
    secret: SecretStr | None = Field(default=None, description="The key ring itself, in place of its file.")
    secret_file: Path = Field(
        default_factory=lambda data: data["state"] / "secret.toml",
        description="The key ring; by default secret.toml in the state folder.",
        examples=["var/secret.toml"],
    )
    organisation: sections.Organisation = Field(
        default=sections.Organisation(), description="Who asks: it stands in every mail's footer."
    )
    mail: sections.Mail = Field(
        default=sections.Mail(),
        description="Names under which mail leaves; domains follow from_address.",
    )
    discreet: sections.Discreet | None = Field(
        default=None, description="Neutral names for people who must not be seen to get our mail."
    )
    fields: sections.Fields = Field(
        default=sections.Fields(), description="What is known of people beside their address."
    )
    web: sections.Web = Field(default=sections.Web(), description="The opt-out and preference pages.")
    topics: dict[sections.TopicName, sections.Topic] = Field(
        default={},
        max_length=20,
        description="Topics offered on the page of preferences, called as in the appeals' front matter.",
        examples=["petitions"],
    )
    relay: sections.Relay = Field(default=sections.Relay(), description="The server that takes our mail.")
    relays: dict[sections.RelayName, sections.Relay] = Field(
        default={},
        description="Further relays, by names of your choice; keys as in [relay].",
        examples=["backup"],
    )
    pace: sections.Pace = Field(
        default=sections.Pace(), description="How fast at most to each mailbox provider."
    )
    inbox: sections.Inbox = Field(default=sections.Inbox(), description="Where mail that comes back lies.")
    database: sections.Database = Field(default=sections.Database(), description="Where the truth is kept.")
    broker: sections.Broker = Field(default=sections.Broker(), description="The queue between the processes.")
    sending: sections.Sending = Field(
        default=sections.Sending(), description="How a campaign is cut up, leased and given up."
    )

    retention: sections.Retention = Field(
        default=sections.Retention(),
        description="After how many days what names people is removed by itself; 0 for never.",
    )

    def __init__(self, *sources: PydanticBaseSettingsSource) -> None:
        """Take the sources, the one that wins first; `load` is the way to make one."""
        super().__init__(_build_sources=(sources, {}))

    @field_validator("state", "secret_file")
    @classmethod
    def _anchored(cls, path: Path, info: ValidationInfo) -> Path:
        return Path(info.data["home"], path)

    @field_validator("relay", "inbox", "database", "broker")
    @classmethod
    def _anchored_within(cls, section: sections.Section, info: ValidationInfo) -> sections.Section:
        return cls._anchored_in(section, info)

    @staticmethod
    def _anchored_in(section: _Kind, info: ValidationInfo) -> _Kind:
        paths = {name: info.data["home"] / value for name, value in section if isinstance(value, Path)}
        return section.model_copy(update=paths)

    @field_validator("relays")
    @classmethod
    def _anchored_each(
        cls, relays: dict[str, sections.Relay], info: ValidationInfo
    ) -> dict[str, sections.Relay]:
        if MAIN_RELAY in relays:
            raise ValueError(f"should not name one {MAIN_RELAY}: that is [relay] itself")
        return {name: cls._anchored_in(relay, info) for name, relay in relays.items()}

    @model_validator(mode="after")
    def _discreet_whole(self) -> "Settings":
        """Refuse a discreet form whose links would still name us."""
        if self.discreet and self.web.discreet_base_url is None:
            raise sections.wrong("web.discreet_base_url", "", "is needed beside [discreet]")
        return self

    @property
    def templates(self) -> Path:
        """The workspace's looks, pages and appeals."""
        return self.home / "templates"

    @property
    def lists(self) -> Path:
        """The workspace's recipients' files."""
        return self.home / "lists"

    def database_url(self) -> URL:
        """Give the database with its driver, absolute file and password (which `str` does not show)."""
        url = make_url(
            f"sqlite:///{self.state}/tocsin.db" if self.database.url == "sqlite" else self.database.url
        )
        if url.get_backend_name() == "sqlite":
            return url.set(database=str(Path(self.home, url.database or "")))
        password = _password("database", self.database)
        url = url.set(drivername="postgresql+psycopg")
        return url.set(password=password.get_secret_value()) if password else url

    def broker_url(self) -> SecretStr:
        """Give the configured Redis with its password, or the word `embedded`."""
        password = _password("broker", self.broker)
        if self.broker.url == "embedded" or password is None:
            return SecretStr(self.broker.url)
        return SecretStr(sections.with_password(self.broker.url, password.get_secret_value()))

    def all_relays(self) -> Mapping[str, sections.Relay]:
        """Give every relay by its name, the main one first."""
        return {MAIN_RELAY: self.relay, **self.relays}

    def relay_password(self, name: str = MAIN_RELAY) -> SecretStr | None:
        """Give a relay's password for AUTH, from its variable or file; None for none."""
        key = "relay" if name == MAIN_RELAY else f"relays.{name}"
        return _password(key, self.all_relays()[name])

    def secret_text(self) -> SecretStr:
        """Give the text of the key ring; refuse a file that others on this machine may read."""
        if self.secret is not None:
            return self.secret
        try:
            with self.secret_file.open(encoding="utf-8") as opened:
                mode = os.fstat(opened.fileno()).st_mode
                text = opened.read()
        except OSError as error:
            raise WrongUse(
                f"secret_file: cannot read the key ring at {self.secret_file}: {error.strerror}",
                remedy="Restore it from its copy; a new workspace gets its own from `tocsin init`.",
            ) from error
        if stat.S_IMODE(mode) & 0o077 and _MOUNTED_SECRETS not in self.secret_file.parents:
            raise WrongUse(
                f"secret_file: others may read the key ring at {self.secret_file} (mode {mode & 0o777:o})",
                remedy=f"chmod 600 {self.secret_file}",
            )
        return SecretStr(text)

    def examples_left(self) -> tuple[str, ...]:
        """Name the keys that must be set before a real campaign and still hold our example."""
        examples = {
            "organisation.name": (self.organisation.name, sections.Organisation().name),
            "organisation.postal_address": (
                self.organisation.postal_address,
                sections.Organisation().postal_address,
            ),
            "mail.from_address": (self.mail.from_address, sections.Mail().from_address),
            "relay.host": (self.relay.host, sections.Relay().host),
            "web.base_url": (self.web.base_url, sections.Web().base_url),
        }
        return tuple(key for key, (value, example) in examples.items() if value == example)


_CATALOGUE = Catalogue(Settings, prefix=PREFIX, found=frozenset({"home", "file"}))


def load(start: Path | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Read file and variables into one value.

    Args:
        start: the folder to look from; by default the current one.
        environ: the variables; by default the process's own.

    Raises:
        WrongUse: one line for each wrong key, with its place, value and meaning.
    """
    start = (start or Path.cwd()).resolve()
    # Compose files hand on unset variables as empty ones: those are unset.
    variables = {
        name.upper(): value
        for name, value in (os.environ if environ is None else environ).items()
        if name.upper().startswith(PREFIX)
        and name.upper() not in {OPERATOR_VARIABLE, DEBUG_VARIABLE}
        and value
    }
    file = _find(start, variables.pop(CONFIG_VARIABLE, None))
    document = _document(file) if file else {}

    def place(key: str) -> str:
        variable = _CATALOGUE.variable(key)
        return variable if variable in variables else f"{file or FILE_NAME}: {key}"

    problems = [*_not_for_the_file(document, place), *_CATALOGUE.unknown(variables)]
    try:
        settings = _validated(file.parent if file else start, file, document, variables)
    except ValidationError as error:
        problems += [line for details in error.errors() if (line := _CATALOGUE.complaint(details, place))]
        raise _wrong(problems, file) from error
    if problems:
        raise _wrong(problems, file)
    return settings


def template() -> str:
    """Write the commented `tocsin.toml` of a new workspace: every key explained, every default kept."""
    return "\n".join(
        (
            "# Settings of this Tocsin workspace. Relative paths start at this file's folder.",
            "# A variable wins over a key here: relay.host is also TOCSIN_RELAY__HOST.",
            "# Secrets never stand here: set the variable, or name a file that only you may read.",
            "# A key behind a # is off or follows from others; its value is an example.",
            "",
            *_CATALOGUE.template(_validated(Path(), None, {}, {})),
            "",
        )
    )


def _find(start: Path, named: str | None) -> Path | None:
    """Find the file to read: the named one, else the nearest in `start` or a folder above it."""
    if named:
        file = Path(start, named)
        if not file.is_file():
            raise WrongUse(
                f"{CONFIG_VARIABLE} = {json.dumps(named)} names no file.",
                remedy="Name a tocsin.toml, or unset it.",
            )
        return file
    for folder in (start, *start.parents):
        file = folder / FILE_NAME
        if file.is_file():
            # A stranger may leave a file in a shared folder such as /tmp and turn our mail to their relay.
            if folder != start and file.stat().st_uid not in {0, os.geteuid()}:
                raise WrongUse(
                    f"{file} belongs to another user and is not trusted.",
                    remedy=f"Set {CONFIG_VARIABLE}={file}.",
                )
            return file
    return None


def _document(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise WrongUse(f"{file}: cannot be read: {error.strerror}", remedy=f"chmod u+r {file}") from error
    except ValueError as error:
        # Not TOML, or not UTF-8: both say where.
        raise WrongUse(
            f"{file}: {error}", remedy="Mend that line; text values stand in double quotes."
        ) from error


class _Variables(EnvSettingsSource):
    """The variables as pydantic-settings reads them, from a mapping in place of the process's own."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        super().__init__(Settings)
        whole_tables = map(_CATALOGUE.variable, _CATALOGUE.tables)
        self.env_vars = {name.lower(): variables[name] for name in variables.keys() - set(whole_tables)}


def _validated(
    home: Path, file: Path | None, document: dict[str, Any], variables: Mapping[str, str]
) -> Settings:
    found = InitSettingsSource(Settings, {"home": home, "file": file})
    return Settings(found, _Variables(variables), InitSettingsSource(Settings, document))


def _not_for_the_file(document: Mapping[str, object], place: Callable[[str], str]) -> Iterator[str]:
    """Refuse, in the file, secrets and what is found out and never set."""
    for key in _CATALOGUE.misplaced(document):
        secret = key.replace(".url", ".password")
        yield (
            f"{place(key)} holds a secret, which never stands in this file: "
            f"set {_CATALOGUE.variable(secret)} or {secret}_file"
        )
    for key in sorted(_CATALOGUE.found & document.keys()):
        yield f"{place(key)} is not a setting: the workspace is the folder that holds the file"


def _wrong(problems: list[str], file: Path | None) -> WrongUse:
    remedy = f"Mend {file or 'the variable named'}, then run `tocsin doctor`."
    return WrongUse("\n".join(dict.fromkeys(problems)), remedy=remedy)


def _password(key: str, section: sections.Protected) -> SecretStr | None:
    if section.password_file is None:
        return section.password
    try:
        return SecretStr(section.password_file.read_text(encoding="utf-8").rstrip("\r\n"))
    except (OSError, UnicodeDecodeError) as error:
        raise WrongUse(
            f"{key}.password_file: cannot read {section.password_file}.",
            remedy=f"Mend the path or the file's mode, or set {_CATALOGUE.variable(f'{key}.password')}.",
        ) from error
