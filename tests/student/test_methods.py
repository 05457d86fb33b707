"""The methods: which training pairs an example and its annotation become."""

from __future__ import annotations

import pytest

from stepdistill.errors import ConfigError, StudentError
from stepdistill.records import Annotation, Example, Target, Unparsed
from stepdistill.student.methods import METHODS, PREFIXES, all_targets, find_method, targets

EXAMPLE = Example("1", "How many?", "gold")
READ = Annotation("1", "because", "theirs", "exact")
UNREAD = Unparsed("1", "no marker")


def pairs(made: list[Target]) -> list[tuple[str, str]]:
    return [(target.task, target.target) for target in made]


@pytest.mark.parametrize(
    ("method", "labels", "expected"),
    [
        ("finetune", "gold", [("label", "gold")]),
        ("finetune", "teacher", [("label", "gold")]),
        ("distill", "gold", [("label", "theirs")]),
        ("distill", "teacher", [("label", "theirs")]),
        ("step-by-step", "gold", [("label", "gold"), ("rationale", "because")]),
        ("step-by-step", "teacher", [("label", "theirs"), ("rationale", "because")]),
    ],
)
def test_each_method_learns_its_own_pairs(method: str, labels: str, expected: list[tuple[str, str]]) -> None:
    assert pairs(targets(find_method(method), labels, EXAMPLE, READ)) == expected


@pytest.mark.parametrize("answer", [UNREAD, None])
@pytest.mark.parametrize(
    ("method", "labels", "expected"),
    [
        ("finetune", "gold", [("label", "gold")]),
        ("distill", "teacher", []),
        ("step-by-step", "gold", [("label", "gold")]),
        ("step-by-step", "teacher", []),
    ],
)
def test_an_answer_that_could_not_be_read_is_never_trained_on(
    method: str, labels: str, expected: list[tuple[str, str]], answer: Unparsed | None
) -> None:
    assert pairs(targets(find_method(method), labels, EXAMPLE, answer)) == expected


@pytest.mark.parametrize(
    ("method", "labels", "left"),
    [
        ("finetune", "gold", 0),
        ("step-by-step", "gold", 0),
        ("distill", "teacher", 1),
        ("step-by-step", "teacher", 2),
    ],
)
def test_an_unlabelled_example_is_left_out_only_where_its_gold_label_is_needed(
    method: str, labels: str, left: int
) -> None:
    assert len(targets(find_method(method), labels, Example("1", "How many?"), READ)) == left


@pytest.mark.parametrize("labels", ["gold", "teacher"])
def test_without_a_rationale_the_label_alone_is_learned(labels: str) -> None:
    silent = Annotation("1", "", "theirs", "exact")
    made = targets(find_method("step-by-step"), labels, EXAMPLE, silent)
    assert [target.task for target in made] == ["label"]


def test_a_rationale_stands_beside_the_gold_label_also_where_the_teacher_was_wrong() -> None:
    made = targets(find_method("step-by-step"), "gold", EXAMPLE, READ)
    assert READ.label != EXAMPLE.label
    assert pairs(made) == [("label", "gold"), ("rationale", "because")]


def test_all_methods_read_the_same_input() -> None:
    sources = {
        target.source
        for method in METHODS.values()
        for target in targets(method, "teacher", EXAMPLE, READ)
        if target.task == "label"
    }
    assert sources == {"[label] How many?"}


def test_the_rationale_is_asked_for_with_its_own_prefix() -> None:
    made = targets(find_method("step-by-step"), "gold", EXAMPLE, READ)
    assert [target.source for target in made] == [prefix + EXAMPLE.text for prefix in PREFIXES.values()]
    assert list(PREFIXES.values()) == ["[label] ", "[rationale] "]


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_found_by_its_name(name: str) -> None:
    assert find_method(name).name == name


def test_an_unknown_method_is_answered_with_a_suggestion_and_the_list() -> None:
    with pytest.raises(ConfigError, match=r"unknown method 'fintune'; did you mean 'finetune'\?") as caught:
        find_method("fintune")
    assert all(name in str(caught.value) for name in METHODS)


def test_examples_without_pairs_are_left_out() -> None:
    examples = [Example("1", "a", "x"), Example("2", "b"), Example("3", "c", "z")]
    made = all_targets(find_method("finetune"), "gold", examples, {})
    assert [rows[0].example_id for rows in made] == ["1", "3"]


def test_annotations_are_found_by_the_id_of_the_example() -> None:
    examples = [Example("1", "a"), Example("2", "b")]
    read = {"2": Annotation("2", "", "two", ""), "1": Annotation("1", "", "one", "")}
    made = all_targets(find_method("distill"), "teacher", examples, read)
    assert [rows[0].target for rows in made] == ["one", "two"]


@pytest.mark.parametrize("method", ["distill", "step-by-step"])
def test_a_teacher_of_whom_nothing_could_be_read_is_an_error(method: str) -> None:
    with pytest.raises(StudentError, match="none of the teacher's 1 answers could be read"):
        all_targets(find_method(method), "teacher", [EXAMPLE, Example("2", "b")], {"1": UNREAD})


def test_finetuning_without_any_gold_label_is_an_error() -> None:
    with pytest.raises(StudentError, match="no training example is left of 1, since no example has a gold"):
        all_targets(find_method("finetune"), "gold", [Example("1", "a")], {"1": READ})


@pytest.mark.parametrize("read", [{}, {"1": UNREAD}, {"1": Annotation("1", "", "theirs", "exact")}])
def test_step_by_step_without_any_rationale_is_an_error(read: dict[str, Annotation | Unparsed]) -> None:
    with pytest.raises(StudentError, match="no rationale is left"):
        all_targets(find_method("step-by-step"), "gold", [EXAMPLE], read)


def test_one_rationale_among_many_examples_is_enough() -> None:
    examples = [EXAMPLE, Example("2", "b", "x")]
    made = all_targets(find_method("step-by-step"), "gold", examples, {"1": READ})
    assert [len(rows) for rows in made] == [2, 1]
