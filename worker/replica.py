"""The journals' second copy, in Redis, for the day when a sender's whole machine is gone with its file.

Owns one list for each name that a sender takes leases under. It is made once and then only lengthened, each
line awaited before its final dot leaves; whoever takes over moves it away, so that the two cannot cross
(docs/decisions/0011). Refuses: a list from before Redis was restarted, addresses and the words of replies.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import redis

from worker.errors import Unavailable

#: How long a list waits for somebody to take over (seconds): a long weekend.
KEEP_SECONDS = 3 * 24 * 3600
#: More elements than any run writes; a longer list is not ours.
_MOST = 1_000_000
_NO_COPY = "Redis does not keep the journal's second copy"
_REMEDY = "See that the Redis of broker.url runs, has room, and lets Tocsin ask for INFO."


def _key(owner: str) -> str:
    return f"tocsin:journal:{owner}"


def _header(owner: str, run_id: str) -> bytes:
    """Return a list's first element; `run_id` changes as Redis starts, for a restored list lacks its end."""
    return f"H\t{owner}\t{run_id}\n".encode()


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except redis.RedisError as error:
        raise Unavailable(_NO_COPY, remedy=_REMEDY) from error


class Replica:
    """The writing side, in one sender: the list of its present name, over a connection of its own.

    Whatever goes wrong, that list is given up and nothing more begins under that name: only a list that was
    never made twice tells a successor what it does *not* hold.
    """

    def __init__(self, client: "redis.Redis") -> None:
        """Take a client for its settings; nothing is opened yet."""
        self._pool = client.connection_pool
        self._link: Any = None  # redis publishes no type for what a pool gives
        self._owner = ""
        self._head = b""
        self._length = 0  # of the list; 0 when there is none to write to
        self._left: dict[str, bytes] = {}  # what is still to be put down, by owner

    def create(self, owner: str) -> None:
        """Make the list of a fresh name, and return when it stands.

        Raises:
            Unavailable: it does not, and another name is needed.
        """
        self._owner, self._length = owner, 0
        key = _key(owner)
        self._put_down()
        with _translated():
            run_id = self._run_id()
            made, _ = self._ask(("RPUSH", key, _header(owner, run_id)), ("EXPIRE", key, KEEP_SECONDS))
        if made != 1:
            raise Unavailable("the journal's second copy is not ours alone", remedy=_REMEDY)
        self._head = b"*3\r\n$6\r\nRPUSHX\r\n$%d\r\n%b\r\n$%%d\r\n%%b\r\n" % (len(key.encode()), key.encode())
        self._length = 1

    def append(self, owner: str, lines: bytes) -> None:
        """Lengthen the list of this name by an element, and return when Redis has it.

        By hand, on the bare connection: a client's command costs three times the processor time. Not RPUSH,
        for a list that is gone (flushed, or taken over) must not come back.

        Raises:
            Unavailable: it is not surely there; nothing more may begin under this name.
        """
        if owner != self._owner:
            self.create(owner)
        length, self._length = self._length, 0  # given up, unless the answer is the right one
        if length:
            try:  # not _translated(): this is once a mail
                self._link.send_packed_command((self._head % (len(lines), lines),), check_health=False)
                answer = self._link.read_response()
            except redis.RedisError as error:
                raise Unavailable(_NO_COPY, remedy=_REMEDY) from error
            if answer == length + 1:
                self._length = answer
                return
        raise Unavailable("Redis has lost the journal's second copy, or another has taken over")

    def reset(self, owner: str) -> bool:
        """Cut the list back to its header, nothing being in hand; False when this name has no list (more)."""
        length, self._length = self._length, 0
        if owner != self._owner or not length:
            return False
        key = _key(owner)
        try:
            _, _, left = self._ask(("LTRIM", key, 0, 0), ("EXPIRE", key, KEEP_SECONDS), ("LLEN", key))
        except redis.RedisError:
            return False
        self._length = int(left == 1)
        return self._length == 1

    def leave(self, owner: str, lines: bytes) -> None:
        """Put down the whole of a journal that is given up, now or as soon as Redis is back.

        No dot follows under that name, so its list may be made anew.
        """
        self._owner, self._length = owner, 0
        self._left[owner] = lines
        with contextlib.suppress(Unavailable):
            self._put_down()

    def _put_down(self) -> None:
        with _translated():
            for owner, lines in list(self._left.items()):
                key, header = _key(owner), _header(owner, self._run_id())
                making = (("DEL", key), ("RPUSH", key, header, lines), ("EXPIRE", key, KEEP_SECONDS))
                self._ask(("MULTI",), *making, ("EXEC",))
                del self._left[owner]

    def remove(self, owner: str) -> None:
        """Remove a list that nobody needs; if that fails, it goes by itself after a while."""
        self._length = 0
        with contextlib.suppress(redis.RedisError):
            self._ask(("DEL", _key(owner)))

    def _run_id(self) -> str:
        (told,) = self._ask(("INFO", "server"))
        found = [line for line in told.splitlines() if line.startswith(b"run_id:")]
        return found[0].partition(b":")[2].decode("ascii", "replace") if found else ""

    def _ask(self, *commands: tuple[str | int | bytes, ...]) -> list[Any]:
        """Send commands in one write and return their answers; the link is closed if one of them fails."""
        if self._link is None:
            self._link = self._pool.get_connection()
        try:
            self._link.send_packed_command(self._link.pack_commands(commands))
            return [self._link.read_response() for _ in commands]
        except redis.RedisError:
            self._link.disconnect()  # answers not yet read must not pass for those of the next commands
            raise


class Copies:
    """The reading side, in the sweep."""

    def __init__(self, client: "redis.Redis") -> None:
        """Take a client; nothing is opened yet."""
        self._client = client

    def take(self, owner: str) -> bytes | None:
        """Move an owner's list out of its reach and return its lines; None where there is none to trust.

        One step: what the owner wrote before is in it, and what it would write after is refused. May be
        repeated, should we die between this and the ledger.

        Raises:
            Unavailable: Redis does not answer.
        """
        taken = f"{_key(owner)}:taken"
        with _translated(), self._client.pipeline() as together:
            together.renamenx(_key(owner), taken)  # an error where there is none
            together.lrange(taken, 0, _MOST)
            together.info("server")
            _, found, server = together.execute(raise_on_error=False)
        if isinstance(server, redis.RedisError):
            raise Unavailable(
                "Redis does not tell its run_id", remedy="Allow Tocsin's user INFO."
            ) from server
        run_id = str(server.get("run_id", ""))
        # What lies there may be anything: another type (an error), nothing, or a list of somebody else's.
        if not isinstance(found, list) or not run_id or found[:1] != [_header(owner, run_id)]:
            return None
        return b"".join(found[1:]) if len(found) <= _MOST else None

    def forget(self, owner: str) -> None:
        """Remove an owner's list, its hand being settled; if that fails, it goes by itself after a while."""
        with contextlib.suppress(redis.RedisError):
            self._client.delete(_key(owner), f"{_key(owner)}:taken")
