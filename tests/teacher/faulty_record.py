"""What a fake server counts, and the token bucket by which it grants requests."""

from __future__ import annotations

import math
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any, Literal

Asked = Literal["ceil", "exact", "none"]


class Bucket:
    """A strict token bucket: `rate` tokens a second, at most `burst` kept; full at the first request."""

    def __init__(self, rate: float, burst: float) -> None:
        self.rate, self.burst = rate, burst
        self._tokens, self._at = burst, 0.0

    def take(self, now: float) -> float:
        """Take a token and return 0, or return the seconds until there is one."""
        self._tokens = min(self.burst, self._tokens + (now - self._at) * self.rate)
        self._at = now
        if self._tokens >= 1:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) / self.rate


def retry_after(wait: float, how: Asked) -> str | None:
    """The Retry-After header for a wait in seconds, or None for none."""
    if how == "none":
        return None
    return str(math.ceil(wait)) if how == "ceil" else f"{wait:.6f}"


@dataclass
class Record:
    """Counters of one server; written by its thread only, every update in constant time.

    Attributes:
        counts: `requests` and `sent` (replies begun); `answered` (paid 200s); `granted` by the bucket;
            each status as its number; `fault:KIND`; `gone`: the client had hung up before its reply;
            `early`: requests before the latest Retry-After had passed; `early_same`: the same prompt
            again before its own Retry-After had; `stray`: other host or path.
        seen: paid answers by prompt hash.
        spoiled: those of them that were of no use to the client.
        strays: the first hundred strays as "METHOD target host".
        requests: (monotonic time, prompt hash, status or 0, had an Authorization header?), if kept.
        peak: most requests that were waiting for a reply at once.
        grace: a request that comes within so many seconds after a 429 was sent cannot have known of it.
    """

    grace: float = 0.05
    counts: Counter[str] = field(default_factory=Counter)
    seen: dict[str, int] = field(default_factory=dict)
    spoiled: dict[str, int] = field(default_factory=dict)
    strays: list[str] = field(default_factory=list)
    requests: deque[tuple[float, str, int, bool]] = field(default_factory=lambda: deque(maxlen=0))
    waiting: int = 0
    peak: int = 0
    _until: float = 0.0
    _notices: deque[tuple[float, float]] = field(default_factory=deque)
    _own: dict[str, float] = field(default_factory=dict)

    def arrives(self, key: str, now: float) -> None:
        """Count a request that comes too early."""
        notices = self._notices
        while notices and notices[0][0] <= now:
            self._until = max(self._until, notices.popleft()[1])
        if now < self._until:
            self.counts["early"] += 1
        if self._own and now < self._own.pop(key, 0.0):
            self.counts["early_same"] += 1

    def told_to_wait(self, key: str, now: float, header: str | None) -> None:
        """Note a Retry-After that is sent out, where it is a number of seconds."""
        try:
            seconds = float(header or "")
        except ValueError:
            return
        if seconds > 0:
            self._notices.append((now + self.grace, now + seconds))
            self._own[key] = now + seconds

    def paid(self, key: str, whole: bool) -> None:
        """Count an answer that is paid for."""
        self.counts["answered"] += 1
        self.seen[key] = self.seen.get(key, 0) + 1
        if not whole:
            self.spoiled[key] = self.spoiled.get(key, 0) + 1

    def strays_to(self, what: str) -> None:
        """Count a request to a host or path that is not the server's."""
        self.counts["stray"] += 1
        if len(self.strays) < 100:
            self.strays.append(what)

    def as_json(self, seen: bool = True) -> dict[str, Any]:
        """All of it; without the two tables of prompts where `seen` is False."""
        found: dict[str, Any] = {"counts": dict(self.counts), "peak": self.peak, "strays": list(self.strays)}
        found |= {"prompts": len(self.seen), "requests": list(self.requests)}
        if seen:
            found |= {"seen": dict(self.seen), "spoiled": dict(self.spoiled)}
        return found
