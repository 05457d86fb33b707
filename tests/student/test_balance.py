"""Shares of the gradient's norm, and the lambda that balances them."""

from __future__ import annotations

import pytest
import torch

from stepdistill.errors import StudentError
from stepdistill.student.balance import BALANCED_EVERY, INERTIA, MEASURED_EVERY, Balance, check_whole

ONES = torch.ones(2)


def pull(label: float, rationale: float) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Two tasks whose gradients have these norms, on parameters of which each has one of its own."""
    weights = [torch.nn.Parameter(torch.zeros(3)), torch.nn.Parameter(torch.zeros(())), torch.zeros(2)]
    mine = weights[0] @ torch.tensor([0.6, 0.8, 0.0]) * label
    theirs = weights[0] @ torch.tensor([0.0, 0.0, 0.6]) * rationale + weights[1] * 0.8 * rationale
    return torch.stack([mine, theirs]), weights


def test_the_share_is_that_of_the_norms() -> None:
    balance = Balance(0.5)
    sums, weights = pull(3.0, 2.0)
    balance.measure(sums, ONES, weights)
    assert balance.share == pytest.approx(3 / (3 + 0.5 * 2))
    assert balance.weight == 0.5


def test_the_totals_count() -> None:
    balance = Balance(1.0)
    sums, weights = pull(3.0, 2.0)
    balance.measure(sums, torch.tensor([3.0, 4.0]), weights)
    assert balance.share == pytest.approx(1 / (1 + 0.5))


def test_auto_makes_both_pull_alike_at_once() -> None:
    balance = Balance("auto")
    sums, weights = pull(6.0, 2.0)
    balance.measure(sums, ONES, weights)
    assert balance.weight == pytest.approx(3.0)
    assert balance.share == pytest.approx(0.5)


def test_later_measurements_move_it_slowly() -> None:
    balance = Balance("auto")
    for label in (6.0, 60.0):
        sums, weights = pull(label, 2.0)
        balance.measure(sums, ONES, weights)
    assert balance.weight == pytest.approx(3.0**INERTIA * 30.0 ** (1 - INERTIA))


def test_it_stays_within_bounds() -> None:
    balance = Balance("auto")
    sums, weights = pull(1e9, 1e-9)
    balance.measure(sums, ONES, weights)
    assert balance.weight == 1e3


@pytest.mark.parametrize(
    ("label", "rationale"), [(0.0, 1.0), (1.0, 0.0), (float("nan"), 1.0), (1.0, float("inf"))]
)
def test_without_two_finite_pulls_nothing_is_learned(label: float, rationale: float) -> None:
    balance = Balance("auto")
    sums, weights = pull(label, rationale)
    balance.measure(sums, ONES, weights)
    assert (balance.weight, balance.share) == (1.0, None)


def test_the_graph_is_kept_and_no_gradient_is_left_behind() -> None:
    sums, weights = pull(3.0, 2.0)
    Balance("auto").measure(sums, ONES, weights)
    assert all(weight.grad is None for weight in weights)
    sums.sum().backward()
    assert weights[0].grad is not None


def test_measurements_are_due_from_the_first_step() -> None:
    assert [step for step in range(101) if Balance(1.0).due(step)] == list(range(0, 101, MEASURED_EVERY))
    assert [step for step in range(21) if Balance("auto").due(step)] == list(range(0, 21, BALANCED_EVERY))


def test_a_checkpoint_brings_it_back() -> None:
    balance = Balance("auto")
    sums, weights = pull(6.0, 2.0)
    balance.measure(sums, ONES, weights)
    again = Balance.from_state(balance.state())
    assert (again.auto, again.weight, again.share) == (True, balance.weight, balance.share)


def test_where_no_process_sees_the_whole_nothing_is_done_silently() -> None:
    check_whole(Balance(0.5), lora=False)
    with pytest.raises(StudentError, match="FSDP and DeepSpeed"):
        check_whole(Balance("auto"), lora=False)
    with pytest.raises(StudentError, match="merged"):
        check_whole(Balance(0.5), lora=True)
