"""Clients for benchmarks/serve.py: kept connections, in a closed loop or with arrivals at a rate."""

from __future__ import annotations

import asyncio
import json
import selectors
import time
from collections import deque
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, TypeVar

T = TypeVar("T")

STALE = 3.0
"""Seconds after which an idle connection is not used again: the server closes it after 5, and a request
that is sent at that moment is lost by the rules of HTTP."""
PATIENCE = 120.0
"""Seconds without an answer after which a request is lost."""


@dataclass(slots=True)
class Sent:
    """One request: places of its texts, when it was due, sent and answered, and how (0: not at all)."""

    texts: tuple[int, ...]
    due: float
    status: int = 0
    done: float = 0.0
    body: bytes = b""
    started: float = 0.0


@dataclass
class Target:
    """Where to ask, as whom, and with which texts; the bytes of a request are made once."""

    port: int
    key: str
    texts: Sequence[str]
    path: str = "/v1/predict"
    made: dict[tuple[int, ...], bytes] = field(default_factory=dict)

    def request(self, places: tuple[int, ...], close: bool = False) -> bytes:
        """A whole request for the texts at these places."""
        if (found := self.made.get((*places, -1) if close else places)) is not None:
            return found
        one = (
            {"text": self.texts[places[0]]}
            if len(places) == 1
            else {"texts": [self.texts[i] for i in places]}
        )
        body = json.dumps(one).encode()
        head = (
            f"POST {self.path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n"
            f"Authorization: Bearer {self.key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            f"{'Connection: close' if close else 'Connection: keep-alive'}\r\n\r\n"
        )
        return self.made.setdefault((*places, -1) if close else places, head.encode() + body)


class Connection(asyncio.Protocol):
    """One connection, with at most one request on it."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self.open, self.idle_since = True, time.perf_counter()
        self._buffer = b""
        self._waiting: asyncio.Future[tuple[int, bytes]] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As the event loop calls it."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """What waits gets nothing."""
        self.open = False
        self._settle(0, b"")

    def data_received(self, data: bytes) -> None:
        """Take a response once it is whole."""
        self._buffer += data
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        lower = head.lower()
        if b"\r\ncontent-length:" in lower:
            length = int(lower.partition(b"\r\ncontent-length:")[2].split(b"\r\n", 1)[0])
        else:
            # A refusal, in chunks: its last is empty.
            length = len(rest) if rest.endswith(b"0\r\n\r\n") else len(rest) + 1
        if len(rest) < length:
            return
        self._buffer = rest[length:]
        assert not self._buffer, "more came than was asked for"
        if b"\r\nconnection: close" in lower:
            self.open = False
            self.transport.close()
        self._settle(int(head[9:12]), rest[:length])

    def ask(self, request: bytes) -> asyncio.Future[tuple[int, bytes]]:
        """Send; the future has status and body, or 0 where the connection ended without a response."""
        self._waiting = asyncio.get_running_loop().create_future()
        if self.open:
            self.transport.write(request)
        else:
            self._settle(0, b"")
        return self._waiting

    def _settle(self, status: int, body: bytes) -> None:
        waiting, self._waiting = self._waiting, None
        self.idle_since = time.perf_counter()
        if waiting and not waiting.done():
            waiting.set_result((status, body))


def run(work: Coroutine[Any, Any, T]) -> T:
    """As `asyncio.run`, with timers that are exact: epoll, by default, waits for whole milliseconds."""
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())) as runner:
        return runner.run(work)


async def connect(port: int) -> Connection:
    """A connection to this machine's own address; OSError where nobody listens."""
    _, made = await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", port)
    return made


def groups(n: int, texts: int, seed: int, many: float = 0.0) -> Iterator[tuple[int, ...]]:
    """Places of texts of `n` requests; the share `many` of them has two to eight texts, others one."""
    draw = Random(seed)
    for _ in range(n):
        size = draw.randint(2, 8) if draw.random() < many else 1
        yield tuple(draw.randrange(texts) for _ in range(size))


async def closed(
    target: Target,
    asked: Sequence[tuple[int, ...]],
    clients: int,
    fresh: int = 0,
    until_refused: bool = False,
) -> list[Sent]:
    """Clients that each send their next request when the last was answered; `fresh` of them connect anew
    for each. With `until_refused` a client ends where no connection is made, and requests may be left."""
    todo, done = deque(asked), list[Sent]()

    async def client(number: int) -> None:
        line: Connection | None = None
        while todo:
            try:
                if line is None or not line.open:
                    line = await connect(target.port)
            except OSError:
                if until_refused:
                    return
                raise
            if not todo:
                return
            await exchange(line, target, Sent(todo.popleft(), time.perf_counter()), done, number < fresh)
        if line:
            line.transport.close()

    await asyncio.gather(*(client(number) for number in range(clients)))
    return done


async def exchange(
    line: Connection, target: Target, sent: Sent, done: list[Sent], close: bool = False
) -> None:
    """One request and its response."""
    sent.started = time.perf_counter()
    try:
        answer = line.ask(target.request(sent.texts, close))
        sent.status, sent.body = await asyncio.wait_for(answer, PATIENCE)
    except TimeoutError:
        line.transport.abort()
        line.open = False
    sent.done = time.perf_counter()
    done.append(sent)


async def arriving(
    target: Target, asked: Sequence[tuple[int, ...]], rate: float, most: int, seed: int
) -> list[Sent]:
    """Requests at moments that know nothing of the answers (Poisson arrivals, `rate` a second).

    At most `most` connections are open; who finds none waits, and the wait is part of its time.
    """
    draw, done, idle = Random(seed), list[Sent](), deque[Connection]()
    waiting, opened = deque[Sent](), 0

    async def answered(sent: Sent) -> None:
        nonlocal opened
        line: Connection | None = None
        while idle and line is None:
            last = idle.pop()
            if last.open and time.perf_counter() - last.idle_since < STALE:
                line = last
            else:
                last.transport.close()
                opened -= 1
        if line is None:
            opened += 1
            line = await connect(target.port)
        await exchange(line, target, sent, done)
        while waiting:
            line = line if line.open else await connect(target.port)
            await exchange(line, target, waiting.popleft(), done)
        if line.open:
            idle.append(line)
        else:
            opened -= 1

    async with asyncio.TaskGroup() as tasks:
        due = time.perf_counter()
        for places in asked:
            due += draw.expovariate(rate)
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            if not idle and opened >= most:
                waiting.append(Sent(places, due))
            else:
                tasks.create_task(answered(Sent(places, due)))
                # It takes its connection now, so that the next one sees what is left.
                await asyncio.sleep(0)
    for line in idle:
        line.transport.close()
    return done
