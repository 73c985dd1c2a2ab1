"""The journal tells exactly what a dead process had in hand, and never more than it knows."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from worker import journal
from worker.deliveries import State
from worker.journal import Hand, Journal, inspect, owner_name, tidy
from worker.store.ledger import Outcome

_DOOMED = """
import sys, time
from pathlib import Path
from worker.deliveries import State
from worker.journal import Journal, owner_name
from worker.store.ledger import Outcome
made = Journal(Path(sys.argv[1]), owner_name("x"))
made.begin(1)
made.settle(Outcome(1, State.SENT, "accepted", code=250, status="2.0.0", text="queued as A1"))
made.begin(2)
print(made.owner, flush=True)
time.sleep(600)
"""


def test_sigkill_leaves_exactly_what_was_written(tmp_path: Path) -> None:
    """A killed process's journal is free and whole; a living one's is locked."""
    child = subprocess.Popen([sys.executable, "-c", _DOOMED, tmp_path], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    owner = child.stdout.readline().strip()
    assert inspect(tmp_path, owner) == Hand(alive=True, trusted=False)
    child.send_signal(signal.SIGSTOP)
    assert inspect(tmp_path, owner) == Hand(alive=True, trusted=False)  # paused is not dead
    child.kill()
    child.wait()
    child.stdout.close()
    hand = inspect(tmp_path, owner)
    assert hand is not None
    assert (hand.alive, hand.trusted, hand.begun) == (False, True, {2})
    assert hand.known == {
        1: Outcome(1, State.SENT, "accepted", code=250, status="2.0.0", text="queued as A1")
    }


def test_the_last_word_on_a_delivery_counts(tmp_path: Path) -> None:
    """Deferred and begun again in one run: it is in the air, not deferred."""
    made = Journal(tmp_path, owner_name("x"))
    made.begin(7)
    made.settle(Outcome(7, State.DEFERRED, "busy", 12.5, code=451))
    made.begin(7)
    made.succeed()
    hand = inspect(tmp_path, made.owner)
    assert hand is not None
    assert (hand.begun, dict(hand.known)) == ({7}, {})


def test_a_torn_last_line_is_not_believed(tmp_path: Path) -> None:
    """A line cut by a full disk belongs to a message that did not leave."""
    made = Journal(tmp_path, owner_name("x"))
    made.begin(7)
    made.succeed()
    (file,) = tmp_path.glob(f"{made.owner}.journal")
    with file.open("ab") as opened:
        opened.write(b"D\t8")
    hand = inspect(tmp_path, made.owner)
    assert hand is not None
    assert hand.begun == {7}


def test_a_journal_from_before_a_reboot_is_not_trusted(tmp_path: Path) -> None:
    """What it says is known, but what it leaves out may have been lost with the page cache."""
    made = Journal(tmp_path, "0ld800t.host.1.x")
    made.settle(Outcome(1, State.SENT, "accepted", code=250))
    made.succeed()
    hand = inspect(tmp_path, "0ld800t.host.1.x")
    assert hand is not None
    assert not hand.trusted
    assert list(hand.known) == [1]


@pytest.mark.parametrize("boot", ["an old one", "this one"])
@pytest.mark.parametrize("state", [State.QUEUED, State.DEFERRED, State.BOUNCED, State.EXPIRED, State.SENT])
def test_a_journal_that_may_lack_a_line_proves_only_what_nothing_undoes(
    tmp_path: Path, boot: str, state: State
) -> None:
    """Begun again, taken back, sent again by an operator: the line that says so may be the lost one."""
    owner = owner_name("x") if boot == "this one" else "0ld800t.host.1.x"
    made = Journal(tmp_path, owner)
    made.begin(7)
    made.settle(Outcome(7, state, "said so", code=250))
    made._write(b"\0\0\0\n")  # begun again, once
    made.succeed()
    hand = inspect(tmp_path, owner)
    assert hand is not None
    assert not hand.trusted
    assert list(hand.known) == ([7] if state is State.SENT else [])


def test_a_journal_on_another_machine_is_not_found(tmp_path: Path) -> None:
    """Not here is told apart from empty."""
    assert inspect(tmp_path, "b.elsewhere.1.x") is None


def test_a_successor_has_its_own_file_and_lock(tmp_path: Path) -> None:
    """After an unexpected failure the same process goes on under a new name."""
    first = Journal(tmp_path, owner_name("x"))
    second = first.succeed()
    assert second.owner == f"{first.owner}+1"
    assert second.succeed().owner == f"{first.owner}+2"


def test_tidying_removes_only_what_nobody_needs(tmp_path: Path) -> None:
    """Locked journals, those of lease holders and fresh ones stay; the rest of the dead go."""
    locked, holder, gone = (Journal(tmp_path, owner_name(name)) for name in "abc")
    for each in (holder, gone):
        os.close(each._file)
    now = gone._path.stat().st_mtime
    assert tidy(tmp_path, {holder.owner}, now - 10) == 0
    assert tidy(tmp_path, {holder.owner}, now + 10) == 1
    assert {file.stem for file in tmp_path.iterdir()} == {locked.owner, holder.owner}
    locked.close()


def test_an_orderly_end_leaves_no_file(tmp_path: Path) -> None:
    """Nothing in hand, nothing left behind; and the file was private while it stood."""
    made = Journal(tmp_path, owner_name("x"))
    (file,) = tmp_path.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    made.close()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_before_the_dot_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A journal that cannot be written stops the message, in one clear line."""
    made = Journal(tmp_path, owner_name("x"))
    full = os.open("/dev/full", os.O_WRONLY)
    monkeypatch.setattr(made, "_file", full)
    with pytest.raises(journal.Unavailable, match="cannot be written"):
        made.begin(1)
    os.close(full)
