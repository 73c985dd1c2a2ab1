"""How events are written: one JSON object a line, an event's name and ids, nothing personal.

Owns the shape of the log, and that whatever a process says on its way down is in it. Refuses: addresses and
marks that slip in through somebody else's words (they are blotted out), and tracebacks with values.
"""

import logging
import sys
import threading
from collections.abc import Mapping, MutableMapping
from types import TracebackType
from typing import Any

import structlog

from worker.blots import blotted


def configure(level: str = "INFO") -> None:
    """Write every log of this process, ours and the libraries', to stderr as JSON lines."""
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _blot,
    ]
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, *shared, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level)),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
        )
    )
    logging.basicConfig(handlers=[handler], level=level, force=True)
    # Python prints these past every log, with whatever text they hold.
    logging.captureWarnings(capture=True)
    sys.excepthook = _died
    sys.unraisablehook = lambda lost: _told(lost.exc_value)
    threading.excepthook = lambda ended: _told(ended.exc_value)


def _died(_kind: type[BaseException], error: BaseException, _trace: TracebackType | None) -> None:
    _told(error)


def _told(error: BaseException | None) -> None:
    """Log an error that nobody caught."""
    structlog.get_logger().critical("not_caught", exc_info=error)


def _blot(_logger: object, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Blot out whatever looks like an address or a mark, wherever it came from."""
    for key, value in event.items():
        if not key.startswith("_"):  # those of structlog's own, which are not written
            event[key] = _clean(value)
    return event


def _clean(value: object) -> object:
    """Return a value as it may stand in the log: plain, and blotted all the way down."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {blotted(str(name)): _clean(held) for name, held in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean(held) for held in value]
    return blotted(value if isinstance(value, str) else repr(value))
