"""The loss contract: L = L_label + lambda * L_rationale, each a mean over the whole optimizer step."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import cross_entropy

from stepdistill.student.loss import contract, multitask_loss, task_means, task_sums, token_weight

MEANS = ("tokens", "examples")
lengths = st.lists(st.integers(1, 6), min_size=1, max_size=9)


def draw(seed: int, sizes: list[int], mean: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Targets of the given lengths, alternately labels and rationales, as one row for each token."""
    random = torch.Generator().manual_seed(seed)
    n = sum(sizes)
    logits = torch.randn(n, 7, generator=random, dtype=torch.float64)
    ids = torch.randint(7, (n,), generator=random)
    weights = [w for size in sizes for w in [token_weight(1.0, size, mean)] * size]
    tasks = [index % 2 for index, size in enumerate(sizes) for _ in range(size)]
    return logits, ids, torch.tensor(weights, dtype=torch.float64), torch.tensor(tasks)


def totals(weights: Tensor, tasks: Tensor) -> Tensor:
    return torch.stack([weights[tasks == 0].sum(), weights[tasks == 1].sum()])


def test_a_token_costs_minus_the_logarithm_of_its_probability() -> None:
    logits = torch.tensor([[0.0, math.log(3)], [0.0, math.log(3)], [0.0, math.log(3)]])
    sums = task_sums(logits, torch.tensor([1, 0, 1]), torch.tensor([1.0, 1.0, 0.5]), torch.tensor([0, 0, 1]))
    assert sums.tolist() == pytest.approx([math.log(4 / 3) + math.log(4), 0.5 * math.log(4 / 3)])


def test_the_mean_over_tokens_is_the_cross_entropy_of_torch() -> None:
    logits, ids, weights, tasks = draw(0, [5, 2, 3, 4], "tokens")
    found = task_means(task_sums(logits, ids, weights, tasks), totals(weights, tasks))
    for task in (0, 1):
        expected = cross_entropy(logits[tasks == task], ids[tasks == task])
        assert found[task].item() == pytest.approx(expected.item(), rel=1e-12)


def test_the_mean_over_examples_is_the_mean_of_each_targets_cross_entropy() -> None:
    sizes = [5, 2, 3, 4]
    logits, ids, weights, tasks = draw(0, sizes, "examples")
    found = task_means(task_sums(logits, ids, weights, tasks), totals(weights, tasks))
    rows = [cross_entropy(x, y) for x, y in zip(logits.split(sizes), ids.split(sizes), strict=True)]
    expected = [(rows[0] + rows[2]) / 2, (rows[1] + rows[3]) / 2]
    assert found.tolist() == pytest.approx([value.item() for value in expected], rel=1e-12)


def test_a_target_of_weight_two_counts_like_two() -> None:
    logits, ids, _, _ = draw(3, [3], "tokens")
    once = task_sums(logits, ids, torch.full((3,), 2.0), torch.zeros(3, dtype=torch.long))
    twice = task_sums(logits.repeat(2, 1), ids.repeat(2), torch.ones(6), torch.zeros(6, dtype=torch.long))
    assert torch.allclose(once, twice)


@pytest.mark.parametrize("mean", MEANS)
@given(
    seed=st.integers(0, 999), sizes=lengths, cut=st.integers(1, 7), weight=st.sampled_from([0.0, 0.5, 3.0])
)
@settings(max_examples=25, deadline=None)
def test_the_shares_of_micro_batches_add_up_to_the_loss_of_the_step(
    mean: str, seed: int, sizes: list[int], cut: int, weight: float
) -> None:
    tokens = draw(seed, sizes, mean)
    whole = totals(tokens[2], tokens[3])
    parts = zip(*(part.split(cut) for part in tokens), strict=True)
    shares = [multitask_loss(task_sums(*part), whole, weight) for part in parts]
    expected = multitask_loss(task_sums(*tokens), whole, weight)
    assert torch.allclose(torch.stack(shares).sum(), expected, rtol=1e-12)


def test_a_missing_task_adds_nothing() -> None:
    loss = multitask_loss(torch.tensor([4.0, 0.0]), torch.tensor([2.0, 0.0]), 1.0)
    assert loss.item() == 2.0


def test_small_weights_are_not_taken_for_none() -> None:
    # Means over examples and vote shares make totals below one.
    assert task_means(torch.tensor([0.5, 0.0]), torch.tensor([0.25, 0.0])).tolist() == [2.0, 0.0]


def test_lambda_weighs_the_rationale_alone() -> None:
    sums, wholes = torch.tensor([4.0, 9.0]), torch.tensor([2.0, 3.0])
    assert [multitask_loss(sums, wholes, weight).item() for weight in (0, 1, 2.5)] == [2.0, 5.0, 9.5]


@pytest.mark.parametrize(("mean", "over"), [("tokens", "target tokens"), ("examples", "examples")])
def test_the_contract_names_lambda_and_mean(mean: str, over: str) -> None:
    assert contract(0.25, mean) == (
        f"L_label + 0.25 * L_rationale, each the mean cross-entropy over the {over} of the optimizer step"
    )


def test_the_contract_says_when_lambda_moves() -> None:
    assert contract("auto", "tokens").startswith("L_label + lambda * L_rationale")
    assert "same norm" in contract("auto", "tokens")
