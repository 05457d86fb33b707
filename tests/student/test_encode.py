"""Encoding: what stands where, what is shared, and that nothing is ever cut."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from stepdistill.records import Target, TaskName
from stepdistill.student.batch import Collator
from stepdistill.student.encode import TASKS, Encoder, Item, tokens
from stepdistill.student.forward import multitask
from stepdistill.student.methods import MARKERS
from stepdistill.student.model import Student
from stepdistill.student.padding import IGNORED
from stepdistill.weights import decoder_start

FAMILIES = ("encoder-decoder", "causal")
FORMS = [("encoder-decoder", "encoder"), ("encoder-decoder", "decoder"), ("causal", "encoder")]
TEXT = "Ben has 3 apples and gets 4 more today. How many?"
LABEL, RATIONALE = Target("0", TEXT, "7", "label"), Target("0", TEXT, "3 and 4 more make 7.", "rationale")


@pytest.fixture(params=FORMS, ids="-".join)
def encoder(request: pytest.FixtureRequest, make_student: Callable[..., Student]) -> Encoder:
    family, prefix = request.param
    return Encoder(make_student(family).tokenizer, family, prefix)


def words(encoder: Encoder, ids: list[int]) -> str:
    return str(encoder.tokenizer.decode(ids, skip_special_tokens=True)).strip()


def in_one_row(encoder: Encoder) -> bool:
    return encoder.family == "causal" or encoder.prefix == "decoder"


def test_the_paper_marks_the_task_before_the_input(make_student: Callable[..., Student]) -> None:
    encoder = make_student().encoder
    for task in TASKS:
        assert words(encoder, encoder.source(TEXT, task)) == f"{MARKERS[task]} {TEXT}"
        assert encoder.opening(task) == []


@pytest.mark.parametrize(("family", "prefix"), FORMS[1:], ids=map("-".join, FORMS[1:]))
def test_elsewhere_the_input_is_the_same_for_both_tasks_and_the_marker_follows(
    make_student: Callable[..., Student], family: str, prefix: str
) -> None:
    encoder = Encoder(make_student(family).tokenizer, family, prefix)  # type: ignore[arg-type]
    assert encoder.source(TEXT, "label") == encoder.source(TEXT, "rationale")
    assert words(encoder, encoder.source(TEXT, "label")) == TEXT
    for task in TASKS:
        assert words(encoder, encoder.opening(task)) == MARKERS[task]
    assert encoder.opening("label") != encoder.opening("rationale")


def test_a_causal_input_and_marker_end_with_a_line_break_and_no_end_of_sequence(
    make_student: Callable[..., Student],
) -> None:
    student = make_student("causal")
    for ids in (student.encoder.source(TEXT, "label"), student.encoder.opening("label")):
        assert student.tokenizer.eos_token_id not in ids
        assert student.tokenizer.decode(ids).endswith("\n")


def test_an_encoders_input_ends_as_its_tokenizer_ends_it(make_student: Callable[..., Student]) -> None:
    student = make_student()
    ids = student.encoder.source(TEXT, "label")
    assert ids[-1] == student.tokenizer.eos_token_id
    assert ids.count(ids[-1]) == 1


def test_a_target_ends_with_one_end_of_sequence(encoder: Encoder) -> None:
    ids, end = encoder.target("7"), encoder.tokenizer.eos_token_id
    assert ids[-1] == end
    assert ids.count(end) == 1


def test_two_tasks_are_one_row_where_the_input_is_the_same(encoder: Encoder) -> None:
    item = encoder.item([LABEL, RATIONALE])
    assert len(item) == (1 if in_one_row(encoder) else 2)
    branches = [branch for row in item for branch in row.branches]
    assert [branch.task for branch in branches] == ["label", "rationale"]
    assert [words(encoder, branch.target) for branch in branches] == ["7", RATIONALE.target]
    assert [branch.opening for branch in branches] == [encoder.opening(task) for task in TASKS]
    for row in item:
        assert all(row.source == encoder.source(TEXT, branch.task) for branch in row.branches)


def test_several_rationales_share_their_input_and_keep_their_weights(encoder: Encoder) -> None:
    more = [replace(RATIONALE, target=text, weight=0.5) for text in ("3 make 7.", "4 make 7.")]
    item = encoder.item([LABEL, *more])
    assert len(item) == (1 if in_one_row(encoder) else 2)
    found = [b for row in item for b in row.branches if b.task == "rationale"]
    assert [(words(encoder, b.target), b.weight) for b in found] == [("3 make 7.", 0.5), ("4 make 7.", 0.5)]
    assert len({id(row) for row in item for b in row.branches if b.task == "rationale"}) == 1


def test_other_inputs_are_not_shared(encoder: Encoder) -> None:
    item = encoder.item([LABEL, replace(RATIONALE, source="How many?")])
    assert len(item) == 2


def test_sharing_off_gives_every_target_a_row_and_the_same_ids(encoder: Encoder) -> None:
    targets = [LABEL, RATIONALE, replace(RATIONALE, target="3 make 7.")]
    shared, apart = encoder.item(targets), replace(encoder, share=False).item(targets)
    assert [len(row.branches) for row in apart] == [1, 1, 1]

    def pairs(item: Item) -> list[tuple[list[int], object]]:
        return [(row.source, branch) for row in item for branch in row.branches]

    assert pairs(shared) == pairs(apart)


def test_an_example_counts_the_tokens_that_it_has(encoder: Encoder) -> None:
    item = encoder.item([LABEL, RATIONALE])
    sources = 1 if in_one_row(encoder) else 2
    expected = sum(len(encoder.source(TEXT, task)) for task in TASKS[:sources])
    for target in (LABEL, RATIONALE):
        expected += len(encoder.opening(target.task)) + len(encoder.target(target.target))
    assert tokens(item) == expected
    assert tokens(()) == 0


def test_nothing_is_cut_whatever_the_tokenizer_says_of_its_limit(encoder: Encoder) -> None:
    encoder.tokenizer.model_max_length = 4
    for row in encoder.item([LABEL, RATIONALE]):
        assert words(encoder, row.source).endswith(TEXT)
        for branch in row.branches:
            whole = LABEL.target if branch.task == "label" else RATIONALE.target
            assert words(encoder, branch.target) == whole


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(st.sampled_from(["Ben", "has", "3", "apples", "7", "\n", "make"]), max_size=60))
def test_an_input_grows_with_its_text_by_what_is_added(encoder: Encoder, parts: list[str]) -> None:
    ids = [encoder.tokenizer(part, add_special_tokens=False)["input_ids"] for part in parts]
    text = " ".join(parts)
    assert len(encoder.source(text, "label")) >= sum(map(len, ids))
    assert len(encoder.target(text)) > sum(map(len, ids))


def loss_alone(student: Student, row_source: list[int], opening: list[int], target: list[int]) -> float:
    """Summed cross-entropy of one target, unpadded, by the model's own forward."""
    silent = [IGNORED] * len(opening)
    if student.family == "causal":
        ids = torch.tensor([[*row_source, *opening, *target]])
        logits = student.model(input_ids=ids).logits[0, :-1]
        labels = torch.tensor([IGNORED] * len(row_source) + silent + target)[1:]
    else:
        read = torch.tensor([[decoder_start(student.model), *opening, *target[:-1]]])
        logits = student.model(input_ids=torch.tensor([row_source]), decoder_input_ids=read).logits[0]
        labels = torch.tensor(silent + target)
    return cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum").item()


@pytest.mark.parametrize(("family", "prefix"), FORMS)
def test_the_end_is_learned_and_padding_is_not_where_one_token_serves_as_both(
    make_student: Callable[..., Student], family: str, prefix: str
) -> None:
    student = make_student(family)
    start = decoder_start(student.model)
    student.tokenizer.pad_token = student.tokenizer.eos_token
    student.model.double().eval()
    encoder = Encoder(student.tokenizer, student.family, prefix)  # type: ignore[arg-type]
    short = [Target("1", "How many?", "7", "label"), Target("1", "How many?", "3 make 7.", "rationale")]
    items = [encoder.item([LABEL, RATIONALE]), encoder.item(short)]
    batch = Collator(int(student.tokenizer.pad_token_id), student.family, "tokens", start)(
        list(enumerate(items))
    )
    with multitask(student.model, student.family):
        found = student.model(batch=batch).tolist()
    expected: dict[TaskName, float] = {"label": 0.0, "rationale": 0.0}
    for item in items:
        for row in item:
            for branch in row.branches:
                expected[branch.task] += loss_alone(student, row.source, branch.opening, branch.target)
    assert found == pytest.approx(list(expected.values()), rel=1e-9)
    ends = sum(len(row.branches) for item in items for row in item)
    labels = (
        batch["labels"]
        if family == "causal"
        else torch.cat([batch[task]["labels"].flatten() for task in TASKS])
    )
    assert int(labels.eq(student.tokenizer.eos_token_id).sum()) == ends
