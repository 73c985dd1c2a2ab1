"""No address or name stands in Redis, in a log or in the store in clear, in mid-run or after."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import redis

from worker import processes
from worker.settings import load

if TYPE_CHECKING:
    from tests.acceptance.conftest import Office


def _values(client: "redis.Redis") -> Iterator[bytes]:
    """Every key and all that is under it."""
    for key in client.scan_iter():
        yield key
        kind = client.type(key)
        if kind == b"string":
            yield client.get(key) or b""
        elif kind == b"list":
            yield from client.lrange(key, 0, -1)
        elif kind == b"hash":
            for name, value in client.hgetall(key).items():
                yield name + value
        elif kind == b"set":
            yield from client.smembers(key)
        elif kind == b"zset":
            yield from client.zrange(key, 0, -1)


def test_no_recipient_can_be_found_in_redis_logs_or_store(
    any_office: "Office", secret_names: list[str]
) -> None:
    """Read every key and task body in mid-run, every log line, and every byte of the store."""
    from worker import broker  # noqa: PLC0415

    any_office.configure(per_second=6)
    rows = [f"{name}@{name}.example.org,{name.title()}" for name in secret_names]
    any_office.import_people(rows)
    seen: list[bytes] = []
    with any_office.up():
        any_office.run("send", "chechnya-report", "--list", "people", "--yes")
        assert processes.until(lambda: len(any_office.mails()) > 5, seconds=60)
        client = broker.client(load(any_office.home, {"TOCSIN_CONFIG": any_office.env["TOCSIN_CONFIG"]}))
        while any_office.state("chechnya-report-1") == "running":
            seen += _values(client)
        client.close()
    assert seen, "nothing was read in mid-run"
    assert sorted(any_office.recipients()) == sorted(row.split(",")[0] for row in rows)
    logs = [any_office.home / "up.log", *(any_office.home / "var" / "log").glob("*.log")]
    assert len(logs) > 3
    places: list[tuple[str, bytes]] = [("redis", value) for value in seen]
    places += [(file.name, file.read_bytes()) for file in logs]
    places += [(file.name, file.read_bytes()) for file in _stored(any_office.home / "var")]
    for place, held in places:
        lowered = held.lower()
        for name in secret_names:
            assert name.encode() not in lowered, f"{place} names somebody"


def _stored(var: Path) -> list[Path]:
    return [file for file in var.rglob("*") if file.is_file() and file.suffix != ".toml"]
