"""Does this part live? One question for a container's health check: `python -m worker.health worker`.

Owns one cheap question for each kind of part. Refuses: to judge whether the workspace is fit to send; that
is `doctor`'s, and it asks the relay too, which no check that runs all day should.
"""

import http.client
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing

import redis
from celery import Celery
from kombu.exceptions import OperationalError

from worker import broker
from worker import settings as config
from worker.errors import TocsinError
from worker.settings import Settings

#: Seconds for an answer.
_PATIENCE = 5.0
#: Where the capture server listens in a container.
_CAPTURE_PORT = 1025


def queue(settings: Settings) -> bool:
    """Tell whether Redis answers: all that beat needs to do its work."""
    with closing(broker.client(settings)) as client:
        return bool(client.ping())


def worker(settings: Settings) -> bool:
    """Tell whether this host's Celery worker answers."""
    with Celery(broker=broker.celery_url(settings), set_as_current=False) as app:
        answers = app.control.broadcast(
            "ping",
            reply=True,
            timeout=_PATIENCE,
            limit=1,
            pattern=f"*@{socket.gethostname()}",
            matcher="glob",
        )
    return bool(answers)


def web(settings: Settings) -> bool:
    """Tell whether the opt-out pages are served."""
    host = "127.0.0.1" if settings.web.host in {"0.0.0.0", "::"} else settings.web.host  # noqa: S104 - compared only
    with closing(http.client.HTTPConnection(host, settings.web.port, timeout=_PATIENCE)) as connection:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == http.client.OK


def capture(_settings: Settings) -> bool:
    """Tell whether the capture mail server takes connections."""
    socket.create_connection(("127.0.0.1", _CAPTURE_PORT), timeout=_PATIENCE).close()
    return True


#: The parts that can be asked.
CHECKS: Mapping[str, Callable[[Settings], bool]] = {
    check.__name__: check for check in (queue, worker, web, capture)
}


def main(argv: Sequence[str]) -> int:
    """Answer by exit code: 0 it lives, 1 it does not, 2 there is no such part."""
    if len(argv) != 1 or argv[0] not in CHECKS:
        sys.stderr.write(f"usage: python -m worker.health {'|'.join(CHECKS)}\n")
        return 2
    try:
        return 0 if CHECKS[argv[0]](config.load()) else 1
    except (TocsinError, redis.RedisError, OperationalError, OSError, http.client.HTTPException) as error:
        sys.stderr.write(f"{argv[0]}: {type(error).__name__}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
