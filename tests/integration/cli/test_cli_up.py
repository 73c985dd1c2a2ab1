"""One machine runs the whole path: started together, used, counted, stopped in order, nothing left behind."""

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from worker import capture, processes

#: Runs a command line; see conftest.
Tocsin = Callable[..., Any]

COMMAND = (sys.executable, "-m", "worker.cli")
SEND = ("send", "chechnya-report", "--list", "example", "--yes", "--wait")
NAME = "chechnya-report-1"


@pytest.fixture
def running(people: Path) -> Iterator[subprocess.Popen[str]]:
    """Have `tocsin up` with a capture server as relay: one mailbox is gone, one is full."""
    (people / "outbox").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    rules = [
        capture.Rule("anna.bell@*", "550 5.1.1 No such user"),
        capture.Rule("hooft@*", "552 5.2.2 Mailbox full"),
    ]
    with capture.running(people / "outbox", rules) as relay:
        config = people / "tocsin.toml"
        text = config.read_text(encoding="utf-8").replace("port = 9\n", f"port = {relay.port}\n")
        config.write_text(re.sub("(?m)^port = 8080$", f"port = {port}", text), encoding="utf-8")
        up = subprocess.Popen(
            [*COMMAND, "up", "--workers", "1"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            yield up
        finally:
            up.send_signal(signal.SIGTERM)
            up.communicate(timeout=90)


def wait_for(running: subprocess.Popen[str], text: str) -> str:
    """Read what `up` says until it says this."""
    assert running.stdout is not None
    told = ""
    for line in running.stdout:
        told += line
        if text in line:
            return told
    raise AssertionError(told)


def children(pid: int) -> set[int]:
    """Return the processes that a process has started, and theirs."""
    found = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    pairs = [tuple(map(int, line.split())) for line in found.splitlines()]
    known, before = {pid}, set[int]()
    while known != before:
        before = set(known)
        known |= {child for child, parent in pairs if parent in known}
    return known - {pid}


def alive(pid: int) -> bool:
    """Tell whether a process runs (a zombie does not)."""
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return False


def test_the_whole_path(running: subprocess.Popen[str], people: Path, tocsin: Tocsin) -> None:
    """Up, a second up refused, a campaign to its end, its report, a retry; then down, with nobody left."""
    told = wait_for(running, "Ctrl-C stops everything")
    assert [line.split()[0] for line in told.splitlines()[2:-1]] == [
        "redis",
        "control",
        "dispatch",
        "beat",
        "web",
    ]
    second = tocsin("up")
    assert second.code == 1
    assert second.err.startswith(f"error: Tocsin already runs in this workspace (process {running.pid})")

    sent = tocsin(*SEND, "--json")
    assert sent.code == 0, sent.err
    assert (sent.json["campaign"], sent.json["holds"]) == (NAME, True)
    _counts_add_up(tocsin)

    assert processes.until(lambda: "address gone" in tocsin("report", NAME, "--json").out, seconds=60)
    again = tocsin("retry", NAME, "--bounced")
    assert "1 person will be tried again" in again.out
    assert "1 person left out: they said no, or their address is gone." in again.out
    assert processes.until(lambda: tocsin("verify", NAME).code == 0, seconds=60)

    family = children(running.pid)
    assert len(family) >= 6
    running.send_signal(signal.SIGINT)
    rest, _ = running.communicate(timeout=90)
    assert running.returncode == 0, rest
    assert rest.splitlines()[-1] == "Stopped."
    assert processes.until(lambda: not any(map(alive, family)), seconds=10)
    assert _quiet(people / "var" / "log")


def test_up_does_not_take_another_program_for_its_pages(people: Path, tocsin: Tocsin) -> None:
    """Where the port is taken it says so, before anything is started."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        config = people / "tocsin.toml"
        text = config.read_text(encoding="utf-8")
        config.write_text(re.sub("(?m)^port = 8080$", f"port = {port}", text), encoding="utf-8")
        ran = tocsin("up")
    assert ran.code == 3
    assert f"listens on 127.0.0.1 port {port}" in ran.err
    assert ran.out == ""


def _counts_add_up(tocsin: Callable[..., object]) -> None:
    """Every table of the report sums up to the audience, and the sum is printed."""
    told = tocsin("report", NAME, "--json").json  # type: ignore[attr-defined]  # the fixture's own value
    assert told["audience"] == 41
    assert sum(one["count"] for one in told["outcomes"]) == 41
    assert {(one["state"], one["reason"]): one["count"] for one in told["outcomes"]}[
        "bounced", "no-mailbox"
    ] == 1
    for table in ("providers", "hours"):
        assert sum(row["total"] for row in told[table]) == 41
    proof = tocsin("verify", NAME, "--json").json  # type: ignore[attr-defined]  # likewise
    terms = ("sent", "bounced", "skipped", "expired", "unconfirmed")
    assert proof["audience"] == sum(proof[term] for term in terms)
    ran = tocsin("report", NAME)
    assert max(map(len, ran.out.splitlines())) <= 80  # type: ignore[attr-defined]  # likewise
    assert "It adds up, and nothing is open." in ran.out  # type: ignore[attr-defined]  # likewise


def _quiet(folder: Path) -> bool:
    """Check the logs: no address, no traceback, no line for every tick of the clock."""
    text = "\n".join(file.read_text(encoding="utf-8") for file in folder.glob("*.log"))
    assert not re.search(r"[a-z.]+@(?!vm|[a-z0-9-]+\b(?!\.))[a-z0-9-]+\.(org|com|net)", text)
    assert "Traceback" not in text
    assert text.count("tocsin.tick") < 5
    return True
