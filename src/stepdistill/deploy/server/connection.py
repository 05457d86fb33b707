"""Connections: how many there may be, and how long one may take to ask something."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from pydantic_core import to_json
from uvicorn.protocols.http.h11_impl import H11Protocol

from stepdistill.deploy.server.limits import ServeConfig
from stepdistill.deploy.server.metrics import Metrics

_LINGER = 1.0
"""Seconds in which a refused client may read why: closed at once, its own words would reset the answer."""
_SHARE = 8
"""Of so many connections that may be open, one more may be there to be told that it is refused."""


class Connection(H11Protocol):
    """An HTTP connection: it has to send whole request heads in time, and one too many is refused.

    Uvicorn's own limit refuses requests, on whatever connection they come, and it has no clock for a
    connection that has sent nothing or half a head: a few hundred of these, without a key, would shut
    everybody out.
    """

    limits: ClassVar[ServeConfig]
    metrics: ClassVar[Metrics]
    refused: ClassVar[set[Connection]]
    _head: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, or refuse it."""
        if len(self.connections) >= self.limits.max_connections:
            self._refuse(transport)
            return
        super().connection_made(transport)
        self._wait_for_head()

    def data_received(self, data: bytes) -> None:
        """Read on; the clock runs while no request is in work, also through a body that nobody reads."""
        if self in self.refused:
            return
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            self._wait_for_head()
        else:
            self._stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_waiting()
        if self in self.refused:
            self.refused.discard(self)
        else:
            super().connection_lost(exc)

    def _wait_for_head(self) -> None:
        if self._head is None and not self.transport.is_closing():
            self._head = self.loop.call_later(self.limits.header_seconds, self._too_slow)

    def _stop_waiting(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _too_slow(self) -> None:
        self.metrics.refused("slow head")
        self.transport.abort()

    def _refuse(self, transport: asyncio.Transport) -> None:
        self.metrics.refused("connections")
        if len(self.refused) * _SHARE >= self.limits.max_connections:
            transport.abort()
            return
        self.refused.add(self)
        body = to_json({"error": f"{self.limits.max_connections} connections are open already; try again"})
        transport.write(
            b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\n"
            b"connection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
        )
        transport.write_eof()
        self._head = self.loop.call_later(_LINGER, transport.abort)


def connections(limits: ServeConfig, metrics: Metrics) -> type[Connection]:
    """The class of one server's connections, as uvicorn makes them."""
    own = {"limits": limits, "metrics": metrics, "refused": set()}
    return type("LimitedConnection", (Connection,), own)
