"""No address, name or domain of a reader stands in Redis, a log, a journal or the store, in mid-run or after.

The exceptions are named: the relay's own copies (what the demo captures), the files that people are imported
from, and the page of an export. The first and the last are for our eyes only.
"""

import base64
import itertools
import re
import stat
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import redis

from worker import processes
from worker.settings import load

if TYPE_CHECKING:
    from tests.acceptance.conftest import Office


class Search:
    """Looks for names in bytes, however they are written there."""

    def __init__(self, names: Sequence[str]) -> None:
        """Prepare every form of each: plain (and so quoted-printable), UTF-16, hexadecimal, base64."""
        self._folded = {
            form: name
            for name in names
            for form in (name.encode(), name.encode("utf-16-le"), name.encode("utf-16-be"))
        }
        self._exact = {
            form: name
            for name in names
            for text in (name, name.title(), name.upper())
            for form in (text.encode().hex().encode(), *_base64(text.encode()))
        }

    def found(self, data: bytes) -> set[str]:
        """Return the names that stand there."""
        lowered = data.lower()
        folded = {name for form, name in self._folded.items() if form in lowered}
        return folded | {name for form, name in self._exact.items() if form in data}


def _base64(text: bytes) -> Iterator[bytes]:
    """Yield what is sure to stand in base64 of anything that holds the text, at each of three offsets."""
    for offset in range(3):
        whole = base64.b64encode(bytes(offset) + text)
        yield whole[-(-offset * 4 // 3) : (offset + len(text)) * 8 // 6]


def _values(client: "redis.Redis") -> Iterator[bytes]:
    """Every key and all that is under it, as it would be saved; and what Redis remembers of commands."""
    client.config_set("rdbcompression", "no")
    for key in client.scan_iter():
        yield key + (client.dump(key) or b"")
    for entry in client.slowlog_get(128):
        yield repr(entry).encode()


def _dumped(programs: Path, url: str) -> Iterator[tuple[str, bytes]]:
    """The whole of a PostgreSQL database, as a thief of a backup would have it."""
    if url.startswith("postgresql"):
        done = subprocess.run([programs / "pg_dump", "--inserts", url], capture_output=True, check=True)
        assert b"INSERT INTO public.people" in done.stdout
        # Its bytes stand there in hexadecimal: those of a name in clear would be found in the hex form.
        yield "pg_dump", done.stdout


def test_no_recipient_can_be_found_in_redis_logs_or_store(
    any_office: "Office", secret_names: list[str], postgres_programs: Path
) -> None:
    """A whole campaign, with a rejected row, opt-outs, a suppression and an erasure, read byte for byte."""
    from worker import broker  # noqa: PLC0415

    any_office.configure(per_second=9)
    any_office.debug = True  # all that the libraries have to say, too
    search = Search(secret_names)
    rows = [f"{name}@{name}.example.org,{name.title()}" for name in secret_names[2:]]
    any_office.import_people(rows)
    bad = any_office.home / "lists" / "bad.csv"
    bad.write_text(f"email,name\n{secret_names[0]}.example.org,{secret_names[0]}\n", encoding="utf-8")
    any_office.run("lists", "import", bad, "--list", "people", code=1)
    any_office.run("suppress", "add", f"{secret_names[1]}@{secret_names[1]}.example.org")
    seen: list[bytes] = []
    with any_office.up():
        any_office.run("send", "chechnya-report", "--list", "people", "--yes")
        assert processes.until(lambda: len(any_office.mails()) > 5, seconds=60)
        mail = any_office.mails()[0].data.replace(b"\r\n ", b" ")
        header = next(line for line in mail.splitlines() if line.startswith(b"List-Unsubscribe:"))
        assert any_office.one_click(header.decode()) == 200
        any_office.run("people", "forget", rows[3].split(",")[0], "--yes")
        client = broker.client(load(any_office.home, {"TOCSIN_CONFIG": any_office.env["TOCSIN_CONFIG"]}))
        seen += [file.read_bytes() for file in _kept(any_office.home / "var")]
        while any_office.state("chechnya-report-1") == "running":
            seen += _values(client)
        client.close()
        dumps = list(_dumped(postgres_programs, any_office.database))
    assert seen, "nothing was read in mid-run"
    got = set(any_office.recipients())
    assert {row.split(",")[0] for row in rows} - {rows[3].split(",")[0]} <= got
    logs = [any_office.home / "up.log", *(any_office.home / "var" / "log").glob("*.log")]
    assert len(logs) > 3
    places = [("redis or var in mid-run", value) for value in seen] + dumps
    places += [(str(file), file.read_bytes()) for file in (*logs, *_kept(any_office.home / "var"))]
    for place, held in places:
        assert not search.found(held), f"{place} names somebody"
    # The exceptions; and the search finds what is there to be found.
    captured = [file for file in any_office.outbox.iterdir() if file.suffix == ".eml"]
    assert len(search.found(b"".join(file.read_bytes() for file in captured))) >= len(rows) - 1
    assert {stat.S_IMODE(file.stat().st_mode) for file in captured} == {0o600}
    # Who reads a mark can use it: none is in a log either.
    links = set(re.findall(rb"/o/([a-z2-7]{32})", header))
    assert links
    assert not any(link in file.read_bytes() for link in links for file in logs)
    assert len(search.found((any_office.home / "lists" / "people.csv").read_bytes())) == len(rows)


def test_the_search_finds_a_name_however_it_is_written() -> None:
    """In plain, in another case, as UTF-16, hexadecimal or base64 at any offset; and nothing else."""
    name = "q0a1b2c3d4e5f"
    search = Search([name])
    for before, text in itertools.product(range(4), (name, name.title())):
        data = b"x" * before + text.encode() + b"@" + text.encode() + b".example.org"
        for written in (data, data.hex().encode(), base64.b64encode(data), data.decode().encode("utf-16")):
            assert search.found(b"..." + written + b"...") == {name}
    assert search.found(b"q0a1b2c3d4e5 " + base64.b64encode(b"somebody@example.org")) == set()


def _kept(var: Path) -> list[Path]:
    """Every file of ours but the settings and keys: the store with its WAL, journals, rejects, logs."""
    files = [file for file in var.rglob("*") if file.is_file() and file.suffix != ".toml"]
    return [file for file in files if not file.is_socket()]
