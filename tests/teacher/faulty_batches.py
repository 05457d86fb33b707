"""The batch protocol of a fake server: files in, batches polled to their end, shuffled or holed files out."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal
from urllib.parse import parse_qs

from faults import Reply, as_reply, error_reply

Row = dict[str, Any]
OVER = ("completed", "failed", "expired", "cancelled")


@dataclass(frozen=True)
class BatchPlan:
    """How batches go.

    Attributes:
        polls: how many times a batch is asked for until it is over.
        end: how it ends; `failed` gives no files.
        done_share: share of the rows that are answered before it ends; the rest go to the error file.
        shuffle: whether output lines come in another order.
        missing: so many answered rows are in no file at all.
        duplicated: so many answered rows come a second time, with another answer.
        errors: so many rows go to the error file with status 400.
        seed: of the order and the choice.
    """

    polls: int = 2
    end: Literal["completed", "failed", "expired"] = "completed"
    done_share: float = 1.0
    shuffle: bool = True
    missing: int = 0
    duplicated: int = 0
    errors: int = 0
    seed: int = 0


@dataclass
class _Batch:
    id: str
    input_file_id: str
    endpoint: str
    metadata: dict[str, str] | None
    status: str = "in_progress"
    output_file_id: str | None = None
    error_file_id: str | None = None
    request_counts: dict[str, int] = field(default_factory=dict)
    errors: dict[str, Any] | None = None
    object: str = "batch"
    completion_window: str = "24h"
    created_at: int = 0


class Batches:
    """Files and batches in memory: `answer` completes a row's body, `paid` is told of each row answered."""

    def __init__(self, plan: BatchPlan, answer: Callable[[Row], Row], paid: Callable[[Row], None]) -> None:
        self.plan, self._answer, self._paid = plan, answer, paid
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, _Batch] = {}
        self._polls: dict[str, int] = {}

    def handle(self, method: str, path: str, query: str, kind: str, body: bytes) -> Reply | None:
        """The reply to a request below /v1, or None where there is no such route."""
        match [method, *path.strip("/").split("/")]:
            case ["POST", "files"]:
                return self._upload(kind, body)
            case ["GET", "files", name, "content"] if name in self.files:
                return Reply(200, self.files[name], "application/octet-stream")
            case ["POST", "batches"]:
                return self._create(json.loads(body))
            case ["GET", "batches"]:
                return self._list(parse_qs(query))
            case ["GET", "batches", name] if name in self.batches:
                return self._poll(self.batches[name])
            case ["POST", "batches", name, "cancel"] if name in self.batches:
                batch = self.batches[name]
                if batch.status not in OVER:
                    batch.status = "cancelling"
                return as_reply(asdict(batch))
        return None

    def _keep(self, content: bytes) -> str:
        name = f"file-{len(self.files) + 1}"
        self.files[name] = content
        return name

    def _upload(self, kind: str, body: bytes) -> Reply:
        boundary = kind.partition("boundary=")[2].strip('"').encode()
        parts = {}
        for part in body.split(b"--" + boundary)[1:-1] if boundary else ():
            head, _, content = part.partition(b"\r\n\r\n")
            name = head.lower().partition(b'name="')[2].partition(b'"')[0].decode()
            parts[name] = content.removesuffix(b"\r\n")
        if parts.get("purpose") != b"batch" or "file" not in parts:
            return error_reply(400, "a batch needs multipart fields purpose=batch and file")
        size = len(parts["file"])
        return as_reply(
            {"id": self._keep(parts["file"]), "object": "file", "bytes": size, "purpose": "batch"}
        )

    def _create(self, wanted: Row) -> Reply:
        if wanted.get("input_file_id") not in self.files:
            return error_reply(400, "no such input_file_id")
        if wanted.get("endpoint") not in ("/v1/chat/completions", "/v1/completions"):
            return error_reply(400, "no such endpoint")
        name = f"batch_{len(self.batches) + 1}"
        batch = _Batch(name, wanted["input_file_id"], wanted["endpoint"], wanted.get("metadata"))
        self.batches[name] = batch
        return as_reply(asdict(batch))

    def _list(self, query: dict[str, list[str]]) -> Reply:
        names = list(reversed(self.batches))
        if "after" in query:
            names = names[names.index(query["after"][0]) + 1 :]
        limit = int(query.get("limit", ["20"])[0])
        data = [asdict(self.batches[name]) for name in names[:limit]]
        ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {}
        return as_reply({"object": "list", "data": data, "has_more": len(names) > limit, **ends})

    def _poll(self, batch: _Batch) -> Reply:
        polls = self._polls[batch.id] = self._polls.get(batch.id, 0) + 1
        if batch.status == "cancelling":
            batch.status = "cancelled"
        elif batch.status not in OVER and polls >= self.plan.polls:
            self._end(batch)
        return as_reply(asdict(batch))

    def _end(self, batch: _Batch) -> None:
        plan, batch.status = self.plan, self.plan.end
        if plan.end == "failed":
            problem = {"code": "invalid_json_line", "message": "planned failure", "line": 1}
            batch.errors = {"object": "list", "data": [problem]}
            return
        chance = random.Random(plan.seed)
        rows = [json.loads(line) for line in self.files[batch.input_file_id].splitlines() if line.strip()]
        order = chance.sample(rows, len(rows)) if plan.shuffle else rows
        done = round(len(order) * plan.done_share)
        refused, answered = order[: plan.errors], order[plan.errors : done]
        for row in answered:
            self._paid(row["body"])
        lines = [_line(row, self._answer(row["body"])) for row in answered[: len(answered) - plan.missing]]
        lines += [_line(row, self._answer(_other_prompt(row["body"]))) for row in answered[: plan.duplicated]]
        if plan.shuffle:
            chance.shuffle(lines)
        failed = [_line(row, {"error": {"message": "planned", "code": "bad"}}, 400) for row in refused]
        failed += [_expired(row) for row in order[max(done, plan.errors) :]]
        batch.request_counts = {"total": len(rows), "completed": len(answered), "failed": len(failed)}
        batch.output_file_id = self._keep(_as_lines(lines)) if lines else None
        batch.error_file_id = self._keep(_as_lines(failed)) if failed else None


def _line(row: Row, body: Row, status: int = 200) -> Row:
    response = {"status_code": status, "request_id": "req", "body": body}
    return {"id": "batch_req", "custom_id": row["custom_id"], "response": response, "error": None}


def _expired(row: Row) -> Row:
    error = {"code": "batch_expired", "message": "This request could not be executed in time."}
    return {"id": "batch_req", "custom_id": row["custom_id"], "response": None, "error": error}


def _other_prompt(body: Row) -> Row:
    other = "another prompt"
    if "messages" in body:
        return {**body, "messages": [{"role": "user", "content": other}]}
    return {**body, "prompt": other}


def _as_lines(rows: list[Row]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)
