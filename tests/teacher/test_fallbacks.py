"""Without the task's marker, another one or a last line may give the label, and each is counted apart."""

from __future__ import annotations

import pytest

from stepdistill.records import Annotation, Completion, Unparsed
from stepdistill.task.load import Task, builtin_names, load_task
from stepdistill.teacher.parse import parse

TASKS = {name: load_task(name) for name in builtin_names()}
MARKED: dict[str, tuple[str, tuple[str, ...]]] = {
    "svamp": ("(84 / 2) - (3 + 1)", ()),
    "cqa": ("lake", ("sea", "lake", "deep sea")),
    "esnli": ("neutral", ()),
    "claims": ("deny", ()),
}


def decision() -> Task:
    """A task with the labels yes and no."""
    spec = TASKS["claims"].spec
    answer = spec.answer.model_copy(update={"labels": ("yes", "no")})
    return Task(spec.model_copy(update={"answer": answer}))


def read(
    text: str, task: Task | None = None, options: tuple[str, ...] = (), finish: str | None = None
) -> Annotation | Unparsed:
    return parse(Completion("7", text, "someone", finish=finish), task or decision(), options)


GENERIC = [
    "The answer is {}.",
    "Thus, the final answer is: {}",
    "**Therefore the correct answer is {}.**",
    "Answer: {}",
    "Final answer:\n{}",
    "**Final Answer:** {}",
    "### Answer: **{}**",
    "- **Answer**: `{}`",
    "#### {}",
    "\\boxed{{{}}}",
    "$$\\boxed{{\\text{{{}}}}}$$",
    "The answer is $\\boxed{{{}}}$.",
    "**Final answer:**\n\n\\[\n\\boxed{{{}}}\n\\]",
]


@pytest.mark.parametrize("name", sorted(MARKED))
@pytest.mark.parametrize("pattern", GENERIC)
def test_another_marker_is_read_where_the_tasks_own_is_absent(name: str, pattern: str) -> None:
    spec = TASKS[name].spec
    task = Task(spec.model_copy(update={"answer": spec.answer.model_copy(update={"marker": "Verdict:"})}))
    label, options = MARKED[name]
    found = read("Why so.\n" + pattern.format(task.kind.show(label, options)), task, options)
    assert isinstance(found, Annotation)
    assert (found.rationale, found.label) == ("Why so.", label)
    assert found.rule.startswith("other marker: ")
    own_words = read(f"Verdict: {task.kind.show(label, options)}\nThe answer is 0.", task, options)
    assert isinstance(own_words, Annotation)
    assert own_words.label == label


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("The answer is not yes.", "negated answer"),
        ("I wonder if the answer is yes.", "no answer marker"),
        ("We ask whether the answer is yes.", "no answer marker"),
        ("Short answer: yes, long answer: it depends.", "no answer marker"),
        ("The answer is not obvious. Yes.", "negated answer"),
        ("The answer is obvious.", "not a label"),
        ("#### Yes\nis a heading.", "no answer marker"),
        ("\\boxed{yes", "no answer marker"),
        ("Choose:\nyes\nno", "no answer marker"),
        ("Choose:\n- yes\n- no\n- yes", "no answer marker"),
        ("I say\nyes, I think", "no answer marker"),
    ],
)
def test_words_that_only_look_like_an_answer_are_none(text: str, reason: str) -> None:
    assert read(text) == Unparsed("7", reason)


@pytest.mark.parametrize("line", ["yes", "Yes.", "**Yes**", "`yes`", "$\\text{yes}$"])
def test_the_last_line_counts_where_it_is_a_label_and_nothing_besides(line: str) -> None:
    assert read(f"Why.\n\n{line}\n") == Annotation("7", "Why.", "yes", "last line: exact")
    assert read(line) == Annotation("7", "", "yes", "last line: exact")
    assert read(f"Why.\n{line}", finish="length") == Unparsed("7", "cut off by max_tokens")


def test_a_last_line_of_an_open_set_is_not_guessed() -> None:
    assert read("Why.\n42", TASKS["svamp"]) == Unparsed("7", "no answer marker")


@pytest.mark.parametrize(
    "answer", ["**(3 + 4)**.", "`(3 + 4)`", "$(3 + 4)$", "**\n\n$\\boxed{(3 + 4)}$", "** (3 + 4)"]
)
def test_markup_behind_the_tasks_own_marker_is_read_and_counted_apart(answer: str) -> None:
    found = read(f"Why. The answer is {answer}", TASKS["svamp"])
    assert found == Annotation("7", "Why.", "(3 + 4)", "markup: whole")


def test_a_dollar_that_belongs_to_an_option_is_not_taken_for_markup() -> None:
    assert read("So the answer is **$5**", TASKS["cqa"], ("5", "$5")) == Annotation(
        "7", "", "$5", "markup: words"
    )


@pytest.mark.parametrize(
    ("finish", "text", "reason"),
    [
        ("length", "", "cut off by max_tokens"),
        ("length", "Why and", "cut off by max_tokens"),
        ("length", "The answer is (9 + 6", "cut off by max_tokens"),
        ("length", "The answer is 12", "cut off by max_tokens"),
        ("length", "The answer is x.\nAnd more", "not arithmetic"),
        ("length", "Why.\n\nQ: Another one", "no answer marker"),
        ("content_filter", "", "withheld by the provider's filter"),
        ("content_filter", "Why", "withheld by the provider's filter"),
        ("stop", "", "empty completion"),
        ("stop", "The answer is (9 + 6", "not arithmetic"),
        (None, "The answer is 12 \ud800", "broken characters"),
    ],
)
def test_the_finish_reason_says_why_nothing_was_read(finish: str | None, text: str, reason: str) -> None:
    assert read(text, TASKS["svamp"], finish=finish) == Unparsed("7", reason)


@pytest.mark.parametrize("finish", ["length", "content_filter", "stop", None])
def test_an_answer_that_is_complete_is_read_whatever_ended_the_text(finish: str | None) -> None:
    assert isinstance(read("The answer is 12\nand", TASKS["svamp"], finish=finish), Annotation)
    assert isinstance(read("So the answer is yes", finish=finish), Annotation)
