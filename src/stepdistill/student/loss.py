"""The multi-task loss, stated once: L = L_label + lambda * L_rationale (paper, Eq. 3 and 4)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

Mean = Literal["tokens", "examples"]


def token_weight(weight: float, tokens: int, mean: Mean) -> float:
    """What one token of a target counts: the target's weight, or an equal share of it.

    Weighing tokens is all that tells the two means apart: the mean over examples is the mean over tokens
    of which each counts 1 / (tokens of its target).

    >>> token_weight(1.0, 4, "tokens"), token_weight(1.0, 4, "examples")
    (1.0, 0.25)
    """
    return weight if mean == "tokens" else weight / tokens


def task_sums(logits: Tensor, ids: Tensor, weights: Tensor, tasks: Tensor, count: int = 2) -> Tensor:
    """Weighted cross-entropy of each task, summed over its target tokens.

    Args:
        logits: float (tokens, vocabulary), one row for each target token and for no other position.
        ids: int (tokens,), the target tokens.
        weights: float (tokens,), what each counts.
        tasks: int (tokens,), the task each belongs to.
        count: how many tasks there are.

    Returns:
        (count,) in nats, to be divided by the sums of the weights in the whole optimizer step.
    """
    losses = cross_entropy(logits.to(_wide(logits)), ids, reduction="none") * weights
    return torch.zeros(count, dtype=losses.dtype, device=losses.device).index_add(0, tasks, losses)


def multitask_loss(sums: Tensor, totals: Tensor, weight: float) -> Tensor:
    """L = L_label + weight * L_rationale, each the weighted mean over the whole optimizer step.

    The gradients of micro-batches, and of processes, add up to the gradient of the whole step, since
    `totals` counts the step's targets and not the micro-batch's; a mean of micro-batch means would
    weigh a token by the company it keeps.

    The authors' code trains alpha * L_label + (1 - alpha) * L_rationale with alpha = 0.5: the same
    direction as weight = 1 at half the scale.

    Args:
        sums: float (2,): `task_sums` of the label and of the rationale task.
        totals: float (2,): sums of the weights of both tasks' tokens in the whole step; a task with none
            adds nothing.
        weight: lambda.

    >>> import torch
    >>> multitask_loss(torch.tensor([4.0, 6.0]), torch.tensor([2.0, 3.0]), 0.5).item()
    3.0
    """
    means = task_means(sums, totals)
    return means[0] + weight * means[1]


def task_means(sums: Tensor, totals: Tensor) -> Tensor:
    """The mean of each task, (2,); zero for a task without targets in this step."""
    return sums / torch.where(totals > 0, totals, torch.ones_like(totals)).to(sums.dtype)


def contract(weight: float | Literal["auto"], mean: Mean) -> str:
    """The loss in words, for records and model cards.

    >>> contract(1.0, "tokens")
    'L_label + 1 * L_rationale, each the mean cross-entropy over the target tokens of the optimizer step'
    """
    over = "target tokens" if mean == "tokens" else "examples"
    factor = "lambda" if weight == "auto" else f"{weight:g}"
    balanced = "; lambda is set so that both tasks' gradients have the same norm" if weight == "auto" else ""
    return (
        f"L_label + {factor} * L_rationale, each the mean cross-entropy over the {over} of the "
        f"optimizer step{balanced}"
    )


def _wide(logits: Tensor) -> torch.dtype:
    # Half precision is too coarse for a softmax over a vocabulary; float64 stays, for proofs.
    return logits.dtype if logits.dtype == torch.float64 else torch.float32
