"""The released completions of PaLM-540B, read by every rule, are as often right as has been measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from annotating import annotate_into, asked_of

from stepdistill.config import DataConfig
from stepdistill.files import read_jsonl
from stepdistill.records import Annotation
from stepdistill.task.load import Task, load_examples, load_task
from stepdistill.teacher.annotations import count, read_annotations

Measure = Callable[[str, str | None], tuple[dict[str, int], dict[str, Any]]]


@pytest.fixture
def measure(real_data: Path, tmp_path: Path) -> Measure:
    """Right answers by split, and the parse report, of a task whose answers one rule reads."""

    def measurer(name: str, rule: str | None) -> tuple[dict[str, int], dict[str, Any]]:
        spec = load_task(name).spec
        task = Task(spec.model_copy(update={"answer": spec.answer.model_copy(update={"read": rule})}))
        data = DataConfig(root=str(real_data))
        examples = load_examples(task, data)
        annotate_into(tmp_path, asked_of(task, examples, data=data))
        read = read_annotations(tmp_path / "annotations.jsonl")
        right = Counter(
            split
            for split, rows in examples.items()
            for example in rows
            if isinstance(found := read[split][example.id], Annotation)
            and task.kind.same(found.label, str(example.label))
        )
        report = count(read, examples)
        for numbers in report.values():
            assert numbers["examples"] == numbers["answers"]
            assert numbers["answers"] == numbers["read"] + sum(numbers["unread"].values())
            assert numbers["read"] == sum(numbers["rules"].values())
        return dict(right), report

    return measurer


@pytest.mark.parametrize(("rule", "test", "train_file"), [("brackets", 148, 586), (None, 155, 594)])
def test_svamp_is_right_as_often_as_known(
    measure: Measure, rule: str | None, test: int, train_file: int
) -> None:
    right, report = measure("svamp", rule)
    assert (right["test"], right["train"] + right["validation"]) == (test, train_file)
    assert [report[split]["answers"] for split in ("train", "validation", "test")] == [720, 80, 200]


@pytest.mark.parametrize(
    ("rule", "test", "several"),
    [("text", 943, 0), ("first-letter", 968, 0), (None, 958, 25)],
)
def test_commonsense_qa_is_right_as_often_as_known(
    measure: Measure, rule: str | None, test: int, several: int
) -> None:
    right, report = measure("cqa", rule)
    assert right["test"] == test
    assert report["test"]["unread"].get("several options", 0) == several
    assert [report[split]["answers"] for split in ("train", "validation", "test")] == [8766, 975, 1221]


def test_rationales_hold_nothing_of_the_question_that_the_teacher_invents(
    real_data: Path, tmp_path: Path
) -> None:
    task, data = load_task("cqa"), DataConfig(root=str(real_data))
    examples = load_examples(task, data, only=("test",))
    annotate_into(tmp_path, asked_of(task, examples, data=data))
    rows = read_jsonl(tmp_path / "annotations.jsonl")
    assert all("\n\nQ" in row["completion"] for row in rows)
    assert not [row for row in rows if row["rationale"] and "\n" in row["rationale"]]
