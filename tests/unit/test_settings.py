"""Settings: parsed once, frozen, hostile to typos, and silent about secrets."""

import itertools
import os
import re
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from worker import sections, settings
from worker.errors import WrongUse

PASSWORD = "correct-horse"


def written(folder: Path, text: str) -> Path:
    """Leave a tocsin.toml in a folder."""
    file = folder / "tocsin.toml"
    file.write_text(text, encoding="utf-8")
    return file


def key_ring(folder: Path, mode: int = 0o600) -> Path:
    """Leave a key ring where the defaults look for it."""
    file = folder / "var" / "secret.toml"
    file.parent.mkdir()
    file.write_text("ring", encoding="utf-8")
    file.chmod(mode)
    return file


class TestSources:
    """Where values come from, and which wins."""

    def test_defaults(self, tmp_path: Path) -> None:
        """Without a file the folder is the workspace and everything has a sane default."""
        found = settings.load(tmp_path, {})
        assert (found.home, found.file, found.state) == (tmp_path, None, tmp_path / "var")
        assert found.secret_file == tmp_path / "var/secret.toml"
        assert (found.relay.security, found.relay.port, found.broker.url) == ("starttls", 587, "embedded")

    def test_variable_wins(self, tmp_path: Path) -> None:
        """A variable beats the file, and leaves its neighbours in the table alone."""
        written(tmp_path, '[relay]\nhost = "a.example.org"\nusername = "u"\n')
        found = settings.load(tmp_path, {"TOCSIN_RELAY__HOST": "b.example.org"})
        assert (found.relay.host, found.relay.username) == ("b.example.org", "u")

    def test_empty_variable_is_unset(self, tmp_path: Path) -> None:
        """An empty variable, as a compose file hands on, changes nothing."""
        assert settings.load(tmp_path, {"TOCSIN_RELAY__PORT": ""}).relay.port == 587

    def test_process_environment(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without arguments the process's own folder and variables count."""
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("TOCSIN_WEB__PORT", "8099")
        assert settings.load().web.port == 8099

    def test_file_in_a_parent(self, tmp_path: Path) -> None:
        """The nearest file upwards is read, and its folder is the workspace."""
        file = written(tmp_path, 'state = "data"\n')
        below = tmp_path / "lists" / "2026"
        below.mkdir(parents=True)
        found = settings.load(below, {})
        assert (found.file, found.home, found.state) == (file, tmp_path, tmp_path / "data")

    def test_named_file(self, tmp_path: Path) -> None:
        """TOCSIN_CONFIG names the file, wherever the command runs."""
        (tmp_path / "elsewhere").mkdir()
        file = written(tmp_path / "elsewhere", "[web]\nport = 9000\n")
        found = settings.load(tmp_path, {"TOCSIN_CONFIG": str(file)})
        assert (found.web.port, found.home) == (9000, tmp_path / "elsewhere")

    def test_named_file_missing(self, tmp_path: Path) -> None:
        """A TOCSIN_CONFIG that names nothing is an error, not a silent default."""
        with pytest.raises(WrongUse, match="names no file"):
            settings.load(tmp_path, {"TOCSIN_CONFIG": "nowhere.toml"})

    def test_strangers_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A stranger's file in a folder above is not trusted: it could turn our mail to their relay."""
        file = written(tmp_path, "")
        if os.geteuid() == 0:
            os.chown(file, 54321, -1)
        else:  # only root can give a file away; others can be somebody else
            monkeypatch.setattr(os, "geteuid", lambda: 54321)
        (tmp_path / "work").mkdir()
        with pytest.raises(WrongUse, match="another user"):
            settings.load(tmp_path / "work", {})

    @pytest.mark.parametrize("text", ["[relay\n", "a = \n", "\x00"])
    def test_no_toml(self, tmp_path: Path, text: str) -> None:
        """A file that is no TOML is one line that says where."""
        file = written(tmp_path, text)
        with pytest.raises(WrongUse, match=re.escape(str(file))) as caught:
            settings.load(tmp_path, {})
        assert "line" in str(caught.value)

    def test_relative_paths(self, tmp_path: Path) -> None:
        """Relative paths stand relative to the file, wherever the value came from."""
        written(tmp_path, '[relay]\nca_file = "keys/relay.pem"\n')
        found = settings.load(
            tmp_path, {"TOCSIN_RELAY__PASSWORD_FILE": "/abs/pw", "TOCSIN_SECRET_FILE": "ring"}
        )
        assert found.relay.ca_file == tmp_path / "keys/relay.pem"
        assert found.relay.password_file == Path("/abs/pw")
        assert found.secret_file == tmp_path / "ring"

    def test_frozen(self, tmp_path: Path) -> None:
        """Nothing changes after it was read."""
        found = settings.load(tmp_path, {})
        with pytest.raises(ValidationError, match="frozen"):
            found.relay.host = "other"
        with pytest.raises(ValidationError, match="frozen"):
            found.state = tmp_path


class TestDerived:
    """Values that follow from others unless they are set."""

    def test_mail_domains(self, tmp_path: Path) -> None:
        """All domains follow from from_address, and one that is set carries those behind it."""
        found = settings.load(
            tmp_path,
            {
                "TOCSIN_MAIL__FROM_ADDRESS": "team@Charity.Example.ORG",
                "TOCSIN_MAIL__BOUNCE_DOMAIN": "b.example.net",
            },
        ).mail
        assert found.from_address == found.reply_to == "team@charity.example.org"
        assert (found.domain, found.list_domain) == ("charity.example.org", "charity.example.org")
        assert (found.bounce_domain, found.opt_out_domain) == ("b.example.net", "b.example.net")

    @pytest.mark.parametrize(("security", "port"), [("starttls", 587), ("tls", 465)])
    def test_relay_port(self, tmp_path: Path, security: str, port: int) -> None:
        """The port follows from the kind of security."""
        assert settings.load(tmp_path, {"TOCSIN_RELAY__SECURITY": security}).relay.port == port

    @given(st.from_regex(r"\A[a-z0-9]{1,20}(\.[a-z]{2,12}){1,3}\Z"))
    def test_feedback_id(self, domain: str) -> None:
        """Every domain gives a Feedback-ID mark of the allowed shape (STANDARDS H11)."""
        assert re.fullmatch(r"[A-Za-z0-9-]{5,15}", sections.Mail(domain=domain).feedback_id)


class TestWrongValues:
    """Each wrong key is one line with place, value and meaning."""

    @pytest.mark.parametrize(
        ("key", "value", "told"),
        [
            ("relay.port", "smtp", "valid integer"),
            ("relay.port", "70000", "less than or equal to 65535"),
            ("relay.security", "ssl", "'starttls', 'tls' or 'plain'"),
            ("relay.security", "plain", "in the clear"),
            ("relay.helo", "two words", "pattern"),
            ("mail.from_address", "nobody", "@"),
            ("mail.bounce_domain", "a b", "domain in lower case"),
            ("mail.list_domain", "example.org\r\nBcc: x", "domain in lower case"),
            ("mail.feedback_id", "abc", "pattern"),
            ("web.base_url", "http://act.example.org", "https://"),
            ("web.base_url", "javascript:alert(1)", "site"),
            ("web.base_url", "https://act.example.org/?a=1", "site"),
            ("organisation.privacy_url", "https:/oops", "site"),
            ("database.url", "mysql://host/name", "postgresql"),
            ("database.url", "sqlite://", "sqlite"),
            ("database.url", "sqlite:///:memory:", "sqlite"),
            ("database.url", "not a url", "postgresql"),
            ("broker.url", "amqp://host", "redis://"),
            ("broker.url", "redis://host/0?password=x", "on its own"),
            ("sending.batch_size", "0", "greater than or equal to 1"),
            ("sending.slice_seconds", "90", "shorter than lease_seconds"),
            ("sending.approval", "three", "'one' or 'two'"),
        ],
    )
    def test_line(self, tmp_path: Path, key: str, value: str, told: str) -> None:
        """A wrong variable is named with its value and what it should be, in one line."""
        variable = "TOCSIN_" + key.upper().replace(".", "__")
        with pytest.raises(WrongUse) as caught:
            settings.load(tmp_path, {variable: value})
        line = str(caught.value)
        assert line.startswith(variable)
        assert told in line
        assert "\n" not in line
        assert caught.value.remedy

    def test_file_is_named(self, tmp_path: Path) -> None:
        """A wrong value in the file is named with the file, its key and the value."""
        file = written(tmp_path, '[relay]\nport = "smtp"\n')
        with pytest.raises(WrongUse) as caught:
            settings.load(tmp_path, {})
        assert str(caught.value).startswith(f'{file}: relay.port = "smtp": should be a valid integer')

    def test_all_at_once(self, tmp_path: Path) -> None:
        """Several wrong keys are several lines of one error, and none only follows from another."""
        written(tmp_path, 'stat = "x"\n[mail]\nfrom_address = "bad"\n[discreet]\nsender_name = ""\n')
        with pytest.raises(WrongUse) as caught:
            settings.load(tmp_path, {"TOCSIN_RELAY__PORT": "x"})
        lines = str(caught.value).splitlines()
        keys = [re.split(r" (?:=|is) ", line.removeprefix(f"{tmp_path}/tocsin.toml: "))[0] for line in lines]
        assert sorted(keys) == [
            "TOCSIN_RELAY__PORT",
            "discreet.from_address",
            "discreet.sender_name",
            "mail.from_address",
            "stat",
        ]

    @pytest.mark.parametrize(
        ("text", "suggested"),
        [
            ('[relay]\nhots = "x"\n', "relay.host"),
            ("[sending.retry]\ntries = 2\n", None),
            ("[rely]\n", "relay"),
        ],
    )
    def test_unknown_key(self, tmp_path: Path, text: str, suggested: str | None) -> None:
        """A key we do not know is refused, with the nearest one that we do."""
        written(tmp_path, text)
        with pytest.raises(WrongUse, match="is not a setting") as caught:
            settings.load(tmp_path, {})
        assert suggested is None or f"did you mean {suggested}?" in str(caught.value)

    @pytest.mark.parametrize(
        ("variable", "suggested"),
        [
            ("TOCSIN_RELAY_HOST", "TOCSIN_RELAY__HOST"),
            ("TOCSIN_RELAY__HOTS", "TOCSIN_RELAY__HOST"),
            ("TOCSIN_DATABSE__URL", "TOCSIN_DATABASE__URL"),
        ],
    )
    def test_unknown_variable(self, tmp_path: Path, variable: str, suggested: str) -> None:
        """A variable we do not know is refused as well: ignored, it would send through the default."""
        with pytest.raises(WrongUse, match=f"{variable} is not a setting; did you mean {suggested}"):
            settings.load(tmp_path, {variable: "x"})

    def test_whole_table_variable(self, tmp_path: Path) -> None:
        """A table cannot be one variable; the error shows how its keys are named."""
        with pytest.raises(WrongUse, match=r"TOCSIN_BROKER is a whole table.*TOCSIN_BROKER__URL"):
            settings.load(tmp_path, {"TOCSIN_BROKER": "redis://host"})

    def test_home_is_found_not_set(self, tmp_path: Path) -> None:
        """The workspace is where the file is; nobody sets it."""
        written(tmp_path, 'home = "/elsewhere"\n')
        with pytest.raises(WrongUse, match="the workspace is the folder"):
            settings.load(tmp_path, {})

    def test_discreet_needs_neutral_links(self, tmp_path: Path) -> None:
        """A discreet form whose links would name us is refused."""
        text = '[discreet]\nfrom_address = "news@example.net"\nsender_name = "News"\n'
        written(tmp_path, text)
        with pytest.raises(WrongUse, match=r"web\.discreet_base_url"):
            settings.load(tmp_path, {})
        written(tmp_path, text + '[web]\ndiscreet_base_url = "https://news.example.net"\n')
        found = settings.load(tmp_path, {}).discreet
        assert found is not None
        assert found.bounce_domain == "example.net"

    @pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3", "::1", "[::1]"])
    def test_plain_to_this_machine(self, tmp_path: Path, host: str) -> None:
        """Plain SMTP and plain http are for this machine only."""
        place = host if host.startswith("[") or ":" not in host else f"[{host}]"
        found = settings.load(
            tmp_path,
            {
                "TOCSIN_RELAY__SECURITY": "plain",
                "TOCSIN_RELAY__HOST": host,
                "TOCSIN_WEB__BASE_URL": f"http://{place}:8",
            },
        )
        assert found.relay.port == 25

    @pytest.mark.parametrize("host", ["localhost.example.org", "127.example.org", "10.0.0.1", "2130706433"])
    def test_not_this_machine(self, host: str) -> None:
        """Names that only look like this machine are not."""
        assert not sections.is_loopback(host)


class TestSecrets:
    """Secrets come by variable or file, and never print."""

    @pytest.mark.parametrize(
        ("text", "variable"),
        [
            (f'[relay]\npassword = "{PASSWORD}"\n', "TOCSIN_RELAY__PASSWORD"),
            (f'[database]\nurl = "postgresql://u:{PASSWORD}@h/d"\n', "TOCSIN_DATABASE__PASSWORD"),
            (f'[broker]\nurl = "redis://:{PASSWORD}@h/0"\n', "TOCSIN_BROKER__PASSWORD"),
            (f'secret = "{PASSWORD}"\n', "TOCSIN_SECRET"),
        ],
    )
    def test_not_in_the_file(self, tmp_path: Path, text: str, variable: str) -> None:
        """A secret in tocsin.toml is refused, unshown, with the variable to use."""
        written(tmp_path, text)
        with pytest.raises(WrongUse, match=variable) as caught:
            settings.load(tmp_path, {})
        assert PASSWORD not in f"{caught.value}{caught.value.remedy}"

    def test_never_shown(self, tmp_path: Path) -> None:
        """No way to print the settings prints a secret, nor does an error about another key."""
        environ = {
            "TOCSIN_RELAY__PASSWORD": PASSWORD,
            "TOCSIN_SECRET": PASSWORD,
            "TOCSIN_DATABASE__URL": f"postgresql://u:{PASSWORD}@h/d",
            "TOCSIN_BROKER__URL": f"redis://:{PASSWORD}@h:6379/1",
        }
        found = settings.load(tmp_path, environ)
        shown = f"{found} {found!r} {found.model_dump()} {found.model_dump_json()} {found.database_url()}"
        assert PASSWORD not in shown
        for more in ({"TOCSIN_RELAY__PORT": "x"}, {"TOCSIN_DATABASE__PASSWORD": PASSWORD}):
            with pytest.raises(WrongUse) as caught:
                settings.load(tmp_path, environ | more)
            assert PASSWORD not in f"{caught.value} {caught.value.__cause__}"

    def test_wrong_value_that_holds_one(self, tmp_path: Path) -> None:
        """A URL in a wrong place is shown without what stands before its @."""
        with pytest.raises(WrongUse) as caught:
            settings.load(tmp_path, {"TOCSIN_WEB__BASE_URL": f"https://u:{PASSWORD}@h"})
        assert PASSWORD not in str(caught.value)

    def test_password_file(self, tmp_path: Path) -> None:
        """A password file gives its one line, and loses only its line end."""
        (tmp_path / "pw").write_text(" a b \r\n", encoding="utf-8")
        found = settings.load(tmp_path, {"TOCSIN_RELAY__PASSWORD_FILE": "pw"})
        assert found.relay_password() == SecretStr(" a b ")

    def test_password_file_missing(self, tmp_path: Path) -> None:
        """A password file that is not there is named with its key."""
        found = settings.load(
            tmp_path, {"TOCSIN_BROKER__PASSWORD_FILE": "pw", "TOCSIN_BROKER__URL": "redis://h"}
        )
        with pytest.raises(WrongUse, match=r"broker\.password_file"):
            found.broker_url()

    def test_two_places(self, tmp_path: Path) -> None:
        """One password in two places is refused: the operator would mend the wrong one."""
        with pytest.raises(WrongUse, match="give one"):
            settings.load(tmp_path, {"TOCSIN_RELAY__PASSWORD_FILE": "pw", "TOCSIN_RELAY__PASSWORD": PASSWORD})

    def test_key_ring(self, tmp_path: Path) -> None:
        """The key ring's text comes from its file, for our eyes only."""
        key_ring(tmp_path)
        assert settings.load(tmp_path, {}).secret_text() == SecretStr("ring")

    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o610])
    def test_key_ring_open_to_others(self, tmp_path: Path, mode: int) -> None:
        """A key ring that others may read is refused, with the command that mends it."""
        file = key_ring(tmp_path, mode)
        with pytest.raises(WrongUse, match="others may read") as caught:
            settings.load(tmp_path, {}).secret_text()
        assert caught.value.remedy == f"chmod 600 {file}"

    def test_key_ring_missing(self, tmp_path: Path) -> None:
        """Without a key ring the error says how to get one."""
        with pytest.raises(WrongUse, match="cannot read the key ring") as caught:
            settings.load(tmp_path, {}).secret_text()
        assert "tocsin init" in caught.value.remedy

    def test_key_ring_by_variable(self, tmp_path: Path) -> None:
        """The key ring may be a variable."""
        assert settings.load(tmp_path, {"TOCSIN_SECRET": "ring"}).secret_text() == SecretStr("ring")


class TestUrls:
    """What the parts are told to connect to."""

    @pytest.mark.parametrize(
        ("url", "file"),
        [
            ("sqlite", "var/tocsin.db"),
            ("sqlite:///data/x.db", "data/x.db"),
            ("sqlite:////abs/x.db", "/abs/x.db"),
        ],
    )
    def test_sqlite(self, tmp_path: Path, url: str, file: str) -> None:
        """An SQLite file stands relative to the workspace, by default in the state folder."""
        found = settings.load(tmp_path, {"TOCSIN_DATABASE__URL": url}).database_url()
        assert (found.get_backend_name(), found.database) == ("sqlite", str(tmp_path / file))

    @pytest.mark.parametrize("password", ["p/w@%:?#", "ünï", " "])
    def test_passwords_with_odd_letters(self, tmp_path: Path, password: str) -> None:
        """A password reaches driver and broker unchanged, whatever it holds."""
        found = settings.load(
            tmp_path,
            {
                "TOCSIN_DATABASE__URL": "postgresql://u@h/d",
                "TOCSIN_DATABASE__PASSWORD": password,
                "TOCSIN_BROKER__URL": "redis://h:6379/0",
                "TOCSIN_BROKER__PASSWORD": password,
            },
        )
        assert found.database_url().drivername == "postgresql+psycopg"
        assert found.database_url().password == password
        url = found.broker_url().get_secret_value()
        assert urlsplit(url).hostname == "h"
        assert sections.without_password(url) == ("redis://h:6379/0", password)

    def test_embedded_broker(self, tmp_path: Path) -> None:
        """The embedded broker is a word, not a place."""
        assert settings.load(tmp_path, {}).broker_url() == SecretStr("embedded")


class TestTemplate:
    """The tocsin.toml that init writes."""

    def test_changes_nothing(self, tmp_path: Path) -> None:
        """The template loads back to exactly the defaults."""
        bare = settings.load(tmp_path, {}).model_dump()
        written(tmp_path, settings.template())
        assert settings.load(tmp_path, {}).model_dump(exclude={"file"}) == {
            k: bare[k] for k in bare if k != "file"
        }

    def test_examples_are_valid(self, tmp_path: Path) -> None:
        """Every line behind a # may be switched on as it stands."""
        written(tmp_path, re.sub(r"(?m)^#(?=[\w\[])", "", settings.template()))
        found = settings.load(tmp_path, {})
        assert found.discreet is not None
        assert found.discreet.domain == "letters.example.net"

    def test_names_every_key(self) -> None:
        """Every key stands in the template under a line that explains it; secrets only as variables."""
        lines = settings.template().splitlines()
        document = tomllib.loads(re.sub(r"(?m)^#(?=[\w\[])", "", settings.template()))
        for section in (sections.Relay, sections.Sending, sections.Web, sections.Mail, sections.Organisation):
            table = document[section.__name__.lower()]
            assert table.keys() == section.model_fields.keys() - {"password"}
        assert "# Its password. Only as TOCSIN_RELAY__PASSWORD." in lines
        for above, line in itertools.pairwise(lines):
            assert above.startswith("# ") or not re.match(r"#?\w+ = ", line), line

    def test_examples_left(self, tmp_path: Path) -> None:
        """What must be set before a real campaign is known, key by key."""
        assert "relay.host" in settings.load(tmp_path, {}).examples_left()
        assert "relay.host" not in settings.load(tmp_path, {"TOCSIN_RELAY__HOST": "h"}).examples_left()


class TestRelays:
    """More than one relay, by names of the operator's choice."""

    def test_each_has_its_own_table(self, tmp_path: Path) -> None:
        """By file and by variable, the main one first."""
        written(
            tmp_path,
            '[relay]\nhost = "a.example.org"\n[relays.backup]\nhost = "b.example.org"\nweight = 0\n'
            'ca_file = "ca.pem"\n',
        )
        found = settings.load(
            tmp_path,
            {"TOCSIN_RELAYS__BACKUP__PASSWORD": PASSWORD, "TOCSIN_RELAYS__THIRD__HOST": "c.example.org"},
        )
        hosts = {name: relay.host for name, relay in found.all_relays().items()}
        assert hosts == {"main": "a.example.org", "backup": "b.example.org", "third": "c.example.org"}
        assert next(iter(hosts)) == "main"
        assert found.relay_password("backup") == SecretStr(PASSWORD)
        assert found.relay_password("third") is None
        assert found.relays["backup"].ca_file == tmp_path / "ca.pem"
        assert found.relays["backup"].weight == 0

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ('[relays.backup]\nsecurty = "tls"', "relays.backup.securty is not a setting"),
            ("[relays.backup]\nport = 0", "relays.backup.port = 0"),
            ("[relays.main]\nport = 25", "should not name one main"),
            ('[relays.backup]\npassword = "x"', "relays.backup.password holds a secret"),
            ('[relays."no way"]\nport = 25', "relays"),
            ('[relays.backup]\nhost = "b.example.org"\nsecurity = "plain"', "in the clear"),
        ],
    )
    def test_a_wrong_one_is_named(self, tmp_path: Path, text: str, told: str) -> None:
        """With its key, and never its secret."""
        written(tmp_path, text)
        with pytest.raises(WrongUse, match=re.escape(told)) as caught:
            settings.load(tmp_path, {})
        assert "password = x" not in str(caught.value)


class TestTopics:
    """What readers may say no to on the page of preferences."""

    def test_each_has_its_own_table(self, tmp_path: Path) -> None:
        """By the name that appeals have in their front matter, with a title for people."""
        written(tmp_path, '[topics.trans-rights]\ntitle = "Trans rights"\ntitles = { ru = "Права" }\n')
        (topic,) = settings.load(tmp_path, {}).topics.items()
        assert topic == ("trans-rights", sections.Topic(title="Trans rights", titles={"ru": "Права"}))

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("[topics.a-b]", "topics.a-b.title is missing (What readers see.)"),
            ('[topics.a-b]\ntitle = ""', "topics.a-b.title"),
            (
                '[topics.a-b]\ntitle = "A"\ntitel = "B"',
                "topics.a-b.titel is not a setting; did you mean topics.a-b.title?",
            ),
            ('[topics.Health]\ntitle = "A"', "topics.Health should be called by small letters, digits and"),
            ('[topics.a]\ntitle = "A"\ntitles = { "no language" = "B" }', "topics.a.titles"),
        ],
    )
    def test_a_wrong_one_is_named(self, tmp_path: Path, text: str, told: str) -> None:
        """With its key and what it means."""
        written(tmp_path, text)
        with pytest.raises(WrongUse, match=re.escape(told)):
            settings.load(tmp_path, {})

    def test_the_template_shows_how(self, tmp_path: Path) -> None:
        """The new workspace's file explains a topic's keys; they can be switched on as they stand."""
        written(tmp_path, re.sub(r"(?m)^#(?=[\w\[])", "", settings.template()))
        found = settings.load(tmp_path, {}).topics
        assert found == {"petitions": sections.Topic(title="Petitions", titles={"de": "Petitionen"})}
