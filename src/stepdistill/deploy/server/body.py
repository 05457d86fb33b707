"""The body of a request, read within its limits, and the moment at which its client leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from starlette.requests import Request

from stepdistill.deploy.server.limits import ServeConfig
from stepdistill.deploy.server.schema import BadRequest

T = TypeVar("T")


class ClientGoneError(Exception):
    """The client has closed its connection; nobody waits for an answer."""


async def body_of(request: Request, limits: ServeConfig) -> bytes:
    """The bytes of a JSON body.

    A body that says its size is refused before it is read, any other as soon as it is too large.

    Raises:
        BadRequest: another content type (415), too large (413), too slow (408).
        ClientGoneError: the client left before they were all there.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        # Also what keeps other sites' pages out: a browser sends them no JSON without asking us first.
        raise BadRequest(415, "send JSON, with the header `Content-Type: application/json`")
    said = request.headers.get("content-length", "0")
    if said.isdecimal() and int(said) > limits.max_body_bytes:
        raise _too_large(limits)
    try:
        async with asyncio.timeout(limits.body_seconds):
            return await _all_of(request, limits)
    except TimeoutError:
        raise BadRequest(408, f"the body was not there after {limits.body_seconds:g} s") from None


async def unless_gone(request: Request, work: Awaitable[T]) -> T:
    """What `work` gives, awaited for as long as the client waits; its body has been read.

    Raises:
        ClientGoneError: it left; `work` was cancelled.
    """
    task, waits = asyncio.current_task(), True

    def left(watch: asyncio.Task[None]) -> None:
        if waits and task and not watch.cancelled():
            task.cancel()

    watch = asyncio.create_task(_gone(request))
    watch.add_done_callback(left)
    try:
        return await work
    except asyncio.CancelledError:
        if task and watch.done() and not watch.cancelled():
            task.uncancel()
            raise ClientGoneError from None
        raise
    finally:
        waits = False
        watch.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _all_of(request: Request, limits: ServeConfig) -> bytes:
    body = bytearray()
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        body += message.get("body", b"")
        if len(body) > limits.max_body_bytes:
            raise _too_large(limits)
        if not message.get("more_body", False):
            return bytes(body)


def _too_large(limits: ServeConfig) -> BadRequest:
    return BadRequest(413, f"the body is larger than {limits.max_body_bytes} bytes; send fewer texts at once")
