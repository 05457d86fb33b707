"""How fast a server is asked: the user's limits, the server's own words, and what its refusals teach."""

from __future__ import annotations

import math
import re
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

Clock = Callable[[], float]

BELOW = 0.985
"""Share of a learned rate that is used at first."""
RECOVERY = 60.0
"""Seconds after which a learned rate is reached again; beyond, it is exceeded ever faster."""
BURST = 0.05
"""Seconds' worth of requests that may go out at once, since timers are not exact."""
DOUBLING = (1.0, 24)
"""A rate that is only guessed doubles after so many seconds, and not before so many requests."""
PRECISE = 0.15
"""A rate is known when the least and the greatest that are possible differ by at most this share."""
JITTER = 0.005
"""Seconds by which a request arrives earlier or later than the one before it."""
STEPS, RECENT = 512, 4096
"""At most so many points, and so many single requests, since the last refusal are remembered."""
LONGEST_WAIT = 1e9
"""Seconds; who asks for more asks for no less."""


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

    A refusal for haste (429) closes the gate for all until the time that the server asks for, and
    teaches the rate that is granted (`Lesson`). From then on we stay a little below that rate and come
    back to it slowly (as CUBIC does), so that refusals stay rare whatever the limit is.
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
        self._lesson = Lesson()
        self._open_at = 0.0

    @property
    def is_free(self) -> bool:
        """Whether nothing limits the pace at present."""
        return not (self._learned or self._requests or self._tokens)

    @property
    def rate(self) -> float | None:
        """Requests a second that the server grants, as far as its refusals have told."""
        return self._lesson.rate if self._learned else None

    def delay(self) -> float:
        """Seconds until a request may be sent; 0 for at once."""
        now = self._clock()
        if self._learned is not None:
            self._learned.rate = self._lesson.speed(now)
            # A bucket above zero lets one more pass than it holds.
            self._learned.capacity = max(1e-3, min(self._learned.rate * BURST, self._lesson.burst / 2 - 1))
        buckets = (self._requests, self._tokens, self._learned)
        return max([self._open_at - now, *(bucket.delay() for bucket in buckets if bucket), 0.0])

    def sent(self, tokens: int) -> float:
        """Count a request that is being sent; returns the time, for `refused`."""
        if self._requests:
            self._requests.take(1)
        if self._learned:
            self._learned.take(1)
        if self._tokens:
            self._tokens.take(tokens)
        now = self._clock()
        self._lesson.sent(now)
        return now

    def refused(self, sent_at: float, wait: float) -> None:
        """Take a refusal for haste: nobody sends for `wait` seconds, and a rate is learned."""
        self._open_at = max(self._open_at, self._clock() + wait)
        self._lesson.refused(sent_at, self._open_at)
        if self._learned is None:
            self._learned = Bucket(self._lesson.rate, 1.0, self._clock)


class Lesson:
    """What a server's refusals say of the token bucket by which it grants requests.

    A refusal says that the bucket was empty at that moment, and each request before it that it was not.
    How full it was when the gate opened follows from how long it was closed; so few rates are possible.
    How much it holds follows from the first refusal, since it was full at the start. A closed gate lets
    a small bucket run over: who only divided what was granted by the time would learn less and less.

    Attributes:
        rate: requests a second, the best guess.
        burst: what the bucket holds, the best guess.
    """

    def __init__(self) -> None:
        self.rate, self.burst = 0.0, 1.0
        self._below, self._sure, self._known = BELOW, 1.0, False
        self._first: list[tuple[float, int]] | None = None
        self._level_at = 0.0
        self._begin(0.0)

    def _begin(self, at: float) -> None:
        self._open_at, self._end, self._slow = at, 0.0, 0
        self._count, self._step = 0, 0.01
        self._steps: list[tuple[float, int]] = []
        self._recent: deque[float] = deque(maxlen=RECENT)

    def speed(self, now: float) -> float:
        """Requests a second to send now."""
        if self._slow and now >= self._open_at:
            self._learn()
        since = max(0.0, now - self._open_at)
        if self._known:
            below = self._below * self._sure
            return self.rate * (below + (1 - below) * (since / RECOVERY) ** 3)
        seconds, requests = DOUBLING
        return self.rate / 2 * math.exp2(min(since / seconds, self._count / requests, 40.0))

    def sent(self, now: float) -> None:
        """Count a request."""
        self._count += 1
        self._recent.append(now)
        if self._steps and now - self._steps[-1][0] < self._step:
            self._steps[-1] = (self._steps[-1][0], self._steps[-1][1] + 1)
            return
        self._steps.append((now, 1))
        if len(self._steps) >= STEPS:
            self._step *= 2
            pairs = zip(self._steps[::2], self._steps[1::2], strict=True)
            self._steps = [(at, n + more) for (at, n), (_, more) in pairs]

    def refused(self, sent_at: float, open_at: float) -> None:
        """Take a refusal of what was sent at a time; the gate opens again at `open_at`.

        What was sent before the gate was last opened was under way already when we learned of the
        limit, and says nothing new.
        """
        if sent_at >= self._begun:
            self._slow += 1
            self._end = max(self._end, sent_at)
        self._open_at = open_at
        if not self.rate:
            self.rate = 4.0

    @property
    def _begun(self) -> float:
        return self._steps[0][0] if self._steps else 0.0

    def _learn(self) -> None:
        """Find the rates at which the bucket is empty at the refusal, and not before."""
        granted = self._count - self._slow - sum(1 for at in self._recent if at > self._end)
        lasted = max(self._end - self._begun, JITTER)
        self._keep_off(lasted)
        if self._first is None:
            self._first = self._granted()
            self.rate, self.burst = max(granted / lasted / 2, 4.0), max(1.0, granted)
        elif granted <= 0:
            self.rate, self._known = max(self.rate / 2, 0.01), False
        else:
            steps = self._granted()
            low = _least(lambda rate: self._levels(steps, rate)[0] >= -JITTER * rate)
            high = _least(
                lambda rate: self._levels(steps, rate)[1] >= min(1 + JITTER * rate, self._holds(rate))
            )
            low, high = min(low, high), max(low, high)
            self.rate = math.sqrt(low * high)
            self.burst = self._holds(self.rate)
            self._known = high <= low * (1 + PRECISE)
            self._sure = low / self.rate
            if lasted >= 1 and 2 * self.rate < granted / lasted:  # no bucket: others' requests, or chance
                self.rate, self._known = granted / lasted / 2, False
        self._level_at = self._end
        self._begin(self._open_at)

    def _keep_off(self, lasted: float) -> None:
        """Stay farther below a rate at which refusals come soon: the way there shakes the requests."""
        if self._known and lasted < RECOVERY / 2:
            self._below = max(1 - 2 * (1 - self._below), 0.5)
        elif lasted > RECOVERY:
            self._below = min(BELOW, (1 + self._below) / 2)

    def _granted(self) -> list[tuple[float, int]]:
        """The requests that were granted before the end; those that were refused came last."""
        steps, left = [], self._slow
        for at, n in reversed([step for step in self._steps if step[0] <= self._end]):
            steps.append((at, max(0, n - left)))
            left = max(0, left - n)
        return steps[::-1]

    def _holds(self, rate: float) -> float:
        """What the server's bucket holds if it grants that rate: what the first run drew out of it."""
        most = drawn = at = 0.0
        for then, n in self._first or ():
            drawn = max(0.0, drawn - (then - at) * rate) + n
            most, at = max(most, drawn), then
        return max(1.0, most)

    def _levels(self, steps: Sequence[tuple[float, int]], rate: float) -> tuple[float, float]:
        """How full the server's bucket is at that rate: at its lowest before the end, and at the end."""
        holds, level, at, lowest = self._holds(rate), 0.0, self._level_at, 0.0
        ends = [*(then for then, _ in steps[1:]), self._end]
        for (then, n), until in zip(steps, ends, strict=True):
            level = min(holds, level + (then - at) * rate) - n
            # The requests of a step did not all go out at its beginning.
            lowest, at = min(lowest, level + min(n - 1, (until - then) * rate)), then
        return lowest, min(holds, level + (self._end - at) * rate)


def _least(is_enough: Callable[[float], bool]) -> float:
    """The least rate, of those between one in a hundred seconds and a million a second, that is enough."""
    low, high = 1e-2, 1e6
    for _ in range(40):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait, from `retry-after-ms` or `Retry-After`; None for no word.

    Seconds, "1m30s" and dates are understood. A date is measured against the server's own clock (its
    Date header), so that a clock that is wrong on either side does no harm.

    >>> retry_after({"Retry-After": "1m30s"}), retry_after({"Retry-After": "-5"})
    (90.0, 0.0)
    """
    exact = headers.get("retry-after-ms") or headers.get("Retry-After-Ms")
    if exact and (number := _number(exact)) is not None:
        return min(max(0.0, number / 1000), LONGEST_WAIT)
    said = (headers.get("Retry-After") or headers.get("retry-after") or "").strip()
    if not said:
        return None
    seconds = _number(said)
    if seconds is None:
        seconds = _parts(said)
    if seconds is None:
        seconds = _until(said, headers.get("Date") or headers.get("date"))
    return None if seconds is None else min(max(0.0, seconds), LONGEST_WAIT)


def _number(text: str) -> float | None:
    return float(text) if re.fullmatch(r"\s*[-+]?\d+(\.\d*)?([eE]\+?\d+)?\s*", text, re.ASCII) else None


def _parts(said: str) -> float | None:
    found = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?(?:(\d+)ms)?", said, re.ASCII)
    if found is None:
        return None
    hours, minutes, seconds, thousandths = (float(part or 0) for part in found.groups())
    return hours * 3600 + minutes * 60 + seconds + thousandths / 1000


def _until(date: str, now: str | None) -> float | None:
    then = _date(date)
    start = _date(now or "") or datetime.now(UTC)
    return None if then is None else (then - start).total_seconds()


def _date(text: str) -> datetime | None:
    try:
        found = parsedate_to_datetime(text)
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError, TypeError, IndexError):
        return None


def _per_minute(limit: float | None, clock: Clock) -> Bucket | None:
    return None if limit is None else Bucket(limit / 60, max(1.0, limit / 60), clock)
