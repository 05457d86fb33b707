"""Any OpenAI-compatible endpoint, chat or completions: two small JSON shapes over aiohttp."""

from __future__ import annotations

import json
import socket
import time
import zlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import aiohttp

from stepdistill.config import TeacherConfig
from stepdistill.errors import ConfigError, brief
from stepdistill.teacher.pace import retry_after
from stepdistill.teacher.protocol import Message, Prompt, Reply, Sampling, Work
from stepdistill.teacher.refusal import RefusalError
from stepdistill.teacher.reply import understood
from stepdistill.teacher.scheduler import Scheduler
from stepdistill.teacher.secret import Secret, find_key, is_openai

MOST_BYTES = 8 << 20
"""A reply that is longer is no answer to a prompt; it is not read to its end."""
PERMANENT = {
    401: "the endpoint refuses the key",
    402: "the endpoint wants to be paid first",
    403: "the endpoint forbids this",
    404: "the endpoint has no such model or address",
    405: "the endpoint does not take such requests",
}
TRANSIENT = (408, 409, 425, 500, 502, 503, 504, 520, 522, 524, 529)
JSON = {"Content-Type": "application/json"}
NO_CONNECTION = "no connection"
STARTING = 5.0
"""Seconds for a server that is just being started; after them, an address without one is an error."""
PATHS = {"chat": "/chat/completions", "completions": "/completions"}


class OpenAIBackend:
    """Asks an endpoint many prompts at a time; after `seconds`, if given, nothing more is sent."""

    def __init__(self, teacher: TeacherConfig, sampling: Sampling, seconds: float | None = None) -> None:
        self._teacher, self._seconds = teacher, seconds
        self._endpoint = OpenAIEndpoint(teacher, sampling)

    def answer(self, work: Work) -> None:
        """Answer all of `work`; raises as `Scheduler.run`."""
        Scheduler(self._endpoint, self._teacher.limits, work, seconds=self._seconds).run()


class OpenAIEndpoint:
    """One endpoint with one model and one way of sampling.

    Raises:
        ConfigError: no key where one is needed, or an address that cannot be one.
    """

    def __init__(self, teacher: TeacherConfig, sampling: Sampling) -> None:
        self._teacher = teacher
        self._key = find_key(teacher)
        self._url = address(teacher.base_url, PATHS[teacher.api])
        self._body = Body(teacher, sampling)
        self._session: aiohttp.ClientSession | None = None
        self._reached = False
        self._missed_at = 0.0

    async def open(self) -> None:
        """Open the session."""
        self._session = open_session(self._teacher, self._key, JSON)

    async def close(self) -> None:
        """Close the session."""
        if self._session is not None:
            await self._session.close()

    async def ask(self, prompt: Prompt) -> Reply:
        """Answer one prompt.

        Raises:
            RefusalError: anything but a well-formed answer. aiohttp's own errors do not leave this
                place: their text carries the request's headers, and so the key.
        """
        assert self._session is not None
        body, start = self._body.of(prompt), time.monotonic()
        try:
            async with self._session.post(self._url, data=body, allow_redirects=False) as response:
                self._reached = True
                raw = await read_body(response)
        except RefusalError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a transport raises, its text holds the key
            refusal = self._missed(broken(error, self._reached))
        else:
            if response.status == 200:
                return understood(raw, self._teacher, self._key, time.monotonic() - start)
            given = (response.status, response.headers, raw)
            refusal = refused(self._teacher, self._key, self._url, *given)
        raise refusal  # out here, where the transport's error is not dragged along as the context

    def _missed(self, refusal: RefusalError) -> RefusalError:
        """The same with the address; an address that nobody has ever answered at is soon given up."""
        if refusal.reason == NO_CONNECTION:
            now = time.monotonic()
            self._missed_at = self._missed_at or now
            late = not self._reached and now - self._missed_at > STARTING
            refusal = replace(refusal, detail=f"{self._url}: {refusal.detail}", fatal=refusal.fatal or late)
        return refusal


class Body:
    """Makes request bodies; what all prompts share is encoded once."""

    def __init__(self, teacher: TeacherConfig, sampling: Sampling) -> None:
        fields: dict[str, Any] = {"model": teacher.model, teacher.token_field: sampling.max_tokens}
        # OpenAI's newer models refuse to be told the default; other servers have defaults of their own.
        told = not is_openai(teacher.base_url)
        if told or sampling.temperature != 1:
            fields["temperature"] = sampling.temperature
        if told or sampling.top_p != 1:
            fields["top_p"] = sampling.top_p
        if sampling.stop:
            fields["stop"] = list(sampling.stop)
        fields |= teacher.extra
        self._has_turns = teacher.style == "chat"
        opening, self._end = '"prompt": "', b'"}'
        if self._has_turns:
            opening, self._end = '"messages": [', b"]}"
        elif teacher.api == "chat":
            opening, self._end = '"messages": [{"role": "user", "content": "', b'"}]}'
        self._start = f"{json.dumps(fields)[:-1]}, {opening}".encode()
        self._head: tuple[Message, ...] | None = None
        self._encoded = b""

    def of(self, prompt: Prompt) -> bytes:
        """The JSON body of a request."""
        if prompt.head is not self._head:
            self._head, self._encoded = prompt.head, self._encode(prompt.head)
        between = b", " if self._has_turns and prompt.head and prompt.tail else b""
        return b"".join((self._start, self._encoded, between, self._encode(prompt.tail), self._end))

    def _encode(self, messages: tuple[Message, ...]) -> bytes:
        if self._has_turns:
            return ", ".join(json.dumps({"role": m.role, "content": m.content}) for m in messages).encode()
        return b"".join(json.dumps(message.content)[1:-1].encode() for message in messages)


def open_session(teacher: TeacherConfig, key: Secret, headers: Mapping[str, str]) -> aiohttp.ClientSession:
    """A session with the key: no proxy or netrc of the environment, no cookies, no compression."""
    seconds = teacher.limits.timeout_seconds
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=seconds, sock_connect=min(10.0, seconds)),
        headers={
            **key.headers(teacher.key_header),
            **headers,
            "Accept-Encoding": "identity",
            "User-Agent": "stepdistill",
        },
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
    )


def refused(
    teacher: TeacherConfig, key: Secret, url: str, status: int, headers: Mapping[str, str], raw: bytes
) -> RefusalError:
    """What a status other than 200 means."""
    words, code = _error_words(raw)
    said = key.hide(words)[:200]  # hidden first: a cut would leave a part of it
    detail = f"{status} ({said})" if said else str(status)
    wait = retry_after(headers)
    if status == 429:
        if code == "insufficient_quota":
            return RefusalError("the account's quota is used up", detail, fatal=True)
        return RefusalError("too many requests", detail, wait, haste=True)
    where = f"{url} says {detail}"
    if status in PERMANENT:
        if teacher.key_variable and status in (401, 403):
            where += f"; the key is from {teacher.key_variable}"
        return RefusalError(PERMANENT[status], where, fatal=True)
    if 300 <= status < 400:
        return RefusalError("the endpoint redirects, which is not followed", where, fatal=True)
    if status in TRANSIENT or status >= 500:
        return RefusalError("server error", detail, wait)
    return RefusalError("refused by the server", detail, hopeless=True)


def address(base_url: str, path: str) -> str:
    """The address of a path below a base URL; a query (Azure's api-version) stays behind it.

    >>> address("https://x.azure.com/openai/?api-version=1", "/chat/completions")
    'https://x.azure.com/openai/chat/completions?api-version=1'

    Raises:
        ConfigError: the base URL cannot be one.
    """
    parts = urlsplit(base_url)
    try:
        _ = parts.port
    except ValueError as error:
        raise ConfigError(
            f"teacher.base_url: {brief(base_url)} is not an address ({error}); write it as https://host/v1"
        ) from None
    return urlunsplit(parts._replace(path=parts.path.rstrip("/") + path, fragment=""))


async def read_body(response: aiohttp.ClientResponse) -> bytes:
    """The body, bounded, and unpacked where a server compresses it all the same."""
    pieces, size = [], 0
    async for piece in response.content.iter_any():
        size += len(piece)
        if size > MOST_BYTES:
            raise RefusalError("malformed reply", f"longer than {MOST_BYTES:,} bytes", maybe_paid=True)
        pieces.append(piece)
    raw = b"".join(pieces)
    packed = response.headers.get("Content-Encoding", "identity").lower()
    if packed in ("identity", ""):
        return raw
    if packed not in ("gzip", "deflate"):
        raise RefusalError("malformed reply", f"compressed as {brief(packed)}", maybe_paid=True)
    try:
        unpacker = zlib.decompressobj(wbits=47)
        plain = unpacker.decompress(raw, MOST_BYTES)
    except zlib.error:
        raise RefusalError("malformed reply", "broken compression", maybe_paid=True) from None
    if unpacker.unconsumed_tail:
        raise RefusalError("malformed reply", f"longer than {MOST_BYTES:,} bytes", maybe_paid=True)
    return plain


def _error_words(raw: bytes) -> tuple[str, str]:
    """What an error body says, shortened to one line, and its code."""
    try:
        found = json.loads(raw)
        found = found.get("error", found)
        if not isinstance(found, dict):
            return str(found or ""), ""
        words = found.get("message") or found.get("detail") or ""
        code = str(found.get("code") or found.get("type") or "")
    except (ValueError, AttributeError, RecursionError):
        return "", ""
    return " ".join(str(words).split()), code


def broken(error: Exception, reached: bool = True) -> RefusalError:
    """A transport's error in our own words; its own are not safe to show."""
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return RefusalError(NO_CONNECTION, "no answer to the attempt to connect")
    if isinstance(error, TimeoutError):
        return RefusalError("no reply in time", maybe_paid=True)
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        why = getattr(error.certificate_error, "verify_message", "") or "check teacher.base_url"
        return RefusalError("the endpoint's certificate is not trusted", why, fatal=True)
    if isinstance(error, aiohttp.ClientConnectorError):
        cause = error.os_error
        unknown = isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_NONAME
        why = getattr(cause, "reason", None) or cause.strerror or type(cause).__name__
        # A name that was never found is a slip of the pen; one that was found is a network that is away.
        return RefusalError(NO_CONNECTION, str(why), fatal=unknown and not reached)
    if isinstance(error, aiohttp.InvalidURL | aiohttp.NonHttpUrlClientError):
        return RefusalError("the address cannot be used", "check teacher.base_url", fatal=True)
    return RefusalError("connection lost", type(error).__name__, maybe_paid=True)
