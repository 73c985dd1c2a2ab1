"""Many small errands at once: while one transaction commits, what comes meanwhile waits for the next.

Owns the queue between an event loop and the one thread that does the work. Refuses: to answer anybody before
the work that is theirs is done, and to add a delay where nobody waits.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

from starlette.concurrency import run_in_threadpool

_Errand = TypeVar("_Errand")
_Answer = TypeVar("_Answer")

#: Errands done at once; a statement takes so many values and no more.
_MOST: Final = 500


class Gathering(Generic[_Errand, _Answer]):
    """One kind of errand, for one event loop."""

    def __init__(self, work: Callable[[Sequence[_Errand]], Sequence[_Answer]]) -> None:
        """Take what does some errands, and gives each its answer, in their order."""
        self._work = work
        self._waiting: list[tuple[_Errand, asyncio.Future[_Answer]]] = []
        self._running: asyncio.Task[None] | None = None

    async def ask(self, errand: _Errand) -> _Answer:
        """Return the answer to an errand once it is done; if it fails, it fails for all it was done with."""
        future: asyncio.Future[_Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((errand, future))
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        return await future

    async def _run(self) -> None:
        try:
            while self._waiting:
                some, self._waiting = self._waiting[:_MOST], self._waiting[_MOST:]
                await self._do(some)
        finally:
            self._running = None

    async def _do(self, some: Sequence[tuple[_Errand, asyncio.Future[_Answer]]]) -> None:
        try:
            answers = await run_in_threadpool(self._work, [errand for errand, _ in some])
        except BaseException as error:
            for _, future in some:
                if not future.done():  # its client may have gone
                    future.set_exception(error)
            if not isinstance(error, Exception):
                raise
            return
        for (_, future), answer in zip(some, answers, strict=True):
            if not future.done():
                future.set_result(answer)
