"""Predictors: student and teacher answer every example, in order, through one protocol."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stepdistill.config import ScratchConfig, StudentConfig
from stepdistill.errors import StudentError
from stepdistill.evaluate import predict
from stepdistill.evaluate.predict import StudentPredictor, TeacherPredictor
from stepdistill.evaluate.words import NO_MARKER, NO_RATIONALE, Words, label_first, reason_first
from stepdistill.records import Annotation, Example, Prediction, Unparsed
from stepdistill.student.generate import generate
from stepdistill.student.methods import one_sequence
from stepdistill.student.model import Student, new_student
from stepdistill.student.scoring import answers_with_probabilities
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


@dataclass
class Voice:
    """Stands between predictor and student: notes what is asked, and says what is in the script."""

    script: dict[tuple[str, str], str] = field(default_factory=dict)
    asked: list[tuple[str, list[str], int, str | None]] = field(default_factory=list)

    def __call__(self, student: Student, texts: list[str], new_tokens: int, **rest: object) -> list[str]:
        task = str(rest["task"])
        self.asked.append((task, list(texts), new_tokens, rest["stop"]))  # type: ignore[arg-type]
        if self.script:
            return [self.script[task, text] for text in texts]
        return generate(student, texts, new_tokens, **rest)  # type: ignore[arg-type]


@pytest.fixture
def voice(monkeypatch: pytest.MonkeyPatch) -> Voice:
    """What the student is asked, and what it says."""
    found = Voice()
    monkeypatch.setattr(predict, "generate", found)
    return found


TEXTS = [example.text for example in EXAMPLES]


def test_a_student_gives_one_prediction_an_example_in_order(student: Student, voice: Voice) -> None:
    found = StudentPredictor(student, TextKind(), LIMITS).predict(EXAMPLES)
    assert [prediction.example_id for prediction in found] == ["b", "a", "c"]
    assert [prediction.rationale for prediction in found] == [None] * 3
    assert voice.asked == [("label", TEXTS, 3, None)]


def test_a_student_of_two_tasks_gives_its_rationale_where_it_is_asked_for(
    student: Student, voice: Voice
) -> None:
    found = StudentPredictor(student, TextKind(), LIMITS, explain=True, form="both").predict(EXAMPLES)
    assert voice.asked == [("label", TEXTS, 3, None), ("rationale", TEXTS, 5, None)]
    assert [prediction.rationale for prediction in found] == generate(student, TEXTS, 5, task="rationale")


def test_probabilities_stand_beside_the_answer_and_do_not_change_it(student: Student) -> None:
    for form in ("label", "both"):
        plain = StudentPredictor(student, KIND, LIMITS, form=form).predict(EXAMPLES)
        ask = partial(answers_with_probabilities, student, labels=("yes", "no"), new_tokens=LIMITS["label"])
        found = StudentPredictor(student, KIND, LIMITS, form=form, surely=ask).predict(EXAMPLES)
        assert [replace(one, probabilities=None) for one in found] == plain
        assert [sum(one.probabilities or ()) for one in found] == pytest.approx([1.0] * len(EXAMPLES))
        assert {len(one.probabilities or ()) for one in found} == {2}


@pytest.mark.parametrize("form", ["rationale-input", "rationale-first", "label-first"])
def test_a_label_that_follows_from_more_than_the_text_has_no_probabilities(
    student: Student, form: str
) -> None:
    predictor = StudentPredictor(
        student, KIND, LIMITS, form=form, surely=lambda texts: [("yes", (1.0,))], given=lambda _: "so it is"
    )
    assert {one.probabilities for one in predictor.predict(EXAMPLES)} == {None}


def test_explanations_are_what_explaining_adds(student: Student) -> None:
    for form in ("both", "label-first"):
        predictor = StudentPredictor(student, TextKind(), LIMITS, form=form)
        explained = replace(predictor, explain=True).predict(EXAMPLES)
        assert predictor.explanations(EXAMPLES) == [one.rationale for one in explained]
    assert StudentPredictor(student, KIND, LIMITS).explanations(EXAMPLES) == [None] * len(EXAMPLES)


def test_the_rationale_does_not_change_the_label(student: Student) -> None:
    plain = StudentPredictor(student, TextKind(), LIMITS, form="both").predict(EXAMPLES)
    explained = StudentPredictor(student, TextKind(), LIMITS, explain=True, form="both").predict(EXAMPLES)
    assert [(p.text, p.label) for p in plain] == [(p.text, p.label) for p in explained]


@pytest.mark.parametrize("form", ["label", "both", "rationale-input", "rationale-first", "label-first"])
def test_no_examples_have_no_predictions(student: Student, form: str) -> None:
    assert StudentPredictor(student, KIND, LIMITS, form=form).predict([]) == []
    assert TeacherPredictor({}).predict([]) == []


def answered(student: Student, voice: Voice, form: str, **options: object) -> list[Prediction]:
    """What a student of this form is heard to say of the three examples, by the script."""
    return StudentPredictor(student, KIND, LIMITS, form=form, **options).predict(EXAMPLES)


def test_words_that_are_an_answer_are_read_and_others_kept_with_the_reason(
    student: Student, voice: Voice
) -> None:
    said = ["Yes.", "perhaps", "yes or no"]
    voice.script = {("label", text): words for text, words in zip(TEXTS, said, strict=True)}
    assert answered(student, voice, "label") == [
        Prediction("b", "Yes.", "yes"),
        Prediction("a", "perhaps", None, "not a label"),
        Prediction("c", "yes or no", None, "several labels"),
    ]


def test_an_answer_is_read_with_the_options_of_its_example(student: Student, voice: Voice) -> None:
    voice.script = {("label", "where?"): "(b)"}
    example = Example("1", "where?", None, ("sea", "lake"))
    assert StudentPredictor(student, ChoiceKind(), LIMITS).predict([example])[0].label == "lake"


def test_what_reasons_first_is_read_behind_its_last_marker(student: Student, voice: Voice) -> None:
    said = ["so it is [label] yes", "no [label] is not [label] no", "it is so, it is so"]
    voice.script = {("label", text): words for text, words in zip(TEXTS, said, strict=True)}
    assert answered(student, voice, "rationale-first") == [
        Prediction("b", said[0], "yes", None, "so it is"),
        Prediction("a", said[1], "no", None, "no [label] is not"),
        Prediction("c", said[2], None, NO_MARKER, said[2]),
    ]
    assert voice.asked == [("label", TEXTS, 3, None)]


@pytest.mark.parametrize(("explain", "stop"), [(False, "[rationale]"), (True, None)])
def test_what_reasons_last_is_read_before_its_first_marker_and_may_stop_there(
    student: Student, voice: Voice, explain: bool, stop: str | None
) -> None:
    said = ["yes [rationale] no [rationale] so", "no", "no [rationale]"]
    voice.script = {("label", text): words for text, words in zip(TEXTS, said, strict=True)}
    reason = "no [rationale] so" if explain else None
    assert answered(student, voice, "label-first", explain=explain) == [
        Prediction("b", said[0], "yes", None, reason),
        Prediction("a", said[1], "no"),
        Prediction("c", said[2], "no"),
    ]
    assert voice.asked == [("label", TEXTS, 3, stop)]


def test_a_given_rationale_stands_in_the_input_and_without_one_nothing_is_asked(
    student: Student, voice: Voice
) -> None:
    reasons = {"b": "since", "c": "for"}
    voice.script = {
        ("label", f"{TEXTS[0]}\n[rationale] since"): "yes",
        ("label", f"{TEXTS[2]}\n[rationale] for"): "no",
    }
    found = answered(student, voice, "rationale-input", given=lambda e: reasons.get(e.id))
    assert found == [
        Prediction("b", "yes", "yes", None, "since"),
        Prediction("a", "", None, NO_RATIONALE),
        Prediction("c", "no", "no", None, "for"),
    ]


def test_where_no_rationale_is_given_the_student_writes_it_first(student: Student, voice: Voice) -> None:
    voice.script = {("rationale", text): f"r{i}" for i, text in enumerate(TEXTS)}
    voice.script["rationale", TEXTS[1]] = ""
    voice.script |= {("label", f"{text}\n[rationale] r{i}"): "yes" for i, text in enumerate(TEXTS)}
    assert answered(student, voice, "rationale-input") == [
        Prediction("b", "yes", "yes", None, "r0"),
        Prediction("a", "", None, NO_RATIONALE),
        Prediction("c", "yes", "yes", None, "r2"),
    ]


@pytest.mark.parametrize("form", ["label", "both", "rationale-input", "rationale-first", "label-first"])
def test_every_form_is_asked_of_a_real_student(student: Student, form: str) -> None:
    found = StudentPredictor(student, TextKind(), LIMITS, explain=True, form=form).predict(EXAMPLES)
    assert [prediction.example_id for prediction in found] == ["b", "a", "c"]


class Short:
    """A memory that holds so many rows, and says otherwise that it is used up."""

    def __init__(self, student: Student, rows: int, error: Exception) -> None:
        self.write, self.rows, self.error = student.model.generate, rows, error
        self.seen: list[int] = []

    def __call__(self, **given: Any) -> Any:
        self.seen.append(len(given["input_ids"]))
        if self.seen[-1] > self.rows:
            raise self.error
        return self.write(**given)


FULL = [
    torch.OutOfMemoryError("CUDA out of memory."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory"),
    MemoryError(),
]
MANY = TEXTS * 4


@pytest.mark.parametrize("error", FULL, ids=lambda error: type(error).__name__)
def test_where_memory_runs_out_fewer_are_answered_at_once(
    student: Student, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    expected = generate(student, MANY, 5)
    memory = Short(student, 3, error)
    monkeypatch.setattr(student.model, "generate", memory)
    calls: list[tuple[str, int, int]] = []
    assert generate(student, MANY, 5, 8, watch=lambda *call: calls.append(call)) == expected
    assert memory.seen == [8, 4, 2, 2, 2, 2, 2, 2]
    assert [done for _, done, _ in calls] == [2, 4, 6, 8, 10, 12]


@pytest.mark.parametrize("error", FULL, ids=lambda error: type(error).__name__)
def test_where_not_even_one_fits_into_memory_it_is_said_in_one_line(
    student: Student, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(student.model, "generate", Short(student, 0, error))
    longest = max(len(student.encoder.source(text, "label")) for text in TEXTS)
    with pytest.raises(StudentError, match=rf"the longest has {longest} tokens, and up to 5 are") as caught:
        StudentPredictor(student, KIND, {"label": 5}).predict(EXAMPLES)
    assert "\n" not in str(caught.value)


def test_other_errors_of_a_model_are_not_taken_for_a_lack_of_memory(
    student: Student, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(student.model, "generate", Short(student, 0, RuntimeError("shapes differ")))
    with pytest.raises(RuntimeError, match="shapes differ"):
        generate(student, TEXTS, 5)


def test_an_input_that_the_model_cannot_place_is_refused_in_one_line(
    student: Student, monkeypatch: pytest.MonkeyPatch
) -> None:
    longest = max(len(student.encoder.source(text, "label")) for text in TEXTS)
    monkeypatch.setattr(student.model.config, "max_position_embeddings", longest, raising=False)
    assert len(generate(student, TEXTS, 2)) == len(TEXTS)
    student.model.config.max_position_embeddings = longest - 1
    with pytest.raises(StudentError, match=f"has {longest - 1} positions, .* needs {longest} ") as caught:
        generate(student, TEXTS, 2)
    assert "\n" not in str(caught.value)


plain = st.text(st.characters(exclude_characters="[]"), min_size=1).map(str.strip).filter(bool)


@given(plain, plain)
def test_what_was_trained_in_one_sequence_is_read_back(label: str, rationale: str) -> None:
    first = one_sequence("rationale-first", label, rationale)
    assert reason_first(first) == Words(first, label, rationale)
    last = one_sequence("label-first", label, rationale)
    assert label_first(last) == Words(last, label, rationale)


@given(plain)
def test_what_was_trained_without_a_rationale_is_read_back(label: str) -> None:
    assert reason_first(one_sequence("rationale-first", label, "")).answer == label
    assert label_first(one_sequence("label-first", label, "")).answer == label


@pytest.mark.parametrize("marker", ["[ label ]", "[label ]", "[ label]"])
def test_a_marker_that_a_tokenizer_gives_back_with_spaces_is_a_marker(marker: str) -> None:
    assert reason_first(f"since {marker} yes").answer == "yes"


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
