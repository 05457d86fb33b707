"""Requests that are there at the same time share a forward pass; each gets its own answers."""

from __future__ import annotations

import asyncio
import logging
import math
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from stepdistill.deploy.answer import Answer
from stepdistill.deploy.server.worker import Worker
from stepdistill.errors import StepdistillError
from stepdistill.records import Example

Ask = Callable[[Sequence[Example], bool], list[Answer]]
"""Answers to examples, in order; the second argument: whether with rationales. Called in one thread."""
_SLICES = 4
"""In how many parts a batch waits: it stops at the first in which nobody arrived."""
_LONG = 2000
"""Characters from which on a text is checked alone: shorter ones are seldom refused, and then by halves."""
_MEMORY = 0.2
"""Weight of the newest batch in the mean of seconds a text."""
_log = logging.getLogger(__name__)


class QueueFullError(StepdistillError):
    """More texts wait than the server takes on; `retry_after` in whole seconds."""

    def __init__(self, waiting: int, most: int, retry_after: int) -> None:
        super().__init__(f"{waiting} texts are waiting and {most} may; ask again in {retry_after} s")
        self.retry_after = retry_after


class RefusedTextError(StepdistillError):
    """The student cannot take one text of a request; `place` is its number in the request, from 0."""

    def __init__(self, place: int, reason: str) -> None:
        super().__init__(reason)
        self.place = place


class FailedBatchError(Exception):
    """A batch ended with an error that is no text's fault; it has been logged. `memory`: for want of it."""

    def __init__(self, memory: bool) -> None:
        super().__init__("the batch failed")
        self.memory = memory


@dataclass(eq=False, slots=True)
class _Item:
    """One text of a request, and where its answer belongs."""

    number: int
    example: Example
    place: int
    request: _Request


@dataclass(eq=False, slots=True)
class _Request:
    """What one client asked; its future is done with the last answer, or when the client has gone."""

    future: asyncio.Future[list[Answer]]
    missing: int
    items: list[_Item] = field(default_factory=list)
    answers: dict[int, Answer] = field(default_factory=dict)

    def put(self, item: _Item, answer: Answer) -> None:
        """Keep an answer; the last one answers the client."""
        self.answers[item.place] = answer
        self.missing -= 1
        if not self.missing and not self.future.done():
            self.future.set_result([self.answers[place] for place in range(len(self.items))])


@dataclass(eq=False)
class Batcher:
    """A queue of texts and the one thread that answers them, a batch at a time.

    A batch starts at once where none is running: a lone request waits for nobody. While one runs, what
    arrives is gathered for the next. Behind a batch that several clients shared, the next one waits for as
    long as clients keep coming back, `max_wait` seconds at most: without it, batches of all clients
    but one would alternate with batches of one.

    Args:
        ask: answers a batch.
        max_batch, max_wait, max_queue: texts, seconds, texts.
        check: raises StepdistillError where the student cannot take a text; asked of long ones alone,
            since it spells them, and in the thread.
        observe: told the size of each batch.
    """

    ask: Ask
    max_batch: int
    max_wait: float
    max_queue: int
    observe: Callable[[int], None] = lambda size: None
    check: Callable[[Example, bool], None] = lambda example, explain: None

    def __post_init__(self) -> None:
        self.worker = Worker()
        self.running = 0
        # Ordered dicts of Python's `dict` kind are slow at the front once many have left there.
        self._queues: dict[bool, OrderedDict[int, _Item]] = {False: OrderedDict(), True: OrderedDict()}
        self._wake = asyncio.Event()
        self._number = 0
        self._crowd = 0
        self._ended = 0.0
        self._pace = 0.0

    @property
    def waiting(self) -> int:
        """Texts that are in no batch yet."""
        return len(self._queues[False]) + len(self._queues[True])

    def submit(self, examples: Sequence[Example], explain: bool = False) -> asyncio.Future[list[Answer]]:
        """Queue examples; the future has their answers, in order, and frees their places when cancelled.

        Raises (the future too):
            QueueFullError: there is no room for all of them.
            RefusedTextError: the student cannot take one of them.
            FailedBatchError: the student failed.
        """
        if self.waiting + len(examples) > self.max_queue:
            raise QueueFullError(self.waiting, self.max_queue, self._retry_after())
        request = _Request(asyncio.get_running_loop().create_future(), len(examples))
        for place, example in enumerate(examples):
            self._number += 1
            item = _Item(self._number, example, place, request)
            request.items.append(item)
            self._queues[explain][item.number] = item
        request.future.add_done_callback(partial(self._leave, request, explain))
        if not examples:
            request.future.set_result([])
        self._wake.set()
        return request.future

    async def run(self) -> None:
        """Answer what comes, until cancelled."""
        while True:
            await self._wake.wait()
            await self._gather()
            explain = self._oldest()
            batch = self._take(explain)
            if not self.waiting:
                self._wake.clear()
            if batch:
                await self._batch(batch, explain)

    def _leave(self, request: _Request, explain: bool, _: object) -> None:
        queue = self._queues[explain]
        for item in request.items:
            queue.pop(item.number, None)
        # They hold one another: memory would grow until the next collection of garbage.
        request.items.clear()

    def _oldest(self) -> bool:
        """Which of the two queues has waited longest."""
        heads = {explain: next(iter(queue), math.inf) for explain, queue in self._queues.items()}
        return heads[True] < heads[False]

    def _take(self, explain: bool) -> list[_Item]:
        queue = self._queues[explain]
        return [queue.popitem(last=False)[1] for _ in range(min(self.max_batch, len(queue)))]

    async def _gather(self) -> None:
        aim = min(self._crowd, self.max_batch)
        if time.monotonic() - self._ended > self.max_wait:
            return
        for _ in range(_SLICES):
            arrived = self._number
            if self.waiting >= aim:
                return
            await asyncio.sleep(self.max_wait / _SLICES)
            if self._number == arrived:
                return

    async def _batch(self, batch: list[_Item], explain: bool) -> None:
        self.running, begun = len(batch), time.monotonic()
        self.observe(len(batch))
        try:
            await self._answer(batch, explain)
        finally:
            self.running, self._ended = 0, time.monotonic()
            self._crowd = len(batch) + self.waiting
        pace = (self._ended - begun) / len(batch)
        self._pace = pace if not self._pace else (1 - _MEMORY) * self._pace + _MEMORY * pace

    async def _answer(self, batch: list[_Item], explain: bool) -> None:
        """Answer a batch; where a text cannot be taken, its halves, so that this text fails alone.

        Any other error fails the batch as it is: halves would repeat the work, while all others wait.
        """
        batch = [item for item in batch if not item.request.future.done()]
        if not batch:
            return
        try:
            if not (batch := await self._taken(batch, explain)):
                return
            answers = await self.worker.call(partial(self.ask, [item.example for item in batch], explain))
            pairs = list(zip(batch, answers, strict=True))
        except StepdistillError as error:
            if len(batch) == 1:
                self._fail(batch, RefusedTextError(batch[0].place, str(error)))
                return
            middle = len(batch) // 2
            await self._answer(batch[:middle], explain)
            await self._answer(batch[middle:], explain)
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, the next batch must be answered
            # Not its message, which may quote a text.
            frames = "".join(traceback.format_tb(error.__traceback__))
            _log.error("%s in a batch of %d texts\n%s", type(error).__name__, len(batch), frames)
            self._fail(batch, FailedBatchError(isinstance(error, MemoryError)))
            return
        for item, answer in pairs:
            item.request.put(item, answer)

    async def _taken(self, batch: list[_Item], explain: bool) -> list[_Item]:
        """A batch without the long texts that the student cannot take; who sent them is told."""
        for item in batch:
            if len(item.example.text) + len(item.example.rationale or "") > _LONG:
                try:
                    await self.worker.call(partial(self.check, item.example, explain))
                except StepdistillError as error:
                    self._fail([item], RefusedTextError(item.place, str(error)))
        return [item for item in batch if not item.request.future.done()]

    @staticmethod
    def _fail(batch: list[_Item], error: Exception) -> None:
        for item in batch:
            if not item.request.future.done():
                item.request.future.set_exception(error)

    def _retry_after(self) -> int:
        return max(1, math.ceil(self._pace * (self.waiting + self.running)))
