"""Answers through batch jobs, at half the price: submitted, waited for, and fetched after any crash."""

from __future__ import annotations

import asyncio
import secrets
import tempfile
from collections import Counter
from pathlib import Path
from typing import IO, Any

from stepdistill.config import TeacherConfig
from stepdistill.errors import TeacherError
from stepdistill.files import writing
from stepdistill.teacher.batch_files import BatchFiles
from stepdistill.teacher.batch_results import Fetch, State
from stepdistill.teacher.openai import PATHS, Body
from stepdistill.teacher.protocol import Ask, Sampling, Work

MOST_REQUESTS = 50_000
MOST_BYTES = 190_000_000
"""Limits of one file; the usual ones are 50,000 requests and 200 MB."""
BLOCK = 256
"""Requests taken from the work, and results stored, at a time."""
LONGEST_POLL = 60.0
LOOKS = 3
"""Looks for a batch that may have been made, before it is held for not made."""
IN_VAIN = 3
"""Batches in a row without any answer that end the run."""
OVER = ("completed", "failed", "expired", "cancelled")


class BatchBackend:
    """Asks an endpoint through its batch routes, one batch after the other.

    A batch is noted in the ledger before it is made, under a name of ours that it carries as metadata.
    So whatever moment the process is killed at, the next one finds it, and nothing is paid twice.
    """

    def __init__(
        self,
        teacher: TeacherConfig,
        sampling: Sampling,
        *,
        first_poll: float = 1.0,
        most_requests: int = MOST_REQUESTS,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self._teacher, self._body = teacher, Body(teacher, sampling)
        self._first_poll, self._most = first_poll, (most_requests, most_bytes)
        self._files = BatchFiles(teacher)
        self._tries: Counter[bytes] = Counter()
        self._vain = 0

    def answer(self, work: Work) -> None:
        """Answer all of `work`; batches that an earlier process has submitted are fetched first.

        Raises:
            TeacherError: the endpoint refuses for good, or batch after batch brings no answer.
            BudgetError, LedgerError: as `Work.exchange`.
            KeyboardInterrupt: at once; what was submitted stays noted.
        """
        asyncio.run(self._main(work))

    async def _main(self, work: Work) -> None:
        async with self._files:
            while True:
                for name, text in work.batches().items():
                    await self._finish(work, name, State.of(text))
                if not await self._submit(work) and work.finished:
                    return

    async def _submit(self, work: Work) -> bool:
        """Make a batch of what can be taken now; False if that is nothing."""
        name, state = secrets.token_hex(16), State(work.sampling.max_tokens)
        with writing(Path(tempfile.gettempdir())), tempfile.TemporaryFile() as file:
            self._collect(work, name, state, file)
            if not state.rows:
                return False
            file.flush()
            state.file = await self._files.upload(file)
        file_id = state.file
        work.note_batch(name, state.text())
        made = await self._files.create(file_id, name, lambda: self._files.find(name, file_id))
        state.batch = str(made["id"])
        work.note_batch(name, state.text())
        work.tally.attempts += len(state.rows)
        return True

    def _collect(self, work: Work, name: str, state: State, file: IO[bytes]) -> None:
        (most_requests, most_bytes), size, noted = self._most, 0, state.text()
        while want := min(BLOCK, most_requests - len(state.rows)):
            asks = work.take(name, noted, want)
            if not asks:
                return
            for number, ask in enumerate(asks):
                line = self._line(ask)
                if state.rows and size + len(line) > most_bytes:
                    work.give_back(asks[number:])
                    return
                file.write(line)
                size += len(line)
                state.rows[ask.slot.hex()] = (ask.example_id, ask.draw)

    def _line(self, ask: Ask) -> bytes:
        url = f"/v1{PATHS[self._teacher.api]}"
        head = f'{{"custom_id": "{ask.slot.hex()}", "method": "POST", "url": "{url}", "body": '
        return head.encode() + self._body.of(ask.prompt) + b"}\n"

    async def _finish(self, work: Work, name: str, state: State) -> None:
        """Wait for a batch, store what it brings, and forget it."""
        fetch = Fetch(work, name, state, self._tries, self._files)
        if fetch.open and state.batch is None:
            state.batch = await self._made(name, state)
            if state.batch is not None:
                work.note_batch(name, state.text())
        if not fetch.open or state.batch is None:
            work.bring([], state.max_tokens, over=name)
            return
        found = await self._wait(state.batch)
        await fetch.all_of(found)
        self._vain = 0 if fetch.answers else self._vain + 1
        if self._vain >= IN_VAIN:
            raise TeacherError(
                f"{IN_VAIN} batches in a row brought no answer, the last ({state.batch}): "
                f"{fetch.why(found)}. Mend it, then run the same command to go on"
            )
        if self._vain:
            await asyncio.sleep(min(LONGEST_POLL, self._first_poll * 2**self._vain))

    async def _made(self, name: str, state: State) -> str | None:
        """The remote id of a batch that a killed process was about to make, if it has made it."""
        if state.file is None:
            return None
        for number in range(LOOKS):
            if number:  # the request may still have been on its way
                await asyncio.sleep(self._first_poll * 2**number)
            if found := await self._files.find(name, state.file):
                return str(found["id"])
        return None

    async def _wait(self, batch_id: str) -> dict[str, Any]:
        pause = self._first_poll
        while True:
            found = await self._files.look(batch_id)
            if found is None:
                return {"status": "gone"}
            if found.get("status") in OVER:
                return found
            await asyncio.sleep(pause)
            pause = min(LONGEST_POLL, 2 * pause)
