"""The scripted teacher answers from its table; the simulated one errs as often as it was told."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from annotating import annotate_into, asked_of

from stepdistill.config import DataConfig, TeacherConfig
from stepdistill.errors import ConfigError, TeacherError
from stepdistill.records import Annotation, Completion, Example
from stepdistill.task import claims
from stepdistill.task.load import Task, load_examples, load_task
from stepdistill.teacher.annotations import read_annotations
from stepdistill.teacher.parse import parse
from stepdistill.teacher.simulated import ScriptedTeacher, simulated_teacher


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task("claims")


@pytest.fixture(scope="module")
def examples(task: Task) -> list[Example]:
    return [e for rows in load_examples(task, DataConfig()).values() for e in rows]


@pytest.fixture(scope="module")
def quarter(task: Task, examples: list[Example]) -> list[Annotation]:
    """What is read of a simulated teacher that is wrong in a quarter of the letters."""
    read = [parse(answer, task) for answer in simulated_teacher(task, 0.25, seed=0).complete(examples)]
    return [found for found in read if isinstance(found, Annotation) and found.rationale]


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


def test_a_quarter_of_the_simulated_answers_is_wrong_in_every_split(
    task: Task, examples: list[Example], quarter: list[Annotation]
) -> None:
    wrong, size = Counter[str](), Counter[str]()
    for found, example in zip(quarter, examples, strict=True):
        for group in ("all", example.id.split("-")[0]):
            size[group] += 1
            wrong[group] += found.label != example.label
    shares = {group: wrong[group] / size[group] for group in size}
    assert len(shares) == 4
    assert size["all"] >= 1500
    assert 0.21 < shares["all"] < 0.29
    assert all(0.15 < share < 0.35 for share in shares.values()), shares


def test_the_reasons_are_those_of_the_facts_where_and_only_where_the_label_is_right(
    examples: list[Example], quarter: list[Annotation]
) -> None:
    letters = claims.letters(len(examples), load_task("claims").spec.data.generator.seed)
    assert [e.text for e in examples] == [letter.text for letter in letters]
    for found, letter in zip(quarter, letters, strict=True):
        right = found.label == claims.decide(letter.facts) == letter.label
        assert right == (found.rationale == claims.rationale(letter.facts))


@pytest.mark.parametrize(("rate", "right"), [(0.0, True), (1.0, False)])
def test_without_errors_all_answers_are_right_and_with_nothing_else_none(
    task: Task, rate: float, right: bool
) -> None:
    small = generator_of(task, train=200, test=100)
    examples = [e for rows in load_examples(small, DataConfig()).values() for e in rows]
    answers = simulated_teacher(small, rate, seed=3).complete(examples)
    assert len(answers) == 300
    for answer, example in zip(answers, examples, strict=True):
        assert (parse(answer, small).label == example.label) is right  # type: ignore[union-attr]


def generator_of(task: Task, **sizes: int) -> Task:
    made = task.spec.data.generator
    assert made is not None
    data = task.spec.data.model_copy(update={"generator": made.model_copy(update={"sizes": sizes})})
    return Task(task.spec.model_copy(update={"data": data}))


def test_the_same_seed_gives_the_same_answers_and_another_seed_others(task: Task) -> None:
    small = generator_of(task, train=100, test=50)
    first, again, other = (simulated_teacher(small, 0.25, seed).answers for seed in (1, 1, 2))
    assert first == again
    assert 0 < sum(first[id_] != other[id_] for id_ in first) < len(first)


@pytest.mark.parametrize("name", ["svamp", "cqa", "esnli"])
def test_a_real_task_cannot_be_simulated(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"'{name}' is real: use 'recorded'"):
        simulated_teacher(load_task(name), 0.25, 0)


def test_a_simulated_run_annotates_every_example_of_every_split(task: Task, tmp_path: Path) -> None:
    small = generator_of(task, train=20, validation=5, test=7)
    data = DataConfig.model_validate({"limit": {"train": 10}})
    found = load_examples(small, data)
    annotate_into(tmp_path, asked_of(small, found, TeacherConfig(backend="simulated"), data))
    read = read_annotations(tmp_path / "annotations.jsonl")
    assert {split: len(rows) for split, rows in read.items()} == {"train": 10, "validation": 5, "test": 7}
    assert all(list(rows) == [e.id for e in found[split]] for split, rows in read.items())
