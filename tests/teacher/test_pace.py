"""How fast is asked: limits are kept, waits honoured, a granted rate is learned; by a clock of our own."""

from __future__ import annotations

import heapq
import math
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from faulty_record import Bucket as ServerBucket
from hypothesis import given, settings
from hypothesis import strategies as st

from stepdistill.teacher.pace import BELOW, LONGEST_WAIT, Bucket, Pace, retry_after

LATENCY, ON_THE_WAY = 0.05, 0.002


@dataclass
class World:
    """A client with a pace, a server with a token bucket, and a clock that both go by."""

    rate: float = math.inf
    burst: float = 1.0
    most: int = 64
    whole_seconds: bool = True
    per_minute: float | None = None
    tokens_per_minute: float | None = None
    now: float = 1000.0
    counts: Counter[str] = field(default_factory=Counter)
    sent: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.pace = Pace(self.per_minute, self.tokens_per_minute, lambda: self.now)
        self.server = ServerBucket(self.rate, self.burst)
        self.free, self.hired = 8, 8
        self.closed_until = 0.0
        self.events: list[tuple[float, int, str, tuple[float, float]]] = []
        self.chance = random.Random(0)

    def run(self, seconds: float, tokens: int = 100) -> None:
        end = self.now + seconds
        while self.now < end:
            while self.free and self.pace.delay() <= 0:
                self.free -= 1
                self.sent.append(self.now)
                self.plan(self.chance.uniform(0, ON_THE_WAY), "arrives", self.pace.sent(tokens))
            soonest = self.events[0][0] if self.events else end
            if self.free:
                soonest = min(soonest, self.now + max(self.pace.delay(), 1e-3))
            self.now = max(self.now, soonest)
            while self.events and self.events[0][0] <= self.now:
                _, _, what, values = heapq.heappop(self.events)
                getattr(self, what)(*values)

    def plan(self, wait: float, what: str, *values: float) -> None:
        self.counts["events"] += 1
        heapq.heappush(self.events, (self.now + wait, self.counts["events"], what, values))  # type: ignore[arg-type]

    def arrives(self, sent_at: float) -> None:
        self.counts["arrived"] += 1
        wait = self.server.take(self.now) if self.rate < math.inf else 0.0
        # Who was sent before we can have heard of a refusal does not come too early.
        self.counts["early"] += sent_at < self.closed_until and sent_at > self.heard_at
        if not wait:
            self.plan(LATENCY, "answered")
            return
        asked = math.ceil(wait) if self.whole_seconds else wait
        self.plan(self.chance.uniform(0, ON_THE_WAY), "refused", sent_at, asked)

    heard_at: float = 0.0

    def answered(self) -> None:
        self.counts["answered"] += 1
        more = self.hired < self.most
        self.hired, self.free = self.hired + more, self.free + 1 + more

    def refused(self, sent_at: float, asked: float) -> None:
        self.counts["refused"] += 1
        self.heard_at, self.closed_until = self.now, max(self.closed_until, self.now + asked)
        self.pace.refused(sent_at, asked)
        self.plan(asked * 1.01, "rested")

    def rested(self) -> None:
        self.free += 1


GRANTED = [(200, 20), (200, 200), (20, 20), (50, 100), (10, 5), (2, 10)]


@pytest.mark.slow
@pytest.mark.parametrize(("rate", "burst"), GRANTED)
@pytest.mark.parametrize("whole_seconds", [True, False])
def test_the_granted_rate_is_learned(rate: float, burst: float, whole_seconds: bool) -> None:
    world = World(rate, burst, whole_seconds=whole_seconds)
    world.run(min(max(180.0, 600 / rate), 60_000 / rate))
    assert world.pace.rate == pytest.approx(rate, rel=0.02)
    assert world.counts["early"] == 0
    before = world.counts.copy()
    seconds = min(200.0, 30_000 / rate)
    world.run(seconds)
    late = world.counts - before
    assert late["refused"] <= max(0.01 * late["arrived"], 3)
    assert late["answered"] >= 0.95 * seconds * rate
    assert world.counts["early"] == 0


def test_a_few_refusals_are_enough_to_learn_from() -> None:
    world = World(200, 20)
    world.run(30.0)
    assert world.counts["refused"] <= 0.01 * world.counts["arrived"]
    assert world.counts["answered"] >= 0.8 * 30 * 200


@pytest.mark.slow
@pytest.mark.parametrize("change", [0.5, 2.0])
def test_a_rate_that_changes_is_learned_anew(change: float) -> None:
    world = World(100, 20)
    world.run(100.0)
    world.server.rate = 100 * change
    world.run(400.0)
    assert world.pace.rate == pytest.approx(100 * change, rel=0.05)


def test_a_server_that_keeps_nothing_in_store_is_not_rushed() -> None:
    world = World(5, 1)
    world.run(300.0)
    before = world.counts.copy()
    world.run(300.0)
    late = world.counts - before
    assert late["refused"] <= 0.02 * late["arrived"]
    assert late["answered"] >= 0.85 * 300 * 5


@pytest.mark.parametrize(("per_minute", "seconds"), [(60, 300), (600, 120), (6000, 60), (7, 1200)])
def test_a_limit_of_requests_is_used_up_and_not_exceeded(per_minute: float, seconds: float) -> None:
    world = World(per_minute=per_minute)
    world.run(seconds)
    assert world.counts["arrived"] == pytest.approx(per_minute * seconds / 60, rel=0.05)
    gaps = [after - before for before, after in zip(world.sent, world.sent[1:], strict=False)]
    assert max(gaps) <= 60 / per_minute + 1


@pytest.mark.parametrize(("per_minute", "tokens"), [(60_000, 100), (60_000, 900), (6_000, 1500)])
def test_a_limit_of_tokens_is_used_up_and_not_exceeded(per_minute: float, tokens: int) -> None:
    world = World(tokens_per_minute=per_minute)
    world.run(600.0, tokens)
    used = world.counts["arrived"] * tokens
    most_by_concurrency = 64 / LATENCY * tokens * 600
    assert used == pytest.approx(min(per_minute * 10, most_by_concurrency), rel=0.05)


def test_the_narrower_of_two_limits_counts() -> None:
    world = World(per_minute=600, tokens_per_minute=6000)
    world.run(300.0, tokens=100)
    assert world.counts["arrived"] == pytest.approx(300, rel=0.05)


def test_without_limits_nothing_waits_and_a_refusal_changes_that() -> None:
    world = World()
    pace = world.pace
    assert pace.is_free
    assert pace.delay() == 0
    assert pace.rate is None
    sent_at = pace.sent(1)
    pace.refused(sent_at, 7.0)
    assert not pace.is_free
    assert pace.delay() == 7.0
    pace.refused(sent_at, 3.0)  # of the same moment: the longer wait stays
    assert pace.delay() == 7.0
    world.now += 6.9
    assert pace.delay() == pytest.approx(0.1)
    world.now += 0.2
    assert pace.delay() < 1.0


@given(
    st.lists(st.tuples(st.floats(0, 100), st.booleans(), st.floats(0, 1000)), max_size=60),
    st.sampled_from([None, 30.0]),
)
@settings(max_examples=60, deadline=None)
def test_nobody_sends_before_the_time_asked_whatever_happens(
    steps: list[tuple[float, bool, float]], per_minute: float | None
) -> None:
    now, closed = [0.0], 0.0
    pace = Pace(per_minute, clock=lambda: now[0])
    for passed, refused, wait in steps:
        now[0] += passed
        delay = pace.delay()
        assert math.isfinite(delay)
        assert now[0] + delay >= closed - 1e-6
        if delay == 0:
            sent_at = pace.sent(1)
            if refused:
                now[0] += 0.01
                pace.refused(sent_at, wait)
                closed = max(closed, now[0] + wait)


def test_a_jump_of_the_wall_clock_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    pace, bucket = Pace(6000), Bucket(10, 1)
    for jump in (3600, -3600, 1e9):
        real = time.time()
        monkeypatch.setattr(time, "time", lambda real=real, jump=jump: real + jump)
        pace.sent(1)
        bucket.take(1)
        assert pace.delay() < 1
        assert bucket.delay() <= 0.3
    pace.refused(pace.sent(1), 0.0)
    assert pace.delay() < 1


NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def date(seconds: float) -> str:
    return format_datetime(NOW + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "2"}, 2),
        ({"retry-after": " 2.5 "}, 2.5),
        ({"Retry-After": "0"}, 0),
        ({"Retry-After": "-5"}, 0),
        ({"Retry-After": "1000000000"}, 1e9),
        ({"Retry-After": "1e9"}, 1e9),
        ({"Retry-After": "9" * 400}, LONGEST_WAIT),
        ({"Retry-After": "1m30s"}, 90),
        ({"Retry-After": "1h1ms"}, 3600.001),
        ({"Retry-After": "6.5s"}, 6.5),
        ({"Retry-After": "120ms"}, 0.12),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": ""}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "٣"}, None),
        ({"retry-after-ms": "250", "Retry-After": "9"}, 0.25),
        ({"retry-after-ms": "-1"}, 0),
        ({"retry-after-ms": "junk", "Retry-After": "9"}, 9),
        ({"Retry-After": date(40), "Date": date(0)}, 40),
        ({"Retry-After": date(-40), "Date": date(0)}, 0),
        ({"Retry-After": "Fri, 02 Jan 2026 03:04:15 -0000", "Date": date(0)}, 10),
        ({"Retry-After": "Fri, 02 Jan 99999 03:04:15 GMT", "Date": date(0)}, None),
    ],
)
def test_every_way_to_ask_for_a_wait(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


def test_a_date_is_measured_by_the_servers_clock_and_by_ours_only_where_it_has_none() -> None:
    then = datetime.now(UTC) + timedelta(seconds=100)
    for headers in ({}, {"Date": "junk"}):
        wait = retry_after({"Retry-After": format_datetime(then, usegmt=True)} | headers)
        assert wait == pytest.approx(100, abs=5)


@given(st.text(max_size=30) | st.from_regex(r"[0-9hms.:, -]{0,20}"), st.text(max_size=30))
def test_any_header_is_a_wait_or_no_word(said: str, now: str) -> None:
    found = retry_after({"Retry-After": said, "Date": now})
    assert found is None or 0 <= found <= LONGEST_WAIT


def test_a_learned_rate_is_kept_a_little_below() -> None:
    assert 0.9 < BELOW < 1
