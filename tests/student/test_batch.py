"""Padded tensors: every target once, at the position that predicts it, with its weight."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stepdistill.student.batch import Collator
from stepdistill.student.encode import TASKS, Branch, Item, Row
from stepdistill.student.padding import IGNORED, pad_left, pad_right

ids = st.lists(st.integers(5, 99), min_size=1, max_size=8)
MEANS = ("tokens", "examples")


@st.composite
def items(draw: Any, causal: bool) -> list[Item]:
    openings = {"label": [2], "rationale": [3, 4]}
    found = []
    for _ in range(draw(st.integers(1, 4))):
        rows = []
        for _ in range(draw(st.integers(1, 2))):
            tasks = draw(st.lists(st.sampled_from(TASKS), min_size=1, max_size=3))
            weight = st.sampled_from([0.0, 0.25, 1.0, 2.0])
            opened = [openings[t] if causal or draw(st.booleans()) else [] for t in tasks]
            branches = [Branch(t, o, draw(ids), draw(weight)) for t, o in zip(tasks, opened, strict=True)]
            rows.append(Row(draw(ids), tuple(branches)))
        found.append(tuple(rows))
    return found


def branches_of(found: list[Item]) -> list[Branch]:
    return [branch for item in found for row in item for branch in row.branches]


@pytest.mark.parametrize("mean", MEANS)
@given(found=items(causal=True))
@settings(max_examples=50, deadline=None)
def test_a_causal_batch_predicts_each_target_once(mean: str, found: list[Item]) -> None:
    batch = Collator(0, "causal", mean)(list(enumerate(found)))
    chosen = batch["labels"].ne(IGNORED)
    assert batch["labels"][chosen].tolist() == [i for b in branches_of(found) for i in b.target]
    assert batch["tasks"][chosen].tolist() == [
        TASKS.index(b.task) for b in branches_of(found) for _ in b.target
    ]
    for task in (0, 1):
        mine = chosen & batch["tasks"].eq(task)
        assert batch["weights"][mine].sum().item() == pytest.approx(batch["totals"][task].item())


@given(found=items(causal=True))
@settings(max_examples=50, deadline=None)
def test_a_causal_branch_begins_where_its_input_ends(found: list[Item]) -> None:
    batch = Collator(0, "causal")(list(enumerate(found)))
    for number, row in enumerate(row for item in found for row in item):
        segments, places = batch["segments"][number], batch["position_ids"][number]
        assert batch["input_ids"][number][segments == 0].tolist() == row.source
        for index, branch in enumerate(row.branches, start=1):
            mine = segments == index
            assert batch["input_ids"][number][mine].tolist() == [*branch.opening, *branch.target[:-1]]
            start = len(row.source)
            assert places[mine].tolist() == list(range(start, start + int(mine.sum())))
            # Read in order: each position predicts the token behind it.
            assert batch["labels"][number][mine].tolist()[len(branch.opening) - 1 :] == branch.target


@pytest.mark.parametrize("mean", MEANS)
@given(found=items(causal=False))
@settings(max_examples=50, deadline=None)
def test_a_decoder_predicts_each_target_once_and_reads_its_own_input(mean: str, found: list[Item]) -> None:
    batch = Collator(0, "encoder-decoder", mean, start=1)(list(enumerate(found)))
    rows = [row for item in found for row in item]
    for task in TASKS:
        mine = [(row, b) for row in rows for b in row.branches if b.task == task]
        assert (task in batch) == bool(mine)
        for index, (row, branch) in enumerate(mine):
            part = batch[task]
            place = int(part["rows"][index])
            source = batch["input_ids"][place][batch["attention_mask"][place].bool()].tolist()
            read = [1, *branch.opening, *branch.target[:-1]]
            labels = part["labels"][index]
            assert source == row.source
            assert part["decoder_input_ids"][index][: len(read)].tolist() == read
            assert labels[labels.ne(IGNORED)].tolist() == branch.target
            assert labels[: len(branch.opening)].eq(IGNORED).all()
            assert part["weights"][index][labels.eq(IGNORED)].sum() == 0
        if mine:
            total = batch["totals"][TASKS.index(task)].item()
            assert batch[task]["weights"].sum().item() == pytest.approx(total)


def test_the_mean_over_examples_gives_each_target_its_weight() -> None:
    row = Row([5], (Branch("label", [2], [6, 7, 8], 0.5), Branch("rationale", [3], [9], 2.0)))
    assert Collator(0, "causal", "examples")([(0, (row,))])["totals"].tolist() == [0.5, 2.0]
    assert Collator(0, "causal", "tokens")([(0, (row,))])["totals"].tolist() == [1.5, 2.0]


def test_examples_are_named_also_where_they_are_muted() -> None:
    item = (Row([5], (Branch("label", [2], [6]),)),)
    batch = Collator(0, "causal")([(3, item), (~4, item)])
    assert batch["examples"].tolist() == [3, 4]


def test_an_end_token_that_pads_too_is_still_learned() -> None:
    # Many tokenizers have no padding token and lend the end of sequence: masks must not go by id.
    item = (Row([5, 1], (Branch("label", [2], [6, 1]), Branch("rationale", [3], [1]))),)
    other = (Row([5], (Branch("label", [2], [1]),)),)
    batch = Collator(1, "causal")([(0, item), (1, other)])
    assert batch["labels"][batch["labels"].ne(IGNORED)].tolist() == [6, 1, 1, 1]
    assert batch["segments"].tolist() == [[0, 0, 1, 1, 2], [0, 1, -1, -1, -1]]
    pair = Collator(1, "encoder-decoder", start=1)([(0, item), (1, other)])
    assert pair["attention_mask"].tolist() == [[1, 1], [1, 0]]


def test_mistakes_of_callers_are_errors() -> None:
    bare = [(0, (Row([5], (Branch("label", [], [6]),)),))]
    with pytest.raises(ValueError, match="marker"):
        Collator(0, "causal")(bare)
    with pytest.raises(ValueError, match="starts with"):
        Collator(0, "encoder-decoder")(bare)


def test_padding_keeps_rows() -> None:
    assert pad_right([[1, 2], [3], []], 0).tolist() == [[1, 2], [3, 0], [0, 0]]
    assert pad_left([[1, 2], [3], []], 9).tolist() == [[1, 2], [9, 3], [9, 9]]
    assert pad_right([[], []], 0).shape == (2, 0)
    assert pad_right([[1]], 0).dtype == torch.long
