"""The second copy holds all that was begun, tells its successor so, and is never believed when it cannot."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from worker import broker, processes
from worker.deliveries import State
from worker.errors import Unavailable
from worker.journal import Hand, Journal, inspect_copy, owner_name
from worker.replica import KEEP_SECONDS, Copies, Replica
from worker.store.ledger import Outcome


class Server:
    """A Redis that can be killed, stopped and started again from what it saved."""

    def __init__(self, folder: Path) -> None:
        """Start it."""
        self._folder = folder
        self.start()

    def start(self) -> None:
        """Start it and wait until it answers."""
        words = ("--port", "0", "--unixsocket", f"{self._folder}/s", "--save", "", "--dir", self._folder)
        self.process = processes.spawn([broker.find_program().path, *words])
        assert processes.until(self._answers, seconds=10)

    def kill(self) -> None:
        """End it as a crash does."""
        processes.kill(self.process)

    def client(self, timeout: float = 10.0) -> "redis.Redis":
        """Make a client of its own."""
        return redis.Redis(unix_socket_path=f"{self._folder}/s", socket_timeout=timeout)

    def _answers(self) -> bool:
        with contextlib.closing(self.client()) as asked, contextlib.suppress(redis.RedisError):
            return bool(asked.ping())
        return False


@pytest.fixture(scope="module")
def _one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("r"))
    yield server
    server.kill()


@pytest.fixture
def server(_one: Server) -> Server:
    """A running, empty Redis."""
    if _one.process.poll() is not None:
        _one.start()
    with contextlib.closing(_one.client()) as client:
        client.flushall()
    return _one


@pytest.fixture
def client(server: Server) -> Iterator["redis.Redis"]:
    """A client of it."""
    made = server.client()
    yield made
    made.close()


@pytest.fixture
def copies(client: "redis.Redis") -> Copies:
    """The reading side."""
    return Copies(client)


@pytest.fixture
def replica(server: Server) -> Iterator[Replica]:
    """The writing side, over its own connection."""
    made = server.client()
    yield Replica(made)
    made.close()


def sent(number: int) -> Outcome:
    """A mail that was taken."""
    return Outcome(number, State.SENT, "accepted", code=250, status="2.0.0", text="Ok: queued as 4XyZ")


def test_what_is_begun_stands_before_the_dot_leaves(replica: Replica, copies: Copies, tmp_path: Path) -> None:
    """As `begin` returns, Redis has the line; outcomes go with the next one."""
    made = Journal(tmp_path, owner_name("x"), replica)
    made.begin(1)
    made.begin(2)
    made.settle(sent(1))
    made.begin(3)
    made.settle(sent(2))
    told = copies.take(made.owner)
    assert told is not None
    hand = inspect_copy(told)
    assert hand is not None
    assert (hand.trusted, hand.begun, list(hand.known)) == (True, {2, 3}, [1])
    assert hand.known[1].code == 250


def test_no_word_of_a_server_enters_redis(replica: Replica, client: "redis.Redis", tmp_path: Path) -> None:
    """A reply may quote whom it was for; its code and status are enough."""
    made = Journal(tmp_path, owner_name("x"), replica)
    made.begin(1)
    made.settle(sent(1))
    made.begin(2)
    key = f"tocsin:journal:{made.owner}"
    assert b"4XyZ" not in b"".join(client.lrange(key, 0, -1))
    assert 0 < client.ttl(key) <= KEEP_SECONDS
    made.settle(sent(2))
    made.succeed()
    assert b"4XyZ" not in b"".join(client.lrange(key, 0, -1))


def test_one_write_and_one_answer_a_mail(replica: Replica, client: "redis.Redis", tmp_path: Path) -> None:
    """However many outcomes are due, a mail costs one command."""
    made = Journal(tmp_path, owner_name("x"), replica)
    made.open()
    client.config_resetstat()
    for number in range(50):
        made.begin(number)
        made.settle(sent(number))
    counted = {name: stats["calls"] for name, stats in client.info("commandstats").items()}
    assert counted["cmdstat_rpushx"] == 50
    assert not counted.keys() - {"cmdstat_rpushx", "cmdstat_config|resetstat", "cmdstat_info"}


def test_who_is_taken_over_begins_nothing_more(replica: Replica, copies: Copies, tmp_path: Path) -> None:
    """Frozen and woken after the takeover, whatever its clock says: no dot leaves, and a new name works."""
    made = Journal(tmp_path, owner_name("x"), replica)
    made.begin(1)
    assert copies.take(made.owner) == b"D\t1\n"
    for _ in range(2):
        with pytest.raises(Unavailable, match="taken over"):
            made.begin(2)
    assert copies.take(made.owner) == b"D\t1\n"  # as a sweep that died in between asks again
    made = made.succeed()
    made.begin(3)
    assert copies.take(made.owner) == b"D\t3\n"


def test_taking_over_and_beginning_never_cross(server: Server, copies: Copies) -> None:
    """Whenever the takeover comes, each line whose writing returned is in it, and none that was refused."""
    for turn in range(20):
        owner, ready, written = f"b.h.{turn}.x", threading.Event(), list[int]()

        def write(turn: int, owner: str, ready: threading.Event, written: list[int]) -> None:
            with contextlib.closing(server.client()) as client, contextlib.suppress(Unavailable):
                replica = Replica(client)
                for number in range(100_000):
                    replica.append(owner, b"D\t%d\n" % number)
                    written.append(number)
                    if number == turn * 7:
                        ready.set()

        thread = threading.Thread(target=write, args=(turn, owner, ready, written))
        thread.start()
        assert ready.wait(10)
        told = copies.take(owner)
        thread.join()
        assert told is not None
        found = [int(line[2:]) for line in told.splitlines()]
        assert found == written


def test_the_list_of_the_last_batch_says_nothing_of_the_next(
    replica: Replica, copies: Copies, tmp_path: Path
) -> None:
    """Between two batches the copy stands, and is empty: whoever dies then has begun nothing."""
    made = Journal(tmp_path, owner_name("x"), replica)
    made.open()
    made.begin(1)
    made.settle(sent(1))
    made.clear()
    name = made.owner
    made.open()
    assert made.owner == name
    assert copies.take(made.owner) == b""


def _flush(server: Server) -> None:
    with contextlib.closing(server.client()) as client:
        client.flushall()


def _restart(server: Server) -> None:
    server.kill()
    server.start()


@pytest.mark.parametrize("forget", [_flush, _restart])
def test_when_redis_forgets_nothing_more_begins_under_that_name(
    server: Server, replica: Replica, copies: Copies, tmp_path: Path, forget: Callable[[Server], None]
) -> None:
    """The list never comes back half: what this machine knows is put down whole, and a new name goes on."""
    made = Journal(tmp_path, owner_name("x"), replica)
    made.begin(1)
    made.settle(sent(1))
    made.begin(2)
    forget(server)
    with pytest.raises(Unavailable):
        made.begin(3)
    made.settle(sent(2))
    old, made = made.owner, made.succeed()
    told = copies.take(old)
    assert told is not None
    hand = inspect_copy(told)
    assert hand is not None
    assert (hand.begun, set(hand.known)) == (frozenset(), {1, 2})
    made.open()
    made.begin(3)
    assert copies.take(made.owner) == b"D\t3\n"


def test_what_is_given_up_while_redis_is_away_is_put_down_later(
    server: Server, replica: Replica, copies: Copies, tmp_path: Path
) -> None:
    """Before anything else begins, a sweep elsewhere can read what the last run knew."""
    made = Journal(tmp_path, owner_name("x"), replica)
    made.begin(1)
    server.kill()
    with pytest.raises(Unavailable):
        made.begin(2)
    made.settle(sent(1))
    old, made = made.owner, made.succeed()
    with pytest.raises(Unavailable):
        made.begin(2)
    made = made.succeed()
    server.start()
    made.begin(2)
    told = copies.take(old)
    assert told is not None
    assert told.startswith(b"D\t1\nR\t1\tsent")
    assert copies.take(made.owner) == b"D\t2\n"


@pytest.mark.parametrize("forget", [_flush, _restart])
def test_what_was_lost_between_two_batches_costs_a_name_only(
    server: Server, replica: Replica, copies: Copies, tmp_path: Path, forget: Callable[[Server], None]
) -> None:
    """`clear` and `open` notice before the next one is leased."""
    made = Journal(tmp_path, owner_name("x"), replica)
    for notice in (made.open, made.clear):
        made.open()
        name = made.owner
        forget(server)
        notice()
        assert made.owner != name
    assert [file.stem for file in tmp_path.glob("*.journal")] == [made.owner]
    made.begin(1)
    assert copies.take(made.owner) == b"D\t1\n"


def test_a_list_that_a_restart_brought_back_is_not_believed(
    server: Server, replica: Replica, tmp_path: Path
) -> None:
    """From a snapshot it lacks its end, which is where the mails are that must not go again."""
    made = Journal(tmp_path, owner_name("x"), replica)
    made.begin(1)
    with contextlib.closing(server.client()) as client:
        client.save()
        made.begin(2)
        _restart(server)
        assert client.lrange(f"tocsin:journal:{made.owner}", 1, -1) == [b"D\t1\n"]
        assert Copies(client).take(made.owner) is None
        client.flushall()
        client.save()


def test_a_redis_that_hangs_stops_the_mail(server: Server, tmp_path: Path) -> None:
    """A line that is not known to be there holds its dot back."""
    with contextlib.closing(server.client(timeout=0.2)) as client:
        made = Journal(tmp_path, owner_name("x"), Replica(client))
        made.begin(1)
        server.process.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(Unavailable):
                made.begin(2)
        finally:
            server.process.send_signal(signal.SIGCONT)
        with pytest.raises(Unavailable):
            made.begin(3)
    assert made._path.read_bytes() == b"D\t1\n"


def test_no_redis_no_lease(tmp_path: Path) -> None:
    """`open` says so before anything is taken in hand."""
    with contextlib.closing(redis.Redis(unix_socket_path=f"{tmp_path}/none", retry=None)) as away:
        made = Journal(tmp_path, owner_name("x"), Replica(away))
        with pytest.raises(Unavailable, match="second copy"):
            made.open()


def test_an_orderly_end_leaves_no_list(replica: Replica, client: "redis.Redis", tmp_path: Path) -> None:
    """Nothing in hand, nothing left behind."""
    made = Journal(tmp_path, owner_name("x"), replica)
    made.begin(1)
    made.close()
    assert client.keys() == []


_OWNER = "b.host.1.x"
_KEY = f"tocsin:journal:{_OWNER}"


def _header(client: "redis.Redis", owner: str = _OWNER) -> bytes:
    return f"H\t{owner}\t{client.info('server')['run_id']}\n".encode()


@pytest.mark.parametrize(
    "put",
    [
        lambda client: client.set(_KEY, b"a string"),
        lambda client: client.hset(_KEY, "a", "hash"),
        lambda client: client.rpush(_KEY, b"\xff\x00", b"D\t1\n"),
        lambda client: client.rpush(_KEY, b"D\t1\n"),
        lambda client: client.rpush(_KEY, _header(client, "b.other.1.x"), b"D\t1\n"),
        lambda client: client.rpush(_KEY, f"H\t{_OWNER}\tanotherrun\n", b"D\t1\n"),
        lambda client: client.rpush(_KEY, f"H\t{_OWNER}\t\n", b"D\t1\n"),
        lambda client: client.rpush(f"{_KEY}:taken", b"not ours"),
        lambda _client: None,
    ],
    ids=["string", "hash", "bytes", "no header", "other owner", "other run", "no run", "taken", "nothing"],
)
def test_a_list_that_is_not_the_owners_is_no_copy(
    client: "redis.Redis", copies: Copies, put: Callable[["redis.Redis"], object]
) -> None:
    """Whatever lies in Redis under that name, it is read without harm, and not believed."""
    put(client)
    assert copies.take(_OWNER) is None
    copies.forget(_OWNER)
    assert client.keys() == []


@pytest.mark.parametrize(
    "lines",
    [
        b"\xff\xfe\n",
        b"D\n",
        b"D\tone\n",
        b"D\t1\t2\n",
        b"X\t1\n",
        b"D\t" + b"9" * 5000 + b"\n",
        b"R\t1\tsent\n",
        b"R\t1\tlost\taccepted\t0.0\t1\t250\t2.0.0\t\n",
        b"R\t1\tsending\taccepted\t0.0\t1\t250\t2.0.0\t\n",
        b"R\t1\tsent\taccepted\tnan\t1\t250\t2.0.0\t\n",
        b"R\t1\tsent\taccepted\t0.0\t1\t99999999999\t2.0.0\t\n",
        b"R\t1\tsent\t" + b"a" * 41 + b"\t0.0\t1\t250\t2.0.0\t\n",
        b"R\t1\tsent\taccepted\t0.0\t1\t250\t2.0.0.0.0.0.0.0\t\n",
        b"R\t1\tsent\ta\x00b\t0.0\t1\t250\t2.0.0\t\n",
        b"H\tb.host.1.x\tagain\n",
        b"\n",
    ],
)
def test_a_copy_with_one_strange_line_is_no_copy(lines: bytes) -> None:
    """Nothing that the ledger could not hold comes out of it, and nothing of it is believed."""
    assert inspect_copy(b"D\t1\n" + lines + b"D\t2\n") is None
    assert inspect_copy(b"D\t1\n") == Hand(alive=False, trusted=True, begun=frozenset({1}), known={})


def test_an_endless_list_is_not_believed(
    client: "redis.Redis", copies: Copies, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than any run writes is not read at all."""
    monkeypatch.setattr("worker.replica._MOST", 10)
    client.rpush(_KEY, _header(client), *[b"D\t1\n"] * 9)
    assert copies.take(_OWNER) == b"D\t1\n" * 9
    copies.forget(_OWNER)
    client.rpush(_KEY, _header(client), *[b"D\t1\n"] * 10)
    assert copies.take(_OWNER) is None


def test_a_redis_that_hides_its_run_id_is_not_asked_to_guess(
    client: "redis.Redis", copies: Copies, replica: Replica
) -> None:
    """Neither side goes on without it: a restart could not be told."""
    client.execute_command("ACL", "SETUSER", "default", "-info")
    try:
        with pytest.raises(Unavailable):
            copies.take(_OWNER)
        with pytest.raises(Unavailable):
            replica.append(_OWNER, b"D\t1\n")
    finally:
        client.execute_command("ACL", "SETUSER", "default", "+info")
    assert client.keys() == []
