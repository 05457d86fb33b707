"""What belongs to a run: settings, data, answers and weights; and what may change in its folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow  # whole runs

FILES = ("annotations.jsonl", "predictions.jsonl", "results.jsonl")


def settings(*pairs: str) -> list[str]:
    return [word for pair in pairs for word in ("--set", pair)]


def test_a_setting_is_corrected_in_place_while_nothing_is_trained(cli: Any, run_file: Path) -> None:
    assert cli("run", run_file, "-q", *settings("student.model=/no/such/model")).code == 2
    assert cli("run", run_file, "-q").code == 0


def test_checkpoints_of_another_setting_are_not_lost(cli: Any, run_file: Path, tmp_path: Path) -> None:
    assert cli("annotate", run_file, "-q").code == 0
    checkpoint = tmp_path / "out" / "students" / ".finetune.work" / "checkpoint-3"
    checkpoint.mkdir(parents=True)
    done = cli("run", run_file, "-q", *settings("train.epochs=7"))
    assert (done.code, checkpoint.exists()) == (2, True)
    assert "train.epochs" in done.error


def test_answers_of_another_teacher_are_not_taken_for_this_ones(cli: Any, run_file: Path) -> None:
    assert cli("annotate", run_file, "-q").code == 0
    done = cli("run", run_file, "-q", *settings("teacher.error_rate=0.5"))
    assert done.code == 2
    assert "teacher.error_rate is 0.25 there and 0.5 here" in done.error


def test_answers_added_to_the_file_make_another_run(cli: Any, run_file: Path, tmp_path: Path) -> None:
    answers = tmp_path / "answers.jsonl"
    rows = [{"id": f"train-{i}", "completion": "Nobody was hurt. So the answer is deny."} for i in range(24)]
    answers.write_text("\n".join(map(json.dumps, rows[:12])))
    recorded = settings("teacher.backend=recorded", f"teacher.completions={{train: {answers}}}")
    assert cli("run", run_file, "-q", *recorded).code == 0
    answers.write_text("\n".join(map(json.dumps, rows)))
    done = cli("run", run_file, "-q", *recorded)
    assert done.code == 2
    assert "(completions train)" in done.error


def test_other_weights_at_the_same_path_make_another_run(
    cli: Any, run_file: Path, finished: Path, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(finished / "students" / "finetune", base)
    student = settings(f"student.model={base}", "methods=[finetune]")
    assert cli("run", run_file, "-q", *student).code == 0
    shutil.copy(finished / "students" / "step-by-step" / "model.safetensors", base)
    done = cli("run", run_file, "-q", *student)
    assert done.code == 2
    assert "(weights model.safetensors)" in done.error


def test_what_changes_no_result_may_change(cli: Any, run_file: Path) -> None:
    assert cli("run", run_file, "-q", *settings("methods=[finetune]")).code == 0
    assert cli("run", run_file, "-q", *settings("train.max_target_tokens=300")).code == 0


def test_the_settings_that_a_run_notes_give_the_same_run(cli: Any, run_file: Path, tmp_path: Path) -> None:
    assert cli("run", run_file, "-q", *settings("train.alpha=0.25")).code == 0
    again = settings(f"out={tmp_path / 'again' / 'out'}")
    assert cli("run", tmp_path / "out" / "config.yaml", "-q", *again).code == 0
    for name in FILES:
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "again" / "out" / name).read_bytes()


def test_a_teacher_asked_for_a_part_of_the_test_set_is_not_scored_on_it(
    cli: Any, run_file: Path, tmp_path: Path
) -> None:
    for split, n in (("train", 24), ("test", 5)):
        rows = [{"id": f"{split}-{i}", "completion": "Thus. So the answer is deny."} for i in range(n)]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    files = f"teacher.completions={{train: {tmp_path}/train.jsonl, test: {tmp_path}/test.jsonl}}"
    done = cli("run", run_file, "-q", *settings("teacher.backend=recorded", files, "methods=[distill]"))
    assert done.code == 0
    assert "it was asked 5 of 12 test examples" in done.out
    names = [json.loads(line)["name"] for line in (tmp_path / "out" / "results.jsonl").open()]
    assert names == ["distill"]


def test_the_best_student_that_explains_is_asked_to_explain(cli: Any, finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    card = run / "students" / "finetune" / "student.json"
    card.write_text(json.dumps({**json.loads(card.read_text()), "validation": 1.0}))
    assert cli("predict", run, "A storm.", "--explain").code == 0


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_split_without_gold_labels_is_refused_before_training(cli: Any, tmp_path: Path, split: str) -> None:
    for name in ("train", "validation", "test"):
        rows = [{"x": f"{name} {i}", "y": None if name == split else "a"} for i in range(4)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "task.yaml").write_text(
        "{name: t, instruction: x, input: '{x}', answer: {kind: label, column: y, labels: [a, b]}, data: "
        "{files: {train: train.jsonl, validation: validation.jsonl, test: test.jsonl}}}"
    )
    (tmp_path / "run.yaml").write_text(
        f"{{task: {tmp_path}/task.yaml, student: {{model: 'scratch:'}}, methods: [finetune], "
        f"out: {tmp_path}/out}}"
    )
    done = cli("run", tmp_path / "run.yaml", "-q")
    assert done.code == 2
    assert f"no '{split}' example has a gold label" in done.error
