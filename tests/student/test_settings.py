"""Settings: the learning rate that suits a student, what a tracker is given, and what memory may cost."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch

from stepdistill.config.run import LoraConfig
from stepdistill.student.model import SCRATCH, Student
from stepdistill.student.settings import learning_rate, micro_batch
from stepdistill.student.train import Lesson

Teach = Callable[..., Any]
LORA = LoraConfig(rank=2)


@pytest.mark.parametrize(
    ("student", "lora", "family", "rate"),
    [
        (SCRATCH, None, "encoder-decoder", 1e-3),
        (SCRATCH, LORA, "encoder-decoder", 1e-3),
        ("HuggingFaceTB/SmolLM2-135M", None, "causal", 2e-4),
        ("google/t5-v1_1-base", None, "encoder-decoder", 1e-4),
        ("HuggingFaceTB/SmolLM2-135M", LORA, "causal", 5e-4),
        ("google/t5-v1_1-base", LORA, "encoder-decoder", 5e-4),
    ],
)
@pytest.mark.parametrize("given", [None, 0.125])
def test_the_learning_rate_suits_the_student_where_none_is_given(
    lesson: Callable[..., Lesson],
    student: str,
    lora: LoraConfig | None,
    family: Any,
    rate: float,
    given: float | None,
) -> None:
    asked = lesson(facts={"student": student}, lora=lora, learning_rate=given)
    assert learning_rate(asked, family) == (given or rate)


def test_it_is_the_one_that_is_trained_with_and_said_on_the_card(teach: Teach) -> None:
    # The second of two steps is taken half of the way down.
    trained = teach(facts={"student": SCRATCH}, learning_rate=None, steps=2)
    assert json.loads((trained.folder / "student.json").read_text())["learning_rate"] == 1e-3
    log = json.loads((trained.folder / "log.json").read_text())
    assert [row["learning_rate"] for row in log] == pytest.approx([1e-3, 1e-3 / 2])


@pytest.mark.parametrize(
    ("settings", "world", "size"),
    [({}, 1, 4), ({}, 2, 2), ({"micro_batch_size": 2}, 1, 2), ({"micro_batch_size": 1}, 4, 1)],
)
def test_a_process_works_on_its_share_of_the_batch_or_on_what_is_said(
    lesson: Callable[..., Lesson], settings: dict[str, Any], world: int, size: int
) -> None:
    assert micro_batch(lesson(**settings).config, world) == size


def test_tensorboards_files_are_part_of_the_student(teach: Teach) -> None:
    trained = teach(report_to=["tensorboard"], steps=2)
    (events,) = (path for path in (trained.folder / "tensorboard").rglob("events*") if path.is_file())
    written = events.read_bytes()
    for name in (b"train/loss_label", b"train/loss_rationale", b"train/share_label"):
        assert name in written


def count_calls(student: Student) -> list[int]:
    """A list that grows with each call of the first block's first linear layer."""
    first = next(m for m in student.model.modules() if isinstance(m, torch.nn.Linear))
    calls: list[int] = []
    first.register_forward_pre_hook(lambda *_: calls.append(1))
    return calls


@pytest.mark.parametrize("lora", [None, LORA], ids=["whole", "lora"])
@pytest.mark.parametrize("family", ["encoder-decoder", "causal"])
def test_gradient_checkpointing_computes_each_block_twice_and_trains_the_same(
    teach: Teach, make_student: Callable[..., Student], family: str, lora: LoraConfig | None
) -> None:
    def run(saves: bool) -> tuple[Any, int]:
        student = make_student(family)
        calls, before = count_calls(student), []

        def watch(what: str, done: int, total: int, note: str = "") -> None:
            before.extend([len(calls)] if done == 4 and what.startswith("train") else [])

        settings = {"lora": lora, "steps": 2, "learning_rate": 1e-3, "gradient_checkpointing": saves}
        trained = teach(str(saves), student=student, watch=watch, **settings)
        # Those of the second step; in the first one, the tasks' shares are measured too.
        return trained, len(calls) - before[0]

    (plain, once), (saved, twice) = run(False), run(True)
    assert (once, twice) == (1, 2)
    assert saved.distance(plain.weights) < 1e-5
