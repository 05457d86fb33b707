"""Rows of different lengths as one tensor."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

IGNORED = -100
"""Target id of positions that carry no loss."""


def pad_right(rows: Sequence[Sequence[int]], filler: int) -> Tensor:
    """Rows as one tensor, filled up behind.

    >>> pad_right([[1, 2], [3]], 0).tolist()
    [[1, 2], [3, 0]]
    """
    width = max(len(row) for row in rows)
    filled = [[*row, *[filler] * (width - len(row))] for row in rows]
    return torch.tensor(filled, dtype=torch.long).reshape(len(rows), width)


def pad_left(rows: Sequence[Sequence[int]], filler: int) -> Tensor:
    """Rows as one tensor, filled up in front.

    >>> pad_left([[1, 2], [3]], 0).tolist()
    [[1, 2], [0, 3]]
    """
    return pad_right([row[::-1] for row in rows], filler).flip(1)
