"""A fault-injecting OpenAI-compatible server, in a thread of the test or as a process of its own."""

from __future__ import annotations

import argparse
import asyncio
import json
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs

from faults import (
    EDITS,
    INSTEAD,
    SPOILS,
    UNPAID,
    UNSENT,
    WHOLE,
    Answer,
    Fault,
    Plan,
    Reply,
    as_reply,
    complete,
    echo,
    error_reply,
    prompt_hash,
    prompt_text,
)
from faulty_batches import Batches, BatchPlan
from faulty_http import Connection, Request
from faulty_record import Asked, Bucket, Record, retry_after

__all__ = ["BatchPlan", "Fault", "FaultyServer", "echo", "prompt_hash"]

COMPLETIONS = ("/v1/chat/completions", "/v1/completions")


class FaultyServer:
    """The server; `with FaultyServer(...) as server` runs it in a thread, on 127.0.0.1 and a free port.

    Attributes:
        plan: rules of what fails, also settable while it runs; see `Fault`.
        answer: what the model says; see `echo`.
        delay: seconds before each answer.
        rate, burst, asked: token bucket in requests a second, and the Retry-After it sends.
        key: the one API key that is let in; None lets in everybody.
        log, batches: how many requests `requests` keeps; how batches go.
    """

    def __init__(
        self,
        plan: Sequence[Fault] = (),
        answer: Answer | None = None,
        *,
        delay: float = 0.0,
        rate: float | None = None,
        burst: float = 1,
        asked: Asked = "ceil",
        key: str | None = None,
        log: int = 0,
        batches: BatchPlan | None = None,
        seed: int = 0,
        port: int = 0,
    ) -> None:
        self.answer, self.delay, self.key, self.port = answer or echo(), delay, key, port
        self._limit, self._asked, self._log, self._seed = (rate, burst), asked, log, seed
        self._batch_plan, self._rules = batches or BatchPlan(), list(plan)
        self.connections: set[Connection] = set()
        self._thread: threading.Thread | None = None
        self.reset()

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def plan(self) -> list[Fault]:
        """The rules of what fails; setting them starts their counts anew."""
        return self._rules

    @plan.setter
    def plan(self, rules: Sequence[Fault]) -> None:
        self._rules, self._plan = list(rules), Plan(rules, self._seed)

    @property
    def counts(self) -> dict[str, int]:
        """A copy of the counters, 0 for what never happened; see `Record.counts`."""
        return self.record.counts.copy()

    @property
    def seen(self) -> dict[str, int]:
        """A copy: how often each prompt was answered and paid, by `prompt_hash`."""
        return dict(self.record.seen)

    @property
    def requests(self) -> list[tuple[float, str, int, bool]]:
        """The last `log` requests: monotonic time, prompt hash, status (0: none), had it a key?"""
        return list(self.record.requests)

    def reset(self) -> None:
        """Forget all counts, attempts, files and batches; the plan starts over."""
        self.record = Record(requests=deque(maxlen=self._log))
        self.plan = self._rules
        self._bucket = Bucket(self._limit[0], self._limit[1]) if self._limit[0] else None
        self._batches = Batches(
            self._batch_plan,
            lambda body: complete(body, self.answer),
            lambda body: self.record.paid(prompt_hash(body), whole=True),
        )

    def start(self) -> Self:
        """Run in a thread; returns once it listens. After `stop` it can start again, on the same port."""
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self.run(ready.set)), daemon=True)
        self._thread.start()
        if not ready.wait(10):
            raise RuntimeError(f"no server came up on port {self.port}")
        return self

    def stop(self) -> None:
        """Drop all connections and stop listening; counts stay."""
        if self._thread is not None:
            self._loop.call_soon_threadsafe(self._stopped.set)
            self._thread.join(10)
            self._thread = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    async def run(self, ready: Any) -> None:
        """Serve until stopped; `ready()` is called once it listens."""
        self._loop, self._stopped = asyncio.get_running_loop(), asyncio.Event()
        listening = await self._loop.create_server(
            lambda: Connection(self.handle, self.connections), "127.0.0.1", self.port, backlog=2048
        )
        self.port = listening.sockets[0].getsockname()[1]
        self._hosts = {f"127.0.0.1:{self.port}", f"localhost:{self.port}"}
        ready()
        await self._stopped.wait()
        listening.close()
        for connection in list(self.connections):
            connection.transport.abort()

    def handle(self, connection: Connection, request: Request) -> None:
        """Reply to one request, now or later; /stats and /reset are not counted."""
        path, _, query = request.target.partition("?")
        if path == "/stats":
            seen = parse_qs(query).get("seen") != ["0"]
            connection.send(as_reply(self.record.as_json(seen)))
        elif path == "/reset":
            self.reset()
            connection.send(as_reply({}))
        else:
            self.record.counts["requests"] += 1
            try:
                self._serve(connection, request, path, query)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                self._deliver(connection, request, "", error_reply(400, f"not a request: {error!r}"))

    def _serve(self, connection: Connection, request: Request, path: str, query: str) -> None:
        record, now, fault, delay = self.record, time.monotonic(), None, 0.0
        refused = self._stranger(request, path)
        if refused is not None:
            return self._deliver(connection, request, "", refused)
        asking, body, key = request.method == "POST" and path in COMPLETIONS, {}, ""
        if asking:
            body = json.loads(request.body)
            key = prompt_hash(body)
            record.arrives(key, now)
            wait = self._bucket.take(now) if self._bucket else 0.0
            if wait:
                return self._deliver(connection, request, key, self._slow_down(wait))
            record.counts["granted"] += 1
        if self._rules:
            prompt = prompt_text(body) if asking else ""
            fault = self._plan.choose(path, prompt, key, record.counts["requests"])
        if fault is not None:
            record.counts[f"fault:{fault.kind}"] += 1
            if fault.kind in INSTEAD:
                return self._deliver(connection, request, key, INSTEAD[fault.kind](fault), fault)
        if asking:
            completion, delay = complete(body, self.answer), self.delay
            reply = as_reply(
                EDITS[fault.kind](fault, completion) if fault and fault.kind in EDITS else completion
            )
        else:
            reply = self._other(request, path, query)
        if fault is not None and fault.kind in SPOILS:
            reply = SPOILS[fault.kind](fault, reply)
        if fault is not None and fault.kind == "late":
            delay += fault.seconds
        return self._deliver(connection, request, key, reply, fault, delay)

    def _stranger(self, request: Request, path: str) -> Reply | None:
        host = request.headers.get("host")
        if not path.startswith("/v1/") or host not in self._hosts:
            self.record.strays_to(f"{request.method} {request.target} {host}")
            return error_reply(404, "nothing is here")
        if self.key is not None and request.headers.get("authorization") != f"Bearer {self.key}":
            return error_reply(401, "Incorrect API key provided", "invalid_api_key")
        return None

    def _slow_down(self, wait: float) -> Reply:
        reply, header = (
            error_reply(429, "Rate limit reached", "rate_limit_exceeded"),
            retry_after(wait, self._asked),
        )
        if header is not None:
            reply.headers["Retry-After"] = header
        return reply

    def _other(self, request: Request, path: str, query: str) -> Reply:
        if (request.method, path) == ("GET", "/v1/models"):
            return as_reply({"object": "list", "data": [{"id": "faulty", "object": "model"}]})
        kind = request.headers.get("content-type", "")
        reply = self._batches.handle(request.method, path.removeprefix("/v1"), query, kind, request.body)
        return reply or error_reply(404, "no such route or id")

    def _deliver(
        self,
        connection: Connection,
        request: Request,
        key: str,
        reply: Reply,
        fault: Fault | None = None,
        delay: float = 0.0,
    ) -> None:
        record = self.record
        if self._log:
            status = 0 if fault and fault.kind in UNSENT else reply.status
            record.requests.append((time.monotonic(), key, status, "authorization" in request.headers))
        if delay == 0.0:
            return self._send(record, connection, key, reply, fault)
        record.waiting += 1
        record.peak = max(record.peak, record.waiting)
        self._loop.call_later(delay, self._send_late, record, connection, key, reply, fault)
        return None

    def _send_late(self, record: Record, *given: Any) -> None:
        record.waiting -= 1
        self._send(record, *given)

    def _send(
        self, record: Record, connection: Connection, key: str, reply: Reply, fault: Fault | None
    ) -> None:
        kind, counts = fault.kind if fault else "", record.counts
        if kind not in UNSENT:
            counts["sent"] += 1
            counts[str(reply.status)] += 1
        if key and reply.status == 200 and kind not in UNPAID:
            record.paid(key, not kind or kind in WHOLE)
        if "Retry-After" in reply.headers:
            record.told_to_wait(key, time.monotonic(), reply.headers["Retry-After"])
        if connection.gone:
            counts["gone"] += 1
        else:
            connection.send(reply, fault)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run as a process: prints {"port": ..., "url": ...} once it listens, and serves until it is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before each answer")
    parser.add_argument("--plan", type=Path, help="JSON list of rules, each the fields of a Fault")
    parser.add_argument("--batches", type=Path, help="JSON object, the fields of a BatchPlan")
    parser.add_argument("--answer-bytes", type=int, default=0, help="least length of an answer")
    parser.add_argument("--labels", default="", help="labels to answer with, with commas between")
    parser.add_argument("--rate", type=float, help="requests a second that are granted")
    parser.add_argument("--burst", type=float, default=1)
    parser.add_argument("--retry-after", choices=("ceil", "exact", "none"), default="ceil")
    parser.add_argument("--log", type=int, default=0, help="how many requests /stats lists")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    server = FaultyServer(
        [Fault(**rule) for rule in json.loads(given.plan.read_text())] if given.plan else [],
        echo(tuple(filter(None, given.labels.split(","))), given.answer_bytes),
        delay=given.delay,
        rate=given.rate,
        burst=given.burst,
        asked=given.retry_after,
        log=given.log,
        batches=BatchPlan(**json.loads(given.batches.read_text())) if given.batches else None,
        seed=given.seed,
        port=given.port,
    )
    asyncio.run(server.run(lambda: print(json.dumps({"port": server.port, "url": server.url}), flush=True)))


if __name__ == "__main__":
    main()
