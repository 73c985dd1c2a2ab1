"""What this process has in hand, message by message: written before a final dot and after its reply.

The ledger moves in chunks; this closes the gap. A plain `write` survives SIGKILL, because the page cache
does, and the kernel drops the lock on any death, so a successor here knows dead from merely paused.
Refuses: to be believed after a reboot (the page cache did not survive that), and to hold an address.
"""

import fcntl
import os
import socket
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from worker.deliveries import State
from worker.errors import Unavailable
from worker.store.ledger import Outcome

_SUFFIX = ".journal"


@dataclass(frozen=True, slots=True)
class Hand:
    """What a journal says about a process that held deliveries."""

    alive: bool  #: its lock is held: it may be paused, and may wake up
    trusted: bool  #: written since this machine's last boot, so nothing of it is missing
    begun: frozenset[int] = frozenset()  #: final dot left, no reply written
    known: Mapping[int, Outcome] = field(default_factory=dict)  #: replied


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
    """The journal of this very process; built after the fork, locked while it lives."""

    def __init__(self, folder: Path, owner: str) -> None:
        """Create and lock the file (mode 0600)."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.owner = owner
        self._path = folder / f"{owner}{_SUFFIX}"
        self._file = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_APPEND | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def begin(self, delivery_id: int) -> None:
        """Write that this message's final dot is about to leave. If this fails, it must not leave."""
        self._write(b"D\t%d\n" % delivery_id)

    def settle(self, outcome: Outcome) -> None:
        """Write how a message that was begun ended."""
        line = "\t".join(
            (
                *("R", str(outcome.id), outcome.state, outcome.reason, repr(outcome.due_at)),
                *(str(int(outcome.tried)), str(outcome.code or ""), outcome.status or "", outcome.text or ""),
            )
        )
        self._write(line.encode("ascii", "replace") + b"\n")

    def clear(self) -> None:
        """Forget everything: the ledger knows it all, and nothing is in hand."""
        os.ftruncate(self._file, 0)

    def succeed(self) -> "Journal":
        """Leave this journal, unlocked, for the sweep to read, and return a fresh one."""
        os.close(self._file)
        stem, _, number = self.owner.partition("+")
        return Journal(self._path.parent, f"{stem}+{int(number or 0) + 1}")

    def close(self) -> None:
        """Unlock and remove the file; for an orderly end with nothing in hand."""
        self._path.unlink(missing_ok=True)
        os.close(self._file)

    def _write(self, line: bytes) -> None:
        try:
            if os.write(self._file, line) == len(line):
                return
        except OSError as error:
            raise Unavailable("the journal cannot be written", remedy="Free some disk space.") from error
        raise Unavailable("the disk is full", remedy="Free some disk space; the campaign goes on by itself.")


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
            begun, known = _read(lines)
    finally:
        os.close(file)
    return Hand(alive=False, trusted=owner.startswith(f"{boot_id()}."), begun=frozenset(begun), known=known)


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


def _read(lines: Iterator[bytes]) -> tuple[set[int], dict[int, Outcome]]:
    begun: set[int] = set()
    known: dict[int, Outcome] = {}
    for line in lines:
        if not line.endswith(b"\n"):  # torn by a full disk: its message did not leave
            continue
        kind, *parts = line.decode("ascii").rstrip("\n").split("\t")
        if kind == "D":
            begun.add(int(parts[0]))
            known.pop(int(parts[0]), None)
        else:
            outcome = _outcome(parts)
            begun.discard(outcome.id)
            known[outcome.id] = outcome
    return begun, known


def _outcome(parts: list[str]) -> Outcome:
    delivery_id, state, reason, due_at, tried, code, status, text = parts
    return Outcome(
        id=int(delivery_id),
        state=State(state),
        reason=reason,
        due_at=float(due_at),
        tried=tried == "1",
        code=int(code) if code else None,
        status=status or None,
        text=text or None,
    )
