"""How fast a server is asked: the user's limits, the server's own words, and what its refusals teach."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime

Clock = Callable[[], float]

BELOW = 0.985
"""Share of a learned rate that is used at first."""
RECOVERY = 60.0
"""Seconds after which a learned rate is reached again; beyond, it is exceeded ever faster."""
BURST = 0.05
"""Seconds' worth of requests that may go out at once, since timers are not exact."""


class Bucket:
    """A token bucket that may run into debt: who comes when it is above zero passes, and pays later."""

    def __init__(self, rate: float, capacity: float, clock: Clock = time.monotonic) -> None:
        self.rate, self.capacity, self._clock = rate, capacity, clock
        self._level, self._at = capacity, clock()

    def delay(self) -> float:
        """Seconds until something may be taken; 0 for at once."""
        now = self._clock()
        self._level = min(self.capacity, self._level + (now - self._at) * self.rate)
        self._at = now
        return 0.0 if self._level > 0 else max(-self._level / self.rate, 1e-3)

    def take(self, amount: float) -> None:
        """Take an amount, whatever there is."""
        self._level -= amount


class Pace:
    """When the next request may be sent.

    A refusal for haste (429) closes the gate for all until the time that the server asks for. Two such
    refusals teach the rate that is granted: from one empty bucket of the server to the next it has
    granted exactly its rate times the time between. From then on we stay a little below that rate and
    come back to it slowly (as CUBIC does), so that refusals stay rare whatever the limit is.
    """

    def __init__(
        self,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self._clock = clock
        self._requests = _per_minute(requests_per_minute, clock)
        self._tokens = _per_minute(tokens_per_minute, clock)
        self._learned: Bucket | None = None
        self._rate = 0.0
        self._open_at = 0.0
        self._refused_at: float | None = None
        self._granted = 0
        self._started = clock()

    @property
    def is_free(self) -> bool:
        """Whether nothing limits the pace at present."""
        if self._learned or self._requests or self._tokens:
            return False
        return self._open_at == 0.0 or self._clock() >= self._open_at

    def delay(self) -> float:
        """Seconds until a request may be sent; 0 for at once."""
        if self._learned is not None and self._refused_at is not None:
            waited = self._clock() - self._refused_at
            grown = BELOW + (1 - BELOW) * (waited / RECOVERY) ** 3
            self._learned.rate = self._rate * grown
            self._learned.capacity = max(1.0, self._learned.rate * BURST)
        buckets = (self._requests, self._tokens, self._learned)
        waits = [bucket.delay() for bucket in buckets if bucket is not None]
        return max([self._open_at - self._clock(), *waits, 0.0])

    def sent(self, tokens: int) -> float:
        """Count a request that is being sent; returns the time, for `refused`."""
        if self._requests:
            self._requests.take(1)
        if self._learned:
            self._learned.take(1)
        if self._tokens:
            self._tokens.take(tokens)
        return self._clock()

    def granted(self) -> None:
        """Count a request that was not refused for haste."""
        self._granted += 1

    def refused(self, sent_at: float, wait: float) -> None:
        """Take a refusal for haste: nobody sends for `wait` seconds, and a rate is learned."""
        now = self._clock()
        self._open_at = max(self._open_at, now + wait)
        since = self._started if self._refused_at is None else self._refused_at
        if self._refused_at is not None and sent_at <= self._refused_at:
            return  # it was under way already when we learned of the limit: the same event
        if now > since and self._granted:
            self._rate = max(self._granted / (now - since), 0.01)
            self._learned = Bucket(self._rate * BELOW, max(1.0, self._rate * BURST), self._clock)
        self._refused_at, self._granted = now, 0


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait, from `retry-after-ms` or `Retry-After`; None for no word.

    Seconds, "1m30s" and dates are understood. A date is measured against the server's own clock (its
    Date header), so that a clock that is wrong on either side does no harm.

    >>> retry_after({"Retry-After": "1m30s"}), retry_after({"Retry-After": "-5"})
    (90.0, 0.0)
    """
    exact = headers.get("retry-after-ms") or headers.get("Retry-After-Ms")
    if exact and (number := _number(exact)) is not None:
        return max(0.0, number / 1000)
    said = (headers.get("Retry-After") or headers.get("retry-after") or "").strip()
    if not said:
        return None
    if (number := _number(said)) is not None:
        return max(0.0, number)
    parts = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?(?:(\d+)ms)?", said)
    if parts:
        hours, minutes, seconds, thousandths = (float(part or 0) for part in parts.groups())
        return hours * 3600 + minutes * 60 + seconds + thousandths / 1000
    return _until(said, headers.get("Date") or headers.get("date"))


def _number(text: str) -> float | None:
    return float(text) if re.fullmatch(r"[-+]?\d{1,15}(\.\d*)?", text.strip()) else None


def _until(date: str, now: str | None) -> float | None:
    try:
        then = parsedate_to_datetime(date).timestamp()
        start = parsedate_to_datetime(now).timestamp() if now else time.time()
    except (ValueError, OverflowError):
        return None
    return max(0.0, then - start)


def _per_minute(limit: float | None, clock: Clock) -> Bucket | None:
    return None if limit is None else Bucket(limit / 60, max(1.0, limit / 60), clock)
