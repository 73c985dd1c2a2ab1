"""What this process has in hand, message by message: written before a final dot and after its reply.

The ledger moves in chunks; this closes the gap. A plain `write` survives SIGKILL, because the page cache
does, and the kernel drops the lock on any death, so a successor here knows dead from merely paused.
Refuses: to be believed after a reboot (the page cache did not survive that), and to hold an address.
"""

import fcntl
import math
import os
import socket
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from worker.deliveries import State, allowed
from worker.errors import Unavailable
from worker.replica import Replica
from worker.store.ledger import Outcome

_SUFFIX = ".journal"
#: Characters that the ledger keeps of a reason and of an enhanced status; reply codes have three digits.
_REASON, _STATUS, _CODES = 40, 12, 1000
#: What nothing ever undoes. All else that a journal says may be followed by a line that it lost: queued or
#: deferred by another beginning, bounced by our own breakers or by an operator who had it sent again.
_FOR_GOOD = frozenset(state for state in State if not any(allowed(state, other) for other in State))


@dataclass(frozen=True, slots=True)
class Hand:
    """What a journal says about a process that held deliveries."""

    alive: bool  #: its lock is held: it may be paused, and may wake up
    trusted: bool  #: written since this machine's last boot, so nothing of it is missing
    begun: frozenset[int] = frozenset()  #: final dot left, no reply written
    known: Mapping[int, Outcome] = field(default_factory=dict)  #: replied; if not trusted, only what stays so


def boot_id() -> str:
    """Return what names this boot of this kernel; containers on a host share it, as they share its cache."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()[:8]
    except OSError:
        return "unknown"


def owner_name(nonce: str) -> str:
    """Return the name under which this process takes leases and keeps its journal."""
    host = "".join(letter for letter in socket.gethostname() if letter.isalnum() or letter == "-")[:40]
    return f"{boot_id()}.{host}.{os.getpid()}.{nonce}"


class Journal:
    """The journal of this very process; built after the fork, locked while it lives.

    With a replica each message stands there too before its dot leaves, for the loss of the whole machine.
    """

    def __init__(self, folder: Path, owner: str, replica: Replica | None = None) -> None:
        """Create and lock the file (mode 0600)."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._replica = replica
        #: Outcomes that the copy does not hold yet. They go with the next dot, so that each message costs one
        #: write, and a connection still has at most one message there without its outcome.
        self._later = b""
        self.owner, self._path, self._file = owner, *_locked(folder, owner)

    def open(self) -> None:
        """Make sure of the copy before a batch is leased, with nothing in hand; may change `owner`.

        Raises:
            Unavailable: Redis is away.
        """
        if self._replica is not None and not self._replica.reset(self.owner):
            self._rename()
            self._replica.create(self.owner)

    def begin(self, *delivery_ids: int) -> None:
        """Write that these messages' final dots are about to leave. If this fails, none must leave."""
        line = b"".join([b"D\t%d\n" % one for one in delivery_ids])
        if self._replica is not None:
            # First, and awaited: a dot that a lost machine's copy does not know would be sent again.
            self._replica.append(self.owner, self._later + line)
            self._later = b""
        self._write(line)

    def settle(self, outcome: Outcome) -> None:
        """Write how a message that was begun ended."""
        line = (
            f"R\t{outcome.id}\t{outcome.state}\t{outcome.reason}\t{outcome.due_at!r}\t{outcome.tried:d}"
            f"\t{outcome.code or ''}\t{outcome.status or ''}\t"
        )
        if self._replica is not None:
            self._later += f"{line}\n".encode("ascii", "replace")  # a server's own words stay on this machine
        self._write(f"{line}{outcome.text or ''}\n".encode("ascii", "replace"))

    def clear(self) -> None:
        """Forget everything: the ledger knows it all, and nothing is in hand. May change `owner`."""
        os.ftruncate(self._file, 0)
        self._later = b""
        if self._replica is not None and not self._replica.reset(self.owner):
            self._rename()

    def succeed(self) -> "Journal":
        """Leave this journal, unlocked, for the sweep to read, and return a fresh one."""
        if self._replica is not None:
            # For a sweep on another machine, which would else wait for what stands here only.
            self._replica.leave(self.owner, self._without_words())
        os.close(self._file)
        return Journal(self._path.parent, _next(self.owner), self._replica)

    def close(self) -> None:
        """Unlock and remove the file; for an orderly end with nothing in hand."""
        self._path.unlink(missing_ok=True)
        os.close(self._file)
        if self._replica is not None:
            self._replica.remove(self.owner)

    def _rename(self) -> None:
        """Go on under a fresh name, with a file of its own: one name has one list in its life."""
        self._path.unlink(missing_ok=True)
        os.close(self._file)
        self.owner = _next(self.owner)
        self._path, self._file = _locked(self._path.parent, self.owner)

    def _without_words(self) -> bytes:
        """Return all that is written, each outcome without what the server said."""
        lines = os.pread(self._file, os.fstat(self._file).st_size, 0).splitlines(keepends=True)
        return b"".join(
            line.rpartition(b"\t")[0] + b"\t\n" if line.startswith(b"R") else line
            for line in lines
            if line.endswith(b"\n")
        )

    def _write(self, line: bytes) -> None:
        try:
            if os.write(self._file, line) == len(line):
                return
        except OSError as error:
            raise Unavailable("the journal cannot be written", remedy="Free some disk space.") from error
        raise Unavailable("the disk is full", remedy="Free some disk space; the campaign goes on by itself.")


def _locked(folder: Path, owner: str) -> tuple[Path, int]:
    path = folder / f"{owner}{_SUFFIX}"
    file = os.open(path, os.O_CREAT | os.O_RDWR | os.O_APPEND | os.O_CLOEXEC, 0o600)
    fcntl.flock(file, fcntl.LOCK_EX)
    return path, file


def _next(owner: str) -> str:
    stem, _, number = owner.partition("+")
    return f"{stem}+{int(number or 0) + 1}"


def inspect(folder: Path, owner: str) -> Hand | None:
    """Return what the journal of `owner` says, or None when this machine has none."""
    try:
        file = os.open(folder / f"{owner}{_SUFFIX}", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return Hand(alive=True, trusted=False)
        with os.fdopen(os.dup(file), "rb") as lines:
            begun, known, whole = _read(lines)
    finally:
        os.close(file)
    trusted = whole and owner.startswith(f"{boot_id()}.")
    if not trusted:
        known = {one.id: one for one in known.values() if one.state in _FOR_GOOD}
    return Hand(alive=False, trusted=trusted, begun=frozenset(begun), known=known)


def inspect_copy(lines: bytes) -> Hand | None:
    """Return what the second copy of a journal says, or None when it is not one."""
    begun, known, whole = _read(lines.splitlines(keepends=True))
    return Hand(alive=False, trusted=True, begun=frozenset(begun), known=known) if whole else None


def discard(folder: Path, owner: str) -> None:
    """Remove the journal of an owner that is gone and whose hand is settled."""
    (folder / f"{owner}{_SUFFIX}").unlink(missing_ok=True)


def tidy(folder: Path, holders: Collection[str], older_than: float) -> int:
    """Remove journals that nobody locks, whose owners hold nothing; returns how many.

    Args:
        folder: this machine's journals.
        holders: owners of leases that have not ended.
        older_than: UTC seconds; younger ones stay, for one may be between its making and its locking.
    """
    removed = 0
    for file in folder.glob(f"*{_SUFFIX}"):
        owner = file.name.removesuffix(_SUFFIX)
        if owner in holders or file.stat().st_mtime >= older_than:
            continue
        hand = inspect(folder, owner)
        if hand is not None and not hand.alive:
            discard(folder, owner)
            removed += 1
    return removed


def _read(lines: Iterable[bytes]) -> tuple[set[int], dict[int, Outcome], bool]:
    """Return what was begun and not answered, what is known, and whether every line could be read."""
    begun: set[int] = set()
    known: dict[int, Outcome] = {}
    whole = True
    for line in lines:
        if not line.endswith(b"\n"):  # torn by a full disk: its message did not leave
            continue
        try:
            kind, *parts = line.decode("ascii").rstrip("\n").split("\t")
            outcome = _outcome(parts) if kind == "R" else None
            delivery_id = outcome.id if outcome else _begun(kind, parts)
        except ValueError:  # a disk after a power cut, or a stranger's list
            whole = False
            continue
        if outcome:
            begun.discard(delivery_id)
            known[delivery_id] = outcome
        else:
            begun.add(delivery_id)
            known.pop(delivery_id, None)
    return begun, known, whole


def _begun(kind: str, parts: list[str]) -> int:
    (delivery_id,) = parts
    if kind != "D":
        raise ValueError("neither begun nor ended")
    return int(delivery_id)


def _outcome(parts: list[str]) -> Outcome:
    """Read an outcome; ValueError for one that the ledger could not hold."""
    delivery_id, state, reason, due_at, tried, code, status, text = parts
    outcome = Outcome(
        id=int(delivery_id),
        state=State(state),
        reason=reason,
        due_at=float(due_at),
        tried=tried == "1",
        code=int(code) if code else None,
        status=status or None,
        text=text or None,
    )
    fits = len(reason) <= _REASON and len(status) <= _STATUS and 0 <= (outcome.code or 0) < _CODES
    fits = fits and math.isfinite(outcome.due_at) and f"{reason}{status}{text}".isprintable()
    if not (fits and allowed(State.SENDING, outcome.state)):
        raise ValueError("no outcome of ours")
    return outcome
