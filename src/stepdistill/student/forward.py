"""One forward call for both tasks: inputs are read once, logits are made where a target is."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput

from stepdistill.student.batch import Batch
from stepdistill.student.branches import branch_mask, logits_at
from stepdistill.student.encode import TASKS
from stepdistill.student.loss import task_sums
from stepdistill.student.padding import IGNORED
from stepdistill.weights import Family

Forward = Callable[..., Any]


@contextlib.contextmanager
def multitask(model: Any, family: Family) -> Iterator[None]:
    """Inside, `model(batch=batch)` gives the tasks' loss sums, (2,); any other call is as it was.

    It is the model's own forward that learns this, so that wrappers around it (several processes, LoRA,
    mixed precision) see one call for each micro-batch, as they expect.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    plain, before = base.forward, base.__dict__.get("forward")
    run = _pair if family == "encoder-decoder" else _causal

    @functools.wraps(plain)
    def forward(*args: Any, batch: Batch | None = None, **kwargs: Any) -> Any:
        return plain(*args, **kwargs) if batch is None else run(base, plain, batch)

    base.forward = forward
    try:
        yield
    finally:
        if before is None:
            del base.forward
        else:
            base.forward = before


def _pair(model: Any, forward: Forward, batch: Batch) -> Tensor:
    """The encoder over all rows of both tasks, and the decoder once for each task."""
    mask = batch["attention_mask"]
    read = model.get_encoder()(input_ids=batch["input_ids"], attention_mask=mask).last_hidden_state
    sums = []
    for index, task in enumerate(TASKS):
        if task not in batch:
            continue
        part = batch[task]
        call = functools.partial(
            forward,
            encoder_outputs=BaseModelOutput(last_hidden_state=read.index_select(0, part["rows"])),
            attention_mask=mask.index_select(0, part["rows"]),
            decoder_input_ids=part["decoder_input_ids"],
        )
        tasks = torch.full_like(part["labels"], index)
        sums.append(_sums(model, call, part["labels"], part["weights"], tasks))
    return torch.stack(sums).sum(dim=0)


def _causal(model: Any, forward: Forward, batch: Batch) -> Tensor:
    """Each input once, and all its targets behind it, none of which sees another."""
    call = functools.partial(
        forward,
        input_ids=batch["input_ids"],
        attention_mask=branch_mask(batch["segments"], model),
        position_ids=batch["position_ids"],
    )
    return _sums(model, call, batch["labels"], batch["weights"], batch["tasks"])


def _sums(model: Any, call: Forward, labels: Tensor, weights: Tensor, tasks: Tensor) -> Tensor:
    chosen = labels.ne(IGNORED)
    with logits_at(model, chosen):
        logits = call(use_cache=False).logits
    return task_sums(logits, labels[chosen], weights[chosen].to(logits.device), tasks[chosen], len(TASKS))
