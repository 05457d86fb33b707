"""The loss contract: L = L_label + lambda * L_rationale, each a mean over the whole optimizer step."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from stepdistill.student.loss import IGNORED, contract, loss_sum, multitask_loss, units

MEANS = ("tokens", "examples")


def batch(seed: int, lengths: list[int], vocabulary: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    """Random logits, and labels of the given lengths padded on the right."""
    random = torch.Generator().manual_seed(seed)
    shape = (len(lengths), max(lengths))
    logits = torch.randn(*shape, vocabulary, generator=random)
    labels = torch.randint(vocabulary, shape, generator=random)
    for row, length in enumerate(lengths):
        labels[row, length:] = IGNORED
    return logits, labels


def test_a_token_costs_minus_the_logarithm_of_its_probability() -> None:
    logits = torch.tensor([[[0.0, math.log(3)], [0.0, math.log(3)]], [[0.0, math.log(3)], [0.0, 0.0]]])
    labels = torch.tensor([[1, 0], [1, IGNORED]])
    likely, unlikely = math.log(4 / 3), math.log(4)
    assert loss_sum(logits, labels).item() == pytest.approx(2 * likely + unlikely)
    assert loss_sum(logits, labels, "examples").item() == pytest.approx((likely + unlikely) / 2 + likely)
    assert (units(labels).item(), units(labels, "examples").item()) == (3, 2)


def test_the_mean_over_tokens_is_the_cross_entropy_of_torch() -> None:
    logits, labels = batch(0, [5, 2, 3])
    expected = cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)
    assert (loss_sum(logits, labels) / units(labels)).item() == pytest.approx(expected.item(), rel=1e-6)


def test_the_mean_over_examples_is_the_mean_of_each_rows_cross_entropy() -> None:
    logits, labels = batch(0, [5, 2, 3])
    rows = [cross_entropy(x, y, ignore_index=IGNORED).item() for x, y in zip(logits, labels, strict=True)]
    found = loss_sum(logits, labels, "examples") / units(labels, "examples")
    assert found.item() == pytest.approx(sum(rows) / 3, rel=1e-6)


def test_the_two_means_differ_where_rows_differ_in_length() -> None:
    logits, labels = batch(0, [6, 1])
    tokens, examples = (loss_sum(logits, labels, m) / units(labels, m) for m in MEANS)
    assert abs(tokens - examples) > 0.01


@pytest.mark.parametrize("mean", MEANS)
@given(seed=st.integers(0, 999), extra=st.integers(1, 4), lengths=st.lists(st.integers(1, 5), min_size=1))
@settings(max_examples=25, deadline=None)
def test_padding_changes_nothing(mean: str, seed: int, extra: int, lengths: list[int]) -> None:
    logits, labels = batch(seed, lengths)
    wide = torch.cat([logits, torch.randn(len(lengths), extra, 7)], dim=1)
    wider = torch.cat([labels, torch.full((len(lengths), extra), IGNORED)], dim=1)
    assert torch.allclose(loss_sum(wide, wider, mean), loss_sum(logits, labels, mean), rtol=1e-5)
    assert torch.equal(units(wider, mean), units(labels, mean))


@pytest.mark.parametrize("mean", MEANS)
def test_a_row_without_targets_adds_nothing(mean: str) -> None:
    logits, labels = batch(1, [3, 2])
    more = torch.cat([logits, torch.randn(1, 3, 7)]), torch.cat([labels, torch.full((1, 3), IGNORED)])
    assert torch.allclose(loss_sum(*more, mean), loss_sum(logits, labels, mean))
    assert torch.equal(units(more[1], mean), units(labels, mean))


def test_a_missing_task_adds_nothing() -> None:
    loss = multitask_loss(torch.tensor([4.0, 0.0]), torch.tensor([2, 0]), 1.0)
    assert loss.item() == 2.0


def test_lambda_weighs_the_rationale_alone() -> None:
    sums, totals = torch.tensor([4.0, 9.0]), torch.tensor([2, 3])
    assert [multitask_loss(sums, totals, weight).item() for weight in (0, 1, 2.5)] == [2.0, 5.0, 9.5]


@pytest.mark.parametrize("mean", MEANS)
@given(
    seed=st.integers(0, 999),
    lengths=st.lists(st.integers(1, 6), min_size=2, max_size=9),
    size=st.integers(1, 4),
    weight=st.sampled_from([0.0, 0.5, 1.0, 3.0]),
)
@settings(max_examples=25, deadline=None)
def test_the_shares_of_micro_batches_add_up_to_the_loss_of_the_step(
    mean: str, seed: int, lengths: list[int], size: int, weight: float
) -> None:
    tasks = [batch(seed, lengths), batch(seed + 1, lengths[::-1])]
    totals = torch.stack([units(labels, mean) for _, labels in tasks])

    def share(rows: slice) -> torch.Tensor:
        sums = torch.stack([loss_sum(logits[rows], labels[rows], mean) for logits, labels in tasks])
        return multitask_loss(sums, totals, weight)

    parts = [share(slice(start, start + size)) for start in range(0, len(lengths), size)]
    assert torch.allclose(torch.stack(parts).sum(), share(slice(None)), rtol=1e-5)


def test_the_loss_of_half_precision_logits_is_taken_in_float32() -> None:
    logits, labels = batch(0, [4, 4])
    half = logits.bfloat16()
    assert loss_sum(half, labels).dtype == torch.float32
    assert torch.equal(loss_sum(half, labels), loss_sum(half.float(), labels))


@pytest.mark.parametrize(("mean", "over"), [("tokens", "target tokens"), ("examples", "examples")])
def test_the_contract_names_lambda_and_mean(mean: str, over: str) -> None:
    assert contract(0.25, mean) == (
        f"L_label + 0.25 * L_rationale, each the mean cross-entropy over the {over} of the optimizer step"
    )
