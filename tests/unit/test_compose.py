"""The container files: every part runs, is watched, and holds no secret; checked without an engine."""

import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from worker import health, sections, settings, tasks
from worker.cli import index

ROOT = Path(__file__).parents[2]
COMPOSE: Mapping[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: Mapping[str, Mapping[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"].startswith("tocsin:")}
COMMANDS = {name: service for name, service in OURS.items() if "entrypoint" not in service}
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
LONG_RUNNING = sorted(SERVICES.keys() - {"setup"})


def texts(value: object) -> Iterator[str]:
    """Give every text anywhere in a value."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from texts(key)
            yield from texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner)
    else:
        yield str(value)


def is_set(environ: Mapping[str, str]) -> settings.Settings:
    """Load settings as a container with these variables would, its unset ones filled in."""
    return settings.load(
        ROOT / "tests", {name: re.sub(r"\$\{\w+:-\}", "", text) for name, text in environ.items()}
    )


class TestParts:
    """What runs."""

    @pytest.mark.parametrize("name", sorted(COMMANDS))
    def test_command(self, name: str) -> None:
        """Each of our containers runs a command that the command line has."""
        assert COMMANDS[name]["command"][0] in {entry.name for entry in index.ENTRIES}

    def test_queues(self) -> None:
        """Every queue has a worker, and no worker waits at a queue that nobody fills."""
        listened = [
            queue
            for service in COMMANDS.values()
            if service["command"][0] == "worker"
            for queue in service["command"][service["command"].index("--queues") + 1].split(",")
        ]
        assert sorted(listened) == sorted([tasks.CONTROL, tasks.DISPATCH])

    def test_one_beat(self) -> None:
        """There is exactly one clock; senders may be many."""
        beats = [service for service in COMMANDS.values() if service["command"] == ["beat"]]
        assert [beat["deploy"]["replicas"] for beat in beats] == [1]
        assert SERVICES["dispatch"]["deploy"]["replicas"] == "${TOCSIN_DISPATCHERS:-2}"

    def test_tables_first(self) -> None:
        """Nothing of ours starts before the database has this version's tables."""
        assert SERVICES["setup"]["command"] == ["db", "upgrade"]
        for name in COMMANDS.keys() - {"setup"}:
            assert SERVICES[name]["depends_on"]["setup"] == {"condition": "service_completed_successfully"}

    @pytest.mark.parametrize("name", LONG_RUNNING)
    def test_watched(self, name: str) -> None:
        """Everything that keeps running is asked whether it lives, and started again when it dies."""
        assert SERVICES[name]["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}
        assert SERVICES[name]["restart"] == "unless-stopped"

    def test_questions(self) -> None:
        """Each health check asks a question that there is."""
        asked = {
            part: service["healthcheck"]["test"][-1]
            for part, service in OURS.items()
            if "test" in service["healthcheck"]
        }
        assert set(asked.values()) <= set(health.CHECKS)
        assert asked == {
            "control": "worker",
            "dispatch": "worker",
            "beat": "queue",
            "web": "web",
            "mailcatcher": "capture",
        }

    def test_catcher_only_to_try(self) -> None:
        """The mail catcher never stands beside a real campaign by accident."""
        assert SERVICES["mailcatcher"]["profiles"] == ["try"]
        assert {name for name, service in SERVICES.items() if "profiles" in service} == {"mailcatcher"}

    def test_senders_finish(self) -> None:
        """A stop leaves senders the time for the slice they are in, and for answers on the wire."""
        grace = int(SERVICES["dispatch"]["stop_grace_period"].removesuffix("s"))
        assert grace > sections.Sending().slice_seconds + tasks._OPTIONS["worker_soft_shutdown_timeout"]


class TestClosed:
    """What keeps strangers out."""

    def test_no_secret(self) -> None:
        """No password stands in the file: each is a mounted file, and no URL holds one."""
        for name, service in SERVICES.items():
            for variable, value in service.get("environment", {}).items():
                if re.search(r"PASSWORD|SECRET|KEY|TOKEN", variable):
                    assert variable.endswith("_FILE"), name
                    assert value.startswith("/run/secrets/"), name
        for secret in COMPOSE["secrets"].values():
            assert secret["file"].startswith("${TOCSIN_SECRETS:?")
        assert not [text for text in texts(COMPOSE) if re.search(r"://[^/@\s]+:[^/@\s]+@", text)]

    def test_every_secret_is_mounted(self) -> None:
        """Each secret a service reads is handed to it, and none to a service that has no use for it."""
        for name, service in SERVICES.items():
            text = " ".join(texts({key: service[key] for key in service.keys() - {"secrets"}}))
            assert set(re.findall(r"/run/secrets/(\w+)", text)) == set(service.get("secrets", [])), name

    def test_ports(self) -> None:
        """Ports are bound to this machine only; the world comes through the operator's own proxy."""
        ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
        assert ports
        assert all(port.startswith("127.0.0.1:") for port in ports)

    @pytest.mark.parametrize("name", sorted(OURS))
    def test_confined(self, name: str) -> None:
        """Our containers run as the workspace's owner, without rights, on a read-only file system."""
        service = SERVICES[name]
        assert service["user"].startswith("${TOCSIN_UID:?")
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
        assert service["security_opt"] == ["no-new-privileges:true"]

    def test_redis_keeps_no_task_on_disk_and_drops_none(self) -> None:
        """Redis is a doorbell: nothing on disk, nothing evicted, a password for all that."""
        command = SERVICES["redis"]["command"][-1]
        for option in ("requirepass %s", 'save ""', "appendonly no", "maxmemory-policy noeviction"):
            assert option in command

    def test_missing_variables_are_told(self) -> None:
        """A variable is either required, with a word on what it is, or has a default."""
        used = re.findall(r"(?<!\$)\$\{(\w+)([^}]*)\}", " ".join(texts(COMPOSE)))
        assert used
        assert all(re.match(r":\?\w|:-", rest) for _name, rest in used)


class TestSettings:
    """What the containers are told."""

    @pytest.mark.parametrize("name", sorted(COMMANDS))
    def test_variables(self, name: str) -> None:
        """Every variable is a setting, and together they load."""
        found = is_set(SERVICES[name]["environment"])
        assert (found.broker.url, found.database.url) == (
            "redis://redis:6379/0",
            "postgresql://tocsin@postgres/tocsin",
        )

    def test_try(self) -> None:
        """The lines for trying it out, as the file tells them, load and lead to the catcher."""
        told = re.findall(
            r"(?m)^#\s+(TOCSIN_RELAY__\w+)=(\S+)$", (ROOT / "docker-compose.yml").read_text("utf-8")
        )
        found = is_set({**SERVICES["dispatch"]["environment"], **dict(told)})
        port = SERVICES["mailcatcher"]["command"][SERVICES["mailcatcher"]["command"].index("--port") + 1]
        assert (found.relay.host, str(found.relay.port), found.relay.security) == (
            "mailcatcher",
            port,
            "plain",
        )
        assert {name for name, _ in told} <= SERVICES["dispatch"]["environment"].keys()

    def test_web_port(self) -> None:
        """The port that is mapped is the one that the pages are served on."""
        assert SERVICES["web"]["ports"][0].endswith(f":{sections.Web().port}")
        assert f"EXPOSE {sections.Web().port}\n" in DOCKERFILE


class TestImage:
    """What the image is made of."""

    def test_unprivileged(self) -> None:
        """The image does not run as root, and everything locked is checked by hash."""
        assert re.search(r"(?m)^USER 10001:10001$", DOCKERFILE)
        assert "pip install --require-hashes -r requirements.lock" in DOCKERFILE
        assert "HEALTHCHECK" in DOCKERFILE
        assert (ROOT / "requirements.lock").is_file()

    def test_copied_files_get_in(self) -> None:
        """What the Dockerfile copies is what the ignore file lets in, and nothing else is."""
        copied = {
            word
            for line in DOCKERFILE.splitlines()
            if line.startswith("COPY ") and "--from" not in line
            for word in shlex.split(line)[1:-1]
        }
        lines = [line for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line[:1] != "#"]
        allowed = {line.removeprefix("!").split("/")[0] for line in lines if line.startswith("!")}
        assert lines[0] == "*"
        assert copied == allowed
        assert "!lists/example*.csv" in lines
        assert all((ROOT / name).exists() for name in copied)
