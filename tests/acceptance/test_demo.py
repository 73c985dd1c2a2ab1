"""`tocsin demo`: the first command that anybody runs here."""

import contextlib
import email
import email.policy
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from worker import capture, processes
from worker.gallery import Captured

#: Seconds that a whole demo may take on a busy machine; on an idle one it takes half a minute.
PATIENCE = 240.0


def _argv() -> list[str]:
    return [sys.executable, "-m", "worker.cli", "demo"]


def _env(mark: str) -> dict[str, str]:
    """Return the variables of a demo; the mark is inherited by all that it starts."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TOCSIN_")}
    return {**kept, "NO_COLOR": "1", "COLUMNS": "80", "DEMO_MARK": mark}


def _left_running(mark: str) -> list[str]:
    """Return the command lines of every process that carries the mark."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended meanwhile, or is somebody else's
            if f"DEMO_MARK={mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


def _shown(folder: Path) -> str:
    """Run one demo to its end; what it said."""
    done = subprocess.run(
        ["timeout", str(PATIENCE), *_argv()],
        cwd=folder,
        env=_env(str(folder)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_a_demo_proves_itself_and_leaves_nothing_but_a_page_and_every_mail(tmp_path: Path) -> None:
    """Each of its claims is true; one test, for one demo is half a minute's work."""
    told = _shown(tmp_path)
    outbox = tmp_path / "var" / "outbox"
    mails = list(capture.kept(outbox))
    _all_are_on_the_page(told, outbox, mails)
    _who_opted_out_has_exactly_one(mails)
    _both_campaigns_add_up(told)
    assert _left_running(str(tmp_path)) == []


def _all_are_on_the_page(told: str, outbox: Path, mails: Sequence[Captured]) -> None:
    """var/outbox holds each captured mail as .eml, and index.html shows all; the last line says where."""
    assert told.rstrip().splitlines()[-1].endswith("var/outbox/index.html")
    page = (outbox / "index.html").read_text(encoding="utf-8")
    assert len(list(outbox.glob("*.eml"))) == len(mails) > 70
    for mail in mails:
        subject = str(email.message_from_bytes(mail.data, policy=email.policy.default)["Subject"])
        assert subject in page


def _who_opted_out_has_exactly_one(mails: Sequence[Captured]) -> None:
    """Everybody else who could be reached has two, one from each campaign; nobody has more."""
    counts = Counter(recipient for mail in mails for recipient in mail.recipients)
    assert Counter(counts.values()).keys() == {1, 2}
    assert list(counts.values()).count(1) == 1


def _both_campaigns_add_up(told: str) -> None:
    """Each is proved twice in words: in its report, and by `verify`."""
    for name in ("chechnya-report-1", "chechnya-report-2"):
        proof = told.partition(f"$ tocsin verify {name}\n")[2].split("\n\n")[0]
        assert proof.startswith("audience ")
        assert "It adds up, and nothing is open." in proof
    assert "skipped" in told.partition("$ tocsin report chechnya-report-2\n")[2]


def test_a_second_demo_beside_a_running_one_is_refused_in_one_line(tmp_path: Path) -> None:
    """It exits 1, says who runs, touches nothing; and the first, told to stop, leaves nothing running."""
    env = _env(str(tmp_path))
    with (tmp_path / "demo.log").open("wb") as log:
        first = processes.spawn(_argv(), env=env, output=log, cwd=tmp_path)
    try:
        lock = tmp_path / "var" / "demo.lock"
        assert processes.until(lambda: lock.exists() and lock.read_text() == str(first.pid), seconds=60)
        second = subprocess.run(
            _argv(), cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False
        )
        assert second.returncode == 1
        assert second.stdout == ""
        error, remedy = second.stderr.splitlines()
        assert error == f"error: A demo already runs in this workspace (process {first.pid})."
        assert remedy.startswith("  → ")
        assert processes.ending(first) is None
    finally:
        processes.end(first, patience=60)
    assert processes.until(lambda: not _left_running(str(tmp_path)), seconds=60), _left_running(str(tmp_path))
