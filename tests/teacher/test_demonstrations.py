"""Demonstrations are chosen as asked, repeatably, and never give an example's own answer away."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepdistill.config import DemonstrationConfig
from stepdistill.errors import ConfigError
from stepdistill.records import Demonstration, Example
from stepdistill.task.load import Task, builtin_names, load_task
from stepdistill.task.schema import TaskSpec
from stepdistill.teacher.demonstrations import Choice, choose

NAMES = [name for name in builtin_names() if name != "claims"]
WAYS = ("fixed", "random", "balanced", "nearest")
quick = settings(max_examples=40, deadline=None)


def own(texts: list[str], labels: list[str] | None = None, **answer: Any) -> Task:
    given = labels or ["yes", "no"] * len(texts)
    return Task(
        TaskSpec.model_validate(
            {
                "name": "own",
                "instruction": "Decide.",
                "input": "{message}",
                "answer": {"kind": "label", "labels": ("yes", "no", "maybe")} | answer,
                "data": {"files": {"train": "a.jsonl"}},
                "demonstrations": [
                    {"row": {"message": text}, "rationale": "Why.", "label": label}
                    for text, label in zip(texts, given, strict=False)
                ],
            }
        )
    )


def chosen(task: Task, how: str, n: int | None = None, seed: int = 0) -> Choice:
    return choose(task, DemonstrationConfig(choose=how, n=n), seed)


def texts(found: tuple[Demonstration, ...]) -> list[str]:
    return [demonstration.text for demonstration in found]


WORDS = [f"message number {i}" for i in range(12)]


@pytest.mark.parametrize("name", NAMES)
def test_fixed_takes_the_first_in_the_order_of_the_task(name: str) -> None:
    task = load_task(name)
    assert chosen(task, "fixed")(Example("1", "x")) == task.demonstrations()
    assert chosen(task, "fixed", 3)(Example("1", "x")) == task.demonstrations()[:3]


@pytest.mark.parametrize("how", ["fixed", "balanced"])
def test_the_shared_ones_are_one_object_for_all_examples(how: str) -> None:
    choice = chosen(own(WORDS), how)
    assert choice.shared is not None
    assert choice(Example("1", "x")) is choice.shared is choice(Example("2", "y"))


@quick
@given(st.integers(0, 99), st.integers(1, 12), st.permutations(range(8)))
def test_a_random_choice_depends_on_seed_and_id_alone(seed: int, n: int, order: list[int]) -> None:
    examples = [Example(f"id-{i}\ud800", f"text {i}") for i in range(8)]
    forward = chosen(own(WORDS), "random", n, seed)
    before = {e.id: forward(e) for e in examples}
    random.seed(n)
    again = chosen(own(WORDS), "random", n, seed)
    assert {examples[i].id: again(examples[i]) for i in order} == before
    assert all(len(found) == len(set(found)) == n for found in before.values())


def test_random_choices_differ_by_example_and_by_seed() -> None:
    examples = [Example(str(i), "x") for i in range(20)]
    one, other = chosen(own(WORDS), "random", 4, 1), chosen(own(WORDS), "random", 4, 2)
    assert len({one(e) for e in examples}) > 10
    assert any(one(e) != other(e) for e in examples)


@pytest.mark.parametrize("how", ["random", "nearest"])
@pytest.mark.parametrize("size", [3, 8, 12])
def test_without_n_a_choice_of_its_own_takes_at_most_eight(how: str, size: int) -> None:
    found = chosen(own(WORDS[:size]), how)(Example("1", "x"))
    assert len(found) == min(size, 8)


@quick
@given(
    labels=st.lists(st.sampled_from(["yes", "no", "maybe"]), min_size=1, max_size=12),
    seed=st.integers(0, 99),
    share=st.floats(0.01, 1),
)
def test_balanced_takes_labels_as_equally_as_there_are_enough(
    labels: list[str], seed: int, share: float
) -> None:
    n = max(1, int(share * len(labels)))
    task = own(WORDS, labels)
    found = chosen(task, "balanced", n, seed).shared
    assert found is not None
    assert len(found) == len(set(found)) == n
    got, there = Counter(d.label for d in found), Counter(labels)
    for label in there:
        # Nobody is short of another by more than one, except where there are no more of them.
        assert got[label] == there[label] or got[label] >= max(got.values()) - 1
    assert found == chosen(task, "balanced", n, seed).shared


def test_balanced_without_n_takes_as_many_of_each_label_as_there_are_of_all() -> None:
    labels = ["yes"] * 5 + ["no"] * 2 + ["maybe"] * 3
    found = chosen(own(WORDS, labels), "balanced").shared
    assert found is not None
    assert Counter(d.label for d in found) == {"yes": 2, "no": 2, "maybe": 2}


def test_balanced_depends_on_the_seed() -> None:
    assert len({chosen(own(WORDS), "balanced", 6, seed).shared for seed in range(20)}) > 10


@pytest.mark.parametrize("name", ["svamp", "cqa"])
def test_balanced_refuses_answers_without_a_closed_set_and_says_why(name: str) -> None:
    task = load_task(name)
    with pytest.raises(ConfigError, match=f"closed set .*{name}.* of kind '{task.spec.answer.kind}'"):
        chosen(task, "balanced")


def test_nearest_puts_the_most_similar_last() -> None:
    task = own(["The train left Paris late.", "Cows eat grass.", "A cow eats green grass daily.", "Zebra?"])
    found = chosen(task, "nearest", 2)(Example("1", "Why do cows eat grass every day?"))
    assert texts(found) == ["A cow eats green grass daily.", "Cows eat grass."]


def test_nearest_knows_pieces_of_words() -> None:
    task = own(["unrelated thing", "misinterpretations", "another text"])
    assert texts(chosen(task, "nearest", 1)(Example("1", "interpretation"))) == ["misinterpretations"]


def test_equally_near_ones_keep_their_order_of_preference() -> None:
    assert texts(chosen(own(["b", "a", "c"]), "nearest", 2)(Example("1", "???"))) == ["a", "b"]


@quick
@given(st.lists(st.text(max_size=20), min_size=1, max_size=6, unique=True), st.text(max_size=40))
def test_nearest_takes_any_text(pool: list[str], text: str) -> None:
    task = own([*pool, "! ?", "水"])
    found = chosen(task, "nearest", 2)(Example("1", text))
    same = sum(" ".join(p.split()) == " ".join(text.split()) for p in [*pool, "! ?", "水"])
    assert len(found) == min(2, len(pool) + 2 - same)


def test_nearest_with_nothing_to_compare_says_so() -> None:
    with pytest.raises(ConfigError, match="empty"):
        chosen(own(["", " "]), "nearest")


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("change", [str, lambda t: f"  {t}\n", lambda t: t.replace(" ", "\n\t ")])
def test_an_example_is_never_its_own_demonstration(how: str, change: Any) -> None:
    choice = chosen(own(WORDS), how)
    for text in WORDS:
        found = choice(Example("1", change(text)))
        assert text not in texts(found)
        assert len(found) == len(set(found)) >= 7


@pytest.mark.parametrize("how", WAYS)
def test_inputs_that_open_alike_are_no_leak(how: str) -> None:
    long = [f"one two three four five six seven eight {i}" for i in range(4)]
    choice = chosen(own(long), how, 4)
    assert set(texts(choice(Example("1", f"{long[0]} and more")))) == set(long)
    assert set(texts(choice(Example("1", long[0])))) == set(long[1:])


@pytest.mark.parametrize("how", WAYS)
def test_doubled_demonstrations_leave_together(how: str) -> None:
    found = chosen(own(["one", "two", " one", "three"], ["yes", "no", "yes", "no"]), how)(Example("1", "one"))
    assert sorted(texts(found)) == ["three", "two"]


@pytest.mark.parametrize("how", WAYS)
def test_the_only_demonstration_leaves_none(how: str) -> None:
    assert chosen(own(["one"]), how)(Example("1", "one ")) == ()


@pytest.mark.parametrize("how", WAYS)
def test_more_than_there_are_is_refused(how: str) -> None:
    with pytest.raises(ConfigError, match="13 given and the task 'own' has 12"):
        chosen(own(WORDS), how, 13)
    assert len(chosen(own(WORDS), how, 12)(Example("1", "x"))) == 12


@pytest.mark.parametrize("how", WAYS)
def test_no_demonstrations_say_what_to_do(how: str) -> None:
    with pytest.raises(ConfigError, match=r"add some .* `prompt: zero-shot`"):
        chosen(load_task("claims"), how)


def test_labels_given_by_code_are_shown_by_name() -> None:
    task = own(["a", "b"], ["0", "YES"], codes={"0": "no"})
    found = chosen(task, "fixed").shared
    assert found is not None
    assert [d.label for d in found] == ["no", "yes"]
