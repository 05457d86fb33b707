"""The training stage: targets in, a folder with the best checkpoint out."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    EarlyStoppingCallback,
    PrinterCallback,
    TrainingArguments,
    set_seed,
)

from stepdistill.config import TrainConfig
from stepdistill.errors import StudentError
from stepdistill.files import need_space, publish, write_json, writing
from stepdistill.records import Target, Watcher
from stepdistill.student.card import CARD
from stepdistill.student.encode import Encoder, Item
from stepdistill.student.loss import contract
from stepdistill.student.machine import use_bfloat16, versions
from stepdistill.student.model import Student
from stepdistill.student.trainer import (
    Progress,
    StepByStepTrainer,
    has_ended,
    history,
    last_checkpoint,
    seconds_spent,
)


@dataclass(frozen=True)
class Lesson:
    """What one student is trained on and how it is chosen.

    `validate` measures a student on the validation split, a number from 0 to 1; None where there is
    no such split, and then the last step is kept. `asked` are the inputs that it will have to answer;
    they are checked before training. `facts` are added to the student's card.
    """

    name: str
    targets: Sequence[Sequence[Target]]
    validate: Callable[[Student, int], float] | None
    config: TrainConfig
    seed: int
    facts: dict[str, Any]
    asked: Sequence[str] = ()


def train(student: Student, lesson: Lesson, folder: Path, watch: Watcher) -> None:
    """Train, and leave the chosen student in `folder`: there whole, or not there at all.

    Interrupted, it goes on from the last checkpoint when called again with the same arguments, to
    the same weights.

    Raises:
        StudentError: a text is too long, or the loss is not finite.
        RunFolderError: the disk is full or not writable.
    """
    config = lesson.config
    positions = getattr(student.model.config, "max_position_embeddings", None)
    longest = config.max_input_tokens, config.max_target_tokens
    encoder = Encoder(student.tokenizer, student.family, *longest, positions)
    items = encoder.items(lesson.targets)
    limits = new_token_limits(items)
    encoder.check_inputs(lesson.asked, limits["label"])
    work = _work(folder)
    with writing(work):
        work.mkdir(parents=True, exist_ok=True)
    # Two checkpoints (weights and two moments) while a third is being written, and the result.
    there = sum(path.stat().st_size for path in work.rglob("*") if path.is_file())
    need_space(work, max(student.parameters * 4 * 10 - there, 0), f"training {lesson.name}")
    trainer = _trainer(student, lesson, items, work, watch)
    last = last_checkpoint(work)
    if last and has_ended(last):
        trainer.take_from(last)
    else:
        _fit(trainer, last)
    _keep(trainer, student, lesson, limits, folder)
    forget_work(folder)


def _fit(trainer: StepByStepTrainer, last: Path | None) -> None:
    try:
        trainer.train(resume_from_checkpoint=str(last) if last else None)
    except torch.OutOfMemoryError:
        raise StudentError(
            "not enough memory on the GPU; lower train.micro_batch_size (a divisor of train.batch_size; the "
            "result stays the same), then run again"
        ) from None


def forget_work(folder: Path) -> None:
    """Delete the checkpoints of a student that is finished."""
    shutil.rmtree(_work(folder), ignore_errors=True)


def _work(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.work")


def new_token_limits(items: Sequence[Item]) -> dict[str, int]:
    """How many tokens a prediction of each task may have: a quarter more than any target, and 4."""
    limits: dict[str, int] = {}
    for item in items:
        for task, encoded in item.items():
            limits[task] = max(limits.get(task, 0), len(encoded.target) * 5 // 4 + 4)
    return limits


def _trainer(
    student: Student, lesson: Lesson, items: Sequence[Item], work: Path, watch: Watcher
) -> StepByStepTrainer:
    config, validate = lesson.config, lesson.validate
    limit = new_token_limits(items)["label"]
    encoder = Encoder(student.tokenizer, student.family, 0, 0)
    set_seed(lesson.seed)
    trainer = StepByStepTrainer(
        model=student.model,
        args=_arguments(config, lesson.seed, work, validate is not None),
        train_dataset=list(items),
        eval_dataset=list(items[:1]) if validate else None,
        data_collator=encoder.collate,
        family=student.family,
        weight=config.rationale_weight,
        mean=config.loss_mean,
        validate=(lambda: validate(student, limit)) if validate else None,
        callbacks=[Progress(f"train {lesson.name}", config.batch_size, watch)],
    )
    trainer.remove_callback(PrinterCallback)
    if validate:
        trainer.add_callback(EarlyStoppingCallback(config.patience))
    return trainer


def _arguments(config: TrainConfig, seed: int, work: Path, select: bool) -> TrainingArguments:
    micro = config.micro_batch_size or config.batch_size
    arguments = TrainingArguments(
        output_dir=str(work),
        num_train_epochs=config.epochs,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=config.batch_size // micro,
        learning_rate=config.learning_rate,
        warmup_steps=config.warmup_steps,
        lr_scheduler_type="linear",
        optim="adamw_torch_fused",
        seed=seed,
        bf16=use_bfloat16(config),
        use_cpu=not torch.cuda.is_available(),
        eval_strategy="epoch" if select else "no",
        save_strategy="epoch",
        save_total_limit=2,
        load_best_model_at_end=select,
        metric_for_best_model="eval_accuracy" if select else None,
        greater_is_better=True if select else None,
        restore_callback_states_from_checkpoint=True,
        logging_strategy="epoch",
        logging_nan_inf_filter=False,
        remove_unused_columns=False,
        disable_tqdm=True,
        report_to="none",
        dataloader_pin_memory=torch.cuda.is_available(),
    )
    if arguments.world_size > 1:
        raise StudentError(
            f"started as {arguments.world_size} processes; this version trains in one: start it without "
            "a launcher"
        )
    if arguments.n_gpu > 1:
        # transformers would run a batch on each of them, and train.batch_size would not be what it says.
        arguments._n_gpu = 1
    return arguments


def _keep(
    trainer: StepByStepTrainer,
    student: Student,
    lesson: Lesson,
    limits: dict[str, int],
    folder: Path,
) -> None:
    draft = folder.with_name(f".{folder.name}.draft")
    with writing(draft):
        shutil.rmtree(draft, ignore_errors=True)
        student.model.save_pretrained(draft)
        student.tokenizer.save_pretrained(draft)
        write_json(draft / "log.json", history(trainer.state.log_history))
        write_json(
            draft / CARD,
            {
                **lesson.facts,
                "name": lesson.name,
                "family": student.family,
                "parameters": student.parameters,
                "n_train": len(lesson.targets),
                "new_tokens": limits,
                "loss": contract(lesson.config.rationale_weight, lesson.config.loss_mean),
                "versions": versions(),
                "precision": "bfloat16" if trainer.args.bf16 else "float32",
                "chosen_step": trainer.state.best_global_step or trainer.state.global_step,
                "steps": trainer.state.global_step,
                "validation": trainer.state.best_metric,
            },
        )
        write_json(draft / "seconds.json", seconds_spent(trainer.args.output_dir))
    publish(draft, folder)
