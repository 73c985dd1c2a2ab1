"""Those that Tocsin is held against, each in processes of its own and into the same sink.

Owns how they are started and what is counted of them: `smtp-source` is in `sinks`, here are the naive loop
and django-post_office. Refuses to make anybody slower than they can be: where there is a choice, the best is
taken.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import mails
from kills import Postgres
from sinks import Pass, Sink, Watch

from worker import broker, processes

_HERE: Final = Path(__file__).parent
#: The Python that has django-post_office.
POST_OFFICE: Final = _HERE.parent / ".venv-bench" / "bin" / "python"


def orders(path: Path, source: mails.Source, people: int) -> Path:
    """Write down what the others are to send, and to whom."""
    sources = {**vars(source), "inlined": source.inlined()}
    told = [
        {
            "address": mails.address(number),
            "values": {**mails.fields(number), "opt_out_url": mails.opt_out_url(number)},
        }
        for number in range(1, people + 1)
    ]
    path.write_text(json.dumps({"sources": sources, "people": told}), encoding="utf-8")
    return path


def naive(target: Sink, file: Path, mails_: int) -> Pass:
    """Let the naive loop send to everybody in the file."""
    watch = Watch(target)
    words = [sys.executable, str(_HERE / "naive.py"), str(target.port), str(file)]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    came = watch.until(mails_, seconds=120, alive=process)
    assert process.wait() == 0, "the naive loop failed"
    assert came, "the naive loop lost mails"
    return watch.result()


@dataclass(frozen=True)
class Choice:
    """How django-post_office is set."""

    processes: int  #: 1: the Celery task that ships; more: a task of ours, for its own cannot
    threads: int = 5  #: of each process, each with a connection of its own that stays open
    batch: int = 5000
    late: bool = False  #: mails are rendered as they are sent, not as they are queued
    bulk: int = 250  #: mails queued at a time; each bulk rings the bell


class PostOffice:
    """A Django project with its own queue and PostgreSQL."""

    def __init__(self, folder: Path, postgres: Postgres, broker_url: str, port: int, orders_: Path) -> None:
        """Make its tables and its template."""
        self._folder, self._orders = folder, orders_
        self._env = {
            **os.environ,
            "RIVAL_DATABASE": postgres.url.partition("host=")[2],
            "RIVAL_BROKER": broker_url,
            "RIVAL_PORT": str(port),
            "RIVAL_LOCK": str(folder / "lock"),
        }
        self._run("prepare", Choice(1))

    def whole(self, target: Sink, choice: Choice, count: int) -> Pass:
        """Queue and send at the same time, as in earnest: from the order to the last mail."""
        with self._worker(choice):
            watch, started = Watch(target), time.time()
            queueing = self._start("enqueue", choice, RIVAL_RING="1", RIVAL_COUNT=str(count))
            came = watch.until(count, seconds=120)
            assert queueing.wait() == 0, "django-post_office could not queue"
            assert came, f"django-post_office sent {watch.look()} of {count}; see {self._folder}"
            began = float((self._folder / "enqueue.log").read_text().split()[-1])
            result = watch.result()
            return replace(result, seconds=started + result.seconds - began)

    def sending(self, target: Sink, choice: Choice, count: int) -> Pass:
        """Queue everything beforehand, rendered, and count the sending alone."""
        self._run("enqueue", choice, RIVAL_COUNT=str(count))
        watch = Watch(target)
        with self._worker(choice, RIVAL_BEGIN="1"):  # what starting takes is before its steady part
            came = watch.until(count, seconds=120)
            assert came, f"django-post_office sent {watch.look()} of {count}; see {self._folder}"
            return watch.result()

    @contextlib.contextmanager
    def _worker(self, choice: Choice, **more: str) -> Iterator[None]:
        log = self._folder / "worker.log"
        log.unlink(missing_ok=True)
        process = self._start("worker", choice, **more)
        try:
            ready = processes.until(lambda: b" ready." in log.read_bytes(), seconds=30)
            assert ready, f"the worker did not come up; see {log}"
            yield
        finally:
            # At once: with several processes its pool does not always notice that it should stop.
            os.killpg(process.pid, 9)
            process.wait()

    def _start(self, word: str, choice: Choice, **more: str) -> "subprocess.Popen[bytes]":
        with (self._folder / f"{word}.log").open("ab") as log:
            return subprocess.Popen(
                [POST_OFFICE, _HERE / "postoffice.py", word, self._orders],
                env={**self._env, **_variables(choice), **more},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _run(self, word: str, choice: Choice, **more: str) -> None:
        code = self._start(word, choice, **more).wait()
        assert code == 0, f"django-post_office could not {word}; see {self._folder}"


def _variables(choice: Choice) -> Mapping[str, str]:
    return {f"RIVAL_{name.upper()}": str(int(value)) for name, value in vars(choice).items()}


@contextlib.contextmanager
def post_office(target: Sink, orders_: Path) -> Iterator[PostOffice]:
    """Give a django-post_office that sends into the sink."""
    if not POST_OFFICE.exists():
        raise SystemExit(f"{POST_OFFICE} is missing: run `make bench`, which makes it")
    with contextlib.ExitStack() as held:
        folder = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="rival")))
        # In a folder of its own: its user may not enter ours.
        postgres = Postgres(Path(held.enter_context(tempfile.TemporaryDirectory(prefix="rpg"))), sync=True)
        held.callback(postgres.stop)
        private = held.enter_context(broker.running(folder))
        yield PostOffice(folder, postgres, f"redis+socket://{private.socket}", target.port, orders_)
