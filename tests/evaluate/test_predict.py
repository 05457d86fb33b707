"""Predictors: student and teacher answer every example, in order, through one protocol."""

from __future__ import annotations

import pytest

from stepdistill.config import ScratchConfig, StudentConfig
from stepdistill.evaluate import predict
from stepdistill.evaluate.predict import StudentPredictor, TeacherPredictor, read_prediction
from stepdistill.records import Annotation, Example, Prediction, Unparsed
from stepdistill.student.generate import generate
from stepdistill.student.model import Student, new_student
from stepdistill.task.closed import ChoiceKind, LabelKind
from stepdistill.task.opened import TextKind

KIND = LabelKind(("yes", "no"))
EXAMPLES = [Example("b", "is it so today and tomorrow?"), Example("a", "is it?"), Example("c", "so it is")]
LIMITS = {"label": 3, "rationale": 5}


@pytest.fixture(scope="module")
def student() -> Student:
    """A tiny student that has learned nothing."""
    sizes = ScratchConfig(d_model=16, d_ff=16, heads=2, layers=1, vocabulary=60)
    texts = [f"[label] [rationale] {example.text} yes no" for example in EXAMPLES]
    return new_student(StudentConfig(model="scratch:", scratch=sizes), 0, texts)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], int]]:
    """What the student was asked, and how many tokens it was allowed."""
    calls: list[tuple[list[str], int]] = []

    def noted(student: Student, texts: list[str], new_tokens: int, **rest: object) -> list[str]:
        calls.append((texts, new_tokens))
        return generate(student, texts, new_tokens, **rest)

    monkeypatch.setattr(predict, "generate", noted)
    return calls


def test_a_student_gives_one_prediction_an_example_in_order(
    student: Student, asked: list[tuple[list[str], int]]
) -> None:
    found = StudentPredictor(student, TextKind(), LIMITS).predict(EXAMPLES)
    assert [prediction.example_id for prediction in found] == ["b", "a", "c"]
    assert [prediction.rationale for prediction in found] == [None] * 3
    assert asked == [(["[label] " + example.text for example in EXAMPLES], 3)]


def test_a_student_gives_its_rationale_where_it_is_asked_for(
    student: Student, asked: list[tuple[list[str], int]]
) -> None:
    found = StudentPredictor(student, TextKind(), LIMITS, explain=True).predict(EXAMPLES)
    inputs = ["[rationale] " + example.text for example in EXAMPLES]
    assert asked[1] == (inputs, 5)
    assert [prediction.rationale for prediction in found] == generate(student, inputs, 5)


def test_the_rationale_does_not_change_the_label(student: Student) -> None:
    plain = StudentPredictor(student, TextKind(), LIMITS).predict(EXAMPLES)
    explained = StudentPredictor(student, TextKind(), LIMITS, explain=True).predict(EXAMPLES)
    assert [(p.text, p.label) for p in plain] == [(p.text, p.label) for p in explained]


def test_no_examples_have_no_predictions(student: Student) -> None:
    assert StudentPredictor(student, KIND, LIMITS).predict([]) == []
    assert TeacherPredictor({}).predict([]) == []


def test_words_that_are_an_answer_are_read_and_kept() -> None:
    found = read_prediction(KIND, EXAMPLES[0], "Yes.", "since it is so")
    assert found == Prediction("b", "Yes.", "yes", None, "since it is so")


@pytest.mark.parametrize(
    ("words", "reason"), [("", "empty answer"), ("perhaps", "not a label"), ("yes or no", "several labels")]
)
def test_words_that_are_no_answer_are_kept_with_the_reason(words: str, reason: str) -> None:
    assert read_prediction(KIND, EXAMPLES[0], words) == Prediction("b", words, None, reason, None)


def test_an_answer_is_read_with_the_options_of_its_example() -> None:
    example = Example("1", "where?", None, ("sea", "lake"))
    assert read_prediction(ChoiceKind(), example, "(b)").label == "lake"


def test_the_teachers_answers_are_those_that_were_read() -> None:
    read = {"a": Annotation("a", "because", "no", "exact"), "b": Annotation("b", "", "yes", "exact")}
    assert TeacherPredictor(read).predict(EXAMPLES[:2]) == [
        Prediction("b", "yes", "yes", None, ""),
        Prediction("a", "no", "no", None, "because"),
    ]


def test_a_teachers_answer_that_could_not_be_read_has_its_reason() -> None:
    found = TeacherPredictor({"b": Unparsed("b", "no marker")}).predict(EXAMPLES[:1])
    assert found == [Prediction("b", "", None, "no marker")]


def test_an_example_the_teacher_was_not_asked_counts_as_unread() -> None:
    found = TeacherPredictor({}).predict(EXAMPLES[:1])
    assert found == [Prediction("b", "", None, "no answer")]
