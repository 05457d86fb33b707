"""Routing against a real server: every answer paid once, every failure an abstention with its reason."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from faulty_server import Fault, FaultyServer
from moods import TASK, mood, router, texts

from stepdistill.config import TeacherConfig
from stepdistill.deploy.route import Router
from stepdistill.errors import ConfigError
from stepdistill.teacher.backends import BACKENDS
from stepdistill.teacher.protocol import Prompt, Reply, Sampling, Work, in_batches


def test_the_teacher_answers_in_the_run_s_own_words_and_a_text_is_paid_once(tmp_path: Path) -> None:
    with FaultyServer(answer=mood) as server, router(tmp_path, server) as asked:
        found = asked.ask(texts("a nice day", "rain", "a nice day"))
        assert [(a.example_id, a.label, a.by, a.abstained) for a in found] == [
            ("0", "good", "teacher", False),
            ("1", "bad", "teacher", False),
            ("2", "good", "teacher", False),
        ]
        assert found[0].rationale == "It says so."
        assert found[0].text == "It says so. So the answer is good."
        assert sum(server.seen.values()) == 2
        assert asked.ask(texts("rain", "a nice day"))[1].label == "good"
    with router(tmp_path, server) as again:  # nobody is there, and nobody is asked
        assert [a.label for a in again.ask(texts("rain"))] == ["bad"]
        assert again.ask([]) == []
    assert sum(server.seen.values()) == 2


def test_drawn_demonstrations_do_not_make_another_prompt_of_the_same_text(tmp_path: Path) -> None:
    choice = {"choose": "random", "n": 2}
    with (
        FaultyServer(answer=mood) as server,
        router(tmp_path, server, prompt="few-shot", demonstrations=choice) as asked,
    ):
        asked.ask(texts("rain", "snow"))
        asked.ask(texts("snow", "rain"))
        assert sum(server.seen.values()) == 2


@pytest.mark.parametrize(
    ("more", "requests"), [({"prompt": "zero-shot"}, 1), ({"draws": 3, "temperature": 0.5}, 3)]
)
def test_it_is_asked_in_whatever_way_the_run_was(tmp_path: Path, more: Any, requests: int) -> None:
    with FaultyServer(answer=mood) as server, router(tmp_path, server, **more) as asked:
        (found,) = asked.ask(texts("a nice day"))
        assert (found.label, sum(server.seen.values())) == ("good", requests)


@pytest.mark.parametrize(
    "fault",
    [
        Fault("status", status=500, times=1),
        Fault("status", status=429, retry_after="0.02", times=2),
        Fault("truncated-json", times=1),
        Fault("reset", times=1),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.status}",
)
def test_what_fails_now_and_then_is_tried_again(tmp_path: Path, fault: Fault) -> None:
    with FaultyServer([fault], mood) as server, router(tmp_path, server) as asked:
        assert [a.label for a in asked.ask(texts("rain"))] == ["bad"]


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (Fault("status", status=400), "refused by the server"),
        (Fault("status", status=401), "the endpoint refuses the key"),
        (Fault("quota"), "the account's quota is used up"),
        (Fault("status", status=429, retry_after="900"), "too many requests"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_fails_for_good_is_an_abstention_with_the_reason_and_no_address(
    tmp_path: Path, fault: Fault, why: str
) -> None:
    with FaultyServer([fault], mood) as server, router(tmp_path, server) as asked:
        first, second = asked.ask(texts("rain", "snow"))
        for found in (first, second):
            assert (found.label, found.abstained, found.by) == (None, True, "teacher")
            assert "127.0.0.1" not in str(found.reason)
        assert why in str(first.reason)
        server.plan = []
        assert [a.label for a in asked.ask(texts("rain", "a nice day"))] == ["bad", "good"]


def test_words_without_a_label_are_kept_and_said_to_be_unreadable(tmp_path: Path) -> None:
    with FaultyServer(answer=lambda *_: "Who knows?") as server, router(tmp_path, server) as asked:
        (found,) = asked.ask(texts("rain"))
        assert (found.label, found.abstained, found.text) == (None, True, "Who knows?")
        assert "could not be read" in str(found.reason)


def test_nobody_waits_longer_than_he_said_and_what_comes_late_is_kept(tmp_path: Path) -> None:
    late = Fault("late", seconds=0.9, match="rain")
    with FaultyServer([late], mood) as server, router(tmp_path, server, seconds=0.6) as asked:
        found = asked.ask(texts("rain", "a nice day"))
        assert [a.label for a in found] == [None, "good"], "the other one is not lost with it"
        assert found[0].reason in (
            "the teacher did not answer: not within 0.6 s",
            "the teacher did not answer: no reply in time",
        )
    patient = router(tmp_path, server, seconds=20)
    with FaultyServer([], mood, port=server.port), patient:
        assert patient.ask(texts("rain"))[0].label == "bad"


def test_an_answer_on_its_way_when_time_is_up_is_paid_for_and_found_the_next_time(tmp_path: Path) -> None:
    later = Fault("status", status=503, retry_after="0.7", times=1)
    with FaultyServer([later], mood, delay=0.65) as server:
        # The first attempt fails at once; the second is sent before time is up and answered after it.
        with router(tmp_path, server, seconds=1.0) as asked:
            assert asked.ask(texts("rain"))[0].label is None
        with router(tmp_path, server) as asked:
            assert asked.ask(texts("rain"))[0].label == "bad"
        assert sum(server.seen.values()) == 1


def test_many_threads_and_an_event_loop_may_ask_at_once_and_one_text_is_still_paid_once(
    tmp_path: Path,
) -> None:
    with FaultyServer(answer=mood, delay=0.05) as server, router(tmp_path, server) as asked:
        with ThreadPoolExecutor(6) as pool:
            found = list(pool.map(lambda i: asked.ask(texts("rain", f"nice {i % 3}")), range(12)))
        assert [[a.label for a in pair] for pair in found] == [["bad", "good"]] * 12

        async def inside() -> str | None:
            return asked.ask(texts("a nice day"))[0].label

        assert asyncio.run(inside()) == "good"
        assert sum(server.seen.values()) == 5
        assert set(server.seen.values()) == {1}


def test_a_budget_is_of_the_ledger_and_holds_over_restarts(tmp_path: Path) -> None:
    price = {"input": 1.0, "output": 2.0}
    with FaultyServer(answer=mood) as server:
        with router(tmp_path, server, price=price, max_cost_usd=0.0015) as asked:
            assert asked.ask(texts("rain"))[0].label == "bad"
            spent = asked.money()
            assert 0 < spent.total < 1_500_000
        with router(tmp_path, server, price=price, max_cost_usd=spent.total / 1e9 + 1e-4) as asked:
            kept, refused = asked.ask(texts("rain", "snow"))
            assert (kept.label, refused.label) == ("bad", None)
            assert refused.reason == "the teacher did not answer: the budget is used up"
        with pytest.raises(ConfigError, match="no price is known"):
            router(tmp_path, server, max_cost_usd=1.0)


def test_a_teacher_who_is_not_there_is_no_crash(tmp_path: Path) -> None:
    server = FaultyServer(answer=mood).start()
    server.stop()
    with router(tmp_path, server, seconds=1.0) as asked:
        (found,) = asked.ask(texts("rain"))
        assert (found.label, found.abstained) == (None, True)
        assert "the teacher did not answer" in str(found.reason)


def test_what_is_wrong_is_told_before_anything_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    server = FaultyServer()
    with pytest.raises(ConfigError, match="NO_SUCH_KEY"):
        router(tmp_path, server, key_variable="NO_SUCH_KEY")
    with pytest.raises(ConfigError, match="cannot be asked about new texts"):
        Router(TASK, TeacherConfig(backend="simulated"), 0, tmp_path / "ledger.sqlite")
    with pytest.raises(ConfigError, match="0 seconds to wait"):
        router(tmp_path, server, seconds=0)


class Loaded:
    """A model in this process: how often it was loaded, and what it was asked."""

    def __init__(self) -> None:
        self.loads, self.asked, self.wait = 0, 0, threading.Event()

    def __call__(self, *_: object) -> Loaded:
        self.loads += 1
        return self

    def answer(self, work: Work) -> None:
        """As `Backend`."""
        in_batches(work, self._complete, 4)

    def _complete(self, prompts: Sequence[Prompt], sampling: Sampling, draws: Sequence[int]) -> list[Reply]:
        self.wait.wait(60)
        self.asked += len(prompts)
        return [Reply(mood(prompt.messages[-1].content), "stop", "m", 1, 1) for prompt in prompts]


def test_a_model_in_this_process_is_loaded_once_and_what_it_says_too_late_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Loaded()
    monkeypatch.setitem(BACKENDS, "local", model)
    teacher = TeacherConfig(backend="local", model="m")
    with Router(TASK, teacher, 0, tmp_path / "ledger.sqlite", 0.1) as hasty:
        (late,) = hasty.ask(texts("a nice day"))
        (queued,) = hasty.ask(texts("rain"))  # the model is still at the first, so this one is never begun
        assert {late.reason, queued.reason} == {"the teacher did not answer: not within 0.1 s"}
        model.wait.set()
    assert (model.loads, model.asked) == (1, 1)
    with Router(TASK, teacher, 0, tmp_path / "ledger.sqlite") as patient:
        assert [a.label for a in patient.ask(texts("a nice day", "rain"))] == ["good", "bad"]
        assert patient.ask(texts("snow"))[0].label == "bad"
    assert (model.loads, model.asked) == (2, 3)
