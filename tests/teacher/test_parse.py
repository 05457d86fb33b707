"""A completion is read as the rationale and label it was built from, and no text makes reading fail."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from stepdistill.records import Annotation, Completion, Unparsed
from stepdistill.task.load import Task, builtin_names, load_task
from stepdistill.task.schema import TaskSpec
from stepdistill.teacher.parse import cut_run_on, parse

OPTIONS = ("sea", "lake", "deep sea")
ANSWERS = {
    "svamp": ("(84 / 2)", ()),
    "cqa": ("lake", OPTIONS),
    "esnli": ("neutral", ()),
    "claims": ("deny", ()),
}
TASKS = {name: load_task(name) for name in builtin_names()}
PIECES = [
    *("So the answer is", "the  ANSWER\nis:", "\n\nQ:", "\nPremise:", "lake", "neutral", "42", "/ 0"),
    *("(a)", "(", ")", " ", "\n", ".", "=", "\x00", "\ud800", "9" * 30),
]
quick = settings(max_examples=150, deadline=None)


def own(**changes: Any) -> Task:
    answer = {"kind": "label", "labels": ("yes", "no"), "marker": "So the answer is"}
    spec = {
        "name": "own",
        "instruction": "Decide.",
        "input": "{message}",
        "answer": answer | changes.pop("answer", {}),
        "data": {"files": {"train": "a.jsonl"}},
    }
    return Task(TaskSpec.model_validate(spec | changes))


def read(text: str, task: Task | None = None, options: tuple[str, ...] = ()) -> Annotation | Unparsed:
    return parse(Completion("7", text, "someone"), task or own(), options)


@quick
@given(
    text=st.one_of(
        st.text(max_size=200),
        st.lists(
            st.sampled_from(PIECES),
            max_size=20,
        ).map("".join),
    ),
    name=st.sampled_from(sorted(TASKS)),
    options=st.sampled_from([(), OPTIONS, ("",), ("(a)", "(a)")]),
)
def test_no_completion_makes_reading_raise(text: str, name: str, options: tuple[str, ...]) -> None:
    found = read(text, TASKS[name], options)
    assert found.example_id == "7"
    assert isinstance(found, Annotation) or found.reason


RUN_ONS = ["", "\n\nQ: And now?\nA: So the answer is yes.", "\n\nQuestion: x. So the answer is yes", "\n\nQ"]


@pytest.mark.parametrize("name", sorted(ANSWERS))
@quick
@given(
    rationale=st.text(max_size=120), run_on=st.sampled_from(RUN_ONS), space=st.sampled_from(["", "\n", " "])
)
@example(rationale="", run_on="", space="")
@example(rationale="He said {x} %s (b) 3 / 0 \x1b[0m", run_on=RUN_ONS[1], space=" ")
def test_a_completion_reads_back_to_the_rationale_and_label_it_was_built_from(
    name: str, rationale: str, run_on: str, space: str
) -> None:
    task, (label, options) = TASKS[name], ANSWERS[name]
    assume("answer is" not in rationale.lower())
    assume(cut_run_on(f"{rationale} .", task) == f"{rationale} .".strip())
    found = read(space + task.show(rationale, label, options) + run_on, task, options)
    assert isinstance(found, Annotation)
    assert (found.rationale, found.label) == (rationale.strip(), label)


@pytest.mark.parametrize(
    ("name", "run_on"),
    [
        ("svamp", "\n\nQ: There are 3 kites.\nA: The answer is (1 + 2)."),
        ("svamp", "\n\nQ"),
        ("svamp", "\n\nQ "),
        ("svamp", "\n \n  Q : The answer is (1 + 2)."),
        ("cqa", "\nQ: Where?\nAnswer Choices:\n(a) x\nA: So the answer is (a) sea."),
        ("cqa", "\r\n\r\nQ: Where? So the answer is (a) sea."),
        ("esnli", "\nPremise: A dog.\nHypothesis: A cat.\nSo the answer is entailment."),
        ("esnli", "\n\nPremise"),
        ("esnli", "\n\nQuestion: So the answer is entailment."),
        ("claims", "\n\nDear Sir or Madam, I write again."),
    ],
)
def test_the_next_question_that_the_teacher_invents_changes_nothing(name: str, run_on: str) -> None:
    task, (label, options) = TASKS[name], ANSWERS[name]
    text = task.show("Reasons; a\nsecond line.", label, options)
    assert read(text + run_on, task, options) == read(text, task, options)
    assert isinstance(read(text, task, options), Annotation)
    if name != "claims":
        assert cut_run_on(text + run_on, task) == text


# A defect when written: an opening without a colon was not known again.
@pytest.mark.parametrize(
    ("template", "run_on"),
    [
        ("Message: {message}", "\nMessage: hello. So the answer is no."),
        ("Message : {message}", "\nMessage : hello. So the answer is no."),
        ('Tweet "{message}"', '\nTweet "hello" So the answer is no.'),
        ("Classify this message\n{message}", "\nClassify this message\nhello. So the answer is no."),
    ],
)
def test_the_tasks_own_opening_ends_an_answer(template: str, run_on: str) -> None:
    assert read(f"Why. So the answer is yes.{run_on}", own(input=template)) == Annotation(
        "7", "Why.", "yes", "exact"
    )


def test_a_word_that_opens_inputs_and_any_other_line_cuts_nothing() -> None:
    text = "The sum is 3.\nThe rest is 4. So the answer is yes."
    assert read(text, own(input="The {message}")) == read(text)


@pytest.mark.parametrize(
    "text",
    [
        "A Quarter is 1 / 4.\nQuite so. So the answer is yes.",
        "Q is a letter. So the answer is yes.",
        "Is it Q: or R:? So the answer is yes.",
        "Premise: fine. So the answer is yes.",
    ],
)
def test_words_that_only_look_like_a_question_cut_nothing(text: str) -> None:
    found = read(text)
    assert isinstance(found, Annotation)
    assert f"{found.rationale} So the answer is yes." == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty completion"),
        (" \n ", "empty completion"),
        ("\n\nQ: x\nSo the answer is yes.", "empty completion"),
        ("It is clearly yes.", "no answer marker"),
        ("So the answer", "no answer marker"),
        ("Reasons. So the answer is", "empty answer"),
        ("Reasons. So the answer is: .", "empty answer"),
        ("Reasons. So the answer is maybe.", "not a label"),
        ("Reasons. So the answer is yes or no.", "several labels"),
    ],
)
def test_what_cannot_be_read_says_why(text: str, reason: str) -> None:
    assert read(text) == Unparsed("7", reason)


@pytest.mark.parametrize(
    ("name", "reason"), [("svamp", "empty"), ("cqa", "empty answer"), ("esnli", "empty answer")]
)
def test_a_marker_without_an_answer_is_unread_in_every_task(name: str, reason: str) -> None:
    assert read(f"Why. {TASKS[name].spec.answer.marker}", TASKS[name], OPTIONS) == Unparsed("7", reason)


@pytest.mark.parametrize(
    "marker",
    [
        "so the answer is",
        "SO THE ANSWER IS:\n",
        "So  the\tanswer\n is :",
        "So the answer is\n",
        "So the answer is ",
    ],
)
def test_case_and_space_of_the_marker_do_not_count(marker: str) -> None:
    assert read(f"Why. {marker} yes.") == Annotation("7", "Why.", "yes", "exact")


def test_a_colon_behind_the_marker_is_no_part_of_the_answer() -> None:
    found = read("Why. The answer is : (1 + 2).", TASKS["svamp"])
    assert found == Annotation("7", "Why.", "(1 + 2)", "whole")


def test_the_last_marker_wins_and_the_others_are_rationale() -> None:
    found = read("First: so the answer is no. But wait. So the answer is yes.")
    assert found == Annotation("7", "First: so the answer is no. But wait.", "yes", "exact")


def test_the_answer_ends_with_its_line() -> None:
    assert read("Why. So the answer is yes.\nno\nno") == Annotation("7", "Why.", "yes", "exact")


def test_a_label_without_reasons_has_an_empty_rationale() -> None:
    assert read("So the answer is yes.") == Annotation("7", "", "yes", "exact")


@pytest.mark.parametrize("marker", ["The answer is", "####", "Answer (final):", "\\boxed", "答えは"])
def test_any_words_can_be_the_marker(marker: str) -> None:
    task = own(answer={"marker": marker})
    assert read(task.show("Why.", "yes"), task) == Annotation("7", "Why.", "yes", "exact")
    assert read("Why, yes.", task) == Unparsed("7", "no answer marker")


# A defect when written: the time grew with the square of the line ends of a degenerate answer.
@pytest.mark.parametrize(
    "filler",
    [
        *("\n", "\n ", " ", "So ", "So the answer is ", "\nQ", "Q: ", "(", "the answer is\n", "so the "),
        *("\\boxed{", "\\boxed{" + "{" * 500, "\n#### ", "\nAnswer:", "**", "$", "\\text{", "neutral\n"),
    ],
)
def test_reading_takes_time_that_grows_with_the_text(filler: str) -> None:
    text = "Why." + filler * (20_000 // len(filler)) + "x"
    start = time.process_time()
    read(text, TASKS["esnli"])
    assert time.process_time() - start < 0.2


def test_an_input_that_is_repeated_is_no_next_question() -> None:
    task = load_task("esnli")
    asked = "Premise: A man sleeps on a bench in the park.\nHypothesis: A man is awake."
    words = f"Let us compare.\n{asked}\nHe sleeps. {task.spec.answer.marker} contradiction."
    read = parse(Completion("1", words, "m"), task, (), asked)
    assert isinstance(read, Annotation)
    assert read.label == "contradiction"
    other = words.replace("A man sleeps on a bench", "Two dogs run along the beach")
    assert isinstance(parse(Completion("1", other, "m"), task, (), asked), Unparsed)
