"""The log: means over exactly the steps since the last line, and what a watcher is told of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from stepdistill.student.balance import Balance
from stepdistill.student.batch import Collator
from stepdistill.student.journal import Journal, Progress, history

Teach = Callable[..., Any]


def log(trained: Any) -> list[dict[str, float]]:
    return json.loads((trained.folder / "log.json").read_text())


def test_losses_of_tasks_are_means_over_tokens_and_the_loss_is_one_over_steps() -> None:
    journal = Journal()
    journal.add(3.0, [8.0, 6.0], [4.0, 6.0])
    journal.add(5.0, [2.0, 36.0], [1.0, 8.0])
    expected = {"loss": 4.0, "loss_label": 10 / 5, "loss_rationale": 42 / 14}
    assert journal.means() == pytest.approx(expected)
    assert journal.take() == pytest.approx(expected)


def test_a_line_knows_nothing_of_the_steps_before_the_last_one() -> None:
    journal = Journal()
    journal.add(3.0, [8.0, 6.0], [4.0, 6.0])
    journal.take()
    assert journal.take() == {}
    journal.add(1.0, [2.0, 1.0], [4.0, 4.0])
    assert journal.take() == {"loss": 1.0, "loss_label": 0.5, "loss_rationale": 0.25}


def test_a_task_without_targets_has_no_loss() -> None:
    journal = Journal()
    journal.add(2.0, [8.0, 0.0], [4.0, 0.0])
    assert journal.take() == {"loss": 2.0, "loss_label": 2.0}


def test_a_journal_that_is_read_back_goes_on_as_it_would_have() -> None:
    whole, again = Journal(), Journal()
    whole.add(3.0, [8.0, 6.0], [4.0, 6.0])
    for name, value in json.loads(json.dumps(whole.state()))["attributes"].items():
        setattr(again, name, value)
    for journal in (whole, again):
        journal.add(5.0, [2.0, 36.0], [1.0, 8.0])
    assert again.take() == whole.take()


def test_a_log_has_no_times_and_no_lines_without_losses_or_scores() -> None:
    rows = [{"step": 1, "loss": 2.0, "total_flos": 3}, {"step": 1, "eval_accuracy": 0.5, "eval_runtime": 9.0}]
    rows.append({"step": 2, "train_runtime": 7.0})
    assert history(rows) == [{"step": 1, "loss": 2.0}, {"step": 1, "eval_accuracy": 0.5}]


def test_progress_is_told_in_examples_with_losses_and_remarks() -> None:
    told: list[tuple[Any, ...]] = []
    progress = Progress("train x", 8, lambda *call: told.append(call))
    progress.begin, progress.remarks = "float32 on cpu", ["2 left out"]

    class State:
        global_step, max_steps = 3, 5

    progress.on_train_begin(None, State, None)
    progress.on_step_end(None, State, None)
    progress.losses = {"loss": 3.0, "loss_label": 1.25, "loss_rationale": 2.0}
    progress.on_step_end(None, State, None)
    progress.on_train_end(None, State, None)
    assert told == [
        ("train x", 24, 40, "float32 on cpu; 2 left out"),
        ("train x", 24, 40, "2 left out"),
        ("train x", 24, 40, "label 1.250, rationale 2.000; 2 left out"),
        ("train x", 40, 40, "label 1.250, rationale 2.000; 2 left out"),
    ]


def test_every_line_has_the_losses_of_both_tasks_and_what_they_weigh(teach: Teach) -> None:
    rows = log(teach(**{"lambda": 0.5}))
    assert [row["step"] for row in rows] == [*range(1, 10)]
    for row in rows:
        assert row["loss"] == pytest.approx(row["loss_label"] + 0.5 * row["loss_rationale"])
        assert row["grad_norm"] > 0
        assert row["lambda"] == 0.5
        assert 0 < row["share_label"] < 1
    assert rows[-1]["loss"] < rows[0]["loss"]


def test_the_labels_share_of_the_gradient_falls_as_lambda_grows(teach: Teach) -> None:
    light, heavy = (log(teach(f"{x}", steps=1, **{"lambda": x}))[0]["share_label"] for x in (0.5, 2.0))
    # |g_label| / (|g_label| + lambda |g_rationale|): the odds go with 1 / lambda.
    assert light / (1 - light) == pytest.approx(4 * heavy / (1 - heavy), rel=1e-4)


@pytest.mark.parametrize("family", ["encoder-decoder", "causal"])
def test_with_lambda_auto_both_tasks_pull_alike(teach: Teach, family: str) -> None:
    first, *_ = log(teach(family=family, steps=2, **{"lambda": "auto"}))
    assert first["share_label"] == pytest.approx(0.5, abs=1e-6)
    assert first["lambda"] != 1.0
    assert first["loss"] == pytest.approx(first["loss_label"] + first["lambda"] * first["loss_rationale"])


def test_the_last_that_a_watcher_is_told_are_the_losses(teach: Teach) -> None:
    notes: list[str] = []

    def watch(what: str, done: int, total: int, note: str = "") -> None:
        notes.extend([note] if what.startswith("train") else [])

    trained = teach(steps=2, watch=watch)
    # A line for each of so few steps, which is what the note shows.
    (label, rationale) = re.fullmatch(r"label (\d+\.\d{3}), rationale (\d+\.\d{3})", notes[-1]).groups()
    last = log(trained)[-1]
    assert float(label) == pytest.approx(last["loss_label"], abs=1e-3)
    assert float(rationale) == pytest.approx(last["loss_rationale"], abs=1e-3)


def test_gradients_are_measured_by_the_totals_of_their_own_micro_batch(
    teach: Teach, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Divided by the step's, a micro-batch with few rationales would make them seem to pull less.
    own: list[list[float]] = []
    seen: list[list[float]] = []
    collate, measure = Collator.__call__, Balance.measure

    def collated(self: Collator, samples: Any) -> Any:
        batch = collate(self, samples)
        own.append(batch["totals"].tolist())
        return batch

    def measured(self: Balance, sums: Any, totals: Any, parameters: Any) -> None:
        seen.append(totals.tolist())
        measure(self, sums, totals, parameters)

    monkeypatch.setattr(Collator, "__call__", collated)
    monkeypatch.setattr(Balance, "measure", measured)
    teach(n=8, steps=1, batch_size=8, micro_batch_size=2)
    assert seen == own[:1]
    assert len(own) == 4
