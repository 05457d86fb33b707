"""What every request passes first: counting, the host's name, the key, and the last word on a crash.

Plain ASGI: Starlette's `BaseHTTPMiddleware` runs every request in a task of its own, which costs about as
much as the rest of the server.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import MutableMapping
from typing import Any

from pydantic_core import to_json
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stepdistill.deploy.server.keys import VARIABLE, Key, names_loopback
from stepdistill.deploy.server.metrics import Metrics

OPEN = ("/", "/docs", "/healthz", "/openapi.json", "/readyz")
"""Paths that need no key: they tell nothing of the data and cost nothing."""
KEYED = ("/metrics", "/v1/explain", "/v1/model", "/v1/predict")
_log = logging.getLogger(__name__)


class Door:
    """The outermost application.

    Args:
        app: what lies behind.
        key: what clients must bring; None: nobody is asked, and the host must be this machine by name.
        metrics: told of every request.
    """

    def __init__(self, app: ASGIApp, key: Key | None, metrics: Metrics) -> None:
        self.app = app
        self.key = key
        self.metrics = metrics
        self.closing = False
        """Whether connections end with their next response, so that clients turn to another server."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        begun, status = time.perf_counter(), 0

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *self._headers()]
            await send(message)

        try:
            if refusal := self._refusal(scope):
                await _refuse(sent, *refusal)
            else:
                await self.app(_read(scope), receive, sent)
        except Exception as error:  # noqa: BLE001 - uvicorn would log its message, which may quote a text
            _log.error(
                "%s in %s\n%s",
                type(error).__name__,
                _named(scope),
                "".join(traceback.format_tb(error.__traceback__)),
            )
            if not status:
                await _refuse(sent, 500, "the server failed; its log says where")
        finally:
            self.metrics.request(_named(scope), status or 499, time.perf_counter() - begun)

    def _headers(self) -> list[tuple[bytes, bytes]]:
        headers = [(b"x-content-type-options", b"nosniff")]
        return [*headers, (b"connection", b"close")] if self.closing else headers

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        if self.key is None:
            hosts = [value for name, value in scope["headers"] if name == b"host"]
            if not all(names_loopback(host) for host in hosts):
                return 421, "without a key this server answers to localhost and 127.0.0.1 alone"
        elif scope["path"] not in OPEN and not self.key.opens(scope["headers"]):
            return (
                401,
                f"the key is missing or wrong; send the server's {VARIABLE} as `Authorization: Bearer KEY`",
            )
        return None


def _read(scope: Scope) -> Scope:
    """HEAD of a page is answered as GET; uvicorn, which keeps its own scope, leaves the body out."""
    head = scope["method"] == "HEAD" and scope["path"] in OPEN
    return {**scope, "method": "GET"} if head else scope


def _named(scope: MutableMapping[str, Any]) -> str:
    # Paths that clients make up would make a count each, without end.
    path: str = scope["path"]
    return path if path in OPEN or path in KEYED else "other"


async def _refuse(send: Send, status: int, reason: str) -> None:
    body = to_json({"error": reason})
    # Its length, or the server would send it in chunks.
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if status == 401:
        headers.append((b"www-authenticate", b'Bearer realm="stepdistill"'))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
