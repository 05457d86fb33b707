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
from stepdistill.student.encode import TASKS
from stepdistill.student.loss import IGNORED, task_sums
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


def can_branch(model: Any) -> bool:
    """Whether a causal model can read an input once for several targets: by a mask of our own.

    It cannot where a layer looks back over a window or carries a state; there, each target is given
    an input of its own.
    """
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ("full_attention",))
    window = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
    attention = getattr(config, "_attn_implementation", None) in ("sdpa", "eager")
    # Without places given by us, the branches could not begin at the same one.
    places = getattr(config, "rope_parameters", None) or getattr(config, "rope_theta", None)
    biased = getattr(config, "alibi", False)
    return bool(attention and places and kinds == {"full_attention"} and not window and not biased)


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


@contextlib.contextmanager
def logits_at(model: Any, chosen: Tensor) -> Iterator[None]:
    """Inside, the output layer works on the chosen positions only: (tokens, vocabulary) come out.

    A vocabulary is a hundred times wider than the hidden layer, and most positions have no target.
    """
    head = model.get_output_embeddings()
    handle = head.register_forward_pre_hook(lambda _, args: (args[0][chosen], *args[1:]))
    try:
        yield
    finally:
        handle.remove()


def branch_mask(segments: Tensor, model: Any) -> Tensor:
    """What each position may see: 2-D where rows have one branch, else (rows, 1, width, width)."""
    if int(segments.max()) <= 1:
        return segments.ge(0).long()
    width = segments.shape[1]
    keys, queries = segments[:, None, :], segments[:, :, None]
    seen = ((keys == 0) | (keys == queries)) & (keys >= 0)
    seen &= torch.ones(width, width, dtype=torch.bool, device=segments.device).tril()
    # Padding sees itself: a softmax over nothing is not a number.
    seen |= torch.eye(width, dtype=torch.bool, device=segments.device)
    if model.config.get_text_config()._attn_implementation == "sdpa":
        return seen[:, None]
    additive = torch.zeros(seen.shape, dtype=model.dtype, device=segments.device)
    return additive.masked_fill(~seen, torch.finfo(model.dtype).min)[:, None]
