"""Texts of many clients share batches, and none is lost, swapped, or answered for somebody else."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepdistill.deploy.answer import Answer
from stepdistill.deploy.server.batching import Batcher, FailedBatchError, QueueFullError, RefusedTextError
from stepdistill.errors import DataError
from stepdistill.records import Example

T = TypeVar("T")
LONG = 30.0
"""Seconds; nothing here waits so long unless it hangs."""


@dataclass
class Student:
    """Answers with the text itself; keeps what it was asked; holds its breath where it is told to."""

    batches: list[tuple[tuple[str, ...], bool]] = field(default_factory=list)
    threads: set[int] = field(default_factory=set)
    go: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.go.set()

    def ask(self, examples: Sequence[Example], explain: bool) -> list[Answer]:
        assert self.go.wait(LONG)
        self.batches.append((tuple(example.text for example in examples), explain))
        self.threads.add(threading.get_ident())
        if any(example.text.startswith("bad") for example in examples):
            raise DataError("bad text")
        if any(example.text.startswith("bug") for example in examples):
            raise ZeroDivisionError
        return [Answer(e.id, e.text, e.text, rationale="why" if explain else None) for e in examples]


def run(
    work: Callable[[Batcher], Awaitable[T]],
    student: Student,
    max_batch: int = 4,
    max_queue: int = 1000,
    max_wait: float = 0.001,
) -> T:
    async def whole() -> T:
        batcher = Batcher(student.ask, max_batch, max_wait, max_queue)
        running = asyncio.create_task(batcher.run())
        try:
            result = await asyncio.wait_for(work(batcher), LONG)
            assert batcher.waiting == 0
            return result
        finally:
            running.cancel()
            batcher.worker.close()

    return asyncio.run(whole())


def examples(*texts: str) -> list[Example]:
    return [Example(text, text) for text in texts]


@dataclass(frozen=True)
class Client:
    """Comes after some turns of the loop, asks, and may leave again."""

    after: int
    texts: tuple[str, ...]
    explain: bool
    stays: int | None


WORDS = st.sampled_from(["a", "b", "c", "bad", "bug"])
CLIENTS = st.lists(
    st.builds(
        Client,
        after=st.integers(0, 6),
        texts=st.lists(WORDS, max_size=7).map(tuple),
        explain=st.booleans(),
        stays=st.none() | st.integers(0, 4),
    ),
    max_size=12,
)


@settings(max_examples=60)
@given(clients=CLIENTS, max_batch=st.integers(1, 5), max_queue=st.integers(1, 20))
def test_every_client_gets_its_own_answers_whoever_else_comes_and_goes(
    clients: list[Client], max_batch: int, max_queue: int
) -> None:
    student = Student()

    async def one(number: int, client: Client, batcher: Batcher) -> None:
        for _ in range(client.after):
            await asyncio.sleep(0)
        texts = [f"{word} {number} {place}" for place, word in enumerate(client.texts)]
        full = batcher.waiting + len(texts) > max_queue
        if full:
            with pytest.raises(QueueFullError):
                batcher.submit(examples(*texts), client.explain)
            return
        future = batcher.submit(examples(*texts), client.explain)
        assert batcher.waiting <= max_queue
        if client.stays is not None:
            for _ in range(client.stays):
                await asyncio.sleep(0)
            if future.cancel():
                return
        (found,) = await asyncio.gather(future, return_exceptions=True)
        if isinstance(found, RefusedTextError):
            assert client.texts[found.place] == "bad"
        elif isinstance(found, BaseException):
            assert isinstance(found, FailedBatchError)
            assert any("bug" in other.texts for other in clients)
        else:
            assert {"bad", "bug"}.isdisjoint(client.texts)
            assert [answer.label for answer in found] == texts
            assert all((answer.rationale is not None) == client.explain for answer in found)

    async def all_(batcher: Batcher) -> None:
        await asyncio.gather(*(one(n, client, batcher) for n, client in enumerate(clients)))

    run(all_, student, max_batch, max_queue)
    assert all(len(texts) <= max_batch for texts, _ in student.batches)
    assert len(student.threads) <= 1
    if not any({"bad", "bug"} & set(client.texts) for client in clients):
        asked = [text for texts, _ in student.batches for text in texts]
        assert len(asked) == len(set(asked)), "answered twice"


def test_what_comes_while_a_batch_runs_shares_the_next_one() -> None:
    student = Student()
    student.go.clear()

    async def work(batcher: Batcher) -> None:
        futures = [batcher.submit(examples("first"))]
        while batcher.waiting:
            await asyncio.sleep(0)
        futures += [batcher.submit(examples(text)) for text in ("a", "b", "c")]
        student.go.set()
        await asyncio.gather(*futures)

    run(work, student)
    assert [texts for texts, _ in student.batches] == [("first",), ("a", "b", "c")]


def test_a_lone_client_waits_for_nobody() -> None:
    async def work(batcher: Batcher) -> None:
        for text in ("a", "b", "c"):
            await batcher.submit(examples(text))

    run(work, student := Student(), max_wait=10 * LONG)
    assert len(student.batches) == 3


def test_rationales_are_written_for_those_alone_who_want_them() -> None:
    async def work(batcher: Batcher) -> None:
        asked = [batcher.submit(examples(text), text in "bd") for text in "abcd"]
        await asyncio.gather(*asked)

    run(work, student := Student())
    assert sorted(student.batches) == [(("a", "c"), False), (("b", "d"), True)]


def test_who_leaves_makes_room_and_is_not_asked_about() -> None:
    student = Student()
    student.go.clear()

    async def work(batcher: Batcher) -> None:
        first = batcher.submit(examples("first"))
        while batcher.waiting:
            await asyncio.sleep(0)
        gone = batcher.submit(examples("x", "y"))
        with pytest.raises(QueueFullError, match=r"2 texts are waiting and 2 may; ask again in \d+ s"):
            batcher.submit(examples("a"))
        gone.cancel()
        await asyncio.sleep(0)
        stays = batcher.submit(examples("a", "b"))
        student.go.set()
        await asyncio.gather(first, stays)

    run(work, student, max_queue=2)
    assert [texts for texts, _ in student.batches] == [("first",), ("a", "b")]


def test_a_text_that_cannot_be_taken_fails_alone_and_is_named() -> None:
    async def work(batcher: Batcher) -> None:
        asked = [batcher.submit(examples(*texts)) for texts in (("a", "b"), ("c", "bad"), ("d",))]
        found = await asyncio.gather(*asked, return_exceptions=True)
        good = [[a.label for a in one] for one in found if isinstance(one, list)]
        assert good == [["a", "b"], ["d"]]
        assert isinstance(found[1], RefusedTextError)
        assert found[1].place == 1
        assert str(found[1]) == "bad text"

    run(work, Student(), max_batch=16)


def test_a_long_text_that_cannot_be_taken_is_refused_before_its_neighbours_are_asked() -> None:
    def check(example: Example, explain: bool) -> None:
        if example.text.startswith("bad"):
            raise DataError("too long")

    async def work(batcher: Batcher) -> list[object]:
        batcher.check = check
        asked = [batcher.submit(examples(*texts)) for texts in (("a",), ("b", "bad" * 1000), ("c" * 3000,))]
        return await asyncio.gather(*asked, return_exceptions=True)

    found = run(work, student := Student(), max_batch=16)
    assert isinstance(found[1], RefusedTextError)
    assert (found[1].place, str(found[1])) == (1, "too long")
    assert [texts for texts, _ in student.batches] == [("a", "c" * 3000)]


def test_a_student_that_answers_too_little_is_an_error_and_swaps_nothing() -> None:
    class Short(Student):
        def ask(self, examples: Sequence[Example], explain: bool) -> list[Answer]:
            return super().ask(examples, explain)[:-1]

    async def work(batcher: Batcher) -> list[object]:
        asked = (batcher.submit(examples(text)) for text in "abc")
        return await asyncio.gather(*asked, return_exceptions=True)

    assert [type(one) for one in run(work, Short())] == [FailedBatchError] * 3


@pytest.mark.parametrize(("fault", "memory"), [(MemoryError, True), (ZeroDivisionError, False)])
def test_a_failure_that_is_no_texts_fault_is_met_and_logged_once(
    fault: type[Exception], memory: bool, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(Student):
        def ask(self, examples: Sequence[Example], explain: bool) -> list[Answer]:
            self.batches.append((tuple(example.text for example in examples), explain))
            raise fault(examples[0].text)

    async def work(batcher: Batcher) -> list[object]:
        asked = (batcher.submit(examples(f"secret {number}")) for number in range(8))
        return await asyncio.gather(*asked, return_exceptions=True)

    found = run(work, student := Failing(), max_batch=8)
    assert [(type(one), getattr(one, "memory", None)) for one in found] == [(FailedBatchError, memory)] * 8
    assert len(student.batches) == 1
    assert len(caplog.records) == 1
    assert f"{fault.__name__} in a batch of 8 texts" in caplog.text
    assert "secret" not in caplog.text
