"""Targets as token ids: each input once, and behind it what is to be written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from stepdistill.records import Target, TaskName
from stepdistill.student.methods import MARKERS
from stepdistill.weights import Family

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TASKS: tuple[TaskName, ...] = ("label", "rationale")
"""The order of the tasks in every tensor that has one place for each."""

Prefix = Literal["encoder", "decoder"]
"""Where an encoder-decoder is told the task: before the input, or before the target."""

BREAK = "\n"
"""Ends the input and the task marker of a causal model. All parts are tokenized apart, so that training
and prediction see the same ids."""


@dataclass(frozen=True, slots=True)
class Branch:
    """One target: `opening` is read before it and carries no loss; `target` ends with end of sequence."""

    task: TaskName
    opening: list[int]
    target: list[int]
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Row:
    """An input that the model reads once, and the targets behind it."""

    source: list[int]
    branches: tuple[Branch, ...]


Item = tuple[Row, ...]
"""All that is trained on for one example."""


@dataclass(frozen=True)
class Encoder:
    """Turns text into ids for one student; never cuts a text.

    A causal model reads `x`, then the task's marker, then the target; so does, on its decoder's side, an
    encoder-decoder with `prefix` "decoder". With "encoder", the paper's way, the marker stands before `x`,
    and each task has an input of its own. Targets with the same input share one row, unless `share` is
    False; what is trained is the same.
    """

    tokenizer: PreTrainedTokenizerBase
    family: Family
    prefix: Prefix = "encoder"
    share: bool = True

    def source(self, text: str, task: TaskName) -> list[int]:
        """Ids of an input as the model sees it in training and in prediction."""
        if self.family == "causal":
            return self._open(text + BREAK)
        marked = text if self.prefix == "decoder" else f"{MARKERS[task]} {text}"
        return list(self.tokenizer(marked)["input_ids"])

    def opening(self, task: TaskName) -> list[int]:
        """Ids of the marker between input and target; none where it stands in the input."""
        if self.family == "causal":
            return self._inner(MARKERS[task] + BREAK)
        return self._inner(MARKERS[task]) if self.prefix == "decoder" else []

    def target(self, text: str) -> list[int]:
        """Ids of a target, ending with end of sequence."""
        return [*self._inner(text), int(self.tokenizer.eos_token_id)]

    def item(self, targets: Sequence[Target]) -> Item:
        """Encode the targets of one example."""
        rows: list[tuple[list[int], list[Branch]]] = []
        for target in targets:
            source = self.source(target.source, target.task)
            branch = Branch(target.task, self.opening(target.task), self.target(target.target), target.weight)
            same = [branches for ids, branches in rows if self.share and ids == source]
            if same:
                same[0].append(branch)
            else:
                rows.append((source, [branch]))
        return tuple(Row(source, tuple(branches)) for source, branches in rows)

    def _inner(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _open(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text)["input_ids"]
        return ids[:-1] if ids and ids[-1] == self.tokenizer.eos_token_id else ids


def tokens(item: Item) -> int:
    """How many tokens of an example the model reads and writes."""
    branches = [branch for row in item for branch in row.branches]
    return sum(len(row.source) for row in item) + sum(len(b.opening) + len(b.target) for b in branches)
