"""A `train` section as transformers' TrainingArguments, with the defaults that depend on the student."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from transformers import TrainingArguments

from stepdistill.config import TrainConfig
from stepdistill.config.train import Tracker
from stepdistill.errors import MissingExtraError
from stepdistill.student.machine import Machine
from stepdistill.student.model import SCRATCH
from stepdistill.student.team import Team
from stepdistill.weights import Family

if TYPE_CHECKING:
    from stepdistill.student.train import Lesson

CLIP = 1.0
"""The gradient of a step is scaled down to this norm at most."""

_PACKAGES: dict[Tracker, tuple[str, ...]] = {
    "tensorboard": ("tensorboard", "tensorboardX"),
    "wandb": ("wandb",),
    "mlflow": ("mlflow",),
    "trackio": ("trackio",),
}


def learning_rate(lesson: Lesson, family: Family) -> float:
    """The learning rate of a lesson: as configured, or what suits the kind of student."""
    if lesson.config.learning_rate is not None:
        return lesson.config.learning_rate
    if lesson.facts.get("student") == SCRATCH:
        return 1e-3
    if lesson.lora:
        return 5e-4
    return 2e-4 if family == "causal" else 1e-4


def micro_batch(config: TrainConfig, world: int) -> int:
    """Examples that a process works on at once, at most."""
    return config.micro_batch_size or max(1, config.batch_size // world)


def arguments(lesson: Lesson, family: Family, work: Path, machine: Machine, team: Team) -> TrainingArguments:
    """What transformers is told.

    Raises:
        MissingExtraError: a tracker's package is not installed.
    """
    config = lesson.config
    team.alike(lambda: check_trackers(config))
    micro = micro_batch(config, team.world)
    made = TrainingArguments(
        output_dir=str(work),
        run_name=lesson.name,
        project="stepdistill",
        num_train_epochs=config.epochs,
        max_steps=config.steps or -1,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=config.batch_size // (micro * team.world),
        learning_rate=learning_rate(lesson, family),
        warmup_steps=config.warmup_steps,
        lr_scheduler_type="linear",
        optim="adamw_torch_fused",
        max_grad_norm=CLIP,
        seed=lesson.seed,
        bf16=machine.bfloat16,
        use_cpu=machine.device == "cpu",
        activation_checkpointing=config.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False},
        # When to log, measure and save is `Flow`'s to say.
        eval_strategy="no",
        logging_strategy="no",
        save_strategy="steps",
        save_total_limit=2,
        metric_for_best_model="eval_accuracy" if lesson.validate else None,
        greater_is_better=True if lesson.validate else None,
        logging_nan_inf_filter=False,
        remove_unused_columns=False,
        disable_tqdm=True,
        report_to=list(config.report_to) or "none",
        # Every micro-batch uses all weights; looking for others each time costs, and warns.
        ddp_find_unused_parameters=False,
        dataloader_num_workers=config.workers,
        dataloader_pin_memory=machine.device == "cuda",
    )
    if made.n_gpu > 1:
        # transformers would run a batch on each of them, and train.batch_size would not be what it says.
        made._n_gpu = 1
    return made


def check_trackers(config: TrainConfig) -> None:
    """Refuse a tracker whose package is not installed.

    Raises:
        MissingExtraError: naming the extra.
    """
    for name in config.report_to:
        if not any(importlib.util.find_spec(package) for package in _PACKAGES[name]):
            raise MissingExtraError(f"train.report_to: {name}", name)
