"""Container health: each part is asked one cheap question, and answers by exit code."""

import http.server
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from worker import broker, health, processes, settings

ROOT = Path(__file__).parents[2]

#: A Celery worker of its own, with nothing to do.
WORKER = """
import sys
from pathlib import Path
from celery import Celery
from worker import broker, settings
app = Celery(broker=broker.celery_url(settings.load(Path(sys.argv[1]), {})), set_as_current=False)
app.worker_main(["worker", "--pool=solo", "--without-gossip", "--without-mingle", "--loglevel=ERROR"])
"""


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> settings.Settings:
    """Stand in a workspace with the defaults."""
    monkeypatch.chdir(tmp_path)
    return settings.load(tmp_path, {})


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[http.server.BaseHTTPRequestHandler]]:
    """Serve something on the port that the settings name."""

    class Desk(http.server.BaseHTTPRequestHandler):
        status = 200

        def do_GET(self) -> None:
            self.send_response(self.status if self.path == "/healthz" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Desk) as server:
        monkeypatch.setenv("TOCSIN_WEB__PORT", str(server.server_port))
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield Desk
        server.shutdown()
        thread.join()


def test_queue(workspace: settings.Settings) -> None:
    """Beat lives where Redis answers."""
    assert health.main(["queue"]) == 1
    with broker.running(workspace.state):
        assert health.main(["queue"]) == 0


def test_worker(workspace: settings.Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker lives when this host's own answers its ping; another's answer does not count."""
    monkeypatch.setattr(health, "_PATIENCE", 0.5)
    with broker.running(workspace.state):
        assert health.main(["worker"]) == 1
        with subprocess.Popen([sys.executable, "-c", WORKER, workspace.home], cwd=ROOT) as process:
            try:
                assert processes.until(lambda: health.main(["worker"]) == 0, seconds=60)
                monkeypatch.setattr(socket, "gethostname", lambda: "elsewhere")
                assert health.main(["worker"]) == 1
            finally:
                process.terminate()
        assert process.returncode == 0


@pytest.mark.usefixtures("workspace")
def test_web(pages: type[http.server.BaseHTTPRequestHandler], monkeypatch: pytest.MonkeyPatch) -> None:
    """The pages live when their health page says so."""
    assert health.main(["web"]) == 0
    monkeypatch.setenv("TOCSIN_WEB__HOST", "0.0.0.0")
    assert health.main(["web"]) == 0
    monkeypatch.setattr(pages, "status", 503)
    assert health.main(["web"]) == 1


@pytest.mark.usefixtures("workspace")
def test_dead(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What does not answer is told by its kind only, in one line."""
    monkeypatch.setenv("TOCSIN_WEB__PORT", "1")
    assert health.main(["web"]) == 1
    assert capsys.readouterr().err == "web: ConnectionRefusedError\n"


def test_no_such_part(capsys: pytest.CaptureFixture[str]) -> None:
    """A part that there is not is wrong use."""
    assert health.main(["lift"]) == 2
    assert "queue|worker|web|capture" in capsys.readouterr().err
