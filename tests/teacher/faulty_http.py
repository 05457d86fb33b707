"""HTTP over plain asyncio: one request after the other on a connection, replies that may break off."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from faults import Fault, Reply


@dataclass(slots=True)
class Request:
    """One HTTP request; header names are in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes = b""


class Connection(asyncio.Protocol):
    """Reads one request after the other, and sends replies well or badly."""

    transport: asyncio.Transport

    def __init__(self, handle: Callable[[Connection, Request], None], others: set[Connection]) -> None:
        self.handle, self.others, self.buffer, self.need = handle, others, bytearray(), 0
        self.request: Request | None = None
        self.busy = self.gone = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.others.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone = True
        self.others.discard(self)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if not self.busy and len(self.buffer) >= self.need:
            self._serve()

    def _serve(self) -> None:
        request = self._take()
        if request is not None:
            self.busy = True
            self.handle(self, request)

    def _take(self) -> Request | None:
        if self.request is None:
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return None
            lines = self.buffer[:end].decode("latin-1").split("\r\n")
            del self.buffer[: end + 4]
            method, target, _ = lines[0].split(" ", 2)
            headers = {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in lines[1:])}
            self.request, self.need = Request(method, target, headers), int(headers.get("content-length", 0))
        if self.request.headers.get("transfer-encoding") == "chunked":
            if not (self.buffer.startswith(b"0\r\n\r\n") or self.buffer.endswith(b"\r\n0\r\n\r\n")):
                return None
            self.need = len(self.buffer)
        elif len(self.buffer) < self.need:
            return None
        request, self.request = self.request, None
        request.body = bytes(self.buffer[: self.need])
        del self.buffer[: self.need]
        self.need = 0
        if "transfer-encoding" in request.headers:
            request.body = _unchunked(request.body)
        return request

    def send(self, reply: Reply, fault: Fault | None = None) -> None:
        """Send a reply in the way that the fault has it."""
        kind = fault.kind if fault else ""
        head, payload = reply.head(), reply.payload()
        if kind == "reset":
            self._reset()
        elif kind == "close":
            self.transport.close()
        elif kind in ("reset-mid-body", "close-mid-body"):
            self.transport.write(head + payload[: len(payload) // 2])
            # A reset at once could overtake what was just written.
            _later(0.02, self._reset if kind == "reset-mid-body" else self.transport.close)
        elif kind == "slow" and fault:
            self.transport.write(head)
            self._drip(payload, 0, fault.seconds)
        elif kind != "never":
            self.transport.write(head + payload)
            self._finish()

    def _finish(self) -> None:
        self.busy = False
        if self.buffer:
            self._serve()

    def _reset(self) -> None:
        if not self.gone:
            found = self.transport.get_extra_info("socket")
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()

    def _drip(self, payload: bytes, at: int, seconds: float) -> None:
        if at == len(payload):
            self._finish()
        elif not self.gone:
            self.transport.write(payload[at : at + 1])
            _later(seconds, self._drip, payload, at + 1, seconds)


def _later(seconds: float, call: Callable[..., None], *given: Any) -> None:
    asyncio.get_running_loop().call_later(seconds, call, *given)


def _unchunked(body: bytes) -> bytes:
    parts: list[bytes] = []
    at = 0
    while True:
        end = body.index(b"\r\n", at)
        size = int(body[at:end], 16)
        if size == 0:
            return b"".join(parts)
        parts.append(body[end + 2 : end + 2 + size])
        at = end + 4 + size
