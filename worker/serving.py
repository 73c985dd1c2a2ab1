"""The HTTP server that carries the web app: one process, uvicorn's, made patient with nobody.

Owns the listening socket, the limits on slow and oversized clients, whom to believe about X-Forwarded-*,
and a clean stop. Refuses: an access log, because every path on it would hold a reader's mark.
"""

import signal
import socket
import threading
from asyncio import TimerHandle, Transport
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar, Final

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from worker.errors import WrongUse

_HEAD_MOST: Final = 16 * 1024
_STOP_SECONDS: Final = 10
_CONNECTIONS_MOST: Final = 500


class _Impatient(H11Protocol):
    """HTTP/1.1 that hangs up on a client which does not finish the head of its request, or does not listen.

    uvicorn times only the silence after an answer; a client that sends one byte a minute, or asks and never
    reads an answer, would keep its connection, and five hundred of them the door.
    """

    #: Seconds that a client has for the head of a request, and to make room for an answer.
    patience: ClassVar[float]
    _deaf: TimerHandle | None = None

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]  # as in uvicorn itself
        super().connection_made(transport)
        self._watch = self.loop.call_later(self.patience, self._hang_up)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._between_requests:
            self._watch.cancel()
        elif self._watch.cancelled():
            self._watch = self.loop.call_later(self.patience, self._hang_up)

    def pause_writing(self) -> None:
        super().pause_writing()
        # Not a close, which would wait for the client to read what is left.
        self._deaf = self.loop.call_later(self.patience, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._listens()

    def connection_lost(self, exc: Exception | None) -> None:
        self._watch.cancel()
        self._listens()
        super().connection_lost(exc)

    def _listens(self) -> None:
        if self._deaf is not None:
            self._deaf.cancel()

    @property
    def _between_requests(self) -> bool:
        # uvicorn has no cycle before the first request, which its types do not say.
        return getattr(self.cycle, "response_complete", True)

    def _hang_up(self) -> None:
        if self._between_requests:
            self.timeout_keep_alive_handler()


def serve(
    app: ASGIApp,
    host: str,
    port: int,
    *,
    proxies: Sequence[str] = ("127.0.0.1", "::1"),
    ready: Callable[[int], None] = lambda _port: None,
    patience: float = 10.0,
) -> None:
    """Serve until SIGINT or SIGTERM, then finish what is in hand and return.

    Port 0 takes any free port; `ready` is told which, once connections are taken up. X-Forwarded-* is
    believed from `proxies` only. A client has `patience` seconds for the head of a request, and to make room
    for an answer. WrongUse when the address cannot be had.
    """
    listener = _listen(host, port)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            http=type("Impatient", (_Impatient,), {"patience": patience}),
            ws="none",
            lifespan="off",
            workers=1,
            # An access log would hold every mark; the rest goes to the process's own logging.
            access_log=False,
            log_config=None,
            # At its trace level uvicorn logs whole requests, whatever the access log is set to.
            log_level="warning",
            server_header=False,
            forwarded_allow_ips=list(proxies),
            h11_max_incomplete_event_size=_HEAD_MOST,
            limit_concurrency=_CONNECTIONS_MOST,
            timeout_graceful_shutdown=_STOP_SECONDS,
        )
    )
    with listener, _stopped_by_signals(server):
        # The kernel queues connections from here on, so whoever is told may connect at once.
        ready(listener.getsockname()[1])
        server.run(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    """Open the listening socket, or say why not."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=1024)
    except (OSError, OverflowError) as error:
        raise WrongUse(
            f"cannot listen on {host} port {port}: {error.strerror if isinstance(error, OSError) else error}",
            remedy="Stop the program that has the port, or set web.host and web.port to others.",
        ) from error
    # asyncio sets this only on sockets it made itself, and an answer is two writes: without it each waits
    # 40 ms for the client's delayed ACK. Connections inherit it from the listener.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


@contextmanager
def _stopped_by_signals(server: uvicorn.Server) -> Iterator[None]:
    """Let SIGINT and SIGTERM end the server.

    uvicorn raises the signal again once it has stopped; with its own handler still in place that does
    nothing, and a stop on request ends in a clean return instead of a death by signal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {each: signal.signal(each, server.handle_exit) for each in signals}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
