"""The requests of the batch protocol: files up and down in pieces, batches made, looked for and polled."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import IO, Any

import aiohttp

from stepdistill.config import TeacherConfig
from stepdistill.errors import TeacherError, brief
from stepdistill.teacher.openai import (
    MOST_BYTES,
    PATHS,
    PERMANENT,
    address,
    broken,
    open_session,
    read_body,
    refused,
)
from stepdistill.teacher.protocol import Reply
from stepdistill.teacher.refusal import RefusalError
from stepdistill.teacher.reply import understood
from stepdistill.teacher.scheduler import LONGEST
from stepdistill.teacher.secret import find_key

MARK = "stepdistill"
"""Name of the metadata field that holds our own name of a batch."""
HOUR = 3600.0
"""Seconds for a whole file, up or down; while it comes, no pause is longer than the usual deadline."""
PIECE = 1 << 16
Object = dict[str, Any]


class BatchFiles:
    """The batch routes of one endpoint; used within `async with`.

    All methods raise TeacherError where the endpoint refuses for good or fails again and again.
    """

    def __init__(self, teacher: TeacherConfig) -> None:
        self._teacher, self._limits = teacher, teacher.limits
        self._key = find_key(teacher)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> BatchFiles:
        self._session = open_session(self._teacher, self._key, {})
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def upload(self, file: IO[bytes]) -> str:
        """Send a file of requests in pieces; returns its id there."""

        async def once() -> Object:
            form = aiohttp.FormData()
            form.add_field("purpose", "batch")
            file.seek(0)
            again = os.fdopen(os.dup(file.fileno()), "rb")  # aiohttp closes what it has sent
            form.add_field("file", again, filename="requests.jsonl", content_type="application/jsonl")
            with again:
                return await self._ask("POST", "/files", data=form, timeout=self._long())

        return self._id(await self._patiently(once))

    async def create(self, file_id: str, name: str, unless: Callable[[], Awaitable[Object | None]]) -> Object:
        """Start a batch; whether a lost reply has started it is looked up with `unless` before a repeat."""
        lost = False

        async def once() -> Object:
            nonlocal lost
            if lost and (found := await unless()):
                return found
            wanted = {
                "input_file_id": file_id,
                "endpoint": f"/v1{PATHS[self._teacher.api]}",
                "completion_window": "24h",
                "metadata": {MARK: name},
            }
            lost = True
            return await self._ask("POST", "/batches", json=wanted)

        made = await self._patiently(once)
        self._id(made)
        return made

    async def find(self, name: str, file_id: str) -> Object | None:
        """The batch of that name, or of that file where a server drops metadata; None if there is none."""
        after: str | None = None
        while True:
            params = {"limit": "100"} | ({"after": after} if after else {})
            page = await self._patiently(partial(self._ask, "GET", "/batches", params=params))
            rows = page.get("data")
            rows = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
            for row in rows:
                marks = row.get("metadata")
                marked = isinstance(marks, dict) and marks.get(MARK) == name
                if (marked or row.get("input_file_id") == file_id) and isinstance(row.get("id"), str):
                    found: Object = row
                    return found
            last = rows[-1].get("id") if rows else None
            if not page.get("has_more") or not isinstance(last, str) or last == after:
                return None
            after = last

    async def look(self, batch_id: str) -> Object | None:
        """How a batch stands; None where the endpoint does not know it any more."""
        try:
            return await self._patiently(partial(self._ask, "GET", f"/batches/{batch_id}"))
        except _GoneError:
            return None

    async def lines(self, file_id: str) -> AsyncIterator[bytes]:
        """The lines of a file as they come; none where the endpoint does not have the file any more.

        A line that is longer than a reply may be comes as an empty one.

        Raises:
            RefusalError: the transfer broke off, or the endpoint is busy; another attempt may do better.
        """
        assert self._session is not None
        url = address(self._teacher.base_url, f"/files/{file_id}/content")
        try:
            async with self._session.get(url, allow_redirects=False, timeout=self._long()) as response:
                if response.status == 404:
                    return
                await self._check(url, response)
                if response.headers.get("Content-Encoding", "identity").lower() not in ("identity", ""):
                    raise RefusalError("malformed reply", "the file is compressed", fatal=True)
                async for line in _lines(response.content.iter_chunked(PIECE)):
                    yield line
        except RefusalError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a transport raises, its text holds the key
            raise broken(error) from None

    async def rest(self, refusal: RefusalError, number: int) -> None:
        """Wait before another attempt, as long as the server asks.

        Raises:
            TeacherError: another attempt makes no sense.
        """
        limits = self._limits
        if refusal.reason == PERMANENT[404]:
            raise _GoneError(_final(refusal))
        if refusal.fatal or refusal.hopeless or number >= limits.retries:
            raise TeacherError(_final(refusal))
        own = min(LONGEST, 0.5 * 2**number) * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
        if refusal.wait is not None and refusal.wait > limits.max_wait_seconds:
            raise TeacherError(
                f"the server asks to wait {refusal.wait:,.0f} s, more than limits.max_wait_seconds "
                f"{limits.max_wait_seconds:g}; run the same command later to go on"
            )
        await asyncio.sleep(own if refusal.wait is None else refusal.wait + 0.01 * own)

    async def _patiently(self, once: Callable[[], Awaitable[Object]]) -> Object:
        for number in itertools.count():
            try:
                return await once()
            except RefusalError as refusal:
                await self.rest(refusal, number)
        raise AssertionError

    async def _ask(self, method: str, path: str, **more: Any) -> Object:
        assert self._session is not None
        url = address(self._teacher.base_url, path)
        try:
            async with self._session.request(method, url, allow_redirects=False, **more) as response:
                await self._check(url, response)
                raw = await read_body(response)
        except RefusalError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a transport raises, its text holds the key
            raise broken(error) from None
        try:
            found = json.loads(raw)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            what = brief(self.hide(raw[:1000].decode("utf-8", "replace")))
            raise RefusalError("malformed reply", f"no JSON object in {what}")
        return found

    async def _check(self, url: str, response: aiohttp.ClientResponse) -> None:
        if response.status not in (200, 201):
            raw = await read_body(response)
            raise refused(self._teacher, self._key, url, response.status, response.headers, raw)

    def _id(self, found: Object) -> str:
        if not isinstance(found.get("id"), str) or not found["id"]:
            what = brief(self.hide(json.dumps(found)))
            raise TeacherError(f"the endpoint does not keep to the batch protocol: there is no id in {what}")
        return str(found["id"])

    def hide(self, text: str) -> str:
        """The text without the key, should a server have said it back."""
        return self._key.hide(text)

    def reply(self, raw: bytes) -> Reply:
        """The answer in the body of one line of results; raises RefusalError where there is none."""
        return understood(raw, self._teacher, self._key, 0.0)

    def failed(self, status: object, raw: bytes) -> RefusalError:
        """What the status of one line of results means."""
        number = status if isinstance(status, int) else 400
        return refused(self._teacher, self._key, "the batch", number, {}, raw)

    def _long(self) -> aiohttp.ClientTimeout:
        seconds = self._limits.timeout_seconds
        connect = min(10.0, seconds)
        return aiohttp.ClientTimeout(total=max(HOUR, seconds), sock_connect=connect, sock_read=seconds)


class _GoneError(TeacherError):
    """The endpoint does not know what was asked for."""


def _final(refusal: RefusalError) -> str:
    return f"{refusal}; what was submitted is noted. Mend it, then run the same command to go on"


async def _lines(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Lines out of pieces, each held whole; one that grows too long is passed over as an empty one."""
    rest, too_long = bytearray(), False
    async for piece in pieces:
        first, *others = piece.split(b"\n")
        for part in [first, *others[:-1]] if others else []:
            rest += part
            yield b"" if too_long or len(rest) > MOST_BYTES else bytes(rest)
            rest, too_long = bytearray(), False
        rest += others[-1] if others else first
        if len(rest) > MOST_BYTES:
            rest, too_long = bytearray(), True
    if rest or too_long:
        yield b"" if too_long else bytes(rest)
