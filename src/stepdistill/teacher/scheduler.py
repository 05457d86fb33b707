"""Many requests at a time: workers ask, one driver stores and fetches, and the pace is kept."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Protocol

from stepdistill.config import LimitsConfig
from stepdistill.errors import TeacherError
from stepdistill.teacher.pace import Pace
from stepdistill.teacher.protocol import Ask, Failed, Prompt, Reply, Result, Work
from stepdistill.teacher.refusal import RefusalError

TICK = 0.03
"""Seconds between two commits; with the commit itself, 50 ms of paid answers can be lost to a crash."""
FIRST = 32
"""Requests in flight at the start; one more with each answer, so that a limit is met softly."""
PAID_TRIES = 3
"""Attempts at most where each may have been charged."""
FIRST_WAIT = 0.5
"""Seconds between the first two attempts, where the server asks for none; doubled each time."""
LONGEST = 30.0
"""Seconds between two attempts at most, where the server asks for none."""
GRACE = 4.0
"""Seconds for answers in flight after SIGTERM."""


class Endpoint(Protocol):
    """A server that answers one prompt at a time, as often as asked at the same time."""

    async def open(self) -> None:
        """Connect."""
        ...

    async def ask(self, prompt: Prompt) -> Reply:
        """Answer one prompt; raises RefusalError."""
        ...

    async def close(self) -> None:
        """Disconnect."""
        ...


class Scheduler:
    """Asks an endpoint all of some work, within limits; one event loop, and one thread for the ledger.

    After `seconds`, where they are given, nothing more is sent, and what is on its way is waited for.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        limits: LimitsConfig,
        work: Work,
        pace: Pace | None = None,
        first_wait: float = FIRST_WAIT,
        seconds: float | None = None,
    ) -> None:
        self._endpoint, self._limits, self._work = endpoint, limits, work
        self._pace = pace or Pace(limits.requests_per_minute, limits.tokens_per_minute)
        self._first_wait, self._seconds = first_wait, seconds
        self._queue: asyncio.Queue[Ask] = asyncio.Queue()
        self._outbox: list[tuple[Ask, Result]] = []
        self._workers: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Lock()
        self._stop = asyncio.Event()
        self._soon = asyncio.Event()
        self._taken = self._flying = 0
        self._tries: dict[bytes, tuple[int, int]] = {}
        self._streak = 0
        self._why = ""
        self._defect: BaseException | None = None
        self._signal: int | None = None

    def run(self) -> None:
        """Ask until nothing is left.

        Raises:
            TeacherError: the endpoint refuses for good, or fails again and again.
            BudgetError, LedgerError: as `Work.exchange`.
            KeyboardInterrupt: after the answers in flight are stored.
        """
        asyncio.run(self._main())
        if self._defect is not None:
            raise self._defect
        if self._signal is not None:
            if self._signal == signal.SIGINT:
                raise KeyboardInterrupt
            signal.raise_signal(self._signal)
        if self._why:
            raise TeacherError(
                f"{self._why}; {self._work.tally.answered:,} answers of this run are stored. Mend it, then "
                "run the same command to go on"
            )

    async def _main(self) -> None:
        await self._endpoint.open()
        with ThreadPoolExecutor(1, "ledger") as pool, self._signals():
            try:
                if self._seconds is not None:
                    asyncio.get_running_loop().call_later(self._seconds, self._end)
                for _ in range(min(FIRST, self._limits.concurrency)):
                    self._hire()
                await self._drive(pool)
            finally:
                self._stop.set()
                await self._dismiss()
                await self._endpoint.close()

    async def _drive(self, pool: ThreadPoolExecutor) -> None:
        """Between workers and ledger; the only one who talks to the ledger."""
        loop = asyncio.get_running_loop()
        while True:
            results, self._outbox = self._outbox, []
            # No further ahead than needed: what a killed process has claimed counts as paid.
            most = self._limits.concurrency
            ahead = max(most - self._taken, most // 4, 3 * len(results))
            want = 0 if self._stop.is_set() else max(0, ahead - self._queue.qsize())
            asks: list[Ask] = []
            if results or want:
                asks = await loop.run_in_executor(pool, self._work.exchange, results, want)
            for ask in asks:
                self._queue.put_nowait(ask)
            idle = not (self._taken or self._outbox)
            if idle and (self._stop.is_set() or (not asks and self._queue.empty() and self._work.finished)):
                return
            self._soon.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._soon.wait(), TICK)

    def _hire(self) -> None:
        task = asyncio.get_running_loop().create_task(self._serve())
        self._workers.add(task)
        task.add_done_callback(self._left)

    def _left(self, task: asyncio.Task[None]) -> None:
        """A worker ends when it is dismissed; any other end is a defect, and its ask would be waited for."""
        self._workers.discard(task)
        if not task.cancelled() and self._defect is None:
            self._defect = task.exception()
            self._end()

    async def _dismiss(self) -> None:
        for task in list(self._workers):
            task.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)

    async def _serve(self) -> None:
        while True:
            ask = await self._queue.get()
            if self._stop.is_set():
                continue
            self._taken += 1
            result: Result | None = None
            try:
                result, wait = await self._answer(ask)
                if wait:
                    await self._rest(wait)
            finally:  # what may have been paid is noted even if the rest before the next attempt is cut off
                self._taken -= 1
                if result is not None:
                    self._outbox.append((ask, result))
            if self._queue.qsize() <= len(self._workers) // 2:
                self._soon.set()

    async def _answer(self, ask: Ask) -> tuple[Result | None, float]:
        """A result, and seconds to rest before it is given back; None where the run stops before."""
        while True:
            sent_at = await self._admit(ask)
            if sent_at is None:
                return None, 0.0
            self._work.tally.attempts += 1
            self._flying += 1
            try:
                reply = await self._endpoint.ask(ask.prompt)
            except asyncio.CancelledError:
                self._outbox.append((ask, Failed("interrupted", maybe_paid=True)))
                raise
            except RefusalError as refusal:
                wait = self._wait(refusal, ask)
                result = self._judge(ask, refusal, sent_at, wait)
            else:
                self._succeeded(ask)
                return reply, 0.0
            finally:
                self._flying -= 1
            if result is not None:
                return result, wait if result.again else 0.0
            await self._rest(wait)

    async def _admit(self, ask: Ask) -> float | None:
        """Wait for the moment to send; its time, or None where the run stops."""
        if not self._pace.is_free:
            # In turn: all would wake at the same moment, and all but one in vain.
            async with self._turn:
                while not self._stop.is_set() and (wait := self._pace.delay()) > 0:
                    await self._rest(wait)
                return None if self._stop.is_set() else self._pace.sent(ask.tokens)
        return None if self._stop.is_set() else self._pace.sent(ask.tokens)

    async def _rest(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), seconds)

    def _wait(self, refusal: RefusalError, ask: Ask) -> float:
        """Seconds until the next attempt: never earlier than asked, else doubled each time, with jitter."""
        tries, _ = self._tries.get(ask.slot, (0, 0))
        most = min(LONGEST, self._first_wait * 2.0 ** min(tries, 32))
        own = most * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
        # Who asks for no wait at all and refuses again would be asked in circles.
        return refusal.wait + 0.01 * own if refusal.wait else own

    def _judge(self, ask: Ask, refusal: RefusalError, sent_at: float, wait: float) -> Failed | None:
        """What follows from a refusal: a failure, or None for another attempt."""
        failed = Failed(refusal.reason, refusal.detail, refusal.maybe_paid)
        if refusal.fatal:
            return self._give_up(failed, str(refusal))
        if refusal.wait is not None and refusal.wait > self._limits.max_wait_seconds:
            asked = f"the server asks to wait {refusal.wait:,.0f} s, more than limits.max_wait_seconds"
            return self._give_up(failed, f"{asked} {self._limits.max_wait_seconds:g}")
        if refusal.haste:
            self._pace.refused(sent_at, wait)
            self._work.tally.slowed += 1
        tries, paid = self._tries.get(ask.slot, (0, 0))
        tries, paid = tries + 1, paid + refusal.maybe_paid
        if not refusal.hopeless and tries <= self._limits.retries and paid < PAID_TRIES:
            self._tries[ask.slot] = tries, paid
            return replace(failed, again=True) if refusal.maybe_paid else None
        self._tries.pop(ask.slot, None)
        self._streak += 1
        if self._streak >= self._limits.give_up_after:
            return self._give_up(failed, f"{self._streak} requests in a row failed, the last with: {refusal}")
        return failed

    def _give_up(self, failed: Failed, why: str) -> Failed:
        """End the run; `run` says why, once."""
        self._why = self._why or why
        self._end()
        return failed

    def _end(self) -> None:
        self._stop.set()
        self._soon.set()

    def _succeeded(self, ask: Ask) -> None:
        self._streak = 0
        self._tries.pop(ask.slot, None)
        if len(self._workers) < self._limits.concurrency:
            self._hire()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM end the intake first; in a thread there are no signals."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        heard = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
        for number in heard:
            loop.add_signal_handler(number, self._signalled, number)
        try:
            yield
        finally:
            for number in heard:
                loop.remove_signal_handler(number)
                signal.signal(number, before[number])

    def _signalled(self, number: int) -> None:
        if self._signal is not None:
            self._abandon()
            return
        self._signal = number
        self._end()
        if number == signal.SIGTERM:
            asyncio.get_running_loop().call_later(GRACE, self._abandon)
        if self._flying:
            how = "Ctrl-C again leaves them" if number == signal.SIGINT else f"{GRACE:g} s at most"
            print(f"Waiting for {self._flying} answers that are on their way; {how}.", file=sys.stderr)

    def _abandon(self) -> None:
        for task in list(self._workers):
            task.cancel()
        self._soon.set()
