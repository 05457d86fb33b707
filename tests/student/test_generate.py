"""Generation: greedy answers in the order of the inputs, whatever their lengths and batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from stepdistill.student.generate import generate
from stepdistill.student.model import Student

FAMILIES = ("encoder-decoder", "causal")
TEXTS = [
    "Ben has 3 apples and gets 4 more today today. How many?",
    "7",
    "Anna gets 2 more today.",
    "How many?",
    "Cleo has 1 apples and gets 6 more. How many?",
    "apples and apples and apples today",
    "7",
]


@pytest.fixture(params=[*FAMILIES, "marked on the decoder"])
def student(request: pytest.FixtureRequest, make_student: Callable[..., Student]) -> Student:
    """A student whose answers depend on the input, though it has learned nothing."""
    if request.param in FAMILIES:
        made = make_student(request.param)
    else:
        made = replace(make_student(), prefix="decoder")
    torch.manual_seed(8)
    for weight in made.model.parameters():
        weight.data = torch.randn_like(weight) * (0.6 if weight.dim() > 1 else 1.0)
    return made


def alone(student: Student, text: str, new_tokens: int, task: Any = "label") -> str:
    """Greedy decoding written out: one row, no padding, no cache, the whole text at every token."""
    source, start = student.encoder.source(text, task), student.encoder.opening(task)
    if student.family == "causal":
        source = source + start
    else:
        start = [student.model.config.decoder_start_token_id, *start]
    written: list[int] = []
    student.model.eval()
    for _ in range(new_tokens):
        if student.family == "causal":
            logits = student.model(input_ids=torch.tensor([source + written])).logits
        else:
            given = torch.tensor([start + written])
            logits = student.model(input_ids=torch.tensor([source]), decoder_input_ids=given).logits
        written.append(int(logits[0, -1].argmax()))
        if written[-1] == student.tokenizer.eos_token_id:
            break
    return student.tokenizer.decode(written, skip_special_tokens=True).strip()


@pytest.mark.parametrize("batch_size", [1, 2, 3, 32])
def test_every_input_has_the_answer_it_would_have_alone(student: Student, batch_size: int) -> None:
    with torch.inference_mode():
        expected = [alone(student, text, 6) for text in TEXTS]
    assert len(set(expected)) > 3
    assert generate(student, TEXTS, 6, batch_size) == expected


def test_the_other_task_is_asked_by_its_marker(student: Student) -> None:
    with torch.inference_mode():
        expected = [alone(student, text, 6, "rationale") for text in TEXTS]
    assert generate(student, TEXTS, 6, 2, task="rationale") == expected
    assert expected != generate(student, TEXTS, 6, 2)


def test_an_answer_may_end_where_it_has_written_a_string(student: Student) -> None:
    whole = generate(student, TEXTS, 12)
    stop = max((word for text in whole for word in text.split()), key=len)
    found = generate(student, TEXTS, 12, stop=stop)
    for text, cut in zip(whole, found, strict=True):
        assert text.startswith(cut) or cut.startswith(text.split(stop)[0])
        assert cut == text if stop not in text else stop in cut
    assert generate(student, TEXTS, 12, stop="no such words") == whole


def test_generation_ends_when_all_answers_have_ended(student: Student) -> None:
    steps: list[int] = []
    student.model.register_forward_pre_hook(lambda *_: steps.append(1))
    (written,) = generate(student, TEXTS[2:3], 40)
    before = len(steps)
    first = written.split()[0][:4]
    assert before > 10
    assert first in generate(student, TEXTS[2:3], 40, stop=first)[0]
    assert len(steps) - before < before / 2


def test_the_order_of_the_inputs_is_that_of_the_answers(student: Student) -> None:
    answers = dict(zip(TEXTS, generate(student, TEXTS, 6, 2), strict=True))
    backwards = TEXTS[::-1]
    assert generate(student, backwards, 6, 2) == [answers[text] for text in backwards]


def test_repeated_runs_agree(student: Student) -> None:
    assert generate(student, TEXTS, 6) == generate(student, TEXTS, 6)


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_put_back(student: Student, training: bool) -> None:
    student.model.train(training)
    generate(student, TEXTS[:2], 2)
    assert student.model.training is training


def test_the_mode_is_put_back_also_after_a_failure(student: Student) -> None:
    student.model.train()

    def stop(*_: Any) -> None:
        assert not student.model.training
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(student, TEXTS, 2, watch=stop)
    assert student.model.training


def test_dropout_is_off(make_student: Callable[..., Student]) -> None:
    student = make_student(dropout=0.9)
    student.model.train()
    seen: list[bool] = []
    student.model.register_forward_pre_hook(lambda module, _: seen.append(module.training))
    generate(student, TEXTS, 3)
    assert seen
    assert not any(seen)


@pytest.mark.parametrize("new_tokens", [1, 3, 6])
def test_at_most_so_many_tokens_are_written(
    student: Student, monkeypatch: pytest.MonkeyPatch, new_tokens: int
) -> None:
    written: list[torch.Tensor] = []
    before = student.model.generate

    def noted(**settings: Any) -> torch.Tensor:
        ids = before(**settings)
        opening = len(student.encoder.opening("label"))
        given = settings["input_ids"].shape[1] if student.family == "causal" else 1 + opening
        written.append(ids[:, given:])
        return ids

    monkeypatch.setattr(student.model, "generate", noted)
    generate(student, TEXTS, new_tokens, 3)
    assert max(ids.shape[1] for ids in written) == new_tokens


def test_prediction_reads_the_ids_that_training_reads(
    student: Student, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[list[int]] = []
    before = student.model.generate

    def noted(**settings: Any) -> torch.Tensor:
        pairs = zip(settings["input_ids"], settings["attention_mask"], strict=True)
        read.extend(ids[mask.bool()].tolist() for ids, mask in pairs)
        return before(**settings)

    monkeypatch.setattr(student.model, "generate", noted)
    generate(student, TEXTS, 1, 3)
    opening = student.encoder.opening("label") if student.family == "causal" else []
    assert sorted(read) == sorted(student.encoder.source(text, "label") + opening for text in TEXTS)


def test_no_inputs_have_no_answers(student: Student) -> None:
    assert generate(student, [], 3) == []


def test_progress_is_counted_in_inputs_to_the_end(student: Student) -> None:
    calls: list[tuple[str, int, int]] = []
    generate(student, TEXTS, 1, 3, watch=lambda *call: calls.append(call))
    assert calls == [("predict", 3, 7), ("predict", 6, 7), ("predict", 7, 7)]
