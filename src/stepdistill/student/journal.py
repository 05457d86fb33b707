"""What is told of a training: losses of both tasks, exactly, for the log, and progress for the eye."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from stepdistill.records import Watcher
from stepdistill.student.encode import TASKS

KEPT = (
    "step",
    "epoch",
    "loss",
    "loss_label",
    "loss_rationale",
    "lambda",
    "share_label",
    "grad_norm",
    "learning_rate",
    "eval_accuracy",
)
"""Keys of a row of `log.json`."""


class Journal(TrainerCallback, ExportableState):  # type: ignore[misc]
    """Adds up what the steps have cost since the last line of the log.

    `loss` is the mean of the steps' losses, as they were descended; `loss_label` and `loss_rationale` are
    means over all target tokens of those steps, of all processes, so that a step with few targets counts
    for few. Part of a checkpoint: a log is the same whether a training was interrupted or not.
    """

    def __init__(self) -> None:
        """Nothing is noted yet."""
        self.steps = 0
        self.loss = 0.0
        self.sums = [0.0 for _ in TASKS]
        self.totals = [0.0 for _ in TASKS]

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        names = ("steps", "loss", "sums", "totals")
        return {"args": {}, "attributes": {name: getattr(self, name) for name in names}}

    def add(self, loss: float, sums: Sequence[float], totals: Sequence[float]) -> None:
        """Note a step: its loss, and by task the sum of the losses and of the weights of its tokens."""
        self.steps += 1
        self.loss += loss
        self.sums = [a + b for a, b in zip(self.sums, sums, strict=True)]
        self.totals = [a + b for a, b in zip(self.totals, totals, strict=True)]

    def means(self) -> dict[str, float]:
        """The means since the last line; of a task without targets there is none."""
        if not self.steps:
            return {}
        rows = zip(TASKS, self.sums, self.totals, strict=True)
        return {
            "loss": self.loss / self.steps,
            **{f"loss_{task}": total / weight for task, total, weight in rows if weight},
        }

    def take(self) -> dict[str, float]:
        """The means since the last line, and begin the next."""
        means = self.means()
        self.__init__()  # type: ignore[misc]
        return means


class Progress(TrainerCallback):  # type: ignore[misc]
    """Tells a `Watcher` of the examples trained on, and of each task's loss."""

    def __init__(self, what: str, batch_size: int, watch: Watcher) -> None:
        """Count in examples, so that the rate means the same at every batch size.

        `begin` is shown at the beginning, `remarks` all the time.
        """
        self.what, self.batch_size, self.watch = what, batch_size, watch
        self.losses: dict[str, float] = {}
        self.begin = ""
        self.remarks: list[str] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Training begins or goes on."""
        done, total = state.global_step * self.batch_size, state.max_steps * self.batch_size
        self.watch(self.what, done, total, "; ".join(note for note in (self.begin, *self.remarks) if note))

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """One optimizer step is done."""
        self._tell(state.global_step, state.max_steps)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Training has ended, perhaps before its last step."""
        self._tell(state.max_steps, state.max_steps)

    def _tell(self, done: int, total: int) -> None:
        losses = [
            f"{task} {self.losses[key]:.3f}" for task in TASKS if (key := f"loss_{task}") in self.losses
        ]
        note = "; ".join([*([", ".join(losses)] if losses else []), *self.remarks])
        self.watch(self.what, done * self.batch_size, total * self.batch_size, note)


def history(log: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The training log without times, which differ from run to run."""
    rows = [{key: row[key] for key in KEPT if key in row} for row in log]
    return [row for row in rows if "loss" in row or "eval_accuracy" in row]
