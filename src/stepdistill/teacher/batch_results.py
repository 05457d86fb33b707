"""What a batch job has brought: each line joined to its request by name, stored, and counted."""

from __future__ import annotations

import hashlib
import itertools
import json
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from stepdistill.files import writing
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


@dataclass
class Survey:
    """What a file of results holds: what is said under each id, and ids under which two things are."""

    known: dict[str, bytes] = field(default_factory=dict)
    doubtful: set[str] = field(default_factory=set)
    strays: int = 0
    unreadable: int = 0


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
        self._arrived = 0

    async def all_of(self, found: dict[str, Any]) -> None:
        """Store all that a batch has brought; what it has not brought is to be asked again."""
        counts = found.get("request_counts")
        completed = counts.get("completed") if isinstance(counts, dict) else None
        completed = completed if isinstance(completed, int) else 0
        output, errors = found.get("output_file_id"), found.get("error_file_id")
        if isinstance(output, str):
            await self._file(output, completed)
        arrived = self._arrived
        if isinstance(errors, str):
            await self._file(errors, 0)
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
        """Fetch a file as a whole before anything of it counts: a later line may contradict an earlier."""
        with writing(Path(tempfile.gettempdir())), tempfile.TemporaryFile() as file:
            for number in itertools.count():
                file.seek(0)
                file.truncate()
                try:
                    survey = await self._survey(file_id, file)
                    # Cut short, it would look like missing rows, and they would be paid for again.
                    if number or not (survey.unreadable or len(survey.known) < expected):
                        break
                    refusal = RefusalError("malformed reply", "a file of results is not whole")
                except RefusalError as error:
                    refusal = error
                await self._files.rest(refusal, number)
            self._work.tally.strays += survey.strays + survey.unreadable
            self._arrived += len(survey.known)
            file.seek(0)
            self._store(file, survey)

    async def _survey(self, file_id: str, file: IO[bytes]) -> Survey:
        survey = Survey()
        async for line in self._files.lines(file_id):
            row = _row(line)
            if row is None:
                survey.unreadable += 1
                continue
            custom_id = row.get("custom_id")
            if not isinstance(custom_id, str) or custom_id not in self._state.rows:
                survey.strays += 1
                continue
            said = _essence(row)
            if survey.known.setdefault(custom_id, said) != said:
                survey.doubtful.add(custom_id)
            file.write(line + b"\n")
        return survey

    def _store(self, file: IO[bytes], survey: Survey) -> None:
        results: list[tuple[Ask, Result]] = []
        for line in file:
            row = json.loads(line)
            slot = bytes.fromhex(row["custom_id"])
            if slot not in self.open:  # the second line of that id, or one stored before a crash
                continue
            if row["custom_id"] in survey.doubtful:
                result: Result = self._lost(slot, "two answers under one id", paid=True)
            else:
                result = self._result(slot, row)
            results.append((self._ask(slot), result))
            del self.open[slot]
            if len(results) >= BLOCK:
                self._work.bring(results, self._state.max_tokens)
                results = []
        self._work.bring(results, self._state.max_tokens)

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


def _essence(row: dict[str, Any]) -> bytes:
    """A digest of what a line says, without the names and times that differ between two equal ones."""
    response = row.get("response")
    response = response if isinstance(response, dict) else {}
    body = response.get("body")
    said = body.get("choices", body.get("error")) if isinstance(body, dict) else body
    words = json.dumps([response.get("status_code"), said, row.get("error")], sort_keys=True)
    return hashlib.blake2b(words.encode(), digest_size=8).digest()
