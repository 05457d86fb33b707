"""The authors' training loop on today's transformers, as benchmarks/train.py measures it.

Hsieh et al.'s code subclasses Seq2SeqTrainer: a batch holds both tasks, each padded by itself; a step is two
forward passes, each with logits at all positions and the loss inside the model; the loss is
alpha * label + (1 - alpha) * rationale. Batches are drawn at random, whatever the lengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import DataCollatorForSeq2Seq, Seq2SeqTrainer, Seq2SeqTrainingArguments

from stepdistill.records import TaskName
from stepdistill.student.encode import TASKS, Item
from stepdistill.student.padding import IGNORED
from stepdistill.weights import Family

ALPHA = 0.5
Feature = dict[TaskName, dict[str, list[int]]]


class Reference(Seq2SeqTrainer):  # type: ignore[misc]
    """Two forward passes a step."""

    order: Sequence[int] | None = None
    """The examples in their order; None draws them at random."""

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """alpha * label + (1 - alpha) * rationale."""
        return two_passes(model, inputs)

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return super()._get_train_sampler(train_dataset) if self.order is None else self.order


def two_passes(model: Any, inputs: Any) -> torch.Tensor:
    """The loss of a batch."""
    losses: dict[TaskName, torch.Tensor] = {task: model(**inputs[task]).loss for task in TASKS}
    return ALPHA * losses["label"] + (1 - ALPHA) * losses["rationale"]


@dataclass(frozen=True)
class TwoTasks:
    """Pads the two tasks of a batch, each by itself; to the right for both families."""

    pad: DataCollatorForSeq2Seq

    def __call__(self, features: Sequence[Feature]) -> dict[str, Any]:
        """A batch for each task."""
        return {task: self.pad([dict(feature[task]) for feature in features]) for task in TASKS}


def collator(tokenizer: Any, model: Any, family: Family) -> TwoTasks:
    """Labels are padded with what carries no loss; T5 makes its decoder's inputs of them."""
    return TwoTasks(DataCollatorForSeq2Seq(tokenizer, model=model if family != "causal" else None))


def features(items: Sequence[Item], family: Family) -> list[Feature]:
    """Encoded examples as a sequence of its own for each task."""
    made = []
    for item in items:
        pairs = [(row.source, branch) for row in item for branch in row.branches]
        made.append({branch.task: _feature(source, branch, family) for source, branch in pairs})
    return made


def _feature(source: list[int], branch: Any, family: Family) -> dict[str, list[int]]:
    if family == "causal":
        read = source + branch.opening
        ids, labels = read + branch.target, [IGNORED] * len(read) + branch.target
    else:
        ids, labels = source, branch.target
    return {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": labels}


def arguments(folder: Path, batch_size: int, seed: int, bfloat16: bool) -> Seq2SeqTrainingArguments:
    """The settings of an epoch that keeps nothing."""
    return Seq2SeqTrainingArguments(
        output_dir=str(folder),
        num_train_epochs=1,
        per_device_train_batch_size=batch_size,
        learning_rate=5e-5,
        seed=seed,
        bf16=bfloat16,
        use_cpu=not torch.cuda.is_available(),
        save_strategy="no",
        remove_unused_columns=False,
        disable_tqdm=True,
        report_to="none",
        dataloader_pin_memory=torch.cuda.is_available(),
    )
