"""A teacher that is asked: which prompts its stages make, and which answers join which example."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepdistill.config import TeacherConfig
from stepdistill.records import Annotation, Example, unwatched
from stepdistill.task.load import Task
from stepdistill.task.schema import Split, TaskSpec
from stepdistill.teacher import asked
from stepdistill.teacher.asked import AskedTeacher
from stepdistill.teacher.ledger import Ledger
from stepdistill.teacher.protocol import Prompt, Reply, Sampling, Tally, Work, in_batches

TASK = Task(
    TaskSpec.model_validate(
        {
            "name": "sums",
            "instruction": "Add.",
            "input": "{text}",
            "answer": {"kind": "number", "column": "gold"},
            "data": {"files": {"train": "train.jsonl"}},
            "demonstrations": [
                {"row": {"text": "1 and 1"}, "rationale": "Two ones.", "label": "2"},
            ],
        }
    )
)


class Fake:
    """A model in this process that answers from a script, and remembers what it was asked."""

    def __init__(self, script: Any) -> None:
        self.script = script
        self.asked: list[tuple[Prompt, int]] = []

    def answer(self, work: Work) -> None:
        """As `Backend`."""
        in_batches(work, self._complete, 3)

    def _complete(self, prompts: Sequence[Prompt], sampling: Sampling, draws: Sequence[int]) -> list[Reply]:
        self.asked += zip(prompts, draws, strict=True)
        return [
            Reply(self.script(p.messages[-1].content, d), "stop", "fake", 10, 5)
            for p, d in zip(prompts, draws, strict=True)
        ]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.sqlite") as opened:
        yield opened


def teacher_of(ledger: Ledger, **more: Any) -> AskedTeacher:
    return AskedTeacher(TASK, TeacherConfig(backend="local", model="m", **more), 0, ledger)


def answered(
    monkeypatch: pytest.MonkeyPatch, teacher: AskedTeacher, pairs: Sequence[tuple[Split, Example]], fake: Fake
) -> Tally:
    """Have the examples answered by the fake."""
    monkeypatch.setitem(asked.BACKENDS, "local", lambda *_: fake)
    tally = Tally()
    teacher.prepare(None)
    teacher.ask(lambda: pairs, len(pairs), unwatched, tally)
    return tally


def pairs_of(n: int, split: Split = "train") -> list[tuple[Split, Example]]:
    return [(split, Example(f"{split}-{i}", f"{i} and {i}", str(2 * i))) for i in range(n)]


def total(text: str, draw: int = 0) -> str:
    number = int(text.split()[0])
    return f"Twice {number}, try {draw}. So the answer is {2 * number}."


def test_answers_join_their_examples_in_whatever_order_they_are_looked_up(
    monkeypatch: pytest.MonkeyPatch, ledger: Ledger
) -> None:
    pairs = pairs_of(7)
    answered(monkeypatch, teacher_of(ledger), pairs, Fake(total))
    later = teacher_of(ledger).heard(list(reversed(pairs)))
    for (_, example), (one,) in zip(reversed(pairs), later, strict=True):
        assert isinstance(one.read, Annotation)
        assert (one.read.label, one.read.example_id) == (example.label, example.id)


def test_examples_with_one_text_share_one_answer(monkeypatch: pytest.MonkeyPatch, ledger: Ledger) -> None:
    pairs: list[tuple[Split, Example]] = [
        ("train", Example("a", "3 and 3")),
        ("train", Example("b", "3 and 3")),
        ("test", Example("c", "3 and 3")),
    ]
    fake = Fake(total)
    tally = answered(monkeypatch, teacher_of(ledger), pairs, fake)
    assert (len(fake.asked), tally.answered, tally.reused) == (1, 1, 2)
    found = teacher_of(ledger).heard(pairs)
    assert [one.read.example_id for (one,) in found] == ["a", "b", "c"]


def test_examples_without_an_answer_have_none(monkeypatch: pytest.MonkeyPatch, ledger: Ledger) -> None:
    answered(monkeypatch, teacher_of(ledger), pairs_of(2), Fake(total))
    assert [len(found) for found in teacher_of(ledger).heard(pairs_of(4))] == [1, 1, 0, 0]


@pytest.mark.parametrize(
    "change",
    [{"model": "n"}, {"temperature": 0.5}, {"top_p": 0.9}, {"extra": {"seed": 1}}, {"style": "text"}],
)
def test_what_could_change_an_answer_asks_anew(
    monkeypatch: pytest.MonkeyPatch, ledger: Ledger, change: dict[str, Any]
) -> None:
    answered(monkeypatch, teacher_of(ledger), pairs_of(1), Fake(total))
    config = TeacherConfig(**{"backend": "local", "model": "m", **change})
    assert AskedTeacher(TASK, config, 0, ledger).heard(pairs_of(1)) == [[]]


@pytest.mark.parametrize("change", [{"max_tokens": 999}, {"batch_size": 1}, {"limits": {"concurrency": 1}}])
def test_what_cannot_change_an_answer_reuses_it(
    monkeypatch: pytest.MonkeyPatch, ledger: Ledger, change: dict[str, Any]
) -> None:
    answered(monkeypatch, teacher_of(ledger), pairs_of(1), Fake(total))
    fake = Fake(total)
    config = TeacherConfig.model_validate({"backend": "local", "model": "m", **change})
    answered(monkeypatch, AskedTeacher(TASK, config, 0, ledger), pairs_of(1), fake)
    assert fake.asked == []


def test_every_draw_has_an_answer_of_its_own_in_order(
    monkeypatch: pytest.MonkeyPatch, ledger: Ledger
) -> None:
    teacher = teacher_of(ledger, draws=4, temperature=1.0)
    answered(monkeypatch, teacher, pairs_of(2), Fake(total))
    for found in teacher.heard(pairs_of(2)):
        assert [one.draw for one in found] == [0, 1, 2, 3]
        assert [f"try {one.draw}." in one.words for one in found] == [True] * 4


@pytest.mark.parametrize("split", ["validation", "test"])
def test_what_is_measured_on_is_never_hinted_at(
    monkeypatch: pytest.MonkeyPatch, ledger: Ledger, split: Split
) -> None:
    teacher, fake = teacher_of(ledger, prompt="hinted"), Fake(lambda text, _: "So the answer is 77.")
    answered(monkeypatch, teacher, [*pairs_of(3, split), *pairs_of(2)], fake)
    hints = [prompt.text for prompt, _ in fake.asked if "known to be" in prompt.messages[-1].content]
    # 0, 1 and 2 are asked about in both splits, and asked once; hinted at are those of train.
    assert sorted(text.split("known to be: ")[-1] for text in hints) == ["0.)", "2.)"]
    found = teacher.heard(pairs_of(3, split))
    assert [[one.hinted for one in row] for row in found] == [[False]] * 3
    assert list(teacher.later(pairs_of(3, split))) == []


def test_examples_without_gold_get_no_hint(monkeypatch: pytest.MonkeyPatch, ledger: Ledger) -> None:
    fake = Fake(lambda text, _: "nothing")
    pairs: list[tuple[Split, Example]] = [("train", Example("a", "3 and 3"))]
    answered(monkeypatch, teacher_of(ledger, prompt="hinted"), pairs, fake)
    assert len(fake.asked) == 1


def test_two_stages_of_zero_shot_are_one_completion(monkeypatch: pytest.MonkeyPatch, ledger: Ledger) -> None:
    def script(text: str, draw: int) -> str:
        return f"{draw}" if text.startswith("Now finish") else f"Hm, draw {draw}."

    teacher = teacher_of(ledger, prompt="zero-shot", draws=2, temperature=1.0)
    fake = Fake(script)
    answered(monkeypatch, teacher, pairs_of(1), fake)
    assert len(fake.asked) == 4
    (row,) = teacher.heard(pairs_of(1))
    assert [one.words for one in row] == [
        "Hm, draw 0. So the answer is 0",
        "Hm, draw 1. So the answer is 1",
    ]
    # The second stage continues the words of its own draw.
    seconds = [(json.dumps([m.content for m in p.messages]), d) for p, d in fake.asked[2:]]
    assert all(f"Hm, draw {draw}." in text for text, draw in seconds)


def test_without_its_second_stage_the_first_is_read_alone(
    monkeypatch: pytest.MonkeyPatch, ledger: Ledger
) -> None:
    teacher = teacher_of(ledger, prompt="zero-shot")
    answered(monkeypatch, teacher, pairs_of(1), Fake(total))
    ((one,),) = teacher.heard(pairs_of(1))
    assert one.words == total("0")
    assert isinstance(one.read, Annotation)


@settings(max_examples=40, deadline=None)
@given(words=st.lists(st.text(max_size=40), min_size=1, max_size=5))
def test_any_words_are_kept_verbatim(tmp_path_factory: pytest.TempPathFactory, words: list[str]) -> None:
    path = tmp_path_factory.mktemp("verbatim") / "ledger.sqlite"
    pairs = pairs_of(len(words))
    with Ledger(path) as ledger, pytest.MonkeyPatch.context() as monkeypatch:
        fake = Fake(lambda text, _: words[int(text.split()[0])])
        answered(monkeypatch, teacher_of(ledger), pairs, fake)
        assert [one.words for (one,) in teacher_of(ledger).heard(pairs)] == words
