"""Supervision: children start in order, are watched, and none of them outlives us."""

import functools
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from worker import processes
from worker.errors import Refused, Unavailable
from worker.supervision import Child, Supervisor, listens

ROOT = Path(__file__).parents[2]

#: Runs until it is asked to stop, and notes in a file what happens to it.
FAITHFUL = """
import os, signal, sys
note = lambda text: open(sys.argv[1], "a").write(text + "\\n")
def stop(*_):
    note("stopped " + sys.argv[2]); sys.exit(0)
signal.signal(signal.SIGTERM, stop)
note("started " + sys.argv[2])
while True: signal.pause()
"""
#: Ignores SIGTERM, and so does a child of its own.
STUBBORN = """
import os, signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0: open(sys.argv[1] + ".grandchild", "w").write(str(os.getpid()))
else: open(sys.argv[1], "w").write(str(os.getpid()))
while True: signal.pause()
"""
#: Supervises one faithful and one stubborn child of its own.
SUPERVISOR = """
import sys
from contextlib import suppress
from pathlib import Path
from worker.supervision import Child, Supervisor
folder, faithful, stubborn = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
children = [
    Child("faithful", [sys.executable, "-c", faithful, str(folder / "notes"), "f"],
          ready=(folder / "notes").exists),
    Child("stubborn", [sys.executable, "-c", stubborn, str(folder / "pid")],
          ready=lambda: (folder / "pid.grandchild").exists() and (folder / "pid").exists(),
          patience=float(sys.argv[4])),
]
# The signal may come before watch() does.
with suppress(KeyboardInterrupt), Supervisor(children, folder / "log", lock=folder / "run/up.lock") as up:
    up.start()
    print("up", flush=True)
    up.watch()
print("down", flush=True)
"""


def child(code: str, *args: object) -> list[str]:
    """Give the command line of a small script."""
    return [sys.executable, "-c", code, *map(str, args)]


def alive(pid: int) -> bool:
    """Tell whether a process is still there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def lines(file: Path) -> list[str]:
    """Read a file's lines, none if it is not there yet."""
    return file.read_text(encoding="utf-8").splitlines() if file.exists() else []


def holds(file: Path, expected: list[str]) -> bool:
    """Tell whether a file's lines are these."""
    return lines(file) == expected


def looked(up: Supervisor, condition: Callable[[], bool]) -> bool:
    """Look after the children once, then tell whether a condition holds."""
    up.check()
    return condition()


def supervise(folder: Path, patience: float) -> "subprocess.Popen[str]":
    """Start a supervisor in a process of its own, and wait until its children are up."""
    process = subprocess.Popen(
        child(SUPERVISOR, folder, FAITHFUL, STUBBORN, patience), cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    return process


class TestStart:
    """Starting."""

    def test_order(self, tmp_path: Path) -> None:
        """What others stand on is ready before they start, and stops after them."""
        notes = tmp_path / "notes"
        children = [
            Child("web", child(FAITHFUL, notes, "web"), ready=lambda: "started web" in lines(notes)),
            Child(
                "queue",
                child(FAITHFUL, notes, "queue"),
                ready=lambda: "started queue" in lines(notes),
                base=True,
            ),
        ]
        with Supervisor(children, tmp_path / "log") as up:
            up.start()
        assert lines(notes) == ["started queue", "started web", "stopped web", "stopped queue"]

    def test_logs(self, tmp_path: Path) -> None:
        """A child's output, both kinds, lands in its log, for our eyes only, after what was there."""
        code = "import os, sys; print(os.environ['GREETING'], flush=True); sys.exit('bye')"
        talker, log = Child("talker", child(code), {"GREETING": "hello"}), tmp_path / "log/talker.log"
        for expected in (["hello", "bye"], ["hello", "bye"] * 2):
            with Supervisor([talker], tmp_path / "log") as up:
                up.start()
                assert processes.until(functools.partial(holds, log, expected), seconds=10)
        assert stat.S_IMODE(log.stat().st_mode) == 0o600

    @pytest.mark.parametrize(
        ("code", "told"),
        [("raise SystemExit(3)", "code 3"), ("import os; os.kill(os.getpid(), 9)", "signal SIGKILL")],
    )
    def test_ends_while_starting(self, tmp_path: Path, code: str, told: str) -> None:
        """A child that ends at once is told in one line with its log, and the others are stopped."""
        notes = tmp_path / "notes"
        children = [
            Child("good", child(FAITHFUL, notes, "good"), ready=notes.exists, base=True),
            Child("bad", child(code), ready=lambda: False),
        ]
        with pytest.raises(Unavailable, match=f"bad ended while starting .{told}.") as caught:  # noqa: SIM117 - read in order
            with Supervisor(children, tmp_path / "log") as up:
                up.start()
        assert str(tmp_path / "log/bad.log") in caught.value.remedy
        assert lines(notes) == ["started good", "stopped good"]

    def test_not_ready(self, tmp_path: Path) -> None:
        """A child that never gets ready is told by name."""
        slow = Child("slow", child(FAITHFUL, tmp_path / "notes", "slow"), ready=lambda: False, patience=5)
        with pytest.raises(Unavailable, match="slow is not ready"):  # noqa: SIM117 - read in order
            with Supervisor([slow], tmp_path / "log", start_seconds=0.2) as up:
                up.start()

    def test_no_such_program(self, tmp_path: Path) -> None:
        """A program that is not there is one line."""
        with pytest.raises(Unavailable, match="cannot start /no/program"):  # noqa: SIM117 - read in order
            with Supervisor([Child("ghost", ["/no/program"])], tmp_path / "log") as up:
                up.start()

    def test_second(self, tmp_path: Path) -> None:
        """A second supervisor in one workspace is refused in one line, before it starts anything."""
        lock = tmp_path / "run/up.lock"
        with (
            Supervisor([], tmp_path / "log", lock=lock),
            pytest.raises(Refused, match=f"already runs in this workspace .process {os.getpid()}"),
            Supervisor([], tmp_path / "log", lock=lock),
        ):
            pass
        with Supervisor([], tmp_path / "log", lock=lock):
            pass


class TestWatch:
    """Watching."""

    def test_restart(self, tmp_path: Path) -> None:
        """A dead child is started again, each time after a longer wait, and told."""
        told: list[str] = []
        code = "import sys; open(sys.argv[1], 'a').write('x\\n'); sys.exit(1)"
        with Supervisor(
            [Child("frail", child(code, tmp_path / "notes"))], tmp_path / "log", say=told.append
        ) as up:
            up.start()
            assert processes.until(lambda: looked(up, lambda: len(told) == 3), seconds=20)
        assert len(lines(tmp_path / "notes")) == 3
        assert told == [
            f"frail ended (code 1); starting it again in {wait} s." for wait in ("0.5", "1.0", "2.0")
        ]

    def test_no_restart(self, tmp_path: Path) -> None:
        """Where nothing is started again, a death is an error that names the log."""
        with Supervisor(
            [Child("frail", child("raise SystemExit(2)"))], tmp_path / "log", restart=False
        ) as up:
            up.start()
            with pytest.raises(Unavailable, match=r"frail ended \(code 2\)") as caught:
                processes.until(lambda: looked(up, lambda: False), seconds=10)
        assert "frail.log" in caught.value.remedy


class TestStop:
    """Stopping."""

    @pytest.fixture
    def stubborn(self, tmp_path: Path) -> Child:
        """Give a child that ignores SIGTERM and has a child of its own."""
        files = (tmp_path / "pid", tmp_path / "pid.grandchild")
        return Child(
            "stubborn", child(STUBBORN, files[0]), ready=lambda: all(map(lines, files)), patience=0.3
        )

    def test_stubborn(self, tmp_path: Path, stubborn: Child) -> None:
        """A child that does not stop is ended after its patience, with all that it started."""
        with Supervisor([stubborn], tmp_path / "log") as up:
            up.start()
            pids = [int((tmp_path / name).read_text(encoding="ascii")) for name in ("pid", "pid.grandchild")]
            assert all(map(alive, pids))
        assert processes.until(lambda: not any(map(alive, pids)), seconds=5)

    def test_own_session(self, tmp_path: Path, stubborn: Child) -> None:
        """A terminal's Ctrl-C does not reach the children: we decide the order in which they stop."""
        with Supervisor([stubborn], tmp_path / "log") as up:
            up.start()
            assert os.getsid(int((tmp_path / "pid").read_text(encoding="ascii"))) != os.getsid(0)

    def test_what_a_dead_child_started(self, tmp_path: Path) -> None:
        """What a child that died had started may finish, and is ended with us at the latest."""
        code = (
            "import os, signal, sys\n"
            "if os.fork() == 0:\n    open(sys.argv[1], 'w').write(f'{os.getpid()}\\n')\n    signal.pause()\n"
            "os._exit(1)\n"
        )
        notes = tmp_path / "notes"
        with Supervisor([Child("frail", child(code, notes), patience=30)], tmp_path / "log") as up:
            up.start()
            assert processes.until(lambda: looked(up, lambda: bool(lines(notes))), seconds=10)
            orphan = int(lines(notes)[0])
            assert alive(orphan)
        assert processes.until(lambda: not alive(orphan), seconds=5)

    @pytest.fixture
    def signals_back(self) -> Iterator[None]:
        """Check that the signals' handlers are given back."""
        before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
        yield
        assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before

    @pytest.mark.usefixtures("signals_back")
    def test_interrupted_block(self, tmp_path: Path) -> None:
        """SIGTERM in a block that does its own work (the demo) stops the children on the way out."""
        notes = tmp_path / "notes"
        faithful = Child("c", child(FAITHFUL, notes, "c"), ready=notes.exists)
        with (  # noqa: PT012 - the block is what is tested
            pytest.raises(KeyboardInterrupt),
            Supervisor([faithful], tmp_path / "log") as up,
        ):
            up.start()
            os.kill(os.getpid(), signal.SIGTERM)
        assert lines(notes) == ["started c", "stopped c"]


class TestSignals:
    """What happens to a supervisor from outside."""

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_stops(self, tmp_path: Path, number: signal.Signals) -> None:
        """SIGTERM and Ctrl-C stop everything in order, and the supervisor ends well."""
        with supervise(tmp_path, patience=0.3) as process:
            process.send_signal(number)
            assert process.communicate(timeout=20)[0] == "down\n"
        assert process.returncode == 0
        assert lines(tmp_path / "notes") == ["started f", "stopped f"]
        assert not alive(int((tmp_path / "pid").read_text(encoding="ascii")))

    def test_second_interrupt(self, tmp_path: Path) -> None:
        """A second Ctrl-C ends the patience."""
        with supervise(tmp_path, patience=600) as process:
            process.send_signal(signal.SIGINT)
            assert processes.until(lambda: "stopped f" in lines(tmp_path / "notes"), seconds=10)
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=20)[0] == "down\n"

    def test_killed(self, tmp_path: Path) -> None:
        """SIGKILL of the supervisor reaches its children too, and frees the workspace."""
        with supervise(tmp_path, patience=600) as process:
            process.kill()
        assert processes.until(lambda: "stopped f" in lines(tmp_path / "notes"), seconds=10)
        with Supervisor([], tmp_path / "log", lock=tmp_path / "run/up.lock"):
            pass
        for name in ("pid", "pid.grandchild"):  # these two ignore the signal, on purpose
            os.kill(int((tmp_path / name).read_text(encoding="ascii")), signal.SIGKILL)


def test_listens() -> None:
    """The readiness check of a server asks its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert listens("127.0.0.1", port)()
    assert not listens("127.0.0.1", port)()


def test_a_free_port_is_one_that_the_system_gives_to_nobody() -> None:
    """Ours to listen on, and below what a socket without a wish gets: no other program has it by then."""
    first, *_ = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    for _ in range(20):
        port = processes.free_port()
        assert 1024 < port < first
        socket.create_server(("127.0.0.1", port)).close()
