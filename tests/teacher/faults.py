"""Ways in which a language model's server can fail, and the plan of who meets which of them when."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

Completion = dict[str, Any]
HOSTILE = (
    "\x1b]0;owned\x07\x1b[2J\x1b[31mBecause\x1b[0m {0.__class__} %s %n ${jndi:ldap://x} ../../etc/passwd "
    "<script>alert(1)</script> __import__('os').system('true') 9**9**9 So the answer is [bold]yes[/bold]."
)
_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode
PHRASES = {400: "Bad Request", 401: "Unauthorized", 429: "Too Many Requests", 500: "Internal Server Error"}
GARBAGE = b'{"choices": [{"message": {"content": "\xff\xfe\xc3\x28\x80 \xf0\x28\x8c\xbc"}}]}'


@dataclass(slots=True)
class Reply:
    """One HTTP reply; `chunked` sends it without saying its length."""

    status: int
    body: bytes
    type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    chunked: bool = False

    def head(self) -> bytes:
        """Status line and headers."""
        length = "Transfer-Encoding: chunked" if self.chunked else f"Content-Length: {len(self.body)}"
        extra = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
        phrase = PHRASES.get(self.status, "OK" if self.status == 200 else "Other")
        start = f"HTTP/1.1 {self.status} {phrase}\r\nContent-Type: {self.type}\r\n{length}\r\n{extra}\r\n"
        return start.encode("latin-1")

    def payload(self) -> bytes:
        """What follows the headers."""
        if not self.chunked:
            return self.body
        return b"%x\r\n%b\r\n0\r\n\r\n" % (len(self.body), self.body)


def as_reply(value: object, status: int = 200) -> Reply:
    """A JSON reply."""
    return Reply(status, json.dumps(value).encode())


def error_reply(status: int, message: str, code: str | None = None) -> Reply:
    """A reply with an error as OpenAI-compatible servers word it."""
    error = {"message": message, "type": code or "error", "param": None, "code": code}
    return as_reply({"error": error}, status)


@dataclass(frozen=True)
class Fault:
    """One rule of a plan: which requests fail, and how. The first rule that hits a request decides.

    Attributes:
        kind: one of `KINDS`.
        share: share of the requests that are hit; drawn from the seed, the prompt and its attempt number.
        times: only the first so many attempts of a prompt can be hit; None: all.
        match: only prompts which contain this.
        after: only once so many requests have come in altogether.
        most: at most so many hits altogether; None: no limit.
        path: only requests whose path contains this.
        status, retry_after, headers, body: of kind `status`; None as `body`: what such a server says.
        text: the answer of kind `text`.
        seconds: delay of kind `late`, or between two bytes of kind `slow`.
        size: bytes of the kinds `huge`, `huge-chunked` and (unpacked) `gzip-bomb`.
        location: where kind `redirect` points to.
    """

    kind: str
    share: float = 1.0
    times: int | None = None
    match: str = ""
    after: int = 0
    most: int | None = None
    path: str = "completions"
    status: int = 500
    retry_after: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: str | None = None
    text: str = HOSTILE
    seconds: float = 1.0
    size: int = 50_000_000
    location: str = "http://localhost:9/v1/chat/completions"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"no fault is called '{self.kind}'; there are {', '.join(sorted(KINDS))}")


class Plan:
    """Chooses the fault of a request: the same one for the same seed, prompt and attempt."""

    def __init__(self, faults: Sequence[Fault], seed: int = 0) -> None:
        self.faults, self.seed = list(faults), seed
        self._attempts: dict[str, int] = {}
        self._hits = [0] * len(self.faults)

    def choose(self, path: str, prompt: str, key: str, number: int) -> Fault | None:
        """The fault for the `number`-th request (from 1) altogether, or None."""
        attempt = self._attempts[key] = self._attempts.get(key, 0) + 1
        for index, fault in enumerate(self.faults):
            if number <= fault.after or fault.path not in path or fault.match not in prompt:
                continue
            if fault.times is not None and attempt > fault.times:
                continue
            if fault.most is not None and self._hits[index] >= fault.most:
                continue
            if fault.share < 1 and self._draw(index, key, attempt) >= fault.share:
                continue
            self._hits[index] += 1
            return fault
        return None

    def _draw(self, index: int, key: str, attempt: int) -> float:
        told = f"{self.seed}:{index}:{key}:{attempt}".encode()
        return int.from_bytes(hashlib.blake2b(told, digest_size=8).digest(), "big") / 2**64


def _status(fault: Fault) -> Reply:
    headers = dict(fault.headers)
    if fault.retry_after is not None:
        headers["Retry-After"] = fault.retry_after
    if fault.body is not None:
        return Reply(fault.status, fault.body.encode(), headers=headers)
    if fault.status in (502, 503):
        page = f"<html><head><title>{fault.status}</title></head><body>nginx</body></html>"
        return Reply(fault.status, page.encode(), "text/html", headers)
    return replace(error_reply(fault.status, f"planned {fault.status}"), headers=headers)


def _quota(fault: Fault) -> Reply:
    words = "You exceeded your current quota, please check your plan and billing details."
    return replace(error_reply(429, words, "insufficient_quota"), headers=dict(fault.headers))


def _redirect(fault: Fault) -> Reply:
    status = fault.status if 300 <= fault.status < 400 else 302
    return Reply(status, b"", "text/plain", {"Location": fault.location, **fault.headers})


def _content(completion: Completion, value: object) -> Completion:
    choice = completion["choices"][0]
    if "message" in choice:
        choice["message"]["content"] = value
    else:
        choice["text"] = value
    return completion


def _words(completion: Completion) -> str:
    choice = completion["choices"][0]
    return str(choice["message"]["content"] if "message" in choice else choice["text"])


def _finish(completion: Completion, reason: str, value: str | None) -> Completion:
    completion["choices"][0]["finish_reason"] = reason
    return _content(completion, value)


def _without(completion: Completion, name: str) -> Completion:
    return {key: value for key, value in completion.items() if key != name}


@lru_cache(maxsize=2)
def _huge(size: int) -> bytes:
    message = {"role": "assistant", "content": "x" * size}
    return json.dumps({"choices": [{"message": message, "text": "x", "finish_reason": "stop"}]}).encode()


@lru_cache(maxsize=2)
def _bomb(size: int) -> bytes:
    return gzip.compress(_huge(size), 9)


INSTEAD: dict[str, Callable[[Fault], Reply]] = {"status": _status, "quota": _quota, "redirect": _redirect}
"""Said instead of an answer: nothing is done and nothing is paid."""

EDITS: dict[str, Callable[[Fault, Completion], Completion]] = {
    "empty-choices": lambda _, found: {**found, "choices": []},
    "no-choices": lambda _, found: _without(found, "choices"),
    "null-content": lambda _, found: _content(found, None),
    "odd-content": lambda _, found: _content(found, [{"type": "text", "text": {"a": 1}}]),
    "content-filter": lambda _, found: _finish(found, "content_filter", None),
    "length": lambda _, found: _finish(found, "length", _words(found)[: len(_words(found)) // 2]),
    "surrogate": lambda _, found: _content(found, "\ud800 " + _words(found)),
    "nul": lambda _, found: _content(found, "\0" + _words(found)),
    "text": lambda fault, found: _content(found, fault.text),
    "no-usage": lambda _, found: _without(found, "usage"),
}
"""What the JSON says is changed; for completions only."""

SPOILS: dict[str, Callable[[Fault, Reply], Reply]] = {
    "truncated-json": lambda _, reply: replace(reply, body=reply.body[: len(reply.body) // 2]),
    "wrong-type": lambda _, reply: Reply(200, b"<html><body>Sign in</body></html>", "text/html"),
    "garbage-utf8": lambda _, reply: replace(reply, body=GARBAGE),
    "huge": lambda fault, _: Reply(200, _huge(fault.size)),
    "huge-chunked": lambda fault, _: Reply(200, _huge(fault.size), chunked=True),
    "gzip-bomb": lambda fault, _: Reply(200, _bomb(fault.size), headers={"Content-Encoding": "gzip"}),
}
"""The reply's bytes are changed."""

DELIVERIES = frozenset({"reset", "close", "reset-mid-body", "close-mid-body", "slow", "never", "late"})
"""The reply is made and takes effect, but does not get through, or not soon."""

KINDS = frozenset({*INSTEAD, *EDITS, *SPOILS, *DELIVERIES})
UNSENT = frozenset({"reset", "close", "never"})
"""Kinds without any reply."""
UNPAID = UNSENT | INSTEAD.keys()
"""Kinds that do not count as an answer that is paid for."""
WHOLE = frozenset({"late", "text", "no-usage", "length"})
"""Kinds whose answer is whole and of use; every other paid kind counts as spoiled too."""


def prompt_text(body: Completion) -> str:
    """All words of a request's prompt."""
    if "messages" not in body:
        return str(body["prompt"])
    return "".join(str(message["content"]) for message in body["messages"])


def prompt_hash(body: Completion) -> str:
    """SHA-256 in hex of the messages as canonical JSON (ASCII, no spaces), or of the prompt's text."""
    text = _canonical(body["messages"]) if "messages" in body else str(body["prompt"])
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


Prompted = list[dict[str, Any]] | str
Answer = Callable[[Prompted, int | None], str]


def echo(labels: Sequence[str] = (), size: int = 0) -> Answer:
    """An answerer that names the hash of the last user message, so that a swapped answer shows.

    The label, or a number below 100 where there are no labels, follows from the hash; `size` is the
    least number of bytes.
    """

    def answer(prompt: Prompted, max_tokens: int | None = None) -> str:
        if not isinstance(prompt, str):
            prompt = next((str(m["content"]) for m in reversed(prompt) if m["role"] == "user"), "")
        name = hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest()[:12]
        number = int(name[:6], 16)
        label = labels[number % len(labels)] if labels else str(number % 100)
        start, end = f"Because of {name}.", f" So the answer is {label}."
        return start + " so" * -(-max(0, size - len(start) - len(end)) // 3) + end

    return answer


def complete(body: Completion, answer: Answer) -> Completion:
    """The completion of a request, cut at `max_tokens` (four characters each)."""
    limit = body.get("max_tokens", body.get("max_completion_tokens"))
    chat = "messages" in body
    text, reason = answer(body["messages"] if chat else body["prompt"], limit), "stop"
    used = len(text) // 4 + 1
    if limit is not None and used > limit:
        text, reason, used = text[: limit * 4], "length", limit
    asked = len(prompt_text(body).encode("utf-8", "surrogatepass")) // 4 + 1
    said: Completion = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
    return {
        "id": "cmpl-1",
        "object": "chat.completion" if chat else "text_completion",
        "created": 0,
        "model": body.get("model", "faulty"),
        "choices": [{"index": 0, **said, "finish_reason": reason}],
        "usage": {"prompt_tokens": asked, "completion_tokens": used, "total_tokens": asked + used},
    }
