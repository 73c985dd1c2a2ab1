"""The doctor: one finding for each thing, each with a remedy, and none keeps the others from being told."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

from worker import broker, doctor, settings
from worker.errors import Refused, Unavailable, WrongUse
from worker.post.parcels import Offer

if TYPE_CHECKING:
    import redis

WELL = "all is well"


def told(check: doctor.Check) -> doctor.Finding:
    """Run one check."""
    return next(iter(doctor.examine([("it", check)])))


def raising(error: Exception) -> Callable[[], NoReturn]:
    """Make a check that finds something."""

    def check() -> NoReturn:
        raise error

    return check


def test_goes_on() -> None:
    """Every check is run, whatever another finds, and its error becomes a finding with the remedy."""
    checks = [
        ("first", raising(Unavailable("down", remedy="start it"))),
        ("second", lambda: WELL),
        ("third", raising(WrongUse("wrong", remedy="mend it"))),
    ]
    assert list(doctor.examine(checks)) == [
        doctor.Finding("first", ok=False, detail="down", remedy="start it"),
        doctor.Finding("second", ok=True, detail=WELL),
        doctor.Finding("third", ok=False, detail="wrong", remedy="mend it"),
    ]


def test_one_at_a_time() -> None:
    """A finding is told before the next check is begun, so that a slow one is seen to be slow."""
    findings = doctor.examine(
        [("first", lambda: WELL), ("never", raising(AssertionError("begun too early")))]
    )
    assert next(findings).ok


class TestConfig:
    """Settings."""

    def test_wrong(self, tmp_path: Path) -> None:
        """A wrong setting is told as loading tells it."""
        found = told(doctor.config(lambda: settings.load(tmp_path, {"TOCSIN_RELAY__PORT": "x"})))
        assert not found.ok
        assert found.detail.startswith("TOCSIN_RELAY__PORT")
        assert found.remedy

    def test_examples(self, tmp_path: Path) -> None:
        """Examples left in place would go out in every mail: they are named."""
        found = told(doctor.config(lambda: settings.load(tmp_path, {})))
        assert not found.ok
        assert "organisation.name" in found.detail

    def test_ready(self, tmp_path: Path) -> None:
        """A workspace with its own names is well."""
        own = {
            "TOCSIN_ORGANISATION__NAME": "Us",
            "TOCSIN_ORGANISATION__POSTAL_ADDRESS": "Here",
            "TOCSIN_MAIL__FROM_ADDRESS": "us@charity.example.net",
            "TOCSIN_RELAY__HOST": "relay.example.net",
            "TOCSIN_WEB__BASE_URL": "https://act.example.net",
        }
        assert told(doctor.config(lambda: settings.load(tmp_path, own))).ok


class TestKeys:
    """The key ring."""

    def test_readable(self, tmp_path: Path) -> None:
        """A key ring that parses is well, and its content is not told."""
        file = tmp_path / "secret.toml"
        file.write_text("hush", encoding="utf-8")
        file.chmod(0o600)
        found = told(doctor.keys(lambda: "hush", str.upper, file))
        assert (found.ok, found.detail) == (True, f"readable, at {file} (mode 600)")

    def test_from_a_variable(self, tmp_path: Path) -> None:
        """A key ring need not be a file."""
        assert told(doctor.keys(lambda: "hush", str.upper, tmp_path / "none")).ok

    def test_does_not_parse(self, tmp_path: Path) -> None:
        """A key ring that is not understood is told by what reads it."""
        found = told(doctor.keys(lambda: "hush", lambda _text: raising(WrongUse("torn"))(), tmp_path))
        assert (found.ok, found.detail) == (False, "torn")


class TestQueue:
    """Redis."""

    @pytest.fixture
    def asked(self, tmp_path: Path) -> Iterator[Callable[[], "redis.Redis"]]:
        """Give what makes clients of a real private server."""
        found = settings.load(tmp_path, {})
        with broker.running(found.state):
            yield lambda: broker.client(found)

    def test_answers(self, asked: Callable[[], "redis.Redis"]) -> None:
        """A server that answers is told with its version."""
        found = told(doctor.queue(asked, broker.find_program))
        assert found.ok
        assert found.detail.startswith("Redis ")

    def test_evicts(self, asked: Callable[[], "redis.Redis"]) -> None:
        """A server that may throw tasks away is no queue."""
        with contextlib.closing(asked()) as client:
            client.config_set("maxmemory-policy", "allkeys-lru")
        found = told(doctor.queue(asked, None))
        assert not found.ok
        assert "allkeys-lru" in found.detail

    def test_private_not_running(self, tmp_path: Path) -> None:
        """The private server need not run for a workspace to be fit: its program is told instead."""
        found = settings.load(tmp_path, {})
        finding = told(doctor.queue(lambda: broker.client(found), broker.find_program))
        assert finding.ok
        assert "not running now" in finding.detail

    def test_no_program(self, tmp_path: Path) -> None:
        """Without a program for the private server, the remedy says how to get one."""
        found = settings.load(tmp_path, {})
        finding = told(
            doctor.queue(lambda: broker.client(found), raising(Unavailable("none", remedy="install")))
        )
        assert (finding.ok, finding.remedy) == (False, "install")

    def test_down(self, tmp_path: Path) -> None:
        """A configured server that does not answer is told without its address or password."""
        found = settings.load(tmp_path, {"TOCSIN_BROKER__URL": "redis://:hush@127.0.0.1:1/0"})
        finding = told(doctor.queue(lambda: broker.client(found), None))
        assert not finding.ok
        assert "hush" not in f"{finding}"


class TestDatabase:
    """The store."""

    @pytest.mark.parametrize(("state", "ok"), [(("3", "3"), True), (("", "3"), False), (("2", "3"), False)])
    def test_schema(self, state: tuple[str, str], ok: bool) -> None:  # noqa: FBT001 - a column of the table
        """The tables must be this version's, and the remedy names the command."""
        found = told(doctor.database(lambda: state))
        assert (found.ok, "db upgrade" in found.remedy) == (ok, not ok)


class TestRelay:
    """The relay."""

    def test_offer(self) -> None:
        """What it offers is told."""
        offer = Offer(pipelining=True, size=50_000_000, tls="TLSv1.3")
        assert told(doctor.relay(lambda: offer)).detail == (
            "lets us in (TLSv1.3), offers pipelining, mails up to 50 MB"
        )
        assert told(doctor.relay(Offer)).detail == "lets us in (plain line), offers nothing beyond the basics"

    def test_down(self) -> None:
        """Its error is the finding."""
        down = Unavailable("no relay", remedy="look")
        assert not told(doctor.relay(raising(down))).ok


class TestClock:
    """The clock."""

    @pytest.mark.parametrize(
        ("theirs", "ok", "side"),
        [
            (1000.0, True, ""),
            (1004.0, True, ""),
            (1060.0, False, "60 s ahead"),
            (940.0, False, "60 s behind"),
        ],
    )
    def test_skew(self, theirs: float, ok: bool, side: str) -> None:  # noqa: FBT001 - a column of the table
        """A clock that is off is told with by how much and whose."""
        found = told(doctor.clock([("database", lambda: theirs)], lambda: 1000.0))
        assert found.ok == ok
        assert side in found.detail
        assert "database" in found.detail

    def test_slow_answer(self) -> None:
        """An answer that took its time is not taken for a clock that is off."""
        ours = iter([1000.0, 1100.0])
        assert told(doctor.clock([("queue", lambda: 1001.0)], lambda: next(ours))).ok

    def test_nobody_to_ask(self) -> None:
        """Without others only the zones are checked."""
        assert told(doctor.clock([])).ok


class TestDisk:
    """The disk."""

    def test_room(self, tmp_path: Path) -> None:
        """Room enough is told."""
        assert (
            told(doctor.disk(tmp_path, lambda _folder: 2_000_000_000)).detail == f"2.0 GB free in {tmp_path}"
        )
        assert not list(tmp_path.iterdir())

    def test_little_room(self, tmp_path: Path) -> None:
        """Too little room is told before a campaign stops half-way."""
        found = told(doctor.disk(tmp_path, lambda _folder: 1_000_000))
        assert not found.ok
        assert "only 1 MB" in found.detail

    def test_no_folder(self, tmp_path: Path) -> None:
        """A folder that is not there is told with its remedy."""
        found = told(doctor.disk(tmp_path / "none"))
        assert not found.ok
        assert "tocsin init" in found.remedy

    def test_full(self, tmp_path: Path) -> None:
        """A disk that takes nothing more is told, not raised."""

        def full(_folder: Path) -> int:
            raise OSError(28, "No space left on device")

        assert "No space left" in told(doctor.disk(tmp_path, full)).detail


@pytest.mark.parametrize(("names", "ok"), [(["a", "b"], True), ([], False)])
def test_workers(names: list[str], ok: bool) -> None:  # noqa: FBT001 - a column of the table
    """Workers that answer are counted; none is told with how to start them."""
    found = told(doctor.workers(lambda: names))
    assert (found.ok, bool(found.remedy)) == (ok, not ok)


def test_refusal_is_a_finding() -> None:
    """Whatever an expected error is called, it is a finding."""
    assert not told(raising(Refused("no"))).ok
