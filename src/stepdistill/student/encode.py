"""Targets as token ids, and batches of them, for encoder-decoders and causal models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from stepdistill.errors import StudentError
from stepdistill.records import Target, TaskName
from stepdistill.weights import Family

Batch = dict[str, dict[str, Tensor]]
"""Model inputs by task; the rationale task is absent where no example of the batch has one."""

IGNORED = -100
"""Target id of positions that carry no loss: padding."""

BREAK = "\n"
"""Between input and target of a causal model. Both sides are tokenized apart, so that training and
prediction see the same ids."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of one target: `source` (with what ends it) and `target` (with end of sequence)."""

    source: list[int]
    target: list[int]


Item = dict[TaskName, Encoded]
"""All targets of one example."""


@dataclass(frozen=True)
class Encoder:
    """Turns text into ids for one student; never cuts a text silently.

    `positions` is how many tokens the model can place, where it says so: of input and target together
    for a causal model, of each for an encoder-decoder.
    """

    tokenizer: PreTrainedTokenizerBase
    family: Family
    max_input: int
    max_target: int
    positions: int | None = None

    def source(self, text: str) -> list[int]:
        """Ids of an input as the model sees it in training and in prediction."""
        if self.family == "causal":
            ids: list[int] = self.tokenizer(text + BREAK)["input_ids"]
            return ids[:-1] if ids and ids[-1] == self.tokenizer.eos_token_id else ids
        return list(self.tokenizer(text)["input_ids"])

    def target(self, text: str) -> list[int]:
        """Ids of a target, ending with end of sequence."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return [*ids, int(self.tokenizer.eos_token_id)]

    def items(self, targets: Sequence[Sequence[Target]]) -> list[Item]:
        """Encode the targets of every example.

        Raises:
            StudentError: an input or a target is longer than allowed; cutting it would train on half
                a text.
        """
        items = [
            {t.task: Encoded(self.source(t.source), self.target(t.target)) for t in pairs}
            for pairs in targets
        ]
        self._check_labels(items)
        self._check([len(e.source) for item in items for e in item.values()], self.max_input, "input")
        self._check([len(e.target) for item in items for e in item.values()], self.max_target, "target")
        found = [e for item in items for e in item.values()]
        self._check_positions([len(e.source) + self._beside(len(e.target)) for e in found])
        return items

    def check_inputs(self, texts: Sequence[str], new_tokens: int) -> None:
        """Refuse, before training, what could not be asked after it.

        Raises:
            StudentError: an input is longer than allowed, or leaves the model no room for an answer.
        """
        lengths = [len(self.source(text)) for text in texts]
        self._check(lengths, self.max_input, "input")
        self._check_positions([length + self._beside(new_tokens) for length in lengths])

    def _beside(self, target: int) -> int:
        # The last token is only predicted, and never stands at a position.
        return target - 1 if self.family == "causal" else 0

    def _check_positions(self, lengths: Sequence[int]) -> None:
        if self.positions and max(lengths, default=0) > self.positions:
            raise StudentError(
                f"the model has {self.positions} positions and the longest text needs {max(lengths)} "
                "(with its answer, for a causal model); shorten the texts or take another student"
            )

    def _check_labels(self, items: Sequence[Item]) -> None:
        """A label with a sign that the tokenizer lacks can be learned by no student, nor written."""
        unknown = self.tokenizer.unk_token_id
        if unknown is None or unknown == self.tokenizer.eos_token_id:
            return
        lost = sum(unknown in item["label"].target for item in items if "label" in item)
        if lost:
            raise StudentError(
                f"{lost} of {len(items)} labels have words or signs that the student's tokenizer does not "
                "know; take another student, or for `scratch:` raise student.scratch.vocabulary"
            )

    def _check(self, lengths: list[int], limit: int, what: str) -> None:
        over = [length for length in lengths if length > limit]
        if over:
            raise StudentError(
                f"{len(over)} of {len(lengths)} {what}s have more than {limit} tokens (the longest "
                f"has {max(over)}); raise train.max_{what}_tokens, or shorten the texts"
            )

    def collate(self, items: Sequence[Item]) -> Batch:
        """A padded batch for each task.

        They stay apart: merged into one, label rows would be padded to the length of rationales,
        which costs more than a second call.
        """
        tasks: tuple[TaskName, ...] = ("label", "rationale")
        rows = {task: [item[task] for item in items if task in item] for task in tasks}
        pad = self._pad_causal if self.family == "causal" else self._pad_pair
        return {task: pad(found) for task, found in rows.items() if found}

    def _pad_pair(self, rows: Sequence[Encoded]) -> dict[str, Tensor]:
        ids, mask = pad_right([row.source for row in rows], int(self.tokenizer.pad_token_id))
        labels, _ = pad_right([row.target for row in rows], IGNORED)
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}

    def _pad_causal(self, rows: Sequence[Encoded]) -> dict[str, Tensor]:
        """Inputs padded on the left and targets on the right: targets of all rows share columns."""
        pad = int(self.tokenizer.pad_token_id)
        sources, source_mask = pad_left([row.source for row in rows], pad)
        # The last target id is only predicted, never read.
        targets, target_mask = pad_right([row.target[:-1] for row in rows], pad)
        labels, _ = pad_right([row.target for row in rows], IGNORED)
        mask = torch.cat([source_mask, target_mask], dim=1)
        return {
            "input_ids": torch.cat([sources, targets], dim=1),
            "attention_mask": mask,
            "position_ids": (mask.cumsum(dim=1) - 1).clamp(min=0),
            "labels": labels,
        }


def pad_right(rows: Sequence[Sequence[int]], filler: int) -> tuple[Tensor, Tensor]:
    """Rows as one tensor, filled up behind, and the mask of what is theirs.

    >>> pad_right([[1, 2], [3]], 0)[0].tolist()
    [[1, 2], [3, 0]]
    """
    width = max(len(row) for row in rows)
    ids = torch.tensor([[*row, *[filler] * (width - len(row))] for row in rows], dtype=torch.long)
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    return ids.reshape(len(rows), width), mask.long().reshape(len(rows), width)


def pad_left(rows: Sequence[Sequence[int]], filler: int) -> tuple[Tensor, Tensor]:
    """Rows as one tensor, filled up in front, and the mask of what is theirs."""
    width = max(len(row) for row in rows)
    ids = torch.tensor([[*[filler] * (width - len(row)), *row] for row in rows], dtype=torch.long)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return ids, mask
