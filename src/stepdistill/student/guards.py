"""Guard rails: a training that has gone wrong stops, and says at which step and on which examples."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from stepdistill.config import TrainConfig
from stepdistill.errors import StudentError, brief
from stepdistill.student.encode import TASKS

GROWTH = 10
"""A task's loss this many times that of its first step has exploded ..."""
CHANCE = 3
"""... if it is also this many times that of guessing, ln(vocabulary): low losses vary by large factors."""

_SHOWN = 3
_MENDS = "lower train.learning_rate or raise train.warmup_steps, and choose another `out`"
_MEMORY = ("DefaultCPUAllocator", "can't allocate memory", "not enough memory", "out of memory")
"""How torch's allocators say that memory is used up, where they do not raise a type of its own."""


class Guard(TrainerCallback, ExportableState):  # type: ignore[misc]
    """Looks at every step before it changes the weights; the first losses are part of a checkpoint."""

    def __init__(self, vocabulary: int) -> None:
        """`vocabulary`: number of tokens that the model chooses from."""
        self.chance = math.log(vocabulary)
        self.first: list[float | None] = [None for _ in TASKS]

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"args": {}, "attributes": {"first": self.first}}

    def check(
        self, step: int, means: Sequence[float], norm: float | None, ids: Callable[[], Sequence[str]]
    ) -> None:
        """Refuse a step whose losses or gradient are not finite, or have exploded.

        Args:
            step: counted from 1.
            means: the loss of each task in this step; 0 where it has no target.
            norm: of the gradient; None where it is not known.
            ids: gives the ids of the step's examples.

        Raises:
            StudentError: with the step and the first ids.
        """
        for index, (task, mean) in enumerate(zip(TASKS, means, strict=True)):
            if not math.isfinite(mean):
                raise _stop(f"the {task} loss is {mean}", step, ids())
            first = self.first[index]
            if first is None:
                self.first[index] = mean or None
            elif mean > GROWTH * first and mean > CHANCE * self.chance:
                raise _stop(f"the {task} loss is {mean:.1f} after {first:.1f} in the first step", step, ids())
        if norm is not None and not math.isfinite(norm):
            raise _stop(f"the norm of the gradient is {norm}", step, ids())


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is used up, the GPU's or the machine's."""
    words = isinstance(error, RuntimeError) and any(part in str(error) for part in _MEMORY)
    return words or isinstance(error, (torch.OutOfMemoryError, MemoryError))


def out_of_memory(
    error: BaseException, config: TrainConfig, micro: int, lengths: Sequence[int]
) -> StudentError | None:
    """What to say where memory ran out; None where `error` says something else.

    Args:
        error: what was raised while training.
        config: as it was asked for.
        micro: examples in a micro-batch.
        lengths: tokens of the examples of the micro-batch that was worked on.
    """
    if not is_out_of_memory(error):
        return None
    longest = f"; the longest example of the batch has {max(lengths)} tokens" if lengths else ""
    smaller = "lower train.micro_batch_size (a divisor of train.batch_size; what is trained stays the same)"
    more = "" if config.gradient_checkpointing else " or set train.gradient_checkpointing: true"
    return StudentError(
        f"not enough memory for {micro} examples at once (train.batch_size {config.batch_size}){longest}; "
        f"{smaller}{more}, then run again: it goes on from the last checkpoint"
    )


def unused_weights(error: BaseException) -> StudentError | None:
    """What to say where processes wait for gradients that never come; None where `error` is another."""
    if not (isinstance(error, RuntimeError) and "find_unused_parameters" in str(error)):
        return None
    return StudentError(
        "the student has weights that no target uses, and several processes cannot agree on their gradient; "
        "train in one process, or set student.lora"
    )


def _stop(what: str, step: int, ids: Sequence[str]) -> StudentError:
    shown = ", ".join(brief(name) for name in ids[:_SHOWN]) + (", …" if len(ids) > _SHOWN else "")
    return StudentError(
        f"{what} at step {step} (examples {shown}); the weights of before are kept. Look at these examples, "
        f"or {_MENDS}"
    )
