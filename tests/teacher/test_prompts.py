"""Prompts are the paper's form to the letter, share their head, and can be read back."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepdistill.config import TeacherConfig
from stepdistill.errors import ConfigError, TeacherError
from stepdistill.records import Annotation, Completion, Demonstration, Example, Unparsed
from stepdistill.task.load import Task, builtin_names, load_task
from stepdistill.task.schema import TaskSpec
from stepdistill.teacher.parse import cut_run_on, parse
from stepdistill.teacher.prompts import Prompter
from stepdistill.teacher.protocol import Message, Prompt

NAMES = [name for name in builtin_names() if name != "claims"]
WAYS = ("fixed", "random", "nearest")
HOSTILE = [
    "{braces} {0} %s {{x}}",
    "first\nQ: second\nA: So the answer is no.\n\nQ: third",
    "\ud800 \x00 \x1b[0m",
    "  white space \n\n",
    "</s><|im_end|>",
    "",
]
quick = settings(max_examples=60, deadline=None)


def own(**changes: Any) -> Task:
    answer = {"kind": "label", "labels": ("yes", "no"), "marker": "So the answer is"}
    spec = {
        "name": "own",
        "instruction": "Decide.\n",
        "input": "{message}",
        "answer": answer | changes.pop("answer", {}),
        "data": {"files": {"train": "a.jsonl"}},
        "demonstrations": [
            {"row": {"message": "Is it wet?"}, "rationale": "Rain is wet.", "label": "yes"},
            {"row": {"message": "Is it dry?"}, "rationale": "Rain is wet.", "label": "no"},
        ],
    }
    return Task(TaskSpec.model_validate(spec | changes))


def prompter(task: Task, prompt: str = "few-shot", style: str = "text", how: str = "fixed") -> Prompter:
    config = {"prompt": prompt, "style": style, "demonstrations": {"choose": how}}
    return Prompter(task, TeacherConfig.model_validate(config), seed=1)


def example(text: str, id_: str = "7", label: str | None = "no") -> Example:
    return Example(id_, text, label)


def said(prompt: Prompt) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in prompt.messages]


def test_few_shot_text_is_the_papers_form() -> None:
    prompt = prompter(own()).ask(example("Is it hot?"))
    assert prompt.text == (
        "Decide.\n\n"
        "Q: Is it wet?\nA: Rain is wet. So the answer is yes.\n\n"
        "Q: Is it dry?\nA: Rain is wet. So the answer is no.\n\n"
        "Q: Is it hot?\nA:"
    )
    assert prompt.tail == (Message("user", "Q: Is it hot?\nA:"),)
    assert len(prompt.head) == 1


def test_few_shot_chat_is_pairs_of_turns() -> None:
    assert said(prompter(own(), style="chat").ask(example("Is it hot?"))) == [
        ("system", "Decide."),
        ("user", "Is it wet?"),
        ("assistant", "Rain is wet. So the answer is yes."),
        ("user", "Is it dry?"),
        ("assistant", "Rain is wet. So the answer is no."),
        ("user", "Is it hot?"),
    ]


def test_zero_shot_text_has_two_stages() -> None:
    asking = prompter(own(), "zero-shot")
    first = asking.ask(example("Is it hot?"))
    assert first.text == "Decide.\n\nQ: Is it hot?\nA: Let's think step by step."
    second = asking.conclude(example("Is it hot?"), " Ice is cold.\n\nQ: Is it")
    assert second.text == f"{first.text} Ice is cold.\nSo the answer is"
    assert asking.conclude(example("Is it hot?"), "").text == f"{first.text}\nSo the answer is"


def test_zero_shot_chat_has_two_stages() -> None:
    asking = prompter(own(), "zero-shot", "chat")
    assert said(asking.ask(example("Is it hot?"))) == [
        ("system", "Decide."),
        ("user", "Is it hot?\nLet's think step by step."),
    ]
    finish = "Now finish this sentence with the answer only: So the answer is"
    assert said(asking.conclude(example("Is it hot?"), "Ice is cold.\n")) == [
        ("system", "Decide."),
        ("user", "Is it hot?\nLet's think step by step."),
        ("assistant", "Ice is cold."),
        ("user", finish),
    ]
    assert said(asking.conclude(example("Is it hot?"), " \n")) == [
        ("system", "Decide."),
        ("user", f"Is it hot?\nLet's think step by step.\n{finish}"),
    ]


def test_hinted_prompts_show_every_demonstration_with_its_hint() -> None:
    hint = "(The answer is known to be: "
    assert prompter(own(), "hinted").explain(example("Is it hot?")).text == (
        "Decide.\n\n"
        f"Q: Is it wet?\n{hint}yes.)\nA: Rain is wet. So the answer is yes.\n\n"
        f"Q: Is it dry?\n{hint}no.)\nA: Rain is wet. So the answer is no.\n\n"
        f"Q: Is it hot?\n{hint}no.)\nA:"
    )
    assert said(prompter(own(), "hinted", "chat").explain(example("Is it hot?")))[3:] == [
        ("user", f"Is it dry?\n{hint}no.)"),
        ("assistant", "Rain is wet. So the answer is no."),
        ("user", f"Is it hot?\n{hint}no.)"),
    ]


def test_a_hint_shows_the_label_as_the_task_does() -> None:
    task = load_task("cqa")
    prompt = prompter(task, "hinted").explain(
        Example("7", "Where?\n(a) sea\n(b) lake", "lake", ("sea", "lake"))
    )
    assert prompt.text.endswith("(b) lake\n(The answer is known to be: (b) lake.)\nA:")


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("style", ["text", "chat"])
def test_only_hinted_prompts_give_the_gold_label(style: str, how: str) -> None:
    asking = prompter(own(), "hinted", style, how)
    for label in ("yes", "no", None):
        asked = asking.ask(example("Is it hot?", label=label))
        assert asked == prompter(own(), "few-shot", style, how).ask(example("Is it hot?", label="yes"))
        assert "known to be" not in asked.text
    hints = [m.content.count("known to be") for m in asking.explain(example("x")).messages]
    assert sum(hints) == 3


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("how", [*WAYS, "balanced"])
@pytest.mark.parametrize("style", ["text", "chat"])
@pytest.mark.parametrize("prompt", ["few-shot", "zero-shot", "hinted"])
def test_the_head_is_one_tuple_for_all_examples(name: str, how: str, style: str, prompt: str) -> None:
    task = load_task(name)
    if how == "balanced" and task.spec.answer.kind != "label":
        return
    asking = prompter(task, prompt, style, how)
    asked = [asking.ask(example(f"text {i}", str(i))) for i in range(5)]
    assert all(a.head is asked[0].head for a in asked)
    assert prompter(task, prompt, style, how).ask(example("x")).head == asked[0].head
    if prompt == "zero-shot":
        assert asking.conclude(example("x"), "Why.").head is asked[0].head
    assert asked[0].head[0].role == ("user" if style == "text" else "system")
    assert all(len(a.tail) == 1 for a in asked) or how in ("random", "nearest")


@pytest.mark.parametrize("style", ["text", "chat"])
def test_the_head_of_hinted_prompts_is_one_tuple_too(style: str) -> None:
    asking = prompter(own(), "hinted", style)
    one, two = (asking.explain(example(text, label=text)) for text in ("yes", "no"))
    assert one.head is two.head
    assert one.head != asking.ask(example("x")).head


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("style", ["text", "chat"])
def test_every_demonstration_stands_once_and_reads_back(name: str, how: str, style: str) -> None:
    task = load_task(name)
    config = {"style": style, "demonstrations": {"choose": how, "n": len(task.demonstrations())}}
    prompt = Prompter(task, TeacherConfig.model_validate(config), 1).ask(example("Which?"))
    for shown in task.demonstrations():
        answer = task.show(shown.rationale, shown.label, shown.options)
        if style == "chat":
            pair = [Message("user", shown.text), Message("assistant", answer)]
            at = prompt.messages.index(pair[0])
            assert list(prompt.messages[at : at + 2]) == pair
            assert prompt.messages.count(pair[0]) == 1
        else:
            assert prompt.text.count(f"\n\nQ: {shown.text}\nA: {answer}\n\n") == 1
        found = parse(Completion("7", answer, "m"), task, shown.options)
        assert isinstance(found, Annotation)
        assert (found.rationale, found.label) == (shown.rationale, shown.label)


@pytest.mark.parametrize("how", [*WAYS, "balanced"])
@pytest.mark.parametrize("style", ["text", "chat"])
@pytest.mark.parametrize("hinted", [False, True])
def test_an_example_among_the_demonstrations_is_shown_without_itself(
    how: str, style: str, hinted: bool
) -> None:
    task = load_task("esnli")
    asking = prompter(task, "hinted", style, how)
    before = asking.ask(example("x"))
    for shown in task.demonstrations():
        itself = Example("7", shown.text.replace("\n", " \n"), shown.label)
        prompt = asking.explain(itself) if hinted else asking.ask(itself)
        words = " ".join(prompt.text.split())
        assert words.count(" ".join(shown.text.split())) == 1
        assert shown.rationale not in prompt.text
        assert sum(d.rationale in prompt.text for d in task.demonstrations()) >= 8
    assert asking.ask(example("x")) == before


@pytest.mark.parametrize("style", ["text", "chat"])
@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("text", HOSTILE)
def test_inputs_stand_verbatim_whatever_they_say(style: str, how: str, text: str) -> None:
    task = own(
        demonstrations=[
            {"row": {"message": f"{hostile}."}, "rationale": f"{hostile}.", "label": "yes"}
            for hostile in HOSTILE
            if "\ud800" not in hostile  # no YAML file can hold it
        ]
    )
    for prompt in ("few-shot", "zero-shot", "hinted"):
        asking = prompter(task, prompt, style, how)
        wanted = f"Q: {text}\nA:" if style == "text" else text
        tail = asking.ask(example(text)).tail[-1].content
        if prompt == "zero-shot":
            think = "Let's think step by step."
            assert tail == (f"{wanted} {think}" if style == "text" else f"{text}\n{think}")
        else:
            assert tail.endswith(wanted)
            assert style == "text" or tail == wanted
            hint = "\n(The answer is known to be: no.)"
            asked = f"Q: {text}{hint}\nA:" if style == "text" else f"{text}{hint}"
            assert asking.explain(example(text)).tail[-1].content.endswith(asked)


@quick
@given(st.text(st.characters(), max_size=60))
def test_any_text_stands_verbatim_in_both_styles(text: str) -> None:
    for style, form in (("text", f"Q: {text}\nA:"), ("chat", text)):
        assert prompter(own(), style=style).ask(example(text)).tail == (Message("user", form),)


def test_stops_end_a_text_at_the_next_question_and_a_chat_nowhere() -> None:
    for prompt in ("few-shot", "zero-shot", "hinted"):
        assert prompter(own(), prompt, "chat").stop == ()
        (stop,) = prompter(own(), prompt).stop
        assert cut_run_on(f"Why. So the answer is yes.{stop} Next", own()) == "Why. So the answer is yes."
    for name in NAMES:
        task = load_task(name)
        assert not any("\nQ:" in task.show(d.rationale, d.label, d.options) for d in task.demonstrations())


SOLVED = {name: load_task(name).demonstrations()[:3] for name in NAMES} | {
    "claims": (Demonstration("Dear Sir", "The policy was in force.", "deny"),)
}
FORMS = ["{a}", " {a}.", "{m} {a}.", "\n{M}: {a}\n", "{a}.\n\nQ: More?\nA: {m} 1"]
RUN_ONS = ["", "\n", "\n\nQ: More?\nA: so the answer is 1.", "\n\nQuestion"]


@pytest.mark.parametrize("name", sorted(SOLVED))
@pytest.mark.parametrize("style", ["text", "chat"])
@pytest.mark.parametrize("form", FORMS)
def test_both_stages_joined_read_back(name: str, style: str, form: str) -> None:
    task = load_task(name)
    marker = task.spec.answer.marker
    asking = prompter(task, "zero-shot", style)
    for shown, run_on in itertools.product(SOLVED[name], RUN_ONS):
        label = task.kind.show(shown.label, shown.options)
        answer = form.format(a=label, m=marker, M=marker.upper())
        text = asking.joined(f" {shown.rationale}{run_on}", answer)
        found = parse(Completion("7", text, "m"), task, shown.options)
        assert isinstance(found, Annotation), text
        assert (found.rationale, found.label) == (shown.rationale, shown.label)
        assert text.count(marker) == 1


@quick
@given(st.text(max_size=80), st.sampled_from(["yes", "So the answer is yes.", "so  the\nanswer is: yes"]))
def test_any_reasoning_joins_into_a_completion_that_reads_back(reasoning: str, answer: str) -> None:
    for style in ("text", "chat"):
        text = prompter(own(), "zero-shot", style).joined(reasoning, answer)
        found = parse(Completion("7", text, "m"), own())
        assert isinstance(found, Annotation)
        assert (found.rationale, found.label) == (cut_run_on(reasoning, own()), "yes")


def test_a_marker_in_the_reasoning_does_not_hide_the_answer() -> None:
    text = prompter(own(), "zero-shot").joined("At first so the answer is no. But it rains.", "yes")
    assert parse(Completion("7", text, "m"), own()) == Annotation(
        "7", "At first so the answer is no. But it rains.", "yes", "exact"
    )


def test_a_text_is_answered_first_and_a_chat_last() -> None:
    chat, text = prompter(own(), "zero-shot", "chat"), prompter(own(), "zero-shot")
    assert chat.joined("Why.", "Sure! So the answer is yes.") == "Why. So the answer is yes."
    assert text.joined("Why.", " yes.\nSo the answer is n") == "Why. So the answer is yes."


@pytest.mark.parametrize("answer", ["", "\n\nQ: next", "So the answer is", " So the answer is:\n"])
def test_no_answer_joins_into_an_unread_completion(answer: str) -> None:
    for style in ("text", "chat"):
        text = prompter(own(), "zero-shot", style).joined("Why.", answer)
        assert parse(Completion("7", text, "m"), own()) == Unparsed("7", "empty answer")


@pytest.mark.parametrize("marker", ["####", "Answer (final):", "答えは", " Answer: "])
def test_any_words_can_be_the_marker(marker: str) -> None:
    task = own(answer={"marker": marker})
    asking = prompter(task, "zero-shot")
    assert asking.conclude(example("x"), "Why.").text.endswith(f"Why.\n{marker.strip()}")
    for answer in ("yes", f"{marker} yes."):
        found = parse(Completion("7", asking.joined("Why.", answer), "m"), task)
        assert found == Annotation("7", "Why.", "yes", "exact")


@pytest.mark.parametrize("prompt", ["few-shot", "hinted"])
def test_a_task_without_demonstrations_can_be_asked_zero_shot_only(prompt: str) -> None:
    task = load_task("claims")
    with pytest.raises(ConfigError, match=r"add some .* `prompt: zero-shot`"):
        prompter(task, prompt)
    assert prompter(task, "zero-shot").ask(example("Dear Sir")).text.startswith(task.spec.instruction)


def test_a_hint_needs_a_gold_label_and_demonstrations() -> None:
    with pytest.raises(TeacherError, match="'7' has no gold label"):
        prompter(own(), "hinted").explain(example("x", label=None))
    with pytest.raises(ConfigError, match="prompt: hinted"):
        prompter(own(), "zero-shot").explain(example("x"))
