"""Batch jobs: every answer joins its own prompt, and a crash at any moment pays nothing twice."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from chaos import hear_ctrl_c
from faulty_server import BatchPlan, Fault, FaultyServer, echo
from hypothesis import given
from hypothesis import strategies as st

from stepdistill.config import TeacherConfig
from stepdistill.errors import BudgetError, TeacherError
from stepdistill.records import unwatched
from stepdistill.teacher.batch import BatchBackend
from stepdistill.teacher.batch_files import _lines
from stepdistill.teacher.key import Keys
from stepdistill.teacher.ledger import Ledger
from stepdistill.teacher.openai import OpenAIBackend
from stepdistill.teacher.prices import NANO, price_of
from stepdistill.teacher.protocol import Message, Prompt, Sampling, Tally
from stepdistill.teacher.work import Order, Work

SAMPLING = Sampling(max_tokens=64)
HEAD = (Message("system", "Think."),)
SECRET = "sk-canary-7461"


def prompt(number: int) -> Prompt:
    return Prompt(HEAD, (Message("user", f"Question {number}?"),))


def answer_to(number: int) -> str:
    return echo()([{"role": "user", "content": f"Question {number}?"}], None)


class Bench:
    """A ledger, and a server that it is filled from."""

    def __init__(self, folder: Path, url: str) -> None:
        self.path, self.url, self.tally = folder / "ledger.sqlite", url, Tally()

    def teacher(self, **more: Any) -> TeacherConfig:
        given = {"backend": "openai-batch", "model": "m", "base_url": self.url}
        return TeacherConfig(**(given | {"price": {"input": 1, "output": 2}} | more))

    def ask(
        self, prompts: int, *, sampling: Sampling = SAMPLING, cap: float | None = None, **more: Any
    ) -> None:
        """Answer so many prompts; `sizes` are keywords of the backend, the rest is configuration."""
        sizes = {"first_poll": 0.01} | more.pop("sizes", {})
        teacher = self.teacher(**more)
        keys, self.tally = Keys(teacher, sampling), Tally()

        def source() -> Iterator[tuple[str, Prompt, int]]:
            return ((f"id-{number}", prompt(number), 0) for number in range(prompts))

        most = None if cap is None else round(cap * NANO)
        order = Order("ask", source, prompts, keys, sampling, price_of(teacher), most, unwatched)
        live = teacher.backend == "openai"
        backend = OpenAIBackend(teacher, sampling) if live else BatchBackend(teacher, sampling, **sizes)
        with Ledger(self.path) as ledger:
            backend.answer(Work(ledger, order, self.tally))

    def texts(self, prompts: int, sampling: Sampling = SAMPLING) -> list[str | None]:
        """What the ledger has to so many prompts."""
        keys = Keys(self.teacher(), sampling)
        slots = [keys.slot(prompt(number), 0) for number in range(prompts)]
        with Ledger(self.path) as ledger:
            found, _ = ledger.find(slots, sampling.max_tokens)
        return [found[slot].text if slot in found else None for slot in slots]

    def all_right(self, prompts: int) -> bool:
        return self.texts(prompts) == [answer_to(number) for number in range(prompts)]

    def noted(self) -> int:
        """Batches and claims that are left in the ledger."""
        with Ledger(self.path) as ledger:
            name = f"openai-batch:m {self.url}"
            return len(ledger.batches(name)) + ledger.money().reserved


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., tuple[FaultyServer, Bench]]]:
    """Start a server with these faults and this plan of batches."""
    started: list[FaultyServer] = []

    def start(faults: list[Fault] | None = None, **plan: Any) -> tuple[FaultyServer, Bench]:
        server = FaultyServer(faults or [], batches=BatchPlan(**plan)).start()
        started.append(server)
        return server, Bench(tmp_path, server.url)

    yield start
    for server in started:
        server.stop()


Serve = Callable[..., tuple[FaultyServer, Bench]]


def submitted(server: FaultyServer) -> list[int]:
    """Sizes of the batches that were made."""
    found = server._batches
    return [len(found.files[one.input_file_id].splitlines()) for one in found.batches.values()]


def test_every_answer_joins_its_prompt_in_several_batches(serve: Serve) -> None:
    server, bench = serve(polls=3)
    bench.ask(25, sizes={"most_requests": 10})
    assert bench.all_right(25)
    assert submitted(server) == [10, 10, 5]
    assert set(server.seen.values()) == {1}
    assert (bench.tally.answered, bench.tally.reused, bench.tally.attempts) == (25, 0, 25)
    assert bench.noted() == 0


def test_a_file_stays_below_its_size(serve: Serve) -> None:
    server, bench = serve()
    bench.ask(30, sizes={"most_bytes": 1500})
    assert bench.all_right(30)
    inputs = [server._batches.files[one.input_file_id] for one in server._batches.batches.values()]
    assert max(map(len, inputs)) <= 1500
    assert len(inputs) > 2
    assert set(server.seen.values()) == {1}


@pytest.mark.slow
def test_missing_rows_are_asked_again_and_not_for_ever(serve: Serve) -> None:
    server, bench = serve(missing=2)
    bench.ask(9)
    # Each batch loses two more; the third attempt of a row is its last, as each may have been charged.
    assert submitted(server) == [9, 2, 2]
    assert bench.tally.failed == {"missing in the batch's results": 2}
    texts = bench.texts(9)
    assert texts.count(None) == 2
    assert all(text in (None, answer_to(number)) for number, text in enumerate(texts))
    assert bench.tally.presumed > 0
    assert (bench.tally.answered, bench.noted()) == (7, 0)


def test_of_two_answers_under_one_id_neither_is_believed(serve: Serve) -> None:
    _, bench = serve(duplicated=3)
    bench.ask(9)
    assert bench.tally.failed == {"two answers under one id": 3}
    texts = bench.texts(9)
    assert texts.count(None) == 3
    assert all(text in (None, answer_to(number)) for number, text in enumerate(texts))


def test_the_same_answer_twice_is_one(serve: Serve) -> None:
    server, bench = serve()
    keep = server._batches._keep
    server._batches._keep = lambda raw: keep(raw * 2 if b'"response"' in raw else raw)  # type: ignore[method-assign]
    bench.ask(9)
    assert bench.all_right(9)
    assert set(server.seen.values()) == {1}
    assert bench.tally.answered == 9


def test_lines_of_strangers_and_broken_lines_change_nothing(serve: Serve) -> None:
    server, bench = serve()
    keep = server._batches._keep

    def spoiled(content: bytes) -> str:
        if b'"response"' in content:
            stranger = json.dumps({"custom_id": "00" * 16, "response": {"status_code": 200, "body": {}}})
            other = json.dumps({"custom_id": 7})
            content = b"\n".join([stranger.encode(), other.encode(), b'{"cus', b"\xff\xfe[1]", content])
        return keep(content)

    server._batches._keep = spoiled  # type: ignore[method-assign]
    bench.ask(6)
    assert bench.all_right(6)
    assert bench.tally.strays == 4
    assert set(server.seen.values()) == {1}


def test_what_expired_is_asked_again(serve: Serve) -> None:
    server, bench = serve(end="expired", done_share=0.6)
    bench.ask(20)
    texts = bench.texts(20)
    assert all(text in (None, answer_to(number)) for number, text in enumerate(texts))
    assert set(server.seen.values()) == {1}
    assert submitted(server)[:2] == [20, 8]
    assert bench.tally.presumed == 0


def test_error_lines_are_failures_with_a_reason(serve: Serve) -> None:
    server, bench = serve(errors=3)
    bench.ask(8)
    assert bench.tally.failed == {"refused by the server": 3}
    assert bench.texts(8).count(None) == 3
    assert submitted(server) == [8]
    assert bench.noted() == 0


def test_three_batches_without_an_answer_end_it_in_one_line(serve: Serve) -> None:
    server, bench = serve(end="failed")
    with pytest.raises(TeacherError, match=r"3 batches in a row .*planned failure.*same command") as caught:
        bench.ask(4)
    assert "\n" not in str(caught.value)
    assert submitted(server) == [4, 4, 4]
    assert bench.noted() == 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["reset", "truncated-json", "status"])
def test_a_lost_reply_never_makes_a_second_batch(serve: Serve, kind: str) -> None:
    server, bench = serve([Fault(kind, path="/batches", most=2, status=503)])
    bench.ask(5)
    assert bench.all_right(5)
    assert submitted(server) == [5]


@pytest.mark.parametrize("kind", ["truncated-json", "reset-mid-body", "close-mid-body", "garbage-utf8"])
def test_a_file_that_comes_broken_is_fetched_again(serve: Serve, kind: str) -> None:
    server, bench = serve([Fault(kind, path="/content", most=1)])
    bench.ask(40)
    assert bench.all_right(40)
    assert set(server.seen.values()) == {1}


def test_retry_after_longer_than_allowed_stops_and_the_batch_is_kept(serve: Serve) -> None:
    server, bench = serve([Fault("status", path="/batches/", status=429, retry_after="7200", most=1)])
    with pytest.raises(TeacherError, match=r"7,200 s.*max_wait_seconds"):
        bench.ask(5)
    assert bench.noted() > 0
    bench.ask(5)
    assert bench.all_right(5)
    assert submitted(server) == [5]
    assert (bench.tally.answered, bench.tally.reused) == (0, 5)


def test_a_batch_under_another_limit_of_tokens_keeps_its_own(serve: Serve) -> None:
    server, bench = serve([Fault("status", path="/batches/", status=401, most=1)])
    with pytest.raises(TeacherError, match="refuses the key"):
        bench.ask(5, sampling=Sampling(max_tokens=3))  # every answer is cut
    bench.ask(5)
    assert bench.all_right(5)
    assert submitted(server) == [5, 5]  # a cut answer does not serve a larger limit
    assert all(len(text or "") == 12 for text in bench.texts(5, Sampling(max_tokens=3)))


def test_a_batch_that_the_endpoint_has_forgotten_is_presumed_paid(serve: Serve) -> None:
    server, bench = serve([Fault("status", path="/batches/", status=401, most=1)])
    with pytest.raises(TeacherError):
        bench.ask(3)
    server._batches.batches.clear()
    bench.ask(3)
    assert bench.all_right(3)
    assert bench.tally.presumed > 0


def test_live_requests_do_not_wait_for_a_batch_that_nobody_fetches(serve: Serve) -> None:
    _, bench = serve([Fault("status", path="/batches/", status=401, most=1)])
    with pytest.raises(TeacherError):
        bench.ask(3)
    with pytest.raises(TeacherError, match=r"3 requests are in a batch of openai-batch:m .*fetch it"):
        bench.ask(3, backend="openai")
    bench.ask(3)
    bench.ask(3, backend="openai")
    assert bench.tally.reused == 3


def test_the_budget_ends_it_and_a_larger_one_goes_on(serve: Serve) -> None:
    server, bench = serve()
    with pytest.raises(BudgetError):
        bench.ask(30, cap=0.0007)
    first = server.counts["answered"]
    with Ledger(bench.path) as ledger:
        assert ledger.money().total <= 0.0007 * NANO
    assert 0 < first < 30
    bench.ask(30, cap=1.0)
    assert bench.all_right(30)
    assert set(server.seen.values()) == {1}


def test_two_processes_on_one_ledger_pay_each_prompt_once(serve: Serve, tmp_path: Path) -> None:
    server, bench = serve([Fault("late", path="/v1/", seconds=0.05)], polls=2)
    benches = [bench, Bench(tmp_path, bench.url)]
    threads = [Thread(target=one.ask, args=(30,), kwargs={"sizes": {"most_requests": 8}}) for one in benches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert bench.all_right(30)
    assert list(server.seen.values()) == [1] * 30
    assert sum(one.tally.answered for one in benches) == 30
    assert [one.tally.answered + one.tally.reused for one in benches] == [30, 30]


def test_batches_cost_half_the_list_price(serve: Serve) -> None:
    _, bench = serve()
    teacher = bench.teacher(model="gpt-4o-mini", price=None)
    live = TeacherConfig(backend="openai", model="gpt-4o-mini")
    half, whole = price_of(teacher), price_of(live)
    assert half is not None
    assert whole is not None
    assert (half.input, half.output) == (whole.input / 2, whole.output / 2)


def test_the_key_is_sent_and_never_said(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TEST_KEY", SECRET)
    server, bench = serve([Fault("status", status=400, path="/files", body=f'{{"error": "bad {SECRET}"}}')])
    server.key = SECRET
    with pytest.raises(TeacherError) as caught:
        bench.ask(2, key_variable="TEST_KEY")
    assert SECRET not in str(caught.value)
    assert "***" in str(caught.value)
    assert not any(SECRET.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    server.stop()
    with pytest.raises(TeacherError, match="no connection") as caught:
        bench.ask(2, key_variable="TEST_KEY", limits={"retries": 0})
    assert SECRET not in repr(caught.value)


@given(st.lists(st.binary(max_size=9).map(lambda raw: raw.replace(b"\n", b"")), max_size=9), st.data())
def test_lines_are_the_same_however_the_pieces_fall(lines: list[bytes], data: st.DataObject) -> None:
    import asyncio

    raw = b"".join(line + b"\n" for line in lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=6)))
    pieces = [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]

    async def collected() -> list[bytes]:
        async def source():  # type: ignore[no-untyped-def]
            for piece in pieces:
                yield piece

        return [line async for line in _lines(source())]

    assert asyncio.run(collected()) == lines


RUN = """
task: claims
data: {limit: {train: 24, validation: 12, test: 12}}
teacher: {backend: openai-batch, model: fake, base_url: "URL", prompt: zero-shot}
student: {model: "scratch:"}
out: OUT
"""


def write_run(folder: Path, url: str) -> Path:
    """A run on the simulated letters against a server, its output below the folder."""
    folder.mkdir(exist_ok=True)
    path = folder / "run.yaml"
    path.write_text(RUN.replace("URL", url).replace("OUT", str(folder / "out")))
    return path


def annotate(path: Path) -> subprocess.Popen[str]:
    """The real command, in a process group of its own."""
    command = [sys.executable, "-m", "stepdistill", "annotate", str(path), "--quiet"]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=hear_ctrl_c,
    )


def finish(path: Path) -> str:
    with annotate(path) as process:
        _, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    return (path.parent / "out" / "annotations.jsonl").read_text()


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What a run that nothing disturbs writes."""
    with FaultyServer(batches=BatchPlan(polls=1)) as server:
        return finish(write_run(tmp_path_factory.mktemp("clean"), server.url))


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/v1/files", "/v1/batches"])
def test_killed_while_a_batch_is_made(serve: Serve, tmp_path: Path, clean: str, path: str) -> None:
    late = Fault("late", path=path, seconds=60, most=1)
    server, _ = serve([late], polls=1)
    run = write_run(tmp_path, server.url)
    with annotate(run) as process:
        until(lambda: server.counts["fault:late"])
        process.kill()
    assert finish(run) == clean
    assert list(server.seen.values()) == [1] * len(server.seen)
    assert submitted(server) == [36, 36]  # two stages


@pytest.mark.slow
def test_killed_at_random_moments(serve: Serve, tmp_path: Path, clean: str) -> None:
    seed = int(os.environ.get("STEPDISTILL_SEED", "3"))
    print(f"seed {seed}")
    chance = random.Random(seed)
    server, _ = serve([Fault("late", path="/v1/", seconds=0.1)], polls=2)
    run = write_run(tmp_path, server.url)
    for _ in range(5):
        before = server.counts["requests"]
        with annotate(run) as process:
            until(lambda: server.counts["requests"] > before or process.poll() is not None)  # noqa: B023
            time.sleep(chance.uniform(0, 0.5))
            process.kill()
    assert finish(run) == clean
    assert list(server.seen.values()) == [1] * len(server.seen)
    assert len(server.seen) == 2 * 36


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_wait_and_the_batch_is_fetched_later(
    serve: Serve, tmp_path: Path, clean: str, number: int, code: int
) -> None:
    server, _ = serve(polls=2)
    run = write_run(tmp_path, server.url)
    with annotate(run) as process:
        until(lambda: server._batches._polls)
        process.send_signal(number)
        _, error = process.communicate(timeout=30)
    assert process.returncode == code
    assert "same command" in error
    assert "Traceback" not in error
    assert finish(run) == clean
    assert submitted(server) == [36, 36]  # two stages
