"""One thread beside the event loop, in which the model runs."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class Worker:
    """Runs functions one after the other, always in the same thread.

    The thread does not keep the process alive: an answer that never comes must not outlast the time that a
    stopping server has.
    """

    def __init__(self) -> None:
        self.busy = False
        self._jobs: queue.SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any]] | None]
        self._jobs = queue.SimpleQueue()
        threading.Thread(target=self._run, name="answers", daemon=True).start()

    async def call(self, work: Callable[[], T]) -> T:
        """What `work` returns or raises, in the worker's thread."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._jobs.put((work, future))
        return await future

    def close(self) -> None:
        """End the thread behind what it was given."""
        self._jobs.put(None)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            work, future = job
            self.busy = True
            settle: Callable[[asyncio.Future[Any], Any], None]
            try:
                settle, outcome = _result, work()
            except BaseException as error:  # noqa: BLE001 - told to whoever asked
                settle, outcome = _error, error
            self.busy = False
            # The loop is closed where the server has stopped meanwhile, and nobody waits any more.
            with contextlib.suppress(RuntimeError):
                future.get_loop().call_soon_threadsafe(settle, future, outcome)


def _result(future: asyncio.Future[Any], outcome: Any) -> None:
    if not future.done():
        future.set_result(outcome)


def _error(future: asyncio.Future[Any], error: Any) -> None:
    if not future.done():
        future.set_exception(error if isinstance(error, Exception) else RuntimeError(repr(error)))
