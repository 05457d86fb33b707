"""Routing against a real server: every answer paid once, every failure an abstention with its reason."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from faulty_server import Fault, FaultyServer

from stepdistill.config import RunConfig, StudentConfig, TeacherConfig
from stepdistill.deploy.answer import Answer
from stepdistill.deploy.bundle import Bundle, Tokens
from stepdistill.deploy.route import Router, described, routed, router_for
from stepdistill.errors import ConfigError, RunFolderError
from stepdistill.records import Example
from stepdistill.task.load import Task
from stepdistill.task.schema import TaskSpec

TASK = Task(
    TaskSpec.model_validate(
        {
            "name": "moods",
            "instruction": "Tell the mood.",
            "input": "{text}",
            "answer": {"kind": "label", "column": "gold", "labels": ["good", "bad"]},
            "data": {"files": {"train": "train.jsonl"}},
            "demonstrations": [
                {"row": {"text": f"I {word} it."}, "rationale": f"To {word} is {label}.", "label": label}
                for word, label in (("love", "good"), ("hate", "bad"), ("adore", "good"), ("loathe", "bad"))
            ],
        }
    )
)


def mood(prompt: Any, most: int | None = None) -> str:
    """A teacher's words: good for a text with "nice" in it."""
    asked = prompt if isinstance(prompt, str) else prompt[-1]["content"]
    return f"It says so. So the answer is {'good' if 'nice' in asked else 'bad'}."


def router(folder: Path, server: FaultyServer, seconds: float = 20.0, **more: Any) -> Router:
    teacher = {"backend": "openai", "model": "m", "base_url": server.url, **more}
    budget = teacher.pop("max_cost_usd", None)
    return Router(TASK, TeacherConfig(**teacher), 0, folder / "ledger.sqlite", seconds, budget)


def texts(*words: str) -> list[Example]:
    return [Example(str(i), word, label="good") for i, word in enumerate(words)]


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
        before = time.monotonic()
        found = asked.ask(texts("rain", "a nice day"))
        assert time.monotonic() - before < 5
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


def test_only_what_the_student_left_is_routed_and_its_own_numbers_stay(tmp_path: Path) -> None:
    shares = {"good": 0.6, "bad": 0.4}
    left = Answer("1", "bad", None, "bad", "confidence 0.60 is below", None, shares, 0.6, abstained=True)
    own = [Answer("0", "good", "good", "good"), left]
    with FaultyServer(answer=mood) as server, router(tmp_path, server) as asked:
        examples = texts("a nice day", "another nice day")
        kept, found = routed(examples, own, asked)
        assert kept is own[0]
        assert (found.label, found.by, found.abstained, found.rationale) == ("good", "teacher", False, None)
        assert (found.guess, found.confidence, found.probabilities) == ("bad", 0.6, shares)
        assert routed(examples, own, asked, explain=True)[1].rationale == "It says so."
        assert sum(server.seen.values()) == 1
        server.plan = [Fault("status", status=400)]
        failed = routed(texts("x", "y"), own, asked)[1]
        assert (failed.label, failed.abstained, failed.by, failed.guess) == (None, True, "student", "bad")
        assert failed.reason == (
            "confidence 0.60 is below; the teacher did not answer: refused by the server"
        )


def run_of(folder: Path, **teacher: Any) -> RunConfig:
    student = StudentConfig(model="scratch:")
    return RunConfig(
        task="claims", teacher=TeacherConfig(**teacher), student=student, out=str(folder), seed=7
    )


def bundle_of(teacher: dict[str, Any] | None) -> Bundle:
    return Bundle(
        format="ctranslate2",
        precision="int8",
        card={},
        tokens=Tokens(eos=1, pad=0),
        teacher=teacher,
        stepdistill="0",
        files={},
        **({"positions": 512} if "positions" in Bundle.model_fields else {}),
    )


def test_a_bundle_says_who_is_asked_and_its_ledger_lies_beside_it(tmp_path: Path) -> None:
    with FaultyServer(answer=mood) as server:
        config = run_of(tmp_path, backend="openai-batch", model="m", base_url=server.url)
        told = described(config)
        with router_for(tmp_path / "bundle", bundle_of(told), TASK) as asked:
            assert (asked.teacher.backend, asked.teacher.model) == ("openai", "m")
            assert asked.ask(texts("a nice day"))[0].label == "good"
            assert asked.ledger == tmp_path / "bundle.ledger.sqlite"
            assert server.url in str(asked)
    assert described(run_of(tmp_path, backend="simulated")) is None
    with pytest.raises(ConfigError, match="names no teacher"):
        router_for(tmp_path, bundle_of(None), TASK)
    assert told is not None
    told["teacher"]["trust_remote_code"] = True
    with pytest.raises(ConfigError, match="runs code of its own"):
        router_for(tmp_path, bundle_of(told), TASK)


def test_a_run_s_student_is_routed_to_the_run_s_teacher_and_ledger(tmp_path: Path) -> None:
    student = tmp_path / "runs" / "one" / "students" / "distill"
    student.mkdir(parents=True)
    with pytest.raises(RunFolderError, match="in no run folder"):
        router_for(student, None, TASK)
    for backend, more in (("openai", {"model": "m", "base_url": "http://127.0.0.1:9/v1"}), ("simulated", {})):
        config = run_of(tmp_path, backend=backend, **more)
        (tmp_path / "runs/one/config.yaml").write_text(yaml.safe_dump(config.plain(), sort_keys=False))
        if backend == "openai":
            with router_for(student, None, TASK) as asked:
                assert asked.ledger == tmp_path / "runs" / "ledger.sqlite"
        else:
            with pytest.raises(ConfigError, match="'simulated': its answers are there already"):
                router_for(student, None, TASK)


def test_it_needs_no_training_library(tmp_path: Path) -> None:
    """At import and when it asks."""
    code = """
import sys
from pathlib import Path
heavy = ("torch", "transformers", "scipy", "sklearn", "pyarrow", "matplotlib", "datasets")
sys.modules.update(dict.fromkeys(heavy))  # to import one of them fails
from stepdistill.config import TeacherConfig
from stepdistill.deploy.route import Router
from stepdistill.records import Example
from stepdistill.task.load import load_task
teacher = TeacherConfig(backend="openai", model="m", prompt="zero-shot", base_url=sys.argv[1])
with Router(load_task("claims"), teacher, 0, Path(sys.argv[2])) as router:
    print(router.ask([Example("0", "rain")])[0].by)
"""
    with FaultyServer(answer=mood) as server:
        command = [sys.executable, "-c", code, server.url, str(tmp_path / "ledger.sqlite")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "teacher"
