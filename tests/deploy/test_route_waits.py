"""Many wait for a slow teacher: each as long as was said, and no more are with it than may be."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from faulty_server import FaultyServer
from moods import mood, router, texts

import stepdistill
from stepdistill.config import TeacherConfig
from stepdistill.deploy import route
from stepdistill.deploy.answer import Answer
from stepdistill.deploy.route import Router
from stepdistill.deploy.server import service
from stepdistill.deploy.server.limits import ServeConfig
from stepdistill.records import Example
from stepdistill.teacher.protocol import Prompt, Reply, Sampling, Work, in_batches

PATIENCE = 30.0
"""Seconds after which a test has failed, and ends."""


class Watched:
    """A way to the teacher that says how many requests it may have in flight by all who ask."""

    def __init__(self, together: int) -> None:
        self.flying = self.most = 0
        self._lock, self._barrier = threading.Lock(), threading.Barrier(together)

    def __call__(self, teacher: TeacherConfig, *_: object) -> Any:
        return _Way(self, teacher.limits.concurrency)

    @contextmanager
    def within(self, places: int) -> Iterator[None]:
        with self._lock:
            self.flying += places
            self.most = max(self.most, self.flying)
        self._barrier.wait(PATIENCE)
        yield
        with self._lock:
            self.flying -= places


class _Way:
    def __init__(self, watched: Watched, places: int) -> None:
        self.watched, self.places = watched, places

    def answer(self, work: Work) -> None:
        with self.watched.within(self.places):
            in_batches(work, self._complete, 4)

    def _complete(self, prompts: Sequence[Prompt], sampling: Sampling, draws: Sequence[int]) -> list[Reply]:
        return [Reply(mood(prompt.messages[-1].content), "stop", "m", 1, 1) for prompt in prompts]


@pytest.mark.parametrize(("concurrency", "together"), [(32, 12), (3, 1)])
def test_all_who_wait_are_asked_at_once_as_far_as_the_teacher_may_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, concurrency: int, together: int
) -> None:
    way = Watched(together)  # nobody is answered before so many are being asked
    with router(tmp_path, FaultyServer(), limits={"concurrency": concurrency}) as asked:
        monkeypatch.setattr(route, "OpenAIBackend", way)
        with ThreadPoolExecutor(12) as pool:
            found = list(pool.map(lambda i: asked.ask(texts(f"a {i}", f"nice {i}")), range(12)))
    assert [[a.label for a in pair] for pair in found] == [["bad", "good"]] * 12
    assert together <= way.most <= concurrency


class Hanging(Router):
    """A teacher who says nothing until he is let go."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.free = threading.Event()

    def ask(self, examples: Sequence[Example]) -> list[Answer]:
        self.asked += [example.text for example in examples]
        self.free.wait(PATIENCE)
        return [Answer(e.id, "known", "known", by="teacher") for e in examples]

    def close(self) -> None:
        """Nothing is to be kept."""


def test_a_request_that_waits_for_a_thread_waits_no_longer_than_others(
    light: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "_WAITING", 1)
    monkeypatch.setattr(service, "_MOMENT", 0.0)
    teacher = Hanging()

    async def work() -> list[list[Answer]]:
        served = service.Service(
            stepdistill.load(light, threshold=1.0), ServeConfig(route_seconds=0.2), teacher
        )
        running = asyncio.create_task(served.run())
        try:
            asking = [served.ask([Example(str(i), f"Where is the cow? {i}")], False) for i in range(3)]
            found = await asyncio.wait_for(asyncio.gather(*asking), PATIENCE / 2)
            assert not teacher.free.is_set()
            return found
        finally:
            teacher.free.set()
            running.cancel()
            served.close()

    for (answer,) in asyncio.run(work()):
        assert (answer.label, answer.abstained, answer.by) == (None, True, "student")
        assert "below the threshold" in str(answer.reason)
        assert str(answer.reason).endswith("; the teacher did not answer: not within 0.2 s")
    assert len(teacher.asked) == 1, "who was late is not asked about afterwards"
