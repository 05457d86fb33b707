"""Any OpenAI-compatible endpoint, chat or completions: two small JSON shapes over aiohttp."""

from __future__ import annotations

import json
import ssl
import time
import zlib
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import aiohttp

from stepdistill.config import TeacherConfig
from stepdistill.errors import brief
from stepdistill.teacher.pace import retry_after
from stepdistill.teacher.protocol import Message, Prompt, Reply, Sampling, Work
from stepdistill.teacher.refusal import RefusalError
from stepdistill.teacher.scheduler import Scheduler
from stepdistill.teacher.secret import Secret, find_key

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
PATHS = {"chat": "/chat/completions", "completions": "/completions"}


class OpenAIBackend:
    """Asks an endpoint many prompts at a time."""

    def __init__(self, teacher: TeacherConfig, sampling: Sampling) -> None:
        self._teacher = teacher
        self._endpoint = OpenAIEndpoint(teacher, sampling)

    def answer(self, work: Work) -> None:
        """Answer all of `work`; raises as `Scheduler.run`."""
        Scheduler(self._endpoint, self._teacher.limits, work).run()


class OpenAIEndpoint:
    """One endpoint with one model and one way of sampling."""

    def __init__(self, teacher: TeacherConfig, sampling: Sampling) -> None:
        self._teacher = teacher
        self._key = find_key(teacher)
        self._url = address(teacher.base_url, PATHS[teacher.api])
        self._body = Body(teacher, sampling)
        self._session: aiohttp.ClientSession | None = None

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
        start = time.monotonic()
        try:
            async with self._session.post(
                self._url, data=self._body.of(prompt), allow_redirects=False
            ) as response:
                raw = await read_body(response)
                headers = response.headers
                status = response.status
        except RefusalError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a transport raises, its text holds the key
            raise broken(error) from None
        if status != 200:
            raise refused(self._teacher, self._key, self._url, status, headers, raw)
        return read_reply(raw, self._teacher, time.monotonic() - start)


class Body:
    """Makes request bodies; what all prompts share is encoded once."""

    def __init__(self, teacher: TeacherConfig, sampling: Sampling) -> None:
        fields: dict[str, Any] = {"model": teacher.model, teacher.token_field: sampling.max_tokens}
        # What equals the API's default is left out: some models refuse to be told it.
        if sampling.temperature != 1:
            fields["temperature"] = sampling.temperature
        if sampling.top_p != 1:
            fields["top_p"] = sampling.top_p
        if sampling.stop:
            fields["stop"] = list(sampling.stop)
        fields |= teacher.extra
        self._is_chat = teacher.api == "chat"
        opening = '"messages": [' if self._is_chat else '"prompt": "'
        self._start = f"{json.dumps(fields)[:-1]}, {opening}".encode()
        self._end = b"]}" if self._is_chat else b'"}'
        self._joined = teacher.style == "text" and self._is_chat
        self._head: tuple[Message, ...] | None = None
        self._encoded = b""

    def of(self, prompt: Prompt) -> bytes:
        """The JSON body of a request."""
        if self._joined:
            return self._start + _messages((Message("user", prompt.text),)) + self._end
        if prompt.head is not self._head:
            self._head, self._encoded = prompt.head, self._encode(prompt.head)
        between = b", " if self._is_chat and prompt.head and prompt.tail else b""
        return b"".join((self._start, self._encoded, between, self._encode(prompt.tail), self._end))

    def _encode(self, messages: tuple[Message, ...]) -> bytes:
        if self._is_chat:
            return _messages(messages)
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
    said, code = _error_words(raw)
    detail = key.hide(f"{status}{f' ({said})' if said else ''}")
    wait = retry_after(headers)
    if status == 429:
        if code == "insufficient_quota":
            return RefusalError("the account's quota is used up", detail, fatal=True)
        return RefusalError("too many requests", detail, wait, haste=True)
    if status in PERMANENT:
        variable = teacher.key_variable
        where = f"{url} says {detail}" + (f"; the key is from {variable}" if variable else "")
        return RefusalError(PERMANENT[status], where, fatal=True)
    if 300 <= status < 400:
        return RefusalError("the endpoint redirects, which is not followed", url, fatal=True)
    if status in TRANSIENT or status >= 500:
        return RefusalError("server error", detail, wait)
    return RefusalError("refused by the server", detail, hopeless=True)


def address(base_url: str, path: str) -> str:
    """The address of a path below a base URL; a query (Azure's api-version) stays behind it.

    >>> address("https://x.azure.com/openai/?api-version=1", "/chat/completions")
    'https://x.azure.com/openai/chat/completions?api-version=1'
    """
    parts = urlsplit(base_url)
    return urlunsplit(parts._replace(path=parts.path.rstrip("/") + path, fragment=""))


def _messages(messages: tuple[Message, ...]) -> bytes:
    return ", ".join(json.dumps({"role": m.role, "content": m.content}) for m in messages).encode()


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


def read_reply(raw: bytes, teacher: TeacherConfig, seconds: float) -> Reply:
    """The answer in a body; anything that is not exactly one is refused, never guessed."""
    try:
        body = json.loads(raw)
        choice = body["choices"][0]
        text = choice["message"]["content"] if teacher.api == "chat" else choice["text"]
        finish = choice.get("finish_reason")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        what = brief(raw[:60].decode("utf-8", "replace"))
        raise RefusalError("malformed reply", f"no answer in {what}", maybe_paid=True) from None
    if isinstance(text, list):  # parts of text, as some servers give
        text = "".join(str(p.get("text", "")) for p in text if isinstance(p, dict))
    if text is not None and not isinstance(text, str):
        raise RefusalError("malformed reply", f"the answer is {brief(text)}", maybe_paid=True)
    usage = body.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    details = usage.get("prompt_tokens_details")
    return Reply(
        text=text or "",
        finish=finish if isinstance(finish, str) and finish else "unknown",
        model=str(body.get("model") or teacher.model),
        prompt_tokens=_count(usage.get("prompt_tokens")),
        completion_tokens=_count(usage.get("completion_tokens")),
        cached_tokens=_count(details.get("cached_tokens")) if isinstance(details, dict) else None,
        seconds=seconds,
    )


def _count(value: object) -> int | None:
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**40
    return value if is_count else None  # type: ignore[return-value]


def _error_words(raw: bytes) -> tuple[str, str]:
    """What an error body says, shortened to one line, and its code."""
    try:
        found = json.loads(raw)
        found = found.get("error", found)
        words = found.get("message") or found.get("detail") or "" if isinstance(found, dict) else found
        code = str(found.get("code") or found.get("type") or "") if isinstance(found, dict) else ""
    except (ValueError, AttributeError, RecursionError):
        return "", ""
    return " ".join(str(words).split())[:200], code


def broken(error: Exception) -> RefusalError:
    """A transport's error in our own words; its own are not safe to show."""
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return RefusalError("no connection", "no answer to the attempt to connect")
    if isinstance(error, TimeoutError):
        return RefusalError("no reply in time", maybe_paid=True)
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientSSLError | ssl.SSLError):
        return RefusalError("the endpoint's certificate is not trusted", type(error).__name__, fatal=True)
    if isinstance(error, aiohttp.ClientConnectorError):
        return RefusalError("no connection", error.os_error.strerror or type(error.os_error).__name__)
    if isinstance(error, aiohttp.InvalidURL | aiohttp.NonHttpUrlClientError):
        return RefusalError("the address cannot be used", "check teacher.base_url", fatal=True)
    return RefusalError("connection lost", type(error).__name__, maybe_paid=True)
