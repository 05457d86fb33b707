"""The methods: which training pairs an example and its annotation become, and which arms there are."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from stepdistill.config.train import LabelSource, RationaleSource
from stepdistill.errors import ConfigError, StudentError
from stepdistill.records import Annotation, Example, Target, Unparsed
from stepdistill.student.methods import (
    ARMS,
    MARKERS,
    METHODS,
    Targets,
    all_targets,
    find_arm,
    find_method,
    label_of,
    targets,
    with_rationale,
)
from stepdistill.student.rationales import SOURCES, Rationales, Reasons

EXAMPLE = Example("1", "How many?", "gold")
UNLABELLED = Example("1", "How many?")
READ = Annotation("1", "because", "theirs", "exact", 0.75)
UNREAD = Unparsed("1", "no marker")


def made(
    name: str,
    labels: LabelSource = "gold",
    example: Example = EXAMPLE,
    answer: Annotation | Unparsed | None = READ,
    **options: bool,
) -> list[Target]:
    """The targets of one example with the teacher's rationales."""
    method = find_method(name)
    annotations = {} if answer is None else {example.id: answer}
    label = label_of(method.labels_from(labels), example, answer)
    return targets(method, example, label, Rationales("teacher", annotations).of(example), **options)


def pairs(found: list[Target]) -> list[tuple[str, str]]:
    return [(target.task, target.target) for target in found]


@pytest.mark.parametrize(
    ("method", "labels", "expected"),
    [
        ("finetune", "gold", [("label", "gold")]),
        ("finetune", "teacher", [("label", "gold")]),
        ("distill", "gold", [("label", "theirs")]),
        ("distill", "teacher", [("label", "theirs")]),
        ("step-by-step", "gold", [("label", "gold"), ("rationale", "because")]),
        ("step-by-step", "teacher", [("label", "theirs"), ("rationale", "because")]),
        ("step-by-step", "gold-else-teacher", [("label", "gold"), ("rationale", "because")]),
        ("rationale-first", "gold", [("label", "because [label] gold")]),
        ("rationale-first", "teacher", [("label", "because [label] theirs")]),
        ("label-first", "gold", [("label", "gold [rationale] because")]),
        ("label-first", "teacher", [("label", "theirs [rationale] because")]),
        ("rationale-input", "gold", [("label", "gold")]),
        ("rationale-input", "teacher", [("label", "theirs")]),
    ],
)
def test_each_method_learns_its_own_pairs(
    method: str, labels: LabelSource, expected: list[tuple[str, str]]
) -> None:
    assert pairs(made(method, labels)) == expected


@pytest.mark.parametrize("answer", [UNREAD, None])
@pytest.mark.parametrize(
    ("method", "labels", "expected"),
    [
        ("finetune", "gold", [("label", "gold")]),
        ("distill", "teacher", []),
        ("step-by-step", "gold", [("label", "gold")]),
        ("step-by-step", "teacher", []),
        ("step-by-step", "gold-else-teacher", [("label", "gold")]),
        ("rationale-first", "gold", [("label", "[label] gold")]),
        ("rationale-first", "teacher", []),
        ("label-first", "gold", [("label", "gold")]),
        ("rationale-input", "gold", []),
    ],
)
def test_an_answer_that_could_not_be_read_is_never_trained_on(
    method: str, labels: LabelSource, expected: list[tuple[str, str]], answer: Unparsed | None
) -> None:
    assert pairs(made(method, labels, answer=answer)) == expected


@pytest.mark.parametrize(
    ("method", "labels", "left"),
    [
        ("finetune", "gold", 0),
        ("finetune", "gold-else-teacher", 0),
        ("step-by-step", "gold", 0),
        ("distill", "teacher", 1),
        ("step-by-step", "teacher", 2),
        ("step-by-step", "gold-else-teacher", 2),
        ("rationale-input", "gold", 0),
        ("rationale-input", "gold-else-teacher", 1),
    ],
)
def test_an_unlabelled_example_is_left_out_only_where_its_gold_label_is_needed(
    method: str, labels: LabelSource, left: int
) -> None:
    assert len(made(method, labels, UNLABELLED)) == left


def test_where_there_is_no_gold_label_the_teachers_stands_in() -> None:
    assert pairs(made("step-by-step", "gold-else-teacher", UNLABELLED))[0] == ("label", "theirs")


@pytest.mark.parametrize("labels", ["gold", "teacher"])
def test_without_a_rationale_the_label_alone_is_learned(labels: LabelSource) -> None:
    silent = Annotation("1", "", "theirs", "exact")
    assert [target.task for target in made("step-by-step", labels, answer=silent)] == ["label"]


def test_a_rationale_stands_beside_the_gold_label_also_where_the_teacher_was_wrong() -> None:
    assert READ.label != EXAMPLE.label
    assert pairs(made("step-by-step")) == [("label", "gold"), ("rationale", "because")]


@pytest.mark.parametrize("name", [name for name in METHODS if name != "rationale-input"])
def test_all_methods_that_are_asked_with_the_text_read_the_same_input_without_a_marker(name: str) -> None:
    assert {target.source for target in made(name, "gold-else-teacher")} == {"How many?"}


def test_a_rationale_as_input_stands_behind_the_text_and_its_marker() -> None:
    (target,) = made("rationale-input")
    assert target.source == "How many?\n[rationale] because" == with_rationale("How many?", "because")


def test_a_student_that_writes_the_rationale_itself_learns_that_too_and_from_the_text_alone() -> None:
    found = made("rationale-input", writes=True)
    assert pairs(found) == [("label", "gold"), ("rationale", "because")]
    assert found[1].source == "How many?"


@pytest.mark.parametrize("name", ["step-by-step", "rationale-first", "label-first"])
def test_only_the_method_with_the_rationale_as_input_is_told_who_writes_it(name: str) -> None:
    assert made(name, writes=True) == made(name)


def test_several_rationales_of_an_example_share_its_weight() -> None:
    found = targets(METHODS["step-by-step"], EXAMPLE, ("gold", 1.0), Reasons(("a", "b", "c"), 0.6))
    assert [(t.target, pytest.approx(t.weight)) for t in found] == [
        ("gold", 1.0),
        ("a", 0.2),
        ("b", 0.2),
        ("c", 0.2),
    ]


@pytest.mark.parametrize("name", ["rationale-first", "label-first", "rationale-input"])
def test_where_only_one_rationale_has_room_it_is_the_first(name: str) -> None:
    one, several = (
        targets(METHODS[name], EXAMPLE, ("gold", 1.0), Reasons(texts), writes=True)
        for texts in (("a",), ("a", "b"))
    )
    assert one == several


@pytest.mark.parametrize(
    ("labels", "example", "expected"),
    [
        ("gold", EXAMPLE, ("gold", 1.0)),
        ("teacher", EXAMPLE, ("theirs", 0.75)),
        ("gold-else-teacher", EXAMPLE, ("gold", 1.0)),
        ("gold-else-teacher", UNLABELLED, ("theirs", 0.75)),
        ("gold", UNLABELLED, None),
    ],
)
def test_votes_weigh_what_comes_from_the_teacher_and_nothing_else(
    labels: LabelSource, example: Example, expected: tuple[str, float] | None
) -> None:
    assert label_of(labels, example, READ, votes=True) == expected
    equal = label_of(labels, example, READ)
    assert equal == (expected and (expected[0], 1.0))


def test_votes_weigh_label_and_rationale_each_by_whose_it_is() -> None:
    rationales = Rationales("teacher", {"1": READ}, votes=True)
    (found,) = all_targets(METHODS["step-by-step"], "gold", [EXAMPLE], {"1": READ}, rationales)
    assert [target.weight for target in found] == [1.0, 0.75]
    (found,) = all_targets(METHODS["step-by-step"], "teacher", [EXAMPLE], {"1": READ}, rationales)
    assert [target.weight for target in found] == [0.75, 0.75]


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_found_by_its_name(name: str) -> None:
    assert find_method(name).name == name


def test_an_unknown_method_is_answered_with_a_suggestion_and_the_list() -> None:
    with pytest.raises(ConfigError, match=r"unknown method 'fintune'; did you mean 'finetune'\?") as caught:
        find_method("fintune")
    assert all(name in str(caught.value) for name in METHODS)


@pytest.mark.parametrize("source", SOURCES)
def test_an_arm_without_a_source_takes_the_configured_one(source: RationaleSource) -> None:
    arm = find_arm("step-by-step", source)
    assert (arm.name, arm.method.name, arm.source) == ("step-by-step", "step-by-step", source)
    assert find_arm(f"step-by-step+{source}", "human").source == source
    assert find_arm("finetune", source).source is None


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("step-by-stp+filler", "did you mean 'step-by-step'?"),
        ("step-by-step+shufled", "did you mean 'shuffled'?"),
        ("step-by-step+", "unknown source of rationales ''"),
        ("step-by-step+none+none", "unknown source of rationales 'none+none'"),
        ("finetune+shuffled", "finetune uses no rationales"),
        ("rationale-input+none", "finetuning under another name"),
        ("", "unknown method ''"),
    ],
)
def test_an_arm_that_there_is_not_is_answered_with_what_there_is(name: str, part: str) -> None:
    with pytest.raises(ConfigError) as caught:
        find_arm(name)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_arm_that_can_be_named_has_its_place_in_the_tables() -> None:
    assert len(set(ARMS)) == len(ARMS)
    for name in METHODS:
        assert name in ARMS
        for source in SOURCES:
            try:
                arm = find_arm(f"{name}+{source}")
            except ConfigError:
                continue
            assert arm.name in ARMS


@given(st.sampled_from(["", *(f"{name}+" for name in METHODS)]), st.text())
def test_any_text_that_is_no_arm_is_a_users_mistake_told_in_one_line(start: str, rest: str) -> None:
    assume(start + rest not in ARMS)
    with pytest.raises(ConfigError) as caught:
        find_arm(start + rest)
    assert "\n" not in str(caught.value)


def test_examples_without_pairs_are_left_out_and_counted() -> None:
    examples = [Example("1", "a", "x"), Example("2", "b"), Example("3", "c", "z")]
    found = all_targets(find_method("finetune"), "gold", examples, {})
    assert [rows[0].example_id for rows in found] == ["1", "3"]
    assert (len(found), found.n_left_out, found.n_unlabelled_left_out, found.n_rationales) == (2, 1, 1, 0)


def test_what_the_teacher_did_not_answer_is_left_out_and_is_not_unlabelled() -> None:
    found = all_targets(find_method("distill"), "gold", [EXAMPLE, Example("2", "b", "x")], {"1": READ})
    assert (len(found), found.n_left_out, found.n_unlabelled_left_out) == (1, 1, 0)


def test_annotations_are_found_by_the_id_of_the_example() -> None:
    examples = [Example("1", "a"), Example("2", "b")]
    read = {"2": Annotation("2", "", "two", ""), "1": Annotation("1", "", "one", "")}
    found = all_targets(find_method("distill"), "teacher", examples, read)
    assert [rows[0].target for rows in found] == ["one", "two"]


class Stream:
    """Examples of which only one is held at a time."""

    def __init__(self, n: int) -> None:
        self.n, self.passes, self.held = n, 0, 0

    def __iter__(self):  # type: ignore[no-untyped-def]
        self.passes += 1
        for i in range(self.n):
            self.held += 1
            yield Example(str(i), f"x{i}", "y")


def test_the_targets_are_made_one_at_a_time_and_anew_in_each_pass() -> None:
    stream = Stream(1000)
    read = {"7": Annotation("7", "r", "y", "")}
    found = all_targets(find_method("step-by-step"), "gold", stream, read)
    assert (stream.passes, len(found), found.n_rationales) == (1, 1000, 1)
    stream.held = 0
    rows = iter(found)
    assert next(rows)[0].source == "x0"
    assert stream.held == 1
    assert list(found) == list(found)
    assert isinstance(found, Targets)


@pytest.mark.parametrize("method", ["distill", "step-by-step", "rationale-first", "rationale-input"])
def test_a_teacher_of_whom_nothing_could_be_read_is_an_error(method: str) -> None:
    with pytest.raises(StudentError, match="none of the teacher's 1 answers could be read"):
        all_targets(find_method(method), "teacher", [EXAMPLE, Example("2", "b")], {"1": UNREAD})


def test_finetuning_without_any_gold_label_is_an_error() -> None:
    with pytest.raises(StudentError, match="no training example is left of 1, since no example has a gold"):
        all_targets(find_method("finetune"), "gold", [Example("1", "a")], {"1": READ})


@pytest.mark.parametrize("read", [{}, {"1": UNREAD}, {"1": Annotation("1", "", "theirs", "exact")}])
@pytest.mark.parametrize("name", ["step-by-step", "rationale-first", "label-first", "rationale-input"])
def test_a_method_of_rationales_without_any_is_an_error(
    name: str, read: dict[str, Annotation | Unparsed]
) -> None:
    with pytest.raises(StudentError, match="no rationale is left"):
        all_targets(find_method(name), "gold", [EXAMPLE], read)


def test_a_share_so_small_that_nothing_is_left_is_named() -> None:
    rationales = Rationales("teacher", {"1": READ}, share=1e-9)
    with pytest.raises(StudentError, match="rationale_share is 1e-09"):
        all_targets(find_method("step-by-step"), "gold", [EXAMPLE], {"1": READ}, rationales)


def test_human_rationales_that_are_not_there_are_an_error_that_names_their_column() -> None:
    with pytest.raises(StudentError, match=r"`answer\.rationale`"):
        all_targets(find_method("step-by-step"), "gold", [EXAMPLE], {"1": READ}, Rationales("human"))


def test_no_rationales_are_trained_where_none_were_asked_for() -> None:
    found = all_targets(find_method("step-by-step"), "gold", [EXAMPLE], {"1": READ}, Rationales("none"))
    assert list(found) == list(all_targets(find_method("finetune"), "gold", [EXAMPLE], {}))
    assert found.n_rationales == 0


def test_one_rationale_among_many_examples_is_enough() -> None:
    examples = [EXAMPLE, Example("2", "b", "x")]
    found = all_targets(find_method("step-by-step"), "gold", examples, {"1": READ})
    assert [len(rows) for rows in found] == [2, 1]


def test_the_markers_are_those_of_the_paper() -> None:
    assert MARKERS == {"label": "[label]", "rationale": "[rationale]"}
