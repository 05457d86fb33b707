"""The multi-task loss, stated once: L = L_label + lambda * L_rationale (paper, Eq. 3 and 4)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn.functional import cross_entropy

from stepdistill.student.encode import IGNORED

Mean = Literal["tokens", "examples"]


def loss_sum(logits: Tensor, labels: Tensor, mean: Mean = "tokens") -> Tensor:
    """Cross-entropy of one task over a batch, summed in the unit that the mean is taken over.

    Args:
        logits: float (rows, positions, vocabulary); position i predicts labels[:, i].
        labels: int (rows, positions), `IGNORED` where there is no target.
        mean: sum over target tokens; or over rows, of each row's mean over its target tokens.

    Returns:
        A scalar in nats, to be divided by `units` of the whole optimizer step.
    """
    losses = cross_entropy(
        logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED, reduction="none"
    ).view_as(labels)
    if mean == "tokens":
        return losses.sum()
    return (losses.sum(dim=1) / labels.ne(IGNORED).sum(dim=1).clamp(min=1)).sum()


def units(labels: Tensor, mean: Mean = "tokens") -> Tensor:
    """How many target tokens, or rows that have any, `loss_sum` has summed over: an int scalar."""
    targets = labels.ne(IGNORED)
    return targets.sum() if mean == "tokens" else targets.any(dim=1).sum()


def multitask_loss(sums: Tensor, totals: Tensor, weight: float) -> Tensor:
    """L = L_label + weight * L_rationale, each the mean over the whole optimizer step.

    The gradients of micro-batches add up to the gradient of the whole step, since
    `totals` counts the step's targets and not the micro-batch's; a mean of micro-batch means would
    weigh a token by the company it keeps.

    The authors' code trains alpha * L_label + (1 - alpha) * L_rationale with alpha = 0.5: the same
    direction as weight = 1 at half the scale.

    Args:
        sums: float (2,): `loss_sum` of the label and of the rationale task.
        totals: (2,): `units` of both tasks in the whole step; a task with none adds nothing.
        weight: lambda.

    >>> import torch
    >>> multitask_loss(torch.tensor([4.0, 6.0]), torch.tensor([2, 3]), 0.5).item()
    3.0
    """
    means = sums / totals.clamp(min=1)
    return means[0] + weight * means[1]


def contract(weight: float, mean: Mean) -> str:
    """The loss in words, for records and model cards.

    >>> contract(1.0, "tokens")
    'L_label + 1 * L_rationale, each the mean cross-entropy over the target tokens of the optimizer step'
    """
    over = "target tokens" if mean == "tokens" else "examples"
    return (
        f"L_label + {weight:g} * L_rationale, each the mean cross-entropy over the {over} of the "
        "optimizer step"
    )
