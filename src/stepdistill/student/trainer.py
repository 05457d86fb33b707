"""A thin subclass of transformers' Trainer: the multi-task loss, our measure, whole checkpoints."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer, TrainerCallback, TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import rotate_checkpoints

from stepdistill.errors import StudentError
from stepdistill.files import publish, writing
from stepdistill.records import TaskName, Watcher
from stepdistill.student.encode import Batch
from stepdistill.student.loss import loss_sum, multitask_loss, units
from stepdistill.weights import Family

TASKS: tuple[TaskName, ...] = ("label", "rationale")
_DRAFT = ".draft"


class StepByStepTrainer(Trainer):  # type: ignore[misc]
    """Trains both tasks at once; everything else is transformers' own."""

    loss_is_scaled_for_ga = True

    def __init__(
        self,
        *,
        family: Family,
        weight: float,
        mean: Any,
        validate: Callable[[], float] | None,
        **trainer: Any,
    ) -> None:
        """Take the loss contract and a measure; the rest goes to `transformers.Trainer`."""
        super().__init__(**trainer)
        self.family, self.weight, self.mean, self._measure = family, weight, mean, validate
        self._saving = False
        self._started, self._seconds_before = time.monotonic(), seconds_spent(self.args.output_dir)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """The share of this micro-batch in the loss of the whole optimizer step."""
        totals = num_items_in_batch
        if not isinstance(totals, Tensor):
            totals = self._get_num_items_in_batch([inputs], self.args.device)
        sums = torch.stack([self._task_loss(model, inputs, task) for task in TASKS])
        loss = multitask_loss(sums, totals, self.weight)
        if not math.isfinite(loss.item()):
            raise StudentError(
                f"the loss is {loss.item()} at step {self.state.global_step + 1}; lower "
                "train.learning_rate or raise train.warmup_steps, and choose another `out`"
            )
        return loss

    def _task_loss(self, model: torch.nn.Module, inputs: Batch, task: TaskName) -> Tensor:
        if task not in inputs:
            return torch.zeros((), device=self.args.device)
        batch = dict(inputs[task])
        if self.family == "causal":
            labels = batch.pop("labels")
            # Targets share the last columns; logits of the input are never needed.
            logits = model(**batch, logits_to_keep=labels.shape[1], use_cache=False).logits
        else:
            labels = batch["labels"]
            shifted = self._decoder_inputs(labels)
            del batch["labels"]
            logits = model(**batch, decoder_input_ids=shifted, use_cache=False).logits
        return loss_sum(logits, labels, self.mean)

    def _decoder_inputs(self, labels: Tensor) -> Tensor:
        model: Any = self.accelerator.unwrap_model(self.model)
        shifted: Tensor = model.prepare_decoder_input_ids_from_labels(labels=labels)
        return shifted

    def _get_num_items_in_batch(self, batch_samples: list[Batch], device: torch.device) -> Tensor:
        """Targets of the optimizer step, by task: int (2,), over all its micro-batches."""
        counts = torch.zeros(len(TASKS), dtype=torch.long, device=device)
        for batch in batch_samples:
            for index, task in enumerate(TASKS):
                if task in batch:
                    counts[index] += units(batch[task]["labels"], self.mean).to(device)
        return counts

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Validation accuracy by greedy generation, which is what the student is chosen by."""
        if self._measure is None:
            return {}
        # Under bfloat16, accelerate has wrapped `forward` in autocast; test is measured without it, so
        # the checkpoint is chosen without it too.
        model: Any = self.model
        wrapped = model.forward
        model.forward = getattr(model, "_original_forward", wrapped)
        try:
            metrics = {"eval_accuracy": self._measure()}
        finally:
            model.forward = wrapped
        self.log(metrics)
        self.control: Any = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted: the estimate knows one task's input only."""
        return 0

    def _get_output_dir(self, trial: Any) -> str:
        folder = str(super()._get_output_dir(trial))
        return os.path.join(folder, _DRAFT) if self._saving else folder

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """Save beside, then rename: a folder called `checkpoint-N` is always whole.

        transformers writes in place, so a process killed while saving leaves a torn checkpoint as
        the newest, from which no resume succeeds.
        """
        home = Path(super()._get_output_dir(trial))
        with writing(home):
            shutil.rmtree(home / _DRAFT, ignore_errors=True)
            self._saving = True
            try:
                super()._save_checkpoint(model, trial)
            finally:
                self._saving = False
            name = f"checkpoint-{self.state.global_step}"
            if self.state.best_global_step:
                best = home / f"checkpoint-{self.state.best_global_step}"
                self.state.best_model_checkpoint = str(best)
            self.state.save_to_json(str(home / _DRAFT / name / TRAINER_STATE_NAME))
            spent = self._seconds_before + time.monotonic() - self._started
            (home / _DRAFT / name / "seconds.json").write_text(json.dumps(spent))
            publish(home / _DRAFT / name, home / name)
        rotate_checkpoints(
            output_dir=str(home),
            save_total_limit=self.args.save_total_limit,
            best_model_checkpoint=self.state.best_model_checkpoint,
            use_mtime=False,
        )

    def take_from(self, checkpoint: Path) -> None:
        """Take the outcome of a training that had ended when its process was killed."""
        self.state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
        if self.args.load_best_model_at_end:
            self._load_best_model()
        else:
            self._load_from_checkpoint(str(checkpoint))

    def _load_best_model(self) -> None:
        # Named anew: the run folder may have been moved since the checkpoint was written.
        home, step = self.args.output_dir, self.state.best_global_step
        self.state.best_model_checkpoint = os.path.join(home, f"checkpoint-{step}")
        super()._load_best_model()


class Progress(TrainerCallback):  # type: ignore[misc]
    """Tells a `Watcher` of the examples trained on."""

    def __init__(self, what: str, batch_size: int, watch: Watcher) -> None:
        """Count in examples, so that the rate means the same at every batch size."""
        self.what, self.batch_size, self.watch = what, batch_size, watch

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """One optimizer step is done."""
        self.watch(self.what, state.global_step * self.batch_size, state.max_steps * self.batch_size)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Training has ended, perhaps before its last step."""
        total = state.max_steps * self.batch_size
        self.watch(self.what, total, total)


def last_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint of a folder, if there is one."""
    found = [path for path in folder.glob("checkpoint-*") if path.name[11:].isdigit()]
    return max(found, key=lambda path: int(path.name[11:]), default=None)


def has_ended(checkpoint: Path) -> bool:
    """Whether training stops at this checkpoint: at the last step, or because patience ran out.

    Asked before a restart, since transformers takes back that patience had run out.
    """
    state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
    control = (state.stateful_callbacks or {}).get("TrainerControl", {})
    stopped = bool(control.get("args", {}).get("should_training_stop"))
    return stopped or state.global_step >= state.max_steps


def seconds_spent(folder: str | Path) -> float:
    """Seconds of training up to the newest checkpoint, over all the sessions that led to it."""
    last = last_checkpoint(Path(folder))
    path = last / "seconds.json" if last else None
    return float(json.loads(path.read_text())) if path and path.exists() else 0.0


def history(log: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The training log without times, which differ from run to run."""
    kept = ("step", "epoch", "loss", "grad_norm", "learning_rate", "eval_accuracy")
    rows = [{key: row[key] for key in kept if key in row} for row in log]
    return [row for row in rows if "loss" in row or "eval_accuracy" in row]
