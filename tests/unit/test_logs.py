"""What a process writes about itself names nobody, however it ends and whoever wrote the words."""

import json
import os
import pprint
import subprocess
import sys
import traceback

import pytest
from rich.pretty import pretty_repr

from worker.addresses import parse
from worker.blots import blotted
from worker.content.messages import Envelope
from worker.content.rendering import Content
from worker.gallery import Captured
from worker.post.parcels import Parcel, Wire
from worker.rights import Correction
from worker.sealing import Person
from worker.tokens import Marks, Purpose

LOCAL, DOMAIN, NAME = "q0veronika", "q1secret.example.org", "Q2Veronika"
WHO = parse(f"{LOCAL}@{DOMAIN}")
MARK = Marks(b"k" * 32).mark(Purpose.OPT_OUT, 7)
SECRETS = (LOCAL, DOMAIN, NAME, MARK)
#: Everything of ours that holds a person, as it may be a local variable where something breaks.
HOLDERS = (
    WHO,
    Person(WHO, {"first_name": NAME}),
    Correction({"first_name": NAME}),
    Envelope(WHO, NAME, MARK, MARK, MARK, f"https://{DOMAIN}/{MARK}"),
    Content("en", NAME, NAME, Wire(NAME.encode()), Wire(NAME.encode())),
    Parcel(1, WHO.spec, WHO.spec, NAME.encode()),
    Captured("a.eml", WHO.spec, (WHO.spec,), NAME.encode()),
)
#: A process that logs at debug level and then breaks in every way that Python and Celery have.
_BREAKS = """
import gc, logging, sys, threading, warnings
from celery import Celery
import structlog
from worker import logs
from worker.addresses import parse

logs.configure("DEBUG")
text, mark = sys.argv[1], sys.argv[2]
who = parse(text)
log = structlog.get_logger()
log.info("plain", to=text, whom=who, deep={"a": [("b", text)], text: {text}}, raw=text.encode())
logging.getLogger("some.library").debug("RCPT TO:<%s> %r", text, {"to": [text]})
logging.getLogger("some.library").debug("GET /u/%s?email=%s", mark, text.replace("@", "%40"))
warnings.warn(f"odd: {text}", stacklevel=1)
app = Celery("t", set_as_current=False)

@app.task(name="breaks")
def breaks():
    raise ValueError(f"550 5.1.1 <{text}>: no such user")

breaks.apply()
thread = threading.Thread(target=lambda: 1 / len(text[:0]) if not text else int(text))
thread.start()
thread.join()

class Lost:
    def __del__(self):
        raise ValueError(text)

Lost()
gc.collect()
try:
    int(text)
except ValueError as error:
    raise RuntimeError("while at it") from error
"""


@pytest.mark.parametrize("holder", HOLDERS, ids=lambda one: type(one).__name__)
def test_no_traceback_with_values_shows_anybody(holder: object) -> None:
    """However somebody's tool prints local variables: repr, str, a format, pprint, rich, a traceback."""
    try:
        raise ValueError(holder)  # noqa: TRY301 - its traceback is the test
    except ValueError as error:
        deep = traceback.TracebackException.from_exception(error, capture_locals=True)
        texts = ["".join(deep.format()), str(error)]
    texts += [repr(holder), str(holder), f"{holder}", f"{[holder]}", pprint.pformat([holder])]
    texts += [pretty_repr({"it": [holder]}), "%s %r" % (holder, holder)]  # noqa: UP031 - as logging does
    for text in texts:
        assert not [secret for secret in SECRETS if secret in text]


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("to o'neill@example.org, again", "to (address), again"),
        ("<a@example.org>: gone", "<(address)>: gone"),
        ("email=a%40example.org&x", "(address)"),
        ("a=40example.org", "(address)"),
        (f"GET /u/{MARK.upper()} 404", "GET /u/(mark) 404"),
        (f"b-{MARK}", "b-(mark)"),
        ("task 0f8fad5b-d9cb-469f-a165-70867728950e at 5 @ noon", None),
        ("sha256 " + "0123456789abcdef" * 4, None),
    ],
)
def test_blotted(text: str, left: str | None) -> None:
    """Addresses and marks go in every disguise they have in logs; ids, hashes and words stay."""
    assert blotted(text) == (text if left is None else left)


def test_a_process_that_breaks_in_every_way_names_nobody() -> None:
    """At debug level: our events, a library's, a failed task's, a thread's, a destructor's, its own end."""
    done = subprocess.run(
        [sys.executable, "-c", _BREAKS, WHO.spec, MARK],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONWARNINGS": "default"},
    )
    assert done.returncode == 1
    assert done.stdout == b""
    told = [json.loads(line) for line in done.stderr.splitlines()]
    loggers = {one.get("logger", one["event"]) for one in told}
    assert {"plain", "some.library", "py.warnings", "celery.app.trace", "not_caught"} <= loggers
    assert len([one for one in told if one["event"] == "not_caught"]) == 3
    assert "RuntimeError: while at it" in told[-1]["exception"]
    for secret in SECRETS:
        assert secret.encode() not in done.stderr
