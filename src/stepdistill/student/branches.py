"""A causal model's input once, and all its targets behind it, none of which sees another."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from stepdistill.student.encode import Row
from stepdistill.student.padding import IGNORED


@dataclass(slots=True)
class Line:
    """A row as one line of ids; all lists have its width.

    A segment is 0 for the input, 1, 2 ... for the branches behind it, which all begin at the same place.
    A label is the id that is to come next, where a target is, and IGNORED elsewhere.
    """

    ids: list[int] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    segments: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)


def lay_out(row: Row) -> Line:
    """Put the branches of a row behind its input, in their order."""
    n = len(row.source)
    line = Line(list(row.source), list(range(n)), [0] * n, [IGNORED] * n)
    for number, branch in enumerate(row.branches, start=1):
        if not branch.opening:
            raise ValueError("a causal model needs a marker between input and target")
        # The last target id is only predicted, never read.
        read = [*branch.opening, *branch.target[:-1]]
        line.ids += read
        line.places += range(n, n + len(read))
        line.segments += [number] * len(read)
        line.labels += [IGNORED] * (len(branch.opening) - 1) + branch.target
    return line


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
