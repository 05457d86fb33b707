"""The numbers of a proof, and the processes that they come from."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepdistill.deploy.bundle import Settings
from stepdistill.deploy.export import contest
from stepdistill.deploy.export.contest import BATCH, Clock, Side
from stepdistill.deploy.export.job import Exam
from stepdistill.deploy.export.proof import Agreement, accuracy, agreement, shortfall, speed
from stepdistill.deploy.export.tuning import Target, gradable, tune
from stepdistill.deploy.export.worker import peak_memory
from stepdistill.errors import ConfigError, StudentError
from stepdistill.records import Example, Prediction, unwatched
from stepdistill.task.closed import LabelKind

KIND = LabelKind(("yes", "no"))


def said(*labels: str | None) -> list[Prediction]:
    return [Prediction(str(i), label or f"words {i}", label) for i, label in enumerate(labels)]


@pytest.mark.parametrize(
    ("same", "n", "precision", "holds"),
    [
        (198, 200, "float32", True),
        (197, 200, "float32", False),
        (196, 200, "int8", True),
        (195, 200, "int8", False),
        (196, 200, "q8_0", True),
        (297, 300, "bfloat16", True),
        (296, 300, "bfloat16", False),
        (199, 199, "float32", False),
    ],
)
def test_an_export_needs_99_percent_of_200_and_98_in_eight_bits(
    same: int, n: int, precision: str, holds: bool
) -> None:
    lacks = shortfall(Agreement(same, n), precision)
    assert (lacks == "") is holds
    assert holds or str(n) in lacks


@given(st.lists(st.sampled_from(["yes", "no", None]), min_size=1))
def test_agreement_counts_equal_answers(labels: list[str | None]) -> None:
    answers = said(*labels)
    assert agreement(KIND, answers, answers) == Agreement(len(labels), len(labels))
    other = [
        Prediction(p.example_id, "other words", {"yes": "no", "no": "yes"}.get(p.label or ""))
        for p in answers
    ]
    assert agreement(KIND, answers, other).same == 0


def test_an_answer_that_one_can_read_and_the_other_cannot_is_no_agreement() -> None:
    assert agreement(KIND, said("yes", None), said(None, None)) == Agreement(1, 2)


def test_accuracy_counts_what_has_a_gold_label() -> None:
    examples = [Example("0", "a", "yes"), Example("1", "b", None), Example("2", "c", "no")]
    found = accuracy(KIND, examples, said("yes", "yes", None))
    assert found["accuracy"] == 0.5
    assert accuracy(KIND, examples[1:2], said("yes", "no")[1:])["accuracy"] is None


def test_speed_is_of_whole_batches_and_of_single_requests() -> None:
    found = speed(Clock(batches=[0.5, 1.5], singles=[i / 1000 for i in range(1, 101)]))
    assert found["examples_per_second"] == 2 * BATCH / 2.0
    assert found["latency_ms"] == {"p50": 50.0, "p95": 95.0, "n": 100}
    assert speed(Clock())["examples_per_second"] is None


def test_slow_sides_are_asked_less_often_one_by_one() -> None:
    assert Clock(singles=[9.0] * 19).waits
    assert not Clock(singles=[9.0] * 20).waits
    assert Clock(singles=[0.01] * 99).waits
    assert not Clock(singles=[0.01] * 100).waits


def test_a_readout_that_is_better_is_chosen_and_a_threshold_stands_on_its_curve() -> None:
    gold = [i % 2 for i in range(200)]
    sure = [
        [3.0 * (g == 0), 3.0 * (g == 1)] if i % 10 else [0.2 * g, 0.2 * (1 - g)] for i, g in enumerate(gold)
    ]
    found = tune({"first": [[0.1, 0.0]] * 200, "sum": sure}, gold, Target(accuracy=0.99))
    assert found.settings.readout == "sum"
    assert found.point is not None
    assert found.settings.threshold == found.point.threshold
    assert (found.point.accuracy, found.point.coverage) == (1.0, 0.9)
    # A little below the confidence itself, which is rounded otherwise in another batch.
    at = next(point.threshold for point in found.curve if point.coverage == 0.9)
    assert at - 2e-4 < found.point.threshold < at
    assert tune({"first": sure}, gold, Target()).settings.threshold is None
    with pytest.raises(ConfigError, match="no threshold reaches it"):
        tune({"first": [[0.1, 0.0]] * 200}, gold, Target(accuracy=0.9))


def test_only_examples_whose_label_can_be_given_are_graded() -> None:
    examples = [Example("0", "a", "x"), Example("1", "b", None), Example("2", "c", "z")]
    assert gradable(examples, [("x", "y")] * 3) == [0]


def test_questions_of_a_proof_carry_no_gold_label() -> None:
    rows = contest._rows(Exam([Example("0", "a", "x", ("x", "y"))], [], 1, 0).examples)
    assert rows == [{"id": "0", "text": "a", "options": ("x", "y")}]


def test_a_side_answers_and_says_what_is_wrong(labels: Any, tmp_path: Path) -> None:
    # What the parent holds is not in the memory of its child.
    ballast = os.urandom(1 << 20) * 600
    examples = [Example(str(i), row["question"]) for i, row in enumerate(labels.rows)]
    with Side("student", labels.student("step-by-step"), 1) as side:
        side.settle(Settings(readout="first", temperature=2.0))
        (answers,) = contest.contest([side], examples, unwatched)
        assert [answer.label for answer in answers] == [row["answer"] for row in labels.rows]
        assert side.computes == "float32"
        assert 50_000_000 < side.memory < len(ballast) < peak_memory()
        assert len(side.clock.batches) == len(examples) // BATCH
        assert all(math.isfinite(second) and second > 0 for second in side.clock.singles)
        side._process.kill()
        with pytest.raises(StudentError, match=r"the student could not be asked: .* signal 9"):
            side.predict(examples[:1])
    with (
        pytest.raises(StudentError, match=r"the export cannot be asked: .*no trained student is there"),
        Side("export", tmp_path, 1),
    ):
        pass
