"""A thin subclass of transformers' Trainer: the multi-task loss, our order, measure and checkpoints."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerState, set_seed
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import get_last_checkpoint

from stepdistill.student import checkpoint
from stepdistill.student.balance import Balance
from stepdistill.student.batch import Batch
from stepdistill.student.checkpoint import SECONDS, STATE, Training
from stepdistill.student.corpus import Corpus
from stepdistill.student.guards import Guard
from stepdistill.student.journal import Journal, Progress
from stepdistill.student.loss import multitask_loss, task_means
from stepdistill.student.order import StepSampler
from stepdistill.student.team import Team


class StepLoader(DataLoader[Any]):
    """A DataLoader over a `StepSampler`, which transformers tells the epoch."""

    def set_epoch(self, epoch: int) -> None:
        """Have the next iteration give this epoch's order."""
        self.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]


@dataclass(frozen=True)
class Parts:
    """What the trainer works with besides transformers' own: order, lambda, records, measure, processes."""

    sampler: StepSampler
    balance: Balance
    journal: Journal
    guard: Guard
    progress: Progress
    measure: Callable[[], float] | None
    team: Team


@dataclass
class _Step:
    """The optimizer step at work: sums and totals by task, float64 (2,), and the examples of this process."""

    totals: Tensor
    sums: Tensor
    batches: list[list[int]]
    begun: int = field(default=0)


class StepByStepTrainer(Trainer):  # type: ignore[misc]
    """Trains both tasks at once, one process or many; everything else is transformers' own.

    Models that are sharded over processes (FSDP, DeepSpeed) are saved and loaded by transformers, in its
    format; all others by `student.checkpoint`.
    """

    # The loss is divided by the totals of the whole step already.
    loss_is_scaled_for_ga = True
    train_dataset: Corpus

    def __init__(self, *, parts: Parts, **trainer: Any) -> None:
        """Take our parts; the rest goes to `transformers.Trainer`."""
        super().__init__(**trainer)
        self.parts = parts
        self._step = _Step(torch.zeros(2), torch.zeros(2), [])
        self._started, self._seconds_before = time.monotonic(), 0.0

    @property
    def sharded(self) -> bool:
        """Whether no process holds the whole model."""
        return bool(self.is_fsdp_enabled or self.is_deepspeed_enabled)

    @property
    def home(self) -> Path:
        """The folder of the checkpoints."""
        return Path(self.args.output_dir)

    def get_train_dataloader(self) -> StepLoader:
        """This process's micro-batches; accelerate would deal them out once more."""
        return StepLoader(
            self.train_dataset,  # type: ignore[arg-type]
            batch_sampler=self.parts.sampler,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
        )

    def _get_num_items_in_batch(self, batch_samples: list[Batch], device: torch.device) -> Tensor:
        """The step's sums of token weights by task, float64 (2,), over its micro-batches and processes."""
        own = torch.stack([batch["totals"] for batch in batch_samples]).sum(dim=0).to(device)
        totals = self.parts.team.sum(own)
        batches = [batch["examples"].tolist() for batch in batch_samples]
        self._step = _Step(totals, torch.zeros_like(totals), batches)
        return totals

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """The share of this micro-batch in the loss of the whole optimizer step."""
        step, balance = self._step, self.parts.balance
        step.begun += 1
        sums: Tensor = model(batch=inputs)
        if step.begun == 1 and balance.due(self.state.global_step) and not self.sharded:
            # By its own totals: a micro-batch with few rationales must not make them seem to pull less.
            own = self.parts.team.sum(inputs["totals"].to(step.totals))
            balance.measure(sums, own, list(self.model.parameters()))
        step.sums += sums.detach().to(step.sums)
        # Gradients are averaged over the processes, and what is wanted is their sum.
        return multitask_loss(sums, step.totals, balance.weight) * self.parts.team.world

    def _clip_grad_norm(self, model: torch.nn.Module) -> Any:
        """Clip, and look at the step before it changes the weights."""
        norm = super()._clip_grad_norm(model)
        step, parts = self._step, self.parts
        sums = parts.team.sum(step.sums)
        means: list[float] = task_means(sums, step.totals).tolist()
        known = None if norm is None else float(norm)
        number = self.state.global_step + 1
        parts.team.alike(lambda: parts.guard.check(number, means, known, self._ids))
        loss = float(multitask_loss(sums, step.totals, parts.balance.weight))
        parts.journal.add(loss, sums.tolist(), step.totals.tolist())
        parts.progress.losses = parts.journal.means()
        return norm

    def _ids(self) -> list[str]:
        """Ids of the examples of the step at work, over all processes; to be asked by all of them."""
        own = [self.train_dataset.id(i) for batch in self._step.batches for i in batch]
        return list(dict.fromkeys(name for names in self.parts.team.gather(own) for name in names))

    def batch_lengths(self) -> list[int]:
        """Tokens of the examples of the micro-batch that is worked on in this process."""
        batches = self._step.batches
        at_work = batches[max(self._step.begun - 1, 0)] if batches else []
        return [int(self.train_dataset.lengths[i]) for i in at_work]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log transformers' figures with ours in the place of its losses, which forget over a restart."""
        if "loss" in logs:
            balance = self.parts.balance
            logs |= {**self.parts.journal.take(), "lambda": balance.weight}
            if balance.share is not None:
                logs["share_label"] = balance.share
            if (norm := logs.get("grad_norm")) is not None:
                logs["grad_norm"] = float(norm)
        super().log(logs, start_time)

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Validation accuracy by greedy generation, which is what the student is chosen by."""
        measure = self.parts.measure
        if measure is None:
            return {}
        # All processes hold a part of a sharded model, and none can generate alone.
        value = measure() if self.sharded else self.parts.team.first(lambda: self._unwrapped(measure))
        metrics = {"eval_accuracy": value}
        self.log(metrics)
        self.control: Any = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _unwrapped(self, measure: Callable[[], float]) -> float:
        # Under bfloat16, accelerate has wrapped `forward` in autocast; test is measured without it, so
        # the checkpoint is chosen without it too.
        model: Any = self.model
        wrapped = model.__dict__.get("forward")
        plain = model.__dict__.get("_original_forward")
        if plain is None:
            return measure()
        model.forward = plain
        try:
            return measure()
        finally:
            model.forward = wrapped

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted: the estimate knows one task's input only."""
        return 0

    def _stateful(self) -> Iterator[Any]:
        return (each for each in self.callback_handler.callbacks if isinstance(each, ExportableState))

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """Save whole or not at all; what is not the best or the newest is deleted."""
        if self.sharded:
            super()._save_checkpoint(model, trial)
            return
        noise = self.parts.team.gather(checkpoint.noise())
        self.parts.team.first(lambda: self._write(noise))

    def _write(self, noise: list[checkpoint.Noise]) -> None:
        step, best = self.state.global_step, self.state.best_global_step
        states = {type(each).__name__: each.state() for each in [*self._stateful(), self.control]}
        self.state.stateful_callbacks = states
        notes = {
            STATE: asdict(self.state),
            SECONDS: self._seconds_before + time.monotonic() - self._started,
        }
        training = Training(self.model, self.optimizer, self.lr_scheduler)
        checkpoint.save(self.home, step, training, noise, notes)
        checkpoint.prune(self.home, step, best)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if self.sharded:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        folder = Path(resume_from_checkpoint)
        checkpoint.load_weights(folder, self.model)
        self._seconds_before = float(checkpoint.read(folder, SECONDS))

    def _load_optimizer_and_scheduler(self, folder: str | None) -> None:
        if self.sharded or folder is None:
            super()._load_optimizer_and_scheduler(folder)
            return
        checkpoint.load_optimizer(Path(folder), Training(self.model, self.optimizer, self.lr_scheduler))

    def _load_rng_state(self, folder: str | None) -> None:
        team = self.parts.team
        if self.sharded or folder is None:
            super()._load_rng_state(folder)
        elif not checkpoint.load_noise(Path(folder), team.rank, team.world):
            # Other processes than before have trained; no two of them may draw the same dropout.
            set_seed(self.args.seed + team.rank + team.world * self.state.global_step)

    def _load_callback_state(self) -> None:
        """Give the callbacks their states back; transformers would put new callbacks in their places."""
        stored = self.state.stateful_callbacks
        for callback in self._stateful():
            for name, value in stored.get(type(callback).__name__, {}).get("attributes", {}).items():
                setattr(callback, name, value)

    def take_from(self, folder: Path) -> None:
        """Take the outcome of a training that had ended when its process was killed."""
        self.state = TrainerState.load_from_json(str(folder / STATE))
        self._load_from_checkpoint(str(folder))

    def choose(self) -> None:
        """Take the weights of the best step, where there was a measure; the last step's otherwise."""
        best = self.state.best_global_step
        if not best or best == self.state.global_step:
            return
        if self.sharded:
            self.state.best_model_checkpoint = str(checkpoint.checkpoint(self.home, best))
            super()._load_best_model()
        else:
            checkpoint.load_weights(checkpoint.checkpoint(self.home, best), self.model)

    def seconds(self) -> float:
        """Seconds of training, over all the sessions that led here."""
        return self._seconds_before + time.monotonic() - self._started

    def newest(self) -> tuple[Path | None, list[Path]]:
        """The newest checkpoint that can be gone on from, and newer ones that are damaged."""
        if not self.sharded:
            return checkpoint.newest(self.home)
        found = get_last_checkpoint(str(self.home)) if self.home.is_dir() else None
        return (Path(found) if found else None), []


def has_ended(folder: Path) -> bool:
    """Whether training stops at this checkpoint: at the last step, or because patience ran out.

    Asked before a restart, since transformers takes back that patience had run out.
    """
    state = TrainerState.load_from_json(str(folder / STATE))
    control = (state.stateful_callbacks or {}).get("TrainerControl", {})
    stopped = bool(control.get("args", {}).get("should_training_stop"))
    return stopped or state.global_step >= state.max_steps
