"""Encoded examples as padded tensors: what one forward call works on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from stepdistill.student.branches import lay_out
from stepdistill.student.encode import TASKS, Branch, Item
from stepdistill.student.loss import Mean, token_weight
from stepdistill.student.padding import IGNORED, pad_right
from stepdistill.weights import Family

Batch = dict[str, Any]
"""Tensors by name: `examples` (the data set's indices), `totals` (see `Collator`), the model's inputs."""


@dataclass(frozen=True)
class Collator:
    """Pads samples of a corpus into a batch.

    The tasks' targets stay apart: padded together, labels would be as long as rationales, which costs more
    than a second call of the decoder.

    Every batch has `totals`, float64 (2,): the sums of the weights of its target tokens, by task.

    Encoder-decoder: `input_ids` and `attention_mask` (rows, width); by task `rows` (n,), the row that each
    target reads, `decoder_input_ids`, `labels` and `weights` (n, length).

    Causal: `input_ids`, `position_ids`, `labels`, `weights`, `tasks` and `segments` (rows, width); a
    segment is 0 for the input, 1, 2 ... for the branches behind it, -1 for padding. All branches of a row
    begin at the same position.
    """

    pad: int
    family: Family
    mean: Mean = "tokens"
    start: int | None = None

    def __call__(self, samples: Sequence[tuple[int, Item]]) -> Batch:
        """Pad (index, item) pairs; an index below 0 says that its item counts nothing."""
        items = [item for _, item in samples]
        batch = self._pair(items) if self.family == "encoder-decoder" else self._causal(items)
        batch["examples"] = torch.tensor([index if index >= 0 else ~index for index, _ in samples])
        batch["totals"] = self._totals(items)
        return batch

    def _totals(self, items: Sequence[Item]) -> Tensor:
        totals = torch.zeros(len(TASKS), dtype=torch.float64)
        for branch in (branch for item in items for row in item for branch in row.branches):
            count = len(branch.target)
            totals[TASKS.index(branch.task)] += count * self._weight(branch)
        return totals

    def _weight(self, branch: Branch) -> float:
        return token_weight(branch.weight, len(branch.target), self.mean)

    def _pair(self, items: Sequence[Item]) -> Batch:
        rows = [row for item in items for row in item]
        batch: Batch = {
            "input_ids": pad_right([row.source for row in rows], self.pad),
            "attention_mask": pad_right([[1] * len(row.source) for row in rows], 0),
        }
        for task in TASKS:
            found = [(i, b) for i, row in enumerate(rows) for b in row.branches if b.task == task]
            if found:
                batch[task] = self._decoder(found)
        return batch

    def _decoder(self, found: Sequence[tuple[int, Branch]]) -> dict[str, Tensor]:
        branches = [branch for _, branch in found]
        if self.start is None:
            raise ValueError("an encoder-decoder needs the token its decoder starts with")
        # The last target id is only predicted, never read.
        read = [[self.start, *b.opening, *b.target[:-1]] for b in branches]
        silent = [[IGNORED] * len(b.opening) + b.target for b in branches]
        return {
            "rows": torch.tensor([row for row, _ in found]),
            "decoder_input_ids": pad_right(read, self.pad),
            "labels": pad_right(silent, IGNORED),
            "weights": _floats([[0.0] * len(b.opening) + self._spread(b) for b in branches]),
        }

    def _causal(self, items: Sequence[Item]) -> Batch:
        rows = [row for item in items for row in item]
        lines = [lay_out(row) for row in rows]
        kinds, weights = [], []
        for row, line in zip(rows, lines, strict=True):
            kind = [0, *[TASKS.index(branch.task) for branch in row.branches]]
            share = [0.0, *[self._weight(branch) for branch in row.branches]]
            counted = zip(line.segments, line.labels, strict=True)
            kinds.append([kind[segment] for segment in line.segments])
            weights.append([share[segment] if label != IGNORED else 0.0 for segment, label in counted])
        return {
            "input_ids": pad_right([line.ids for line in lines], self.pad),
            "position_ids": pad_right([line.places for line in lines], 0),
            "segments": pad_right([line.segments for line in lines], -1),
            "labels": pad_right([line.labels for line in lines], IGNORED),
            "tasks": pad_right(kinds, 0),
            "weights": _floats(weights),
        }

    def _spread(self, branch: Branch) -> list[float]:
        return [self._weight(branch)] * len(branch.target)


def _floats(rows: Sequence[Sequence[float]]) -> Tensor:
    width = max(len(row) for row in rows)
    return torch.tensor([[*row, *[0.0] * (width - len(row))] for row in rows], dtype=torch.float64)
