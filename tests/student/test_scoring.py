"""How likely each label is: equal to the model's own logits, one label and one input at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from stepdistill.errors import StudentError
from stepdistill.student import scoring
from stepdistill.student.generate import generate
from stepdistill.student.model import Student
from stepdistill.student.scoring import answers_with_probabilities

TEXTS = [
    "Anna has 1 apples and gets 2. How many?",
    "Ben has 3",
    "Cleo has 7 apples and gets 6 more today today today. How many?",
    "How many?",
]
LABELS = ("3", "3 apples today", "more", "11")
KINDS = ("T5", "T5 told by its decoder", "Llama", "Llama that cannot branch")


@pytest.fixture(params=KINDS)
def student(
    request: pytest.FixtureRequest, make_student: Callable[..., Student], monkeypatch: pytest.MonkeyPatch
) -> Student:
    """A student of random weights, with dropout that must not be heard."""
    if request.param.startswith("T5"):
        found = make_student(dropout=0.5)
        return replace(found, prefix="decoder") if "decoder" in request.param else found
    if "cannot" in request.param:
        monkeypatch.setattr(scoring, "can_branch", lambda _: False)
    return make_student("causal", dropout=0.5)


def by_hand(student: Student, text: str, label: str) -> float:
    """log p(label, end | text), unpadded and without a cache."""
    encoder, model = student.encoder, student.model.eval()
    source, opening, target = encoder.source(text, "label"), encoder.opening("label"), encoder.target(label)
    with torch.no_grad():
        if student.family == "causal":
            logits = model(input_ids=torch.tensor([[*source, *opening, *target[:-1]]])).logits[0]
        else:
            read = torch.tensor([[model.config.decoder_start_token_id, *opening, *target[:-1]]])
            logits = model(input_ids=torch.tensor([source]), decoder_input_ids=read).logits[0]
    tokens = logits[-len(target) :].double().log_softmax(-1)
    return sum(float(row[id_]) for row, id_ in zip(tokens, target, strict=True))


def likelihoods(
    student: Student, texts: Sequence[str], labels: Sequence[str], size: int
) -> list[list[float]]:
    """log p(label, end | text) of every label, `size` texts at a time."""
    encoder, found = student.encoder, []
    targets = [encoder.target(label) for label in labels]
    student.model.eval()
    for begin in range(0, len(texts), size):
        sources = [encoder.source(text, "label") for text in texts[begin : begin + size]]
        with torch.inference_mode():
            found += scoring.spell(student, sources, encoder.opening("label"), [targets] * len(sources))
    return [[math.fsum(tokens) for tokens in row] for row in found]


@pytest.mark.parametrize("at_once", [0, 64])
@pytest.mark.parametrize("size", [1, 3, 32])
def test_every_label_has_the_likelihood_that_it_has_alone(
    student: Student, size: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "_AT_ONCE", at_once)
    found = likelihoods(student, TEXTS, LABELS, size)
    for text, row in zip(TEXTS, found, strict=True):
        assert row == pytest.approx([by_hand(student, text, label) for label in LABELS], abs=2e-4)


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_answers_are_those_of_generation_and_probabilities_the_softmax(
    student: Student, batch_size: int
) -> None:
    found = answers_with_probabilities(student, TEXTS, LABELS, 5, batch_size)
    assert [answer for answer, _ in found] == generate(student, TEXTS, 5, batch_size)
    for row, (_, share) in zip(likelihoods(student, TEXTS, LABELS, batch_size), found, strict=True):
        total = math.fsum(math.exp(value) for value in row)
        assert share == pytest.approx([math.exp(value) / total for value in row], rel=1e-4)
        assert math.fsum(share) == pytest.approx(1.0)


def test_the_order_of_labels_and_texts_is_theirs(student: Student) -> None:
    whole = answers_with_probabilities(student, TEXTS, LABELS, 3)
    turned = answers_with_probabilities(student, TEXTS[::-1], LABELS[::-1], 3)
    for (answer, row), (same, other) in zip(whole, turned[::-1], strict=True):
        assert answer == same
        assert row == pytest.approx(other[::-1], abs=2e-4)
    assert answers_with_probabilities(student, [], LABELS, 3) == []


@pytest.mark.parametrize("at_once", [0, 64])
def test_every_text_may_have_labels_of_its_own(
    student: Student, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "_AT_ONCE", at_once)
    encoder, own = student.encoder, [LABELS, LABELS[1:2], LABELS[::-1], LABELS[:3]]
    sources = [encoder.source(text, "label") for text in TEXTS]
    targets = [[encoder.target(label) for label in labels] for labels in own]
    student.model.eval()
    with torch.inference_mode():
        found = scoring.spell(student, sources, encoder.opening("label"), targets)
    assert [[len(tokens) for tokens in row] for row in found] == [[len(t) for t in row] for row in targets]
    for text, labels, row in zip(TEXTS, own, found, strict=True):
        expected = [by_hand(student, text, label) for label in labels]
        assert [math.fsum(tokens) for tokens in row] == pytest.approx(expected, abs=2e-4)


def test_a_student_in_training_goes_on_training(student: Student) -> None:
    student.model.train()
    first = answers_with_probabilities(student, TEXTS, LABELS, 3)
    assert student.model.training
    assert answers_with_probabilities(student, TEXTS, LABELS, 3) == first


def test_an_encoder_reads_each_input_once_for_its_answer_and_all_labels(
    make_student: Callable[..., Student],
) -> None:
    student, read = make_student(), []
    student.model.get_encoder().register_forward_hook(lambda *_: read.append(1))
    answers_with_probabilities(student, TEXTS, LABELS, 3, 2)
    assert len(read) == 2


def test_where_memory_runs_out_the_batches_are_halved(
    student: Student, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, sizes = answers_with_probabilities(student, TEXTS, LABELS, 3, 1), []
    plain, most = scoring.spell, 1

    def small(given: Student, sources: list[Any], *rest: Any) -> Any:
        sizes.append(len(sources))
        if len(sources) > most:
            raise torch.OutOfMemoryError("out of memory")
        return plain(given, sources, *rest)

    monkeypatch.setattr(scoring, "spell", small)
    assert answers_with_probabilities(student, TEXTS, LABELS, 3) == expected
    assert sizes == [4, 2, 1, 1, 1, 1]
    most = 0
    with pytest.raises(StudentError, match=r"give evaluate\.probabilities: false"):
        answers_with_probabilities(student, TEXTS, LABELS, 3)
