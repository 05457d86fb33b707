"""The scripted teacher answers from its table; the simulated one errs as often as it was told."""

from __future__ import annotations

from collections import Counter

import pytest

from stepdistill.config import DataConfig, TeacherConfig
from stepdistill.errors import ConfigError, TeacherError
from stepdistill.records import Annotation, Completion, Example, unwatched
from stepdistill.task import claims
from stepdistill.task.load import Task, load_examples, load_task
from stepdistill.teacher.annotate import Asked, annotate, read_annotations
from stepdistill.teacher.parse import parse
from stepdistill.teacher.simulated import ScriptedTeacher, simulated_teacher


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task("claims")


@pytest.fixture(scope="module")
def examples(task: Task) -> list[Example]:
    return [e for rows in load_examples(task, DataConfig()).values() for e in rows]


def asked(*ids: str) -> list[Example]:
    return [Example(id_, "?") for id_ in ids]


def test_a_scripted_teacher_answers_in_the_order_of_the_examples() -> None:
    teacher = ScriptedTeacher({"a": "first", "b": "second"}, model="double")
    assert teacher.complete(asked("b", "a", "b")) == [
        Completion("b", "second", "double"),
        Completion("a", "first", "double"),
        Completion("b", "second", "double"),
    ]
    assert teacher.complete([]) == []


def test_a_scripted_teacher_names_the_examples_it_cannot_answer() -> None:
    with pytest.raises(TeacherError, match=r"no answer for x, y, z$"):
        ScriptedTeacher({"a": ""}).complete(asked("a", "x", "y", "z", "zz"))


def test_a_scripted_teacher_keeps_its_answers_when_the_table_changes() -> None:
    table = {"a": "first"}
    teacher = ScriptedTeacher(table)
    table["a"] = "changed"
    assert teacher.complete(asked("a"))[0].text == "first"


def test_a_quarter_of_the_simulated_answers_is_wrong_and_wrong_ones_differ_from_gold(
    task: Task, examples: list[Example]
) -> None:
    answers = simulated_teacher(task, 0.25, seed=0).complete(examples)
    read = [parse(answer, task) for answer in answers]
    assert all(isinstance(found, Annotation) and found.rationale for found in read)
    right = [found.label == e.label for found, e in zip(read, examples, strict=True)]  # type: ignore[union-attr]
    assert len(right) >= 1500
    assert 0.21 < 1 - sum(right) / len(right) < 0.29


def test_simulated_answers_that_are_right_give_the_reasons_that_the_facts_give(
    task: Task, examples: list[Example]
) -> None:
    answers = simulated_teacher(task, 0.25, seed=0).complete(examples)
    letters = claims.letters(len(examples), 0)
    assert [e.text for e in examples] == [letter.text for letter in letters]
    for answer, letter in zip(answers, letters, strict=True):
        found = parse(answer, task)
        assert isinstance(found, Annotation)
        same = found.rationale == claims.rationale(letter.facts)
        assert same == (found.label == letter.label == claims.decide(letter.facts))


@pytest.mark.parametrize(("rate", "right"), [(0.0, True), (1.0, False)])
def test_without_errors_all_answers_are_right_and_with_nothing_else_none(
    task: Task, examples: list[Example], rate: float, right: bool
) -> None:
    answers = simulated_teacher(task, rate, seed=3).complete(examples)
    for answer, example in zip(answers, examples, strict=True):
        assert (parse(answer, task).label == example.label) is right  # type: ignore[union-attr]


def test_the_same_seed_gives_the_same_answers_and_another_seed_others(task: Task) -> None:
    first, again = (simulated_teacher(task, 0.25, seed=1).answers for _ in range(2))
    other = simulated_teacher(task, 0.25, seed=2).answers
    assert first == again
    assert 0 < sum(first[id_] != other[id_] for id_ in first) < len(first)


def test_errors_are_spread_over_all_splits(task: Task, examples: list[Example]) -> None:
    answers = simulated_teacher(task, 0.25, seed=0).complete(examples)
    wrong, size = Counter[str](), Counter[str]()
    for answer, example in zip(answers, examples, strict=True):
        split = example.id.split("-")[0]
        size[split] += 1
        wrong[split] += parse(answer, task).label != example.label  # type: ignore[union-attr]
    assert all(0.15 < wrong[split] / size[split] < 0.35 for split in size), wrong


@pytest.mark.parametrize("name", ["svamp", "cqa", "esnli"])
def test_a_real_task_cannot_be_simulated(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"'{name}' is real: use 'recorded'"):
        simulated_teacher(load_task(name), 0.25, 0)


def test_a_simulated_run_annotates_every_example_of_every_split(task: Task, tmp_path: object) -> None:
    data = DataConfig.model_validate({"limit": {"train": 20, "validation": 5, "test": 7}})
    found = load_examples(task, data)
    path = tmp_path / "annotations.jsonl"  # type: ignore[operator]
    annotate(Asked(task, found, data, TeacherConfig(backend="simulated"), 0), path, unwatched)
    read = read_annotations(path)
    assert {split: list(rows) for split, rows in read.items()} == {
        split: [e.id for e in rows] for split, rows in found.items()
    }
