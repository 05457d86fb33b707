"""What a batch job has brought: each line joined to its request by name, stored, and counted."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from stepdistill.teacher.batch_files import BatchFiles
from stepdistill.teacher.protocol import Ask, Failed, Prompt, Result, Work
from stepdistill.teacher.refusal import RefusalError
from stepdistill.teacher.scheduler import PAID_TRIES

BLOCK = 256
"""Results stored at a time."""
NO_PROMPT = Prompt((), ())
UNPAID_CODES = ("batch_expired", "batch_cancelled")


@dataclass
class State:
    """What is noted of a batch: the remote ids as far as known, and whose answer each slot is.

    Without `file` nothing has been submitted; without `batch` it may have been. `rows` has the slot in
    hex, which is the request's `custom_id`, with example id and draw.
    """

    max_tokens: int
    file: str | None = None
    batch: str | None = None
    rows: dict[str, tuple[str, int]] = field(default_factory=dict)

    def text(self) -> str:
        """For the ledger."""
        return json.dumps(asdict(self))

    @staticmethod
    def of(text: str) -> State:
        """From the ledger."""
        return State(**json.loads(text))


class Fetch:
    """Stores the results of one batch that is over; each joins its request by `custom_id` alone.

    Attributes:
        open: slots without a result yet, and what each can cost.
        answers: how many answers have come.
    """

    def __init__(self, work: Work, name: str, state: State, tries: Counter[bytes], files: BatchFiles) -> None:
        self._work, self._name, self._state, self._tries, self._files = work, name, state, tries, files
        self.open = work.entrusted(name)
        self.answers = 0
        self._strays = 0
        self._known: set[str] = set()

    async def all_of(self, found: dict[str, Any]) -> None:
        """Store all that a batch has brought; what it has not brought is to be asked again."""
        counts = found.get("request_counts")
        completed = counts.get("completed") if isinstance(counts, dict) else None
        completed = completed if isinstance(completed, int) else 0
        output, errors = found.get("output_file_id"), found.get("error_file_id")
        if isinstance(output, str):
            await self._file(output, completed)
        arrived = len(self._known)
        if isinstance(errors, str):
            await self._file(errors, 0)
        self._work.tally.strays += self._strays
        status = str(found.get("status"))
        paid = status in ("completed", "gone") or arrived < completed
        reason = "missing in the batch's results" if paid else f"batch {status}"
        left = [(self._ask(slot), self._lost(slot, reason, paid, limited=paid)) for slot in self.open]
        self._work.bring(left, self._state.max_tokens, over=self._name)

    def why(self, found: dict[str, Any]) -> str:
        """What the endpoint says of a batch that has brought nothing."""
        errors = found.get("errors")
        rows = errors.get("data") if isinstance(errors, dict) else None
        first = rows[0] if isinstance(rows, list) and rows else None
        words = first.get("message") if isinstance(first, dict) else None
        status = str(found.get("status"))
        return self._files.hide(f"{status} ({' '.join(str(words).split())[:200]})" if words else status)

    async def _file(self, file_id: str, expected: int) -> None:
        for number in itertools.count():
            try:
                strays, unreadable = await self._once(file_id)
                # Cut short, it would look like missing rows, and they would be paid for again.
                if number or not (unreadable or len(self._known) < expected):
                    self._strays += strays + unreadable
                    return
                refusal = RefusalError("malformed reply", "a file of results is not whole")
            except RefusalError as error:
                refusal = error
            await self._files.rest(refusal, number)

    async def _once(self, file_id: str) -> tuple[int, int]:
        """Read a file to its end; returns how many lines nobody asked for, and how many are unreadable."""
        strays = unreadable = 0
        results: list[tuple[Ask, Result]] = []
        try:
            async for line in self._files.lines(file_id):
                row = _row(line)
                if row is None:
                    unreadable += 1
                    continue
                custom_id = row.get("custom_id")
                if not isinstance(custom_id, str) or custom_id not in self._state.rows:
                    strays += 1
                    continue
                self._known.add(custom_id)
                slot = bytes.fromhex(custom_id)
                if slot in self.open:  # else it is the second line of that id, or one stored before a crash
                    results.append((self._ask(slot), self._result(slot, row)))
                    del self.open[slot]
                if len(results) >= BLOCK:
                    done, results = results, []
                    self._work.bring(done, self._state.max_tokens)
        finally:
            self._work.bring(results, self._state.max_tokens)
        return strays, unreadable

    def _ask(self, slot: bytes) -> Ask:
        example_id, draw = self._state.rows[slot.hex()]
        return Ask(slot, NO_PROMPT, draw, example_id, self.open[slot])

    def _result(self, slot: bytes, row: dict[str, Any]) -> Result:
        response, error = row.get("response"), row.get("error")
        if not isinstance(response, dict):
            return self._without(slot, error)
        raw = json.dumps(response.get("body")).encode()
        try:
            if response.get("status_code") != 200:
                raise self._files.failed(response.get("status_code"), raw)
            reply = self._files.reply(raw)
        except RefusalError as refusal:
            detail = self._files.hide(refusal.detail)
            if refusal.hopeless or refusal.fatal:
                return Failed(refusal.reason, detail, refusal.maybe_paid)
            return self._lost(slot, refusal.reason, refusal.maybe_paid, detail)
        self.answers += 1
        return reply

    def _without(self, slot: bytes, error: object) -> Failed:
        error = error if isinstance(error, dict) else {}
        if error.get("code") in UNPAID_CODES:
            return Failed("expired in the batch", again=True)
        words = " ".join(f"{error.get('code')}: {error.get('message')}".split())
        return Failed("refused by the server", self._files.hide(words)[:200])

    def _lost(self, slot: bytes, reason: str, paid: bool, detail: str = "", limited: bool = True) -> Failed:
        """No result: to be asked again; not for ever, unless it was the whole batch that failed."""
        self._tries[slot] += limited
        return Failed(reason, detail, maybe_paid=paid, again=self._tries[slot] < PAID_TRIES)


def _row(line: bytes) -> dict[str, Any] | None:
    """A line of a file of results; None where it is none."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None
