"""When a training logs, is measured, is saved and stops."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from stepdistill.config import TrainConfig

LINES = 100
"""About how many lines the log of a training has at most, beside those of its measurements."""


class Flow(TrainerCallback, ExportableState):  # type: ignore[misc]
    """Decides at the end of a step, and of nothing else.

    transformers does some of this at the end of an epoch, which comes after the epoch's last checkpoint:
    a training killed in between would go on without it.
    """

    def __init__(self, config: TrainConfig, steps_per_epoch: int, validates: bool) -> None:
        """Once an epoch, where the configuration does not say every how many steps."""
        self.evaluate_every = config.evaluate_every or steps_per_epoch
        self.save_every = config.save_every or steps_per_epoch
        self.patience, self.validates = config.patience, validates
        self.failures = 0

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"args": {}, "attributes": {"failures": self.failures}}

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """One optimizer step is done."""
        step, last = state.global_step, state.global_step >= state.max_steps
        control.should_training_stop |= last
        control.should_evaluate = self.validates and (last or step % self.evaluate_every == 0)
        control.should_save = last or step % self.save_every == 0
        every = max(1, state.max_steps // LINES)
        control.should_log = last or step % every == 0 or step % self.evaluate_every == 0

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any, **_: Any) -> None:
        """The student was measured; `state` still has the best of before."""
        better = state.best_metric is None or metrics[args.metric_for_best_model] > state.best_metric
        self.failures = 0 if better else self.failures + 1
        # A best one is what may become the student, and a last one must not be trained on.
        if self.failures >= self.patience:
            control.should_training_stop = True
        control.should_save |= better or control.should_training_stop
