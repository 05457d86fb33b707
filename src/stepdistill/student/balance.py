"""How much each task pulls: its share of the gradient's norm, and the lambda that makes both pull alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.distributed
from torch import Tensor
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from stepdistill.errors import StudentError
from stepdistill.student.loss import task_means

MEASURED_EVERY = 50
"""Steps between two measurements, each of which costs a backward pass for each task."""
BALANCED_EVERY = 10
"""The same, where lambda follows the measurement."""
INERTIA = 0.9
"""How much of the logarithm of lambda a new measurement leaves; one batch is a noisy witness."""
BOUNDS = (1e-3, 1e3)


class Balance(TrainerCallback, ExportableState):  # type: ignore[misc]
    """Holds lambda; with `auto` it follows both tasks' gradient norms (after GradNorm, Chen et al. 2018).

    `weight` is the present lambda. `share` is |g_label| / (|g_label| + lambda |g_rationale|) as last
    measured, on the first micro-batch of a step (of all processes, by the mean of squares); None before.
    Both are part of a checkpoint.
    """

    def __init__(self, weight: float | Literal["auto"]) -> None:
        """Begin with lambda = `weight`, or with the first measurement."""
        self.auto = weight == "auto"
        self.weight = 1.0 if weight == "auto" else float(weight)
        self.share: float | None = None

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        given = {"weight": "auto" if self.auto else self.weight}
        return {"args": given, "attributes": {"weight": self.weight, "share": self.share}}

    def due(self, step: int) -> bool:
        """Whether to measure at this step, counted from 0."""
        return step % (BALANCED_EVERY if self.auto else MEASURED_EVERY) == 0

    def measure(self, sums: Tensor, totals: Tensor, parameters: Sequence[Tensor]) -> None:
        """Take the norms of both tasks' gradients; with `auto`, set the lambda of this and the next steps.

        Args:
            sums: (2,) `task_sums` of a micro-batch, with their graph, which is kept.
            totals: (2,) sums of the weights of the same micro-batch's tokens, of all processes.
            parameters: what is trained.
        """
        norms = [_norm(mean, parameters) for mean in task_means(sums, totals)]
        squares = torch.tensor([norm * norm for norm in norms], dtype=torch.float64)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            squares = squares.to(sums.device)
            torch.distributed.all_reduce(squares)
        label, rationale = squares.sqrt().tolist()
        # Without targets of both tasks there is nothing to balance; what is not finite is the guard's.
        if not (0 < label < math.inf and 0 < rationale < math.inf):
            return
        if self.auto:
            first = self.share is None
            kept = 0.0 if first else INERTIA
            wanted = kept * math.log(self.weight) + (1 - kept) * math.log(label / rationale)
            self.weight = min(max(math.exp(wanted), BOUNDS[0]), BOUNDS[1])
        self.share = label / (label + self.weight * rationale)


def check_whole(balance: Balance, lora: bool) -> None:
    """Refuse what cannot be done where no process holds the whole model (FSDP, DeepSpeed).

    Raises:
        StudentError: lambda is to follow gradients that no process sees whole, or LoRA is to be merged.
    """
    if lora:
        raise StudentError(
            "student.lora: its weights cannot be merged where FSDP or DeepSpeed have spread them; train "
            "without these, or set student.lora: null"
        )
    if balance.auto:
        raise StudentError(
            "train.lambda: auto needs the gradient of each task, which FSDP and DeepSpeed do not keep in one "
            "place; give a number, or train without them"
        )


def _norm(loss: Tensor, parameters: Sequence[Tensor]) -> float:
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    found = torch.autograd.grad(loss, trained, retain_graph=True, allow_unused=True)
    norms = [torch.linalg.vector_norm(gradient) for gradient in found if gradient is not None]
    return float(torch.linalg.vector_norm(torch.stack(norms))) if norms else 0.0
