"""Encoding and batching: what a row of a batch holds is what the example alone would be."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from stepdistill.errors import StudentError
from stepdistill.records import Target
from stepdistill.student.encode import Batch, Encoded, Encoder, Item, pad_left, pad_right
from stepdistill.student.loss import IGNORED
from stepdistill.student.model import Student

FAMILIES = ("encoder-decoder", "causal")
ROWS = st.lists(st.lists(st.integers(1, 50), min_size=1, max_size=6), min_size=1, max_size=5)
PAIRS = [
    ("Anna has 3 apples.", "7"),
    ("Ben has 3 apples and gets 4 more today today. How many?", "3 and 4 more make 7."),
    ("How many?", "Anna gets 2 more and 5 more today."),
]


def encoder_of(student: Student, max_input: int = 100, max_target: int = 100) -> Encoder:
    return Encoder(student.tokenizer, student.family, max_input, max_target)


def encode(student: Student) -> list[Item]:
    pairs = [[Target(str(i), source, target, "label")] for i, (source, target) in enumerate(PAIRS)]
    return encoder_of(student).items(pairs)


def row_losses(student: Student, batch: dict[str, torch.Tensor]) -> list[float]:
    """Sum of the cross-entropy of every row, as the trainer reads a batch."""
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    labels = batch["labels"]
    if student.family == "causal":
        logits = student.model(**inputs).logits[:, -labels.shape[1] :]
    else:
        shifted = student.model.prepare_decoder_input_ids_from_labels(labels=labels)
        logits = student.model(**inputs, decoder_input_ids=shifted).logits
    losses = cross_entropy(logits.transpose(1, 2), labels, ignore_index=IGNORED, reduction="none")
    return losses.sum(dim=1).tolist()


def loss_alone(student: Student, row: Encoded) -> float:
    """Sum of the cross-entropy of one example, unpadded, by the model's own loss."""
    if student.family == "causal":
        ids = torch.tensor([row.source + row.target])
        labels = torch.tensor([[IGNORED] * len(row.source) + row.target])
        return student.model(input_ids=ids, labels=labels).loss.item() * len(row.target)
    ids, labels = torch.tensor([row.source]), torch.tensor([row.target])
    return student.model(input_ids=ids, labels=labels).loss.item() * len(row.target)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_padded_row_has_the_loss_of_the_example_alone(
    make_student: Callable[..., Student], family: str
) -> None:
    student = make_student(family)
    student.model.double().eval()
    items = encode(student)
    found = row_losses(student, encoder_of(student).collate(items)["label"])
    expected = [loss_alone(student, item["label"]) for item in items]
    # transformers' own loss is computed in float32 whatever the model's precision.
    assert found == pytest.approx(expected, rel=1e-5)
    assert min(abs(a - b) for a, b in itertools.pairwise(expected)) > 0.01


@pytest.mark.parametrize("family", FAMILIES)
def test_company_in_the_batch_does_not_change_a_rows_loss(
    make_student: Callable[..., Student], family: str
) -> None:
    student = make_student(family)
    student.model.double().eval()
    encoder, items = encoder_of(student), encode(student)
    together = row_losses(student, encoder.collate(items)["label"])
    apart = [row_losses(student, encoder.collate([item])["label"])[0] for item in items]
    assert together == pytest.approx(apart, rel=1e-9)


@pytest.mark.parametrize("family", FAMILIES)
def test_training_reads_the_ids_that_prediction_reads(
    make_student: Callable[..., Student], family: str
) -> None:
    student = make_student(family)
    encoder, items = encoder_of(student), encode(student)
    batch = encoder.collate(items)["label"]
    for row, (text, _) in enumerate(PAIRS):
        kept = batch["input_ids"][row][batch["attention_mask"][row].bool()].tolist()
        source = encoder.source(text)
        assert kept[: len(source)] == source
        expected = items[row]["label"].target[:-1] if family == "causal" else []
        assert kept[len(source) :] == expected


def test_a_causal_input_ends_with_a_line_break_and_no_end_of_sequence(
    make_student: Callable[..., Student],
) -> None:
    student = make_student("causal")
    ids = encoder_of(student).source("How many?")
    assert student.tokenizer.eos_token_id not in ids
    assert student.tokenizer.decode(ids).endswith("\n")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_target_ends_with_one_end_of_sequence(make_student: Callable[..., Student], family: str) -> None:
    student = make_student(family)
    ids, end = encoder_of(student).target("7"), student.tokenizer.eos_token_id
    assert ids[-1] == end
    assert ids.count(end) == 1


def test_the_positions_of_a_causal_row_count_from_its_first_token(
    make_student: Callable[..., Student],
) -> None:
    student = make_student("causal")
    items = encode(student)
    batch = encoder_of(student).collate(items)["label"]
    for ids, mask, item in zip(batch["position_ids"], batch["attention_mask"], items, strict=True):
        length = len(item["label"].source) + len(item["label"].target) - 1
        assert ids[mask.bool()].tolist() == list(range(length))


def test_the_end_is_learned_also_where_its_token_serves_as_padding(
    make_student: Callable[..., Student],
) -> None:
    student = make_student("causal")
    student.tokenizer.pad_token = student.tokenizer.eos_token
    items = encode(student)
    labels = encoder_of(student).collate(items)["label"]["labels"]
    for row, item in zip(labels.tolist(), items, strict=True):
        assert [token for token in row if token != IGNORED] == item["label"].target


@pytest.mark.parametrize(("what", "limits"), [("input", (8, 100)), ("target", (100, 3))])
def test_a_text_too_long_is_refused_with_count_longest_and_setting(
    make_student: Callable[..., Student], what: str, limits: tuple[int, int]
) -> None:
    student = make_student()
    encoder = encoder_of(student, *limits)
    ids = [encoder.source(s) if what == "input" else encoder.target(t) for s, t in PAIRS]
    limit, longest = (limits[0] if what == "input" else limits[1]), max(map(len, ids))
    count = sum(len(row) > limit for row in ids)
    assert 0 < count < 3
    with pytest.raises(StudentError) as caught:
        encoder.items([[Target("0", s, t, "label")] for s, t in PAIRS])
    assert f"{count} of 3 {what}s have more than {limit} tokens" in str(caught.value)
    assert f"longest has {longest})" in str(caught.value)
    assert f"train.max_{what}_tokens" in str(caught.value)


def test_a_text_as_long_as_allowed_passes(make_student: Callable[..., Student]) -> None:
    student = make_student()
    source, target = PAIRS[1]
    exact = encoder_of(student)
    encoder = encoder_of(student, len(exact.source(source)), len(exact.target(target)))
    encoder.items([[Target("0", source, target, "label")]])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_text_must_fit_the_positions_of_the_model(
    make_student: Callable[..., Student], family: str
) -> None:
    student = make_student(family)
    source, target = PAIRS[1]
    plain = encoder_of(student)
    beside = len(plain.target(target)) - 1 if family == "causal" else 0
    needed = len(plain.source(source)) + beside
    for positions in (needed, needed - 1):
        encoder = Encoder(student.tokenizer, student.family, 100, 100, positions)
        refused = pytest.raises(StudentError, match=f"{needed - 1} positions .* needs {needed} ")
        with contextlib.nullcontext() if positions == needed else refused:
            encoder.items([[Target("0", source, target, "label")]])


@pytest.mark.parametrize(("family", "room"), [("encoder-decoder", 0), ("causal", 7)])
def test_an_input_to_be_asked_must_leave_room_for_the_answer(
    make_student: Callable[..., Student], family: str, room: int
) -> None:
    student = make_student(family)
    length = len(encoder_of(student).source(PAIRS[1][0]))
    Encoder(student.tokenizer, student.family, 100, 100, length + room).check_inputs([PAIRS[1][0]], 8)
    encoder = Encoder(student.tokenizer, student.family, 100, 100, length + room - 1)
    with pytest.raises(StudentError, match=f"needs {length + room} "):
        encoder.check_inputs([PAIRS[1][0]], 8)
    with pytest.raises(StudentError, match="1 of 2 inputs have more than 4 tokens"):
        encoder_of(student, 4).check_inputs(["7", PAIRS[1][0]], 8)


def test_a_label_that_the_tokenizer_does_not_know_is_refused(make_student: Callable[..., Student]) -> None:
    encoder = encoder_of(make_student())
    known, unknown = Target("0", "How many?", "7", "label"), Target("1", "How many?", "zebras", "label")
    encoder.items([[known, Target("0", "How many?", "zebras", "rationale")]])
    with pytest.raises(StudentError, match="1 of 2 labels have words or signs"):
        encoder.items([[known], [unknown]])


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_is_cut_whatever_the_tokenizer_says_of_its_limit(
    make_student: Callable[..., Student], family: str
) -> None:
    student = make_student(family)
    student.tokenizer.model_max_length = 4
    encoder = encoder_of(student)
    source, target = PAIRS[1]
    item = encoder.items([[Target("0", source, target, "label")]])[0]["label"]
    assert student.tokenizer.decode(item.source, skip_special_tokens=True).strip() == source
    assert student.tokenizer.decode(item.target, skip_special_tokens=True) == target


def test_a_batch_keeps_the_tasks_apart(make_student: Callable[..., Student]) -> None:
    encoder = encoder_of(make_student())
    label, reason = Encoded([5, 6, 1], [7, 1]), Encoded([8, 1], [9, 9, 9, 1])
    batch: Batch = encoder.collate([{"label": label, "rationale": reason}, {"label": label}])
    assert batch["label"]["labels"].tolist() == [label.target, label.target]
    assert batch["rationale"]["labels"].tolist() == [reason.target]
    assert batch["rationale"]["input_ids"].tolist() == [reason.source]


def test_a_task_that_no_example_has_is_absent(make_student: Callable[..., Student]) -> None:
    batch = encoder_of(make_student()).collate([{"label": Encoded([5, 1], [7, 1])}])
    assert list(batch) == ["label"]


@given(rows=ROWS, filler=st.sampled_from([0, IGNORED]))
def test_padding_on_the_right_keeps_content_and_lengths(rows: list[list[int]], filler: int) -> None:
    ids, mask = pad_right(rows, filler)
    for row, padded, kept in zip(rows, ids.tolist(), mask.tolist(), strict=True):
        assert padded == row + [filler] * (ids.shape[1] - len(row))
        assert kept == [1] * len(row) + [0] * (ids.shape[1] - len(row))
    assert ids.shape == (len(rows), max(map(len, rows)))


@given(rows=ROWS)
def test_padding_on_the_left_keeps_content_and_lengths(rows: list[list[int]]) -> None:
    ids, mask = pad_left(rows, 0)
    for row, padded, kept in zip(rows, ids.tolist(), mask.tolist(), strict=True):
        assert padded == [0] * (ids.shape[1] - len(row)) + row
        assert kept == [0] * (ids.shape[1] - len(row)) + [1] * len(row)
    assert ids.shape == (len(rows), max(map(len, rows)))


def test_rows_of_nothing_are_padded_too() -> None:
    ids, mask = pad_right([[], []], 0)
    assert ids.shape == mask.shape == (2, 0)
