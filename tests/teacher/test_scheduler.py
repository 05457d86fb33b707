"""Many requests at a time: pace, breaker, signals; whatever happens, what was answered is stored once."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from asking import order_of, prompt
from endpoint import SAMPLING, assert_all_answered, at, count, failures, rows, run, words
from faulty_server import Fault, FaultyServer

from stepdistill.config import LimitsConfig
from stepdistill.errors import TeacherError
from stepdistill.teacher.ledger import Ledger
from stepdistill.teacher.protocol import Prompt, Reply, Tally
from stepdistill.teacher.refusal import RefusalError
from stepdistill.teacher.scheduler import PAID_TRIES, Scheduler
from stepdistill.teacher.work import Work

RUN = """
task: claims
data: {{limit: {{train: 40, validation: 20, test: 20}}}}
teacher:
  backend: openai
  model: fake
  prompt: zero-shot
  base_url: "{url}"
  price: {{input: 1, output: 2}}
  limits: {{concurrency: 8}}
student: {{model: "scratch:"}}
out: {out}
"""


class Answers:
    """An endpoint in this process, which does what it is told to."""

    def __init__(self, *refusals: RefusalError | Exception) -> None:
        self.refusals = list(refusals)
        self.asked: list[Prompt] = []

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def ask(self, prompt: Prompt) -> Reply:
        self.asked.append(prompt)
        if self.refusals:
            raise self.refusals.pop(0)
        return Reply(prompt.tail[-1].content, "stop", "m", 1, 1)


def schedule(folder: Path, endpoint: Answers, n: int = 3, **limits: int) -> Tally:
    tally = Tally()
    with Ledger(folder / "ledger.sqlite") as ledger:
        work = Work(ledger, order_of(words(n), SAMPLING, config=at("http://h/v1")), tally)
        Scheduler(endpoint, LimitsConfig(**limits), work, first_wait=0.001).run()
    return tally


@pytest.mark.parametrize("concurrency", [1, 2, 64])
def test_all_is_asked_once_however_many_at_a_time(concurrency: int, tmp_path: Path) -> None:
    endpoint = Answers()
    tally = schedule(tmp_path, endpoint, 300, concurrency=concurrency)
    assert sorted(p.tail[-1].content for p in endpoint.asked) == sorted(words(300))
    found = rows(tmp_path, at("http://h/v1"), words(300))
    assert found == {word: (word, "stop") for word in words(300)}
    assert (tally.answered, tally.attempts, count(tmp_path, "claims")) == (300, 300, 0)


def test_what_cost_nothing_is_tried_as_often_as_the_limits_say(tmp_path: Path) -> None:
    free = [RefusalError("server error") for _ in range(5)]
    tally = schedule(tmp_path, Answers(*free), 1, retries=4, concurrency=1)
    assert (tally.failed, tally.attempts, count(tmp_path, "failures")) == ({"server error": 1}, 5, 1)
    tally = schedule(tmp_path, Answers(*free[:4]), 1, retries=4, concurrency=1)
    assert (tally.answered, tally.attempts) == (1, 5)


@pytest.mark.parametrize(("retries", "tries"), [(8, PAID_TRIES), (1, 2), (0, 1)])
def test_what_may_have_been_paid_is_tried_less_often_and_each_try_is_noted(
    retries: int, tries: int, tmp_path: Path
) -> None:
    paid = [RefusalError("malformed reply", maybe_paid=True) for _ in range(9)]
    tally = schedule(tmp_path, Answers(*paid), 1, retries=retries, concurrency=1)
    assert (tally.failed, tally.attempts) == ({"malformed reply": 1}, tries)
    assert len(failures(tmp_path)) == tries


def test_free_tries_do_not_use_up_the_paid_ones(tmp_path: Path) -> None:
    kinds = [False, False, True, False, True]
    refusals = [RefusalError("some", maybe_paid=paid) for paid in kinds]
    assert schedule(tmp_path, Answers(*refusals), 1, concurrency=1).answered == 1


def test_a_defect_ends_the_run_and_shows(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        schedule(tmp_path, Answers(ZeroDivisionError()), 100, concurrency=4)


def test_a_server_that_is_down_ends_the_run_in_one_line(tmp_path: Path) -> None:
    config = at("http://127.0.0.1:9/v1", {"give_up_after": 5, "retries": 2, "concurrency": 4})
    tally = Tally()
    with pytest.raises(TeacherError) as error:
        run(tmp_path, config, words(500), tally)
    assert "5 requests in a row failed, the last with: no connection" in str(error.value)
    assert "\n" not in str(error.value)
    assert tally.attempts <= (5 + 4) * 3  # the queue is not burnt
    assert sum(tally.failed.values()) <= 5 + 4
    assert count(tmp_path, "claims") == 0


def test_a_server_that_comes_back_is_asked_on(tmp_path: Path) -> None:
    server = FaultyServer(delay=0.01)
    with server:
        port = server.port
    back = threading.Timer(0.3, server.start)
    back.start()
    try:
        config = at(f"http://127.0.0.1:{port}/v1", {"retries": 12})
        tally = run(tmp_path, config, words(50))
        assert tally.attempts > 50
        assert_all_answered(tmp_path, config, words(50), server)
    finally:
        back.join()
        server.stop()


def test_a_success_between_failures_keeps_the_run_going(tmp_path: Path) -> None:
    with FaultyServer([Fault("status", status=400, share=0.5)]) as server:
        config = at(server.url, {"give_up_after": 10, "concurrency": 1})
        tally = run(tmp_path, config, words(60))
    assert tally.answered + tally.failed["refused by the server"] == 60
    assert tally.failed["refused by the server"] > 10


@pytest.mark.slow
@pytest.mark.parametrize(
    ("headers", "least"),
    [
        ({"Retry-After": "1"}, 1.0),
        ({"Retry-After": "0.3"}, 0.3),
        ({"Retry-After": "1m30s", "retry-after-ms": "400"}, 0.4),
        ({"Retry-After": "Fri, 02 Jan 2026 03:04:06 GMT", "Date": "Fri, 02 Jan 2026 03:04:05 GMT"}, 1.0),
        ({"Retry-After": "0"}, 0.0),
        ({"Retry-After": "-3"}, 0.0),
        ({"Retry-After": "junk"}, 0.0),
        ({}, 0.0),
    ],
)
def test_after_a_429_nobody_asks_before_the_time_that_it_says(
    headers: dict[str, str], least: float, tmp_path: Path
) -> None:
    plan = [Fault("status", status=429, headers=headers, after=10, most=1)]
    with FaultyServer(plan, log=200, delay=0.01) as server:
        tally = run(tmp_path, at(server.url), words(40))
        assert_all_answered(tmp_path, at(server.url), words(40), server)
        refused_at = next(when for when, _, status, _ in server.requests if status == 429)
        # A reply is logged when it is decided; what was under way by then could not have known.
        arrived = [when - (0.01 if status == 200 else 0) for when, _, status, _ in server.requests]
        grace = server.record.grace
        assert not [when for when in arrived if refused_at + grace < when < refused_at + least - 0.01]
        assert (server.counts["early"], server.counts["early_same"]) == (0, 0)
    assert (tally.slowed, tally.failed) == (1, {})


@pytest.mark.slow
def test_a_strict_bucket_refuses_little_and_nobody_comes_too_early(tmp_path: Path) -> None:
    with FaultyServer(rate=200, burst=20, asked="ceil", delay=0.02) as server:
        asked = words(1200)
        tally = run(tmp_path, at(server.url, {"concurrency": 32}), asked)
        assert_all_answered(tmp_path, at(server.url), asked, server)
        assert (server.counts["early"], server.counts["early_same"]) == (0, 0)
        assert 0 < server.counts["429"] == tally.slowed <= 0.03 * server.counts["requests"]


@pytest.mark.slow
def test_a_limit_of_requests_is_kept(tmp_path: Path) -> None:
    with FaultyServer(log=500) as server:
        run(tmp_path, at(server.url, {"requests_per_minute": 6000}), words(250))
        times = [when for when, *_ in server.requests]
    assert len(times) == 250
    assert times[-1] - times[0] >= 1.4  # 100 a second, of which the first second's may come at once


def start(folder: Path, url: str) -> subprocess.Popen[str]:
    file = folder / "run.yaml"
    file.write_text(RUN.format(url=url, out=folder / "runs" / "a"))
    return subprocess.Popen(
        [sys.executable, "-m", "stepdistill", "annotate", str(file), "--quiet"],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # A shell starts background jobs with SIGINT ignored, and that is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_for(server: FaultyServer, process: subprocess.Popen[str], n: int) -> None:
    while server.counts["requests"] < n:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def children(pid: int) -> list[str]:
    found = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    )
    return found.stdout.split()


def stored(folder: Path) -> int:
    return count(folder / "runs", "completions")


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_intake_and_stores_what_is_on_its_way(sent: int, code: int, tmp_path: Path) -> None:
    with FaultyServer(delay=0.5) as server:
        process = start(tmp_path, server.url)
        wait_for(server, process, 20)
        process.send_signal(sent)
        assert children(process.pid) == []
        _, error = process.communicate(timeout=60)
        assert process.returncode == code
        assert stored(tmp_path) == len(server.seen) == server.counts["answered"] < 80
        assert count(tmp_path / "runs", "failures") == 0
    assert "answers that are on their way" in error
    assert "finished work is kept. Run the same command to go on." in error
    assert "Traceback" not in error


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_second_signal_does_not_wait_for_a_server_that_never_answers(
    sent: int, code: int, tmp_path: Path
) -> None:
    with FaultyServer([Fault("never")]) as server:
        process = start(tmp_path, server.url)
        wait_for(server, process, 8)
        process.send_signal(sent)
        time.sleep(0.3)
        process.send_signal(sent)
        _, error = process.communicate(timeout=20)  # the deadline of a request is two minutes
    assert process.returncode == code
    assert "Traceback" not in error
    reasons = [reason for _, reason, _ in failures(tmp_path / "runs")]
    assert reasons == ["interrupted"] * 8  # they may have been paid
    assert count(tmp_path / "runs", "claims") == 0


@pytest.mark.slow
def test_what_was_cut_off_is_asked_again_by_the_same_command(tmp_path: Path) -> None:
    with FaultyServer([Fault("never", most=8)]) as server:
        process = start(tmp_path, server.url)
        wait_for(server, process, 8)
        for _ in range(2):
            process.send_signal(signal.SIGINT)
            time.sleep(0.3)
        process.communicate(timeout=20)
        process = start(tmp_path, server.url)
        _, error = process.communicate(timeout=60)
        assert process.returncode == 0, error
        assert stored(tmp_path) == len(server.seen)
        assert set(server.seen.values()) == {1}


def test_in_a_thread_there_are_no_signals_and_all_else_is_the_same(tmp_path: Path) -> None:
    with FaultyServer() as server:
        thread = threading.Thread(target=run, args=(tmp_path, at(server.url), words(20)))
        thread.start()
        thread.join(30)
        assert_all_answered(tmp_path, at(server.url), words(20), server)


def test_a_prompt_of_one_megabyte_and_an_empty_one_are_asked_like_any_other(tmp_path: Path) -> None:
    asked = ["x" * 1_000_000, "", "\r\n\ufeff", "{0.__class__} %s", prompt("é").text]
    with FaultyServer() as server:
        run(tmp_path, at(server.url), asked)
        assert_all_answered(tmp_path, at(server.url), asked, server)
